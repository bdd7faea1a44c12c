"""Rows of the ticker: CPU of our threads with many live operations that all move; the job itself is left out.

The first rows run for real, with 10,000 young operations in one process. The last one is of a hundred operations that
have run for ten minutes, as updates are rarer then: its clock is simulated, its CPU time is not.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import otel_progress as progress
from benchmarks.harness import Row, ask, full_or_short, sink, tell
from otel_progress import clock
from otel_progress.live import hooks
from otel_progress.live.engine import process, runtime
from otel_progress.live.engine.ticker import ROUNDS
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.testing import FakeClock

LIVE = full_or_short(10_000, 500)
WARM = full_or_short(12.0, 1.0)
SECONDS = full_or_short(20.0, 2.0)
OLD = 100
AGE = full_or_short(600.0, 20.0)
OLD_SECONDS = full_or_short(300.0, 10.0)
TICKER, SENDER = "otel-progress-ticker", "otel-progress-sender"
BAR = "4% of a core (10,000 operations)"


def cpu(name: str) -> float:
    """Return the CPU seconds of our thread of this name."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == name)
    spent = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]
    return int(spent) / 1e9


def start(count: int) -> list[progress.Operation]:
    return [progress.operation("survey", total=1_000_000, stall_after=30).start() for _ in range(count)]


def move(live: list[progress.Operation], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for operation in live:
            operation.advance()
        time.sleep(0.5)


def young(*, all_series: bool) -> None:
    """Measure many operations that began a moment ago."""
    if all_series:
        os.environ["OTEL_PROGRESS_RUN_SERIES_MAX"] = str(2 * LIVE)
        os.environ["OTEL_PROGRESS_RUN_SERIES_AFTER"] = "0"
    with sink() as endpoint:
        progress.configure("ticker", endpoint=endpoint, interval=1.0)
        live = start(LIVE)
        move(live, WARM)
        before, began = (cpu(TICKER), cpu(SENDER)), time.monotonic()
        move(live, SECONDS)
        took = time.monotonic() - began
        share, sending = ((cpu(name) - was) / took for name, was in zip((TICKER, SENDER), before))
        which = "series of all" if all_series else "by default"
        tell(
            Row(
                f"ticker, {LIVE:,} live operations of a process that all advance, at 1 s, {which}",
                f"{share:.1%} of a core; the sender {sending:.1%}",
                BAR,
                "none",
                share <= 0.04,
            )
        )
    os._exit(0)


def old() -> None:
    """Measure operations of ten minutes: rounds are run by hand, as fast as they can."""
    events: list[str] = []

    with sink() as endpoint:
        progress.configure("ticker", endpoint=endpoint, interval=1.0)
        simulated = FakeClock(time.time_ns())
        clock.install(simulated)
        live = start(OLD)
        pipeline: Pipeline = process.in_haste[0].__self__  # type: ignore[attr-defined]
        runtime.ticker.park()  # its thread runs from the first start on, and would take rounds of its own

        def rounds(seconds: float) -> float:
            spent = 0.0
            for number in range(int(seconds * ROUNDS)):
                simulated.sleep(1 / ROUNDS)
                if number % 2 == 0:
                    for operation in live:
                        operation.advance()
                before = time.thread_time()
                runtime.ticker.round()
                spent += time.thread_time() - before
                if pipeline.series_waiting or not pipeline.all_sent():
                    pipeline.flush(5.0)  # as in life, all is sent before the next round
            return spent

        rounds(AGE)
        hooks.paced_sinks.append(lambda event, _: events.append(event.name))
        gc.collect()
        time.sleep(1.0)
        before = cpu(SENDER)
        spent = rounds(OLD_SECONDS)
        time.sleep(1.0)
        each, sent = spent / OLD_SECONDS / OLD, (cpu(SENDER) - before) / len(events)
        tell(
            Row(
                f"ticker, {OLD} operations of a process that have run for 10 minutes and all advance",
                f"{each * 1e6:.0f} µs an operation and second: {each * 1e4:.0%} of a core for 10,000 in 100 processes; "
                f"{spent / len(events) * 1e6:.0f} µs an event; the sender {sent * 1e6:.0f} µs an event",
                f"{BAR}; sender 20 µs an event",
                "none",
                each <= 4e-6 and sent <= 20e-6,
            )
        )
    os._exit(0)


ROWS: dict[str, Callable[[], None]] = {
    "default": partial(young, all_series=False),
    "all": partial(young, all_series=True),
    "old": old,
}


def main() -> None:
    """Run one row, or each in a process of its own."""
    names = [argument for argument in sys.argv[1:] if argument in ROWS]
    if names:
        ROWS[names[0]]()
    for name in ROWS:
        tell(*ask("ticking", name))


if __name__ == "__main__":
    main()
