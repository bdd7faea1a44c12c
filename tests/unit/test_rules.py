"""The rules of DESIGN.md that decide many cases, each with its tests."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Event, Health, Operation, Stage, Status, api, semconv
from otel_progress.live.engine import runtime
from otel_progress.live.engine.listeners import QUEUE, Dispatcher, Listener
from otel_progress.live.guard import drops
from otel_progress.live.registry import registry
from otel_progress.testing import Capture


def counts(handle: Operation | Stage) -> tuple[Any, Any]:
    """Return completed and total, as in a snapshot."""
    snapshot = handle.operation.snapshot()
    if isinstance(handle, Operation):
        found = snapshot.progress
    else:
        found = next(stage.progress for stage in snapshot.stages if stage.path == handle._path)
    return found.completed, found.total


# -- outside an operation

OUTSIDE: dict[str, Callable[[], object]] = {
    "track": lambda: progress.track([1]),
    "advance": lambda: progress.advance(),
    "update": lambda: progress.update(completed=1),
    "set": lambda: progress.set(a=1),
    "heartbeat": lambda: progress.heartbeat(),
    "waiting": lambda: progress.waiting("a person").__enter__(),
    "note": lambda: progress.note("hello"),
    "record": lambda: progress.record("ok"),
    "step": lambda: progress.step("x"),
    "usage": lambda: progress.usage(cost=1.0),
    "result": lambda: progress.result(a=1),
    "request_cancel": lambda: progress.request_cancel(),
    "touch": lambda: progress.touch(),
    "cancel_requested": lambda: progress.cancel_requested(),
    "raise_if_cancelled": lambda: progress.raise_if_cancelled(),
    "stage": lambda: progress.stage("x").__enter__(),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_does_nothing_counts_and_logs_once_a_call_site(
    name: str, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """Outside an operation a module function does nothing, counts each call, and logs once for each call site."""
    with caplog.at_level(logging.WARNING, "otel_progress"):
        for _ in range(3):
            OUTSIDE[name]()
    progress_capture.look()
    assert progress_capture.events == []
    assert progress_capture.drops == {semconv.DROP_OUTSIDE: 3}
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"{name}() at {__file__}:")
    assert "carry(fn)" in said
    assert "CarryingExecutor" in said


def test_outside_every_acting_function_is_covered() -> None:
    """The tests outside an operation cover each module function that acts on what is current."""
    acting = set(ACTING) - {"add_listener", "on_stall", "on_recover", "on_verdict"}
    assert acting == set(OUTSIDE)


def test_outside_another_call_site_is_told_too(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Two call sites make two log lines."""
    with caplog.at_level(logging.WARNING, "otel_progress"):
        progress.advance()
        progress.advance()
    assert len({record.getMessage() for record in caplog.records}) == 2


def test_outside_a_stage_still_runs_its_block(progress_capture: Capture) -> None:
    """A stage outside an operation runs its block, and its handle has no effect."""
    with progress.stage("alone") as stage:
        stage.advance()
        stage.request_cancel("now")
    with progress.stage("other") as other:
        assert not other.cancel_requested()
        other.raise_if_cancelled()
    assert stage.status is Status.PENDING


def test_outside_track_yields_all(progress_capture: Capture) -> None:
    """Outside an operation, track yields every item, sync and async."""

    async def numbers() -> Any:
        for number in range(3):
            yield number

    async def collect() -> list[int]:
        return [number async for number in progress.track(numbers())]

    assert list(progress.track(iter("abc"))) == ["a", "b", "c"]
    assert asyncio.run(collect()) == [0, 1, 2]


def test_outside_only_current_required_raises(progress_capture: Capture) -> None:
    """Without an operation, current() is None, and only current(required=True) raises."""
    assert progress.current() is None
    with pytest.raises(progress.NoOperation, match=r"use 'with operation\(\.\.\.\)' first"):
        progress.current(required=True)
    with progress.operation("work") as op:
        assert progress.current() is op
        assert progress.current(required=True) is op


