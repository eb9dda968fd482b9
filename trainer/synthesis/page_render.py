"""A plan carried out: the same plan gives the same pixels and the same true lines."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.synthesis.fonts import load
from trainer.synthesis.page_plan import (
    Bar,
    Damage,
    PagePlan,
    Picture,
    Stamp,
    Stroke,
    Text,
    TrueLine,
    extents,
    word_width,
)


def render(plan: PagePlan) -> tuple[np.ndarray, list[TrueLine]]:
    """The page: [height, width] uint8 grey, and its lines."""
    layer = Image.new("L", (plan.width, plan.height), 0)
    draw = ImageDraw.Draw(layer)
    lines: list[TrueLine] = []
    for item in plan.items:
        match item:
            case Text():
                line = _render_text(draw, item)
                if not item.ornament:
                    lines.append(line)
            case Bar():
                draw.rectangle(
                    (item.left, item.top, max(item.left, item.right - 1), max(item.top, item.bottom - 1)),
                    _level(item.ink),
                )
            case Stroke():
                draw.line(item.points, _level(item.ink), item.thickness_px, joint="curve")
            case Picture():
                layer.paste(Image.fromarray(_render_picture(item)), (item.left, item.top))
            case Stamp():
                _render_stamp(layer, item)
    return _worn(np.asarray(layer), lines, plan.damage)


def _level(ink: float) -> int:
    return int(np.clip(ink, 0, 1) * 255)


def _render_text(draw: ImageDraw.ImageDraw, item: Text) -> TrueLine:
    style = item.style
    font = load(style.face, style.size_px)
    x_height, ascender, descender = extents(style.face, style.size_px)
    level = 0 if item.paper else _level(style.ink)
    x = item.x
    if style.uneven_px or style.tracking_px:
        end = _render_by_letter(draw, item, font, level)
    else:
        words = item.text.split(" ")
        for word in words:
            draw.text((x, item.y), word, level, font, anchor="ls")
            x += word_width(style.face, style.size_px, word, 0.0) + item.gap_px
        end = x - item.gap_px
    if item.underline:
        draw.rectangle((item.x, item.y + descender * 0.5, end, item.y + descender * 0.5 + 1), level)
    _, top, _, bottom = font.getbbox(item.text, anchor="ls")
    return TrueLine(((item.x, item.y), (end, item.y)), x_height, max(ascender, -top), max(descender, bottom))


def _render_by_letter(draw: ImageDraw.ImageDraw, item: Text, font: ImageFont.FreeTypeFont, level: int) -> float:
    style, rng = item.style, np.random.default_rng(item.seed)
    x = item.x
    for character in item.text:
        if character == " ":
            x += item.gap_px
            continue
        dx, dy = rng.normal(0, style.uneven_px, 2)
        draw.text((x + dx * 0.5, item.y + dy), character, int(level * rng.uniform(0.7, 1.0)), font, anchor="ls")
        x += word_width(style.face, style.size_px, character, style.tracking_px)
    return x


def _render_picture(item: Picture) -> np.ndarray:
    """Ink of a picture, [height, width] uint8."""
    rng = np.random.default_rng(item.seed)
    height, width = max(item.bottom - item.top, 8), max(item.right - item.left, 8)
    if item.kind == "black":
        return np.full((height, width), 235, np.uint8)
    if item.kind == "barcode":
        widths = rng.integers(1, 4, width)
        bars = np.repeat(np.arange(width) % 2, widths)[:width].astype(np.uint8) * 240
        return np.repeat(bars[None], height, axis=0)
    if item.kind == "logo":
        return _render_logo(rng, height, width)
    if item.kind == "drawing":
        canvas = np.zeros((height, width), np.uint8)
        for _ in range(int(rng.integers(4, 25))):
            a, b = rng.integers(0, [width, height]), rng.integers(0, [width, height])
            if rng.random() < 0.5:
                cv2.line(canvas, a.tolist(), b.tolist(), 255, int(rng.integers(1, 4)))
            else:
                axes = np.maximum(np.abs(a - b) // 2, 2)
                cv2.ellipse(
                    canvas,
                    a.tolist(),
                    axes.tolist(),
                    float(rng.uniform(0, 180)),
                    0,
                    float(rng.uniform(90, 360)),
                    255,
                    int(rng.integers(1, 3)),
                )
        return canvas
    tone = np.zeros((height, width), np.float32)
    for cells in (3, 7, 17, 40):
        tone += (
            cv2.resize(
                rng.normal(0, 1, (cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
            )
            / cells**0.6
        )
    tone = np.clip((tone - tone.min()) / max(float(np.ptp(tone)), 1e-6) * rng.uniform(0.7, 1.4), 0, 1)
    if item.kind == "bilevel":
        tone = (tone + rng.normal(0, 0.12, tone.shape) > rng.uniform(0.25, 0.75)).astype(np.float32)
    if item.kind == "halftone":
        pitch = rng.uniform(3, 6)
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        screen = 0.5 + 0.25 * (
            np.sin((xs + ys) * 2 * np.pi / pitch / 1.4) + np.sin((xs - ys) * 2 * np.pi / pitch / 1.4)
        )
        tone = (tone > screen).astype(np.float32)
    return (tone * 255).astype(np.uint8)


def _render_logo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dark shape with light shapes in it, or the other way round."""
    canvas = np.full((height, width), 255 * int(rng.random() < 0.6), np.uint8)
    for _ in range(int(rng.integers(3, 12))):
        colour = int(rng.random() < 0.5) * 255
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.uniform(0.03, 0.3) * width) + 1, int(rng.uniform(0.05, 0.45) * height) + 1)
        if rng.random() < 0.5:
            cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, int(rng.choice([-1, 2, 4])))
        else:
            corner = (centre[0] + axes[0], centre[1] + axes[1])
            cv2.rectangle(canvas, centre, corner, colour, int(rng.choice([-1, 2])))
    return canvas


