"""What `load_network` makes of the graph of an exported network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ocr_model.errors import BadModel
from ocr_model.served_network import dilate, fold_casts, frozen, load_network

USUAL = (1, 8, 8, 2)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 2, 4)).astype(np.float32)


class Dilated(tf.Module):
    """A dilated convolution as Keras calls it: TensorFlow deals the pixels out to many images."""

    def __init__(self, padding: str) -> None:
        super().__init__()
        self.padding = padding
        self.kernel = tf.Variable(KERNEL)

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 2), tf.uint8, name="image")])
    def convolve(self, image: Any) -> dict[str, Any]:
        return {"out": tf.nn.convolution(tf.cast(image, tf.float32), self.kernel, padding=self.padding, dilations=2)}


def saved(folder: Path, padding: str) -> Dilated:
    network = Dilated(padding)
    tf.saved_model.save(network, str(folder), signatures={"convolve": network.convolve})
    return network


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_loaded_network_computes_what_was_saved(tmp_path: Path, padding: str) -> None:
    network = saved(tmp_path / "network", padding)
    image = np.random.default_rng(2).integers(0, 255, (1, 9, 14, 2), dtype=np.uint8)
    found = load_network(tmp_path / "network", "convolve", USUAL)(image)
    np.testing.assert_allclose(found["out"], network.convolve(image)["out"], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("padding", "expected"), [("SAME", [[1, 2, 2, 1]]), ("VALID", [])])
def test_only_convolutions_with_the_padding_same_are_made_dilated(padding: str, expected: list[list[int]]) -> None:
    network = Dilated(padding)
    nodes = network.convolve.get_concrete_function().graph.as_graph_def().node
    dilate(nodes)
    dilations = [list(node.attr["dilations"].list.i) for node in nodes if node.op == "Conv2D"]
    assert [values for values in dilations if 2 in values] == expected


def test_a_signature_that_is_not_there_and_a_damaged_file_are_told(tmp_path: Path) -> None:
    saved(tmp_path / "network", "SAME")
    with pytest.raises(BadModel, match="read_lines"):
        load_network(tmp_path / "network", "read_lines", USUAL)
    for file in (tmp_path / "network" / "variables").iterdir():
        file.write_bytes(b"")
    with pytest.raises(BadModel, match="convolve"):
        load_network(tmp_path / "network", "convolve", USUAL)


class KeptInBfloat16(tf.Module):
    """Weights that are kept in one precision, taken for another and computed with in the first, as in a bundle."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.cast(np.random.default_rng(3).normal(size=(3, 3, 64, 128)), tf.bfloat16))  # 144 kB

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 64), tf.uint8, name="image")])
    def convolve(self, image: Any) -> dict[str, Any]:
        kernel = tf.cast(tf.cast(self.kernel, tf.float32), tf.bfloat16)
        return {"out": tf.nn.convolution(tf.cast(image, tf.bfloat16), kernel, padding="SAME")}


def test_weights_that_are_kept_in_another_precision_become_constants(tmp_path: Path) -> None:
    network = KeptInBfloat16()
    tf.saved_model.save(network, str(tmp_path), signatures={"convolve": network.convolve})
    nodes = {node.name: node for node in frozen(tmp_path, "convolve")[0].node}
    (convolution,) = (node for node in nodes.values() if node.op == "Conv2D")
    kernel = nodes[convolution.input[1].partition(":")[0]]
    assert kernel.op == "Const"
    np.testing.assert_array_equal(tf.make_ndarray(kernel.attr["value"].tensor), network.kernel.numpy())
    image = np.random.default_rng(4).integers(0, 255, (1, 5, 7, 64), dtype=np.uint8)
    found = load_network(tmp_path, "convolve", image.shape)(image)
    np.testing.assert_array_equal(found["out"], network.convolve(image)["out"])


def test_a_cast_of_what_is_given_stays() -> None:
    with tf.Graph().as_default() as graph:
        tf.cast(tf.compat.v1.placeholder(tf.uint8, (2,), name="given"), tf.float32, name="cast")
    nodes = graph.as_graph_def().node
    fold_casts(nodes)
    assert [node.op for node in nodes] == ["Placeholder", "Cast"]
