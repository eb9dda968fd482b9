import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import ocr_model.reader
from ocr_model.document import Page
from ocr_model.found_lines import FoundPage
from ocr_model.reader import Reader
from pipelines import watched_reader
from pipelines.read_pages import PageHung, PageReader
from pipelines.routing import SecondOpinion
from pipelines.watched_reader import WatchedReader
from tests.pipelines.readers import SizeReader

ROOT = Path(__file__).parents[2]
LIMIT_S = 0.08
LOOPING, WAITING, TOGETHER = 17, 18, 19  # pixels


def page(width: int) -> np.ndarray:
    return np.zeros((10, width), np.uint8)


class HangingReader(SizeReader):
    """Loops for ever on some pages, or waits until it is let go, with a page in hand or in what it does with all.

    Attributes:
        let_go: ends all waiting.
        threads: that have read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.threads: list[threading.Thread] = []

    def read(self, images: Sequence[np.ndarray]) -> list[Page]:
        self.threads.append(threading.current_thread())
        pages = super().read(images)
        if any(image.shape[1] == TOGETHER for image in images):
            self.let_go.wait(60)
        return pages

    def _read_one(self, image: np.ndarray) -> Page:
        while image.shape[1] == LOOPING:
            pass
        if image.shape[1] == WAITING:
            self.let_go.wait(60)
        return super()._read_one(image)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingReader]:
    monkeypatch.setattr(watched_reader, "_ENDS_WITHIN_S", 0.2)
    reader = HangingReader()
    yield reader
    reader.let_go.set()
    for thread in reader.threads:
        thread.join(10)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that are sent, and do nothing."""
    signals: list[int] = []
    monkeypatch.setattr(watched_reader.os, "kill", lambda pid, number: signals.append(number))
    return signals


def hung(watched: PageReader, *images: np.ndarray) -> PageHung:
    with pytest.raises(PageHung) as raised:
        watched.read(images)
    return raised.value


# What is read in time.


def test_pages_are_those_of_the_reader_in_their_order() -> None:
    watched = WatchedReader(SizeReader(), 20.0)
    assert [found.text for found in watched.read([page(20), page(30)])] == ["20x10", "30x10"]
    assert [found.text for found in watched.read_single_lines([page(20)])] == ["line"]
    assert watched.read([]) == []


def test_error_of_the_reader_is_raised_and_tells_where_it_arose() -> None:
    with pytest.raises(ArithmeticError, match="unlucky") as raised:
        WatchedReader(SizeReader(), 20.0).read([page(20), page(13)])
    assert raised.traceback[-1].name == "_read_one"


def test_seconds_of_the_reader_are_handed_on() -> None:
    class Counting(SizeReader):
        seconds = {"find": 1.0}  # noqa: RUF012 - as the real one has it

    assert WatchedReader(Counting(), 1.0).seconds == {"find": 1.0}
    assert WatchedReader(SizeReader(), 1.0).seconds == {}


def test_images_of_a_call_are_not_held() -> None:
    image = page(20)
    image_alive = weakref.ref(image)
    watched = WatchedReader(SizeReader(), 20.0)
    watched.read([image, page(30)])
    del image
    assert image_alive() is None


# What is not.


@pytest.mark.parametrize("width", [LOOPING, WAITING])
@pytest.mark.parametrize("others", [(), (20, 30)])
def test_page_that_hangs_is_named_in_its_time_and_the_next_pages_are_read(
    hanging: HangingReader, width: int, others: tuple[int, ...]
) -> None:
    watched = WatchedReader(hanging, LIMIT_S)
    bad, began = page(width), time.monotonic()
    error = hung(watched, *map(page, others), bad, *map(page, others))
    assert LIMIT_S <= time.monotonic() - began < 2
    assert error.image is bad and error.reason == "timeout" and "not read within 0.08 s" in str(error)
    assert watched.read([page(40)])[0].text == "40x10"


def test_thread_that_can_be_told_to_end_does(hanging: HangingReader) -> None:
    hung(WatchedReader(hanging, LIMIT_S), page(LOOPING))
    assert not hanging.threads[0].is_alive()


def test_thread_that_cannot_is_left_with_the_lowest_priority_and_holds_no_other_page(hanging: HangingReader) -> None:
    images = [page(20), page(WAITING), page(30)]
    before = [weakref.ref(image) for image in images]
    hung(WatchedReader(hanging, LIMIT_S), *images)
    native = hanging.threads[0].native_id
    assert hanging.threads[0].is_alive() and native
    assert os.getpriority(os.PRIO_PROCESS, native) == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    del images
    gc.collect()
    assert [image() is None for image in before] == [True, False, True]


