"""Maps drawn by hand → lines in reading order."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_model.found_lines import FoundLine, LayoutConfig
from ocr_model.layout import LineFinder, canvases, fitting, padded
from ocr_model.line_maps import lines_from_maps, with_letters, with_room
from ocr_model.order_statistics import quantile
from ocr_model.reading_order import in_reading_order, skew_of

CONFIG = LayoutConfig()


def empty_maps(height: int = 320, width: int = 320) -> dict[str, np.ndarray]:
    shape = (height // 2, width // 2)
    return {
        "core": np.zeros(shape, np.float32),
        "ends": np.zeros(shape, np.float32),
        "ascender": np.full(shape, 16.0, np.float32),
        "descender": np.full(shape, 5.0, np.float32),
    }


def draw(
    maps: dict[str, np.ndarray], left: int, right: int, baseline: int, slope: float = 0.0, x_height: int = 10
) -> None:
    """A line's core and its end bars, in px of the image."""
    for x in range(left // 2, right // 2):
        y = round((baseline + slope * (2 * x - left)) / 2)
        maps["core"][y - x_height // 2 : y, x] = 0.95
    for x, at in ((left, baseline), (right, baseline + slope * (right - left))):
        maps["ends"][int(at) // 2 - 6 : int(at) // 2 + 1, max(0, x // 2 - 2) : x // 2 + 1] = 0.95


def line(left: float, right: float, y: float, height: float = 20.0) -> FoundLine:
    return FoundLine(((left, y), (right, y)), 0.75 * height, 0.25 * height)


def starts(regions: list[list[FoundLine]]) -> list[tuple[float, float]]:
    return [(found.baseline[0][0], found.baseline[0][1]) for region in regions for found in region]


def test_a_drawn_line_comes_back_where_it_is():
    maps = empty_maps()
    draw(maps, 40, 240, 100)
    (found,) = lines_from_maps(maps, 1.0, CONFIG)
    assert found.baseline[0][0] == pytest.approx(40, abs=4) and found.baseline[-1][0] == pytest.approx(240, abs=4)
    assert [y for _, y in found.baseline] == pytest.approx([100, 100], abs=1)
    assert found.ascender_px == pytest.approx(17.6, rel=0.01) and found.descender_px == pytest.approx(5.5, rel=0.01)


def test_lines_are_in_pixels_of_the_page_not_of_the_reduced_image():
    maps = empty_maps()
    draw(maps, 40, 240, 100)
    (found,) = lines_from_maps(maps, 0.5, CONFIG)
    assert found.baseline[-1] == pytest.approx((480, 200), abs=8)


def test_blank_map_gives_no_lines():
    assert lines_from_maps(empty_maps(), 1.0, CONFIG) == []


def test_uncertain_and_tiny_marks_are_not_lines():
    maps = empty_maps()
    draw(maps, 40, 240, 100)
    maps["core"] *= 0.58
    maps["core"][100:101, 50:52] = 1.0
    assert lines_from_maps(maps, 1.0, CONFIG) == []


def test_touching_lines_stay_apart():
    maps = empty_maps()
    draw(maps, 40, 280, 100)
    draw(maps, 40, 280, 118)
    maps["core"][50:56, 70:72] = 0.6  # a long letter bridges them
    found = sorted(lines_from_maps(maps, 1.0, CONFIG), key=lambda f: f.baseline[0][1])
    assert [round(f.baseline[0][1]) for f in found] == pytest.approx([100, 118], abs=2)


def test_line_ends_keep_neighbouring_columns_apart():
    maps = empty_maps()
    draw(maps, 20, 150, 100)
    draw(maps, 154, 300, 100)
    maps["core"][45:50, 74:78] = 0.9  # the core runs over the gutter
    assert len(lines_from_maps(maps, 1.0, CONFIG)) == 2


def test_pieces_of_one_line_are_joined():
    maps = empty_maps()
    draw(maps, 40, 240, 100)
    maps["core"][:, 60:66] = 0.0
    assert len(lines_from_maps(maps, 1.0, CONFIG)) == 1


def test_a_single_letter_is_a_line():
    maps = empty_maps()
    draw(maps, 40, 52, 100)
    (found,) = lines_from_maps(maps, 1.0, CONFIG)
    assert found.box.left <= 42 and found.box.right >= 50


def test_a_word_takes_the_slope_of_the_page():
    maps = empty_maps(320, 640)
    draw(maps, 20, 600, 100, slope=0.04)
    draw(maps, 40, 70, 200)
    long, word = sorted(lines_from_maps(maps, 1.0, CONFIG), key=lambda f: f.baseline[0][1])
    assert word.slope == pytest.approx(long.slope, abs=0.005) and long.slope == pytest.approx(0.04, abs=0.01)


def test_a_falling_line_keeps_its_slope():
    maps = empty_maps()
    draw(maps, 20, 300, 100, slope=0.05)
    found = lines_from_maps(maps, 1.0, CONFIG)
    assert len(found) == 1
    assert skew_of(found) == pytest.approx(np.degrees(np.arctan(0.05)), abs=0.3)


def test_box_holds_ascender_and_descender():
    found = line(10, 50, 100)
    assert (found.box.top, found.box.bottom) == (85, 105)


def test_a_line_is_given_room_for_a_last_hyphen_but_not_into_its_neighbour():
    alone = FoundLine(((100.0, 50.0), (300.0, 50.0)), 20.0, 6.0)
    near = FoundLine(((310.0, 50.0), (400.0, 50.0)), 20.0, 6.0)
    (longer,) = with_room([alone], CONFIG)
    assert longer.baseline[0][0] == pytest.approx(100 - CONFIG.room_before * 20)
    assert longer.baseline[-1][0] == pytest.approx(300 + CONFIG.room_after * 20)
    left, right = with_room([alone, near], CONFIG)
    assert 300 < left.baseline[-1][0] < right.baseline[0][0] < 310
    assert with_room([], CONFIG) == []


def test_two_columns_are_read_one_after_the_other():
    left = [line(0, 200, 20 + 25 * i) for i in range(6)]
    right = [line(230, 430, 20 + 25 * i) for i in range(6)]
    mixed = [found for pair in zip(right, left, strict=True) for found in pair]
    assert starts(in_reading_order(mixed, 0.0, CONFIG)) == starts([left, right])


def test_three_columns_are_read_one_after_the_other():
    columns = [[line(250 * c, 250 * c + 220, 20 + 25 * i) for i in range(8)] for c in range(3)]
    mixed = [column[i] for i in range(8) for column in reversed(columns)]
    assert starts(in_reading_order(mixed, 0.0, CONFIG)) == starts(columns)


def test_heading_over_two_columns_comes_between_what_it_divides():
    def block(top: float) -> list[list[FoundLine]]:
        return [[line(230 * c, 230 * c + 200, top + 25 * i) for i in range(4)] for c in range(2)]

    upper, heading, lower = block(20), line(50, 400, 150), block(200)
    order = [*upper, [heading], *lower]
    mixed = [found for group in reversed(order) for found in group]
    assert starts(in_reading_order(mixed, 0.0, CONFIG)) == starts(order)


def test_columns_of_a_skewed_page_are_still_columns():
    slope = 0.05

    def tilted(found: FoundLine) -> FoundLine:
        return FoundLine(tuple((x - slope * y, y + slope * x) for x, y in found.baseline), 15, 5)

    left = [tilted(line(0, 200, 20 + 25 * i)) for i in range(12)]
    right = [tilted(line(230, 430, 20 + 25 * i)) for i in range(12)]
    order = in_reading_order(right + left, float(np.degrees(np.arctan(slope))), CONFIG)
    assert starts(order) == starts([left, right])


def test_amounts_of_a_receipt_stay_on_their_rows():
    rows = [[line(0, 100 + 30 * (i % 3), 20 + 25 * i), line(300, 350, 20 + 25 * i)] for i in range(8)]
    mixed = [found for row in rows for found in reversed(row)]
    assert starts(in_reading_order(mixed, 0.0, CONFIG)) == starts(rows)


def test_a_letter_is_read_from_top_to_bottom():
    date = line(300, 420, 20)
    address = [line(0, 120, 45 + 25 * i) for i in range(3)]
    body = [line(0, 430, 150 + 25 * i) for i in range(5)]
    close = [line(250, 380, 300), line(250, 400, 350)]
    order = [date, *address, *body, *close]
    assert starts(in_reading_order(order[::-1], 0.0, CONFIG)) == starts([order])


def test_a_wide_space_begins_a_region():
    lines = [line(0, 200, y) for y in (20, 45, 70, 95, 160, 185)]
    assert [len(region) for region in in_reading_order(lines, 0.0, CONFIG)] == [4, 2]


def test_paper_and_dashes_are_not_lines():
    image = np.full((200, 300), 250, np.uint8)
    image[40:50, 20:260:6] = 20  # letters
    image[98:100, 20:260:6] = 20  # dashes
    image[140:150, 20:260:6] = 240  # paper's own unevenness
    lines = [line(20, 260, 50), line(20, 260, 103), line(20, 260, 150)]
    assert with_letters(lines, image, 1.0, CONFIG) == lines[:1]


def test_padding_depends_on_the_image_alone():
    image = np.full((33, 64), 7, np.uint8)
    assert padded(image).shape == (64, 64) and padded(image)[33:].min() == 255


@pytest.mark.parametrize("shape", [(3508, 2480), (2480, 3508), (2000, 1900), (5000, 700), (801, 1200)])
def test_a_page_fills_its_canvas_and_keeps_its_scale(shape: tuple[int, int]):
    scale, canvas = fitting(shape, 765_000)
    assert canvas in canvases(765_000)
    assert all(round(scale * side) <= room for side, room in zip(shape, canvas, strict=True))
    assert canvas[0] * canvas[1] == pytest.approx(765_000, rel=0.05)
    assert scale**2 * shape[0] * shape[1] > 0.92 * canvas[0] * canvas[1]


def test_scans_of_one_kind_share_a_canvas_though_their_sizes_differ():
    kinds = {fitting((3508 + 5 * i, 2480 - 5 * i), 765_000)[1] for i in range(-9, 10)}
    assert len(kinds) <= 2


def test_a_page_of_another_shape_than_any_canvas_is_seen_all_the_same():
    scale, canvas = fitting((60_000, 400), 765_000)
    assert canvas is not None and round(60_000 * scale) <= canvas[0]


def test_small_images_are_not_enlarged_and_few_sizes_are_made_of_them():
    assert fitting((600, 800), 765_000) == (1.0, None)
    assert {padded(np.zeros((600 + i, 700), np.uint8)).shape for i in range(40)} == {(640, 704)}


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_quantiles_are_those_of_numpy(count: int, share: float):
    values = np.random.default_rng(count).normal(size=count)
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


def fake_maps(turns: int):
    """A network that knows how the page is turned and finds a line where the page is dark."""

    def maps(images: np.ndarray) -> dict[str, np.ndarray]:
        dark = (images[:, ::2, ::2, 0] < 128).astype(np.float32)
        upright = bool(images[0, :8, :8].max() < 128)  # a mark in the upright page's first corner
        orientation = np.eye(4, dtype=np.float32)[0 if upright else turns][None]
        dark[:, :4, :4] = 0
        ones = np.ones_like(dark)
        return {
            "core": dark,
            "ends": 0 * dark,
            "ascender": 12 * ones,
            "descender": 4 * ones,
            "orientation": orientation,
        }

    return maps


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_page_is_read_upright(turns: int):
    page = np.full((192, 160), 255, np.uint8)
    page[:8, :8] = 0
    page[60:70, 20:120] = 0
    found = LineFinder(fake_maps(turns)).find(np.rot90(page, turns))
    assert found.quarter_turns == turns
    (only,) = found.lines()
    assert only.baseline[0][1] == pytest.approx(70, abs=2)


def test_a_forced_orientation_is_obeyed():
    page = np.full((192, 160), 255, np.uint8)
    page[60:70, 20:120] = 0
    found = LineFinder(fake_maps(3)).find(page, quarter_turns=0)
    assert found.quarter_turns == 0 and len(list(found.lines())) == 1


def upright_maps(core: np.ndarray, ascender: float, descender: float) -> dict[str, np.ndarray]:
    """Maps of an upright page on which all lines are of one size, no ends marked."""
    heights = {"ascender": np.full_like(core, ascender), "descender": np.full_like(core, descender)}
    return {"core": core, "ends": np.zeros_like(core), **heights, "orientation": np.eye(4)[:1]}


def test_small_print_gets_a_second_pass():
    sizes: list[tuple[int, ...]] = []

    def maps(images: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(images.shape)
        return upright_maps((images[:, ::2, ::2, 0] < 128).astype(np.float32), 5, 2)

    page = np.full((2000, 1600), 255, np.uint8)
    page[600:612, 200:1200] = 0
    found = LineFinder(maps).find(page)
    assert len(sizes) == 2 and sizes[1][1] > 1.5 * sizes[0][1] and not found.is_coarse
    sizes.clear()
    found = LineFinder(maps).find(page, upright_from=1.1)
    assert len(sizes) == 1 and found.is_coarse  # a page that may lie on its side is not looked at twice


def doubting_maps(images: np.ndarray) -> dict[str, np.ndarray]:
    """Black is a line's core for certain, grey is not quite."""
    return upright_maps(np.float32(1) - images[:, ::2, ::2, 0].astype(np.float32) / 255, 16, 5)


def barred(*bars: tuple[int, int, int, int]) -> np.ndarray:
    """A page with bars: left, right, bottom, grey."""
    page = np.full((320, 320), 255, np.uint8)
    for left, right, bottom, grey in bars:
        page[bottom - 10 : bottom, left:right] = grey
    return page


NEARLY = 140  # grey that is a core with 0.45


def test_page_numbers_above_and_below_the_text_are_found_though_faint():
    page = barred((20, 300, 120, 0), (20, 300, 200, 0), (140, 170, 60, NEARLY), (150, 180, 280, NEARLY))
    found = list(LineFinder(doubting_maps).find(page).lines())
    assert [f.baseline[0][1] for f in found] == pytest.approx([60, 120, 200, 280], abs=1)
    assert [f.is_faint for f in found] == [True, False, False, True]


@pytest.mark.parametrize(
    "bar",
    [
        pytest.param((140, 170, 160, NEARLY), id="between lines"),
        pytest.param((20, 300, 60, NEARLY), id="too long"),
        pytest.param((140, 170, 60, 190), id="too faint"),
    ],
)
def test_other_faint_marks_are_not_found(bar: tuple[int, int, int, int]):
    page = barred((20, 300, 120, 0), (20, 300, 200, 0), bar)
    assert [f.is_faint for f in LineFinder(doubting_maps).find(page).lines()] == [False, False]


def test_on_a_page_without_lines_nothing_faint_is_found():
    assert list(LineFinder(doubting_maps).find(barred((140, 170, 60, NEARLY))).lines()) == []
