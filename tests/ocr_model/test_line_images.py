import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.line_images import LINE_HEIGHT_PX, MAX_WIDTH_PX, STRIDE_PX, bucket_width, cut_line, normalise_line_image


@given(st.integers(1, 5000))
def test_a_bucket_holds_its_line_and_wastes_little(width: int) -> None:
    bucket = bucket_width(width)
    assert bucket >= width
    assert bucket % 32 == 0
    assert bucket - width < max(32, 0.25 * width)
    assert bucket_width(bucket) == bucket


def test_a_level_line_is_cut_without_interpolation() -> None:
    image = np.arange(100 * 60, dtype=np.uint16).astype(np.uint8).reshape(60, 100)
    strip, back = cut_line(image, [(10, 30), (50, 30)], 12, 5)
    np.testing.assert_array_equal(strip, image[18:35, 10:50])
    np.testing.assert_allclose(back @ [3, 4, 1], [13, 22])


def test_a_tilted_line_is_cut_level() -> None:
    image = np.full((200, 300), 255, np.uint8)
    for x in range(20, 280):
        y = 50 + round((x - 20) * 0.2)
        image[y - 6 : y, x] = 0
    strip, back = cut_line(image, [(20, 50), (280, 102)], 10, 6)
    dark = (strip < 128).mean(axis=1)
    assert dark[5:9].min() > 0.9  # the band above the baseline
    assert dark[:2].max() < 0.1
    assert dark[12:].max() < 0.1
    np.testing.assert_allclose(back @ [0, 10, 1], [20, 50], atol=0.1)


def test_a_curved_line_is_cut_level() -> None:
    image = np.full((200, 300), 255, np.uint8)
    points = [(float(x), 100 + 12 * float(np.sin(x / 45))) for x in range(10, 291, 10)]
    for x in range(10, 290):
        y = round(float(np.interp(x, [p[0] for p in points], [p[1] for p in points])))
        image[y - 6 : y, x] = 0
    strip, _ = cut_line(image, points, 12, 8)
    assert (strip[8:11] < 128).mean() > 0.9
    assert (strip[:3] < 128).mean() < 0.1


def test_a_strip_over_the_edge_repeats_the_edge() -> None:
    strip, _ = cut_line(np.full((10, 10), 7, np.uint8), [(-5, 2), (20, 2)], 6, 6)
    assert strip.shape == (12, 25)
    assert (strip == 7).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (40, 100), (90, 20_000)])
def test_any_strip_becomes_40_px_high_with_a_width_of_whole_steps(shape: tuple[int, int]) -> None:
    line = normalise_line_image(np.full(shape, 200, np.uint8))
    assert line.shape[0] == LINE_HEIGHT_PX
    assert line.shape[1] % STRIDE_PX == 0
    assert STRIDE_PX <= line.shape[1] <= MAX_WIDTH_PX


def _bar(paper: int, ink: int) -> np.ndarray:
    strip = np.full((40, 80), paper, np.uint8)
    strip[10:30, 30:40] = ink
    return strip


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (200, 120), (140, 60), (10, 240)])
def test_ink_is_255_on_paper_0_whatever_the_colours(paper: int, ink: int) -> None:
    line = normalise_line_image(_bar(paper, ink))
    assert line[20, 35] == 255
    assert line[5, 5] == 0


def test_noise_on_bare_paper_is_not_blown_up() -> None:
    noise = np.random.default_rng(1).normal(200, 3, (40, 200)).astype(np.uint8)
    assert normalise_line_image(noise).max() < 160
