"""A user's program, run by test_names.py, that has a point of every metric until its input ends."""

import sys
import threading

import otel_progress as progress

over = threading.Event()


def moving() -> None:
    """Count, and send heartbeats."""
    with progress.operation("work", id="moving", total=1_000_000, unit="row", stall_after=60, slow_after=3600) as it:
        with progress.stage("load", unit="row") as stage:
            while not over.wait(0.1):
                progress.heartbeat()
                it.advance(10)
                stage.advance(10)
                progress.usage(input_tokens=8, output_tokens=1, cost=0.004)


def stuck() -> None:
    """Do nothing."""
    with progress.operation("work", id="stuck", stall_after=0.5):
        with progress.stage("fetch"):
            over.wait()


def waiting() -> None:
    """Wait for a person."""
    with progress.operation("work", id="waiting"):
        with progress.waiting("approval", overdue_after=3600):
            over.wait()


def family() -> None:
    """Run with a child."""
    with progress.operation("work", id="parent"), progress.operation("work", id="child"):
        over.wait()


def staged() -> None:
    """Count in a stage alone."""
    with progress.operation("work", id="staged"), progress.stage("count", total=1_000_000) as stage:
        while not over.wait(0.1):
            stage.advance()


def verifying() -> None:
    """Count in a stage for two seconds, then in none."""
    with progress.operation("work", id="verifying"):
        with progress.stage("count", total=1_000_000) as stage:
            for _ in range(20):
                stage.advance()
                over.wait(0.1)
        with progress.stage("verify"):
            over.wait()


def over_soon() -> None:
    """End once it was exported."""
    with progress.operation("work", id="over"):
        over.wait(2)


def looping() -> None:
    """Repeat one step, at a cost."""
    with progress.operation("work", id="looping", loop_after=3):
        while not over.wait(0.1):
            progress.step("search")
            progress.usage(input_tokens=8, cost=0.004)


progress.configure()
progress.advance()  # outside an operation: counted as dropped
with progress.operation("work", id="ended"), progress.stage("only"):
    pass
late = progress.operation("work", id="late", start_within=0.5)
works = (moving, stuck, waiting, family, staged, verifying, over_soon, looping)
threads = [threading.Thread(target=work) for work in works]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print("ended", flush=True)
