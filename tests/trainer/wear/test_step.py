"""The step on a toy: print on bright paper, worn to look like print on dark paper."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr_model.bundle import load_bundle
from tests.tiny_bundle import AB, drawn, tiny_bundle
from tests.trainer.wear.test_networks import TINY
from trainer.optimiser import AdamW
from trainer.wear.lines import CleanWindow, make_batch
from trainer.wear.step import LOSSES, LossWeights, Networks, Together, WearStep
from trainer.wear.training import reading_network

ROOT = Path(__file__).parents[3]
WIDTH = 64


@pytest.fixture(autouse=True)
def _float32() -> None:
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)


def toy_batch(number: int, tone: int = 120, count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    ink = (255 - drawn("ab")[:, :56].astype(np.float32)) / 255
    ink = np.pad(ink, ((0, 0), (0, 8)))
    windows = [CleanWindow(ink, "ab", 0, 16)] * count
    real = [np.clip(ink * -90 + tone + rng.normal(0, 4, ink.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    return make_batch(rng, windows, real, AB, TINY.style)


def step_of(weights: LossWeights = LossWeights()) -> WearStep:
    networks = Networks.build(TINY, reading_network(load_bundle(tiny_bundle(), "float32")))
    makes = AdamW(Together([networks.encoder, networks.generator]), 0.0, None, 0.5, 0.99)
    judges = AdamW(networks.discriminator, 0.0, None, 0.5, 0.99)
    return WearStep(tf.distribute.get_strategy(), networks, makes, judges, weights, 5.0)


@pytest.fixture(scope="module")
def step() -> WearStep:
    """One for several tests: compiling it is what takes time."""
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)
    return step_of()


def test_a_gradient_that_is_not_finite_changes_nothing(step: WearStep) -> None:
    batch = toy_batch(0)
    batch["real"][0, 0, 0] = np.nan
    before = [np.array(w) for w in step.networks.generator.get_weights()]
    outcome = step(batch, (1e-3, 1e-3), 0.9, False, False)
    assert not outcome.good
    for old, new in zip(before, step.networks.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(np.isfinite(w).all() for w in step.networks.discriminator.get_weights())


@pytest.mark.slow
def test_each_optimiser_learns_its_own_networks_only(step: WearStep) -> None:
    networks = {name: getattr(step.networks, name) for name in ("encoder", "generator", "discriminator", "reads")}
    before = {name: [np.array(w) for w in n.get_weights()] for name, n in networks.items()}

    def changed() -> set[str]:
        return {
            name
            for name, n in networks.items()
            if any(not np.array_equal(a, b) for a, b in zip(before[name], n.get_weights(), strict=True))
        }

    step(toy_batch(0), (0.0, 1e-3), 0.9, False, False)
    assert changed() == {"discriminator"}
    step(toy_batch(0), (1e-3, 0.0), 0.9, False, False)
    assert changed() == {"discriminator", "encoder", "generator"}


def test_paper_becomes_as_dark_as_that_of_the_real_lines(step: WearStep) -> None:
    batch = toy_batch(999)
    networks = step.networks

    def tone() -> float:
        worn = np.asarray(networks.generator([batch["ink"], batch["style"], batch["noise"]]))
        return float(worn[batch["ink"] == 0].mean())

    before, first = tone(), step(toy_batch(0), (1e-2, 5e-3), 0.9, False, False)
    for number in range(1, 50):
        last = step(toy_batch(number), (1e-2, 5e-3), 0.9, False, False)
    assert before > 0.8
    assert abs(tone() - 120 / 255) < 0.15
    assert last.good and set(last.losses) == set(LOSSES)
    assert last.losses["likeness"] < 0.5 * first.losses["likeness"]


@pytest.mark.slow
def test_the_penalty_holds_the_judge_back() -> None:
    slopes = []
    for weight in (0.0, 20.0):
        keras.utils.set_random_seed(1)
        step = step_of(LossWeights(penalty=weight, penalty_every=1))
        for number in range(40):
            outcome = step(toy_batch(number), (0.0, 5e-3), 0.9, True, False)
        slopes.append(outcome.losses["penalty"])
    assert slopes[1] < 0.5 * slopes[0]


@pytest.mark.slow
def test_two_devices_step_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    for name, flags in (("one", []), ("two", ["--devices", "2"])):
        words = [sys.executable, "-m", "tests.trainer.wear.one_step", str(tmp_path / f"{name}.npz"), *flags]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr[-2000:]
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert set(one.files) == set(two.files)
        for name in one.files:
            # Adam divides by the gradient's own size: where it is nearly 0, sums in another order move a weight.
            np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=2e-5, err_msg=name)
        assert any(np.abs(one[name] - one["1" + name[1:]]).max() > 5e-4 for name in one.files if "generator" in name)
