"""Sends the test operation of `doctor` from its own process, and follows it to the backends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress import clock
from otel_progress.cli.doctor import configuration
from otel_progress.cli.doctor.backends import Backend, BackendUnavailable, ProbeIds, all_three
from otel_progress.cli.doctor.configuration import NOT_ASKED, DoctorOptions, sent, shown
from otel_progress.cli.doctor.findings import Level, Problem, ReportLine, problem
from otel_progress.cli.doctor.report import SKEW_SECONDS, Report, tell_clock
from otel_progress.model.units import duration
from otel_progress.outbound import loopback
from otel_progress.settings import Endpoint, Settings

OPERATION: Final = "test operation"
END_TO_END: Final = "end to end"
LOOK_EVERY: Final = 0.25
STOP_SECONDS: Final = 2.0


@dataclass
class ProbeProcess:
    """The process of the test operation, and what it reported so far."""

    process: subprocess.Popen[str]
    said: list[dict[str, Any]] = field(default_factory=list)
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    threads: list[threading.Thread] = field(default_factory=list)
    cut: bool = False
    """Whether it was stopped before it ended."""

    def of(self, event: str, **about: Any) -> list[dict[str, Any]]:
        """Its reports of one kind."""
        return [one for one in list(self.said) if one["event"] == event and about.items() <= one.items()]

    def running(self) -> bool:
        """Whether it runs, or its reports are still being read."""
        return self.process.poll() is None or any(thread.is_alive() for thread in self.threads)

    def stop(self) -> None:
        """End it, if it still runs."""
        self.cut = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join(STOP_SECONDS)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def follow(
    report: Report,
    settings: Settings,
    given: DoctorOptions,
    environ: Mapping[str, str],
    ways: tuple[str, ...],
    key: str,
    deadline: float,
) -> None:
    """Send the test operation, and follow it to the backends."""
    if not ways:
        report.add(ReportLine(OPERATION, Level.NOTE, "not sent: no signal has an endpoint that takes it"))
        return
    backends = find(settings, given, all_three())
    errand = _start(given, environ, key)
    trail = Arrivals(report, errand, ways, key, [backend for backend in backends if backend.signal in ways])
    try:
        while trail.go_on() and clock.monotonic() < deadline:
            left = max(0.0, deadline - clock.monotonic())
            report.waiting(f"waiting for {trail.awaited} ({left:.0f} s at the most)")
            threading.Event().wait(min(LOOK_EVERY, left))
    finally:
        errand.stop()
    trail.end()
    _tell_unfollowed(report, given, backends)
    for backend in backends:
        for found in backend.advice(reach=given.links):
            report.add(found.line(END_TO_END))
        if backend.ahead is not None and abs(backend.ahead) > SKEW_SECONDS:
            tell_clock(report, backend.name, backend.ahead)


class Arrivals:
    """Where the test operation has arrived, and where it is still awaited."""

    def __init__(
        self, report: Report, errand: ProbeProcess, ways: tuple[str, ...], key: str, backends: Iterable[Backend]
    ) -> None:
        """Await it at these backends."""
        self._report = report
        self._errand = errand
        self._ways = ways
        self._key = key
        self._pending = list(backends)
        self._lines: list[ReportLine] = []
        self._silent: dict[str, ReportLine] = {}
        self._told = False

    @property
    def awaited(self) -> str:
        """What is awaited, as text."""
        return ", ".join(backend.name for backend in self._pending) if self._told else "the test operation"

    def go_on(self) -> bool:
        """Check once; returns whether anything is still awaited."""
        if not self._told and not self._errand.running():
            self._tell()
        started = self._errand.of("started")
        for backend in list(self._pending) if started else ():
            try:
                line = _look(backend, ProbeIds(self._key, started[0]["trace"]), self._errand)
                self._silent.pop(backend.name, None)
            except BackendUnavailable as away:
                line = away.problem.line(END_TO_END)
                if away.passing:
                    self._silent[backend.name], line = line, None
            if line is not None:
                self._pending.remove(backend)
                self._lines.append(line)
        return not self._told or bool(self._pending)

    def end(self) -> None:
        """Report what arrived and what did not."""
        if not self._told:
            self._tell()
        for line in self._lines:
            self._report.add(line)
        started = self._errand.of("started")
        for backend in self._pending if started else ():
            silent = self._silent.get(backend.name)
            missing = silent or backend.missing(ProbeIds(self._key, started[0]["trace"])).line(END_TO_END)
            self._report.add(missing)

    def _tell(self) -> None:
        """Report what was accepted; the rest is not awaited."""
        self._told = True
        accepted = _tell_sent(self._report, self._errand, self._ways)
        self._pending = [backend for backend in self._pending if backend.signal in accepted]


def _look(backend: Backend, trip: ProbeIds, errand: ProbeProcess) -> ReportLine | None:
    """The line for a backend, or None if it is too early."""
    since = errand.of("done") if backend.signal == "traces" else errand.of("started")
    if not since:
        return None
    try:
        found = backend.look(trip)
    except (LookupError, TypeError, AttributeError):
        raise BackendUnavailable(backend.wrong("gives an answer that can't be read")) from None
    if isinstance(found, Problem):
        return found.line(END_TO_END)
    if not found:
        return None
    last = errand.of("done") if backend.signal == "logs" else since
    delay = max(0.0, clock.unix() - (last or since)[0]["at"])
    text = f"{backend.name} at {shown(backend.url)} has {backend.what} (delay {duration(delay)})"
    return ReportLine(END_TO_END, Level.OK, text, seconds=delay)


def find(settings: Settings, given: DoctorOptions, known: Iterable[Backend]) -> list[Backend]:
    """The backends that were named; if the endpoint is local, also those that answer at their usual local ports."""
    signals = sent(settings)
    local = any(_is_loopback(settings.endpoints[signal]) for signal in signals)
    found = []
    for backend in known:
        url = getattr(given, backend.option.strip("-"))
        if url == NOT_ASKED:
            continue
        backend.url = url or f"http://localhost:{backend.port}"
        if backend.signal in signals and (url or (local and backend.is_it())):
            found.append(backend)
    return found


def _is_loopback(endpoint: Endpoint) -> bool:
    try:
        return loopback.is_loopback(configuration.address(endpoint)[0])
    except ValueError:
        return False


def _start(given: DoctorOptions, environ: Mapping[str, str], key: str) -> ProbeProcess:
    command = [sys.executable, "-m", "otel_progress.cli.doctor.probe", key]
    for name in ("endpoint", "protocol"):
        value = getattr(given, name)
        if value is not None:
            command += [f"--{name}", value]
    own = {
        "OTEL_PROGRESS_RUN_SERIES_AFTER": "0",
        "OTEL_PROGRESS_INTERVAL": "1",
        "OTEL_PROGRESS_HISTORY": "",
        "PYTHONSAFEPATH": "1",
    }
    process = subprocess.Popen(  # noqa: S603  # this program
        command,
        env={**environ, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    errand = ProbeProcess(process)

    def hear() -> None:
        for line in process.stdout or ():
            with suppress(ValueError, TypeError, KeyError):
                one = json.loads(line)
                one["event"] + ""
                errand.said.append(one)

    def hear_errors() -> None:
        errand.errors.extend(process.stderr or ())

    for target in (hear, hear_errors):
        thread = threading.Thread(target=target, name="otel-progress-doctor", daemon=True)
        thread.start()
        errand.threads.append(thread)
    return errand


def _tell_sent(report: Report, errand: ProbeProcess, ways: tuple[str, ...]) -> set[str]:
    """Report the result of each signal; returns the accepted ones."""
    accepted: set[str] = set()
    started, ended = errand.of("started"), errand.of("ended")
    if not errand.cut and not (started and ended):
        last = " ".join(errand.errors) or f"exit code {errand.process.returncode}"
        report.add(problem("operation_failed", f"the test operation failed: {last[-300:]}").line(OPERATION))
        return accepted
    for signal in ways:
        answers = errand.of("answer", signal=signal)
        delivered = [answer for answer in answers if answer["delivered"]]
        bad = next((answer for answer in reversed(answers) if not answer["delivered"]), None)
        partial = next((answer for answer in delivered if answer["rejected"]), None)
        if delivered:
            accepted.add(signal)
        if partial is not None:
            text = f"{partial['rejected']} items were refused: {partial['reason'] or 'no reason was given'}"
            report.add(problem("partly_rejected", text).line(OPERATION, (signal,)))
        elif delivered:
            slowest = max(answer["seconds"] for answer in delivered)
            count = len(delivered)
            text = f"accepted ({count} {'request' if count == 1 else 'requests'}, the slowest {duration(slowest)})"
            report.add(ReportLine(OPERATION, Level.OK, text, signals=(signal,), seconds=slowest))
        elif bad is not None:
            text = f"not accepted: {bad['reason']}"
            report.add(problem("not_accepted", text).line(OPERATION, (signal,)))
        elif signal == "traces" and started and not started[0]["sampled"]:
            text = "the sampler dropped the test operation"
            report.add(problem("not_sampled", text).line(OPERATION, (signal,)))
        else:
            report.add(problem("not_sent", "nothing was sent within the time").line(OPERATION, (signal,)))
    return accepted


def _tell_unfollowed(report: Report, given: DoctorOptions, asked: list[Backend]) -> None:
    known = {backend.name for backend in asked}
    left = [one for one in all_three() if one.name not in known and getattr(given, one.option.strip("-")) is None]
    if left:
        names = ", ".join(backend.name for backend in left)
        options = ", ".join(f"{backend.option} URL" for backend in left)
        report.add(ReportLine(END_TO_END, Level.NOTE, f"not followed to {names}; name {options} to have it followed"))
