import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest

from ocr_model.affine import Affine
from ocr_model.document import Box
from ocr_model.errors import BadArgument, BadInput, NothingToDo, PagemillError, TooManyFailures
from ocr_model.examples import KINDS, LineExample, PageExample
from ocr_model.images import Limits
from ocr_model.record_files import MANIFEST, load_manifest, read_records
from pipelines import ledger
from pipelines.corpus import SourceFile
from pipelines.ingest import IngestOptions, build, ingest_text, items_of, prepare, run, with_splits
from pipelines.ingest_pages import IngestSettings
from pipelines.plan import read_references
from pipelines.records_job import manifest_of, write_manifest
from pipelines.report import Report
from pipelines.unit_runs import FailureLimit
from pipelines.verify import verify_output
from tests import mutations, scans
from tests.pipelines import corpora
from tests.pipelines.corpora import corpus_of, lines_json, page_image, page_xml, put

DATA = Path(__file__).parents[1] / "data" / "xml"


def options_for(root: Path, settings: dict[str, Any] | None = None, **changes: Any) -> IngestOptions:
    made = IngestSettings(**{"validation_share": 0.0, "known": " 0123456789", **(settings or {})})
    return IngestOptions(**{"inputs": (str(root / "in"),), "output": str(root / "out"), "settings": made, **changes})


