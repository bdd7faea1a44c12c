"""Runs that go another way than their plan or earlier runs: the time left never stands still."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import otel_progress as progress
from otel_progress import StagePlan
from otel_progress.testing import Capture

STAGES = {"build": 30.0, "test": 20.0, "roll out": 60.0}
EACH = 10.0
STANDS = 3 * EACH
"""Seconds that an estimate may stand, as a stage may begin a bit later, or take a bit longer, than before."""
TIMED = [StagePlan(name, expected=seconds) for name, seconds in STAGES.items()]


def as_usual(capture: Capture, plan: list[StagePlan] | list[str] | None = None) -> None:
    """Three runs of the same stages."""
    for _ in range(3):
        with progress.operation("deploy", plan=plan):
            for name, seconds in STAGES.items():
                with progress.stage(name):
                    capture.advance(seconds)


def left(capture: Capture, op: progress.Operation, seconds: float = 400.0) -> Iterator[float | None]:
    """The time left every ten seconds."""
    for _ in range(int(seconds / EACH)):
        capture.advance(EACH)
        found = op.snapshot().progress.eta
        assert found is None or found.low <= found.eta <= found.high
        yield None if found is None else found.eta


def stood(seen: list[float | None]) -> float:
    """The longest time in seconds for which an estimate was about the same."""
    longest = now = 0.0
    for before, after in itertools.pairwise(seen):
        same = before is not None and after is not None and abs(before - after) < EACH / 2
        now = now + EACH if same else 0.0
        longest = max(longest, now)
    return longest


PLANS = pytest.mark.parametrize("plan", [None, list(STAGES), TIMED], ids=["no plan", "names", "times"])


@PLANS
@pytest.mark.parametrize("first", [True, False])
def test_an_unknown_stage_takes_its_time_from_those_to_come(
    first: bool, plan: list[StagePlan] | list[str] | None, progress_capture: Capture
) -> None:
    """A stage with a new name, whose end nobody knows: the estimate runs down, and then is none."""
    as_usual(progress_capture, plan)
    with progress.operation("deploy", plan=plan) as op:
        if not first:
            with op.stage("build"):
                progress_capture.advance(STAGES["build"])
        with op.stage("checks", weight=1):
            seen = list(left(progress_capture, op))
    assert seen[0] == pytest.approx((110 if first else 80) - EACH, rel=0.15)
    assert stood(seen) < STANDS
    assert seen[-1] is None


@PLANS
@pytest.mark.parametrize("first", [True, False])
def test_stages_that_never_begin_are_not_waited_for(
    first: bool, plan: list[StagePlan] | list[str] | None, progress_capture: Capture
) -> None:
    """What is left runs down while nothing of it begins."""
    as_usual(progress_capture, plan)
    with progress.operation("deploy", plan=plan) as op:
        if not first:
            with op.stage("build"):
                progress_capture.advance(STAGES["build"])
        seen = list(left(progress_capture, op))
    assert seen[0] == pytest.approx((110 if first else 80) - EACH, rel=0.15)
    assert stood(seen) < STANDS
    assert seen[-1] is None


def test_an_estimate_returns_with_a_known_stage(progress_capture: Capture) -> None:
    """After a stage with a new name, the next one that earlier runs had tells the rest."""
    as_usual(progress_capture)
    with progress.operation("deploy") as op:
        with op.stage("new"):
            progress_capture.advance(300)
        with op.stage("roll out"):
            progress_capture.advance(EACH)
            found = op.snapshot().progress.eta
            assert found is not None
            assert found.eta == pytest.approx(50, rel=0.2)


def test_a_stage_outside_the_plan_that_counts_comes_before_the_others(progress_capture: Capture) -> None:
    """Its own pace says how long it takes, and the estimate runs down with it."""
    with progress.operation("deploy", plan=TIMED) as op, op.stage("checks", total=100, weight=1) as checks:
        seen = []
        for _ in range(90):
            progress_capture.advance(2)
            checks.advance()
            found = op.snapshot().progress.eta
            seen.append(None if found is None else found.eta)
    assert seen[9] == pytest.approx(180 + 110, rel=0.15)
    assert seen[79] == pytest.approx(40 + 110, rel=0.15)


def test_a_planned_stage_that_runs_as_a_child_passes_with_it(progress_capture: Capture) -> None:
    """While a child operation of a planned name runs, its time passes."""
    with progress.operation("deploy", plan=TIMED) as op:
        with op.stage("build"):
            progress_capture.advance(30)
        with progress.operation("test"):
            progress_capture.advance(15)
            found = op.snapshot().progress.eta
            assert found is not None
            assert found.eta == pytest.approx(65, rel=0.1)
