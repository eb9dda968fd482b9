"""The figures of `pagemill transcribe` at scale; each is made by a command of its own.

    python -m tests.figures.transcribe overhead             pipeline against a plain loop, in CPU seconds
    python -m tests.figures.transcribe workers              pages a second of two workers against one
    python -m tests.figures.transcribe memory --pages 20000 resident memory over a long run of small pages
    python -m tests.figures.transcribe a4                   peak memory of each process over full A4 pages at 300 dpi
    python -m tests.figures.transcribe hang                 what a page costs that hangs in the decoder or the reader
    python -m tests.figures.transcribe kill --rounds 20     kill -9 at random moments, then the same outputs
    python -m tests.figures.transcribe identical            the same pages alone, among others, with two workers
    python -m tests.figures.transcribe estimate             an estimate from 50 pages against a run of 1,000
    python -m tests.figures.transcribe plan                 a manifest of a million rows: time, memory, graph
    python -m tests.figures.transcribe simulate             units, ledger and status without a model

All take the sample scans unless `--scans DIR` names others. CPU seconds are those of a process and its children.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from ocr_model.document import Page

ROOT = Path(__file__).parents[2]
IMAGES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}
WARM_PAGES = 24


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *argv]


def cpu_of(argv: Sequence[str], threads: int | None = None) -> tuple[float, float]:
    """CPU and wall seconds of a command with all that it starts.

    Args:
        threads: that TensorFlow may compute with in each process; None is what the command chooses.

    Raises:
        RuntimeError: it failed; exit code 3 (dead letters) is no failure.
    """
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=_environment(threads))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.monotonic() - began


def _environment(threads: int | None) -> dict[str, str]:
    held = {} if threads is None else dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(threads))
    return {**os.environ, **held}


def scans_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)


def make_corpus(folder: Path, scans: Path, files: int) -> Path:
    """A folder of so many files, the scans again and again."""
    folder.mkdir(parents=True)
    sources = scans_of(scans)
    for n in range(files):
        source = sources[n % len(sources)]
        shutil.copy(source, folder / f"{n:06}{source.suffix}")
    return folder


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pagemill-figures-") as folder:
        yield Path(folder)


LOOP = """
import sys
from ocr_model.images import open_document
from ocr_model.reader import Reader
reader = Reader.load()
batch, pages = [], 0
for path in sys.argv[1:]:
    document = open_document(open(path, "rb").read())
    for index in range(document.page_count):
        batch.append(document.decode(index).pixels)
        pages += 1
        if len(batch) == 16:
            reader.read(batch)
            batch = []
if batch:
    reader.read(batch)
