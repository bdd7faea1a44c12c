"""Rate and ETA: an honest interval as soon as there is anything to estimate from."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Health, Snapshot, StagePlan, semconv
from otel_progress.live import hooks
from otel_progress.model.estimate import Estimate, Pace, planned
from otel_progress.testing import Capture

STEPS = st.lists(st.tuples(st.floats(0.001, 1e4), st.floats(-1e6, 1e6)), min_size=1, max_size=40)


def test_nothing_before_there_is_anything(progress_capture: Capture) -> None:
    """There is no rate and no ETA before the first unit, nor an ETA without a total."""
    with progress.operation("work", total=10) as op:
        progress_capture.advance(5)
        assert (op.snapshot().progress.rate, op.snapshot().progress.eta) == (None, None)
    with progress.operation("other work") as op:
        progress_capture.advance(2)
        op.advance(3)
        progress_capture.advance(5)
        assert op.snapshot().progress.rate is not None
        assert op.snapshot().progress.eta is None


def test_rate_and_eta_of_steady_work(progress_capture: Capture) -> None:
    """Steady work has a rate, and an ETA that is the remaining work divided by the rate, and falls."""
    with progress.operation("work", total=100) as op, progress.stage("step", total=50) as stage:
        etas = []
        for second in range(1, 41):
            op.advance(1)
            stage.advance(0.5)
            progress_capture.advance(1)
            found = op.snapshot().progress
            assert found.rate == pytest.approx(1, rel=0.35 if second < 5 else 0.15)
            assert found.eta is not None
            etas.append(found.eta.eta)
        assert etas[-1] == pytest.approx(60, rel=0.1)
        assert [etas[n] for n in (9, 19, 29, 39)] == pytest.approx([90, 80, 70, 60], rel=0.1)
        own = op.snapshot().stages[0].progress
        assert own.rate == pytest.approx(0.5, rel=0.1)
        assert own.eta is not None
        assert own.eta.eta == pytest.approx(60, rel=0.1)


def test_nothing_after_the_end(progress_capture: Capture) -> None:
    """An ended operation has no ETA."""
    with progress.operation("work", total=10) as op:
        op.advance(5)
        progress_capture.advance(5)
    assert op.snapshot().progress.eta is None


def test_eta_of_a_ratio(progress_capture: Capture) -> None:
    """A ratio alone gives an ETA but no rate, as it has no unit."""
    with progress.operation("work") as op:
        for second in range(1, 21):
            op.update(ratio=second / 100)
            progress_capture.advance(1)
        found = op.snapshot().progress
        assert found.rate is None
        assert found.eta is not None
        assert found.eta.eta == pytest.approx(80, rel=0.15)


def test_eta_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a listener or SDK, snapshots have idle time, rate and ETA from earlier snapshots."""
    from otel_progress import clock
    from otel_progress.testing import FakeClock

    monkeypatch.setattr(hooks, "wanted", False)
    fake = FakeClock()
    before = clock.install(fake)
    try:
        with progress.operation("work", total=100) as op:
            found: Snapshot = op.snapshot()
            for _ in range(10):
                op.advance(2)
                fake.sleep(1)
                found = op.snapshot()
            assert found.idle == 0
            assert found.progress.rate == pytest.approx(2, rel=0.1)
            assert found.progress.eta is not None
            assert found.progress.eta.eta == pytest.approx(40, rel=0.15)
            fake.sleep(7)
            assert op.snapshot().idle == 7
    finally:
        clock.install(before)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.floats(0, 1e12), st.floats(0, 1e6), st.sampled_from([0.0, 1.0]))
def test_interval_is_finite_and_in_order(
    steps: list[tuple[float, float]], remaining: float, later: float, grain: float
) -> None:
    """Whatever was observed, the interval is finite, not negative, and contains the expected value."""
    pace, now, done = Pace(0.0), 0.0, 0.0
    for span, step in steps:
        now, done = now + span, done + step
        pace.observe(now, done)
    found = pace.estimate(remaining, now + later, grain)
    assert found is None or (0 <= found.low <= found.eta <= found.high and math.isfinite(found.high))
    assert pace.rate is None or (pace.rate > 0 and math.isfinite(pace.rate))


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-20, 1e20, 1e200, 1e300])
def test_interval_of_extreme_counts(scale: float) -> None:
    """Tiny and huge counts make an estimate, or none; never an error."""
    pace = Pace(0.0)
    for second in range(1, 5):
        pace.observe(second, second * scale)
    for remaining in (0, 1, 1e300):
        found = pace.estimate(remaining, 4.0)
        assert found is None or math.isfinite(found.high)


