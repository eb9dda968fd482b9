"""An ingest that is killed at any moment and run again ends as one that was not."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_model.record_files import load_manifest
from pipelines.ledger import UNITS
from pipelines.verify import verify_output
from tests.pipelines.corpora import corpus_of, put
from tests.pipelines.test_features import command
from tests.pipelines.test_ingest import contents

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from tests.pipelines.test_features import command; sys.exit(command(*sys.argv[1:]))"


def started(*words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def entries(output: Path) -> int:
    folder = output / UNITS
    return sum(name.count(".") == 1 for name in os.listdir(folder)) if folder.exists() else 0


def kill_after(process: subprocess.Popen[bytes], output: Path, units: int) -> None:
    """Kill -9, as soon as so many units are done."""
    waiting = threading.Event()
    while entries(output) < units:
        assert process.poll() is None, "the run was over before it could be killed"
        waiting.wait(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_ingest_ends_as_an_unbroken_one(tmp_path: Path, workers: str) -> None:
    put(tmp_path / "in", {**corpus_of(150, lines=150), "bad.png": b"x", "bad.gt.txt": b"x"})
    flags = ["--no-transform", "--validation", "20%", "--max-attempts", "9"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command(f"{tmp_path}/in", "--output", f"{whole}/out", *flags) == 3
    for units in (2, 6):
        process = started(f"{tmp_path}/in", "--output", f"{broken}/out", "--workers", workers, *flags)
        kill_after(process, broken / "out", units)
        assert not (broken / "out/records.json").exists()
    assert command(f"{tmp_path}/in", "--output", f"{broken}/out", "--resume", *flags) == 3
    assert contents(broken) == contents(whole)
    assert verify_output(f"{broken}/out").problems == ()
    listed = {file.path for file in load_manifest(broken / "out").files}
    there = {str(path.relative_to(broken / "out")) for path in (broken / "out/records").rglob("*.gz")}
    assert there == listed
    assert not list((broken / "out/ledger/staging").glob("*")) and not list((broken / "out/ledger/partial").glob("*"))


def processes_below(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            yield child
            yield from processes_below(child)


def workers_of(pid: int) -> list[int]:
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in processes_below(pid)}
    return [child for child, words in commands.items() if b"apache_beam.runners.worker.sdk_worker_main" in words]


def test_worker_that_is_killed_is_replaced_and_the_records_are_the_same(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(150, lines=150))
    flags = ["--no-transform", "--validation", "20%"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command(f"{tmp_path}/in", "--output", f"{whole}/out", *flags) == 0
    words = ["ingest", f"{tmp_path}/in", "--output", f"{broken}/out", "--workers", "2", *flags]
    job = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    waiting = threading.Event()
    while entries(broken / "out") < 3:
        assert job.poll() is None, "the run was over before a worker could be killed"
        waiting.wait(0.005)
    os.kill(workers_of(job.pid)[0], signal.SIGKILL)
    said = job.communicate(timeout=240)[1]
    assert job.returncode == 0 and "pagemill: a worker died; it is started again" in said
    assert contents(broken) == contents(whole)
