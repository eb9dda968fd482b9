"""What paper, ink, typewriters, cameras and scanners do to print, as functions of grey images.

`draw_*` chooses parameters from an rng, `apply_*` is a pure function of image and parameters: a sample can be replayed.
Images are [height, width] float32, 0 black, 255 white. Nothing moves a pixel but `warp`, which keeps the width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Damage:
    """Parameters of one damaged line. Zero means: not at all.

    Attributes:
        seed: of all noise in this sample.
        spread_px: ink spread (positive) or loss (negative), radius of a grey dilation or erosion.
        mottle: how much the ink's strength varies from place to place, 0 to 1.
        dots_px: pitch of the dots of a needle printer, 0 for none.
        holes: share of the ink that is missing in specks.
        paper: grey of the paper; ink: grey of the ink.
        gradient: difference of the light across the image, grey levels.
        texture: standard deviation of the paper's coarse noise, grey levels.
        noise: standard deviation of the fine noise, grey levels.
        bleed: strength of the mirrored print of the reverse side, 0 to 1.
        specks: dark specks a thousand pixels.
        blur_px: standard deviation of the blur.
        resolution: scale at which the image was scanned, 1 is as rendered.
        threshold: level of a bilevel scan, 0 to 1 between ink and paper.
        jpeg: quality of JPEG compression, 1 to 100.
        wave_px: amplitude of a curved baseline; slope: rise per pixel along the line.
        inverted: white print on a dark ground.
    """

    seed: int
    spread_px: float = 0.0
    mottle: float = 0.0
    dots_px: float = 0.0
    holes: float = 0.0
    paper: float = 255.0
    ink: float = 0.0
    gradient: float = 0.0
    texture: float = 0.0
    noise: float = 0.0
    bleed: float = 0.0
    specks: float = 0.0
    blur_px: float = 0.0
    resolution: float = 1.0
    threshold: float = 0.0
    jpeg: int = 0
    wave_px: float = 0.0
    slope: float = 0.0
    inverted: bool = False


def draw_damage(rng: Rng, scale: float = 1.0) -> Damage:
    """Damage of a look: clean digital print, bilevel book scan, grey typescript, camera or microfilm, till paper.

    Args:
        scale: size of the print, 1 where an em is 40 px: radii and resolutions follow it.
    """
    drawn = _draw_look(rng)
    if rng.random() < 0.03:
        drawn = replace(drawn, dots_px=float(rng.uniform(2.5, 5.0) * scale))
    resolution = min(1.0, drawn.resolution / min(scale, 1.25) * 1.05)
    return replace(
        drawn, spread_px=drawn.spread_px * min(scale, 1.1), blur_px=drawn.blur_px * scale, resolution=resolution
    )


def _draw_look(rng: Rng) -> Damage:
    seed = int(rng.integers(2**31))
    look = rng.choice(5, p=(0.2, 0.23, 0.3, 0.14, 0.13))
    chance = rng.random
    between = rng.uniform
    slope = float(rng.normal(0, 0.006)) if chance() < 0.4 else 0.0
    wave = float(between(0, 2.5)) if chance() < 0.12 else 0.0
    inverted = bool(chance() < 0.02)
    if look == 0:
        return Damage(
            seed,
            paper=float(between(225, 256)),
            ink=float(between(0, 70)),
            blur_px=float(between(0, 0.7)) if chance() < 0.6 else 0.0,
            resolution=float(between(0.45, 1.0)) if chance() < 0.5 else 1.0,
            jpeg=int(between(30, 95)) if chance() < 0.5 else 0,
            slope=slope * 0.3,
            inverted=inverted,
        )
    if look == 1:
        return Damage(
            seed,
            spread_px=float(between(-0.9, 1.2)),
            mottle=float(between(0, 0.5)),
            holes=float(between(0, 0.05)) if chance() < 0.4 else 0.0,
            noise=float(between(2, 26)),
            texture=float(between(0, 14)),
            blur_px=float(between(0.4, 1.1)),
            gradient=float(between(-30, 30)),
            specks=float(between(0, 1.2)) if chance() < 0.4 else 0.0,
            threshold=float(between(0.35, 0.72)),
            slope=slope,
            wave_px=wave,
            resolution=float(between(0.6, 1.0)),
            bleed=float(between(0, 0.4)) if chance() < 0.15 else 0.0,
        )
    if look == 2:
        return Damage(
            seed,
            spread_px=float(between(-0.8, 1.3)),
            mottle=float(between(0, 0.6)),
            holes=float(between(0, 0.12)) if chance() < 0.4 else 0.0,
            paper=float(between(120, 250)),
            ink=float(between(5, 110)),
            gradient=float(between(-40, 40)),
            texture=float(between(0, 10)),
            noise=float(between(0, 14)),
            bleed=float(between(0, 0.45)) if chance() < 0.35 else 0.0,
            specks=float(between(0, 0.6)) if chance() < 0.3 else 0.0,
            blur_px=float(between(0.3, 1.4)),
            resolution=float(between(0.4, 1.0)),
            jpeg=int(between(20, 95)) if chance() < 0.8 else 0,
            threshold=float(between(0.4, 0.65)) if chance() < 0.08 else 0.0,
            slope=slope,
            wave_px=wave,
            inverted=inverted,
        )
    if look == 3:
        return Damage(
            seed,
            spread_px=float(between(-0.6, 1.6)),
            mottle=float(between(0, 0.65)),
            paper=float(between(90, 240)),
            ink=float(between(0, 120)),
            gradient=float(between(-70, 70)),
            texture=float(between(4, 22)),
            noise=float(between(4, 26)),
            bleed=float(between(0, 0.5)) if chance() < 0.3 else 0.0,
            specks=float(between(0, 2)),
            blur_px=float(between(0.5, 1.6)),
            resolution=float(between(0.4, 0.9)),
            jpeg=int(between(12, 70)) if chance() < 0.7 else 0,
            slope=slope,
            wave_px=wave,
            inverted=bool(chance() < 0.05),
        )
    return Damage(
        seed,
        spread_px=float(between(-1.0, 0.8)),
        mottle=float(between(0, 0.65)),
        holes=float(between(0, 0.15)) if chance() < 0.5 else 0.0,
        paper=float(between(190, 256)),
        ink=float(between(30, 190)),
        gradient=float(between(-25, 25)),
        texture=float(between(0, 8)),
        noise=float(between(0, 10)),
        blur_px=float(between(0.2, 1.4)),
        resolution=float(between(0.4, 1.0)),
        jpeg=int(between(15, 85)) if chance() < 0.8 else 0,
        slope=slope,
        threshold=float(between(0.4, 0.75)) if chance() < 0.1 else 0.0,
    )


def coarse_noise(rng: Rng, shape: tuple[int, int], cell_px: float) -> Image:
    """Smooth noise with mean about 0 and standard deviation about 1, features of about `cell_px`."""
    height, width = shape
    small = rng.standard_normal((max(2, round(height / cell_px)), max(2, round(width / cell_px)))).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def warp(ink: Image, slope: float, wave_px: float, phase: float) -> Image:
    """Columns moved up and down along a line and a sine of one period; the width stays."""
    height, width = ink.shape
    x = np.arange(width, dtype=np.float32)
    shift = slope * (x - width / 2) + wave_px * np.sin(2 * np.pi * (x / max(width, 400) + phase))
    map_x, map_y = np.meshgrid(x, np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(ink, map_x, map_y + shift[None, :], cv2.INTER_LINEAR, borderValue=0.0), np.float32)


def spread(ink: Image, radius_px: float) -> Image:
    """Grey dilation (positive) or erosion (negative) mixed by the fraction of a pixel."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    steps, rest = divmod(abs(radius_px), 1.0)
    operate = cv2.dilate if radius_px > 0 else cv2.erode
    full = operate(ink, kernel, iterations=int(steps)) if steps else ink
    return np.asarray((1 - rest) * full + rest * operate(full, kernel), np.float32)