def ingest(root: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Report:
    """A whole ingest without statistics; what Beam wraps is taken out again."""
    from pipelines.cli import error_of_worker

    options = options_for(root, settings, **changes)
    try:
        report = run(options)
    except PagemillError:
        raise
    except Exception as error:
        raise error_of_worker(str(error)) or error from error
    if report.counts.read:
        write_manifest(options.output, manifest_of(report, options.configuration()))
    return report


def examples(root: Path) -> list[PageExample | LineExample]:
    return [example for kind in KINDS for example in read_records(root / "out", kind)]


def dead_letters(root: Path) -> list[tuple[str, int | None, str, str]]:
    lines = (root / "out" / "dead_letters.jsonl").read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    return sorted((Path(d["path"]).name, d["line"], d["stage"], d["reason"]) for d in letters)


# What comes out.


def test_pages_and_lines_become_records(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(2, lines=1))
    report = ingest(tmp_path)
    found = examples(tmp_path)
    assert [(type(e).__name__, e.origin.name, e.text) for e in found] == [
        ("PageExample", "pages/00000.png", "0000 0\n0000 1\n0000 2"),
        ("PageExample", "pages/00001.png", "0001 0\n0001 1\n0001 2"),
        ("LineExample", "lines/00000.png", "0000"),
        *[("LineExample", f"pages/{n:05d}.png", f"{n:04d} {row}") for n in range(2) for row in range(3)],
    ]
    counts = report.counts
    assert (counts.files, counts.pages, counts.read, counts.lines, counts.characters) == (3, 3, 3, 7, 44)
    manifest = load_manifest(tmp_path / "out")
    assert {(f.path.rpartition("/")[0], f.records) for f in manifest.files} == {
        ("records/line/train", 7),
        ("records/page/train", 2),
    }
    assert manifest.counts["lines"] == {"recorded": 7}
    assert verify_output(str(tmp_path / "out")).problems == ()
    assert "2 page/train" in ingest_text(report)


def test_page_keeps_its_bytes_and_a_line_maps_back_to_it(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(1, lines=1))
    ingest(tmp_path)
    page, whole, first, *_ = examples(tmp_path)
    assert isinstance(first, LineExample) and isinstance(whole, LineExample) and isinstance(page, PageExample)
    assert page.image.data == page_image(0) and page.image.back == Affine()
    assert whole.image.data == corpora.line_image(0) and whole.line.box == Box(0, 0, 160, 40)
    pixels = page.image.decoded()
    left, top = (int(x) for x in first.image.back.point((0, 0)))
    crop = first.image.decoded()
    height, width = crop.shape
    rows = np.clip(np.arange(top, top + height), 0, 259)
    columns = np.clip(np.arange(left, left + width), 0, 199)
    assert np.array_equal(crop, pixels[np.ix_(rows, columns)])
    assert (first.number, first.line.box) == (1, Box(10, 30, 190, 64)) and first.origin.page_id == page.origin.page_id


@pytest.mark.parametrize(("kinds", "expected"), [(("page",), (1, 0, 1)), (("line",), (0, 4, 0))])
def test_only_the_kinds_that_are_asked_for(tmp_path: Path, kinds: tuple[str, ...], expected: tuple[int, ...]) -> None:
    put(tmp_path / "in", corpus_of(1, lines=1))
    report = ingest(tmp_path, {"kinds": kinds})
    found = examples(tmp_path)
    pages = sum(isinstance(example, PageExample) for example in found)
    assert (pages, len(found) - pages, report.counts.skipped) == expected


def test_real_files_of_several_schemas_with_pictures_of_their_size(tmp_path: Path) -> None:
    put(tmp_path / "in", {"readme.md": b""})
    for file in DATA.glob("*.xml"):
        shutil.copy(file, tmp_path / "in")
    sizes = {}
    from pipelines.truth_files import read_truth

    for file in sorted((tmp_path / "in").glob("*.xml")):
        (page,) = read_truth(str(file), lambda path: Path(path).read_bytes())
        sizes[page.image_name] = page
        (tmp_path / "in" / page.image_name).write_bytes(scans.one_colour_png(page.width or 1, page.height or 1))
    report = ingest(tmp_path, {"kinds": ("page",)})
    found = examples(tmp_path)
    assert len(found) == len(sizes) == report.counts.read > 3
    for example in found:
        assert isinstance(example, PageExample)
        truth = sizes[example.origin.name]
        assert (example.text, example.origin.width) == (truth.text, truth.width)
        assert [line.baseline for line in example.lines] == [line.baseline for line in truth.lines]
        assert [line.polygon for line in example.lines] == [line.polygon for line in truth.lines]


def test_pages_of_a_document_with_a_page_for_each_of_the_truth(tmp_path: Path) -> None:
    hocr = "<html><body>" + "".join(
        f'<div class="ocr_page" title="bbox 0 0 40 20"><span class="ocr_line" title="bbox 0 0 40 20">'
        f'<span class="ocrx_word" title="bbox 0 0 40 20">{n}</span></span></div>'
        for n in (1, 2)
    )
    put(tmp_path / "in", {"book.tif": scans.tiff([scans.picture(), scans.picture()]), "book.hocr": hocr.encode()})
    put(tmp_path / "in", {"other.tif": scans.tiff([scans.picture(30)] * 3), "other.hocr": hocr.encode()})
    report = ingest(tmp_path, {"kinds": ("page",)})
    assert [(e.origin.page, e.text) for e in examples(tmp_path)] == [(1, "1"), (2, "2")]
    assert dead_letters(tmp_path) == [("other.tif", None, "align", "page-count")] * 3
    assert (report.counts.pages, report.counts.read, report.counts.dead) == (5, 2, 3)


def test_preparation_is_recorded_and_maps_back(tmp_path: Path) -> None:
    framed = np.zeros((300, 240), np.uint8)
    framed[:260, :200] = np.asarray(scans.Image.open(io.BytesIO(page_image(7))))
    picture = scans.encoded(scans.Image.fromarray(framed), "PNG")
    put(tmp_path / "in", {"7.png": picture, "7.lines.json": lines_json(7)})
    ingest(tmp_path, {"steps": ("crop", "binarise")})
    page, line, *_ = examples(tmp_path)
    assert isinstance(page, PageExample) and isinstance(line, LineExample)
    assert [step["step"] for step in page.image.steps] == ["crop", "binarise"]
    assert (page.image.width, page.image.height, page.origin.width) == (200, 260, 240)
    assert set(np.unique(page.image.decoded())) == {0, 255}
    assert page.lines[0].box == Box(10, 30, 190, 64) == page.lines_in_image()[0].box
    assert line.image.back.point(line.margins[:2]) == (10, 30)


def test_page_that_is_read_at_a_fraction_of_its_size_keeps_the_coordinates_of_its_file(tmp_path: Path) -> None:
    big = scans.one_colour_png(1000, 1400)
    xml = page_xml("big.png", width=1000, height=1400, line="100,300 700,300 700,360 100,360")
    put(tmp_path / "in", {"big.png": big, "big.xml": xml})
    ingest(tmp_path, {"limits": Limits(max_pixels=200_000)})
    page, line = examples(tmp_path)
    assert isinstance(page, PageExample) and isinstance(line, LineExample)
    assert (page.origin.width, page.origin.height, page.image.width, page.image.height) == (1000, 1400, 334, 467)
    assert page.lines[0].box == Box(100, 300, 700, 360) == line.line.box
    assert page.image.back.point((334, 467)) == pytest.approx((1000, 1400))
    left, top, _, _ = line.margins
    assert line.image.back.point((left, top)) == pytest.approx((100, 300), abs=3)


def test_documents_are_not_divided_and_manifest_tells_splits_and_languages(tmp_path: Path) -> None:
    files = corpus_of(40)
    put(tmp_path / "in", files)
    rows = [f"pages/{n:05d}.png,book {n // 4},{'test' if n == 8 else ''},de,{n}" for n in range(40)]
    (tmp_path / "in/list.csv").write_text("path,document,split,language,shelf\n" + "\n".join(rows))
    ingest(tmp_path, {"validation_share": 0.4, "kinds": ("page",)}, inputs=(f"{tmp_path}/in/list.csv",))
    by_document: dict[str, set[str]] = {}
    for example in examples(tmp_path):
        by_document.setdefault(example.origin.document, set()).add(example.origin.split)
        assert example.origin.language == "de" and example.origin.metadata[0][0] == "shelf"
    assert len(by_document) == 10 and all(len(splits) == 1 for splits in by_document.values())
    assert by_document["book 2"] == {"test"}
    assert {"train"} in by_document.values() and {"validation"} in by_document.values()


def test_documents_can_be_told_by_a_pattern_or_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a/x_1.png": page_image(1), "a/x_2.png": page_image(2)})
    found = [
        {unit.origin.document for unit in examples(tmp_path / name)}
        for name, changes in {"p": {"document_pattern": r"(.+)_\d+$"}, "f": {"whole_folders": True}, "n": {}}.items()
        if ingest_into(tmp_path, name, **changes)
    ]
    assert found == [{"a/x"}, {"a"}, {"a/x_1", "a/x_2"}]


def ingest_into(root: Path, name: str, **changes: Any) -> Report:
    changes = {"inputs": (str(root / "in"),), **changes}
    return ingest(root / name, {"without_truth": "keep"}, **changes)


def test_contradicting_splits_are_refused() -> None:
    def source(name: str, split: str) -> SourceFile:
        return SourceFile(f"/{name}.png", name, document="book", metadata=(("split", split),))

    with pytest.raises(BadInput, match="document book has the splits train and test"):
        with_splits([source("a", "train"), source("b", "test")])
    with pytest.raises(BadInput, match=r"/a\.png has the split 'dev'"):
        with_splits([source("a", "dev")])


def test_copies_become_one_record_whatever_their_documents(tmp_path: Path) -> None:
    files = {f"{folder}/1.png": page_image(1) for folder in "abc"}
    put(
        tmp_path / "in",
        {**files, "b/1.lines.json": lines_json(1), "d/2.png": page_image(2), "d/2.lines.json": lines_json(2)},
    )
    report = ingest(tmp_path, {"kinds": ("page",)}, whole_folders=True)
    assert [e.origin.name for e in examples(tmp_path)] == ["b/1.png", "d/2.png"]
    counts = report.counts
    assert (counts.files, counts.read, counts.duplicates, counts.dead) == (4, 2, 2, 0)


def test_very_many_copies_are_one_item() -> None:
    sources = [SourceFile(__file__, f"{n}", 10) for n in range(100)]
    (item,) = items_of(sources, 10**6)
    assert len(item.copies) == 99


# Bad input.

BAD = {
    "good.png": page_image(1),
    "good.xml": page_xml("good.png"),
    "alone.png": page_image(2),
    "orphan.xml": page_xml("nowhere.png"),
    "outside.png": page_image(3),
    "outside.xml": page_xml("outside.png", line="210,30 290,30 290,64 210,64"),
    "other_size.png": page_image(4),
    "other_size.xml": page_xml("other_size.png", height=300),
    "broken.png": page_image(5),
    "broken.xml": page_xml("broken.png")[:200],
    "entity.png": page_image(6),
    "entity.xml": mutations.with_external_entity(page_xml("entity.png")),
    "bomb.png": page_image(7),
    "bomb.xml": mutations.with_entity_bomb(page_xml("bomb.png")),
    "trick.png": page_image(8),
    "trick.xml": page_xml("../../../../etc/passwd"),
    "strange.png": page_image(9),
    "strange.xml": page_xml("strange.png", text="ſtrange \ue42c\ue42c"),
    "latin.png": page_image(10),
    "latin.gt.txt": "Grüße".encode("latin-1"),
    "empty.png": page_image(11),
    "empty.gt.txt": b"",
    "json.png": page_image(12),
    "json.lines.json": b"{",
    "text.png": b"Dear Sir,",
    "text.xml": page_xml("text.png"),
    "cut.png": page_image(13)[:200],
    "cut.xml": page_xml("cut.png"),
    "foreign.png": page_image(14),
    "foreign.xml": b"<a/>",
    "thin.png": page_image(15),
    "thin.xml": page_xml("thin.png", line="10,30 190,30 190,32 10,32"),
    "page.png": page_image(16, 400, 500),
    "page.gt.txt": b"1\n2\n",
}
DEATHS = [
    ("alone.png", None, "pair", "no-truth"),
    ("bomb.png", None, "pair", "unreadable-truth"),
    ("bomb.xml", None, "pair", "bad-xml"),
    ("broken.png", None, "pair", "unreadable-truth"),
    ("broken.xml", None, "pair", "bad-xml"),
    ("cut.png", None, "decode", "truncated"),
    ("empty.png", None, "truth", "empty-file"),
    ("entity.png", None, "pair", "unreadable-truth"),
    ("entity.xml", None, "pair", "entity-declaration"),
    ("foreign.png", None, "pair", "unreadable-truth"),
    ("foreign.xml", None, "pair", "foreign-schema"),
    ("json.png", None, "truth", "bad-json"),
    ("latin.png", None, "truth", "bad-encoding"),
    ("orphan.xml", None, "pair", "no-image"),
    ("other_size.png", None, "align", "other-size"),
    ("outside.png", 1, "align", "outside-page"),
    ("page.png", 1, "align", "no-geometry"),
    ("text.png", None, "open", "not-an-image"),
    ("thin.png", 1, "align", "too-small"),
]


def test_every_bad_file_ends_as_one_dead_letter_with_stage_and_reason(tmp_path: Path) -> None:
    put(tmp_path / "in", BAD)
    report = ingest(tmp_path)
    assert dead_letters(tmp_path) == DEATHS
    pages = [e.origin.name for e in examples(tmp_path) if isinstance(e, PageExample)]
    assert sorted(pages) == ["good.png", "outside.png", "page.png", "strange.png", "thin.png", "trick.png"]
    counts = report.counts
    assert counts.balanced and (counts.pages, counts.read, counts.dead) == (22, 6, 16)
    manifest = load_manifest(tmp_path / "out")
    assert manifest.counts["unknown_characters"] == {**dict.fromkeys("aegnrtſ", 1), "\ue42c": 2}
    assert manifest.counts["lines"] == {"no-geometry": 2, "outside-page": 1, "recorded": 3, "too-small": 1}
    assert "characters are not in the alphabet" in ingest_text(report)
    assert "nor can 1 more, whose places" in (tmp_path / "out/dead_letters.jsonl").read_text()


@pytest.mark.parametrize(("choice", "expected"), [("keep", (2, 0, 0)), ("skip", (1, 1, 0)), ("fail", (1, 0, 1))])
def test_images_without_truth_do_what_was_asked(tmp_path: Path, choice: str, expected: tuple[int, ...]) -> None:
    put(tmp_path / "in", {**corpus_of(1), "bare.png": page_image(5)})
    counts = ingest(tmp_path, {"without_truth": choice, "kinds": ("page",)}).counts
    assert (counts.read, counts.skipped, counts.dead) == expected


def test_failure_limit_stops_the_ingest_and_a_higher_one_finishes_it(tmp_path: Path) -> None:
    put(tmp_path / "in", {**corpus_of(20), **{f"bare{n}.png": page_image(100 + n) for n in range(3)}})
    with pytest.raises(TooManyFailures):
        ingest(tmp_path, max_failures=FailureLimit.parse("1%"))
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert ingest(tmp_path, max_failures=FailureLimit.parse("20%")).counts.dead == 3


def test_failures_of_earlier_ingests_count_against_the_limit(tmp_path: Path) -> None:
    put(tmp_path / "in", {**corpus_of(2), **{f"bare{n}.png": page_image(100 + n) for n in range(2)}})
    ingest(tmp_path)
    put(tmp_path / "in", {"bare9.png": page_image(109)})
    with pytest.raises(TooManyFailures, match="over 2 pages failed"):
        ingest(tmp_path, max_failures=FailureLimit.parse("2"))
    assert ingest(tmp_path, max_failures=FailureLimit.parse("3")).counts.dead == 3


def test_nothing_but_failures_gives_no_manifest(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": page_image(1)})
    report = ingest(tmp_path)
    with pytest.raises(NothingToDo, match="no record was made"):
        write_manifest(str(tmp_path / "out"), manifest_of(report, {}))


def test_output_of_another_job_or_version_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(1))
    ingest(tmp_path)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({**manifest, "examples_version": 9}))
    with pytest.raises(BadInput, match="has record version 9, this program reads version 1"):
        ingest(tmp_path)
    (tmp_path / "out" / MANIFEST).unlink()
    with pytest.raises(BadInput, match="holds the results of"):
        ingest(tmp_path, inputs=(f"{tmp_path}/in/pages",))
    corpus = tmp_path / "out/ledger/corpus.json"
    corpus.write_text(json.dumps({k: v for k, v in json.loads(corpus.read_text()).items() if k != "made_by"}))
    with pytest.raises(BadInput, match="was made by pagemill transcribe, not by pagemill ingest"):
        ingest(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"kinds": ("book",)}},
        {"settings": {"steps": ("dewarp",)}},
        {"settings": {"validation_share": 0.8, "test_share": 0.3}},
        {"settings": {"without_truth": "guess"}},
        {"document_pattern": "("},
        {"limit": 0},
    ],
)
def test_arguments_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        options_for(tmp_path, **changes)


