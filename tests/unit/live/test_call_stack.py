"""Where it is stuck: the user's line at which a thread or a task hangs, on real hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import wrapt

from otel_progress import semconv
from otel_progress.api import operation, stage
from otel_progress.live.diagnosis import source_lines, vitals
from otel_progress.live.diagnosis.call_stack import AT_LENGTH, STACK_LENGTH, Place, Where, here, where
from otel_progress.testing import Capture

LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
WAIT = 30.0


def at(marker: str) -> str:
    """The place of the line that ends with this marker, without the name of the function."""
    (number,) = (number for number, line in enumerate(LINES, 1) if line.endswith(f"# {marker}"))
    return f"test_call_stack.py:{number} in "


def text(found: Where | None) -> str:
    """What was found, in words."""
    return "nothing" if found is None else f"at {found.at}\n{found.stack}"


def until(look: Callable[[], Where | None], right: Callable[[Where], bool]) -> Where:
    """Look until it is right."""
    deadline = time.monotonic() + WAIT
    while True:
        found = look()
        if found is not None and right(found):
            return found
        assert time.monotonic() < deadline, f"never seen; the last look saw {text(found)}"
        time.sleep(0.001)


def until_at(place: Place | list[Place], marker: str) -> Where:
    """Look until it hangs at the marked line."""
    places = place if isinstance(place, list) else [place]
    return until(lambda: where(places), lambda found: found.at.startswith(at(marker)))


def until_behind(place: Place | list[Place], marker: str, other: str, who: str) -> Where:
    """Look until it hangs at the marked line, as it waits for another thread, which is at the other marked line."""
    places = place if isinstance(place, list) else [place]
    waits = f", waiting for {who} at {at(other)}"
    return until(lambda: where(places), lambda found: found.at.startswith(at(marker)) and waits in found.at)


class Job:
    """A thread that runs a function until it is released."""

    def __init__(self, body: Callable[[Job], object], name: str = "job") -> None:
        self.stop = threading.Event()
        self.body = body
        self.told: queue.SimpleQueue[Place] = queue.SimpleQueue()
        self.on_release: list[Callable[[], object]] = []
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)

    def run(self) -> None:
        """Say where it runs, and go on."""
        self.told.put(here())
        self.body(self)

    def __enter__(self) -> Place:
        self.thread.start()
        return self.told.get(timeout=WAIT)

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for release in self.on_release:
            release()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()


# -- threads


def in_a_lock(job: Job) -> None:
    lock = threading.Lock()
    lock.acquire()
    job.on_release.append(lock.release)
    lock.acquire()  # in a lock


def in_sleep(job: Job) -> None:
    while not job.stop.is_set():
        time.sleep(0.05)  # in sleep


@pytest.mark.parametrize("file", ["<string>", "<job 7>", "<template>"])
def test_code_without_a_file_is_shown_by_its_line(file: str) -> None:
    """As of `exec` in a thread where nothing else is the user's: it is no library's, and better than nothing."""
    told: queue.SimpleQueue[Place] = queue.SimpleQueue()
    stop = threading.Event()
    known: dict[str, Any] = {"told": told, "here": here, "stop": stop}
    exec(compile("def work():\n    told.put(here())\n    stop.wait()\n", file, "exec"), known)
    thread = threading.Thread(target=known["work"], daemon=True)
    thread.start()
    place = told.get(timeout=WAIT)
    found = until(lambda: where([place]), lambda found: found.at == f"{file}:3 in work")
    assert found.mine
    stop.set()
    thread.join(WAIT)


def in_recv(job: Job) -> None:
    one, other = socket.socketpair()
    job.on_release.append(lambda: one.send(b"x"))
    with one, other:
        other.recv(1)  # in recv


def in_queue_get(job: Job) -> None:
    items: queue.Queue[int] = queue.Queue()
    job.on_release.append(lambda: items.put(1))
    items.get()  # in queue.get


def in_subprocess_wait(job: Job) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        job.on_release.append(lambda: process.communicate(b"\n", timeout=WAIT))
        process.wait()  # in subprocess.wait


def in_an_endless_loop(job: Job) -> None:
    while not job.stop.is_set():  # in an endless loop
        pass


def recurse(job: Job, depth: int) -> None:
    if depth:
        recurse(job, depth - 1)  # recursion
    job.stop.wait()  # in recursion


def in_recursion(job: Job) -> None:
    recurse(job, 300)


@wrapt.decorator
def decorated(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


@decorated
def in_a_decorated_function(job: Job) -> None:
    job.stop.wait()  # in a decorated function


@operation("outer")
def in_an_operation(job: Job) -> None:
    with stage("inner"):
        job.stop.wait()  # in an operation


def slow_items(job: Job) -> Iterator[int]:
    yield 1
    job.stop.wait()  # in a generator
    yield 2


def in_a_generator(job: Job) -> None:
    for _ in slow_items(job):
        pass


def in_a_method(job: Job) -> None:
    class Worker:
        def work(self) -> None:
            sorted([2, 1], key=lambda _: job.stop.wait())  # in a method

    Worker().work()


THREADS = {
    function.__name__.replace("_", " ").replace("queue get", "queue.get").replace("subprocess wait", "subprocess.wait"): function
    for function in (
        in_a_lock, in_sleep, in_recv, in_queue_get, in_subprocess_wait, in_recursion,
        in_a_decorated_function, in_an_operation, in_a_generator, in_a_method,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", THREADS)
def test_the_line_of_a_thread(name: str) -> None:
    """A thread that hangs is told with the user's line, its source, and the name of the thread."""
    with Job(THREADS[name], name="the worker") as place:
        found = until_at(place, name)
    first, second, *rest = found.stack.split("\n")
    assert first == "thread the worker:"
    assert second == "  " + found.at
    source = LINES[int(found.at.split(":")[1].split()[0]) - 1]
    assert rest[0].strip() == source.partition("  # ")[0].strip()


