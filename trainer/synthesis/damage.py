"""What paper, ink, typewriters, cameras and scanners do to print, as functions of grey images.

`draw_*` chooses parameters from an rng, `apply_*` is a pure function of image and parameters: a sample can be replayed.
Images are [height, width] float32, 0 black, 255 white. Slope, wave and fold move pixels, up and down only;
`moved_boxes` does the same to boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Image = npt.NDArray[np.float32]

_F = np.float32


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
        phase: of the wave, in periods.
        ribbon: how worn the typewriter's ribbon is, 0 to 1: its weave shows, and the ink comes and goes along the line.
        fold: strength of a crease, 0 to 1: ink is lost along it and the paper darker or lighter; fold_at: where it is,
            as a share of the width, or of the height if `fold_level`; fold_shift_px: how much higher the line stands
            behind an upright one.
        stain: how dark stains are, 0 to 1.
        fibres: paper fibres a thousand pixels.
        shadow: how dark one end of the line is, 0 to 1, as at a book's spine.
        motion_px: length of a blur along the line, of a camera or a jerking scanner.
        grain_px: size of the grain of film, 0 for none: the noise is then clumped.
        scratches: number of scratches in the film.
        adaptive: the bilevel scan follows its surroundings (the threshold lies below their mean): paper noise comes
            through, and wide strokes turn hollow.
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
    phase: float = 0.0
    ribbon: float = 0.0
    fold: float = 0.0
    fold_at: float = 0.5
    fold_level: bool = False
    fold_shift_px: float = 0.0
    stain: float = 0.0
    fibres: float = 0.0
    shadow: float = 0.0
    motion_px: float = 0.0
    grain_px: float = 0.0
    scratches: int = 0
    adaptive: bool = False


# ---- drawing lots


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
        drawn,
        spread_px=drawn.spread_px * min(scale, 1.1),
        blur_px=drawn.blur_px * scale,
        motion_px=drawn.motion_px * scale,
        fold_shift_px=drawn.fold_shift_px * scale,
        resolution=resolution,
    )


_LOOKS_UP_TO = np.cumsum((0.2, 0.23, 0.3, 0.14, 0.13))


def _draw_look(rng: Rng) -> Damage:
    seed = int(rng.integers(2**31))
    chance = rng.random
    between = rng.uniform
    look = int(np.searchsorted(_LOOKS_UP_TO, chance()))
    slope = float(rng.normal(0, 0.006)) if chance() < 0.4 else 0.0
    wave = float(between(0, 2.5)) if chance() < 0.12 else 0.0
    inverted = bool(chance() < 0.02)
    shape = Damage(seed, slope=slope, wave_px=wave, phase=float(chance()))
    if look == 0:
        return replace(
            shape,
            wave_px=0.0,
            paper=float(between(225, 256)),
            ink=float(between(0, 70)),
            blur_px=float(between(0, 0.7)) if chance() < 0.6 else 0.0,
            resolution=float(between(0.45, 1.0)) if chance() < 0.5 else 1.0,
            jpeg=int(between(30, 95)) if chance() < 0.5 else 0,
            slope=slope * 0.3,
            inverted=inverted,
        )
    if look == 1:
        return replace(
            _aged(rng, shape, 0.05),
            spread_px=float(between(-0.9, 1.2)),
            mottle=float(between(0, 0.5)),
            holes=float(between(0, 0.05)) if chance() < 0.4 else 0.0,
            noise=float(between(2, 26)),
            texture=float(between(0, 14)),
            blur_px=float(between(0.4, 1.1)),
            gradient=float(between(-30, 30)),
            specks=float(between(0, 1.2)) if chance() < 0.4 else 0.0,
            threshold=float(between(0.35, 0.72)),
            adaptive=bool(chance() < 0.15),
            resolution=float(between(0.6, 1.0)),
            bleed=float(between(0, 0.4)) if chance() < 0.15 else 0.0,
        )
    if look == 2:
        return replace(
            _aged(rng, shape, 0.1),
            spread_px=float(between(-0.8, 1.3)),
            mottle=float(between(0, 0.6)),
            ribbon=float(between(0.1, 0.75)) if chance() < 0.25 else 0.0,
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
            inverted=inverted,
        )
    if look == 3:
        film = chance() < 0.5
        return replace(
            _aged(rng, shape, 0.08),
            spread_px=float(between(-0.6, 1.6)),
            mottle=float(between(0, 0.65)),
            paper=float(between(90, 240)),
            ink=float(between(0, 120)),
            gradient=float(between(-70, 70)),
            texture=float(between(4, 22)),
            noise=float(between(4, 26)),
            grain_px=float(between(0.8, 2.0)) if film else 0.0,
            scratches=int(rng.integers(0, 4)) if film and chance() < 0.4 else 0,
            motion_px=float(between(1.0, 4.0)) if not film and chance() < 0.15 else 0.0,
            bleed=float(between(0, 0.5)) if chance() < 0.3 else 0.0,
            specks=float(between(0, 2)),
            blur_px=float(between(0.5, 1.6)),
            resolution=float(between(0.4, 0.9)),
            jpeg=int(between(12, 70)) if chance() < 0.7 else 0,
            inverted=bool(chance() < 0.05),
        )
    return replace(
        shape,
        wave_px=0.0,
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
        threshold=float(between(0.4, 0.75)) if chance() < 0.1 else 0.0,
        fold=float(between(0.2, 0.8)) if chance() < 0.06 else 0.0,
        fold_at=float(between(0.1, 0.9)),
    )


def _aged(rng: Rng, damage: Damage, share: float) -> Damage:
    """What time does to paper: each of it to that share of the lines."""
    chance, between = rng.random, rng.uniform
    folded = chance() < share
    level = folded and chance() < 0.4
    return replace(
        damage,
        fold=float(between(0.2, 0.9)) if folded else 0.0,
        fold_at=float(between(0.1, 0.9)),
        fold_level=bool(level),
        fold_shift_px=float(rng.normal(0, 1.0)) if folded and not level else 0.0,
        stain=float(between(0.1, 0.55)) if chance() < share else 0.0,
        fibres=float(between(0.2, 1.5)) if chance() < share else 0.0,
        shadow=float(between(0.2, 0.8)) if chance() < 0.7 * share else 0.0,
    )


# ---- geometry


def in_place(damage: Damage) -> Damage:
    """The same damage without what moves ink: slope, wave, and the step at a fold."""
    return replace(damage, slope=0.0, wave_px=0.0, fold_shift_px=0.0)


def shift_of(damage: Damage, width: int) -> Image:
    """[width] float32: how much higher each column stands than it was, in pixels."""
    shift = _shift(width, damage.slope, damage.wave_px, damage.phase)
    if damage.fold_shift_px:
        shift[int(damage.fold_at * width) :] += _F(damage.fold_shift_px)
    return shift


def _shift(width: int, slope: float, wave_px: float, phase: float) -> Image:
    x = np.arange(width, dtype=np.float32)
    shift = _F(slope) * (x - _F(width / 2))
    if wave_px:
        shift += _F(wave_px) * np.sin(_F(2 * np.pi) * (x * _F(1 / max(width, 400)) + _F(phase)))
    return shift


def displaced(ink: Image, shift: Image) -> Image:
    """The ink with each column so much higher; what comes in from outside is paper."""
    height, width = ink.shape
    map_x = np.empty((height, width), np.float32)
    map_x[:] = np.arange(width, dtype=np.float32)
    map_y = np.arange(height, dtype=np.float32)[:, None] + shift[None, :]
    return np.asarray(cv2.remap(ink, map_x, map_y, cv2.INTER_LINEAR, borderValue=0.0), np.float32)


def warp(ink: Image, slope: float, wave_px: float, phase: float) -> Image:
    """Columns moved up and down along a line and a sine of one period; the width stays."""
    return displaced(ink, _shift(ink.shape[1], slope, wave_px, phase))


def moved_boxes(boxes: npt.NDArray[np.float64], damage: Damage, width: int) -> npt.NDArray[np.float64]:
    """Boxes [count, 4] where slope, wave and fold take what is in them; an empty box stays empty.

    Args:
        width: of the image.
    """
    if not (damage.slope or damage.wave_px or damage.fold_shift_px) or not len(boxes):
        return boxes
    shift = shift_of(damage, width).astype(np.float64)
    # A pixel's ink is spread over the two rows that its new place lies between, hence whole rows.
    moved = boxes.copy()
    for i, (left, top, right, bottom) in enumerate(boxes.tolist()):
        first = min(max(int(left), 0), width - 1)
        over = shift[first : max(min(int(np.ceil(right)), width), first + 1)]
        if right > left:
            moved[i, 1], moved[i, 3] = np.floor(np.floor(top) - over.max()), np.ceil(np.ceil(bottom) - over.min())
        else:
            moved[i, 1], moved[i, 3] = top - over.max(), bottom - over.max()
    return moved


# ---- ink and paper


def coarse_noise(rng: Rng, shape: tuple[int, int], cell_px: float) -> Image:
    """Smooth noise with mean about 0 and standard deviation about 1, features of about `cell_px`."""
    height, width = shape
    small = rng.standard_normal((max(2, round(height / cell_px)), max(2, round(width / cell_px))), dtype=np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


def spread(ink: Image, radius_px: float) -> Image:
    """Grey dilation (positive) or erosion (negative) mixed by the fraction of a pixel."""
    steps, rest = divmod(abs(radius_px), 1.0)
    operate = cv2.dilate if radius_px > 0 else cv2.erode
    full = operate(ink, _DISC, iterations=int(steps)) if steps else ink
    return np.asarray(cv2.addWeighted(full, 1 - rest, operate(full, _DISC), rest, 0), np.float32)


def as_jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """The image after compression with that quality, 1 to 100."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def _worn_ink(ink: Image, damage: Damage, rng: Rng) -> Image:
    """The ink before it is on paper: spread, needle dots, mottle, ribbon, holes."""
    shape = (ink.shape[0], ink.shape[1])
    if abs(damage.spread_px) > 0.05:
        ink = spread(ink, damage.spread_px)
    if damage.dots_px:
        rows, columns = (np.cos(_F(2 * np.pi / damage.dots_px) * np.arange(n, dtype=np.float32)) for n in shape)
        ink = ink * np.clip(_F(0.9) + _F(0.5) * (rows[:, None] + columns[None, :]), 0, 1)
    if damage.mottle:
        strength = coarse_noise(rng, shape, float(rng.uniform(6, 60)))
        strength *= _F(0.45)
        strength += _F(0.3)
        np.clip(strength, 0, 1, out=strength)
        strength *= _F(-damage.mottle)
        strength += _F(1)
        strength *= ink
        ink = strength
    if damage.ribbon:
        ink = ink * _ribbon(rng, shape, damage.ribbon)
    if damage.holes:
        cells = coarse_noise(rng, shape, float(rng.uniform(1.0, 3.0)))
        ink = np.where(cells > _F(2.2 - 6 * damage.holes), ink * _F(rng.uniform(0, 0.6)), ink)
    return ink


