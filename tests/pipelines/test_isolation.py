import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from ocr_model.errors import BadModel, PagemillError, UnreadablePage
from pipelines import isolation
from pipelines.isolation import IsolatedReader, WatchedReader
from tests.pipelines.bad_readers import ENDED, HANGING, KILLED, UNTOLD, BadReader, load_and_end, load_nothing
from tests.pipelines.readers import SizeReader


def page(width: int) -> np.ndarray:
    return np.zeros((10, width), np.uint8)


def pid_of(reader: IsolatedReader) -> int:
    """Of the process that reads, by having it read a page."""
    return int(reader.read([page(20)])[0].text)


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(BadReader, timeout_s=20.0)
    yield reader
    reader.close()


def test_pages_are_read_in_another_process_that_is_kept(reader: IsolatedReader) -> None:
    pages = reader.read([page(20), page(30)])
    assert [found.width for found in pages] == [20, 30]
    assert os.getpid() != pid_of(reader) == int(pages[0].text)
    assert reader.read_single_lines([page(20)])[0].text == "line"


def test_error_of_the_reader_is_raised_here_and_the_child_lives_on(reader: IsolatedReader) -> None:
    pid = pid_of(reader)
    with pytest.raises(ArithmeticError, match="unlucky"):
        reader.read([page(13)])
    assert pid_of(reader) == pid


def test_error_that_cannot_be_sent_is_told_and_the_child_lives_on(reader: IsolatedReader) -> None:
    pid = pid_of(reader)
    with pytest.raises(PagemillError, match="Untold: untold"):
        reader.read([page(UNTOLD)])
    assert pid_of(reader) == pid


@pytest.mark.parametrize("width, cause", [(KILLED, "SIGKILL"), (ENDED, "exit code 7")])
def test_page_that_kills_the_child_is_told_and_the_next_gets_a_new_one(
    reader: IsolatedReader, width: int, cause: str
) -> None:
    pid = pid_of(reader)
    with pytest.raises(UnreadablePage, match=cause) as raised:
        reader.read([page(width)])
    assert raised.value.reason == "reader-died"
    assert pid_of(reader) != pid


def test_page_that_hangs_costs_its_limit_and_no_more(reader: IsolatedReader, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = pid_of(reader)
    monkeypatch.setattr(reader, "_timeout_s", 0.3)
    began = time.monotonic()
    with pytest.raises(UnreadablePage, match=r"not read within 0\.3 s") as raised:
        reader.read([page(HANGING)])
    assert raised.value.reason == "timeout"
    assert 0.3 <= time.monotonic() - began < 3
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_closed_reader_has_no_child_and_can_be_used_again(reader: IsolatedReader) -> None:
    pid = pid_of(reader)
    for _ in range(2):
        reader.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_model_that_cannot_be_loaded_is_told_every_time() -> None:
    reader = IsolatedReader(load_nothing, timeout_s=20.0)
    for _ in range(2):
        with pytest.raises(BadModel, match="no model there"):
            reader.read([page(20)])
    assert reader._process is None


def test_child_that_dies_at_its_start_is_told() -> None:
    with pytest.raises(UnreadablePage, match="exit code 3"):
        IsolatedReader(load_and_end, timeout_s=20.0).read([page(20)])


# The clock.


class WaitingReader(SizeReader):
    """Reads when it is told to go on."""

    def __init__(self, go_on: threading.Event) -> None:
        super().__init__()
        self._go_on = go_on

    def _read_one(self, image: np.ndarray) -> object:  # type: ignore[override]
        assert self._go_on.wait(20)
        return super()._read_one(image)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set instead of killing this process."""
    event = threading.Event()
    monkeypatch.setattr(isolation.os, "kill", lambda pid, number: event.set())
    return event


def test_process_is_killed_when_a_page_takes_too_long(
    killed: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    WatchedReader(WaitingReader(killed), timeout_s=0.01).read([page(20)])
    assert killed.is_set() and "1 pages took over 0.01 s" in caplog.text


@pytest.mark.parametrize("width", [20, 13])
def test_clock_stops_when_the_page_is_read_or_fails(killed: threading.Event, width: int) -> None:
    with suppress(ArithmeticError):
        WatchedReader(SizeReader(), timeout_s=1000.0).read([page(width)])
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers) and not killed.is_set()


class Clock:
    """Stands for the module `time`; goes on by `step_s` whenever it is asked."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def monotonic(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def test_pages_of_a_call_share_one_limit_beside_what_they_usually_take(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = WatchedReader(SizeReader(), timeout_s=60.0)
    assert watched.limit_s(3) == 180
    monkeypatch.setattr(isolation, "time", Clock(6.0))
    watched.read([page(20)] * 3)  # 2 s a page
    assert (watched.limit_s(1), watched.limit_s(9)) == (60, 60 + 3 * 2 * 9)


def test_slow_pages_have_no_less_than_that_and_no_more_than_a_limit_each(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = WatchedReader(SizeReader(), timeout_s=60.0)
    monkeypatch.setattr(isolation, "time", Clock(100.0))
    watched.read([page(20)] * 2)
    assert watched.limit_s(4) == 240


def test_call_that_fails_says_nothing_about_what_pages_take() -> None:
    watched = WatchedReader(SizeReader(), timeout_s=60.0)
    with suppress(ArithmeticError):
        watched.read([page(13)])
    assert watched.limit_s(2) == 120


def test_seconds_of_the_reader_are_handed_on() -> None:
    class Counting(SizeReader):
        seconds = {"find": 1.0}  # noqa: RUF012 - as the real one has it

    assert WatchedReader(Counting(), 1.0).seconds == {"find": 1.0}
    assert WatchedReader(SizeReader(), 1.0).seconds == {}
