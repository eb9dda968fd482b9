"""What training spends its time on: waiting for data, learning, and a TensorBoard trace of some steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

TRACED_STEPS = range(10, 20)  # after the first pass over most of the buckets


class Profile:
    """Seconds of waiting and learning since the last `figures`, and a trace of `TRACED_STEPS` of this sitting.

    Args:
        board: folder of TensorBoard for the trace; None for no trace.
    """

    def __init__(self, board: Path | None = None) -> None:
        self.board = board
        self.steps = 0
        self._tracing = False
        self._forget()

    def _forget(self) -> None:
        self.waited = self.learnt = 0.0
        self.examples = 0

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_trace()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        self._trace()
        began = time.monotonic()
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        self.learnt += time.monotonic() - began
        self.steps += 1

    def count(self, examples: int) -> None:
        self.examples += examples

    def figures(self) -> dict[str, float]:
        """`waiting`: share of the time spent waiting for data; `examples_per_s`. Counting begins anew."""
        total = self.waited + self.learnt
        figures = {"waiting": self.waited / total, "examples_per_s": self.examples / total} if total > 0 else {}
        self._forget()
        return figures

    def _trace(self) -> None:
        if self.board is not None and self.steps == TRACED_STEPS.start:
            tf.profiler.experimental.start(str(self.board))
            self._tracing = True
        elif self.steps >= TRACED_STEPS.stop:
            self._end_trace()

    def _end_trace(self) -> None:
        if self._tracing:
            self._tracing = False
            tf.profiler.experimental.stop()
