"""From trained weights to a bundle: SavedModels that serve without this code, read back and compared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import (
    CARD,
    FORMAT,
    NORMALISATION,
    VERSION,
    Bundle,
    differing_files,
    load_bundle,
    read_checksums,
    read_config,
    write_checksums,
)
from ocr_model.errors import BadInput, BadModel
from ocr_model.finder import FinderConfig, build_finder, readable
from ocr_model.language_model import FILE as LANGUAGE_MODEL
from ocr_model.language_model import LanguageModel
from ocr_model.layers import folded
from ocr_model.line_images import LINE_HEIGHT_PX
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from ocr_model.self_check import FOLDER as SELF_CHECK
from ocr_model.self_check import self_check, write_self_check
from trainer.card import SIZES_HEADING
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.lines import sample_lines
from trainer.synthesis.text import TextSource

Outputs = dict[str, tf.Tensor]
Grey = npt.NDArray[np.uint8]
CheckLines = Sequence[tuple[Grey, str]]

CHECK_LINES = 8
LATENCY_WIDTH_PX = 640


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
    best = tf.reduce_max(logits, axis=-1, keepdims=True)
    return {
        "classes": tf.argmax(logits, axis=-1, output_type=tf.int32),
        "confidences": 1 / tf.reduce_sum(tf.exp(logits - best), axis=-1),
    }


def line_outputs(logits: tf.Tensor) -> Outputs:
    """What the exported recogniser returns: `classes_and_confidences`, and the logits themselves as `scores`."""
    return {**classes_and_confidences(logits), "scores": logits}


def save_network(served: ServedNetwork, name: str, folder: Path) -> None:
    """Writes the SavedModel with the signatures `name` and `name_float32`."""
    signatures = {name: served.function("bfloat16"), f"{name}_float32": served.function("float32")}
    module = tf.Module()
    module.kept = served.kept
    tf.saved_model.save(module, str(folder), signatures=signatures)
    shutil.rmtree(folder / "assets", ignore_errors=True)
    (folder / "fingerprint.pb").unlink(missing_ok=True)


@dataclass(frozen=True)
class TrainedRecogniser:
    """Weights of a run, the network that they are of, and its alphabet."""

    weights: Path
    network: RecogniserConfig
    alphabet: Alphabet

    def served(self) -> ServedNetwork:
        spec = tf.TensorSpec((None, LINE_HEIGHT_PX, None, 1), tf.uint8, name="lines")

        def build() -> keras.Model:
            return build_recogniser(self.network, keras.config.dtype_policy().compute_dtype)

        return ServedNetwork(build, self.weights, line_outputs, spec)


@dataclass(frozen=True)
class TrainedFinder:
    """Weights of a run, and the network that they are of."""

    weights: Path
    network: FinderConfig

    def served(self) -> ServedNetwork:
        spec = tf.TensorSpec((1, None, None, 1), tf.uint8, name="page")
        return ServedNetwork(lambda: build_finder(self.network), self.weights, readable, spec)


def export_bundle(
    recogniser: TrainedRecogniser | Path,
    finder: TrainedFinder | Path,
    about: Mapping[str, Any],
    card: str,
    output: Path,
    check_lines: CheckLines | None = None,
    language_model: Path | None = None,
) -> None:
    """Writes a bundle beside `output`, loads it, compares it with the networks it came from, then moves it there.

    Args:
        recogniser, finder: what was trained, or a bundle whose network is taken as it is. A bundle's calibration goes
            with its recogniser.
        about: further values for config.json (training configuration, seeds).
        card: text of MODEL_CARD.md; sizes and latency are added to it.
        check_lines: strips with their texts for the self-check; None draws some.
        language_model: file of one that lines are decoded with; None takes that of the bundle that `recogniser` is.

    Raises:
        BadModel, BadInput: a folder is no bundle, is damaged, or does not tell the sizes of its recogniser.
        ValueError: what was written does not behave like what was trained.
    """
    for source in (recogniser, finder):
        if isinstance(source, Path):
            check_whole(source)
    with written_beside(output) as folder:
        reading = finding = None
        if isinstance(recogniser, TrainedRecogniser):
            reading = recogniser.served()
            save_network(reading, "read_lines", folder / "recogniser")
        else:
            shutil.copytree(recogniser / "recogniser", folder / "recogniser")
        if isinstance(finder, TrainedFinder):
            finding = finder.served()
            save_network(finding, "find_lines", folder / "finder")
        else:
            shutil.copytree(finder / "finder", folder / "finder")
        alphabet = write_descriptions(folder, recogniser, finder, about)
        add_language_model(folder, recogniser if language_model is None else language_model)
        exported = load_bundle(folder, "float32")
        if reading is not None:
            _compare_recogniser(exported, reading)
        if finding is not None:
            _compare_finder(exported, finding)
        seal(exported, card, check_lines or draw_check_lines(alphabet))


def add_language_model(folder: Path, source: TrainedRecogniser | Path) -> None:
    """Copies a language model, or that of a bundle if it has one, into a bundle that is being written.

    Raises:
        BadModel: the file is something else.
    """
    if isinstance(source, TrainedRecogniser):
        return
    file = source / LANGUAGE_MODEL if source.is_dir() else source
    if file.exists() or not source.is_dir():
        LanguageModel.load(file)
        shutil.copyfile(file, folder / LANGUAGE_MODEL)


def check_whole(bundle: Path) -> None:
    """
    Raises:
        BadModel: the folder is no bundle, or a file that decides what it reads differs from its checksum.
    """
    read_config(bundle)
    if read_checksums(bundle) and (
        wrong := [line for line in differing_files(bundle) if not line.startswith(CARD + " ")]
    ):
        raise BadModel(f"{bundle}: {', '.join(wrong)}", "take a complete bundle")


@contextmanager
def written_beside(output: Path) -> Iterator[Path]:
    """A new folder beside `output` that takes its place at the end; after an error `output` is what it was."""
    temporary = output.with_name(output.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(output, ignore_errors=True)
    temporary.replace(output)


def write_descriptions(
    folder: Path, recogniser: TrainedRecogniser | Path, finder: TrainedFinder | Path, about: Mapping[str, Any]
) -> Alphabet:
    """Writes alphabet.json and config.json; returns the alphabet."""
    calibration = None
    if isinstance(recogniser, Path):
        known = read_config(recogniser)
        calibration = known.get("calibration")
        recogniser = TrainedRecogniser(
            recogniser, recogniser_config(known), Alphabet.load(recogniser / "alphabet.json")
        )
    recogniser.alphabet.save(folder / "alphabet.json")
    config = {
        "format": FORMAT,
        "version": VERSION,
        "recogniser": {
            "classes": recogniser.network.classes,
            "line_height_px": LINE_HEIGHT_PX,
            "normalisation": NORMALISATION,
            "network": asdict(recogniser.network),
        },
        "finder": {"network": asdict(finder.network) if isinstance(finder, TrainedFinder) else _finder_sizes(finder)},
        "calibration": calibration,
        **about,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")
    return recogniser.alphabet


def _finder_sizes(bundle: Path) -> Any:
    """Sizes of a bundle's finder for the record; None where it does not tell them."""
    config = read_config(bundle)
    return (config.get("finder") or config.get("training", {}).get("finder") or {}).get("network")


