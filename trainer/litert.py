"""A bundle's recogniser as a LiteRT (TensorFlow Lite) file, for machines without TensorFlow, and what it costs in CER.

Only the weights are made smaller: half precision, or 8 bits with the range measured at run time. The network computes
in float32 and takes and gives what `Bundle.read_lines` does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ocr_model.bundle import Bundle, load_bundle
from ocr_model.layers import folded
from ocr_model.line_images import LINE_HEIGHT_PX
from ocr_model.self_check import character_error_rate, read_line_images
from trainer.collection import as_cut, load_folder
from trainer.export import classes_and_confidences, recogniser_config
from trainer.start_model import kept_weights, network_of

Grey = npt.NDArray[np.uint8]
Weights = Literal["float16", "int8"]


def convert(bundle: Path, weights: Weights) -> bytes:
    """The recogniser's LiteRT file.

    Raises:
        BadModel: the folder is no bundle.
    """
    loaded = load_bundle(bundle, "float32")
    config = recogniser_config(loaded.config)
    network = folded(network_of(kept_weights(bundle), config, loaded.alphabet, loaded.alphabet)[0])
    # Constants: LiteRT's variables are empty until a signature of their own has filled them.
    trained, state = (
        [tf.constant(keras.ops.convert_to_numpy(v)) for v in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    )

    @tf.function(input_signature=[tf.TensorSpec((None, LINE_HEIGHT_PX, None, 1), tf.uint8, name="lines")])
    def read_lines(lines: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, _ = network.stateless_call(trained, state, lines, training=False)
        return classes_and_confidences(logits)

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures={"read_lines": read_lines.get_concrete_function()})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["read_lines"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


def reading_of(content: bytes) -> Callable[[Grey], tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
    """`Bundle.read_lines` by LiteRT's interpreter, with one thread."""
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    run = interpreter.get_signature_runner("read_lines")

    def read_lines(lines: Grey) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        found: dict[str, Any] = run(lines=lines)
        return found["classes"], found["confidences"]

    return read_lines


@dataclass(frozen=True)
class Comparison:
    """CER of the bundle and of the file on the same lines, and milliseconds a line."""

    lines: int
    cer: float
    converted_cer: float
    ms: float
    converted_ms: float

    def text(self) -> str:
        return (
            f"on {self.lines} lines: CER {100 * self.cer:.2f} % as a bundle ({self.ms:.1f} ms a line), "
            f"{100 * self.converted_cer:.2f} % in LiteRT ({self.converted_ms:.1f} ms a line, one thread), "
            f"difference {100 * (self.converted_cer - self.cer):+.2f} points"
        )


def compare(bundle: Path, content: bytes, folder: Path) -> Comparison:
    """What the conversion costs, on line images with truth (see `trainer.collection.load_folder`).

    Raises:
        BadInput: there are no such lines.
    """
    loaded = load_bundle(bundle, "float32", "greedy")  # the model that is converted has no language model
    found = load_folder(folder, 0.5)
    lines = (*found.training, *found.validation)
    results = []
    for reader in (loaded, replace(loaded, read_lines=reading_of(content))):
        results.append(_measured(reader, [as_cut(line) for line in lines], [line.text for line in lines]))
    (cer, ms), (converted_cer, converted_ms) = results
    return Comparison(len(lines), cer, converted_cer, ms, converted_ms)


def _measured(reader: Bundle, strips: list[Grey], texts: list[str]) -> tuple[float, float]:
    began = time.perf_counter()
    read = [reading.text for reading in read_line_images(reader, strips)]
    return character_error_rate(texts, read), 1000 * (time.perf_counter() - began) / len(strips)
