import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from PIL import Image

from ocr_model.bundle import DEFAULT_BUNDLE
from ocr_model.errors import BadArgument, BadInput, BadModel, NothingToDo, PagemillError, TooManyFailures
from ocr_model.images import Limits
from pipelines import ledger
from pipelines.corpus import SourceFile
from pipelines.read_pages import PageReader
from pipelines.report import Report
from pipelines.routing import Routing
from pipelines.transcribe import (
    TranscribeOptions,
    as_begun,
    build,
    dry_run,
    prepare,
    retry,
    run,
    run_options,
)
from pipelines.unit_runs import FailureLimit
from pipelines.verify import verify_output
from tests import scans
from tests.pipelines.readers import SizeReader


def options_for(root: Path, *formats: str, **changes: Any) -> TranscribeOptions:
    changes = {"inputs": (str(root / "in"),), "formats": formats or ("txt",), "load": SizeReader} | changes
    return TranscribeOptions(output=str(root / "out"), **changes)


def retried(root: Path, *reasons: str) -> Report:
    return retry(replace(as_begun(str(root / "out")), load=SizeReader), reasons)


def put(root: Path, files: dict[str, bytes]) -> list[SourceFile]:
    for name, data in files.items():
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(data)
    return [SourceFile(str(root / "in" / name), name.rpartition(".")[0]) for name in files]


def png(width: int, height: int, ink: int = 0) -> bytes:
    return scans.encoded(scans.picture(width, height, ink), "PNG")


def texts(root: Path) -> dict[str, str]:
    folder = root / "out" / "txt"
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def dead_letters(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "out" / "dead_letters.jsonl").read_text().splitlines()]


STRANGE = {
    "a/good.jpg": scans.encoded(scans.picture(40, 30), "JPEG"),
    "a/b/also good.png": png(50, 60),
    "blank.png": png(40, 40, ink=255),
    "dot.png": scans.encoded(Image.new("L", (1, 1), 255), "PNG"),
    "cmyk.jpg": scans.encoded(scans.picture(31, 32).convert("RGB").convert("CMYK"), "JPEG"),
    "deep.tif": scans.encoded(Image.fromarray(np.zeros((20, 21), np.uint16)), "TIFF"),
    "bilevel.tif": scans.encoded(scans.picture(22, 23).convert("1"), "TIFF", compression="group4"),
    "empty.jpg": b"",
    "text.jpg": b"Dear Sir,",
    "half.jpg": scans.encoded(scans.picture(400, 400), "JPEG")[:900],
    "huge.png": scans.one_colour_png(40_000, 40_000),
    "locked.pdf": scans.encrypted_pdf(),
    "flat.pdf": scans.pdf(["0 0 0 0"]),
    "unlucky.png": png(13, 13),
}

STRANGE_TEXTS = {
    "a/b/also good.txt": "50x60\n",
    "a/good.txt": "40x30\n",
    "bilevel.txt": "22x23\n",
    "blank.txt": "",
    "cmyk.txt": "31x32\n",
    "deep.txt": "21x20\n",
    "dot.txt": "",
}

STRANGE_DEATHS = [
    ("empty.jpg", None, "open", "empty-file"),
    ("flat.pdf", 1, "decode", "zero-size"),
    ("half.jpg", 1, "decode", "truncated"),
    ("huge.png", 1, "decode", "too-many-pixels"),
    ("locked.pdf", None, "open", "encrypted"),
    ("text.jpg", None, "open", "not-an-image"),
    ("unlucky.png", 1, "read", "reader-failed"),
]


def test_every_strange_file_ends_as_text_or_as_one_dead_letter(tmp_path: Path) -> None:
    put(tmp_path, STRANGE)
    report = run(options_for(tmp_path))
    assert texts(tmp_path) == STRANGE_TEXTS
    found = [(Path(d["path"]).name, d.get("page"), d["stage"], d["reason"]) for d in dead_letters(tmp_path)]
    assert found == STRANGE_DEATHS
    counts = report.counts
    assert (counts.files, counts.pages, counts.read, counts.dead) == (14, 14, 7, 7)
    assert report.failures["encrypted"] == 1
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["dead_letters.jsonl", "doubtful.jsonl", "ledger", "txt"]


