"""The training loop: a GradientTape step in a `tf.function` under a `tf.distribute` strategy.

The same for all networks: only the model, the loss and the batches differ (`Learning`). Read `train` first, then
`Step`. Where it runs is in `trainer.strategy`, the update in `trainer.optimiser`, the files in `trainer.run_folder`
and `trainer.checkpoints`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr_model.errors import BadArgument, BadInput, PagemillError
from trainer.checkpoints import Progress
from trainer.interruption import Interrupted, StopRequest
from trainer.losses import Batch, Loss
from trainer.optimiser import AdamW, clipped, without_missing
from trainer.profile import Profile
from trainer.run_folder import RunFolder, environment
from trainer.schedule import half_cosine, momentum_at
from trainer.strategy import Hardware, first, is_chief, open_strategy, share, together

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class LossNotFinite(PagemillError, FloatingPointError):
    """The loss or its gradient is infinite or not a number; weights and checkpoints are those of before."""


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
        checkpoint_every: steps between checkpoints beside these; 0 for none.
        patience: validations without a better figure after which the run ends early; 0 for never.
        accumulate: batches whose gradients make one step.
        jit: compile the step with XLA, for every bucket once; for GPUs and TPUs.
        seed: of initialisation and dropout.
    """

    steps: int
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema: float = 0.998
    validate_every: int = 500
    checkpoint_every: int = 0
    patience: int = 0
    accumulate: int = 1
    jit: bool = False
    seed: int = 1


@dataclass(frozen=True)
class FedBatch:
    """A batch of the stream, of all replicas together.

    Attributes:
        values: name → array, the first axis of each being the examples: `inputs`, and what the loss needs.
        examples: names of the examples, for messages.
        place: what `Learning.batches` takes to go on after this batch, plain JSON values.
        dropped: examples that could not be used, since the batch before.
    """

    values: Mapping[str, np.ndarray]
    examples: Sequence[str] = ()
    place: Any = None
    dropped: int = 0


@dataclass(frozen=True)
class Learning:
    """What is learnt.

    Attributes:
        build: makes the model, within the scope of the strategy.
        batches: the stream from a place on; None is its beginning.
        validate: figures of a model, with the averaged weights in place.
        minimise: the figure that decides what "best" is; lower is better.
        about: written into config.json with the configuration of the loop.
        findings: what the last validation found beside its figures, plain JSON values; kept with the best weights.
        pictures: examples with what the model makes of them, for TensorBoard.
        rate_of: path of a variable → factor of its learning rate.
    """

    build: Callable[[], keras.Model]
    loss: Loss
    batches: Callable[[Any], Generator[FedBatch, None, None]]
    validate: Callable[[keras.Model], dict[str, float]]
    minimise: str
    about: Mapping[str, Any] = field(default_factory=dict)
    findings: Callable[[], Any] | None = None
    pictures: Callable[[keras.Model], list[tuple[str, np.ndarray]]] | None = None
    rate_of: Callable[[str], float] | None = None


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a half cosine.

    >>> c = LoopConfig(steps=100, learning_rate=1.0, warmup_steps=10)
    >>> [round(learning_rate_at(s, c), 2) for s in (0, 9, 55, 100)]
    [0.1, 1.0, 0.5, 0.01]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * half_cosine(done)


def next_scale(scale: float, good_steps: int, good: bool) -> tuple[float, int]:
    """Loss scale of float16 and the number of good steps with it: halved at an overflow, doubled after 2000 steps.

    >>> next_scale(1024.0, 5, False), next_scale(1024.0, 1999, True), next_scale(1024.0, 5, True)
    ((512.0, 0), (2048.0, 0), (1024.0, 6))
    """
    if not good:
        return scale / 2, 0
    return (scale * 2, 0) if good_steps + 1 >= 2000 else (scale, good_steps + 1)


