import hashlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.errors import BadModel, MissingDependency, UnreadablePage
from ocr_model.images import Limits, PageImage
from pipelines.corpus import SourceFile
from pipelines.decoder import Decoder
from pipelines.plan import Item
from pipelines.read_pages import (
    DeadPage,
    Observed,
    Outcome,
    PageHung,
    PageReader,
    ReadOptions,
    ReadPage,
    SkippedPage,
    read_items,
)
from tests import scans
from tests.pipelines.folders import png, put
from tests.pipelines.readers import SizeReader, page_saying

OPTIONS = ReadOptions(timeout_s=20.0)


def outcomes_of(
    sources: Sequence[SourceFile],
    decoder: Decoder,
    options: ReadOptions = OPTIONS,
    reader: PageReader | None = None,
    observed: Observed | None = None,
) -> list[Outcome]:
    reader = reader or SizeReader()
    return list(read_items([Item(source) for source in sources], lambda _: reader, decoder, options, observed))


def said(outcome: Outcome) -> str:
    """The text, the reason, or that it was skipped."""
    if isinstance(outcome, ReadPage):
        return outcome.page.text
    return outcome.letter.reason if isinstance(outcome, DeadPage) else "skipped"


def tiff_of(widths: Sequence[int]) -> bytes:
    return scans.tiff([scans.picture(width, 20) for width in widths])