# Running again.


def contents(root: Path) -> dict[str, bytes]:
    """The manifest and the files of records and metadata."""
    out = root / "out"
    files = [out / MANIFEST, *(out / "records").rglob("*.gz"), *(out / "metadata").iterdir()]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def test_running_again_does_only_what_is_missing(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(40))
    first = ingest(tmp_path)
    before = contents(tmp_path)
    name = sorted(first.entries)[1]
    ledger.reopen(str(tmp_path / "out"), name)
    second = ingest(tmp_path)
    assert contents(tmp_path) == before
    assert [unit for unit in first.entries if first.entries[unit].run != second.entries[unit].run] == [name]
    put(tmp_path / "in", {"new.png": page_image(99), "new.lines.json": lines_json(99)})
    third = ingest(tmp_path)
    assert third.counts.read == 41 and len(third.entries) == len(first.entries) + 1


def test_the_same_corpus_elsewhere_gives_the_same_records(tmp_path: Path) -> None:
    for name in ("one", "other"):
        put(tmp_path / name / "in", corpus_of(20, lines=5))
        ingest(tmp_path / name)
    assert records_by_content(tmp_path / "one") == records_by_content(tmp_path / "other")


def records_by_content(root: Path) -> list[bytes]:
    files = [*(root / "out/records").rglob("*.gz"), *(root / "out/metadata").iterdir()]
    return sorted(file.read_bytes() for file in files)


