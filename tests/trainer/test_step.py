"""The compiled step with the real networks, tiny."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr_model.alphabet import Alphabet
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from tests.trainer.curve import LOOP, learning, lines, pages
from trainer.line_data import make_batch
from trainer.loop import Step, divided
from trainer.losses import CtcLoss
from trainer.metrics import CharacterErrors
from trainer.optimiser import AdamW, clipped
from trainer.recogniser import Validation, arrays

MAKE = {"recogniser": lines, "finder": pages}


def a_step(network: str, jit: bool) -> Step:
    keras.utils.set_random_seed(1)
    what = learning(network, jit)
    model = what.build()
    config = replace(LOOP, jit=jit, clip_norm=1e9)
    return Step(tf.distribute.get_strategy(), model, AdamW(model, 0.01), what.loss, config)


def run(step: Step, values: Any) -> Any:
    return step([values], 1e-3, 0.9, 1.0, False)


@pytest.mark.parametrize("network", ["recogniser", pytest.param("finder", marks=pytest.mark.slow)])
def test_the_step_compiles_and_gives_the_same_gradients(network: str) -> None:
    plain, compiled = a_step(network, False), a_step(network, True)
    values = MAKE[network](0).values
    assert run(plain, values).loss == pytest.approx(run(compiled, values).loss, rel=1e-4)
    for a, b in zip(plain.optimiser.slots, compiled.optimiser.slots, strict=True):
        gradients = [10 * slots["first"].numpy() for slots in (a, b)]  # the first moment is a tenth of it
        np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_nothing_is_traced_after_the_first_pass_over_the_buckets() -> None:
    compiled, plain = a_step("recogniser", True), a_step("recogniser", False)
    counts = []
    for number in (0, 1, 2, 3, 4, 5):  # two buckets in turn
        run(plain, lines(number).values)
        if number in (0, 1, 2):
            run(compiled, lines(number).values)
        counts.append(plain.traces)
    assert compiled.traces == 2
    assert counts[-1] == counts[1] <= 2


def test_one_batch_is_learnt_by_heart() -> None:
    keras.utils.set_random_seed(1)
    rng, alphabet = np.random.default_rng(1), Alphabet(" ab")
    model = build_recogniser(RecogniserConfig(alphabet.classes, (8, 8, 8, 16), 32, 2))
    strips = [(rng.integers(0, 256, (40, 64), dtype=np.uint8), text) for text in ("ab", "ba a", "bb")]
    values = arrays(make_batch([(image, alphabet.encode(text)) for image, text in strips]))
    step = Step(tf.distribute.get_strategy(), model, AdamW(model, 0.0), CtcLoss(), LOOP)
    for _ in range(100):
        result = step([values], 3e-3, 0.9, 1.0, False)
    assert result.loss < 0.1
    read = Validation([], alphabet)._read(model, make_batch([(i, alphabet.encode(t)) for i, t in strips]))
    assert sum((CharacterErrors.of(t, r) for (_, t), r in zip(strips, read, strict=True)), CharacterErrors()).rate == 0


def test_the_optimiser_is_keras_adamw() -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    ours, theirs = AdamW(model, 0.1), keras.optimizers.AdamW(0.01, weight_decay=0.1)
    theirs.exclude_from_weight_decay(var_names=["bias"])
    rng = np.random.default_rng(1)
    for _ in range(5):
        gradients = [tf.constant(rng.standard_normal(w.shape), tf.float32) for w in model.get_weights()]
        tf.distribute.get_strategy().run(
            ours.apply, (gradients, tf.constant(0.01), tf.constant(0.9), tf.constant(True))
        )
        theirs.apply(gradients, other.trainable_variables)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_rate_of_none_freezes_and_a_bad_gradient_changes_nothing() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    kernel, bias = model.get_weights()
    optimiser = AdamW(model, 0.0, lambda path: 0.0 if path.endswith("kernel") else 1.0)
    gradients = [tf.ones((2, 1)), tf.ones(1)]
    for good in (False, True):
        optimiser.apply(gradients, tf.constant(0.1), tf.constant(0.5), tf.constant(good))
        moved = bias - 0.1 if good else bias
        np.testing.assert_array_equal(model.get_weights()[0], kernel)
        np.testing.assert_allclose(model.get_weights()[1], moved, rtol=1e-4)
    np.testing.assert_allclose(optimiser.slots[1]["average"].numpy(), bias - 0.05, rtol=1e-4)


def test_swapping_the_average_twice_changes_nothing() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimiser = AdamW(model, 0.0)
    model.layers[0].kernel.assign(tf.ones((2, 1)))
    before = model.get_weights()
    optimiser.swap()
    assert not np.array_equal(before[0], model.get_weights()[0])
    optimiser.swap()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_are_clipped_to_their_common_norm() -> None:
    gradients, norm = clipped([tf.constant([3.0]), tf.constant([4.0])], 1.0)
    assert float(norm) == 5.0
    np.testing.assert_allclose([float(g[0]) for g in gradients], [0.6, 0.8], rtol=1e-6)
    assert not np.isfinite(float(clipped([tf.constant([np.nan])], 1.0)[1]))


def test_a_batch_is_divided_with_fillings_that_weigh_nothing() -> None:
    first, second = divided({"inputs": np.arange(6).reshape(3, 2), "lengths": np.array([1, 2, 3])}, 2)
    assert first["lengths"].tolist() == [1, 2]
    assert second["lengths"].tolist() == [3, 0]
    assert second["weights"].tolist() == [1.0, 0.0]


def test_batches_of_one_size_and_two_widths_are_learnt_from() -> None:
    model = build_recogniser(RecogniserConfig(3, (2, 2, 2, 2), 4, 3))  # the third block is dilated
    step = Step(tf.distribute.get_strategy(), model, AdamW(model, 0.0), CtcLoss(), LOOP)
    for width in (640, 320):
        values = arrays(make_batch([(np.zeros((40, width), np.uint8), [1, 2])] * 3))
        assert np.isfinite(step([values], 1e-3, 0.9, 1.0, False).loss)
