"""What a step of learning depends on, whatever the backend: rate, momentum of the average, and what decays."""

from __future__ import annotations

import math


def half_cosine(done: float) -> float:
    """The rate after a share of the way, as a share of its peak, from 1 to a hundredth.

    >>> [round(half_cosine(done), 2) for done in (0.0, 0.5, 1.0, 2.0)]
    [1.0, 0.5, 0.01, 0.01]
    """
    return max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def decayed(path: str) -> bool:
    """Whether a variable of that path has weight decay: kernels, not biases and gains."""
    return not path.endswith(("bias", "gain"))


def momentum_at(step: int, momentum: float) -> float:
    """Momentum of the average at an update: smaller at the beginning, so that it forgets the initialisation.

    >>> [round(momentum_at(s, 0.99), 2) for s in (1, 10, 10_000)]
    [0.18, 0.55, 0.99]
    """
    return min(momentum, (1 + step) / (10 + step))
