"""Trains a tiny network on a fixed stream, for the tests of strategies; run in a process of its own.

python -m tests.trainer.curve NETWORK RUN [--strategy S] [--devices N] [--die-after N] [--as-trained]
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ocr_model.finder import FinderConfig, build_finder
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.finder_loss import FinderLoss
from trainer.line_data import make_batch
from trainer.loop import FedBatch, Learning, LoopConfig, Ways, train
from trainer.losses import CtcLoss
from trainer.recogniser import arrays
from trainer.strategy import Hardware

CLASSES = 4
LOOP = LoopConfig(steps=20, learning_rate=1e-3, warmup_steps=4, validate_every=20, checkpoint_every=5)


def without_dropout(model: keras.Model) -> keras.Model:
    """The masks of dropout depend on how the batch is divided; all else must not."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def lines(number: int) -> FedBatch:
    """Three lines: one replica of two gets a line and a filling."""
    rng = np.random.default_rng([3, number])
    width = 32 * (1 + number % 2)
    made = [
        (rng.integers(0, 256, (40, width), dtype=np.uint8), rng.integers(1, CLASSES, 3 + i).tolist()) for i in range(3)
    ]
    return FedBatch(arrays(make_batch(made)), [f"line {number}/{i}" for i in range(3)], number + 1)


def pages(number: int) -> FedBatch:
    rng = np.random.default_rng([4, number])
    maps = {name: rng.integers(0, 2, (3, 16, 16)).astype(np.float32) for name in ("core", "ends", "counted")}
    values = {
        "inputs": rng.integers(0, 256, (3, 32, 32, 1)).astype(np.float32),
        **maps,
        "heights": rng.standard_normal((3, 16, 16, 2)).astype(np.float32),
        "orientation": rng.integers(0, 4, 3).astype(np.int32),
        "orientation_counted": np.ones(3, np.float32),
    }
    return FedBatch(values, place=number + 1)


def learning(network: str, jit: bool = False, die_after: int = 0, dropout: bool = False) -> Learning:
    def batches(place: Any) -> Generator[FedBatch, None, None]:
        number = place or 0
        while True:
            if die_after and number == die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield lines(number) if network == "recogniser" else pages(number)
            number += 1

    def validate(model: keras.Model) -> dict[str, float]:
        return {"figure": 1.0}

    if network == "recogniser":
        config = RecogniserConfig(CLASSES, (2, 2, 2, 2), 4, 2)

        def build() -> keras.Model:
            return build_recogniser(config) if dropout else without_dropout(build_recogniser(config))

        return Learning(build, CtcLoss(dense=jit), batches, validate, "figure")
    return Learning(lambda: build_finder(FinderConfig((2, 3, 4, 5), (1, 2))), FinderLoss(), batches, validate, "figure")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("run", type=Path)
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--devices", default="")
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--as-trained", action="store_true", help="compiled, in bfloat16, with dropout, accumulating")
    arguments = parser.parse_args()
    real = arguments.as_trained
    ways = Ways(Hardware(arguments.strategy, arguments.devices), "mixed_bfloat16" if real else "float32")
    what = learning(arguments.network, real, arguments.die_after, real)
    train(what, replace(LOOP, jit=real, accumulate=2 if real else 1), arguments.run, ways)


if __name__ == "__main__":
    main()
