import io
import json
import threading
from pathlib import Path

import pytest

from pipelines.progress import Progress, Tally, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tallies_of_several_workers_add_up(tmp_path: Path) -> None:
    first, second = Tally(str(tmp_path)), Tally(str(tmp_path))
    for tally in (first, second, second):
        tally.add("pages")
    first.add("files")
    assert (Tally.count(str(tmp_path), "pages"), Tally.count(str(tmp_path), "files")) == (3, 1)
    assert Tally.count(str(tmp_path), "dead") == 0


def test_tally_goes_on_after_it_was_closed(tmp_path: Path) -> None:
    tally = Tally(str(tmp_path))
    for _ in range(2):
        tally.add("pages")
        tally.close()
    assert Tally.count(str(tmp_path), "pages") == 2


@pytest.mark.parametrize(
    ("files", "elapsed_s", "text"),
    [
        (0, 5.0, "0 of 10 files, 0 pages"),
        (5, 10.0, "5 of 10 files, 5 pages, 0.5 pages/s, 0:10 left"),
        (1, 800.0, "1 of 10 files, 1 pages, 0.0 pages/s, 2:00:00 left"),
    ],
)
def test_progress_tells_rate_and_time_left(files: int, elapsed_s: float, text: str) -> None:
    assert progress_text(files, 10, files, elapsed_s) == text


def test_lines_are_json_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEMILL_JSON_LOGS", "1")
    stream, told = Terminal(), threading.Event()
    monkeypatch.setattr(stream, "flush", told.set)
    tally = Tally(str(tmp_path))
    tally.add("files")
    progress = Progress(str(tmp_path), 3, stream)
    progress._period_s = 0.01
    with progress:
        assert told.wait(10)
    first = json.loads(stream.getvalue().splitlines()[0])
    assert (first["files"], first["all_files"], first["pages"], first["level"]) == (1, 3, 0, "info")


def test_line_on_a_terminal_is_wiped_at_the_end(tmp_path: Path) -> None:
    stream = Terminal()
    with Progress(str(tmp_path), 3, stream):
        pass
    assert stream.getvalue().endswith("\r\x1b[K")


def test_short_run_writes_no_log_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    with Progress(str(tmp_path), 3, stream):
        pass
    assert stream.getvalue() == ""


def test_limit_of_dead_letters_stops_the_run_once(tmp_path: Path) -> None:
    stopped = threading.Semaphore(0)
    tallies = [Tally(str(tmp_path)), Tally(str(tmp_path))]
    with Progress(str(tmp_path), 3, io.StringIO(), max_dead=1.5, stop=stopped.release):
        for tally in tallies:  # neither alone has too many
            tally.add("dead")
        assert stopped.acquire(timeout=20)
    assert not stopped.acquire(blocking=False)
