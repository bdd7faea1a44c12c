"""`otel-progress doctor`: examines a set-up step by step, and says how to fix what is wrong."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TextIO
from uuid import uuid4

from otel_progress import clock
from otel_progress.cli.doctor import configuration
from otel_progress.cli.doctor.configuration import NOT_ASKED, DoctorOptions, named, sent, settings_of, shown
from otel_progress.cli.doctor.findings import Level, Problem, ReportLine, problem
from otel_progress.cli.doctor.report import Report, tell_clock
from otel_progress.cli.parsing import between, describe
from otel_progress.model.units import duration
from otel_progress.settings import PROTOCOLS, Settings, environment

if TYPE_CHECKING:
    from otel_progress.cli.doctor.endpoint import EndpointResult

STEP: Final = "endpoint"
REACH_SECONDS: Final = 10.0
TIMEOUT: Final = (1.0, 600.0)
_UNUSABLE: Final = frozenset({"package_missing", "package_old", "disabled"})
"""Findings after which the next steps are pointless."""
_ABOUT: Final = """\
Find out what is wrong with a set-up. It reads the settings as configure() does, checks the endpoint, sends a test
operation (otel_progress.doctor) and follows it to Prometheus, Loki and Tempo if you name them or they run beside the
endpoint on this machine. Last it counts what an hour of an operation will send. Each finding comes with its fix. The
exit code is 0 if nothing is wrong, else 1."""
_EXAMPLE: Final = """\
example:
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 otel-progress doctor
  otel-progress doctor --endpoint http://localhost:4318 --loki http://localhost:3100"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `doctor`."""
    describe(parser, _ABOUT, _EXAMPLE)
    parser.add_argument("--endpoint", metavar="URL", help="instead of OTEL_EXPORTER_OTLP_ENDPOINT")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="instead of OTEL_EXPORTER_OTLP_PROTOCOL")
    for name in ("Prometheus", "Loki", "Tempo"):
        parser.add_argument(
            f"--{name.lower()}",
            type=_store,
            metavar="URL",
            help=f"follow the test operation to this {name} (none: to no {name})",
        )
    parser.add_argument(
        "--timeout",
        type=between(*TIMEOUT),
        default=DoctorOptions.timeout,
        metavar="S",
        help="how long to wait, in seconds (default: %(default)g)",
    )
    parser.add_argument("--links", action="store_true", help="also open the addresses in the links of alerts")
    parser.add_argument("--json", action="store_true", help="write the report as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Examine the set-up that the options and the environment describe; returns the exit code.

    Raises:
        InvalidArgument: if an option is invalid.
    """
    given = DoctorOptions(
        arguments.endpoint,
        arguments.protocol,
        arguments.prometheus,
        arguments.loki,
        arguments.tempo,
        timeout=arguments.timeout,
        links=arguments.links,
    )
    try:
        return doctor(given, environment(), sys.stdout, as_json=arguments.json)
    except KeyboardInterrupt:
        return 130


def doctor(given: DoctorOptions, environ: Mapping[str, str], out: TextIO, *, as_json: bool = False) -> int:
    """Examine everything and report it; returns 0 if nothing is wrong, else 1.

    Raises:
        InvalidArgument: if an option is invalid.
    """
    deadline = clock.monotonic() + given.timeout
    settings, said = settings_of(given, environ)
    hidden = configuration.secrets(settings, environ, given.endpoint, given.prometheus, given.loki, given.tempo)
    report = Report(out, hidden, as_json=as_json)
    key = f"doctor-{uuid4().hex[:12]}"
    for line in configuration.examine(settings, said, given, environ):
        report.add(line)
    if not _UNUSABLE & {line.code for line in report.lines}:
        from otel_progress.cli.doctor.end_to_end import follow
        from otel_progress.cli.doctor.estimate import Estimate

        estimate = Estimate(settings, given, environ)
        try:
            ways = _reach(report, settings, given, environ, deadline)
            follow(report, settings, given, environ, ways, key, deadline)
            estimate.tell(report, deadline)
        finally:
            estimate.stop()
    report.end(operation=key)
    return 0 if report.ok else 1


def _reach(
    report: Report, settings: Settings, given: DoctorOptions, environ: Mapping[str, str], deadline: float
) -> tuple[str, ...]:
    """Check the endpoint of each signal; returns the signals whose endpoint accepts them."""
    signals = sent(settings)
    report.waiting("waiting for the endpoint")
    found = _ask(settings, signals, environ, deadline)
    problems: dict[Problem, list[str]] = {}
    for signal, reached in found.items():
        if reached.problem is not None:
            problems.setdefault(reached.problem, []).append(signal)
            continue
        through = f" through the proxy {reached.through}" if reached.through else ""
        text = f"{shown(settings.endpoints[signal].url)} answers{through} ({duration(reached.seconds)})"
        report.add(ReportLine(STEP, Level.OK, text, signals=(signal,), seconds=reached.seconds))
    for one, of in problems.items():
        report.add(one.line(STEP, tuple(of), **_about(of[0], given, environ)))
    logs = found.get("logs")
    if logs is not None and logs.problem is None:
        from otel_progress.cli.doctor.receiver import complaints

        for one in complaints(settings.endpoints["logs"]):
            report.add(one.line(STEP, ("logs",)))
    heard = [reached.ahead for reached in found.values() if reached.ahead is not None]
    if heard:
        tell_clock(report, "the endpoint", min(heard, key=abs))
    return tuple(signal for signal, reached in found.items() if reached.problem is None)


def _ask(
    settings: Settings, signals: Iterable[str], environ: Mapping[str, str], deadline: float
) -> dict[str, EndpointResult]:
    """Check the endpoints of all signals concurrently."""
    from otel_progress.cli.doctor.endpoint import EndpointResult, reach

    found = {signal: EndpointResult(problem("hangs", "no answer within the time")) for signal in signals}

    def ask(signal: str) -> None:
        left = min(REACH_SECONDS, deadline - clock.monotonic())
        found[signal] = reach(signal, settings.endpoints[signal], environ, left)

    threads = [threading.Thread(target=ask, args=(signal,), daemon=True) for signal in signals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    return dict(found)


def _about(signal: str, given: DoctorOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for a fix."""
    prefix = "OTEL_EXPORTER_OTLP"
    return {
        "signal": signal,
        "variable": "--endpoint" if given.endpoint else named(environ, signal, "ENDPOINT"),
        "protocol": "--protocol" if given.protocol else named(environ, signal, "PROTOCOL"),
        "shared": f"{prefix}_ENDPOINT",
        "own": f"{prefix}_{signal.upper()}_ENDPOINT",
    }


def _store(text: str) -> str:
    if text != NOT_ASKED and not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"must be none, or begin with http:// or https://, not {text!r}")
    return text
