import errno
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ocr_model.bundle import bundle_digest
from ocr_model.document import Page
from ocr_model.errors import BadInput, BadModel, TooManyFailures
from pipelines import ledger
from pipelines.clock import cpu_seconds
from pipelines.commits import commit_unit
from pipelines.corpus import SourceFile
from pipelines.decoder import Decoder
from pipelines.ledger import DeadLetter, check_stop, forget_run
from pipelines.outputs import Staging, write_atomically
from pipelines.plan import Item, Unit, read_references, read_unit, with_copies
from pipelines.report import reconcile
from pipelines.routing import Readers, Routing, SecondOpinion
from pipelines.units import Retry, RunOptions, Worker, load_isolated, narrowed, stage_unit
from pipelines.verify import verify_output
from tests import scans
from tests.pipelines.bad_readers import HANGING, KILLED, BadReader, SureReader
from tests.pipelines.folders import do_units, files_in, plan, png, put, run_options, worker_of
from tests.pipelines.readers import SizeReader


def the_unit(options: RunOptions) -> Unit:
    (reference,) = read_references(options.output)
    return read_unit(options.output, reference)


def texts(root: Path) -> dict[str, str]:
    return {name[4:]: (root / name).read_text() for name in files_in(root) if name.startswith("txt/")}


def letters(root: Path) -> list[DeadLetter]:
    entries, _ = ledger.read_entries(str(root))
    return [letter for name in sorted(entries) for letter in ledger.dead_letters(str(root), entries[name])]


def reasons(root: Path) -> dict[str, str]:
    return {Path(letter.path).name: letter.reason for letter in letters(root)}


def left_over(root: Path) -> list[str]:
    """What attempts have left."""
    below = [root / ledger.STAGING, root / ledger.ATTEMPTS, root / "ledger/partial"]
    return [str(path) for folder in below if folder.is_dir() for path in folder.rglob("*")]


def check(root: Path) -> None:
    reconcile(str(root)).check()
    assert verify_output(str(root)).problems == ()
    assert left_over(root) == []


# Attempts.


def test_first_attempt_reads_in_the_worker(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": png(13, 20)}))
    (entry,) = do_units(run_options(str(tmp_path), load=BadReader), shared_decoder)
    assert (texts(tmp_path), reasons(tmp_path)) == ({"a.txt": f"{os.getpid()}\n"}, {"b.png": "reader-failed"})
    assert (entry.attempt, entry.counts.read, entry.counts.bytes_out) == (1, 1, len(f"{os.getpid()}\n"))
    check(tmp_path)


def test_after_a_worker_died_pages_are_read_apart_and_the_deadly_one_is_found(
    tmp_path: Path, shared_decoder: Decoder
) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": png(KILLED, 20), "c.png": png(30, 20)}))
    options = run_options(str(tmp_path), load=BadReader)
    ledger.begin_attempt(options.output, the_unit(options).name, options.run)
    (entry,) = do_units(options, shared_decoder)
    assert reasons(tmp_path) == {"b.png": "reader-died"}
    assert len(set(texts(tmp_path).values()) - {f"{os.getpid()}\n"}) == 2  # a child before the death, and one after
    assert (entry.attempt, letters(tmp_path)[0].attempts) == (2, 2)
    check(tmp_path)


def test_page_that_hangs_in_isolation_costs_its_limit(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(HANGING, 20)}))
    options = run_options(str(tmp_path), load=BadReader)
    options = replace(options, read=replace(options.read, timeout_s=0.5))
    ledger.begin_attempt(options.output, the_unit(options).name, options.run)
    began = time.monotonic()
    do_units(options, shared_decoder)
    assert reasons(tmp_path) == {"a.png": "timeout"}
    assert time.monotonic() - began < 0.5 + 15  # most of it is the child's start
    check(tmp_path)


@pytest.mark.parametrize("second", [None, "second50"])
def test_page_that_hangs_at_the_first_attempt_costs_its_limit_and_no_worker(
    tmp_path: Path, shared_decoder: Decoder, second: str | None
) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": png(HANGING, 20), "c.png": png(30, 20)}))
    options = run_options(str(tmp_path), load=BadReader, watch=True, routing=Routing(second=second, second_below=0.95))
    options = replace(options, read=replace(options.read, timeout_s=0.3))
    began = time.monotonic()
    (entry,) = do_units(options, shared_decoder)
    assert time.monotonic() - began < 0.3 + 5
    assert reasons(tmp_path) == {"b.png": "timeout"} and set(texts(tmp_path).values()) == {f"{os.getpid()}\n"}
    assert (entry.attempt, letters(tmp_path)[0].attempts) == (1, 1)
    check(tmp_path)


