"""Figures of wear: legibility by readers that did not teach it, distance to real lines, and the look of a collection.

    python -m tests.figures.wear --wear RUN/exported --real DATA --text TEXT [--output OUT]

Prints Markdown tables and writes `OUT/sheet.png`. The same clean lines are left clean, damaged by the renderer's own
models, and worn; the real lines are of documents that the wear did not learn from.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from ocr_model.bundle import Bundle, load_bundle
from ocr_model.metrics import comparable
from ocr_model.self_check import read_line_images
from trainer.metrics import CharacterErrors
from trainer.synthesis.damage import apply_damage, draw_damage
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource
from trainer.wear.lines import CleanLine, RealStrip, clean_line, load_strips, real_window
from trainer.wear.losses import as_read
from trainer.wear.metrics import LEGIBLE_CER, frechet_distance, told_apart
from trainer.wear.model import Wear
from trainer.wear.sheets import as_grey, sheet
from trainer.wear.training import divided_strips, reading_network

WINDOW_PX = 192


@dataclass(frozen=True)
class Lines:
    """The same lines in every form."""

    clean: list[CleanLine]
    forms: dict[str, list[np.ndarray]]


def draw_forms(wear: Wear, text: Path | None, count: int, collection: str | None = None, seed: int = 2) -> Lines:
    rng, texts, fonts = np.random.default_rng(seed), TextSource.load(text), FontCase(find_fonts())
    clean: list[CleanLine] = []
    while len(clean) < count:
        line = clean_line(rng, texts, fonts)
        if line.ink.shape[1] >= WINDOW_PX and len(line.text) >= 8:
            clean.append(line)
    forms = {
        "clean": [255 - as_grey(line.ink) for line in clean],
        "damaged": [apply_damage(line.ink, draw_damage(rng, line.scale)) for line in clean],
        "worn": wear.worn_lines(rng, clean, wear.bank(collection)),
    }
    return Lines(clean, forms)


def rates(texts: Sequence[str], readings: Sequence[str]) -> list[float]:
    pairs = zip(texts, readings, strict=True)
    return [CharacterErrors.of(comparable(t), comparable(r)).rate for t, r in pairs]


def read_by_bundle(bundle: Bundle, images: Sequence[np.ndarray]) -> list[str]:
    return [reading.text for reading in read_line_images(bundle, list(images))]


def read_by_tesseract(images: Sequence[np.ndarray], language: str) -> list[str]:
    """One process for all lines; each at twice its size with a margin, as Tesseract likes it."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for i, image in enumerate(images):
            paper = int(np.percentile(image, 90))
            large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
            framed = cv2.copyMakeBorder(large, 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=paper)
            names.append(f"{folder}/{i}.png")
            cv2.imwrite(names[-1], framed)
        Path(folder, "list.txt").write_text("\n".join(names) + "\n")
        words = ["tesseract", f"{folder}/list.txt", f"{folder}/out", "-l", language, "--oem", "1", "--psm", "7"]
        subprocess.run(words, check=True, capture_output=True)
        pages = Path(folder, "out.txt").read_text(encoding="utf-8").split("\f")
    return [" ".join(page.split()) for page in pages[: len(images)]]


def features(reads: tf.keras.Model, windows: Sequence[np.ndarray]) -> np.ndarray:
    """[N, 2 F] float32: means and deviations along the line of the recogniser's last features."""
    found = []
    for i in range(0, len(windows), 16):
        grey = tf.constant(np.stack(windows[i : i + 16])[..., None], tf.float32) / 255
        maps = tf.cast(reads(as_read(grey), training=False)[0], tf.float32)
        found.append(tf.concat([tf.reduce_mean(maps, 1), tf.math.reduce_std(maps, 1)], -1).numpy())
    return np.concatenate(found)