def _render_stamp(layer: Image.Image, item: Stamp) -> None:
    size = int(item.radius_px * 2.4)
    small = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(small)
    level, edge = _level(item.ink), size * 0.05
    if item.round:
        draw.ellipse((edge, edge, size - edge, size - edge), outline=level, width=3)
        draw.ellipse((edge * 4, edge * 4, size - edge * 4, size - edge * 4), outline=level, width=1)
    else:
        draw.rectangle((edge, size * 0.3, size - edge, size * 0.7), outline=level, width=3)
    font = load(item.face, max(8, int(size / 9)))
    for i, word in enumerate(item.words.split()[:3]):
        draw.text((size / 2, size * (0.42 + 0.13 * i)), word[:10], level, font, anchor="ms")
    turned = small.rotate(item.angle_deg, Image.Resampling.BILINEAR)
    place = (int(item.x - size / 2), int(item.y - size / 2))
    layer.paste(turned, place, turned)


def _worn(ink: np.ndarray, lines: list[TrueLine], damage: Damage) -> tuple[np.ndarray, list[TrueLine]]:
    """The sheet with its damage: ink [H, W] uint8 (255 is full) → grey [H, W] uint8, and the lines where they went."""
    rng = np.random.default_rng(damage.seed)
    height, width = ink.shape
    if damage.thicken:
        kernel = np.ones((abs(damage.thicken),) * 2, np.uint8)
        ink = (
            cv2.dilate(ink, kernel) if damage.thicken > 0 else cv2.addWeighted(ink, 0.4, cv2.erode(ink, kernel), 0.6, 0)
        )
    if damage.bleed:
        ink = np.maximum(ink, (cv2.GaussianBlur(ink[:, ::-1], (0, 0), 1.5) * damage.bleed).astype(np.uint8))
    if damage.skew_deg or damage.bow_px or damage.wave_px:
        ink, lines = _warped(ink, lines, damage)
    grey = damage.paper - (damage.paper - damage.ink) / 255 * ink.astype(np.float32)
    if damage.texture:
        for cells in (9, 60):
            field_ = cv2.resize(
                rng.normal(0, 1, (cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
            )
            grey += field_ * (6 * damage.texture)
    if damage.light:
        grey *= _light(rng, height, width, damage.light)
    if damage.stains:
        for _ in range(int(rng.integers(1, 5))):
            spot = np.zeros((height // 8 + 1, width // 8 + 1), np.float32)
            centre = (int(rng.integers(spot.shape[1])), int(rng.integers(spot.shape[0])))
            cv2.circle(
                spot,
                centre,
                int(rng.uniform(0.02, 0.15) * spot.shape[1]) + 1,
                float(rng.uniform(0.1, 0.45) * damage.stains),
                -1,
            )
            grey *= 1 - cv2.resize(cv2.GaussianBlur(spot, (0, 0), 2), (width, height))
    _scanner_marks(grey, rng, damage)
    if damage.blur_px > 0.2:
        grey = cv2.GaussianBlur(grey, (0, 0), damage.blur_px)
    if damage.noise:
        noise = np.empty((height, width), np.int16)
        cv2.setRNGSeed(damage.seed % (2**31))
        cv2.randn(noise, 0, damage.noise)
        grey += noise
    if damage.bilevel:
        threshold = damage.ink + (damage.paper - damage.ink) * damage.bilevel
        grey = np.where(grey > threshold, 255, 0)
    image = np.clip(grey, 0, 255).astype(np.uint8)
    if damage.jpeg:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, damage.jpeg])
        image = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    return image, lines


def _light(rng: np.random.Generator, height: int, width: int, strength: float) -> np.ndarray:
    """Uneven light, [H, W] float32 about 1: a slope, and a shadow along one edge as at a book's spine."""
    corners = rng.uniform(1 - 0.4 * strength, 1, (3, 3)).astype(np.float32)
    field_ = cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        fall = 1 - 0.7 * strength * np.exp(-np.arange(width, dtype=np.float32) / (width * rng.uniform(0.02, 0.1)))
        field_ = field_ * (fall if rng.random() < 0.5 else fall[::-1])
    return field_


def _scanner_marks(grey: np.ndarray, rng: np.random.Generator, damage: Damage) -> None:
    """Dark borders, holes and specks, in place."""
    height, width = grey.shape
    left, top, right, bottom = damage.borders_px
    dark = float(rng.uniform(0, 70))
    slant = int(rng.uniform(-1, 1) * 12)
    for size, corners in (
        (left, [(0, 0), (left, 0), (max(0, left + slant), height), (0, height)]),
        (right, [(width, 0), (width - right, 0), (width - max(0, right + slant), height), (width, height)]),
        (top, [(0, 0), (0, top), (width, max(0, top + slant)), (width, 0)]),
        (bottom, [(0, height), (0, height - bottom), (width, height - max(0, bottom + slant)), (width, height)]),
    ):
        if size:
            cv2.fillPoly(grey, [np.array(corners, np.int32)], dark)
    for x, y, radius in damage.holes:
        cv2.circle(grey, (int(x), int(y)), int(radius), dark if rng.random() < 0.8 else 255.0, -1)
    for _ in range(damage.specks // 4):
        along, off = rng.random(), float(rng.exponential(0.02))
        x, y = [(off, along), (1 - off, along), (along, off), (along, 1 - off)][int(rng.integers(4))]
        axes = (int(rng.exponential(0.006) * width) + 1, int(rng.exponential(0.003) * width) + 1)
        cv2.ellipse(grey, (int(x * width), int(y * height)), axes, float(rng.uniform(0, 180)), 0, 360, dark, -1)
    for _ in range(damage.specks):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(grey, centre, int(rng.integers(1, 3)), float(rng.uniform(0, 120)), -1)


def _warped(ink: np.ndarray, lines: list[TrueLine], damage: Damage) -> tuple[np.ndarray, list[TrueLine]]:
    """Skew, bow and wave in one resampling."""
    height, width = ink.shape
    angle = np.deg2rad(damage.skew_deg)

    def displacement(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = x - width / 2, y - height / 2
        bend = damage.bow_px * (1 - (2 * u / width) ** 2) * (2 * v / height) + damage.wave_px * np.sin(
            x * 6 / width + damage.seed % 7
        )
        return u * (np.cos(angle) - 1) - v * np.sin(angle), u * np.sin(angle) + v * (np.cos(angle) - 1) + bend

    # A coarse grid is enough for so smooth a field. Its nodes are the centres of cells, as cv2.resize takes them; the
    # inverse is a fixed point.
    cells = 65
    xs, ys = np.meshgrid(
        (np.arange(cells) + 0.5) * width / cells - 0.5, (np.arange(cells) + 0.5) * height / cells - 0.5
    )
    dx, dy = np.zeros_like(xs), np.zeros_like(ys)
    for _ in range(5):
        dx, dy = displacement(xs - dx, ys - dy)
    map_x = np.arange(width, dtype=np.float32)[None, :] - cv2.resize(dx.astype(np.float32), (width, height))
    map_y = np.arange(height, dtype=np.float32)[:, None] - cv2.resize(dy.astype(np.float32), (width, height))
    moved = []
    for line in lines:
        (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
        count = max(2, int((x1 - x0) / 40))
        x, y = np.linspace(x0, x1, count), np.linspace(y0, y1, count)
        dx, dy = displacement(x, y)
        points = tuple(zip((x + dx).tolist(), (y + dy).tolist(), strict=True))
        moved.append(TrueLine(points, line.x_height, line.ascender, line.descender))
    return cv2.remap(ink, map_x, map_y, cv2.INTER_LINEAR), moved
