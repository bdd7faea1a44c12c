"""Processes that are killed, stopped, frozen, or out of memory."""

from __future__ import annotations

import os
import re
import resource
import signal
import time

import otel_progress as progress
from benchmarks.faults.job import Job

BEATS = 3
"""Missing heartbeats after which a process counts as dead."""
LONG = 30.0
"""A limit that is not reached."""


def gone(job: Job, operation: progress.Operation, *, last: bool = True) -> None:
    """Report that it is gone: lost if it is watched, otherwise dead."""
    if job.watched:
        job.say(operation, "lost", outside=True, last=last)
    else:
        job.say(operation, "dead", BEATS * beat(), outside=True, last=last)


def beat() -> float:
    """Seconds from one heartbeat to the next."""
    return float(os.environ["OTEL_PROGRESS_HEARTBEAT"])


def killed(job: Job) -> None:
    """SIGKILL in the middle of the work."""
    with job.operation("killed", stall_after=LONG, total=1000) as operation:
        job.begin(operation)
        with progress.stage("work"):
            job.work(operation, job.some(2, 4))
            gone(job, operation)
            os.kill(os.getpid(), signal.SIGKILL)


def killed_many(job: Job) -> None:
    """One process with several operations is killed."""
    operations = [job.operation("one of many", stall_after=LONG).start() for _ in range(3)]
    for operation in operations:
        job.begin(operation)
    for _ in range(10):
        for operation in operations:
            job.advance(operation)
        time.sleep(0.2)
    for operation in operations:
        gone(job, operation)
    os.kill(os.getpid(), signal.SIGKILL)


def left(job: Job) -> None:
    """A library ends the process at once."""
    with job.operation("left", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(2, 4))
        gone(job, operation)
        os._exit(job.random.choice((0, 1, 3)))


def terminated(job: Job) -> None:
    """SIGTERM that nobody handles."""
    with job.operation("terminated", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(2, 4))
        gone(job, operation)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


def bounded_memory(more: int) -> None:
    """Allow this number of bytes beyond the current memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


def out_of_memory(job: Job) -> None:
    """Memory runs out, which raises MemoryError: the operation fails."""
    with job.operation("greedy", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        bounded_memory(64 << 20)
        job.say(operation, "failed", last=True)
        kept = []
        while True:
            kept.append(bytearray(8 << 20))
            job.advance(operation)


def out_of_memory_abort(job: Job) -> None:
    """Memory runs out in a library that aborts."""
    with job.operation("greedy library", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        bounded_memory(64 << 20)
        kept = []
        try:
            while True:
                kept.append(bytearray(8 << 20))
        except MemoryError:
            gone(job, operation)
            os.abort()


def stopped(job: Job) -> None:
    """SIGSTOP without SIGCONT."""
    with job.operation("stopped", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(2, 4))
        job.say(operation, "dead", BEATS * beat(), outside=True, last=True, frozen=True)
        os.kill(os.getpid(), signal.SIGSTOP)


def stopped_and_continued(job: Job) -> None:
    """SIGSTOP; later it continues and completes: nothing was lost."""
    with job.operation("paused", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(2, 3))
        job.say(operation, "dead", BEATS * beat(), outside=True, frozen=True)
        job.tell(resume=BEATS * beat() + 3.0)
        os.kill(os.getpid(), signal.SIGSTOP)
        job.begin(operation)
        job.work(operation, job.some(3, 4))
        job.end(operation)


def slept(job: Job) -> None:
    """The machine sleeps (SIGSTOP) in the middle of a unit, for longer than the limit; then the unit continues."""
    limit = job.limit()
    with job.operation("slept", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(2, 3))

        def sleep() -> None:
            job.say(operation, "dead", BEATS * beat(), outside=True, frozen=True)
            job.tell(resume=limit + 3.0)
            os.kill(os.getpid(), signal.SIGSTOP)
            job.begin(operation)

        for pause in range(int(limit * 8)):
            if pause == 2:
                sleep()
            time.sleep(0.1)
        job.work(operation, limit / 2 + 4)
        job.end(operation)


def frozen(job: Job) -> None:
    """C code that holds the GIL for ever."""
    with job.operation("frozen", stall_after=LONG) as operation:
        job.begin(operation)
        job.work(operation, job.some(2, 3))
        text = "a" * 60 + "b"
        job.say(operation, "dead", BEATS * beat(), outside=True, last=True, frozen=True, mark="frozen")
        re.match(r"(?:a+)+$", text)  # stuck: frozen
