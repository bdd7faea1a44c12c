"""Whoever reads the events of a process knows the same estimate as the process itself, also while nothing is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

import otel_progress as progress
from otel_progress import StagePlan, clock, semconv
from otel_progress.live.handles import Operation
from otel_progress.model.estimate import Estimate, Pace
from otel_progress.model.snapshot import Progress
from otel_progress.model.wire import from_attributes
from otel_progress.testing import Capture

LAG = 1.25
"""Seconds by which a reader may be late: an interval, and a round of the ticker."""


def read(captured: Capture, operation: Operation) -> Progress:
    """The progress of an operation now, as the monitor has it."""
    log = next(one for one in reversed(captured.logs) if one.attributes.get(semconv.OPERATION_ID) == operation.id)
    seen = from_attributes(log.attributes, log.time / 1e9)
    assert seen is not None
    return seen.at(clock.unix()).progress


Step = tuple[float, Callable[[Operation], object]]
"""Seconds, and what follows them."""


def uneven() -> Iterator[Step]:
    """Quick units with three long ones between."""
    return iter([(8 if one in (15, 28, 39) else 0.25, Operation.advance) for one in range(40)])


def steady() -> Iterator[Step]:
    """Slow units of the same length."""
    return iter([(20, Operation.advance)] * 6)


def getting_slower() -> Iterator[Step]:
    """Each unit takes longer than the one before."""
    return iter([(1.3**one, Operation.advance) for one in range(12)])


def by_ratio() -> Iterator[Step]:
    """A ratio that stands still for a while in the middle."""
    parts = [(1, one / 20) for one in range(1, 10)] + [(20, 0.5)] + [(1, one / 20) for one in range(11, 20)]
    return iter([(pause, lambda op, part=part: op.update(ratio=part)) for pause, part in parts])


def stops() -> Iterator[Step]:
    """Work that stands still for good after a while."""
    return iter([*[(1, Operation.advance)] * 10, (30, Operation.heartbeat)])


def last_one_takes_long() -> Iterator[Step]:
    """The last unit takes much longer than its time."""
    return iter([*[(1, Operation.advance)] * 19, (20, Operation.advance)])


@pytest.mark.parametrize("run", [uneven, steady, getting_slower, by_ratio, stops, last_one_takes_long])
def test_a_reader_withdraws_an_estimate_when_the_process_does(
    progress_capture: Capture, run: Callable[[], Iterator[Step]]
) -> None:
    """At each moment both have an estimate or neither has, a second later at most."""
    differs = 0.0
    total = {by_ratio: None, steady: 6, getting_slower: 12, last_one_takes_long: 20}.get(run, 40)
    with progress.operation("job", total=total) as op:
        for pause, follows in run():
            left = pause
            while left > 0:
                progress_capture.advance(min(0.25, left))
                left -= 0.25
                own, seen = op.snapshot().progress.eta, read(progress_capture, op).eta
                differs = differs + 0.25 if (own is None) is not (seen is None) else 0.0
                assert differs <= LAG, (pause, left, own, seen)
            follows(op)


def test_an_estimate_does_not_run_down_while_nothing_is_counted(progress_capture: Capture) -> None:
    """With 25 of 40 units left, no reader sees less time left than the process, but for a second's worth."""
    with progress.operation("job", total=40) as op:
        for pause, follows in uneven():
            left = pause
            while left > 0:
                progress_capture.advance(min(0.25, left))
                left -= 0.25
                own, seen = op.snapshot().progress, read(progress_capture, op)
                if seen.eta is not None and own.eta is not None and own.completed == seen.completed:
                    assert seen.eta.eta >= 0.9 * own.eta.eta - LAG, (own, seen)
            follows(op)


@pytest.mark.parametrize("source", ["rate", "history"])
@pytest.mark.parametrize(
    ("eta", "rest", "later", "said"),
    [(60, 4, 10, 50), (60, 4, 40, 46.5), (60, 1, 40, 20), (6, 25, 3, 5), (6, 25, 5.9, 5), (6, 25, 7, None)],
)
def test_it_runs_down_by_the_unit_in_hand(source: str, eta: float, rest: int, later: float, said: float | None) -> None:
    """Nobody heard of another unit, so only the one in hand, or a second's worth, can have been done."""
    found = Progress(40 - rest, 40, eta=Estimate(eta, eta / 2, eta * 2, source)).after(later).eta
    assert (None if found is None else found.eta) == said
    assert found is None or rest == 1 or found.low >= 0.4 * found.eta
    assert found is None or 0 <= found.low <= found.eta <= found.high


