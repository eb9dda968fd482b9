import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import load_bundle, write_checksums
from ocr_model.errors import BadInput, BadModel
from ocr_model.layers import WeightStandardisedConv2D
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from ocr_model.self_check import FOLDER, read_line_images, write_self_check
from tests.tiny_bundle import AB, RECOGNISER, copy_of_bundle, drawn, tiny_bundle
from trainer.start_model import (
    alphabet_for,
    as_bundle,
    check_same_reading,
    grown_head,
    kept_weights,
    network_of,
    sound_bundle,
    start_from,
    unfolded,
)

LINES = [(drawn(text), text) for text in ("ab", "ba ab", "b", "aa b")]


@pytest.fixture(autouse=True)
def _float32() -> None:
    keras.mixed_precision.set_global_policy("float32")


def noise(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 40, 96, 1), dtype=np.uint8)


# ---- alphabet


@pytest.mark.parametrize(("rule", "characters"), [("union", " abcd"), ("new", " bcd")])
def test_the_alphabet_follows_the_rule(rule: str, characters: str) -> None:
    assert alphabet_for(AB, ["dcb"], rule).characters == characters  # type: ignore[arg-type]


def test_known_characters_keep_their_places_when_others_are_appended() -> None:
    grown = alphabet_for(AB, ["zb", "ca"], "union")
    assert grown.characters.startswith(AB.characters)
    assert alphabet_for(AB, ["ab"], "union") == AB == alphabet_for(AB, ["b"], "fail")


def test_unknown_characters_are_listed_with_their_counts_where_none_are_allowed() -> None:
    expected = r"2 characters of these lines: 'ſ' \(U\+017F\) 2 times, 'c' \(U\+0063\) 1 times"
    with pytest.raises(BadInput, match=expected):
        alphabet_for(AB, ["aſ", "ſc"], "fail")


# ---- weights


def test_a_folded_kernel_is_unfolded_to_one_that_gives_it_again() -> None:
    layer = WeightStandardisedConv2D(5, (3, 2))
    layer.build((None, 8, 8, 4))
    layer.gain.assign(np.linspace(0.1, 2.0, 5))
    wanted = keras.ops.convert_to_numpy(layer.standardised_kernel())
    kernel, gain = unfolded(wanted)
    layer.kernel.assign(kernel)
    layer.gain.assign(gain)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.standardised_kernel()), wanted, atol=1e-6)


def test_the_trainable_network_gives_what_the_bundle_gives() -> None:
    bundle = load_bundle(tiny_bundle(), "float32")
    network = as_bundle(start_from(bundle, (), "union"))
    classes, confidences = bundle.read_lines(noise())
    own_classes, own_confidences = network.read_lines(noise())
    np.testing.assert_array_equal(own_classes, classes)
    # Kept in bfloat16, a kernel's mean is not quite 0.
    np.testing.assert_allclose(own_confidences, confidences, atol=3e-3)


def test_growing_the_alphabet_keeps_all_old_scores_and_never_chooses_a_new_class() -> None:
    weights = kept_weights(tiny_bundle())
    old, _ = network_of(weights, RECOGNISER, AB, AB)
    new, config = network_of(weights, RECOGNISER, AB, Alphabet(" abcdefgh"))
    before, after = (keras.ops.convert_to_numpy(model(noise())) for model in (old, new))
    assert config.classes == after.shape[-1] == 10
    np.testing.assert_allclose(after[..., : AB.classes], before, atol=1e-6)
    np.testing.assert_array_equal(after.argmax(-1), before.argmax(-1))


def test_a_new_class_scores_below_the_best_of_the_old_whatever_the_features() -> None:
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(1, 1, 6, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    new_kernel, new_bias = grown_head(kernel, bias, AB, Alphabet(" abxy"))
    features = 100 * rng.normal(size=(500, 6))
    scores = features @ new_kernel[0, 0] + new_bias
    assert (scores[:, 4:] < scores[:, :4].max(axis=1, keepdims=True)).all()


def test_an_alphabet_of_its_own_keeps_the_weights_of_shared_characters() -> None:
    kernel, bias = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4), np.arange(4, dtype=np.float32)
    new_kernel, new_bias = grown_head(kernel, bias, AB, Alphabet(" bz"))
    np.testing.assert_array_equal(new_kernel[..., :3], kernel[..., [0, 1, 3]])
    np.testing.assert_array_equal(new_bias[:3], bias[[0, 1, 3]])


