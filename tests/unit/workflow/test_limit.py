"""The adaptive limit: how many it lets through, how its size follows errors and times, and what its pauses show."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from types import MappingProxyType
from typing import Any

import anyio
import pytest
import trio

import otel_progress as progress
from otel_progress import InvalidArgument, InvalidState
from otel_progress.testing import Capture
from otel_progress.workflow import AdaptiveLimit, adaptive, machine


class Machine(machine.Machine):
    """A machine whose load a test decides."""

    cpu = memory = 0.0

    def _look(self, now: float) -> None:
        self._cpu, self._memory = self.cpu, self.memory


@pytest.fixture
def limit(progress_capture: Capture) -> AdaptiveLimit:
    return make(start=2, most=4)


def make(**options: Any) -> AdaptiveLimit:
    found = adaptive(**options)
    found._machine = Machine()
    return found


def use(
    limit: AdaptiveLimit, error: BaseException | None = None, capture: Capture | None = None, seconds: float = 0.0
) -> None:
    """Use a place, and leave it with an exception."""
    with contextlib.suppress(Exception, KeyboardInterrupt), limit:
        if capture is not None:
            capture.clock.sleep(seconds)
        if error is not None:
            raise error


def full(limit: AdaptiveLimit, capture: Capture, seconds: float = 1.0) -> None:
    """Use all places, with as many tasks in the queue, each for so long."""

    async def one() -> None:
        async with limit:
            capture.clock.sleep(seconds)
            await anyio.sleep(0)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(2 * limit.size):
                group.start_soon(one)

    asyncio.run(main())


@pytest.mark.parametrize("runs", [asyncio.run, lambda made: trio.run(lambda: made)])
def test_it_lets_so_many_tasks_through(runs: Any, limit: AdaptiveLimit) -> None:
    """At most `size` tasks are inside at once, and each gets its turn."""
    inside = [0, 0]

    async def one() -> None:
        async with limit:
            inside[0] += 1
            inside[1] = max(inside)
            assert inside[0] <= limit.size
            await anyio.sleep(0)
            inside[0] -= 1

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)

    runs(main())
    assert inside[0] == 0
    assert inside[1] >= 2
    assert limit._uses == {}


def test_it_lets_so_many_threads_through(limit: AdaptiveLimit) -> None:
    """At most `size` threads are inside at once, and each gets its turn."""
    limit._size._most = 2.0
    inside, most = [], []

    def one() -> None:
        with limit:
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.001)
            inside.pop()

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 20
    assert max(most) <= 2
    assert limit._threads == 0


def test_threads_take_turns(progress_capture: Capture) -> None:
    """A place goes to the thread that has waited longest, not to the one that has just left."""
    limit, took = make(start=1, most=1), []
    turns = threading.Barrier(3)

    def work(name: int) -> None:
        turns.wait(10)
        for _ in range(20):
            with limit:
                took.append(name)
                threading.Event().wait(0.001)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(set(took[at : at + 3])) == 3 for at in range(9, 45, 3))  # all of them wait there


def test_leaving_without_entering(limit: AdaptiveLimit) -> None:
    """It says what to do."""
    with pytest.raises(InvalidState, match="use 'with' or 'async with'"):
        limit.__exit__(None, None, None)


def test_it_works_in_one_event_loop_after_another(limit: AdaptiveLimit) -> None:
    """A limit made once for a module serves each event loop that comes."""

    async def main() -> None:
        async with limit:
            await anyio.sleep(0)

    asyncio.run(main())
    asyncio.run(main())
    trio.run(main)


def test_it_grows_only_at_its_limit(limit: AdaptiveLimit, progress_capture: Capture) -> None:
    """Uses that go well while places are free prove nothing; a full round adds about one place, up to the most."""
    for _ in range(50):
        use(limit, None, progress_capture, 1.0)
    assert limit.size == 2
    full(limit, progress_capture)
    assert 2.9 < limit._size._size < 3.6
    for _ in range(10):
        full(limit, progress_capture)
    assert limit.size == 4


def test_errors_shrink_it_once_a_round(progress_capture: Capture) -> None:
    """Errors of uses that began before it shrank tell of the same trouble."""
    limit = make(start=10, most=20)
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # three threads' worth of uses that began together
            thread = threading.Thread(target=use, args=(limit, ValueError("429")))
            stack.callback(thread.join)
            thread.start()
    assert limit.size == 7
    progress_capture.clock.sleep(1)
    use(limit, ValueError("429"))
    assert limit.size == 4
    for _ in range(10):
        progress_capture.clock.sleep(1)
        use(limit, ValueError("429"))
    assert limit.size == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KeyError("a bug")])
def test_what_is_no_trouble(error: BaseException, progress_capture: Capture) -> None:
    """A cancel and exceptions that `on` leaves out change nothing."""
    limit = make(start=10, most=20, on=(ConnectionError, TimeoutError))
    use(limit, error)
    assert limit.size == 10
    use(limit, ConnectionError())
    assert limit.size == 7


def test_uses_that_take_longer_shrink_it(progress_capture: Capture) -> None:
    """Recent uses that take twice their usual time are trouble; a single slow one is none."""
    limit = make(start=10, most=20)
    for _ in range(30):
        use(limit, None, progress_capture, 1.0)
    use(limit, None, progress_capture, 4.0)
    assert limit.size == 10
    for _ in range(5):
        use(limit, None, progress_capture, 4.0)
    assert limit.size < 10


@pytest.mark.parametrize(("cpu", "memory", "size"), [(99, 0, 2), (0, 99, 1), (50, 50, 4)])
def test_the_machine_is_a_brake(cpu: float, memory: float, size: int, progress_capture: Capture) -> None:
    """On a busy machine it does not grow; with little memory left it shrinks."""
    limit = make(start=2, most=4)
    Machine.cpu, Machine.memory = cpu, memory
    try:
        for _ in range(2):
            full(limit, progress_capture)
    finally:
        Machine.cpu = Machine.memory = 0.0
    assert limit.size == size


def test_the_real_machine() -> None:
    """psutil is asked once a second at most."""
    found = machine.Machine()
    assert found._psutil is not None
    assert not found.is_short_of_memory(100.0)
    found._memory = 99.0
    assert found.is_short_of_memory(100.9)
    assert not found.is_short_of_memory(101.0)


class Busy(Exception):
    headers = MappingProxyType({"retry-after": "0.02"})


@pytest.mark.parametrize("threads", [True, False])
def test_a_pause_is_a_declared_wait(threads: bool, limit: AdaptiveLimit, progress_capture: Capture) -> None:
    """Retry-After pauses all uses; each operation shows one wait, however many of its tasks wait."""

    async def one() -> None:
        async with limit:
            await anyio.sleep(0)

    async def tasks() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(one)

    use(limit, Busy())
    limit._size._size = 2.0
    with progress.operation("work"):
        use(limit) if threads else asyncio.run(tasks())
    progress_capture.look()
    started = progress_capture.of("progress.wait.started")
    assert [event.attributes["progress.wait.reason"] for event in started] == [
        "limit: pause of 20 ms, as the server asks"
    ]
    assert len(progress_capture.of("progress.wait.ended")) == 1


def test_a_queue_is_a_wait_only_where_nothing_works(progress_capture: Capture) -> None:
    """An operation whose tasks all wait for places of others waits; one with a task inside works."""
    limit = make(start=1, most=1, name="api")
    seen: list[str] = []

    async def other(entered: anyio.Event, leave: anyio.Event) -> None:
        with progress.operation("other"):
            async with limit:
                entered.set()
                await leave.wait()
                progress_capture.look()
                seen.extend(f"{one.name} {one.status.value}" for one in progress.operations())

    async def one() -> None:
        async with limit:
            pass

    async def main() -> None:
        entered, leave = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(other, entered, leave)
            await entered.wait()
            with progress.operation("mine"):
                async with anyio.create_task_group() as inner:
                    inner.start_soon(one)
                    inner.start_soon(one)
                    await anyio.wait_all_tasks_blocked()
                    leave.set()

    asyncio.run(main())
    assert sorted(seen) == ["mine waiting", "other running"]
    progress_capture.look()
    reasons = [event.attributes["progress.wait.reason"] for event in progress_capture.of("progress.wait.started")]
    assert reasons == ["api: all 1 places are in use"]
    assert limit._waits._tasks == {}


def test_a_task_that_is_cancelled_in_the_queue(limit: AdaptiveLimit) -> None:
    """A cancel while waiting, for a place or for the end of a pause, takes no place along."""
    limit._size._size = limit._size._most = 1.0

    async def waits() -> None:
        async with limit:
            raise AssertionError("was not cancelled")

    async def queue() -> None:
        async with anyio.create_task_group() as group:
            async with limit:
                group.start_soon(waits)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
        async with limit:
            pass

    asyncio.run(queue())

    async def pause() -> None:
        limit._paused_until = 1e9
        with anyio.move_on_after(0.01):
            await waits()
        limit._paused_until = 0.0
        async with limit:
            pass

    asyncio.run(pause())


def test_twice_in_one_task(limit: AdaptiveLimit) -> None:
    """A task or thread that is inside already is refused: it might wait for itself for ever."""

    async def main() -> None:
        async with limit, limit:
            pass

    with pytest.raises(InvalidState, match="this task is inside the limit 'limit' already"):
        asyncio.run(main())
    with pytest.raises(InvalidState, match="this thread is inside"), limit, limit:
        pass
    assert (limit._threads, limit._uses) == (0, {})


def test_its_size_is_a_gauge(progress_capture: Capture) -> None:
    """The metric has the size of each limit by name; two of one name add up; one that is gone leaves."""

    def sizes() -> dict[str, float]:
        return {
            str(point.attributes["progress.limit.name"]): point.value
            for point in progress_capture.metrics()
            if point.name == "progress.limit.size"
        }

    kept = [make(start=3, name="api"), make(start=4, name="api"), make(start=5, name="disk")]
    assert sizes() == {"api": 7, "disk": 5}
    del kept[2]
    gc.collect()
    assert sizes() == {"api": 7}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 0}, "1 <= least <= start <= most"),
        ({"start": 65}, "start=65, most=64"),
        ({"least": 9}, "least=9, start=8"),
        ({"most": 3.5}, "most=3.5"),
        ({"start": True}, "start=True"),
        ({"name": ""}, "the name of a limit must be a text"),
        ({"name": 3}, "not 3"),
        ({"on": "ValueError"}, r"on of adaptive\(\) must be an exception class"),
    ],
)
def test_options_that_can_not_be(options: dict[str, Any], said: str) -> None:
    """Invalid options are refused at once."""
    with pytest.raises(InvalidArgument, match=said):
        adaptive(**options)
