"""Interleaved measuring: each candidate once a round, so that a busy machine is busy for all of them."""

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
    """Seconds a unit: the least, and the median, of all rounds."""

    least: float
    median: float

    def over(self, base: Cost, units: float = 1) -> Cost:
        """What it costs more than a base, a unit."""
        return Cost((self.least - base.least) / units, (self.median - base.median) / units)

    def ratio(self, base: Cost) -> str:
        """How many times a base, by the least and by the median."""
        return f"{self.least / base.least:.2f} (median {self.median / base.median:.2f})"


@dataclass
class Row:
    """A line of the table; `met` is None where nothing was measured."""

    what: str
    ours: str
    bar: str
    peers: str
    met: bool | None = None


def full_or_short(full: Any, short: Any) -> Any:
    """A size that depends on the mode."""
    return short if SHORT else full


def compare(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    between: Callable[[], object] = lambda: None,
    clock: Clock = time.thread_time,
) -> dict[str, Cost]:
    """Run each candidate once a round, another one first each time.

    The clock is the CPU time of this thread, so that other processes don't count.
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
    """The items from another one on each time, so that none always comes after the same one."""
    first = number % len(items)
    return items[first:] + items[:first]


def scaled(costs: Mapping[str, Cost], units: float) -> dict[str, Cost]:
    """The same costs for each of so many units."""
    return {name: Cost(cost.least / units, cost.median / units) for name, cost in costs.items()}


def nanoseconds(cost: Cost) -> str:
    """`2.9 ns`, by the least."""
    return f"{cost.least * 1e9:.1f} ns"


def microseconds(cost: Cost) -> str:
    """`2.9 µs`, by the least."""
    return f"{cost.least * 1e6:.2f} µs"


def tell(*rows: Row) -> None:
    """Give rows to the process that started this one."""
    for row in rows:
        print("ROW " + json.dumps(asdict(row)), flush=True)


def ask(module: str, *arguments: str, timeout: float = 600) -> list[Row]:
    """Run a module of this package in a process of its own, and take its rows; a failure is a row too."""
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
    """The environment without settings of OpenTelemetry."""
    return {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}


@contextmanager
def sink(*, hang: bool = False) -> Iterator[str]:
    """The address of an OTLP receiver in a process of its own, that forgets all, or never answers."""
    command = [sys.executable, "-m", "benchmarks.sink", *(["hang"] if hang else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()