def test_bundle_of_a_route_is_not_loaded_under_the_clock_of_its_first_page(
    tmp_path: Path, shared_decoder: Decoder
) -> None:
    loaded: list[tuple[str | None, str]] = []

    def load(bundle: str | None) -> SizeReader:
        loaded.append((bundle, threading.current_thread().name))
        return SizeReader(bundle)

    options = run_options(str(tmp_path), load=load, watch=True)
    worker = worker_of(options, shared_decoder)
    worker.reader_of(SourceFile("a", "a", metadata=(("bundle", "french"),))).read(images(20))
    assert loaded == [("french", threading.current_thread().name)]


def test_unit_that_kills_every_worker_is_quarantined(tmp_path: Path, shared_decoder: Decoder) -> None:
    sources = put(tmp_path, {f"{n}.png": png(KILLED, 20) for n in range(3)} | {"other.png": png(20, 20)})
    plan(str(tmp_path), sources, with_copies([replace(s, document=s.stem) for s in sources], 9999))
    options = run_options(str(tmp_path), load=BadReader, max_attempts=2)
    for _ in range(2):
        ledger.begin_attempt(options.output, the_unit(options).name, options.run)
    (entry,) = do_units(options, shared_decoder)
    assert (entry.attempt, entry.counts.files, entry.counts.dead) == (3, 4, 4)
    assert set(reasons(tmp_path).values()) == {"quarantined"} and len(letters(tmp_path)) == 4
    check(tmp_path)


def test_page_that_is_named_and_not_there_is_counted_as_dead(tmp_path: Path, shared_decoder: Decoder) -> None:
    (source,) = put(tmp_path, {"a.png": png(20, 20)})
    plan(str(tmp_path), [replace(source, first_page=7, last_page=7)])
    (entry,) = do_units(run_options(str(tmp_path)), shared_decoder)
    assert (entry.counts.pages, entry.counts.skipped, entry.counts.dead) == (2, 1, 1)
    assert (texts(tmp_path), reasons(tmp_path)) == ({}, {"a.png": "no-such-page"})
    check(tmp_path)


def test_attempts_of_an_earlier_run_do_not_count(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20)}))
    options = run_options(str(tmp_path))
    ledger.begin_attempt(options.output, the_unit(options).name, "run0")
    ledger.forget_other_runs(options.output, options.run)
    assert [entry.attempt for entry in do_units(options, shared_decoder)] == [1]


def test_two_workers_may_do_the_same_unit(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": b"x"}))
    options = run_options(str(tmp_path), "txt", "jsonl", "parquet")
    staged = [stage_unit(the_unit(options), worker_of(options, shared_decoder)) for _ in range(2)]
    first, second = (commit_unit(attempt, options) for attempt in staged)
    assert (first.counts, first.outputs, first.files) == (second.counts, second.outputs, second.files)
    check(tmp_path)


# What ends a run.


class FullDisk(Staging):
    def open(self, relative: str) -> None:  # type: ignore[override]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_ends_the_run_and_the_unit_is_open(
    tmp_path: Path, shared_decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20)}))
    options = run_options(str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.unit_runs.Staging", FullDisk)
        with pytest.raises(BadInput, match=r"cannot write to .*: No space left on device"):
            do_units(options, shared_decoder)
    assert left_over(tmp_path) == [] and reconcile(options.output).open_units == 1
    assert [entry.attempt for entry in do_units(options, shared_decoder)] == [1]
    check(tmp_path)


def test_disk_that_is_full_at_the_commit_ends_the_run_and_a_rerun_heals(
    tmp_path: Path, shared_decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20)}))
    options = run_options(str(tmp_path))
    for target in ("pipelines.ledger.write_atomically", "pipelines.outputs.os.replace"):
        staged = stage_unit(the_unit(options), worker_of(options, shared_decoder))
        with monkeypatch.context() as patched:
            patched.setattr(target, full)
            with pytest.raises(BadInput, match="No space left on device"):
                commit_unit(staged, options)
        assert reconcile(options.output).open_units == 1
        forget_run(options.output)  # as the next run begins
        ledger.forget_other_runs(options.output, "run2")
    do_units(options, shared_decoder)
    check(tmp_path)