def _ribbon(rng: Rng, shape: tuple[int, int], strength: float) -> Image:
    """[height, width] what a worn ribbon leaves of the ink: it fades along the line, and its weave shows."""
    height, width = shape
    along = coarse_noise(rng, (2, width), float(rng.uniform(30, 200)))[:1]
    faded = _F(1) - _F(strength) * np.clip(_F(0.35) + _F(0.3) * along, 0, 1)
    pitch = float(rng.uniform(2.2, 3.6))
    rows = np.sin(_F(2 * np.pi / pitch) * np.arange(height, dtype=np.float32) + _F(rng.uniform(0, 6)))
    columns = np.sin(_F(2 * np.pi / pitch) * np.arange(width, dtype=np.float32))
    weave = _F(1) - _F(0.35 * strength) * (_F(0.5) + _F(0.5) * rows[:, None] * columns[None, :])
    return np.asarray(faded * weave, np.float32)


def _stained_ink(ink: Image, damage: Damage, rng: Rng) -> Image:
    """The ink with what else is dark on the paper: the reverse side, specks."""
    shape = (ink.shape[0], ink.shape[1])
    if damage.bleed:
        back = np.roll(ink[:, ::-1], (int(rng.integers(-9, 10)), int(rng.integers(-50, 50))), (0, 1))
        back = cv2.GaussianBlur(np.ascontiguousarray(back), (0, 0), 1.6)
        back *= _F(damage.bleed)
        ink = np.maximum(ink, back)
    if damage.specks:
        count = rng.poisson(damage.specks * ink.size / 1000)
        ys, xs = rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)
        ink = ink.copy()
        ink[ys, xs] = 1.0
        if rng.random() < 0.5:
            ink[np.minimum(ys + 1, shape[0] - 1), xs] = 1.0
    return ink


