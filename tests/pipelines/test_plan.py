import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.errors import BadInput
from pipelines import plan
from pipelines.corpus import SourceFile
from pipelines.plan import (
    Item,
    Unit,
    claim_output,
    documents,
    plan_units,
    read_corpus,
    read_references,
    read_unit,
    read_units,
    unplanned,
    with_copies,
    write_plan,
)


def sources_of(*stems: str, **fields: Any) -> list[SourceFile]:
    return documents([SourceFile(f"/in/{stem}.png", stem, **fields) for stem in stems], whole_folders=False)


def items_of(*sizes: int) -> list[Item]:
    return [Item(SourceFile(f"/in/{n:05}", f"{n:05}", size, document=f"{n:05}")) for n, size in enumerate(sizes)]


def written(folder: Path, items: list[Item], first: int = 1) -> list[Unit]:
    units = list(plan_units(items, first=first))
    write_plan(str(folder), units)
    return units


# Documents.


def test_document_is_the_file_the_folder_or_what_the_manifest_says() -> None:
    files = [SourceFile("1", "b/1"), SourceFile("2", "2"), SourceFile("3", "a", document="../b")]
    assert [s.document for s in documents(files, whole_folders=False)] == ["%2E%2E/b", "2", "b/1"]
    assert [s.document for s in documents(files, whole_folders=True)] == ["%2E%2E/b", "2", "b"]


@pytest.mark.parametrize("name", ["/", ".", "./", "//"])
def test_document_without_a_name_is_the_file(name: str) -> None:
    assert documents([SourceFile("1", "a", document=name)], whole_folders=False)[0].document == "a"


def test_pages_of_a_document_are_in_order_whatever_the_listing() -> None:
    files = [SourceFile("b", "x", first_page=n, last_page=n, document="d") for n in (10, 2, 1)]
    assert [s.first_page for s in documents(files, whole_folders=False)] == [1, 2, 10]


# Units.


@given(st.lists(st.integers(0, 50), max_size=60), st.lists(st.integers(0, 8), min_size=60, max_size=60))
def test_units_hold_every_item_once_and_cut_no_document(sizes: list[int], names: list[int]) -> None:
    items = [
        Item(replace(item.source, document=f"{name}"))
        for item, name in zip(items_of(*sizes), sorted(names[: len(sizes)]), strict=True)
    ]
    units = list(plan_units(items, max_bytes=100))
    assert [item for unit in units for item in unit.items] == items
    places: dict[str, set[str]] = {}
    for unit in units:
        for item in unit.items:
            places.setdefault(item.source.document, set()).add(unit.name)
    assert all(len(found) == 1 for found in places.values())
    for unit in units:
        total = sum(item.source.size or 0 for item in unit.items)
        assert total <= 100 or len({item.source.document for item in unit.items}) == 1
    assert units == list(plan_units(items, max_bytes=100))


def sizes(items: list[Item], **changes: Any) -> list[int]:
    return [unit.files for unit in plan_units(items, **changes)]


@pytest.mark.parametrize("files", [1, 8, 9, 50, 208, 1000, 5000])
def test_units_get_smaller_until_the_last_ones_hold_a_few_files(files: int) -> None:
    found = sizes(items_of(*[1] * files))
    assert sum(found) == files and len(found) == plan.unit_count(files)
    assert found == sorted(found, reverse=True) and found[-1] <= 8
    left = files
    for size in found:  # whoever takes a unit leaves fifteen like it, or they are as small as they get
        assert size <= max(8, min(200, left / 16))
        left -= size


def test_units_of_large_files_get_smaller_too() -> None:
    mebibytes = 2**20
    found = sizes(items_of(*[50 * mebibytes] * 160))
    assert (found[0], found[-1]) == (10, 1) and found == sorted(found, reverse=True)


def test_copies_count_as_files_of_a_unit() -> None:
    items = [Item(item.source, (item.source,) * 6) for item in items_of(*[1] * 8)]
    assert sizes(items) == [7] * 8


def test_later_units_are_numbered_on() -> None:
    assert [unit.name[:7] for unit in plan_units(items_of(*[1] * 17), first=7)] == ["000007-", "000008-", "000009-"]


