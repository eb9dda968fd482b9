import io
from pathlib import Path

import pytest

from pipelines.progress import Progress, Summary, Tally, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tallies_of_several_workers_add_up(tmp_path: Path) -> None:
    first, second = Tally(str(tmp_path)), Tally(str(tmp_path))
    for tally in (first, second, second):
        tally.add("pages")
    first.add("files")
    assert (Tally.count(str(tmp_path), "pages"), Tally.count(str(tmp_path), "files")) == (3, 1)


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


def test_summary_tells_what_happened_and_where() -> None:
    text = Summary("out", ("txt", "hocr"), 9, 10, 7, 80, {"truncated": 1, "encrypted": 2}, 3.21, 5.0, 4.0).text()
    assert text.splitlines() == [
        "7 of 10 pages read (80 lines) from 9 files",
        "3 could not be read: 2 encrypted, 1 truncated (see out/dead_letters.jsonl)",
        "2.00 pages/s, 0.40 CPU seconds a page, 3.2 s to start",
        "results in out/txt, out/hocr",
    ]