def test_interval_wants_a_finite_rest() -> None:
    """Infinite remaining work has no ETA."""
    pace = Pace(0.0)
    pace.observe(1, 1)
    assert pace.estimate(math.inf, 1) is None
    assert pace.estimate(math.nan, 1) is None


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.1, 10), st.integers(3, 50), st.integers(10, 1000))
def test_eta_falls_with_work(rate: float, span: float, seen: int, left: int) -> None:
    """At a steady pace each further unit of work makes the ETA smaller."""
    pace = Pace(0.0)
    total = rate * span * (seen + left)
    before = math.inf
    for step in range(1, seen + 1):
        pace.observe(step * span, step * rate * span)
        found = pace.estimate(total - step * rate * span, step * span)
        if found is None:
            assert step == 1, "what is there at the first look may have been done before"
            continue
        assert found.eta < before
        before = found.eta
    assert seen == 1 or before == pytest.approx(left * span, rel=0.01)


def test_eta_runs_down_between_two_looks() -> None:
    """Between two samples the ETA falls with time, never to 0; it vanishes when the pause exceeds what the pace explains."""
    pace = Pace(0.0)
    for second in (2, 4, 6, 8, 10):
        pace.observe(second, second)
    found = [pace.estimate(5, 10 + later) for later in (0, 1, 3, 100)]
    assert [each and round(each.eta, 3) for each in found] == [5, 4, 3.2, None]


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_count_that_falls_starts_again(steps: list[tuple[float, float]]) -> None:
    """After the count fell, only later units make the rate."""
    pace, now, done = Pace(0.0), 0.0, 0.0
    for span, step in steps:
        now, done = now + span, done + step
        pace.observe(now, done)
    pace.observe(now + 1, done - 1e7)
    pace.observe(now + 2, done - 1e7 + 3)
    assert pace.rate == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("looks", [1, 3])
@pytest.mark.parametrize("wrong", [0, 5, 499])
def test_a_single_wrong_low_count_spoils_nothing(wrong: int, looks: int) -> None:
    """A count that is back where it was has not fallen: rate and estimate are as before."""
    pace = Pace(0.0)
    for second in range(1, 501):
        pace.observe(second, second)
    for look in range(looks):
        assert pace.estimate(1000 - wrong, 500.5 + look / 10, done=wrong) is not None
        pace.observe(500.5 + look / 10, wrong)
    for second in range(501, 510):
        pace.observe(second, second)
        assert pace.rate == pytest.approx(1, rel=0.05)
        found = pace.estimate(1000 - second, second, done=second)
        assert found is not None
        assert found.eta == pytest.approx(1000 - second, rel=0.05)


def test_a_ratio_that_never_gets_there_has_no_estimate() -> None:
    """A ratio that approaches 1 ever more slowly promises no end; one at a constant pace does, to its end."""
    slowing, steady = Pace(0.0), Pace(0.0)
    for second in range(1, 200):
        ratio = 1 - math.exp(-second / 40)
        slowing.observe(second, ratio)
        steady.observe(second, second / 200)
        if ratio > 0.9:
            assert slowing.estimate(1 - ratio, second, 0.0, ratio) is None
        if second > 10:
            found = steady.estimate(1 - second / 200, second, 0.0, second / 200)
            assert found is not None
            assert found.eta == pytest.approx(200 - second, rel=0.1)


@pytest.mark.parametrize("fallen", [5, 25])
def test_a_count_that_fell_in_part_keeps_its_pace(fallen: int) -> None:
    """After a fall to a checkpoint the rest is done at the pace so far, also between two observations."""
    pace = Pace(0.0)
    for second in range(1, 31):
        pace.observe(second, second)
    left = 100 - fallen
    found = pace.estimate(left, 31, done=fallen)
    assert found is not None
    assert found.eta == pytest.approx(left, rel=0.05)
    for second in range(1, 20):
        pace.observe(31 + second, fallen + second)
        assert pace.rate == pytest.approx(1, rel=0.02)
        found = pace.estimate(left - second, 31 + second, done=fallen + second)
        assert found is not None
        assert found.eta == pytest.approx(left - second, rel=0.05)


