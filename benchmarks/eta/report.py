"""The tables of the ETA benchmark, and its bars."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.eta.cost import cpu
from benchmarks.eta.families import INDEPENDENT
from benchmarks.eta.peers import PEERS
from benchmarks.eta.play import OURS
from benchmarks.eta.score import Row, Scores

Found = Mapping[str, tuple[Scores, Scores]]
"""Scores of the first run and of later runs, by family."""
NONE = "\u2013"
WHO = (OURS, *PEERS)
SLACK = 1.1
"""How much worse than the best peer we may be in one family."""


class Bar(NamedTuple):
    """One bar of the table: what, the figures, whether it is met."""

    what: str
    found: str
    met: bool


def number(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.3f}"


def share(value: float) -> str:
    return NONE if not math.isfinite(value) else f"{value * 100:.0f}%"


def errors(found: Found, later: int) -> str:
    """One row a family: the mean error as a share of the run, ours and theirs."""
    lines = [f"| family | {' | '.join(WHO)} | ours / best |", "|---|" + "--:|" * (len(WHO) + 1)]
    for name, scores in found.items():
        means = {who: scores[later].mean(who) for who in WHO}
        ours, best = means[OURS], best_of(means)
        ratio = number(ours.error / best) if ours and best else NONE
        cells = " | ".join(number(mean.error) if mean else NONE for mean in means.values())
        lines.append(f"| {name} | {cells} | {ratio} |")
    return "\n".join(lines)


def best_of(means: Mapping[str, Row | None]) -> float | None:
    """The error of the best peer."""
    return min((mean.error for who, mean in means.items() if who != OURS and mean), default=None)


def details(found: Found) -> str:
    """Each forecaster over all families."""
    lines = ["| | run | error | of the rest | bias | jumpiness | no estimate |", "|---|---|--:|--:|--:|--:|--:|"]
    for later, label in enumerate(("first", "later")):
        for who in WHO:
            means = [mean for scores in found.values() if (mean := scores[later].mean(who))]
            if not means:
                continue
            values = [statistics.fmean(column) for column in zip(*means)]
            given = statistics.fmean(statistics.fmean(scores[later].given[who]) for scores in found.values())
            lines.append(f"| {who} | {label} | {' | '.join(map(number, values))} | {share(1 - given)} |")
    return "\n".join(lines)


def intervals(found: Found) -> str:
    """Coverage and width of our interval."""
    head = ("first runs", "width", "constant", "factor", "later runs", "width", "constant", "factor")
    lines = [f"| family | {' | '.join(head)} |", "|---|" + "--:|" * len(head)]
    for name, scores in [*found.items(), ("all", merged(found))]:
        cells = []
        for one in scores:
            cells.append(share(one.coverage()))
            cells += map(number, (one.flat_width(), one.plain_width(), one.factor_width()))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def merged(found: Found) -> tuple[Scores, Scores]:
    """The scores of all families together."""
    both = Scores(), Scores()
    for scores in found.values():
        for whole, part in zip(both, scores):
            whole.include(part)
    return both


def summed(found: Found, later: int, who: str) -> float:
    """Mean error over the families in which all take part."""
    full = [scores[later] for scores in found.values() if all(scores[later].mean(one) for one in WHO)]
    return statistics.fmean(mean.error for one in full if (mean := one.mean(who))) if full else math.nan


def bars(found: Found) -> list[Bar]:
    """Compare with what was asked for."""
    first, again = merged(found)
    firsts = {who: summed(found, 0, who) for who in WHO}
    laters = {who: summed(found, 1, who) for who in WHO}
    worse = _worse(found, 0, SLACK, list(found))
    noisy = _worse(found, 1, SLACK, [name for name in found if name in INDEPENDENT])
    peer = min(value for who, value in firsts.items() if who != OURS)
    later = min(value for who, value in laters.items() if who != OURS)
    family = {name: scores[run].coverage() for run in (0, 1) for name, scores in found.items()}
    low = sorted({name for run in (0, 1) for name, scores in found.items() if scores[run].coverage() < 0.65})
    both = Scores()
    both.include(first)
    both.include(again)
    jumps = {who: _mean_jumps(found, who) for who in WHO}
    calm = all(jumps[OURS] < jumps[who] for who in ("tqdm", "rich"))
    return [
        Bar("first runs: at most the best peer's error plus 10% in each family", _but(worse, len(found)), not worse),
        Bar("first runs: below each peer over all", f"{firsts[OURS]:.3f}, best peer {peer:.3f}", firsts[OURS] < peer),
        Bar(
            "later runs: at most half of the best peer's error",
            f"{laters[OURS] / later:.2f}",
            laters[OURS] <= later / 2,
        ),
        Bar("later runs of independent noise: not worse (10%)", _but(noisy, len(INDEPENDENT)), not noisy),
        Bar("coverage of the 80% interval: 75 to 85%", share(both.coverage()), 0.75 <= both.coverage() <= 0.85),
        Bar("coverage of at least 65% in each family", _but(low, len(family)), not low),
        Bar(
            "mean width at most that of constant intervals with the same coverage",
            f"{both.flat_width():.3f}, constant {both.plain_width():.3f}, constant factor {both.factor_width():.3f}",
            both.flat_width() <= both.plain_width(),
        ),
        Bar("jumpiness below tqdm's and rich's", ", ".join(f"{who} {value:.2f}" for who, value in jumps.items()), calm),
        Bar(
            "first estimate within 2 steps or 2 s of a known total",
            f"later in {share(both.late(OURS))} of runs",
            not both.late(OURS),
        ),
    ]


def _mean_jumps(found: Found, who: str) -> float:
    means = [mean.jumps for scores in found.values() for one in scores if (mean := one.mean(who))]
    return statistics.fmean(means) if means else math.nan


def _worse(found: Found, later: int, slack: float, names: Sequence[str]) -> list[str]:
    """Families in which we are worse than the best peer by more than this factor (and by more than 0.1% of the run)."""
    bad = []
    for name in names:
        means = {who: found[name][later].mean(who) for who in WHO}
        ours, best = means[OURS], best_of(means)
        if best is not None and (ours is None or ours.error > best * slack + 0.001):
            bad.append(name)
    return bad


def _but(bad: Sequence[str], many: int) -> str:
    return f"all {many}" if not bad else f"all {many} but {len(bad)}: {', '.join(bad)}"


def first_estimates(found: Found) -> str:
    """How soon the first estimate comes."""
    lines = ["| | median steps | median s | after both 2 steps and 2 s | CPU, 1,000 observations |"]
    lines.append("|---|--:|--:|--:|--:|")
    first, again = merged(found)
    first.include(again)
    for who in WHO:
        runs = first.first.get(who, [])
        steps, seconds = (statistics.median(values) for values in zip(*runs)) if runs else (math.nan, math.nan)
        lines.append(f"| {who} | {steps:.0f} | {seconds:.2f} | {share(first.late(who))} | {cpu(who) * 1000:.1f} ms |")
    return "\n".join(lines)


def costs() -> list[Bar]:
    """What estimates cost in this process."""
    from benchmarks.eta import burden

    return [Bar(*one) for one in burden.bars()]


def text(found: Found, seeds: Sequence[int], seconds: float) -> str:
    """Return all tables."""
    met = [f"| {bar.what} | {bar.found} | {'yes' if bar.met else '**no**'} |" for bar in (*bars(found), *costs())]
    runs = sum(len(one.cover) for scores in found.values() for one in scores)
    return "\n\n".join(
        [
            f"Seeds {', '.join(map(str, seeds))}: {runs:,} runs in {seconds / 60:.0f} minutes.",
            "\n".join(["| bar | found | met |", "|---|---|---|", *met]),
            "Mean absolute error as a share of the run, in *first* runs of a name:",
            errors(found, 0),
            "In *later* runs (the second to the fifth; the tenth where the family says so):",
            errors(found, 1),
            "Means of the families:",
            details(found),
            "Our 80% interval: coverage, mean width as a share of the run, and those of constant ones as good:",
            intervals(found),
            first_estimates(found),
        ]
    )
