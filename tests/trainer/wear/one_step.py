"""Two steps of a tiny wear GAN on one or two logical devices, for a test; run in a process of its own.

python -m tests.trainer.wear.one_step OUT [--devices N]: writes all weights and losses after each step to OUT (.npz).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

from ocr_model.bundle import load_bundle
from tests.tiny_bundle import AB, drawn, tiny_bundle
from tests.trainer.wear.test_networks import TINY
from trainer.optimiser import AdamW
from trainer.strategy import Hardware, open_strategy
from trainer.wear.lines import CleanWindow, make_batch
from trainer.wear.step import LossWeights, Networks, Together, WearStep
from trainer.wear.training import reading_network

TEXTS = ("ab", "b", "abba", "a")  # a replica of two gets three characters, the other five


def batch(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    windows, real = [], []
    for text in TEXTS:
        ink = np.zeros((40, 128), np.float32)
        line = (255 - drawn(text).astype(np.float32)) / 255
        ink[:, : line.shape[1]] = line
        windows.append(CleanWindow(ink, text, 0, 32))
        real.append(np.clip(130 - 90 * ink + rng.normal(0, 6, ink.shape), 0, 255).astype(np.uint8))
    return make_batch(rng, windows, real, AB, TINY.style)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--devices", default=None)
    arguments = parser.parse_args()
    strategy = open_strategy(Hardware("mirrored" if arguments.devices else "default", devices=arguments.devices))
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)
    with strategy.scope():
        networks = Networks.build(TINY, reading_network(load_bundle(tiny_bundle(), "float32")))
        makes = AdamW(Together([networks.encoder, networks.generator]), 0.0, None, 0.5, 0.99)
        judges = AdamW(networks.discriminator, 0.0, None, 0.5, 0.99)
    # In each part, and so on each replica, the first half of the rows has drawn styles, the other one those of real
    # lines: rows 0 and 2 are the first halves of two replicas, so they come first on one.
    order = [0, 1, 2, 3] if arguments.devices else [0, 2, 1, 3]
    step = WearStep(strategy, networks, makes, judges, LossWeights(penalty_every=1), 5.0)
    found: dict[str, np.ndarray] = {}
    for number in range(2):
        values = {name: value[order] for name, value in batch(number).items()}
        outcome = step(values, (1e-3, 1e-3), 0.9, True, False)
        found |= {f"{number}/{name}": np.array(loss) for name, loss in outcome.losses.items()}
        found[f"{number}/norms"] = np.array(outcome.norms)
        for name in ("encoder", "generator", "discriminator"):
            for i, weights in enumerate(getattr(networks, name).get_weights()):
                found[f"{number}/{name}/{i}"] = np.asarray(weights)
    np.savez(arguments.output, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
