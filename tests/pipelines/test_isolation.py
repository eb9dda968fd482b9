import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ocr_model.errors import BadModel, PagemillError, UnreadablePage
from pipelines.isolation import IsolatedReader
from tests.pipelines.bad_readers import ENDED, HANGING, KILLED, UNTOLD, BadReader, load_and_end, load_nothing


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