def test_time_that_stands_still_is_no_sample() -> None:
    """Two samples at the same time, or back in time, count as one."""
    pace = Pace(10.0)
    pace.observe(10.0, 5)
    pace.observe(9.0, 50)
    assert pace.rate is None
    pace.observe(11.0, 7)
    assert pace.rate == 7


WORK: dict[str, tuple[Callable[[random.Random], float], float]] = {
    # how long a unit takes, and how wide the interval may be on average
    "random": (lambda rng: rng.expovariate(1.0), 1.45),
    "bursts": (lambda rng: rng.choice([0.1, 0.1, 0.1, 3.7]), 1.5),
    "fast": (lambda rng: rng.expovariate(20.0), 1.45),
    "slow": (lambda rng: rng.expovariate(0.1), 1.45),
    "regular": (lambda rng: rng.gammavariate(4, 0.25), 1.2),
    "steady": (lambda rng: rng.uniform(0.8, 1.2), 0.9),
}


@pytest.mark.parametrize("kind", WORK)
def test_interval_holds_the_end_of_stationary_work_in_most_cases(kind: str) -> None:
    """For stationary work the interval contains the real end in at least 70% of all cases, and is not too wide.

    It is wider than stationary work needs: nobody can know that the pace will stay as it is.
    """
    lasts, widest = WORK[kind]
    rng = random.Random(7)
    held, widths = [], []
    for _ in range(300):
        ends = list(itertools.accumulate(lasts(rng) for _ in range(300)))
        pace, at, look = Pace(0.0), 0.0, rng.uniform(0.1, 0.9) * ends[-1]
        while at < look:
            at += max(1.0, min(10.0, at / 10))
            pace.observe(at, bisect.bisect(ends, at))
        found = pace.estimate(300 - bisect.bisect(ends, at), at)
        if found is not None and at < ends[-1]:
            held.append(found.low <= ends[-1] - at <= found.high)
            widths.append((found.high - found.low) / found.eta)
    assert len(held) > 250
    assert sum(held) / len(held) >= 0.70
    assert sum(widths) / len(widths) < widest


# -- by the plan

PAIRS = st.lists(st.tuples(st.floats(0.001, 1e6), st.floats(0, 1e6)), max_size=10)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.floats(0, 1e6), st.floats(0, 1e6), st.none() | st.floats(0, 1e6))
def test_plan_interval_is_finite_and_in_order(
    remaining: list[tuple[float, float]], actual: float, expected: float, measured: float | None
) -> None:
    """Whatever a plan says, the interval is finite and contains the expected value; without remaining stages there is none."""
    found = planned(remaining, actual, expected, measured)
    assert found is None or remaining or measured is not None
    on_time = planned([(want, min(ran, want / 100)) for want, ran in remaining], 0, 0, measured)
    assert (on_time is None) == (not remaining and measured is None)
    assert found is None or (0 <= found.low <= found.eta <= found.high and math.isfinite(found.high))


def test_plan_gives_an_eta_from_the_start(progress_capture: Capture) -> None:
    """If each stage has an expected time, there is an ETA before anything was done, and it falls with time."""
    plan = [StagePlan("a", expected=30), StagePlan("b", expected=60)]
    with progress.operation("work", plan=plan) as op:
        found = op.snapshot().progress.eta
        assert found is not None
        assert (found.eta, found.source) == (90, "plan")
        with progress.stage("a"):
            progress_capture.advance(10)
            assert op.snapshot().progress.eta is not None
            assert op.snapshot().progress.eta.eta == pytest.approx(80)
            stage_eta = next(s for s in op.snapshot().stages if s.name == "a").progress.eta
            progress_capture.advance(80)
        slower = op.snapshot().progress.eta
        assert slower is not None
        assert slower.eta > 60, "the stage took three times as long, so the rest will take longer, too"
        assert slower.high / slower.low < found.high / found.low, "some of the plan is known by now"
        assert stage_eta is None or stage_eta.eta <= 30


def test_plan_takes_a_stage_that_counts_by_its_own_pace(progress_capture: Capture) -> None:
    """A stage that counts is judged by its own pace, those to come by the plan; done to the last unit it leaves nothing."""
    plan = [StagePlan("a", expected=1000), StagePlan("b", expected=60)]
    with progress.operation("work", plan=plan) as op:
        with progress.stage("a", total=20) as stage:
            for _ in range(10):
                stage.advance()
                progress_capture.advance(1)
            found = op.snapshot().progress.eta
            assert found is not None
            assert found.eta == pytest.approx(70, rel=0.1)
            stage.advance(10)
            progress_capture.advance(1)
            found = op.snapshot().progress.eta
            assert found is not None
            assert found.eta == pytest.approx(60)
    only = [StagePlan("a", expected=1000)]
    with progress.operation("work", plan=only) as op, progress.stage("a", total=1) as stage:
        stage.advance()
        progress_capture.advance(1)
        assert op.snapshot().progress.eta is None, "nothing is left, yet it runs"


