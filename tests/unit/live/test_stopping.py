"""Requests to stop: code that checks and `track` loops raise, wherever they run; what cleans up runs to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import OperationCancelled, semconv
from otel_progress.live.engine import commands, watchdog
from otel_progress.live.registry import registry
from otel_progress.testing import Capture


def stop_by(how: str, operation: progress.Operation) -> None:
    """Ask an operation to stop."""
    if how == "request":
        operation.request_cancel("enough")
    elif how == "monitor":
        commands.obey({"kind": "cancel", "operation_id": operation.id, "reason": "enough"})
    else:
        watchdog.ask_to_stop(operation, "enough")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["request", "monitor", "stall policy"])
def test_a_loop_raises_at_its_next_item(how: str, progress_capture: Capture) -> None:
    """Whoever asks: the loop raises instead of the next item, and the operation ends as cancelled."""
    taken = []
    with pytest.raises(OperationCancelled, match="'x' was asked to stop: enough"), progress.operation("x") as one:
        for item in progress.track(range(10)):
            taken.append(item)
            if item == 3:
                stop_by(how, one)
    assert taken == [0, 1, 2, 3]
    assert one.status == "cancelled"


@pytest.mark.parametrize("watched", [True, False])
def test_what_runs_below_is_stopped(watched: bool, request: pytest.FixtureRequest) -> None:
    """Operations in the operation are asked, too; what is no part of it goes on."""
    if watched:
        request.getfixturevalue("progress_capture")
    with progress.operation("around"):
        other = progress.operation("other").start()
        with progress.operation("top") as top, progress.operation("child") as child:
            grandchild = progress.operation("grandchild").start()
            top.request_cancel("enough")
            for each in (child, grandchild):
                with pytest.raises(OperationCancelled, match="enough"):
                    list(each.track(range(3)))
            assert not other.cancel_requested()
        other.complete()
        grandchild.cancel()


@pytest.mark.parametrize("kind", ["for", "async for"])
def test_loops_of_a_task(kind: str, progress_capture: Capture) -> None:
    """A request by code cancels no task, so its loops raise there."""
    taken: list[int] = []

    async def source() -> AsyncIterator[int]:
        for item in range(10):
            yield item

    async def main() -> None:
        with progress.operation("x") as one:
            if kind == "for":
                for item in progress.track(range(10)):
                    taken.append(item)
                    await asyncio.sleep(0)
                    if item == 3:
                        one.request_cancel()
            else:
                async for item in progress.track(source()):
                    taken.append(item)
                    if item == 3:
                        one.request_cancel()

    with pytest.raises(OperationCancelled):
        asyncio.run(main())
    assert taken == [0, 1, 2, 3]


def test_a_monitor_stops_loops_of_tasks_that_it_can_not_cancel(progress_capture: Capture) -> None:
    """An operation around `asyncio.run` has no task, so the loops in its tasks raise."""
    taken: list[int] = []

    async def main() -> None:
        for item in progress.track(range(10)):
            taken.append(item)
            if item == 3:
                await asyncio.to_thread(stop_by, "monitor", one)

    with pytest.raises(OperationCancelled), progress.operation("x", id="x-1") as one:
        asyncio.run(main())
    assert taken == [0, 1, 2, 3]


def test_all_jobs_of_a_pool_are_stopped(progress_capture: Capture) -> None:
    """That one job of a thread heard of it stops no other; the thread that waits for them may clean up."""
    taken: list[int] = []
    begun, asked = threading.Barrier(3), threading.Event()

    def job(number: int) -> None:
        for item in progress.track(range(10)):
            taken.append(number)
            if number < 2 and item == 0:
                begun.wait(10)
                asked.wait(10)

    with progress.operation("x") as one, progress.CarryingExecutor(2) as pool:
        jobs = [pool.submit(job, number) for number in range(6)]
        begun.wait(10)
        one.request_cancel()
        asked.set()
        cleaned = []
        try:
            for each in jobs:
                each.result(10)
        except OperationCancelled:
            cleaned += list(progress.track(range(3)))
        assert all(isinstance(each.exception(10), OperationCancelled) for each in jobs)
    assert sorted(taken) == [0, 1]
    assert cleaned == [0, 1, 2]


def test_what_cleans_up_runs_to_its_end(progress_capture: Capture) -> None:
    """Once code was told, its later loops are its own matter."""
    with pytest.raises(OperationCancelled), progress.operation("x") as one:
        one.request_cancel()
        try:
            progress.raise_if_cancelled()
        except OperationCancelled:
            assert list(progress.track(range(3))) == [0, 1, 2]
        assert list(progress.track(range(3))) == [0, 1, 2]
        progress.raise_if_cancelled()


LATE: dict[str, Callable[[progress.Operation], object]] = {
    "check": lambda one: progress.raise_if_cancelled(),
    "loop": lambda one: list(progress.track(range(3))),
    "own loop": lambda one: list(one.track(range(3))),
    "keyed loop": lambda one: list(progress.track(range(3), key=str)),
}


@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("what", LATE)
def test_a_thread_that_outlives_the_operation(
    what: str, around: bool, tmp_path: Any, progress_capture: Capture
) -> None:
    """It is told after the end as well, and no operation around the ended one answers for it."""
    ended = threading.Event()

    def work(one: progress.Operation) -> None:
        ended.wait(10)
        assert progress.cancel_requested()
        LATE[what](one)

    with progress.operation("around"), ThreadPoolExecutor(1) as pool:
        parent = None if around else "elsewhere"
        options: Any = {"id": "x-1", "resume": str(tmp_path / "work.db")} if what == "keyed loop" else {}
        with progress.operation("x", parent=parent, **options) as one:
            found = pool.submit(progress.carry(work), one)
            one.request_cancel("enough")
        ended.set()
        with pytest.raises(OperationCancelled, match="enough"):
            found.result(10)


def test_a_handler_of_a_signal_may_ask(progress_capture: Capture) -> None:
    """It runs while the same thread holds locks of ours."""
    with progress.operation("x") as one, registry.lock:
        one.request_cancel()
    assert one.cancel_requested()


def test_a_task_cancelled_by_a_scope_says_why(progress_capture: Capture) -> None:
    """The message of anyio's cancel names an object in memory; the reason of the request is shown instead."""

    async def main() -> None:
        raise asyncio.CancelledError("Cancelled via cancel scope 7f67a470b2e0 by <Task cancelling name='x'>")

    with pytest.raises(asyncio.CancelledError), progress.operation("x") as one:
        one.request_cancel("enough")
        with progress.stage("s"):
            asyncio.run(main())
    snapshot = one.snapshot()
    assert [snapshot.reason, snapshot.stages[0].reason] == ["cancelled: enough"] * 2


