import keras
import numpy as np
import pytest

from ocr_model.layers import WeightStandardisedConv2D, folded
from ocr_model.recogniser import RecogniserConfig, build_recogniser

TINY = RecogniserConfig(classes=5, stem_filters=(2, 2, 3, 3), trunk_filters=4, trunk_blocks=2)


def lines(count: int = 2, width: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 40, width, 1), dtype=np.uint8)


@pytest.mark.parametrize("width", [4, 32, 100, 640])
def test_a_line_of_any_width_has_a_step_every_4_px(width: int) -> None:
    assert build_recogniser(TINY)(lines(1, width)).shape == (1, width // 4, 5)


def test_kernels_have_mean_0_and_variance_gain_squared_over_fan_in() -> None:
    layer = WeightStandardisedConv2D(3, 3, initial_gain=2.0)
    layer.build((None, 8, 8, 4))
    kernel = keras.ops.convert_to_numpy(layer.standardised_kernel())
    np.testing.assert_allclose(kernel.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(kernel.var(axis=(0, 1, 2)), 4 / 36, rtol=1e-2)


def test_folding_changes_no_output_and_leaves_plain_convolutions() -> None:
    network = build_recogniser(TINY)
    plain = folded(network)
    np.testing.assert_allclose(plain(lines()), network(lines()), atol=1e-5)
    assert not any(isinstance(layer, WeightStandardisedConv2D) for layer in plain.layers)


def test_weights_survive_their_file_with_the_gains(tmp_path: object) -> None:
    network, other = build_recogniser(TINY), build_recogniser(TINY)
    for variable in network.trainable_variables:
        variable.assign(keras.random.normal(variable.shape, seed=3))
    network.save_weights(f"{tmp_path}/w.weights.h5")
    other.load_weights(f"{tmp_path}/w.weights.h5")
    np.testing.assert_array_equal(other(lines()), network(lines()))


def test_a_line_reads_the_same_alone_and_among_others() -> None:
    network = build_recogniser(TINY)
    together = np.asarray(network(lines(4)))
    alone = np.concatenate([np.asarray(network(lines(4)[i : i + 1])) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
