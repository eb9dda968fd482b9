"""A cleaner of pages: a denoising autoencoder that learns to take the damage off rendered lines.

Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders", as a U-Net with skips
(Ronneberger et al. 2015). It learns in `trainer.loop` from pairs of (damaged, clean) and is off by default: it is on
where it lowers the CER, which `python -m tests.figures.cleaner` measures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from ocr_model.errors import BadArgument, BadModel
from ocr_model.layers import WeightStandardisedConv2D
from trainer.export import written_beside
from trainer.loop import FedBatch, Learning, LoopConfig, Ways, train
from trainer.losses import Batch
from trainer.synthesis.damage import apply_damage, displaced, draw_damage, shift_of
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.lines import cut, draw_line
from trainer.synthesis.text import TextSource
from trainer.wear.networks import Folded, Unfolded

Grey = npt.NDArray[np.uint8]
Rng = np.random.Generator

MULTIPLE_PX = 8
FORMAT, VERSION = "pagemill-cleaner", 1
_TILE_ROWS = 1024  # a page is cleaned in bands of so many rows,
_OVERLAP_PX = 64  # each with these around it, more than a pixel's result depends on


@dataclass(frozen=True)
class CleanerNetwork:
    """Channels at a half, a quarter and an eighth of the size."""

    channels: tuple[int, int, int] = (24, 40, 64)


@dataclass(frozen=True)
class CleanerData:
    """Pairs to learn from.

    Attributes:
        text: folder of texts for the rendered lines; None takes the built-in word list.
        batch: windows in a step; height_px, width_px: of a window.
        undamaged: share of windows that come clean, and must be left alone.
        seed: of everything drawn.
    """

    text: Path | None = None
    batch: int = 12
    height_px: int = 64
    width_px: int = 256
    undamaged: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class CleanerTraining:
    """All that decides a run."""

    data: CleanerData = field(default_factory=CleanerData)
    network: CleanerNetwork = field(default_factory=CleanerNetwork)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=3000, validate_every=500))
    precision: str = "mixed_bfloat16"

    def __post_init__(self) -> None:
        if self.data.height_px % MULTIPLE_PX or self.data.width_px % MULTIPLE_PX:
            raise BadArgument(
                f"windows of {self.data.width_px} x {self.data.height_px} px", f"multiples of {MULTIPLE_PX} px"
            )


def build_cleaner(config: CleanerNetwork) -> keras.Model:
    """The network.

    Input: [B, H, W, 1] uint8, 0 black to 255 white, height and width multiples of 8.
    Output: [B, H, W, 1] float32 logits of paper: their sigmoid is the clean page, 0 black to 1 white.
    """

    def convolution(x: Any, filters: int, strides: int = 1, gain: float = 1.414) -> Any:
        return WeightStandardisedConv2D(
            filters, 3, strides=strides, padding="same", activation="relu" if gain > 1 else None, initial_gain=gain
        )(x)

    half, quarter, eighth = config.channels
    page = keras.Input((None, None, 1), dtype="uint8", name="page")
    grey = layers.Rescaling(1 / 255)(page)
    x = first = convolution(Folded()(grey), half)  # [B, H/2, W/2, C]
    x = second = convolution(convolution(x, quarter, 2), quarter)  # [B, H/4, W/4, C]
    x = convolution(convolution(x, eighth, 2), eighth)  # [B, H/8, W/8, C]
    for filters, skip in ((quarter, second), (half, first)):
        x = layers.UpSampling2D(2)(convolution(x, filters, gain=1.0))
        x = convolution(layers.Concatenate()([x, skip]), filters)
    begin = keras.initializers.RandomNormal(stddev=0.01)
    more = Unfolded()(layers.Conv2D(4, 3, padding="same", kernel_initializer=begin)(x))  # [B, H, W, 1]
    # It begins with the page as it is, and learns what to change.
    return keras.Model(page, layers.Add(dtype="float32")([layers.Rescaling(8.0, -4.0)(grey), more]), name="cleaner")


@dataclass(frozen=True)
class CleaningLoss:
    """Cross-entropy of the pixels with the clean page, ink weighing more than paper, of which there is more.

    Of the batch: `clean` [B, H, W, 1] float32, 0 black to 1 white; `weights` [B].
    """

    ink: float = 3.0

    def sums(self, outputs: Any, batch: Batch) -> tf.Tensor:
        clean = tf.cast(batch["clean"], tf.float32)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(clean, tf.cast(outputs, tf.float32))
        counted = (1 + (self.ink - 1) * (1 - clean)) * batch["weights"][:, None, None, None]
        return tf.stack([tf.reduce_sum(entropy * counted), tf.reduce_sum(counted)])

    def value(self, sums: tf.Tensor) -> tf.Tensor:
        return sums[0] / tf.maximum(1.0, sums[1])

    def dropped(self, sums: Any) -> int:
        return 0


def draw_pair(rng: Rng, texts: TextSource, fonts: FontCase, data: CleanerData) -> tuple[Grey, Grey]:
    """A damaged window and the same clean, [height, width] uint8; what the damage moves is moved in both."""
    parameters = draw_line(rng, texts, fonts)
    ink = cut(parameters).ink
    height, width = data.height_px, data.width_px
    start = int(rng.integers(max(1, ink.shape[1] - width + 1)))
    ink = ink[:, start : start + width]
    top = int(rng.integers(abs(height - ink.shape[0]) + 1))
    window = np.zeros((height, width), np.float32)
    if ink.shape[0] <= height:
        window[top : top + ink.shape[0], : ink.shape[1]] = ink
    else:
        window[:, : ink.shape[1]] = ink[top : top + height]
    damage = replace(draw_damage(rng, parameters.size_px / 40), inverted=False)
    moved = displaced(window, shift_of(damage, width))
    clean = np.asarray(255 - np.round(255 * np.clip(moved, 0, 1)), np.uint8)
    return (clean if rng.random() < data.undamaged else apply_damage(window, damage)), clean


def pair_batches(
    data: CleanerData, texts: TextSource, fonts: FontCase, place: Mapping[str, int] | None = None
) -> Generator[FedBatch, None, None]:
    """Endless batches; all follows from the seed and the place."""
    number = place["number"] if place else 0
    while True:
        rng = np.random.default_rng([data.seed, 23, number])
        pairs = [draw_pair(rng, texts, fonts, data) for _ in range(data.batch)]
        number += 1
        yield FedBatch(_arrays(pairs), (), {"number": number})


def _arrays(pairs: list[tuple[Grey, Grey]]) -> dict[str, np.ndarray]:
    return {
        "inputs": np.stack([damaged for damaged, _ in pairs])[..., None],
        "clean": np.stack([clean for _, clean in pairs])[..., None].astype(np.float32) / 255,
    }


class CleaningCheck:
    """Mean absolute error of cleaned windows, in grey levels, beside that of the damaged ones."""

    def __init__(self, data: CleanerData, texts: TextSource, fonts: FontCase, count: int = 96) -> None:
        rng = np.random.default_rng([data.seed, 999_983])
        self.pairs = [draw_pair(rng, texts, fonts, replace(data, undamaged=0.0)) for _ in range(count)]

    def __call__(self, model: keras.Model) -> dict[str, float]:
        batch = _arrays(self.pairs)
        errors = []
        for i in range(0, len(self.pairs), 16):
            made = tf.sigmoid(model(batch["inputs"][i : i + 16], training=False)).numpy()
            errors.append(np.abs(made - batch["clean"][i : i + 16]).mean(axis=(1, 2, 3)))
        damaged = np.abs(batch["inputs"] / 255 - batch["clean"]).mean()
        return {"error": float(255 * np.concatenate(errors).mean()), "error_damaged": float(255 * damaged)}

    def pictures(self, model: keras.Model, count: int = 6) -> list[tuple[str, np.ndarray]]:
        """Damaged above cleaned above clean, [3 H, W] uint8."""
        batch = _arrays(self.pairs[:count])
        made = tf.sigmoid(model(batch["inputs"], training=False)).numpy()
        cleaned = np.asarray(np.round(255 * made[..., 0]), np.uint8)
        return [
            (f"window {i}", np.concatenate([damaged, cleaned[i], clean]))
            for i, (damaged, clean) in enumerate(self.pairs[:count])
        ]


def train_cleaner(config: CleanerTraining, output: Path, ways: Ways = Ways()) -> dict[str, float]:
    """Trains, or goes on with the run in `output`, and leaves the best network in `output/exported`.

    Raises:
        BadInput: no fonts or texts; `output` holds another run.
        PagemillError: as `trainer.loop.train`.
    """
    texts, fonts = TextSource.load(config.data.text), FontCase(find_fonts())
    check = CleaningCheck(config.data, texts, fonts)
    learning = Learning(
        build=lambda: build_cleaner(config.network),
        loss=CleaningLoss(),
        batches=lambda place: pair_batches(config.data, texts, fonts, place),
        validate=check,
        minimise="error",
        about={"data": asdict(config.data), "network": asdict(config.network)},
        pictures=check.pictures,
    )
    best = train(learning, config.loop, output, replace(ways, precision=config.precision))
    export_cleaner(config.network, output / "best.weights.h5", best, output / "exported")
    return best


# ---- use


def export_cleaner(network: CleanerNetwork, weights: Path, figures: Mapping[str, float], output: Path) -> None:
    """Writes a SavedModel in float32 with cleaner.json, reads it back and compares.

    Raises:
        ValueError: what was written does not clean like what was trained.
    """
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        model = build_cleaner(network)
    finally:
        keras.mixed_precision.set_global_policy(before)
    model.load_weights(weights)
    module = tf.Module()
    module.kept = [v.value for v in model.variables]
    spec = tf.TensorSpec((None, None, None, 1), tf.uint8, name="page")

    def clean(page: tf.Tensor) -> dict[str, tf.Tensor]:
        paper = tf.sigmoid(model(page, training=False))
        return {"clean": tf.cast(tf.round(255 * paper), tf.uint8)}

    with written_beside(output) as folder:
        signature = tf.function(clean, input_signature=[spec]).get_concrete_function()
        tf.saved_model.save(module, str(folder / "network"), signatures={"clean": signature})
        shutil.rmtree(folder / "network" / "assets", ignore_errors=True)
        value = {"format": FORMAT, "version": VERSION, "network": asdict(network), "figures": dict(figures)}
        (folder / "cleaner.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        page = np.random.default_rng(1).integers(0, 256, (48, 96), dtype=np.uint8)
        expected = np.round(255 * tf.sigmoid(model(page[None, ..., None], training=False)).numpy()[0, ..., 0])
        apart = float(np.abs(Cleaner.load(folder).cleaned(page) - expected).max())
        if apart > 1:
            raise ValueError(f"the exported cleaner differs from the trained one by {apart:.0f} grey levels")


@dataclass(frozen=True)
class Cleaner:
    """Takes damage off pages and lines: `Reader.read([cleaner.cleaned(page)])`."""

    about: dict[str, Any]
    network: Any

    @classmethod
    def load(cls, folder: Path) -> Cleaner:
        """
        Raises:
            BadModel: the folder holds no exported cleaner.
        """
        try:
            about = json.loads((folder / "cleaner.json").read_text(encoding="utf-8"))
            if about["format"] != FORMAT or about["version"] != VERSION:
                raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
            network = tf.saved_model.load(str(folder / "network"))
            if "clean" not in network.signatures:
                raise ValueError("no signature clean")
        except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise BadModel(
                f"{folder} is no exported cleaner: {error}", "name RUN/exported of a run of `pagemill train cleaner`"
            ) from error
        return cls(about, network)

    def cleaned(self, page: Grey) -> Grey:
        """The page without its damage, [height, width] uint8 like the page. Memory is that of a band of it.

        Args:
            page: [height, width] uint8, 0 black, dark print on light paper, at least one pixel.
        """
        height, width = page.shape
        padded = cv2.copyMakeBorder(page, 0, -height % MULTIPLE_PX, 0, -width % MULTIPLE_PX, cv2.BORDER_REPLICATE)
        bands = []
        for top in range(0, padded.shape[0], _TILE_ROWS):
            begin, end = max(0, top - _OVERLAP_PX), min(padded.shape[0], top + _TILE_ROWS + _OVERLAP_PX)
            band = tf.constant(padded[None, begin:end, :, None])
            made = self.network.signatures["clean"](page=band)["clean"].numpy()[0, ..., 0]
            bands.append(made[top - begin : top - begin + _TILE_ROWS])
        return np.asarray(np.concatenate(bands)[:height, :width], np.uint8)
