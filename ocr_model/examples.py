"""The contract of the records that ingest writes and training reads: `page` and `line` examples, version 1.

An example is a serialised `tf.train.Example` whose features are named here and nowhere else. Writing and parsing stand
side by side and need no TensorFlow; `tf_features` describes the same features to TensorFlow's own parser.

Coordinates of lines are pixels of the original picture, origin top left; `RecordImage.back` takes those of the picture
in the record there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from ocr_model.affine import IDENTITY, Affine
from ocr_model.document import Box, Point
from ocr_model.errors import BadInput
from ocr_model.images import open_document
from ocr_model.truth import GroundTruthLine

FORMAT, VERSION = "pagemill-example", 1
Kind = Literal["page", "line"]
KINDS: tuple[Kind, ...] = ("page", "line")
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Grey = NDArray[np.uint8]
Values = Sequence[bytes] | Sequence[int] | Sequence[float]

# Name → type of its values. What stands once in an example has one value, what starts with `lines/` one for each line.
FEATURES: dict[str, type] = {
    "format": bytes,
    "version": int,
    "kind": bytes,
    "text": bytes,
    "image/encoded": bytes,
    "image/format": bytes,
    "image/width": int,
    "image/height": int,
    "image/dpi": float,  # 0 where it is unknown
    "image/mean": float,
    "image/deviation": float,
    "image/sha256": bytes,
    "image/preparation": bytes,  # JSON: steps, and the six numbers of `back`
    "source/name": bytes,
    "source/document": bytes,
    "source/page": int,
    "source/page_id": bytes,
    "source/width": int,
    "source/height": int,
    "source/split": bytes,
    "source/language": bytes,
    "source/truth": bytes,
    "source/metadata": bytes,  # JSON
    "lines/number": int,
    "lines/text": bytes,
    "lines/box": int,  # left, top, right, bottom; -1 four times where there is none
    "lines/polygon": float,  # x, y of all points of all lines
    "lines/polygon_points": int,
    "lines/baseline": float,
    "lines/baseline_points": int,
    "lines/kind": bytes,
    "lines/region": bytes,
    "lines/region_kind": bytes,
    "lines/problem": bytes,
    "lines/clipped": int,
    "margins": int,  # of a line's crop: left, top, right, bottom; a page has none
    "ordered": int,
}
_REPEATED = ("lines/", "margins")
_NO_BOX = (-1, -1, -1, -1)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an example comes from.

    Attributes:
        name: the file, relative to what was ingested: `a/scan.jpg`, `box.zip/1.png`.
        document: what must not be divided between splits.
        page: from 1.
        page_id: `SHA256-PAGE` of the file's bytes.
        width, height: of the page's picture in the file, which all coordinates refer to.
        truth: name of the file with the truth, empty if there is none.
        metadata: the other columns of the manifest.
    """

    name: str
    document: str
    page: int
    page_id: str
    width: int
    height: int
    split: Split = "train"
    language: str = ""
    truth: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordImage:
    """The picture in an example.

    Attributes:
        data: an encoded picture.
        format: `png` or `jpeg`.
        width, height: in pixels, as decoded.
        dpi: None where it is unknown.
        back: from its coordinates to those of the original picture.
        steps: of `ocr_model.preparation` that it went through, plain JSON values.
        mean, deviation: of its grey values, to a hundredth.
    """

    data: bytes
    format: str
    width: int
    height: int
    dpi: float | None = None
    back: Affine = IDENTITY
    steps: tuple[Mapping[str, Any], ...] = ()
    mean: float = 0.0
    deviation: float = 0.0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def decoded(self) -> Grey:
        """[height, width] uint8, 0 black.

        Raises:
            UnreadablePage: the record was damaged.
            BadInput: it holds a picture of another size.
        """
        pixels = open_document(self.data).decode(0).pixels
        if pixels.shape != (self.height, self.width):
            raise BadInput(f"the record tells of {self.width} x {self.height} pixels, but holds {pixels.shape[::-1]}")
        return pixels


