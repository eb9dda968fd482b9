"""Figures of sizes of the recogniser: parameters, CPU time a line, and CER after the same short training.

python -m tests.figures.recogniser_variants [--data DATA --text TEXT --steps 800 --output RUNS] [--variant NAME …]

Without --steps nothing is trained and the column of the CER is empty. Every variant learns from the same batches; the
CER is that of the held-out real lines. One thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.layers import folded
from ocr_model.line_images import LINE_HEIGHT_PX
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.line_data import LineDataConfig
from trainer.loop import LoopConfig
from trainer.recogniser import RecogniserTraining, train_recogniser

WIDTH_PX, BATCH, REPEATS = 640, 16, 25
SHIPPED = RecogniserConfig(DEFAULT_ALPHABET.classes)
VARIANTS = {
    "shipped: 12 blocks of 256, width 3, narrow stem": SHIPPED,
    "6 blocks": replace(SHIPPED, trunk_blocks=6),
    "9 blocks": replace(SHIPPED, trunk_blocks=9),
    "9 blocks, medium stem (32, 64, 80, 128)": replace(SHIPPED, trunk_blocks=9, stem_filters=(32, 64, 80, 128)),
    "15 blocks, medium stem": replace(SHIPPED, trunk_blocks=15, stem_filters=(32, 64, 80, 128)),
    "192 channels": replace(SHIPPED, trunk_filters=192),
    "320 channels": replace(SHIPPED, trunk_filters=320),
    "width 5": replace(SHIPPED, trunk_width=5),
    "wide stem": replace(SHIPPED, stem_filters=(48, 96, 128, 192)),
}


@dataclass(frozen=True)
class Cost:
    """Parameters in millions; CPU milliseconds a line of 640 px in batches of 16, the least of 25."""

    parameters_m: float
    ms: float


def cost_of(config: RecogniserConfig) -> Cost:
    """Of the network as it is served: kernels folded, bfloat16, weights as constants."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network = folded(build_recogniser(config))
    weights = [tf.constant(v.numpy()) for v in network.trainable_variables]
    state = [tf.constant(v.numpy()) for v in network.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((BATCH, LINE_HEIGHT_PX, WIDTH_PX, 1), tf.uint8)])
    def run(lines: tf.Tensor) -> tf.Tensor:
        return network.stateless_call(weights, state, lines, training=False)[0]

    lines = tf.constant(np.random.default_rng(1).integers(0, 256, run.input_signature[0].shape, dtype=np.uint8))
    run(lines)
    taken = []
    for _ in range(REPEATS):
        began = time.process_time()
        run(lines)
        taken.append(time.process_time() - began)
    return Cost(sum(int(tf.size(w)) for w in weights) / 1e6, 1000 * min(taken) / BATCH)


def cer_after(config: RecogniserConfig, arguments: argparse.Namespace, output: Path) -> float:
    """CER of the held-out real lines after a short training, in percent."""
    data = LineDataConfig(arguments.data, arguments.text)
    loop = LoopConfig(steps=arguments.steps, validate_every=arguments.steps)
    figures = train_recogniser(RecogniserTraining(data, loop=loop, network=config), output)
    return 100 * figures["cer_real"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/variants"))
    parser.add_argument("--variant", action="append", choices=VARIANTS, metavar="NAME")
    arguments = parser.parse_args()
    if arguments.steps and arguments.data is None:
        parser.error("--steps needs --data")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    print("| variant | parameters, million | CPU ms a line | CER % of held-out lines |\n|---|---|---|---|")
    for number, name in enumerate(arguments.variant or VARIANTS):
        cost = cost_of(VARIANTS[name])
        trained = arguments.steps > 0
        cer = f"{cer_after(VARIANTS[name], arguments, arguments.output / str(number)):.2f}" if trained else ""
        print(f"| {name} | {cost.parameters_m:.2f} | {cost.ms:.2f} | {cer} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
