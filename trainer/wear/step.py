"""One step of the wear GAN under a `tf.distribute` strategy: the discriminator learns, then generator and encoder.

The style encoder is that of a VAE-GAN (Larsen et al. 2016) with the latent regression of BicycleGAN (Zhu et al. 2017):
a style that was drawn, or taken from a real line, must be found again in what was worn with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.loop import divided
from trainer.optimiser import AdamW, clipped, without_missing
from trainer.strategy import first, share
from trainer.wear import losses
from trainer.wear.networks import WearNetworks, build_discriminator, build_encoder, build_generator

LOSSES = ("discriminator", "penalty", "fooling", "reading", "style", "divergence", "likeness", "grain")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the generator's and encoder's loss, and of the discriminator's penalty.

    Attributes:
        reading: CTC a character by the recogniser; style: squared error of the style that is found again;
        divergence: from the normal prior; likeness, grain: of a real line made again from its own ink and style;
        penalty: R1, taken in one step of `penalty_every`.
    """

    reading: float = 0.5
    style: float = 0.5
    divergence: float = 0.03
    likeness: float = 4.0
    grain: float = 8.0
    penalty: float = 0.2
    penalty_every: int = 8


@dataclass
class Networks:
    """The networks in training, and the recogniser that only reads.

    Attributes:
        reads: [B, 40, W, 1] float, 0 paper to 1 ink → features [B, T, F] and logits [B, T, classes].
    """

    encoder: keras.Model
    generator: keras.Model
    discriminator: keras.Model
    reads: keras.Model

    @classmethod
    def build(cls, config: WearNetworks, reads: keras.Model) -> Networks:
        return cls(build_encoder(config), build_generator(config), build_discriminator(config), reads)


@dataclass(frozen=True)
class Together:
    """Networks that one optimiser learns."""

    networks: Sequence[keras.Model]

    @property
    def trainable_variables(self) -> list[Any]:
        return [v for network in self.networks for v in network.trainable_variables]


@dataclass(frozen=True)
class Outcome:
    """Of a step: its losses by name, the gradients' norms before clipping, and whether all was finite."""

    losses: dict[str, float]
    norms: tuple[float, float]
    good: bool
    stop: bool


