"""Threads and tasks: `pool` (8 threads by carry and by CarryingExecutor), `tasks` (1,000 operations at once), `churn`.

`churn` starts and ends operations in threads while the main thread configures and shuts down again and again.
"""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)


def pool():
    """Every item of 8 threads is counted by the stage that submitted it."""
    progress.configure()
    for kind in ("carry", "executor"):
        with progress.operation(kind, id=kind), progress.stage("work", total=8000) as stage:

            def work(_, kind=kind):
                for _ in range(1000):
                    progress.advance()
                assert progress.current().id == kind

            if kind == "carry":
                with ThreadPoolExecutor(8) as executor:
                    list(executor.map(progress.carry(work), range(8)))
            else:
                with progress.CarryingExecutor(8) as executor:
                    list(executor.map(work, range(8)))
            print(kind, stage.operation.snapshot().stages[0].progress.completed)


def tasks():
    """Each of 1,000 tasks has its own operation, and sees no other. All run at once for longer than an export takes."""
    running = []
    all_run = asyncio.Event()

    async def one(number):
        async with progress.operation("task", id=f"task-{number}"), progress.stage("step"):
            running.append(number)
            if len(running) == 1000:
                all_run.set()
            await all_run.wait()
            await asyncio.sleep(1.2)
            progress.advance()
            return progress.current().id == f"task-{number}"

    async def main():
        return await asyncio.gather(*[one(number) for number in range(1000)])

    progress.configure()
    right = sum(asyncio.run(main()))
    progress.shutdown(30)  # a busy machine needs more than the two seconds of an exit
    print("right", right)


def ours():
    """Return the names of our threads."""
    return [name for name in (thread.name for thread in threading.enumerate()) if name.startswith("otel-progress")]


def churn():
    """Nothing raises, and once all is quiet, telemetry works."""
    stop, errors, made = threading.Event(), [], [0] * 4

    def work(number):
        try:
            while not stop.is_set():
                made[number] += 1
                with progress.operation("churn", id=f"{number}-{made[number]}"), progress.stage("step"):
                    progress.note("here")
                time.sleep(0.005)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    for number in range(8):
        before = time.monotonic()
        progress.configure(interval=0.2)
        if number % 4 == 3:
            progress.shutdown()
        slowest = max(slowest, time.monotonic() - before)
        time.sleep(0.05)
    progress.configure()
    with progress.operation("last", id="last"):
        pass
    stop.set()
    for thread in threads:
        thread.join()
    patience = time.monotonic() + 10
    while len(ours()) != len(set(ours())) and time.monotonic() < patience:
        time.sleep(0.02)  # an old configuration may still be sending
    print("errors", len(errors), *errors)
    print("slowest", slowest)


def swap():
    """Configured again and again without shutdown, no event is lost between two configurations."""
    progress.configure()
    for number in range(30):
        with progress.operation("swap", id=f"swap-{number}"):
            if number % 5 == 0:
                progress.configure(interval=0.2)


{"pool": pool, "tasks": tasks, "churn": churn, "swap": swap}[sys.argv[1]]()
print("threads", *sorted(thread.name.replace(" ", "_") for thread in threading.enumerate()))
print("end", time.monotonic())