def test_the_line_of_an_endless_loop() -> None:
    """A thread that runs without end is told with the line that it runs."""
    with Job(in_an_endless_loop) as place:
        until_at(place, "in an endless loop")


def test_library_calls_are_condensed() -> None:
    """The innermost library call and the one that the user made stand under the user's line, in one line."""
    with Job(in_queue_get) as place:
        found = until_at(place, "in queue.get")
    lines = [line.strip() for line in found.stack.split("\n")]
    assert lines[1].endswith("in in_queue_get")
    assert lines[2] == "items.get()"
    assert lines[3].startswith("in threading.py:")
    assert "in wait, called from queue.py:" in lines[3]
    assert "_bootstrap" not in found.stack


def test_frames_of_this_library_are_left_out() -> None:
    """What this library does around the user's functions is not shown."""
    with Job(in_an_operation) as place:
        found = until_at(place, "in an operation")
    assert "otel_progress" not in found.stack
    assert "decorators.py" not in found.stack


def test_recursion_is_cut() -> None:
    """Deep recursion is one line with a count, and what is around it is still seen."""
    with Job(in_recursion) as place:
        found = until_at(place, "in recursion")
    assert "… the same 299 times more" in found.stack
    assert "in in_recursion" in found.stack
    assert at("recursion") in found.stack


def test_deep_stacks_are_cut_in_the_middle() -> None:
    """Of a deep stack the innermost and the outermost frames are shown, and how many are left out."""

    def one(job: Job, depth: int) -> None:
        other(job, depth - 1) if depth else job.stop.wait()  # deep

    def other(job: Job, depth: int) -> None:
        one(job, depth - 1) if depth else job.stop.wait()

    def outermost(job: Job) -> None:
        one(job, 200)

    with Job(outermost) as place:
        found = until_at(place, "deep")
    assert len([line for line in found.stack.split("\n") if "test_call_stack.py:" in line]) <= 30
    assert "in outermost" in found.stack
    assert len(found.stack) <= STACK_LENGTH
    assert "frames left out …" in found.stack


