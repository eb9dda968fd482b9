"""`pagemill bench`: accuracy, CPU seconds and memory on scans with truth, beside Tesseract where it is installed.

Every system gets one core and one thread, and CPU seconds are compared, not wall time: a shared machine is not stable.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ocr_model.errors import BadInput, MissingDependency, PagemillError
from ocr_model.metrics import Totals
from pipelines.evaluate import TRUTH_SUFFIX, EvaluateOptions, Report, evaluate

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".jp2")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
COLUMNS = (
    "system", "source", "items", "CER %", "order-free CER %", "bag-of-words error %", "CPU s an item", "start-up CPU s",
    "peak MB",
)  # fmt: skip

BENCH_EXAMPLES = """examples:
  pagemill bench --data DATA --tesseract eng --sample 60
  pagemill bench --data DATA --mode lines --source letters --json figures.json

DATA holds SOURCE/pages and SOURCE/lines with NAME.png (or .jpg, .tif) and NAME.gt.txt."""


@dataclass(frozen=True)
class Item:
    """An image with its truth. `source` is the folder that it is counted under."""

    source: str
    image: Path
    truth: Path


@dataclass(frozen=True)
class Cost:
    """What a process and its children used."""

    cpu_s: float
    peak_rss_mb: float


@dataclass(frozen=True)
class Result:
    """One system on one sample.

    Attributes:
        start_up_cpu_s: of a run over a single image, less what an image costs.
        cpu_s_per_item: of a run over all images, start-up taken off.
    """

    system: str
    report: Report
    start_up_cpu_s: float
    cpu_s_per_item: float
    peak_rss_mb: float


def find_items(data: Path, mode: str, sources: Sequence[str]) -> list[Item]:
    """Images with truth in `SOURCE/MODE` below a folder, MODE being `pages` or `lines`.

    Raises:
        BadInput: there is none.
    """
    found = []
    for folder in sorted(data.glob(f"*/{mode}")):
        if sources and folder.parent.name not in sources:
            continue
        for image in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            truth = image.with_suffix(TRUTH_SUFFIX)
            if truth.exists():
                found.append(Item(folder.parent.name, image, truth))
    if not found:
        raise BadInput(
            f"no image with truth in {data}/SOURCE/{mode}", "expected NAME.png (or .jpg, .tif) with NAME.gt.txt"
        )
    return found


def stratified(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """`count` items, from each source in turn; all where `count` is 0 or more than there are."""
    if count <= 0 or count >= len(items):
        return list(items)
    by_source: dict[str, list[Item]] = {}
    for item in items:
        by_source.setdefault(item.source, []).append(item)
    rng = random.Random(seed)
    for source in sorted(by_source):
        rng.shuffle(by_source[source])
    rounds = max(map(len, by_source.values()))
    dealt = [by_source[s][i] for i in range(rounds) for s in sorted(by_source) if i < len(by_source[s])]
    return dealt[:count]


def pagemill_command(mode: str) -> Callable[[Path, Path], list[list[str]]]:
    """The command that reads a folder; text ends in `OUT/txt`."""
    extra = ["--single-line"] if mode == "lines" else []

    def command(images: Path, out: Path) -> list[list[str]]:
        return [[sys.executable, "-m", "pipelines.cli", "transcribe", str(images), "--output", str(out), *extra]]

    return command


def tesseract_command(mode: str, language: str) -> Callable[[Path, Path], list[list[str]]]:
    """One Tesseract process an image, as its command line is used; text ends in `OUT/txt`."""

    def command(images: Path, out: Path) -> list[list[str]]:
        commands = []
        for image in sorted(p for p in images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
            target = out / "txt" / image.relative_to(images).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            segmentation = "3" if mode == "pages" else "7"
            commands.append(["tesseract", str(image), str(target), "-l", language, "--oem", "1", "--psm", segmentation])
        return commands

    return command


def run_on_one_core(commands: Sequence[Sequence[str]]) -> Cost:
    """Runs commands one after the other on one core with one thread.

    The peak memory is that of the largest process, and never less than this process has had itself, which stays small.

    Raises:
        PagemillError: one of them failed; exit code 3 (dead letters) of `transcribe` is no failure.
    """
    core = min(os.sched_getaffinity(0))
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    cpu_s, peak_kb = 0.0, 0
    for command in commands:
        with tempfile.TemporaryFile() as words:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command], env=environment, stdout=subprocess.DEVNULL, stderr=words
            )
            _, status, used = os.wait4(process.pid, 0)  # what this process and its children used, and no other
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode not in (0, 3):
                words.seek(0)
                last = words.read().decode(errors="replace").strip()[-300:]
                raise PagemillError(f"{command[0]} ended with exit code {process.returncode}: {last}")
        cpu_s += used.ru_utime + used.ru_stime
        peak_kb = max(peak_kb, used.ru_maxrss)
    return Cost(cpu_s, peak_kb / 1024)


def measure(
    system: str, command: Callable[[Path, Path], list[list[str]]], items: Sequence[Item], ignore_case: Sequence[str]
) -> Result:
    """Runs a system over the first image alone and over all, and compares its text with the truth."""
    costs = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, part in (("one", items[:1]), ("all", items)):
            images, truths, out = (Path(temporary, name, kind) for kind in ("images", "truth", "out"))
            for item in part:
                for folder, file, suffix in (
                    (images, item.image, item.image.suffix),
                    (truths, item.truth, TRUTH_SUFFIX),
                ):
                    target = folder / item.source / (item.image.stem + suffix)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
            costs.append(run_on_one_core(command(images, out)))
        report = evaluate(EvaluateOptions(truths, out / "txt", ignore_case=tuple(ignore_case)))
    one, everything = costs
    each = (everything.cpu_s - one.cpu_s) / max(1, len(items) - 1)
    return Result(system, report, max(0.0, one.cpu_s - each), each, everything.peak_rss_mb)


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table, a row a system and source."""
    rows = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for result in results:
        rows.append(_row(result, "all", result.report.overall(), measured=True))
        rows += [_row(result, name, totals, measured=False) for name, totals in result.report.by_group().items()]
    return "\n".join(rows)


