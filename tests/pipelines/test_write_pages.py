import io
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_model.errors import UnreadablePage
from ocr_model.images import PageImage
from pipelines import write_pages
from pipelines.corpus import SourceFile
from pipelines.formats import FORMATS
from pipelines.formats.record import Format, PageRecord, PageScan
from pipelines.formats.text import TextWriter
from pipelines.ledger import Counts, DeadLetter
from pipelines.outputs import Staging
from pipelines.plan import Item
from pipelines.read_pages import DeadPage, Outcome, PageOfFile, ReadPage, SkippedPage
from pipelines.write_pages import WriteOptions, Written, page_stem, write_outcomes
from tests.pipelines.folders import files_in
from tests.pipelines.readers import page_saying

STAGING = "ledger/staging/u1.1"


def source(stem: str, document: str = "") -> SourceFile:
    return SourceFile(f"/in/{stem}.tif", stem, document=document or stem)


def outcome(item: Item, number: int, pages: int, kind: str) -> Outcome:
    """`read`, `dead`, `skipped`, or `file` for a file that cannot be opened; anything else is the page's text."""
    of = PageOfFile(item, number, pages, f"id-{number:04}")
    if kind == "skipped":
        return SkippedPage(of)
    if kind in ("dead", "file"):
        error = UnreadablePage("cut short", "truncated")
        return DeadPage(of, DeadLetter.of(item.source.origin, None if kind == "file" else number, "decode", error))
    page = page_saying(f"{item.source.stem}:{number}" if kind == "read" else kind, 20, 10)
    return ReadPage(of, page, PageImage(np.zeros((10, 20), np.uint8)))


def pages_of(item: Item, *kinds: str) -> list[Outcome]:
    return [outcome(item, number, len(kinds), kind) for number, kind in enumerate(kinds, 1)]


def write(
    root: Path,
    outcomes: Sequence[Outcome],
    options: WriteOptions = WriteOptions(),
    dead_before: frozenset[tuple[str, int | None]] | None = None,
) -> Written:
    """Writes and publishes."""
    staging = Staging(str(root), STAGING)
    written = write_outcomes(outcomes, staging, "u1", options, dead_before)
    staging.publish(written.outputs)
    assert files_in(root / STAGING) == []
    staging.discard()
    return written


def check(written: Written) -> None:
    """The books of a unit are in order."""
    assert written.counts.balanced and all(file.as_counts().balanced for file in written.files)
    dead = {file.path: file.dead for file in written.files if file.dead}
    assert Counter(letter.path for letter in written.letters) == dead
    doubtful, lost = ({(p.path, p.page) for p in pages} for pages in (written.doubtful, written.letters))
    assert not doubtful & lost
    paths = [file.path for file in written.outputs]
    assert len(set(paths)) == len(paths) and paths == sorted(paths)


def texts(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in files_in(root) if name.startswith("txt/")}


# Documents.


def test_pages_of_a_file_are_a_document_and_keep_their_places(tmp_path: Path) -> None:
    written = write(tmp_path, pages_of(Item(source("a")), "dead", "read", "skipped", "dead", "read", "dead"))
    assert texts(tmp_path) == {"txt/a.txt": "\fa:2\n\f\fa:5\n\f"}
    assert written.counts == Counts(1, 6, 2, 3, 1, 0, 2, 6, 0, written.outputs[0].size)
    check(written)


def test_skipped_pages_have_no_place(tmp_path: Path) -> None:
    write(tmp_path, pages_of(Item(source("a")), "skipped", "read", "skipped"))
    assert texts(tmp_path) == {"txt/a.txt": "a:2\n"}


def test_files_of_a_document_are_written_to_one_file(tmp_path: Path) -> None:
    items = [Item(source("b/1", "b")), Item(source("b/2", "b")), Item(source("c"))]
    written = write(tmp_path, [o for item in items for o in pages_of(item, "read", "read")])
    assert texts(tmp_path) == {"txt/b.txt": "b/1:1\n\fb/1:2\n\fb/2:1\n\fb/2:2\n", "txt/c.txt": "c:1\n\fc:2\n"}
    assert written.counts.files == 3
    check(written)


