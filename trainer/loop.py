"""The training loop: a GradientTape step in a `tf.function`, the same for the line finder and the recogniser.

Only the model, the loss and the batches differ. Logging (JSONL) and checkpoints stand apart from the step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: its peak; linear warm-up, then a half cosine to a hundredth of it.
        warmup_steps: length of the warm-up.
        weight_decay: of AdamW (Loshchilov & Hutter 2019), kernels only.
        clip_norm: global norm that gradients are clipped to.
        ema: momentum of the moving average of the weights, which is what is validated and kept.
        validate_every: steps between validations; a checkpoint is written at each.
        seed: of initialisation and dropout.
    """

    steps: int
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema: float = 0.998
    validate_every: int = 500
    seed: int = 1


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a half cosine.

    >>> c = LoopConfig(steps=100, learning_rate=1.0, warmup_steps=10)
    >>> [round(learning_rate_at(s, c), 2) for s in (0, 9, 55, 100)]
    [0.1, 1.0, 0.5, 0.01]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class MovingAverage:
    """Exponential moving average of a model's weights (Polyak & Juditsky 1992)."""

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self.model, self.momentum = model, momentum
        self.averages = [tf.Variable(v.value, trainable=False) for v in model.trainable_variables]

    @tf.function
    def update(self, momentum: tf.Tensor) -> None:
        for average, variable in zip(self.averages, self.model.trainable_variables, strict=True):
            average.assign(momentum * average + (1 - momentum) * tf.cast(variable.value, average.dtype))

    def after_step(self, step: int) -> None:
        self.update(tf.constant(min(self.momentum, (1 + step) / (10 + step)), tf.float32))

    def swap(self) -> None:
        """Exchanges the model's weights with the averages; twice is the same as never."""
        for average, variable in zip(self.averages, self.model.trainable_variables, strict=True):
            current = tf.identity(variable.value)
            variable.assign(tf.cast(average, current.dtype))
            average.assign(current)


def make_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: Callable[[Any, Batch], tf.Tensor],
    clip_norm: float,
) -> Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]:
    """The compiled step: batch → (loss, norm of the gradient before clipping).

    A batch is a dict with `inputs` for the model and whatever the loss needs. A gradient that is not finite changes
    nothing: its norm is returned, and the caller stops.
    """

    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(model(batch["inputs"], training=True), batch)
        gradients = tape.gradient(value, model.trainable_variables)
        clipped, norm = tf.clip_by_global_norm(gradients, clip_norm)
        if tf.math.is_finite(norm):
            optimizer.apply(clipped, model.trainable_variables)
        return value, norm

    return step


@dataclass
class RunFolder:
    """Where a run keeps its configuration, its metrics (JSONL) and its checkpoints."""

    path: Path

    def start(self, config: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")

    def log(self, **values: Any) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()), flush=True)

    @property
    def best(self) -> Path:
        return self.path / "best.weights.h5"

    @property
    def latest(self) -> Path:
        return self.path / "latest.weights.h5"

    def save(self, model: keras.Model, path: Path) -> None:
        """Writes beside and renames, so that a full disk or a stop leaves the previous checkpoint whole."""
        temporary = path.with_name("writing." + path.name)
        model.save_weights(temporary)
        temporary.replace(path)


def train(
    model: keras.Model,
    loss: Callable[[Any, Batch], tf.Tensor],
    batches: Iterator[Batch],
    validate: Callable[[keras.Model], dict[str, float]],
    minimise: str,
    config: LoopConfig,
    run: RunFolder,
    about: Mapping[str, Any],
) -> dict[str, float]:
    """Trains until the last step and leaves the best averaged weights in `run.best` and in the model.

    Args:
        validate: called with the averaged weights in place; returns named figures.
        minimise: the figure that decides what "best" is; lower is better.
        about: written into config.json with the configuration.

    Returns:
        The figures of the best validation, with its `step`.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the checkpoints on disk are those of before.
    """
    run.start({"loop": asdict(config), "minimise": minimise, **about})
    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gain"])
    optimizer.build(model.trainable_variables)
    step_once = make_step(model, optimizer, loss, config.clip_norm)
    average = MovingAverage(model, config.ema)
    best: dict[str, float] = {}
    losses: list[float] = []
    begun = time.monotonic()
    for step in range(1, config.steps + 1):
        optimizer.learning_rate.assign(learning_rate_at(step - 1, config))
        batch = next(batches)
        value, norm = step_once(batch)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"step {step}: loss {float(value)}, gradient norm {float(norm)}")
        average.after_step(step)
        losses.append(float(value))
        if step % config.validate_every == 0 or step == config.steps:
            average.swap()
            figures = validate(model)
            run.log(step=step, loss=float(np.mean(losses)), seconds=round(time.monotonic() - begun, 1), **figures)
            run.save(model, run.latest)
            if not best or figures[minimise] <= best[minimise]:
                best = {"step": float(step), **figures}
                run.save(model, run.best)
            average.swap()
            losses.clear()
    model.load_weights(run.best)
    return best