class FakeDecoder(Decoder):
    """Has every file hold pages of some width: `0` cannot be decoded, nothing can be opened of an empty list."""

    def __init__(self, files: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._files = list(files)
        self._pages: Sequence[int] = ()

    def open(self, source: str | bytes) -> int:
        self._pages = self._files.pop(0)
        if not self._pages:
            raise UnreadablePage("nothing in it", "empty-file")
        return len(self._pages)

    def decode(self, index: int) -> PageImage:
        if self._pages[index] == 0:
            raise UnreadablePage("cut short", "truncated")
        return PageImage(np.zeros((2, self._pages[index]), np.uint8))


@pytest.fixture(scope="module")
def any_file(tmp_path_factory: pytest.TempPathFactory) -> SourceFile:
    """For decoders that do not look at it."""
    path = tmp_path_factory.mktemp("in") / "any"
    path.write_bytes(b"any")
    return SourceFile(str(path), "any")


# Order and batches.

CORPORA = st.lists(st.lists(st.sampled_from([0, 2, 3, 5, 13, 14]), max_size=6), max_size=6)


@given(CORPORA, st.integers(1, 5), st.integers(1, 30), st.integers(1, 4), st.none() | st.integers(4, 5))
def test_every_page_comes_out_once_and_in_order(
    any_file: SourceFile, files: list[list[int]], at_once: int, pixels: int, first: int, last: int | None
) -> None:
    sources = [replace(any_file, stem=f"{n}") for n in range(len(files))]
    options = ReadOptions(pages_at_once=at_once, pixels_at_once=pixels, first_page=first, last_page=last)
    found = outcomes_of(sources, FakeDecoder(files), options)
    expected = []
    for n, pages in enumerate(files):
        for number, width in enumerate(pages, 1):
            wanted = first <= number <= (last or number)
            text = {0: "truncated", 13: "reader-failed"}.get(width, f"{width}x2") if wanted else "skipped"
            expected.append((f"{n}", number, text))
        if not pages:
            expected.append((f"{n}", 1, "empty-file"))
    assert [(o.of.item.source.stem, o.of.number, said(o)) for o in found] == expected


class NotingReader(SizeReader):
    """Notes the widths of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        self.calls.append([image.shape[1] for image in images])
        return super().read(images)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 6), st.integers(1, 120))
def test_batches_keep_to_their_bounds(any_file: SourceFile, widths: list[int], at_once: int, pixels: int) -> None:
    widths = [width + 20 for width in widths]  # none is unlucky
    reader = NotingReader()
    options = ReadOptions(pages_at_once=at_once, pixels_at_once=pixels)
    outcomes_of([any_file], FakeDecoder([widths]), options, reader)
    assert [width for call in reader.calls for width in call] == widths
    for call, following in zip(reader.calls, [*reader.calls[1:], None], strict=True):
        assert len(call) <= at_once and (2 * sum(call) <= pixels or len(call) == 1)
        if following:  # and no page more would have fitted
            assert len(call) == at_once or 2 * (sum(call) + following[0]) > pixels


def test_pages_of_several_files_are_read_together(tmp_path: Path, shared_decoder: Decoder) -> None:
    reader = SizeReader()
    sources = put(tmp_path, {f"{n}.png": png(20 + n, 20) for n in range(5)})
    outcomes_of(sources, shared_decoder, replace(OPTIONS, pages_at_once=3), reader)
    assert reader.batches == [3, 2]


def test_files_are_opened_no_earlier_than_needed(any_file: SourceFile) -> None:
    """A unit of ten thousand pages does not lie in memory."""
    decoder = FakeDecoder([[20]] * 50)
    options = ReadOptions(pages_at_once=4)
    outcomes = read_items([Item(any_file)] * 50, lambda _: SizeReader(), decoder, options)
    next(outcomes)
    assert len(decoder._files) >= 45


def test_pages_that_were_handed_on_are_not_held(any_file: SourceFile) -> None:
    handed_on: list[weakref.ref[np.ndarray]] = []
    options = ReadOptions(pages_at_once=3)
    for outcome in read_items([Item(any_file)], lambda _: SizeReader(), FakeDecoder([[20] * 9]), options):
        assert isinstance(outcome, ReadPage) and sum(pixels() is not None for pixels in handed_on) <= 1
        handed_on.append(weakref.ref(outcome.image.pixels))
        del outcome
    assert len(handed_on) == 9


def test_each_file_is_read_by_its_reader(tmp_path: Path, shared_decoder: Decoder) -> None:
    readers = {"a": SizeReader(), "b": NotingReader()}
    sources = put(tmp_path, {f"{n}{name}.png": png(20 + n, 20) for n, name in enumerate("abaab")})
    found = list(read_items([Item(s) for s in sources], lambda s: readers[s.stem[-1]], shared_decoder, OPTIONS))
    assert [said(outcome) for outcome in found] == [f"{20 + n}x20" for n in range(5)]
    assert (readers["a"].batches, readers["b"].batches) == ([3], [2])


def test_single_lines_are_read_as_such(tmp_path: Path, shared_decoder: Decoder) -> None:
    sources = put(tmp_path, {"a.png": png(20, 20)})
    assert [said(o) for o in outcomes_of(sources, shared_decoder, replace(OPTIONS, single_line=True))] == ["line"]


# Pages that fail.


class FailingReader(SizeReader):
    """Fails for whole calls in which one of these widths is."""

    def __init__(self, widths: set[int], fail: Callable[[], Exception] = lambda: MemoryError()) -> None:
        super().__init__()
        self.widths, self.fail = widths, fail

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        self.batches.append(len(images))
        if self.widths & {image.shape[1] for image in images}:
            raise self.fail()
        return [page_saying(f"{image.shape[1]}", image.shape[1], image.shape[0]) for image in images]


@given(st.sets(st.integers(0, 15)))
def test_bisecting_finds_exactly_the_bad_pages(any_file: SourceFile, bad: set[int]) -> None:
    widths = list(range(20, 36))
    reader = FailingReader({widths[n] for n in bad})
    found = outcomes_of([any_file], FakeDecoder([widths]), OPTIONS, reader)
    assert [said(o) for o in found] == ["reader-failed" if n in bad else f"{w}" for n, w in enumerate(widths)]
    assert len(reader.batches) <= 1 + 2 * 4 * len(bad)


def test_reason_of_the_reader_is_told(any_file: SourceFile) -> None:
    reader = FailingReader({21}, lambda: UnreadablePage("too slow", "timeout"))
    good, bad = outcomes_of([any_file], FakeDecoder([[20, 21]]), OPTIONS, reader)
    assert isinstance(bad, DeadPage)
    letter = bad.letter
    assert (letter.page, letter.stage, letter.error, letter.reason) == (2, "read", "UnreadablePage", "timeout")
    assert letter.page_id == good.of.page_id[:-1] + "2"


class StoppedReader(NotingReader):
    """Was stopped at the first page that is 21 pixels wide, and knows that it was that one, or does not."""

    def __init__(self, knows: bool) -> None:
        super().__init__()
        self._knows = knows

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        pages = super().read(images)
        for image in images:
            if image.shape[1] == 21:
                raise PageHung("hangs", image if self._knows or len(images) == 1 else None)
        return pages


@pytest.mark.parametrize(
    "knows, calls",
    [
        (True, [[20, 21, 22, 21, 23], [20, 22, 21, 23], [20, 22, 23]]),
        (False, [[20, 21, 22, 21, 23], [20], [21], [22], [21], [23]]),
    ],
)
def test_others_are_read_without_a_page_that_hangs_or_each_by_itself(
    any_file: SourceFile, knows: bool, calls: list[list[int]]
) -> None:
    reader = StoppedReader(knows)
    found = outcomes_of([any_file], FakeDecoder([[20, 21, 22, 21, 23]]), OPTIONS, reader)
    assert [said(outcome) for outcome in found] == ["20x2", "timeout", "22x2", "timeout", "23x2"]
    assert reader.calls == calls


class LosingReader(SizeReader):
    """Forgets pages, or mixes them up."""

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        pages = super().read(images)
        return pages[1:] if any(image.shape[1] == 21 for image in images) else pages[::-1]


def test_pages_that_a_reader_loses_or_mixes_up_are_not_believed(any_file: SourceFile) -> None:
    found = outcomes_of([any_file], FakeDecoder([[20, 21, 22]]), OPTIONS, LosingReader())
    assert [said(o) for o in found] == ["20x2", "reader-failed", "22x2"]


@pytest.mark.parametrize("error", [BadModel("it has changed"), MissingDependency("no TensorFlow")])
def test_missing_reader_is_no_fault_of_the_pages(any_file: SourceFile, error: Exception) -> None:
    with pytest.raises(type(error)):
        outcomes_of([any_file], FakeDecoder([[20, 21]]), OPTIONS, FailingReader({20}, lambda: error))


# Files that fail.


def test_dead_files_are_told_and_the_others_read(tmp_path: Path) -> None:
    contents = {"empty": b"", "text": b"Dear Sir,", "good.png": png(20, 20), "gone": b"x", "big": b"x" * 4000}
    sources = put(tmp_path, contents)
    (tmp_path / "in/gone").unlink()
    options = replace(OPTIONS, limits=Limits(max_bytes=3000))
    with Decoder(options.limits) as decoder:
        found = outcomes_of([*sources, SourceFile(str(tmp_path), "folder")], decoder, options)
    reasons = ["empty-file", "not-an-image", "20x20", "unreadable-file", "too-many-bytes", "unreadable-file"]
    assert [said(outcome) for outcome in found] == reasons
    dead = [outcome for outcome in found if isinstance(outcome, DeadPage)]
    assert all((o.letter.page, o.letter.stage, o.of.pages, o.of.page_id) == (None, "open", 1, "") for o in dead)


def test_bad_page_of_a_good_file_is_told_by_its_number(tmp_path: Path, shared_decoder: Decoder) -> None:
    sources = put(tmp_path, {"book.pdf": scans.pdf(["0 0 24 24", "0 0 0 0", "0 0 48 24"])})
    found = outcomes_of(sources, shared_decoder)
    assert [said(outcome) for outcome in found] == ["100x100", "zero-size", "200x100"]
    assert isinstance(found[1], DeadPage) and (found[1].letter.page, found[1].letter.stage) == (2, "decode")


class VanishingDecoder(FakeDecoder):
    def decode(self, index: int) -> PageImage:
        raise OSError("the file is gone")


def test_file_that_vanishes_while_it_is_decoded_is_told(any_file: SourceFile) -> None:
    found = outcomes_of([any_file], VanishingDecoder([[20, 21]]))
    assert [said(outcome) for outcome in found] == ["unreadable-file"] * 2


# Page ranges.


@pytest.mark.parametrize(
    "first, last, own_first, own_last, read",
    [
        (1, None, 1, None, [1, 2, 3, 4]),
        (2, 3, 1, None, [2, 3]),
        (1, None, 3, 3, [3]),
        (2, 3, 3, 4, [3]),
        (1, 2, 3, 4, []),
        (9, None, 1, None, []),
    ],
)
def test_pages_are_those_that_the_run_and_the_manifest_want(
    any_file: SourceFile, first: int, last: int | None, own_first: int, own_last: int | None, read: list[int]
) -> None:
    source = replace(any_file, first_page=own_first, last_page=own_last)
    options = ReadOptions(first_page=first, last_page=last)
    found = outcomes_of([source], FakeDecoder([[20] * 4]), options)
    assert [o.of.number for o in found if isinstance(o, ReadPage)] == read
    assert [o.of.number for o in found] == [1, 2, 3, 4]
    assert sum(isinstance(o, SkippedPage) for o in found) == 4 - len(read)


@pytest.mark.parametrize(
    "own_first, own_last, run_last, missing",
    [(3, 3, None, 3), (7, 7, None, 7), (2, 9, None, 3), (2, 9, 2, None), (7, None, None, 7), (1, 2, None, None)],
)
def test_page_that_the_manifest_names_and_the_file_has_not_is_dead(
    any_file: SourceFile, own_first: int, own_last: int | None, run_last: int | None, missing: int | None
) -> None:
    source = replace(any_file, first_page=own_first, last_page=own_last)
    found = outcomes_of([source], FakeDecoder([[20, 20]]), ReadOptions(last_page=run_last))
    dead = [(o.letter.page, o.letter.reason) for o in found if isinstance(o, DeadPage)]
    assert dead == ([(missing, "no-such-page")] if missing else [])
    assert [o.of.number for o in found if not isinstance(o, DeadPage)] == [1, 2]


def test_page_id_is_the_digest_of_the_file_and_the_number(tmp_path: Path, shared_decoder: Decoder) -> None:
    data = tiff_of([20, 21])
    (source,) = put(tmp_path, {"a.tif": data})
    found = outcomes_of([source], shared_decoder)
    digest = hashlib.sha256(data).hexdigest()
    assert [outcome.of.page_id for outcome in found] == [f"{digest}-0001", f"{digest}-0002"]


# What is handed on.


def test_bytes_of_jpegs_are_handed_on_only_when_asked_for(tmp_path: Path, shared_decoder: Decoder) -> None:
    jpeg = scans.encoded(scans.picture(20, 20), "JPEG")
    sources = put(tmp_path, {"a.jpg": jpeg, "b.png": png(20, 20)})
    kept = outcomes_of(sources, shared_decoder, replace(OPTIONS, keep_jpeg=True))
    assert [outcome.jpeg for outcome in kept if isinstance(outcome, ReadPage)] == [jpeg, None]
    assert all(o.jpeg is None for o in outcomes_of(sources, shared_decoder) if isinstance(o, ReadPage))


def test_page_that_was_read_reduced_has_the_size_of_the_picture(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a.png": png(200, 100)})
    limits = Limits(max_pixels=10_000, hard_max_pixels=100_000)
    with Decoder(limits) as decoder:
        (found,) = outcomes_of(sources, decoder, replace(OPTIONS, limits=limits))
    assert isinstance(found, ReadPage) and found.image.reduced_by == 2
    assert (found.page.width, found.page.height, found.page.text) == (200, 100, "100x50")
    assert found.page.regions[0].lines[0].words[0].box.as_list() == [0, 0, 200, 100]


class CountingReader(SizeReader):
    """Keeps count of its time like the real one, a second a page for finding."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = {"find": 0.0, "read": 0.0}

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        self.seconds["find"] += len(images)
        pages = super().read(images)
        return [replace(page, provenance={"model": "m1"}) for page in pages]


def test_sizes_durations_and_models_are_observed(tmp_path: Path, shared_decoder: Decoder) -> None:
    contents = {"a.png": png(20, 20), "b.png": png(30, 20), "c.png": b"xx"}
    observed = Observed()
    outcomes_of(put(tmp_path, contents), shared_decoder, OPTIONS, CountingReader(), observed)
    assert observed.bytes_in == sum(map(len, contents.values()))
    assert {stage: counts.total() for stage, counts in observed.milliseconds.items()} == {
        "decode": 2,
        "find": 2,
        "read": 2,
    }
    assert list(observed.milliseconds["find"]) == ["72"]  # a second each
    assert observed.readers == {"m1": 2}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(6)), st.integers(1, 6))
def test_text_of_a_page_depends_on_no_other(any_file: SourceFile, order: list[int], at_once: int) -> None:
    widths = [20 + n for n in order]
    found = outcomes_of([any_file], FakeDecoder([widths]), ReadOptions(pages_at_once=at_once))
    assert [said(outcome) for outcome in found] == [f"{width}x2" for width in widths]