def test_document_of_which_nothing_was_read_has_no_file(tmp_path: Path) -> None:
    outcomes = [*pages_of(Item(source("a")), "dead", "skipped"), *pages_of(Item(source("b")), "file")]
    written = write(tmp_path, outcomes, WriteOptions(("txt", "jsonl", "parquet")))
    assert files_in(tmp_path) == [] and written.outputs == []
    assert [(letter.path, letter.page) for letter in written.letters] == [("/in/a.tif", 1), ("/in/b.tif", None)]
    check(written)


def test_empty_unit_writes_nothing(tmp_path: Path) -> None:
    for layout in write_pages.LAYOUTS:
        assert write(tmp_path, [], WriteOptions(("txt", "parquet"), layout=layout)).counts == Counts()
    assert files_in(tmp_path) == []


def test_letters_tell_their_unit(tmp_path: Path) -> None:
    (letter,) = write(tmp_path, pages_of(Item(source("a")), "dead")).letters
    assert letter.unit == "u1"


def test_doubtful_pages_are_listed(tmp_path: Path) -> None:
    outcomes = pages_of(Item(source("a"), (source("b"),)), "read")
    sure, unsure = (write(tmp_path, outcomes, WriteOptions(doubtful_below=limit)) for limit in (0.9, 0.91))
    assert sure.doubtful == []
    assert [(d.path, d.page, d.confidence) for d in unsure.doubtful] == [("/in/a.tif", 1, 0.9), ("/in/b.tif", 1, 0.9)]


# Copies.


def test_copies_get_the_text_under_their_own_names(tmp_path: Path) -> None:
    item = Item(source("a"), (replace(source("z/b"), metadata=(("box", "7"),)), source("c")))
    written = write(tmp_path, pages_of(item, "read", "dead", "skipped"), WriteOptions(("txt", "jsonl")))
    assert texts(tmp_path) == {f"txt/{stem}.txt": "a:1\n\f" for stem in ("a", "z/b", "c")}
    record = json.loads((tmp_path / "jsonl/z/b.jsonl").read_text())
    assert (record["path"], record["document"], record["metadata"]) == ("/in/z/b.tif", "z/b", {"box": "7"})
    counts = written.counts
    assert (counts.files, counts.pages, counts.read, counts.duplicates, counts.dead, counts.skipped) == (
        3,
        9,
        1,
        2,
        3,
        3,
    )
    assert {letter.path for letter in written.letters} == {"/in/a.tif", "/in/z/b.tif", "/in/c.tif"}
    check(written)


# A file a page.


@pytest.mark.parametrize(
    "stem, number, pages, name",
    [
        ("a/scan", 1, 1, "a/scan"),
        ("a/book", 7, 9, "a/book.page-0007"),
        ("a/book.page-0007", 7, 9, "a/book.page-0007"),
        ("a/book.pages-0003-0012", 3, 99, "a/book.pages-0003-0012.page-0003"),
        ("a", 12345, 20000, "a.page-12345"),
    ],
)
def test_page_is_named_after_its_file_and_number(stem: str, number: int, pages: int, name: str) -> None:
    assert page_stem(stem, PageOfFile(Item(source(stem)), number, pages)) == name


def test_a_file_a_page_where_asked_for(tmp_path: Path) -> None:
    outcomes = [*pages_of(Item(source("a")), "read", "dead", "read"), *pages_of(Item(source("b", "a")), "read")]
    write(tmp_path, outcomes, WriteOptions(("txt", "page"), per_page=True))
    assert texts(tmp_path) == {"txt/a.page-0001.txt": "a:1\n", "txt/a.page-0003.txt": "a:3\n", "txt/b.txt": "b:1\n"}


# Layouts.


