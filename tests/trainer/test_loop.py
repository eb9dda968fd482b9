"""The loop on the smallest network: a line through points."""

import errno
import json
import os
import signal
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr_model.errors import BadArgument, BadInput
from trainer import checkpoints as checkpoints_module
from trainer.checkpoints import CannotWrite, Checkpoints, Progress
from trainer.interruption import Interrupted
from trainer.loop import FedBatch, Learning, LoopConfig, LossNotFinite, Ways, train


class Squared:
    """Mean of the squared differences."""

    def sums(self, outputs: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        squares = tf.reduce_sum((tf.cast(outputs, tf.float32) - batch["targets"]) ** 2, axis=1)
        return tf.stack([tf.reduce_sum(squares * batch["weights"]), tf.reduce_sum(batch["weights"])])

    def value(self, sums: tf.Tensor) -> tf.Tensor:
        return sums[0] / sums[1]

    def dropped(self, sums: np.ndarray) -> int:
        return 0


def a_model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])


def batch(number: int, size: int = 8) -> FedBatch:
    x = np.random.default_rng([1, number]).standard_normal((size, 2)).astype(np.float32)
    targets = (x @ [[2.0], [-1.0]] + 0.5).astype(np.float32)
    return FedBatch({"inputs": x, "targets": targets}, [f"{number}/{i}" for i in range(size)], number + 1)


def batches(place: Any) -> Generator[FedBatch, None, None]:
    number = place or 0
    while True:
        yield batch(number)
        number += 1


def error(model: keras.Model) -> dict[str, float]:
    values = batch(10**6).values
    return {"error": float(np.mean((model(values["inputs"]).numpy() - values["targets"]) ** 2))}


LEARNING = Learning(a_model, Squared(), batches, error, "error")
CONFIG = LoopConfig(steps=60, learning_rate=0.1, warmup_steps=5, weight_decay=0.0, validate_every=20, ema=0.5)


def final_state(run: Path) -> dict[str, np.ndarray]:
    with np.load(Checkpoints(run / "checkpoints").all()[-1]) as file:
        return {name: file[name] for name in file.files if name != "progress"}


def assert_same_state(a: Path, b: Path) -> None:
    one, other = final_state(a), final_state(b)
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], name)


def rows(path: Path, *without: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in json.loads(r).items() if k not in without} for r in path.read_text().splitlines()]


TIMES = ("seconds", "waiting", "examples_per_s")


def test_a_linear_model_learns_a_line_and_keeps_its_best_weights(tmp_path: Path) -> None:
    best = train(LEARNING, CONFIG, tmp_path)
    assert best["error"] < 0.1
    model = a_model()
    model.load_weights(tmp_path / "best.weights.h5")
    assert error(model)["error"] == pytest.approx(best["error"])
    assert len(rows(tmp_path / "metrics.jsonl")) == 3
    assert [row["step"] for row in rows(tmp_path / "steps.jsonl")] == list(range(1, 61))
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["tensorflow"] == tf.__version__
    assert list((tmp_path / "tensorboard").iterdir())


def stopping_after(step: int, how: Callable[[], None]) -> Learning:
    """The same stream, in which something happens after `step` batches."""

    def stream(place: Any) -> Generator[FedBatch, None, None]:
        for fed in batches(place):
            if fed.place == step + 1:
                how()
            yield fed

    return replace(LEARNING, batches=stream)


def die() -> None:
    raise MemoryError("the end")


@pytest.mark.parametrize("step", [20, 25, 40, 59])
def test_a_run_broken_off_and_gone_on_is_the_unbroken_run(tmp_path: Path, step: int) -> None:
    config = replace(CONFIG, checkpoint_every=5)
    train(LEARNING, config, tmp_path / "whole")
    with pytest.raises(MemoryError):
        train(stopping_after(step, die), config, tmp_path / "broken")
    best = train(LEARNING, config, tmp_path / "broken")
    assert_same_state(tmp_path / "whole", tmp_path / "broken")
    for name in ("metrics.jsonl", "steps.jsonl"):
        assert rows(tmp_path / "whole" / name, *TIMES) == rows(tmp_path / "broken" / name, *TIMES)
    assert best == train(LEARNING, config, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint_from_which_it_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    train(LEARNING, CONFIG, tmp_path / "whole")
    asked = stopping_after(33, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match="after step 34"):
        train(asked, CONFIG, tmp_path / "stopped")
    assert signal.getsignal(number) is handler
    train(LEARNING, CONFIG, tmp_path / "stopped")
    assert_same_state(tmp_path / "whole", tmp_path / "stopped")


def test_a_signal_during_a_validation_breaks_it_off_and_it_is_done_again(tmp_path: Path) -> None:
    def validate(model: keras.Model) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the handler should have left")

    with pytest.raises(Interrupted):
        train(replace(LEARNING, validate=validate), CONFIG, tmp_path / "stopped")
    train(LEARNING, CONFIG, tmp_path / "stopped")
    train(LEARNING, CONFIG, tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "stopped")
    metrics = [rows(tmp_path / name / "metrics.jsonl", *TIMES) for name in ("whole", "stopped")]
    assert metrics[0] == metrics[1]


def broken_at(number: int) -> Learning:
    def stream(place: Any) -> Generator[FedBatch, None, None]:
        for fed in batches(place):
            bad = fed.place == number
            yield replace(fed, values={**fed.values, "inputs": fed.values["inputs"] * np.nan}) if bad else fed

    return replace(LEARNING, batches=stream)


def test_a_loss_that_is_not_finite_stops_with_the_names_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LossNotFinite, match=r"step 23: loss nan.*22/0, 22/1"):
        train(broken_at(23), CONFIG, tmp_path / "run")
    assert [p.name for p in Checkpoints(tmp_path / "run" / "checkpoints").all()] == ["step-00000020.npz"]
    train(LEARNING, CONFIG, tmp_path / "run")
    train(LEARNING, CONFIG, tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "run")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, variable = Checkpoints(tmp_path), tf.Variable([1.0, 2.0])
    folder.save(Progress(step=1), {"w": variable})

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints_module.np, "savez", full)
    variable.assign([3.0, 4.0])
    with pytest.raises(CannotWrite, match="No space left"):
        folder.save(Progress(step=2), {"w": variable})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.npz"]
    progress = folder.restore({"w": variable})
    assert progress is not None
    assert progress.step == 1
    np.testing.assert_array_equal(variable.numpy(), [1.0, 2.0])


