"""AdamW with averaged weights under any `tf.distribute` strategy.

Keras's AdamW adds up the gradients of the replicas itself, after which nothing can be clipped or left out by what the
whole gradient is. Here the step adds up, clips and decides, and one pass over the variables does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.schedule import decayed


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) and the exponential moving average of the weights (Polyak & Juditsky 1992).

    To be made in the scope of the strategy. Weights are read and written in place; `slots` are its own.

    Args:
        model: whose trainable variables are learnt.
        weight_decay: a share of the learning rate; biases and gains have none.
        rate_of: path of a variable → factor of its learning rate; None takes 1 for all, 0 freezes.
    """

    def __init__(
        self,
        model: keras.Model,
        weight_decay: float,
        rate_of: Callable[[str], float] | None = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        self.weights = [v.value for v in model.trainable_variables]
        self.decays = [weight_decay if decayed(v.path) else 0.0 for v in model.trainable_variables]
        self.rates = [1.0 if rate_of is None else rate_of(v.path) for v in model.trainable_variables]
        self.betas, self.epsilon = (beta_1, beta_2), epsilon
        self.slots = [
            {
                "first": tf.Variable(tf.zeros_like(w), trainable=False),
                "second": tf.Variable(tf.zeros_like(w), trainable=False),
                "average": tf.Variable(tf.identity(w), trainable=False),
            }
            for w in self.weights
        ]
        self.count = tf.Variable(tf.zeros((), tf.float32), trainable=False)  # updates done

    def named_variables(self) -> dict[str, tf.Variable]:
        """Its state, for a checkpoint."""
        named = {f"{name}/{i}": v for i, slots in enumerate(self.slots) for name, v in slots.items()}
        return {**named, "count": self.count}

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor, momentum: tf.Tensor, good: tf.Tensor) -> None:
        """One update, in a replica's context, of gradients that are equal on all replicas.

        Args:
            rate: learning rate; momentum: of the average; good: False leaves all as it is.
        """
        args = (list(gradients), rate, momentum, good)
        tf.__internal__.distribute.interim.maybe_merge_call(self._update, tf.distribute.get_strategy(), *args)

    def _update(
        self, strategy: Any, gradients: Sequence[tf.Tensor], rate: tf.Tensor, momentum: tf.Tensor, good: tf.Tensor
    ) -> None:
        for i, (weight, gradient, slots) in enumerate(zip(self.weights, gradients, self.slots, strict=True)):
            if self.rates[i] == 0.0:
                continue
            scalars = {"rate": rate, "momentum": momentum, "good": good, "count": self.count}
            kwargs = {"gradient": gradient, **slots, **scalars, "decay": self.decays[i], "factor": self.rates[i]}
            strategy.extended.update(weight, self._update_one, kwargs=kwargs, group=False)
        strategy.extended.update(self.count, _increment, args=(good,), group=False)

    def _update_one(
        self,
        weight: tf.Variable,
        gradient: tf.Tensor,
        first: tf.Variable,
        second: tf.Variable,
        average: tf.Variable,
        rate: tf.Tensor,
        momentum: tf.Tensor,
        good: tf.Tensor,
        count: tf.Variable,
        decay: float,
        factor: float,
    ) -> None:
        (beta_1, beta_2), step = self.betas, tf.cast(count + 1, tf.float32)
        rate = rate * factor
        new_first = beta_1 * first + (1 - beta_1) * gradient
        new_second = beta_2 * second + (1 - beta_2) * gradient**2
        correction = tf.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        moved = weight - rate * decay * weight - rate * correction * new_first / (tf.sqrt(new_second) + self.epsilon)
        for variable, value in ((first, new_first), (second, new_second), (weight, moved)):
            variable.assign(tf.where(good, value, variable))
        average.assign(tf.where(good, momentum * average + (1 - momentum) * moved, average))

    def swap(self) -> None:
        """Exchanges the model's weights with their averages; twice is the same as never."""
        for weight, slots in zip(self.weights, self.slots, strict=True):
            current = weight.numpy()
            weight.assign(slots["average"].numpy())
            slots["average"].assign(current)


def _increment(count: tf.Variable, good: tf.Tensor) -> None:
    count.assign_add(tf.cast(good, count.dtype))


def clipped(gradients: Sequence[tf.Tensor], clip_norm: float) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients scaled down together so that their common norm is at most `clip_norm`, and the norm before (a scalar).

    The norm of frozen or absent parts is 0; it is infinite or not a number where a gradient is.
    """
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
    scale = tf.minimum(1.0, clip_norm / tf.maximum(norm, 1e-12))
    return [g * scale for g in gradients], norm


def without_missing(gradients: Sequence[tf.Tensor | None], weights: Sequence[Any]) -> list[tf.Tensor]:
    """Zeros for a weight that the loss does not depend on."""
    return [tf.zeros_like(w) if g is None else g for g, w in zip(gradients, weights, strict=True)]


def state_of(named: Mapping[str, tf.Variable]) -> dict[str, Any]:
    """Name → array."""
    return {name: variable.numpy() for name, variable in named.items()}
