"""Keras layers that both networks are built from, in `keras.ops` only, so that they run on every Keras backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import initializers, layers, ops


@keras.saving.register_keras_serializable("pagemill")
class WeightStandardisedConv2D(layers.Conv2D):
    """A convolution whose kernel is standardised per filter instead of its output being normalised.

    Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", with the
    gain per filter of Brock et al. 2021, "Characterizing signal propagation to close the performance gap in
    unnormalized ResNets". There is nothing to do at full resolution but the convolution itself, which is what makes
    it cheap on a CPU, and a result cannot depend on the rest of the batch.

    Args:
        initial_gain: of every filter; the square root of 2 keeps the variance through a ReLU, a small one makes a
            residual branch begin near the identity.

    Input and output as `keras.layers.Conv2D`, [batch, height, width, channels].
    """

    def __init__(self, *args: Any, initial_gain: float = 1.414, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial_gain = initial_gain

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_gain": self.initial_gain}

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.gain = self.add_weight(
            name="gain", shape=(self.filters,), initializer=initializers.Constant(self.initial_gain)
        )

    def save_own_variables(self, store: Any) -> None:
        for name, variable in self._named_variables().items():
            store[name] = variable

    def load_own_variables(self, store: Any) -> None:
        for name, variable in self._named_variables().items():
            variable.assign(store[name])

    def _named_variables(self) -> dict[str, Any]:
        """What a weights file holds of the layer (that of `Conv2D` leaves the gain out)."""
        named = {"kernel": self.kernel, "gain": self.gain}
        return {**named, "bias": self.bias} if self.use_bias else named

    def standardised_kernel(self) -> Any:
        """[height, width, channels in, filters] float32: mean 0 and variance gain² / fan-in per filter."""
        kernel = ops.cast(self.kernel, "float32")
        fan_in = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
        mean = ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = ops.var(kernel, axis=(0, 1, 2), keepdims=True)
        return (kernel - mean) * ops.rsqrt(variance * fan_in + 1e-4) * ops.cast(self.gain, "float32")

    def call(self, inputs: Any) -> Any:
        outputs = ops.conv(
            inputs,
            ops.cast(self.standardised_kernel(), inputs.dtype),
            strides=list(self.strides),
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )
        if self.use_bias:
            outputs = ops.add(outputs, ops.cast(self.bias, outputs.dtype))
        return outputs if self.activation is None else self.activation(outputs)


def folded(network: keras.Model) -> keras.Model:
    """The same network with plain convolutions that hold the standardised kernels: what is exported.

    Returns:
        A new model of the same inputs and outputs; the numbers are the same, the standardisation is done once.
    """

    def clone(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, WeightStandardisedConv2D):
            return layer.__class__.from_config(layer.get_config())
        config = layer.get_config()
        del config["initial_gain"]
        return layers.Conv2D.from_config(config)

    plain = keras.models.clone_model(network, clone_function=clone)
    for source, target in zip(network.layers, plain.layers, strict=True):
        if isinstance(source, WeightStandardisedConv2D):
            weights = [ops.convert_to_numpy(source.standardised_kernel())]
            if source.use_bias:
                weights.append(ops.convert_to_numpy(source.bias))
            target.set_weights(weights)
        else:
            target.set_weights(source.get_weights())
    return plain
