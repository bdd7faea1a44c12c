"""CPU and memory of this process, as evidence; a busy CPU does not prove progress."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

from otel_progress import clock, semconv

APART: Final = 1.0
"""Seconds between two measurements of the CPU, at least."""


class _Meter:
    """Measures one process; a forked child gets a new one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.measured: tuple[float, float] | None = None
        """When the CPU time was read last (s, monotonic), and the seconds used until then."""
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
    """Import psutil, if it is installed; not in a thread, as a fork during the import would break the child."""
    try:
        importlib.import_module("psutil")
    except Exception:
        return


def vitals() -> dict[str, float]:
    """CPU utilisation since the last measurement (1.0 is one core), and memory in bytes.

    Empty without psutil, or once that fails. The first call has no CPU utilisation.
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
