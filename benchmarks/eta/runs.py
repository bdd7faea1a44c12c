"""Runs as values: what happens in one run, and when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

WEEK = 7 * 86_400.0


class Step(NamedTuple):
    """One thing that a run does."""

    at: float
    """Seconds since the start of the run."""
    act: str
    """`units`, `total`, `begin` or `end` (of a part)."""
    number: float = 0.0
    """Units completed, or the new total."""
    part: str = ""
    """Name of the stage or child; empty for the operation itself."""


@dataclass(frozen=True)
class Run:
    """One run, from its start to its last unit."""

    steps: tuple[Step, ...]
    total: float | None
    """Total that is known at the start."""
    restored: float = 0.0
    """Units that an earlier attempt completed."""
    parts: tuple[tuple[str, float], ...] = ()
    """Names and totals of stages or children."""
    kind: str = "plain"
    """`plain`, `stages`, `children` or `processes`."""

    @property
    def seconds(self) -> float:
        return self.steps[-1].at


Draw = Callable[[int], Run]
"""Draws the run with this number (from 0) of one name."""
Family = Callable[[random.Random], Draw]
"""Draws what all runs of one name have in common."""


def plain(times: Iterable[float], *, restored: float = 0.0) -> Run:
    """A run of units that take these times, with a known total."""
    ends = list(accumulate(times))
    return Run(tuple(Step(at, "units", 1) for at in ends), len(ends) + restored, restored)


def scale(rng: random.Random, low: float, high: float) -> float:
    """Draw a parameter of which only the order of magnitude is known."""
    return low * (high / low) ** rng.random()


def noise(rng: random.Random, sigma: float) -> float:
    """Draw a factor with mean 1."""
    return rng.lognormvariate(-sigma * sigma / 2, sigma)
