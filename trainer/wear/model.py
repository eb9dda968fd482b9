"""Wear as a thing to use: the exported networks with the styles of the collections that they learnt from.

wear.json     format, version, sizes, the figures of the run
networks/     SavedModel with the signatures `encode` and `wear`; it needs none of this code
styles.npz    of each collection the styles of its lines, [lines, Z] float32
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr_model.bundle import Bundle
from ocr_model.errors import BadArgument, BadInput, BadModel
from ocr_model.line_images import LINE_HEIGHT_PX, bucket_width
from ocr_model.self_check import read_line_images
from trainer.export import written_beside
from trainer.metrics import CharacterErrors
from trainer.wear.lines import Array, CleanLine, Grey, RealStrip, Rng, load_strips, noise_for
from trainer.wear.losses import split_style
from trainer.wear.metrics import LEGIBLE_CER
from trainer.wear.networks import NOISE_MAPS, WearNetworks, build_encoder, build_generator
from trainer.wear.sheets import as_grey

FORMAT, VERSION = "pagemill-wear", 1
STYLES_KEPT = 200  # of a collection
_ENCODED_WIDTHS_PX = (64, 1600)


@dataclass(frozen=True)
class Wear:
    """Puts clean lines into worn looks.

    Attributes:
        about: wear.json.
        styles: collection → [lines, Z] float32.
        networks: the SavedModel; kept, as its functions live as long as it does.
    """

    about: dict[str, Any]
    styles: dict[str, Array]
    networks: Any

    @classmethod
    def load(cls, folder: Path) -> Wear:
        """
        Raises:
            BadModel: the folder holds no exported wear, or one of a version that this code does not know.
        """
        try:
            about = json.loads((folder / "wear.json").read_text(encoding="utf-8"))
            if about["format"] != FORMAT or about["version"] != VERSION:
                raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
            with np.load(folder / "styles.npz") as file:
                styles = {name: np.asarray(file[name], np.float32) for name in file.files}
            networks = tf.saved_model.load(str(folder / "networks"))
            missing = {"encode", "wear"} - set(networks.signatures)
            if missing:
                raise ValueError(f"no signature {', '.join(sorted(missing))}")
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, tf.errors.OpError) as error:
            raise BadModel(
                f"{folder} is no exported wear: {error}", "name RUN/exported of a run of `pagemill train wear`"
            ) from error
        return cls(about, styles, networks)

    @property
    def style_size(self) -> int:
        return int(self.about["networks"]["style"])

    def styles_of(self, strips: Sequence[RealStrip]) -> Array:
        """The styles of real lines, [lines, Z] float32. Each is a function of its line alone."""
        low, high = _ENCODED_WIDTHS_PX
        encode, found = self.networks.signatures["encode"], []
        for strip in strips:
            pixels = strip.pixels[:, :high]
            if pixels.shape[1] < low:
                pixels = np.pad(
                    pixels, ((0, 0), (0, low - pixels.shape[1])), "reflect" if pixels.shape[1] > 1 else "edge"
                )
            found.append(encode(grey=tf.constant(pixels[None, ..., None]))["mean"].numpy()[0])
        return np.stack(found) if found else np.zeros((0, self.style_size), np.float32)

    def bank(self, collection: str | None = None, exclude: Sequence[str] = ()) -> Array:
        """Styles to draw from, [styles, Z] float32.

        Styles of real lines fill but a part of the normal distribution that they are held to; what is drawn from the
        rest of it looks like no real line.

        Args:
            collection: the name of one that was learnt from, or a folder of real lines or pages, which may be new; None
                takes all that was learnt from.

        Raises:
            BadInput: neither of these.
        """
        if collection is None:
            return np.concatenate([self.styles[name] for name in sorted(self.styles)])
        if collection in self.styles:
            return self.styles[collection]
        folder = Path(collection)
        if not folder.is_dir():
            raise BadInput(
                f"no collection {collection}",
                f"name a folder of its lines or pages, or one that was learnt from: {', '.join(sorted(self.styles))}",
            )
        return self.styles_of(load_strips(folder, exclude, STYLES_KEPT))

    def drawn_style(self, rng: Rng, bank: Array) -> Array:
        """[Z] float32: one style of a bank with a step of up to a quarter towards another one."""
        one, other = bank[int(rng.integers(len(bank)))], bank[int(rng.integers(len(bank)))]
        return np.asarray(one + np.float32(0.25 * rng.random()) * (other - one), np.float32)

    def worn(self, inks: Sequence[Array], styles: Sequence[Array], seeds: Sequence[int]) -> list[Grey]:
        """Worn lines of the same geometry, [40, width] uint8, 0 black.

        A line's result depends on itself, its style and its seed, not on the others that it is worn with.

        Args:
            inks: [40, width] float32, 0 paper to 1 ink; styles: [Z] each; seeds: of the grain.

        Raises:
            BadArgument: a line that is not 40 px high.
        """
        for ink in inks:
            if ink.ndim != 2 or ink.shape[0] != LINE_HEIGHT_PX or not ink.shape[1]:
                raise BadArgument(f"a line of shape {ink.shape}", f"lines are {LINE_HEIGHT_PX} px high, grey")
        results: list[Grey] = [np.zeros((0, 0), np.uint8)] * len(inks)
        by_width: dict[int, list[int]] = {}
        for i, ink in enumerate(inks):
            by_width.setdefault(bucket_width(ink.shape[1]), []).append(i)
        for width, numbers in by_width.items():
            for start in range(0, len(numbers), 16):
                part = numbers[start : start + 16]
                batch = np.zeros((len(part), LINE_HEIGHT_PX, width, 1), np.float32)
                for row, i in enumerate(part):
                    batch[row, :, : inks[i].shape[1], 0] = inks[i]
                noise = np.concatenate([noise_for(np.random.default_rng(seeds[i]), 1, width) for i in part])
                style = np.stack([styles[i] for i in part])
                made = self.networks.signatures["wear"](
                    ink=tf.constant(batch), style=tf.constant(style), noise=tf.constant(noise)
                )["grey"].numpy()
                for row, i in enumerate(part):
                    results[i] = made[row, :, : inks[i].shape[1], 0]
        return results

    def worn_lines(self, rng: Rng, lines: Sequence[CleanLine], bank: Array | None = None) -> list[Grey]:
        """Each line in a style of its own out of the bank (None: of all that was learnt), see `drawn_style`."""
        bank = self.bank() if bank is None else bank
        styles = [self.drawn_style(rng, bank) for _ in lines]
        seeds = [int(rng.integers(2**31)) for _ in lines]
        return self.worn([line.ink for line in lines], styles, seeds)


def readable(bundle: Bundle, images: Sequence[Grey], texts: Sequence[str]) -> list[bool]:
    """Whether a recogniser reads each line with a CER under 5 %: what is kept."""
    readings = read_line_images(bundle, list(images))
    return [CharacterErrors.of(t, r.text).rate < LEGIBLE_CER for t, r in zip(texts, readings, strict=True)]


def export_wear(
    sizes: WearNetworks,
    weights: Mapping[str, Path],
    strips: Sequence[RealStrip],
    about: Mapping[str, Any],
    output: Path,
) -> None:
    """Writes the networks in float32 with the styles of the strips' collections, reads them back and compares.

    Args:
        weights: files of `encoder` and `generator`.
        about: what wear.json is to hold beside the sizes.

    Raises:
        ValueError: what was written does not wear like what was trained.
    """
    encoder, generator = _in_float32(sizes, weights)
    module = tf.Module()
    module.kept = [v.value for n in (encoder, generator) for v in n.variables]
    grey = tf.TensorSpec((None, LINE_HEIGHT_PX, None, 1), tf.uint8, name="grey")
    ink = tf.TensorSpec((None, LINE_HEIGHT_PX, None, 1), tf.float32, name="ink")
    noise = tf.TensorSpec((None, LINE_HEIGHT_PX, None, NOISE_MAPS), tf.float32, name="noise")

    def encode(grey: tf.Tensor) -> dict[str, tf.Tensor]:
        mean, log_variance = split_style(encoder(tf.cast(grey, tf.float32) / 255, training=False))
        return {"mean": mean, "log_variance": log_variance}

    def wear(ink: tf.Tensor, style: tf.Tensor, noise: tf.Tensor) -> dict[str, tf.Tensor]:
        worn = generator([ink, style, noise], training=False)
        return {"grey": tf.cast(tf.round(255 * worn), tf.uint8)}

    signatures = {
        "encode": tf.function(encode, input_signature=[grey]).get_concrete_function(),
        "wear": tf.function(
            wear, input_signature=[ink, tf.TensorSpec((None, sizes.style), tf.float32, name="style"), noise]
        ).get_concrete_function(),
    }
    with written_beside(output) as folder:
        tf.saved_model.save(module, str(folder / "networks"), signatures=signatures)
        shutil.rmtree(folder / "networks" / "assets", ignore_errors=True)
        (folder / "networks" / "fingerprint.pb").unlink(missing_ok=True)
        value = {"format": FORMAT, "version": VERSION, "networks": asdict(sizes), **about}
        (folder / "wear.json").write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
        np.savez(folder / "styles.npz")
        exported = Wear.load(folder)
        _compare(exported, generator)
        np.savez(folder / "styles.npz", **_styles(exported, strips))  # type: ignore[arg-type]


def _in_float32(sizes: WearNetworks, weights: Mapping[str, Path]) -> tuple[keras.Model, keras.Model]:
    """Encoder and generator with trained weights, whatever the precision they were trained in."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        networks = build_encoder(sizes), build_generator(sizes)
    finally:
        keras.mixed_precision.set_global_policy(before)
    for network in networks:
        network.load_weights(weights[network.name])
    return networks


def _styles(exported: Wear, strips: Sequence[RealStrip]) -> dict[str, Array]:
    by_collection: dict[str, list[RealStrip]] = {}
    for strip in strips:
        by_collection.setdefault(strip.collection, []).append(strip)
    chosen = {n: found[:: -(-len(found) // STYLES_KEPT)] for n, found in by_collection.items()}
    return {name: exported.styles_of(found) for name, found in sorted(chosen.items())}


def _compare(exported: Wear, generator: keras.Model) -> None:
    """Wears noise with what was written and read back, and with the network it was made of."""
    rng, width = np.random.default_rng(1), 96
    ink = rng.random((1, LINE_HEIGHT_PX, width, 1), dtype=np.float32)
    style = rng.standard_normal((1, exported.style_size), dtype=np.float32)
    noise = noise_for(np.random.default_rng(7), 1, width)
    expected = as_grey(np.asarray(generator([ink, style, noise], training=False))[0, ..., 0])
    (made,) = exported.worn([ink[0, ..., 0]], [style[0]], [7])
    apart = int(np.abs(made.astype(np.int16) - expected).max())
    if apart > 1:
        raise ValueError(f"the exported generator's lines differ from the trained one's by {apart} grey levels")
