"""How text, points and provenance are written in the XML formats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ocr_model.document import Box, Page, Point
from pipelines.formats.record import PageRecord

# What XML 1.0 cannot hold, however it is escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text without what XML cannot hold (control characters, half surrogate pairs); escaping is left to do.

    >>> xml_text("a\\x00\\x0c\\udc80b")
    'ab'
    """
    return _NOT_XML.sub("", text)


def whole_points(points: Iterable[Point], page: Page) -> list[tuple[int, int]]:
    """The points as whole pixels, those outside the page moved to its edge.

    >>> whole_points([(-3.2, 4.6), (12, 4)], Page(10, 10))
    [(0, 5), (10, 4)]
    """
    return [(min(max(round(x), 0), page.width), min(max(round(y), 0), page.height)) for x, y in points]


def points_text(points: Iterable[tuple[int, int]]) -> str:
    """`x,y x,y …`, as ALTO 4.4 recommends and PAGE demands.

    >>> points_text([(1, 2), (3, 4)])
    '1,2 3,4'
    """
    return " ".join(f"{x},{y}" for x, y in points)


def corners(box: Box) -> list[tuple[int, int]]:
    """Clockwise from the left top; the right and the bottom are the box's own, which lie just outside of it."""
    return [(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)]


def settings(record: PageRecord) -> dict[str, str]:
    """What a page was made with, by name: model, configuration, … without the version of the code and the date.

    Both are left out because each format has a place of its own for them, and a date would change the bytes.
    """
    known: dict[str, Any] = {**record.page.provenance, **record.run}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        for name, value in sorted(known.items())
        if name not in ("pagemill", "date")
    }
