"""The Reader: images in, pages out. Beam, the evaluation, the command line and the tests all call this object."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import Bundle, load_bundle
from ocr_model.ctc import DecodedCharacter, greedy
from ocr_model.document import Box, Line, Page, Point, Region, Word
from ocr_model.found_lines import FoundLine, FoundPage, FoundRegion
from ocr_model.layout import LineFinder
from ocr_model.line_images import LINE_HEIGHT_PX, STRIDE_PX, bucket_width, cut_line, normalise_line_image
from ocr_model.word_shapes import settled

Grey = npt.NDArray[np.uint8]

BATCH_PX = 8192  # width of all lines of a batch together
MIN_CONFIDENCE = 0.55  # of a line, below which it is taken for something that is not text
MIN_CONFIDENCE_FAINT = 0.9  # of one that the finder is not sure of
MIN_CONFIDENCE_SHORT = 0.75  # of a line of one or two characters, which a speck or a stroke can look like
UPRIGHT_PROBABILITY = 0.6  # of "upright", from which the page is taken as it is
POSSIBLE_PROBABILITY = 0.05  # of an orientation, from which it is tried where the finder is in doubt
DOUBTFUL_LEGIBILITY = 0.9  # mean confidence of a page, below which its orientation is tried anew
UNREADABLE_LEGIBILITY = 0.67  # below which nothing on a page is believed to be text
MIRRORED_BY = 0.05  # so much more legible in the mirror, a page shows what is printed on its back
SAMPLED_LINES = 8  # that are read to compare orientations
_PAGE_NUMBER = re.compile(r"[-–—([]? ?[0-9]{1,4} ?[-–—)\]]?$")
INK_LEVEL = 70  # of 255, from which a column of a normalised line counts as inked


@dataclass(frozen=True)
class Strip:
    """A line as the recogniser takes it.

    Attributes:
        image: [40, width] uint8 as `normalise_line_image` gives it.
        back: [2, 3] float64, takes (x, y, 1) of the strip before scaling to the image as given.
        size: width and height of the strip before scaling, pixels.
        is_faint: the finder is not sure of the line.
    """

    image: Grey
    back: npt.NDArray[np.float64]
    size: tuple[int, int]
    is_faint: bool = False


def unturned(point: Point, quarter_turns: int, width: int, height: int) -> Point:
    """A point of the upright image in coordinates of the image as given.

    Args:
        quarter_turns: clockwise turns that made it upright.
        width, height: of the image as given.

    >>> unturned((10, 0), 1, width=100, height=50)
    (0, 40)
    """
    x, y = point
    return ((x, y), (y, height - x), (width - x, height - y), (width - y, x))[quarter_turns]


def batch_size(width_px: int, lines: int = 16) -> int:
    """Lines in the next batch of a bucket of which so many are left: the full size, a half or a quarter of it.

    A line's result does not depend on how many lie beside it: every line of a convolution is a sum of its own. Few
    sizes, as the processor's code is made anew for each.

    >>> batch_size(512), batch_size(512, 9), batch_size(512, 8), batch_size(512, 1), batch_size(4096, 1)
    (16, 16, 8, 4, 1)
    """
    full = max(1, min(16, BATCH_PX // width_px))
    return min(size for size in (full, max(1, full // 2), max(1, full // 4)) if size >= min(lines, full))


def read_strips(bundle: Bundle, strips: Sequence[Grey]) -> list[list[DecodedCharacter]]:
    """Reads normalised lines, batched by width; the last batch of a width is filled up with paper."""
    by_bucket: dict[int, list[int]] = {}
    for i, strip in enumerate(strips):
        by_bucket.setdefault(bucket_width(strip.shape[1]), []).append(i)
    results: list[list[DecodedCharacter]] = [[] for _ in strips]
    for width, members in sorted(by_bucket.items()):
        while members:
            size = batch_size(width, len(members))
            part, members = members[:size], members[size:]
            batch = np.zeros((size, LINE_HEIGHT_PX, width, 1), np.uint8)
            for row, i in enumerate(part):
                batch[row, :, : strips[i].shape[1], 0] = strips[i]
            classes, confidences = bundle.read_lines(batch)
            for row, i in enumerate(part):
                steps = -(-strips[i].shape[1] // STRIDE_PX)
                characters = greedy(classes[row, :steps], confidences[row, :steps], bundle.alphabet)
                results[i] = characters if bundle.language_model is None else settled(characters)
    return results


def split_words(characters: Sequence[DecodedCharacter]) -> list[tuple[list[DecodedCharacter], int, int]]:
    """Words with the steps that they may span: from the space before to the space after.

    Returns:
        Per word its characters, the first step after the space before (0 at the start) and the step of the space after
        (-1 at the end).
    """
    words: list[tuple[list[DecodedCharacter], int, int]] = []
    current: list[DecodedCharacter] = []
    begin = 0
    for character in characters:
        if character.character != " ":
            current.append(character)
            continue
        if current:
            words.append((current, begin, character.start))
            current = []
        begin = character.end
    if current:
        words.append((current, begin, -1))
    return words


def _word_spans(strip: Grey, words: Sequence[tuple[list[DecodedCharacter], int, int]]) -> npt.NDArray[np.float64]:
    """[words, 2]: left and right of each word's ink in pixels of the normalised strip."""
    steps = np.array([(word[0].start, word[-1].end, begin, end) for word, begin, end in words])
    first, last, begin, end = (STRIDE_PX * steps).T
    left = np.minimum(begin, first)
    right = np.where(end < 0, strip.shape[1], np.maximum(end + STRIDE_PX, last))
    inked = np.append(np.flatnonzero(strip.max(axis=0) > INK_LEVEL), strip.shape[1])  # and one that is none
    low, high = np.searchsorted(inked[:-1], (left, right))
    ink_left = np.minimum(inked[low], first + STRIDE_PX)
    ink_right = np.maximum(inked[high - 1] + 1, last - STRIDE_PX)
    spans = np.where(low < high, (ink_left, ink_right), (first, np.maximum(last, first + 1)))
    return np.asarray(spans.T, np.float64)


