"""Which image of a corpus has which ground truth, and the truth read from its files.

A truth is `scan.gt.txt`, `scan.lines.json`, `scan.xml` (ALTO or PAGE, told by its root) or `scan.hocr`, `scan.html`.
Nothing here opens a file: it works on names relative to the root of the corpus, parted by `/`, and on a function that
gives the bytes of one, so that a folder and a bucket are alike.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from ocr_model.document import Box
from ocr_model.errors import UnreadablePage
from ocr_model.truth import GroundTruthLine, GroundTruthPage, LineGeometry, ground_truth_line
from pipelines.corpus import IMAGE_EXTENSIONS
from pipelines.formats.alto import alto_pages, image_name, is_alto
from pipelines.formats.hocr import hocr_pages
from pipelines.formats.page_xml import is_page_xml, page_xml_page
from pipelines.formats.xml_input import local_name, parse_html, parse_xml

Kind = Literal["alto", "page", "hocr", "lines.json", "gt.txt"]
Read = Callable[[str], bytes]

# The best first: what an image has more than one truth, which one counts.
KINDS: tuple[Kind, ...] = ("alto", "page", "lines.json", "hocr", "gt.txt")

_READERS, _READ_AT_ONCE = 16, 1024
_TRUTH_ENDINGS = (".gt.txt", ".lines.json", ".xml", ".hocr", ".html", ".htm")


@dataclass(frozen=True)
class TruthFile:
    """A file of ground truth.

    Attributes:
        image_names: what it calls its images, as it is written there; none where it does not say.
    """

    path: str
    kind: Kind
    image_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TruthPair:
    """An image with its truth; `others` are further truths of the same image, which are not used."""

    image: str
    truth: str
    kind: Kind
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unpaired:
    """A file that has no partner.

    Attributes:
        reason: of an image `no-truth`, `unreadable-truth` (a truth beside it has its name but cannot be read), or
            `ambiguous`. Of a truth `no-image`, `image-outside-root` (it names a file by a path that leads out of the
            corpus), `ambiguous` (several images have its name), or the reason of `UnreadablePage`.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class TruthListing:
    """The pairs of a corpus and what is left over, each in the order of the names."""

    pairs: tuple[TruthPair, ...]
    images_without_truth: tuple[Unpaired, ...]
    truth_without_image: tuple[Unpaired, ...]


# ---- pairing


def pair_truth(paths: Iterable[str], read: Read) -> TruthListing:
    """Images and their truths among the names of a corpus; other files are passed over.

    A truth belongs to the image that it names: relative to its own folder, or to a folder above it as far up as the
    root, or by the bare name beside it. Where it names none that is there, it belongs to the image with its own stem.
    Only names in `paths` are ever taken, so no path in a file leads out of the corpus.

    Args:
        read: the bytes of a file; only called for XML and HTML, from several threads.
    """
    names = sorted(set(paths))
    images = [name for name in names if posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS]
    known = frozenset(images)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_stem[posixpath.splitext(image)[0]].append(image)
    truths: dict[str, list[TruthFile]] = defaultdict(list)
    left: list[Unpaired] = []
    reasons: dict[str, str] = {}  # of images
    for name, truth in _described([name for name in names if truth_stem(name) is not None], read):
        beside = by_stem.get(truth_stem(name) or "", [])
        if isinstance(truth, UnreadablePage):
            left.append(Unpaired(name, truth.reason))
            reasons.update(dict.fromkeys(beside, "unreadable-truth"))
            continue
        found, reason = find_image(truth, known, beside)
        if found:
            truths[found].append(truth)
        else:
            left.append(Unpaired(name, reason))
            reasons.update(dict.fromkeys(beside, reason))
    without = [Unpaired(image, reasons.get(image, "no-truth")) for image in images if image not in truths]
    return TruthListing(tuple(_pair(i, truths[i]) for i in images if i in truths), tuple(without), tuple(left))


