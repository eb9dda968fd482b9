"""Training of the line recogniser: data, model, loss, loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rapidfuzz.distance import Levenshtein

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.ctc import greedy, text_of
from ocr_model.line_images import bucket_width, normalise_line_image
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.line_data import BatchStream, LineBatch, LineDataConfig, make_batch, validation_lines
from trainer.loop import Batch, LoopConfig, RunFolder, train


@dataclass(frozen=True)
class RecogniserTraining:
    """All that decides a training run of the recogniser."""

    data: LineDataConfig
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=8_000))
    network: RecogniserConfig = field(default_factory=lambda: RecogniserConfig(DEFAULT_ALPHABET.classes))
    precision: str = "mixed_bfloat16"


def ctc_loss(logits: tf.Tensor, batch: Batch) -> tf.Tensor:
    """CTC loss a character: the sum over the lines divided by their number of characters.

    Sparse labels, which is the fast path on CPUs.

    Args:
        logits: [batch, time, classes] float32.
        batch: `labels` [batch, longest] int32, `lengths` [batch] int32, `steps` [batch] int32 (time steps).
    """
    labels = tf.sparse.from_dense(batch["labels"])
    losses = tf.nn.ctc_loss(labels, logits, None, batch["steps"], logits_time_major=False, blank_index=0)
    return tf.reduce_sum(losses) / tf.cast(tf.maximum(1, tf.reduce_sum(batch["lengths"])), tf.float32)


def to_tensors(batch: LineBatch) -> dict[str, tf.Tensor]:
    """A batch as the step takes it. A line's steps reach to the end of its bucket: the padding is read as paper."""
    count, _, width = batch.images.shape
    return {
        "inputs": tf.constant(batch.images[..., None]),
        "labels": tf.constant(batch.labels),
        "lengths": tf.constant(batch.lengths),
        "steps": tf.fill([count], width // 4),
    }


class Validation:
    """CER of the held-out lines, by group and as the mean of the real and the rendered ones."""

    def __init__(self, lines: list[tuple[np.ndarray, str, str]], alphabet: Alphabet) -> None:
        self.alphabet = alphabet
        prepared = [(normalise_line_image(image), text, group) for image, text, group in lines]
        prepared.sort(key=lambda line: line[0].shape[1])
        self.batches: list[tuple[LineBatch, list[str], list[str]]] = []
        by_bucket: dict[int, list[Any]] = {}
        for line in prepared:
            by_bucket.setdefault(bucket_width(line[0].shape[1]), []).append(line)
        for bucket in by_bucket.values():
            for i in range(0, len(bucket), 16):
                part = bucket[i : i + 16]
                batch = make_batch([(image, alphabet.encode(text)) for image, text, _ in part])
                self.batches.append((batch, [text for _, text, _ in part], [group for _, _, group in part]))

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """`cer` is the mean of `cer_real` and `cer_rendered` (or the one that there is); a figure a group beside."""
        edits: dict[str, int] = {}
        sizes: dict[str, int] = {}
        predict = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        for batch, texts, groups in self.batches:
            probabilities = tf.nn.softmax(predict(tf.constant(batch.images[..., None]))).numpy()
            for row, text, group in zip(probabilities, texts, groups, strict=True):
                read = text_of(greedy(row.argmax(1), row.max(1), self.alphabet))
                for name in (group, "real") if group != "rendered" else (group,):
                    edits[name] = edits.get(name, 0) + Levenshtein.distance(text, read)
                    sizes[name] = sizes.get(name, 0) + len(text)
        figures = {f"cer_{name}": edits[name] / sizes[name] for name in sorted(edits)}
        overall = [figures[k] for k in ("cer_real", "cer_rendered") if k in figures]
        return {"cer": float(np.mean(overall)), **figures}


def train_recogniser(config: RecogniserTraining, output: Path, start: Path | None = None) -> dict[str, float]:
    """Trains and leaves `best.weights.h5` (averaged weights), `config.json` and `metrics.jsonl` in the run folder.

    Args:
        start: weights of an earlier run of the same network to begin from.

    Returns:
        The best validation figures.

    Raises:
        BadInput: no real lines, texts or fonts where the configuration names some.
    """
    keras.utils.set_random_seed(config.loop.seed)
    keras.mixed_precision.set_global_policy(config.precision)
    model = build_recogniser(config.network)
    if start is not None:
        model.load_weights(start)
    validate = Validation(validation_lines(config.data), DEFAULT_ALPHABET)
    stream = BatchStream(config.data, DEFAULT_ALPHABET)

    def batches() -> Iterator[Batch]:
        for batch in stream:
            yield to_tensors(batch)

    about = {"data": asdict(config.data), "network": asdict(config.network), "precision": config.precision}
    try:
        return train(model, ctc_loss, batches(), validate, "cer", config.loop, RunFolder(output), about)
    finally:
        stream.close()
