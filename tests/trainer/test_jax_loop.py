"""The loop with the JAX backend: what it feeds and what it makes small."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ocr_model.errors import BadArgument, BadInput
from ocr_model.finder import FinderConfig
from trainer.jax_loop import Feed, Reservoir, TimedLoop
from trainer.jax_task import ctc_of_all, lines, main, most_characters, networks_of
from trainer.line_data import LineDataConfig
from trainer.losses import ctc_losses
from trainer.schedule import decayed


def test_a_full_reservoir_holds_the_newest_and_gives_different_ones() -> None:
    reservoir = Reservoir(5)
    for start in (0, 3, 6):
        reservoir.add({"x": np.arange(start, start + 3)})
    taken = reservoir.take(np.random.default_rng(1), 5)["x"]
    assert sorted(taken.tolist()) == [4, 5, 6, 7, 8]
    assert (reservoir.arrived, reservoir.used, reservoir.filled) == (9, 5, 5)


def numbers(stop: threading.Event) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    for _ in range(40):
        yield "wide", {"x": np.zeros(8, np.int64)}
        yield "narrow", {"x": np.ones(24, np.int64)}
    stop.wait(20)


def test_every_shape_is_shown_in_the_share_in_which_it_comes() -> None:
    stop = threading.Event()
    sizes = {"wide": 4, "narrow": 16}
    feed = Feed(numbers(stop), lambda key: sizes[str(key)], dict, TimedLoop(1.0, uses=2.0, memory=1e6), 2)
    shown = {"wide": 0, "narrow": 0}
    for _ in range(200):
        key, batch = feed.next()
        assert len(batch["x"]) == sizes[str(key)]
        shown[str(key)] += len(batch["x"])
    assert shown["narrow"] == pytest.approx(3 * shown["wide"], rel=0.1)
    stop.set()


def test_the_end_of_the_examples_is_told() -> None:
    feed = Feed(iter([("a", {"x": np.zeros(2)})]), lambda _: 4, dict, TimedLoop(1.0), 1)
    with pytest.raises(RuntimeError, match="no more examples"):
        feed.next()


def wrong_folder() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    raise BadInput("no text folder there", "name a folder of .txt files")
    yield


def test_what_the_user_can_mend_is_told_as_it_is() -> None:
    with pytest.raises(BadInput, match="no text folder"):
        Feed(wrong_folder(), lambda _: 4, dict, TimedLoop(1.0), 1).next()


def test_another_backend_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["finder", "--data", "d", "--text", "t", "--output", "o", "--minutes", "1"]
    assert main(argv) == 2
    assert "KERAS_BACKEND=jax" in capsys.readouterr().err


def test_kernels_alone_have_weight_decay() -> None:
    assert [decayed(f"conv/{name}") for name in ("kernel", "bias", "gain")] == [True, False, False]


def test_ctc_of_several_networks_is_that_of_each() -> None:
    rng = np.random.default_rng(2)
    outputs = [rng.normal(0, 2, (3, 12, 5)).astype(np.float32) for _ in range(2)]
    labels, lengths = np.array([[1, 2, 0, 0], [3, 3, 4, 0], [2, 1, 2, 1]], np.int32), np.array([2, 3, 4], np.int32)
    batch: dict[str, Any] = {"labels": labels, "lengths": lengths}
    found = np.asarray(ctc_of_all([np.asarray(o) for o in outputs], batch))
    steps = tf.fill([3], 12)
    wanted = [float(tf.reduce_sum(ctc_losses(tf.constant(o), labels, lengths, steps, True))) / 9 for o in outputs]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_networks_are_named_on_the_command_line() -> None:
    found = networks_of(["a=filters=(1,2,3,4)", "b="], FinderConfig())
    assert found == {"a": FinderConfig((1, 2, 3, 4)), "b": FinderConfig()}
    with pytest.raises(BadArgument, match="NAME=FIELD"):
        networks_of(["a=colour=1"], FinderConfig())


def test_lines_come_padded_to_the_widths_that_are_compiled() -> None:
    stream = lines(LineDataConfig(None, None, max_width_px=1536, bounds=(256.0, 448.0, 768.0, 1280.0)))
    for _ in range(3):
        width, values = next(stream)
        assert width in (256, 448, 768, 1280, 1536)
        assert values["inputs"].shape[1:] == (40, width, 1)
        assert values["labels"].shape == (len(values["inputs"]), most_characters(width))
        assert (values["labels"] > 0).sum(axis=1).tolist() == values["lengths"].tolist()
    stream.close()  # type: ignore[attr-defined]
