"""The kinds of synthetic pages: books, typescripts, letters, newspapers, reports, tables, receipts, filings, charts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from trainer.synthesis.page_plan import (
    Bar,
    Print,
    Stroke,
    text_width,
)
from trainer.synthesis.page_sheet import Sheet


def _book(s: Sheet) -> None:
    """Running head, text in one column, perhaps a chapter heading, footnotes, a picture, marginalia, a drop cap."""
    left, right = s.width * s.between(0.04, 0.16), s.width * s.between(0.84, 0.96)
    top, bottom = s.height * s.between(0.05, 0.12), s.height * s.between(0.84, 0.95)
    lines = s.between(22, 55)
    leading = (bottom - top) / lines
    body = s.style("book", leading / s.between(1.05, 1.6))
    body = Print(body.face, body.size_px, leading)
    notes = s.chance(0.25)
    margin = s.chance(0.12)
    if margin:
        right -= s.width * 0.14
    head = Print(body.face, max(8, round(body.size_px * s.between(0.7, 1.0))), leading)
    title = s.words(2, 5).upper() if s.chance(0.7) else s.words(2, 5)
    if s.chance(0.8):
        s.set_centred((left + right) / 2, top, title, head)
        if s.chance(0.8):
            folio = str(int(s.rng.integers(1, 600)))
            s.set(left, top, folio, head) if s.chance(0.5) else s.set_right(right, top, folio, head)
        if s.chance(0.2):
            s.rule(left, top + leading * 0.4, right, top + leading * 0.4, s.between(1, 3))
        top += leading * s.between(1.3, 2.5)
    if s.chance(0.25):
        large = s.style("book", body.size_px * s.between(1.1, 2.5))
        top += large.leading_px * s.between(0.5, 4)
        for _ in range(int(s.rng.integers(1, 4))):
            text = s.words(1, 5)
            s.set_centred((left + right) / 2, top, text.upper() if s.chance(0.6) else text, large)
            top += large.leading_px * s.between(1.0, 1.8)
        if s.chance(0.3):
            s.rule((left * 2 + right) / 3, top, (left + right * 2) / 3, top)
        top += leading
    if notes:
        small = Print(body.face, max(8, round(body.size_px * 0.75)), leading * 0.8)
        first = bottom - s.between(2, 8) * small.leading_px
        if s.chance(0.6):
            s.rule(left, first - small.leading_px * 1.2, left + (right - left) * s.between(0.2, 1), first)
        s.flow(left, right, first, bottom, small)
        bottom = first - leading * 1.8
    y = top
    if s.chance(0.08):
        cap = s.style("book", leading * 2.4)
        width = s.set(left, y + leading, s.words(1, 1)[:1].upper(), cap) - left + cap.size_px * 0.15
        first = s.flow(left + width, right, y, y + leading * 1.1, body, indent=0)
        y = max(first, y + 2 * leading)
    while y < bottom:
        if s.chance(0.12) and bottom - y > leading * 8:
            height = leading * s.between(4, 12)
            edge = (right - left) * s.between(0, 0.25)
            s.picture(left + edge, y - leading * 0.5, right - edge, min(y + height, bottom))
            y += height + leading * 1.2
            if s.chance(0.7):
                s.set_centred((left + right) / 2, y, s.words(3, 9), head)
                y += leading * 1.5
        elif s.chance(0.1):
            y = _verse(s, left + (right - left) * s.between(0.1, 0.3), y, bottom, body)
        else:
            y = s.flow(left, right, y, bottom, body, s.chance(0.9), s.between(0, 2.5), 0.0, int(s.rng.integers(1, 6)))
            if s.chance(0.1):
                y += leading * s.between(0.3, 1.5)
    if margin:
        note = s.style("book", max(8, body.size_px * 0.7))
        y = top + leading * s.between(0, 5)
        while y < bottom:
            y = s.flow(right + body.size_px, s.width * 0.98, y, y + 3 * note.leading_px, note, False, 0)
            y += leading * s.between(2, 12)
    if s.chance(0.2):
        s.set_centred((left + right) / 2, min(bottom + 2 * leading, s.height * 0.98), s.number(), head)


def _verse(s: Sheet, left: float, y: float, bottom: float, style: Print) -> float:
    for _ in range(int(s.rng.integers(3, 12))):
        if y > bottom:
            break
        s.set(left + s.between(0, 3) * style.size_px, y, s.words(3, 7), style)
        y += style.leading_px
    return y + style.leading_px * 0.5


def _typed(s: Sheet, lines: float) -> Print:
    pitch = s.height * 0.9 / lines
    ink = s.between(0.35, 1.0)
    uneven = s.between(0, 0.06) * pitch if s.chance(0.7) else 0.0
    style = s.style("typewriter", pitch / s.between(1.0, 2.1))
    return Print(style.face, style.size_px, pitch, ink, uneven)


def _typescript(s: Sheet) -> None:
    """A typed page: number at the top, paragraphs, underlined headings, notes by hand."""
    style = _typed(s, s.between(24, 68))
    left, right = s.width * s.between(0.06, 0.2), s.width * s.between(0.85, 0.97)
    y, bottom = s.height * s.between(0.04, 0.15), s.height * s.between(0.6, 0.97)
    if s.chance(0.6):
        s.set_centred(s.width * s.between(0.45, 0.55), y, s.folio() if s.chance(0.8) else s.number(), style)
        y += style.leading_px * s.between(1.2, 3)
    for _ in range(int(s.rng.integers(0, 4))):
        text = s.words(1, 7)
        spaced = Print(
            style.face, style.size_px, style.leading_px, style.ink, style.uneven_px, style.size_px * 0.6 * s.chance(0.2)
        )
        x = s.between(left, left + (right - left) * 0.4)
        s.set(x, y, text.upper() if s.chance(0.4) else text, spaced, underline=s.chance(0.5))
        y += style.leading_px * s.between(1, 2.2)
    while y < bottom:
        gap = float(s.rng.choice([0.0, 0.0, 0.5, 1.0]))
        inset = float(s.rng.choice([0.0, 0.0, 0.0, 0.08])) * (right - left)
        y = s.flow(left + inset, right, y, bottom, style, False, s.between(0, 5), gap, int(s.rng.integers(1, 5)))
        if s.chance(0.25) and y < bottom:
            s.set(left, y, s.words(1, 6), style, underline=s.chance(0.6))
            y += style.leading_px * s.between(1, 2)
        if s.chance(0.15) and y < bottom - 6 * style.leading_px:
            y = _grid(s, left, right, y, style, int(s.rng.integers(2, 5)), int(s.rng.integers(3, 9)), s.chance(0.15))
    if s.chance(0.3):
        s.set(s.between(left, s.width * 0.7), min(y + 2 * style.leading_px, s.height * 0.98), s.words(1, 3), style)
    for _ in range(int(s.rng.integers(0, 3)) if s.chance(0.3) else 0):
        s.scribble(
            s.between(0, s.width * 0.8), s.between(0, s.height), s.between(0.03, 0.25) * s.width, s.height * 0.02
        )


def _letter(s: Sheet) -> None:
    """Letterhead, date at the right, address, salutation, body, close, signature by hand."""
    kind = str(s.rng.choice(["typewriter", "typewriter", "modern", "book"]))
    style = _typed(s, s.between(28, 55))
    if kind != "typewriter":
        style = s.style(kind, style.leading_px / 1.3)
    left, right = s.width * s.between(0.08, 0.17), s.width * s.between(0.83, 0.93)
    y, step = s.height * s.between(0.04, 0.1), style.leading_px
    if s.chance(0.7):
        head = s.style(str(s.rng.choice(["book", "modern"])), style.size_px * s.between(0.7, 2.2))
        middle = s.width * float(s.rng.choice([0.2, 0.5, 0.5, 0.75]))
        for _ in range(int(s.rng.integers(1, 5))):
            text = s.words(1, 5)
            s.set_centred(middle, y, text.upper() if s.chance(0.6) else text, head)
            y += head.leading_px * s.between(0.9, 1.3)
            head = Print(head.face, max(8, round(head.size_px * s.between(0.6, 1))), head.leading_px)
        y += step * s.between(0.5, 2)
    if s.chance(0.8):
        s.set_right(right - s.between(0, 0.2) * s.width, y, f"{s.words(1, 2)}, {s.date()}", style)
        y += step * float(s.rng.choice([0, 1, 2]))
    ladder = s.between(0.5, 5) * style.size_px if s.chance(0.3) else 0.0
    for i in range(int(s.rng.integers(1, 6))):
        s.set(left + i * ladder, y, s.words(1, 4), style)
        y += step
    y += step * s.between(0.5, 1.5)
    s.set(left, y, f"Dear {s.words(1, 2)}:", style)
    bottom = s.height * s.between(0.55, 0.8)
    y = s.flow(
        left, right, y + step * s.between(1, 2), bottom, style, s.chance(0.3), s.between(0, 5), s.between(0, 1), 4
    )
    x = s.between(left, s.width * 0.6)
    for _ in range(int(s.rng.integers(1, 4))):
        s.set(x, y, s.words(1, 3), style)
        y += step * s.between(1, 2)
        x += ladder
    if s.chance(0.7):
        s.scribble(x, y + step, s.between(0.15, 0.35) * s.width, step * s.between(1, 2.5))
        s.set(x, y + step * s.between(1.5, 3.5), s.words(1, 3), style)
    if s.chance(0.4):
        for i in range(int(s.rng.integers(1, 4))):
            s.set(left, y + step * (4 + i), s.number(), style)


def _newspaper(s: Sheet) -> None:
    """Columns of small print with thin rules or narrow gutters, headlines over one or all columns."""
    columns = int(s.rng.choice([1, 2, 3, 4, 5], p=[0.15, 0.3, 0.3, 0.15, 0.1]))
    _columns(s, "book", columns, s.between(30, 80), s.chance(0.5), s.between(0.012, 0.03), headlines=0.3)


def _report(s: Sheet) -> None:
    """Modern print in one to three columns with headings, bars with white text, a table or a chart."""
    kind = str(s.rng.choice(["modern", "modern", "book"]))
    columns = int(s.rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))
    _columns(s, kind, columns, s.between(35, 95), s.chance(0.15), s.between(0.015, 0.05), headlines=0.5)


def _columns(s: Sheet, kind: str, columns: int, lines: float, rules: bool, gutter: float, headlines: float) -> None:
    clipping = s.chance(0.2)
    margin = 0.005 if clipping else s.between(0.03, 0.09)
    left, right = s.width * margin, s.width * (1 - margin)
    y, bottom = (
        s.height * (0.03 if clipping else s.between(0.04, 0.1)),
        s.height * (0.995 if clipping else s.between(0.88, 0.97)),
    )
    leading = (bottom - y) / (s.between(10, 30) if clipping else lines)
    leading = min(leading, (right - left) / columns / 9)
    body = s.style(kind, leading / s.between(1.05, 1.45))
    body = Print(body.face, body.size_px, leading, s.between(0.6, 1.0))
    gutter_px = max(s.width * gutter, body.size_px * s.between(0.7, 2))
    if not clipping and s.chance(0.8):
        for _ in range(int(s.rng.integers(1, 4))):
            head = s.style(str(s.rng.choice(["book", "modern"])), body.size_px * s.between(0.9, 3.5))
            text = _shortened(s.words(2, 9), head, right - left)
            if s.chance(0.2):
                s.items.append(Bar(left, y - head.size_px * 0.4, right, y + head.leading_px, s.between(0.6, 1.0)))
                s.set(left + head.size_px * 0.4, y + head.size_px * 0.6, text, head, paper=True)
                y += head.leading_px * 1.4
            else:
                y += head.leading_px * 0.5
                s.set(left, y, text, head) if s.chance(0.5) else s.set_centred((left + right) / 2, y, text, head)
                y += head.leading_px * s.between(0.6, 1)
        if s.chance(0.3):
            s.rule(left, y - leading * 0.3, right, y, s.between(1, 4))
        y += leading
    shares = s.rng.dirichlet(np.full(columns, 30.0 if s.chance(0.7) else 4.0)) if columns > 1 else np.ones(1)
    shares = np.maximum(shares, 0.6 / columns)
    widths = (right - left - gutter_px * (columns - 1)) * shares / shares.sum()
    x = left
    for i, width in enumerate(widths):
        if i and rules:
            s.rule(x - gutter_px / 2, y - leading, x - gutter_px / 2, bottom, s.between(1, 2))
        _column(
            s,
            x,
            x + width,
            y + leading * s.between(0, 1) * s.chance(0.3),
            bottom * s.between(0.8, 1) ** s.chance(0.4),
            body,
            kind,
            headlines,
        )
        x += width + gutter_px
    if s.chance(0.5) and not clipping:
        foot = Print(body.face, max(8, round(body.size_px * 0.8)), leading)
        where = min(bottom + 2 * leading, s.height * 0.985)
        s.set(left, where, s.words(2, 6), foot) if s.chance(0.5) else s.set_centred(
            s.width / 2, where, s.number(), foot
        )


def _shortened(text: str, style: Print, room: float) -> str:
    words = text.split()
    while len(words) > 1 and text_width(style, " ".join(words)) > room:
        words.pop()
    return " ".join(words)


def _column(
    s: Sheet, left: float, right: float, y: float, bottom: float, body: Print, kind: str, headlines: float
) -> None:
    step, justify = body.leading_px, s.chance(0.7)
    indent = s.between(0, 1.5)
    while y < bottom - step:
        if s.chance(headlines * 0.4):
            head = s.style(str(s.rng.choice([kind, "modern"])), body.size_px * s.between(1.0, 2.0))
            y += step * s.between(0.3, 1)
            for _ in range(int(s.rng.integers(1, 4))):
                text = _shortened(s.words(1, 6), head, right - left)
                y += head.leading_px * 0.5
                if y < bottom:
                    s.set_centred((left + right) / 2, y, text, head) if s.chance(0.4) else s.set(left, y, text, head)
                y += head.leading_px * 0.5
            y += step * s.between(0.2, 0.8)
        elif s.chance(0.06) and bottom - y > 8 * step:
            height = step * s.between(4, 14)
            s.picture(left, y - step * 0.4, right, min(y + height, bottom))
            y += height + step * 1.5
        elif s.chance(0.06) and bottom - y > 8 * step and right - left > 14 * body.size_px:
            y = _grid(
                s,
                left,
                right,
                y + step * 0.5,
                body,
                int(s.rng.integers(2, 5)),
                int(s.rng.integers(3, 10)),
                s.chance(0.4),
            )
            y += step
        else:
            gap = s.between(0.2, 1.0) if s.chance(0.3) else 0.0
            y = s.flow(left, right, y, bottom, body, justify, indent, gap, int(s.rng.integers(1, 4)))
            if s.chance(0.1) and y < bottom:
                s.rule(left + (right - left) * 0.3, y, right - (right - left) * 0.3, y)
                y += step


def _grid(s: Sheet, left: float, right: float, y: float, style: Print, columns: int, rows: int, ruled: bool) -> float:
    """A table: words in the first column, figures in the others."""
    step = style.leading_px * s.between(1.0, 1.5)
    edges = (
        np.concatenate([[0.0], np.sort(s.rng.uniform(0.35, 0.85, columns - 2)), [1.0]])
        if columns > 2
        else np.array([0.0, 1.0])
    )
    edges = np.concatenate([[0.0], np.linspace(0.45, 1.0, columns)]) if np.min(np.diff(edges)) < 0.15 else edges
    xs = left + (right - left) * edges
    wordy = s.chance(0.25)
    top = y - step * 0.75
    first = y
    for row in range(rows):
        if y > s.height * 0.97:
            break
        for i, (a, b) in enumerate(pairwise(xs)):
            room = b - a - style.size_px * 1.2
            if s.chance(0.08) or room < style.size_px:
                continue
            if i > 0 and s.chance(0.12):
                text = s.sign()
            elif i == 0 or row == 0 or (wordy and s.chance(0.7)):
                text = _shortened(s.words(1, 5), style, room)
            else:
                text = s.amount() if s.chance(0.8) else s.number()
            if text_width(style, text) < room:
                s.set(a + style.size_px * 0.5, y, text, style) if i == 0 or wordy else s.set_right(
                    b - style.size_px * 0.4, y, text, style
                )
        if ruled or (row == 0 and s.chance(0.5)):
            s.rule(left, y + step * 0.32, right, y + step * 0.32, s.between(1, 2))
        y += step
    if ruled and s.chance(0.7):
        s.rule(left, top, right, top)
        for x in xs:
            s.rule(x, top, x, top + (y - first), s.between(1, 2))
    return y + step * 0.5


def _table(s: Sheet) -> None:
    """A page that is mostly a table or a form, perhaps with a heading."""
    kind = str(s.rng.choice(["modern", "typewriter", "book"]))
    rows = s.between(20, 75)
    leading = s.height * 0.9 / rows
    style = s.style(kind, leading / s.between(1.1, 1.7))
    style = Print(style.face, style.size_px, leading, s.between(0.5, 1.0))
    left, right = s.width * s.between(0.03, 0.1), s.width * s.between(0.9, 0.97)
    y = s.height * s.between(0.04, 0.12)
    for _ in range(int(s.rng.integers(0, 4))):
        head = s.style(kind, style.size_px * s.between(0.9, 2))
        y += head.leading_px
        s.set_centred(s.width / 2, y, _shortened(s.words(2, 8), head, right - left), head)
    y += leading * 2
    while y < s.height * 0.93:
        if s.chance(0.3):
            y = s.flow(left, right, y, s.height * 0.95, style, s.chance(0.5), 0, 0, 1) + leading
        elif s.chance(0.3):
            y = _form(s, left, right, y, style)
        else:
            y = (
                _grid(s, left, right, y, style, int(s.rng.integers(2, 8)), int(s.rng.integers(4, 30)), s.chance(0.45))
                + leading
            )


def _ledger(s: Sheet) -> None:
    """Accounts: many narrow columns of figures in tight rows, some bold, perhaps prose or a chart beside them."""
    kind = str(s.rng.choice(["modern", "modern", "book", "typewriter"]))
    left, right = s.width * s.between(0.03, 0.09), s.width * s.between(0.9, 0.97)
    y, bottom = s.height * s.between(0.03, 0.1), s.height * s.between(0.7, 0.97)
    leading = (bottom - y) / s.between(35, 95)
    plain = s.style(kind, leading / s.between(1.0, 1.4))
    plain = Print(plain.face, plain.size_px, leading, s.between(0.35, 1.0))
    heavy = Print(s.style(kind, plain.size_px).face, plain.size_px, leading)
    head = s.style(kind, plain.size_px * s.between(1.2, 2.6))
    for _ in range(int(s.rng.integers(0, 3))):
        y += head.leading_px
        s.set(left, y, _shortened(s.words(1, 6), head, right - left), head)
    y += leading * s.between(1.5, 3)
    edge = right
    if s.chance(0.45) and right - left > 30 * plain.size_px:
        edge = left + (right - left) * s.between(0.45, 0.7)
        beside = edge + plain.size_px * s.between(0.8, 3)
        _column(s, beside, right, y, bottom * s.between(0.7, 1), plain, kind, 0.4)
    room = edge - left
    labels = room * s.between(0.2, 0.45)
    count = int(np.clip(s.rng.integers(3, 12), 2, (room - labels) / (plain.size_px * 3.2)))
    edges = left + labels + (room - labels) * (np.arange(count) + 1) / count
    pattern = str(s.rng.choice(["{:.1f}", "{:.2f}", "{:,.0f}", "{:.0f}", "({:,.0f})", "{:.1f}%"]))
    while y < bottom:
        style = heavy if s.chance(0.25) else plain
        ruled = s.chance(0.08)
        titles = ruled or s.chance(0.05)
        s.set(left, y, _shortened(s.words(1, 5), style, labels - plain.size_px), style)
        for x in edges if not s.chance(0.08) else ():
            if s.chance(0.06):
                continue
            value = 10 ** s.between(-0.5, 3.5)
            text = str(1900 + int(s.rng.integers(120))) + s.sign() * s.chance(0.3) if titles else pattern.format(value)
            text = str(s.rng.choice(["-", "–", "0", "•", "n/a", s.sign()])) if s.chance(0.08) else text
            if text_width(style, text) < (room - labels) / count - 0.6 * plain.size_px:
                s.set_right(float(x), y, text, style)
        if ruled:
            s.rule(left, y + leading * 0.28, edge, y + leading * 0.28, s.between(1, 2))
        y += leading


def _form(s: Sheet, left: float, right: float, y: float, style: Print) -> float:
    for _ in range(int(s.rng.integers(3, 9))):
        if y > s.height * 0.95:
            break
        x = left
        while x < right - style.size_px * 8:
            end = s.set(x, y, s.words(1, 3) + ":", style)
            to = min(right, end + style.size_px * s.between(4, 16))
            if s.chance(0.6):
                s.rule(end + style.size_px * 0.4, y + 2, to, y + 2)
            if s.chance(0.3):
                s.scribble(end + style.size_px, y - 2, (to - end) * 0.7, style.size_px * 0.7)
            x = to + style.size_px * s.between(1, 4)
        y += style.leading_px * s.between(1.2, 2)
    return y


def _receipt(s: Sheet) -> None:
    """A till roll: centred head, items with the amount at the right edge, totals, thanks."""
    style = s.style(
        str(s.rng.choice(["typewriter", "typewriter", "modern"])), s.width / s.between(17, 30), s.between(1.0, 1.7)
    )
    style = Print(style.face, style.size_px, style.leading_px, s.between(0.3, 1.0))
    left, right = s.width * s.between(0.03, 0.14), s.width * s.between(0.86, 0.97)
    room, middle = right - left, (left + right) / 2
    y = s.height * s.between(0.03, 0.12)
    if s.chance(0.25):
        height = style.leading_px * s.between(2, 7)
        s.picture(left + room * s.between(0, 0.3), y, right - room * s.between(0, 0.3), y + height, "logo")
        y += height + style.leading_px * 1.5
    for _ in range(int(s.rng.integers(3, 8))):
        large = Print(
            style.face,
            round(style.size_px * (s.between(1.1, 2.0) if s.chance(0.2) else 1)),
            style.leading_px,
            style.ink,
        )
        text = s.words(1, 5) if s.chance(0.7) else f"TEL {s.number()} {s.number()}"
        text = _shortened(text.upper() if s.chance(0.7) else text, large, room)
        s.set_centred(middle, y, text, large)
        y += max(large.size_px * 1.1, style.leading_px)
    bottom = s.height * s.between(0.7, 0.97)
    while y < bottom:
        roll = s.rng.random()
        if roll < 0.08:
            if s.chance(0.5):
                s.rule(left, y - style.size_px * 0.3, right, y, s.between(1, 2))
            else:
                signs = str(s.rng.choice(["-", "=", "*", "- ", "_", "."])) * int(
                    room / text_width(style, "-") * s.between(0.2, 0.9)
                )
                s.set(left, y, signs[: len(signs) if s.chance(0.7) else 8], style, ornament=True)
        elif roll < 0.1:
            height = style.leading_px * s.between(1, 3)
            s.picture(left + room * 0.15, y, right - room * 0.15, y + height, str(s.rng.choice(["barcode", "logo"])))
            y += height + style.leading_px * 0.5
        elif roll < 0.2:
            s.set_centred(middle, y, _shortened(s.words(1, 6).upper(), style, room), style)
        elif roll < 0.35:
            s.set(left, y, _shortened(f"{s.words(1, 2)}: {s.number()} {s.date()}", style, room), style)
        elif roll < 0.41:
            s.set(left, y, s.sign(), style)
            s.set(left + room * s.between(0.08, 0.2), y, _shortened(s.words(1, 3), style, room * 0.4), style)
            s.set_right(right, y, s.sign() if s.chance(0.3) else s.amount(), style)
        elif roll < 0.48:
            for at, text in ((0.0, s.number()), (0.34, s.amount()), (0.68, s.amount())):
                if text_width(style, text) < room * 0.28:
                    s.set(left + at * room, y, text, style)
        else:
            large = Print(
                style.face,
                round(style.size_px * (s.between(1.2, 2.0) if s.chance(0.08) else 1)),
                style.leading_px,
                style.ink,
            )
            y += large.size_px - style.size_px
            text = s.words(1, 4)
            end = s.set(left, y, _shortened(text.upper() if s.chance(0.7) else text, large, room * 0.6), large)
            sum_ = s.amount() + (" SR" if s.chance(0.1) else "")
            if end + large.size_px < right - text_width(large, sum_):
                s.set_right(right, y, sum_, large)
        y += style.leading_px * (s.between(1.2, 2) if s.chance(0.15) else 1.0)
    for _ in range(int(s.rng.integers(0, 3)) if s.chance(0.4) else 0):
        s.scribble(
            s.between(0, 0.7) * s.width, s.between(0, 1) * s.height, s.between(0.1, 0.5) * s.width, style.size_px * 2
        )


def _filing(s: Sheet) -> None:
    """A court filing: stamped head, a caption with the parties at the left, numbers down the margin, wide leading."""
    style = s.style(str(s.rng.choice(["book", "modern", "typewriter"])), s.height / s.between(45, 75))
    left, right = s.width * s.between(0.12, 0.2), s.width * s.between(0.85, 0.92)
    y = s.height * s.between(0.03, 0.06)
    head = s.style("modern", style.size_px * s.between(0.7, 1))
    if s.chance(0.7):
        s.set(
            left * s.between(0.4, 1),
            y,
            _shortened(f"Case {s.number()} {s.words(2, 3)} {s.date()} Page {s.number()}", head, right - left),
            head,
        )
    y = s.height * s.between(0.08, 0.12)
    if s.chance(0.5):
        for _ in range(int(s.rng.integers(1, 4))):
            s.set_centred(s.width / 2, y, s.words(2, 6).upper(), style)
            y += style.leading_px
        y += style.leading_px
        for i in range(int(s.rng.integers(4, 9))):
            s.set(left, y, _shortened(s.words(1, 4), style, s.width * 0.3), style)
            if s.chance(0.8):
                s.set(s.width * 0.5, y, ")", style)
            if i % 2 and s.chance(0.7):
                s.set(s.width * 0.55, y, _shortened(s.words(1, 4), style, s.width * 0.3), style)
            y += style.leading_px
        y += style.leading_px
    double = Print(style.face, style.size_px, style.leading_px * s.between(1.0, 2.0))
    bottom = s.height * 0.92
    if s.chance(0.4):
        rows = int((bottom - s.height * 0.1) / double.leading_px)
        for i in range(min(rows, 28)):
            s.set_right(left - style.size_px * 1.2, s.height * 0.1 + i * double.leading_px, str(i + 1), style)
        if s.chance(0.7):
            s.rule(left - style.size_px * 0.7, 0, left - style.size_px * 0.7, s.height)
    while y < bottom:
        y = s.flow(left, right, y, bottom, double, s.chance(0.4), s.between(0, 3), 0.0, 2)
        if s.chance(0.3):
            inset = (right - left) * 0.12
            y = s.flow(left + inset, right - inset, y, bottom, style, True, 0, 0, 1) + style.leading_px
    s.set_centred(s.width / 2, s.height * 0.955, s.number(), style)


def _chart(s: Sheet) -> None:
    """Boxes with words in them and lines between: a diagram."""
    style = s.style("modern", s.height / s.between(45, 90))
    if s.chance(0.7):
        s.set_centred(
            s.width / 2, s.height * 0.06, s.words(2, 6), Print(style.face, round(style.size_px * 1.5), style.leading_px)
        )
    across = int(s.rng.integers(2, 5))
    down = int(s.rng.integers(3, 8))
    for i in range(down):
        for j in range(across):
            if s.chance(0.35):
                continue
            x, y = s.width * (j + 0.5) / across, s.height * (0.12 + 0.82 * (i + 0.5) / down)
            half, tall = s.width / across * s.between(0.25, 0.42), s.height * 0.82 / down * s.between(0.25, 0.4)
            if s.chance(0.8):
                corners = [(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)]
                if s.chance(0.2):
                    corners = [(x, y - tall * 1.3), (x + half, y), (x, y + tall * 1.3), (x - half, y)]
                s.items.append(Stroke((*corners, corners[0]), int(s.rng.integers(1, 3)), 1.0))
                if i + 1 < down and s.chance(0.7):
                    s.items.append(Stroke(((x, y + tall), (x, y + s.height * 0.82 / down - tall)), 1, 1.0))
            count = int(np.clip(tall * 2 / style.leading_px - 0.5, 1, 4))
            for k in range(count):
                at = y + (k - (count - 1) / 2) * style.leading_px + style.size_px * 0.35
                s.set_centred(x, at, _shortened(s.words(1, 4), style, half * 1.7), style)


def _slide(s: Sheet) -> None:
    """Large print in few lines, light on dark more often than not."""
    dark = s.chance(0.6)
    if dark:
        s.items.append(Bar(0, 0, s.width, s.height, s.between(0.7, 1.0)))
    kind = str(s.rng.choice(["modern", "book"]))
    style = s.style(kind, s.height / s.between(14, 34), s.between(1.2, 1.8))
    y = s.height * s.between(0.08, 0.2)
    head = Print(style.face, round(style.size_px * s.between(1.1, 1.8)), style.leading_px)
    s.set(s.width * s.between(0.04, 0.3), y, _shortened(s.words(1, 6), head, s.width * 0.6), head, paper=dark)
    y += head.size_px * s.between(1.2, 2)
    while y < s.height * 0.93:
        left = s.width * s.between(0.05, 0.12)
        words = s.words(3, 40).split()
        while words and y < s.height * 0.95:
            text = _shortened(" ".join(words[:20]), style, s.width * 0.93 - left)
            words = words[len(text.split()) :]
            s.set(left, y, text, style, paper=dark)
            y += style.leading_px
        y += style.leading_px * s.between(0, 1)


def _blank(s: Sheet) -> None:
    """No text: an empty leaf, perhaps with a picture, a rule or a scribble."""
    if s.chance(0.3):
        s.picture(s.width * 0.2, s.height * 0.2, s.width * 0.8, s.height * s.between(0.4, 0.8))
    if s.chance(0.2):
        s.rule(s.width * 0.2, s.height * 0.1, s.width * 0.8, s.height * 0.1)
    if s.chance(0.3):
        s.scribble(s.width * 0.3, s.height * 0.3, s.width * 0.3, s.height * 0.03)


# kind → (composer, share of pages, height over width: lowest and highest)
KINDS: dict[str, tuple[Callable[[Sheet], None], float, float, float]] = {
    "book": (_book, 0.15, 1.2, 1.8),
    "typescript": (_typescript, 0.16, 1.2, 1.75),
    "letter": (_letter, 0.08, 1.2, 1.45),
    "newspaper": (_newspaper, 0.13, 0.7, 2.2),
    "report": (_report, 0.14, 1.0, 1.5),
    "table": (_table, 0.10, 0.7, 1.5),
    "ledger": (_ledger, 0.09, 0.9, 1.5),
    "receipt": (_receipt, 0.11, 1.6, 3.2),
    "filing": (_filing, 0.05, 1.25, 1.45),
    "chart": (_chart, 0.03, 0.7, 1.45),
    "slide": (_slide, 0.03, 0.6, 1.0),
    "blank": (_blank, 0.04, 1.0, 1.6),
}
