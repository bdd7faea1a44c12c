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
from otel_progress.live.engine import process
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
        process.loops.clear()  # a real loop can't answer in the time of a fake clock
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

    other = progress.operation("b", stall_after=50).start()
    with progress.operation("a", stall_after=5) as a:
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
    other.complete()


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
    from otel_progress.live.diagnosis import call_stack, vitals

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(call_stack, "where", broken)
    monkeypatch.setattr(vitals, "vitals", broken)
    with progress.operation("work", stall_after=5):
        progress_capture.advance(6)
    assert len(progress_capture.of(semconv.STALLED)) == 1


def test_time_asleep_is_no_idle_time(progress_capture: Capture) -> None:
    """Where the process was stopped or frozen, nothing is stuck for that; nor is the gap learned."""
    with progress.operation("work", stall_after=10, stall_policy="cancel") as op, progress.stage("fetch"):
        progress_capture.advance(5)
        progress_capture.clock.sleep(3600)  # nobody looked
        progress_capture.look()
        progress_capture.advance(4)
        assert op.snapshot().health is Health.PROGRESSING
        assert not op.cancel_requested()
        progress_capture.advance(2)
        assert op.snapshot().health is Health.SILENT


def test_it_recovers_after_three_gaps_within_its_limit(progress_capture: Capture) -> None:
    """Healthy work whose gaps are long, yet below the limit, is not held stuck for ever."""
    with progress.operation("work", stall_after=10) as op:
        progress_capture.advance(15)
        for _ in range(5):
            op.advance()
            progress_capture.advance(8)
        assert op.snapshot().health is Health.PROGRESSING


def test_work_is_asked_to_stop_once_a_stall(progress_capture: Capture) -> None:
    """A stall that changes its name is one stall: one event, one request."""
    with progress.operation("agent", loop_after=3, stall_after=30, stall_policy="cancel") as op:
        for _ in range(5):
            op.step("a")
            progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING
        op._cancel_reason = None
        progress_capture.advance(120)
        assert op.snapshot().health is Health.SILENT
        assert not op.cancel_requested()
    assert len(progress_capture.of(semconv.STALLED)) == 1


def test_code_after_the_operation_is_not_cancelled(progress_capture: Capture) -> None:
    """A request that reaches the loop after the end of the operation cancels nothing."""

    async def main() -> str:
        with progress.operation("agent", stall_after=5, stall_policy="cancel"):
            progress_capture.advance(6)  # the loop is blocked meanwhile
        await asyncio.sleep(0.01)
        return "done"

    assert asyncio.run(main()) == "done"


def test_a_loop_that_ended_is_over_without_any_unit(progress_capture: Capture) -> None:
    """An agent that only takes steps is well again when its steps differ again."""
    with progress.operation("agent") as op:
        for _ in range(20):
            op.step("same")
            progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING
        for number in range(20):
            op.step(f"new {number}")
            progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING
    assert len(progress_capture.of(semconv.RECOVERED)) == 1


def test_slow_spending_does_not_flap(progress_capture: Capture) -> None:
    """Cost that grows more slowly than half the limit is one loop, told once."""
    with progress.operation("agent", stall_after=4) as op:
        op.advance()
        for _ in range(15):
            progress_capture.advance(6.5)
            op.usage(cost=0.01)
    assert len(progress_capture.of(semconv.STALLED)) <= 2


def test_one_stage_that_waits_hides_no_other(progress_capture: Capture) -> None:
    """While one parallel stage waits and another hangs, the operation is stuck; it waits when both do."""
    with progress.operation("work", stall_after=10) as op:
        asks, hangs = op.stage("ask").start(), op.stage("crunch").start()
        with asks.waiting("a person"):
            progress_capture.advance(9)
            assert op.status is Status.RUNNING
            progress_capture.advance(2)
            assert op.snapshot().health is Health.SILENT
            with hangs.waiting("the disk"):
                progress_capture.advance(1)
                assert op.status is Status.WAITING
                assert op.snapshot().health is Health.WAITING