def test_a_thread_that_is_gone() -> None:
    """Nothing is told of a thread that ended, even where another one has its ident."""
    with Job(lambda job: None) as place:
        pass
    for _ in range(50):
        with Job(in_a_lock) as other:
            assert where([place]) is None
            if other.thread == place.thread:
                break


def test_several_places() -> None:
    """Threads are told in the order given, four at the most, and each once."""
    jobs = [Job(in_a_lock, name=f"worker {number}") for number in range(6)]
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(job) for job in jobs]
        for place in places:
            until_at(place, "in a lock")
        found = where([places[3], places[1], places[3], *places])
    assert found is not None
    titles = [line for line in found.stack.split("\n") if line.startswith("thread")]
    assert titles == [f"thread worker {number}:" for number in (3, 1, 0, 2)]


def test_nothing_to_look_at() -> None:
    """Without a place there is nothing to tell."""
    assert where([]) is None


def test_a_thread_that_waits_for_a_pool() -> None:
    """Where a thread waits for a future of a pool, both lines are told; in the stack that of the pool's thread first."""

    def work(job: Job) -> None:
        job.stop.wait()  # in the pool

    def wait(job: Job) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
            list(pool.map(work, [job]))  # for the pool

    with Job(wait) as place:
        found = until_behind(place, "for the pool", "in the pool", "thread pool_0")
    titles = [line for line in found.stack.split("\n") if line.startswith("thread")]
    assert titles == ["thread pool_0:", "thread job, which waits for the above:"]
    assert "list(pool.map(work, [job]))" in found.stack


def test_a_thread_that_joins_another() -> None:
    """Where a thread joins another, both lines are told."""

    def work(job: Job) -> None:
        job.stop.wait()  # in the joined thread

    def wait(job: Job) -> None:
        thread = threading.Thread(target=work, args=(job,), name="joined", daemon=True)
        thread.start()
        thread.join()  # for the joined thread

    with Job(wait) as place:
        found = until_behind(place, "for the joined thread", "in the joined thread", "thread joined")
    assert "thread.join()" in found.stack


def test_a_pool_thread_and_its_waiter_are_told_once() -> None:
    """The places of an operation and of its stage in a pool are each told once."""
    pooled: queue.SimpleQueue[Place] = queue.SimpleQueue()

    def work(job: Job) -> None:
        pooled.put(here())
        job.stop.wait()  # in a stage in a pool

    def wait(job: Job) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
            pool.submit(work, job).result()  # for a stage in a pool

    with Job(wait) as place:
        inner = pooled.get(timeout=WAIT)
        for places in ([place, inner], [inner, place]):
            found = until_behind(places, "for a stage in a pool", "in a stage in a pool", "thread pool_0")
            assert found.stack.count("job.stop.wait()") == 1


# -- tasks