def test_what_needs_no_count_runs_down_with_time() -> None:
    """A plan, children elsewhere and the duration of earlier runs say when it ends, whatever is counted.

    By any of them it may come at any time once the lower bound has passed: only the process knows more.
    """
    for source, total in (("plan", 40), ("children", 40), ("history", None)):
        reported = Progress(0, total, eta=Estimate(60.0, 30.0, 90.0, source))
        assert reported.after(20).eta == Estimate(40.0, 10.0, 70.0, source)
        for later in (30, 50, 100):
            assert reported.after(later).eta == Estimate(30.0, 0.0, 60.0, source)
    found = Progress(ratio=0.5, eta=Estimate(60.0, 30.0, 90.0, "rate")).after(50).eta
    assert found == Estimate(30.0, 15.0, 60.0, "rate"), "a ratio has no unit: half of it at most"


@pytest.mark.parametrize("plan", [False, True])
def test_a_stage_that_is_late_is_the_same_for_all_who_look(progress_capture: Capture, plan: bool) -> None:
    """Whoever reads the events has the estimate of the process, also while a stage outlasts what was known of it."""
    options = {"plan": [StagePlan(name, expected=10) for name in "abc"]} if plan else {}
    for length in (10, 11, 12, 30):
        with progress.operation("late", **options) as op:  # type: ignore[arg-type]
            for name in "abc":
                with progress.stage(name):
                    for _ in range(length if name == "b" else 10):
                        progress_capture.advance(1)
                        own, seen = op.snapshot().progress.eta, read(progress_capture, op).eta
                        assert (own is None) is (seen is None)
                        assert own is None or seen is None or seen.eta == pytest.approx(own.eta, abs=2)


@pytest.mark.parametrize("each", [2, 4, 7, 25])
def test_the_rate_of_steady_work_is_steady(progress_capture: Capture, each: int) -> None:
    """Whether the last look fell into the beginning or the end of a unit makes no difference to the rate."""
    with progress.operation("job", total=40) as op:
        for done in range(20):
            for _ in range(each):
                progress_capture.advance(1)
                rate = op.snapshot().progress.rate
                if done > 1 and done * each > 10:
                    assert rate == pytest.approx(1 / each, rel=0.1)
            op.advance()


def test_the_rate_falls_while_a_unit_takes_longer() -> None:
    """A unit that exceeds the usual time lowers the rate before it is done."""
    pace = Pace(0.0)
    for second in range(1, 41):
        pace.observe(float(second), float(second // 4))
    assert pace.rate == pytest.approx(0.25, rel=0.05)
    before = pace.rate
    pace.observe(44.0, 10.0)
    assert pace.rate == pytest.approx(before, rel=0.02)
    pace.observe(47.5, 10.0)
    assert pace.rate is not None
    assert pace.rate < 0.95 * before


@pytest.mark.parametrize("kind", ["plan", "slow units"])
def test_an_eta_that_readers_run_down_themselves_is_not_sent_again(progress_capture: Capture, kind: str) -> None:
    """While nothing is counted and the ETA is what readers see anyway, keyframes are all that is sent."""
    plan = [StagePlan("a", expected=1800), StagePlan("b", expected=7200)]
    with progress.operation("job", **{"plan": plan} if kind == "plan" else {"total": 10}, stall_after=1e6) as op:
        with progress.stage("a") if kind == "plan" else nullcontext():
            for _ in range(3):
                progress_capture.advance(100)
                if kind != "plan":
                    op.advance()
            before = len(progress_capture.logs)
            for _ in range(90):
                progress_capture.advance(1)
                own, seen = op.snapshot().progress.eta, read(progress_capture, op).eta
                assert own is not None
                assert seen is not None
                assert seen.eta == pytest.approx(own.eta, abs=2, rel=0.06)
        sent = [one.attributes for one in progress_capture.logs[before:] if semconv.OPERATION_ID in one.attributes]
    assert len([one for one in sent if semconv.KEYFRAME in one]) <= 3
