"""The command `otel-progress`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from otel_progress.cli import assets, monitor, streams
from otel_progress.cli.doctor import command as doctor
from otel_progress.cli.parsing import parse, whole
from otel_progress.cli.query import options as query
from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.version import VERSION

FAILED: Final = 125
"""Our own exit code where we failed and not the command, as `env`, `timeout` and `nohup` have it."""
_RUN: Final = """\
Run a command and watch its operations from outside. When its process - or one of its worker processes - is gone while
operations were running, they are closed: an event with status `lost`, and the spans that could not come any more.
All its telemetry goes on to the endpoint that OTEL_EXPORTER_OTLP_ENDPOINT names. The exit code is the command's.
With -f it is seen while it runs: here, and on the page of the monitor, which is started where none runs."""
_EXAMPLE: Final = """\
example:
  otel-progress run -- python train.py --epochs 20
  otel-progress run -f -- python train.py --epochs 20
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 otel-progress run --stderr-tail 20 -- ./nightly.sh"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    streams.fill()
    given = list(sys.argv[1:] if argv is None else argv)
    ours, command = _split(given)
    parser, commands = _parsers()
    options = parse(parser, commands, ours)
    if options.doing == "doctor":
        return _doctor(commands["doctor"], options)
    if options.doing == "monitor":
        return monitor.run(options, dict(os.environ))
    if options.doing == "assets":
        return assets.run(options)
    if options.doing in query.COMMANDS:
        return query.run(options, dict(os.environ))
    if not options.command and not command:
        commands["run"].error("run needs a command, as in: otel-progress run -- python job.py")
    command = [*options.command, *command]
    return _run(command, options)


def _run(command: list[str], options: argparse.Namespace) -> int:
    extras = "monitor,console" if options.follow else "monitor"
    try:
        from otel_progress.cli.run.command import run

        if options.follow:
            importlib.import_module("rich")
            importlib.import_module("otel_progress.cli.run.follow")
    except ImportError as error:
        which = "run -f" if options.follow else "run"
        return _fail(f'{which} needs more packages ({error}): pip install "otel-progress[{extras}]"')
    given = {"stderr_tail": options.stderr_tail, "verbose": options.verbose, "follow": options.follow}
    try:
        return run(command, dict(os.environ), **given)
    except ProgressError as error:
        return _fail(str(error))


def _doctor(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    try:
        return doctor.doctor(doctor.given_by(options), dict(os.environ), sys.stdout, as_json=options.json)
    except InvalidArgument as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and the command behind the first `--`; before that one, a command of its own may have begun."""
    if "--" not in given:
        return given, []
    at = given.index("--")
    ours, command = given[:at], given[at + 1 :]
    begun = bool(_parsers()[0].parse_known_args(ours)[0].command) if ours[:1] == ["run"] else False
    return (given, []) if begun else (ours, command)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of all, and that of each command."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("otel-progress", description="Long-running work, seen while it runs.")
    parser.add_argument("--version", action="version", version=f"otel-progress {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="doing")
    run = commands.add_parser(
        "run", help="run a command and watch it", description=_RUN, epilog=_EXAMPLE, formatter_class=plain
    )
    run.add_argument(
        "--stderr-tail",
        type=whole(0, 1000),
        default=0,
        metavar="N",
        help="send the last N lines of stderr along when it is lost, secrets masked where known (default: none)",
    )
    run.add_argument(
        "-f",
        "--follow",
        "--monitor",
        action="store_true",
        help="show its operations below what it writes; Ctrl+C cancels them, a second one interrupts the command "
        "(SIGINT), a third one kills it",
    )
    run.add_argument("--verbose", action="store_true", help="say more: where telemetry goes, why nothing was heard")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")
    monitor.add_to(commands)
    query.add_to(commands)
    doctor.add_to(commands)
    assets.add_to(commands)
    return parser, commands.choices


def _fail(reason: str) -> int:
    sys.stderr.write(f"otel-progress: {reason}\n")
    return FAILED