def test_limit_of_dead_letters_ends_the_run(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {f"{n}.png": b"x" for n in range(4)}))
    options = run_options(str(tmp_path), max_dead=3)
    with pytest.raises(TooManyFailures, match="over 3 pages"):
        do_units(options, shared_decoder)
    assert left_over(tmp_path) == []
    do_units(replace(options, max_dead=4), shared_decoder)
    check(tmp_path)


def test_sign_to_stop_is_seen_and_forgotten_by_the_next_run(tmp_path: Path) -> None:
    check_stop(str(tmp_path))
    write_atomically(str(tmp_path), ledger.STOP, "stop")
    write_atomically(str(tmp_path), f"{ledger.STAGING}/u.1/txt/a.txt", "of a killed worker")
    with pytest.raises(TooManyFailures):
        check_stop(str(tmp_path))
    forget_run(str(tmp_path))
    check_stop(str(tmp_path))
    assert left_over(tmp_path) == []


# Readers and routes.


def bundle_of(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    (folder / name / "weights").write_text(name)
    return str(folder / name)


def digests_of(*bundles: str) -> dict[str | None, str]:
    return {bundle: bundle_digest(Path(bundle)) for bundle in bundles}


def test_rules_choose_the_bundle_and_a_column_goes_first() -> None:
    routing = Routing("main", (("language", "fr", "french"), ("century", "17", "old"), ("language", "fr", "never")))

    def chosen(**columns: str) -> str | None:
        return routing.bundle_of(SourceFile("a", "a", metadata=tuple(sorted(columns.items()))))

    assert chosen(language="fr", century="17") == "french"
    assert chosen(language="de", century="17") == "old"
    assert chosen(language="de") == chosen() == chosen(bundle="") == "main"
    assert chosen(bundle="own", language="fr") == "own"
    assert Routing().bundle_of(SourceFile("a", "a")) is None


def test_all_bundles_of_a_corpus_are_named_once() -> None:
    routing = Routing(None, (("language", "fr", "french"),), second="better")
    sources = [SourceFile("a", "a", metadata=(("bundle", name),)) for name in ("own", "own", "french")]
    assert routing.bundles(sources) == sorted([None, "french", "own", "better"], key=str)
    assert Routing("m").bundles() == ["m"]


def test_files_are_read_by_the_bundles_of_their_routes(tmp_path: Path, shared_decoder: Decoder) -> None:
    main, french = bundle_of(tmp_path, "main90"), bundle_of(tmp_path, "french90")
    a, b, c = put(tmp_path, {"a.png": png(20, 20), "b.png": png(30, 20), "c.png": png(40, 20)})
    plan(str(tmp_path), [a, replace(b, metadata=(("language", "fr"),)), c])
    options = run_options(str(tmp_path), load=SureReader, digests=digests_of(main, french))
    options = replace(options, routing=Routing(main, (("language", "fr", french),)))
    (entry,) = do_units(options, shared_decoder)
    assert texts(tmp_path) == {"a.txt": f"{main}\n", "b.txt": f"{french}\n", "c.txt": f"{main}\n"}
    assert entry.models == {main: 2, french: 1}


@pytest.mark.parametrize("second", [False, True])
def test_bundle_that_changes_during_the_run_ends_it(tmp_path: Path, shared_decoder: Decoder, second: bool) -> None:
    main, other = bundle_of(tmp_path, "main50"), bundle_of(tmp_path, "other90")
    (source,) = put(tmp_path, {"a.png": png(20, 20)})
    plan(str(tmp_path), [source if second else replace(source, metadata=(("bundle", other),))])
    options = run_options(str(tmp_path), load=SureReader, digests=digests_of(main, other))
    options = replace(options, routing=Routing(main, second=other if second else None))
    (Path(other) / "weights").write_text("changed")
    with pytest.raises(BadModel, match="has changed since the run began"):
        do_units(options, shared_decoder)
    assert left_over(tmp_path) == [] and letters(tmp_path) == []


def test_readers_are_loaded_once_and_work_through_a_proxy(tmp_path: Path) -> None:
    loaded: list[str | None] = []

    def load(bundle: str | None) -> SizeReader:
        loaded.append(bundle)
        return SizeReader(bundle)

    readers = Readers(load, {})
    image = np.zeros((20, 30), np.uint8)
    assert readers.read("a", [image])[0].text == "30x20"
    assert readers.read_single_lines("a", [image])[0].text == "line"
    assert (readers.seconds("a"), readers.seconds("b"), loaded) == ({}, {}, ["a", "b"])


# A second opinion.


def images(*widths: int) -> list[np.ndarray]:
    return [np.zeros((10, width), np.uint8) for width in widths]


class VaryingReader(SureReader):
    """Is as sure as the page is wide."""

    def _saying(self, width: int, height: int) -> Page:
        self.bundle = f"first{width}"
        return super()._saying(width, height)


def test_only_doubtful_pages_are_read_again_and_the_better_reading_stays() -> None:
    first, second = VaryingReader(None), SureReader("second50")
    reader = SecondOpinion(first, second, below=0.7)
    for read in (reader.read, reader.read_single_lines):
        second.widths.clear()
        pages = read(images(40, 90, 60, 50, 70))
        assert [page.text for page in pages] == ["second50", "first90", "first60", "first50", "first70"]
        assert second.widths == [40, 60, 50]


def test_second_reader_is_not_asked_where_there_is_no_doubt() -> None:
    class Never(SizeReader):
        def read(self, images: Sequence[np.ndarray]) -> list[Page]:
            raise AssertionError("nobody asked")

    assert len(SecondOpinion(VaryingReader(None), Never(), below=0.7).read(images(80, 90))) == 2


def test_worker_and_its_child_have_the_same_second_reader(tmp_path: Path, shared_decoder: Decoder) -> None:
    main, better = bundle_of(tmp_path, "main50"), bundle_of(tmp_path, "better90")
    routing = Routing(main, second=better, second_below=0.7)
    options = run_options(str(tmp_path), load=SureReader, digests=digests_of(main, better), routing=routing)
    here = worker_of(options, shared_decoder).reader_of(SourceFile("a", "a"))
    for reader in (here, load_isolated(options, main)):
        assert [page.text for page in reader.read(images(20))] == [better]
    options = replace(options, routing=replace(routing, second=None))
    assert load_isolated(options, main).read(images(20))[0].text == main


# A run with another model or configuration.


def test_commit_after_a_change_removes_the_outputs_that_are_no_more(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.tif": scans.tiff([scans.picture()] * 2)}))
    do_units(run_options(str(tmp_path), "txt", "jsonl"), shared_decoder)
    options = run_options(str(tmp_path), configuration="other", run="run2")
    options = replace(options, write=replace(options.write, per_page=True))
    entry = commit_unit(stage_unit(the_unit(options), worker_of(options, shared_decoder)), options)
    assert files_in(tmp_path) == ["in/a.tif", "txt/a.page-0001.txt", "txt/a.page-0002.txt"]
    assert (entry.configuration, entry.run, entry.retries) == ("other", "run2", 0)
    check(tmp_path)


@pytest.mark.parametrize("damage", ["outputs.jsonl", "json"])
def test_commit_after_a_change_heals_what_is_damaged(tmp_path: Path, shared_decoder: Decoder, damage: str) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20)}))
    (entry,) = do_units(run_options(str(tmp_path)), shared_decoder)
    (tmp_path / ledger.UNITS / f"{entry.unit}.{damage}").write_bytes(b"\xff")
    options = run_options(str(tmp_path), configuration="other")
    commit_unit(stage_unit(the_unit(options), worker_of(options, shared_decoder)), options)
    check(tmp_path)