def _row(result: Result, source: str, totals: Totals, measured: bool) -> str:
    cost = ["", "", ""]
    if measured:
        cost = [f"{result.cpu_s_per_item:.3f}", f"{result.start_up_cpu_s:.1f}", f"{result.peak_rss_mb:.0f}"]
    rates = [f"{100 * rate:.2f}" for rate in (totals.cer, totals.order_free_cer, totals.bag_of_words_error)]
    return "| " + " | ".join([result.system, source, str(totals.pages), *rates, *cost]) + " |"


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill bench`."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="scans with truth: SOURCE/pages, SOURCE/lines"
    )
    parser.add_argument("--mode", choices=("pages", "lines"), default="pages", help="whole pages or line images")
    parser.add_argument(
        "--source", action="append", default=[], metavar="NAME", help="only this source (may be repeated)"
    )
    parser.add_argument(
        "--ignore-case", action="append", default=[], metavar="NAME", help="sources whose truth has no case"
    )
    parser.add_argument(
        "--sample", type=int, default=0, metavar="N", help="so many images, from each source in turn (default all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--tesseract", metavar="LANGUAGE", help="measure the tesseract command too, with this language")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")


def bench(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill bench`."""
    items = stratified(find_items(arguments.data, arguments.mode, arguments.source), arguments.sample, arguments.seed)
    systems = {"pagemill": pagemill_command(arguments.mode)}
    if arguments.tesseract:
        if shutil.which("tesseract") is None:
            raise MissingDependency("the tesseract command is not installed", "Debian: apt-get install tesseract-ocr")
        systems["tesseract"] = tesseract_command(arguments.mode, arguments.tesseract)
    results = [measure(name, command, items, arguments.ignore_case) for name, command in systems.items()]
    print(f"**{arguments.mode.capitalize()}**, `pagemill bench --mode {arguments.mode}`, one core, one thread:\n")
    print(table(results))
    if arguments.json:
        arguments.json.write_text(
            json.dumps([_as_json(result) for result in results], indent=1) + "\n", encoding="utf-8"
        )
    return 0


def _as_json(result: Result) -> dict[str, object]:
    return {
        "system": result.system,
        "cpu_s_per_item": result.cpu_s_per_item,
        "start_up_cpu_s": result.start_up_cpu_s,
        "peak_rss_mb": result.peak_rss_mb,
        "all": asdict(result.report.overall()),
        "by_source": {name: asdict(totals) for name, totals in result.report.by_group().items()},
    }
