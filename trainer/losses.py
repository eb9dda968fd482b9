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


LEAST_LOGIT = 60.0  # e^-60 is 1e-26, which float32 still holds


@keras.saving.register_keras_serializable("pagemill")
@dataclass(frozen=True)
class CtcLoss:
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

    def get_config(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CtcLoss:
        return cls(**config)


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