print(pages)
"""


def overhead(arguments: argparse.Namespace) -> dict[str, object]:
    """CPU seconds of the pipeline against those of a loop over `Reader.read`, start-up taken off by a short run."""
    with workplace() as place:
        short = make_corpus(place / "short", arguments.scans, WARM_PAGES)
        long = make_corpus(place / "long", arguments.scans, WARM_PAGES + arguments.files)
        loops, pipelines = [], []
        for _ in range(arguments.repeats):
            loops.append(_cpu_between(_loop(short), _loop(long)))
            pipelines.append(_cpu_between(_pipeline(place, short), _pipeline(place, long)))
    loop_cpu, pipe_cpu = float(np.median(loops)), float(np.median(pipelines))
    return {
        "files": arguments.files,
        "cpu_s_loop": round(loop_cpu, 2),
        "cpu_s_pipeline": round(pipe_cpu, 2),
        "overhead": round(pipe_cpu / loop_cpu - 1, 3),
    }


def _loop(folder: Path) -> list[str]:
    return [sys.executable, "-c", LOOP, *map(str, scans_of(folder))]


def _pipeline(place: Path, folder: Path, *flags: str) -> list[str]:
    out = tempfile.mkdtemp(dir=place)
    return command("transcribe", str(folder), "--output", out, "--duplicates", "each", *flags)


def _cpu_between(short: Sequence[str], long: Sequence[str]) -> float:
    few, many = cpu_of(short), cpu_of(long)
    return many[0] - few[0]


def workers(arguments: argparse.Namespace) -> dict[str, object]:
    """Pages a second of two workers against one, from the first unit's start to the last one's end; the one as it
    comes, and held to one thread of TensorFlow, as each of the two is. The repeats take turns; where other processes
    used more than a few CPU seconds, the figures say little."""
    ways: dict[str, tuple[int, int | None]] = {"one": (1, None), "one_with_one_thread": (1, 1), "two": (2, None)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with workplace() as place:
        folder = make_corpus(place / "in", arguments.scans, arguments.files)
        for _ in range(arguments.repeats):
            for name, (count, threads) in ways.items():
                out = place / "out"
                flags = ("--output", str(out), "--duplicates", "each", "--workers", str(count))
                busy_s = _busy_s()
                cpu_s, _ = cpu_of(command("transcribe", str(folder), *flags), threads)
                found[name].append({**_status(out), "cpu_s_of_others": _busy_s() - busy_s - cpu_s})
                shutil.rmtree(out)
    told = ("pages_per_s", "cpu_s", "cpu_s_of_others")
    median = {
        name: {what: round(float(np.median([run[what] for run in runs])), 3) for what in told}
        for name, runs in found.items()
    }
    pace = {name: values["pages_per_s"] for name, values in median.items()}
    return {
        "files": arguments.files,
        **median,
        "two_against_one": round(pace["two"] / pace["one"], 2),
        "two_against_one_with_one_thread": round(pace["two"] / pace["one_with_one_thread"], 2),
    }


def _busy_s() -> float:
    """CPU seconds of all processes of this machine so far: who is beside slows down what is measured."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _status(out: Path) -> dict[str, Any]:
    argv = command("status", str(out), "--json")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def memory(arguments: argparse.Namespace) -> dict[str, object]:
    """Resident memory of the job over a long run of small pages."""
    with workplace() as place:
        folder = place / "in"
        folder.mkdir()
        rng = random.Random(1)
        for n in range(arguments.pages):
            _small_page(rng, n).save(folder / f"{n:06}.png")
        out = place / "out"
        argv = command("transcribe", str(folder), "--output", str(out), "--duplicates", "each")
        job = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples: list[tuple[int, float]] = []
        while job.poll() is None:
            time.sleep(0.5)
            samples.append((_pages_done(out), _rss_mb(job.pid)))
    early = [rss for pages, rss in samples if 1000 <= pages <= 2000]
    late = [rss for pages, rss in samples if pages >= 0.95 * arguments.pages]
    return {
        "pages": arguments.pages,
        "rss_mb_at_1000": round(float(np.median(early)), 1),
        "rss_mb_at_the_end": round(float(np.median(late)), 1),
        "ratio": round(float(np.median(late) / np.median(early)), 3),
        "peak_mb": round(max(rss for _, rss in samples), 1),
    }


A4_PX = (2480, 3508)  # at 300 dpi


