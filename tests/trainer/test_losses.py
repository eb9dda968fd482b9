"""The losses against brute force and closed forms."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.finder_loss import FinderLoss, heights_sums, marked_loss, marked_sums
from trainer.losses import CtcLoss, ctc_losses, focal_weights

WAYS = pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])


def brute_force_loss(logits: np.ndarray, label: list[int]) -> float:
    """Minus the logarithm of the summed probability of every path that reads as the label."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    total = 0.0
    for path in product(range(logits.shape[1]), repeat=logits.shape[0]):
        merged = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
        if [c for c in merged if c != 0] == label:
            total += float(np.prod([probabilities[t, c] for t, c in enumerate(path)]))
    return -float(np.log(total))


def padded(labels: list[list[int]], longest: int) -> tuple[tf.Tensor, tf.Tensor]:
    array = np.array([label + [0] * (longest - len(label)) for label in labels], np.int32)
    return tf.constant(array), tf.constant([len(label) for label in labels], tf.int32)


@WAYS
@pytest.mark.parametrize("label", [[], [1], [1, 2], [1, 1], [2, 1, 2]])
def test_ctc_is_the_sum_over_all_paths(label: list[int], dense: bool) -> None:
    logits = np.random.default_rng(len(label)).standard_normal((5, 3)).astype(np.float32)
    labels, lengths = padded([label], 5)
    loss = ctc_losses(tf.constant(logits[None]), labels, lengths, tf.constant([5]), dense)
    assert float(loss[0]) == pytest.approx(brute_force_loss(logits, label), rel=1e-4)


@WAYS
def test_ctc_counts_the_steps_of_a_line_only(dense: bool) -> None:
    logits = np.random.default_rng(7).standard_normal((1, 6, 3)).astype(np.float32)
    labels, lengths = padded([[1, 2]], 6)
    loss = ctc_losses(tf.constant(logits), labels, lengths, tf.constant([4]), dense)
    assert float(loss[0]) == pytest.approx(brute_force_loss(logits[0, :4], [1, 2]), rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_dense_and_sparse_agree_in_value_and_gradient(seed: int, focal: float) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.integers(8, 24, 6).astype(np.int32)
    labels, lengths = padded([rng.integers(1, 9, rng.integers(0, 12)).tolist() for _ in steps], 24)
    logits = tf.constant(3 * rng.standard_normal((6, 24, 9)), tf.float32)
    batch = {"labels": labels, "lengths": lengths, "steps": tf.constant(steps), "weights": tf.ones(6)}
    results = []
    for dense in (False, True):
        loss = CtcLoss(dense, focal)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = loss.sums(logits, batch)
            value = loss.value(sums)
        results.append((sums.numpy(), tape.gradient(value, logits).numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-4)


@WAYS
def test_a_text_longer_than_its_steps_counts_nothing_and_is_counted(dense: bool) -> None:
    rng = np.random.default_rng(1)
    logits = tf.constant(rng.standard_normal((3, 4, 3)), tf.float32)
    labels, lengths = padded([[1, 1, 1], [1, 2, 1, 2, 1], [2]], 5)  # the first needs 5 steps for its repeats
    batch = {"labels": labels, "lengths": lengths, "steps": tf.fill([3], 4), "weights": tf.ones(3)}
    loss = CtcLoss(dense)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        sums = loss.sums(logits, batch)
        value = loss.value(sums)
    gradient = tape.gradient(value, logits).numpy()
    assert loss.dropped(sums.numpy()) == 2
    assert float(value) == pytest.approx(brute_force_loss(logits[2].numpy(), [2]), rel=1e-4)
    assert np.isfinite(gradient).all()
    assert not gradient[:2].any()


def test_an_easy_line_weighs_little_in_the_focal_loss() -> None:
    weights = focal_weights(tf.constant([0.02, 2.0]), tf.constant([2, 2]), 2.0).numpy()
    np.testing.assert_allclose(weights, [(1 - np.exp(-0.01)) ** 2, (1 - np.exp(-1.0)) ** 2], rtol=1e-3)


@pytest.mark.parametrize("loss", [CtcLoss(True, 1.5), FinderLoss(0.1, 0.2, 0.3)])
def test_a_loss_is_saved_and_made_again(loss: object) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again == loss


def test_marked_loss_is_small_for_the_truth_and_ignores_what_does_not_count() -> None:
    truth, counted = tf.constant([[[1.0, 0.0], [0.0, 0.0]]]), tf.constant([[[1.0, 1.0], [1.0, 0.0]]])
    right = tf.constant([[[20.0, -20.0], [-20.0, 20.0]]])
    small, large = (float(marked_loss(marked_sums(x, truth, counted))) for x in (right, -right))
    assert small < 0.01 < 1.0 < large


def test_marked_loss_of_undecided_maps_has_a_closed_form() -> None:
    truth, zeros = tf.constant([[[1.0, 0.0], [1.0, 0.0]]]), tf.zeros((1, 2, 2))
    loss = float(marked_loss(marked_sums(zeros, truth, tf.ones((1, 2, 2)))))
    assert loss == pytest.approx(2 * 4 * np.log(2) / 5 + 1 - (2 * 1 + 1) / (2 + 2 + 1), rel=1e-5)


def test_heights_are_compared_relatively() -> None:
    where, truth = tf.ones((1, 1, 1)), tf.zeros((1, 1, 1, 2))
    double, half = (heights_sums(tf.fill((1, 1, 1, 2), float(np.log(x))), truth, where).numpy() for x in (2.0, 0.5))
    np.testing.assert_allclose(double, half, rtol=1e-6)
    assert double.tolist() == pytest.approx([2 * (np.log(2) - 0.05), 1.0])


@pytest.mark.parametrize("dense", [False, True])
def test_a_text_that_a_certain_network_denies_has_a_finite_loss_and_a_gradient(dense: bool) -> None:
    logits = tf.constant(np.tile(np.array([0.0, 300.0, -300.0], np.float32), (1, 6, 1)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = ctc_losses(logits, tf.constant([[2, 0]]), tf.constant([1]), tf.constant([6]), dense)
    gradient = tape.gradient(losses, logits)
    assert np.isfinite(losses.numpy()).all() and np.isfinite(gradient.numpy()).all()
    assert gradient.numpy()[0, :, 1].sum() > 1 > 0 > gradient.numpy()[0, :, 2].sum()
