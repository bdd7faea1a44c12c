"""Concurrent work, of which one branch is in trouble while the others move."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import otel_progress as progress
from benchmarks.faults.job import Job

BESIDE = 60.0
"""Seconds that neighbours move: longer than any case is observed."""


def moves(name: str, seconds: float = BESIDE) -> None:
    """A moving neighbour in its own thread."""
    with progress.stage(name) as stage:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stage.advance()
            time.sleep(0.2)


async def moves_too(name: str, seconds: float = BESIDE) -> None:
    """A moving neighbour in its own task."""
    async with progress.stage(name) as stage:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stage.advance()
            await asyncio.sleep(0.2)


def beside(*calls: Callable[[], None]) -> None:
    """Run each in its own thread, in the current operation, and wait for all."""
    threads = [threading.Thread(target=progress.carry(call), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hangs(job: Job, operation: progress.Operation, limit: float, mark: str, branch: str = "hangs") -> None:
    """Report that the current branch makes no progress from now on."""
    job.say(operation, "silent", limit, mark=mark, branch=branch, last=True)


# -- asyncio


async def lost(job: Job, operation: progress.Operation, limit: float, mark: str) -> None:
    """A tool that awaits a result that never comes."""
    async with progress.stage("hangs", stall_after=limit) as stage:
        await asyncio.sleep(job.some(0.5, 1.5))
        stage.advance()
        hangs(job, operation, limit, mark)
        await asyncio.get_running_loop().create_future()  # stuck: one of gather


def one_of_gather(job: Job) -> None:
    """One of three tools in `gather` hangs."""
    limit = job.limit()

    async def main() -> None:
        async with job.operation("agent", agent="planner") as operation:
            job.begin(operation)
            await asyncio.gather(moves_too("a"), lost(job, operation, limit, "one of gather"), moves_too("b"))

    asyncio.run(main())


def one_of_a_task_group(job: Job) -> None:
    """One of the tasks of a TaskGroup hangs; on Python 3.10, of a gather."""
    limit = job.limit()

    async def main() -> None:
        async with job.operation("agent", stall_after=limit) as operation:
            job.begin(operation)
            work: list[Coroutine[Any, Any, None]] = [
                moves_too("a"),
                lost(job, operation, limit, "one of gather"),
                moves_too("b"),
            ]
            if sys.version_info < (3, 11):
                await asyncio.gather(*work)
                return
            async with asyncio.TaskGroup() as group:
                for each in work:
                    group.create_task(each)

    asyncio.run(main())


def one_of_as_completed(job: Job) -> None:
    """The results are counted as they come; one never does."""
    limit = job.limit()

    async def main() -> None:
        async with job.operation("crawl", total=6) as operation:
            job.begin(operation)
            work = [lost(job, operation, limit, "one of gather"), *(moves_too("page", 1 + n) for n in range(5))]
            for done in asyncio.as_completed(work):
                await done
                operation.advance()

    asyncio.run(main())


def tracked_generator(job: Job) -> None:
    """An async generator that `track` consumes never gives its next item, beside a stage that moves."""
    limit = job.limit()

    async def pages() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            await asyncio.sleep(0.1)
        hangs(job, operation, limit, "tracked generator", "read")
        await asyncio.Event().wait()  # stuck: tracked generator

    async def read() -> None:
        async with progress.stage("read", stall_after=limit):
            async for _ in progress.track(pages()):
                pass

    async def main() -> None:
        nonlocal operation
        async with job.operation("ingest") as operation:
            job.begin(operation)
            await asyncio.gather(read(), moves_too("index"))

    operation = job.operation("never started")
    asyncio.run(main())


def anyio_group(job: Job, backend: str) -> None:
    """One of the tasks of an anyio task group hangs."""
    import anyio

    limit = job.limit()

    async def move() -> None:
        with progress.stage("moves") as stage:
            until = time.monotonic() + BESIDE
            while time.monotonic() < until:
                stage.advance()
                await anyio.sleep(0.2)

    async def hang(operation: progress.Operation) -> None:
        with progress.stage("hangs", stall_after=limit) as stage:
            await anyio.sleep(0.5)
            stage.advance()
            hangs(job, operation, limit, "anyio group")
            await anyio.Event().wait()  # stuck: anyio group

    async def main() -> None:
        with job.operation("agent") as operation:
            job.begin(operation)
            async with anyio.create_task_group() as group:
                group.start_soon(move)
                group.start_soon(hang, operation)

    anyio.run(main, backend=backend)


def one_of_anyio(job: Job) -> None:
    """The same on asyncio."""
    anyio_group(job, "asyncio")


def one_of_trio(job: Job) -> None:
    """The same on trio."""
    anyio_group(job, "trio")


# -- threads


def one_of_eight(job: Job) -> None:
    """One thread of a pool of eight hangs, and the main thread is in `wait`."""
    limit = job.limit()

    def tool(number: int) -> None:
        with progress.stage(f"tool {number}", stall_after=limit):
            if number == 5:
                hangs(job, operation, limit, "one of eight", "tool 5")
                threading.Event().wait()  # stuck: one of eight
            until = time.monotonic() + BESIDE
            while time.monotonic() < until:
                progress.advance()
                time.sleep(0.2)

    with job.operation("agent") as operation:
        job.begin(operation)
        with cf.ThreadPoolExecutor(8) as pool:
            cf.wait([pool.submit(progress.carry(tool), number) for number in range(8)])


def one_loop_of_four(job: Job) -> None:
    """Four threads loop over parts of one stage; one of them hangs."""
    limit = job.limit()

    def part(number: int) -> None:
        for item in progress.track(range(1000)):
            if number == 2 and item == 5:
                hangs(job, operation, limit, "one loop of four", "crawl")
                threading.Event().wait()  # stuck: one loop of four
            time.sleep(0.1)

    with job.operation("crawl", stall_after=limit) as operation, progress.stage("crawl"):
        job.begin(operation)
        beside(*(lambda number=number: part(number) for number in range(4)))


def worker_behind_join(job: Job) -> None:
    """The main thread is in `queue.join()`, as one of two workers hangs."""
    limit = job.limit()
    items: queue.Queue[int] = queue.Queue()
    for number in range(600):
        items.put(number)

    def worker(name: str) -> None:
        with progress.stage(name, stall_after=limit) as stage:
            while True:
                number = items.get()
                if number == 7:
                    hangs(job, operation, limit, "worker behind join", name)
                    threading.Event().wait()  # stuck: worker behind join
                stage.advance()
                time.sleep(0.1)
                items.task_done()

    with job.operation("index") as operation:
        job.begin(operation)
        for name in ("one", "two"):
            threading.Thread(target=progress.carry(worker), args=(name,), daemon=True).start()
        items.join()


def lock_held_beside(job: Job) -> None:
    """A branch holds the lock that another one wants, and both hang, beside one that moves."""
    limit = job.limit()
    lock, held = threading.Lock(), threading.Event()

    def holder() -> None:
        with progress.stage("holder", stall_after=None), lock:
            held.set()
            threading.Event().wait()

    def wants() -> None:
        held.wait()
        with progress.stage("wants", stall_after=limit):
            hangs(job, operation, limit, "lock held", "wants")
            with lock:  # stuck: lock held
                pass

    with job.operation("transfer") as operation:
        job.begin(operation)
        beside(holder, wants, lambda: moves("moves"))


def command_beside(job: Job) -> None:
    """A tool that runs a command that never returns, beside others."""
    limit = job.limit()

    def tool() -> None:
        with progress.stage("shell", stall_after=limit):
            hangs(job, operation, limit, "command beside", "shell")
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=True)  # stuck: command beside

    with job.operation("agent") as operation:
        job.begin(operation)
        beside(tool, lambda: moves("read"), lambda: moves("search"))


def silent_socket_beside(job: Job) -> None:
    """A tool whose server never answers, beside others."""
    limit = job.limit()

    def tool(address: Any) -> None:
        with progress.stage("fetch", stall_after=limit), socket.create_connection(address) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            hangs(job, operation, limit, "silent socket beside", "fetch")
            connection.recv(1024)  # stuck: silent socket beside

    with socket.create_server(("127.0.0.1", 0)) as server, job.operation("agent") as operation:
        job.begin(operation)
        beside(lambda: tool(server.getsockname()), lambda: moves("read"))


def pause_of_one(job: Job) -> None:
    """One branch hangs for longer than allowed, and continues; its neighbour moves all the time."""
    limit = job.limit()

    def pauses() -> None:
        with progress.stage("pauses", stall_after=limit) as stage:
            stage.advance()
            time.sleep(0.5)
            stage.advance()
            job.say(operation, "silent", limit, mark="pause of one", branch="pauses")
            time.sleep(limit + 3)  # stuck: pause of one
            job.begin(operation)
            until = time.monotonic() + limit / 2 + 4
            while time.monotonic() < until:
                stage.advance()
                time.sleep(0.2)

    with job.operation("agent") as operation:
        job.begin(operation)
        beside(pauses, lambda: moves("moves", 2 * limit + 9))
        job.end(operation)


def wait_beside_a_hang(job: Job) -> None:
    """One thread declares a wait; another one hangs."""
    limit = job.limit()

    def polite() -> None:
        with progress.stage("polite", stall_after=limit), progress.waiting("the rate limit"):
            threading.Event().wait()

    def hung() -> None:
        with progress.stage("hung", stall_after=limit):
            hangs(job, operation, limit, "wait beside a hang", "hung")
            threading.Event().wait()  # stuck: wait beside a hang

    with job.operation("agent") as operation:
        job.begin(operation)
        beside(polite, hung)


def overdue_beside(job: Job) -> None:
    """A declared wait lasts longer than allowed, beside a branch that moves."""
    limit = job.limit()

    def asks() -> None:
        with progress.stage("asks"), progress.waiting("approval", overdue_after=limit):
            job.say(operation, "overdue", limit, branch="asks")
            time.sleep(limit + 4)
        job.begin(operation)

    with job.operation("agent") as operation:
        job.begin(operation)
        beside(asks, lambda: moves("moves", limit + 8))
        job.end(operation)


def loop_beside(job: Job) -> None:
    """One agent loops, another one makes progress."""
    limit = job.random.randint(4, 7)

    def circles() -> None:
        with progress.stage("researcher"):
            turn = 0
            while True:
                turn += 1
                with progress.stage("turn"):
                    progress.step("search kittens")
                    if turn == limit:
                        job.say(operation, "looping", last=True)
                    time.sleep(0.3)

    with job.operation("agents", loop_after=limit) as operation:
        job.begin(operation)
        beside(circles, lambda: moves("writer"))


def back_and_forth(job: Job) -> None:
    """A count that goes up and down repeatedly is no progress."""
    limit = job.limit()
    with job.operation("sync", stall_after=limit) as operation:
        job.begin(operation)
        for number in range(5):
            time.sleep(0.2)
            operation.update(completed=number)
        job.say(operation, "silent", limit, mark="back and forth", last=True)
        while True:  # stuck: back and forth
            for number in (3, 4):  # stuck: back and forth
                operation.update(completed=number)  # stuck: back and forth
                time.sleep(0.9)  # stuck: back and forth


# -- operations inside each other


def stuck_child(job: Job) -> None:
    """A child hangs, and so its parent, at the line of the child."""
    limit = job.limit()
    with job.operation("parent", stall_after=1.0) as parent:
        job.begin(parent)
        with job.operation("child", stall_after=limit) as child:
            job.begin(child)
            job.work(child, job.some(2, 3))
            for operation in (parent, child):
                job.say(operation, "silent", limit, mark="stuck child", last=True)
            threading.Event().wait()  # stuck: stuck child


def hang_beside_a_child(job: Job) -> None:
    """A stage hangs beside a child operation that moves."""
    limit = job.limit()

    def agent() -> None:
        with job.operation("child", stall_after=limit) as child:
            job.begin(child)
            job.work(child, limit + 5)
            job.end(child)
            time.sleep(0.5)

    def hung() -> None:
        with progress.stage("hung", stall_after=limit):
            hangs(job, parent, limit, "hang beside a child", "hung")
            threading.Event().wait()  # stuck: hang beside a child

    with job.operation("parent", stall_after=limit) as parent:
        job.begin(parent)
        beside(agent, hung)


def two_operations(job: Job) -> None:
    """Two operations of one process hang, each at its own line."""
    limits = [job.limit(), job.limit()]

    def one() -> None:
        with job.operation("one", stall_after=limits[0]) as operation:
            job.begin(operation)
            job.say(operation, "silent", limits[0], mark="first of two operations", last=True)
            threading.Event().wait()  # stuck: first of two operations

    def other() -> None:
        with job.operation("other", stall_after=limits[1]) as operation:
            job.begin(operation)
            job.say(operation, "silent", limits[1], mark="second of two operations", last=True)
            queue.Queue[int]().get()  # stuck: second of two operations

    beside(one, other)
