import io
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.affine import Affine
from ocr_model.document import Box
from ocr_model.errors import BadInput
from ocr_model.examples import (
    FEATURES,
    SPLITS,
    VERSION,
    LineExample,
    Origin,
    PageExample,
    RecordImage,
    _decoded,
    _encoded,
    is_validation,
    moved,
    parse_example,
    split_of,
    tf_features,
    write_line,
    write_page,
)
from ocr_model.truth import GroundTruthLine

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
ORIGIN = Origin("a/ſcan.png", "letter", 2, "ab12-0002", 8, 6, "validation", "de", "ſcan.xml", (("archive", "é"),))
IMAGE = RecordImage(
    cv2.imencode(".png", PIXELS)[1].tobytes(), "png", 4, 3, 150.5, Affine.scale(2, 2), ({"step": "crop"},), 5.5, 3.45
)
LINES = (
    GroundTruthLine(
        "Zei⸗",
        Box(0, 1, 5, 3),
        ((0.0, 1.0), (5.0, 1.0), (5.0, 3.0)),
        ((0.0, 3.0), (5.0, 3.0)),
        "print",
        "r1",
        "heading",
    ),
    GroundTruthLine("", problem="no-text"),
    GroundTruthLine("b", Box(1, 1, 2, 2), baseline=((1.0, 2.0), (2.0, 2.0)), clipped=True),
)
PAGE = PageExample(ORIGIN, IMAGE, LINES, ordered=False)
LINE = LineExample(ORIGIN, IMAGE, 3, LINES[2], (1, 0, 1, 2))


def test_page_and_line_are_read_as_they_were_written() -> None:
    assert parse_example(write_page(PAGE)) == PAGE
    assert parse_example(write_line(LINE)) == LINE
    assert np.array_equal(PAGE.image.decoded(), PIXELS)


def test_page_without_truth_is_a_record_too() -> None:
    bare = PageExample(replace(ORIGIN, split="train", metadata=()), replace(IMAGE, dpi=None))
    assert parse_example(write_page(bare)) == bare


def test_same_example_gives_same_bytes() -> None:
    assert write_page(PAGE) == write_page(parse_example(write_page(PAGE)))


def test_every_feature_is_written() -> None:
    page, line = (set(_decoded(data, "")) for data in (write_page(PAGE), write_line(LINE)))
    assert page | line == set(FEATURES)


def test_lines_can_be_had_in_the_records_picture() -> None:
    first, second, _ = PAGE.lines_in_image()
    assert (first.box, first.baseline) == (Box(0, 0, 3, 2), ((0.0, 1.5), (2.5, 1.5)))
    assert second.box is None


def test_moving_there_and_back_changes_nothing() -> None:
    way = Affine.turn(90).after(Affine.shift(3, 4))
    there = moved(LINES[0], way)
    back = moved(there, way.inverse())
    assert back.box == LINES[0].box and there.box == Box(-7, 3, -5, 8)
    assert np.allclose(back.polygon, LINES[0].polygon)


def changed(**features: object) -> bytes:
    return _encoded({**_decoded(write_page(PAGE), ""), **features})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            changed(version=[VERSION + 1]),
            rf"here has record version {VERSION + 1}, this program reads version {VERSION}",
        ),
        (changed(format=[b"somebody's"]), 'here is no Pagemill record .* its format is b"somebody\'s"'),
        (b"", "here is no Pagemill record .* its format is not given"),
        (b"\xff\xff", "here is no Pagemill record"),
        (changed(kind=[b"book"]), "unknown kind"),
        (changed(**{"image/encoded": [b"another picture"]}), "here is damaged: the picture is not the one"),
        (changed(**{"source/split": [b"mine"]}), "here is damaged: the split is 'mine'"),
        (changed(**{"lines/polygon_points": [0, 0, 0]}), "here is damaged: 3 points"),
        (changed(**{"lines/text": []}), "here is damaged"),
        (changed(**{"source/page": []}), "here is damaged"),
    ],
)
def test_foreign_newer_and_damaged_records_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_example(data, "here")


def test_picture_of_another_size_than_told_is_refused() -> None:
    with pytest.raises(BadInput, match="tells of 5 x 3 pixels"):
        replace(IMAGE, width=5).decoded()


def test_tensorflow_reads_the_same_values() -> None:
    tf = pytest.importorskip("tensorflow")
    for data in (write_page(PAGE), write_line(LINE)):
        parsed = tf.io.parse_single_example(data, tf_features())
        ours = _decoded(data, "")
        for name, tensor in parsed.items():
            if name == "ordered" and "ordered" not in ours:
                continue
            assert np.ravel(tensor.numpy()).tolist() == ours[name], name
        assert tf.train.Example.FromString(data).features.feature["image/width"].int64_list.value == [4]
        assert np.array_equal(tf.io.decode_image(parsed["image/encoded"], channels=1)[..., 0].numpy(), PIXELS)


# Splits.


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_document_has_one_split_and_a_larger_share_takes_none_away(document: str, share: float, test: float) -> None:
    split = split_of(document, share, test)
    assert split in SPLITS and split == split_of(document, share, test)
    assert (split == "validation") == is_validation(document, share)


def test_splits_have_their_shares() -> None:
    found = [split_of(f"document {n}", 0.2, 0.1) for n in range(4000)]
    assert [found.count(split) / 4000 for split in SPLITS] == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_name_that_is_no_unicode_has_a_split_too() -> None:
    assert split_of("scan\udcff", 1.0) == "validation"


def test_protobuf_on_the_wire_is_what_the_format_says() -> None:
    """One feature by hand: Example { features { feature { key "version" value { int64_list { value 7 } } } } }."""
    feature = b"\x1a\x03\x0a\x01\x07"
    entry = b"\x0a\x07version\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    assert _encoded({"version": [7]}) == b"\x0a" + struct.pack("B", len(features)) + features
    assert io.BytesIO(_encoded({})).getvalue() in (b"", b"\x0a\x00")
