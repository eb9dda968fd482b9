"""A network of a bundle as a plain function: a signature of a SavedModel with its weights as constants.

The arithmetic is that of the SavedModel. What is done to the graph is what TensorFlow leaves undone on a processor;
docs/models.md tells what each part of it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocr_model.errors import BadModel

Arrays = dict[str, npt.NDArray[Any]]
NetworkFunction = Callable[[npt.NDArray[np.uint8]], Arrays]


def load_network(folder: Path, name: str, usual: Sequence[int]) -> NetworkFunction:
    """A signature of a SavedModel, in a session of its own that keeps nothing of the model's other signatures.

    A session costs a millisecond a call less than a TensorFlow function does.

    Args:
        name: of the signature; it takes one uint8 array.
        usual: the shape of what it will mostly get. It is called once with that: the weights are laid out for the
            processor as the first call wants them, and laid out again in each call that wants them otherwise.

    Raises:
        BadModel: there is no such signature, or the files are damaged.
    """
    import tensorflow as tf

    definition, given, wanted = frozen(folder, name)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    call: NetworkFunction = tf.compat.v1.Session(graph=graph).make_callable(wanted, [given])
    call(np.zeros(usual, np.uint8))
    return call


def frozen(folder: Path, name: str) -> tuple[Any, str, dict[str, str]]:
    """The `GraphDef` of a signature with its weights as constants, the tensor that is given, and the wanted ones.

    Raises:
        BadModel: as `load_network`.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph
    from tensorflow.python.saved_model.loader_impl import SavedModelLoader

    try:
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            signature = SavedModelLoader(str(folder)).load(session, ["serve"]).signature_def[name]
            (given,) = (value.name for value in signature.inputs.values())
            wanted = {key: value.name for key, value in signature.outputs.items()}
            nodes = sorted({tensor.partition(":")[0] for tensor in wanted.values()})
            definition = convert_variables_to_constants_from_session_graph(session, session.graph.as_graph_def(), nodes)
    except (OSError, KeyError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise BadModel(f"{folder} holds no network with the signature {name}", "take a complete bundle") from error
    definition = inlined(definition, nodes)
    for node in definition.node:  # nothing here has an effect: what nobody computes with may go
        tensors = [tensor for tensor in node.input if not tensor.startswith("^")]
        del node.input[:]
        node.input.extend(tensors)
    fold_casts(definition.node)
    dilate(definition.node)
    return tf.compat.v1.graph_util.extract_sub_graph(definition, nodes), given, wanted


def inlined(definition: Any, outputs: Iterable[str]) -> Any:
    """A `GraphDef` with the bodies of the functions that it calls in their places, and no functions.

    Args:
        outputs: names of the nodes that are wanted.
    """
    import tensorflow as tf
    from tensorflow.python.grappler import tf_optimizer

    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
        meta = tf.compat.v1.train.export_meta_graph(graph=graph)
    meta.collection_def["train_op"].node_list.value.extend(outputs)
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.optimizers.append("function")
    config.graph_options.rewrite_options.meta_optimizer_iterations = 1
    config.graph_options.rewrite_options.min_graph_nodes = -1  # a small graph as well
    return tf_optimizer.OptimizeGraph(config, meta)


def fold_casts(nodes: Sequence[Any]) -> None:
    """Makes constants of casts of constants, in place.

    TensorFlow does that for small ones only, or so late that oneDNN does not know them for constants: then it lays the
    weights of every convolution out anew in every call.

    Args:
        nodes: `NodeDef` of one graph without functions.
    """
    import tensorflow as tf

    by_name = {node.name: node for node in nodes}
    constants: dict[str, npt.NDArray[Any] | None] = {}  # None: a node that is none

    def value_of(tensor: str) -> npt.NDArray[Any] | None:
        node = by_name[tensor.partition(":")[0]]
        if node.name not in constants:
            value = None
            if node.op == "Const":
                value = tf.make_ndarray(node.attr["value"].tensor)
            elif node.op in ("Cast", "Identity") and (value := value_of(node.input[0])) is not None:
                value = value.astype(tf.as_dtype(node.attr["DstT" if node.op == "Cast" else "T"].type).as_numpy_dtype)
            constants[node.name] = value
        return constants[node.name]

    between = {node.name for node in nodes if node.op in ("Cast", "Identity")}
    for node in [n for n in nodes if n.name not in between]:
        for tensor in node.input:
            cast = by_name[tensor.partition(":")[0]]
            if cast.op == "Cast" and (value := value_of(cast.name)) is not None:
                name, data_type = cast.name, tf.as_dtype(value.dtype).as_datatype_enum
                cast.Clear()
                cast.name, cast.op = name, "Const"
                cast.attr["dtype"].type = data_type
                constant = cast.attr["value"].tensor  # written as bytes: bfloat16 would take four a number else
                constant.dtype, constant.tensor_content = data_type, value.tobytes()
                constant.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())


def dilate(nodes: Iterable[Any]) -> None:
    """Makes dilated convolutions of what TensorFlow writes for them in a graph, in place: the pixels dealt out to many
    images, a plain convolution, the pixels put back. That costs a tenth of the whole network.

    Args:
        nodes: `NodeDef` of one graph or function.
    """
    from tensorflow import make_ndarray

    by_name = {node.name: node for node in nodes}

    def value_of(name: str) -> npt.NDArray[Any] | None:
        node = by_name.get(name.partition(":")[0])
        return make_ndarray(node.attr["value"].tensor) if node is not None and node.op == "Const" else None

    for last in by_name.values():
        if last.op != "BatchToSpaceND":
            continue
        place = last.name.rpartition("/")[0]
        convolution, first = by_name.get(place), by_name.get(f"{place}/SpaceToBatchND")
        sizes, dilation, paddings = (value_of(f"{place}/{name}") for name in ("filter_shape", "dilation_rate", "stack"))
        if convolution is None or first is None or sizes is None or dilation is None or paddings is None:
            continue  # written by another version: it stays, and costs what it costs
        around = (sizes[:2] - 1) * dilation
        if (paddings != np.stack([around // 2, around - around // 2], axis=1)).any():
            continue  # the padding is not "same"
        image, kernel, data_type = first.input[0], convolution.input[1], convolution.attr["T"].type
        name = last.name
        last.Clear()
        last.name, last.op = name, "Conv2D"
        last.input.extend((image, kernel))
        last.attr["T"].type = data_type
        last.attr["padding"].s = b"SAME"
        last.attr["strides"].list.i.extend((1, 1, 1, 1))
        last.attr["dilations"].list.i.extend((1, *dilation.tolist(), 1))
