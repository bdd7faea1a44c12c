"""Row of handlers: CPU time of the job's own thread with ten handlers at once, and with none."""

from __future__ import annotations

import os
import statistics
import time

import otel_progress as progress
from benchmarks.harness import Row, full_or_short, rotated, sink, tell
from otel_progress.handlers.handler import Handler

HANDLERS = 10
ROUNDS = full_or_short(15, 3)
ITEMS = full_or_short(150_000, 5_000)
MOST = 1.02


class Reader(Handler):
    """Reads all of each event, as an outlet does."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0

    def handle(self, event: progress.Event) -> None:
        self.events += 1
        event.snapshot.to_dict()


def job(operation: progress.Operation) -> float:
    """Return the CPU seconds of this thread for stages, items and records."""
    before = time.thread_time()
    for number in range(10):
        with operation.stage(f"part {number}"):
            for item in operation.track(range(ITEMS)):
                if item % 100 == 0:
                    operation.record("ok", component="reader")
                    operation.advance(unit="page")
    return time.thread_time() - before


def once(handlers: int) -> tuple[float, int]:
    """Return the CPU seconds of the job with so many handlers, and the events that they handled."""
    outlets = [Reader() for _ in range(handlers)]
    for outlet in outlets:
        outlet.start()
    try:
        with progress.operation("job") as operation:
            seconds = job(operation)
    finally:
        for outlet in outlets:
            outlet.stop()
    return seconds, sum(outlet.events for outlet in outlets)


def main() -> None:
    with sink() as endpoint:
        progress.configure("handlers", endpoint=endpoint)
        once(HANDLERS)
        taken: dict[int, list[float]] = {0: [], HANDLERS: []}
        handled = 0
        for number in range(ROUNDS):
            for handlers in rotated([0, HANDLERS], number):
                seconds, events = once(handlers)
                taken[handlers].append(seconds)
                handled += events
        least = min(taken[HANDLERS]) / min(taken[0])
        median = statistics.median(taken[HANDLERS]) / statistics.median(taken[0])
        tell(
            Row(
                f"CPU of the job's thread with {HANDLERS} handlers that read each event",
                f"{least:.3f} of that without (median {median:.3f}; {handled:,} events handled)",
                f"{MOST} of that without",
                "none",
                min(least, median) <= MOST,
            )
        )
    os._exit(0)


if __name__ == "__main__":
    main()