def as_jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """The image after compression with that quality, 1 to 100."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def apply_damage(ink: Image, damage: Damage) -> npt.NDArray[np.uint8]:
    """A damaged grey image of clean ink.

    Args:
        ink: [height, width] float32, 0 paper to 1 ink.

    Returns:
        [height, width] uint8, 0 black, 255 white.
    """
    rng = np.random.default_rng(damage.seed)
    shape = (ink.shape[0], ink.shape[1])
    if damage.slope or damage.wave_px:
        ink = warp(ink, damage.slope, damage.wave_px, float(rng.random()))
    if abs(damage.spread_px) > 0.05:
        ink = spread(ink, damage.spread_px)
    if damage.dots_px:
        rows, columns = (np.cos(2 * np.pi * np.arange(n, dtype=np.float32) / damage.dots_px) for n in shape)
        ink = ink * np.clip(0.9 + 0.5 * (rows[:, None] + columns[None, :]), 0, 1)
    if damage.mottle:
        strength = 1 - damage.mottle * np.clip(0.3 + 0.45 * coarse_noise(rng, shape, float(rng.uniform(6, 60))), 0, 1)
        ink = ink * strength
    if damage.holes:
        cells = coarse_noise(rng, shape, float(rng.uniform(1.0, 3.0)))
        ink = np.where(cells > 2.2 - 6 * damage.holes, ink * np.float32(rng.uniform(0, 0.6)), ink)
    if damage.bleed:
        back = cv2.GaussianBlur(
            np.roll(ink[:, ::-1], (int(rng.integers(-9, 10)), int(rng.integers(-50, 50))), (0, 1)), (0, 0), 1.6
        )
        ink = np.maximum(ink, damage.bleed * back)
    if damage.specks:
        count = rng.poisson(damage.specks * ink.size / 1000)
        ys, xs = rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)
        ink = ink.copy()
        ink[ys, xs] = 1.0
        if rng.random() < 0.5:
            ink[np.minimum(ys + 1, shape[0] - 1), xs] = 1.0
    if damage.blur_px > 0.15:
        ink = cv2.GaussianBlur(ink, (0, 0), damage.blur_px)
    grey = damage.paper + (damage.ink - damage.paper) * ink
    if damage.gradient:
        slant = rng.uniform(-1, 1)
        grey = grey + damage.gradient * (
            np.linspace(-0.5, 0.5, shape[1])[None, :] + slant * np.linspace(-0.5, 0.5, shape[0])[:, None]
        )
    if damage.texture:
        grey = grey + damage.texture * coarse_noise(rng, shape, float(rng.uniform(3, 40)))
    if damage.resolution < 0.97:
        small = (max(8, round(shape[1] * damage.resolution)), max(8, round(shape[0] * damage.resolution)))
        grey = cv2.resize(grey.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    if damage.noise:
        grey = grey + damage.noise * rng.standard_normal(grey.shape, dtype=np.float32)
    if damage.threshold:
        level = damage.ink + damage.threshold * (damage.paper - damage.ink)
        grey = np.where(grey > level, 255.0, 0.0)
    result = np.asarray(np.clip(grey, 0, 255), np.uint8)
    if damage.inverted:
        result = 255 - result
    if damage.jpeg:
        result = as_jpeg(result, damage.jpeg)
    if result.shape != shape:
        method = cv2.INTER_LINEAR if rng.random() < 0.8 else cv2.INTER_NEAREST
        result = np.asarray(cv2.resize(result, (shape[1], shape[0]), interpolation=method), np.uint8)
    return result