def test_outside_is_where_the_operation_ended_before_its_block(progress_capture: Capture) -> None:
    """An operation that ended is not running, even inside its own block."""
    with progress.operation("work") as op:
        op.complete()
        assert progress.current() is None
        progress.advance()
    assert progress_capture.drops == {semconv.DROP_OUTSIDE: 1}


# -- module functions and handles

ACTING = sorted(
    name
    for name in api.__dict__
    if name in progress.__all__
    and inspect.isfunction(getattr(api, name))
    and name not in {"current", "get", "operation", "operations"}
)


@pytest.mark.parametrize("handle", [Operation, Stage])
@pytest.mark.parametrize("name", ACTING)
def test_handles_have_every_module_function(name: str, handle: type) -> None:
    """Every module function is a method of operations and stages, with the same parameters and kinds."""

    def parameters(fn: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.kind) for p in inspect.signature(fn).parameters.values() if p.name not in {"self", "parent"}]

    assert parameters(getattr(handle, name)) == parameters(getattr(api, name))


def seen(name: str, handle: Operation | Stage) -> Any:
    """Return what a handle reports about itself."""
    snapshot = handle.operation.snapshot()
    path = handle._path
    own: Any = snapshot if path is None else next(stage for stage in snapshot.stages if stage.path == path)
    if name == "note":
        return [note.text for note in snapshot.notes if note.stage == path] or None
    return {
        "advance": own.progress.completed,
        "track": own.progress.completed,
        "update": own.message,
        "set": own.attributes.get("a"),
        "record": None if path is None else own.outcomes.get("ok"),
        "waiting": own.wait and own.wait.reason,
    }[name]


ACTS: dict[str, tuple[Callable[[], object], object]] = {
    "advance": (lambda: progress.advance(3), 3),
    "track": (lambda: list(progress.track("abc")), 3),
    "update": (lambda: progress.update(message="now"), "now"),
    "set": (lambda: progress.set(a=1), 1),
    "record": (lambda: progress.record("ok"), 1),
    "waiting": (lambda: progress.waiting("tea").__enter__(), "tea"),
    "note": (lambda: progress.note("hi"), ["hi"]),
}


@pytest.mark.parametrize("name", ACTS)
def test_module_functions_act_on_the_innermost_running_stage(name: str, progress_capture: Capture) -> None:
    """A module function acts on the innermost running stage."""
    act, expected = ACTS[name]
    with progress.operation("work"), progress.stage("outer") as outer, progress.stage("inner") as inner:
        act()
        assert seen(name, inner) == expected
        assert seen(name, outer) is None


@pytest.mark.parametrize("name", sorted(set(ACTS) - {"record"}))
def test_module_functions_act_on_the_operation_without_a_stage(name: str, progress_capture: Capture) -> None:
    """Without a running stage, a module function acts on the operation."""
    act, expected = ACTS[name]
    with progress.operation("work") as op:
        with progress.stage("over"):
            pass
        act()
        assert seen(name, op) == expected


def test_module_functions_pass_over_a_stage_that_ended_inside_its_block(progress_capture: Capture) -> None:
    """A stage that was ended inside its block accepts nothing more: its parent does."""
    with progress.operation("work") as op, progress.stage("step") as step:
        step.complete()
        progress.advance()
        assert counts(op) == (1, None)
        assert counts(step) == (None, None)


# -- what resets idle


def some_items() -> Iterator[int]:
    """Return three items."""
    return iter(progress.track([1, 2, 3]))


