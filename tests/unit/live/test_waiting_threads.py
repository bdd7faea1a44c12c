"""A thread that waits for another one is stuck at its own line; whether the other one moves is said beside it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import pytest

from otel_progress import clock
from otel_progress.api import operation, stage, track
from otel_progress.live.diagnosis import movement
from otel_progress.live.diagnosis.call_stack import Place, here, where
from otel_progress.live.engine.moving_threads import moving_threads

LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
WAIT = 30.0
LOCK = threading.RLock()  # global, as variables of a function are not read before Python 3.13


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """No glance of an earlier test is compared."""
    movement.forget()
    yield
    movement.forget()


class Job:
    """A thread that waits, and one for which it waits."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.place: queue.SimpleQueue[Place] = queue.SimpleQueue()
        self.step = threading.Semaphore(0)
        self.held = threading.Event()

    def work(self, _: object = None) -> None:
        """Hang until the test ends."""
        self.held.set()
        self.stop.wait()  # the work

    def hold(self) -> None:
        """Hold the lock until the test ends."""
        with LOCK:
            self.work()


def line(marker: str) -> str:
    """The place of the line that ends with this marker, without the name of the function."""
    (number,) = (number for number, text in enumerate(LINES, 1) if text.endswith(f"# {marker}"))
    return f"test_waiting_threads.py:{number} in "


@contextlib.contextmanager
def running(body: Callable[[Job], object]) -> Iterator[tuple[Job, Place]]:
    """A thread in this body, until the block ends."""
    job = Job()

    def run() -> None:
        job.place.put(here())
        body(job)

    thread = threading.Thread(target=run, name="job", daemon=True)
    thread.start()
    try:
        yield job, job.place.get(timeout=WAIT)
    finally:
        job.stop.set()
        job.step.release(1_000)
        thread.join(WAIT)
        assert not thread.is_alive()


Found = TypeVar("Found")


def until(look: Callable[[], Found | None], right: Callable[[Found], bool]) -> Found:
    """Look until it is right."""
    deadline = time.monotonic() + WAIT
    while True:
        found = look()
        if found is not None and right(found):
            return found
        assert time.monotonic() < deadline, f"never seen; the last look saw {found}"
        time.sleep(0.001)


# -- what waits for a thread


def in_join(job: Job) -> None:
    thread = threading.Thread(target=job.work, name="other", daemon=True)
    thread.start()
    thread.join()  # join


def in_result(job: Job) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        pool.submit(job.work).result()  # result


def in_shutdown(job: Job) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:  # shutdown
        pool.submit(job.work)


def in_as_completed(job: Job) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        for _ in as_completed([pool.submit(job.work)]):  # as_completed
            pass


def in_wait(job: Job) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        wait([pool.submit(job.work)])  # wait


def in_queue_join(job: Job) -> None:
    items: queue.Queue[int] = queue.Queue()

    def worker() -> None:
        items.get()
        job.work()
        items.task_done()

    items.put(1)
    threading.Thread(target=worker, name="other", daemon=True).start()
    items.join()  # queue.join


def in_to_thread(job: Job) -> None:
    async def main() -> None:
        await asyncio.to_thread(job.work)  # to_thread

    asyncio.run(main())


def in_executor(job: Job) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
            await asyncio.get_running_loop().run_in_executor(pool, job.work)  # run_in_executor

    asyncio.run(main())


def in_anyio(job: Job) -> None:
    async def main() -> None:
        await anyio.to_thread.run_sync(job.work)  # anyio.to_thread

    anyio.run(main)


def in_a_lock(job: Job) -> None:
    threading.Thread(target=job.hold, name="other", daemon=True).start()
    job.held.wait()
    with LOCK:  # a lock
        pass


