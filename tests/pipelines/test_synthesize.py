import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadArgument, BadInput
from ocr_model.examples import LineExample, PageExample
from ocr_model.record_files import load_manifest, read_records
from pipelines import synthetic_examples
from pipelines.cli import VERBS, main, parse
from pipelines.commands import synthesize as command
from pipelines.ledger import UNITS
from pipelines.plan import read_references
from pipelines.records_job import manifest_of, write_manifest
from pipelines.report import Report
from pipelines.synthesize import SynthesisOptions, find_ingredients, run, synthesis_text
from pipelines.synthetic_examples import COVERED_EVERY, SynthesisSettings, must_of
from pipelines.verify import verify_output
from tests.pipelines.test_ingest import contents
from trainer.synthesis.fonts import FontFace, find_fonts, fonts_in, is_slanted
from trainer.synthesis.lines import make_line
from trainer.synthesis.provenance import damage_from_json, line_from_json

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faces() -> list[FontFace]:
    try:
        found = find_fonts()
    except BadInput:
        pytest.skip("no font of the renderer is installed")
    upright = [face for face in found if not is_slanted(face)]
    return [next((f for f in upright if f.kind == kind), upright[0]) for kind in ("typewriter", "book", "modern")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, faces: list[FontFace]) -> Path:
    """A folder with three fonts and two texts."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "fonts").mkdir()
    (folder / "text").mkdir()
    for face in faces:
        (folder / "fonts" / face.path.name).write_bytes(face.path.read_bytes())
    (folder / "text/en_a.txt").write_text("The old mill by the river ground no more corn that winter.\n" * 30)
    (folder / "text/de_b.txt").write_text("Die alte Mühle am Fluß mahlte in jenem Winter kein Korn mehr.\n" * 30)
    return folder


def options_for(root: Path, corpus: Path, settings: dict[str, Any] | None = None, **changes: Any) -> SynthesisOptions:
    given = {"text": str(corpus / "text"), "fonts": str(corpus / "fonts"), "max_cer": None, **(settings or {})}
    return SynthesisOptions(
        **{"output": str(root / "out"), "count": 12, "shard": 4, **changes}, settings=SynthesisSettings(**given)
    )


def synthesize(root: Path, corpus: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Report:
    options = options_for(root, corpus, settings, **changes)
    flags = changes.pop("flags", ())
    report = run(options, flags)
    write_manifest(options.output, manifest_of(report, options.configuration()))
    return report


def lines_of(root: Path) -> list[LineExample]:
    found = list(read_records(root / "out", "line"))
    assert all(isinstance(example, LineExample) for example in found)
    return found  # type: ignore[return-value]


def told(example: LineExample | PageExample) -> dict[str, str]:
    return dict(example.origin.metadata)


def test_every_record_says_how_to_draw_it_again(tmp_path: Path, corpus: Path) -> None:
    report = synthesize(tmp_path, corpus)
    examples = lines_of(tmp_path)
    assert len(examples) == report.counts.read == 12
    fonts = fonts_in(corpus / "fonts")
    for number, example in enumerate(examples):
        about = told(example)
        assert about["number"] == str(number) and about["seed"] == "1" and about["made_by"] == "pagemill synthesize"
        p, damage = line_from_json(json.loads(about["line"]), fonts), damage_from_json(json.loads(about["damage"]))
        image, text, boxes = make_line(p, damage)
        np.testing.assert_array_equal(example.image.decoded(), image)
        assert example.text == text and p.face.path.name == about["font"]
        np.testing.assert_allclose(json.loads(about["character_boxes"]), boxes, atol=0.06)
        assert set(about["text_files"].split()) <= {"en_a.txt", "de_b.txt"}
        assert example.line.baseline is not None
        assert example.image.height >= max(y for _, y in example.line.baseline)
    assert {told(example)["font_kind"] for example in examples} == {"typewriter", "book", "modern"}


def test_a_line_depends_on_its_number_not_on_its_shard_or_worker(tmp_path: Path, corpus: Path) -> None:
    synthesize(tmp_path / "a", corpus)
    synthesize(tmp_path / "b", corpus, shard=5)
    for a, b in zip(lines_of(tmp_path / "a"), lines_of(tmp_path / "b"), strict=True):
        assert (a.text, a.image.data) == (b.text, b.image.data)
    options = options_for(tmp_path / "c", corpus)
    report = run(options, ["--direct_num_workers=2", "--direct_running_mode=multi_threading"])
    write_manifest(options.output, manifest_of(report, options.configuration()))
    assert contents(tmp_path / "c") == contents(tmp_path / "a")


def test_another_seed_draws_other_lines(tmp_path: Path, corpus: Path) -> None:
    synthesize(tmp_path / "a", corpus)
    synthesize(tmp_path / "b", corpus, {"seed": 2})
    assert not {e.image.sha256 for e in lines_of(tmp_path / "a")} & {e.image.sha256 for e in lines_of(tmp_path / "b")}


def test_a_run_that_is_given_again_does_only_what_is_missing_and_takes_up_more(tmp_path: Path, corpus: Path) -> None:
    synthesize(tmp_path, corpus, count=8)
    before = contents(tmp_path)
    first = sorted((tmp_path / "out" / UNITS).glob("*.json"))
    times = [path.stat().st_mtime_ns for path in first]
    synthesize(tmp_path, corpus, count=12)
    assert [path.stat().st_mtime_ns for path in first] == times
    assert {k: v for k, v in contents(tmp_path).items() if k in before and k != "records.json"} == {
        k: v for k, v in before.items() if k != "records.json"
    }
    assert len(lines_of(tmp_path)) == 12
    with pytest.raises(BadInput, match="not asked for any more, such as synthetic-1/00000002"):
        synthesize(tmp_path, corpus, count=10)


def test_another_configuration_in_the_same_folder_is_refused_or_done_anew(tmp_path: Path, corpus: Path) -> None:
    synthesize(tmp_path, corpus)
    with pytest.raises(BadInput, match="--on-change"):
        synthesize(tmp_path, corpus, {"seed": 2})
    report = synthesize(tmp_path, corpus, {"seed": 1, "damaged": 0.0}, on_change="restart")
    assert report.counts.read == 12
    assert all(set(np.unique(e.image.decoded())) >= {255} for e in lines_of(tmp_path))
    assert all(
        json.loads(told(e)["damage"]).keys() <= {"seed", "paper", "resolution", "fold_at"} for e in lines_of(tmp_path)
    )


def test_a_unit_is_one_shard(tmp_path: Path, corpus: Path) -> None:
    synthesize(tmp_path, corpus)
    assert [reference.files for reference in read_references(str(tmp_path / "out"))] == [1, 1, 1]


class NearlyBlind:
    """Reads only lines of over 40 characters, and these without a fault; it is told the truth."""

    truths: ClassVar[dict[bytes, str]] = {}

    def read_single_lines(self, images: list[np.ndarray]) -> list[Any]:
        texts = [self.truths[image.tobytes()] for image in images]
        return [SimpleNamespace(text=text if len(text) > 40 else "?" * 90) for text in texts]


def test_what_the_reader_cannot_read_is_dropped_and_counted(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesize(tmp_path / "all", corpus)
    everything = lines_of(tmp_path / "all")
    monkeypatch.setattr(NearlyBlind, "truths", {e.image.decoded().tobytes(): e.text for e in everything})
    monkeypatch.setattr(synthetic_examples, "load_reader", lambda bundle: NearlyBlind())
    report = synthesize(tmp_path / "some", corpus, {"max_cer": 0.5})
    kept = lines_of(tmp_path / "some")
    long = [e for e in everything if len(e.text) > 40]
    assert 0 < len(long) < 12
    assert [e.image.data for e in kept] == [e.image.data for e in long]
    assert all(told(e)["cer"] == "0.0000" for e in kept)
    counts = report.counts
    assert (counts.pages, counts.read, counts.skipped) == (12, len(long), 12 - len(long)) and counts.balanced
    lines = load_manifest(tmp_path / "some/out").counts["lines"]
    assert lines == {"recorded": len(long), "misread": 12 - len(long)}
    assert f"{12 - len(long)} lines were dropped" in synthesis_text(report, "line")


def test_every_character_has_its_turn_in_every_stretch_of_lines() -> None:
    for start in (0, 12_345):
        stretch = {must_of(number, DEFAULT_ALPHABET) for number in range(start, start + COVERED_EVERY)}
        assert stretch >= set(DEFAULT_ALPHABET.characters) - {" "}
    assert must_of(0, Alphabet(" ")) == ""


def test_pages_are_records_with_the_lines_that_stand_on_them(tmp_path: Path, corpus: Path) -> None:
    report = synthesize(tmp_path, corpus, {"kind": "page", "seed": 4}, count=3, shard=2)
    pages = list(read_records(tmp_path / "out", "page"))
    assert len(pages) == report.counts.read == 3
    for page in pages:
        assert isinstance(page, PageExample)
        image = page.image.decoded()
        for line in page.lines:
            assert line.text and line.box is not None and line.baseline
            assert line.box.right <= image.shape[1] and line.box.bottom <= image.shape[0]
            assert line.box.top <= line.baseline[0][1] <= line.box.bottom
    assert sum(len(page.lines) for page in pages if isinstance(page, PageExample)) > 20
    assert report.counts.lines == sum(len(page.lines) for page in pages if isinstance(page, PageExample))


class Inverter:
    """In the place of wear: shows the ink as it came."""

    def __init__(self, settings: SynthesisSettings) -> None:
        assert settings.wear == "somewhere"

    def worn(self, made: list[Any]) -> list[Any]:
        return [
            one if one.ink is None else replace(one, picture=(255 - 255 * one.ink).astype(np.uint8), ink=None)
            for one in made
        ]


def test_lines_that_are_to_be_worn_come_at_40_px_with_their_boxes(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_examples, "_Looks", Inverter)
    report = synthesize(tmp_path, corpus, {"wear": "somewhere", "worn": 0.5, "style_of": "letters"})
    worn = [e for e in lines_of(tmp_path) if "wear" in told(e)]
    assert 0 < len(worn) < 12
    assert load_manifest(tmp_path / "out").counts["notes"]["worn"] == len(worn)
    assert f"{len(worn)} with wear" in synthesis_text(report, "line")
    for example in worn:
        assert json.loads(told(example)["wear"])["style_of"] == "letters"
        image = example.image.decoded()
        assert image.shape[0] == 40
        boxes = np.array(json.loads(told(example)["character_boxes"]))
        inked = boxes[boxes[:, 2] > boxes[:, 0]].round().astype(int)
        shown = [image[max(0, t) : max(0, b), max(0, le) : max(0, r)] for le, t, r, b in inked]
        assert np.mean([part.min() < 140 for part in shown if part.size]) > 0.9


# ---- the command


def flags(corpus: Path, output: Path, *more: str) -> list[str]:
    folders = ["--text", str(corpus / "text"), "--fonts", str(corpus / "fonts"), "--output", str(output)]
    return [*folders, "--shard", "4", "--max-cer", "none", *more]


def in_process(*words: str) -> int:
    """Exit code of `pagemill synthesize WORDS` without its child process."""
    verb = next(verb for verb in VERBS if verb.name == "synthesize")
    arguments, beam_flags = parse(verb, list(words))
    return command.synthesize(arguments, beam_flags)


def test_font_and_text_that_cannot_be_read_are_named_counted_and_left_out(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("text", "fonts"):
        (tmp_path / name).mkdir()
        for path in (corpus / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "fonts/torn.ttf").write_bytes(b"no font")
    (tmp_path / "text/en_latin1.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "text/el_c.txt").write_text("αβγ\n")
    assert in_process("--lines", "4", *flags(tmp_path, tmp_path / "out")) == 0
    said = capsys.readouterr().err
    assert "torn.ttf" in said and "en_latin1.txt" in said and "'α'×1" in said
    ingredients = load_manifest(tmp_path / "out").counts["ingredients"]
    assert ingredients["unreadable"] == ["en_latin1.txt", "torn.ttf"] and ingredients["faces"] == 3
    assert ingredients["outside_alphabet"] == {"α": 1, "β": 1, "γ": 1} and ingredients["paragraphs_left_out"] == 1


@pytest.mark.parametrize("missing", ["text", "fonts"])
def test_no_text_or_no_font_that_can_be_used_is_an_error(tmp_path: Path, corpus: Path, missing: str) -> None:
    (tmp_path / missing).mkdir()
    (tmp_path / missing / "en_bad.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / missing / "bad.ttf").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadInput, match="bad"):
        find_ingredients(options_for(tmp_path, corpus, {missing: str(tmp_path / missing)}).settings)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--lines", "0"],
        ["--lines", "5", "--pages", "5"],
        ["--lines", "5", "--mix", "gothic=1"],
        ["--lines", "5", "--mix", "book"],
        ["--lines", "5", "--mix", "book=0"],
        ["--lines", "5", "--worn", "50%"],
        ["--lines", "5", "--style-of", "letters"],
        ["--lines", "5", "--damaged", "150%"],
        ["--lines", "5", "--max-cer", "much"],
        ["--lines", "5", "--seed", "-1"],
        ["--pages", "5", "--wear", "somewhere"],
        ["--lines", "5", "--validation", "60%", "--test", "60%"],
    ],
)
def test_bad_arguments_end_with_exit_code_1(tmp_path: Path, words: list[str]) -> None:
    assert main(["synthesize", "--output", str(tmp_path / "out"), *words]) == 1
    assert not (tmp_path / "out").exists()


def test_shares_of_splits_divide_shards(tmp_path: Path, corpus: Path) -> None:
    assert in_process("--lines", "40", *flags(corpus, tmp_path / "out", "--validation", "50%")) == 0
    manifest = load_manifest(tmp_path / "out")
    splits = {file.split for file in manifest.files}
    assert splits == {"train", "validation"} and len(manifest.files) == 10


def test_options_of_a_mixture_are_taken_over() -> None:
    verb = next(verb for verb in VERBS if verb.name == "synthesize")
    arguments, _ = parse(verb, ["--output", "x", "--lines", "9", "--mix", "fraktur=2,book=1", "--italics", "0"])
    settings = command.options_of(arguments).settings
    assert settings.kinds == {"fraktur": 2.0, "book": 1.0} and settings.slanted == 0 and settings.max_cer == 0.5
    with pytest.raises(BadArgument):
        command.mixture_of("book:1")


# ---- breaks


@pytest.fixture
def started() -> Iterator[Any]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "synthesize", *words],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path, corpus: Path, started: Any) -> None:
    words = ["--lines", "480", "--max-attempts", "9"]
    assert in_process(*words, *flags(corpus, tmp_path / "whole/out")) == 0
    for units in (10, 50):
        process = started(*words, *flags(corpus, tmp_path / "broken/out", "--workers", "2"))
        waiting = threading.Event()
        while done(tmp_path / "broken/out") < units:
            assert process.poll() is None, "the run was over before it could be killed"
            waiting.wait(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "broken/out/records.json").exists()
    assert in_process(*words, *flags(corpus, tmp_path / "broken/out")) == 0
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert verify_output(str(tmp_path / "broken/out")).problems == ()


def done(output: Path) -> int:
    folder = output / UNITS
    return sum(name.count(".") == 1 for name in os.listdir(folder)) if folder.exists() else 0
