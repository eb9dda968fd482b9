import inspect

import keras
import numpy as np
import pytest

from trainer.wear import networks
from trainer.wear.networks import (
    Folded,
    Thinned,
    Unfolded,
    WearNetworks,
    build_discriminator,
    build_encoder,
    build_generator,
)

TINY = WearNetworks(3, (4, 4, 4, 4), (4, 6, 8), (4, 4, 4, 4))


@pytest.fixture(autouse=True)
def _float32() -> None:
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)


def inputs(width: int, count: int = 2, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ((count, 40, width, 1), (count, 3), (count, 40, width, 2))
    return [rng.random(shapes[0], dtype=np.float32), *(rng.standard_normal(s, dtype=np.float32) for s in shapes[1:])]


@pytest.mark.parametrize("width", [64, 104])
def test_lines_of_any_width_keep_their_geometry(width: int) -> None:
    worn = np.asarray(build_generator(TINY)(inputs(width)))
    assert worn.shape == (2, 40, width, 1)
    assert worn.min() >= 0 and worn.max() <= 1
    encoded = np.asarray(build_encoder(TINY)(worn))
    fine, coarse = build_discriminator(TINY)(worn)
    assert encoded.shape == (2, 6)
    assert (fine.shape, coarse.shape) == ((2, 10, width // 4, 1), (2, 5, width // 8, 1))


def test_an_untrained_generator_leaves_dark_print_on_light_paper() -> None:
    ink, style, noise = inputs(64)
    ink = np.zeros_like(ink)
    ink[:, 10:30, 20:30] = 1.0
    worn = np.asarray(build_generator(TINY)([ink, style, noise]))
    assert worn[ink == 1].mean() < 0.5 < 0.7 < worn[ink == 0].mean()


def test_style_and_noise_change_the_look_and_the_same_ones_do_not() -> None:
    generator, (ink, style, noise) = build_generator(TINY), inputs(64)
    for layer in generator.layers:  # as training would
        if layer.name.startswith("styled"):
            layer.kernel.assign(layer.kernel * 10)
            layer.bias.assign(layer.bias + 0.3)
    once, again = (np.asarray(generator([ink, style, noise])) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.abs(once - np.asarray(generator([ink, style + 1, noise]))).mean() > 1e-3
    assert np.abs(once - np.asarray(generator([ink, style, -noise]))).mean() > 1e-4


def test_a_line_is_worn_alike_alone_and_among_others() -> None:
    generator, values = build_generator(TINY), inputs(64)
    alone = np.asarray(generator([v[:1] for v in values]))
    np.testing.assert_allclose(np.asarray(generator(values))[:1], alone, atol=1e-5)


def test_squares_become_channels_and_channels_squares() -> None:
    image = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    folded = np.asarray(Folded()(image))
    assert folded[0, 1, 2].tolist() == np.concatenate([image[0, 2 + i, 4 + j] for i in (0, 1) for j in (0, 1)]).tolist()
    np.testing.assert_array_equal(np.asarray(Unfolded()(folded)), image)


def test_thinned_noise_is_as_strong_as_before() -> None:
    noise = np.random.default_rng(1).standard_normal((1, 40, 200, 2), dtype=np.float32)
    thinned = np.asarray(Thinned()(noise))
    assert thinned.shape == (1, 20, 100, 2)
    assert thinned.std() == pytest.approx(1, abs=0.05)


def test_the_networks_are_made_of_keras_alone() -> None:
    assert "tensorflow" not in inspect.getsource(networks)
