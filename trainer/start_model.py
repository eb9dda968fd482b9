"""What fine-tuning starts from: the weights out of a bundle, its alphabet grown, and the proof that it is sound.

A bundle keeps its recogniser with standardised kernels folded in (`ocr_model.layers.folded`), in bfloat16. A kernel
that is standardised already is its own kernel; its gain is what its variance says. So a bundle is all that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import CHECKSUMS, Bundle, ReadLines, decoded, load_bundle, read_checksums
from ocr_model.errors import BadInput, BadModel
from ocr_model.language_model import LanguageModel
from ocr_model.layers import WeightStandardisedConv2D
from ocr_model.line_images import LINE_HEIGHT_PX
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from ocr_model.self_check import FOLDER as SELF_CHECK
from ocr_model.self_check import character_error_rate, read_line_images, self_check
from trainer.export import check_whole, line_outputs, recogniser_config

Grey = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
AlphabetRule = Literal["union", "new", "fail"]
ALPHABET_RULES: tuple[AlphabetRule, ...] = ("union", "new", "fail")

HEAD = "scores"  # the layer that gives a score to every class
_VARIANCE_FLOOR = 1e-4  # of `WeightStandardisedConv2D.standardised_kernel`
_NEW_CLASS_BIAS = -5.0  # below the mean of the known characters: a new one is never the best before it is learnt
_SAME_CER, _SAME_SHARE = 0.01, 0.1  # rounding turns a doubtful character over: more of them where much is wrong


# ---- alphabet


def alphabet_for(start: Alphabet, texts: Iterable[str], rule: AlphabetRule) -> Alphabet:
    """The alphabet that is trained.

    Args:
        rule: `union` appends the characters of the texts that are new, in the order of their code points; `new` holds
            the characters of the texts only, the known ones first; `fail` allows no new ones.

    >>> ab = Alphabet(" ab")
    >>> alphabet_for(ab, ["b d", "cd"], "union").characters, alphabet_for(ab, ["b d", "cd"], "new").characters
    (' abcd', ' bcd')

    Raises:
        BadInput: the rule is `fail`, and there are new characters; they are listed with their counts.
    """
    texts = list(texts)
    unknown = start.unknown(texts)
    if rule == "fail" and unknown:
        listed = ", ".join(f"{c!r} (U+{ord(c):04X}) {n} times" for c, n in unknown.most_common())
        raise BadInput(
            f"the start model does not know {len(unknown)} characters of these lines: {listed}",
            "correct the truth, or take --alphabet union",
        )
    used = set().union(*texts) | {" "}
    kept = start.characters if rule != "new" else "".join(c for c in start.characters if c in used)
    return Alphabet(kept + "".join(sorted((unknown.keys() | {" "}) - set(kept))))


def grown_head(kernel: Array, bias: Array, before: Alphabet, after: Alphabet) -> tuple[Array, Array]:
    """Weights of the last layer for another alphabet; classes of both keep theirs.

    A new class gets the mean of the known characters and a lower bias: its score is below their mean, thus below the
    best, whatever the line; and from there it is learnt.

    Args:
        kernel: [1, 1, features, classes] float32; bias: [classes] float32.
    """
    new_kernel = np.repeat(kernel[..., 1:].mean(axis=-1, keepdims=True), after.classes, axis=-1)
    new_bias = np.full(after.classes, bias[1:].mean() + _NEW_CLASS_BIAS, np.float32)
    old = [0] + [before.encode(c)[0] for c in after.characters if before.covers(c)]
    new = [0] + [after.encode(c)[0] for c in after.characters if before.covers(c)]
    new_kernel[..., new], new_bias[new] = kernel[..., old], bias[old]
    return new_kernel, new_bias


# ---- weights


def kept_weights(bundle: Path) -> list[Array]:
    """The recogniser's folded weights out of its SavedModel, float32, in the order of the network's layers.

    Raises:
        BadModel: the bundle does not hold them the way that export writes them.
    """
    try:
        reader = tf.train.load_checkpoint(str(bundle / "recogniser" / "variables" / "variables"))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith("kept/")]
        return [
            np.asarray(reader.get_tensor(f"kept/{i}/.ATTRIBUTES/VARIABLE_VALUE"), np.float32) for i in range(len(names))
        ]
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise BadModel(
            f"{bundle} keeps no weights that can be trained on: {error}", "take a complete bundle"
        ) from error


def unfolded(kernel: Array) -> tuple[Array, Array]:
    """Kernel and gain of a standardised convolution that gives the folded kernel.

    Args:
        kernel: [height, width, channels in, filters] float32 with mean 0 per filter.
    """
    fan_in = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    return kernel, np.sqrt(kernel.var(axis=(0, 1, 2)) * fan_in + _VARIANCE_FLOOR).astype(np.float32)


def network_of(
    weights: Sequence[Array], config: RecogniserConfig, before: Alphabet, after: Alphabet
) -> tuple[keras.Model, RecogniserConfig]:
    """The trainable network with a bundle's weights and an output layer for `after`.

    Args:
        weights: as `kept_weights` gives them; config: of the network that they are of.

    Raises:
        BadModel: the weights are not those of such a network.
    """
    grown = replace(config, classes=after.classes)
    model = build_recogniser(grown)
    layers = [layer for layer in model.layers if layer.weights]
    if len(weights) != 2 * len(layers):
        raise BadModel(
            f"the bundle has {len(weights)} weights, its network {2 * len(layers)}", "take a complete bundle"
        )
    for layer, kernel, bias in zip(layers, weights[::2], weights[1::2], strict=True):
        if layer.name == HEAD:
            if kernel.shape[-1] != before.classes:
                raise BadModel(
                    f"the recogniser has {kernel.shape[-1]} classes, the alphabet {before.classes}",
                    "take a complete bundle",
                )
            kernel, bias = grown_head(kernel, bias, before, after)
        if kernel.shape != tuple(layer.kernel.shape):
            raise BadModel(
                f"the bundle has a kernel of {kernel.shape}, its network one of {tuple(layer.kernel.shape)}",
                "take a complete bundle",
            )
        if isinstance(layer, WeightStandardisedConv2D):
            kernel, gain = unfolded(kernel)
            layer.gain.assign(gain)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    return model, grown


# ---- the start


@dataclass(frozen=True)
class Start:
    """What fine-tuning begins with.

    Attributes:
        bundle: the one that it comes from, loaded.
        model: the network with its weights, for `alphabet`.
        config: of the network.
        alphabet: that is trained.
        added: characters that the bundle did not know.
    """

    bundle: Bundle
    model: keras.Model
    config: RecogniserConfig
    alphabet: Alphabet
    added: str


def sound_bundle(path: Path | None, precision: str = "auto") -> Bundle:
    """A bundle that is what was exported and still reads as it did then; None is the default one.

    Raises:
        BadModel: a file differs from its digest; the alphabet does not fit; it takes other line images; it has no
            self-check, or does not pass it. The message names which.
    """
    bundle = load_bundle(path, precision)
    if not read_checksums(bundle.path):
        raise BadModel(f"{bundle.path} has no {CHECKSUMS}", "export it again: pagemill export --help tells how")
    check_whole(bundle.path)
    problems = self_check(bundle, bundle.path / SELF_CHECK)
    if problems:
        raise BadModel(
            f"{bundle.path} does not behave as it did at export: {'; '.join(problems)}", "take another bundle"
        )
    return bundle


def start_from(bundle: Bundle, texts: Iterable[str], rule: AlphabetRule) -> Start:
    """The trainable network of a bundle, under Keras's present precision.

    Raises:
        BadInput: new characters, and the rule is `fail`.
        BadModel: the bundle's weights do not fit its configuration.
    """
    alphabet = alphabet_for(bundle.alphabet, texts, rule)
    config = recogniser_config(bundle.config)
    model, grown = network_of(kept_weights(bundle.path), config, bundle.alphabet, alphabet)
    added = "".join(c for c in alphabet.characters if not bundle.alphabet.covers(c))
    return Start(bundle, model, grown, alphabet, added)


def as_bundle(start: Start) -> Bundle:
    """The network in training, read through the same code as the bundle: same preparation, batches and decoding."""
    known = start.bundle.language_model
    language_model = None if known is None else known.speaking(start.alphabet)
    read_lines = reading_of(start.model, language_model)
    return replace(start.bundle, alphabet=start.alphabet, read_lines=read_lines, language_model=language_model)


def reading_of(model: keras.Model, language_model: LanguageModel | None = None) -> ReadLines:
    """`Bundle.read_lines` of a network, without calibration; it follows the network's weights."""

    @tf.function(input_signature=[tf.TensorSpec((None, LINE_HEIGHT_PX, None, 1), tf.uint8)])
    def read(lines: tf.Tensor) -> dict[str, Any]:
        return line_outputs(model(lines, training=False))

    return decoded(lambda lines: read(tf.constant(lines)), language_model, lambda confidences: confidences)


def check_same_reading(start: Start, lines: Sequence[tuple[Grey, str]]) -> None:
    """
    Args:
        start: with an alphabet that holds all that the bundle knows.
        lines: strips with their texts.

    Raises:
        BadModel: the network does not read the lines as well or as badly as the bundle that it was made of.
    """
    strips, texts = [strip for strip, _ in lines], [text for _, text in lines]
    read = [[r.text for r in read_line_images(bundle, strips)] for bundle in (start.bundle, as_bundle(start))]
    expected, cer = (character_error_rate(texts, readings) for readings in read)
    if abs(cer - expected) > _SAME_CER + _SAME_SHARE * expected:
        raise BadModel(
            f"{start.bundle.path} reads these lines with a CER of {expected:.4f}, its weights in the trainer do with "
            f"{cer:.4f}",
            "take a complete bundle",
        )
