"""Training samples of the line finder: crops of real and synthetic pages with their maps, made by worker processes.

No TensorFlow here: a worker starts quickly and stays small. Sample number n depends on the seed and n alone, whatever
the number of workers.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ocr_model.errors import BadInput
from ocr_model.examples import is_validation
from ocr_model.record_files import MANIFEST
from trainer.page_records import record_pages
from trainer.page_truth import TruePage, load_pages, truth_maps
from trainer.synthesis.fonts import FontFace, find_fonts
from trainer.synthesis.page_plan import TrueLine
from trainer.synthesis.page_render import render
from trainer.synthesis.page_sheet import Texts
from trainer.synthesis.pages import draw_page
from trainer.synthesis.text import TextSource

PREPARED_AREA_PX = 1.5e6


@dataclass(frozen=True)
class SampleConfig:
    """What the finder is shown.

    Attributes:
        crop_px: side of a square crop; a multiple of 32.
        page_area_px: area that pages are reduced to, as at inference.
        real_share: share of pages that are real.
        takes: crops from one synthetic page; real pages give half as many.
        turned_share: share of crops turned by 90, 180 or 270 degrees.
        scale_spread: largest natural logarithm of the change of scale.
        workers: processes.
        shuffle: crops that are held back to mix pages.
        seed: of everything.
    """

    crop_px: int = 512
    page_area_px: float = 750_000
    real_share: float = 0.35
    takes: int = 6
    turned_share: float = 0.15
    scale_spread: float = 0.45
    workers: int = 1
    shuffle: int = 240
    seed: int = 1


@dataclass(frozen=True)
class Augmentation:
    """A crop of a page, drawn apart from being made.

    Attributes:
        scale: of the page's pixels; skew_deg: additional turn, positive where lines fall to the right.
        x, y: place of the crop's corner in the scaled page, 0 to 1 of what is possible.
        contrast, brightness: `contrast * grey + brightness`, then `gamma` on 0 to 1.
        noise: sigma; blur_px: sigma; jpeg: quality or 0; bilevel: threshold or 0.
        border_px: dark border at the left or right (negative) side.
        inverted: light on dark, as a negative.
        quarter_turns: counter-clockwise; so many clockwise turns make the crop upright again.
        seed: of the noise.
    """

    scale: float
    skew_deg: float = 0.0
    x: float = 0.0
    y: float = 0.0
    contrast: float = 1.0
    brightness: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    blur_px: float = 0.0
    jpeg: int = 0
    bilevel: float = 0.0
    border_px: int = 0
    inverted: bool = False
    quarter_turns: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """A crop and its answers; see `trainer.page_truth.TruthMaps`. A turned crop counts for the orientation only.

    Attributes:
        name: of its page and number, for messages.
    """

    image: np.ndarray
    core: np.ndarray
    ends: np.ndarray
    heights: np.ndarray
    counted: np.ndarray
    orientation: int
    orientation_counted: bool
    name: str = ""


def draw_augmentation(rng: np.random.Generator, base_scale: float, real: bool, config: SampleConfig) -> Augmentation:
    """What to do with a page; a synthetic one already has its damage and gets little."""
    turned = rng.random() < config.turned_share
    strong = 1.0 if real else 0.4

    def sometimes(probability: float) -> bool:
        return bool(rng.random() < probability * strong)

    return Augmentation(
        scale=base_scale * float(np.exp(rng.uniform(-0.8, 1.0) * config.scale_spread)),
        skew_deg=float(np.clip(rng.normal(0, 1.2), -4, 4)) if sometimes(0.6) else 0.0,
        x=float(rng.random()),
        y=float(rng.random()),
        contrast=float(rng.uniform(0.45, 1.1)) if sometimes(0.6) else 1.0,
        brightness=float(rng.uniform(-30, 80)) if sometimes(0.4) else 0.0,
        gamma=float(np.exp(rng.uniform(-0.5, 0.5))) if sometimes(0.5) else 1.0,
        noise=float(rng.uniform(1, 14)) if sometimes(0.4) else 0.0,
        blur_px=float(rng.uniform(0.3, 1.1)) if sometimes(0.3) else 0.0,
        jpeg=int(rng.integers(15, 80)) if sometimes(0.3) else 0,
        bilevel=float(rng.uniform(90, 190)) if sometimes(0.12) else 0.0,
        border_px=int(rng.integers(-50, 50)) if sometimes(0.15) else 0,
        inverted=bool(rng.random() < 0.03),
        quarter_turns=int(rng.integers(1, 4)) if turned else 0,
        seed=int(rng.integers(2**31)),
    )


def crop(image: np.ndarray, lines: Sequence[TrueLine], a: Augmentation, config: SampleConfig) -> Sample:
    """The crop of a page, [H, W] uint8, with its maps."""
    size = config.crop_px
    interpolation = cv2.INTER_AREA if a.scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, None, fx=a.scale, fy=a.scale, interpolation=interpolation)
    height, width = scaled.shape
    matrix = _matrix(a, height, width, size)
    if a.skew_deg:
        piece = cv2.warpAffine(scaled, matrix[:, :3], (size, size), flags=cv2.INTER_LINEAR, borderValue=255.0)
    else:
        piece = _slice(scaled, -matrix[0, 2], -matrix[1, 2], size)
    whole = matrix.copy()
    whole[:, :2] *= a.scale
    moved = [line.moved(whole) for line in lines]
    inside = [line for line in moved if _touches(line, size)]
    piece = _lit(piece, a)
    maps = truth_maps(inside, size, size)
    counted = maps.counted if not a.quarter_turns else np.zeros_like(maps.counted)
    turned = np.ascontiguousarray(np.rot90(piece, a.quarter_turns))[..., None]
    enough = float(maps.core.mean()) > 0.02
    return Sample(turned, maps.core, maps.ends, maps.heights, counted, a.quarter_turns, enough)


def _matrix(a: Augmentation, height: int, width: int, size: int) -> np.ndarray:
    """Scaled page → crop, [2, 3]: the turn about the middle, then the corner. Whole pixels where nothing turns."""
    left, top = round(a.x * max(0, width - size)), round(a.y * max(0, height - size))
    if not a.skew_deg:
        return np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -a.skew_deg, 1.0)
    matrix[:, 2] -= (left, top)
    return np.asarray(matrix)


def _slice(image: np.ndarray, left: float, top: float, size: int) -> np.ndarray:
    piece = image[int(top) : int(top) + size, int(left) : int(left) + size]
    return np.pad(piece, ((0, size - piece.shape[0]), (0, size - piece.shape[1])), constant_values=255)


def _touches(line: TrueLine, size: int) -> bool:
    points = np.asarray(line.baseline)
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(high[0] > 0 and low[0] < size and high[1] > 0 and low[1] - line.x_height < size)


def _lit(piece: np.ndarray, a: Augmentation) -> np.ndarray:
    grey = piece.astype(np.float32)
    if a.border_px:
        side = slice(0, a.border_px) if a.border_px > 0 else slice(a.border_px, None)
        grey[:, side] = 20
    grey = np.clip(grey * a.contrast + a.brightness, 0, 255)
    if a.gamma != 1:
        grey = 255 * (grey / 255) ** a.gamma
    if a.blur_px:
        grey = cv2.GaussianBlur(grey, (0, 0), a.blur_px)
    if a.noise:
        grey = grey + np.random.default_rng(a.seed).normal(0, a.noise, grey.shape).astype(np.float32)
    if a.bilevel:
        grey = np.where(grey > a.bilevel, 255, 0)
    image = np.clip(255 - grey if a.inverted else grey, 0, 255).astype(np.uint8)
    if a.jpeg:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, a.jpeg])
        image = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    return image


def samples_of_page(
    number: int, pages: Sequence[TruePage], fonts: Sequence[FontFace], texts: Texts, config: SampleConfig
) -> list[Sample]:
    """The crops of page number `number`, real or synthetic."""
    rng = np.random.default_rng([config.seed, number])
    real = bool(pages) and rng.random() < config.real_share
    if real:
        page = pages[int(rng.integers(len(pages)))]
        image, lines, name = page.image, list(page.lines), page.name
    else:
        image, lines = render(draw_page(rng, fonts, texts))
        name = f"rendered page {number} of seed {config.seed}"
    base = min(1.0, float(np.sqrt(config.page_area_px / image.size)))
    takes = max(1, config.takes // 2) if real else config.takes
    return [
        replace(crop(image, lines, draw_augmentation(rng, base, real, config), config), name=f"{name}, crop {i}")
        for i in range(takes)
    ]


def divided_pages(data: Path, validation_share: float) -> tuple[list[TruePage], list[TruePage]]:
    """The pages of a folder, or of the records in it, for training and for validation, by document.

    Raises:
        BadInput: there is none for one of them, or the records cannot be used.
    """
    if (data / MANIFEST).exists():
        learnt, held_out = record_pages(data, PREPARED_AREA_PX, validation_share)
    else:
        pages = load_pages(data, PREPARED_AREA_PX)
        held_out = [page for page in pages if is_validation(page.document, validation_share)]
        learnt = [page for page in pages if not is_validation(page.document, validation_share)]
    if not learnt or not held_out:
        raise BadInput(
            f"{data} has {len(learnt)} pages with truth to learn from and {len(held_out)} to validate on",
            "add pages of other documents, or give another --validation-share",
        )
    return learnt, held_out


_worker: dict[str, object] = {}


def _start_worker(pages: Sequence[TruePage], text_folder: Path | None, config: SampleConfig) -> None:
    cv2.setNumThreads(1)
    _worker.update(pages=pages, fonts=find_fonts(), texts=TextSource.load(text_folder), config=config)


def _work(number: int) -> list[Sample]:
    return samples_of_page(number, **_worker)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Place:
    """Where a stream of crops goes on: page and crop that come next, and the crops held back, as (page, crop).

    The crops are not kept, only which they are: they are made again, as each depends on the seed and its number alone.
    """

    given: int = 0
    page: int = 0
    crop: int = 0
    held: tuple[tuple[int, int], ...] = ()


def samples(
    pages: Sequence[TruePage], text_folder: Path | None, config: SampleConfig, place: Place = Place()
) -> Iterator[tuple[Sample, Place]]:
    """Crops without end, mixed, in an order that depends on the seed alone; each with the place after it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(config.workers, _start_worker, (list(pages), text_folder, config)) as pool:
        again = {n: pool.apply_async(_work, (n,)) for n in sorted({n for n, _ in place.held})}
        held = [(at, again[at[0]].get()[at[1]]) for at in place.held]
        again.clear()
        given, number, next_crop = place.given, place.page, place.crop
        waiting = deque()  # type: ignore[var-annotated]
        while True:
            while len(waiting) < 6 * config.workers:
                waiting.append(pool.apply_async(_work, (number + len(waiting),)))
            crops = waiting.popleft().get()
            for index in range(next_crop, len(crops)):
                held.append(((number, index), crops[index]))
                if len(held) > config.shuffle:
                    at = int(np.random.default_rng([config.seed, 0xC0FFEE, given]).integers(len(held)))
                    held[at], held[-1] = held[-1], held[at]
                    _, sample = held.pop()
                    given += 1
                    yield sample, Place(given, number, index + 1, tuple(key for key, _ in held))
            number, next_crop = number + 1, 0


def stacked(group: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Crops for `trainer.loop`: `inputs` [B, crop, crop, 1] float32, 0 to 255, and the answers."""
    return {
        "inputs": np.stack([s.image for s in group]).astype(np.float32),
        "core": np.stack([s.core for s in group]),
        "ends": np.stack([s.ends for s in group]),
        "heights": np.stack([s.heights for s in group]),
        "counted": np.stack([s.counted for s in group]),
        "orientation": np.array([s.orientation for s in group], np.int32),
        "orientation_counted": np.array([s.orientation_counted for s in group], np.float32),
    }