def test_no_page_is_named_where_all_are_worked_on_together(hanging: HangingReader) -> None:
    error = hung(WatchedReader(hanging, LIMIT_S), page(TOGETHER), page(30))
    assert error.image is None and "one of 2 pages hangs" in str(error)


def test_page_that_is_alone_is_named_whatever_the_reader_is_at(hanging: HangingReader) -> None:
    alone = page(TOGETHER)
    assert hung(WatchedReader(hanging, LIMIT_S), alone).image is alone


def test_page_that_hangs_in_a_second_reader_is_named(hanging: HangingReader) -> None:
    first, second = (WatchedReader(reader, LIMIT_S) for reader in (SizeReader(), hanging))
    images = [page(20), page(WAITING), page(30)]
    assert hung(SecondOpinion(first, second, below=0.95), *images).image is images[1]


class StuckReader(Reader):
    """The real one, with one page that hangs while it is found, or assembled, or while all lines are read."""

    def __init__(self, stage: str, stuck: threading.Event) -> None:
        self.seconds = {"find": 0.0, "read": 0.0}
        self.bundle = None  # type: ignore[assignment]
        self._stage, self._stuck = stage, stuck

    provenance = {}  # type: ignore[assignment]  # noqa: RUF012

    def _found(self, image: np.ndarray) -> FoundPage:
        self._hang(image, "found")
        return FoundPage()

    def _assemble(self, image: np.ndarray, *rest: object) -> Page:
        self._hang(image, "assembled")
        return Page(image.shape[1], image.shape[0])

    def _hang(self, image: np.ndarray, stage: str) -> None:
        if (self._stage, image.shape[1]) == (stage, WAITING):
            self._stuck.wait(60)


@pytest.mark.parametrize("stage, named", [("found", True), ("assembled", True), ("read", False)])
def test_our_reader_shows_which_page_it_has_in_hand(
    monkeypatch: pytest.MonkeyPatch, hanging: HangingReader, stage: str, named: bool
) -> None:
    stuck = hanging.let_go
    if stage == "read":
        monkeypatch.setattr(ocr_model.reader, "read_strips", lambda *_: stuck.wait(60) and [])
    images = [page(20), page(WAITING), page(30)]
    error = hung(WatchedReader(StuckReader(stage, stuck), LIMIT_S), *images)
    assert error.image is (images[1] if named else None)


# Limits.


