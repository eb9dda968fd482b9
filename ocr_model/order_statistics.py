"""Median and quantiles of small arrays, without the checks of NumPy, which take most of the time there."""

from __future__ import annotations

import numpy as np


def median(values: np.ndarray) -> float:
    """As `np.median`, of a 1-D array."""
    middle = np.partition(values, ((len(values) - 1) // 2, len(values) // 2))
    return 0.5 * (float(middle[(len(values) - 1) // 2]) + float(middle[len(values) // 2]))


def quantile(values: np.ndarray, share: float) -> float:
    """As `np.quantile`, linear, of a 1-D array."""
    below, part = divmod(share * (len(values) - 1), 1)
    ordered = np.sort(values)
    low, high = float(ordered[int(below)]), float(ordered[min(int(below) + 1, len(values) - 1)])
    return low + part * (high - low)
