"""Rate and ETA: how fast work goes, and when it will be done, as an interval.

Work is modelled as a renewal process whose pace may drift: counts are weighted with a half-life that grows
with the run (a third of its length, at least 10 s), the spread of the pace is estimated from the same
samples, and the central limit theorem of renewal processes gives the spread of the remaining time
(Cox, "Renewal Theory", 1962, ch. 3). The interval contains the end in about
80% of all cases if the pace is stationary.

There is no estimate while the count stands still for longer than the pace so far explains: 3 times the longest pause
between two steps, or twice the usual time of a step. An estimate also ends when its time is over. In both cases it
returns with the next unit, never before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_Z: Final = 1.2816
_HALF_LIFE: Final = 10.0
_FLOOR: Final = 0.02
_PRIOR: Final = 2.0
"""Weight, in samples, of the assumption that units arrive at random (a Poisson process)."""
_PAUSES: Final = 3.0
"""A pause is explained up to this multiple of the longest pause so far."""
_STEPS: Final = 2.0
"""A pause is explained up to this multiple of the usual time of a step."""
_LEAST: Final = 3
"""Steps that must be seen before they explain a pause; until then, the time up to the last unit does."""
_EARLY: Final = 5.0
"""Seconds of a pause that are explained while fewer steps were seen."""
_IN_HAND: Final = 0.9
"""Largest part of the current step that counts as done, so that the ETA stays above 0 while work is left."""


@dataclass(frozen=True)
class Estimate:
    """Seconds until the end: the expected value, and an interval that contains the end in about 80% of all cases."""

    eta: float
    low: float
    high: float
    source: str
    """`rate` (from the pace so far), `plan` (from the expected durations) or `history` (mainly from earlier runs)."""
    runs: int = 0
    """Number of earlier runs that it uses."""

    def after(self, seconds: float) -> Estimate | None:
        """The same estimate `seconds` later, if nothing was heard since; None if its time is over."""
        if seconds <= 0:
            return self
        if self.eta <= seconds:
            return None
        low, high = max(0.0, self.low - seconds), max(0.0, self.high - seconds)
        return Estimate(self.eta - seconds, low, high, self.source, self.runs)


class Pace:
    """The pace of one count, in constant memory."""

    __slots__ = (
        *("_done", "_last", "_samples", "_spread", "_start", "_then", "_time"),
        *("_moved", "_moves", "_pause", "_seen", "_still", "_usual"),
        *("_ends", "_ends_of", "_unit_at"),
    )

    def __init__(self, now: float, done: float = 0.0) -> None:
        """Start at `now` (seconds, monotonic) with `done` units already completed."""
        self._start = self._then = self._moved = self._unit_at = now
        self._last = done
        self._forget()

    def _forget(self) -> None:
        self._done = self._time = self._spread = self._samples = 0.0
        self._moves = self._pause = self._usual = 0.0
        self._seen = 0
        self._still = False
        self._ends = math.inf
        self._ends_of: tuple[float, float] | None = None

    def observe(self, now: float, done: float, moved: float | None = None) -> None:
        """Record the total count at `now`; a count that fell restarts the estimate.

        Args:
            now: the monotonic time, in seconds.
            done: the total count.
            moved: when the last unit was completed, if that is known.
        """
        span = now - self._then
        if span <= 0:
            return
        step = done - self._last
        if step:
            self._unit_at = now if moved is None else min(now, max(moved, self._then))
        self._then, self._last = now, done
        if step < 0:
            self._forget()
            self._moved = now
            return
        keep = 0.5 ** (span / max(_HALF_LIFE, (now - self._start) / 3))
        self._done = self._done * keep + step
        self._time = self._time * keep + span
        self._samples = self._samples * keep + 1
        off = step - span * self._done / self._time
        self._spread = self._spread * keep + off * off / span
        self._moves *= keep
        if step:
            self._moves += 1
            self._seen += 1
            self._pause *= keep
            if self._still:
                self._pause = max(self._pause, now - self._moved)
            self._moved = now
            self._usual = self._time / self._moves
        self._still = not step

    def pause(self, seconds: float) -> None:
        """Exclude a declared wait of this many seconds from the pace."""
        self._start += seconds
        self._then += seconds
        self._moved += seconds
        self._unit_at += seconds
        self._ends += seconds

    def skip(self, since: float, now: float) -> None:
        """Exclude a declared wait that began at `since`, except for the part already observed."""
        self.pause(max(0.0, now - max(since, self._then)))

    @property
    def rate(self) -> float | None:
        """Units a second at the last observation; None before the first unit and during an unexplained pause."""
        return None if self._unexplained(self._then - self._unit_at) else self._rate

    def rate_at(self, now: float, done: float, moved: float | None = None) -> float | None:
        """Units a second; None before the first unit, during an unexplained pause, and after the estimate ended."""
        over = self._ends_of is not None and self._ends_of[0] == done and now >= self._ends
        return None if over or self.idle(now, done, moved) else self._rate

    @property
    def _rate(self) -> float | None:
        rate = self._done / self._time if self._done > 0 and self._time > 0 else 0.0
        return rate if 0 < rate < math.inf else None

    def idle(self, now: float, done: float, moved: float | None = None) -> bool:
        """Whether the count has stood still for longer than the pace so far explains."""
        return self._unexplained(now - self._unit(now, done, moved))

    def _unit(self, now: float, done: float, moved: float | None) -> float:
        """When the last unit was completed: `moved` if it came after the last observation."""
        if done == self._last:
            return self._unit_at
        return now if moved is None else min(now, max(moved, self._then))

    def _unexplained(self, pause: float) -> bool:
        explained = max(_PAUSES * self._pause, _STEPS * self._usual)
        if self._seen < _LEAST:
            explained = max(_EARLY, explained, _PAUSES * (self._unit_at - self._start))
        return self._seen > 0 and pause > explained

    @property
    def _step(self) -> float:
        """Mean number of units between two samples that differ."""
        return self._done / self._moves if self._moves > 0 else 0.0

    def _is_over(self, remaining: float, now: float, done: float, moved: float | None) -> bool:
        """Whether the estimate since the last unit has ended; it stays so until the next unit."""
        unit_at = self._unit(now, done, moved)
        if self._ends_of != (done, remaining):
            self._ends_of = (done, remaining)
            self._ends = unit_at + remaining / (self._rate or math.inf)
        if self._unexplained(now - unit_at):
            self._ends = min(self._ends, now)
        return now >= self._ends

    def estimate(
        self,
        remaining: float,
        now: float,
        grain: float = 1.0,
        done: float | None = None,
        moved: float | None = None,
    ) -> Estimate | None:
        """Estimate when the rest will be done; None if nothing is left or the pace supports no estimate.

        Args:
            remaining: units that are left.
            now: the monotonic time, in seconds.
            grain: the size of one unit, 0 for a ratio.
            done: how much is done now, if that may exceed the last observation.
            moved: when the last unit was completed, if that is known.
        """
        rate = self._rate
        if rate is None or not 0 < remaining < math.inf:
            return None
        done = self._last if done is None else done
        if self._is_over(remaining, now, done, moved):
            return None
        since = max(0.0, now - self._then) if done == self._last else 0.0
        eta = remaining / rate - min(since, _IN_HAND * min(remaining, max(grain, self._step)) / rate)
        if not 0 < eta < math.inf:
            return None
        prior = _PRIOR if grain else 0.0
        spread = (self._spread + prior * rate * grain) / max(self._samples + prior, 1.0)
        variance = spread / rate / rate * (eta + eta * eta / self._time)
        off = _Z * math.sqrt(variance) + eta * max(_FLOOR, 0.5 / (1 + self._samples))
        relative = min(off / eta, 5.0)
        if not math.isfinite(eta * (1 + relative)):
            return None
        return Estimate(eta, eta / (1 + relative), eta * (1 + relative), "rate")


def planned(
    remaining: Iterable[tuple[float, float]], actual: float, expected: float, measured: float | None = None
) -> Estimate | None:
    """Estimate the remaining time from the expected durations of a plan.

    None if nothing is left, if a running stage has exceeded the upper bound of what was planned for it, and if only
    stages are left that have exceeded the expected time.

    Args:
        remaining: for each unfinished stage, its expected duration and its running time so far, in seconds.
        actual: total duration of the finished stages, in seconds.
        expected: total duration that the plan expected for them, in seconds.
        measured: remaining seconds of running stages by their own pace; those are not in `remaining`.
    """
    pairs = list(remaining)
    if not pairs and measured is None:
        return None
    factor = (actual + 30) / (expected + 30) if expected else 1.0
    eta = (measured or 0.0) + sum(max(want * factor - ran, want * factor * 0.05) for want, ran in pairs)
    if not math.isfinite(eta * 2):
        return None
    left = sum(want for want, _ in pairs)
    known = expected / (expected + left) if expected else 0.0
    widest = 2.0 - 0.6 * known
    if any(ran > want * factor * widest for want, ran in pairs):
        return None
    if not measured and pairs and all(ran >= want * factor for want, ran in pairs):
        return None
    return Estimate(eta, eta * (0.5 + 0.3 * known), eta * widest, "plan")
