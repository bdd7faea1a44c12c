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
_SET_UP: Final = (12.0, 6.0, 4.0)
"""A first step that took this many times as long, unit by unit, as each of the next one, two or three was set-up."""
QUICKER, SLOWER, _FAR_SLOWER = 8.0, 4.0, 8.0
"""How many times quicker, or slower, all of the newest parts are than what was before; the latter if they are two."""
_BEYOND_EXTREME: Final = 1.5
"""How many times slower than the slowest part before they are."""
_ALIKE: Final = 3.0
"""The newest parts differ by less than this factor."""
_UNITS: Final = 6
"""Units that show a quicker pace, at least."""
_STEPS_BEFORE: Final = 2
"""Units before a new pace, at least."""


def is_set_up(times: Sequence[float], counts: Sequence[float]) -> bool:
    """Whether the first step took far longer than all that followed, so that work was prepared in it.

    Args:
        times: when each count was reached, in seconds; the first one is the start.
        counts: the counts, each above the one before.
    """
    each = [(t - at) / (n - of) for at, t, of, n in zip(times, times[1:], counts, counts[1:], strict=False)]
    return len(each) > 1 and each[0] >= _SET_UP[min(len(each) - 1, len(_SET_UP)) - 1] * max(each[1:])


def new_pace(
    newest: Sequence[float], since: tuple[float, float], times: Sequence[float], counts: Sequence[float]
) -> tuple[float, float] | None:
    """Return the time and the count from which on work goes at another pace; None if the newest points show none.

    All parts between them must go at about one pace, far from that of all before. This shows a change sooner than
    `change_of_pace`, which sees only what is kept of a long course.

    Args:
        newest: the newest points: times and counts in turn.
        since: when the pace of now began, and at which count.
        times: when each kept count was reached, in seconds.
        counts: the counts, each above the one before.
    """
    points = list(zip(newest[::2], newest[1::2]))
    parts = [(t - at) / (n - of) for (at, of), (t, n) in itertools.pairwise(points)]
    for first in range(len(parts) - _PROOF_PARTS + 1):
        (start, base), now = points[first], parts[first:]
        if start <= since[0] or base - since[1] < _STEPS_BEFORE or max(now) > _ALIKE * min(now):
            continue
        before = (start - since[0]) / (base - since[1])
        quick = len(now) > _PROOF_PARTS and max(now) * QUICKER < before and points[-1][1] - base >= _UNITS
        slow = min(now) > before * (SLOWER if len(now) > _PROOF_PARTS else _FAR_SLOWER)
        if not (quick or slow):
            continue
        kept = [(t, n) for t, n in zip(times, counts, strict=True) if since[1] <= n <= base]
        old = [(t - at) / (n - of) for (at, of), (t, n) in itertools.pairwise(kept)] or [before]
        if (quick and max(now) < min(old)) or (slow and min(now) > _BEYOND_EXTREME * max(old)):
            return start, base
    return None


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