def test_other_settings_are_refused_or_replace_what_was_made(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(3))
    ingest(tmp_path)
    with pytest.raises(BadInput, match=r"begun with configuration \w{16}, this run has \w{16}"):
        ingest(tmp_path, {"kinds": ("page",)})
    ingest(tmp_path, {"kinds": ("page",)}, on_change="restart")
    assert not list((tmp_path / "out/records").rglob("line/*/*.gz"))
    assert all(isinstance(example, PageExample) for example in examples(tmp_path))


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_two_workers_do_what_one_does(tmp_path: Path, mode: str) -> None:
    put(tmp_path / "a/in", corpus_of(40))
    ingest(tmp_path / "a")
    options = options_for(tmp_path / "b", inputs=(f"{tmp_path}/a/in",))
    report = run(options, ["--direct_num_workers=2", f"--direct_running_mode={mode}"])
    write_manifest(options.output, manifest_of(report, options.configuration()))
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_graph_has_the_same_size_for_any_corpus(tmp_path: Path) -> None:
    sizes = []
    for count in (1, 60):
        root = tmp_path / str(count)
        put(root / "in", corpus_of(count))
        (root / "out").mkdir()
        pipeline = beam.Pipeline(runner="FnApiRunner")
        build(pipeline, prepare(options_for(root)).options)
        proto = pipeline.to_runner_api()
        sizes.append((len(proto.components.transforms), len(proto.SerializeToString())))
    assert sizes[0][0] == sizes[1][0] and abs(sizes[0][1] - sizes[1][1]) < 200