def _described(names: Sequence[str], read: Read) -> Iterator[tuple[str, TruthFile | UnreadablePage]]:
    """What each truth is, in order; several are read at a time, since a bucket lets each of them wait."""

    def described(name: str) -> TruthFile | UnreadablePage:
        try:
            return describe_truth(name, read)
        except UnreadablePage as error:
            return error

    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        for start in range(0, len(names), _READ_AT_ONCE):  # `map` makes a task of every one at once
            some = names[start : start + _READ_AT_ONCE]
            yield from zip(some, pool.map(described, some), strict=True)


def _pair(image: str, truths: Sequence[TruthFile]) -> TruthPair:
    best, *others = sorted(truths, key=lambda truth: (KINDS.index(truth.kind), truth.path))
    return TruthPair(image, best.path, best.kind, tuple(truth.path for truth in others))


def truth_stem(path: str) -> str | None:
    """The name without the ending of a truth; None for what is no truth.

    >>> truth_stem("a/scan.gt.txt"), truth_stem("a/scan.XML"), truth_stem("a/notes.txt")
    ('a/scan', 'a/scan', None)
    """
    ending = next((ending for ending in _TRUTH_ENDINGS if path.lower().endswith(ending)), None)
    return None if ending is None else path[: -len(ending)]


def find_image(truth: TruthFile, images: frozenset[str], beside: Sequence[str]) -> tuple[str | None, str]:
    """The image that a truth belongs to, or None and why there is none.

    Args:
        beside: the images with the truth's own stem.
    """
    folder = posixpath.dirname(truth.path)
    for name in truth.image_names:
        found = next((path for path in image_paths(name, folder) if path in images), None)
        if found:
            return found, ""
    if len(beside) == 1:
        return beside[0], ""
    if beside:
        return None, "ambiguous"
    outside = any(leads_outside(name, folder) for name in truth.image_names)
    return None, "image-outside-root" if outside else "no-image"


def image_paths(name: str, folder: str) -> list[str]:
    """The paths that a name in a file of `folder` may mean, the likeliest first; none of them leaves the root.

    >>> image_paths("img/a.jpg", "x/y")
    ['x/y/img/a.jpg', 'x/img/a.jpg', 'img/a.jpg', 'x/y/a.jpg']
    >>> image_paths("C:\\\\scans\\\\a.jpg", "x"), image_paths("../../a.jpg", "x")
    (['x/a.jpg'], ['x/a.jpg'])
    """
    plain = name.replace("\\", "/")
    candidates = []
    if not _is_absolute(plain):
        parts = folder.split("/") if folder else []
        bases = ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        if ".." in plain.split("/"):
            bases = bases[:1]  # it says itself how far up it is meant
        candidates = [posixpath.normpath(posixpath.join(base, plain)) for base in bases]
    candidates.append(posixpath.join(folder, posixpath.basename(plain)))
    return list(dict.fromkeys(path for path in candidates if path != ".." and not path.startswith("../")))


def leads_outside(name: str, folder: str) -> bool:
    """Whether a name in a file of `folder` is absolute, an address, or climbs out of the root."""
    plain = name.replace("\\", "/")
    path = posixpath.normpath(posixpath.join(folder, plain))
    return _is_absolute(plain) or path == ".." or path.startswith("../")


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path) is not None


# ---- reading


def describe_truth(path: str, read: Read) -> TruthFile:
    """What a truth is and which images it names; a text or a JSON file is not opened for it.

    Raises:
        UnreadablePage: the file cannot be parsed, or it is no ground truth (`foreign-schema`).
    """
    if path.lower().endswith(".gt.txt"):
        return TruthFile(path, "gt.txt")
    if path.lower().endswith(".lines.json"):
        return TruthFile(path, "lines.json")
    kind, root = _parsed(path, read(path))
    names = [image_name(root)] if kind == "alto" else [page.image_name for page in _pages(kind, root, None)]
    return TruthFile(path, kind, tuple(dict.fromkeys(name for name in names if name)))