@dataclass(frozen=True, slots=True)
class PageExample:
    """A page with the lines of its truth, in reading order if `ordered`; without truth it has none."""

    origin: Origin
    image: RecordImage
    lines: tuple[GroundTruthLine, ...] = ()
    ordered: bool = True

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines if line.text)

    def lines_in_image(self) -> list[GroundTruthLine]:
        """The lines with coordinates of the record's picture."""
        there = self.image.back.inverse()
        return [moved(line, there) for line in self.lines]


@dataclass(frozen=True, slots=True)
class LineExample:
    """A line of text and its picture.

    Attributes:
        number: among the lines of the page, from 1.
        line: with coordinates of the page's original picture.
        margins: pixels of the crop that lie left, top, right and bottom of the line itself.
    """

    origin: Origin
    image: RecordImage
    number: int
    line: GroundTruthLine
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def text(self) -> str:
        return self.line.text


def moved(line: GroundTruthLine, way: Affine) -> GroundTruthLine:
    """The line at other coordinates; a turned box becomes the upright one around it. Words are left out."""
    box = line.box
    if box is not None:
        corners = [(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)]
        box = Box.around((round(x, 3), round(y, 3)) for x, y in way.points(corners))
    return replace(
        line,
        box=box,
        polygon=way.points(line.polygon) if line.polygon else None,
        baseline=way.points(line.baseline) if line.baseline else None,
        words=(),
    )


# ---- splits


def is_validation(document: str, share: float) -> bool:
    """Whether a document is for validation: by a digest of its name, the same on every machine."""
    return _place(document) < share * 2**32


def split_of(document: str, validation_share: float, test_share: float = 0.0) -> Split:
    """The split of a document. One that was for validation stays so when a test share is added.

    >>> [split_of(f"book {n}", 0.25, 0.25) for n in range(3)]
    ['validation', 'test', 'train']
    """
    if is_validation(document, validation_share):
        return "validation"
    return "test" if is_validation(document, validation_share + test_share) else "train"


def _place(document: str) -> int:
    """0 to 2³² - 1."""
    return int.from_bytes(hashlib.sha256(document.encode("utf-8", "backslashreplace")).digest()[:4], "big")


# ---- writing


def write_page(example: PageExample) -> bytes:
    """The serialised `page` example; the same page gives the same bytes."""
    lines = list(enumerate(example.lines, 1))
    return _encoded({**_head("page", example), **_lines_features(lines), "ordered": [int(example.ordered)]})


def write_line(example: LineExample) -> bytes:
    """The serialised `line` example."""
    lines = [(example.number, example.line)]
    return _encoded({**_head("line", example), **_lines_features(lines), "margins": list(example.margins)})


def _head(kind: Kind, example: PageExample | LineExample) -> dict[str, Values]:
    origin, image = example.origin, example.image
    preparation = {"steps": [dict(step) for step in image.steps], "back": image.back.as_tuple()}
    return {
        "format": [FORMAT.encode()],
        "version": [VERSION],
        "kind": [kind.encode()],
        "text": [_text(example.text)],
        "image/encoded": [image.data],
        "image/format": [_text(image.format)],
        "image/width": [image.width],
        "image/height": [image.height],
        "image/dpi": [image.dpi or 0.0],
        "image/mean": [image.mean],
        "image/deviation": [image.deviation],
        "image/sha256": [_text(image.sha256)],
        "image/preparation": [_json(preparation)],
        "source/name": [_text(origin.name)],
        "source/document": [_text(origin.document)],
        "source/page": [origin.page],
        "source/page_id": [_text(origin.page_id)],
        "source/width": [origin.width],
        "source/height": [origin.height],
        "source/split": [_text(origin.split)],
        "source/language": [_text(origin.language)],
        "source/truth": [_text(origin.truth)],
        "source/metadata": [_json(dict(origin.metadata))],
    }


