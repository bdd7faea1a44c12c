"""Run series leave at once when a verdict changes, and never flood."""

from __future__ import annotations

import itertools
from collections import Counter

import otel_progress as progress
from otel_progress import Operation, semconv
from otel_progress.live import hooks
from otel_progress.live.engine import runtime
from otel_progress.live.state import OperationState
from otel_progress.telemetry.run_series import AT_ONCE, SOONEST
from otel_progress.testing import START, Capture


def when(captured: Capture, verdict: str, value: float = 1) -> list[float]:
    """When points of a verdict were sent, in seconds since the clock started."""
    return [
        (point.time - START) / 1e9
        for point in captured.series
        if point.name == semconv.RUN_HEALTH.name
        and point.attributes[semconv.HEALTH] == verdict
        and point.value == value
    ]


def exports(captured: Capture) -> Counter[float]:
    """How many operations each export had."""
    return Counter((point.time - START) / 1e9 for point in captured.series if point.name == semconv.RUN_IDLE.name)


def test_a_stall_and_a_recovery_leave_within_a_second(progress_capture: Capture) -> None:
    """The limit is reached at 22 s, between two exports; the series are sent at once. So is the end of it."""
    with progress.operation("job", stall_after=22) as op:
        op.advance()
        progress_capture.advance(24)
        assert 22 <= when(progress_capture, "silent")[0] <= 23
        before = len(when(progress_capture, "progressing"))
        for _ in range(14):
            op.advance()
            progress_capture.advance(1)
        fresh = when(progress_capture, "progressing")[before:]
        assert fresh
        recovered = next(event for event in progress_capture.events if event.name == semconv.RECOVERED)
        assert fresh[0] - (recovered.timestamp - START) / 1e9 <= 1


def test_an_overdue_wait_and_its_end_leave_at_once(progress_capture: Capture) -> None:
    """The wait is overdue after 12.9 s; the remaining time below 0 is sent at once, and 0 after its end."""
    with progress.operation("job"):
        with progress.waiting("ada", overdue_after=12.9):
            progress_capture.advance(14.5)
        progress_capture.advance(1.5)
        left = [
            ((point.time - START) / 1e9, point.value)
            for point in progress_capture.series
            if point.name == semconv.RUN_WAIT_REMAINING.name
        ]
        assert [value <= 0 for _, value in left] == [False, True, True]
        assert 12.9 <= left[1][0] <= 14
        assert left[2][1] == 0
        assert left[2][0] <= 16


def test_a_loop_leaves_at_once(progress_capture: Capture) -> None:
    """Looping is sent within a second of its event."""
    with progress.operation("agent", loop_after=5):
        for _ in range(9):
            progress.step("search")
            progress_capture.advance(1)
        stalled = next(event for event in progress_capture.events if event.name == semconv.STALLED)
        assert when(progress_capture, "looping")[0] - (stalled.timestamp - START) / 1e9 <= 1


def test_a_young_operation_that_is_stuck_has_series(progress_capture: Capture) -> None:
    """What hangs at once isn't held back until it is 5 s old."""
    with progress.operation("young", stall_after=2):
        progress_capture.advance(3.5)
        assert when(progress_capture, "silent")


def test_a_thousand_stalls_at_once_do_not_flood(progress_capture: Capture) -> None:
    """Exports out of turn are limited in operations and in frequency; the ordinary export has all operations."""
    jobs = [progress.operation("job", stall_after=22).start() for _ in range(1000)]
    progress_capture.advance(29)
    sent = exports(progress_capture)
    urgent = sorted(at for at, count in sent.items() if count < 1000)
    assert all(sent[at] <= AT_ONCE for at in urgent)
    assert all(later - sooner >= SOONEST for sooner, later in itertools.pairwise(urgent))
    assert len(urgent) >= 5
    progress_capture.advance(3)
    assert exports(progress_capture)[max(exports(progress_capture))] == 1000
    for job in jobs:
        job.complete()


def test_a_flapping_operation_is_sent_once_a_second(progress_capture: Capture) -> None:
    """Four changes of a verdict each second make one export each second."""
    with progress.operation("job") as op:
        progress_capture.advance(6)
        begun = len(exports(progress_capture))
        for _ in range(40):
            _flap(op)
            progress_capture.advance(0.25)
        assert len(exports(progress_capture)) - begun <= 12


def _flap(op: Operation) -> None:
    assert isinstance(op, OperationState)
    for tell in hooks.on_trouble:
        tell(op)


def test_an_ordinary_wait_sends_nothing_out_of_turn(progress_capture: Capture) -> None:
    """Short declared waits are no trouble, however many there are."""
    with progress.operation("job"):
        for _ in range(19):
            with progress.waiting("rate limit", overdue_after=60):
                progress_capture.advance(1)
    assert len(exports(progress_capture)) == 1


def test_one_that_ended_meanwhile_is_not_sent(progress_capture: Capture) -> None:
    """An operation that ends in the round of its stall leaves only its last point."""
    op = progress.operation("job", stall_after=7).start()
    progress_capture.advance(6.75)
    _flap(op)
    op.complete()
    progress_capture.advance(1)
    assert not when(progress_capture, "silent")
    assert runtime.ticker is not None
