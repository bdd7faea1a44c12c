"""`otel-progress run`: runs a command and watches its operations from outside."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from typing import Any, Final

from otel_progress.cli.parsing import describe, whole
from otel_progress.cli.run.restarts import restart_policy
from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.settings import CONFIGURE, environment

FAILED: Final = 125
"""The exit code if we failed and not the command, as `env`, `timeout` and `nohup` have it."""
SERVES: Final = ("uvicorn", "httptools", "starlette")
"""Packages that receive the telemetry of the command."""
_ABOUT: Final = """\
Run a command and watch its operations from outside. If its process, or one of its worker processes, dies while
operations run, they are closed: by an event with status `lost`, and by the spans that it could no longer send.
All its telemetry is forwarded to the endpoint in OTEL_EXPORTER_OTLP_ENDPOINT.
The exit code is the command's; after restarts, that of the last start.
With -f you see its operations while they run: here, and on the monitor's page; a monitor is started if none runs."""
_EXAMPLE: Final = """\
example:
  otel-progress run -- python train.py --epochs 20
  otel-progress run -f -- python train.py --epochs 20
  otel-progress run --restart=on-failure:5 -- python train.py --epochs 20
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 otel-progress run --stderr-tail 20 -- ./nightly.sh"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `run`."""
    describe(parser, _ABOUT, _EXAMPLE)
    parser.add_argument(
        "--stderr-tail",
        type=whole(0, 1000),
        default=0,
        metavar="N",
        help="send the last N lines of stderr if it is lost, with known secrets masked (default: none)",
    )
    parser.add_argument(
        "-f",
        "--follow",
        "--monitor",
        action="store_true",
        help="show its operations below its output; Ctrl+C cancels them, a second one interrupts the command "
        "(SIGINT), a third one kills it",
    )
    parser.add_argument(
        "--restart",
        type=restart_policy,
        metavar="on-failure[:N]",
        help="start it again after a failure (an exit code other than 0, or death by a signal), at most N times, after "
        "1 s, 2 s, 4 s and so on up to 60 s; not after Ctrl+C, SIGTERM or a request to stop (default: never)",
    )
    parser.add_argument("--verbose", action="store_true", help="print more: where telemetry goes, why none arrived")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")


def main(arguments: argparse.Namespace) -> int:
    """Run the command to its end; returns its exit code.

    Raises:
        InvalidArgument: if there is no command.
    """
    if not arguments.command:
        raise InvalidArgument("run needs a command, as in: otel-progress run -- python job.py")
    follow = arguments.follow
    lacking = unavailable()
    if lacking:
        return _fail(lacking)
    try:
        for name in SERVES:  # imported while the command starts
            if importlib.util.find_spec(name) is None:
                raise ImportError(f"No module named {name!r}")
        from otel_progress.cli.run.supervisor import run

        if follow:
            importlib.import_module("rich")
            importlib.import_module("otel_progress.cli.run.follow")
    except ImportError as error:
        which, extras = ("run -f", "monitor,console") if follow else ("run", "monitor")
        return _fail(f'{which} needs more packages ({error}): pip install "otel-progress[{extras}]"')
    given: dict[str, Any] = {"stderr_tail": arguments.stderr_tail, "verbose": arguments.verbose, "follow": follow}
    given["restart"] = arguments.restart
    try:
        return run(arguments.command, environment(), **given)
    except ProgressError as error:
        return _fail(str(error))


def unavailable() -> str:
    """Why no command can be watched on this system; empty if one can."""
    if hasattr(signal, "sigtimedwait"):
        return ""
    return f"run works on Linux only: start `otel-progress monitor` instead, and the program with {CONFIGURE}=true"


def _fail(reason: str) -> int:
    sys.stderr.write(f"otel-progress: {reason}\n")
    return FAILED
