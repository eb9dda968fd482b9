"""Training with Keras's JAX backend, for accelerators on which TensorFlow is not to be had.

The networks are `keras.ops` only, so the weights are those that `trainer.loop` would give, and `pagemill export` takes
them. A run here has a time instead of a number of steps: such a machine is lent by the minute. Examples come from the
same processes as elsewhere; where the accelerator is faster than these, examples come again.

Several networks can learn from the same batches: what a comparison of sizes needs.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax

from ocr_model.errors import PagemillError
from trainer.schedule import decayed, half_cosine, momentum_at

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TimedLoop:
    """How long and how fast to learn.

    Attributes:
        seconds: from the first step to the last.
        learning_rate: its peak; linear warm-up over `warmup_steps`, then a half cosine over the time to a hundredth.
        weight_decay: of AdamW (Loshchilov & Hutter 2019), kernels only.
        clip_norm: global norm that the gradients of a network are clipped to.
        ema: momentum of the moving average of the weights, which is what is kept.
        uses: times that an example is shown on average, at most.
        memory: bytes of examples that are kept.
        save_every: seconds between copies of the averaged weights.
        seed: of initialisation, dropout and the order of examples.
    """

    seconds: float
    learning_rate: float = 2e-3
    warmup_steps: int = 400
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema: float = 0.999
    uses: float = 3.0
    memory: float = 24e9
    save_every: float = 120.0
    seed: int = 1


def learning_rate_at(step: int, share: float, config: TimedLoop) -> float:
    """The rate of a step that is done when that share of the time is over.

    >>> c = TimedLoop(60.0, learning_rate=1.0, warmup_steps=10)
    >>> [round(learning_rate_at(step, share, c), 2) for step, share in ((0, 0.0), (99, 0.0), (99, 0.5), (99, 1.0))]
    [0.1, 1.0, 0.5, 0.01]
    """
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return config.learning_rate * warm * half_cosine(share)


# ---- examples


class Reservoir:
    """Examples of one shape, the newest of them: when it is full, new ones take the place of the oldest.

    Args:
        room: number of examples.
    """

    def __init__(self, room: int) -> None:
        self.room, self.arrived, self.used = room, 0, 0
        self._kept: dict[str, np.ndarray] = {}

    @property
    def filled(self) -> int:
        return min(self.arrived, self.room)

    def add(self, values: Values) -> None:
        """Takes examples; the first axis of each array counts them, and there are fewer than it has room for."""
        count = len(next(iter(values.values())))
        for name, array in values.items():
            if name not in self._kept:
                self._kept[name] = np.zeros((self.room, *array.shape[1:]), array.dtype)
            self._kept[name][(self.arrived + np.arange(count)) % self.room] = array
        self.arrived += count

    def take(self, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        """Different examples at random; there are so many."""
        chosen = np.sort(rng.choice(self.filled, count, replace=False))
        self.used += count
        return {name: array[chosen] for name, array in self._kept.items()}


class Feed:
    """Batches from reservoirs, one for each shape, that a thread fills while another makes batches.

    Args:
        source: examples of one shape each time, with a key of the shape.
        batch_of: key → examples of a batch.
        put: takes a batch to the accelerator.
    """

    def __init__(
        self,
        source: Iterable[tuple[Hashable, Values]],
        batch_of: Callable[[Hashable], int],
        put: Callable[[Mapping[str, np.ndarray]], Any],
        config: TimedLoop,
        shapes: int,
    ) -> None:
        self._source, self._batch_of, self._put, self._config, self._shapes = source, batch_of, put, config, shapes
        self._reservoirs: dict[Hashable, Reservoir] = {}
        self._changed = threading.Condition()
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=3)
        self._failed: BaseException | None = None
        for work in (self._fill, self._make):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()

    def next(self) -> tuple[Hashable, Any]:
        """The key of the shape, and what `put` made of a batch.

        Raises:
            PagemillError: of the source, such as a wrong folder.
            RuntimeError: the source ended or failed.
        """
        while True:
            try:
                found: tuple[Hashable, Any] = self._ready.get(timeout=1.0)
                return found
            except queue.Empty:
                if isinstance(self._failed, PagemillError):  # what the user can mend
                    raise self._failed from None
                if self._failed is not None:
                    raise RuntimeError("there are no more examples") from self._failed

    def counts(self) -> tuple[int, int]:
        """(examples that arrived, examples that were shown)"""
        with self._changed:
            kept = self._reservoirs.values()
            return sum(r.arrived for r in kept), sum(r.used for r in kept)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # told by `next`, in the thread that waits for it
            self._failed = error

    def _fill(self) -> None:
        for key, values in self._source:
            with self._changed:
                if key not in self._reservoirs:
                    each = sum(array[0].nbytes for array in values.values())
                    self._reservoirs[key] = Reservoir(max(64, int(self._config.memory / self._shapes / each)))
                self._reservoirs[key].add(values)
                self._changed.notify_all()
        raise RuntimeError("the source ended")

    def _make(self) -> None:
        rng = np.random.default_rng(self._config.seed)
        while True:
            with self._changed:
                while (key := self._due()) is None:
                    self._changed.wait(timeout=1.0)
                batch = self._reservoirs[key].take(rng, self._batch_of(key))
            self._ready.put((key, self._put(batch)))

    def _due(self) -> Hashable | None:
        """The shape whose examples were shown least, for their number; None if all were shown enough."""
        best, least = None, self._config.uses
        for key, reservoir in self._reservoirs.items():
            size = self._batch_of(key)
            if reservoir.filled >= size and (reservoir.used + size) / reservoir.arrived <= least:
                best, least = key, (reservoir.used + size) / reservoir.arrived
        return best


# ---- learning

_AHEAD = 20  # steps that are queued on the accelerator at most

Losses = Callable[[Sequence[Any], Mapping[str, Any]], Any]


class Learner:
    """Networks of one kind that learn from the same batches.

    Args:
        networks: name → model.
        losses: outputs of all networks and a batch → [networks] float32.
    """

    def __init__(self, networks: Mapping[str, keras.Model], losses: Losses, config: TimedLoop) -> None:
        self.networks, self.config = networks, config
        self._optimisers = [
            optax.apply_if_finite(
                optax.chain(
                    optax.clip_by_global_norm(config.clip_norm),
                    optax.scale_by_adam(),
                    optax.add_decayed_weights(
                        config.weight_decay, mask=[decayed(v.path) for v in model.trainable_variables]
                    ),
                ),
                max_consecutive_errors=50,
            )
            for model in networks.values()
        ]
        weights = [[v.value for v in m.trainable_variables] for m in networks.values()]
        self.state = {
            "weights": weights,
            "average": jax.tree.map(jnp.array, weights),
            "others": [[v.value for v in m.non_trainable_variables] for m in networks.values()],
            "optimisers": [o.init(w) for o, w in zip(self._optimisers, weights, strict=True)],
        }
        self._losses, self._tracing = losses, threading.Lock()
        self._steps: dict[Hashable, Any] = {}

    def compile(self, shapes: Mapping[Hashable, Mapping[str, jax.ShapeDtypeStruct]]) -> None:
        """Compiles the step for all shapes at the same time; their batches can be learnt from after it."""
        scalar = jax.ShapeDtypeStruct((), np.float32)
        step = jax.jit(self._learn, donate_argnums=0)

        def compiled(batch: Mapping[str, jax.ShapeDtypeStruct]) -> Any:
            return lowered(batch).compile()

        def lowered(batch: Mapping[str, jax.ShapeDtypeStruct]) -> Any:
            with self._tracing:  # Keras keeps what it traces in globals
                return step.lower(self.state, dict(batch), scalar, scalar)

        with ThreadPoolExecutor(max(1, len(shapes))) as pool:
            self._steps = dict(zip(shapes, pool.map(compiled, shapes.values()), strict=True))

    def step(self, key: Hashable, batch: Any, rate: float, momentum: float) -> Any:
        """Learns from a batch of a shape; [networks] float32 losses."""
        self.state, losses = self._steps[key](self.state, batch, np.float32(rate), np.float32(momentum))
        return losses

    def _learn(self, state: Any, batch: Any, rate: Any, momentum: Any) -> tuple[Any, Any]:
        models = list(self.networks.values())

        def total(weights: Any) -> Any:
            outputs, others = [], []
            for model, trainable, other in zip(models, weights, state["others"], strict=True):
                output, new = model.stateless_call(trainable, other, batch["inputs"], training=True)
                outputs.append(output)
                others.append(new)
            losses = self._losses(outputs, batch)
            return jnp.sum(losses), (losses, others)

        gradients, (losses, others) = jax.grad(total, has_aux=True)(state["weights"])
        weights, averages, optimisers = [], [], []
        for i, optimiser in enumerate(self._optimisers):
            updates, after = optimiser.update(gradients[i], state["optimisers"][i], state["weights"][i])
            moved = [w - rate * u for w, u in zip(state["weights"][i], updates, strict=True)]
            kept = zip(state["average"][i], moved, strict=True)
            averages.append([momentum * a + (1 - momentum) * w for a, w in kept])
            weights.append(moved)
            optimisers.append(after)
        return {"weights": weights, "average": averages, "others": others, "optimisers": optimisers}, losses

    def save(self, output: Path) -> None:
        """Writes the averaged weights of every network to `NAME/best.weights.h5`, each beside first."""
        for (name, model), average in zip(self.networks.items(), self.state["average"], strict=True):
            for variable, value in zip(model.trainable_variables, average, strict=True):
                variable.assign(value)
            folder = output / name
            folder.mkdir(parents=True, exist_ok=True)
            model.save_weights(folder / "new.weights.h5")
            os.replace(folder / "new.weights.h5", folder / "best.weights.h5")


def learn(learner: Learner, feed: Feed, config: TimedLoop, output: Path, log_every: int = 100) -> int:
    """Learns until the time is over; losses go to `output/losses.jsonl`, weights to `output/NAME`.

    Returns:
        The number of steps.
    """
    output.mkdir(parents=True, exist_ok=True)
    step = 0
    shown: dict[str, int] = {}
    key, batch = feed.next()
    began = saved = time.monotonic()
    while (share := (time.monotonic() - began) / config.seconds) < 1.0:
        momentum = momentum_at(step, config.ema)
        losses = learner.step(key, batch, learning_rate_at(step, share, config), momentum)
        shown[str(key)] = shown.get(str(key), 0) + 1
        step += 1
        if step % _AHEAD == 0:
            jax.block_until_ready(losses)
        if step % log_every == 0:
            row = {
                "step": step,
                "seconds": round(time.monotonic() - began, 1),
                "losses": [round(float(v), 4) for v in losses],
                "examples": feed.counts(),
                "batches": shown,
            }
            with (output / "losses.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
        if time.monotonic() - saved > config.save_every:
            learner.save(output)
            saved = time.monotonic()
        key, batch = feed.next()
    learner.save(output)
    return step
