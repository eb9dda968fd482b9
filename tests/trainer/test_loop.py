from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.loop import LoopConfig, MovingAverage, RunFolder, make_step, train


def a_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def squared(outputs: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.reduce_mean((outputs - batch["targets"]) ** 2)


def batches(seed: int = 1) -> Iterator[dict[str, tf.Tensor]]:
    rng = np.random.default_rng(seed)
    while True:
        x = rng.standard_normal((8, 2)).astype(np.float32)
        yield {"inputs": tf.constant(x), "targets": tf.constant(x @ [[2.0], [-1.0]] + 0.5, tf.float32)}


def error(model: keras.Model) -> dict[str, float]:
    return {"error": float(squared(model(next(batches(9))["inputs"]), next(batches(9))))}


CONFIG = LoopConfig(steps=60, learning_rate=0.1, warmup_steps=5, weight_decay=0.0, validate_every=20, ema=0.5)


def test_a_linear_model_learns_a_line_and_keeps_its_best_weights(tmp_path: Path) -> None:
    model, run = a_model(), RunFolder(tmp_path)
    best = train(model, squared, batches(), error, "error", CONFIG, run, {})
    assert best["error"] < 0.05
    assert error(model)["error"] == pytest.approx(best["error"])
    assert run.best.exists()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    models = [a_model(), a_model()]
    for i, model in enumerate(models):
        train(model, squared, batches(), error, "error", CONFIG, RunFolder(tmp_path / str(i)), {})
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_loss_that_is_not_finite_stops_and_changes_no_weight(tmp_path: Path) -> None:
    model = a_model()
    before = model.get_weights()

    def broken() -> Iterator[dict[str, tf.Tensor]]:
        yield {"inputs": tf.constant([[np.nan, 1.0]]), "targets": tf.zeros((1, 1))}

    with pytest.raises(FloatingPointError, match="step 1"):
        train(model, squared, broken(), error, "error", CONFIG, RunFolder(tmp_path), {})
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_are_clipped_to_the_global_norm() -> None:
    model = a_model()
    step = make_step(model, keras.optimizers.SGD(1.0), squared, clip_norm=0.1)
    before = np.concatenate([w.ravel() for w in model.get_weights()])
    _, norm = step({"inputs": tf.constant([[100.0, 50.0]]), "targets": tf.zeros((1, 1))})
    moved = np.concatenate([w.ravel() for w in model.get_weights()]) - before
    assert float(norm) > 0.1
    assert np.linalg.norm(moved) == pytest.approx(0.1, rel=1e-3)


def test_swapping_the_average_twice_changes_nothing() -> None:
    model = a_model()
    average = MovingAverage(model, 0.9)
    model.layers[0].kernel.assign(tf.ones((2, 1)))
    average.after_step(100)
    before = model.get_weights()
    average.swap()
    assert not np.array_equal(before[0], model.get_weights()[0])
    average.swap()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
