"""Ground truth as files tell it: the lines of a page with their text and, as far as known, where they stand.

A page here has no picture, and a line no heights: `trainer.page_truth` makes from it what the finder learns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ocr_model.document import Box, Point
from ocr_model.text import normalise_line

_SOFT_HYPHEN_AT_END = re.compile("(?<![-\u2010\u2e17\u00ad])\u00ad+\\s*$")


@dataclass(frozen=True, slots=True)
class GroundTruthWord:
    """A word and its box, None where the file has none that lies on the page."""

    text: str
    box: Box | None


@dataclass(frozen=True, slots=True)
class GroundTruthLine:
    """A line of text that was written down by people.

    Attributes:
        text: as `truth_text` gives it.
        box: pixels, cut off at the edges of the page; None where `problem` says why.
        polygon, baseline: at least three and two points, None where the file has none.
        kind: the file's own word for the line (`DefaultLine:Handwritten`, `printed`), empty if it has none.
        region: the file's name for the region.
        region_kind: the file's own word for the region (`heading`, `MarginTextZone`), empty if it has none.
        words: none, or all words of the text in order.
        problem: why the line cannot be cut out of the image and learnt: `no-text`, `no-geometry` (none given, or none
            that encloses anything), `outside-page`, or `skip-text` (the file says that its text is not to be learnt);
            empty if it can.
        clipped: whether a part of the box lay outside of the page.
    """

    text: str
    box: Box | None = None
    polygon: tuple[Point, ...] | None = None
    baseline: tuple[Point, ...] | None = None
    kind: str = ""
    region: str = ""
    region_kind: str = ""
    words: tuple[GroundTruthWord, ...] = ()
    problem: str = ""
    clipped: bool = False


@dataclass(frozen=True, slots=True)
class GroundTruthPage:
    """A page with its lines in reading order.

    Attributes:
        width, height: of the image that the coordinates are pixels of, None where the file does not tell.
        image_name: of the image's file as it is written in the file; empty if it is not.
        ordered: whether the order of the lines is known to be the reading order.
    """

    width: int | None
    height: int | None
    lines: tuple[GroundTruthLine, ...] = ()
    image_name: str = ""
    ordered: bool = True

    def usable(self) -> list[GroundTruthLine]:
        """The lines without a problem."""
        return [line for line in self.lines if not line.problem]

    def problems(self) -> Counter[str]:
        """How many lines have which problem, and how many are `clipped` (these are usable)."""
        counts = Counter(line.problem for line in self.lines if line.problem)
        counts.update("clipped" for line in self.lines if line.clipped)
        return counts

    @property
    def text(self) -> str:
        """The lines that have text, one a line."""
        return "\n".join(line.text for line in self.lines if line.text)


def truth_text(text: str) -> str:
    """`normalise_line`, with a soft hyphen at the end as the hyphen that it is in print.

    >>> truth_text("Zei\\u00adtungs\\u00ad"), truth_text("Zei-\\u00ad")
    ('Zeitungs-', 'Zei-')
    """
    return normalise_line(_SOFT_HYPHEN_AT_END.sub("-", text))


@dataclass(frozen=True, slots=True)
class LineGeometry:
    """What a file says about where a line is, in pixels, unchecked; None or empty where it says nothing."""

    box: Box | None = None
    polygon: Sequence[Point] = ()
    baseline: Sequence[Point] = ()
    words: Sequence[GroundTruthWord] = ()


def ground_truth_line(
    text: str,
    geometry: LineGeometry,
    page_size: tuple[int | None, int | None],
    kind: str = "",
    region: str = "",
    region_kind: str = "",
    problem: str = "",
) -> GroundTruthLine:
    """The line with what is known of it, checked against the page.

    The box is the file's own, else the one around the polygon, else the one around the words. What lies outside of the
    page is cut off (`clipped`); where nothing is left there is no box.

    Args:
        text: raw.
        page_size: width and height, None where they are unknown: nothing is cut off then.
        problem: one that the file itself states.
    """
    clean = truth_text(text)
    given = _first_box(geometry)
    box = _on_page(given, page_size)
    found = problem
    if not found and not clean:
        found = "no-text"
    elif not found and box is None:
        found = "no-geometry" if given is None else "outside-page"
    words = tuple(
        GroundTruthWord(truth_text(word.text), _on_page(word.box, page_size)) for word in _merged(geometry.words)
    )
    return GroundTruthLine(
        text=clean,
        box=box,
        polygon=_points_on_page(geometry.polygon, 3, page_size) if box else None,
        baseline=_points_on_page(geometry.baseline, 2, page_size) if box else None,
        kind=kind,
        region=region,
        region_kind=region_kind,
        words=words if " ".join(word.text for word in words) == clean else (),
        problem=found,
        clipped=box is not None and box != given,
    )


def _merged(words: Sequence[GroundTruthWord]) -> Sequence[GroundTruthWord]:
    """The words; none at all where one of them is several (a file that keeps whole lines as words)."""
    return words if all(len(word.text.split()) == 1 for word in words) else ()


def _first_box(geometry: LineGeometry) -> Box | None:
    candidates = [geometry.box, Box.around(geometry.polygon) if len(geometry.polygon) >= 3 else None]
    boxes = [word.box for word in geometry.words if word.box is not None]
    if boxes:
        union = boxes[0]
        for box in boxes[1:]:
            union = union.union(box)
        candidates.append(union)
    return next((box for box in candidates if box is not None and box.area > 0), None)


def _on_page(box: Box | None, page_size: tuple[int | None, int | None]) -> Box | None:
    width, height = page_size
    if box is None or width is None or height is None:
        return box
    clipped = box.clipped(width, height)
    return clipped if clipped.area > 0 else None


def _points_on_page(
    points: Sequence[Point], least: int, page_size: tuple[int | None, int | None]
) -> tuple[Point, ...] | None:
    width, height = page_size
    if len(points) < least:
        return None
    if width is None or height is None:
        return tuple(points)
    return tuple((min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in points)
