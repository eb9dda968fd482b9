"""The line recogniser: a line image in, class scores along the line out.

Fully convolutional with CTC (Graves et al. 2006): no recurrence, so a line may have any width, and a step of the
output sees a fixed part of the line. No batch normalisation: see `ocr_model.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from ocr_model.layers import WeightStandardisedConv2D
from ocr_model.line_images import LINE_HEIGHT_PX


@dataclass(frozen=True)
class RecogniserConfig:
    """The size of the network.

    Attributes:
        classes: outputs, blank included.
        stem_filters: filters of the four two-dimensional convolutions that reduce the height by 8 and the width by 4.
        trunk_filters: channels along the line.
        trunk_blocks: residual blocks along the line, each one convolution of `trunk_width` steps.
        trunk_width: kernel width in steps of 4 px.
    """

    classes: int
    stem_filters: tuple[int, int, int, int] = (16, 32, 48, 80)
    trunk_filters: int = 256
    trunk_blocks: int = 12
    trunk_width: int = 3

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RecogniserConfig:
        """The sizes as a run folder or a bundle has them.

        Raises:
            KeyError, TypeError: they are those of something else.
        """
        return cls(**{**values, "stem_filters": tuple(values["stem_filters"])})


def build_recogniser(config: RecogniserConfig, scores_dtype: str = "float32") -> keras.Model:
    """The network.

    Input: [batch, 40, width, 1] uint8, 0 is paper and 255 is ink; the width is a multiple of 4.
    Output: [batch, width / 4, classes] float32 logits, class 0 is the blank.

    Args:
        scores_dtype: what the logits are computed in. To read a line bfloat16 is enough: it takes a twelfth off the
            time and changes one line in a thousand.
    """

    def convolution(x: Any, filters: int, size: Any, strides: Any = 1, **options: Any) -> Any:
        return WeightStandardisedConv2D(filters, size, strides=strides, padding="same", activation="relu", **options)(x)

    first, second, third, fourth = config.stem_filters
    inputs = keras.Input((LINE_HEIGHT_PX, None, 1), dtype="uint8", name="lines")
    x = layers.Rescaling(1 / 255)(inputs)
    x = convolution(x, first, 5, 2)  # [B, 20, W/2, C]
    x = convolution(x, second, 3, (2, 1))  # [B, 10, W/2, C]
    x = convolution(x, third, 3)
    x = convolution(x, fourth, 3, 2)  # [B, 5, W/4, C]
    x = WeightStandardisedConv2D(config.trunk_filters, (5, 3), padding="valid", activation="relu")(
        layers.ZeroPadding2D(((0, 0), (1, 1)))(x)
    )  # [B, 1, W/4, C]
    for block in range(config.trunk_blocks):
        dilation = 2 if block % 3 == 2 else 1
        y = convolution(x, config.trunk_filters, (1, config.trunk_width), dilation_rate=(1, dilation), initial_gain=0.3)
        x = layers.Add()([x, y])
    x = layers.Dropout(0.1)(x)
    x = layers.Conv2D(config.classes, 1, dtype=scores_dtype, name="scores")(x)
    return keras.Model(inputs, SqueezeHeight(dtype="float32")(x), name="recogniser")


@keras.saving.register_keras_serializable("pagemill")
class SqueezeHeight(layers.Layer):
    """[batch, 1, time, channels] → [batch, time, channels]."""

    def call(self, inputs: Any) -> Any:
        return inputs[:, 0]
