"""Synthetic pages with the exact place of every line: what the line finder learns layout from.

`draw_page` decides everything (a `PagePlan` is plain data, see `page_plan`), `page_render.render` carries it out.
NumPy, OpenCV and Pillow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trainer.synthesis.fonts import FontFace
from trainer.synthesis.page_kinds import KINDS
from trainer.synthesis.page_plan import (
    Damage,
    PagePlan,
    Stamp,
    Text,
    is_for_running_text,
)
from trainer.synthesis.page_sheet import Sheet, Texts


def draw_page(
    rng: np.random.Generator,
    fonts: Sequence[FontFace],
    texts: Texts,
    kind: str | None = None,
    area_px: float | None = None,
) -> PagePlan:
    """A page's plan.

    Args:
        kind: one of `KINDS`; None draws one by its share.
        area_px: width times height; None draws 1.2 to 2.2 megapixels.
    """
    names = list(KINDS)
    shares = np.array([KINDS[name][1] for name in names])
    kind = kind or str(rng.choice(names, p=shares / shares.sum()))
    compose, _, low, high = KINDS[kind]
    area = area_px or rng.uniform(1.2e6, 2.2e6)
    aspect = rng.uniform(low, high)
    width = round(float(np.sqrt(area / aspect)))
    by_kind: dict[str, list[FontFace]] = {}
    for face in filter(is_for_running_text, fonts):
        by_kind.setdefault(face.kind, []).append(face)
    sheet = Sheet(rng, by_kind, texts, width, round(width * aspect))
    compose(sheet)
    if sheet.chance(0.12):
        _stamp(sheet)
    if kind != "blank" and sheet.chance(0.4):
        _loose_signs(sheet)
    return PagePlan(kind, sheet.width, sheet.height, tuple(sheet.items), _draw_damage(sheet))


def _loose_signs(s: Sheet) -> None:
    """A page number at the head or the foot, perhaps numbers or marks down the margin, where the text leaves room."""
    texts = [item for item in s.items if isinstance(item, Text)]
    if not texts:
        return
    style = texts[int(s.rng.integers(len(texts)))].style
    tops, lefts = min(t.y for t in texts), min(t.x for t in texts)
    if tops > style.leading_px * 2.2:
        x = s.width * float(s.rng.choice([0.08, 0.5, 0.5, 0.92]))
        s.set_centred(x, s.between(style.leading_px, tops - style.leading_px * 1.1), s.folio(), style)
    lowest = max(t.y for t in texts)
    if s.height - lowest > style.leading_px * 2.5 and s.chance(0.6):
        y = s.between(lowest + style.leading_px * 1.4, s.height - style.leading_px * 0.6)
        s.set_centred(s.width * float(s.rng.choice([0.1, 0.5, 0.5, 0.9])), y, s.folio(), style)
    if lefts > style.size_px * 3 and s.chance(0.4):
        column = [t for t in texts if t.x < lefts + style.size_px * 4][:: int(s.rng.integers(1, 6))]
        for i, text in enumerate(column):
            s.set_right(lefts - style.size_px * 1.2, text.y, str(i + 1) if s.chance(0.8) else s.sign(), style)


def _stamp(s: Sheet) -> None:
    faces = s.fonts.get("modern") or next(iter(s.fonts.values()))
    face = faces[int(s.rng.integers(len(faces)))]
    radius = s.width * s.between(0.04, 0.11)
    x, y = s.between(0.1, 0.9) * s.width, s.between(0.05, 0.95) * s.height
    angle = s.between(8, 40) * (1 if s.chance(0.5) else -1)
    s.items.append(Stamp(x, y, radius, angle, s.words(2, 4).upper(), face, s.between(0.3, 0.9), s.chance(0.6)))


def _draw_damage(s: Sheet) -> Damage:
    """Half of the pages are scans in grey, a quarter bilevel, the rest as good as born digital."""
    rng, seed = s.rng, int(s.rng.integers(2**31))
    state = str(rng.choice(["clean", "bilevel", "grey"], p=[0.2, 0.25, 0.55]))
    if state == "clean":
        return Damage(
            paper=s.between(225, 255), ink=s.between(0, 90), blur_px=s.between(0, 0.8) * s.chance(0.5), seed=seed
        )
    skew = float(np.clip(rng.normal(0, 1.0), -4, 4)) * s.chance(0.8)
    bow, wave = s.between(-6, 6) * s.chance(0.25), s.between(0, 4) * s.chance(0.2)
    scanned = Damage(
        skew_deg=skew,
        bow_px=bow,
        wave_px=wave,
        blur_px=s.between(0.3, 1.5) * s.chance(0.6),
        thicken=int(rng.choice([-2, 0, 0, 2, 3], p=[0.1, 0.4, 0.25, 0.2, 0.05])),
        specks=int(s.between(0, 200) * s.chance(0.25)),
        seed=seed,
    )
    if s.chance(0.3):
        left, top, right, bottom = (int(s.between(0, 0.06) * s.width) if s.chance(0.5) else 0 for _ in range(4))
        scanned = replace(scanned, borders_px=(left, top, right, bottom))
    if s.chance(0.2):
        count, radius = int(rng.integers(1, 5)), s.width * s.between(0.006, 0.014)
        x = s.width * s.between(0.02, 0.06)
        holes = tuple((x + s.between(-3, 3), s.height * s.between(0.1, 0.9), radius) for _ in range(count))
        scanned = replace(scanned, holes=holes)
    if state == "bilevel":
        noise = s.between(5, 45)
        ink, threshold, light = s.between(10, 110), s.between(0.35, 0.65), s.between(0, 0.4)
        return replace(scanned, paper=230, ink=ink, noise=noise, bilevel=threshold, light=light)
    paper = s.between(120, 250)
    return replace(
        scanned,
        paper=paper,
        ink=s.between(0.1, 0.7) * paper * s.between(0.5, 1),
        texture=s.between(0, 1) * s.chance(0.6),
        light=s.between(0, 0.8) * s.chance(0.5),
        stains=s.between(0, 1) * s.chance(0.2),
        bleed=s.between(0.05, 0.3) * s.chance(0.25),
        noise=s.between(0, 12) * s.chance(0.7),
        jpeg=int(rng.integers(15, 90)) * s.chance(0.5),
    )
