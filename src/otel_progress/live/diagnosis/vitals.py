"""CPU and memory of this process, as evidence; a busy CPU is no proof of life."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

from otel_progress import clock, semconv

APART: Final = 1.0
"""Seconds from one measurement of the CPU to the next, at least."""


class _Meter:
    """Measures one process; a forked child takes a new one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.measured: tuple[float, float] | None = None
        """When the CPU was read last, and how many seconds of it were used until then."""
        self.utilization: float | None = None
        try:
            self.process: Any = sys.modules["psutil"].Process()
        except Exception:
            self.process = None

    def read(self) -> dict[str, float]:
        """The vitals now."""
        now = clock.monotonic()
        if self.measured is None or now - self.measured[0] >= APART:
            times = self.process.cpu_times()
            used = times.user + times.system
            if self.measured is not None:
                self.utilization = max(0.0, (used - self.measured[1]) / (now - self.measured[0]))
            self.measured = (now, used)
        found = {semconv.PROCESS_MEMORY: float(self.process.memory_info().rss)}
        if self.utilization is not None:
            found[semconv.PROCESS_CPU] = self.utilization
        return found


_meter: _Meter | None = None


def prepare() -> None:
    """Import psutil, where it is installed: not in a thread, as a fork in that moment would harm the child."""
    try:
        importlib.import_module("psutil")
    except Exception:
        return


def vitals() -> dict[str, float]:
    """CPU (1.0 is a core) since the last call that measured it, at least a second before, and memory in bytes.

    Empty without psutil, or once it fails. The first call has no CPU yet.
    """
    global _meter
    meter = _meter
    if meter is None or meter.pid != os.getpid():
        meter = _meter = _Meter()
    if meter.process is None:
        return {}
    try:
        return meter.read()
    except Exception:
        meter.process = None
        return {}