RESETS: dict[str, Callable[[], object]] = {
    "advance": lambda: progress.advance(),
    "completed": lambda: progress.update(completed=5),
    "ratio": lambda: progress.update(ratio=0.5),
    "track": lambda: list(progress.track([1])),
    "track in another unit": lambda: list(progress.track([1], unit="token")),
    "advance in another unit": lambda: progress.advance(unit="token"),
    "record": lambda: progress.record("failed"),
    "stage start": lambda: progress.stage("next").start(),
    "stage start and end": lambda: progress.stage("next").__enter__().__exit__(None, None, None),
    "wait end": lambda: progress.waiting("tea").__enter__().__exit__(None, None, None),
}
NO_RESET: dict[str, Callable[[], object]] = {
    "note": lambda: progress.note("x"),
    "heartbeat": lambda: progress.heartbeat(),
    "usage": lambda: progress.usage(input_tokens=1, cost=1.0),
    "message": lambda: progress.update(message="x"),
    "total": lambda: progress.update(total=100),
    "the same count": lambda: progress.update(completed=0),
    "set": lambda: progress.set(a=1),
    "result": lambda: progress.result(a=1),
    "a count below the highest": lambda: progress.update(completed=-1),
    "first item in hand": lambda: next(some_items()),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("name", RESETS)
def test_idle_is_reset_by(name: str, progress_capture: Capture) -> None:
    """A completed unit, a stage's start or end, and a wait's end reset the idle time."""
    with progress.operation("work") as op:
        progress_capture.advance(10)
        assert op.snapshot().idle == 10
        RESETS[name]()
        progress_capture.look()
        progress_capture.advance(2)
        assert op.snapshot().idle == 2


@pytest.mark.parametrize("name", NO_RESET)
def test_idle_is_not_reset_by(name: str, progress_capture: Capture) -> None:
    """Notes, usage, messages and the rest never reset the idle time."""
    with progress.operation("work") as op:
        progress_capture.advance(10)
        NO_RESET[name]()
        progress_capture.advance(2)
        assert op.snapshot().idle == 12


def test_idle_is_reset_by_a_heartbeat_that_counts(progress_capture: Capture) -> None:
    """A heartbeat of the work resets the idle time only with heartbeat_counts=True, in a stage too."""
    with progress.operation("work", heartbeat_counts=True) as op, progress.stage("step"):
        progress_capture.advance(10)
        progress.heartbeat()
        progress_capture.look()
        assert op.snapshot().idle == 0
        assert op.snapshot().stages[0].idle == 0


def test_idle_of_a_stage_starts_anew_with_its_substage(progress_capture: Capture) -> None:
    """Progress in a stage resets the idle time of all stages around it, and of no other."""
    with progress.operation("work") as op, progress.stage("outer"):
        other = op.stage("other").start()
        progress_capture.advance(5)
        with progress.stage("inner") as inner:
            progress_capture.advance(3)
            inner.advance()
            progress_capture.look()
            idle = {stage.name: stage.idle for stage in op.snapshot().stages}
        assert idle == {"outer": 0, "inner": 0, "other": 8}
        other.complete()


def test_idle_counts_again_after_a_wait_but_not_within(progress_capture: Capture) -> None:
    """During a wait the stall clock stands still; its end resets it."""
    with progress.operation("work", stall_after=10) as op:
        progress_capture.advance(4)
        with progress.waiting("a person"):
            progress_capture.advance(100)
            assert op.snapshot().idle == 4
            assert op.snapshot().health is Health.WAITING
        assert op.snapshot().idle == 0
        progress_capture.advance(9.5)
        assert op.snapshot().health is Health.PROGRESSING
        progress_capture.advance(0.5)
        assert op.snapshot().health is Health.SILENT


# -- stall_after


def test_stall_after_of_the_innermost_stage_applies_else_of_its_parent(progress_capture: Capture) -> None:
    """The innermost running stage's stall_after applies; without one its parent's, and so on upwards."""
    with progress.operation("work", stall_after=30) as op:
        assert op.snapshot().stall_after == 30
        with progress.stage("outer", stall_after=10):
            assert op.snapshot().stall_after == 10
            with progress.stage("plain"):
                assert op.snapshot().stall_after == 10
                with progress.stage("own", stall_after=2):
                    assert op.snapshot().stall_after == 2
                assert op.snapshot().stall_after == 10
        with progress.stage("another"):
            assert op.snapshot().stall_after == 30


def test_stall_after_of_a_stage_decides_when_it_is_stuck(progress_capture: Capture) -> None:
    """A stall is reported when the limit of the innermost stage is reached, and its end when progress resumes."""
    with progress.operation("work", stall_after=100), progress.stage("step", stall_after=10):
        progress_capture.advance(9.75)
        assert progress_capture.of(semconv.STALLED) == []
        progress_capture.advance(0.25)
        (stalled,) = progress_capture.of(semconv.STALLED)
        assert stalled.stage == "step"
        progress.advance()
        progress_capture.advance(4)
        assert progress_capture.of(semconv.RECOVERED) == []
        progress_capture.advance(0.25)
        assert progress_capture.of(semconv.RECOVERED) == []
        for _ in range(4):
            progress.advance()
            progress_capture.advance(1)
        (recovered,) = progress_capture.of(semconv.RECOVERED)
        assert recovered.attributes[semconv.STALL_DURATION] == pytest.approx(10.75, abs=1)


# -- track and the stage


def test_track_counts_the_items_handed_out_less_the_one_in_hand(progress_capture: Capture) -> None:
    """A lane's count is the items handed out, minus the current one; at the end it is all of them."""
    with progress.operation("work"), progress.stage("step") as step:
        found = [counts(step) for _ in progress.track("abc")]
        assert found == [(0, 3), (1, 3), (2, 3)]
        assert counts(step) == (3, 3)


EXPLICIT: dict[str, tuple[Callable[[Stage], None], tuple[Any, Any]]] = {
    "advance": (lambda stage: stage.advance(), (1, None)),
    "completed": (lambda stage: stage.update(completed=7), (7, None)),
    "total": (lambda stage: stage.update(total=50), (0, 50)),
    "ratio": (lambda stage: stage.update(ratio=0.25), (None, None)),
}


@pytest.mark.parametrize("name", EXPLICIT)
def test_track_only_proves_life_where_the_stage_counts_itself(name: str, progress_capture: Capture) -> None:
    """With an explicit advance or update the stage's own count rules, and lanes only prove life."""
    act, expected = EXPLICIT[name]
    with progress.operation("work") as op, progress.stage("step") as step:
        items = iter(progress.track([1, 2, 3]))
        next(items)
        act(step)
        next(items)
        assert counts(step) == expected
        progress_capture.look()
        progress_capture.advance(5)
        next(items)
        progress_capture.look()
        assert op.snapshot().idle == 0


def test_track_rules_where_only_a_message_was_said(progress_capture: Capture) -> None:
    """A message does not give the stage a count of its own."""
    with progress.operation("work"), progress.stage("step") as step:
        for _ in progress.track([1, 2]):
            step.update(message="on it")
        assert counts(step) == (2, 2)


def test_track_lanes_one_after_another_add_up(progress_capture: Capture) -> None:
    """Loops one after another add up, and so do their lengths."""
    with progress.operation("work"), progress.stage("step") as step:
        list(progress.track([1, 2]))
        for _ in progress.track([1, 2, 3]):
            break
        assert counts(step) == (2, 5)
        list(progress.track([1, 2]))
        assert counts(step) == (4, 7)


def test_track_total_of_the_stage_stays_if_it_named_one(progress_capture: Capture) -> None:
    """The total does not grow by the lengths of loops if the stage has its own."""
    with progress.operation("work"), progress.stage("step", total=10) as step:
        list(progress.track([1, 2]))
        list(progress.track([1, 2, 3]))
        assert counts(step) == (5, 10)


def test_track_lanes_of_threads_add_up(progress_capture: Capture) -> None:
    """Simultaneous loops in different threads add up; none of them is nested."""
    together = threading.Barrier(3)
    done = threading.Barrier(3)

    def loop(step: Stage) -> None:
        for position, _ in enumerate(step.track([1, 2, 3, 4])):
            if position == 2:
                together.wait()
                done.wait()

    with progress.operation("work"), progress.stage("step") as step, ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(loop, step) for _ in range(2)]
        together.wait()
        halfway = counts(step)
        done.wait()
        for task in tasks:
            task.result()
    assert halfway == (4, 8)
    assert counts(step) == (8, 8)


