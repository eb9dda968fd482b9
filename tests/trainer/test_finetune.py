import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import bundle_digest, differing_files, load_bundle
from ocr_model.errors import BadArgument, BadInput, BadModel
from ocr_model.self_check import character_error_rate, read_line_images
from tests.tiny_bundle import AB, RECOGNISER, copy_of_bundle, reading_bundle, tiny_bundle, write_lines
from tests.trainer.small_records import example, write_records
from trainer.collection import as_cut
from trainer.finetune import (
    Examination,
    FineTuning,
    Outcome,
    batches,
    finetune,
    has_fonts,
    layer_rates,
    learning_of,
    load_collection,
    old_lines,
    rendered_samples,
)
from trainer.loop import LoopConfig
from trainer.start_model import HEAD, as_bundle, kept_weights, network_of, sound_bundle, start_from
from trainer.task import main

TEXTS = ["ab", "ba b", "cab", "bc a", "abc", "c", "acb b", "bb", "ca", "a c b", "bac", "cc"]
EQUAL = [
    "abca",
    "cb b",
    "a ca",
    "bcab",
    "aacb",
    "bb c",
    "c ac",
    "caba",
    "b cc",
    "abc ",
    "cbca",
    "acbb",
]  # a bucket or two
LOOP = LoopConfig(steps=4, learning_rate=1e-3, warmup_steps=1, validate_every=2, ema=0.5)


@pytest.fixture(autouse=True)
def _float32() -> Any:
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "lines", TEXTS * 2)


def config(lines: Path, **changes: Any) -> FineTuning:
    base = FineTuning(lines, start=tiny_bundle(), replay_share=0.0, batch_px=400, precision="float32", loop=LOOP)
    return replace(base, **changes)


# ---- the beginning


def test_the_first_evaluation_is_the_start_models_own_error_rate(lines: Path) -> None:
    collection = load_collection(config(lines))
    bundle = sound_bundle(tiny_bundle(), "float32")
    start = start_from(bundle, collection.texts(), "union")
    assert start.added == "c"
    strips = [as_cut(line) for line in collection.validation]
    texts = [line.text for line in collection.validation]
    own = character_error_rate(texts, [reading.text for reading in read_line_images(bundle, strips)])
    assert Examination(collection.validation, []).figures(as_bundle(start)) == {"cer": own}


