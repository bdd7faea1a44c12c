"""Declared waits, and work that takes longer than expected."""

from __future__ import annotations

import time

import otel_progress as progress
from benchmarks.faults.job import Job


def wait_in_time(job: Job) -> None:
    """A long declared wait, far beyond `stall_after`, that ends in its own time."""
    limit = job.limit()
    with job.operation("ask a human", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, 1)
        seconds = limit * job.random.uniform(1.5, 2) + 2
        options = {"overdue_after": seconds + 30} if job.random.random() < 0.5 else {}
        job.say(operation, "waiting")
        with progress.waiting("a human", **options):
            time.sleep(seconds)
        job.begin(operation)
        job.work(operation, 2)
        job.end(operation)


def wait_overdue(job: Job) -> None:
    """A declared wait that lasts longer than allowed."""
    limit, overdue = job.limit(), job.limit()
    with job.operation("ask for a review", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, 1)
        job.say(operation, "waiting")
        with progress.waiting("a review", overdue_after=overdue):
            job.say(operation, "overdue", overdue)
            time.sleep(overdue + 4)
        job.begin(operation)
        job.work(operation, 3)
        job.end(operation)


def back_off(job: Job) -> None:
    """Retries with declared waits between them, which succeed in time."""
    limit = job.limit()
    with job.operation("back off", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, 1)
        for attempt in range(3):
            progress.step("call the service")
            job.say(operation, "waiting")
            with progress.waiting("the rate limit", overdue_after=60):
                time.sleep(limit / 2 + attempt)
            job.say(operation, "progressing")
            time.sleep(0.3)
        job.work(operation, 2)
        job.end(operation)


def slow(job: Job) -> None:
    """It moves all the time, and takes longer than allowed."""
    allowed = job.limit() + 1
    with job.operation("slow", stall_after=20.0, slow_after=allowed) as operation:
        began = time.time()
        job.begin(operation)
        job.work(operation, allowed / 2)
        job.say(operation, "slow", allowed, at=began)
        job.work(operation, allowed / 2 + 4)
        job.end(operation)


def slow_by_plan(job: Job) -> None:
    """It moves all the time, and takes more than twice what its plan expects."""
    expected = job.limit()
    plan = [progress.StagePlan("load", expected=expected / 4), progress.StagePlan("save", expected=expected / 4)]
    with job.operation("slow by plan", stall_after=20.0, plan=plan) as operation:
        began = time.time()
        job.begin(operation)
        with progress.stage("load"):
            job.work(operation, expected / 2)
            job.say(operation, "slow", expected, at=began)
            job.work(operation, expected / 2 + 4)
        job.end(operation)


def not_started(job: Job) -> None:
    """It waits for its turn for longer than allowed."""
    within = job.limit()
    operation = job.operation("queued", start_within=within)
    job.say(operation, "slow", within)
    time.sleep(within + 4)
    with operation:
        job.begin(operation)
        job.work(operation, 2)
        job.end(operation)
