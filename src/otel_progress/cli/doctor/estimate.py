"""What the set-up will send in an hour: the SDK itself counts it, in a process that sends nothing.

The process plays an hour of one operation by a clock of its own, with the settings of this environment, so the figures
are those of this version and this configuration.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from otel_progress import clock
from otel_progress.cli.doctor.configuration import DoctorOptions, sent
from otel_progress.cli.doctor.findings import Level, ReportLine
from otel_progress.cli.doctor.report import Report
from otel_progress.model.units import plural, size
from otel_progress.settings import ATTEMPTS, CHECKPOINTS, HANDLERS, SIGNALS, STORES, Settings

STEP: Final = "an hour of one operation"
ABOUT: Final = "with 10 stages and a count that moves each second, alone in its process; docs/cost.md has other work"
ITEMS: Final = {"logs": "event", "metrics": "point", "traces": "span"}


class Estimate:
    """The process that counts; it is started early, as it takes some seconds."""

    def __init__(self, settings: Settings, given: DoctorOptions, environ: Mapping[str, str]) -> None:
        """Start the process."""
        self._signals = sent(settings)
        self._settings = settings
        command = [sys.executable, "-m", "otel_progress.rehearsal"]
        for name in ("endpoint", "protocol"):
            value = getattr(given, name)
            if value is not None:
                command += [f"--{name}", value]
        self._process = subprocess.Popen(  # noqa: S603  # this program
            command,
            env={**environ, **self._own()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )

    def _own(self) -> dict[str, str]:
        """Nothing but what OTLP receives, no file touched, and spans that wait for the clock of the play."""
        exporters = {f"OTEL_{name.upper()}_EXPORTER": "otlp" if name in self._signals else "none" for name in SIGNALS}
        unset = dict.fromkeys((ATTEMPTS, CHECKPOINTS, HANDLERS, STORES, "OTEL_PROGRESS_HISTORY"), "")
        return {**exporters, **unset, "OTEL_BSP_SCHEDULE_DELAY": "1000000000", "PYTHONSAFEPATH": "1"}

    def tell(self, report: Report, deadline: float) -> None:
        """Report what the process counted; nothing that it did not count by the deadline."""
        report.waiting("counting what an hour sends")
        try:
            out, _ = self._process.communicate(timeout=max(0.1, deadline - clock.monotonic()))
            found: dict[str, Any] = json.loads(out.splitlines()[-1])
        except (subprocess.TimeoutExpired, ValueError, IndexError):
            report.add(ReportLine(STEP, Level.NOTE, "not counted within the time"))
            return
        finally:
            self.stop()
        report.add(ReportLine(STEP, Level.NOTE, ABOUT))
        for signal in self._signals:
            zipped = self._settings.endpoints[signal].compression == "gzip"
            text = describe(ITEMS[signal], found[signal], zipped=zipped)
            report.add(ReportLine(STEP, Level.NOTE, text, signals=(signal,)))

    def stop(self) -> None:
        """End the process, if it still runs."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def describe(item: str, tally: Mapping[str, int], *, zipped: bool) -> str:
    """What was counted of one signal, in words."""
    parts = [f"{tally['series']:,} series"] if tally["series"] else []
    parts.append(f"{tally['items']:,} {plural(item, tally['items'])}")
    parts.append(f"{tally['requests']:,} {plural('request', tally['requests'])}")
    whole, small = size(tally["size"]), size(tally["zipped"])
    parts.append(f"{small} as gzip, {whole} unpacked" if zipped else f"{whole}; gzip would make it {small}")
    return ", ".join(parts)
