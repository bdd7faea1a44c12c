"""`otel-progress report`: a report of one run, or of many runs compared."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from otel_progress import clock
from otel_progress.cli.monitor import default_db
from otel_progress.cli.parsing import describe
from otel_progress.cli.query.client import Client
from otel_progress.cli.query.execution import execute
from otel_progress.cli.query.exit_codes import BAD, USAGE, CommandError
from otel_progress.cli.report.lines_file import LinesFile
from otel_progress.cli.report.monitor_api import MonitorApi
from otel_progress.cli.report.source import Source, resolve, unknown_name
from otel_progress.cli.report.store_file import StoreFile
from otel_progress.model.units import duration, percent
from otel_progress.reports import writing
from otel_progress.reports.comparison import compare
from otel_progress.reports.formats import Report
from otel_progress.settings import environment

SINCE: Final = 30 * 86_400.0
"""Seconds back from now from which on runs of a name are compared by default."""
MOST_SINCE: Final = 3_650 * 86_400.0
SHOWS_AFTER: Final = 0.5
"""Seconds of work from which on its progress is shown."""
EVERY: Final = 0.1
_UNITS: Final = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_ABOUT: Final = """\
Write a report of one run, or compare runs: durations over time, slowest stages, failure rate, cost, what changed.
It reads the database file of the monitor on this machine, whether or not that runs (--db names another file), the
API of a monitor (--url), or a file of JSON lines (--file)."""
_EXAMPLE: Final = """\
examples:
  otel-progress report nightly-31 -o nightly.html
  otel-progress report --name nightly --since 90d -o nightly.md
  otel-progress report run-1 run-2 --format csv
  otel-progress report import --file runs.jsonl

A file that exists is replaced once the report is complete. HTML needs: pip install "otel-progress[report]".
In CSV, a text that a spreadsheet would run as a formula begins with an apostrophe.

exit codes:
  0 the report was written, however the run ended   1 the file can't be written
  2 the command line or the source is invalid       3 no monitor answers, or it denies access
  4 there is no such operation                      130 Ctrl+C"""


def _since(given: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", given.strip().lower())
    unit = _UNITS.get((found[2] or "d") if found else "")
    if found is None or unit is None or not 0 < float(found[1]) * unit <= MOST_SINCE:
        raise argparse.ArgumentTypeError(f"must be how long ago, such as 12h, 30d or 8w, not {given!r}")
    return float(found[1]) * unit


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `report`."""
    describe(parser, _ABOUT, _EXAMPLE)
    add = parser.add_argument
    add("ids", nargs="*", metavar="ID", help="its id, the beginning of it, or its name; several are compared")
    add("--name", metavar="NAME", help="compare the runs of this name")
    add("--since", type=_since, metavar="AGO", help="with --name: runs heard of since then (default: 30d)")
    add("--format", choices=list(writing.FORMATS), help="the format (default: by the suffix of FILE, else text)")
    add("-o", "--output", metavar="FILE", help="write to this file (default: standard output)")
    add("--db", type=Path, metavar="FILE", help="the database file of a monitor (default: the one in the state folder)")
    add("--file", type=Path, metavar="FILE", help="a file of JSON lines, as the handler jsonlines writes it")
    add("--url", metavar="URL", help="the API of this monitor (default: OTEL_PROGRESS_MONITOR, if it is set)")
    add("--token-file", metavar="FILE", help="file with its token (default: OTEL_PROGRESS_TOKEN)")


def main(arguments: argparse.Namespace) -> int:
    """Write the report; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    _check(arguments)
    form = writing.format_of(arguments.output, arguments.format)
    if form == "html":
        writing.require()
    with _progress() as step, closing(_source(client, arguments, step)) as source:
        report = _report(source, arguments, step)
    if arguments.output is None:
        sys.stdout.write(writing.render(report, form))
        return 0
    try:
        path = writing.write(report, arguments.output, form)
    except OSError as error:
        raise CommandError(f"{arguments.output} can't be written: {error.strerror or error}", BAD) from None
    sys.stderr.write(f"wrote {path}\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.ids) == bool(arguments.name):
        raise CommandError("name runs by their ids, or by --name", USAGE)
    if arguments.since is not None and not arguments.name:
        raise CommandError("--since goes with --name", USAGE)
    chosen = [name for name in ("db", "file", "url") if getattr(arguments, name)]
    if len(chosen) > 1:
        raise CommandError(f"--{chosen[0]} and --{chosen[1]} are two sources: choose one", USAGE)
    source = arguments.db or arguments.file
    if source and arguments.output and Path(arguments.output).resolve() == source.resolve():
        raise CommandError(f"{arguments.output} is what the report is made from: choose another file", USAGE)


def _source(client: Client, arguments: argparse.Namespace, step: _Step) -> Source:
    """The source that is named; else the monitor of the environment, the file of this machine's monitor, its API."""
    environ = environment()
    if arguments.file:
        return LinesFile(arguments.file, step)
    if arguments.db:
        return StoreFile(arguments.db)
    usual = default_db(environ)
    if arguments.url or environ.get("OTEL_PROGRESS_MONITOR") or not usual.is_file():
        return MonitorApi(client)
    return StoreFile(usual)


def _report(source: Source, arguments: argparse.Namespace, step: _Step) -> Report:
    now = clock.unix()
    if arguments.name:
        since = now - (arguments.since or SINCE)
        found = compare(source.named(arguments.name, since, step), source=source.words, as_of=now, since=since)
        if not found.number:
            raise unknown_name(source, arguments.name, f"in the last {duration(now - since)}")
        return found
    ids = list(dict.fromkeys(resolve(source, given) for given in arguments.ids))
    if len(ids) == 1:
        return source.run(ids[0])
    return compare(source.snapshots(ids, step), source=source.words, as_of=now)


class _Step:
    """Shows how far a long reading is, on a terminal alone."""

    def __init__(self) -> None:
        self._begun = self._shown = clock.monotonic()
        self._drawn = False
        self._on = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        if not self._on or (now := clock.monotonic()) - self._shown < EVERY or now - self._begun < SHOWS_AFTER:
            return
        self._shown, self._drawn = now, True
        ratio = min(1.0, done / total) if total else 0.0
        filled = round(ratio * 30)
        sys.stderr.write(f"\r  reading  {'━' * filled}{'─' * (30 - filled)}  {percent(ratio)}  {done:,} of {total:,} ")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the bar."""
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextmanager
def _progress() -> Iterator[_Step]:
    step = _Step()
    try:
        yield step
    finally:
        step.clear()
