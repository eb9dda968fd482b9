import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.outputs import locked
from pipelines.report import reconcile
from pipelines.supervise import READING, SUPERVISED_RUN, WORKER_LOST, make_run_folder, supervise
from tests import scans

ROOT = Path(__file__).parents[2]

CHILD = """
import dataclasses, sys
from pipelines import cli
from tests.pipelines import readers
cli.be_quiet()
from pipelines import transcribe
run = transcribe.run
change = lambda options: dataclasses.replace(options, load=readers.{reader}, timeout_s={timeout_s})
if __name__ == "__main__":
    transcribe.run = lambda options, *rest: run(change(options), *rest)
    sys.exit(cli.main(sys.argv[1:]))
"""


def child(tmp_path: Path, reader: str, timeout_s: float = 60.0) -> list[str]:
    program = tmp_path / "child.py"
    program.write_text(CHILD.format(reader=reader, timeout_s=timeout_s))
    return [sys.executable, str(program)]


@pytest.fixture(autouse=True)
def _finds_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv(SUPERVISED_RUN, raising=False)


def put(root: Path, widths: list[int]) -> list[str]:
    (root / "in").mkdir()
    for n, width in enumerate(widths):
        (root / "in" / f"{n}.png").write_bytes(scans.encoded(scans.picture(width, 20), "PNG"))
    return ["transcribe", str(root / "in"), "--output", str(root / "out"), "--duplicates", "each"]


def letters(root: Path) -> list[tuple[str, str]]:
    lines = (root / "out/dead_letters.jsonl").read_text().splitlines()
    return [(Path(letter["path"]).name, letter["reason"]) for letter in map(json.loads, lines)]


def test_page_that_kills_its_worker_is_one_dead_letter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = put(tmp_path, [20, 13, 30])
    assert supervise(argv, str(tmp_path / "out"), 1, 3, child(tmp_path, "KillerReader")) == 3
    assert letters(tmp_path) == [("1.png", "reader-died")]
    assert reconcile(str(tmp_path / "out")).counts.read == 2
    assert "the job died of SIGSEGV; it is started again" in capfd.readouterr().err


def test_pages_that_hang_in_the_reader_are_dead_letters_and_the_job_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = put(tmp_path, [20, 17, 30, 17])
    assert supervise(argv, str(tmp_path / "out"), 1, 3, child(tmp_path, "HangingReader", timeout_s=0.3)) == 3
    assert letters(tmp_path) == [("1.png", "timeout"), ("3.png", "timeout")]
    assert reconcile(str(tmp_path / "out")).counts.read == 2
    assert "started again" not in capfd.readouterr().err


