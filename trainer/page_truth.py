"""Where the lines of a page are, as the finder learns it: from ground-truth files, and drawn as maps.

The heights mean the same in real and synthetic pages: the x-height from the ink's profile along the baseline, the
ascender and the descender from where the ink ends, within what fonts do. A box around the line, which a ground-truth
file has, depends on the letters that happen to stand in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ocr_model.errors import BadInput
from trainer.synthesis.page_plan import TrueLine

ASCENDER_RANGE = (1.4, 2.1)  # in x-heights
DESCENDER_RANGE = (0.4, 0.75)
CAPITAL_X_HEIGHTS = 1.45
SMALL_LETTERS = frozenset("aceimnorsuvwxzäöüéèêàâçñčšžřů")
MINIMUM_X_HEIGHT_PX = 2.5


@dataclass(frozen=True)
class TruePage:
    """A page with its lines; `document` decides the split."""

    name: str
    document: str
    image: np.ndarray
    lines: tuple[TrueLine, ...]


def load_pages(folder: Path, area_px: float) -> list[TruePage]:
    """The pages of `folder/SOURCE/pages` that `folder/meta.json` calls complete, reduced to an area.

    Every page has an image and `NAME.lines.json`: a list of objects with `bbox`, `text` and perhaps `polygon` and
    `baseline`.

    Raises:
        BadInput: an image cannot be decoded.
    """
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    pages = []
    for name in sorted(meta):
        about = meta[name]
        stem = folder / name
        path = next((p for p in (Path(f"{stem}{e}") for e in (".png", ".jpg", ".tif")) if p.exists()), None)
        records = Path(f"{stem}.lines.json")
        if about.get("complete") is not True or path is None or not records.exists():
            continue
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise BadInput(f"cannot decode {path}", "replace or remove the page")
        scale = min(1.0, float(np.sqrt(area_px / image.size)))
        reduced = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        lines = true_lines(reduced, [_scaled(r, scale) for r in json.loads(records.read_text())])
        pages.append(TruePage(name, f"{name.split('/')[0]}/{about.get('doc', name)}", reduced, tuple(lines)))
    return pages


def _scaled(record: Mapping[str, Any], scale: float) -> dict[str, Any]:
    scaled = dict(record)
    for key in ("bbox", "polygon", "baseline"):
        if record.get(key):
            scaled[key] = (np.asarray(record[key], float) * scale).tolist()
    return scaled


def true_lines(image: np.ndarray, records: Sequence[Mapping[str, Any]]) -> list[TrueLine]:
    """The lines of a page, [H, W] uint8, from ground-truth records in its pixels."""
    return [line for line in placed_lines(image, records) if line is not None]


def placed_lines(image: np.ndarray, records: Sequence[Mapping[str, Any]]) -> list[TrueLine | None]:
    """The line of each record of a page, [H, W] uint8; None where it is too small to have one."""
    slope = 0.0 if all(r.get("baseline") for r in records) else _slope(image, [r["bbox"] for r in records])
    return [_true_line(image, record, slope) for record in records]


def _slope(image: np.ndarray, boxes: Sequence[Sequence[float]]) -> float:
    """The slope at which the rows of the boxes' ink differ most, dy over dx."""
    wide = [b for b in boxes if b[2] - b[0] > 8 * (b[3] - b[1]) > 0][:60]
    if not wide:
        return 0.0

    def sharpness(slope: float) -> float:
        return float(sum(np.var(_profile(image, *_level_line(box, slope))) for box in wide))

    return float(max(np.linspace(-0.035, 0.035, 29), key=sharpness))


def _level_line(box: Sequence[float], slope: float) -> tuple[np.ndarray, float]:
    """A first guess at a box's baseline, [2, 2], and its height without the skew."""
    left, top, right, bottom = box
    height = max((bottom - top) - abs(slope) * (right - left), 0.5 * (bottom - top))
    middle = (top + bottom) / 2 + height * 0.25
    rise = slope * (right - left) / 2
    return np.array([[left, middle - rise], [right, middle + rise]]), height


