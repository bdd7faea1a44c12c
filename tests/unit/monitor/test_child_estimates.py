"""The ETA of an operation whose work is in children in other processes, by the longest path."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.estimate import Estimate
from otel_progress.model.fields import Progress
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.monitor.state.child_estimates import ChildWork, by_children
from otel_progress.monitor.state.rollup import Part, Whole, roll_up


def eta(seconds: float) -> Estimate:
    """An estimate with an interval."""
    return Estimate(seconds, seconds * 0.8, seconds * 1.2, "rate")


def over(spent: float, began: float) -> ChildWork:
    """A child that completed."""
    return ChildWork(spent, None, began, over=True, whole=True)


def runs(spent: float, began: float, left: float | None = None) -> ChildWork:
    """A child that runs, with or without an estimate of its own."""
    return ChildWork(spent, None if left is None else eta(left), began)


def found(children: list[ChildWork], ahead: float | None, now: float = 100.0) -> Estimate:
    """The estimate, which must be there."""
    estimate = by_children(children, ahead, now)
    assert estimate is not None
    assert 0 <= estimate.low <= estimate.eta <= estimate.high
    return estimate


# -- the rule


def test_children_side_by_side_take_as_long_as_the_slowest() -> None:
    """Not the sum, and not the mean."""
    assert found([runs(10, 90, 5), runs(10, 90, 80), runs(10, 90, 20)], 0).eta == 80


def test_a_pool_shares_what_is_to_come_among_its_lanes() -> None:
    """Of 20 jobs of 30 s, 4 at a time, 8 are done and 4 half way: 15 s, and two more rounds."""
    done = [over(30, began) for began in (25.0, 25.0, 25.0, 25.0, 55.0, 55.0, 55.0, 55.0)]
    going = [runs(15, 85, 15) for _ in range(4)]
    estimate = found([*done, *going], 8, 100.0)
    assert estimate.eta == pytest.approx(15 + 60, rel=0.05)
    assert estimate.high - estimate.low < estimate.eta


def test_a_pool_whose_jobs_count_nothing_goes_by_how_long_others_took() -> None:
    """Jobs without counts are expected to take as long as those that ended."""
    done = [over(30, 40.0) for _ in range(4)]
    going = [runs(10, 90) for _ in range(4)]
    assert found([*done, *going], 0).eta == pytest.approx(20, rel=0.05)
    assert found([*done, *going], 4).eta == pytest.approx(50, rel=0.1)


def test_one_after_the_other_adds_up() -> None:
    """Of 5 jobs in turn, with 2 done and one half way, two and a half are left."""
    assert found([over(20, 50.0), over(20, 70.0), runs(10, 90, 10)], 2).eta == pytest.approx(50, rel=0.05)


def test_a_moment_between_two_jobs_changes_nothing() -> None:
    """While one job has ended and the next has not started, the lanes are those of the run so far."""
    done = [over(30, began) for began in (10.0, 10.0, 10.0, 10.0, 40.0, 40.0, 40.0, 40.0)]
    busy = found([*done, *(runs(30, 70, 0.001) for _ in range(4))], 8)
    between = found([*done, *(over(30, 70) for _ in range(3)), runs(30, 70, 0.001)], 8)
    nobody = found([*done, *(over(30, 70) for _ in range(4))], 8)
    assert busy.eta == pytest.approx(60, rel=0.1)
    assert between.eta == pytest.approx(60, rel=0.1)
    assert nobody.eta == pytest.approx(60, rel=0.1)


def test_the_last_one_of_all_keeps_the_estimate() -> None:
    """Three of four have ended: the end is that of the fourth."""
    wave = [over(20, 60.0), over(25, 60.0), over(30, 60.5), runs(40, 60.2, 12)]
    assert found(wave, 0).eta == 12


def test_without_a_number_children_have_no_end() -> None:
    """More may follow, also where all began together, as the first ones of a pool do: nobody knows."""
    assert by_children([runs(10, 90, 10), runs(10, 90, 12)], None, 100) is None
    assert by_children([over(20, 60.0), runs(10, 90, 10), runs(10, 90, 12)], None, 100) is None
    assert by_children([runs(10, 90, 10)], None, 100) is None


def test_a_child_that_stands_still_takes_the_estimate_away() -> None:
    """The end of a stuck child is not that of others; and one far beyond their time has no estimate either."""
    stuck = runs(10, 90, 5)._replace(stands=True)
    assert by_children([runs(10, 90, 5), stuck], 0, 100) is None
    assert by_children([over(10, 60.0), runs(60, 40)], 0, 100) is None


def test_nothing_known_is_nothing_said() -> None:
    """No child, none that ran, or none of known length."""
    assert by_children([], None, 100) is None
    assert by_children([], 5, 100) is None
    assert by_children([over(10, 50)], 0, 100) is None
    assert by_children([runs(10, 90)], 3, 100) is None


CHILDREN = st.builds(
    ChildWork,
    st.floats(0, 1e6),
    st.none() | st.builds(eta, st.floats(0, 1e6)),
    st.none() | st.floats(0, 2e9),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(CHILDREN, max_size=12), st.none() | st.floats(0, 1e9), st.floats(0, 2e9))
def test_whatever_children_say_the_estimate_is_sound(
    children: list[ChildWork], ahead: float | None, now: float
) -> None:
    """No crash, no number below zero, and the interval holds the estimate."""
    estimate = by_children(children, ahead, now)
    assert estimate is None or 0 <= estimate.low <= estimate.eta <= estimate.high < float("inf")


# -- through the roll-up


def job(key: str, status: Status = Status.RUNNING, *, began: float = 60.0, now: float = 100.0, **more: Any) -> Snapshot:
    """An operation in a process of its own."""
    more.setdefault("elapsed", now - began)
    return Snapshot(key, "job", status, now, started_at=began, **more)


def rolled(parent: Snapshot, *jobs: Snapshot) -> Whole:
    """The parent with the jobs below it."""
    parts = [Part(one, one.operation_id) for one in jobs]
    return roll_up(Part(parent, "parent"), lambda key: parts if key == parent.operation_id else ())


def test_a_parent_of_a_process_pool_has_an_estimate() -> None:
    """`operation(total=20)` whose jobs run elsewhere, four at a time."""
    parent = job("all", progress=Progress(0, 20, "item", 0.0, 0.0))
    done = [job(f"d{n}", Status.COMPLETED, began=60.0, elapsed=20.0) for n in range(4)]
    going = [job(f"r{n}", began=80.0) for n in range(4)]
    whole = rolled(parent, *done, *going)
    assert whole.eta is not None
    assert (whole.eta.source, whole.completed) == ("children", 4)
    assert whole.eta.eta == pytest.approx(60, rel=0.15)


def test_rows_that_children_count_are_a_share_of_the_whole() -> None:
    """A total of 1,000 rows of which two jobs have 100 each: as many more jobs are to come as the rest needs."""
    parent = job("all", progress=Progress(0, 1000, "row", 0.0, 0.0))
    jobs = [job(f"r{n}", progress=Progress(80, 100, "row", 0.8, 0.8, eta=eta(10)), elapsed=40.0) for n in range(2)]
    whole = rolled(parent, *jobs)
    assert whole.eta is not None
    assert whole.eta.eta == pytest.approx(10 + 4 * 50, rel=0.1)


def test_what_the_process_knows_of_earlier_runs_stays() -> None:
    """Where children tell no end, the estimate from earlier runs that the parent's own process sends is shown."""
    own = Estimate(120, 100, 150, "history", 7)
    parent = job("all", progress=Progress(eta=own))
    assert rolled(parent, job("r1", progress=Progress(5, ratio=None))).eta == own
    assert rolled(parent, job("r1", progress=Progress(5, 10, ratio=0.5, ratio_raw=0.5))).eta == own


def test_a_stuck_child_takes_the_estimate_of_its_parent_away() -> None:
    """While one of two children is stuck nobody knows when the parent ends."""
    parent = job("all", progress=Progress(0, 2, "item", 0.0, 0.0))
    well = job("r1", progress=Progress(5, 10, ratio=0.5, ratio_raw=0.5, eta=eta(30)))
    assert rolled(parent, well, job("r2", health=Health.SILENT, progress=Progress(5, 10, ratio=0.5))).eta is None


def test_a_pool_is_foretold_without_jumps() -> None:
    """Forty jobs of 20 s, four at a time, seen each second: the end that is foretold stays within 10% of the whole."""
    ends: list[float] = []
    jobs, seconds, lanes, each = 40, 200, 4, 20
    for now in range(25, seconds):
        children = []
        for number in range(jobs):
            began = float(number // lanes * each)
            if began + each <= now:
                children.append(over(each, began))
            elif began <= now:
                children.append(runs(now - began, began))
        ends.append(now + found(children, jobs - len(children), float(now)).eta)
    assert all(abs(end - seconds) < 0.1 * seconds for end in ends)
    assert max(abs(b - a) for a, b in itertools.pairwise(ends)) < 0.05 * seconds