def _lines_features(lines: Sequence[tuple[int, GroundTruthLine]]) -> dict[str, Values]:
    return {
        "lines/number": [number for number, _ in lines],
        "lines/text": [_text(line.text) for _, line in lines],
        "lines/box": [edge for _, line in lines for edge in (line.box.as_list() if line.box else _NO_BOX)],
        "lines/polygon": _flat(line.polygon for _, line in lines),
        "lines/polygon_points": [len(line.polygon or ()) for _, line in lines],
        "lines/baseline": _flat(line.baseline for _, line in lines),
        "lines/baseline_points": [len(line.baseline or ()) for _, line in lines],
        "lines/kind": [_text(line.kind) for _, line in lines],
        "lines/region": [_text(line.region) for _, line in lines],
        "lines/region_kind": [_text(line.region_kind) for _, line in lines],
        "lines/problem": [_text(line.problem) for _, line in lines],
        "lines/clipped": [int(line.clipped) for _, line in lines],
    }


def _flat(outlines: Iterable[Sequence[Point] | None]) -> list[float]:
    return [value for outline in outlines for point in outline or () for value in point]


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "backslashreplace"
    )


# ---- parsing


def parse_example(data: bytes, place: str = "the record") -> PageExample | LineExample:
    """The example that `write_page` or `write_line` wrote.

    Args:
        place: what a message calls it.

    Raises:
        BadInput: it is foreign, of another version (both are named), or damaged.
    """
    features = _decoded(data, place)
    kind = features.get("kind", [b""])[:1]
    check_version(features.get("format"), features.get("version"), place)
    try:
        origin, image = _origin(features), _image(features)
        lines = _lines(features)
        if kind == [b"page"]:
            return PageExample(origin, image, tuple(line for _, line in lines), bool(features["ordered"][0]))
        if kind == [b"line"]:
            ((number, line),) = lines
            left, top, right, bottom = (int(margin) for margin in features["margins"])
            return LineExample(origin, image, number, line, (left, top, right, bottom))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadInput(f"{place} is damaged: {error}", "ingest it again") from error
    raise BadInput(f"{place} is of an unknown kind: {kind}", "ingest it again")


def check_version(form: Sequence[Any] | None, version: Sequence[Any] | None, place: str) -> None:
    """
    Raises:
        BadInput: it is none of our records, or of another version.
    """
    if not form or form[0] != FORMAT.encode() or not version:
        raise BadInput(
            f"{place} is no Pagemill record of version {VERSION}: its format is {_shown(form)}", "check the path"
        )
    if version[0] != VERSION:
        raise BadInput(
            f"{place} has record version {version[0]}, this program reads version {VERSION}",
            "ingest again, or use the Pagemill version that wrote it",
        )


def _shown(form: Sequence[Any] | None) -> str:
    return repr(form[0]) if form else "not given"


def _origin(features: Mapping[str, Sequence[Any]]) -> Origin:
    split = _one_text(features, "source/split")
    if split not in SPLITS:
        raise ValueError(f"the split is {split!r}")
    metadata = json.loads(_one_text(features, "source/metadata"))
    return Origin(
        name=_one_text(features, "source/name"),
        document=_one_text(features, "source/document"),
        page=int(features["source/page"][0]),
        page_id=_one_text(features, "source/page_id"),
        width=int(features["source/width"][0]),
        height=int(features["source/height"][0]),
        split=split,
        language=_one_text(features, "source/language"),
        truth=_one_text(features, "source/truth"),
        metadata=tuple(sorted(metadata.items())),
    )


def _image(features: Mapping[str, Sequence[Any]]) -> RecordImage:
    preparation = json.loads(_one_text(features, "image/preparation"))
    image = RecordImage(
        data=features["image/encoded"][0],
        format=_one_text(features, "image/format"),
        width=int(features["image/width"][0]),
        height=int(features["image/height"][0]),
        dpi=round(features["image/dpi"][0], 2) or None,
        back=Affine(*preparation["back"]),
        steps=tuple(preparation["steps"]),
        mean=round(features["image/mean"][0], 2),
        deviation=round(features["image/deviation"][0], 2),
    )
    if image.sha256 != _one_text(features, "image/sha256"):
        raise ValueError("the picture is not the one that was written")
    return image