def test_plan_without_times_falls_back_to_the_pace(progress_capture: Capture) -> None:
    """If a later stage has no expected time, the pace of the ratio makes the ETA."""
    with progress.operation("work", plan=["a", "b"]) as op, progress.stage("a", total=10) as stage:
        for _ in range(5):
            stage.advance()
            progress_capture.advance(2)
        found = op.snapshot().progress.eta
        assert found is not None
        assert found.source == "rate"
        assert found.eta == pytest.approx(30, rel=0.3)


def test_expected_time_of_a_stage_alone_is_an_estimate(progress_capture: Capture) -> None:
    """A stage with an expected time has an ETA before it counts anything."""
    with progress.operation("work") as op, progress.stage("a", expected=40):
        progress_capture.advance(10)
        found = op.snapshot().stages[0].progress.eta
        assert found is not None
        assert (found.eta, found.source) == (30, "plan")


def test_a_declared_wait_says_nothing_of_the_pace(progress_capture: Capture) -> None:
    """After a wait the rate and the remaining time are the same as before it."""
    with progress.operation("work", total=100) as op:
        for _ in range(20):
            op.advance()
            progress_capture.advance(1)
        with op.waiting("approval"):
            progress_capture.advance(600)
        op.advance()
        progress_capture.advance(1)
        seen = op.snapshot().progress
        assert seen.rate == pytest.approx(1, rel=0.1)
        assert seen.eta is not None
        assert seen.eta.eta == pytest.approx(79, rel=0.1)


def test_no_estimate_once_a_stage_exceeds_its_plan(progress_capture: Capture) -> None:
    """The ETA ends when only an overrun stage is left, or when a stage exceeds the upper bound of its time; it never
    shows `0:01` for what should be over.
    """
    with progress.operation(
        "work", plan=[StagePlan("a", weight=1, expected=10), StagePlan("b", weight=1, expected=20)]
    ):
        with progress.stage("a"):
            progress_capture.advance(12)
            seen = progress.current().snapshot()
            assert seen.progress.eta is not None, "it is late, within its interval, and another stage is to come"
            assert seen.stages[0].progress.eta is None
            progress_capture.advance(13)
            assert progress.current().snapshot().progress.eta is None
        assert progress.current().snapshot().progress.eta is not None, "the next stage has a time of its own"
        with progress.stage("b"):
            for _ in range(75):
                progress_capture.advance(1)
                seen = progress.current().snapshot()
                for part in (seen, seen.stages[1]):
                    assert part.progress.eta is None or part.elapsed < 25 + 28
            assert seen.progress.eta is None


def test_estimate_runs_down_and_ends() -> None:
    """Without news the interval comes nearer; once the expected time is over there is no estimate."""
    given = Estimate(10.0, 5.0, 20.0, "rate")
    assert given.after(0) is given
    assert given.after(6) == Estimate(4.0, 0.0, 14.0, "rate")
    assert given.after(10) is None


# -- while nothing moves


def test_last_unit_that_takes_too_long_has_no_estimate_until_it_is_done(progress_capture: Capture) -> None:
    """The ETA of 11 of 12 goes on while other units were as slow, then ends, and returns with the second unit after it."""
    with progress.operation("work", total=12, stall_after=60) as op:
        for pause in (11, 0.5, 0.5, 0.5, 9, 0.5, 0.5, 1, 12, 2, 1):
            progress_capture.advance(pause)
            op.advance()
        known = []
        for _ in range(160):
            progress_capture.advance(0.25)
            seen = op.snapshot().progress
            known.append(seen.eta is not None)
            assert seen.eta is None or seen.eta.eta > 0
            assert seen.eta is not None or seen.rate is None
        assert known[0]
        assert not any(known[known.index(False) :])
        assert 12 < known.index(False) * 0.25 < 3 * 12 + 1
        op.update(total=20)
        for _ in range(2):
            op.advance()
            progress_capture.advance(1)
        assert op.snapshot().progress.eta is not None, "it moves again"


