"""A bundle with a language model: what `load_bundle` and `Reader` make of it."""

from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import decoded, load_bundle, write_checksums
from ocr_model.errors import BadArgument, BadModel
from ocr_model.language_model import FILE
from tests.tiny_bundle import AB, copy_of_bundle
from trainer.language_model import Config, learnt

MODEL = learnt(["ab ab", "abab"] * 9, AB, Config(order=3, entries=100, weight=1.0, bonus=0.0))


def network(lines: np.ndarray) -> dict[str, np.ndarray]:
    """Reads "a?" in the first line, where ? is a in doubt, else b; nothing in the others."""
    scores = np.full((len(lines), 6, AB.classes), -9.0, np.float32)
    scores[:, :, 0] = 0.0
    a, b = AB.encode("ab")
    scores[0, 1, a], scores[0, 3, a], scores[0, 3, b] = 9.0, 2.2, 2.0
    exps = np.exp(scores)
    confidences = (exps / exps.sum(-1, keepdims=True)).max(-1)
    return {
        "classes": scores.argmax(-1).astype(np.int32),
        "confidences": confidences,
        "scores": scores,
    }


def halved(confidences: np.ndarray) -> np.ndarray:
    return confidences / 2


def test_the_language_model_decides_between_two_characters_and_leaves_other_lines() -> None:
    lines = np.zeros((2, 40, 24, 1), np.uint8)
    plain, sure = decoded(network, None, halved)(lines)
    better, surer = decoded(network, MODEL, halved)(lines)
    assert AB.decode(plain[0][plain[0] > 0].tolist()) == "aa"
    assert AB.decode(better[0][better[0] > 0].tolist()) == "ab"
    assert surer[0, 3] > sure[0, 3]
    assert surer.max() <= 0.5  # the calibration comes last
    np.testing.assert_array_equal(plain[1], better[1])


def test_a_line_is_decoded_the_same_alone_and_among_others() -> None:
    read = decoded(network, MODEL, halved)
    alone, together = (read(np.zeros((count, 40, 24, 1), np.uint8)) for count in (1, 5))
    for one, of_five in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], of_five[0])


def test_a_network_without_scores_is_read_by_its_best_path() -> None:
    found = network(np.zeros((1, 40, 24, 1), np.uint8))
    del found["scores"]
    classes, _ = decoded(lambda lines: found, MODEL, halved)(np.zeros((1, 40, 24, 1), np.uint8))
    np.testing.assert_array_equal(classes, found["classes"])


def test_a_bundle_is_decoded_as_it_is_asked_for(tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    assert load_bundle(bundle, "float32").language_model is None
    learnt(["ba"], Alphabet("ba"), Config(order=2, entries=9)).save(bundle / FILE)
    write_checksums(bundle)
    model = load_bundle(bundle, "float32").language_model
    assert model is not None
    assert model.log_probability(AB.encode("ba"), 1) > model.log_probability(AB.encode("ab"), 1)
    assert load_bundle(bundle, "float32", "greedy").language_model is None
    with pytest.raises(BadArgument, match="unknown decoder 'viterbi'"):
        load_bundle(bundle, "float32", "viterbi")


def test_a_damaged_language_model_is_refused(tmp_path: Path) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    (bundle / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(BadModel, match="no language model"):
        load_bundle(bundle, "float32")
