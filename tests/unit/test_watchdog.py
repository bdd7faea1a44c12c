"""The watchdog in the process: what it tells of what is stuck, and whom."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import otel_progress as progress
from otel_progress import Health, OperationCancelled, Snapshot, Status, semconv
from otel_progress.model.health import hold
from otel_progress.testing import Capture

HERE = Path(__file__)


def line_of(marker: str) -> int:
    """The line of this file that ends with a marker."""
    for number, text in enumerate(HERE.read_text().splitlines(), 1):
        if text.endswith(f"# {marker}"):
            return number
    raise AssertionError(marker)


def until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_the_event_says_at_which_line_it_hangs(progress_capture: Capture) -> None:
    """The stalled event, the snapshot and the span event name the line of the thread that runs it."""
    release, ready = threading.Event(), threading.Event()

    def fetch() -> None:
        ready.set()
        release.wait(60)  # hangs here

    def job() -> None:
        with progress.operation("work", stall_after=10), progress.stage("fetch"):
            fetch()

    thread = threading.Thread(target=job)
    thread.start()
    try:
        assert ready.wait(30)
        progress_capture.advance(12)
        (stalled,) = progress_capture.of(semconv.STALLED)
        at = f"test_watchdog.py:{line_of('hangs here')} in fetch"
        assert stalled.attributes[semconv.STUCK_AT] == at
        assert stalled.snapshot.stuck_at == at
        assert stalled.snapshot.stack is not None
        assert "in job" in stalled.snapshot.stack
        (log,) = [log for log in progress_capture.logs if log.event_name == semconv.STALLED]
        assert log.attributes[semconv.STUCK_AT] == at
        assert log.attributes[semconv.STACK] == stalled.snapshot.stack
        assert at in log.body
    finally:
        release.set()
        thread.join()
    progress_capture.look()
    events = [event for span in progress_capture.spans if span.name == "work" for event in span.events]
    (told,) = [event for event in events if event.name == semconv.STALLED]
    assert (told.attributes or {})[semconv.STUCK_AT] == at


def test_an_asyncio_operation_names_the_line_of_its_task(progress_capture: Capture) -> None:
    """Of a task that awaits what never comes, the whole chain is told, although its thread is at work elsewhere."""

    async def ask() -> None:
        await asyncio.get_running_loop().create_future()  # awaits here

    async def job() -> None:
        async with progress.operation("agent", stall_after=10):
            await ask()

    async def main() -> None:
        task = asyncio.create_task(job())
        await asyncio.sleep(0.01)
        await asyncio.to_thread(progress_capture.advance, 12)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    (stalled,) = progress_capture.of(semconv.STALLED)
    assert stalled.snapshot.stuck_at == f"test_watchdog.py:{line_of('awaits here')} in ask"
    assert "in job" in (stalled.snapshot.stack or "")


def test_work_that_was_carried_to_a_pool_is_found(progress_capture: Capture) -> None:
    """The thread that carries the work is told, and before the one that only waits for it."""
    release, ready = threading.Event(), threading.Event()

    def crunch() -> None:
        ready.set()
        release.wait(60)  # crunches here

    with progress.operation("work", stall_after=10):
        thread = threading.Thread(target=progress.carry(crunch))
        thread.start()
        try:
            assert ready.wait(30)
            progress_capture.advance(12)
        finally:
            release.set()
            thread.join()
    (stalled,) = progress_capture.of(semconv.STALLED)
    assert stalled.snapshot.stuck_at == f"test_watchdog.py:{line_of('crunches here')} in crunch"


def test_when_it_moves_the_evidence_goes(progress_capture: Capture) -> None:
    """The stack is shown as long as it is stuck, and recovered says how long that was."""
    with progress.operation("work", stall_after=10) as op:
        progress_capture.advance(31)
        assert op.snapshot().stack is not None
        for _ in range(10):
            op.advance()
            progress_capture.advance(1)
        snapshot = op.snapshot()
        assert (snapshot.health, snapshot.stack, snapshot.stuck_at) == (Health.PROGRESSING, None, None)
        (recovered,) = progress_capture.of(semconv.RECOVERED)
        assert recovered.attributes[semconv.STALL_DURATION] == pytest.approx(31, abs=1)


def test_gaps_just_over_the_limit_don_t_flap(progress_capture: Capture) -> None:
    """One that moves once each limit and a bit is stuck all the time, and told once."""
    with progress.operation("work", stall_after=10) as op:
        for _ in range(10):
            progress_capture.advance(11)
            op.advance()
        assert len(progress_capture.of(semconv.STALLED)) == 1
        assert progress_capture.of(semconv.RECOVERED) == []
        assert op.snapshot().health is Health.SILENT


@pytest.mark.parametrize(("limit", "seconds"), [(None, 5.0), (1.0, 0.5), (10.0, 5.0), (3600.0, 10.0)])
def test_the_hold_is_half_the_limit_and_ten_seconds_at_the_most(limit: float | None, seconds: float) -> None:
    """Leaving needs less than entering, and never long."""
    assert hold(limit) == seconds


def test_listeners_are_told_of_stalls_alone(progress_capture: Capture) -> None:
    """`on_stall` and `on_recover` hear one snapshot each a stall, of all operations or of one; taken out, none."""
    told: list[tuple[str, str, Health]] = []

    def hear(what: str) -> Callable[[Snapshot], None]:
        return lambda snapshot: told.append((what, snapshot.name, snapshot.health))

    with progress.operation("a", stall_after=5) as a, progress.operation("b", stall_after=50):
        removes = [
            progress.on_stall(hear("stall")),
            progress.on_recover(hear("recover")),
            a.on_stall(hear("a")),
            a.on_recover(hear("a again")),
        ]
        progress_capture.advance(6)
        for _ in range(5):
            a.advance()
            progress_capture.advance(1)
        assert told == [
            ("stall", "a", Health.SILENT),
            ("a", "a", Health.SILENT),
            ("recover", "a", Health.PROGRESSING),
            ("a again", "a", Health.PROGRESSING),
        ]
        for remove in removes:
            remove()
        progress_capture.advance(60)
        assert len(told) == 4
        assert len(progress_capture.of(semconv.STALLED)) == 3


def test_by_default_nothing_is_cancelled(progress_capture: Capture) -> None:
    """The policy is to report."""
    with progress.operation("work", stall_after=5) as op:
        progress_capture.advance(60)
        assert not op.cancel_requested()


def test_the_policy_cancel_asks_the_work(progress_capture: Capture) -> None:
    """With `stall_policy="cancel"` the code finds out when it asks, with the evidence as reason."""
    with pytest.raises(OperationCancelled, match="no progress for 5 s"):
        with progress.operation("work", stall_after=5, stall_policy="cancel"):
            progress_capture.advance(6)
            progress.raise_if_cancelled()
    progress_capture.look()
    assert progress_capture.ended("work").status is Status.CANCELLED


def test_the_policy_cancel_cancels_the_task(progress_capture: Capture) -> None:
    """An asyncio task that hangs in an await is cancelled where it hangs, and ends as cancelled."""

    async def job() -> None:
        async with progress.operation("agent", stall_after=5, stall_policy="cancel"):
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(job())
        await asyncio.sleep(0.01)
        progress_capture.advance(6)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)

    asyncio.run(main())
    progress_capture.look()
    assert progress_capture.ended("agent").status is Status.CANCELLED


def test_a_policy_that_does_not_exist_is_refused() -> None:
    """There is no retry and no kill."""
    with pytest.raises(progress.InvalidArgument, match="'report' or 'cancel'"):
        progress.operation("x", stall_policy="kill")  # type: ignore[call-overload]


def test_one_that_does_not_start_is_told_once(progress_capture: Capture) -> None:
    """Past start_within, one event tells that it is late; once it starts, all is well."""
    op = progress.operation("work", start_within=10)
    progress_capture.advance(9)
    assert progress_capture.events == []
    progress_capture.advance(30)
    (late,) = progress_capture.events
    assert late.snapshot.status is Status.PENDING
    assert late.snapshot.health is Health.SLOW
    assert late.snapshot.health_reason == "not started for 10 s, start_within is 10 s"
    with op:
        progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING


def test_the_ticker_runs_for_one_that_does_not_start() -> None:
    """Nobody needs to start anything for a late start to be told, in a real process."""
    import subprocess

    program = """
import otel_progress as progress
told = []
import threading; heard = threading.Event()
progress.add_listener(lambda s: heard.set() if s.health_reason else None)
op = progress.operation("work", start_within=0.2)
print(heard.wait(30))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True", done.stderr


def test_evidence_of_the_process_goes_along(progress_capture: Capture) -> None:
    """CPU and memory of the process, where psutil is there, are evidence with the event, not part of the verdict."""
    with progress.operation("work", stall_after=5):
        progress_capture.advance(6)
    (stalled,) = progress_capture.of(semconv.STALLED)
    assert stalled.attributes[semconv.PROCESS_MEMORY] > 1_000_000  # type: ignore[operator]
    (log,) = [log for log in progress_capture.logs if log.event_name == semconv.STALLED]
    assert log.attributes[semconv.PROCESS_MEMORY] == stalled.attributes[semconv.PROCESS_MEMORY]


def test_a_broken_stack_reader_harms_nothing(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with the evidence, the event goes out."""
    from otel_progress.live import stack, vitals

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(stack, "where", broken)
    monkeypatch.setattr(vitals, "vitals", broken)
    with progress.operation("work", stall_after=5):
        progress_capture.advance(6)
    assert len(progress_capture.of(semconv.STALLED)) == 1
