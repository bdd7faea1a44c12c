"""A program with many running operations, for load.py.

python -m benchmarks.load_job OPERATIONS SECONDS

Each operation completes a unit a second, starts a stage and uses tokens every 20 s, and adds a note every 30 s.
`python -m benchmarks.load_job probe` runs one operation that adds a note every half second, until its input ends.
"""

from __future__ import annotations

import sys
import threading
import time

import otel_progress as progress

ROUNDS = 10
"""Rounds a second; in each, every tenth operation does something."""
STAGE_SECONDS, NOTE_SECONDS = 20, 30


class Work:
    """One operation."""

    def __init__(self, seconds: int) -> None:
        self.operation = progress.operation("work", total=seconds, unit="row", stall_after=600, slow_after=3600).start()
        self.seconds = 0
        self._next_stage()

    def _next_stage(self) -> None:
        names = ("read", "check", "convert", "write")
        self.stage = self.operation.stage(names[self.seconds // STAGE_SECONDS % len(names)]).start()

    def second(self) -> None:
        self.seconds += 1
        self.operation.advance()
        if self.seconds % STAGE_SECONDS == 0:
            self.stage.complete()
            self.operation.usage(input_tokens=800, output_tokens=90, cost=0.004)
            self._next_stage()
        if self.seconds % NOTE_SECONDS == 0:
            self.operation.note(f"{self.seconds} rows are done")

    def end(self) -> None:
        self.stage.complete()
        self.operation.complete()


def main(count: int, seconds: int) -> None:
    """Run this number of operations for these seconds; print `ready` when all run."""
    works: list[Work] = []
    for number in range(count):
        works.append(Work(seconds))
        if number % 10 == 9:
            time.sleep(0.1)
    print("ready", flush=True)
    begin = time.monotonic()
    for number in range(seconds * ROUNDS):
        time.sleep(max(0.0, begin + number / ROUNDS - time.monotonic()))
        for work in works[number % ROUNDS :: ROUNDS]:
            work.second()
    print("over", flush=True)
    sys.stdin.readline()
    for work in works:
        work.end()


def probe() -> None:
    """Add notes until the input ends."""
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    print("ready", flush=True)
    with progress.operation("probe", stall_after=600) as operation:
        number = 0
        while not over.wait(0.5):
            number += 1
            operation.note(f"probe {number}")


if __name__ == "__main__":
    progress.configure()
    if sys.argv[1] == "probe":
        probe()
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
    progress.shutdown()