def read_truth(path: str, read: Read, dpi: float | None = None) -> list[GroundTruthPage]:
    """The pages of a truth; of text and of JSON, which name no page, one.

    Args:
        dpi: of the image, for ALTO that measures in millimetres or inches.

    Raises:
        UnreadablePage: the file is empty, broken or no ground truth.
    """
    data = read(path)
    if path.lower().endswith(".gt.txt"):
        return [page_of_text(data)]
    if path.lower().endswith(".lines.json"):
        return [page_of_lines(data)]
    kind, root = _parsed(path, data)
    return _pages(kind, root, dpi)


def _parsed(path: str, data: bytes) -> tuple[Kind, Any]:
    """What a file of XML or HTML is, and its root."""
    if not path.lower().endswith(".xml"):
        return "hocr", parse_html(data)
    root = parse_xml(data)
    if is_alto(root):
        return "alto", root
    if is_page_xml(root):
        return "page", root
    if local_name(root) == "html":
        return "hocr", parse_html(data)
    raise UnreadablePage(f"the root is {root.tag}: neither ALTO nor PAGE nor hOCR", "foreign-schema")


def _pages(kind: Kind, root: Any, dpi: float | None) -> list[GroundTruthPage]:
    if kind == "alto":
        return alto_pages(root, dpi)
    return [page_xml_page(root)] if kind == "page" else hocr_pages(root)


def page_of_text(data: bytes) -> GroundTruthPage:
    """A page of lines without geometry, from UTF-8 text with a line of print a line, blocks parted by empty lines.

    Raises:
        UnreadablePage: `bad-encoding`.
    """
    lines: list[GroundTruthLine] = []
    block = 1
    for text in _decoded(data).splitlines():
        line = ground_truth_line(text, LineGeometry(), (None, None), region=str(block))
        if line.text:
            lines.append(line)
        elif lines and lines[-1].region == str(block):
            block += 1
    return GroundTruthPage(None, None, tuple(lines))


def page_of_lines(data: bytes) -> GroundTruthPage:
    """A page from a JSON list of lines.

    A line has `bbox` and `text`, and perhaps `polygon`, `baseline`, `type`, `hand` (true: handwritten) and `skip_text`.

    Raises:
        UnreadablePage: `bad-encoding`; `bad-json`: no JSON, or no list of objects.
    """
    try:
        records = json.loads(_decoded(data))
    except (ValueError, RecursionError) as error:
        raise UnreadablePage(f"not JSON: {error}", "bad-json") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UnreadablePage("not a list of lines", "bad-json")
    return GroundTruthPage(None, None, tuple(_line_of_record(record) for record in records))


def _line_of_record(record: Mapping[str, Any]) -> GroundTruthLine:
    corners = _json_points([record.get("bbox")], 4)
    box = None
    if corners and corners[0][0] <= corners[0][2] and corners[0][1] <= corners[0][3]:
        left, top, right, bottom = corners[0]
        box = Box.around([(left, top), (right, bottom)])
    kind = record.get("type") or ("handwritten" if record.get("hand") is True else "")
    return ground_truth_line(
        str(record.get("text") or ""),
        LineGeometry(
            box,
            [(x, y) for x, y in _json_points(record.get("polygon"), 2)],
            [(x, y) for x, y in _json_points(record.get("baseline"), 2)],
        ),
        (None, None),
        kind=str(kind),
        problem="skip-text" if record.get("skip_text") is True else "",
    )


def _json_points(value: Any, size: int) -> list[list[float]]:
    """The lists of `size` numbers in a list; none at all where one of them is something else."""
    if not isinstance(value, list):
        return []
    for point in value:
        if not isinstance(point, list) or len(point) != size:
            return []
        if not all(isinstance(x, (int, float)) and abs(x) <= 1e7 for x in point):
            return []
    return value


def _decoded(data: bytes) -> str:
    if not data.strip():
        raise UnreadablePage("the file is empty", "empty-file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadablePage(f"not UTF-8: {error}", "bad-encoding") from error