def a4(arguments: argparse.Namespace) -> dict[str, object]:
    """Peak resident memory of launcher, worker and decoder over full A4 pages, into which the scans are fitted; and
    which part of the worker's is its own, and not pages of files that the system can take back."""
    with workplace() as place:
        scans = scans_of(arguments.scans)
        (place / "in").mkdir()
        for path in scans:
            page = ImageOps.pad(Image.open(path).convert("L"), A4_PX, color=255)
            for n in range(arguments.files // len(scans)):
                page.save(place / "in" / f"{n:03}-{path.stem}.png", dpi=(300, 300))
        argv = command("transcribe", str(place / "in"), "--output", str(place / "out"), "--duplicates", "each")
        job = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak_mb: dict[str, float] = {}
        while job.poll() is None:
            time.sleep(0.2)
            for part, values in _memory_by_part(job.pid):
                for what, mb in values.items():
                    peak_mb[f"{part} {what}"] = max(peak_mb.get(f"{part} {what}", 0.0), mb)
        pages = _status(place / "out")["counts"]["read"]
    return {"pages": pages, "peak_mb": {name: round(mb) for name, mb in sorted(peak_mb.items())}}


def _memory_by_part(pid: int) -> Iterator[tuple[str, dict[str, float]]]:
    """(launcher, worker or decoder, megabytes) of a supervised job and its processes."""
    todo = [(pid, "launcher")]
    while todo:
        current, part = todo.pop()
        try:
            command_line = Path(f"/proc/{current}/cmdline").read_text()
            lines = Path(f"/proc/{current}/status").read_text().splitlines()
            children = [c for f in Path(f"/proc/{current}/task").glob("*/children") for c in f.read_text().split()]
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "decoder_process" in command_line:
            part = "decoder"
        if "VmHWM" in fields:
            yield part, {"in all": _mb(fields["VmHWM"]), "its own": _mb(fields["RssAnon"])}
        todo += [(int(child), "worker") for child in children]


def _mb(kilobytes: str) -> float:
    return int(kilobytes.split()[0]) / 1024


def _small_page(rng: random.Random, number: int) -> Image.Image:
    image = Image.new("L", (360, 120), 250)
    draw = ImageDraw.Draw(image)
    draw.text((20, 20), f"Page {number} of the ledger", fill=20, font_size=22)
    draw.text((20, 60), f"{rng.randrange(10**6)} received", fill=20, font_size=22)
    return image


def _pages_done(out: Path) -> int:
    """Pages in the ledger, by the names of its entries: units are of one size but the last."""
    units = out / "ledger" / "units"
    index = out / "ledger" / "plan" / "0001.index"
    if not (units.is_dir() and index.exists()):
        return 0
    done = {name[: -len(".json")] for name in os.listdir(units) if name.endswith(".json")}
    sizes = (json.loads(line) for line in index.read_text().splitlines())
    return sum(files for name, _, _, files, _ in sizes if name in done)


def _rss_mb(pid: int) -> float:
    """Of a process and all that it started."""
    total, todo = 0.0, [pid]
    while todo:
        current = todo.pop()
        try:
            status = Path(f"/proc/{current}/status").read_text()
            children = [f.read_text().split() for f in Path(f"/proc/{current}/task").glob("*/children")]
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
        todo += [int(child) for group in children for child in group]
    return total


def kill(arguments: argparse.Namespace) -> dict[str, object]:
    """Kills worker or launcher at random moments, runs again, and compares with a run that nobody disturbed."""
    rng = random.Random(arguments.seed)
    formats = "txt,jsonl,hocr,alto,page,tsv,pdf,parquet"
    with workplace() as place:
        folder = make_corpus(place / "in", arguments.scans, arguments.files)

        def argv(out: Path) -> list[str]:
            flags = ("--duplicates", "each", "--format", formats, "--workers", str(arguments.workers))
            return command("transcribe", str(folder), "--output", str(out), *flags)

        began = time.monotonic()
        cpu_of(argv(place / "whole"))
        span_s = time.monotonic() - began
        out, kills, runs, redone, same = place / "broken", 0, 0, 0, True
        finished: dict[str, str] = {}
        while kills < arguments.rounds:
            job = subprocess.Popen(argv(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                job.wait(rng.uniform(0.05, 0.6) * span_s)
            except subprocess.TimeoutExpired:
                kills += 1
                _kill(job, launcher_too=rng.random() < 0.5)
            redone += _redone(out, finished)
            if job.returncode == 0:  # the folder is complete: it is compared, and the next one begun
                runs, same = runs + 1, same and _outputs(out) == _outputs(place / "whole")
                shutil.rmtree(out)
                finished.clear()
        cpu_of(argv(out))
        redone += _redone(out, finished)
        same = same and _outputs(out) == _outputs(place / "whole")
    return {
        "kills": kills,
        "complete_runs": runs + 1,
        "units_of_a_run": len(finished),
        "done_twice": redone,
        "same": same,
    }


SUPERVISED = """
import sys
from pipelines.supervise import supervise
place, *argv = sys.argv[1:]
command = (sys.executable, "-m", "tests.figures.hanging_page", place)
sys.exit(supervise(argv, argv[argv.index("--output") + 1], 1, 3, command))
"""


def hang(arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds that a page costs which hangs somewhere, beside its limit: against a run in which it is read."""
    from tests.figures.hanging_page import PLACES, WIDTH_PX

    with workplace() as place:
        folder = make_corpus(place / "in", arguments.scans, arguments.files)
        source = Image.open(scans_of(arguments.scans)[0]).convert("L")
        height = round(source.height * WIDTH_PX / source.width)
        source.resize((WIDTH_PX, height)).save(folder / f"{arguments.files // 2:06}-hangs.png")

        def seconds(where: str) -> float:
            out = tempfile.mkdtemp(dir=place)
            flags = ("--output", out, "--duplicates", "each", "--timeout-s", str(arguments.limit))
            _, wall_s = cpu_of([sys.executable, "-c", SUPERVISED, where, "transcribe", str(folder), *flags])
            letters = (Path(out) / "dead_letters.jsonl").read_text().splitlines()
            dead = [Path(json.loads(letter)["path"]).stem for letter in letters]
            assert len(dead) == (where != "nowhere") and all(name.endswith("hangs") for name in dead), dead
            return wall_s

        usual_s = float(np.median([seconds("nowhere") for _ in range(arguments.repeats)]))
        over = {
            where: round(float(np.median([seconds(where) for _ in range(arguments.repeats)])) - usual_s, 1)
            for where in PLACES
            if where != "nowhere"
        }
    return {
        "files": arguments.files + 1,
        "limit_s": arguments.limit,
        "usual_s": round(usual_s, 1),
        "over_the_usual_s": over,
        "over_the_limit_s": {where: round(cost_s - arguments.limit, 1) for where, cost_s in over.items()},
    }


def identical(arguments: argparse.Namespace) -> dict[str, object]:
    """The same pages alone, among others, and with two workers: how many output files differ."""
    formats = "txt,jsonl,hocr,alto,page,tsv,pdf,pdfa,overlay"
    with workplace() as place:
        folder = make_corpus(place / "in", arguments.scans, arguments.files)

        def outputs(inputs: Path, *flags: str) -> dict[str, str]:
            out = Path(tempfile.mkdtemp(dir=place))
            argv = ("transcribe", str(inputs), "--output", str(out), "--duplicates", "each", "--format", formats)
            cpu_of(command(*argv, *flags))
            return {name: d for name, d in _outputs(out).items() if "/" in name}

        together = outputs(folder)
        two_workers = outputs(folder, "--workers", "2")
        files = sorted(folder.iterdir())[:: max(1, arguments.files // arguments.alone)]
        alone = {name: digest for file in files for name, digest in outputs(file).items()}
    return {
        "files": arguments.files,
        "outputs": len(together),
        "outputs_alone": len(alone),
        "differ_alone": sum(together.get(name) != digest for name, digest in alone.items()),
        "differ_with_two_workers": sum(two_workers.get(name) != digest for name, digest in together.items()),
    }


def _kill(job: subprocess.Popen[bytes], launcher_too: bool) -> None:
    """Kills the job's worker, or it and its launcher; a launcher that is left finishes by itself."""
    children = [child for f in Path(f"/proc/{job.pid}/task").glob("*/children") for child in f.read_text().split()]
    if launcher_too:
        job.kill()
    for child in children:
        with_children = [c for f in Path(f"/proc/{child}/task").glob("*/children") for c in f.read_text().split()]
        for pid in [child, *with_children][: 1 if len(with_children) % 2 else None]:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
    job.wait()


def _redone(out: Path, finished: dict[str, str]) -> int:
    """Units whose entry has changed since it was first seen; adds the new ones."""
    changed = 0
    for entry in (out / "ledger" / "units").glob("??????-????????.json"):
        text = entry.read_text()
        changed += finished.setdefault(entry.name, text) != text
    return changed


def _outputs(out: Path) -> dict[str, str]:
    """Digest of every file that is no book-keeping."""
    files = (path for path in out.rglob("*") if path.is_file() and "ledger" not in path.relative_to(out).parts)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def estimate(arguments: argparse.Namespace) -> dict[str, object]:
    """CPU seconds that an estimate from a sample foretells, against those of the whole run."""
    with workplace() as place:
        folder = make_corpus(place / "in", arguments.scans, arguments.files)
        argv = command("estimate", str(folder), "--sample", str(arguments.sample), "--json")
        told = json.loads(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        cpu_of(command("transcribe", str(folder), "--output", str(place / "out"), "--duplicates", "each"))
        was = _status(place / "out")
    return {
        "pages": was["counts"]["pages"],
        "estimated_pages": told["pages"]["mean"],
        "measured_cpu_s": was["cpu_s"],
        "estimated_cpu_s": told["cpu_s"],
        "ratio": round(told["cpu_s"]["mean"] / was["cpu_s"], 3),
    }


class NoReader:
    """Reads nothing, at once."""

    def __init__(self, bundle: str | None = None) -> None:
        pass

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        return [Page(image.shape[1], image.shape[0]) for image in images]

    read_single_lines = read


PLAN = """
import json, resource, sys, time
import apache_beam as beam
from pipelines.outputs import prepare_output
from pipelines.transcribe import TranscribeOptions, build, prepare
began = time.process_time()
options = TranscribeOptions(inputs=(sys.argv[1],), output=sys.argv[2])
prepare_output(options.output)
planned = prepare(options)
cpu_s = time.process_time() - began
pipeline = beam.Pipeline(runner="FnApiRunner")
build(pipeline, planned.options)
size = len(pipeline.to_runner_api().SerializeToString())
again = time.process_time()
prepare(options)
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"files": planned.files, "units": planned.units, "cpu_s": round(cpu_s, 1), "peak_mb": round(peak_mb),
                  "cpu_s_again": round(time.process_time() - again, 1), "graph_bytes": size}))
"""


def plan(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Listing and planning of manifests of ten rows and of a million."""
    results = []
    for rows in (10, arguments.rows):
        with workplace() as place:
            manifest = place / "corpus.csv"
            with manifest.open("w") as stream:
                stream.write("path,language,year\n")
                stream.writelines(
                    f"gs://archive-scans/series-{n // 1000:04}/box-{n % 1000:04}/scan-{n:08}.jpg,en,{1900 + n % 60}\n"
                    for n in range(rows)
                )
            argv = [sys.executable, "-c", PLAN, str(manifest), str(place / "out")]
            results.append(
                json.loads(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
            )
    return results


def simulate(arguments: argparse.Namespace) -> dict[str, object]:
    """A run without a model over tiny pages: what planning, units, ledger and status take for a page."""
    from pipelines.clock import cpu_seconds
    from pipelines.report import reconcile
    from pipelines.transcribe import TranscribeOptions, run

    with workplace() as place:
        folder = place / "in"
        folder.mkdir()
        Image.new("L", (8, 8), 255).save(place / "dot.png")
        for n in range(arguments.pages):
            os.link(place / "dot.png", folder / f"{n:07}.png")
        began, began_cpu = time.monotonic(), cpu_seconds()
        run(TranscribeOptions((str(folder),), str(place / "out"), load=NoReader, copies=False))
        run_s, run_cpu = time.monotonic() - began, cpu_seconds() - began_cpu
        began = time.monotonic()
        report = reconcile(str(place / "out"))
        status_s = time.monotonic() - began
        ledger_bytes = sum(f.stat().st_size for f in (place / "out" / "ledger").rglob("*") if f.is_file())
    return {
        "pages": arguments.pages,
        "units": len(report.entries),
        "cpu_ms_a_page": round(1000 * run_cpu / arguments.pages, 2),
        "wall_s": round(run_s, 1),
        "status_s": round(status_s, 2),
        "ledger_bytes_a_page": round(ledger_bytes / arguments.pages),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "threads": threading.active_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, default=ROOT / "samples", help="folder of images (default: the samples)")
    figures = parser.add_subparsers(dest="figure", required=True)
    for function, numbers in (
        (overhead, {"files": 300, "repeats": 3}),
        (workers, {"files": 208, "repeats": 1}),
        (memory, {"pages": 20_000}),
        (a4, {"files": 40}),
        (kill, {"rounds": 20, "files": 60, "workers": 1, "seed": 1}),
        (hang, {"files": 31, "limit": 20, "repeats": 1}),
        (identical, {"files": 64, "alone": 8}),
        (estimate, {"files": 1000, "sample": 50}),
        (plan, {"rows": 1_000_000}),
        (simulate, {"pages": 50_000}),
    ):
        figure = figures.add_parser(function.__name__, help=" ".join((function.__doc__ or "").split()))
        for name, default in numbers.items():
            figure.add_argument(f"--{name}", type=int, default=default)
        figure.set_defaults(make=function)
    arguments = parser.parse_args()
    print(json.dumps(arguments.make(arguments), indent=1))


if __name__ == "__main__":
    main()
