"""A change of pace: whether, and from where on, a count goes at another pace than before.

The parts after the change must differ from those before by far more than these do among themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

_PROOF_PARTS, _PROOF_UNITS, _PROOF_SECONDS = 2, 5.0, 2.0
"""What proves a change of pace: parts of the course, units and seconds at the new pace."""
_JUMP, _LEAP = math.log(3.0), math.log(8.0)
"""The least change of pace; the latter if there are only `_PROOF_PARTS` parts before or after it."""
_BEYOND: Final = 4.0
"""How many times the spread of the parts a change of pace is at least."""
_ROUNDING: Final = 1e-9
"""What sums of logarithms differ by because of rounding, at most."""
STEADY: Final = 3.0 * (1 - _ROUNDING)
"""Parts whose paces differ by less than this factor have no change among them."""


def change_of_pace(times: Sequence[float], counts: Sequence[float]) -> int | None:
    """Return the index of the point at which the pace became another one; None if no change is proven.

    Args:
        times: when each count was reached, in seconds.
        counts: the counts, each above the one before.
    """
    time, done = times[-1], counts[-1]
    if time - times[0] <= _PROOF_SECONDS or done - counts[0] <= _PROOF_UNITS:
        return None
    paces = [math.log((t - at) / (n - of)) for at, t, of, n in zip(times, times[1:], counts, counts[1:], strict=False)]
    if max(paces) - min(paces) < _JUMP:
        return None
    best, found = 1.0, 0
    for end, start in _candidates(paces):
        proof = _proof(paces[:end], paces[start:])
        if proof > best:
            best, found = proof, start
    proven = found and time - times[found] >= _PROOF_SECONDS and done - counts[found] >= _PROOF_UNITS
    return found if proven else None


def _candidates(paces: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Where a change may be: the end of the parts before, and the start of those after; one may lie in between.

    Their means differ by the least change.
    """
    sums, many = [0.0, *itertools.accumulate(paces)], len(paces)
    for start in range(1, many - _PROOF_PARTS + 1):
        after = (sums[many] - sums[start]) / (many - start)
        for end in (start, start - 1):
            if end and abs(after - sums[end] / end) > _least(end, many - start) - _ROUNDING:
                yield end, start


def _least(before: int, after: int) -> float:
    """The least change of pace (log) between so many parts."""
    return _JUMP if min(before, after) > _PROOF_PARTS else _LEAP


def _proof(before: Sequence[float], after: Sequence[float]) -> float:
    """How far two series of paces (log) differ, as a multiple of what proves a change."""
    jump, squares = abs(_mean(after) - _mean(before)), 0.0
    for series in (before, after):
        middle = _mean(series)
        squares += sum((one - middle) ** 2 for one in series)
    spread = math.sqrt(squares / max(1, len(before) + len(after) - 2))
    return jump / max(_least(len(before), len(after)), _BEYOND * spread)


def _mean(series: Sequence[float]) -> float:
    return sum(series) / len(series)