def divided(values: Mapping[str, np.ndarray], parts: int) -> list[dict[str, np.ndarray]]:
    """Equal parts of a batch along the first axis, filled up with zeros; `weights` [B] float32 is 0 for the filling.

    >>> [part["weights"].tolist() for part in divided({"inputs": np.ones((3, 2))}, 2)]
    [[1.0, 1.0], [1.0, 0.0]]
    """
    count = len(values["inputs"])
    each = -(-count // parts)
    weighted = {"weights": np.ones(count, np.float32), **values}
    if each * parts > count:
        weighted = {
            name: np.concatenate([a, np.zeros((each * parts - count, *a.shape[1:]), a.dtype)])
            for name, a in weighted.items()
        }
    return [{name: a[i * each : (i + 1) * each] for name, a in weighted.items()} for i in range(parts)]


@dataclass(frozen=True)
class Result:
    """Of a step: the loss, the gradient's norm before clipping, the sums of the loss, and whether all was finite."""

    loss: float
    norm: float
    sums: np.ndarray
    good: bool
    stop: bool


class Step:
    """The compiled step of a model, an optimiser and a loss under a strategy.

    The loss is a function of sums over the whole batch, whose parts lie on the replicas. So each replica computes its
    sums, they are added up, and each goes back from the derivative of the loss by the common sums: the gradients,
    added up, are those of one device with the whole batch.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, model: keras.Model, optimiser: AdamW, loss: Loss, config: LoopConfig
    ) -> None:
        self.strategy, self.model, self.optimiser, self.loss, self.config = strategy, model, optimiser, loss, config
        self.traces = 0
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)  # which compiles in any case
        alone, jit = strategy.num_replicas_in_sync == 1, config.jit and not on_tpu
        # What several replicas do together XLA does not compile outside of TPUs; so there network and loss are, forth
        # and back. One within the other would be compiled anew in every step.
        self._sums = _function(self._sums_of, jit_compile=True) if jit and not alone else self._sums_of
        static = config.jit or on_tpu
        self._run = _function(self._on_all, reduce_retracing=not static, jit_compile=True if jit and alone else None)
        self._general: set[tuple[bool, bool]] | None = (
            None if static else set()
        )  # which of the ways to call it have been traced
        self.gathered: list[tf.Variable] = []
        if config.accumulate > 1:
            with strategy.scope():
                self.gathered = [tf.Variable(tf.zeros_like(w), trainable=False) for w in optimiser.weights]
                self.gathered_size = tf.Variable(0.0, trainable=False)

    def __call__(
        self, batches: Sequence[Mapping[str, np.ndarray]], rate: float, momentum: float, scale: float, stop: bool
    ) -> Result:
        """Learns from `config.accumulate` batches.

        Args:
            rate: learning rate; momentum: of the averages; scale: of the loss, for float16.
            stop: this process was asked to stop; the result tells whether any was.
        """
        scalars = {"rate": rate, "momentum": momentum, "scale": scale, "stop": float(stop)}
        values = {name: tf.constant(value, tf.float32) for name, value in scalars.items()}
        for number, batch in enumerate(batches):
            parts = divided(batch, self.strategy.num_replicas_in_sync)
            mine = share(self.strategy, [_tensors(part) for part in parts])
            outcome = self._traced(mine, values, number == 0, number == len(batches) - 1)
        loss, norm, sums, good, asked = (x.numpy() for x in outcome)
        return Result(float(loss), float(norm), sums, bool(good), float(asked) > 0)

    def _traced(self, batch: Any, scalars: Mapping[str, tf.Tensor], begins: bool, ends: bool) -> list[tf.Tensor]:
        """The step, traced for any number of examples.

        With a number that is known and a width that is not, TensorFlow 2.21 folds a wrong padding of dilated
        convolutions into the graph: "padded_shape is not divisible by block_shape", in the second step of a run whose
        first two batches have as many lines of different widths.
        """
        if self._general is not None and (begins, ends) not in self._general:
            general = {name: any_number(value) for name, value in batch.items()}
            self._run.get_concrete_function(general, scalars, begins, ends)  # type: ignore[attr-defined]
            self._general.add((begins, ends))
        outcome: list[tf.Tensor] = self._run(batch, scalars, begins, ends)
        return outcome

    def _sums_of(self, batch: Batch) -> tf.Tensor:
        return self.loss.sums(self.model(batch["inputs"], training=True), batch)

    def _on_all(self, batch: Any, scalars: Mapping[str, tf.Tensor], begins: bool, ends: bool) -> list[tf.Tensor]:
        self.traces += 1  # Python runs this line while TensorFlow traces only
        outcome = self.strategy.run(self._on_one, args=(batch, scalars, begins, ends))
        return [first(self.strategy, x) for x in outcome]

    def _on_one(self, batch: Batch, scalars: Mapping[str, tf.Tensor], begins: bool, ends: bool) -> list[tf.Tensor]:
        """One replica's part: sums, gradients, and with the last batch of a step the update."""
        context = tf.distribute.get_replica_context()
        variables = self.optimiser.weights
        with tf.GradientTape() as tape:
            mine = self._sums(batch)
        everyone = context.all_reduce("sum", tf.concat([mine, [scalars["stop"]]], axis=0))
        sums, asked = everyone[:-1], everyone[-1]
        with tf.GradientTape() as of_value:
            of_value.watch(sums)
            loss = self.loss.value(sums)
        slope = of_value.gradient(loss, sums, unconnected_gradients="zero") * scalars["scale"]
        local = without_missing(tape.gradient(mine, variables, output_gradients=slope), variables)
        gradients = [g / scalars["scale"] for g in context.all_reduce("sum", local)]
        if self.gathered:
            gradients = self._gathered(gradients, sums[-1], begins)
        gradients, norm = clipped(gradients, self.config.clip_norm)
        good = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        if ends:
            self.optimiser.apply(gradients, scalars["rate"], scalars["momentum"], good)
        return [loss, norm, sums, good, asked]

    def _gathered(self, gradients: list[tf.Tensor], size: tf.Tensor, begins: bool) -> list[tf.Tensor]:
        """Mean of the gradients of this step's batches so far, each weighing by its size."""
        before = [tf.zeros_like(g) if begins else g + 0 for g in self.gathered]
        size_before = tf.zeros_like(size) if begins else self.gathered_size + 0
        sums = [b + g * size for b, g in zip(before, gradients, strict=True)]
        values = [*zip(self.gathered, sums, strict=True), (self.gathered_size, size_before + size)]

        def keep(strategy: Any, values: Any) -> None:
            for variable, value in values:
                strategy.extended.update(variable, lambda v, new: v.assign(new), args=(value,), group=False)

        tf.__internal__.distribute.interim.maybe_merge_call(keep, self.strategy, values)
        return [s / tf.maximum(size_before + size, 1e-12) for s in sums]


def any_number(value: Any) -> Any:
    """The type of a tensor, or of those of several replicas, with any number of examples along the first axis."""
    if isinstance(value, tf.distribute.DistributedValues):
        return type(tf.type_spec_from_value(value))(*map(any_number, value.values))
    return tf.TensorSpec([None, *value.shape[1:]], value.dtype)


def _function(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    compiled: Callable[..., Any] = tf.function(function, autograph=False, **options)
    return compiled


def _tensors(values: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in values.items()}


@dataclass(frozen=True)
class Ways:
    """How a run is done, which does not change what it gives.

    Attributes:
        hardware: what to train on.
        precision: Keras dtype policy, one of `PRECISIONS`.
        keep: checkpoints kept beside the best weights.
        profile: write a TensorBoard trace of some steps.
    """

    hardware: Hardware = field(default_factory=Hardware)
    precision: str = "float32"
    keep: int = 2
    profile: bool = False


def train(
    learning: Learning,
    config: LoopConfig,
    output: Path,
    ways: Ways = Ways(),
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Trains until the last step, or goes on with the run in `output`; leaves the best averaged weights there.

    Args:
        strategy: that of `ways.hardware`, where something had to be done with TensorFlow before.

    Returns:
        The figures of the best validation, with its `step`.

    Raises:
        BadArgument: an unknown precision, strategy or device.
        BadInput: `output` holds another run; the data, the cluster or the TPU cannot be used.
        LossNotFinite: with the names of the batch's examples; the checkpoints on disk are those of before.
        WorkerLost: another worker has stopped.
        CannotWrite: a full disk; the previous checkpoint is whole.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint of the last step is written.
    """
    if ways.precision not in PRECISIONS:
        raise BadArgument(f"unknown precision {ways.precision}", f"one of {', '.join(PRECISIONS)}")
    strategy = open_strategy(ways.hardware) if strategy is None else strategy
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(ways.precision)
    with strategy.scope():
        model = learning.build()
        optimiser = AdamW(model, config.weight_decay, learning.rate_of)
    run = RunFolder(output, ways.keep, is_chief(strategy))
    about = {"loop": asdict(config), "minimise": learning.minimise, "precision": ways.precision, **learning.about}
    run.start(about, environment(strategy))
    step_once = Step(strategy, model, optimiser, learning.loss, config)
    with StopRequest() as stop, Profile(run.board if ways.profile and run.writes else None) as profile:
        return _Run(learning, config, run, model, optimiser, step_once, profile, stop).finish()


@dataclass
class _Run:
    """A run under way."""

    learning: Learning
    config: LoopConfig
    run: RunFolder
    model: keras.Model
    optimiser: AdamW
    step: Step
    profile: Profile
    stop: StopRequest

    def finish(self) -> dict[str, float]:
        progress = self._resume()
        if not self._is_over(progress):
            with contextlib.closing(self.learning.batches(progress.place)) as stream:
                self._learn_from(stream, progress)
            self._save(progress)
        if self.run.writes:
            self.model.load_weights(self.run.best)
        return progress.best

    def _learn_from(self, stream: Iterator[FedBatch], progress: Progress) -> None:
        while not self._is_over(progress):
            began = time.monotonic()
            with self.profile.waiting():
                fed = [next(stream) for _ in range(self.config.accumulate)]
            result = self._learn(progress, fed)
            progress.seconds += time.monotonic() - began
            if self._is_due(progress.step, self.config.validate_every) or progress.step == self.config.steps:
                self._save(progress)
                self._validate(progress)
            elif self._is_due(progress.step, self.config.checkpoint_every):
                self._save(progress)
            if result.stop and progress.step < self.config.steps:
                self._save(progress)
                raise Interrupted(f"stopped after step {progress.step}", "the same command goes on from there")

    def _is_due(self, step: int, every: int) -> bool:
        return every > 0 and step % every == 0

    def _is_over(self, progress: Progress) -> bool:
        return progress.step >= self.config.steps or 0 < self.config.patience <= progress.waited

    def _learn(self, progress: Progress, fed: Sequence[FedBatch]) -> Result:
        """One step; `progress` tells where the run is after it."""
        rate = learning_rate_at(progress.step, self.config)
        momentum = momentum_at(progress.step + 1, self.config.ema)
        scaled = self.model.dtype_policy.name == "mixed_float16"
        with self.profile.step(progress.step + 1):
            batches = [batch.values for batch in fed]
            with together(self.step.strategy):
                result = self.step(batches, rate, momentum, progress.loss_scale, bool(self.stop))
        if not result.good and not (scaled and math.isfinite(result.loss) and progress.loss_scale > 1):
            names = ", ".join(name for batch in fed for name in batch.examples) or "no names are known"
            raise LossNotFinite(
                f"step {progress.step + 1}: loss {result.loss}, gradient norm {result.norm}, examples {names}",
                "look at these examples; the last checkpoint is from before",
            )
        if scaled:
            progress.loss_scale, progress.good_steps = next_scale(progress.loss_scale, progress.good_steps, result.good)
        progress.step += 1
        progress.loss_sum, progress.losses = progress.loss_sum + result.loss, progress.losses + 1
        progress.place = fed[-1].place
        count = sum(len(batch.values["inputs"]) for batch in fed)
        progress.dropped += sum(batch.dropped for batch in fed) + self.learning.loss.dropped(result.sums)
        self.profile.count(count)
        self.run.log_step(step=progress.step, loss=result.loss, norm=result.norm, learning_rate=rate, examples=count)
        return result

    def _save(self, progress: Progress) -> None:
        self.run.flush()
        if self.run.writes:
            self.run.checkpoints.save(progress, self._variables())

    def _variables(self) -> dict[str, tf.Variable]:
        named = {f"model/{i}": v.value for i, v in enumerate(self.model.variables)}
        return {**named, **{f"optimiser/{name}": v for name, v in self.optimiser.named_variables().items()}}

    def _resume(self) -> Progress:
        """Where the run is: at its beginning, or where its newest checkpoint was."""
        progress = self.run.checkpoints.restore(self._variables())
        if progress is None:
            scaled = self.model.dtype_policy.name == "mixed_float16"
            progress = Progress(loss_scale=2.0**15 if scaled else 1.0)
        self._check_all_begin_at(progress.step)
        self.run.go_back_to(progress.step, progress.validated)
        if progress.step:
            print(f"goes on after step {progress.step}", flush=True)
        ends = progress.step == self.config.steps
        if progress.validated < progress.step and (
            ends or self._is_due(progress.step, self.config.validate_every)
        ):  # it was stopped between the checkpoint and the validation
            self._validate(progress)
        return progress

    def _check_all_begin_at(self, step: int) -> None:
        strategy = self.step.strategy
        parts = [tf.constant(float(step))] * strategy.num_replicas_in_sync
        total = tf.function(lambda x: strategy.reduce("sum", x, axis=None))(share(strategy, parts))
        if float(total) != step * strategy.num_replicas_in_sync:
            raise BadInput(
                f"this worker begins at step {step}, another one elsewhere", "give all workers the same --output folder"
            )

    def _validate(self, progress: Progress) -> None:
        """Validates the averaged weights and keeps them if they are the best so far."""
        self.optimiser.swap()
        with self.stop.at_once():
            figures = self.learning.validate(self.model)
            pictures = self.learning.pictures(self.model) if self.learning.pictures and self.run.writes else []
        progress.validated = progress.step
        if not progress.best or figures[self.learning.minimise] <= progress.best[self.learning.minimise]:
            self.run.save_weights(self.model, self.run.best)
            if self.learning.findings:
                self.run.save_findings(self.learning.findings())
            progress.best, progress.waited = {"step": float(progress.step), **figures}, 0
        else:
            progress.waited += 1
        self.optimiser.swap()
        pace = self.profile.figures()
        figures = {"loss": progress.loss_sum / max(1, progress.losses), **figures}
        progress.loss_sum, progress.losses = 0.0, 0
        rate = learning_rate_at(progress.step - 1, self.config)
        counts = {"seconds": round(progress.seconds, 1), "dropped": progress.dropped}
        self.run.log(step=progress.step, **counts, **pace, **figures)
        self.run.draw(progress.step, {"learning_rate": rate, **pace, **figures}, pictures)
