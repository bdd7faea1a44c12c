"""The ETA by a plan: what is left of the stages that run, and of those to come, along the longest path."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otel_progress.live.engine import learning, outlines
from otel_progress.live.survey import begun, passed_over
from otel_progress.model.estimate import Estimate, planned
from otel_progress.model.plan import longest_path

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState
    from otel_progress.live.survey import Measure, Survey
    from otel_progress.model.plan import Plan

BEGINS: Final = 5.0
"""Seconds within which the next planned stage begins. Later its time passes, as it may have another name now, or not
come."""
BESIDE: Final = 2.0
"""Seconds after which a stage that may start, and does not, shows that the stages run one after the other."""


class _Left:
    """The time left in the stages of a plan: those that run side by side count by the longest one."""

    def __init__(self) -> None:
        self.ahead: dict[str, float] = {}
        """Expected durations of stages to come."""
        self.running: dict[str, tuple[float, float]] = {}
        """Expected duration and running time of stages without an estimate."""
        self.measured: dict[str, Estimate] = {}
        """Stages that have an estimate of their own."""
        self.actual = self.expected = 0.0
        self.runs = 0

    def __bool__(self) -> bool:
        return bool(self.ahead or self.running or self.measured)

    def keep(self, path: frozenset[str]) -> None:
        """Leave out what is not on this path."""
        for each in (self.ahead, self.running, self.measured):
            for name in each.keys() - path:
                del each[name]

    def rest(self) -> dict[str, float]:
        """The seconds that are left of each stage."""
        running = {name: max(0.0, _rest(pair)) for name, pair in self.running.items()}
        return {**self.ahead, **running, **{name: own.eta for name, own in self.measured.items()}}

    def pass_by(self, seconds: float) -> None:
        """Take off the time that passed while none of the stages to come began."""
        for name, expected in tuple(self.ahead.items()):
            self.ahead[name] = expected - min(seconds, expected)
            seconds -= min(seconds, expected)
            if not self.ahead[name]:
                del self.ahead[name]

    def whole(self) -> Estimate | None:
        """All that is left, one after the other except for what runs side by side."""
        own = max(self.measured.values(), key=lambda one: one.eta, default=None)
        pairs = [(expected, 0.0) for expected in self.ahead.values()]
        if self.running:
            longest = max(self.running.values(), key=_rest)
            if own is None or _rest(longest) > own.eta:
                own = None
                pairs.append(longest)
        found = planned(pairs, self.actual, self.expected, None if own is None else own.eta)
        if found is None or own is None:
            return found and replace(found, source=self._source(own), runs=self.runs)
        part = (found.eta - own.eta) / found.eta if found.eta else 0.0
        low, high = own.low + part * found.low, own.high + part * found.high
        runs = max(self.runs, own.runs)
        return Estimate(found.eta, min(low, found.eta), max(high, found.eta), self._source(own), runs)

    def _source(self, own: Estimate | None) -> str:
        if self.runs:
            return "history"
        return own.source if own is not None and not self.ahead else "plan"


def _rest(pair: tuple[float, float]) -> float:
    return pair[0] - pair[1]


def left_by_plan(
    plan: Plan, operation: Any, now: float, survey: Survey, ask: outlines.Ask
) -> tuple[bool, Estimate | None]:
    """Whether a time is known for each planned stage that is not over, and the time left by them.

    The time of a stage is that of the plan, else that of earlier runs. If stages name what they need, those that need
    nothing of each other are expected to run side by side, until one that may start does not.
    """
    inside = {inner.name: inner for inner in outlines.running_in(operation)}
    weighed = {**inside, **(operation._weighed or {})}  # a planned stage may run as a child operation
    skipped = passed_over(plan, begun(operation))
    over = operation._nested.planned if operation._nested is not None else {}
    left = _Left()
    for stage in plan.stages:
        run = weighed.get(stage.name)
        if run is not None and run._status.final:
            if stage.expected is not None and run._ended is not None and run._started is not None:
                left.actual, left.expected = left.actual + run._ended - run._started, left.expected + stage.expected
            continue
        if run is None and (stage.name in over or stage.name in skipped):
            continue
        if run is not None and run._pace is not None:
            known = survey.of(run)
            own = ask(run, 0)
            if own is None and known.total and known.reached is not None and known.reached >= known.total:
                own = NOTHING_LEFT
            if own is not None:
                left.measured[stage.name] = own
                continue
            if run._pace.rate_at(now, _reached(run, known), moved_at(run)) is None and run._pace.began:
                return True, None
        expected = stage.expected if stage.expected is not None else _usual(operation, stage.name, left)
        if expected is None:
            return False, None
        if run is None:
            left.ahead[stage.name] = expected
        else:
            left.running[stage.name] = expected, outlines.worked(run, now)
    if plan.is_parallel and not _in_turn(plan, weighed, left, now):
        left.keep(longest_path(plan, left.rest()))
    applies, planned_left = bool(left), left.whole()
    others = [ask(inner, 1) for name, inner in inside.items() if plan.index(name) is None]
    unplanned = max((found for found in others if found is not None), key=lambda found: found.eta, default=None)
    if unplanned is not None:
        left.measured.setdefault("", unplanned)
        return applies, left.whole()
    if planned_left is None or left.running or left.measured:
        return applies, planned_left
    left.pass_by(max(0.0, _stands(operation, weighed, now) - BEGINS))
    found = left.whole()
    return applies, found and replace(found, high=max(found.high, planned_left.high))


def _stands(operation: Any, weighed: Any, now: float) -> float:
    """Seconds since the last planned stage ended, without waits."""
    ended = [run._ended for run in weighed.values() if run._ended is not None]
    return float(now - max(operation._started or now, operation._stood_until, *ended) - operation._slept)


def _in_turn(plan: Plan, weighed: Any, left: _Left, now: float) -> bool:
    """Whether a stage that needs nothing more has not started, although others run."""
    going = {*left.running, *left.measured}
    if not any(now - (weighed[name]._started or now) > BESIDE for name in going):
        return False
    unfinished = going | left.ahead.keys()
    return any(stage.name in left.ahead and not unfinished & set(stage.depends_on) for stage in plan.stages)


def _reached(run: HandleState, known: Measure) -> float:
    counts = known.reached is not None and (known.total or run._ratio is None)
    return float((known.reached if counts else known.raw) or 0)


def moved_at(node: HandleState) -> float:
    """When it last moved, as idle time has it."""
    return max(node._moved_at, node._counted_at)


def _usual(operation: OperationState, stage: str, left: _Left) -> float | None:
    """How long earlier runs took for a stage, in seconds."""
    before = learning.learning.learned(operation, stage)
    if before is None:
        return None
    left.runs = max(left.runs, before.runs)
    return before.durations.quantile(0.5) or None


NOTHING_LEFT: Final = Estimate(0.0, 0.0, 0.0, "rate")
"""That of work whose units are all done."""