def test_shards_hold_the_files_of_the_other_layout(tmp_path: Path) -> None:
    outcomes = [*pages_of(Item(source("a/ä\udcff")), "read", "read"), *pages_of(Item(source("b" * 150)), "read")]
    formats = ("txt", "jsonl", "page", "parquet")
    write(tmp_path / "files", outcomes, WriteOptions(formats))
    write(tmp_path / "shards", outcomes, WriteOptions(formats, layout="shards"))
    assert files_in(tmp_path / "shards") == ["jsonl/u1.jsonl", "page/u1.tar", "parquet/u1.parquet", "txt/u1.tar"]
    for name in ("txt", "page"):
        with tarfile.open(tmp_path / f"shards/{name}/u1.tar", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None and (member.mtime, member.uid) == (0, 0)
                assert content.read() == (tmp_path / "files" / name / member.name).read_bytes()
    lines = (tmp_path / "shards/jsonl/u1.jsonl").read_bytes()
    assert lines == b"".join(
        (tmp_path / "files" / name).read_bytes() for name in files_in(tmp_path / "files") if name.startswith("jsonl/")
    )


@pytest.mark.parametrize("layout", write_pages.LAYOUTS)
def test_the_same_pages_give_the_same_bytes(tmp_path: Path, layout: write_pages.Layout) -> None:
    outcomes = pages_of(Item(source("a"), (source("b"),)), "read", "dead", "read")
    options = WriteOptions(tuple(name for name in FORMATS if name != "pdfa"), layout=layout)
    assert write(tmp_path / "1", outcomes, options) == write(tmp_path / "2", outcomes, options)


def test_large_members_of_shards_wait_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_pages, "_SPOOL_BYTES", 1)
    write(tmp_path, pages_of(Item(source("a")), "read", "read"), WriteOptions(layout="shards"))
    with tarfile.open(tmp_path / "txt/u1.tar") as tar:
        assert [member.size for member in tar] == [9]


# A retry.


@pytest.mark.parametrize("before", [("/in/a.tif", 2), ("/in/a.tif", None)])
def test_files_of_whole_units_get_only_what_was_dead(tmp_path: Path, before: tuple[str, int | None]) -> None:
    outcomes = pages_of(Item(source("a")), "read", "read")
    write(tmp_path, outcomes, WriteOptions(("txt", "jsonl"), layout="shards"), frozenset([before]))
    pages = [json.loads(line)["page"] for line in (tmp_path / "jsonl/u1.jsonl").read_text().splitlines()]
    assert pages == ([1, 2] if before[1] is None else [2])
    with tarfile.open(tmp_path / "txt/u1.tar") as tar:
        content = tar.extractfile("a.txt")
        assert content is not None and content.read() == b"a:1\n\fa:2\n"


# What cannot be written.


