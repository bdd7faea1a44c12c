"""Scores of forecasts: pure functions of what was forecast and what happened."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NEAR = 0.02
"""Moments with less than this share of the run left do not count for the error as a share of what is left."""


class Forecast(NamedTuple):
    """Seconds left, as forecast; the limits if it is an interval."""

    eta: float
    low: float | None = None
    high: float | None = None


class Moment(NamedTuple):
    """One moment of a run."""

    at: float
    """Seconds since the start."""
    left: float
    """Seconds that were left in fact."""
    forecasts: Mapping[str, Forecast]
    """By whom; who gave none is missing."""


@dataclass(frozen=True)
class Played:
    """A run, and all forecasts in it."""

    seconds: float
    moments: tuple[Moment, ...]
    first: Mapping[str, tuple[float, float]]
    """Steps of the count and seconds up to the first forecast, by whom, from when the total is known."""


class Row(NamedTuple):
    """Scores of one forecaster in one run, or their means."""

    error: float
    """Mean absolute error, as a share of the run."""
    rest: float
    """The same as a share of what is left."""
    bias: float
    """Mean signed error as a share of the run; positive if it forecasts too late an end."""
    jumps: float
    """Seconds that the forecast end moves in a second."""


class Cover(NamedTuple):
    """One interval: whether it held the truth; its width, its miss, the forecast and the truth as shares of the run."""

    held: bool
    width: float
    error: float
    eta: float
    left: float


def taking_part(played: Played, who: Iterable[str]) -> set[str]:
    """Those who gave a forecast at half of the moments or more; only these are compared."""
    least = len(played.moments) / 2
    return {name for name in who if sum(name in moment.forecasts for moment in played.moments) >= max(1.0, least)}


def common(played: Played, who: set[str]) -> list[Moment]:
    """The moments at which all of them gave a forecast."""
    return [moment for moment in played.moments if all(name in moment.forecasts for name in who)]


def row(moments: Sequence[Moment], who: str, seconds: float) -> Row | None:
    """Score one forecaster at these moments of a run; None without any."""
    if not moments or seconds <= 0:
        return None
    off = [moment.forecasts[who].eta - moment.left for moment in moments]
    near = [abs(miss) / moment.left for miss, moment in zip(off, moments) if moment.left >= NEAR * seconds]
    return Row(
        statistics.fmean(map(abs, off)) / seconds,
        statistics.fmean(near) if near else 0.0,
        statistics.fmean(off) / seconds,
        jumpiness(moments, who),
    )


def jumpiness(moments: Sequence[Moment], who: str) -> float:
    """Return how many seconds the forecast end moves in a second, on average."""
    moved = passed = 0.0
    for before, after in itertools.pairwise(moments):
        moved += abs((after.at + after.forecasts[who].eta) - (before.at + before.forecasts[who].eta))
        passed += after.at - before.at
    return moved / passed if passed else 0.0


def covers(played: Played, who: str) -> list[Cover]:
    """Return what each interval of a run was worth."""
    found = []
    for moment in played.moments:
        given = moment.forecasts.get(who)
        if given is not None and given.low is not None and given.high is not None:
            found.append(
                Cover(
                    given.low <= moment.left <= given.high,
                    (given.high - given.low) / played.seconds,
                    abs(given.eta - moment.left) / played.seconds,
                    given.eta / played.seconds,
                    moment.left / played.seconds,
                )
            )
    return found


def constant_width(found: Sequence[Cover], coverage: float) -> float:
    """Mean width of intervals that lie the same distance around each forecast, and cover as much.

    The distance is the quantile of the errors; an interval never reaches below 0.
    """
    if not found:
        return math.nan
    errors = sorted(one.error for one in found)
    distance = errors[min(len(errors) - 1, max(0, math.ceil(coverage * len(errors)) - 1))]
    return statistics.fmean(distance + min(distance, one.eta) for one in found)


def constant_factor(found: Sequence[Cover], coverage: float) -> float:
    """Mean width of intervals from each forecast divided by a factor to the forecast times it, that cover as much."""
    off = sorted(abs(math.log(one.left / one.eta)) for one in found if one.left > 0 and one.eta > 0)
    if not off:
        return math.nan
    factor = math.exp(off[min(len(off) - 1, max(0, math.ceil(coverage * len(off)) - 1))])
    return statistics.fmean(one.eta * (factor - 1 / factor) for one in found)


@dataclass
class Scores:
    """All scores of one family, or of many."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    cover: list[list[Cover]] = field(default_factory=list)
    given: dict[str, list[float]] = field(default_factory=dict)
    """Share of moments with a forecast, for each run."""
    first: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For each run with a forecast; see `Played.first`."""

    def add(self, played: Played, who: Sequence[str], ours: str) -> None:
        """Add a run."""
        part = taking_part(played, who)
        moments = common(played, part)
        for name in who:
            share = sum(name in moment.forecasts for moment in played.moments) / max(1, len(played.moments))
            self.given.setdefault(name, []).append(share)
            if name in played.first:
                self.first.setdefault(name, []).append(played.first[name])
            found = row(moments, name, played.seconds) if name in part else None
            if found is not None:
                self.rows.setdefault(name, []).append(found)
        self.cover.append(covers(played, ours))

    def include(self, other: Scores) -> None:
        """Add the scores of another seed."""
        for mine, theirs in ((self.rows, other.rows), (self.given, other.given), (self.first, other.first)):
            for name, values in theirs.items():
                mine.setdefault(name, []).extend(values)  # type: ignore[attr-defined]
        self.cover += other.cover

    def mean(self, who: str) -> Row | None:
        """Mean scores over all runs; each run counts alike."""
        rows = self.rows.get(who)
        return Row(*(statistics.fmean(values) for values in zip(*rows))) if rows else None

    def coverage(self) -> float:
        """Share of intervals that held the truth, each run alike."""
        return _mean(statistics.fmean(one.held for one in run) for run in self.cover if run)

    def width(self) -> float:
        """Mean width as a share of the run, each run alike."""
        return _mean(statistics.fmean(one.width for one in run) for run in self.cover if run)

    def plain_width(self) -> float:
        """Mean width of constant intervals with the same coverage."""
        return constant_width(*self._flat())

    def factor_width(self) -> float:
        """Mean width of intervals of a constant factor with the same coverage."""
        return constant_factor(*self._flat())

    def _flat(self) -> tuple[list[Cover], float]:
        flat = [one for run in self.cover for one in run]
        return flat, sum(one.held for one in flat) / len(flat) if flat else 0.0

    def flat_width(self) -> float:
        """Mean width over all moments, to compare with constant intervals."""
        return _mean(one.width for run in self.cover for one in run)

    def late(self, who: str) -> float:
        """Share of runs whose first forecast came after both 2 steps and 2 s with a known total."""
        runs = self.first.get(who, [])
        missing = len(self.given.get(who, [])) - len(runs)
        bad = missing + sum(steps > 2 and seconds > 2 for steps, seconds in runs)
        return bad / max(1, len(runs) + missing)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.fmean(found) if found else math.nan
