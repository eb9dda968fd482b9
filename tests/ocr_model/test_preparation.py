import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.affine import Affine
from ocr_model.errors import BadArgument
from ocr_model.preparation import (
    STEPS,
    border_of,
    noise_of,
    parse_steps,
    prepare,
    quarter_turns_of,
    skew_of,
    turned_back,
)

TEXT = (
    "The quick brown fox had talked",
    "about the old books that he had",
    "found behind the lock of a chest,",
    "held them to the light and said:",
    "Let them be, both the bad and the",
    "like of them will hold but dust.",
)


def printed(width: int = 700, height: int = 500) -> np.ndarray:
    """A page of print, [height, width] uint8."""
    page = np.full((height, width), 235, np.uint8)
    for n, line in enumerate(TEXT):
        cv2.putText(page, line, (50, 80 + 60 * n), cv2.FONT_HERSHEY_COMPLEX, 1.0, 20, 2, cv2.LINE_AA)
    return page


def with_marks(page: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """The page with discs of radius 4 whose middles are at the places (corners of pixels)."""
    marked = page.copy()
    rows, columns = np.mgrid[: page.shape[0], : page.shape[1]]
    for x, y in places:
        marked[(columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= 16] = 0
    return marked


def found_mark(pixels: np.ndarray, near: tuple[float, float]) -> tuple[float, float]:
    """The centre of the ink around a place."""
    left, top = int(near[0]) - 8, int(near[1]) - 8
    ink = 255.0 - pixels[top : top + 16, left : left + 16]
    ink[ink < 100] = 0
    rows, columns = np.mgrid[:16, :16]
    return left + float((ink * (columns + 0.5)).sum() / ink.sum()), top + float((ink * (rows + 0.5)).sum() / ink.sum())


def skewed(page: np.ndarray, degrees: float) -> np.ndarray:
    """The page with lines that fall to the right by so much."""
    middle = Affine.shift(page.shape[1] / 2, page.shape[0] / 2)
    matrix = middle.after(Affine.turn(degrees)).after(middle.inverse()).for_opencv()
    return cv2.warpAffine(page, matrix, page.shape[::-1], flags=cv2.INTER_CUBIC, borderValue=235)


# Maps.


@given(st.integers(-3, 3), st.floats(0.2, 3), st.floats(-50, 50))
def test_inverse_maps_back(turns: int, scale: float, shift: float) -> None:
    way = Affine.shift(shift, 1).after(Affine.turn(30 * turns)).after(Affine.scale(scale, 2))
    assert way.inverse().point(way.point((3, 4))) == pytest.approx((3, 4))


@pytest.mark.parametrize("turns", range(4))
def test_turned_pages_map_back_to_the_pixel(turns: int) -> None:
    page = np.arange(35, dtype=np.uint8).reshape(5, 7)
    turned = np.rot90(page, -turns)
    back = turned_back(7, 5, turns)
    for y, x in np.ndindex(turned.shape):
        column, row = (int(v) for v in back.point((x + 0.5, y + 0.5)))
        assert turned[y, x] == page[row, column]


MARKS = [(500, 440), (120, 30), (640, 100)]


@pytest.mark.parametrize("degrees", [-5.0, -0.7, 0.0, 2.3, 5.0])
def test_places_on_the_deskewed_page_are_known_on_the_original(degrees: float) -> None:
    page = with_marks(skewed(printed(), degrees), MARKS)
    prepared = prepare(page, ["deskew"])
    there = prepared.back.inverse()
    for mark in MARKS:
        seen = found_mark(prepared.pixels, there.point(mark))
        assert prepared.back.point(seen) == pytest.approx(mark, abs=0.25)


def test_places_are_known_through_all_steps() -> None:
    framed = np.zeros((580, 800), np.uint8)
    framed[40:540, 60:760] = with_marks(skewed(printed(), 2.0), MARKS)
    page = np.ascontiguousarray(np.rot90(framed, -1))  # lies on its right side
    prepared = prepare(page, tuple(STEPS))
    assert [step["step"] for step in prepared.steps] == list(STEPS)
    assert prepared.steps[0]["border_px"] == [40, 60, 40, 40] and prepared.steps[1]["quarter_turns"] == 3
    assert abs(skew_of(prepared.pixels)) < 0.2
    for x, y in MARKS:
        on_page = 580 - (y + 40), x + 60
        seen = found_mark(prepared.pixels, prepared.back.inverse().point(on_page))
        assert prepared.back.point(seen) == pytest.approx(on_page, abs=0.4)


def test_no_step_changes_nothing() -> None:
    page = printed()
    prepared = prepare(page, ())
    assert prepared.pixels is page and prepared.back == Affine() and prepared.steps == ()


# What the steps find and do.


@pytest.mark.parametrize("degrees", [-6.0, -1.3, 0.0, 0.4, 3.0, 6.0])
def test_skew_is_found_to_a_tenth_of_a_degree(degrees: float) -> None:
    assert skew_of(skewed(printed(), degrees)) == pytest.approx(degrees, abs=0.15)


@pytest.mark.parametrize("turns", range(4))
def test_orientation_of_print_is_found(turns: int) -> None:
    lying = np.ascontiguousarray(np.rot90(printed(), turns))  # counter-clockwise
    assert quarter_turns_of(lying) == turns


@pytest.mark.parametrize("page", [np.full((300, 200), 240, np.uint8), np.zeros((50, 60), np.uint8)])
def test_empty_pages_pass_all_steps_unturned(page: np.ndarray) -> None:
    prepared = prepare(page, tuple(STEPS))
    assert prepared.pixels.shape == page.shape and prepared.back == Affine()


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (40, 1)])
def test_tiny_pictures_pass_all_steps(shape: tuple[int, int]) -> None:
    page = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    assert prepare(page, tuple(STEPS)).pixels.dtype == np.uint8