def test_name_of_a_unit_changes_with_its_files_and_not_with_their_stems() -> None:
    def name(*sources: SourceFile) -> str:
        (unit,) = plan_units([Item(source) for source in sources])
        return unit.name

    one = SourceFile("/in/a.png", "a", document="a")
    assert name(one) == name(replace(one, stem="a.png", document="a.png"))
    others = [replace(one, path="/in/b.png"), replace(one, first_page=2), replace(one, last_page=2)]
    assert len({name(one), *map(name, others)}) == 4


# Copies.


def put(root: Path, contents: dict[str, bytes]) -> list[SourceFile]:
    for name, content in contents.items():
        (root / name).write_bytes(content)
    sources = [SourceFile(str(root / name), name, len(content)) for name, content in contents.items()]
    return documents(sources, whole_folders=False)


def stems(items: list[Item]) -> dict[str, list[str]]:
    return {item.source.stem: [copy.stem for copy in item.copies] for item in items}


def test_equal_files_are_copies_of_the_first(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a": b"one", "b": b"two", "c": b"one", "d": b"three", "e": b"one"})
    assert stems(with_copies(sources, 99)) == {"a": ["c", "e"], "b": [], "d": []}


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = put(tmp_path, {"a": b"one", "b": b"four", "c": b"two", "d": b""})
    read: list[str] = []
    monkeypatch.setattr(plan, "_digest", lambda source, limit: read.append(source.stem))
    with_copies([*sources, SourceFile("nowhere", "e", None)], 99)
    assert sorted(read) == ["a", "c"]


def test_pages_that_two_documents_share_are_no_copies(tmp_path: Path) -> None:
    a, b, c = put(tmp_path, {"a": b"one", "b": b"two", "c": b"one"})
    sources = [replace(a, document="book"), replace(b, document="book"), c]
    assert stems(with_copies(sources, 99)) == {"a": [], "b": [], "c": []}


def test_other_pages_of_equal_files_are_no_copies(tmp_path: Path) -> None:
    a, b = put(tmp_path, {"a": b"one", "b": b"one"})
    assert stems(with_copies([a, replace(b, last_page=1)], 99)) == {"a": [], "b": []}


def test_candidates_that_cannot_be_read_or_are_too_big_are_no_copies(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a": b"one", "b": b"one", "c": b"large", "d": b"large"})
    (tmp_path / "b").unlink()
    assert stems(with_copies(sources, 3)) == {"a": [], "b": [], "c": [], "d": []}


def test_thousands_of_equal_files_are_shared_out(tmp_path: Path) -> None:
    sources = put(tmp_path, {f"{n:03}": b"empty form" for n in range(100)})
    items = with_copies(sources, 99)
    assert [item.files for item in items] == [32, 32, 32, 4]
    assert sorted(s.stem for item in items for s in (item.source, *item.copies)) == [s.stem for s in sources]


# On disk.

NAMES = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\udc80\udcff\n\t\"'\\/.🖨\u2028"), min_size=1, max_size=20
)


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True), st.dictionaries(NAMES, NAMES, max_size=3))
def test_any_name_survives_the_plan(names: list[str], columns: dict[str, str]) -> None:
    from tempfile import TemporaryDirectory

    metadata = tuple(sorted(columns.items()))
    sources = [
        SourceFile(f"/in/{name}", name, n or None, name * (n % 2), n + 1, n + 2 if n else None, name, metadata)
        for n, name in enumerate(names)
    ]
    items = [Item(sources[0], tuple(sources[1:])), *map(Item, sources[1:])]
    with TemporaryDirectory() as folder:
        units = written(Path(folder), items)
        assert list(read_units(folder)) == units
        assert [read_unit(folder, reference) for reference in read_references(folder)] == units


def test_references_tell_files_and_bytes(tmp_path: Path) -> None:
    a, b, c = items_of(3, 4, 5)
    written(tmp_path, [Item(a.source, (c.source,)), b])
    (reference,) = read_references(str(tmp_path))
    assert (reference.files, reference.bytes) == (3, 7)


def test_plan_without_units_is_not_written(tmp_path: Path) -> None:
    assert write_plan(str(tmp_path), []) == 0
    assert not list((tmp_path / plan.PLAN).glob("*"))


