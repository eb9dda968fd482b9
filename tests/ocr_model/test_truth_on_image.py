import cv2
import numpy as np
import pytest

from ocr_model.affine import Affine
from ocr_model.document import Box
from ocr_model.errors import UnreadablePage
from ocr_model.truth import GroundTruthLine, GroundTruthPage
from ocr_model.truth_on_image import cut_truth_line, is_line_image, placed, same_proportions, whole_image_line


def line(box: Box | None = None, **changes: object) -> GroundTruthLine:
    return GroundTruthLine("ab", box, **changes)  # type: ignore[arg-type]


def page_of(*lines: GroundTruthLine, size: tuple[int, int] | tuple[None, None] = (100, 200)) -> GroundTruthPage:
    return GroundTruthPage(*size, tuple(lines))


# Sizes.


def test_truth_of_the_same_size_stays() -> None:
    page = page_of(line(Box(1, 2, 30, 40), polygon=((1.0, 2.0), (30.0, 2.0), (30.0, 40.0))))
    assert placed(page, 100, 200) == page


def test_truth_of_a_smaller_copy_is_scaled() -> None:
    (moved,) = placed(page_of(line(Box(1, 2, 30, 40), baseline=((1.0, 40.0), (30.0, 40.0)))), 200, 400).lines
    assert (moved.box, moved.baseline, moved.clipped) == (Box(2, 4, 60, 80), ((2.0, 80.0), (60.0, 80.0)), False)


@pytest.mark.parametrize("size", [(200, 100), (100, 210), (50, 98)])
def test_truth_of_other_proportions_is_refused_with_both_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadablePage, match=f"100 x 200 pixels, this one has {size[0]} x {size[1]}") as caught:
        placed(page_of(), *size)
    assert caught.value.reason == "other-size"


@pytest.mark.parametrize(("scale", "fits"), [(0.5, True), (1 / 3, True), (0.4718, True), (2.7, True)])
def test_rounded_sizes_have_the_same_proportions(scale: float, fits: bool) -> None:
    size = (2340, 3815)
    assert same_proportions(size, (round(size[0] * scale), round(size[1] * scale))) is fits


def test_boxes_outside_of_the_picture_are_told_where_the_truth_had_no_size() -> None:
    lines = placed(
        page_of(line(Box(90, 10, 130, 30)), line(Box(101, 0, 120, 20)), line(Box(0, 0, 5, 5)), size=(None, None)),
        100,
        200,
    ).lines
    assert [(one.box, one.problem, one.clipped) for one in lines] == [
        (Box(90, 10, 100, 30), "", True),
        (None, "outside-page", False),
        (Box(0, 0, 5, 5), "", False),
    ]


def test_problems_that_the_file_states_stay() -> None:
    lines = placed(
        page_of(line(Box(0, 0, 5, 5), problem="skip-text"), line(None, problem="no-geometry")), 100, 200
    ).lines
    assert [one.problem for one in lines] == ["skip-text", "no-geometry"]


def test_one_line_of_text_beside_a_flat_picture_is_a_line_image() -> None:
    text = page_of(line(None, problem="no-geometry"), size=(None, None))
    assert is_line_image(text, 1000, 60) and not is_line_image(text, 1000, 1400)
    assert not is_line_image(page_of(line(Box(0, 0, 5, 5))), 1000, 60)
    assert whole_image_line(text, 1000, 60) == line(Box(0, 0, 1000, 60))
    with pytest.raises(UnreadablePage, match="no text"):
        whole_image_line(page_of(), 10, 10)


# Crops.


def test_level_line_is_its_box_with_context() -> None:
    page = np.arange(200 * 100, dtype=np.uint64).reshape(200, 100).astype(np.uint8)
    crop = cut_truth_line(page, line(Box(20, 50, 60, 70)))
    assert crop.margins == (7, 7, 7, 7)
    assert np.array_equal(crop.pixels, page[43:77, 13:67])
    assert crop.back == Affine.shift(13, 43)


def test_context_over_the_edge_repeats_the_edge() -> None:
    page = np.full((30, 100), 200, np.uint8)
    page[0] = 7
    crop = cut_truth_line(page, line(Box(0, 0, 100, 20)))
    assert crop.pixels.shape == (34, 114) and (crop.pixels[:8] == 7).all()


@pytest.mark.parametrize("with_polygon", [False, True])
@pytest.mark.parametrize("degrees", [4.0, -6.0, 90.0, 180.0])
def test_slanted_line_is_levelled_and_maps_back(degrees: float, with_polygon: bool) -> None:
    way = Affine.shift(300, 300).after(Affine.turn(degrees))
    page = np.full((600, 600), 255, np.uint8)
    band = way.points([(-200, -20), (200, -20), (200, 6), (-200, 6)])
    cv2.fillPoly(page, [np.round(np.array(band) - 0.5).astype(np.int32)], 0)
    baseline = way.points([(-200, 0), (200, 0)])
    box = Box.around(band)
    if degrees in (90.0, 180.0) and not with_polygon:
        pytest.skip("a line that stands or is upside down needs its polygon: its box does not tell its height")
    crop = cut_truth_line(page, line(box, baseline=baseline, polygon=band if with_polygon else None))
    left, top, right, bottom = crop.margins
    height, width = crop.pixels.shape
    inner = crop.pixels[top + 2 : height - bottom - 2, left + 3 : width - right - 3]
    if with_polygon:
        assert (inner < 128).mean() > 0.98
        assert abs(height - top - bottom - 26) <= 1 and abs(width - left - right - 400) <= 2
    first = crop.back.point((left, top + 20))
    assert crop.back.inverse().point(baseline[0])[0] == pytest.approx(left, abs=1)
    if with_polygon:
        assert first == pytest.approx(baseline[0], abs=1.0)


def test_high_lines_are_scaled_down_and_map_back() -> None:
    page = np.full((400, 900), 255, np.uint8)
    page[100:228, 100:800] = 0
    crop = cut_truth_line(page, line(Box(100, 100, 800, 228)), highest_px=64)
    left, top, right, bottom = crop.margins
    height, width = crop.pixels.shape
    assert abs(height - top - bottom - 64) <= 1 and abs(width - left - right - 350) <= 2
    assert crop.back.point((left, top)) == pytest.approx((100, 100), abs=1)
    assert crop.back.point((width, height))[0] == pytest.approx(845, abs=0.01)


def test_line_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(UnreadablePage) as caught:
        cut_truth_line(np.zeros((50, 50), np.uint8), line(Box(1, 1, 40, 3)))
    assert caught.value.reason == "too-small"
