"""The three networks of the wear GAN: style encoder, generator, patch discriminator.

All are fully convolutional along the line and made of `keras` layers and `keras.ops` only. Grey images are float32, 0
black to 1 white, 40 px high; ink is float32, 0 paper to 1 ink; widths are multiples of 8 (`WIDTH_MULTIPLE_PX`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import initializers, layers, ops

from ocr_model.layers import WeightStandardisedConv2D
from ocr_model.line_images import LINE_HEIGHT_PX

WIDTH_MULTIPLE_PX = 8  # the generator halves the width three times
NOISE_MAPS = 2


@dataclass(frozen=True)
class WearNetworks:
    """Sizes of the networks.

    Attributes:
        style: dimensions of the style vector z.
        encoder: filters of the style encoder's four convolutions.
        generator: channels of the generator at 20, 10 and 5 px of height.
        discriminator: filters of the discriminator's four convolutions.
    """

    style: int = 12
    encoder: tuple[int, int, int, int] = (24, 48, 64, 96)
    generator: tuple[int, int, int] = (32, 64, 96)
    discriminator: tuple[int, int, int, int] = (32, 64, 96, 128)


@keras.saving.register_keras_serializable("pagemill")
class Styled(layers.Layer):
    """Feature maps scaled and shifted by the style, with noise whose strength the style decides.

    The scale and shift are those of FiLM (Perez et al. 2018), the noise per channel that of StyleGAN (Karras et al.
    2019). Nothing is normalised: the kernels are (`ocr_model.layers`).

    Inputs: maps [B, H, W, C], style [B, Z], noise [B, H, W, N] of which map `number % N` is taken.
    """

    def __init__(self, number: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "number": self.number}

    def build(self, maps_shape: Any, style_shape: Any, noise_shape: Any) -> None:
        channels, dimensions = int(maps_shape[-1]), int(style_shape[-1])
        small = initializers.RandomNormal(stddev=0.1 / dimensions**0.5)
        self.kernel = self.add_weight(name="kernel", shape=(dimensions, 3 * channels), initializer=small)
        self.bias = self.add_weight(name="bias", shape=(3 * channels,), initializer="zeros")

    def call(self, maps: Any, style: Any, noise: Any) -> Any:
        values = ops.matmul(style, ops.cast(self.kernel, style.dtype)) + ops.cast(self.bias, style.dtype)
        values = values[:, None, None, :]  # [B, 1, 1, 3 C]
        scale, shift, strength = ops.split(values, 3, axis=-1)
        kind = self.number % noise.shape[-1]
        return maps * (1 + scale) + shift + strength * noise[..., kind : kind + 1]

    def compute_output_shape(self, maps_shape: Any, style_shape: Any, noise_shape: Any) -> Any:
        return maps_shape


@keras.saving.register_keras_serializable("pagemill")
class Thinned(layers.Layer):
    """Every second row and column of [B, H, W, C]: noise that is white stays so."""

    def call(self, maps: Any) -> Any:
        return maps[:, ::2, ::2]

    def compute_output_shape(self, shape: Any) -> Any:
        batch, height, width, channels = shape
        return batch, -(-height // 2), None if width is None else -(-width // 2), channels


@keras.saving.register_keras_serializable("pagemill")
class Folded(layers.Layer):
    """[B, H, W, C] → [B, H/2, W/2, 4 C]: squares of four pixels become channels, so that no pixel is lost."""

    def call(self, maps: Any) -> Any:
        height, width, channels = ops.shape(maps)[1] // 2, ops.shape(maps)[2] // 2, maps.shape[-1]
        squares = ops.reshape(maps, (-1, height, 2, width, 2, channels))
        return ops.reshape(ops.transpose(squares, (0, 1, 3, 2, 4, 5)), (-1, height, width, 4 * channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *size, channels = input_shape
        return (batch, *(None if length is None else length // 2 for length in size), 4 * channels)


@keras.saving.register_keras_serializable("pagemill")
class Unfolded(layers.Layer):
    """[B, H, W, 4 C] → [B, 2 H, 2 W, C], the inverse of `Folded`."""

    def call(self, maps: Any) -> Any:
        height, width, channels = ops.shape(maps)[1], ops.shape(maps)[2], maps.shape[-1] // 4
        squares = ops.reshape(maps, (-1, height, width, 2, 2, channels))
        return ops.reshape(ops.transpose(squares, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *size, channels = input_shape
        return (batch, *(None if length is None else 2 * length for length in size), channels // 4)


@keras.saving.register_keras_serializable("pagemill")
class InkOnPaper(layers.Layer):
    """Grey from clean ink and four maps: what is added to the ink, tone of the paper, tone of the ink, grain.

    As the maps begin near 0, the generator begins with legible dark print on light paper, and learns what to change.

    Inputs: ink [B, H, W, 1], maps [B, H, W, 4], noise [B, H, W, N]. Output: [B, H, W, 1] float32, 0 black to 1 white.
    """

    def call(self, ink: Any, maps: Any, noise: Any) -> Any:
        more, paper, dark, grain = ops.split(ops.cast(maps, "float32"), 4, axis=-1)
        covered = ops.sigmoid(8 * (ops.cast(ink, "float32") - 0.5) + 4 * more)
        paper, dark = ops.sigmoid(2.2 + 2 * paper), ops.sigmoid(-1.6 + 2 * dark)
        return ops.clip(paper + (dark - paper) * covered + 0.3 * grain * ops.cast(noise[..., 0:1], "float32"), 0, 1)

    def compute_output_shape(self, ink_shape: Any, maps_shape: Any, noise_shape: Any) -> Any:
        return ink_shape


@keras.saving.register_keras_serializable("pagemill")
class MeanAndDeviation(layers.Layer):
    """[B, H, W, C] → [B, 2 C] float32: of each channel the mean and the standard deviation over the image."""

    def call(self, maps: Any) -> Any:
        maps = ops.cast(maps, "float32")
        mean = ops.mean(maps, axis=(1, 2))
        return ops.concatenate([mean, ops.sqrt(ops.var(maps, axis=(1, 2)) + 1e-4)], axis=-1)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[0], 2 * shape[-1]


def _leaky() -> layers.Layer:
    return layers.LeakyReLU(negative_slope=0.2)


def _convolution(x: Any, filters: int, size: int | tuple[int, int], strides: int = 1, gain: float = 1.414) -> Any:
    return WeightStandardisedConv2D(filters, size, strides=strides, padding="same", initial_gain=gain)(x)


def build_encoder(config: WearNetworks) -> keras.Model:
    """The style encoder of a variational autoencoder (Kingma & Welling 2014).

    Input: grey [B, 40, W, 1]. Output: [B, 2 Z] float32, the mean of z and the logarithm of its variance.
    """
    grey = keras.Input((LINE_HEIGHT_PX, None, 1), name="grey")
    x = layers.Rescaling(4.0, -3.0)(grey)
    shallow = None
    for filters, size in zip(config.encoder, (5, 3, 3, 3), strict=True):
        x = _leaky()(_convolution(x, filters, size, 2))  # [B, 20 10 5 3, W/2 4 8 16, C]
        shallow = MeanAndDeviation(dtype="float32")(x) if shallow is None else shallow
    # Tone and grain are told by the first maps, wear of the letters by the last ones.
    described = layers.Concatenate(dtype="float32")([shallow, MeanAndDeviation(dtype="float32")(x)])
    hidden = layers.Dense(64, activation="relu", dtype="float32")(described)
    small = initializers.RandomNormal(stddev=0.05)
    return keras.Model(
        grey, layers.Dense(2 * config.style, kernel_initializer=small, dtype="float32")(hidden), name="encoder"
    )


def build_generator(config: WearNetworks) -> keras.Model:
    """The generator, a U-Net (Ronneberger et al. 2015) whose maps are all styled.

    Inputs: `ink` [B, 40, W, 1], `style` [B, Z], `noise` [B, 40, W, 2] of a standard normal distribution.
    Output: grey [B, 40, W, 1] float32. The same inputs give the same worn line; what stands where is not moved.
    """
    ink = keras.Input((LINE_HEIGHT_PX, None, 1), name="ink")
    style = keras.Input((config.style,), name="style")
    noise = keras.Input((LINE_HEIGHT_PX, None, NOISE_MAPS), name="noise")
    grains = [Thinned()(noise)]
    for _ in config.generator[1:]:
        grains.append(Thinned()(grains[-1]))
    number = 0

    def styled(x: Any, filters: int, level: int, strides: int = 1) -> Any:
        nonlocal number
        number += 1
        return _leaky()(Styled(number)(_convolution(x, filters, 3, strides), style, grains[level]))

    def refined(x: Any, filters: int, level: int) -> Any:
        y = styled(x, filters, level)
        return layers.Add()([x, _convolution(y, filters, 3, gain=0.3)])

    x = styled(Folded()(ink), config.generator[0], 0)  # [B, 20, W/2, C]
    skips = []
    for level, filters in enumerate(config.generator[1:], 1):
        skips.append(x)
        x = refined(styled(x, filters, level, 2), filters, level)  # [B, 10 5, W/4 8, C]
    for level in reversed(range(len(skips))):
        x = layers.UpSampling2D(2)(_convolution(x, config.generator[level], 3, gain=1.0))
        x = refined(layers.Add()([x, skips[level]]), config.generator[level], level)
    begin = initializers.RandomNormal(stddev=0.01)
    maps = Unfolded()(layers.Conv2D(16, 3, padding="same", kernel_initializer=begin)(x))  # [B, 40, W, 4]
    grey = InkOnPaper(dtype="float32")(ink, maps, noise)
    return keras.Model([ink, style, noise], grey, name="generator")


def build_discriminator(config: WearNetworks) -> keras.Model:
    """A patch discriminator (Isola et al. 2017) at two sizes of patch: grain, and strokes with their surroundings.

    Input: grey [B, 40, W, 1]. Outputs: scores [B, 10, W/4] and [B, 5, W/8] float32; high is real.
    """
    grey = keras.Input((LINE_HEIGHT_PX, None, 1), name="grey")
    first, second, third, fourth = config.discriminator
    x = layers.Rescaling(4.0, -3.0)(grey)
    x = _leaky()(_convolution(x, first, 4, 2))
    x = _leaky()(_convolution(x, second, 4, 2))  # [B, 10, W/4, C]
    fine = layers.Conv2D(1, 1, dtype="float32")(x)
    x = _leaky()(_convolution(x, third, 3))
    x = _leaky()(_convolution(x, fourth, 4, 2))  # [B, 5, W/8, C]
    x = _leaky()(_convolution(x, fourth, 3))
    coarse = layers.Conv2D(1, 1, dtype="float32")(x)
    return keras.Model(grey, [fine, coarse], name="discriminator")