def test_plan_that_was_broken_off_before_its_index_is_written_anew(tmp_path: Path) -> None:
    written(tmp_path, items_of(1, 2))
    (tmp_path / plan.PLAN / "0002.jsonl").write_text("cut sho")
    assert len(plan.plan_files(str(tmp_path))) == 1
    units = written(tmp_path, items_of(3), first=2)
    assert plan.plan_files(str(tmp_path)) == [f"{plan.PLAN}/0001.jsonl", f"{plan.PLAN}/0002.jsonl"]
    assert list(read_units(str(tmp_path)))[1:] == units


def test_error_while_planning_leaves_no_plan(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from plan_units(items_of(1))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_plan(str(tmp_path), broken())
    assert not [path for path in (tmp_path / "ledger").rglob("*") if path.is_file()]


def test_index_is_written_after_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(folder: str, relative: str, content: str) -> None:
        assert (tmp_path / relative.replace(".index", ".jsonl")).exists()
        raise OSError("disk full")

    monkeypatch.setattr(plan, "write_atomically", full_disk)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path, items_of(1))
    assert list(read_references(str(tmp_path))) == []


def test_plan_cut_short_anywhere_is_told(tmp_path: Path) -> None:
    written(tmp_path, items_of(1))
    path = tmp_path / plan.PLAN / "0001.jsonl"
    whole = path.read_bytes()
    (reference,) = read_references(str(tmp_path))
    for length in range(1, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"is damaged at byte 0"):
            read_unit(str(tmp_path), reference)
        with pytest.raises(BadInput, match=r"is damaged at byte 0"):
            list(read_units(str(tmp_path)))


@pytest.mark.parametrize(
    "found, put_in",
    [("/in/00001", "/in/10001"), ('"unit":"000001', '"unit":"000002'), ('"items"', '"itams"'), ("{", "[")],
)
def test_plan_that_was_changed_is_told(tmp_path: Path, found: str, put_in: str) -> None:
    written(tmp_path, items_of(1, 1))
    path = tmp_path / plan.PLAN / "0001.jsonl"
    path.write_text(path.read_text().replace(found, put_in))
    (reference,) = read_references(str(tmp_path))
    with pytest.raises(BadInput, match=r"0001\.jsonl"):
        read_unit(str(tmp_path), reference)


def test_plan_that_is_gone_is_told(tmp_path: Path) -> None:
    written(tmp_path, items_of(1))
    (tmp_path / plan.PLAN / "0001.jsonl").unlink()
    with pytest.raises(BadInput, match="is gone"):
        read_unit(str(tmp_path), next(read_references(str(tmp_path))))


@pytest.mark.parametrize("content", ["[1, 2", "7", '["a", 1]', "\xff"])
def test_damaged_index_is_told(tmp_path: Path, content: str) -> None:
    written(tmp_path, items_of(1))
    (tmp_path / plan.PLAN / "0001.index").write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput, match=r"0001\.index is damaged"):
        list(read_references(str(tmp_path)))


# A corpus that grows and shrinks.


def test_only_new_files_are_unplanned_and_vanished_ones_are_named(tmp_path: Path) -> None:
    written(tmp_path, [Item(source) for source in sources_of("a", "b", "c")])
    new, vanished = unplanned(str(tmp_path), sources_of("b", "d"))
    assert ([s.stem for s in new], vanished) == (["d"], ["/in/a.png", "/in/c.png"])
    assert unplanned(str(tmp_path), sources_of("a", "b", "c")) == ([], [])


def test_plan_with_units_of_other_sizes_stays_and_new_files_get_units_of_their_own(tmp_path: Path) -> None:
    """As an older version has written it: units of one size."""
    items = [Item(source) for source in sources_of(*(f"{n:03}" for n in range(70)))]
    older = [plan._unit(n, items[start : start + 32]) for n, start in enumerate((0, 32), 1)]
    write_plan(str(tmp_path), older)
    new, vanished = unplanned(str(tmp_path), [item.source for item in items])
    assert (len(new), vanished) == (6, [])
    written(tmp_path, [Item(source) for source in new], first=3)
    assert [reference.files for reference in read_references(str(tmp_path))] == [32, 32, 6]
    assert list(read_units(str(tmp_path)))[:2] == older


def test_everything_is_unplanned_at_first(tmp_path: Path) -> None:
    sources = sources_of("a", "b")
    assert unplanned(str(tmp_path), sources) == (sources, [])