class PickyWriter(TextWriter):
    """Cannot hold a page that says "bad", nor finish a document with one that says "worse"."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        super().__init__(stream, title)
        self.texts: list[str] = []

    def add(self, record: PageRecord, scan: PageScan) -> None:
        if record.page.text == "bad":
            raise ValueError("a bad page")
        self.texts.append(record.page.text)
        super().add(record, scan)

    def finish(self) -> None:
        if "worse" in self.texts:
            raise LookupError("a worse page")


class PackedWriter(PickyWriter):
    """Cannot hold a page that says "bad"."""

    def finish(self) -> None:
        pass


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "picky", Format("picky", ".picky", "document", PickyWriter))
    monkeypatch.setitem(FORMATS, "packed", Format("packed", ".packed", "unit", PackedWriter))


@pytest.mark.usefixtures("picky")
@pytest.mark.parametrize("kind", ["bad", "worse"])
@pytest.mark.parametrize("layout", write_pages.LAYOUTS)
def test_document_that_a_format_cannot_hold_is_buried_as_a_whole(
    tmp_path: Path, kind: str, layout: write_pages.Layout
) -> None:
    outcomes = [
        *pages_of(Item(source("a"), (source("copy"),)), "read", kind, "dead", "read", "skipped"),
        *pages_of(Item(source("b")), "read"),
    ]
    written = write(tmp_path, outcomes, WriteOptions(("txt", "picky"), layout=layout, doubtful_below=0.95))
    counts = written.counts
    assert (counts.read, counts.dead, counts.skipped, counts.duplicates) == (1, 8, 2, 0)
    failed = [(letter.path, letter.page) for letter in written.letters if letter.reason == "write-failed"]
    assert sorted(failed) == [(f"/in/{stem}.tif", n) for stem in ("a", "copy") for n in (1, 2, 4)]
    assert all(letter.page_id for letter in written.letters if letter.stage == "write")
    if layout == "files":
        assert files_in(tmp_path) == ["picky/b.picky", "txt/b.txt"]
    check(written)


@pytest.mark.usefixtures("picky")
def test_page_that_the_file_of_a_unit_cannot_hold_is_buried(tmp_path: Path) -> None:
    outcomes = [
        o for stem, kind in (("a", "read"), ("b", "bad"), ("c", "read")) for o in pages_of(Item(source(stem)), kind)
    ]
    written = write(tmp_path, outcomes, WriteOptions(("txt", "packed")))
    assert (written.counts.read, [letter.path for letter in written.letters]) == (2, ["/in/b.tif"])
    assert texts(tmp_path) == {"txt/a.txt": "a:1\n", "txt/c.txt": "c:1\n"}
    assert (tmp_path / "packed/u1.packed").read_text() == "a:1\n\fc:1\n"
    check(written)


def test_document_whose_name_cannot_be_written_is_buried(tmp_path: Path) -> None:
    items = [Item(source("a")), Item(source("x" * 300), (source("copy"),)), Item(source("c"))]
    written = write(tmp_path, [o for item in items for o in pages_of(item, "read", "dead")])
    assert sorted(texts(tmp_path)) == ["txt/a.txt", "txt/c.txt"]
    assert {letter.reason for letter in written.letters} == {"truncated", "bad-name"}
    assert (written.counts.read, written.counts.dead) == (2, 6)
    check(written)


@pytest.mark.parametrize("layout", write_pages.LAYOUTS)
def test_second_page_of_one_name_is_buried(tmp_path: Path, layout: write_pages.Layout) -> None:
    items = [*pages_of(Item(source("a")), "read", "read"), *pages_of(Item(source("a.page-0002")), "read")]
    written = write(tmp_path, items, WriteOptions(per_page=True, layout=layout))
    assert [(letter.path, letter.reason) for letter in written.letters] == [("/in/a.page-0002.tif", "bad-name")]
    assert (written.counts.read, written.counts.dead) == (2, 1)
    check(written)


def test_name_that_is_a_folder_of_another_unit_is_buried(tmp_path: Path) -> None:
    write(tmp_path, pages_of(Item(source("a.txt/b")), "read"))
    written = write(tmp_path, pages_of(Item(source("a")), "read"))
    assert [letter.reason for letter in written.letters] == ["bad-name"]
    assert texts(tmp_path) == {"txt/a.txt/b.txt": "a.txt/b:1\n"}


@pytest.mark.usefixtures("picky")
def test_pages_of_a_buried_document_are_not_published(tmp_path: Path) -> None:
    written = write(tmp_path, pages_of(Item(source("a")), "read", "bad"), WriteOptions(("picky", "txt"), per_page=True))
    assert written.outputs == [] and files_in(tmp_path) == []
    check(written)


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("layout", write_pages.LAYOUTS)
def test_full_disk_is_no_fault_of_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: write_pages.Layout
) -> None:
    from pipelines.outputs import StagedFile

    monkeypatch.setattr(Staging, "open", lambda self, relative: StagedFile(relative, FullDisk()))
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, pages_of(Item(source("a")), "read"), WriteOptions(layout=layout))


# Whatever happens, the books balance.

KINDS = st.sampled_from(["read", "read", "dead", "skipped", "bad", "worse"])
FILES = st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans(), st.lists(KINDS, min_size=1, max_size=4))


@pytest.mark.usefixtures("picky")
@settings(max_examples=60, deadline=None)
@given(st.lists(FILES, max_size=5), st.booleans(), st.sampled_from(write_pages.LAYOUTS))
def test_books_balance_whatever_becomes_of_the_pages(
    files: list[tuple[int, int, bool, list[str]]], per_page: bool, layout: write_pages.Layout
) -> None:
    outcomes: list[Outcome] = []
    expected = 0
    for n, (document, copies, bad_name, kinds) in enumerate(sorted(files, key=lambda file: file[0])):
        alone = document == 0
        name = f"{n}" + "x" * (300 if bad_name else 0)
        extra = tuple(source(f"{n}-{m}") for m in range(copies if alone else 0))
        item = Item(source(name, "" if alone else f"book{document}"), extra)
        outcomes += pages_of(item, *kinds)
        expected += len(kinds) * item.files
    options = WriteOptions(("txt", "picky", "packed"), per_page, layout, doubtful_below=0.95)
    with TemporaryDirectory() as folder:
        written = write(Path(folder), outcomes, options)
        check(written)
        assert written.counts.pages == expected
        assert written.counts.read <= sum(isinstance(outcome, ReadPage) for outcome in outcomes)