def windows_of(rng: np.random.Generator, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    strips = [RealStrip(image, "", "") for image in images if image.shape[1] >= WINDOW_PX]
    return [real_window(rng, strip, WINDOW_PX) for strip in strips]


def legibility(lines: Lines, readers: dict[str, list[list[str]]], kept: dict[str, list[bool]]) -> str:
    rows = ["| lines | kept | " + " | ".join(f"of the kept, read by {name}" for name in readers) + " |"]
    rows.append("|---|---|" + "---|" * len(readers))
    texts = [line.text for line in lines.clean]
    for number, form in enumerate(lines.forms):
        cells = []
        for readings in readers.values():
            found = rates(texts, readings[number])
            good = [rate < LEGIBLE_CER for rate, keep in zip(found, kept[form], strict=True) if keep]
            cells.append(f"{100 * np.mean(good):.1f} %")
        rows.append(f"| {form} | {100 * np.mean(kept[form]):.1f} % | {' | '.join(cells)} |")
    return "\n".join(rows)


def likeness(reads: tf.keras.Model, lines: Lines, real: Sequence[RealStrip], seed: int = 5) -> str:
    """How far each form is from real lines, and how easily it is told from them."""
    rng = np.random.default_rng(seed)
    count = len(lines.clean)
    chosen = [real[int(i)] for i in rng.permutation(len(real))[: 2 * count]]
    truth = features(reads, windows_of(rng, [strip.pixels for strip in chosen]))
    half = len(truth) // 2
    rows = ["| lines | Fréchet distance to real lines | told from real lines |", "|---|---|---|"]
    means = truth.shape[1] // 2
    for form, images in lines.forms.items():
        made = features(reads, windows_of(rng, images))
        distance = frechet_distance(made[:, :means], truth[:, :means])
        rows.append(f"| {form} | {distance:.1f} | {100 * told_apart(made, truth):.1f} % |")
    distance = frechet_distance(truth[:half, :means], truth[half:, :means])
    rows.append(f"| other real lines | {distance:.1f} | {100 * told_apart(truth[:half], truth[half:]):.1f} % |")
    return "\n".join(rows)


def collections(reads: tf.keras.Model, wear: Wear, text: Path | None, real: Sequence[RealStrip], count: int) -> str:
    """Of each collection the distance of its real lines to damaged lines, worn ones, and ones worn in its style."""
    rows = ["| collection | lines | damaged | worn, any style | worn in its style |", "|---|---|---|---|---|"]
    usual, rng = draw_forms(wear, text, count, seed=3), np.random.default_rng(9)
    forms = {name: features(reads, windows_of(rng, usual.forms[name])) for name in ("damaged", "worn")}
    for name in sorted(wear.styles):
        mine = [strip.pixels for strip in real if strip.collection == name and strip.pixels.shape[1] >= WINDOW_PX]
        if len(mine) < 40:
            continue
        repeats = -(-count // len(mine))
        truth = features(reads, [w for _ in range(repeats) for w in windows_of(rng, mine)][: 2 * count])
        own = features(reads, windows_of(rng, draw_forms(wear, text, count, name, seed=3).forms["worn"]))
        means = truth.shape[1] // 2
        found = [frechet_distance(made[:, :means], truth[:, :means]) for made in (*forms.values(), own)]
        rows.append(f"| {name} | {len(mine)} | " + " | ".join(f"{d:.1f}" for d in found) + " |")
    return "\n".join(rows)


def draw_sheet(wear: Wear, text: Path | None, real: Sequence[RealStrip], rows: int = 9) -> np.ndarray:
    """Clean | worn in drawn styles | worn like the real line | that real line; windows of one width."""
    rng, width = np.random.default_rng(4), 224
    lines = [line for line in draw_forms(wear, text, 6 * rows, seed=4).clean if line.ink.shape[1] >= width][:rows]
    inks = [line.ink[:, :width] for line in lines]
    fit = [strip for strip in real if strip.pixels.shape[1] >= width]
    chosen = [fit[int(i)] for i in rng.permutation(len(fit))[:rows]]
    columns = [("clean", [255 - as_grey(ink) for ink in inks])]
    for number in (1, 2):
        styles = [wear.drawn_style(rng) for _ in inks]
        columns.append((f"worn, style {number}", wear.worn(inks, styles, range(rows))))
    columns.append(("worn like the real line", wear.worn(inks, list(wear.styles_of(chosen)), range(rows))))
    columns.append(("real line", [strip.pixels[:, :width] for strip in chosen]))
    return sheet(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wear", type=Path, required=True, help="exported wear")
    parser.add_argument("--real", type=Path, required=True, help="the folder that it was learnt from")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--read-text", type=Path, help="of the lines that are read, in Tesseract's language")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--tesseract", default="eng", help="language; left out where it is not installed")
    parser.add_argument("--teacher", type=Path, help="the bundle that was the default one when the wear was learnt")
    parser.add_argument("--reader", type=Path, action="append", default=[], help="further independent bundle")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    wear, teacher = Wear.load(arguments.wear), load_bundle(arguments.teacher)
    print(json.dumps(wear.about["figures"]))
    learnt = wear.about["training"]["data"]
    strips = load_strips(arguments.real, learnt["exclude"], learnt["at_most"], learnt["seed"])
    strips = [strip for strip in strips if strip.pixels.shape[1] >= learnt["crop_width_px"]]
    real = divided_strips(strips, learnt["validation_share"])[1]
    lines = draw_forms(wear, arguments.text, arguments.count)
    to_read = draw_forms(wear, arguments.read_text or arguments.text, arguments.count, seed=6)
    texts = [line.text for line in to_read.clean]
    own = [read_by_bundle(teacher, images) for images in to_read.forms.values()]
    kept = {
        form: [rate < LEGIBLE_CER for rate in rates(texts, read)] for form, read in zip(to_read.forms, own, strict=True)
    }
    readers = {}
    if shutil.which("tesseract"):
        readers["Tesseract"] = [read_by_tesseract(images, arguments.tesseract) for images in to_read.forms.values()]
    for path in arguments.reader:
        bundle = load_bundle(path)
        readers[path.name] = [read_by_bundle(bundle, images) for images in to_read.forms.values()]
    print(f"\nKept: read by the bundle that taught with a CER under 5 %, {len(texts)} lines\n")
    print(legibility(to_read, readers, kept))
    reads = reading_network(teacher)
    print(f"\n{len(lines.clean)} windows of {WINDOW_PX} px a form, {len(real)} real lines of held-out documents\n")
    print(likeness(reads, lines, real))
    print("\nFréchet distance to the real lines of a collection\n")
    print(collections(reads, wear, arguments.text, strips, arguments.count))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(arguments.output / "sheet.png"), draw_sheet(wear, arguments.text, real))


if __name__ == "__main__":
    main()