def test_copies_are_planned_and_a_new_stem_makes_no_new_file(tmp_path: Path) -> None:
    a, b = sources_of("a", "b")
    written(tmp_path, [Item(a, (b,))])
    assert unplanned(str(tmp_path), [replace(a, stem="a.png"), b]) == ([], [])


def test_other_pages_of_a_planned_file_are_new(tmp_path: Path) -> None:
    (a,) = sources_of("a", first_page=1, last_page=3)
    written(tmp_path, [Item(a)])
    others = [replace(a, first_page=4, last_page=4), replace(a, last_page=9), replace(a, last_page=None)]
    others = [replace(source, document=f"a{n}") for n, source in enumerate(others)]
    assert unplanned(str(tmp_path), [a, *others]) == (others, [])


def test_new_files_of_a_planned_document_are_a_document_of_their_own(tmp_path: Path) -> None:
    files = [SourceFile("/in/b/1", "b/1"), SourceFile("/in/b/2", "b/2")]
    written(tmp_path, [Item(source) for source in documents(files, whole_folders=True)])
    for number, stem in enumerate(["b/3", "b/4"], 2):  # other pages of the folder
        files += [SourceFile(f"/in/{stem}", stem), SourceFile(f"/in/{number}", f"{number}")]
        new, vanished = unplanned(str(tmp_path), documents(files, whole_folders=True))
        assert {source.stem: source.document for source in new} == {
            stem: f"b.part-{number:04}",
            f"{number}": f"{number}",
        }
        assert vanished == []
        written(tmp_path, [Item(source) for source in new], first=number)


def test_file_with_the_name_of_a_folder_is_no_page_of_it() -> None:
    sources = documents([SourceFile("/in/b.png", "b"), SourceFile("/in/b/1.png", "b/1")], whole_folders=True)
    assert [(source.stem, source.document) for source in sources] == [("b/1", "b"), ("b", "b~file")]


# Whose folder it is.


def test_folder_stays_with_its_corpus(tmp_path: Path) -> None:
    claim_output(str(tmp_path), ["scans", "gs://bucket/more"])
    claim_output(str(tmp_path), [os.path.abspath("scans"), "gs://bucket/more"])
    assert read_corpus(str(tmp_path))["inputs"] == [os.path.abspath("scans"), "gs://bucket/more"]
    with pytest.raises(BadInput, match="holds the results of"):
        claim_output(str(tmp_path), ["scans"])


def test_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    claim_output(str(tmp_path), ["scans"])
    (tmp_path / plan.CORPUS).write_text(json.dumps({"version": 99}))
    with pytest.raises(BadInput, match="has ledger version 99, this program writes 1"):
        claim_output(str(tmp_path), ["scans"])


@pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 1}', '{"version": 1, "inputs": [3]}', "null"])
def test_damaged_note_on_the_corpus_is_told(tmp_path: Path, content: str) -> None:
    claim_output(str(tmp_path), ["scans"])
    (tmp_path / plan.CORPUS).write_text(content)
    with pytest.raises(BadInput, match="is damaged"):
        claim_output(str(tmp_path), ["scans"])


def test_folder_without_a_corpus_holds_no_results(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no results"):
        read_corpus(str(tmp_path))


def test_inputs_with_any_name_can_claim(tmp_path: Path) -> None:
    for _ in range(2):
        claim_output(str(tmp_path), ["caf\udce9\n", "\"'🖨"])


# Size.

MILLION = """
import resource, sys, time
from pipelines.corpus import SourceFile
from pipelines.plan import Item, documents, plan_units, unplanned, write_plan, read_references
folder = f"/archive/collection {7:04}/a folder with a longer name"
sources = [SourceFile(f"{folder}/{n // 1000:04}/scan-{n:07}.jpg", f"{n // 1000:04}/scan-{n:07}", 10**6 + n)
           for n in range(10**6)]
began = time.monotonic()
sources = documents(sources, False)
write_plan(sys.argv[1], plan_units([Item(source) for source in unplanned(sys.argv[1], sources)[0]]))
planned_s = time.monotonic() - began
assert unplanned(sys.argv[1], sources) == ([], [])
print(planned_s, time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
print(sum(reference.files for reference in read_references(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_million_files_are_planned_within_a_minute_and_a_gigabyte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    planned_s, again_s, peak_gb, files = map(float, done.stdout.split())
    assert files == 10**6
    assert again_s < 60 and peak_gb < 1, (planned_s, again_s, peak_gb)
