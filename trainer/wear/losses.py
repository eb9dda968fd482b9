"""The parts of the wear GAN's losses, each a mean over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ocr_model.line_images import MIN_CONTRAST
from trainer.losses import ctc_losses

_SURE = 20.0  # logit of the blank where nothing is to be read


def discriminator_loss(real: Sequence[Any], worn: Sequence[Any]) -> Any:
    """Logistic loss over the patches of all sizes (Goodfellow et al. 2014). Scores [B, h, w, 1], high is real."""
    parts = [ops.mean(ops.softplus(-r)) + ops.mean(ops.softplus(w)) for r, w in zip(real, worn, strict=True)]
    return sum(parts) / len(parts)


def fooling_loss(worn: Sequence[Any]) -> Any:
    """The generator's side of it, in the form that does not saturate."""
    return sum(ops.mean(ops.softplus(-w)) for w in worn) / len(worn)


def gradient_penalty(discriminator: keras.Model, real: tf.Tensor) -> tf.Tensor:
    """R1 of Mescheder et al. 2018, "Which training methods for GANs do actually converge?", a patch.

    The squared norm of a patch's gradient by the pixels of a real line; as patches hardly overlap, it is taken of
    their sum at once.
    """
    total = 0.0
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(real)
        scores = [tf.reduce_sum(s) for s in discriminator(real, training=True)]
    for score, patches in zip(scores, (4 * 4, 8 * 8), strict=True):
        slope = tf.cast(tape.gradient(score, real), tf.float32)
        total += tf.reduce_mean(tf.reduce_mean(slope**2, axis=(1, 2, 3))) * patches
    return total / len(scores)


def divergence(mean: Any, log_variance: Any) -> Any:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, 1), a dimension. Both [B, Z] float32.

    >>> float(divergence(ops.zeros((2, 3)), ops.zeros((2, 3)))), float(divergence(ops.ones((1, 1)), ops.zeros((1, 1))))
    (0.0, 0.5)
    """
    return 0.5 * ops.mean(mean**2 + ops.exp(log_variance) - 1 - log_variance)


def split_style(encoded: Any) -> tuple[Any, Any]:
    """Mean and logarithm of the variance, [B, Z] each, out of what the encoder gives."""
    mean, log_variance = ops.split(encoded, 2, axis=-1)
    return mean, ops.clip(log_variance, -8.0, 4.0)


def as_read(grey: tf.Tensor) -> tf.Tensor:
    """What `normalise_line_image` makes of grey lines, so that a gradient passes through: 0 paper to 1 ink.

    Paper and ink are the line's 90th and 1st percentile, constants to the gradient. White print on a dark ground,
    which a worn line is not, is not turned over.

    Args:
        grey: [B, H, W, 1] float32, 0 black to 1 white.
    """
    pixels = tf.shape(grey)[1] * tf.shape(grey)[2]
    ordered = tf.sort(tf.stop_gradient(tf.reshape(grey, (-1, pixels))), axis=-1)
    count = tf.cast(pixels, tf.float32)
    paper, ink = (tf.gather(ordered, tf.cast(share * count, tf.int32), axis=1) for share in (0.90, 0.01))
    contrast = tf.maximum(MIN_CONTRAST / 255, paper - ink)
    return tf.clip_by_value((paper[:, None, None, None] - grey) / contrast[:, None, None, None], 0.0, 1.0)


def only_seen(logits: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Logits [B, T, classes] that say "nothing" with certainty in the time steps where `seen` [B, T] is 0."""
    logits = tf.cast(logits, tf.float32)
    nothing = _SURE * tf.one_hot(0, logits.shape[-1])
    return tf.where(seen[..., None] > 0, logits, nothing)


def reading_loss(
    logits: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, seen: tf.Tensor, characters: tf.Tensor | None = None
) -> tf.Tensor:
    """The recogniser's CTC loss a character, over the words that stand whole in their windows.

    Args:
        logits: [B, T, classes]; labels: [B, T] int32; lengths: [B] int32; seen: [B, T] float32.
        characters: to divide by, where these are a part of a batch: those of a part of average length.
    """
    steps = tf.fill(tf.shape(lengths), tf.shape(logits)[1])
    losses = ctc_losses(only_seen(logits, seen), labels, lengths, steps, dense=False)
    read = tf.cast(lengths > 0, tf.float32)
    if characters is None:
        characters = tf.reduce_sum(tf.cast(lengths, tf.float32))
    return tf.reduce_sum(losses * read) / tf.maximum(1.0, characters)


def likeness(real: tf.Tensor, again: tf.Tensor) -> tf.Tensor:
    """How far a real line is from what was made of its own ink and style: mean absolute error, of blurred lines too.

    The blurred ones weigh tone and stains; grain that differs from place to place costs less there.
    """
    loss = tf.reduce_mean(tf.abs(real - again))
    for size in (4, 8):
        real_small, again_small = (tf.nn.avg_pool2d(x, size, size, "VALID") for x in (real, again))
        loss += tf.reduce_mean(tf.abs(real_small - again_small))
    return loss


def grain(grey: tf.Tensor) -> tf.Tensor:
    """[B, 2] float32: how rough a line is, mean absolute differences of neighbours in both directions."""
    differences = (grey[:, 1:] - grey[:, :-1], grey[:, :, 1:] - grey[:, :, :-1])
    return tf.stack([tf.reduce_mean(tf.abs(d), axis=(1, 2, 3)) for d in differences], axis=-1)


def grain_loss(real: tf.Tensor, again: tf.Tensor) -> tf.Tensor:
    """Mean difference of `grain`: a smooth line must not stand for a rough one."""
    return tf.reduce_mean(tf.abs(grain(real) - grain(again)))