def test_file_that_kills_its_worker_is_left_out_by_the_next_attempts(tmp_path: Path) -> None:
    """Attempts that died are told by what they leave: a note without an end, with the file they had in hand."""
    put(tmp_path / "in", corpus_of(3))
    options = options_for(tmp_path, run="run1")
    (tmp_path / "out").mkdir()
    prepare(options)
    (unit,) = [reference.name for reference in read_references(options.output)]
    attempts = tmp_path / "out/ledger/attempts"
    attempts.mkdir()
    (attempts / f"{unit}.run1.1").write_text('{"worker": "x"}\n')
    (attempts / f"{unit}.run1.2").write_text('{"worker": "x", "item": 1}\n')
    report = run(options)
    assert [(Path(p).name, reason) for p, _, _, reason in dead_letters(tmp_path)] == [("00001.png", "quarantined")]
    assert report.counts.read == 2


def test_limit_takes_the_first_files(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(9))
    assert ingest(tmp_path, limit=4).counts.files == 4


def test_books_that_do_not_balance_fail_the_run(tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(1))
    report = ingest(tmp_path)
    (entry,) = report.entries.values()
    wrong = replace(entry, counts=replace(entry.counts, read=0))
    with pytest.raises(PagemillError, match=r"books of .* do not balance"):
        replace(report, entries={entry.unit: wrong}).check()