def test_track_lanes_of_tasks_add_up(progress_capture: Capture) -> None:
    """Simultaneous loops in different tasks add up; none of them is nested."""

    async def loop() -> None:
        for _ in progress.track([1, 2, 3]):
            await asyncio.sleep(0)

    async def main() -> None:
        async with progress.operation("work"), progress.stage("step") as step:
            first, second = asyncio.ensure_future(loop()), asyncio.ensure_future(loop())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert counts(step) == (2, 6)
            await asyncio.gather(first, second)
            assert counts(step) == (6, 6)

    asyncio.run(main())


def test_track_inside_another_loop_is_detail_only(progress_capture: Capture) -> None:
    """A loop in the same thread and task as a live one is nested: it only proves life."""
    with progress.operation("work") as op, progress.stage("step") as step:
        for _ in progress.track([1, 2]):
            progress_capture.advance(5)
            list(progress.track(range(10)))
            progress_capture.look()
            assert op.snapshot().idle == 0
        assert counts(step) == (2, 2)


def test_track_in_a_stage_inside_a_loop_is_not_nested(progress_capture: Capture) -> None:
    """A loop in an inner stage is that stage's own."""
    with progress.operation("work") as op:
        for _ in progress.track([1, 2]):
            with progress.stage("inner") as inner:
                list(progress.track("xyz"))
                assert counts(inner)[0] == 3
        assert counts(op) == (2, 2)