def test_all_formats_of_a_document_with_a_bad_page(tmp_path: Path) -> None:
    put(tmp_path, {"book.pdf": scans.pdf(["0 0 24 24", "0 0 0 0", "0 0 48 24"])})
    report = run(options_for(tmp_path, "txt", "jsonl", "hocr", "overlay"))
    assert texts(tmp_path) == {"book.txt": "100x100\n\f\f200x100\n"}
    records = [json.loads(line) for line in (tmp_path / "out/jsonl/book.jsonl").read_text().splitlines()]
    assert [(r["page"], r["text"]) for r in records] == [(1, "100x100"), (3, "200x100")]
    assert (tmp_path / "out/hocr/book.hocr").read_text().count('class="ocr_page"') == 2
    assert sorted(p.name for p in (tmp_path / "out/overlay").iterdir()) == ["book.page-0001.jpg", "book.page-0003.jpg"]
    counts = report.counts
    assert (counts.pages, counts.read, counts.lines, dict(report.failures)) == (3, 2, 2, {"zero-size": 1})


def test_a_second_run_does_only_what_is_new(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": b"", "b.png": png(20, 20)})
    first = run(options_for(tmp_path))
    entry = next(iter(first.entries.values()))
    put(tmp_path, {"c.png": png(30, 30)})
    second = run(options_for(tmp_path))
    assert texts(tmp_path) == {"b.txt": "20x20\n", "c.txt": "30x30\n"}
    assert second.entries[entry.unit] == entry and len(second.entries) == 2
    assert (second.counts.read, second.counts.dead) == (2, 1)


def test_retry_completes_what_was_repaired(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": b"", "b.png": png(20, 20), "c.png": b"Dear Sir,"})
    run(options_for(tmp_path, "txt", "jsonl"))
    put(tmp_path, {"a.png": png(30, 30)})
    report = retried(tmp_path)
    assert texts(tmp_path) == {"a.txt": "30x30\n", "b.txt": "20x20\n"}
    (letter,) = dead_letters(tmp_path)
    assert (Path(letter["path"]).name, letter["attempts"]) == ("c.png", 2)
    assert (report.counts.read, report.counts.dead, report.counts.files) == (2, 1, 3)
    assert verify_output(str(tmp_path / "out")).problems == ()
    put(tmp_path, {"c.png": png(40, 40)})
    with pytest.raises(NothingToDo):
        retried(tmp_path, "timeout")
    assert retried(tmp_path, "not-an-image").counts.dead == 0
    assert (tmp_path / "out/jsonl/c.jsonl").exists() and dead_letters(tmp_path) == []


def test_a_retry_begins_with_the_options_of_the_run(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    options = options_for(
        tmp_path,
        "txt",
        "tsv",
        routing=Routing(rules=(("language", "fr", str(DEFAULT_BUNDLE)),), second_below=0.5),
        single_line=True,
        limits=Limits(pdf_dpi=150),
        last_page=3,
        max_failures=FailureLimit.parse("5%"),
    )
    run(options)
    assert replace(as_begun(str(tmp_path / "out")), load=SizeReader) == options


def test_record_of_a_run_that_is_damaged_is_told_by_a_retry(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": b""})
    run(options_for(tmp_path))
    (record,) = (tmp_path / "out/ledger/runs").iterdir()
    value = json.loads(record.read_text())
    del value["options"]["limits"]
    record.write_text(json.dumps(value))
    with pytest.raises(BadInput, match=r"record of the last run .* is damaged"):
        as_begun(str(tmp_path / "out"))


def test_retried_units_equal_those_that_never_failed(tmp_path: Path) -> None:
    pages = {f"{n}.tif": scans.tiff([scans.picture(20 + n, 30)] * 2) for n in range(3)}
    put(tmp_path / "whole", pages)
    run(options_for(tmp_path / "whole", "txt", "jsonl", "parquet"))
    put(tmp_path / "mended", pages | {"1.tif": pages["1.tif"][:50]})
    run(options_for(tmp_path / "mended", "txt", "jsonl", "parquet"))
    put(tmp_path / "mended", pages)
    retried(tmp_path / "mended")
    assert texts(tmp_path / "mended") == texts(tmp_path / "whole")
    parquet = sorted((tmp_path / "mended/out/parquet").iterdir())
    assert len(parquet) == 2 and "retry-1" in parquet[1].name


def test_copies_are_read_once_and_recorded_for_all(tmp_path: Path) -> None:
    same = png(20, 20)
    put(tmp_path, {f"{n}.png": same for n in range(5)} | {"other.png": png(21, 20)})
    report = run(options_for(tmp_path, "txt", "jsonl"))
    assert (report.counts.read, report.counts.duplicates, report.counts.pages) == (2, 4, 6)
    assert texts(tmp_path) == {f"{n}.txt": "20x20\n" for n in range(5)} | {"other.txt": "21x20\n"}
    ids = {json.loads((tmp_path / f"out/jsonl/{n}.jsonl").read_text())["page_id"] for n in range(5)}
    assert len(ids) == 1
    shutil.rmtree(tmp_path / "out")
    assert run(options_for(tmp_path, copies=False)).counts.duplicates == 0


def test_copies_of_a_dead_page_are_dead_too(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": b"Dear Sir,", "b.png": b"Dear Sir,"})
    report = run(options_for(tmp_path))
    assert (report.counts.dead, report.counts.duplicates) == (2, 0)
    assert sorted(Path(d["path"]).name for d in dead_letters(tmp_path)) == ["a.png", "b.png"]


def test_pages_outside_the_range_are_skipped_and_counted(tmp_path: Path) -> None:
    put(tmp_path, {"book.tif": scans.tiff([scans.picture(20 + n, 20) for n in range(5)])})
    report = run(options_for(tmp_path, first_page=2, last_page=3))
    assert texts(tmp_path) == {"book.txt": "21x20\n\f22x20\n"}
    assert (report.counts.pages, report.counts.read, report.counts.skipped) == (5, 2, 3)


def test_files_of_a_folder_can_be_one_document(tmp_path: Path) -> None:
    put(tmp_path, {"book/1.png": png(20, 20), "book/2.png": png(21, 20), "3.png": png(22, 20)})
    run(options_for(tmp_path, "txt", "page", whole_folders=True))
    assert texts(tmp_path) == {"book.txt": "20x20\n\f21x20\n", "3.txt": "22x20\n"}
    assert sorted(p.name for p in (tmp_path / "out/page").rglob("*.xml")) == ["1.xml", "2.xml", "3.xml"]


def test_a_file_a_page_if_asked_for(tmp_path: Path) -> None:
    put(tmp_path, {"book.tif": scans.tiff([scans.picture(20 + n, 20) for n in range(2)]), "a.png": png(30, 20)})
    run(options_for(tmp_path, per_page=True))
    assert texts(tmp_path) == {"a.txt": "30x20\n", "book.page-0001.txt": "20x20\n", "book.page-0002.txt": "21x20\n"}


def test_file_beside_a_folder_of_its_outputs_name_is_still_written(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt/b.png": png(20, 20), "a.png": png(21, 20)})
    run(options_for(tmp_path))
    assert texts(tmp_path) == {"a.txt/b.txt": "20x20\n", "a~file.txt": "21x20\n"}


def test_shards_hold_the_files_of_the_other_layout(tmp_path: Path) -> None:
    import tarfile

    put(tmp_path, {f"a/{n}.png": png(20 + n, 20) for n in range(3)})
    run(options_for(tmp_path, "txt", "jsonl", layout="shards"))
    (tar,) = (tmp_path / "out/txt").iterdir()
    with tarfile.open(tar) as opened:
        assert [(m.name, m.mtime) for m in opened] == [(f"a/{n}.txt", 0) for n in range(3)]
    (lines,) = (tmp_path / "out/jsonl").iterdir()
    assert [json.loads(line)["text"] for line in lines.read_text().splitlines()] == ["20x20", "21x20", "22x20"]


def test_single_lines_are_read_without_finding(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    run(options_for(tmp_path, single_line=True))
    assert texts(tmp_path) == {"a.txt": "line\n"}


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_two_workers_do_what_one_does(tmp_path: Path, mode: str) -> None:
    put(tmp_path, {f"{n}.png": png(20 + n, 20) for n in range(40)})
    flags = ["--direct_num_workers=2", f"--direct_running_mode={mode}"]
    report = run(options_for(tmp_path), flags)
    assert (report.counts.read, len(report.references)) == (40, 5)
    assert texts(tmp_path) == {f"{n}.txt": f"{20 + n}x20\n" for n in range(40)}


@pytest.mark.slow
def test_portable_job_api_gives_what_the_local_runner_gives(tmp_path: Path) -> None:
    files = {f"{n}.png": png(20 + n, 20) for n in range(20)} | {"bad.jpg": b"x"}
    for root in (tmp_path / "local", tmp_path / "portable"):
        put(root, files)
    local = run(options_for(tmp_path / "local", "txt", "tsv"))
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    portable = run(options_for(tmp_path / "portable", "txt", "tsv"), flags)
    assert portable.counts == local.counts and portable.counts.dead == 1
    assert texts(tmp_path / "portable") == texts(tmp_path / "local")


def test_graph_has_the_same_size_for_any_corpus(tmp_path: Path) -> None:
    sizes = []
    for count in (1, 60):
        root = tmp_path / str(count)
        put(root, {f"{n}.png": png(20, 20) for n in range(count)})
        (root / "out").mkdir()
        pipeline = beam.Pipeline(runner="FnApiRunner")
        build(pipeline, prepare(options_for(root, copies=False)).options)
        proto = pipeline.to_runner_api()
        sizes.append((len(proto.components.transforms), len(proto.components.pcollections)))
    assert sizes[0] == sizes[1]


# A run that was begun otherwise.


def changed(tmp_path: Path, **changes: Any) -> Report:
    put(tmp_path, {"a.png": png(20, 20), "b.tif": scans.tiff([scans.picture()] * 2)})
    run(options_for(tmp_path, "txt", "hocr"))
    return run(options_for(tmp_path, "txt", **changes))


def test_another_configuration_is_refused_with_both_digests(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"begun with configuration \w{16}, this run has \w{16}"):
        changed(tmp_path)


def rerun_with_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, **changes: Any) -> Report:
    """The same run twice: with code of this digest, and with that of today."""
    put(tmp_path, {"a.png": png(20, 20)})
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.transcribe.reading_code", lambda: first)
        run(options_for(tmp_path))
    return run(options_for(tmp_path, **changes))


def test_program_that_reads_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"begun with code 1234, this run has \w{16}"):
        rerun_with_code(tmp_path, monkeypatch, "1234")


@pytest.mark.parametrize(("on_change", "runs"), [("resume", 0), ("restart", 1)])
def test_program_that_reads_otherwise_is_taken_if_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_change: str, runs: int
) -> None:
    report = rerun_with_code(tmp_path, monkeypatch, "1234", on_change=on_change)
    assert sum(entry.code != "1234" for entry in report.entries.values()) == runs


def test_entries_that_do_not_tell_their_code_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As older versions have written them."""
    report = rerun_with_code(tmp_path, monkeypatch, "")
    assert [entry.code for entry in report.entries.values()] == [""]


def test_models_that_change_places_are_another_model() -> None:
    def model(first: str, second: str) -> str:
        options = TranscribeOptions(("in",), "out", routing=Routing(bundle=first, second=second))
        return run_options(options, {"a": "1" * 64, "b": "2" * 64}).model

    assert model("a", "b") != model("b", "a")


def test_resume_keeps_what_was_done_otherwise(tmp_path: Path) -> None:
    report = changed(tmp_path, on_change="resume")
    assert len({entry.run for entry in report.entries.values()}) == 1
    assert (tmp_path / "out/hocr/a.hocr").exists()


def test_restart_replaces_what_was_done_otherwise(tmp_path: Path) -> None:
    report = changed(tmp_path, on_change="restart", per_page=True)
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.*") if p.parent.name in ("txt", "hocr")) == [
        "a.txt",
        "b.page-0001.txt",
        "b.page-0002.txt",
    ]
    report.check()


def test_folder_of_another_corpus_is_refused(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    run(options_for(tmp_path))
    with pytest.raises(BadInput, match="holds the results of"):
        run(options_for(tmp_path, inputs=(str(tmp_path / "in/a.png"),)))


# Limits.


def test_failure_limit_stops_the_run_and_a_higher_one_finishes_it(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.png": b"x" for n in range(3)} | {f"9{n}.png": png(20, 20) for n in range(20)})
    with pytest.raises(TooManyFailures):
        run_unwrapped(options_for(tmp_path, copies=False, max_failures=FailureLimit.parse("2")))
    done = ledger.read_entries(str(tmp_path / "out"))[0]
    assert not any(entry.counts.dead for entry in done.values())
    assert run(options_for(tmp_path, copies=False, max_failures=FailureLimit.parse("20%"))).counts.dead == 3


def test_failures_of_earlier_runs_count_against_the_limit(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.png": b"x" for n in range(3)} | {"9.png": png(20, 20)})
    run(options_for(tmp_path, copies=False))
    put(tmp_path, {"4.png": b"x"} | {f"8{n}.png": png(20, 20) for n in range(3)})
    limit = FailureLimit.parse("3")
    with pytest.raises(TooManyFailures, match="over 3 pages"):
        run_unwrapped(options_for(tmp_path, copies=False, max_failures=limit))
    put(tmp_path, {"4.png": png(20, 20)})
    assert run(options_for(tmp_path, copies=False, max_failures=limit)).counts.dead == 3


def run_unwrapped(options: TranscribeOptions) -> Report:
    """Beam wraps what a worker raises in an error of its own; the command line takes it out again."""
    from pipelines.cli import error_of_worker

    try:
        return run(options)
    except PagemillError:
        raise
    except Exception as error:
        raise error_of_worker(str(error)) or error from error


def test_limit_takes_the_first_files(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.png": png(20, 20) for n in range(9)})
    assert run(options_for(tmp_path, limit=4, copies=False)).counts.files == 4


def test_dry_run_tells_and_writes_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20), "b.png": png(20, 20), "c.png": png(21, 20)})
    said = dry_run(options_for(tmp_path))
    assert "3 files, 3 of them new" in said and "1 new files are copies" in said and "1 new units" in said
    assert not (tmp_path / "out").exists()
    run(options_for(tmp_path))
    assert "0 of them new" in dry_run(options_for(tmp_path))


# Models.


def no_model(bundle: str | None) -> PageReader:
    raise BadModel(f"{bundle} is no bundle")


def test_missing_model_shows_before_anything_is_done(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    with pytest.raises(BadModel, match="no model bundle at nowhere"):
        run(options_for(tmp_path, routing=Routing("nowhere")))
    assert not (tmp_path / "out/ledger/plan").exists()


def test_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    with pytest.raises(BadModel, match="None is no bundle"):
        run_unwrapped(options_for(tmp_path, load=no_model))


def test_input_and_output_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        run(options_for(tmp_path))
    put(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(NothingToDo):
        run(options_for(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to"):
        run(replace(options_for(tmp_path), output=str(tmp_path / "file" / "out")))


@pytest.mark.parametrize("full_at", ["ledger/corpus.json", "ledger/plan/"])
def test_disk_that_is_full_before_a_page_is_read_is_told_and_a_rerun_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    replace_file = os.replace

    def full(source: str, target: str) -> None:
        if full_at in target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(source, target)

    put(tmp_path, {"a.png": png(20, 20)})
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.outputs.os.replace", full)
        with pytest.raises(BadInput, match=r"cannot write to .*: No space left on device"):
            run(options_for(tmp_path))
    assert run(options_for(tmp_path)).counts.read == 1


def test_unknown_format_is_refused() -> None:
    with pytest.raises(BadArgument, match="unknown format: docx"):
        TranscribeOptions(inputs=("a",), output="b", formats=("txt", "docx"))


def test_books_that_do_not_balance_fail_the_run(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    report = run(options_for(tmp_path))
    (entry,) = report.entries.values()
    wrong = replace(entry, counts=replace(entry.counts, read=0))
    with pytest.raises(PagemillError, match=r"books of .* do not balance"):
        replace(report, entries={entry.unit: wrong}).check()
    with pytest.raises(PagemillError, match="1 units open"):
        replace(report, entries={}).check()