@pytest.mark.parametrize(
    ("config", "alphabet", "message"),
    [
        (RECOGNISER, Alphabet(" abc"), "recogniser has 4 classes, the alphabet 5"),
        (RecogniserConfig(4, (4, 4, 4, 8), 16, 2), AB, "bundle has 14 weights, its network 16"),
        (RecogniserConfig(4, (4, 4, 4, 8), 12, 1), AB, r"kernel of \(5, 3, 8, 16\)"),
    ],
)
def test_weights_of_another_network_are_refused(config: RecogniserConfig, alphabet: Alphabet, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        network_of(kept_weights(tiny_bundle()), config, alphabet, alphabet)


# ---- the guard before step 1


def test_a_sound_bundle_may_be_started_from() -> None:
    check_same_reading(start_from(sound_bundle(tiny_bundle(), "float32"), ["abc"], "union"), LINES)


def with_config(bundle: Path, **recogniser: object) -> Path:
    config = json.loads((bundle / "config.json").read_text())
    config["recogniser"].update(recogniser)
    (bundle / "config.json").write_text(json.dumps(config))
    write_checksums(bundle)
    return bundle


def wrong_alphabet(bundle: Path) -> None:
    Alphabet(" abc").save(bundle / "alphabet.json")
    write_checksums(bundle)


def wrong_height(bundle: Path) -> None:
    with_config(bundle, line_height_px=32)


def wrong_normalisation(bundle: Path) -> None:
    with_config(bundle, normalisation="another")


def changed_weights(bundle: Path) -> None:
    path = bundle / "finder" / "variables" / "variables.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")


def no_checksums(bundle: Path) -> None:
    (bundle / "SHA256SUMS").unlink()


def no_self_check(bundle: Path) -> None:
    shutil.rmtree(bundle / FOLDER)
    write_checksums(bundle)


def another_cer(bundle: Path) -> None:
    expected = json.loads((bundle / FOLDER / "expected.json").read_text())
    expected["cer"] += 0.5
    (bundle / FOLDER / "expected.json").write_text(json.dumps(expected))
    write_checksums(bundle)


def other_readings(bundle: Path) -> None:
    expected = json.loads((bundle / FOLDER / "expected.json").read_text())
    for line in expected["lines"]:
        line["reading"] = "b a b a b a"
    (bundle / FOLDER / "expected.json").write_text(json.dumps(expected))
    write_checksums(bundle)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_alphabet, "alphabet has 5 classes, the recogniser 4"),
        (wrong_height, "takes lines of 32 px height"),
        (wrong_normalisation, "normalised by 'another'"),
        (changed_weights, "finder/variables/variables.data-00000-of-00001 differs"),
        (no_checksums, "has no SHA256SUMS"),
        (no_self_check, "no self-check"),
        (another_cer, "the CER of its check lines is"),
        (other_readings, "reads its check lines otherwise"),
    ],
)
def test_nothing_starts_from_a_bundle_that_is_not_what_it_was(tmp_path: Path, damage, message: str) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    damage(bundle)
    with pytest.raises(BadModel, match=message):
        sound_bundle(bundle, "float32")


def test_a_network_that_reads_otherwise_than_its_bundle_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(), "float32")
    start = start_from(bundle, (), "union")
    texts = [reading.text for reading in read_line_images(bundle, [strip for strip, _ in LINES])]
    lines = [(strip, text or "a") for (strip, _), text in zip(LINES, texts, strict=True)]
    check_same_reading(start, lines)
    keras.utils.set_random_seed(8)
    other = replace(start, model=build_recogniser(RECOGNISER))
    other.model.get_layer("scores").bias.assign([0.0, 0.0, 0.0, 50.0])  # reads b everywhere
    with pytest.raises(BadModel, match="its weights in the trainer"):
        check_same_reading(other, lines)


def test_the_self_check_may_be_of_lines_of_ones_own(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(), "float32")
    write_self_check(bundle, LINES, tmp_path / "check")
    assert len(list((tmp_path / "check").glob("*.line.png"))) == len(LINES)