# A retry.


def retried(options: RunOptions, decoder: Decoder, *only: str) -> None:
    do_units(replace(options, run="run2", retry=Retry(only)), decoder)


def test_retry_completes_what_was_repaired_and_keeps_the_rest(tmp_path: Path, shared_decoder: Decoder) -> None:
    book = scans.tiff([scans.picture(20, 20), scans.picture(13, 20)])
    sources = put(tmp_path, {"a.png": b"x", "b.png": png(20, 20), "book.tif": book, "gone.png": b""})
    plan(str(tmp_path), sources)
    options = run_options(str(tmp_path), "txt", "page", "jsonl")
    options = replace(options, write=replace(options.write, doubtful_below=0.95))
    (before,) = do_units(options, shared_decoder)
    inode = (tmp_path / "txt/b.txt").stat().st_ino
    put(tmp_path, {"a.png": png(30, 20), "book.tif": scans.tiff([scans.picture(20, 20), scans.picture(14, 20)])})
    retried(options, shared_decoder)
    assert texts(tmp_path) == {"a.txt": "30x20\n", "b.txt": "20x20\n", "book.txt": "20x20\n\f14x20\n"}
    assert (tmp_path / "txt/b.txt").stat().st_ino == inode
    (entry,) = reconcile(str(tmp_path)).entries.values()
    counts = entry.counts
    assert (counts.files, counts.pages, counts.read, counts.dead, counts.lines) == (4, 5, 4, 1, 4)
    assert (entry.retries, entry.failures, entry.model) == (1, {"empty-file": 1}, "model")
    assert counts.bytes_out == sum(file.size for file in ledger.output_files(str(tmp_path), entry))
    assert entry.cpu_s >= before.cpu_s and entry.milliseconds["read"].keys() >= before.milliseconds["read"].keys()
    assert [(letter.reason, letter.attempts) for letter in letters(tmp_path)] == [("empty-file", 2)]
    doubtful = {(Path(d.path).name, d.page) for d in ledger.doubtful_pages(str(tmp_path), entry)}
    assert doubtful == {("a.png", 1), ("b.png", 1), ("book.tif", 1), ("book.tif", 2)}
    check(tmp_path)