def seal(exported: Bundle, card: str, check_lines: CheckLines) -> None:
    """Adds the self-check, the card with sizes and latency, and the checksums to a bundle that is otherwise complete.

    Args:
        exported: the bundle as it lies on disk, loaded in float32.

    Raises:
        ValueError: in the precision that this machine reads in it does not pass its own self-check.
    """
    folder = exported.path
    write_self_check(exported, check_lines, folder / SELF_CHECK)
    served = load_bundle(folder)
    problems = self_check(served, folder / SELF_CHECK)
    if problems:
        raise ValueError(f"{folder}: float32 and {served.precision} differ: {'; '.join(problems)}")
    (folder / CARD).write_text(f"{card.rstrip()}\n\n{size_and_latency(served)}", encoding="utf-8")
    write_checksums(folder)


def recogniser_config(config: Mapping[str, Any]) -> RecogniserConfig:
    """The sizes of a bundle's recogniser, from its config.json.

    Raises:
        BadInput: the configuration does not tell them.
    """
    training = config.get("training", {}).get("recogniser", {})
    sizes: Any = config["recogniser"].get("network") or training.get("network")
    try:
        return RecogniserConfig.from_json(sizes)
    except (KeyError, TypeError) as error:
        raise BadInput(
            "the bundle's config.json does not tell the sizes of its recogniser",
            "export it again with this version of Pagemill",
        ) from error


