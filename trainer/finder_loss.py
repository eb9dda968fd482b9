"""What the line finder learns to make small, in `keras.ops` only, so that it is the same on every Keras backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import ops

Batch = Mapping[str, Any]


@keras.saving.register_keras_serializable("pagemill")
@dataclass(frozen=True)
class FinderLoss:
    """Cross-entropy + Dice for core and ends, smooth L1 of the logarithm of the heights, cross-entropy of the turn.

    Attributes:
        ends, heights, orientation: weights of these parts, beside the core's 1.
    """

    ends: float = 0.7
    heights: float = 1.0
    orientation: float = 0.1

    def sums(self, outputs: Any, batch: Batch) -> Any:
        """[14] float32, additive over the crops; the last is the number of crops."""
        maps = ops.cast(outputs["maps"], "float32")
        weights = ops.cast(batch["weights"], "float32")
        counted = ops.cast(batch["counted"], "float32") * weights[:, None, None]
        core = ops.cast(batch["core"], "float32")
        votes = ops.sparse_categorical_crossentropy(
            batch["orientation"], ops.cast(outputs["orientation"], "float32"), from_logits=True
        )
        turns = ops.sum(votes * ops.cast(batch["orientation_counted"], "float32") * weights)
        return ops.concatenate(
            [
                marked_sums(maps[..., 0], core, counted),
                marked_sums(maps[..., 1], ops.cast(batch["ends"], "float32"), counted),
                heights_sums(maps[..., 2:], ops.cast(batch["heights"], "float32"), core * counted),
                ops.stack([turns, ops.sum(weights)]),
            ],
            axis=0,
        )

    def value(self, sums: Any) -> Any:
        """The loss, a scalar, of the sums over the whole batch."""
        return (
            marked_loss(sums[0:5])
            + self.ends * marked_loss(sums[5:10])
            + self.heights * sums[10] / (sums[11] + 1.0)
            + self.orientation * sums[12] / ops.maximum(1.0, sums[13])
        )

    def dropped(self, sums: Any) -> int:
        """Every crop counts."""
        return 0

    def get_config(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FinderLoss:
        return cls(**config)


def marked_sums(logits: Any, truth: Any, counted: Any) -> Any:
    """[5] float32: cross-entropy, pixels that count, marked and true, marked, true.

    Args:
        logits, truth, counted: [B, h, w] float32; truth and counted are 0 or 1.
    """
    entropy = (ops.softplus(logits) - logits * truth) * counted
    marked, truth = ops.sigmoid(logits) * counted, truth * counted
    return ops.stack([ops.sum(x) for x in (entropy, counted, marked * truth, marked, truth)])


def marked_loss(sums: Any) -> Any:
    """Binary cross-entropy plus Dice (Milletari et al. 2016) over the pixels that count; see `marked_sums`."""
    dice = 1 - (2 * sums[2] + 1) / (sums[3] + sums[4] + 1)
    return 2 * sums[0] / (sums[1] + 1.0) + dice


def heights_sums(predicted: Any, truth: Any, where: Any) -> Any:
    """[2] float32: smooth L1 of logarithms, so of the relative error, and pixels. [B, h, w, 2] and [B, h, w]."""
    difference = ops.abs(predicted - truth)
    smooth = ops.where(difference < 0.1, difference**2 / 0.2, difference - 0.05)
    return ops.stack([ops.sum(ops.sum(smooth, axis=-1) * where), ops.sum(where)])
