"""Asyncio tasks that hang, beside others that do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import otel_progress as progress
from benchmarks.faults.job import Job


async def work(job: Job, operation: progress.Operation, seconds: float, pause: float = 0.2) -> None:
    """Make progress for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job.advance(operation)
        await asyncio.sleep(pause)
    job.advance(operation)


async def healthy(job: Job, seconds: float) -> None:
    """A healthy operation."""
    async with job.operation("beside", stall_after=job.limit()) as operation:
        job.begin(operation)
        await work(job, operation, seconds)
        job.end(operation)


def run(*tasks: Coroutine[Any, Any, None]) -> None:
    """Run tasks in one loop."""

    async def main() -> None:
        await asyncio.gather(*tasks)

    asyncio.run(main())


def lost_await(job: Job) -> None:
    """Nobody sets the result that a task awaits, while others in the same loop work on."""
    limit = job.limit()

    async def answer() -> Any:
        return await asyncio.get_running_loop().create_future()  # stuck: lost await

    async def lost() -> None:
        async with job.operation("ask", stall_after=limit) as operation:
            job.begin(operation)
            await work(job, operation, job.some(1, 3))
            job.stuck(operation, limit, "lost await")
            await answer()

    run(lost(), *(healthy(job, limit + job.some(2, 5)) for _ in range(job.random.randint(1, 3))))


def silent_peer(job: Job) -> None:
    """A server that sends half an answer."""
    limit = job.limit()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        await asyncio.sleep(600)

    async def fetch() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with job.operation("download", stall_after=limit) as operation:
            job.begin(operation)
            await work(job, operation, job.some(1, 3))
            reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
            job.stuck(operation, limit, "silent peer")
            await reader.readexactly(100)  # stuck: silent peer

    run(fetch(), healthy(job, limit + job.some(2, 5)))


def blocked_loop(job: Job) -> None:
    """A task makes a blocking call, so that another, healthy one cannot continue."""
    limit = job.limit()

    async def blocker(start: asyncio.Event) -> None:
        await start.wait()
        time.sleep(600)  # stuck: blocked loop

    async def victim() -> None:
        start = asyncio.Event()
        blocking = asyncio.create_task(blocker(start))
        async with job.operation("victim", stall_after=limit) as operation:
            job.begin(operation)
            await work(job, operation, job.some(1, 3))
            job.stuck(operation, limit, "blocked loop")
            start.set()
            await asyncio.sleep(0.05)
            await blocking

    run(victim())


def two_locks(job: Job) -> None:
    """Two tasks that each hold the lock that the other one wants: both operations are stuck."""
    limits = [job.limit(), job.limit()]
    locks: list[asyncio.Lock] = []

    async def one(which: int, both: list[asyncio.Event]) -> None:
        async with job.operation("transfer", stall_after=limits[which]) as operation:
            job.begin(operation)
            await work(job, operation, 1)
            async with locks[which]:
                both[which].set()
                await both[1 - which].wait()
                job.stuck(operation, limits[which], "two locks")
                async with locks[1 - which]:  # stuck: two locks
                    job.advance(operation)

    async def main() -> None:
        locks.extend([asyncio.Lock(), asyncio.Lock()])
        both = [asyncio.Event(), asyncio.Event()]
        await asyncio.gather(one(0, both), one(1, both))

    run(main())