def draw_check_lines(alphabet: Alphabet, seed: int = 5) -> list[tuple[Grey, str]]:
    """Lines of text for a self-check, drawn with the renderer's fonts or, where none is installed, with OpenCV's."""
    try:
        fonts = FontCase(find_fonts())
    except BadInput:
        return plain_check_lines(alphabet, seed)
    rng, texts = np.random.default_rng(seed), TextSource.load(None)
    found: list[tuple[Grey, str]] = []
    if not alphabet.covers("aeinorst"):  # hardly a line that the renderer writes would fit
        return plain_check_lines(alphabet, seed)
    for _ in range(50 * CHECK_LINES):
        ((image, text),) = sample_lines(rng, texts, fonts, takes=1)
        if 8 <= len(text) <= 60 and alphabet.covers(text):
            found.append((image, text))
        if len(found) == CHECK_LINES:
            return found
    return plain_check_lines(alphabet, seed)


def plain_check_lines(alphabet: Alphabet, seed: int = 5) -> list[tuple[Grey, str]]:
    """Lines of characters of the alphabet, drawn by OpenCV; of a script that it cannot draw, strokes without text."""
    drawable = [c for c in alphabet.characters if c.isascii() and not c.isspace()]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(CHECK_LINES):
        text = "".join(rng.choice(drawable, 12)) if drawable else ""
        image = np.full((40, 320), 255, np.uint8)
        cv2.putText(image, text or "/-/-/-/-", (8, 29), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 0, 2, cv2.LINE_AA)
        found.append((image, text))
    return found


def size_and_latency(bundle: Bundle) -> str:
    """Section of the card: bytes of the parts, and the time for a line and a page on this machine."""
    lines = np.zeros((8, LINE_HEIGHT_PX, LATENCY_WIDTH_PX, 1), np.uint8)
    page = np.zeros((1, 1024, 768, 1), np.uint8)
    line_ms = 1000 / len(lines) * _seconds(lambda: bundle.read_lines(lines))
    page_ms = 1000 * _seconds(lambda: bundle.find_lines(page))
    weights = ", ".join(f"{part} {_bytes_of(bundle.path / part) / 1e6:.1f} MB" for part in ("finder", "recogniser"))
    return (
        f"{SIZES_HEADING}\n\n"
        f"{weights}. At export, in {bundle.precision} with all cores of that machine: {line_ms:.1f} ms to read a line "
        f"of {LATENCY_WIDTH_PX} px in a batch of {len(lines)}, {page_ms:.0f} ms to find the lines of a page of "
        "768 x 1024 px (best of five).\n"
        f"{_decoding(bundle)}"
    )


def _decoding(bundle: Bundle) -> str:
    """How lines are decoded, a paragraph; nothing where it is the best path."""
    model = bundle.language_model
    if model is None:
        return ""
    size = (bundle.path / LANGUAGE_MODEL).stat().st_size
    return (
        f"\nDoubtful stretches are decoded by beam search with a character language model (`{LANGUAGE_MODEL}`, "
        f"{size / 1e6:.1f} MB, {model.order}-grams, weight {model.weight:g}, bonus {model.bonus:g} a character), made "
        "by `python -m trainer.language_model`.\n"
    )


def _bytes_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _seconds(action: Callable[[], Any]) -> float:
    action()
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _compare_recogniser(exported: Bundle, reading: ServedNetwork) -> None:
    """Runs what was written and read back beside the trained network on noise."""
    lines = np.random.default_rng(1).integers(0, 256, (2, LINE_HEIGHT_PX, 128, 1), dtype=np.uint8)
    classes, _ = exported.read_lines(lines)
    expected = reading.function("float32")(tf.constant(lines))["classes"].numpy()
    if not np.array_equal(classes, expected):
        raise ValueError(f"{exported.path}: the exported recogniser does not read like the trained one")


def _compare_finder(exported: Bundle, finding: ServedNetwork) -> None:
    page = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 1), dtype=np.uint8)
    expected = finding.function("float32")(tf.constant(page))
    for name, value in exported.find_lines(page).items():
        if not np.allclose(value, expected[name].numpy(), atol=1e-3):
            raise ValueError(f"{exported.path}: the exported finder's {name} differ from the trained one's")
