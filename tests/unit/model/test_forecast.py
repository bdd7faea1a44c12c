"""Forecasters side by side: each kind of work finds the one that foretells it."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_progress.model.estimate import Pace, interval
from otel_progress.model.forecast import KNOTS, Course
from otel_progress.model.past import PARTS, WIDE, Past, Record

STEPS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e9), st.floats(0, 1e4)), min_size=1, max_size=60)


def run(units: list[float], record: Record | None = None, share: float = 0.5) -> tuple[Pace, float, float]:
    """Play units of these times with a look each second; returns the pace, the time and the count at a share."""
    pace, now, at, done = Pace(0.0, 0.0, record), 0.0, 0.0, 0
    ends = []
    for each in units:
        at += each
        ends.append(at)
    while now < share * at:
        now += 1.0
        while done < len(ends) and ends[done] <= now:
            done += 1
        pace.observe(now, float(done), now)
    return pace, now, float(done)


def error(units: list[float], record: Record | None = None, share: float = 0.5) -> float:
    """How far the estimate at a share of the run is off, as a part of the whole run."""
    pace, now, done = run(units, record, share)
    found = pace.estimate(len(units) - done, now, 1.0, done, now)
    assert found is not None
    return abs(found.eta - (sum(units) - now)) / sum(units)


def test_a_course_is_bounded_and_keeps_its_shape() -> None:
    """However many points are added, few are kept, and times between them are right."""
    course = Course()
    for second in range(1, 10_001):
        course.add(float(second), float(second * 3))
    assert len(course.times) <= KNOTS + 1
    assert course.time_at(15_000.0, 10_000.0, 30_000.0) == pytest.approx(5000, rel=0.01)


SHAPES: dict[str, tuple[Callable[[float], float], float]] = {
    # time of a unit by the share done, and how far the estimate may be off when 70% of the time is over
    "constant": (lambda _: 1.0, 0.01),
    "slowing down": (lambda share: 1 + 3 * share, 0.15),
    "speeding up": (lambda share: 4 - 3 * share, 0.15),
    "a slow start": (lambda share: 1 + 10 * math.exp(-share / 0.05), 0.1),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_is_followed(kind: str) -> None:
    """Drift, slow starts and steady work are each followed without any setting."""
    shape, most = SHAPES[kind]
    units = [shape(index / 400) for index in range(400)]
    assert error(units, share=0.7) < most


@pytest.mark.parametrize("seed", [random.randrange(10**6) for _ in range(3)])
def test_history_foretells_what_the_run_alone_cannot(seed: int) -> None:
    """After one run of a shape, the next one is foretold early: better than without, and said to come from history."""
    rng = random.Random(seed)
    shape = [(1 + 20 * math.exp(-index / 20)) * rng.uniform(0.9, 1.1) for index in range(200)]
    record = Record()
    pace, _, _ = run(shape, record, 1.0)
    pace.teach(record, sum(shape), 200.0)
    assert record.runs == 1
    again = [each * rng.uniform(0.9, 1.1) for each in shape]
    assert error(again, record, 0.1) < min(0.6, error(again, None, 0.1) / 3)
    pace, now, done = run(again, record, 0.1)
    found = pace.estimate(200 - done, now, 1.0, done, now)
    assert found is not None
    assert (found.source, found.runs) == ("history", 1)


def test_history_that_no_longer_holds_gives_way() -> None:
    """A run at a third of the usual pace is foretold by its own pace before it is half done."""
    record = Record()
    for _ in range(5):
        pace, _, _ = run([1.0] * 100, record, 1.0)
        pace.teach(record, 100.0, 100.0)
    assert error([3.0] * 100, record, 0.5) < 0.1


def test_the_interval_adapts_to_how_often_it_held() -> None:
    """Intervals that always hold get narrower from run to run, those that never hold get wider, within limits."""
    narrow, wide = Record(), Record()
    for _ in range(50):
        narrow.add(None, 10.0, 10.0, 1.0)
        wide.add(None, 10.0, 10.0, 0.0)
    assert 0.1 < narrow.wide < WIDE < wide.wide < 4


def test_a_record_is_the_same_after_a_file() -> None:
    """What earlier runs taught survives plain numbers; anything else is refused."""
    record = Record()
    pace, _, _ = run([1.0] * 100, record, 1.0)
    pace.teach(record, 100.0, 100.0)
    again = Record.from_list(record.to_list())
    assert again.each == pytest.approx(record.each, abs=1e-5)
    assert again.shares == pytest.approx(record.shares, abs=1e-4)
    for wrong in ([], [1, 2], [math.nan] * (4 + PARTS), [1, 0, -1, 1, *[1] * PARTS], [1, 0, 1, 1, *[0] * PARTS]):
        with pytest.raises((TypeError, ValueError)):
            Record.from_list(wrong)


def test_records_of_earlier_versions_are_read() -> None:
    """They had no noise, or its mean alone."""
    new = Record().to_list()
    for old in (new[: 4 + PARTS], [*new[: 4 + PARTS], 0.5, 0.0]):
        again = Record.from_list(old)
        assert again.shares == pytest.approx(Record().shares)
        assert again.noises == pytest.approx([0.5 if len(old) > 4 + PARTS else Record().noise] * PARTS)


def test_an_end_that_varies_is_known_less_than_a_start_that_does() -> None:
    """The error of what is left comes from the parts that are left."""
    start, end, rng = Record(), Record(), random.Random(1)
    for _ in range(8):
        shares = [1 / PARTS] * (PARTS - 2)
        odd = rng.uniform(0.2, 1.8) / PARTS
        start.add([odd, 2 / PARTS - odd, *shares], 100.0, 100.0)
        end.add([*shares, odd, 2 / PARTS - odd], 100.0, 100.0)
    assert Past(end, 100.0).error(90.0) > 1.5 * Past(start, 100.0).error(90.0)
    assert Past(start, 100.0).error(0.0) == pytest.approx(Past(end, 100.0).error(0.0), rel=0.2)


def test_until_its_own_pace_is_proven_a_run_may_take_as_long_as_earlier_ones() -> None:
    """The rule ends where the pace of this run says as much as earlier runs."""
    record = Record()
    for took in (100.0, 130.0, 90.0):
        record.add([1 / PARTS] * PARTS, took, 100.0)
    past = Past(record, 100.0)
    assert past.unproven(0.0) == 1
    assert 0 < past.unproven(100 * past.proof / 2) < 1
    assert past.unproven(100 * past.proof) == pytest.approx(0)
    assert past.usual(0.0, 100.0) == pytest.approx(104, rel=0.05)


def test_records_of_two_processes_merge() -> None:
    """The record of another process counts by its runs; an empty one changes nothing."""
    one, other = Record(), Record()
    one.add(None, 10.0, 10.0)
    one.merge(Record())
    assert one.runs == 1
    other.add(None, 20.0, 10.0)
    one.merge(other)
    assert (one.runs, one.each) == (2, pytest.approx(math.log(2) / 2))
    empty = Record()
    empty.merge(other)
    assert empty.each == other.each


@settings(max_examples=200, deadline=None)
@given(STEPS, st.floats(1e-3, 1e12), st.booleans(), st.booleans())
def test_any_sequence_gives_an_interval_in_order_or_none(
    steps: list[tuple[float, float, float]], remaining: float, known: bool, resumed: bool
) -> None:
    """Whatever is observed, with waits between, the interval is finite and in order, and nothing raises."""
    record = Record()
    if known:
        record.add(None, 10.0, 7.0, 0.5)
    pace, now, done = Pace(0.0, 5.0 if resumed else 0.0, record), 0.0, 0.0
    for span, step, wait in steps:
        now, done = now + span, max(0.0, done + step)
        pace.observe(now, done, now - span / 2)
        if wait > 5000:
            now += wait
            pace.pause(wait)
        found = pace.estimate(remaining, now + 0.1, 1.0, done, now)
        assert found is None or (
            0 <= found.low <= found.eta <= found.high and found.eta > 0 and math.isfinite(found.high)
        )
    pace.teach(record, now, pace.reached(done))
    assert Record.from_list(record.to_list()).runs == record.runs


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9), st.floats(1, 1e9), st.floats(0, 1))
def test_forecasts_by_earlier_runs_are_finite(time: float, done: float, total: float, part: float) -> None:
    """Earlier runs of any duration foretell a finite time for any total."""
    record = Record()
    record.add(None, time, done)
    reached = max(1e-6, part * total)
    assert all(map(math.isfinite, Past(record, total).forecasts(time, reached, max(1e-6, total - reached), time / 2)))


def test_points_remember_what_was_foretold_there() -> None:
    """What the forecasters said at a kept point is the same whenever it is asked, also after points were dropped."""
    at_once, later = Course(), Course()
    rng, at = random.Random(3), 0.0
    for count in range(1, 200):
        at += rng.uniform(0.5, 1.5)
        later.add(at, float(count))
        if at_once.add(at, float(count)):
            at_once.said_at(len(at_once.times) - 1)
    for knot, (time, count) in enumerate(zip(later.times, later.counts)):
        if knot:
            said = later.said_at(knot)
            assert said[0] == pytest.approx(math.log(time / count), rel=1e-5)
            assert said == at_once.said_at(knot)


def test_what_forecasters_said_follows_a_new_start() -> None:
    """After a proven change of pace, points after it say what the new pace says, whatever was asked before."""
    course, at = Course(), 0.0
    for count in range(1, 31):
        at += 10.0 if count <= 15 else 1.0
        if course.add(at, float(count)):
            course.said_at(len(course.times) - 1)
            course.renew()
    assert course.since == (150.0, 15.0)
    assert course.said_at(len(course.times) - 1)[0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("error", [0.01, 0.1, 0.3, 0.6, 1.0, 1.5])
def test_the_interval_widens_with_the_error_and_lies_low(error: float) -> None:
    """It contains the estimate, reaches farther down than up, and holds most of a lognormal distribution unless capped."""
    normal = NormalDist(0.0, error)
    low, high = interval(1.0, error)
    assert low < 1 < high
    assert -math.log(low) >= math.log(high)
    assert all(one <= other for one, other in zip(interval(1.0, error / 2)[1:], (high,)))
    assert interval(1.0, error / 2)[0] >= low
    if error <= 0.3:
        assert 0.74 <= normal.cdf(math.log(high)) - normal.cdf(math.log(low)) <= 0.85


def widths(units: list[float], share: float) -> float:
    """The width of the interval as a part of the estimate."""
    pace, now, done = run(units, None, share)
    found = pace.estimate(len(units) - done, now, 1.0, done, now)
    assert found is not None
    return (found.high - found.low) / found.eta


def test_steady_work_narrows_the_interval() -> None:
    """Work that was steady so far has a narrower interval than uneven work, and a narrower one later than early."""
    rng = random.Random(5)
    steady, uneven = [2.0] * 300, [rng.paretovariate(1.5) for _ in range(300)]
    assert widths(steady, 0.6) < widths(uneven, 0.6)
    assert widths(steady, 0.6) < widths(steady, 0.05)
    assert widths(steady, 0.6) < 0.6


def test_a_new_count_lies_between_two_looks() -> None:
    """A unit that one look did not see and the next one saw was completed between them, not at the last known move."""
    pace = Pace(0.0)
    pace.observe(3.0, 1.0, 3.0)
    pace.estimate(9, 4.5, 1.0, 1.0, 3.0)
    found = pace.estimate(8, 4.75, 1.0, 2.0, 3.0)
    assert found is not None
    assert found.eta == pytest.approx(8 * 4.625 / 2, rel=0.15)
    pace.observe(6.0, 2.0, 5.25)
    again = pace.estimate(8, 6.0, 1.0, 2.0, 5.25)
    assert again is not None
    assert again.eta == pytest.approx(found.eta - 1.25, rel=0.05)


@pytest.mark.parametrize("each", [0.3, 1.1, 2.34, 7.7])
def test_steady_work_is_exact_whatever_the_looks(each: float) -> None:
    """Looks every 0.75 s, which fall anywhere between the units, foretell steady work within 4% after 20 s."""
    pace, total, worst, moved, before = Pace(0.0), round(200 / each), 0.0, 0.0, 0
    for look in range(1, 200):
        now = 0.75 * look
        done = int(now / each)
        if done > before:
            before, moved = done, now
        pace.observe(now, float(done), moved or 0.0)
        found = pace.estimate(total - done, now, 1.0, float(done), moved)
        if now > 20 and found is not None:
            worst = max(worst, abs(found.eta - (total * each - now)) / (total * each))
    assert worst < 0.04


def upper(grows_until: float) -> tuple[float, float]:
    """The estimate and its upper end after 100 units of 1 s, if the total grew from 150 to 200 until then."""
    pace = Pace(0.0)
    found = None
    for second in range(1, 101):
        total = 150 + 50 * min(1.0, second / grows_until)
        pace.observe(float(second), float(second), float(second))
        found = pace.estimate(total - second, second + 0.1, 1.0, float(second), float(second))
    assert found is not None
    return found.eta, found.high


def test_a_total_that_grows_may_go_on_growing() -> None:
    """Half of the growth is expected to go on; the upper end leaves room for as much as in the last half of the run."""
    still, growing = upper(10.0), upper(100.0)
    assert still[0] == pytest.approx(100, rel=0.02)
    assert growing[0] == pytest.approx(100 / (1 - 0.5 * 0.5), rel=0.05)
    assert growing[1] >= growing[0] + 25


CHANGES: dict[str, list[float]] = {
    "what was done before is skipped": [0.01] * 120 + [0.3] * 80,
    "the first unit loads a model": [9.0] + [0.25] * 79,
    "ten times slower": [1.0] * 100 + [10.0] * 100,
    "ten times faster": [10.0] * 100 + [1.0] * 100,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_proven_change_of_pace_shows_soon(kind: str) -> None:
    """25 units after the pace changed for good, or sooner, the rate is the new one and the interval holds the end."""
    units = CHANGES[kind]
    changed = next(index for index in range(1, len(units)) if units[index] != units[index - 1])
    share = sum(units[: changed + 25]) / sum(units)
    pace, now, done = run(units, None, share)
    found = pace.estimate(len(units) - done, now, 1.0, done, now)
    assert found is not None
    assert found.low <= sum(units) - now <= found.high
    assert found.eta == pytest.approx(sum(units) - now, rel=0.1)
    assert pace.rate == pytest.approx(1 / units[-1], rel=0.15)


def test_a_pause_is_no_change_of_pace() -> None:
    """One long unit, and work that varies, leave what was learned of the pace as it is."""
    rng = random.Random(11)
    noisy = [rng.expovariate(1.0) for _ in range(300)]
    for units in ([1.0] * 60 + [40.0] + [1.0] * 60, noisy):
        course, at = Course(), 0.0
        for count, each in enumerate(units, 1):
            at += each
            assert not (course.add(at, float(count)) and course.renew())


def test_quick_units_at_first_do_not_disprove_earlier_runs() -> None:
    """If all earlier runs were fast at first and then slow, the slow part is expected while this run is fast."""
    units, record = [0.01] * 120 + [0.3] * 80, Record()
    pace, _, _ = run(units, record, 1.0)
    pace.teach(record, sum(units), 200.0)
    ends = list(itertools.accumulate(units))
    pace, missing = Pace(0.0, 0.0, record), 0
    for look in range(1, 16):
        now, done = look / 8, float(bisect.bisect(ends, look / 8))
        pace.observe(now, done, now)
        found = pace.estimate(200 - done, now, 1.0, done, now)
        missing += found is None
        assert found is None or found.eta > 0.25 * (sum(units) - now)
    assert missing <= 1  # where the first slow unit takes longer than two looks


PAUSES: dict[str, list[float]] = {
    "three slow items": [8.0 if index in (15, 28, 39) else 0.25 for index in range(40)],
    "a straggler at the end": [0.2] * 39 + [17.2],
    "a merge in the middle": [0.05] * 290 + [30.0] + [0.05] * 310,
}


@pytest.mark.parametrize("kind", PAUSES)
def test_a_pause_that_earlier_runs_had_keeps_its_estimate(kind: str) -> None:
    """In the second of two identical runs the ETA stays, and falls, through the pauses that the first one had."""
    units, record = PAUSES[kind], Record()
    pace, _, _ = run(units, record, 1.0)
    pace.teach(record, sum(units), float(len(units)))
    ends = list(itertools.accumulate(units))
    pace, looks, missing = Pace(0.0, 0.0, record), int(ends[-1]), 0
    for now in range(1, looks):
        done = float(bisect.bisect(ends, now))
        pace.observe(float(now), done, float(now))
        found = pace.estimate(len(units) - done, float(now), 1.0, done, float(now))
        missing += found is None
        if found is not None and now < ends[-1] - 2:
            assert found.eta == pytest.approx(ends[-1] - now, abs=0.25 * ends[-1])
    assert missing <= 2


def test_a_hang_where_earlier_runs_paused_is_not_hidden() -> None:
    """A pause that lasts twice as long as the known one has no estimate any more; nor has one where none was."""
    units, record = PAUSES["three slow items"], Record()
    pace, _, _ = run(units, record, 1.0)
    pace.teach(record, sum(units), 40.0)
    for stops_at, longest in ((15, 20.0), (8, 8.0)):
        pace, done = Pace(0.0, 0.0, record), 0.0
        for look in range(1, 200):
            now = look * 0.25
            done = min(float(look), stops_at)
            pace.observe(now, done, min(now, stops_at * 0.25))
        stopped = stops_at * 0.25
        assert pace.estimate(40 - done, stopped + longest, 1.0, done, stopped) is None


def test_units_that_are_slow_in_every_run_are_no_pause() -> None:
    """If the last two fifths of the units are slow, none of them may take as long as all of them together."""
    record = Record()
    units = [0.01] * 120 + [0.3] * 80
    pace, _, _ = run(units, record, 1.0)
    pace.teach(record, sum(units), 200.0)
    past = Past(record, 200.0)
    assert all(past.pause(float(done), 1.0, 0.0) < 4 for done in range(200))
