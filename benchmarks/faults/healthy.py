"""Healthy work in shapes that look like trouble."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress
from benchmarks.faults.job import Job


def plain(job: Job) -> None:
    """A loop with a total."""
    with job.operation("plain", stall_after=job.limit(), total=50) as operation:
        job.begin(operation)
        for _ in progress.track(range(50)):
            time.sleep(job.some(0.1, 0.2))
        job.end(operation)


def slow_but_moving(job: Job) -> None:
    """Each unit takes almost as long as allowed."""
    limit = job.limit() + 1
    with job.operation("slow but moving", stall_after=limit) as operation:
        job.begin(operation)
        for _ in range(2 if job.short else 5):
            time.sleep(limit * job.random.uniform(0.6, 0.85))
            job.advance(operation)
        job.end(operation)


def bursts(job: Job) -> None:
    """Nothing for a while, then many at once."""
    limit = job.limit() + 1
    with job.operation("bursts", stall_after=limit, total=40_000) as operation:
        job.begin(operation)
        for _ in range(2 if job.short else 5):
            time.sleep(limit * job.random.uniform(0.3, 0.8))
            for _ in range(10_000):
                operation.advance()
        job.end(operation)


def huge_totals(job: Job) -> None:
    """Counts beyond what fits into 64 bits."""
    total = job.random.choice((10**15, 2**63, 2**66, 10**20))  # each part is below 2**63, as `advance` wants
    with job.operation("huge", stall_after=job.limit(), total=total, unit="By") as operation:
        job.begin(operation)
        for _ in range(20):
            operation.advance(total // 20)
            time.sleep(job.some(0.2, 0.4))
        job.end(operation)


def one_in_a_huge_total(job: Job) -> None:
    """Each unit is too small to be seen in the ratio."""
    with job.operation("one in a huge total", stall_after=job.limit(), total=10**18) as operation:
        job.begin(operation)
        job.work(operation, job.some(4, 8))
        job.end(operation)


def tiny_stages(job: Job) -> None:
    """Thousands of stages of the same name, each a millisecond long."""
    with job.operation("tiny stages", stall_after=job.limit()) as operation:
        job.begin(operation)
        until = time.monotonic() + job.some(5, 9)
        while time.monotonic() < until:
            with progress.stage("row"):
                time.sleep(0.002)
        job.end(operation)


def threads(job: Job) -> None:
    """Threads that share an operation."""
    with job.operation("threads", stall_after=job.limit()) as operation:
        job.begin(operation)

        def worker(pauses: list[float]) -> None:
            for pause in pauses:
                time.sleep(pause)
                progress.advance()

        some = [[job.some(0.1, 0.8) for _ in range(10)] for _ in range(4)]
        workers = [threading.Thread(target=progress.carry(worker), args=(pauses,)) for pauses in some]
        for each in workers:
            each.start()
        for each in workers:
            each.join()
        job.end(operation)


def pool(job: Job) -> None:
    """A thread pool whose tasks track their own items, without a limit."""
    with job.operation("pool") as operation:
        job.begin(operation)

        def part(pauses: list[float]) -> None:
            for pause in progress.track(pauses):
                time.sleep(pause)

        some = [[job.some(0.1, 0.6) for _ in range(6)] for _ in range(6)]
        with ThreadPoolExecutor(3) as workers:
            list(workers.map(progress.carry(part), some))
        job.end(operation)


def coroutines(job: Job) -> None:
    """Several operations in one event loop."""

    async def one(pauses: list[float], limit: float) -> None:
        async with job.operation("coroutine", stall_after=limit, total=len(pauses)) as operation:
            job.begin(operation)
            for pause in pauses:
                await asyncio.sleep(pause)
                job.advance(operation)
            job.end(operation)

    async def main() -> None:
        some = [[job.some(0.1, 0.9) for _ in range(10)] for _ in range(3)]
        await asyncio.gather(*(one(pauses, job.limit()) for pauses in some))

    asyncio.run(main())


def generator(job: Job) -> None:
    """A pipeline of generators; the consumer is slower than the producer."""

    def rows(pauses: list[float]) -> Iterator[float]:
        with progress.stage("rows"):
            yield from progress.track(pauses)

    with job.operation("generator", stall_after=job.limit()) as operation:
        job.begin(operation)
        for pause in rows([job.some(0.1, 0.8) for _ in range(10)]):
            time.sleep(pause)
        job.end(operation)


def children(job: Job) -> None:
    """A parent that declares that it waits for its child operations."""
    with job.operation("parent", stall_after=job.limit(), total=3) as parent:
        job.begin(parent)
        for _ in range(3):
            job.say(parent, "waiting")
            with (
                parent.waiting("the child"),
                job.operation("child", stall_after=job.limit(), total=10, parent=parent) as child,
            ):
                job.begin(child)
                for _ in progress.track(range(10)):
                    time.sleep(job.some(0.1, 0.3))
                job.end(child)
            job.say(parent, "progressing")
            job.advance(parent)
            time.sleep(0.5)
        job.end(parent)


def retries_that_succeed(job: Job) -> None:
    """Each item needs a few tries."""
    with job.operation("retries", stall_after=job.limit() + 1, loop_after=6) as operation:
        job.begin(operation)
        for item in range(6):
            for _ in range(job.random.randint(1, 4)):
                progress.step(f"fetch {item}")
                time.sleep(job.some(0.1, 0.3))
            job.advance(operation)
        job.end(operation)


def same_steps_for_each_item(job: Job) -> None:
    """A cycle of steps for each item, with progress at the end of each."""
    with job.operation("cycle with progress", stall_after=job.limit(), loop_after=4) as operation:
        job.begin(operation)
        for _ in range(12):
            for name in ("read", "think", "write"):
                progress.step(name)
                time.sleep(job.some(0.05, 0.2))
            job.advance(operation)
        job.end(operation)


def stages_for_each_item(job: Job) -> None:
    """The same stages for each item; the last one counts a unit."""
    with job.operation("stages with progress", stall_after=job.limit(), total=15) as operation:
        job.begin(operation)
        for _ in range(15):
            for name in ("read", "write"):
                with progress.stage(name):
                    time.sleep(job.some(0.05, 0.3))
            job.advance(operation)
        job.end(operation)


def model_that_answers(job: Job) -> None:
    """An agent that spends tokens all the time and makes progress."""
    with job.operation("answer", agent="librarian", stall_after=job.limit()) as operation:
        job.begin(operation)
        for number in range(10):
            progress.step(f"search {number}")
            progress.usage(input_tokens=100, output_tokens=20, cost=0.001)
            time.sleep(job.some(0.3, 0.9))
            job.advance(operation)
        job.end(operation)


def work_that_beats(job: Job) -> None:
    """One long call with `heartbeat_counts=True`."""
    limit = job.limit()
    with job.operation("long call", stall_after=limit, heartbeat_counts=True) as operation:
        job.begin(operation)
        until = time.monotonic() + limit * 2
        while time.monotonic() < until:
            operation.heartbeat()
            time.sleep(limit * 0.4)
        job.end(operation)


def busy(job: Job) -> None:
    """It computes all the time and makes progress."""
    with job.operation("busy", stall_after=job.limit()) as operation:
        job.begin(operation)
        until = time.monotonic() + job.some(4, 6)
        while time.monotonic() < until:
            sum(number * number for number in range(20_000))
            operation.advance()
        job.end(operation)


def without_limits(job: Job) -> None:
    """Consecutive runs of one name with pauses of all lengths and no set limit, so that all is learned."""
    for _ in range(3):
        with job.operation("nightly") as operation:
            job.begin(operation)
            for _ in range(8):
                time.sleep(min(job.random.lognormvariate(-1.5, 1.0), 3.0))
                job.advance(operation)
            job.end(operation)


def patient(job: Job) -> None:
    """It moves often, then pauses for more than a minute and continues; no limit is set."""
    with job.operation("patient") as operation:
        job.begin(operation)
        job.work(operation, 15)
        time.sleep(10 if job.short else job.random.uniform(65, 80))
        job.work(operation, 3)
        job.end(operation)


def crowd(job: Job) -> None:
    """More operations than the event budget can report each second."""
    os.environ["OTEL_PROGRESS_EVENT_BUDGET"] = "4"
    progress.configure("verdicts")
    operations = [job.operation("one of a crowd", stall_after=job.limit() + 1).start() for _ in range(30)]
    for operation in operations:
        job.begin(operation)
    until = time.monotonic() + job.some(10, 14)
    while time.monotonic() < until:
        for operation in operations:
            operation.advance()
        time.sleep(0.2)
    for operation in operations:
        job.end(operation)
        operation.complete()


def without_units(job: Job) -> None:
    """Nothing is counted and no limit is set: the only conclusion is that it runs."""
    with job.operation("without units") as operation:
        job.begin(operation)
        time.sleep(job.some(6, 10))
        job.end(operation)


def witness(job: Job) -> None:
    """It works until it is told to end."""
    with job.operation("witness", stall_after=5.0) as operation:
        while True:
            operation.advance()
            time.sleep(0.3)
