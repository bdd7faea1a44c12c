"""Work that is busy without progress."""

from __future__ import annotations

import time

import otel_progress as progress
from benchmarks.faults.job import Job

QUIET = 5.0
"""Default seconds without progress before a loop is reported."""
DEFAULT = 10
"""Default number of repeats."""


def due(job: Job, operation: progress.Operation, turn: int, limit: int, since: float, named: bool) -> None:
    """Report when the last allowed turn is over."""
    if turn == limit and named:
        job.say(operation, "looping", mark="turns", last=True)
    elif turn == limit:
        job.say(operation, "looping", max(0.0, since + QUIET - time.time()), mark="turns", last=True)


def retry_loop(job: Job) -> None:
    """The same call fails and is retried for ever."""
    named = job.random.random() < 0.6
    limit = job.random.randint(3, 8) if named else DEFAULT
    pause = job.random.uniform(0.2, 0.5)
    with job.operation("retry", stall_after=60.0, **({"loop_after": limit} if named else {})) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        since, turn = time.time(), 0
        while True:
            turn += 1
            progress.step("fetch page 7")  # stuck: turns
            due(job, operation, turn, limit, since, named)  # stuck: turns
            progress.record("failed", item="page 7")  # stuck: turns
            time.sleep(pause)  # stuck: turns


def tool_cycle(job: Job) -> None:
    """An agent that calls the same few tools in turn, and spends tokens."""
    limit = job.random.randint(3, 5)
    tools = [f"{tool} {job.random.randrange(1000)}" for tool in ("search", "read", "think", "ask", "write")]
    tools = tools[: job.random.randint(2, 5)]
    pause = job.random.uniform(0.1, 0.3)
    with job.operation("agent", agent="librarian", stall_after=60.0, loop_after=limit) as operation:
        job.begin(operation)
        for number in range(8):
            progress.step(f"search for {number}")
            job.advance(operation)
            time.sleep(0.2)
        since, turn = time.time(), 0
        while True:
            turn += 1
            for tool in tools:
                progress.step(tool)  # stuck: turns
                progress.usage(input_tokens=100, output_tokens=20, cost=0.001)  # stuck: turns
                if tool is tools[-1]:  # stuck: turns
                    due(job, operation, turn, limit, since, named=True)  # stuck: turns
                time.sleep(pause)  # stuck: turns


def failing_stage(job: Job) -> None:
    """The same stage fails again and again."""
    limit = job.random.randint(3, 6)
    pause = job.random.uniform(0.3, 0.6)
    with job.operation("deploy", stall_after=60.0, loop_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 2))
        since, turn = time.time(), 0
        while True:
            turn += 1
            try:
                with progress.stage("push"):  # stuck: turns
                    time.sleep(pause)  # stuck: turns
                    raise ConnectionError("refused")  # stuck: turns
            except ConnectionError:  # stuck: turns
                due(job, operation, turn, limit, since, named=True)  # stuck: turns


def stage_cycle(job: Job) -> None:
    """Stages that complete, and lead to nothing."""
    limit = job.random.randint(3, 5)
    names = ["plan", "act", "check", "review"][: job.random.randint(2, 4)]
    pause = job.random.uniform(0.15, 0.3)
    with job.operation("plan and act", stall_after=60.0, loop_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 2))
        since, turn = time.time(), 0
        while True:
            turn += 1
            for name in names:
                with progress.stage(name):  # stuck: turns
                    if name is names[-1]:  # stuck: turns
                        due(job, operation, turn, limit, since, named=True)  # stuck: turns
                    time.sleep(pause)  # stuck: turns


def spender(job: Job) -> None:
    """Nothing but tokens and cost grows."""
    limit = job.limit() + QUIET
    pause = job.random.uniform(0.2, limit / 8)
    with job.operation("talk", agent="talker", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 2))
        # A model that is waited for is work, and advances by its tokens; here nobody counts them as work.
        job.say(operation, "looping", limit, moved=True, mark="turns", last=True)
        while True:
            progress.usage(input_tokens=50, output_tokens=10, cost=0.002)  # stuck: turns
            time.sleep(pause)  # stuck: turns


def loop_that_ends(job: Job) -> None:
    """It repeats too often, and then succeeds."""
    limit = job.random.randint(3, 5)
    with job.operation("stubborn", stall_after=5.0, loop_after=limit) as operation:
        job.begin(operation)
        job.work(operation, 1)
        for turn in range(1, limit + 9):
            progress.step("connect")  # stuck: turns
            if turn == limit:  # stuck: turns
                job.say(operation, "looping", mark="turns")
            time.sleep(0.4)  # stuck: turns
        job.begin(operation)
        job.work(operation, 2.5 + 4)
        job.end(operation)


def turns_after_one_hang(job: Job) -> None:
    """Each turn is a stage; one hangs, and those after it are healthy."""
    limit = job.limit()
    with job.operation("turns", stall_after=limit) as operation:
        job.begin(operation)
        for turn in range(30):
            with progress.stage("think"):
                if turn == 4:
                    job.say(operation, "silent", limit, mark="one hang")
                    time.sleep(limit + 1.5)  # stuck: one hang
                    job.begin(operation)
                time.sleep(0.3)
        job.end(operation)


def polls_for_each_unit(job: Job) -> None:
    """It polls equally long for each unit, which nothing shows before the first one is done."""
    with job.operation("poll", stall_after=12.0) as operation:
        job.begin(operation)
        for unit in range(5):
            for turn in range(1, 21):
                progress.step("poll")  # stuck: polls
                if unit == 0 and turn == DEFAULT:
                    job.say(operation, "looping", QUIET - 0.4 * (turn - 1), mark="polls")
                time.sleep(0.4)  # stuck: polls
            job.advance(operation)
            if unit == 0:
                job.begin(operation)
        job.end(operation)
