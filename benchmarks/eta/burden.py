"""What estimates cost a process: memory, and CPU of the ticker beside that of a pace alone."""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import otel_progress as progress
from otel_progress.live.engine import runtime
from otel_progress.model.estimate import Pace, _Forecast
from otel_progress.model.forecast import untested
from otel_progress.testing import capture

PACES = 300
"""Estimates of which the memory is measured."""
LOOK = 0.75
AGE = 60.0
"""Seconds (by the fake clock) that each of them has followed its count."""
BEFORE = 400
"""Bytes of an estimate before there were forecasters (docs/performance.md)."""
MORE = 1000
"""Bytes that it may take more than that."""
LIVE = 200
"""Operations that the ticker follows."""
TICK = 0.25
"""Seconds between its rounds."""
WARM, MEASURED = 40, 60
"""Rounds before those that are measured, and these."""
TURNS = 3


def bars() -> list[tuple[str, str, bool]]:
    """Measure; returns what is asked for, what was found, and whether it is met."""
    untested_size, tested_size = memory(tested=False), memory(tested=True)
    turns = [(ticker(), _alone()) for _ in range(TURNS)]
    ratio = statistics.median(ours / alone for ours, alone in turns)
    return [
        (
            f"memory of an estimate after a minute: at most 1 kB more than {BEFORE} B, as before the forecasters",
            f"{untested_size:,.0f} B, with tests {tested_size:,.0f} B",
            max(untested_size, tested_size) <= BEFORE + MORE,
        ),
        ("CPU of the ticker at most that of a pace without forecasters", f"{ratio:.2f} times", ratio <= 1),
    ]


def memory(*, tested: bool) -> float:
    """Return the bytes that the estimate of an operation takes after a minute.

    Args:
        tested: whether its forecasters were tested, as those of a few operations are.
    """
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        paces = [_followed(0.9 + number / PACES / 5, tested) for number in range(PACES)]
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / len(paces)
    finally:
        tracemalloc.stop()


def _followed(each: float, tested: bool) -> Pace:
    """Return a pace that was observed for a minute, as the ticker does, of units that take the given seconds each."""
    pace = Pace(0.0)
    for look in range(1, int(AGE / LOOK) + 1):
        now = look * LOOK
        done = float(int(now / each))
        if not done:
            continue
        if pace.is_unsettled or look % 3 == 0:
            pace.observe(now, done)
        pace.estimate(1000.0 - done, now, done=done, may_review=lambda: tested)
    return pace


def ticker() -> float:
    """Return the CPU seconds of rounds of the ticker while operations advance, by the fake clock."""
    with capture() as captured:
        live = [progress.operation("cost", total=1_000_000).start() for _ in range(LIVE)]
        spent = 0.0
        for number in range(WARM + MEASURED):
            captured.clock.sleep(TICK)
            for operation in live:
                operation.advance()
            began = time.thread_time()
            runtime.ticker.round()
            spent += time.thread_time() - began if number >= WARM else 0.0
        for operation in live:
            operation.complete()
    return spent


def _alone() -> float:
    with _without_forecasters():
        return ticker()


@contextmanager
def _without_forecasters() -> Iterator[None]:
    """Let estimates follow the rate alone: no course is kept, and nothing is tested or combined."""
    kept = Pace._forecast, Pace._reach

    def forecast(self: Any, time: float, units: float, left: float, grain: float, rate: float, may_review: Any) -> Any:  # noqa: ARG001
        return _Forecast(units, units + left, 1.0 / rate, untested(1.0, left), 0.0)

    Pace._forecast = forecast  # type: ignore[method-assign]
    Pace._reach = lambda self, time, units: None  # type: ignore[method-assign]  # noqa: ARG005
    try:
        yield
    finally:
        Pace._forecast, Pace._reach = kept  # type: ignore[method-assign]