def test_track_in_another_unit_never_mixes(progress_capture: Capture) -> None:
    """A loop in another unit than the stage's has a counter of its own; one without a unit has the stage's."""
    with progress.operation("work") as op, progress.stage("step", unit="file") as step:
        list(progress.track([1, 2]))
        list(progress.track([1, 2, 3], unit="file"))
        list(progress.track(range(100), unit="token"))
        assert counts(step) == (5, 5)
        stage = op.snapshot().stages[0]
        assert stage.progress.unit == "file"
        assert stage.counters == {"token": 100}


@pytest.mark.parametrize("kind", [list, iter])
def test_track_lanes_end_with_their_stage(kind: Callable[[Any], Any], progress_capture: Capture) -> None:
    """The end of a stage closes its loops: later items do not count, and are still yielded."""
    with progress.operation("work") as op:
        with progress.stage("step"):
            items = iter(progress.track(kind([1, 2, 3, 4])))
            assert (next(items), next(items)) == (1, 2)
        assert list(items) == [3, 4]
        assert op.snapshot().stages[0].progress.completed == 1


def test_track_async_lanes_end_with_their_stage(progress_capture: Capture) -> None:
    """The end of a stage closes its async loops as well."""

    async def numbers() -> Any:
        for number in range(4):
            yield number

    async def main() -> None:
        with progress.operation("work") as op:
            with progress.stage("step"):
                items = progress.track(numbers()).__aiter__()
                assert [await items.__anext__(), await items.__anext__()] == [0, 1]
            assert [item async for item in items] == [2, 3]
            assert op.snapshot().stages[0].progress.completed == 1

    asyncio.run(main())


def test_track_of_an_ended_stage_only_yields(progress_capture: Capture) -> None:
    """A loop that begins after its stage ended yields all items, and counts nothing."""
    with progress.operation("work") as op:
        with progress.stage("step"):
            items = progress.track([1, 2, 3])
        assert list(items) == [1, 2, 3]
        assert op.snapshot().stages[0].progress.completed is None