def test_nothing_is_trained_from_a_damaged_bundle(lines: Path, tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    Alphabet(" abc").save(bundle / "alphabet.json")
    with pytest.raises(BadModel, match=r"alphabet\.json differs"):
        finetune(config(lines, start=bundle), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_characters_end_it_before_training_where_none_are_allowed(lines: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'c' \(U\+0063\) 20 times"):
        finetune(config(lines, alphabet="fail"), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": Path()}, "folder of lines or one of records"),
        ({"alphabet": "all"}, "unknown alphabet rule 'all'"),
        ({"freeze": "head"}, "cannot freeze 'head'"),
        ({"layer_decay": 0.0}, "layer decay 0"),
        ({"replay_share": 1.0}, "replay share 1"),
        ({"validation_share": 0.0}, "validation share 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        config(Path(), **changes)


# ---- rates, freezing, batches


def test_a_layer_learns_more_slowly_the_lower_it_is() -> None:
    model, _ = network_of(kept_weights(tiny_bundle()), RECOGNISER, AB, AB)
    rates = layer_rates(model, 0.5)
    layers = [layer for layer in model.layers if layer.weights]
    for depth, layer in enumerate(reversed(layers)):
        assert {rates[weight.path] for weight in layer.weights} == {0.5**depth}


def test_a_frozen_backbone_leaves_only_the_last_layer_to_learn(lines: Path) -> None:
    frozen = config(lines, freeze="backbone")
    collection = load_collection(frozen)
    start = start_from(sound_bundle(tiny_bundle(), "float32"), collection.texts(), "union")
    learning = learning_of(frozen, start, collection, Examination(collection.validation, []))
    model = learning.build()
    assert [v.path for v in model.trainable_variables] == [v.path for v in model.get_layer(HEAD).weights]
    assert learning.rate_of is not None
    assert {learning.rate_of(v.path) for v in model.trainable_variables} == {1.0}


def test_the_stream_is_the_same_again_and_goes_on_from_any_place(lines: Path) -> None:
    collection = load_collection(config(lines))

    def take(skip: int, count: int) -> list[Any]:
        stream = batches(config(lines), Alphabet(" abc"), collection.training, skip)
        return list(itertools.islice(stream, count))

    whole, rest = take(0, 5), take(3, 2)
    assert [batch.place for batch in rest] == [4, 5]
    for a, b in zip(whole[3:], rest, strict=True):
        for name, values in a.values.items():
            np.testing.assert_array_equal(values, b.values[name])


def test_replayed_lines_come_from_the_folder_named(lines: Path, tmp_path: Path) -> None:
    other = write_lines(tmp_path / "other", ["aa b a"] * 12)
    wanted = config(lines, replay=other, replay_share=0.5)
    collection = load_collection(wanted)
    stream = batches(wanted, Alphabet(" abc"), collection.training)
    names = [name for batch in itertools.islice(stream, 20) for name in batch.examples]
    share = sum(name.startswith("replay") for name in names) / len(names)
    assert 0.25 < share < 0.75


def test_a_replay_without_a_line_of_the_alphabet_is_refused(lines: Path, tmp_path: Path) -> None:
    wanted = config(lines, replay=write_lines(tmp_path / "other", ["xyz"] * 12), replay_share=0.5)
    with pytest.raises(BadInput, match="within the alphabet"):
        next(batches(wanted, Alphabet(" abc"), load_collection(wanted).training))


def test_lines_that_none_can_be_learnt_from_are_told(lines: Path) -> None:
    narrow = config(lines, max_width_px=8)
    with pytest.raises(BadInput, match="no line is at most 8 px wide"):
        next(batches(narrow, Alphabet(" abc"), load_collection(narrow).training))


# ---- the whole


@pytest.fixture(scope="module", params=["none", pytest.param("backbone", marks=pytest.mark.slow)])
def learnt(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FineTuning, Path, Outcome]:
    """A tiny bundle that could read two characters and has learnt a third."""
    folder = tmp_path_factory.mktemp("learnt")
    rate = 5e-3 if request.param == "none" else 3e-2
    loop = LoopConfig(steps=45, learning_rate=rate, warmup_steps=5, validate_every=45, ema=0.8)
    lines = write_lines(folder / "lines", EQUAL * 2)
    watch = write_lines(folder / "watch", ["ab a", "bbaa"])
    wanted = config(lines, start=reading_bundle(), watch=watch, loop=loop, layer_decay=1.0, freeze=request.param)
    return wanted, folder, finetune(wanted, folder / "run", data_note="Drawn lines, CC0.")


def test_a_bundle_learns_a_new_character_and_the_new_bundle_is_sound(learnt: tuple[FineTuning, Path, Outcome]) -> None:
    wanted, _, outcome = learnt
    assert outcome.gained and outcome.after["cer"] < 0.5 * outcome.before["cer"]
    assert outcome.bundle is not None and differing_files(outcome.bundle) == []
    new = sound_bundle(outcome.bundle, "float32")
    assert new.alphabet.characters == " abc"
    validation = load_collection(wanted).validation
    read = [reading.text for reading in read_line_images(new, [as_cut(line) for line in validation])]
    cer = character_error_rate([line.text for line in validation], read)
    assert cer == pytest.approx(outcome.after["cer"], abs=0.05)
    page = np.full((1, 64, 96, 1), 200, np.uint8)
    start = load_bundle(reading_bundle(), "float32")
    for name, values in start.find_lines(page).items():
        np.testing.assert_array_equal(values, new.find_lines(page)[name])


def test_the_card_and_the_configuration_tell_what_was_done(learnt: tuple[FineTuning, Path, Outcome]) -> None:
    _, folder, outcome = learnt
    assert outcome.bundle is not None
    card = (outcome.bundle / "MODEL_CARD.md").read_text()
    for expected in (
        "| other lines: marks |",
        "`c` (U+0063)",
        "| the collection, all |",
        "Confusions",
        "CC0",
        "A tiny one.",
        "Size and latency",
    ):
        assert expected in card
    assert str(folder) not in card + (outcome.bundle / "config.json").read_text()
    training = json.loads((outcome.bundle / "config.json").read_text())["training"]["finetuning"]
    assert training["start"] == bundle_digest(reading_bundle())
    before = json.loads((folder / "run" / "before.json").read_text())
    assert before.items() < outcome.before.items() and outcome.before["cer_other_marks"] < 0.2


def test_no_bundle_is_written_where_nothing_is_gained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = ["train", "validation"]
    lines = [example(i, splits[i % 3 == 0], f"book {i}", text=text) for i, text in enumerate(EQUAL)]  # type: ignore[arg-type]
    words = ["--from", str(tiny_bundle()), "--records", str(write_records(tmp_path / "records", lines))]
    words += ["--output", str(tmp_path / "run"), "--replay-share", "0", "--precision", "float32"]
    still = ["--steps", "2", "--learning-rate", "1e-9", "--validate-every", "2"]
    assert main([*words, *still]) == 5
    assert "no bundle is written" in capsys.readouterr().out
    assert (tmp_path / "run" / "best.weights.h5").exists() and not (tmp_path / "run" / "bundle").exists()


@pytest.mark.skipif(not has_fonts(), reason="no font of the renderer is installed")
def test_an_alphabet_that_no_rendered_line_is_in_ends_the_replay() -> None:
    assert list(rendered_samples(np.random.default_rng(1), None, Alphabet(" ab"))) == []


@pytest.mark.skipif(not has_fonts(), reason="no font of the renderer is installed")
def test_the_old_skill_is_measured_on_rendered_lines(lines: Path, tmp_path: Path) -> None:
    start = copy_of_bundle(tmp_path / "bundle")
    alphabet = Alphabet("".join(chr(c) for c in range(32, 127)))
    found = old_lines(config(lines, start=start), alphabet)
    assert len(found) == 80 and all(alphabet.covers(text) for _, text in found)