def _lines(features: Mapping[str, Sequence[Any]]) -> list[tuple[int, GroundTruthLine]]:
    numbers = features["lines/number"]
    edges = [int(edge) for edge in features["lines/box"]]
    polygons = _outlines(features["lines/polygon"], features["lines/polygon_points"])
    baselines = _outlines(features["lines/baseline"], features["lines/baseline_points"])
    lines = []
    for i, number in enumerate(numbers):
        box = edges[4 * i : 4 * i + 4]
        line = GroundTruthLine(
            text=features["lines/text"][i].decode(),
            box=None if tuple(box) == _NO_BOX else Box(*box),
            polygon=polygons[i],
            baseline=baselines[i],
            kind=features["lines/kind"][i].decode(),
            region=features["lines/region"][i].decode(),
            region_kind=features["lines/region_kind"][i].decode(),
            problem=features["lines/problem"][i].decode(),
            clipped=bool(features["lines/clipped"][i]),
        )
        lines.append((int(number), line))
    return lines


def _outlines(values: Sequence[float], counts: Sequence[int]) -> list[tuple[Point, ...] | None]:
    """
    >>> _outlines([1, 2, 3, 4, 5, 6], [2, 0, 1])
    [((1.0, 2.0), (3.0, 4.0)), None, ((5.0, 6.0),)]
    """
    points = [(float(x), float(y)) for x, y in zip(values[::2], values[1::2], strict=True)]
    found: list[tuple[Point, ...] | None] = []
    start = 0
    for count in counts:
        found.append(tuple(points[start : start + count]) or None)
        start += count
    if start != len(points):
        raise ValueError(f"{len(points)} points for lines of {start}")
    return found


def _one_text(features: Mapping[str, Sequence[Any]], name: str) -> str:
    (value,) = features[name]
    return str(value.decode())


# ---- `tf.train.Example` on the wire, which protobuf itself writes and reads

_LISTS = {bytes: "bytes_list", float: "float_list", int: "int64_list"}


def _encoded(features: Mapping[str, Values]) -> bytes:
    message = _message_class()()
    for name, values in features.items():
        getattr(message.features.feature[name], _LISTS[FEATURES[name]]).value.extend(values)
    return bytes(message.SerializeToString(deterministic=True))


def _decoded(data: bytes, place: str) -> dict[str, list[Any]]:
    """All values by name.

    Raises:
        BadInput: it is no `tf.train.Example`.
    """
    message = _message_class()()
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError has no public base that is the same in all its backends
        raise BadInput(f"{place} is no Pagemill record: {error}", "check the path") from error
    found = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = list(getattr(feature, kind).value) if kind else []
    return {**{name: [] for name in FEATURES if name.startswith(_REPEATED)}, **found}


@cache
def _message_class() -> Any:
    """The class of `tf.train.Example`, in a pool of its own: TensorFlow registers the message in the common one."""
    file = descriptor_pb2.FileDescriptorProto(name="pagemill_example.proto", package="pagemill", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(name="value", number=1, label=field.LABEL_REPEATED, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), 1):
        feature.field.add(
            name=name.removesuffix("List").lower() + "_list",
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".pagemill.{name}",
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    of_feature = {"type": field.TYPE_MESSAGE, "type_name": ".pagemill.Feature"}
    entry.field.add(name="value", number=2, label=field.LABEL_OPTIONAL, **of_feature)
    entries = {"type": field.TYPE_MESSAGE, "type_name": ".pagemill.Features.FeatureEntry"}
    features.field.add(name="feature", number=1, label=field.LABEL_REPEATED, **entries)
    example = file.message_type.add(name="Example")
    whole = {"type": field.TYPE_MESSAGE, "type_name": ".pagemill.Features"}
    example.field.add(name="features", number=1, label=field.LABEL_OPTIONAL, **whole)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pagemill.Example"))


def tf_features() -> dict[str, Any]:
    """The features for `tf.io.parse_single_example`: scalars, and ragged rows for what repeats. Imports TensorFlow."""
    import tensorflow as tf

    dtypes = {bytes: tf.string, float: tf.float32, int: tf.int64}
    spec: dict[str, Any] = {}
    for name, kind in FEATURES.items():
        if name.startswith(_REPEATED):
            spec[name] = tf.io.RaggedFeature(dtypes[kind])
        else:
            default = 1 if name == "ordered" else None  # a line example has none
            spec[name] = tf.io.FixedLenFeature([], dtypes[kind], default_value=default)
    return spec
