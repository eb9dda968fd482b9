"""The figures of `pagemill ingest` at scale; each is made by a command of its own.

    python -m tests.figures.ingest memory --pages 20000      peak memory with so many pages of 50 KB
    python -m tests.figures.ingest throughput --pages 1500   pipeline against a plain loop; two workers against one
    python -m tests.figures.ingest features --pages 20000    time and memory of tf.Transform's part
    python -m tests.figures.ingest kill --rounds 5           kill -9 at random moments, then the same records

Damaged and hostile files: `pytest -m slow tests/pipelines/test_ingest_fuzz.py`. CPU seconds are those of a process and
its children.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ocr_model.record_files import MANIFEST

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "pipelines.cli", "ingest")
PAGE_BYTES = 50_000
SHORT = 32

LOOP = """
import sys
from pathlib import Path
from ocr_model.examples import PageExample, write_line, write_page
from ocr_model.record_files import RecordWriter
from pipelines.decoder import Decoder
from pipelines.ingest_pages import IngestSettings, ingest_items
from pipelines.pairing import find_pairs
from pipelines.plan import Item
from pipelines.read_pages import Observed
settings = IngestSettings(steps=tuple(sys.argv[3].split(",")) if sys.argv[3] else (), validation_share=0.0)
items = [Item(source) for source in find_pairs([sys.argv[1]], sys.argv[2])]
with Decoder() as decoder, open(sys.argv[2] + ".page", "wb") as pages, open(sys.argv[2] + ".line", "wb") as lines:
    writers = RecordWriter(pages), RecordWriter(lines)
    for outcome in ingest_items(items, decoder, settings, Observed()):
        for example in outcome.examples:
            if isinstance(example, PageExample):
                writers[0].write(write_page(example))
            else:
                writers[1].write(write_line(example))
    for writer in writers:
        writer.close()
