"""Limits that are learned: drawn instead of run, as no learned limit is shorter than a minute."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable
from typing import Final

from otel_progress.model.history import Learned

WORLDS: Final = 30
GAPS: Final = 50
"""Times without progress in a run."""
HEALTHY: Final = 1000
"""Healthy ones that are then held against the limit, in each world."""
SHAPES: Final[dict[str, Callable[[random.Random], float]]] = {
    "log-normal, sigma 0.5": lambda chance: 20 * chance.lognormvariate(0, 0.5),
    "log-normal, sigma 1": lambda chance: 20 * chance.lognormvariate(0, 1),
    "exponential": lambda chance: chance.expovariate(1 / 30),
    "gamma, shape 2": lambda chance: chance.gammavariate(2, 15),
    "Pareto, alpha 2.5": lambda chance: 15 * chance.paretovariate(2.5),
    "mostly 2 to 5 s, one in 20 a minute or two": lambda chance: (
        chance.uniform(2, 5) if chance.random() < 0.95 else chance.uniform(60, 120)
    ),
}


def table(seeds: Iterable[int]) -> str:
    """The limit that some runs teach, and how many healthy pauses would be called silent by it."""
    lines = [
        "| pauses | runs | their median | limit learned (median) | healthy called silent |",
        "|---|--:|--:|--:|--:|",
    ]
    chance = random.Random(" ".join(map(str, seeds)))
    for name, draw in SHAPES.items():
        for runs in (1, 5, 41):
            limits, alarms, medians = [], 0, []
            for _ in range(WORLDS):
                known = Learned(runs=runs)
                for _ in range(runs * GAPS):
                    known.gaps.add(draw(chance))
                limit = known.stall_after()
                assert limit is not None
                healthy = [draw(chance) for _ in range(HEALTHY)]
                limits.append(limit)
                medians.append(statistics.median(healthy))
                alarms += sum(pause >= limit for pause in healthy)
            shown = f"{statistics.median(medians):.0f} s | {statistics.median(limits):.0f} s"
            lines.append(f"| {name} | {runs} | {shown} | {alarms} of {WORLDS * HEALTHY:,} |")
    return "\n".join(lines)