def test_fast_units_and_then_a_hang_have_no_estimate(progress_capture: Capture) -> None:
    """20 of 40 within a second explain no pause of ten, though they were seen as two steps only."""
    with progress.operation("work") as op, progress.stage("pull", unit="feed", total=40) as stage:
        for _ in range(20):
            progress_capture.advance(0.05)
            stage.advance()
        progress_capture.advance(0.2)
        assert stage.snapshot().progress.rate is not None
        progress_capture.advance(10)
        seen = op.snapshot().stages[0].progress
        assert (seen.completed, seen.rate, seen.eta) == (20, None, None)
        last = progress_capture.of(semconv.UPDATED)[-1].snapshot
        assert (last.stages[0].progress.rate, last.stages[0].progress.eta) == (None, None), "readers are told"


GAPS: dict[str, Callable[[random.Random], float]] = {
    "steady": lambda rng: rng.uniform(0.8, 1.2),
    "random": lambda rng: rng.expovariate(1.0),
    "bursts": lambda rng: rng.choice([0.1, 0.1, 0.1, 3.7]),
    "slow": lambda rng: rng.uniform(20, 40),
}


@pytest.mark.parametrize("kind", GAPS)
def test_what_its_own_pace_explains_is_estimated(kind: str) -> None:
    """Healthy work has an estimate almost always; a hang has none after a few of its usual pauses."""
    rng = random.Random(5)
    pace, now, done, ends = Pace(0.0), 0.0, 0, list(itertools.accumulate(GAPS[kind](rng) for _ in range(400)))
    known = looks = 0
    while (done := bisect.bisect(ends, now)) < 300:
        now += 1.0
        if now >= 10:
            pace.observe(now, done)
        if done > 20:
            looks += 1
            known += pace.estimate(400 - done, now, 1.0, done) is not None
    assert known / looks > 0.95
    pace.observe(now + 0.5, done)
    longest = max(after - before for before, after in itertools.pairwise(ends[:300]))
    hung = now + 5 * longest + 10
    assert pace.estimate(100, hung, 1.0, done) is None
    assert pace.idle(hung, done)
    pace.observe(hung, done)
    assert pace.rate is None
    for units in (1, 2):
        pace.observe(hung + units, done + units)
        assert (pace.estimate(100 - units, hung + units, 1.0, done + units) is None) is (units == 1), "a stall is over"
    assert pace.rate is not None


@settings(max_examples=100, deadline=None)
@given(STEPS, st.floats(1e-3, 1e9), st.floats(0, 1e6), st.sampled_from([0.0, 1.0]))
def test_with_work_left_an_estimate_is_above_zero(
    steps: list[tuple[float, float]], remaining: float, later: float, grain: float
) -> None:
    """At any time an estimate is above 0, or there is none."""
    pace, now, done = Pace(0.0), 0.0, 0.0
    for span, step in steps:
        now, done = now + span, done + abs(step)
        pace.observe(now, done)
    found = pace.estimate(remaining, now + later, grain, done)
    assert found is None or found.eta > 0


def test_no_estimate_while_it_hangs(progress_capture: Capture) -> None:
    """Past what its pace explains there is neither ETA nor rate; after it moved both are back."""
    with progress.operation("work", total=100, stall_after=600) as op, progress.stage("step", total=100) as stage:
        for _ in range(90):
            op.advance()
            stage.advance()
            progress_capture.advance(1)
        for second in range(60):
            progress_capture.advance(1)
            for part in (op.snapshot(), op.snapshot().stages[0]):
                eta = part.progress.eta
                assert eta is None or eta.eta >= 1
                assert second < 35 or (eta is None and part.progress.rate is None)
        for _ in range(2):
            op.advance()
            stage.advance()
            progress_capture.advance(1)
        assert op.snapshot().progress.eta is not None
        assert op.snapshot().stages[0].progress.eta is not None
        progress_capture.advance(11)
        op.advance()
        progress_capture.advance(11)
        assert op.snapshot().progress.rate is not None


def test_no_estimate_of_a_ratio_that_stands_still(progress_capture: Capture) -> None:
    """Work that is known by its ratio alone has none either."""
    with progress.operation("work") as op:
        for second in range(1, 51):
            op.update(ratio=second / 60)
            progress_capture.advance(1)
        assert op.snapshot().progress.eta is not None
        progress_capture.advance(40)
        assert op.snapshot().progress.eta is None


