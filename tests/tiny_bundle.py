"""A bundle of tiny untrained networks, and lines that they could learn to read."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.finder import FinderConfig, build_finder
from ocr_model.line_images import normalise_line_image
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.export import TrainedFinder, TrainedRecogniser, export_bundle
from trainer.line_data import make_batch
from trainer.loop import LoopConfig, Step
from trainer.losses import CtcLoss
from trainer.optimiser import AdamW
from trainer.recogniser import arrays

AB = Alphabet(" ab")
RECOGNISER = RecogniserConfig(AB.classes, (4, 4, 4, 8), 16, 1)
FINDER = FinderConfig((2, 3, 4, 5), (1, 2))


@functools.cache
def tiny_bundle() -> Path:
    """The folder of a bundle for the alphabet " ab". Not to be changed: copy it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    keras.utils.set_random_seed(1)
    build_recogniser(RECOGNISER).save_weights(folder / "r.weights.h5")
    build_finder(FINDER).save_weights(folder / "f.weights.h5")
    lines = [(drawn(text), text) for text in ("ab a", "b ab", "aab")]
    recogniser = TrainedRecogniser(folder / "r.weights.h5", RECOGNISER, AB)
    finder = TrainedFinder(folder / "f.weights.h5", FINDER)
    card = "# Model card\n\nA tiny one.\n"
    export_bundle(recogniser, finder, {"seed": 1}, card, folder / "bundle", lines)
    return folder / "bundle"


@functools.cache
def reading_bundle() -> Path:
    """The folder of a bundle that reads what `drawn` draws of the alphabet " ab". Not to be changed: copy it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    keras.utils.set_random_seed(1)
    config = RecogniserConfig(AB.classes, (8, 8, 8, 16), 32, 1)
    model, rng = build_recogniser(config), np.random.default_rng(1)
    texts = ["".join(rng.choice(["a", "b", "a", "b", " "], 4)).strip() or "a" for _ in range(24)]
    batch = make_batch([(normalise_line_image(drawn(text)), AB.encode(text)) for text in texts], 128)
    step = Step(tf.distribute.get_strategy(), model, AdamW(model, 0.0), CtcLoss(), LoopConfig(steps=1))
    for _ in range(250):
        loss = step([arrays(batch)], 5e-3, 0.9, 1.0, False).loss
    assert loss < 0.3, loss
    model.save_weights(folder / "r.weights.h5")
    recogniser = TrainedRecogniser(folder / "r.weights.h5", config, AB)
    lines = [(drawn(text), text) for text in ("ab a", "b ab", "aab")]
    export_bundle(recogniser, tiny_bundle(), {"seed": 1}, "# Model card\n\nA tiny one.\n", folder / "bundle", lines)
    return folder / "bundle"


def copy_of_bundle(target: Path) -> Path:
    shutil.copytree(tiny_bundle(), target)
    return target


def drawn(text: str) -> np.ndarray:
    """[40, 8 + 24 n] uint8: a is an upright stroke, b a level one, c both."""
    image = np.full((40, 8 + 24 * len(text)), 255, np.uint8)
    for i, character in enumerate(text):
        left = 8 + 24 * i
        if character in "ac":
            image[5:35, left + 6 : left + 11] = 0
        if character in "bc":
            image[18:23, left : left + 18] = 0
    return image


def write_lines(folder: Path, texts: list[str], documents: int = 4) -> Path:
    """`SOURCE/lines` with these texts, drawn, in so many documents."""
    lines = folder / "marks" / "lines"
    lines.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        name = f"book{i % documents}_{i}"
        cv2.imwrite(str(lines / f"{name}.png"), drawn(text))
        (lines / f"{name}.gt.txt").write_text(text + "\n", encoding="utf-8")
    return folder