def test_borders_are_cut_and_dark_pages_stay() -> None:
    page = np.full((100, 200), 230, np.uint8)
    page[:, :12] = page[90:] = 10
    assert border_of(page) == (12, 0, 0, 10)
    assert prepare(page, ["crop"]).pixels.shape == (90, 188)
    assert border_of(np.full((100, 200), 30, np.uint8)) == (0, 0, 0, 0)


def test_uneven_light_is_flattened() -> None:
    page = printed()
    light = np.linspace(0.45, 1.0, page.shape[1])[None, :]
    dim = np.asarray(page * light, np.uint8)
    flat = prepare(dim, ["flatten"]).pixels
    paper = page == 235
    assert np.std(flat[paper]) < 0.15 * np.std(dim[paper])
    assert flat[paper].mean() - flat[page < 60].mean() > 100


def test_grain_is_measured_and_taken_out() -> None:
    page = printed()
    grain = np.random.default_rng(0).normal(0, 12, page.shape)
    noisy = np.clip(page + grain, 0, 255).astype(np.uint8)
    assert noise_of(page) < 1.5
    assert noise_of(noisy) == pytest.approx(12, rel=0.3)
    clean = prepare(noisy, ["denoise"]).pixels
    ink = page < 60
    assert (
        np.abs(clean[~ink].astype(float) - page[~ink]).mean()
        < 0.5 * np.abs(noisy[~ink].astype(float) - page[~ink]).mean()
    )
    assert clean[ink].mean() < 70
    assert np.array_equal(prepare(page, ["denoise"]).pixels, page)


def test_binarised_page_has_two_values_in_uneven_light() -> None:
    page = printed()
    dim = np.asarray(page * np.linspace(0.4, 1.0, page.shape[1])[None, :], np.uint8)
    black = prepare(dim, ["binarise"]).pixels == 0
    assert set(np.unique(prepare(dim, ["binarise"]).pixels)) == {0, 255}
    ink = page < 128
    assert (black & ink).sum() / ink.sum() > 0.9 and (black & ~ink).mean() < 0.02


def test_unknown_step_is_refused() -> None:
    with pytest.raises(BadArgument, match="no such step: dewarp"):
        parse_steps("deskew,dewarp")
