"""A sketch of quantiles in constant memory: DDSketch.

Values fall into logarithmic buckets, so that each quantile is within `ACCURACY` of the true one, and merged sketches
equal one sketch of all values. Beyond `BUCKETS`, the lowest buckets share one: high quantiles stay accurate.

Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

ACCURACY: Final = 0.02
"""The relative error of a quantile, at most."""
BUCKETS: Final = 256
"""Buckets that are kept: values from one to 28,000 times the smallest are apart."""
_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LOG: Final = math.log(_GAMMA)
FARTHEST: Final = 1_000
"""No bucket is farther from zero."""
_LOWEST, _HIGHEST = 1e-9, 1e15
"""Values beyond are counted as these."""


class Sketch:
    """Counts of positive values by bucket; NaN, infinity and negative values are ignored, zero counts as 1e-9."""

    __slots__ = ("buckets", "count")

    def __init__(self, buckets: Iterable[tuple[int, int]] = ()) -> None:
        """Start with these buckets, none by default."""
        self.buckets: dict[int, int] = dict(buckets)
        self.count = sum(self.buckets.values())
        self._collapse()

    def add(self, value: float) -> None:
        """Add one value."""
        if not 0 <= value < math.inf:
            return
        bucket = math.ceil(math.log(min(max(value, _LOWEST), _HIGHEST)) / _LOG)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        if len(self.buckets) > BUCKETS:
            self._collapse()

    def merge(self, other: Sketch) -> None:
        """Add all values of another sketch."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self._collapse()

    def quantile(self, part: float) -> float:
        """Return the value that `part` (0 to 1) of all values do not exceed; 0 if there are none."""
        rank = max(0, math.ceil(part * self.count) - 1)
        seen = 0
        for bucket, count in sorted(self.buckets.items()):
            seen += count
            if seen > rank:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return 0.0

    def _collapse(self) -> None:
        excess = len(self.buckets) - BUCKETS
        if excess <= 0:
            return
        order = sorted(self.buckets)
        lowest = order[excess]
        for bucket in order[:excess]:
            self.buckets[lowest] += self.buckets.pop(bucket)
