"""Threads, tasks, queues and clocks under stress."""

from __future__ import annotations

import pytest

import otel_progress as progress
from otel_progress import semconv as s
from otel_progress.live import registry
from otel_progress.testing import Capture

from .program import exit_seconds, run
from .receiver import Receiver


def test_pool_threads_count_for_who_submitted_them() -> None:
    """With carry and CarryingExecutor, 8 threads count each of 8,000 items for the stage that submitted them."""
    with Receiver() as receiver:
        program = run("threads", "pool", env=receiver.env)
        assert (program.values()["carry"], program.values()["executor"]) == ("8000", "8000")
        assert receiver.ended() == {"carry": "completed", "executor": "completed"}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_thousand_operations_at_once(protocol: str) -> None:
    """A thousand simultaneous tasks are a thousand operations, each with its own stage, and all are reported."""
    with Receiver(protocol) as receiver:
        program = run("threads", "tasks", env=receiver.env)
        assert program.values()["right"] == "1000"
        assert program.held() < exit_seconds()
        tasks = {f"task-{number}" for number in range(1000)}
        assert receiver.ended() == dict.fromkeys(tasks, "completed")
        assert {log.operation for log in receiver.of(s.STAGE_ENDED)} == tasks
        assert receiver.doubled() == []
        roots = {span.trace_id for span in receiver.spans if span.name == "task"}
        steps = {span.trace_id for span in receiver.spans if span.name == "step"}
        assert steps <= roots
        assert max(receiver.values(s.ACTIVE.name)) == 1000


def test_operations_while_another_thread_configures() -> None:
    """Threads that start operations are not affected by configure() and shutdown() elsewhere; telemetry works after it."""
    with Receiver() as receiver:
        program = run("threads", "churn", env=receiver.env)
        assert program.values()["errors"] == "0"
        ended = receiver.ended()  # on a busy machine the 2 s of an exit may be too short, which is then logged
        assert ended.get("last", "completed") == "completed"
        assert "last" in ended or "could not be sent" in program.errors
        assert receiver.doubled() == []
        assert program.held() < exit_seconds()
        ours = [name for name in program.said[-2][1:] if name.startswith("otel-progress")]
        assert len(ours) == len(set(ours)), "threads of an old configuration are left"


def test_nothing_falls_between_two_configurations() -> None:
    """A second configure() replaces the first without a gap: each reported operation ends."""
    with Receiver() as receiver:
        run("threads", "swap", env=receiver.env)
        assert receiver.ended() == {f"swap-{number}": "completed" for number in range(30)}
        assert receiver.doubled() == []


def test_change_queue_is_bounded(progress_capture: Capture) -> None:
    """More changes than the queue holds are dropped and counted; those that fit are reported."""
    with progress.operation("busy") as operation:
        progress_capture.look()
        for _ in range(registry.CHANGES + 500):
            operation.note("x")
        assert len(registry.registry.changes) == registry.CHANGES
        assert progress_capture.drops[s.DROP_QUEUE] == 500
        progress_capture.look()
        assert len(registry.registry.changes) == 0


def test_ends_are_told_although_the_queue_is_full(progress_capture: Capture) -> None:
    """An operation that ends while the queue is full is reported as ended: it never looks lost."""
    with progress.operation("other") as other, progress.operation("short"):
        progress_capture.look()
        for _ in range(registry.CHANGES + 1):
            other.note("x")
    progress_capture.advance(1)
    assert progress_capture.ended("short").status is progress.Status.COMPLETED
    assert progress_capture.ended("other").status is progress.Status.COMPLETED


@pytest.mark.parametrize("jump", [86_400 * 365, -86_400 * 365])
def test_wall_clock_jump_makes_no_duration(progress_capture: Capture, jump: int) -> None:
    """If the wall clock jumps, idle, elapsed, rate and health stay right; only timestamps follow it."""
    with progress.operation("steady", total=100, stall_after=30, slow_after=300) as operation:
        for _ in range(10):
            operation.advance()
            progress_capture.advance(1)
        progress_capture.clock.jump(jump)
        for _ in range(10):
            operation.advance()
            progress_capture.advance(1)
        snapshot = operation.snapshot()
        assert snapshot.elapsed == pytest.approx(20)
        assert snapshot.idle <= 1
        assert snapshot.health is progress.Health.PROGRESSING
        assert snapshot.progress.eta is not None
        assert snapshot.progress.eta.eta == pytest.approx(80, rel=0.3)
    progress_capture.look()
    assert s.STALLED not in progress_capture.names()
    [histogram] = [point for point in progress_capture.metrics() if point.name == s.OPERATION_DURATION.name]
    assert histogram.value == 1