class Clock:
    """Stands for the module `time`; whoever has it sets it."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class TickingReader(SizeReader):
    """Has each page in hand for a second, and then works for two a page on all of them together."""

    def __init__(self, clock: Clock, second: float = 1.0) -> None:
        super().__init__()
        self._clock, self.second = clock, second

    def read(self, images: Sequence[np.ndarray]) -> list[Page]:
        pages = super().read(images)
        self._clock.now_s += 2 * len(images) * self.second
        return pages

    def _read_one(self, image: np.ndarray) -> Page:
        self._clock.now_s += self.second
        return super()._read_one(image)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watched_reader, "time", clock)
    return clock


def test_pages_that_are_worked_on_together_may_take_twice_what_they_lately_did(clock: Clock) -> None:
    reader = TickingReader(clock)
    watched = WatchedReader(reader, timeout_s=60.0)
    assert (watched.together_limit_s(1), watched.together_limit_s(9)) == (30, 30)
    watched.read([page(20)] * 3)
    watched.read([page(20)])  # alone: nothing is done together
    assert (watched.together_limit_s(2), watched.together_limit_s(9)) == (2 * 2 * 2, 2 * 2 * 9)
    reader.second = 3.0
    watched.read([page(20)] * 3)
    reader.second = 1.0
    watched.read([page(20)] * 3)
    assert watched.together_limit_s(9) == pytest.approx(2 * 0.9 * 6 * 9)
    for _ in range(20):
        watched.read([page(20)] * 3)
    assert watched.together_limit_s(9) == 2 * 2 * 9


def test_that_is_no_less_than_some_seconds_and_no_more_than_a_limit_for_each(clock: Clock) -> None:
    watched = WatchedReader(TickingReader(clock, 0.01), timeout_s=60.0)
    watched.read([page(20)] * 3)
    assert watched.together_limit_s(9) == watched_reader._TOGETHER_S
    watched = WatchedReader(TickingReader(clock, 100.0), timeout_s=60.0)
    watched.read([page(20)] * 3)
    assert watched.together_limit_s(2) == 120


def test_pages_that_were_stopped_together_have_more_time_the_next_time(hanging: HangingReader) -> None:
    watched = WatchedReader(hanging, LIMIT_S)
    watched.read([page(20)] * 3)
    limits_s = [watched.together_limit_s(1000)]
    hung(watched, page(TOGETHER), page(20))
    limits_s.append(watched.together_limit_s(1000))
    assert limits_s[0] == watched_reader._TOGETHER_S < limits_s[1]


def test_time_that_pages_have_had_together_counts_but_no_more_than_half_of_their_limit(hanging: HangingReader) -> None:
    watched = WatchedReader(hanging, timeout_s=LIMIT_S)
    images = [page(TOGETHER), page(20)]
    hung(watched, *images)  # had it for two limits
    assert [watched.limit_s([image]) for image in (*images, page(20))] == [LIMIT_S / 2, LIMIT_S / 2, LIMIT_S]
    assert watched.limit_s(images) == LIMIT_S
    watched = WatchedReader(hanging, timeout_s=20.0)
    watched._suspects, watched._had_s = [weakref.ref(images[0])], 4.0
    assert watched.limit_s(images[:1]) == 16


def test_call_that_fails_says_nothing_about_what_pages_take() -> None:
    watched = WatchedReader(SizeReader(), timeout_s=60.0)
    with pytest.raises(ArithmeticError):
        watched.read([page(20), page(13)])
    assert watched.together_limit_s(2) == 30


def test_time_in_which_this_process_was_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    went_on = threading.Event()

    class Stopped(Clock):
        """Jumps between the start of the call and the first look, and has that page read at the second look."""

        asked = 0

        def monotonic(self) -> float:
            self.asked += 1
            if self.asked == 4:
                went_on.set()
            return 0.0 if self.asked < 3 else 1000.0

    class Waits(SizeReader):
        def _read_one(self, image: np.ndarray) -> Page:
            assert went_on.wait(20)
            return super()._read_one(image)

    monkeypatch.setattr(watched_reader, "time", Stopped())
    assert WatchedReader(Waits(), timeout_s=1.0).read([page(20)])[0].text == "20x10"


# What this process does not survive.


def test_process_is_killed_when_too_many_threads_hang(
    hanging: HangingReader, killed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    watched = WatchedReader(hanging, LIMIT_S)
    for _ in range(3):
        hung(watched, page(WAITING))
    assert not killed
    hung(watched, page(WAITING))
    assert killed == [signal.SIGKILL] and "4 pages hang" in caplog.text


def test_threads_that_have_ended_since_do_not_count(hanging: HangingReader, killed: list[int]) -> None:
    watched = WatchedReader(hanging, LIMIT_S)
    for _ in range(5):
        hung(watched, page(WAITING))
        hanging.let_go.set()
        hanging.threads[-1].join(10)
        hanging.let_go.clear()
    assert not killed


HOLDS_THE_LOCK = """
import ctypes, faulthandler, numpy as np
from pipelines import watched_reader
from tests.pipelines.readers import SizeReader
watched_reader._ALARM_AFTER_S = 0.2
class Sleeper(SizeReader):
    def _read_one(self, image):
        ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the lock
watched_reader.WatchedReader(Sleeper(), 0.2).read([np.zeros((10, 10), np.uint8)])
"""


def test_kernel_ends_a_process_whose_lock_is_held_by_code_that_hangs() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HOLDS_THE_LOCK], cwd=ROOT, timeout=50)
    assert done.returncode == -signal.SIGALRM and time.monotonic() - began < 40


@pytest.mark.parametrize("width", [20, 13, LOOPING])
def test_alarm_is_off_when_the_call_is_over(hanging: HangingReader, width: int) -> None:
    with suppress(ArithmeticError, PageHung):
        WatchedReader(hanging, LIMIT_S).read([page(width)])
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_alarm_stays_on_until_the_last_of_several_calls_is_over(hanging: HangingReader) -> None:
    other = threading.Thread(target=WatchedReader(hanging, 50.0).read, args=([page(WAITING)],))
    other.start()
    WatchedReader(SizeReader(), 20.0).read([page(20)])
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    hanging.let_go.set()
    other.join(10)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_program_that_has_a_use_for_the_alarm_keeps_it() -> None:
    seen = []

    class Looks(SizeReader):
        def _read_one(self, image: np.ndarray) -> Page:
            seen.append(signal.getitimer(signal.ITIMER_REAL)[0])
            return super()._read_one(image)

    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        WatchedReader(Looks(), 1.0).read([page(20)])
        assert seen[0] > 900 < signal.getitimer(signal.ITIMER_REAL)[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interrupt_ends_the_thread_too(hanging: HangingReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        while not hanging.threads:
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(WatchedReader, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        WatchedReader(hanging, 20.0).read([page(LOOPING)])
    assert not hanging.threads[0].is_alive()
