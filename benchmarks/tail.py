"""Row of the slowest calls: the 99th percentile of each public call while the receiver never answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import otel_progress as progress
from benchmarks.harness import Row, full_or_short, sink, tell

CALLS = full_or_short(5_000, 400)


def percentile(call: Callable[[], Any]) -> float:
    """Return the seconds that 99 of 100 calls do not exceed; wall time, so that waiting counts."""
    taken = []
    for number in range(CALLS):
        before = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - before)
        if number % 50 == 0:
            time.sleep(0.001)
    return sorted(taken)[int(CALLS * 0.99)] / 1e9


def calls() -> dict[str, Callable[[], Any]]:
    def stage() -> None:
        with progress.stage("parse"):
            pass

    def operation() -> None:
        with progress.operation("child"):
            pass

    def wait() -> None:
        with progress.waiting("a reply"):
            pass

    return {
        "advance": progress.advance,
        "update": lambda: progress.update(completed=1, total=9, message="on it"),
        "set": lambda: progress.set(file="a.py"),
        "note": lambda: progress.note("a line", file="a.py"),
        "record": lambda: progress.record("failed", item="a.py"),
        "usage": lambda: progress.usage(input_tokens=8, output_tokens=9, cost=0.1),
        "heartbeat": progress.heartbeat,
        "result": lambda: progress.result(verdict="good"),
        "wait enter + exit": wait,
        "stage enter + exit": stage,
        "operation start + end": operation,
        "snapshot": lambda: progress.current(required=True).snapshot(),
    }


def main() -> None:
    with sink(hang=True) as endpoint:
        progress.configure("tail", endpoint=endpoint)
        with progress.operation("survey", total=100):
            time.sleep(0.5)
            slowest = {name: percentile(call) for name, call in calls().items()}
        worst = max(slowest, key=lambda name: slowest[name])
        tell(
            Row(
                "99th percentile of a call, exporter hangs",
                f"{slowest[worst] * 1e3:.3f} ms ({worst})",
                "1 ms",
                ", ".join(f"{name} {seconds * 1e6:.0f} µs" for name, seconds in slowest.items()),
                slowest[worst] <= 1e-3,
            )
        )
    os._exit(0)


if __name__ == "__main__":
    main()
