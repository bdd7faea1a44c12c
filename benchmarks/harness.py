"""Interleaved measurement: each candidate runs once a round, so that load on the machine affects all alike."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
SHORT = "--short" in sys.argv
Clock = Callable[[], float]


class Cost(NamedTuple):
    """Seconds per unit: minimum and median of all rounds."""

    least: float
    median: float

    def over(self, base: Cost, units: float = 1) -> Cost:
        """Return the cost per unit above a base."""
        return Cost((self.least - base.least) / units, (self.median - base.median) / units)

    def ratio(self, base: Cost) -> str:
        """Return the ratio to a base, by minimum and by median."""
        return f"{self.least / base.least:.2f} (median {self.median / base.median:.2f})"


@dataclass
class Row:
    """A row of the table; `met` is None if nothing was measured."""

    what: str
    ours: str
    bar: str
    peers: str
    met: bool | None = None


def full_or_short(full: Any, short: Any) -> Any:
    """Return the size for the current mode."""
    return short if SHORT else full


def compare(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    between: Callable[[], object] = lambda: None,
    clock: Clock = time.thread_time,
) -> dict[str, Cost]:
    """Run each candidate once a round, starting with another one each time.

    The clock is the CPU time of this thread, so other processes do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name, run in rotated(list(candidates.items()), number):
                between()
                before = clock()
                run()
                times[name].append(clock() - before)
    finally:
        gc.enable()
    return {name: Cost(min(taken), statistics.median(taken)) for name, taken in times.items()}


def rotated(items: list[Any], number: int) -> list[Any]:
    """Rotate the items each time, so that none always follows the same one."""
    first = number % len(items)
    return items[first:] + items[:first]


def scaled(costs: Mapping[str, Cost], units: float) -> dict[str, Cost]:
    """Divide the costs by the number of units."""
    return {name: Cost(cost.least / units, cost.median / units) for name, cost in costs.items()}


def nanoseconds(cost: Cost) -> str:
    """Format the minimum: `2.9 ns`."""
    return f"{cost.least * 1e9:.1f} ns"


def microseconds(cost: Cost) -> str:
    """Format the minimum: `2.9 µs`."""
    return f"{cost.least * 1e6:.2f} µs"


def tell(*rows: Row) -> None:
    """Send rows to the parent process."""
    for row in rows:
        print("ROW " + json.dumps(asdict(row)), flush=True)


def ask(module: str, *arguments: str, timeout: float = 600) -> list[Row]:
    """Run a module of this package in its own process, and return its rows; a failure is a row too."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, *(["--short"] if SHORT else [])]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    rows = [Row(**json.loads(line[4:])) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if done.returncode or not rows:
        reason = (done.stderr.strip().splitlines() or ["no result"])[-1]
        rows.append(Row(module, f"not measured: {reason}", "", ""))
    return rows


def clean_environment() -> dict[str, str]:
    """Return the environment without OpenTelemetry settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}


@contextmanager
def sink(*, hang: bool = False) -> Iterator[str]:
    """Run an OTLP receiver in its own process, which discards everything or never answers; yield its address."""
    command = [sys.executable, "-m", "benchmarks.sink", *(["hang"] if hang else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()
