"""Healthy concurrent work in shapes that look like trouble."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress
from benchmarks.faults.job import Job
from benchmarks.faults.parallel import beside, moves


def long_items(job: Job) -> None:
    """Threads whose items take almost as long as allowed."""
    limit = job.limit() + 2

    def part(pauses: list[float]) -> None:
        for pause in progress.track(pauses):
            time.sleep(pause)

    with job.operation("render", stall_after=limit) as operation, progress.stage("frames"):
        job.begin(operation)
        some = [[limit * job.random.uniform(0.2, 0.7) for _ in range(3)] for _ in range(4)]
        beside(*(lambda pauses=pauses: part(pauses) for pauses in some))
        job.end(operation)


def producers_and_consumers(job: Job) -> None:
    """A slow producer, and consumers that each get an item now and then."""
    limit = job.limit() + 4
    items: queue.Queue[int | None] = queue.Queue()

    def produce() -> None:
        with progress.stage("produce") as stage:
            for number in range(12):
                time.sleep(job.some(0.2, 0.8))
                items.put(number)
                stage.advance()
            for _ in range(2):
                items.put(None)

    def consume(name: str) -> None:
        with progress.stage(name) as stage:
            while items.get() is not None:
                time.sleep(0.3)
                stage.advance()

    with job.operation("pipeline", stall_after=limit) as operation:
        job.begin(operation)
        beside(produce, lambda: consume("consume one"), lambda: consume("consume two"))
        job.end(operation)


def parent_of_children(job: Job) -> None:
    """A parent whose limit is shorter than each child takes, without a declared wait."""
    with job.operation("parent", stall_after=1.5) as parent:
        job.begin(parent)
        for _ in range(3):
            with job.operation("child", stall_after=job.limit()) as child:
                job.begin(child)
                job.work(child, job.some(2, 4))
                job.end(child)
        job.end(parent)


def parent_of_tasks(job: Job) -> None:
    """Children in their own tasks, below a stage."""

    async def child(seconds: float) -> None:
        async with job.operation("child", stall_after=job.limit()) as operation:
            job.begin(operation)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                job.advance(operation)
                await asyncio.sleep(0.2)
            job.end(operation)

    async def main() -> None:
        async with job.operation("parent", stall_after=1.5) as parent:
            job.begin(parent)
            async with progress.stage("fan out"):
                await asyncio.gather(*(child(job.some(3, 7)) for _ in range(3)))
            job.end(parent)

    asyncio.run(main())


def one_that_may_idle(job: Job) -> None:
    """A listener that may idle (`stall_after=None`), beside work that moves."""
    over = threading.Event()

    def listen() -> None:
        with progress.stage("listener", stall_after=None):
            over.wait()

    def work() -> None:
        moves("work", job.some(6, 10))
        over.set()

    with job.operation("server", stall_after=job.limit()) as operation:
        job.begin(operation)
        beside(listen, work)
        job.end(operation)


def back_off_of_one(job: Job) -> None:
    """One of three tools declares a back-off that is longer than the limit."""
    limit = job.limit()

    def held_off() -> None:
        with progress.stage("search") as stage:
            stage.advance()
            with progress.waiting("the rate limit", overdue_after=120):
                time.sleep(limit + 2)
            stage.advance()

    with job.operation("agent", stall_after=limit) as operation:
        job.begin(operation)
        beside(held_off, lambda: moves("read", limit + 4), lambda: moves("think", limit + 4))
        job.end(operation)


def garbage(job: Job) -> None:
    """A long garbage collection stops all threads now and then."""
    heap = [[number] for number in range(1_000_000)]
    with job.operation("collect", stall_after=job.limit() + 2) as operation:
        job.begin(operation)
        for _ in range(5):
            operation.advance()
            gc.collect()
            time.sleep(0.3)
        del heap
        job.end(operation)


def consumer_at_work(job: Job) -> None:
    """A generator with a stage of its own waits while its consumer works on each item for longer than the limit."""
    limit = job.limit()

    def rows() -> Iterator[int]:
        with progress.stage("rows", stall_after=limit) as stage:
            yield from stage.track(range(3))

    with job.operation("load") as operation:
        job.begin(operation)
        for _ in operation.track(rows()):
            moves("insert", limit + 2)
        job.end(operation)


def loops_with_stages(job: Job) -> None:
    """Threads that loop over items, each with its own stages."""

    def part(pauses: list[float]) -> None:
        for pause in progress.track(pauses):
            for name in ("fetch", "parse"):
                with progress.stage(name):
                    time.sleep(pause)

    with job.operation("crawl", stall_after=job.limit()) as operation, progress.stage("pages"):
        job.begin(operation)
        some = [[job.some(0.2, 0.7) for _ in range(6)] for _ in range(4)]
        beside(*(lambda pauses=pauses: part(pauses) for pauses in some))
        job.end(operation)


def batches_in_a_pool(job: Job) -> None:
    """A loop over batches, each processed by a pool in its own stages."""
    limit = job.limit()

    def work(pause: float) -> None:
        with progress.stage("work") as stage:
            for _ in range(4):
                time.sleep(pause)
                stage.advance()

    with job.operation("batches", stall_after=limit) as operation, ThreadPoolExecutor(3) as pool:
        job.begin(operation)
        for _ in progress.track(range(3)):
            list(pool.map(progress.carry(work), [limit / 4] * 3))
        job.end(operation)


def unequal_parts(job: Job) -> None:
    """Loops of which some end long before the others."""

    def part(count: int) -> None:
        for _ in progress.track(range(count)):
            time.sleep(0.2)

    with job.operation("copy", stall_after=job.limit()) as operation:
        job.begin(operation)
        beside(*(lambda count=count: part(count) for count in (2, 10, 40)))
        job.end(operation)


def waits_for_its_workers(job: Job) -> None:
    """The main thread declares that it waits for its workers, which move."""
    with job.operation("main", stall_after=job.limit()) as operation:
        job.begin(operation)
        with operation.waiting("the workers", overdue_after=120):
            beside(lambda: moves("one", job.some(4, 7)), lambda: moves("two", job.some(4, 7)))
        job.end(operation)
