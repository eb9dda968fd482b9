"""Distributions of durations that can be added up: counts in buckets that grow by a tenth.

Kept in the ledger as {bucket: count}, so that the median over five million pages is exact to five per cent without a
list of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

_GROWTH = math.log(1.1)


def bucket(milliseconds: float) -> int:
    """Number of the bucket of a duration.

    >>> bucket(0.5), bucket(1), bucket(100)
    (0, 0, 48)
    """
    return max(0, int(math.log(max(milliseconds, 1.0)) / _GROWTH))


def count(counts: Counter[str], milliseconds: float) -> None:
    """Adds a duration to a distribution."""
    counts[str(bucket(milliseconds))] += 1


def total(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """All of several distributions."""
    sums: Counter[str] = Counter()
    for part in parts:
        sums.update(part)
    return sums


def quantile(counts: Mapping[str, int], share: float) -> float:
    """Milliseconds under which that share of the durations lies, the middle of its bucket; 0 where there are none.

    >>> round(quantile({"48": 90, "60": 10}, 0.5))
    102
    """
    wanted = share * sum(counts.values())
    seen = 0
    for number in sorted(map(int, counts)):
        seen += counts[str(number)]
        if seen >= wanted and seen:
            return math.exp((number + 0.5) * _GROWTH)
    return 0.0