def test_a_checkpoint_cut_short_is_passed_over(tmp_path: Path) -> None:
    folder, variable = Checkpoints(tmp_path), tf.Variable([1.0])
    for step in (1, 2):
        folder.save(Progress(step=step), {"w": variable})
    folder.path(2).write_bytes(folder.path(2).read_bytes()[:100])
    progress = folder.restore({"w": variable})
    assert progress is not None
    assert progress.step == 1
    folder.path(1).write_bytes(b"")
    with pytest.raises(BadInput, match="no checkpoint"):
        folder.restore({"w": variable})


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path)
    folder.save(Progress(step=1), {"w": tf.Variable([1.0])})
    with pytest.raises(BadInput, match="another network"):
        folder.restore({"w": tf.Variable([1.0, 2.0])})


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    train(LEARNING, replace(CONFIG, checkpoint_every=5), tmp_path, Ways(keep=3))
    names = [p.name for p in Checkpoints(tmp_path / "checkpoints").all()]
    assert names == ["step-00000050.npz", "step-00000055.npz", "step-00000060.npz"]


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(LEARNING, CONFIG, tmp_path)
    with pytest.raises(BadInput, match=r"loop.seed 1, now 2"):
        train(LEARNING, replace(CONFIG, seed=2), tmp_path)


def test_a_run_that_gets_no_better_ends_early(tmp_path: Path) -> None:
    figures = iter([3.0, 1.0, 2.0, 2.0, 0.5])
    learning = replace(LEARNING, validate=lambda model: {"error": next(figures)})
    best = train(learning, replace(CONFIG, validate_every=5, patience=2), tmp_path)
    assert best["step"] == 10
    assert rows(tmp_path / "metrics.jsonl")[-1]["step"] == 20


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="float64"):
        train(LEARNING, CONFIG, tmp_path, Ways(precision="float64"))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_line_is_learnt_in_half_precision(tmp_path: Path, precision: str) -> None:
    try:
        assert train(LEARNING, CONFIG, tmp_path, Ways(precision=precision))["error"] < 0.2
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_an_overflow_of_float16_halves_the_scale_and_changes_no_weight(tmp_path: Path) -> None:
    def far(place: Any) -> Generator[FedBatch, None, None]:
        for fed in batches(place):  # a large gradient: scaled by 2^15 it is infinite in float16
            yield replace(fed, values={**fed.values, "targets": fed.values["targets"] * 100})

    try:
        train(replace(LEARNING, batches=far), replace(CONFIG, steps=40), tmp_path, Ways(precision="mixed_float16"))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    progress = Checkpoints(tmp_path / "checkpoints").restore({k: tf.Variable(v) for k, v in _named(tmp_path).items()})
    assert progress is not None
    assert progress.loss_scale < 2**15
    assert 0 < int(final_state(tmp_path)["optimiser.count"]) < 40


def _named(run: Path) -> dict[str, np.ndarray]:
    return final_state(run)


def test_accumulated_batches_are_one_batch_of_their_size(tmp_path: Path) -> None:
    def halves(place: Any) -> Generator[FedBatch, None, None]:
        for fed in batches(place):
            for part in (slice(0, 3), slice(3, None)):
                yield replace(fed, values={name: value[part] for name, value in fed.values.items()})

    plain = replace(LEARNING, build=lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    train(plain, CONFIG, tmp_path / "whole")
    train(replace(plain, batches=halves), replace(CONFIG, accumulate=2), tmp_path / "halves")
    whole, parts = final_state(tmp_path / "whole"), final_state(tmp_path / "halves")
    for name, value in whole.items():
        np.testing.assert_allclose(value, parts[name], rtol=1e-3, atol=1e-5, err_msg=name)
