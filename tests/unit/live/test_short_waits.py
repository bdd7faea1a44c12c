"""Short waits: the first ten of a reason are told, later ones only if they last."""

from __future__ import annotations

import otel_progress as progress
from otel_progress import Status, semconv
from otel_progress.live.short_waits import SHORT, TOLD
from otel_progress.model import wire
from otel_progress.telemetry.memory import Log
from otel_progress.testing import Capture, capture

WAITS = (semconv.WAIT_STARTED, semconv.WAIT_OVERDUE, semconv.WAIT_ENDED)


def told(captured: Capture, reason: str) -> list[str]:
    """The events of the waits for a reason, in order."""
    logs = [log for log in captured.logs if log.event_name in WAITS]
    return [log.event_name for log in logs if log.attributes.get(semconv.WAIT_REASON) == reason]


def wait(captured: Capture, op: progress.Operation, reason: str, seconds: float, times: int = 1) -> None:
    """Wait some times for so long."""
    for _ in range(times):
        with op.waiting(reason):
            captured.advance(seconds)


def test_short_waits_of_one_reason_are_told_ten_times() -> None:
    """A program that waits again and again for a lock sends no two events for each; another reason is told anew."""
    with capture() as captured:
        op = progress.operation("import").start()
        wait(captured, op, "lock", 0.1, TOLD + 30)
        wait(captured, op, "disk", 0.1)
        captured.advance(1)
        assert told(captured, "lock") == [semconv.WAIT_STARTED, semconv.WAIT_ENDED] * TOLD
        assert told(captured, "disk") == [semconv.WAIT_STARTED, semconv.WAIT_ENDED]


def test_long_waits_are_always_told() -> None:
    """Waits of five seconds and more don't count as short, however many there are."""
    with capture() as captured:
        op = progress.operation("import").start()
        wait(captured, op, "approval", SHORT, TOLD + 2)
        captured.advance(1)
        assert told(captured, "approval") == [semconv.WAIT_STARTED, semconv.WAIT_ENDED] * (TOLD + 2)


def test_a_folded_wait_that_lasts_is_told() -> None:
    """Within a second after five seconds, and so is its end."""
    with capture() as captured:
        op = progress.operation("import").start()
        wait(captured, op, "lock", 0.1, TOLD)
        with op.waiting("lock"):
            captured.advance(SHORT - 0.5)
            assert told(captured, "lock")[2 * TOLD :] == []
            captured.advance(1.5)
            assert told(captured, "lock")[2 * TOLD :] == [semconv.WAIT_STARTED]
        captured.advance(1)
        assert told(captured, "lock")[2 * TOLD :] == [semconv.WAIT_STARTED, semconv.WAIT_ENDED]


def test_a_folded_wait_that_is_overdue_is_told() -> None:
    """Its limit may be below five seconds."""
    with capture() as captured:
        op = progress.operation("import").start()
        wait(captured, op, "lock", 0.1, TOLD)
        with op.waiting("lock", overdue_after=2):
            captured.advance(3.5)
        captured.advance(1)
        assert told(captured, "lock")[2 * TOLD :] == list(WAITS)


def test_nobody_is_left_with_a_folded_wait_that_is_over() -> None:
    """If an update shows it, another one soon says that it is over, whatever the cadence."""
    with capture() as captured:
        op = progress.operation("import").start()
        wait(captured, op, "lock", 0.1, TOLD)
        captured.advance(1000)
        with op.waiting("lock"):
            op.stage("load").start()
            captured.advance(1)
            assert statuses(captured)[-1] is Status.WAITING
        captured.advance(1)
        assert statuses(captured)[-1] is Status.RUNNING
        assert told(captured, "lock") == [semconv.WAIT_STARTED, semconv.WAIT_ENDED] * TOLD


def statuses(captured: Capture) -> list[Status]:
    """The status in each event of an operation."""
    found = [log for log in captured.logs if semconv.OPERATION_ID in log.attributes]
    return [status_of(log) for log in found]


def status_of(log: Log) -> Status:
    """The status in an event."""
    return wire.from_attributes(log.attributes, log.time / 1e9).status
