"""From trained weights to a bundle: SavedModels that serve without this code, read back and compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import FORMAT, VERSION, load_bundle
from ocr_model.finder import FinderConfig, build_finder, readable
from ocr_model.layers import folded
from ocr_model.line_images import LINE_HEIGHT_PX
from ocr_model.recogniser import RecogniserConfig, build_recogniser

Outputs = dict[str, tf.Tensor]


class ServedNetwork(tf.Module):
    """A network with weights kept in bfloat16 and two signatures, one that computes in bfloat16 and one in float32.

    The forward pass of training rounds its kernels to bfloat16 too, so nothing is lost by keeping them so.
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        weights: Path,
        outputs: Callable[[Any], Outputs],
        spec: tf.TensorSpec,
    ) -> None:
        super().__init__()
        self.networks = {dtype: _built(build, weights, policy) for dtype, policy in POLICIES.items()}
        self.kept = [
            tf.Variable(tf.cast(w, tf.bfloat16), trainable=False)
            for w in _arrays(self.networks["float32"].trainable_variables)
        ]
        self.outputs, self.spec = outputs, spec

    def function(self, dtype: str) -> Any:
        """The concrete function of one precision."""
        network = self.networks[dtype]
        state = [tf.constant(a) for a in _arrays(network.non_trainable_variables)]  # of dropout; unused in serving

        def serve(inputs: tf.Tensor) -> Outputs:
            weights = [tf.cast(w, tf.float32) for w in self.kept]
            outputs, _ = network.stateless_call(weights, state, inputs, training=False)
            return self.outputs(outputs)

        return tf.function(serve, input_signature=[self.spec]).get_concrete_function()


POLICIES = {"bfloat16": "mixed_bfloat16", "float32": "float32"}


def _built(build: Callable[[], keras.Model], weights: Path, policy: str) -> keras.Model:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        network = build()
        network.load_weights(weights)
        return folded(network)
    finally:
        keras.mixed_precision.set_global_policy(before)


def _arrays(variables: Sequence[Any]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in variables]


def classes_and_confidences(logits: tf.Tensor) -> Outputs:
    """What `read_lines` returns for logits [batch, time, classes]: the best class of each step and its probability."""
    best = tf.reduce_max(logits, axis=-1)
    return {
        "classes": tf.argmax(logits, axis=-1, output_type=tf.int32),
        "confidences": tf.exp(best - tf.reduce_logsumexp(logits, axis=-1)),
    }


def save_network(served: ServedNetwork, name: str, folder: Path) -> None:
    """Writes the SavedModel with the signatures `name` and `name_float32`."""
    signatures = {name: served.function("bfloat16"), f"{name}_float32": served.function("float32")}
    module = tf.Module()
    module.kept = served.kept
    tf.saved_model.save(module, str(folder), signatures=signatures)
    shutil.rmtree(folder / "assets", ignore_errors=True)
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def export_bundle(
    recogniser_weights: Path,
    recogniser: RecogniserConfig,
    finder_weights: Path,
    finder: FinderConfig,
    alphabet: Alphabet,
    about: Mapping[str, Any],
    card: str,
    output: Path,
) -> None:
    """Writes a bundle beside `output`, loads it, compares it with the networks it came from, then moves it there.

    Args:
        about: further values for config.json (training configuration, seeds).
        card: text of MODEL_CARD.md.

    Raises:
        ValueError: what was written does not behave like what was trained.
    """
    temporary = output.with_name(output.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    line_spec = tf.TensorSpec((None, LINE_HEIGHT_PX, None, 1), tf.uint8, name="lines")
    page_spec = tf.TensorSpec((1, None, None, 1), tf.uint8, name="page")
    reading = ServedNetwork(
        lambda: build_recogniser(recogniser), recogniser_weights, classes_and_confidences, line_spec
    )
    finding = ServedNetwork(lambda: build_finder(finder), finder_weights, readable, page_spec)
    save_network(reading, "read_lines", temporary / "recogniser")
    save_network(finding, "find_lines", temporary / "finder")
    alphabet.save(temporary / "alphabet.json")
    config = {"format": FORMAT, "version": VERSION, "recogniser": {"classes": recogniser.classes}, **about}
    (temporary / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")
    (temporary / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    _compare(temporary, reading, finding)
    shutil.rmtree(output, ignore_errors=True)
    temporary.replace(output)


def _compare(folder: Path, reading: ServedNetwork, finding: ServedNetwork) -> None:
    """Loads what was written and runs it beside the trained networks on noise."""
    bundle = load_bundle(folder, "float32")
    rng = np.random.default_rng(1)
    lines = rng.integers(0, 256, (2, LINE_HEIGHT_PX, 128, 1), dtype=np.uint8)
    page = rng.integers(0, 256, (1, 64, 96, 1), dtype=np.uint8)
    classes, _ = bundle.read_lines(lines)
    expected = reading.function("float32")(tf.constant(lines))["classes"].numpy()
    if not np.array_equal(classes, expected):
        raise ValueError(f"{folder}: the exported recogniser does not read like the trained one")
    expected_maps = finding.function("float32")(tf.constant(page))
    for name, value in bundle.find_lines(page).items():
        if not np.allclose(value, expected_maps[name].numpy(), atol=1e-3):
            raise ValueError(f"{folder}: the exported finder's {name} differ from the trained one's")