BEHIND: dict[str, tuple[Callable[[Job], None], str]] = {
    "join": (in_join, "thread other"),
    "result": (in_result, "thread pool_0"),
    "shutdown": (in_shutdown, "thread pool_0"),
    "as_completed": (in_as_completed, "thread pool_0"),
    "wait": (in_wait, "thread pool_0"),
    "queue.join": (in_queue_join, "thread other"),
    "to_thread": (in_to_thread, "thread asyncio_0"),
    "run_in_executor": (in_executor, "thread pool_0"),
    "anyio.to_thread": (in_anyio, "thread AnyIO worker thread"),
    "a lock": (in_a_lock, "thread other"),
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_waits_for_a_thread_names_its_own_line_and_that_of_the_thread(name: str) -> None:
    """The line is the one that waits; the thread for which it waits follows, with the line at which that one is."""
    body, who = BEHIND[name]
    with running(body) as (_, place):
        rest = f", waiting for {who} at {line('the work')}work"
        found = until(lambda: where([place]), lambda found: found.at.startswith(line(name)) and found.at.endswith(rest))
    assert found.mine


# -- what waits for something else


def in_get(_: Job) -> None:
    with contextlib.suppress(queue.Empty):
        queue.Queue[int]().get(timeout=3)  # get


def in_select(_: Job) -> None:
    one, other = socket.socketpair()
    with one, other:
        select.select([one], [], [], 3)  # select


def in_communicate(_: Job) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(3)  # child
        child.communicate(b"\n")


def in_a_process_pool(job: Job) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.map(time.sleep, [3])  # pool.map


def in_a_condition(_: Job) -> None:
    condition = threading.Condition()
    with condition:
        condition.wait(3)  # condition


@pytest.mark.parametrize(
    ("body", "marker"),
    [
        (in_get, "get"),
        (in_select, "select"),
        (in_communicate, "child"),
        (in_a_process_pool, "pool.map"),
        (in_a_condition, "condition"),
    ],
)
def test_what_waits_for_no_thread_names_its_own_line_alone(body: Callable[[Job], None], marker: str) -> None:
    """Nobody knows who should fill a queue, or what a socket, a child or another process does."""
    with running(body) as (_, place):
        found = until(lambda: where([place]), lambda found: found.at.startswith(line(marker)))
    assert "waiting for" not in found.at


# -- whether the other thread moves


def test_a_thread_whose_lines_change_is_said_to_move() -> None:
    """One that was at another line a second ago is not stuck; its line is not told as if it were."""

    def body(job: Job) -> None:
        def work() -> None:
            job.step.acquire()
            job.step.acquire()  # the next

        thread = threading.Thread(target=work, name="other", daemon=True)
        thread.start()
        thread.join()  # for one that moves

    with running(body) as (job, place):
        until(lambda: where([place]), lambda found: "waiting for" in found.at)
        movement.glance(clock.monotonic())
        job.step.release()
        until(lambda: where([place]), lambda found: line("the next") in found.stack)
        found = where([place])
    assert found is not None
    assert found.at == f"{line('for one that moves')}body, waiting for thread other, which moves"
    assert found.stack.startswith("thread other, which moves:\n")


def test_a_thread_that_stays_at_its_line_is_not_said_to_move() -> None:
    """A glance that saw the same lines proves no movement."""
    with running(in_join) as (_, place):
        rest = f"at {line('the work')}work"
        until(lambda: where([place]), lambda found: found.at.endswith(rest))
        movement.glance(clock.monotonic())
        found = where([place])
    assert found is not None
    assert found.at.endswith(rest)


def test_old_glances_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread did long ago does not say that it moves now."""

    def body(job: Job) -> None:
        def then_work() -> None:
            job.step.acquire()
            job.work()

        thread = threading.Thread(target=then_work, name="other", daemon=True)
        thread.start()
        thread.join()

    with running(body) as (job, place):
        until(lambda: where([place]), lambda found: "waiting for" in found.at)
        movement.glance(clock.monotonic() - movement.LASTS - 1)
        job.step.release()
        found = until(lambda: where([place]), lambda found: line("the work") in found.stack)
    assert "moves" not in found.at


def test_a_thread_whose_own_work_makes_progress_is_said_to_move(progress_capture: Any) -> None:
    """A loop of its own that takes items proves that it moves, although it is at the same line at each look."""

    def body(job: Job) -> None:
        def work() -> None:
            with operation("its own") as handle:
                own.append(handle)
                for _ in track(range(500)):
                    job.step.acquire()  # an item

        thread = threading.Thread(target=work, name="other", daemon=True)
        thread.start()
        thread.join()

    own: list[Any] = []
    with running(body) as (job, place):
        until(lambda: where([place]), lambda found: line("an item") in found.stack)
        progress_capture.advance(10.0)
        stands = where([place], moving=lambda: moving_threads(clock.monotonic() - 5.0))
        job.step.release(3)
        until(lambda: own[0].snapshot(), lambda snapshot: (snapshot.progress.completed or 0) >= 2)
        progress_capture.advance(1.0)
        moves = where([place], moving=lambda: moving_threads(clock.monotonic() - 5.0))
    assert stands is not None
    assert moves is not None
    assert line("an item") in stands.at
    assert moves.at.endswith("waiting for thread other, which moves")


def test_a_thread_that_moves_is_named_with_its_line_where_only_that_is_the_users() -> None:
    """Where a library waits for it, the user's line is all that is known; that it moves is said."""

    def body(job: Job) -> None:
        def work() -> None:
            job.step.acquire()
            job.step.acquire()  # moves on

        with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
            handed.put(pool.submit(work))
            job.stop.wait()

    handed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    code = compile("def wait(job):\n    told.put(here())\n    handed.get().result()\n", queue.__file__, "exec")
    known: dict[str, Any] = {"told": queue.SimpleQueue(), "here": here, "handed": handed}
    exec(code, known)  # a thread in which all lines are a library's
    waits = threading.Thread(target=known["wait"], args=(None,), name="waits", daemon=True)
    with running(body) as (job, _):
        waits.start()
        place = known["told"].get(timeout=WAIT)
        until(lambda: where([place]), lambda found: "thread pool_0" in found.stack)
        movement.glance(clock.monotonic())
        job.step.release()
        found = until(lambda: where([place]), lambda found: line("moves on") in found.stack)
    waits.join(WAIT)
    assert found.at == f"{line('moves on')}work, in thread pool_0, which moves"


def test_of_several_threads_one_that_does_not_move_is_named() -> None:
    """A pool with one thread that hangs and others that move names the one that hangs."""

    def body(job: Job) -> None:
        def work(number: int) -> None:
            if number == 1:
                job.work()
            job.step.acquire()
            job.stop.wait()  # its next line

        with ThreadPoolExecutor(3, thread_name_prefix="pool") as pool:
            for _ in as_completed([pool.submit(work, number) for number in range(3)]):
                pass

    with running(body) as (job, place):
        until(lambda: where([place]), lambda found: found.stack.count("\nthread pool_") == 2)
        assert job.held.wait(WAIT)
        movement.glance(clock.monotonic())
        job.step.release(2)
        found = until(lambda: where([place]), lambda found: found.stack.count(line("its next line")) == 2)
    assert found.at.endswith(f"waiting for thread pool_1 at {line('the work')}work")
    assert found.stack.count("which moves:") == 2


def test_an_operation_that_joins_a_thread_that_moves_says_so(progress_capture: Any) -> None:
    """The event that it is stuck has the line of the join, and not the line of the thread as if that hung."""

    def body(job: Job) -> None:
        def work() -> None:
            with operation("moves"):
                for _ in track(range(500)):
                    job.step.acquire()

        with operation("waits", stall_after=30.0), stage("join"):
            thread = threading.Thread(target=work, name="other", daemon=True)
            thread.start()
            job.held.set()
            thread.join()  # the join of an operation

    with running(body) as (job, place):
        assert job.held.wait(WAIT)
        until(lambda: where([place]), lambda found: "waiting for" in found.at)
        for _ in range(40):
            job.step.release()
            until(lambda: job.step, lambda step: step._value == 0)  # it took the item
            progress_capture.advance(1.0)
        stalls = [event for event in progress_capture.events if event.name == "progress.stalled"]
    assert [event.snapshot.name for event in stalls] == ["waits"]
    assert stalls[0].snapshot.stuck_at == (
        f"{line('the join of an operation')}body, waiting for thread other, which moves"
    )