"""


def make_corpus(folder: Path, pages: int, light: bool = False) -> Path:
    """Pages of 50 KB, every file with bytes of its own, and their truth.

    Args:
        light: the picture is a ninth as large, and a comment fills the file up: as many bytes, decoded in less time.
    """
    folder.mkdir(parents=True)
    picture = page_picture(light)
    padding = random.Random(1).randbytes(max(0, PAGE_BYTES - len(picture)) if light else 0)
    scale = 3 if light else 1
    for n in range(pages):
        # A comment behind the first marker makes another file of the same picture.
        comment = f"{n:010d}".encode() + padding
        data = picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]
        (folder / f"{n:06}.jpg").write_bytes(data)
        lines = [
            {"bbox": [x // scale for x in (40, 60 + 60 * row, 560, 100 + 60 * row)], "text": f"line {row} of page {n}"}
            for row in range(3)
        ]
        (folder / f"{n:06}.lines.json").write_text(json.dumps(lines))
    return folder


def page_picture(light: bool = False) -> bytes:
    """A JPEG of about 50 KB, or a small one: noise, as much as it takes."""
    rng = np.random.default_rng(1)
    page = np.clip(215 + rng.normal(0, 18, (264, 200) if light else (800, 600)), 0, 255).astype(np.uint8)
    best = b""
    for quality in range(10, 96, 3):
        stream = io.BytesIO()
        Image.fromarray(page).save(stream, "JPEG", quality=quality)
        best = stream.getvalue()
        if len(best) >= PAGE_BYTES / (9 if light else 1):
            break
    return best


def ingest(folder: Path, output: Path, *flags: str) -> list[str]:
    return [*COMMAND, str(folder), "--output", str(output), "--validation", "0", *flags]


def measured(argv: Sequence[str]) -> dict[str, float]:
    """CPU and wall seconds of a command with all that it starts, and its memory in MB: the largest of its processes at
    its peak, and all of them together, looked at twice a second.

    Raises:
        RuntimeError: it failed; exit code 3 (dead letters) is no failure.
    """
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as said:
        job = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
        largest = together = 0.0
        waiting = threading.Event()
        while job.poll() is None:
            sizes = memory_mb(job.pid)
            largest, together = max(largest, *sizes.values(), 0.0), max(together, sum(sizes.values()))
            waiting.wait(0.5)
        if job.returncode not in (0, 3):
            said.seek(0)
            raise RuntimeError(f"exit code {job.returncode}: {said.read()[-2000:].decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall_s = time.monotonic() - began
    return {
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(wall_s, 2),
        "largest_process_mb": round(largest, 1),
        "all_processes_mb": round(together, 1),
    }


def memory_mb(pid: int) -> dict[int, float]:
    """Resident memory of a process and of all that it started; what was mapped by several counts for each."""
    sizes, todo = {}, [pid]
    while todo:
        here = todo.pop()
        try:
            status = Path(f"/proc/{here}/status").read_text()
            todo += [int(n) for f in Path(f"/proc/{here}/task").glob("*/children") for n in f.read_text().split()]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        rss = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        sizes[here] = int(rss[0]) / 1024 if rss else 0.0
    return sizes


def memory(arguments: argparse.Namespace, place: Path) -> dict[str, object]:
    """Peak memory of the making of records; `features` has that of tf.Transform, a process of its own."""
    folder = make_corpus(place / "in", arguments.pages, arguments.light)
    found = measured(ingest(folder, place / "out", "--kind", arguments.kind, "--no-transform"))
    return {
        "pages": arguments.pages,
        "light": arguments.light,
        "pages_per_s": round(arguments.pages / found["wall_s"], 1),
        **found,
    }


def features(arguments: argparse.Namespace, place: Path) -> dict[str, object]:
    """What the second half costs: the records are there already when it is measured."""
    folder = make_corpus(place / "in", arguments.pages)
    measured(ingest(folder, place / "out", "--kind", "line", "--no-transform"))
    return {"lines": 3 * arguments.pages, **measured(ingest(folder, place / "out", "--kind", "line"))}


def throughput(arguments: argparse.Namespace, place: Path) -> dict[str, object]:
    """The pipeline against a loop over the same functions, and two workers against one; a short run of each, which is
    mostly its start, is taken off."""
    short = make_corpus(place / "short", SHORT)
    long = make_corpus(place / "long", SHORT + arguments.pages)
    steps = arguments.prepare

    def once(kind: str, folder: Path) -> dict[str, float]:
        out = Path(tempfile.mkdtemp(dir=place))
        if kind == "loop":
            return measured([sys.executable, "-c", LOOP, str(folder), str(out / "out"), steps])
        flags = ["--no-transform", "--prepare", steps, "--workers", kind]
        return measured(ingest(folder, out / "out", *flags))

    spans: dict[str, list[tuple[float, float]]] = {"loop": [], "1": [], "2": []}
    for _ in range(arguments.repeats):
        for kind, found in spans.items():
            few, many = once(kind, short), once(kind, long)
            found.append((many["cpu_s"] - few["cpu_s"], many["wall_s"] - few["wall_s"]))
    medians = {kind: np.median(np.array(found), axis=0) for kind, found in spans.items()}
    return {
        "pages": arguments.pages,
        **{f"cpu_s_{kind}": round(float(cpu), 2) for kind, (cpu, _) in medians.items()},
        **{f"wall_s_{kind}": round(float(wall), 2) for kind, (_, wall) in medians.items()},
        "cpu_loop_by_pipeline": round(float(medians["loop"][0] / medians["1"][0]), 3),
        "speed_by_loop": round(float(medians["loop"][1] / medians["1"][1]), 3),
        "two_workers_by_one": round(float(medians["1"][1] / medians["2"][1]), 2),
    }


def kill(arguments: argparse.Namespace, place: Path) -> dict[str, object]:
    """Kill -9 at random moments, again and again, until the run gets through; then the same manifest and files."""
    folder = make_corpus(place / "in", arguments.pages)
    measured(ingest(folder, place / "whole", "--no-transform"))
    rng, kills, same = random.Random(1), 0, 0
    for round_number in range(arguments.rounds):
        out = place / f"broken{round_number}"
        argv = ingest(folder, out, "--no-transform")
        for _ in range(3):
            job = subprocess.Popen(
                argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            threading.Event().wait(rng.uniform(1.0, arguments.longest_s))
            if job.poll() is None:
                kills += 1
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        measured([*argv, "--resume"])
        same += digests(out) == digests(place / "whole")
    return {"pages": arguments.pages, "rounds": arguments.rounds, "kills": kills, "same_records": same}


def digests(output: Path) -> dict[str, str]:
    files = [output / MANIFEST, *sorted((output / "records").rglob("*.gz")), *sorted((output / "metadata").iterdir())]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


FIGURES = {"memory": memory, "throughput": throughput, "features": features, "kill": kill}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=tuple(FIGURES))
    parser.add_argument("--pages", type=int, default=1500)
    parser.add_argument("--kind", choices=("page", "line", "both"), default="both")
    parser.add_argument("--light", action="store_true", help="small pictures in files of 50 KB, for memory")
    parser.add_argument("--prepare", default="", help="steps, for throughput")
    parser.add_argument("--repeats", type=int, default=3, help="of throughput")
    parser.add_argument("--rounds", type=int, default=5, help="of kill")
    parser.add_argument("--longest-s", type=float, default=8.0, help="until a kill")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="pagemill-figures-") as place:
        print(json.dumps({arguments.figure: FIGURES[arguments.figure](arguments, Path(place))}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
