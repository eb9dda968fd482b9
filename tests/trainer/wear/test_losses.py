import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr_model.line_images import normalise_line_image
from tests.tiny_bundle import drawn
from tests.trainer.wear.test_networks import TINY
from trainer.wear.losses import (
    as_read,
    discriminator_loss,
    divergence,
    fooling_loss,
    gradient_penalty,
    grain_loss,
    likeness,
    only_seen,
    reading_loss,
    split_style,
)
from trainer.wear.networks import build_discriminator


def test_a_line_is_read_as_the_reader_would_prepare_it() -> None:
    line = np.clip(drawn("ab a").astype(np.float32) * 0.5 + 60, 0, 255)
    line += np.random.default_rng(1).normal(0, 6, line.shape)
    grey = np.clip(line, 0, 255).astype(np.uint8)
    expected = normalise_line_image(grey) / 255
    made = as_read(tf.constant(grey[None, ..., None] / np.float32(255)))[0, ..., 0].numpy()
    assert np.abs(made - expected).max() < 0.03


def test_a_gradient_passes_through_what_is_read() -> None:
    grey = tf.constant(np.random.default_rng(1).random((1, 40, 64, 1), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(grey)
        total = tf.reduce_sum(as_read(grey))
    slope = tape.gradient(total, grey).numpy()
    assert (slope <= 0).all() and (slope < 0).mean() > 0.8


def test_words_outside_of_the_window_cost_nothing() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (1, 6, 3)).astype(np.float32)
    labels, lengths = np.array([[1, 2, 0, 0, 0, 0]], np.int32), np.array([2], np.int32)
    seen = np.array([[0, 1, 1, 1, 0, 0]], np.float32)
    loss = float(reading_loss(tf.constant(logits), tf.constant(labels), tf.constant(lengths), tf.constant(seen)))
    chances = np.exp(logits[0, 1:4]) / np.exp(logits[0, 1:4]).sum(1, keepdims=True)
    paths = [(1, 2, 0), (1, 0, 2), (0, 1, 2), (1, 1, 2), (1, 2, 2)]
    expected = -np.log(sum(np.prod([chances[t, c] for t, c in enumerate(path)]) for path in paths)) / 2
    assert loss == pytest.approx(expected, abs=1e-4)
    other = logits.copy()
    other[0, 5] = (-9, 9, 9)
    again = reading_loss(tf.constant(other), tf.constant(labels), tf.constant(lengths), tf.constant(seen))
    assert float(again) == pytest.approx(loss)


def test_a_batch_without_words_costs_nothing() -> None:
    logits = tf.zeros((2, 4, 3))
    nothing = tf.zeros((2, 4), tf.int32)
    assert float(reading_loss(logits, nothing, tf.zeros(2, tf.int32), tf.zeros((2, 4)))) == 0
    assert only_seen(logits, tf.zeros((2, 4))).numpy().argmax(-1).tolist() == [[0] * 4] * 2


def test_the_judge_wins_where_its_scores_are_right() -> None:
    high, low = [np.full((1, 2, 2, 1), 5.0)], [np.full((1, 2, 2, 1), -5.0)]
    assert float(discriminator_loss(high, low)) < 0.05 < 5 < float(discriminator_loss(low, high))
    assert float(fooling_loss(high)) < 0.05 < 4 < float(fooling_loss(low))


def test_the_penalty_is_the_squared_slope_of_a_patch() -> None:
    grey = keras.Input((40, None, 1))
    fine = keras.layers.AveragePooling2D(4)(grey)  # a patch of 16 pixels has slope 1/16 by each
    coarse = keras.layers.AveragePooling2D(8)(grey)
    judge = keras.Model(grey, [fine, coarse])
    penalty = gradient_penalty(judge, tf.constant(np.random.default_rng(1).random((2, 40, 64, 1), np.float32)))
    assert float(penalty) == pytest.approx((1 / 16 + 1 / 64) / 2, rel=1e-3)


def test_the_penalty_is_that_of_differences() -> None:
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)
    judge = build_discriminator(TINY)
    line = np.random.default_rng(1).random((40, 8), np.float32)
    half = 0.02
    changed = np.eye(line.size, dtype=np.float32).reshape(-1, *line.shape) * half
    above, below = ([np.asarray(s) for s in judge((line + sign * changed)[..., None])] for sign in (1, -1))
    squared = [
        (((up - down).sum(axis=(1, 2, 3)) / (2 * half)) ** 2).mean() for up, down in zip(above, below, strict=True)
    ]
    expected = (squared[0] * 16 + squared[1] * 64) / 2
    penalty = float(gradient_penalty(judge, tf.constant(line[None, ..., None])))
    assert expected > 1e-4
    assert penalty == pytest.approx(expected, rel=0.02)


def test_characters_of_a_part_are_those_of_the_whole_batch() -> None:
    rng = np.random.default_rng(1)
    logits = tf.constant(rng.normal(0, 1, (2, 6, 3)), tf.float32)
    labels, lengths = tf.constant([[1, 2, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]), tf.constant([3, 1])
    seen = tf.ones((2, 6))
    whole = float(reading_loss(logits, labels, lengths, seen))
    parts = [
        float(reading_loss(logits[i : i + 1], labels[i : i + 1], lengths[i : i + 1], seen[i : i + 1], tf.constant(2.0)))
        for i in range(2)
    ]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-5)


def test_the_divergence_is_that_of_samples() -> None:
    rng = np.random.default_rng(1)
    mean, variance = 0.7, 0.5
    x = rng.normal(mean, variance**0.5, 200_000)
    sampled = np.mean(-0.5 * np.log(variance) - (x - mean) ** 2 / (2 * variance) + x**2 / 2)
    closed = float(divergence(np.array([[mean]], np.float32), np.log(np.array([[variance]], np.float32))))
    assert closed == pytest.approx(sampled, abs=0.01)


def test_an_endless_variance_is_held() -> None:
    mean, log_variance = split_style(np.array([[1.0, 2.0, -99.0, 99.0]], np.float32))
    assert np.asarray(mean).tolist() == [[1.0, 2.0]]
    assert np.asarray(log_variance).tolist() == [[-8.0, 4.0]]


def test_a_smooth_line_does_not_stand_for_a_rough_one() -> None:
    rng = np.random.default_rng(1)
    rough, other = (tf.constant(0.8 + rng.normal(0, 0.05, (1, 40, 64, 1)), tf.float32) for _ in range(2))
    smooth = tf.fill((1, 40, 64, 1), 0.8)
    assert float(grain_loss(rough, other)) < 0.1 * float(grain_loss(rough, smooth))
    assert float(likeness(rough, smooth)) < float(likeness(rough, smooth - 0.2))