def test_a_decorated_function_is_not_late_for_ever(progress_capture: Capture) -> None:
    """The limit for the start is that of each call, not of the decorator."""

    @progress.operation("job", start_within=5)
    def job() -> None: ...

    progress_capture.advance(60)
    job()
    progress_capture.look()
    assert {event.snapshot.status for event in progress_capture.events} <= {Status.RUNNING, Status.COMPLETED}


def test_steps_from_many_threads_never_raise() -> None:
    """`step` may be called from any thread; a race costs a count at the most."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    failed: list[BaseException] = []
    with progress.operation("agent") as op:

        def work(number: int) -> None:
            try:
                for turn in range(3000):
                    op.step(f"{number} {turn % 7}")
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.setswitchinterval(before)
    assert failed == []


def test_the_policy_cancel_needs_nobody_who_watches() -> None:
    """It is a behaviour that the user asked for: it works without configure() and listeners, in a real process."""
    import subprocess

    program = """
import time
import otel_progress as progress
try:
    with progress.operation("work", stall_after=0.5, stall_policy="cancel") as op:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            op.raise_if_cancelled()
            time.sleep(0.05)
except progress.OperationCancelled as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "no progress for" in done.stdout, done.stderr


@pytest.mark.parametrize("fork", [False, True])
def test_listeners_hear_the_end_at_exit_and_in_children(fork: bool) -> None:
    """What a listener was to hear is told before the process ends, also in a forked child."""
    import subprocess

    program = f"""
import os, sys
import otel_progress as progress
def work():
    with progress.operation("work"):
        pass
def tell(snapshot):
    os.write(1, f"{{snapshot.status.value}} ".encode())
progress.add_listener(tell)
if {fork}:
    import time
    work()
    time.sleep(1.5)
    os.write(1, b"| ")
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)
    os.waitpid(pid, 0)
    os._exit(0)
work()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "completed" in done.stdout.rpartition("|")[2], (done.stdout, done.stderr)


def test_one_that_completes_is_told_recovered_before_its_end(progress_capture: Capture) -> None:
    """Each stall of one that completes is followed by `on_recover`, however soon after it; the end comes last."""
    heard: list[Snapshot] = []
    with progress.operation("short", stall_after=1.5) as op:
        op.on_recover(heard.append)
        with progress.stage("a"):
            progress_capture.advance(3)
        with progress.stage("b"):
            progress_capture.advance(0.3)
    progress_capture.look()
    assert progress_capture.names()[-2:] == [semconv.RECOVERED, semconv.OPERATION_ENDED]
    (recovered,) = progress_capture.of(semconv.RECOVERED)
    assert recovered.attributes[semconv.STALL_DURATION] == pytest.approx(3, abs=0.5)
    assert [seen.status for seen in heard] == [Status.COMPLETED]


def test_one_that_fails_while_stuck_did_not_recover(progress_capture: Capture) -> None:
    """The end closes the stall of one that failed or was cancelled; nothing says that it moved again."""
    with pytest.raises(OSError, match="gone"), progress.operation("work", stall_after=1.5):
        progress_capture.advance(3)
        raise OSError("gone")
    progress_capture.look()
    assert progress_capture.of(semconv.RECOVERED) == []
    assert progress_capture.ended("work").status is Status.FAILED


def test_a_loop_in_a_stage_has_its_own_cost(progress_capture: Capture) -> None:
    """What the steps of a stage spent since its last progress is the cost of its loop: nothing before, nothing of others."""
    with progress.operation("agent", loop_after=3) as op, progress.stage("fix") as fix:
        progress.usage(input_tokens=7, cost=9.0)
        progress.step("plan")
        fix.advance()
        progress_capture.advance(2)
        op.usage(input_tokens=50)
        for _ in range(5):
            progress.step("test")
            with progress.stage("edit"):
                progress.usage(input_tokens=100, cost=0.5)
            progress_capture.advance(2)
        loop = op.snapshot().loop
        assert loop is not None
        assert loop.spent == {"input_tokens": 500, "cost.USD": 2.5}
    assert op.snapshot().usage == {"input_tokens": 557, "cost.USD": 11.5}
