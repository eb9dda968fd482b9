from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.line_data import make_batch
from trainer.loop import make_step
from trainer.recogniser import Validation, ctc_loss, to_tensors

AB = Alphabet(" ab")


def brute_force_loss(logits: np.ndarray, label: list[int]) -> float:
    """Minus the logarithm of the summed probability of every path that reads as the label."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    total = 0.0
    for path in product(range(logits.shape[1]), repeat=logits.shape[0]):
        merged = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
        if [c for c in merged if c != 0] == label:
            total += float(np.prod([probabilities[t, c] for t, c in enumerate(path)]))
    return -float(np.log(total))


@pytest.mark.parametrize("label", [[1], [1, 2], [1, 1], [2, 1, 2]])
def test_ctc_loss_equals_the_sum_over_all_paths(label: list[int]) -> None:
    logits = np.random.default_rng(len(label)).standard_normal((5, 3)).astype(np.float32)
    batch = {"labels": tf.constant([label]), "lengths": tf.constant([len(label)]), "steps": tf.constant([5])}
    expected = brute_force_loss(logits, label) / len(label)
    assert float(ctc_loss(tf.constant(logits[None]), batch)) == pytest.approx(expected, rel=1e-4)


def test_one_batch_is_learnt_by_heart() -> None:
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    model = build_recogniser(RecogniserConfig(AB.classes, (8, 8, 8, 16), 32, 2))
    lines = [(rng.integers(0, 256, (40, 64), dtype=np.uint8), AB.encode(text)) for text in ("ab", "ba a", "bb")]
    batch = to_tensors(make_batch(lines))
    step = make_step(model, keras.optimizers.AdamW(3e-3), ctc_loss, clip_norm=1.0)
    for _ in range(120):
        loss, _ = step(batch)
    assert float(loss) < 0.1


def test_validation_reports_each_group_and_the_mean_of_real_and_rendered() -> None:
    model = build_recogniser(RecogniserConfig(AB.classes, (2, 2, 2, 2), 4, 1))
    white = np.full((40, 64), 255, np.uint8)
    figures = Validation([(white, "ab", "books"), (white, "a", "rendered")], AB)(model)
    assert set(figures) == {"cer", "cer_books", "cer_real", "cer_rendered"}
    assert figures["cer"] == pytest.approx((figures["cer_real"] + figures["cer_rendered"]) / 2)