class Tasks:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.told: queue.SimpleQueue[Place] = queue.SimpleQueue()
        self.loops: Future[asyncio.AbstractEventLoop] = Future()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.main()), name="loop", daemon=True)

    async def main(self) -> None:
        """Runs until it is told to end."""
        self.over = asyncio.Event()
        self.loops.set_result(asyncio.get_running_loop())
        await self.over.wait()

    def __enter__(self) -> Tasks:
        self.thread.start()
        self.loop = self.loops.result(WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(WAIT)
        assert not self.thread.is_alive()

    def start(self, body: Callable[[], Awaitable[object]], name: str = "the task") -> Place:
        """The place of a new task that awaits this."""

        async def run() -> object:
            self.told.put(here())
            return await body()

        def make() -> None:
            self.tasks = {*getattr(self, "tasks", ()), asyncio.ensure_future(run())}
            for task in self.tasks:
                if task.get_name().startswith("Task-"):
                    task.set_name(name)

        self.loop.call_soon_threadsafe(make)
        return self.told.get(timeout=WAIT)

    def call(self, fn: Callable[[], object]) -> None:
        """Have the loop call this."""
        self.loop.call_soon_threadsafe(fn)


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    """An event loop in a thread of its own."""
    with Tasks() as running:
        yield running


async def never(event: asyncio.Event | None = None) -> None:
    await (event or asyncio.Event()).wait()  # never


async def on_a_future() -> None:
    await asyncio.get_running_loop().create_future()  # on a future


async def on_an_event() -> None:
    await asyncio.Event().wait()  # on an event


async def on_a_queue() -> None:
    await asyncio.Queue().get()  # on a queue


async def five(depth: int) -> None:
    if depth:
        await five(depth - 1)
    await asyncio.sleep(1000)  # nested


async def nested() -> None:
    await five(5)


async def in_gather() -> None:
    await asyncio.gather(asyncio.sleep(0), never(), asyncio.sleep(0))


async def in_wait_for() -> None:
    await asyncio.wait_for(never(), 1000)


async def in_wait() -> None:
    await asyncio.wait([asyncio.ensure_future(never())])


async def in_shield() -> None:
    await asyncio.shield(never())


async def in_shielded_gather() -> None:
    await asyncio.wait_for(asyncio.shield(asyncio.gather(never())), 1000)


async def in_a_task() -> None:
    await asyncio.ensure_future(never())


async def in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        group.create_task(asyncio.sleep(0))
        group.create_task(never())


async def some() -> Any:
    yield 1
    await never()


async def in_an_async_generator() -> None:
    async for _ in some():
        pass


@operation("items")
async def operated() -> Any:
    yield 1
    await never()


async def in_a_decorated_async_generator() -> None:
    async for _ in operated():
        pass


@operation("coroutine")
async def in_a_decorated_coroutine() -> None:
    await never()


async def in_async_with() -> None:
    @contextlib.asynccontextmanager
    async def opened() -> Any:
        await never()
        yield

    async with opened():
        pass


async def in_anext() -> None:
    items = some()
    await items.__anext__()
    await items.asend(None)


class Waits:
    """Something of the user that can be awaited."""

    def __await__(self) -> Any:
        return never().__await__()


async def in_an_awaitable() -> None:
    await Waits()


HANGS: dict[str, tuple[Callable[[], Awaitable[None]], str]] = {
    "future": (on_a_future, "on a future"),
    "event": (on_an_event, "on an event"),
    "queue": (on_a_queue, "on a queue"),
    "nested": (nested, "nested"),
    **{
        function.__name__: (function, "never")
        for function in (
            in_gather, in_wait_for, in_wait, in_shield, in_shielded_gather, in_a_task, in_an_async_generator,
            in_a_decorated_async_generator, in_a_decorated_coroutine, in_async_with, in_anext, in_an_awaitable,
        )
    },
}  # fmt: skip
if sys.version_info >= (3, 11):
    HANGS["in_a_task_group"] = (in_a_task_group, "never")


@pytest.mark.parametrize("name", HANGS)
def test_the_line_of_a_task(name: str, tasks: Tasks) -> None:
    """A task that hangs is told with the user's innermost line, through all that it awaits, out to where it began."""
    body, marker = HANGS[name]
    found = until_at(tasks.start(body), marker)
    assert f"in {body.__name__}\n" in found.stack
    assert "task the task" in found.stack
    assert "blocked" not in found.stack
    assert "otel_progress" not in found.stack


def test_a_task_at_hand_is_not_awaited(tasks: Tasks) -> None:
    """A task that a coroutine merely holds is not taken for one that it waits for."""

    async def body() -> None:
        running = asyncio.ensure_future(never())
        await asyncio.sleep(1000, result=running)  # with a task at hand

    found = until_at(tasks.start(body), "with a task at hand")
    assert "in never" not in found.stack


def test_the_whole_chain_of_a_task(tasks: Tasks) -> None:
    """The await chain is told from the inside out."""
    found = until_at(tasks.start(nested), "nested")
    lines = [line.strip().rpartition(" in ")[2] for line in found.stack.split("\n") if "test_call_stack.py" in line]
    assert lines == ["five", "five", "nested", "run"]
    assert "… the same 4 times more" in found.stack


def test_children_that_hang_are_counted(tasks: Tasks) -> None:
    """Of many children some are told, and how many more there are."""

    async def body() -> None:
        await asyncio.gather(*[asyncio.sleep(0) for _ in range(5)], *[never() for _ in range(10)])

    place = tasks.start(body)
    found = until(lambda: where([place]), lambda found: "and 6 more" in found.stack)
    assert "which waits for the above and 6 more tasks" in found.stack
    assert found.stack.count(at("never")) == 4


def test_a_task_that_waits_for_a_thread(tasks: Tasks) -> None:
    """Where a task waits for a function in a thread, both lines are told."""

    def work() -> None:
        tasks.stop.wait()  # in to_thread

    async def body() -> None:
        await asyncio.to_thread(work)  # for to_thread

    found = until_behind(tasks.start(body), "for to_thread", "in to_thread", "thread asyncio_0")
    assert "which waits for the above" in found.stack
    assert "await asyncio.to_thread(work)" in found.stack


def test_a_loop_that_is_blocked_by_another_task(tasks: Tasks) -> None:
    """Where another task blocks the loop, that is said first, with its line."""

    async def blocker() -> None:
        tasks.told.put(here())
        tasks.stop.wait()  # another task

    async def body() -> None:
        while True:
            await asyncio.sleep(0.01)

    place = tasks.start(body)
    tasks.call(lambda: setattr(tasks, "blocker", asyncio.ensure_future(blocker())))
    until_at(tasks.told.get(timeout=WAIT), "another task")
    found = until(lambda: where([place]), lambda found: "blocked" in found.stack)
    tasks.stop.set()
    assert found.at.startswith(at("another task"))
    assert found.stack.startswith("the event loop is blocked by task Task-")
    assert "in body" in found.stack


def test_a_loop_that_is_known_to_give_no_answer(tasks: Tasks) -> None:
    """A loop may look busy for a moment; where it is known not to answer, what it runs is said to block it."""
    ready = threading.Event()

    def callback() -> None:
        ready.set()
        tasks.stop.wait()  # a callback

    place = tasks.start(on_a_future)
    until_at(place, "on a future")
    tasks.call(callback)
    assert ready.wait(WAIT)
    unknown = until(lambda: where([place]), lambda found: "meanwhile" in found.stack)
    known = until(lambda: where([place], blocked=[tasks.loop]), lambda found: at("a callback") in found.stack)
    tasks.stop.set()
    assert unknown.at.startswith(at("on a future"))
    assert "meanwhile the event loop runs a callback" in unknown.stack
    assert known.stack.startswith("the event loop is blocked by a callback in thread loop:")
    assert known.at.startswith(at("a callback"))


def test_a_loop_that_c_code_blocks(tasks: Tasks) -> None:
    """A callback in C has no line of its own; that it blocks the loop is said all the same."""
    place = tasks.start(on_a_future)
    lock = threading.Lock()
    with lock:
        tasks.call(lock.acquire)
        found = until(lambda: where([place], blocked=[tasks.loop]), lambda found: "blocked" in found.stack)
    assert found.stack.startswith("the event loop is blocked by a callback in thread loop:")
    assert found.at.startswith(at("on a future"))


def test_a_loop_that_the_task_blocks_itself(tasks: Tasks) -> None:
    """A task that blocks its own loop is told with its own line, and how it came there."""

    async def inner() -> None:
        tasks.stop.wait()  # itself

    async def body() -> None:
        await asyncio.sleep(0)
        await inner()

    found = until_at(tasks.start(body), "itself")
    tasks.stop.set()
    assert found.stack.startswith("task the task, running in thread loop:")
    assert "in body" in found.stack
    assert "asyncio.run" not in found.stack


def test_a_loop_that_a_child_of_the_task_blocks(tasks: Tasks) -> None:
    """A child that blocks the loop is told once."""

    async def child() -> None:
        tasks.stop.wait()  # a child

    async def body() -> None:
        await asyncio.gather(child())

    found = until_at(tasks.start(body), "a child")
    tasks.stop.set()
    assert found.stack.count(at("a child")) == 1


def test_an_operation_around_the_loop() -> None:
    """Where a thread runs an event loop that waits, the main task is told first."""
    started: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    async def main() -> None:
        event = asyncio.Event()
        started.put((asyncio.get_running_loop(), event))
        await never(event)

    job = Job(lambda job: asyncio.run(main()))
    with job as place:
        loop, event = started.get(timeout=WAIT)
        job.on_release.append(lambda: loop.call_soon_threadsafe(event.set))
        found = until_at(place, "never")
    assert "thread job, which waits for the above" in found.stack


def test_a_task_that_is_done(tasks: Tasks) -> None:
    """Nothing is told of a task that is done or gone."""

    async def body() -> None:
        pass

    place = tasks.start(body)
    deadline = time.monotonic() + WAIT
    while where([place]) is not None:
        assert time.monotonic() < deadline
    assert place.task is not None
    task = place.task()
    assert task is None or task.done()
    del task
    tasks.call(lambda: tasks.tasks.clear())
    while place.task() is not None:
        assert time.monotonic() < deadline
        gc.collect()
    assert where([place]) is None


def test_tasks_that_wait_for_one_event_are_not_mixed_up(tasks: Tasks) -> None:
    """A task that waits for what others wait for too is told alone."""
    event = asyncio.Event()

    async def other() -> None:
        await event.wait()  # the other

    async def body() -> None:
        await event.wait()  # the one

    until_at(tasks.start(other, "other"), "the other")
    found = until_at(tasks.start(body, "one"), "the one")
    assert "in other" not in found.stack


# -- what is never shown, run or kept


class Hostile:
    """Notes every attempt to look at it."""

    touched: list[str] = []  # noqa: RUF012

    def __getattribute__(self, name: str) -> Any:
        Hostile.touched.append(name)
        raise RuntimeError(name)

    def __repr__(self) -> str:
        Hostile.touched.append("repr")
        raise RuntimeError

    __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __repr__  # type: ignore[assignment]


class OwnTask(asyncio.Task):  # type: ignore[type-arg]
    """A task of the user that doesn't like to be asked."""

    def __getattribute__(self, name: str) -> Any:
        if threading.current_thread() is threading.main_thread():
            Hostile.touched.append(name)
        return super().__getattribute__(name)


def test_no_code_of_the_user_is_run(tasks: Tasks) -> None:
    """Objects in the user's frames, and tasks of the user's own class, are not asked for anything."""
    Hostile.touched.clear()

    async def body() -> None:
        hostile = [Hostile(), OwnTask(never())]
        await asyncio.wait([hostile[1]])  # type: ignore[type-var,list-item]

    def thread(job: Job) -> None:
        hostile = Hostile()
        job.stop.wait()  # hostile
        del hostile

    until_at(tasks.start(body), "never")
    with Job(thread) as place:
        until_at(place, "hostile")
    assert Hostile.touched == []


def test_values_are_not_shown() -> None:
    """Neither local variables nor arguments are shown."""

    def work(job: Job, password: str) -> None:
        known = password
        job.stop.wait()  # secret
        del known

    with Job(lambda job: work(job, "hunter" + str(2))) as place:
        found = until_at(place, "secret")
    assert "hunter2" not in found.stack


def test_literals_are_masked(tmp_path: Path) -> None:
    """Literals of text, long numbers and comments are not shown."""
    lines = [
        'log(stop.wait(), "short", "a very long literal that may be a key", 481516, 1000)',
        "log(stop.wait(), 'it''s', rb'\\x00aaaaaaaaaaaaaaaaaaaaaaaa', f'{stop!s:>5} aaaaaaaaaaaaaaaaaaaaa')",
        'log(stop.wait(), password="pw")  # the key is aaaaaaaaa',
        'log("""',
        "   between the quotes",
        '   """, stop.wait())',
        'log(stop.wait(), "an escaped \\" quote and more", 1)',
    ]
    path = tmp_path / "job.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    code = compile(path.read_text(), str(path), "exec")
    shown = [source_lines.Spot(code, number).source() for number in range(len(lines) + 2)]
    assert shown == [
        "",
        'log(stop.wait(), "…", "…", …, 1000)',
        "log(stop.wait(), '…''…', rb'…', f'…')",
        'log(stop.wait(), password="…")',
        'log("""…',
        "",
        '""", stop.wait())',
        'log(stop.wait(), "…", 1)',
        "",
    ]


@pytest.mark.parametrize("kind", ["missing", "large", "pipe", "binary", "folder"])
def test_sources_that_cant_be_read(kind: str, tmp_path: Path) -> None:
    """A source file that is missing, huge, or no plain file gives no line, and is never waited for."""
    path = tmp_path / "job.py"
    if kind == "large":
        path.write_text("x = 1\n" * source_lines.FILE_SIZE)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif kind == "folder":
        path.mkdir()
    code = compile("x = 1", str(path), "exec")
    source = source_lines.Spot(code, 1).source()
    assert source == "" or (kind == "binary" and source.isprintable())


def test_file_names_are_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file's name is told from where Python looks for it, else by its last two parts, and always short."""
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.chdir(tmp_path)
    source_lines.file.cache_clear()
    names = {
        tmp_path / "lib" / "pkg" / "a.py": "pkg/a.py",
        tmp_path / "jobs" / "b.py": "jobs/b.py",
        Path("/somewhere/else/at/home/c.py"): "home/c.py",
    }
    assert {path: source_lines.file(str(path)).name for path in names} == names
    assert source_lines.file("<frozen importlib._bootstrap>") == source_lines.File(
        "importlib/_bootstrap.py", library=True
    )
    assert not source_lines.file("<stdin>").library
    assert source_lines.file(os.__file__) == source_lines.File("os.py", library=True)
    assert source_lines.file("/x/.venv/lib/python3.11/site-packages/rich/live.py") == source_lines.File(
        "rich/live.py", library=True
    )
    assert len(source_lines.file("/" + "x" * 5000 + ".py").name) <= source_lines.LINE_LENGTH
    source_lines.file.cache_clear()


def test_names_are_bounded_and_printable() -> None:
    """Whatever a function, a file or a thread is called, the text can be sent, and stays short."""
    scope: dict[str, Any] = {}
    name = "f" * 5000
    exec(compile(f"def {name}(job):\n    job.stop.wait()", "<string>\n\udcff" + "y" * 500, "exec"), scope)
    with Job(scope[name], name="a\nb\udcff" + "z" * 500) as place:
        found = until(lambda: where([place]), lambda found: "fff" in found.at)
    assert len(found.at) <= AT_LENGTH
    assert "\n" not in found.at
    found.stack.encode()
    assert len(found.stack) < 1000


def test_nothing_is_kept(tasks: Tasks) -> None:
    """After a look, what the job held is freed as soon as the job lets go of it, without the collector's help."""

    class Kept:
        """A local variable of the job."""

    held: list[weakref.ref[Kept]] = []

    def work(job: Job) -> None:
        kept = Kept()
        held.append(weakref.ref(kept))
        job.stop.wait()  # kept
        del kept

    async def child() -> None:
        kept = Kept()
        held.append(weakref.ref(kept))
        await never()

    async def body() -> None:
        await asyncio.gather(child())

    gc.disable()
    try:
        with Job(work) as place:
            until_at(place, "kept")
        assert [ref() for ref in held] == [None]
        place = tasks.start(body)
        until_at(place, "never")
        frames = [thing for thing in gc.get_objects() if type(thing) is dict and threading.get_ident() in thing]
        assert not [thing for thing in frames if hasattr(thing[threading.get_ident()], "f_code")]
    finally:
        gc.enable()


def test_errors_of_ours_stay_inside(caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails says so in the log, and finds nothing."""
    assert where([None]) is None  # type: ignore[list-item]
    assert "where an operation is stuck could not be seen" in caplog.text


def test_here_keeps_neither_thread_nor_task_alive(tasks: Tasks) -> None:
    """A place can be kept for ever: it holds neither its task nor its thread."""

    async def body() -> None:
        pass

    place = tasks.start(body)
    tasks.call(lambda: tasks.tasks.clear())
    deadline = time.monotonic() + WAIT
    assert place.task is not None
    while place.task() is not None:
        assert time.monotonic() < deadline
    with Job(lambda job: None) as place:
        pass
    while place.alive() is not None:
        assert time.monotonic() < deadline


def test_here_is_the_same_within_a_thread() -> None:
    """Without a task, a thread has one place."""
    assert here() is here()
    assert here().task is None


def test_asyncio_may_come_later() -> None:
    """Neither asking for the place nor a look imports asyncio; a task is known as soon as somebody did."""
    program = """
import sys
from otel_progress.live.diagnosis.call_stack import here, where
loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "asyncio"}
print(here().task, where([here()]).at, "asyncio" in sys.modules)
sys.modules.update(loaded)
import asyncio
async def main():
    return here().task() is asyncio.current_task()
print(asyncio.run(main()))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["None <string>:5 in <module> False", "True"]


# -- vitals


def busy() -> float:
    """Uses the CPU until it can be measured."""
    before = sum(os.times()[:2])
    while sum(os.times()[:2]) < before + 0.2:
        sum(range(10_000))
    return sum(os.times()[:2]) - before


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was never measured."""
    vitals.prepare()
    monkeypatch.setattr(vitals, "_meter", None)


def test_vitals(fresh: None, progress_capture: Capture) -> None:
    """Memory is told at once, CPU as used since the last measurement, a second before at the least."""
    first = vitals.vitals()
    assert first.keys() == {semconv.PROCESS_MEMORY}
    assert first[semconv.PROCESS_MEMORY] > 1 << 20
    busy()
    progress_capture.advance(0.5)
    assert semconv.PROCESS_CPU not in vitals.vitals()
    progress_capture.advance(1.5)
    second = vitals.vitals()[semconv.PROCESS_CPU]
    assert 0.05 <= second < 10
    busy()
    progress_capture.advance(0.5)
    assert vitals.vitals()[semconv.PROCESS_CPU] == second
    progress_capture.advance(1000)
    assert vitals.vitals()[semconv.PROCESS_CPU] < second


def test_vitals_of_a_forked_child(fresh: None) -> None:
    """A forked child measures itself."""
    vitals.vitals()
    mine = vitals._meter
    assert mine is not None
    read, write = os.pipe()
    child = os.fork()
    if not child:
        found = vitals.vitals()
        pid = vitals._meter.process.pid if vitals._meter else 0
        os.write(write, f"{pid} {sorted(found)}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == f"{child} {[semconv.PROCESS_MEMORY]}"
    os.waitpid(child, 0)


BROKEN = {
    "missing": "import sys; sys.modules['psutil'] = None",
    "broken": "import sys, types; sys.modules['psutil'] = types.ModuleType('psutil')",
    "failing": "import psutil\ndef fail(self):\n    print('asked')\n    raise OSError\npsutil.Process.cpu_times = fail",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_vitals_without_psutil(kind: str) -> None:
    """Without psutil, or with one that fails, there are no vitals, and that is remembered."""
    program = f"""{BROKEN[kind]}
from otel_progress.live.diagnosis import vitals
vitals.prepare()
print(vitals.vitals())
sys = __import__("sys")
sys.modules.pop("psutil", None)
print(vitals.vitals())"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [*(["asked"] if kind == "failing" else []), "{}", "{}"]


def test_psutil_is_not_imported_before_it_is_needed() -> None:
    """Importing costs nothing: psutil comes with the first who asks."""
    program = "import sys; from otel_progress.live.diagnosis import call_stack, vitals; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False"]