def assemble_line(
    strip: Strip, baseline: Sequence[Point], characters: Sequence[DecodedCharacter], page_size: tuple[int, int]
) -> Line | None:
    """A line with its words and boxes in pixels of the image as given; None where nothing was read.

    The line reaches from its first word to its last, however much longer the strip was.

    Args:
        baseline: in pixels of the image as given.
        page_size: its width and height.
    """
    parts = split_words(characters)
    if not parts:
        return None
    strip_width, strip_height = strip.size
    spans = _word_spans(strip.image, parts) * (strip_width / strip.image.shape[1])
    begin, end = float(spans[:, 0].min()), float(spans[:, 1].max())
    *boxes, box = _boxes_of_spans(np.concatenate([spans, [[begin, end]]]), strip, page_size)
    words = tuple(
        Word("".join([c.character for c in part[0]]), box, _mean([c.confidence for c in part[0]]))
        for part, box in zip(parts, boxes, strict=True)
    )
    corners = np.array([(begin, 0, 1), (end, 0, 1), (end, strip_height, 1), (begin, strip_height, 1)])
    polygon = tuple((float(x), float(y)) for x, y in corners @ strip.back.T)
    part = part_of_polyline(baseline, begin / strip_width, end / strip_width)
    return Line(words, box, part, polygon, _mean([c.confidence for c in characters if c.character != " "]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _boxes_of_spans(spans: npt.NDArray[np.float64], strip: Strip, page_size: tuple[int, int]) -> list[Box]:
    """The boxes on the page of stretches of a strip, [n, 2] from x to x, before scaling, over all of its height.

    The last one is made to hold all others.
    """
    along = spans[:, :, None] * strip.back[:, 0]  # [n, 2, 2]: left and right end at the top, x and y
    across = strip.size[1] * strip.back[:, 1]
    low = np.floor(along.min(axis=1) + np.minimum(across, 0.0) + strip.back[:, 2])
    high = np.ceil(along.max(axis=1) + np.maximum(across, 0.0) + strip.back[:, 2])
    low[-1], high[-1] = low.min(axis=0), high.max(axis=0)
    corners = np.clip(np.concatenate([low, high], axis=1), 0, (*page_size, *page_size)).astype(int)
    return [Box(*four) for four in corners.tolist()]


def part_of_polyline(points: Sequence[Point], begin: float, end: float) -> tuple[Point, ...]:
    """The stretch of a line of points between two shares of the chord from its first point to its last.

    >>> part_of_polyline([(0, 0), (4, 1), (8, 0)], 0.25, 1.0)
    ((2.0, 0.5), (4.0, 1.0), (8.0, 0.0))
    """
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        shares = (min(max(share, 0.0), 1.0) for share in (begin, end))
        return tuple((x0 + share * (x1 - x0), y0 + share * (y1 - y0)) for share in shares)
    xy = np.asarray(points, np.float64)
    chord = xy[-1] - xy[0]
    at = (xy - xy[0]) @ chord / max(float(chord @ chord), 1e-9)
    wanted = np.concatenate([[begin], at[(at > begin) & (at < end)], [end]])
    return tuple((float(np.interp(t, at, xy[:, 0])), float(np.interp(t, at, xy[:, 1]))) for t in wanted)


def is_text(text: str, confidence: float, is_faint: bool = False) -> bool:
    """Whether what was read is believed to be text at all.

    Args:
        is_faint: the finder is not sure of the line: it must read better, and less so as a page number.

    >>> is_text("page", 0.6), is_text("1", 0.6), is_text("1", 0.9)
    (True, False, True)
    >>> is_text("page", 0.8, is_faint=True), is_text("- 3 -", 0.8, is_faint=True)
    (False, True)
    """
    if is_faint:
        return confidence >= (MIN_CONFIDENCE_SHORT if _PAGE_NUMBER.match(text) else MIN_CONFIDENCE_FAINT)
    short = len(text.replace(" ", "")) <= 2
    return confidence >= (MIN_CONFIDENCE_SHORT if short else MIN_CONFIDENCE)


ReadLine = tuple[Strip, list[DecodedCharacter]]


def legibility(lines: Sequence[ReadLine]) -> float:
    """Mean confidence over all characters of the lines that the finder is sure of; 0 where nothing was read.

    What is faint may be no text, and must not make a page that has some look illegible.
    """
    confidences = [c.confidence for strip, characters in lines if not strip.is_faint for c in characters]
    return float(np.mean(confidences)) if confidences else 0.0


def _longest_lines(page: FoundPage) -> FoundPage:
    """The page with no more than its longest lines."""
    longest = sorted(page.lines(), key=lambda line: line.baseline[0][0] - line.baseline[-1][0])[:SAMPLED_LINES]
    return replace(page, regions=(FoundRegion(tuple(longest)),))


class Reader:
    """Finds the lines of pages, reads them and puts them in order.

    >>> page = Reader.load().read([grey_image])[0]  # doctest: +SKIP
    >>> print(page.text)  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.finder = LineFinder(bundle.find_lines)
        self.seconds = {"find": 0.0, "read": 0.0}  # wall time since it was loaded: finding lines; the rest of `read`

    @classmethod
    def load(cls, bundle: str | Path | None = None, precision: str = "auto", decoder: str = "beam") -> Reader:
        """A reader with a bundle; None is the one in the package.

        Args:
            precision: `auto`, `bfloat16` or `float32`; `auto` takes bfloat16 where the processor has it in hardware.
            decoder: `beam` decodes with the bundle's language model and the rules of `word_shapes`, `greedy` takes the
                network's best path as it is.

        Raises:
            BadModel: the folder is no complete bundle.
        """
        return cls(load_bundle(None if bundle is None else Path(bundle), precision, decoder))

    @property
    def alphabet(self) -> Alphabet:
        return self.bundle.alphabet

    @property
    def provenance(self) -> dict[str, Any]:
        """What a page needs to be traced back: model, precision and code version, plain JSON values."""
        return {
            "model": self.bundle.digest[:16],
            "precision": self.bundle.precision,
            "pagemill": metadata.version("pagemill"),
        }

    def read(self, images: Sequence[Grey]) -> list[Page]:
        """Pages in the order of the images.

        A page's result does not depend on the other images of the call.

        Args:
            images: each [height, width] uint8, 0 black, 255 white, at least one pixel.
        """
        began = time.perf_counter()
        found = [self._found(image) for image in images]
        self.seconds["find"] += time.perf_counter() - began
        began = time.perf_counter()
        pages = self._read(images, found)
        self.seconds["read"] += time.perf_counter() - began
        return pages

    def _read(self, images: Sequence[Grey], found: list[FoundPage]) -> list[Page]:
        read = self._read_lines(images, found)
        for i, image in enumerate(images):
            if read[i] and legibility(read[i]) < DOUBTFUL_LEGIBILITY:
                found[i] = self._best_turned(image, found[i], range(4))
                (read[i],) = self._read_lines([image], [found[i]])
                if legibility(read[i]) < UNREADABLE_LEGIBILITY or self._shows_its_back(image, found[i]):
                    found[i], read[i] = replace(found[i], regions=()), []
        return [self._assemble(*page) for page in zip(images, found, read, strict=True)]

    def find(self, image: Grey) -> FoundPage:
        """The lines of a page, [height, width] uint8, as `read` finds them before it reads them."""
        return self._found(image)

    def read_found(self, images: Sequence[Grey], found: Sequence[FoundPage]) -> list[Page]:
        """Pages whose lines are known: these are read, none is looked for, and the order is theirs."""
        return [self._assemble(*page) for page in zip(images, found, self._read_lines(images, found), strict=True)]

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        """Pages of one line each: every image is taken as one line of text from edge to edge."""
        strips = [Strip(normalise_line_image(i), np.eye(2, 3), (i.shape[1], i.shape[0])) for i in images]
        pages = []
        for image, strip, characters in zip(
            images, strips, read_strips(self.bundle, [s.image for s in strips]), strict=True
        ):
            height, width = image.shape
            baseline = ((0.0, 0.78 * height), (float(width), 0.78 * height))
            line = assemble_line(strip, baseline, characters, (width, height))
            regions = (Region((line,), line.box),) if line else ()
            pages.append(Page(width, height, regions, provenance=self.provenance))
        return pages

    def _found(self, image: Grey) -> FoundPage:
        """The lines of a page, the right way up.

        The finder's idea of the orientation is taken where it says "upright" with some certainty. Else the longest
        lines are read in every orientation that it thinks possible, and the one that reads best is taken.
        """
        found = self.finder.find(image, upright_from=UPRIGHT_PROBABILITY)
        if found.quarter_turns == 0 and found.orientation_probability[0] >= UPRIGHT_PROBABILITY:
            return found
        possible = [turns for turns, p in enumerate(found.orientation_probability) if p >= POSSIBLE_PROBABILITY]
        return self._best_turned(image, found, possible)

    def _best_turned(self, image: Grey, found: FoundPage, possible: Iterable[int]) -> FoundPage:
        """The page in the orientation in which its longest lines read best."""
        never = 2.0  # a second pass costs three first ones: it is made for the best only
        others = [self.finder.find(image, turns, never) for turns in possible if turns != found.quarter_turns]
        longest = [_longest_lines(page) for page in (found, *others)]
        read = self._read_lines([image] * len(longest), longest)
        best = max(range(len(longest)), key=lambda i: legibility(read[i]))
        chosen = (found, *others)[best]
        return self.finder.find(image, chosen.quarter_turns) if chosen.is_coarse else chosen

    def _shows_its_back(self, image: Grey, found: FoundPage) -> bool:
        """Whether the longest lines of a page read better in the mirror: print that shows through thin paper.

        In the mirror it may also stand on its head: mirrored print reads little worse that way.
        """
        upright = np.rot90(image, -found.quarter_turns)
        mirrored = np.ascontiguousarray(upright[:, ::-1])
        backwards = [_longest_lines(self.finder.find(mirrored, turns)) for turns in (0, 2)]
        of_back = self._read_lines([mirrored] * 2, backwards)
        (of_front,) = self._read_lines([image], [_longest_lines(found)])
        return max(map(legibility, of_back)) > legibility(of_front) + MIRRORED_BY

    def _read_lines(self, images: Sequence[Grey], found: Sequence[FoundPage]) -> list[list[ReadLine]]:
        """The lines of each page, cut and read, in the order of the page."""
        strips = [self._cut(image, page) for image, page in zip(images, found, strict=True)]
        read = iter(read_strips(self.bundle, [strip.image for page in strips for strip in page]))
        return [[(strip, next(read)) for strip in page] for page in strips]

    def _cut(self, image: Grey, found: FoundPage) -> list[Strip]:
        upright = np.ascontiguousarray(np.rot90(image, -found.quarter_turns))
        return [self._strip(upright, line, found, image.shape) for region in found.regions for line in region.lines]

    @staticmethod
    def _strip(upright: Grey, line: FoundLine, found: FoundPage, shape: tuple[int, ...]) -> Strip:
        height, width = shape
        pixels, matrix = cut_line(upright, line.baseline, line.ascender_px, line.descender_px)

        origin, along, down = (unturned(p, found.quarter_turns, width, height) for p in ((0, 0), (1, 0), (0, 1)))
        turn = np.array(
            [[along[0] - origin[0], down[0] - origin[0]], [along[1] - origin[1], down[1] - origin[1]]], np.float64
        )
        back = turn @ matrix
        back[:, 2] += origin
        return Strip(normalise_line_image(pixels), back, (pixels.shape[1], pixels.shape[0]), line.is_faint)

    def _assemble(self, image: Grey, found: FoundPage, read: list[ReadLine]) -> Page:
        height, width = image.shape
        lines = iter(read)
        regions = []
        for region in found.regions:
            kept = [line for line in (self._line(f, found, *next(lines), width, height) for f in region.lines) if line]
            if kept:
                regions.append(Region(tuple(kept), _around(kept)))
        return Page(width, height, tuple(regions), found.quarter_turns, found.skew_deg, self.provenance)

    @staticmethod
    def _line(
        f: FoundLine, found: FoundPage, strip: Strip, characters: list[DecodedCharacter], width: int, height: int
    ) -> Line | None:
        baseline = [unturned(point, found.quarter_turns, width, height) for point in f.baseline]
        line = assemble_line(strip, baseline, characters, (width, height))
        return line if line is not None and is_text(line.text, line.confidence, f.is_faint) else None


def _around(lines: Sequence[Line]) -> Box:
    box = lines[0].box
    for line in lines[1:]:
        box = box.union(line.box)
    return box
