"""Figures of training: lines a second of the loop beside `model.fit`, and the share of time spent waiting for data.

python -m tests.figures.training --data DATA --text TEXT [--records RECORDS] [--steps 40] [--processes 1]

Both learn from the same batches with the same network, precision, loss, clipping and averaging, in turn, in one run.
Waiting is measured with rendering on the fly and, where records of `pagemill ingest` are given, with these alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.line_data import BatchStream, LineDataConfig
from trainer.loop import LoopConfig, Step
from trainer.losses import CtcLoss, ctc_losses
from trainer.optimiser import AdamW
from trainer.profile import Profile
from trainer.recogniser import RecogniserTraining, arrays, of_records

Arrays = dict[str, np.ndarray]


def a_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_recogniser(RecogniserConfig(DEFAULT_ALPHABET.classes))


def by_loop(batches: list[Arrays]) -> float:
    """Seconds of one pass with the loop's step, after a pass that traces."""
    model = a_model()
    step = Step(tf.distribute.get_strategy(), model, AdamW(model, 1e-2), CtcLoss(), LoopConfig(steps=1))
    for _ in range(2):
        began = time.monotonic()
        for batch in batches:
            step([batch], 1e-4, 0.99, 1.0, False)
    return time.monotonic() - began


def by_fit(batches: list[Arrays]) -> float:
    """Seconds of one pass with `model.fit`, after a pass that traces."""

    def loss(truth: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        truth = tf.cast(truth, tf.int32)
        lengths = tf.reduce_sum(tf.cast(truth > 0, tf.int32), axis=1)
        losses = ctc_losses(logits, truth, lengths, tf.fill([tf.shape(truth)[0]], tf.shape(truth)[1]), False)
        return losses / tf.cast(tf.reduce_mean(lengths), tf.float32)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            for batch in batches:
                yield batch["inputs"], batch["labels"]

    model = a_model()
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=1e-2, global_clipnorm=1.0, use_ema=True, ema_momentum=0.99)
    model.compile(optimizer, loss, jit_compile=False)
    for _ in range(2):
        began = time.monotonic()
        model.fit(pairs(), steps_per_epoch=len(batches), epochs=1, verbose=0)
    return time.monotonic() - began


def waiting_share(config: LineDataConfig, steps: int) -> tuple[float, float]:
    """Share of the time spent waiting for data, and lines a second, after `steps` steps to warm up."""
    training = RecogniserTraining(config)
    if config.records is not None:
        training = of_records(training, config.records)
    keras.utils.set_random_seed(1)
    model, profile = build_recogniser(training.network), Profile()
    step = Step(tf.distribute.get_strategy(), model, AdamW(model, 1e-2), CtcLoss(), LoopConfig(steps=1))
    stream = BatchStream(training.data, training.alphabet)
    try:
        batches = iter(stream)
        for number in range(2 * steps):
            if number == steps:
                profile.figures()
            with profile.waiting():
                batch = next(batches)
            with profile.step(number):
                step([arrays(batch)], 1e-4, 0.99, 1.0, False)
            profile.count(len(batch.images))
    finally:
        stream.close()
    figures = profile.figures()
    return figures["waiting"], figures["examples_per_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--records", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--precision", default="mixed_bfloat16")
    arguments = parser.parse_args()
    keras.mixed_precision.set_global_policy(arguments.precision)
    config = LineDataConfig(arguments.data, arguments.text, processes=arguments.processes)
    stream = BatchStream(config, DEFAULT_ALPHABET)
    try:
        batches = [arrays(batch) for batch in islice(stream, arguments.steps)]
    finally:
        stream.close()
    lines = sum(len(batch["inputs"]) for batch in batches)
    for name, seconds in (("loop", by_loop(batches)), ("model.fit", by_fit(batches)), ("loop again", by_loop(batches))):
        print(f"{name:<12}{lines / seconds:8.1f} lines/s", flush=True)
    kinds = {"rendered on the fly": config}
    if arguments.records is not None:
        kinds["records alone"] = replace(config, real=None, records=arguments.records, real_share=1.0)
    for name, kind in kinds.items():
        waiting, pace = waiting_share(kind, arguments.steps)
        print(f"{name}, {arguments.processes} processes: waiting {waiting:.1%}, {pace:.1f} lines/s", flush=True)


if __name__ == "__main__":
    main()