@pytest.mark.slow
def test_page_that_hangs_with_the_lock_of_python_is_one_dead_letter(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = put(tmp_path, [20, 17, 30])
    assert supervise(argv, str(tmp_path / "out"), 1, 3, child(tmp_path, "LockingReader", timeout_s=1.0)) == 3
    assert letters(tmp_path) == [("1.png", "timeout")]
    assert reconcile(str(tmp_path / "out")).counts.read == 2
    assert "a page hung, and the job with it; it is started again" in capfd.readouterr().err


def test_unit_that_kills_every_reader_ends_all_the_same(tmp_path: Path) -> None:
    argv = put(tmp_path, [20, 30])
    assert supervise(argv, str(tmp_path / "out"), 1, 3, child(tmp_path, "KillsAllReader")) == 3
    assert letters(tmp_path) == [("0.png", "reader-died"), ("1.png", "reader-died")]


def test_child_that_always_dies_is_given_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dies = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    (tmp_path / "out").mkdir()
    assert supervise([], str(tmp_path / "out"), 1, 2, dies) == 15
    err = capfd.readouterr().err
    assert err.count("it is started again") == 2 and "again and again" in err


def test_folders_of_children_that_died_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    another = make_run_folder("another")
    code = (
        "import os, signal; from pathlib import Path; from pipelines.supervise import SUPERVISED_RUN, make_run_folder\n"
        "Path(make_run_folder(os.environ[SUPERVISED_RUN]), 'claims').mkdir(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert supervise([], str(tmp_path / "out"), 1, 2, [sys.executable, "-c", code]) == 15
    assert list((tmp_path / "temporary").iterdir()) == [Path(another)]


def test_child_that_does_units_anew_is_started_again_as_long_as_they_get_done(tmp_path: Path) -> None:
    units = tmp_path / "out/ledger/units"
    units.mkdir(parents=True)
    (units / "1.json").write_text("{}")
    code = (
        "import os, signal, sys; from pathlib import Path; units = Path(sys.argv[1]); count = units.parent / 'count'\n"
        "n = int(count.read_text()) if count.exists() else 0; count.write_text(str(n + 1))\n"
        "(units.parent / 'new').write_text(str(n)); os.replace(units.parent / 'new', units / '1.json')\n"
        "n < 6 and os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert supervise([], str(tmp_path / "out"), 1, 2, [sys.executable, "-c", code, str(units)]) == 0
    assert (tmp_path / "out/ledger/count").read_text() == "7"


def test_exit_code_of_the_child_is_handed_on(tmp_path: Path) -> None:
    assert supervise([], str(tmp_path), 1, 3, [sys.executable, "-c", "raise SystemExit(6)"]) == 6


def launched(tmp_path: Path, before: str = "pass", workers: int = 1) -> tuple[subprocess.Popen[str], Path]:
    """A launcher whose job is stuck in its first page, and the folder of attempts; `before` is run in it first."""
    argv = [*put(tmp_path, [20]), "--workers", str(workers)]
    call = f"supervise({argv!r}, {argv[3]!r}, {workers}, 3, {child(tmp_path, 'StuckReader')!r})"
    code = f"import signal, sys; from pipelines.supervise import supervise; {before}; sys.exit({call})"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    attempts = tmp_path / "out/ledger/attempts"
    deadline = time.monotonic() + 60
    while not (attempts.is_dir() and any(attempts.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return launcher, attempts


@pytest.mark.parametrize(
    ("before", "workers"), [("pass", 1), ("signal.signal(signal.SIGINT, signal.SIG_IGN)", 1), ("pass", 2)]
)
def test_request_to_end_reaches_the_child_as_an_interrupt(tmp_path: Path, before: str, workers: int) -> None:
    """Also where Ctrl-C is ignored, as in the background of a script. Nobody has a unit in hand afterwards."""
    launcher, attempts = launched(tmp_path, before, workers)
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=60)
    assert (launcher.returncode, err.splitlines()[-1]) == (130, "pagemill: interrupted")
    assert not any(attempts.iterdir())


def test_child_that_is_interrupted_before_it_can_heed_it_is_not_started_again(tmp_path: Path) -> None:
    dies = [sys.executable, "-c", "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"]
    code = f"from pipelines.supervise import supervise; supervise([], {str(tmp_path)!r}, 1, 3, {dies!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in done.stderr and "started again" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_job_does_not_outlive_its_launcher_and_lets_go_of_the_folder(tmp_path: Path, workers: int) -> None:
    launcher, attempts = launched(tmp_path, workers=workers)
    (marker,) = attempts.iterdir()
    worker = int(json.loads(marker.read_text())["worker"].rpartition(":")[2])
    launcher.kill()
    launcher.communicate()
    with locked(str(tmp_path / "out")):  # waits some seconds at most
        pass
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _is_alive(worker):
        time.sleep(0.05)
    assert not _is_alive(worker)


def python(code: str, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *argv], cwd=ROOT, env={**os.environ, **environment})


def test_child_whose_launcher_is_gone_before_it_begins_does_nothing() -> None:
    code = "from pipelines.supervise import name_of_run; name_of_run(); raise SystemExit(0)"
    late = python(code, PAGEMILL_SUPERVISED_RUN="run", PAGEMILL_LAUNCHER="1")
    assert late.wait(60) == WORKER_LOST
    in_time = python(code, PAGEMILL_SUPERVISED_RUN="run", PAGEMILL_LAUNCHER=str(os.getpid()))
    assert in_time.wait(60) == 0


@pytest.mark.parametrize("name, tidies_up", [("other", True), (READING, False)])
def test_process_does_not_wait_for_native_code_of_a_thread_that_was_left(name: str, tidies_up: bool) -> None:
    code = (
        "import atexit, threading; from pipelines.supervise import leave;"
        f"threading.Thread(target=threading.Event().wait, name={name!r}, daemon=True).start();"
        "atexit.register(print, 'tidied up'); print('told'); leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (3, ["told", "tidied up"] if tidies_up else ["told"])


def test_process_that_ends_with_another_one_does_so_whatever_it_is_at() -> None:
    job = python("import time; time.sleep(60)")
    code = "import sys, time; from pipelines.supervise import end_with; end_with(int(sys.argv[1])); time.sleep(60)"
    worker = python(code, str(job.pid))
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(2)
    job.kill()
    job.wait()
    assert worker.wait(30) == WORKER_LOST
    assert python(code, str(job.pid)).wait(30) == WORKER_LOST  # it had gone before


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(os.cpu_count() == 1, reason="two workers want two cores")
def test_worker_of_two_that_dies_does_not_end_the_run(tmp_path: Path) -> None:
    argv = put(tmp_path, [20 + n for n in range(30)] + [13] + [60 + n for n in range(10)])
    argv += ["--workers", "2"]
    assert supervise(argv, str(tmp_path / "out"), 2, 3, child(tmp_path, "KillerReader")) == 3
    assert letters(tmp_path) == [("30.png", "reader-died")]
    assert reconcile(str(tmp_path / "out")).counts.read == 40


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("4", "4")])
def test_a_job_has_one_pool_of_memory_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if given:
        monkeypatch.setenv("MALLOC_ARENA_MAX", given)
    program = f"import os; raise SystemExit(os.environ['MALLOC_ARENA_MAX'] != '{expected}')"
    assert supervise([], str(tmp_path), 1, 0, [sys.executable, "-c", program]) == 0
