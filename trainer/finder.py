"""Trains the line finder: data, model, loss, loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr_model.document import Box
from ocr_model.examples import is_validation
from ocr_model.finder import FinderConfig, build_finder, maps_function
from ocr_model.layout import LineFinder
from trainer.finder_samples import SampleConfig, batches, samples
from trainer.loop import Batch, LoopConfig, RunFolder, train
from trainer.page_truth import TruePage, load_pages

PREPARED_AREA_PX = 1.5e6


@dataclass(frozen=True)
class FinderTrainingConfig:
    """One run.

    Attributes:
        batch: crops in a step.
        validation_share: of the real documents.
        ends_weight, heights_weight, orientation_weight: of the parts of the loss, beside the core's 1.
        policy: keras dtype policy of training; the weights are float32 in any case.
        initial_weights: a `.weights.h5` to go on from.
    """

    network: FinderConfig = field(default_factory=FinderConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2600, warmup_steps=200, ema=0.995, validate_every=250)
    )
    batch: int = 4
    validation_share: float = 0.1
    ends_weight: float = 0.7
    heights_weight: float = 1.0
    orientation_weight: float = 0.1
    policy: str = "mixed_bfloat16"
    initial_weights: Path | None = None


def finder_loss(config: FinderTrainingConfig) -> Callable[[Any, Batch], tf.Tensor]:
    """Cross-entropy + Dice for core and ends, smooth L1 of the logarithm of the heights, cross-entropy of the turn."""

    def loss(outputs: Any, batch: Batch) -> tf.Tensor:
        maps = tf.cast(outputs["maps"], tf.float32)
        counted = tf.cast(batch["counted"], tf.float32)
        core = tf.cast(batch["core"], tf.float32)
        value = marked_loss(maps[..., 0], core, counted)
        value += config.ends_weight * marked_loss(maps[..., 1], tf.cast(batch["ends"], tf.float32), counted)
        value += config.heights_weight * heights_loss(
            maps[..., 2:], tf.cast(batch["heights"], tf.float32), core * counted
        )
        votes = tf.nn.sparse_softmax_cross_entropy_with_logits(
            batch["orientation"], tf.cast(outputs["orientation"], tf.float32)
        )
        return value + config.orientation_weight * tf.reduce_mean(votes * batch["orientation_counted"])

    return loss


def marked_loss(logits: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy plus Dice (Milletari et al. 2016) over the pixels that count.

    Args:
        logits, truth, counted: [B, h, w] float32; truth and counted are 0 or 1.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits) * counted
    mean = tf.reduce_sum(entropy) / (tf.reduce_sum(counted) + 1.0)
    marked = tf.sigmoid(logits) * counted
    truth = truth * counted
    dice = 1 - (2 * tf.reduce_sum(marked * truth) + 1) / (tf.reduce_sum(marked) + tf.reduce_sum(truth) + 1)
    return 2 * mean + dice


def heights_loss(predicted: tf.Tensor, truth: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Smooth L1 of logarithms, so of the relative error, where there is a line. [B, h, w, 2] and [B, h, w]."""
    difference = tf.abs(predicted - truth)
    smooth = tf.where(difference < 0.1, difference**2 / 0.2, difference - 0.05)
    return tf.reduce_sum(tf.reduce_sum(smooth, axis=-1) * where) / (tf.reduce_sum(where) + 1.0)


def line_box(line: Any) -> Box:
    """The upright box around baseline, ascender and descender of a true line."""
    points = np.asarray(line.baseline)
    above, below = points - np.array([0, line.ascender]), points + np.array([0, line.descender])
    return Box.around(map(tuple, np.concatenate([above, below]).tolist()))


def matched(found: Sequence[Box], truth: Sequence[Box], iou: float = 0.5) -> int:
    """Number of pairs of boxes, each used once, best overlap first."""
    pairs = sorted(((f.iou(t), i, j) for i, f in enumerate(found) for j, t in enumerate(truth)), reverse=True)
    used_found: set[int] = set()
    used_truth: set[int] = set()
    for value, i, j in pairs:
        if value < iou:
            break
        if i not in used_found and j not in used_truth:
            used_found.add(i)
            used_truth.add(j)
    return len(used_found)


def validation(pages: Sequence[TruePage]) -> Callable[[keras.Model], dict[str, float]]:
    """Detection of lines on whole pages: `hmean` of precision and recall at IoU 0.5, and `miss` = 1 - hmean."""

    def validate(model: keras.Model) -> dict[str, float]:
        finder = LineFinder(maps_function(model))
        hits = found_count = truth_count = upright = 0
        for page in pages:
            found = finder.find(page.image)
            upright += found.quarter_turns == 0
            boxes = [line.box for line in found.lines()]
            truth = [line_box(line) for line in page.lines]
            hits += matched(boxes, truth)
            found_count += len(boxes)
            truth_count += len(truth)
        hmean = 2 * hits / max(1, found_count + truth_count)
        return {
            "miss": 1 - hmean,
            "hmean": hmean,
            "recall": hits / max(1, truth_count),
            "precision": hits / max(1, found_count),
            "upright": upright / max(1, len(pages)),
        }

    return validate


def train_finder(config: FinderTrainingConfig, data: Path, texts: Path | None, output: Path) -> keras.Model:
    """Trains the finder and leaves its checkpoints in `output`.

    Args:
        data: folder with `meta.json` and `SOURCE/pages`, see `trainer.page_truth.load_pages`.
        texts: folder of `.txt` files for the synthetic pages.

    Returns:
        The model with the best averaged weights.
    """
    keras.utils.set_random_seed(config.loop.seed)
    keras.config.set_dtype_policy(config.policy)
    pages = load_pages(data, PREPARED_AREA_PX)
    held_out = [page for page in pages if is_validation(page.document, config.validation_share)]
    learnt = [page for page in pages if not is_validation(page.document, config.validation_share)]
    model = build_finder(config.network)
    if config.initial_weights:
        model.load_weights(config.initial_weights)
    stream = batches(samples(learnt, texts, config.samples), config.batch)
    about = {**asdict(config), "pages": len(learnt), "validation_pages": len(held_out)}
    train(model, finder_loss(config), stream, validation(held_out), "miss", config.loop, RunFolder(output), about)
    return model
