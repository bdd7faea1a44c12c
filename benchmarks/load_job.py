"""A program with many running operations, for load.py.

python -m benchmarks.load_job OPERATIONS AGE SECONDS STAGE_SECONDS

Each operation completes a unit a second, begins a stage and uses tokens every STAGE_SECONDS, adds a note every 30 s.
It writes `ready`, after AGE seconds `old`, and SECONDS later `over` with the CPU seconds of its threads since `old`.
`python -m benchmarks.load_job probe` runs one operation that adds a note every half second, until its input ends.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import psutil

import otel_progress as progress

ROUNDS = 10
"""Rounds a second; in each, every tenth operation does something."""
NOTE_SECONDS = 30


class Work:
    """One operation."""

    def __init__(self, seconds: int, stage_seconds: int) -> None:
        self.stage_seconds = stage_seconds
        self.operation = progress.operation("work", total=seconds, unit="row", stall_after=600, slow_after=3600).start()
        self.seconds = 0
        self._next_stage()

    def _next_stage(self) -> None:
        names = ("read", "check", "convert", "write")
        self.stage = self.operation.stage(names[self.seconds // self.stage_seconds % len(names)]).start()

    def second(self) -> None:
        self.seconds += 1
        self.operation.advance()
        if self.seconds % self.stage_seconds == 0:
            self.stage.complete()
            self.operation.usage(input_tokens=800, output_tokens=90, cost=0.004)
            self._next_stage()
        if self.seconds % NOTE_SECONDS == 0:
            self.operation.note(f"{self.seconds} rows are done")

    def end(self) -> None:
        self.stage.complete()
        self.operation.complete()


def threads() -> dict[str, float]:
    """CPU seconds of each thread by its name."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    return {names.get(one.id, "others"): one.user_time + one.system_time for one in psutil.Process().threads()}


def main(count: int, age: int, seconds: int, stage_seconds: int) -> None:
    """Run this number of operations."""
    works: list[Work] = []
    for number in range(count):
        works.append(Work(age + seconds, stage_seconds))
        if number % 10 == 9:
            time.sleep(0.1)
    print("ready", flush=True)
    begin, before = time.monotonic(), threads()
    for number in range((age + seconds) * ROUNDS):
        time.sleep(max(0.0, begin + number / ROUNDS - time.monotonic()))
        if number == age * ROUNDS:
            print("old", flush=True)
            before = threads()
        for work in works[number % ROUNDS :: ROUNDS]:
            work.second()
    used = {name: round(cpu - before.get(name, 0.0), 2) for name, cpu in threads().items()}
    print("over", json.dumps(used), flush=True)
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
        main(*map(int, sys.argv[1:]))
    progress.shutdown()