@pytest.mark.parametrize("how", ["monitor", "owner"])
def test_a_coroutine_in_a_workers_loop_that_awaits_forever(how: str, progress_capture: Capture) -> None:
    """It is cancelled where it awaits, if hooks of the worker opened and close its operation in its task, as taskiq's
    do; the worker and its other tasks go on.
    """
    opened: dict[str, Any] = {}

    async def hang() -> None:
        await asyncio.Event().wait()

    async def work(name: str, job: Callable[[], Any]) -> BaseException | None:
        opened[name] = progress.operation(name, attributes={semconv.OWNER: "ann"}).__enter__()
        error: BaseException | None = None
        try:
            await job()
        except BaseException as raised:
            error = raised
        opened[name].__exit__(None if error is None else type(error), error, None)
        return error

    async def worker() -> list[BaseException | None]:
        done = asyncio.Event()
        tasks = [asyncio.create_task(work("stuck", hang)), asyncio.create_task(work("well", done.wait))]
        while len(opened) < len(tasks):
            await asyncio.sleep(0)
        await asyncio.to_thread(ask)
        ended, _ = await asyncio.wait(tasks[:1], timeout=20)
        assert ended, "it still awaits"
        done.set()
        return [await task for task in tasks]

    def ask() -> None:
        if how == "owner":
            key = opened["stuck"].id
            commands.obey({"kind": "cancel-owned", "owner": "ann", "operation_id": key, "reason": "enough"})
        else:
            stop_by(how, opened["stuck"])

    stuck, well = asyncio.run(worker())
    assert (type(stuck), well) == (asyncio.CancelledError, None)
    progress_capture.look()
    ends = progress_capture.ended("stuck"), progress_capture.ended("well")
    assert [one.status.value for one in ends] == ["cancelled", "completed"]
    assert "enough" in str(ends[0].reason)