def test_stuck_has_no_estimate(progress_capture: Capture) -> None:
    """Stuck work has no ETA in the same snapshot, nor has its stage; a moving neighbour has."""
    with progress.operation("work", total=100) as op:
        hangs, moves = op.stage("hangs", total=20, stall_after=4).start(), op.stage("moves", total=100).start()
        for second in range(40):
            op.advance()
            moves.advance()
            if second < 19:
                hangs.advance()
            progress_capture.advance(1)
        seen = op.snapshot()
        assert seen.health is Health.SILENT
        assert (seen.progress.eta, seen.stages[0].progress.eta) == (None, None)
        assert seen.stages[1].progress.eta is not None
        known = len(progress_capture.series)
        progress_capture.advance(30)
        points = [point.value for point in progress_capture.series[known:] if point.name == semconv.RUN_ETA.name]
        assert all(math.isnan(value) for value in points)  # the series has ended


def test_what_is_done_and_still_runs_has_no_estimate(progress_capture: Capture) -> None:
    """At its total nothing is left to estimate: it does not show 0 s for minutes."""
    with progress.operation("work", total=10) as op:
        for _ in range(10):
            op.advance()
            progress_capture.advance(1)
        assert op.snapshot().progress.eta is None
        assert op.snapshot().progress.rate is None


def test_a_wait_of_one_branch_holds_up_the_pace_of_that_one_alone(progress_capture: Capture) -> None:
    """Rate and ETA of an operation follow its other branches; those of the waiting branch stand still."""
    with progress.operation("work", total=1000) as op:
        one, two = op.stage("one", total=500).start(), op.stage("two", total=500).start()
        for _ in range(20):
            for stage, units in ((op, 12), (one, 10), (two, 2)):
                stage.advance(units)
            progress_capture.advance(1)
        waiting = one.waiting("a limit")
        waiting.__enter__()
        before = op.snapshot().stages[0].progress.rate
        for _ in range(60):
            op.advance(2)
            two.advance(2)
            progress_capture.advance(1)
        seen = op.snapshot()
        assert seen.progress.rate is not None
        assert seen.progress.rate < 4.5, "it is 2 a second by now"
        assert seen.progress.eta is not None
        assert seen.stages[0].progress.rate == before
        waiting.__exit__(None, None, None)
        for _ in range(20):
            for stage, units in ((op, 12), (one, 10), (two, 2)):
                stage.advance(units)
            progress_capture.advance(1)
        seen = op.snapshot()
        assert seen.stages[0].progress.rate == pytest.approx(10, rel=0.1)
        assert seen.progress.rate == pytest.approx(12, rel=0.1)


def test_a_first_unit_that_comes_at_once_is_no_pace(progress_capture: Capture) -> None:
    """If the first unit is done at once and each later one takes 5 s, no estimate is far too low at any moment."""
    with progress.operation("work", total=100) as op:
        for unit in range(20):
            op.advance()
            for _ in range(10):
                progress_capture.advance(0.5)
                found = op.snapshot().progress
                if unit:
                    assert found.eta is not None
                    assert found.eta.eta == pytest.approx(5 * (99 - unit), rel=0.15)
                elif found.eta is not None:
                    assert op.snapshot().elapsed <= 2


@pytest.mark.parametrize(("size", "every"), [(5, 1.0), (100, 2.0), (32, 4.0)])
def test_a_batch_at_the_start_does_not_raise_the_rate(size: int, every: float, progress_capture: Capture) -> None:
    """Batches that are counted as they begin have the rate of those that are counted as they end."""
    rates = {}
    for last in (False, True):
        with progress.operation(f"work {last}", total=1000 * size) as op:
            for _ in range(12):
                progress_capture.advance(every if last else 0.0)
                op.advance(size)
                progress_capture.advance(0.0 if last else every)
            rates[last] = op.snapshot().progress.rate
    assert rates[False] == pytest.approx(size / every, rel=0.08)  # counts are read each 0.75 s
    assert rates[True] == pytest.approx(size / every, rel=0.08)


@given(*(st.lists(st.floats(0, 1e9), min_size=3, max_size=3).map(sorted) for _ in range(2)))
def test_a_whole_ends_no_earlier_than_its_part(whole: list[float], part: list[float]) -> None:
    """Neither the estimate nor a bound of it is below that of the part."""
    one, other = (Estimate(eta, low, high, "rate") for low, eta, high in (whole, part))
    found = one.at_least(other)
    assert [found.low, found.eta, found.high] == [max(pair) for pair in zip(whole, part)]
