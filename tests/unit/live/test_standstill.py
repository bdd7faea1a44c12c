"""A process that stood still did no work meanwhile. It makes no difference who looks first afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import otel_progress as progress
from otel_progress.live.engine import runtime
from otel_progress.model.fields import Progress
from otel_progress.testing import Capture

HOUR = 3600.0


def work(capture: Capture, units: int) -> None:
    """Complete units at one a second."""
    for _ in range(units):
        capture.advance(1)
        progress.advance()


def stand(capture: Capture, seconds: float = HOUR) -> None:
    """Let time pass in which no thread runs."""
    capture.clock.sleep(seconds)


def of_operation(op: progress.Operation, stage: progress.Stage) -> Progress:
    return op.snapshot().progress


def of_stage(op: progress.Operation, stage: progress.Stage) -> Progress:
    return stage.snapshot().progress


@pytest.mark.parametrize("seen", [of_operation, of_stage])
@pytest.mark.parametrize("units", [0, 1, 3])
def test_a_look_before_the_ticker_spoils_no_estimate(
    units: int, seen: Callable[[progress.Operation, progress.Stage], Progress], progress_capture: Capture
) -> None:
    """The estimate is the same as before in a look right after it, with units completed since or not, and later on."""
    with progress.operation("work", total=100) as op, op.stage("load", total=100) as stage:
        work(progress_capture, 30)
        stand(progress_capture)
        for _ in range(units):
            progress_capture.clock.sleep(0.01)
            progress.advance()
        first = seen(op, stage)
        assert first.eta is not None
        assert first.eta.eta == pytest.approx(70 - units, rel=0.1)
        progress_capture.look()
        work(progress_capture, 10)
        later = seen(op, stage)
        assert later.eta is not None
        assert later.rate is not None
        assert later.eta.eta == pytest.approx(60 - units, rel=0.15)
        assert later.rate == pytest.approx(1.0, rel=0.2)


def test_a_look_before_the_ticker_takes_nothing_for_stuck(progress_capture: Capture) -> None:
    """Nobody was idle while the process stood."""
    with progress.operation("work", total=100, stall_after=60) as op, op.stage("load") as stage:
        progress_capture.advance(5)
        stand(progress_capture)
        seen = op.snapshot()
        assert seen.health.value == "progressing"
        assert seen.idle < 10
        assert stage.snapshot().idle < 10


@pytest.mark.parametrize("wakes_in_wait", [True, False])
def test_a_standstill_within_a_wait_counts_once(wakes_in_wait: bool, progress_capture: Capture) -> None:
    """The time for which a machine slept within a declared wait is subtracted once, whoever notices it first."""
    for _ in range(2):
        with progress.operation("deploy"):
            progress_capture.advance(100)
    with progress.operation("deploy") as op:
        progress_capture.advance(40)
        with op.waiting("approval"):
            progress_capture.advance(5)
            stand(progress_capture)
            if wakes_in_wait:
                progress_capture.advance(5)
        for _ in range(3):
            progress_capture.look()
            left = op.snapshot().progress.eta
            assert left is not None
            assert left.eta == pytest.approx(60, rel=0.1)


def test_a_run_that_ends_right_after_a_standstill_teaches_its_work_alone(progress_capture: Capture) -> None:
    """The end comes before the ticker looks, and the history has no hour in it."""
    for _ in range(2):
        with progress.operation("copy", total=20) as op:
            work(progress_capture, 20)
            stand(progress_capture)
        progress_capture.look()
    with progress.operation("copy", total=20) as op:
        progress_capture.advance(0.5)
        left = op.snapshot().progress.eta
        assert left is not None
        assert left.eta == pytest.approx(20, rel=0.15)


def test_a_standstill_after_the_end_is_none_of_it(progress_capture: Capture) -> None:
    """A run that had ended before it, which the ticker did not know yet, teaches all of its time."""
    for _ in range(2):
        with progress.operation("copy"):
            progress_capture.advance(100)
        stand(progress_capture)
        progress_capture.look()
    with progress.operation("copy") as op:
        progress_capture.advance(1)
        left = op.snapshot().progress.eta
        assert left is not None
        assert left.eta == pytest.approx(99, rel=0.05)


def test_no_ticker_notices_no_standstill(progress_capture: Capture) -> None:
    """Once the ticker's thread has ended, the time goes on for those who look."""
    with progress.operation("work", total=100) as op:
        work(progress_capture, 30)
        runtime.ticker.stop()
        runtime.ticker._run()
        stand(progress_capture, 600)
        assert op.snapshot().progress.eta is None