def test_track_hooks_take_no_lock(progress_capture: Capture) -> None:
    """The end of a loop and a dropped loop never wait, even while our own lock is held."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with registry.lock:
            held.set()
            release.wait(30)

    with progress.operation("work"):
        loops = [iter(progress.track(kind([1, 2]))) for kind in (list, iter, set)]
        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        held.wait()
        for items in loops:
            next(items)
        list(loops.pop())
        loops.clear()
        gc.collect()
        del items
        release.set()
        holder.join()


# -- ratio


def test_ratio_leaves_skipped_planned_stages_out(progress_capture: Capture) -> None:
    """A skipped planned stage leaves the denominator."""
    with progress.operation("work", plan=["a", "b", "c", "d"]) as op:
        with progress.stage("a"):
            pass
        assert op.snapshot().progress.ratio == pytest.approx(1 / 4)
        with progress.stage("c"):
            assert op.snapshot().progress.ratio == pytest.approx(1 / 3)
        assert op.snapshot().progress.ratio == pytest.approx(2 / 3)


def test_ratio_is_not_moved_back_by_noise(progress_capture: Capture) -> None:
    """A total that wobbles by a tenth moves the displayed ratio forward only."""
    with progress.operation("work", total=100) as op:
        shown = []
        for number in range(60):
            op.advance()
            op.update(total=100 + 10 * (number % 2))
            shown.append(op.snapshot().progress.ratio)
        assert shown == sorted(shown)
        assert shown[-1] == pytest.approx(0.59)


def test_ratio_does_not_run_away(progress_capture: Capture) -> None:
    """A count and a total that go back and forth, without work, show what they say."""
    with progress.operation("work", total=100) as op:
        for _ in range(20):
            for completed in (20, 10):
                op.update(completed=completed)
                assert op.snapshot().progress.percentage == completed
        for _ in range(20):
            for total in (200, 100):
                op.update(total=total)
                assert op.snapshot().progress.percentage == 1000 / total


def test_ratio_of_snapshots_from_several_threads(progress_capture: Capture) -> None:
    """Threads that take snapshots while units are counted don't push the displayed ratio away."""
    done = threading.Event()
    with progress.operation("work", total=1000) as op:

        def look() -> None:
            while not done.is_set():
                op.snapshot()

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(200):
            op.advance()
            op.snapshot()
        done.set()
        for thread in threads:
            thread.join()
        assert op.snapshot().progress.percentage == 20


def test_ratio_falls_if_the_total_grows_after_all_was_done(progress_capture: Capture) -> None:
    """The displayed ratio is that of the count and the total beside it."""
    with progress.operation("work", total=10) as op:
        op.update(completed=10)
        assert op.snapshot().progress.percentage == 99.99
        op.update(total=40)
        assert op.snapshot().progress.percentage == 25


def test_ratio_raw_alone_decides_the_eta(progress_capture: Capture) -> None:
    """The estimate follows the raw ratio, not the displayed one."""
    with progress.operation("work", total=100) as op:
        for _ in range(20):
            op.advance(2)
            progress_capture.advance(1)
        op.update(total=1000)
        progress_capture.advance(1)
        found = op.snapshot().progress
        assert found.ratio_raw == pytest.approx(0.04)
        assert found.ratio == found.ratio_raw
        assert found.eta is not None
        assert found.eta.eta > 300


def test_ratio_is_none_without_plan_total_or_ratio(progress_capture: Capture) -> None:
    """Without a plan, a total or an explicit ratio there is no ratio until the operation completes."""
    with progress.operation("work") as op:
        op.advance(5)
        with progress.stage("step"):
            pass
        assert op.snapshot().progress.ratio is None
        assert op.snapshot().progress.percentage is None
    assert op.snapshot().progress.percentage == 100


# -- ends


def test_end_of_a_dropped_operation_is_interrupted(progress_capture: Capture) -> None:
    """An operation that is dropped without an end ends as interrupted."""
    op = progress.operation("work").start()
    progress_capture.look()
    del op
    gc.collect()
    progress_capture.look()
    ended = progress_capture.ended("work")
    assert (ended.status, ended.reason) == (Status.INTERRUPTED, "dropped without an end")


def test_end_of_the_process_interrupts_what_runs(progress_capture: Capture) -> None:
    """What runs at a normal exit ends as interrupted."""
    op = progress.operation("work").start()
    stage = op.stage("step").start()
    runtime.finish(1.0, "the process ended")
    assert (op.status, stage.status) == (Status.INTERRUPTED, Status.INTERRUPTED)
    assert progress_capture.ended("work").reason == "the process ended"


