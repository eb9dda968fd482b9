"""The line finder's network: a reduced page in, maps of where the text lines are out.

A small U-Net (Ronneberger et al. 2015). What it marks follows Kodym & Hradiš 2021, "Page Layout Analysis System for
Unconstrained Historic Documents" (baselines, line ends, heights above and below the baseline) and Grüning et al.
2018, "A Two-Stage Method for Text Line Detection in Historical Documents" (separators at the ends keep neighbouring
columns apart). `ocr_model.line_maps` turns the maps into lines.

The first convolution has stride 2, so nothing runs at the resolution of the input. No batch normalisation: see
`ocr_model.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ocr_model.layers import WeightStandardisedConv2D

MAP_STRIDE_PX = 2
REFERENCE_HEIGHT_PX = 10.0
QUARTER_TURNS = 4

Maps = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FinderConfig:
    """The size of the network.

    Attributes:
        filters: channels at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        dilations: of the residual blocks at 1/16, which is where the context of a page is seen.
    """

    filters: tuple[int, int, int, int] = (12, 24, 40, 64)
    dilations: tuple[int, ...] = (1, 2, 4, 8)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FinderConfig:
        """The sizes as a run folder has them.

        Raises:
            KeyError, TypeError: they are those of something else.
        """
        return cls(**{**values, "filters": tuple(values["filters"]), "dilations": tuple(values["dilations"])})


@keras.saving.register_keras_serializable("pagemill")
class DepthToSpace(layers.Layer):
    """Four channels become a square of 2 x 2 pixels (Shi et al. 2016): [B, H, W, 4 C] → [B, 2 H, 2 W, C]."""

    def call(self, inputs: Any) -> Any:
        batch, height, width, channels = ops.shape(inputs)
        x = ops.reshape(inputs, (batch, height, width, 2, 2, channels // 4))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (batch, height * 2, width * 2, channels // 4))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        return batch, height and height * 2, width and width * 2, channels // 4


def build_finder(config: FinderConfig) -> keras.Model:
    """The network.

    Input: [B, H, W, 1] grey, 0 (black) to 255 (white); H and W are multiples of 32.
    Outputs:
        `maps`: [B, H/2, W/2, 4] float32: the logit of a line's core (from the baseline up to the x-height), the logit
            of a line's end, and the natural logarithms of the height above and of the depth below the baseline, in
            units of 10 px of the input.
        `orientation`: [B, 4] float32 logits: quarter turns clockwise that make the page upright.
    """

    def convolution(
        x: Any, filters: int, size: int = 3, strides: int = 1, dilation: int = 1, activation: str | None = "relu"
    ) -> Any:
        return WeightStandardisedConv2D(
            filters, size, strides=strides, dilation_rate=dilation, padding="same", activation=activation
        )(x)

    def residual(x: Any, filters: int, dilation: int = 1) -> Any:
        y = convolution(x, filters, dilation=dilation)
        y = convolution(y, filters, dilation=dilation, activation=None)
        return layers.Activation("relu")(layers.Add()([x, y]))

    def enlarged(x: Any, filters: int) -> Any:
        return DepthToSpace()(convolution(x, 4 * filters, size=1, activation=None))

    half, quarter, eighth, sixteenth = config.filters
    image = keras.Input((None, None, 1), name="image")
    x = layers.Rescaling(-1 / 255, offset=1.0)(image)
    at_half = convolution(x, half, size=5, strides=2)  # [B, H/2, W/2, C]
    at_quarter = residual(convolution(at_half, quarter, strides=2), quarter)  # [B, H/4, W/4, C]
    at_eighth = residual(convolution(at_quarter, eighth, strides=2), eighth)  # [B, H/8, W/8, C]
    x = convolution(at_eighth, sixteenth, strides=2)  # [B, H/16, W/16, C]
    for dilation in config.dilations:
        x = residual(x, sixteenth, dilation)
    bottom = x
    x = convolution(layers.Concatenate()([enlarged(x, 32), at_eighth]), eighth)  # [B, H/8, W/8, C]
    x = residual(x, eighth)
    x = convolution(layers.Concatenate()([enlarged(x, 24), at_quarter]), quarter)  # [B, H/4, W/4, C]
    x = convolution(x, quarter)
    x = convolution(layers.Concatenate()([enlarged(x, 8), at_half]), half)  # [B, H/2, W/2, C]
    maps = layers.Conv2D(4, 1, dtype="float32", name="maps")(x)

    votes = layers.Conv2D(QUARTER_TURNS, 1, dtype="float32")(bottom)
    weights = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(bottom)
    orientation = WeightedMean(name="orientation", dtype="float32")([votes, weights])  # [B, 4]
    return keras.Model(image, {"maps": maps, "orientation": orientation}, name="finder")


@keras.saving.register_keras_serializable("pagemill")
class WeightedMean(layers.Layer):
    """Mean over the image with a weight for each place: [B, H, W, C] and [B, H, W, 1] → [B, C]."""

    def call(self, inputs: Any) -> Any:
        values, weights = inputs
        return ops.sum(values * weights, axis=(1, 2)) / (ops.sum(weights, axis=(1, 2)) + 1e-3)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0][0], input_shape[0][3]


def readable(outputs: Any) -> Any:
    """The network's outputs as probabilities and pixels, in `keras.ops`: what the signature `find_lines` gives.

    Returns:
        `core`, `ends`: [B, H/2, W/2] float32, 0 to 1; `ascender`, `descender`: [B, H/2, W/2] float32 in px of the
        input; `orientation`: [B, 4] float32 probabilities of 0 to 3 quarter turns clockwise.
    """
    maps = outputs["maps"]
    heights = REFERENCE_HEIGHT_PX * ops.exp(ops.clip(maps[..., 2:], -4.0, 4.0))
    return {
        "core": ops.sigmoid(maps[..., 0]),
        "ends": ops.sigmoid(maps[..., 1]),
        "ascender": heights[..., 0],
        "descender": heights[..., 1],
        "orientation": ops.softmax(outputs["orientation"]),
    }


def maps_function(model: keras.Model) -> Callable[[np.ndarray], Maps]:
    """A function from [B, H, W, 1] uint8 images to the arrays of `readable`, for `ocr_model.layout.LineFinder`."""

    def maps(images: np.ndarray) -> Maps:
        outputs = readable(model(ops.cast(images, "float32"), training=False))
        return {name: ops.convert_to_numpy(value) for name, value in outputs.items()}

    return maps