def _profile(image: np.ndarray, baseline: np.ndarray, height: float) -> np.ndarray:
    """Share of ink in each row along a baseline: index i is `i / 2 - 1.25 height` px below it."""
    length = float(np.hypot(*np.diff(baseline, axis=0).T).sum())
    count = max(8, int(length))
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(baseline, axis=0).T))])
    t = np.linspace(0, along[-1], count)
    x, y = np.interp(t, along, baseline[:, 0]), np.interp(t, along, baseline[:, 1])
    rows = np.arange(-1.25 * height, 0.9 * height, 0.5)
    map_x = np.broadcast_to(x, (len(rows), count)).astype(np.float32)
    map_y = (y[None, :] + rows[:, None]).astype(np.float32)
    strip = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    threshold, _ = cv2.threshold(strip, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray((strip <= threshold).mean(axis=1), np.float64)


def _true_line(image: np.ndarray, record: Mapping[str, Any], slope: float) -> TrueLine | None:
    text = str(record.get("text", ""))
    if record.get("baseline") and len(record["baseline"]) >= 2:
        baseline = np.asarray(record["baseline"], float)
        baseline = baseline[np.argsort(baseline[:, 0])]
        height = _height(record, baseline)
    else:
        baseline, height = _level_line(record["bbox"], slope)
    if np.ptp(baseline[:, 0]) < 3 or height < 4:
        return None
    profile = _profile(image, baseline, height)
    shift, x_height, ascender, descender = _measure(profile, height, text)
    x0, x1 = (record["bbox"][0], record["bbox"][2])
    xs = np.concatenate([[x0], baseline[(baseline[:, 0] > x0 + 1) & (baseline[:, 0] < x1 - 1), 0], [x1]])
    ys = _extended(baseline, xs) + shift
    return TrueLine(tuple(zip(xs.tolist(), ys.tolist(), strict=True)), x_height, ascender, descender)


def _height(record: Mapping[str, Any], baseline: np.ndarray) -> float:
    """Height of a line without its skew: the polygon's area over its length."""
    if record.get("polygon"):
        area = cv2.contourArea(np.asarray(record["polygon"], np.float32))
        length = np.ptp(baseline[:, 0])
        _, top, _, bottom = record["bbox"]
        return float(np.clip(area / max(length, 1), 0.4 * (bottom - top), bottom - top))
    return float(record["bbox"][3] - record["bbox"][1])


def _extended(baseline: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """y of the baseline at xs; straight on beyond its ends."""
    ys = np.interp(xs, baseline[:, 0], baseline[:, 1])
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    slope = (y1 - y0) / max(x1 - x0, 1e-6)
    ys = np.where(xs < x0, y0 + slope * (xs - x0), ys)
    return np.asarray(np.where(xs > x1, y1 + slope * (xs - x1), ys))


def _measure(profile: np.ndarray, height: float, text: str) -> tuple[float, float, float, float]:
    """(shift of the baseline, x-height, ascender, descender) in px from a profile of `_profile`.

    The baseline is where the ink falls most steeply, the x-height where it rises most steeply above it.
    """
    rows = np.arange(-1.25 * height, 0.9 * height, 0.5)[: len(profile)]
    smooth = np.convolve(np.pad(profile, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    change = np.convolve(np.pad(smooth, 1, mode="edge"), [1, 0, -1], mode="valid")  # smooth[i + 1] - smooth[i - 1]
    near = np.abs(rows) <= 0.3 * height
    if not near.any() or profile.max() <= 0:
        return 0.0, 0.42 * height, 0.7 * height, 0.22 * height
    bottom = int(np.argmin(np.where(near, change, np.inf)))
    baseline = rows[bottom]
    small = sum(c in SMALL_LETTERS for c in text) >= max(2, 0.3 * len(text.replace(" ", "")))
    low, high = (0.25, 0.75) if small else (0.4, 0.9)
    above = (rows < baseline - low * height) & (rows > baseline - high * height)
    x_height = baseline - rows[int(np.argmax(np.where(above, change, -np.inf)))] if above.any() else 0.42 * height
    if not small:
        x_height /= CAPITAL_X_HEIGHTS
    core = smooth[(rows < baseline) & (rows > baseline - x_height)]
    level = float(core.mean()) if core.size else 0.0
    ascender = _reach(smooth, rows, baseline, -1, 0.07 * level, x_height, ASCENDER_RANGE)
    descender = _reach(smooth, rows, baseline, 1, 0.05 * level, x_height, DESCENDER_RANGE)
    return float(baseline), float(x_height), ascender, descender


def _reach(
    profile: np.ndarray,
    rows: np.ndarray,
    baseline: float,
    side: int,
    level: float,
    x_height: float,
    span: tuple[float, float],
) -> float:
    """How far the ink goes on above (-1) or below (1) the baseline, within `span` x-heights."""
    distance = (rows - baseline) * side
    beyond = np.sort(distance[(profile < level) & (distance > span[0] * x_height)])
    first = beyond[0] if beyond.size else span[1] * x_height
    return float(np.clip(first, span[0] * x_height, span[1] * x_height))


@dataclass(frozen=True)
class TruthMaps:
    """What the network should answer, at half of the image's resolution.

    Attributes:
        core: [h, w] uint8, 1 from the baseline up to the x-height.
        ends: [h, w] uint8, 1 on a short bar at the start and the end of each line.
        heights: [h, w, 2] float16, logarithm of ascender and descender over 10 px, 0 outside the core.
        counted: [h, w] uint8, 0 where a line is too small to be asked for.
    """

    core: np.ndarray
    ends: np.ndarray
    heights: np.ndarray
    counted: np.ndarray


def truth_maps(
    lines: Sequence[TrueLine], height: int, width: int, stride: int = 2, reference_px: float = 10.0
) -> TruthMaps:
    """The maps of an image of `height` x `width` px."""
    h, w = height // stride, width // stride
    number = np.zeros((h, w), np.int32)
    ends = np.zeros((h, w), np.uint8)
    counted = np.ones((h, w), np.uint8)
    table = np.zeros((len(lines) + 1, 2), np.float16)
    for i, line in enumerate(lines, 1):
        points = np.asarray(line.baseline, float)
        band = _band(points, line.x_height - stride / 2, -stride / 2)  # fillPoly also paints what the outline touches
        if line.x_height < MINIMUM_X_HEIGHT_PX:
            _fill(counted, _band(points, line.ascender, line.descender), stride, 0)
            continue
        _fill(number, band, stride, i)
        table[i] = np.log(np.maximum([line.ascender, line.descender], 1.0) / reference_px)
        reach = max(1.0, 0.22 * line.x_height)
        for tip, inward in ((points[0], points[1]), (points[-1], points[-2])):
            direction = (inward - tip) / max(float(np.hypot(*(inward - tip))), 1e-6)
            bar = np.stack([tip - direction * 2 * reach, tip + direction * reach])
            _fill(ends, _band(bar[np.argsort(bar[:, 0])], 1.25 * line.x_height, 0.25 * line.x_height), stride, 1)
    return TruthMaps((number > 0).astype(np.uint8), ends, table[number], counted)


def _band(points: np.ndarray, above: float, below: float) -> np.ndarray:
    """The polygon between two parallels of a polyline, [2 N, 2]."""
    return np.concatenate([points - np.array([0, above]), points[::-1] + np.array([0, below])])


def _fill(target: np.ndarray, polygon: np.ndarray, stride: int, value: int) -> None:
    scaled = polygon / stride - 0.5  # pixel i of the map has its centre at (i + 0.5) * stride
    cv2.fillPoly(target, [np.round(scaled * 16).astype(np.int32)], value, shift=4)