def test_what_the_end_interrupts_is_told_before_what_waits(progress_capture: Capture) -> None:
    """At the end of the process short operations may wait by the thousand; the one that ran is told first, in order."""
    with progress.operation("before"):
        pass
    op = progress.operation("work").start()
    op.stage("step").start()
    with progress.operation("later"):
        pass
    runtime.finish(1.0, "the process ended")
    told = [(event.snapshot.name, event.name.removeprefix("progress.")) for event in progress_capture.events]
    assert [name for name, _ in told].index("before") > [name for name, _ in told].index("work")
    assert [event for name, event in told if name == "work"] == [
        "operation.started",
        "stage.started",
        "stage.ended",
        "operation.ended",
    ]


def test_end_of_a_real_process_interrupts_what_runs() -> None:
    """A program that leaves an operation open reports it as interrupted at a normal exit."""
    import subprocess

    code = (
        "import otel_progress as p\n"
        "from otel_progress.live import hooks\n"
        "p.add_listener(lambda _: None)\n"
        "hooks.sinks.append(lambda e, _: print(e.name, e.snapshot.status.value, flush=True))\n"
        "op = p.operation('work').start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "progress.operation.ended interrupted" in done.stdout


def test_end_by_generator_exit_is_cancelled(progress_capture: Capture) -> None:
    """An operation inside a generator that is closed early is cancelled."""

    def numbers() -> Iterator[int]:
        with progress.operation("work"):
            yield 1

    generator = numbers()
    next(generator)
    generator.close()
    progress_capture.look()
    assert progress_capture.ended("work").status is Status.CANCELLED


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (0, Status.COMPLETED),
        (None, Status.COMPLETED),
        (False, Status.COMPLETED),
        (1, Status.INTERRUPTED),
        ("sorry", Status.INTERRUPTED),
        (0.0, Status.INTERRUPTED),
    ],
)
def test_end_by_system_exit(code: Any, status: Status, progress_capture: Capture) -> None:
    """SystemExit(0) is completed, every other code interrupted."""
    with pytest.raises(SystemExit), progress.operation("work") as op:
        sys.exit(code)
    assert op.status is status


# -- start_within, critical, depends_on


def test_start_within_counts_from_creation_to_start(progress_capture: Capture) -> None:
    """start_within counts from the creation, until the start."""
    op = progress.operation("work", start_within=5)
    progress_capture.clock.sleep(4.75)
    assert op.snapshot().health is Health.WAITING
    progress_capture.clock.sleep(0.25)
    assert op.snapshot().health is Health.SLOW
    assert op.snapshot().health_reason == "not started for 5 s, start_within is 5 s"
    op.start()
    progress_capture.advance(100)
    assert op.snapshot().health is Health.PROGRESSING
    assert op.snapshot().elapsed == 100
    op.complete()


def test_critical_and_depends_on_change_no_outcome(progress_capture: Capture) -> None:
    """critical and depends_on are displayed; a failed critical stage and an unmet dependency change nothing."""
    with progress.operation("work") as op:
        with pytest.raises(ValueError, match="no"), progress.stage("a", critical=True):
            raise ValueError("no")
        with progress.stage("b", critical=False, depends_on=["a", "never"]):
            pass
        with progress.stage("c", depends_on="b"):
            pass
    a, b, c = op.snapshot().stages
    assert (a.status, a.critical, a.depends_on) == (Status.FAILED, True, ())
    assert (b.status, b.critical, b.depends_on) == (Status.COMPLETED, False, ("a", "never"))
    assert c.depends_on == ("b",)
    assert op.status is Status.COMPLETED


# -- the same id


def test_same_id_while_it_lives_is_a_duplicate(progress_capture: Capture) -> None:
    """An id that is alive in this process cannot be started again; the first operation is unaffected."""
    with progress.operation("work", id="a") as first:
        with pytest.raises(progress.DuplicateOperation, match="end it first, or leave the id out"):
            progress.operation("work", id="a").start()
        assert progress.current() is first
    progress_capture.look()
    assert progress_capture.names() == [semconv.OPERATION_STARTED, semconv.OPERATION_ENDED]