def test_retry_of_some_reasons_leaves_the_other_files_alone(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": b"x", "b.png": b""}))
    options = run_options(str(tmp_path))
    do_units(options, shared_decoder)
    put(tmp_path, {"a.png": png(20, 20), "b.png": png(30, 20)})
    retried(options, shared_decoder, "empty-file")
    assert (texts(tmp_path), reasons(tmp_path)) == ({"b.txt": "30x20\n"}, {"a.png": "not-an-image"})
    assert letters(tmp_path)[0].attempts == 1
    retried(options, shared_decoder)
    assert letters(tmp_path) == [] and len(texts(tmp_path)) == 2
    check(tmp_path)


def test_page_that_dies_of_another_reason_is_found_in_the_files_of_the_unit_too(
    tmp_path: Path, shared_decoder: Decoder
) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.pdf": scans.pdf(["0 0 24 24", "0 0 0 0", "0 0 3.1 24"])}))
    options = run_options(str(tmp_path), "txt", "jsonl")
    options = replace(options, write=replace(options.write, layout="shards"))
    do_units(options, shared_decoder)
    assert {(letter.page, letter.reason) for letter in letters(tmp_path)} == {(2, "zero-size"), (3, "reader-failed")}
    put(tmp_path, {"a.pdf": scans.pdf(["0 0 24 24", "0 0 24 24", "0 0 24 24"])})
    retried(options, shared_decoder, "zero-size")
    pages = [json.loads(line)["page"] for path in (tmp_path / "jsonl").iterdir() for line in path.open()]
    assert sorted(pages) == [1, 2, 3]
    check(tmp_path)


def test_retry_removes_the_files_of_what_it_has_done_again_and_no_others(
    tmp_path: Path, shared_decoder: Decoder
) -> None:
    files = {
        "a.tif": scans.tiff([scans.picture(20, 20), scans.picture(21, 20), scans.picture(13, 20)]),
        "a.page-0007.png": png(30, 20),
        "a.tif.png": png(31, 20),
    }
    plan(str(tmp_path), put(tmp_path, files))
    options = run_options(str(tmp_path), "txt", "page")
    options = replace(options, write=replace(options.write, per_page=True))
    do_units(options, shared_decoder)
    put(tmp_path, {"a.tif": scans.tiff([scans.picture(20, 20)])})  # has one page after the repair
    retried(options, shared_decoder)
    assert texts(tmp_path) == {"a.page-0007.txt": "30x20\n", "a.tif.txt": "31x20\n", "a.txt": "20x20\n"}
    check(tmp_path)


def test_shards_of_a_retry_stand_beside_the_first_ones(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": b"x", "b.png": png(20, 20), "c.png": b""}))
    options = run_options(str(tmp_path))
    options = replace(options, write=replace(options.write, layout="shards"))
    (entry,) = do_units(options, shared_decoder)
    for n, name in enumerate(("a.png", "c.png"), 1):
        put(tmp_path, {name: png(20 + n, 20)})
        retried(replace(options, run=f"run{n}"), shared_decoder)
    names = [f"txt/{entry.unit}{suffix}.tar" for suffix in ("", ".retry-1", ".retry-2")]
    assert [name for name in files_in(tmp_path) if name.startswith("txt/")] == sorted(names)
    check(tmp_path)


def test_copies_of_a_dead_file_are_retried_with_it(tmp_path: Path, shared_decoder: Decoder) -> None:
    sources = put(tmp_path, {"a.png": b"x", "b.png": b"x"})
    plan(str(tmp_path), sources, with_copies([replace(s, document=s.stem) for s in sources], 99))
    options = run_options(str(tmp_path))
    do_units(options, shared_decoder)
    put(tmp_path, {"a.png": png(20, 20)})
    retried(options, shared_decoder)
    assert texts(tmp_path) == {"a.txt": "20x20\n", "b.txt": "20x20\n"}
    counts = reconcile(str(tmp_path)).counts
    assert (counts.read, counts.duplicates, counts.dead) == (1, 1, 0)
    check(tmp_path)


@pytest.mark.parametrize("name", ["dead_letters", "files", "outputs"])
def test_damaged_list_stops_a_retry_with_what_to_do(tmp_path: Path, shared_decoder: Decoder, name: str) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": b"x", "b.png": png(20, 20)}))
    options = run_options(str(tmp_path))
    (entry,) = do_units(options, shared_decoder)
    (tmp_path / ledger.UNITS / f"{entry.unit}.{name}.jsonl").write_bytes(b"\xff")
    with pytest.raises(BadInput, match=r"verify .* --reopen"):
        retried(options, shared_decoder)


# What a retry takes up.


def unit_of(*files: tuple[str, str]) -> Unit:
    """Of (path, document) each."""
    return Unit(
        "u", tuple(Item(SourceFile(path, f"{n}", document=document)) for n, (path, document) in enumerate(files))
    )


def taken(unit: Unit, *dead: str) -> list[str]:
    letters = [DeadLetter(path, 1, "read", "E", "r", "m") for path in dead]
    return [item.source.stem for item in narrowed(unit, letters).items]


def test_retry_takes_whole_documents() -> None:
    unit = unit_of(("1", "a"), ("2", "a"), ("3", "b"), ("4", "c"))
    assert taken(unit, "2") == ["0", "1"]
    assert taken(unit, "3", "4") == ["2", "3"]
    assert taken(unit, "nowhere") == taken(unit) == []


def test_retry_takes_all_pages_of_a_file_that_is_in_several_documents() -> None:
    unit = unit_of(("x", "a"), ("book", "a"), ("book", "b"), ("y", "b"), ("z", "c"))
    assert taken(unit, "x") == ["0", "1", "2", "3"]


def test_retry_takes_the_original_of_a_dead_copy() -> None:
    a, b, c = (SourceFile(name, name, document=name) for name in "abc")
    unit = Unit("u", (Item(a, (b,)), Item(c)))
    assert taken(unit, "b") == ["a"]


def test_retry_of_a_file_in_several_documents_balances(tmp_path: Path, shared_decoder: Decoder) -> None:
    book = scans.tiff([scans.picture(20, 20), scans.picture(21, 20)])
    x, first = put(tmp_path, {"x.png": b"x", "book.tif": book})
    pages = [replace(first, first_page=n, last_page=n, stem=f"book.page-000{n}") for n in (1, 2)]
    plan(str(tmp_path), [replace(x, document="d"), replace(pages[0], document="d"), replace(pages[1], document="e")])
    options = run_options(str(tmp_path))
    do_units(options, shared_decoder)
    put(tmp_path, {"x.png": png(30, 20)})
    retried(options, shared_decoder)
    assert texts(tmp_path) == {"d.txt": "20x20\n\f30x20\n", "e.txt": "21x20\n"}
    check(tmp_path)


# Times.


def test_processor_time_of_children_counts(shared_decoder: Decoder) -> None:
    before = cpu_seconds()
    data = scans.encoded(scans.picture(3000, 3000), "PNG")
    for _ in range(3):
        shared_decoder.open(data)
        shared_decoder.decode(0)
    own_s = time.process_time()
    assert cpu_seconds() > before and cpu_seconds() >= own_s


def test_worker_counts_its_dead_letters_and_tells_its_outcomes(tmp_path: Path, shared_decoder: Decoder) -> None:
    sources = put(tmp_path, {"a.png": b"x", "b.png": b"x", "c.png": png(20, 20)})
    plan(str(tmp_path), sources, with_copies([replace(s, document=s.stem) for s in sources], 99))
    options = run_options(str(tmp_path))
    told: list[object] = []
    worker = Worker(options, Readers(options.load, {}), shared_decoder, told.append)
    stage_unit(the_unit(options), worker)
    assert (worker.dead, len(told)) == (2, 2)
