"""Figures of wear: legibility by readers that did not teach it, distance to real lines, and the look of a collection.

    python -m tests.figures.wear --wear RUN/exported --real DATA --text TEXT [--unseen TEST] [--output OUT]

Prints Markdown tables and writes `OUT/sheet.png`. The same clean lines are left clean, damaged by the renderer's own
models, and worn. How far they are from real lines is measured on real lines with truth, of documents that the wear did
not learn from: a rendered line that says the same is laid over each (`tests.figures.matched_lines`), so that the kinds
differ in look, and not in what they say or how they are cut.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from ocr_model.bundle import Bundle, load_bundle
from ocr_model.metrics import comparable
from ocr_model.self_check import read_line_images
from tests.figures.matched_lines import MatchedLine, is_typed, matched_lines
from trainer.collection import RealLine
from trainer.line_data import load_real_lines
from trainer.metrics import CharacterErrors
from trainer.synthesis.damage import apply_damage, draw_damage, in_place
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource
from trainer.wear.lines import CleanLine, RealStrip, clean_line, load_strips, real_window
from trainer.wear.losses import as_read
from trainer.wear.metrics import LEGIBLE_CER, LOOKS, frechet_distance, look_of, mean_with_interval, told_apart
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


def looks(windows: Sequence[np.ndarray]) -> np.ndarray:
    """[N, 7], see `trainer.wear.metrics.look_of`."""
    return look_of(np.stack(windows) / 255.0)


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


def unseen_lines(data: Path, unseen: Path | None, exclude: Sequence[str], wear: Wear, seen: set[str]) -> list[RealLine]:
    """Real lines with truth of the collections that the wear knows, of documents that it has not learnt from.

    Raises:
        SystemExit: there are none.
    """
    lines = load_real_lines(data, tuple(exclude))
    if unseen is not None:
        lines += load_real_lines(unseen, tuple(exclude))
    lines = [line for line in lines if line.source in wear.styles and line.document not in seen]
    if not lines:
        raise SystemExit("no line with truth of a document that the wear did not learn from: name some with --unseen")
    return lines


@dataclass(frozen=True)
class Likeness:
    """Windows of real lines and of the same lines in other forms, as features.

    Attributes:
        real: [pairs, features]; made: form → draws of the same size.
        documents: of the pairs; typed: [pairs] whether it is a typescript.
    """

    real: np.ndarray
    made: dict[str, list[np.ndarray]]
    documents: list[str]
    typed: np.ndarray

    def told(self, form: str) -> np.ndarray:
        """[pairs] share of right answers, mean of the draws."""
        return np.mean([told_apart(made, self.real, self.documents) for made in self.made[form]], axis=0)


def likenesses(
    measures: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]],
    wear: Wear,
    lines: Sequence[MatchedLine],
    draws: int,
    seed: int = 5,
) -> dict[str, Likeness]:
    """Of every measure the features of all forms, the windows being at the same place in all forms of a line."""
    rng = np.random.default_rng(seed)
    starts = [int(rng.integers(line.real.shape[1] - WINDOW_PX + 1)) for line in lines]
    others = [int(rng.integers(line.real.shape[1] - WINDOW_PX + 1)) for line in lines]

    def windows(images: Sequence[np.ndarray], starts: Sequence[int] = starts) -> list[np.ndarray]:
        return [image[:, start : start + WINDOW_PX] for image, start in zip(images, starts, strict=True)]

    real, clean = [line.real for line in lines], [line.clean for line in lines]
    forms = {"clean": [windows([255 - as_grey(line.ink) for line in clean])]}
    forms["damaged"] = [windows([still_damaged(rng, line) for line in clean]) for _ in range(draws)]
    forms["worn"] = [windows(wear.worn_lines(rng, clean)) for _ in range(draws)]
    forms["worn in the style of the collection"] = [windows(in_own_style(rng, wear, lines)) for _ in range(draws)]
    forms["the real lines, another window"] = [windows(real, others)]
    documents, typed = [line.document for line in lines], np.array([is_typed(line.source) for line in lines])
    found = {}
    for name, measure in measures.items():
        made = {form: [measure(drawn) for drawn in all_drawn] for form, all_drawn in forms.items()}
        found[name] = Likeness(measure(windows(real)), made, documents, typed)
    return found


def still_damaged(rng: np.random.Generator, line: CleanLine) -> np.ndarray:
    """Damaged at its place: what moves the ink is left out, as the line has been laid over a real one."""
    return apply_damage(line.ink, in_place(draw_damage(rng, line.scale)))


def in_own_style(rng: np.random.Generator, wear: Wear, lines: Sequence[MatchedLine]) -> list[np.ndarray]:
    styles = [wear.drawn_style(rng, wear.bank(line.source)) for line in lines]
    seeds = [int(rng.integers(2**31)) for _ in lines]
    return wear.worn([line.clean.ink for line in lines], styles, seeds)


def likeness(found: Likeness) -> str:
    """How easily each form is told from real lines, and how far it is from them."""
    rows = ["| lines | told from real lines | less than damaged | typescripts | print | Fréchet distance |"]
    rows.append("|---|---|---|---|---|---|")
    damaged, means = found.told("damaged"), found.real.shape[1] // 2
    for form, drawn in found.made.items():
        told = found.told(form)
        cells = [as_share(told, found.documents)]
        cells.append("" if form == "damaged" else as_share(told - damaged, found.documents, sign="+"))
        for chosen in (found.typed, ~found.typed):
            cells.append(f"{100 * told[chosen].mean():.1f}" if chosen.any() else "")
        distance = np.mean([frechet_distance(made[:, :means], found.real[:, :means]) for made in drawn])
        rows.append(f"| {form} | {' | '.join(cells)} | {distance:.1f} |")
    return "\n".join(rows)


def as_share(values: np.ndarray, documents: Sequence[str], sign: str = "") -> str:
    mean, low, high = (100 * value for value in mean_with_interval(values, documents))
    return f"{mean:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def seen_by_measure(found: Likeness) -> str:
    """What a classifier can go by: its accuracy with each plain measure of the look by itself, and with all."""
    forms = list(found.made)
    rows = [f"| measure | {' | '.join(forms)} |", "|---|" + "---|" * len(forms)]
    for name, part in [(n, slice(i, i + 1)) for i, n in enumerate(LOOKS)] + [("all of them", slice(None))]:
        made = {form: [drawn[:, part] for drawn in all_drawn] for form, all_drawn in found.made.items()}
        only = replace(found, real=found.real[:, part], made=made)
        rows.append(f"| {name} | " + " | ".join(f"{100 * only.told(form).mean():.1f}" for form in forms) + " |")
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


def draw_sheet(wear: Wear, lines: Sequence[MatchedLine], of_source: int = 2, width: int = 240) -> np.ndarray:
    """Clean | damaged | worn in any style | worn in the style of the collection | real; windows of one width."""
    rng, shown = np.random.default_rng(4), []
    for source in sorted({line.source for line in lines}):
        shown += [line for line in lines if line.source == source and line.real.shape[1] >= width][:of_source]
    clean = [line.clean for line in shown]
    columns = [
        ("clean", [255 - as_grey(line.ink) for line in clean]),
        ("damaged", [still_damaged(rng, line) for line in clean]),
        ("worn", wear.worn_lines(rng, clean)),
        ("worn as its collection", in_own_style(rng, wear, shown)),
        ("real line", [line.real for line in shown]),
    ]
    return sheet([(name, [image[:, :width] for image in images]) for name, images in columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wear", type=Path, required=True, help="exported wear")
    parser.add_argument("--real", type=Path, required=True, help="the folder that it was learnt from")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--read-text", type=Path, help="of the lines that are read, in Tesseract's language")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--tesseract", default="eng", help="language; left out where it is not installed")
    parser.add_argument("--teacher", type=Path, help="the bundle that was the default one when the wear was learnt")
    parser.add_argument("--unseen", type=Path, help="further lines with truth that it did not learn from")
    parser.add_argument("--matched", type=int, default=160, help="lines of a collection that are compared")
    parser.add_argument("--draws", type=int, default=3, help="of damage, styles and grain, for the comparison")
    parser.add_argument("--reader", type=Path, action="append", default=[], help="further independent bundle")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    wear, teacher = Wear.load(arguments.wear), load_bundle(arguments.teacher)
    print(json.dumps(wear.about["figures"]))
    learnt = wear.about["training"]["data"]
    strips = load_strips(arguments.real, learnt["exclude"], learnt["at_most"], learnt["seed"])
    strips = [strip for strip in strips if strip.pixels.shape[1] >= learnt["crop_width_px"]]
    seen = {strip.document for strip in divided_strips(strips, learnt["validation_share"])[0]}
    lines = unseen_lines(arguments.real, arguments.unseen, learnt["exclude"], wear, seen)
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
    matches = matched_lines(np.random.default_rng(1), lines, FontCase(find_fonts()), WINDOW_PX, arguments.matched)
    correlation = float(np.median([line.correlation for line in matches]))
    count = len({line.document for line in matches})
    print(f"\n{len(matches)} of {len(lines)} real lines, of {count} documents, and rendered ones in their places")
    print(f"median correlation of their ink {correlation:.2f}; told apart in per cent, 95 % intervals over documents\n")
    judge = reading_network(load_bundle(None))
    found = likenesses({"features": partial(features, judge), "looks": looks}, wear, matches, arguments.draws)
    print(likeness(found["features"]))
    print("\nTold from real lines in per cent by plain measures\n")
    print(seen_by_measure(found["looks"]))
    reads = reading_network(teacher)
    print("\nFréchet distance to the real lines of a collection\n")
    print(collections(reads, wear, arguments.text, strips, arguments.count))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(arguments.output / "sheet.png"), draw_sheet(wear, matches))


if __name__ == "__main__":
    main()
