"""The finder's network: shapes, ranges, and that folding changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_model.finder import DepthToSpace, FinderConfig, build_finder, maps_function
from ocr_model.layers import folded

SMALL = FinderConfig(filters=(4, 4, 4, 4), dilations=(1, 2))


@pytest.fixture(scope="module")
def model():
    return build_finder(SMALL)


def page(height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (1, height, width, 1), np.uint8)


def test_maps_are_half_the_image_and_probabilities(model):
    maps = maps_function(model)(page())
    for name in ("core", "ends", "ascender", "descender"):
        assert maps[name].shape == (1, 32, 48)
    assert maps["core"].min() >= 0 and maps["core"].max() <= 1 and maps["ascender"].min() > 0
    assert maps["orientation"].sum() == pytest.approx(1, abs=1e-5)


def test_a_page_does_not_depend_on_its_batch_mates(model):
    both = np.concatenate([page(), 255 - page()])
    alone, together = maps_function(model)(both[:1]), maps_function(model)(both)
    for name, value in alone.items():
        np.testing.assert_allclose(value[0], together[name][0], atol=1e-5, rtol=1e-4)


def test_the_folded_network_gives_the_same_maps(model):
    plain, exported = maps_function(model)(page()), maps_function(folded(model))(page())
    for name, value in plain.items():
        np.testing.assert_allclose(value, exported[name], atol=1e-4, rtol=1e-4)


def test_four_channels_become_a_square():
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)
    square = np.asarray(DepthToSpace()(x))[0, :, :, 0]
    np.testing.assert_array_equal(square, [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_the_default_network_is_small():
    assert build_finder(FinderConfig()).count_params() < 600_000
