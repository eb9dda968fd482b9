"""What the networks learn to make small: each loss is a function of sums over the lines or pixels of a batch.

A batch may lie on several devices. The sums are added up over all of them, and only then is the loss computed, so it
is that of the whole batch however it was divided (see `trainer.loop`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf

Batch = Mapping[str, Any]


class Loss(Protocol):
    """A loss that can be divided among devices. `weights` [B] float32 of a batch is 0 for what only fills it up."""

    def sums(self, outputs: Any, batch: Batch) -> tf.Tensor:
        """[K] float32, additive over the examples; the last is the size of the batch (characters, crops)."""
        ...

    def value(self, sums: tf.Tensor) -> tf.Tensor:
        """The loss, a scalar, of the sums over the whole batch."""
        ...

    def dropped(self, sums: Any) -> int:
        """Number of examples that counted nothing because nothing can be learnt from them."""
        ...


class _FromFields:
    """Keras's way of saving an object that is a frozen dataclass of plain values."""

    def get_config(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


# ---- lines

LEAST_LOGIT = 60.0  # e^-60 is 1e-26, which float32 still holds


@keras.saving.register_keras_serializable("pagemill")
@dataclass(frozen=True)
class CtcLoss(_FromFields):
    """Connectionist temporal classification (Graves et al. 2006), a character.

    A line that needs more time steps than it has counts nothing and is counted in the second of the sums; TensorFlow
    would give an error, an infinity or a wrong number for it.

    Attributes:
        dense: labels as a dense array, which has a static shape and so compiles for a TPU and under XLA; sparse
            labels are faster on CPUs and on GPUs.
        focal: gamma of Feng et al. 2019, "Focal CTC Loss for Chinese Optical Character Recognition on Unbalanced
            Datasets": a line weighs (1 - p)^gamma, where p is the probability of its text, here of one character in
            the geometric mean, so that long lines are not all hard. 0 is the plain loss.

    Of the batch: `labels` [B, longest] int32, padded with 0; `lengths` [B]; `steps` [B] int32; `weights` [B] float32.
    """

    dense: bool = False
    focal: float = 0.0

    def sums(self, outputs: Any, batch: Batch) -> tf.Tensor:
        fits = tf.cast(steps_needed(batch["labels"], batch["lengths"]) <= batch["steps"], tf.float32)
        losses = ctc_losses(outputs, batch["labels"], batch["lengths"], batch["steps"], self.dense)
        if self.focal:
            losses *= focal_weights(losses, batch["lengths"], self.focal)
        counted, length = fits * batch["weights"], tf.cast(batch["lengths"], tf.float32)
        dropped = (1 - fits) * batch["weights"]
        return tf.stack([tf.reduce_sum(x) for x in (losses * counted, dropped, length * counted)])

    def value(self, sums: tf.Tensor) -> tf.Tensor:
        return sums[0] / tf.maximum(1.0, sums[2])

    def dropped(self, sums: Any) -> int:
        return int(sums[1])


def steps_needed(labels: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """[B] int32 time steps that CTC needs at least: one a character, and a blank between repeats."""
    repeats = tf.cast((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != 0), tf.int32)
    return tf.cast(lengths, tf.int32) + tf.reduce_sum(repeats, axis=1)


def focal_weights(losses: tf.Tensor, lengths: tf.Tensor, gamma: float) -> tf.Tensor:
    """[B] float32 between 0 and 1: (1 - p)^gamma, p being the probability of a character of the line."""
    a_character = losses / tf.cast(tf.maximum(1, lengths), tf.float32)
    return tf.pow(tf.maximum(1e-6, 1.0 - tf.exp(-a_character)), gamma)


def ctc_losses(logits: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, steps: tf.Tensor, dense: bool) -> tf.Tensor:
    """[B] float32: minus the logarithm of the probability of each line's text; 0 for a text that cannot fit.

    Args:
        logits: [B, time, classes], class 0 is the blank.
        labels: [B, longest] int32, padded with 0; an empty text is the path of blanks.
        lengths, steps: [B] int32.
        dense: see `CtcLoss`.
    """
    logits = bounded(tf.cast(logits, tf.float32))
    usual = (lengths > 0) & (steps_needed(labels, lengths) <= steps)
    one = tf.one_hot(tf.zeros_like(lengths), tf.shape(labels)[1], dtype=labels.dtype)  # a text that always fits
    safe = tf.where(usual[:, None], labels, one)
    count = tf.where(usual, lengths, tf.ones_like(lengths))
    times = tf.maximum(1, steps)  # what fills up a batch has none
    if dense:
        losses = tf.nn.ctc_loss(safe, logits, count, times, logits_time_major=False, blank_index=0)
    else:
        sparse = tf.sparse.from_dense(safe)
        losses = tf.nn.ctc_loss(sparse, logits, None, times, logits_time_major=False, blank_index=0)
    counted = tf.sequence_mask(steps, tf.shape(logits)[1], tf.float32)
    blanks = -tf.reduce_sum(tf.nn.log_softmax(logits)[..., 0] * counted, axis=1)
    return tf.where(usual, losses, tf.where(lengths == 0, blanks, tf.zeros_like(blanks)))


def bounded(logits: tf.Tensor) -> tf.Tensor:
    """The logits with none more than `LEAST_LOGIT` below the largest of its step; gradients pass as they are.

    TensorFlow's loss of sparse labels goes through probabilities: below 1e-38 a path is impossible to it, and the
    loss infinite.

    Args:
        logits: [B, time, classes] float32.
    """
    least = tf.reduce_max(logits, axis=-1, keepdims=True) - LEAST_LOGIT
    return logits + tf.stop_gradient(tf.maximum(logits, least) - logits)


# ---- pages


@keras.saving.register_keras_serializable("pagemill")
@dataclass(frozen=True)
class FinderLoss(_FromFields):
    """Cross-entropy + Dice for core and ends, smooth L1 of the logarithm of the heights, cross-entropy of the turn.

    Attributes:
        ends, heights, orientation: weights of these parts, beside the core's 1.
    """

    ends: float = 0.7
    heights: float = 1.0
    orientation: float = 0.1

    def sums(self, outputs: Any, batch: Batch) -> tf.Tensor:
        maps = tf.cast(outputs["maps"], tf.float32)
        weights = tf.cast(batch["weights"], tf.float32)
        counted = tf.cast(batch["counted"], tf.float32) * weights[:, None, None]
        core = tf.cast(batch["core"], tf.float32)
        votes = tf.nn.sparse_softmax_cross_entropy_with_logits(
            batch["orientation"], tf.cast(outputs["orientation"], tf.float32)
        )
        return tf.concat(
            [
                marked_sums(maps[..., 0], core, counted),
                marked_sums(maps[..., 1], tf.cast(batch["ends"], tf.float32), counted),
                heights_sums(maps[..., 2:], tf.cast(batch["heights"], tf.float32), core * counted),
                [tf.reduce_sum(votes * tf.cast(batch["orientation_counted"], tf.float32) * weights)],
                [tf.reduce_sum(weights)],
            ],
            axis=0,
        )

    def value(self, sums: tf.Tensor) -> tf.Tensor:
        return (
            marked_loss(sums[0:5])
            + self.ends * marked_loss(sums[5:10])
            + self.heights * sums[10] / (sums[11] + 1.0)
            + self.orientation * sums[12] / tf.maximum(1.0, sums[13])
        )

    def dropped(self, sums: Any) -> int:
        return 0


def marked_sums(logits: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """[5] float32: cross-entropy, pixels that count, marked and true, marked, true.

    Args:
        logits, truth, counted: [B, h, w] float32; truth and counted are 0 or 1.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits) * counted
    marked, truth = tf.sigmoid(logits) * counted, truth * counted
    return tf.stack([tf.reduce_sum(x) for x in (entropy, counted, marked * truth, marked, truth)])


def marked_loss(sums: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy plus Dice (Milletari et al. 2016) over the pixels that count; see `marked_sums`."""
    dice = 1 - (2 * sums[2] + 1) / (sums[3] + sums[4] + 1)
    return 2 * sums[0] / (sums[1] + 1.0) + dice


def heights_sums(predicted: tf.Tensor, truth: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """[2] float32: smooth L1 of logarithms, so of the relative error, and pixels. [B, h, w, 2] and [B, h, w]."""
    difference = tf.abs(predicted - truth)
    smooth = tf.where(difference < 0.1, difference**2 / 0.2, difference - 0.05)
    return tf.stack([tf.reduce_sum(tf.reduce_sum(smooth, axis=-1) * where), tf.reduce_sum(where)])
