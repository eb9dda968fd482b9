"""Training of the line recogniser: data, model, loss, loop."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.bundle import read_config
from ocr_model.ctc import greedy, text_of
from ocr_model.errors import BadModel
from ocr_model.layers import WeightStandardisedConv2D
from ocr_model.line_features import FEATURES, LineFeatures
from ocr_model.line_images import STRIDE_PX, bucket_width, normalise_line_image
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from ocr_model.record_files import MANIFEST, load_manifest
from trainer.confusions import Confusions, confusions, confusions_as_json
from trainer.export import recogniser_config
from trainer.line_data import BatchStream, LineBatch, LineDataConfig, make_batch, validation_lines
from trainer.loop import FedBatch, Learning, LoopConfig, Ways, train
from trainer.losses import CtcLoss
from trainer.metrics import CharacterErrors
from trainer.start_model import kept_weights, network_of


@dataclass(frozen=True)
class RecogniserTraining:
    """All that decides a training run of the recogniser.

    Attributes:
        precision: Keras dtype policy of training; the weights are float32 in any case.
        focal: gamma of the focal CTC loss, see `trainer.losses.CtcLoss`; 0 is the plain one.
        alphabet: whose characters are the classes of the network.
    """

    data: LineDataConfig
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=8_000))
    network: RecogniserConfig = field(default_factory=lambda: RecogniserConfig(DEFAULT_ALPHABET.classes))
    precision: str = "mixed_bfloat16"
    focal: float = 0.0
    alphabet: Alphabet = field(default_factory=lambda: DEFAULT_ALPHABET)


def of_records(config: RecogniserTraining, records: Path) -> RecogniserTraining:
    """The configuration with the records of `pagemill ingest` as real lines, their alphabet and their buckets.

    Records without features (`ingest --no-transform`) leave alphabet and buckets as they are.

    Raises:
        BadInput, BadModel: they cannot be used.
    """
    load_manifest(records)
    data = replace(config.data, real=None, records=records)
    if not (records / FEATURES).exists():
        return replace(config, data=data)
    features = LineFeatures.load(records)
    network = replace(config.network, classes=features.alphabet.classes)
    data = replace(data, bounds=features.bounds)
    return replace(config, data=data, network=network, alphabet=features.alphabet)


def arrays(batch: LineBatch) -> dict[str, np.ndarray]:
    """A batch as the step takes it, its shapes a function of bucket and number of lines alone.

    A line's steps reach to the end of its bucket: the padding is read as paper. No text that fits has more characters
    than steps, so the labels are padded to the number of steps; what is longer is dropped by the loss and counted.
    """
    count, _, width = batch.images.shape
    steps = width // STRIDE_PX
    labels = np.zeros((count, steps), np.int32)
    longest = min(steps, batch.labels.shape[1])
    labels[:, :longest] = batch.labels[:, :longest]
    return {
        "inputs": batch.images[..., None],
        "labels": labels,
        "lengths": batch.lengths.astype(np.int32),
        "steps": np.full(count, steps, np.int32),
    }


def fed(stream: BatchStream) -> Generator[FedBatch, None, None]:
    """The batches of a stream of lines; closes it when nobody takes any more."""
    try:
        for batch in stream:
            yield FedBatch(arrays(batch), batch.examples, batch.place, batch.dropped)
    finally:
        stream.close()


class Validation:
    """CER of the held-out lines, by group and as the mean of the real and the rendered ones."""

    def __init__(self, lines: list[tuple[np.ndarray, str, str]], alphabet: Alphabet) -> None:
        self.alphabet = alphabet
        self.confusions = Confusions()
        prepared = [(normalise_line_image(image), text, group) for image, text, group in lines]
        prepared.sort(key=lambda line: line[0].shape[1])
        self.batches: list[tuple[LineBatch, list[str], list[str]]] = []
        by_bucket: dict[int, list[Any]] = {}
        for line in prepared:
            by_bucket.setdefault(bucket_width(line[0].shape[1]), []).append(line)
        for bucket in by_bucket.values():
            for i in range(0, len(bucket), 16):
                part = bucket[i : i + 16]
                batch = make_batch([(image, []) for image, _, _ in part])
                self.batches.append((batch, [text for _, text, _ in part], [group for _, _, group in part]))

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """`cer` is the mean of `cer_real` and `cer_rendered` (or the one that there is); a figure a group beside."""
        errors: dict[str, CharacterErrors] = {}
        pairs: list[tuple[str, str]] = []
        predict = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        for batch, texts, groups in self.batches:
            for read, text, group in zip(self._read(predict, batch), texts, groups, strict=True):
                pairs.append((text, read))
                for name in (group, "real") if group != "rendered" else (group,):
                    errors[name] = errors.get(name, CharacterErrors()) + CharacterErrors.of(text, read)
        figures = {f"cer_{name}": errors[name].rate for name in sorted(errors)}
        self.confusions = confusions(pairs)
        overall = [figures[k] for k in ("cer_real", "cer_rendered") if k in figures]
        return {"cer": float(np.mean(overall)), **figures}

    def findings(self) -> dict[str, Any]:
        """The confusions of the last validation, as `confusions_from_json` takes them."""
        return {"confusions": confusions_as_json(self.confusions)}

    def _read(self, predict: Any, batch: LineBatch) -> list[str]:
        probabilities = tf.nn.softmax(tf.cast(predict(tf.constant(batch.images[..., None])), tf.float32)).numpy()
        return [text_of(greedy(row.argmax(1), row.max(1), self.alphabet)) for row in probabilities]

    def pictures(self, model: keras.Model, count: int = 6) -> list[tuple[str, np.ndarray]]:
        """Lines spread over the buckets, [72, width] uint8, with what was read (above) and the truth (below)."""
        chosen = self.batches[:: max(1, len(self.batches) // count)][:count]
        found = []
        for number, (batch, texts, groups) in enumerate(chosen):
            one = replace(batch, images=batch.images[:1])
            (read,) = self._read(lambda x: model(x, training=False), one)
            found.append((f"line {number} {groups[0]}", captioned(255 - batch.images[0], read, texts[0])))
        return found


def captioned(line: np.ndarray, above: str, below: str) -> np.ndarray:
    """A line image [H, W] uint8 between two texts, [H + 32, max(W, 240)] uint8; what the font lacks is shown as ?."""
    height, width = line.shape
    picture = np.full((height + 32, max(width, 240)), 255, np.uint8)
    picture[16 : 16 + height, :width] = line
    for text, y in ((above, 12), (below, height + 28)):
        plain = text.encode("ascii", "replace").decode()
        cv2.putText(picture, plain, (2, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1, cv2.LINE_AA)
    return picture


def record_digests(data: LineDataConfig) -> dict[str, str]:
    """SHA-256 of the manifest of each folder of records: a run does not go on with other records than it began with.

    Raises:
        BadInput: a folder holds no records that can be used.
    """
    folders = [folder for folder in (data.records, *(folder for folder, _ in data.mixed)) if folder is not None]
    for folder in folders:
        load_manifest(folder)
    return {str(folder): hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest() for folder in folders}


def continued(bundle: Path, config: RecogniserConfig, alphabet: Alphabet = DEFAULT_ALPHABET) -> keras.Model:
    """The network of a bundle, ready to be trained on.

    Standardised kernels are scaled to the size that training begins with. That changes nothing of what the network
    reads; but how far a step of the optimiser turns a kernel depends on its size, and folded ones are small.

    Raises:
        BadModel: the bundle has another network or no weights that can be trained on.
    """
    before = Alphabet.load(bundle / "alphabet.json")
    if replace(recogniser_config(read_config(bundle)), classes=config.classes) != config:
        raise BadModel(f"{bundle} has another network", "train from the beginning, or train the bundle's network")
    model, _ = network_of(kept_weights(bundle), config, before, alphabet)
    for layer in model.layers:
        if isinstance(layer, WeightStandardisedConv2D):
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            fans = kernel[..., 0].size + kernel[:, :, 0].size
            layer.kernel.assign(kernel * (np.sqrt(2 / fans) / kernel.std()))
    return model


def train_recogniser(
    config: RecogniserTraining, output: Path, start: Path | None = None, ways: Ways = Ways()
) -> dict[str, float]:
    """Trains, or goes on with the run in `output`; see `trainer.run_folder.RunFolder` for what it leaves there.

    Args:
        start: weights of an earlier run of the same network to begin from, or a bundle that has such a network.
        ways: how it is done; the precision is the configuration's.

    Returns:
        The best validation figures.

    Raises:
        BadInput: no real lines, texts or fonts where the configuration names some.
        PagemillError: as `trainer.loop.train`.
    """

    def build() -> keras.Model:
        if start is not None and start.is_dir():
            return continued(start, config.network, config.alphabet)
        model = build_recogniser(config.network)
        if start is not None:
            model.load_weights(start)
        return model

    validate = Validation(validation_lines(config.data), config.alphabet)
    learning = Learning(
        build,
        CtcLoss(dense=config.loop.jit or ways.hardware.strategy == "tpu", focal=config.focal),
        lambda place: fed(BatchStream(config.data, config.alphabet, place)),
        validate,
        "cer",
        {
            "data": asdict(config.data),
            "network": asdict(config.network),
            "focal": config.focal,
            "alphabet": config.alphabet.characters,
            "records": record_digests(config.data),
        },
        validate.findings,
        validate.pictures,
    )
    return train(learning, config.loop, output, replace(ways, precision=config.precision))
