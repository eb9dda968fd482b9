"""Blank leaves made of real scans: their paper with the print taken out, and print that shows through from behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.images import open_document

Grey = NDArray[np.uint8]
SAMPLES = Path(__file__).parents[1] / "samples"
SCANS = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".pdf"}
STROKE_PX = 31  # at a page of 1,500 px width: wider than a stroke of any letter


def scans_of(folder: Path, width_px: int = 1500) -> list[Grey]:
    """The pages of a folder, brought to one width, in the order of their names."""
    pages = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SCANS):
        document = open_document(path.read_bytes())
        for index in range(document.page_count):
            grey = document.decode(index).pixels
            size = (width_px, round(grey.shape[0] * width_px / grey.shape[1]))
            method = cv2.INTER_AREA if grey.shape[1] > width_px else cv2.INTER_LINEAR
            pages.append(np.asarray(cv2.resize(grey, size, interpolation=method), np.uint8))
    return pages


def ink_of(grey: Grey) -> NDArray[np.float32]:
    """How much darker than its paper each place is, [height, width], 0 to 255."""
    return np.asarray(np.maximum(_ground(grey) - grey.astype(np.float32), 0), np.float32)


def _ground(grey: Grey) -> NDArray[np.float32]:
    """The paper's own tone: what is left when everything narrower than a stroke is closed, smoothed."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (STROKE_PX, STROKE_PX))
    closed = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, kernel)
    return np.asarray(cv2.GaussianBlur(closed.astype(np.float32), (0, 0), STROKE_PX / 3), np.float32)


def paper_of(grey: Grey, rng: np.random.Generator) -> Grey:
    """The scan without its print: its tone, stains and borders, and its grain, taken from between the lines."""
    ground = _ground(grey)
    grain = grey.astype(np.float32) - ground
    printed = cv2.dilate((ink_of(grey) > 14).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    for _ in range(12):
        if not printed.any():
            break
        shift = tuple(int(v) for v in rng.integers(20, 400, 2))
        moved, moved_print = np.roll(grain, shift, (0, 1)), np.roll(printed, shift, (0, 1))
        free = printed & ~moved_print
        grain[free] = moved[free]
        printed = printed & ~free
    grain[printed] = 0
    return np.clip(ground + np.clip(grain, -40, 40), 0, 255).astype(np.uint8)


def blank_page(rng: np.random.Generator, scans: Sequence[Grey]) -> Grey:
    """A leaf with nothing printed on it, [height, width] uint8.

    Two of three show, mirrored, blurred and pale, what is printed on their back. A third is darkened, turned by a
    little or stored with few grey levels.
    """
    scan = scans[int(rng.integers(len(scans)))]
    page = paper_of(scan, rng).astype(np.float32)
    if rng.random() < 2 / 3:
        other = scans[int(rng.integers(len(scans)))][:, ::-1]
        behind = ink_of(np.asarray(cv2.resize(other, (page.shape[1], page.shape[0])), np.uint8))
        strength = rng.uniform(0.04, 0.22)
        page -= strength * cv2.GaussianBlur(behind, (0, 0), rng.uniform(1.0, 3.0)) * (page / 255)
    if rng.random() < 1 / 3:
        page = page * rng.uniform(0.5, 0.9)
    if rng.random() < 1 / 3:
        turn = cv2.getRotationMatrix2D((page.shape[1] / 2, page.shape[0] / 2), float(rng.uniform(-3, 3)), 1.0)
        page = cv2.warpAffine(page, turn, (page.shape[1], page.shape[0]), borderMode=cv2.BORDER_REPLICATE)
    image = np.clip(page, 0, 255).astype(np.uint8)
    if rng.random() < 1 / 3:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 70))])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return image