def _along_fold(damage: Damage, shape: tuple[int, int], rng: Rng) -> Image:
    """[height, width] float32, 1 on the crease, 0 away from it; the crease is a little ragged."""
    height, width = shape
    across, along = (height, width) if damage.fold_level else (width, height)
    middle = (
        damage.fold_at * across
        + 0.8 * coarse_noise(rng, (2, along), 12.0)[0]
        + rng.uniform(-0.05, 0.05) * (np.arange(along, dtype=np.float32) - along / 2)
    )
    distance = (np.arange(across, dtype=np.float32)[:, None] - middle[None, :].astype(np.float32)) / _F(
        rng.uniform(0.8, 2.2)
    )
    crease = np.exp(-_F(0.5) * distance * distance)
    return np.ascontiguousarray(crease if damage.fold_level else crease.T, np.float32)


def _stains(rng: Rng, shape: tuple[int, int]) -> Image:
    """[height, width] 0 to 1: one or two spots with a darker rim."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 3))):
        radius = float(rng.uniform(0.3, 2.0)) * height
        x, y = float(rng.uniform(0, width)), float(rng.uniform(-0.5, 1.5)) * height
        columns = np.arange(width, dtype=np.float32)[None, :] - _F(x)
        rows = np.arange(height, dtype=np.float32)[:, None] - _F(y)
        ragged = _F(1) + _F(0.12) * coarse_noise(rng, shape, max(4.0, radius / 3))
        distance = np.sqrt(columns * columns + rows * rows) * ragged * _F(1 / radius)
        inside = np.clip((_F(1) - distance) * _F(6), 0, 1)
        total = np.maximum(total, inside * (_F(0.45) + _F(0.55) * np.clip(distance, 0, 1) ** 4))
    return total


def _add_fibres(grey: Image, count: int, rng: Rng) -> None:
    """Short hairs in the paper, lighter or darker than it, in place."""
    height, width = grey.shape
    starts = rng.uniform(0, (width, height), (count, 2))
    ends = starts + rng.normal(0, 6, (count, 2))
    levels = rng.uniform(-45, 35, count)
    layer = np.zeros((height, width), np.float32)
    for (x0, y0), (x1, y1), level in zip(starts.tolist(), ends.tolist(), levels.tolist(), strict=True):
        cv2.line(layer, (round(x0), round(y0)), (round(x1), round(y1)), level, 1)
    grey += layer


def _on_paper(ink: Image, damage: Damage, rng: Rng) -> Image:
    """Grey levels of the ink on its paper: colour, light, texture, fibres, stains, fold, scratches."""
    shape = (ink.shape[0], ink.shape[1])
    crease = _along_fold(damage, shape, rng) if damage.fold else None
    if crease is not None:
        ink = ink * (_F(1) - _F(0.9 * damage.fold) * crease)
    grey = ink * _F(damage.ink - damage.paper)
    grey += _F(damage.paper)
    if damage.gradient:
        slant = rng.uniform(-1, 1)
        grey += np.linspace(-0.5 * damage.gradient, 0.5 * damage.gradient, shape[1], dtype=np.float32)[None, :]
        tilt = 0.5 * slant * damage.gradient
        grey += np.linspace(-tilt, tilt, shape[0], dtype=np.float32)[:, None]
    if damage.texture:
        rough = coarse_noise(rng, shape, float(rng.uniform(3, 40)))
        rough *= _F(damage.texture)
        grey += rough
    if damage.fibres:
        _add_fibres(grey, int(rng.poisson(damage.fibres * grey.size / 1000)), rng)
    if damage.stain:
        grey *= _F(1) - _F(damage.stain) * _stains(rng, shape)
    if crease is not None:
        grey += _F(damage.fold * rng.uniform(-70, 45)) * crease
    if damage.shadow:
        reach = float(rng.uniform(0.03, 0.25)) * shape[1] + 10
        fall = _F(1) - _F(damage.shadow) * np.exp(np.arange(shape[1], dtype=np.float32) * _F(-1 / reach))
        grey *= (fall if rng.random() < 0.5 else fall[::-1])[None, :]
    for _ in range(damage.scratches):
        x, lean = float(rng.uniform(0, shape[1])), float(rng.uniform(-0.4, 0.4)) * shape[0]
        level = 255.0 if rng.random() < 0.6 else 0.0
        cv2.line(grey, (round(x), 0), (round(x + lean), shape[0]), level, 1)
    return grey


def _scanned(grey: Image, damage: Damage, rng: Rng) -> npt.NDArray[np.uint8]:
    """The picture that a scanner or camera makes, perhaps at a lower resolution."""
    shape = grey.shape
    if damage.resolution < 0.97:
        small = (max(8, round(shape[1] * damage.resolution)), max(8, round(shape[0] * damage.resolution)))
        grey = np.asarray(cv2.resize(grey, small, interpolation=cv2.INTER_AREA), np.float32)
    if damage.noise:
        noise = rng.standard_normal(grey.shape, dtype=np.float32)
        if damage.grain_px:
            noise = cv2.GaussianBlur(noise, (0, 0), damage.grain_px)
            noise *= _F(1.8 * damage.grain_px)
        noise *= _F(damage.noise)
        grey = noise + grey
    if damage.threshold:
        level: Image | float = damage.ink + damage.threshold * (damage.paper - damage.ink)
        if damage.adaptive:
            below = 0.5 * (1 - damage.threshold) * (damage.paper - damage.ink)
            level = cv2.blur(grey, (25, 25)) - _F(below)
        result = np.where(grey > level, np.uint8(255), np.uint8(0))
    else:
        np.clip(grey, 0, 255, out=grey)
        result = grey.astype(np.uint8)
    if damage.inverted:
        result = 255 - result
    if damage.jpeg:
        result = as_jpeg(result, damage.jpeg)
    if result.shape != shape:
        method = cv2.INTER_LINEAR if rng.random() < 0.8 else cv2.INTER_NEAREST
        result = np.asarray(cv2.resize(result, (shape[1], shape[0]), interpolation=method), np.uint8)
    return result


def apply_damage(ink: Image, damage: Damage) -> npt.NDArray[np.uint8]:
    """A damaged grey image of clean ink.

    Args:
        ink: [height, width] float32, 0 paper to 1 ink.

    Returns:
        [height, width] uint8, 0 black, 255 white.
    """
    rng = np.random.default_rng(damage.seed)
    if damage.slope or damage.wave_px or damage.fold_shift_px:
        ink = displaced(ink, shift_of(damage, ink.shape[1]))
    ink = _stained_ink(_worn_ink(ink, damage, rng), damage, rng)
    if damage.blur_px > 0.15:
        ink = cv2.GaussianBlur(ink, (0, 0), damage.blur_px)
    if damage.motion_px > 1:
        length = round(damage.motion_px) | 1
        ink = cv2.blur(ink, (length, 1))
    return _scanned(_on_paper(ink, damage, rng), damage, rng)
