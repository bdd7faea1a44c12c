"""The ETA of an operation from its children in other processes, by the longest path.

Children that run side by side take as long as the slowest one. Those that have not started yet take as long as the
others did, and share as many lanes as ran so far: the bounds of list scheduling (Graham 1966). Without the number of
children there is no ETA: a pool of two workers shows two of its children, whether two or two hundred follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from otel_progress.model.estimate import Estimate

_EIGHTY: Final = 1.2816
"""Standard deviations within which a normal value is in 80% of all cases."""
_VARIES: Final = 0.5
"""Relative deviation of durations that is assumed before it is known."""
_LONGEST: Final = 2.0
"""A running child without an estimate is expected to take at most this many times as long as the others."""
_LEAST: Final = 1.0
"""Seconds of the shortest look back at how many ran at a time."""
_IDLE: Final = 0.01
"""The least number of children that are taken to run at a time."""


class ChildWork(NamedTuple):
    """A child, as far as time is concerned.

    Attributes:
        spent: seconds that it ran.
        eta: its estimate, if it runs and has one.
        began: when it started (seconds since 1970); None if it has not started or did not say.
        over: whether it ended.
        whole: whether it completed, so that its duration says how long others take.
        pending: whether it is still to start.
        stands: whether it is stuck, so that nobody knows when it ends.
    """

    spent: float
    eta: Estimate | None = None
    began: float | None = None
    over: bool = False
    whole: bool = False
    pending: bool = False
    stands: bool = False


def by_children(children: Sequence[ChildWork], ahead: float | None, now: float) -> Estimate | None:
    """Estimate when the last child will end; None if that is not known.

    Args:
        children: all that are known.
        ahead: how many children are to come that are not known yet, which may be a fraction; None if nobody said so.
        now: the time, in seconds since 1970.
    """
    if ahead is None:
        return None
    running = [child for child in children if not child.over and not child.pending]
    to_come = ahead + sum(child.pending for child in children)
    if not running and not to_come:
        return None
    usual, varies, known = _usual([child for child in children if child.over])
    left = [None if child.stands else child.eta or _left(child, usual, varies) for child in running]
    found = [one for one in left if one is not None]
    if len(found) < len(left):
        return None
    if not to_come:
        return _longest(found)
    usual, varies, known = _usual(children)
    if usual is None:
        return None
    lanes = _lanes(children, len(running), usual, now)
    width = min(0.9, _EIGHTY * varies * math.sqrt(1 / max(1.0, to_come) + 1 / known))
    work = (usual * to_come / lanes, usual * to_come * (1 - width) / lanes, usual * to_come * (1 + width) / lanes)
    sums = [sum(getattr(one, name) for one in found) / lanes for name in ("eta", "low", "high")]
    longest = _longest(found) if found else Estimate(0.0, 0.0, 0.0, "children")
    bounds = (longest.eta, longest.low, longest.high)
    eta, low, high = (max(most, each + rest) for most, each, rest in zip(bounds, sums, work))
    return Estimate(eta, low, high, "children") if 0 < eta < math.inf and high < math.inf else None


def _usual(children: Sequence[ChildWork]) -> tuple[float | None, float, int]:
    """How long a child takes, in seconds, the relative deviation of that, and by how many children it is known."""
    took = [child.spent for child in children if child.whole and child.spent > 0]
    took += [child.spent + child.eta.eta for child in children if child.eta is not None and not child.over]
    if not took:
        return None, _VARIES, 0
    mean = sum(took) / len(took)
    squares = sum((one / mean - 1) ** 2 for one in took)
    return mean, math.sqrt((squares + _VARIES**2) / len(took)), len(took)


def _left(child: ChildWork, usual: float | None, varies: float) -> Estimate | None:
    """The time left of a running child that has no estimate, by what others took."""
    if usual is None or child.spent > _LONGEST * usual:
        return None
    eta, wide = max(usual - child.spent, 0.05 * usual), _EIGHTY * varies * usual
    return Estimate(eta, max(0.0, eta - wide), eta + wide, "children")


def _longest(left: Sequence[Estimate]) -> Estimate:
    return Estimate(
        max(one.eta for one in left), max(one.low for one in left), max(one.high for one in left), "children"
    )


def _lanes(children: Sequence[ChildWork], running: int, usual: float, now: float) -> float:
    """How many children run at a time: now, or while the last one ran, as there are moments between two of them."""
    spans = [(child.began, child.began + child.spent) for child in children if child.began is not None]
    since = max(now - max(usual, _LEAST), min((start for start, _ in spans), default=now))
    busy = sum(max(0.0, min(end, now) - max(start, since)) for start, end in spans)
    return max(float(running), busy / (now - since) if now > since else 0.0, _IDLE)