def test_same_id_after_its_end_is_a_new_attempt(progress_capture: Capture) -> None:
    """The same id after its end is a new attempt, ordered by its start; other ids have their own count."""
    for _ in range(3):
        with progress.operation("work", id="a"):
            progress_capture.advance(1)
        with progress.operation("work"):
            pass
    progress_capture.look()
    ended = [event.snapshot for event in progress_capture.of(semconv.OPERATION_ENDED)]
    attempts = [(s.attempt, s.started_at) for s in ended if s.operation_id == "a"]
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert attempts == sorted(attempts, key=lambda pair: pair[1] or 0)
    assert {s.attempt for s in ended if s.operation_id != "a"} == {1}


def test_same_id_is_a_new_attempt_where_nobody_watches() -> None:
    """Duplicates and attempts are detected without any listener or SDK, too."""
    with progress.operation("work", id="unwatched") as first:
        with pytest.raises(progress.DuplicateOperation):
            progress.operation("work", id="unwatched").start()
    with progress.operation("work", id="unwatched") as second:
        assert (first.attempt, second.attempt) == (1, 2)


# -- listeners


def test_listeners_run_in_a_thread_of_their_own() -> None:
    """Listeners are called in a thread of their own, which has a name."""
    told = threading.Event()
    threads: list[threading.Thread] = []

    def callback(_: Any) -> None:
        threads.append(threading.current_thread())
        told.set()

    Dispatcher().put(Listener(callback), Event(semconv.UPDATED, 0, progress.operation("work").snapshot()))
    assert told.wait(30)
    assert threads[0] is not threading.current_thread()
    assert threads[0].name == "otel-progress-listeners"
    assert threads[0].daemon


def test_listeners_that_hang_harm_nobody() -> None:
    """While a listener hangs, reporting more returns at once, and what does not fit its queue is counted."""
    hanging, go_on = threading.Event(), threading.Event()

    def callback(_: Any) -> None:
        hanging.set()
        go_on.wait(60)

    before = drops.get(semconv.DROP_LISTENER, 0)
    dispatcher, listener = Dispatcher(), Listener(callback)
    event = Event(semconv.UPDATED, 0, progress.operation("work").snapshot())
    dispatcher.put(listener, event)
    assert hanging.wait(30)
    for _ in range(QUEUE + 7):
        dispatcher.put(listener, event)
    assert drops[semconv.DROP_LISTENER] - before == 7
    go_on.set()


# -- cost and tokens


def test_usage_adds_up_over_stages_and_calls(progress_capture: Capture) -> None:
    """Tokens and cost add up in the operation, whichever stage reports them; a cost is in USD by default."""
    with progress.operation("work") as op:
        progress.usage(input_tokens=10, output_tokens=1, cost=0.5)
        with progress.stage("step") as stage:
            progress.usage(input_tokens=5, cost=0.25)
            stage.usage(output_tokens=2, cost=3, currency="EUR")
    assert op.snapshot().usage == {"input_tokens": 15, "output_tokens": 3, "cost.USD": 0.75, "cost.EUR": 3}
    progress_capture.look()
    tokens = {
        p.attributes[semconv.TOKEN_DIRECTION]: p.value
        for p in progress_capture.metrics()
        if p.name == semconv.TOKENS.name
    }
    assert sorted(tokens.values()) == [3, 15]


def test_usage_loses_nothing_to_threads(progress_capture: Capture) -> None:
    """Outcomes and tokens of many simultaneous threads all count."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with progress.operation("work") as op, ThreadPoolExecutor(4) as pool:

            def work() -> None:
                for _ in range(5000):
                    op.record("ok")
                    op.usage(input_tokens=1)

            for task in [pool.submit(work) for _ in range(4)]:
                task.result()
    finally:
        sys.setswitchinterval(interval)
    assert op.snapshot().outcomes == {"ok": 20_000}
    assert op.snapshot().usage == {"input_tokens": 20_000}
