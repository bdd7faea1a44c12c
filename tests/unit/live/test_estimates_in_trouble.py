"""The ETA of runs that do not go at one pace: set-up, stalls, slow ends, quick starts, late resumes, late stages.

Each rule holds from when the process can know it: at no moment is the end outside of the interval by more than a look.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest

import otel_progress as progress
from otel_progress.live.handles import Operation
from otel_progress.model.snapshot import Progress
from otel_progress.testing import Capture

LOOK = 0.75
"""Seconds between two looks at the counts."""
_ROUND = 0.25
"""Seconds between two looks of a view."""


def looks(capture: Capture, op: Operation, seconds: float) -> Iterator[tuple[float, Progress]]:
    """Let time pass; yield how much of it is left, and the progress, at each look."""
    left = seconds
    while left > 0:
        step = min(LOOK, left)
        capture.advance(step)
        left -= step
        yield left, op.snapshot().progress


def play(capture: Capture, op: Operation, times: Iterable[float]) -> list[tuple[float, Progress]]:
    """Complete units that take these times; return the seconds that were left, and the progress, at each look."""
    todo = list(times)
    rest, seen = sum(todo), []
    for each in todo:
        rest -= each
        seen += [(rest + left, found) for left, found in looks(capture, op, each)]
        op.advance()
    return seen


def misses(seen: list[tuple[float, Progress]]) -> list[tuple[float, Progress]]:
    """The looks at which there was an estimate whose interval did not hold the end."""
    return [
        (left, one)
        for left, one in seen
        if one.eta is not None and left > LOOK and not one.eta.low - LOOK <= left <= one.eta.high + LOOK
    ]


# -- nothing special


@pytest.mark.parametrize("each", [0.1, 0.52, 0.61, 0.9, 1.13])
def test_a_constant_pace_is_known_within_seconds(progress_capture: Capture, each: float) -> None:
    """Looks find a unit late by a part of what is between them; that must not pass for pace."""
    done = 0
    with progress.operation("work", total=200) as op:
        for look in range(1, 80):
            reached = min(200, int(look * _ROUND / each + 1e-9))
            op.advance(reached - done)
            done = reached
            progress_capture.advance(_ROUND)
            passed, eta = look * _ROUND + _ROUND, op.snapshot().progress.eta
            if max(4 * each, 2 * LOOK) < passed < 200 * each - 1:
                assert eta is not None
                assert eta.eta == pytest.approx(200 * each - passed, abs=max(0.035, 0.25 / passed) * 200 * each)


# -- before the first unit


@pytest.mark.parametrize("inside", [False, True])
def test_a_declared_wait_before_the_first_unit_is_no_pace(progress_capture: Capture, inside: bool) -> None:
    """10 min for a licence, then a unit a second: from the first unit on the rate is one a second."""
    with progress.operation("work", total=60) as op:
        if inside:
            with progress.stage("get"), progress.waiting("licence"):
                progress_capture.advance(600)
        else:
            with progress.waiting("licence"):
                progress_capture.advance(600)
        seen = play(progress_capture, op, [1.0] * 60)
    assert not misses(seen)
    assert all(one.rate > 0.4 for _, one in seen if one.rate is not None)
    assert max(one.eta.eta for _, one in seen if one.eta is not None) < 150


@pytest.mark.parametrize(("set_up", "each"), [(60.0, 1.0), (25.0, 0.5), (600.0, 2.0)])
def test_set_up_is_no_pace_from_the_second_unit_on(progress_capture: Capture, set_up: float, each: float) -> None:
    """A first unit that took far longer than the next ones prepared the work."""
    with progress.operation("work", total=80) as op:
        progress_capture.advance(set_up)
        seen = play(progress_capture, op, [each] * 80)
    later = [(left, one) for left, one in seen if one.completed is not None and one.completed >= 4]
    assert not misses(later)
    for left, one in later:
        assert one.eta is not None
        assert one.eta.eta == pytest.approx(left, rel=0.3, abs=3)
        assert one.rate == pytest.approx(1 / each, rel=0.35)


# -- the end is slow


def test_slow_units_at_the_end_show_after_the_second_one(progress_capture: Capture) -> None:
    """90 quick units, then 10 that take 30 times as long: no estimate, then a true one; it never comes and goes."""
    with progress.operation("work", total=100) as op:
        seen = play(progress_capture, op, [0.5] * 90 + [15.0] * 10)
    slow = [(left, one) for left, one in seen if one.completed is not None and one.completed >= 90]
    known = [one.eta is not None for _, one in slow]
    assert not misses([(left, one) for left, one in slow if one.completed != 90])
    assert known.index(False) * LOOK < 5
    back = known.index(True, known.index(False))
    assert slow[back][1].completed == 92
    assert all(known[back:])


def test_the_last_units_do_not_flicker(progress_capture: Capture) -> None:
    """Each of the last 5 units takes 3 times as long as the others: at most once an estimate goes and comes back."""
    with progress.operation("work", total=45) as op:
        seen = play(progress_capture, op, [1.0] * 40 + [3.0] * 5)
    known = [one.eta is not None for left, one in seen if one.completed and one.completed >= 40 and left > LOOK]
    assert sum(before and not after for before, after in itertools.pairwise(known)) <= 1


# -- a stall


@pytest.mark.parametrize("stall_after", [None, 10.0])
def test_a_stall_is_no_part_of_the_pace(progress_capture: Capture, stall_after: float | None) -> None:
    """After 2 min in which nothing moved, two units are enough for the pace of before, in the rate and in the ETA."""
    with progress.operation("work", total=100, stall_after=stall_after) as op:
        play(progress_capture, op, [1.0] * 50)
        assert all(
            one.eta is None and one.rate is None for left, one in list(looks(progress_capture, op, 119)) if left < 110
        )
        after = play(progress_capture, op, [1.0] * 50)
    recovered = 54 if stall_after is None else 64  # a recovery has to hold for a while
    later = [(left, one) for left, one in after if one.completed is not None and one.completed >= recovered]
    assert not misses(later)
    for left, one in later:
        assert one.rate == pytest.approx(1.0, rel=0.35)
        assert one.eta is not None
        assert one.eta.eta == pytest.approx(left, rel=0.2, abs=2)


def test_a_stall_is_learned(progress_capture: Capture) -> None:
    """What the pace leaves out, the next run of the name expects at its place."""
    for run in range(2):
        with progress.operation("work", total=100) as op:
            play(progress_capture, op, [1.0] * 40)
            if run:
                eta = op.snapshot().progress.eta
                assert eta is not None
                assert eta.eta == pytest.approx(180, rel=0.2)
            play(progress_capture, op, [1.0] * 9 + [121.0] + [1.0] * 50)


def test_units_that_are_slow_in_turn_keep_their_estimate(progress_capture: Capture) -> None:
    """Every tenth unit writes for 6 s: after the first time that is expected."""
    with progress.operation("work", total=200) as op:
        seen = play(progress_capture, op, ([0.2] * 9 + [6.0]) * 20)
    later = [(left, one) for left, one in seen if one.completed is not None and one.completed >= 21]
    assert sum(one.eta is None for _, one in later) <= 0.02 * len(later)
    assert len(misses(later)) <= 0.1 * len(later)


# -- the pace changes for good


@pytest.mark.parametrize(
    ("before", "after", "units"), [(10.0, 0.5, 12), (10.0, 1.0, 12), (0.2, 4.0, 3), (1.0, 10.0, 3)]
)
def test_rate_and_eta_agree_soon_after_a_change_of_pace(
    progress_capture: Capture, before: float, after: float, units: int
) -> None:
    """A few units after the change, rate times ETA is what is left."""
    with progress.operation("work", total=200) as op:
        play(progress_capture, op, [before] * 100)
        seen = play(progress_capture, op, [after] * 100)
    later = [(left, one) for left, one in seen if one.completed is not None and one.completed >= 100 + units]
    assert not misses(later)
    for left, one in later[:-4]:
        assert one.eta is not None
        assert one.rate is not None
        assert one.rate == pytest.approx(1 / after, rel=0.35)
        assert one.eta.eta == pytest.approx(left, rel=0.25, abs=after)


# -- much at once, and late resumes


@pytest.mark.parametrize(("size", "each"), [(20, 1.0), (5, 1.0), (50, 3.0)])
def test_a_batch_at_the_start_promises_nothing(progress_capture: Capture, size: int, each: float) -> None:
    """Units that were there at once say nothing of those to come, which take a while each."""
    with progress.operation("work", total=size + 100) as op:
        op.advance(size)
        seen = play(progress_capture, op, [each] * 100)
    assert not misses(seen)
    assert all(one.eta is not None for left, one in seen if left < 100 * each - 5)


@pytest.mark.parametrize("how", ["update", "track"])
def test_a_resume_after_a_load_is_no_work(progress_capture: Capture, how: str) -> None:
    """10 s to load a checkpoint with 500 of 1,000 units: they are no pace, and no rate is shown that they made."""
    with progress.operation("train", total=1000) as op:
        progress_capture.advance(10)
        if how == "update":
            op.update(completed=500)
            seen = list(looks(progress_capture, op, 3))
            assert all(one.eta is None and one.rate is None for _, one in seen)
            seen = play(progress_capture, op, [1.0] * 60)
        else:
            seen = []
            for number, _ in enumerate(progress.track(range(500), initial=500, total=1000)):
                seen += [(500 - number - 1 + left, one) for left, one in looks(progress_capture, op, 1.0)]
                if number == 59:
                    break
    later = [(left, one) for left, one in seen if one.completed is not None and one.completed >= 512]
    rest = 440 if how == "update" else 0
    assert not misses([(left + rest, one) for left, one in later])
    assert all(one.rate == pytest.approx(1.0, rel=0.35) for _, one in later)


def test_a_resumed_run_has_the_eta_of_earlier_ones_before_its_first_unit(progress_capture: Capture) -> None:
    """After two whole runs, one that goes on from 50 of 100 expects half of their time, from its start."""
    for _ in range(2):
        with progress.operation("work", total=100) as op:
            play(progress_capture, op, [1.0] * 100)
    with progress.operation("work", total=100, restored=50) as op:
        for left, found in looks(progress_capture, op, 5):
            assert found.eta is not None
            assert found.eta.source == "history"
            assert found.eta.eta == pytest.approx(45 + left, rel=0.1)


# -- a stage that is late


def test_a_stage_that_is_later_than_ever_has_no_estimate(progress_capture: Capture) -> None:
    """Three runs took 30 s for `b`; the fourth takes 120 s: while it is late the upper end grows, then none is shown."""
    for middle in (30.0, 30.0, 30.0, 120.0):
        with progress.operation("work") as op:
            with progress.stage("a"):
                progress_capture.advance(10)
            with progress.stage("b"):
                late = [(left, one.eta) for left, one in looks(progress_capture, op, middle) if middle - left > 31]
            with progress.stage("c"):
                progress_capture.advance(20)
    shown = [(left, one) for left, one in late if one is not None]
    assert len(shown) * LOOK < 15
    assert all(one.high > 50 for _, one in shown)
    assert all(one is None for left, one in late if left < 120 - 50)


# -- children elsewhere


def test_a_parent_whose_units_may_be_elsewhere_shows_no_percentage(progress_capture: Capture) -> None:
    """Once its id was given to other processes, 0 of 10 is not 0%; what it counts itself is."""
    with progress.operation("pool", total=10) as op:
        assert op.snapshot().progress.percentage == 0
        progress.inject({})
        progress_capture.advance(5)
        assert op.snapshot().progress.percentage is None
        op.advance()
        progress_capture.advance(1)
        assert op.snapshot().progress.percentage == 10