class WearStep:
    """The compiled step.

    Every loss is a mean over equal parts of the batch, so the gradients of the replicas, added up and divided by their
    number, are those of one device with the whole batch.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        networks: Networks,
        makes: AdamW,
        judges: AdamW,
        weights: LossWeights,
        clip_norm: float,
    ) -> None:
        self.strategy, self.networks, self.makes, self.judges = strategy, networks, makes, judges
        self.weights, self.clip_norm = weights, clip_norm
        self._run = tf.function(self._on_all, autograph=False)

    def __call__(
        self, batch: Mapping[str, np.ndarray], rates: tuple[float, float], momentum: float, penalised: bool, stop: bool
    ) -> Outcome:
        """
        Args:
            batch: as `trainer.wear.lines.make_batch` gives it, its size a multiple of the number of replicas.
            rates: learning rates of generator and encoder, and of the discriminator.
            momentum: of the averaged weights.
            penalised: whether this step takes the discriminator's penalty.
            stop: this process was asked to stop.
        """
        replicas = self.strategy.num_replicas_in_sync
        parts = divided({"inputs": batch["ink"], **batch}, replicas)
        mine = share(self.strategy, [{k: tf.constant(v) for k, v in part.items()} for part in parts])
        scalars = {"makes": rates[0], "judges": rates[1], "momentum": momentum, "stop": float(stop)}
        values = {name: tf.constant(value, tf.float32) for name, value in scalars.items()}
        found, norms, good, asked = (x.numpy() for x in self._run(mine, values, penalised))
        named = dict(zip(LOSSES, found.tolist(), strict=True))
        return Outcome(named, (float(norms[0]), float(norms[1])), bool(good), float(asked) > 0)

    def _on_all(self, batch: Any, scalars: Mapping[str, tf.Tensor], penalised: bool) -> list[tf.Tensor]:
        outcome = self.strategy.run(self._on_one, args=(batch, scalars, penalised))
        return [first(self.strategy, x) for x in outcome]

    def _on_one(self, batch: Any, scalars: Mapping[str, tf.Tensor], penalised: bool) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        n, w = self.networks, self.weights
        characters = context.all_reduce("sum", tf.reduce_sum(tf.cast(batch["lengths"], tf.float32)))
        characters /= context.num_replicas_in_sync
        with tf.GradientTape(watch_accessed_variables=False) as making:
            making.watch(self.makes.weights)
            mean, log_variance = losses.split_style(n.encoder(batch["real"], training=True))
            own = mean + tf.exp(0.5 * log_variance) * batch["sampling"]
            style = _half_of_each(batch["style"], own)
            worn = n.generator([batch["ink"], style, batch["noise"]], training=True)
            judged, penalty, judge_norm, judge_good = self._judge(context, batch, worn, scalars, penalised)
            half = tf.shape(own)[0] // 2  # enough to tie styles to real lines, at half the cost
            again = n.generator([batch["guessed"][:half], own[:half], batch["guessed_noise"][:half]], training=True)
            found, _ = losses.split_style(n.encoder(worn, training=True))
            wanted = _half_of_each(batch["style"], tf.stop_gradient(mean))
            parts = {
                "fooling": losses.fooling_loss(n.discriminator(worn, training=True)),
                "reading": losses.reading_loss(
                    n.reads(losses.as_read(worn), training=False)[1],
                    batch["labels"],
                    batch["lengths"],
                    batch["seen"],
                    characters,
                ),
                "style": tf.reduce_mean((found - wanted) ** 2),
                "divergence": losses.divergence(mean, log_variance),
                "likeness": losses.likeness(batch["real"][:half], again),
                "grain": losses.grain_loss(batch["real"][:half], again),
            }
            total = parts["fooling"] + sum(getattr(w, name) * parts[name] for name in LOSSES[3:])
        gradients, norm, good = self._summed(context, making, total, self.makes)
        good &= judge_good
        self.makes.apply(gradients, scalars["makes"], scalars["momentum"], good)
        everything = tf.stack([judged, penalty, *(parts[name] for name in LOSSES[2:])])
        shared = context.all_reduce("sum", tf.concat([everything, [scalars["stop"]]], axis=0))
        means = shared[:-1] / context.num_replicas_in_sync
        return [means, tf.stack([norm, judge_norm]), good & tf.reduce_all(tf.math.is_finite(means)), shared[-1]]

    def _judge(
        self, context: Any, batch: Any, worn: tf.Tensor, scalars: Mapping[str, tf.Tensor], penalised: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """The discriminator's part: its loss, its penalty, the norm of its gradient, and whether it was finite."""
        discriminator, fakes = self.networks.discriminator, tf.stop_gradient(worn)
        with tf.GradientTape(watch_accessed_variables=False) as judging:
            judging.watch(self.judges.weights)
            scores = discriminator(tf.concat([batch["real"], fakes], axis=0), training=True)
            real, fake = zip(*(tf.split(s, 2) for s in scores), strict=True)
            loss = losses.discriminator_loss(real, fake)
            penalty = losses.gradient_penalty(discriminator, batch["real"]) if penalised else tf.zeros(())
            total = loss + self.weights.penalty * self.weights.penalty_every * penalty
        gradients, norm, good = self._summed(context, judging, total, self.judges)
        self.judges.apply(gradients, scalars["judges"], scalars["momentum"], good)
        return loss, penalty, norm, good

    def _summed(
        self, context: Any, tape: tf.GradientTape, loss: tf.Tensor, optimiser: AdamW
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """The whole batch's gradients, clipped, their norm before, and whether it is finite."""
        local = without_missing(tape.gradient(loss, optimiser.weights), optimiser.weights)
        gradients = [g / context.num_replicas_in_sync for g in context.all_reduce("sum", local)]
        gradients, norm = clipped(gradients, self.clip_norm)
        return gradients, norm, tf.math.is_finite(norm)


def _half_of_each(drawn: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """The first half of the batch has styles that were drawn, the other one those of real lines."""
    half = tf.shape(drawn)[0] // 2
    return tf.concat([drawn[:half], own[half:]], axis=0)
