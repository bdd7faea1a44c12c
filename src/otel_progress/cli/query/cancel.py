"""`otel-progress cancel`: asks an operation to stop, and reports whether it did."""

from __future__ import annotations

import argparse
import json
import sys
from typing import IO, Final
from urllib.parse import urlencode

from otel_progress.cli.parsing import between
from otel_progress.cli.query.cells import percent, state
from otel_progress.cli.query.client import Client, ErrorResponse, path_of
from otel_progress.cli.query.execution import execute
from otel_progress.cli.query.exit_codes import BAD, OK
from otel_progress.cli.query.options import ID_HELP, common_options
from otel_progress.cli.query.rows import label_of, number, snapshot_of, text
from otel_progress.model.units import duration
from otel_progress.render.diversion import on_terminal

MARGIN: Final = 15.0
"""Seconds that the answer may take in addition to the requested wait."""


STOPPED: Final = "it ended as cancelled"
"""The detail of an answer where the operation did as it was asked."""
WAIT_MOST: Final = 3600.0
"""The longest wait for the end, in seconds."""
_ABOUT: Final = """\
Ask an operation to stop, and report the result: it has stopped, its process received the request, or its process
can't be reached. On a terminal it asks for confirmation. The exit code is 0 if the operation stopped in time."""
_EXAMPLE: Final = """\
example:
  otel-progress cancel survey-1 --reason "wrong input"
  otel-progress cancel survey-1 --yes --wait 30"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `cancel`."""
    common_options(parser, _ABOUT, _EXAMPLE)
    add = parser.add_argument
    add("id", metavar="ID", help=ID_HELP)
    add("--reason", metavar="TEXT", help="the reason, which its process receives")
    add(
        "--wait",
        type=between(0, WAIT_MOST),
        default=5.0,
        metavar="S",
        help="wait S seconds for its end (default: %(default)g)",
    )
    add("--yes", action="store_true", help="do not ask for confirmation")
    add("--json", action="store_true", help="write the result as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Ask the operation to stop; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    ask = None if arguments.yes else sys.stdin
    given = {"reason": arguments.reason, "wait": arguments.wait, "as_json": arguments.json}
    return cancel(client, arguments.id, sys.stdout, ask, **given)


def cancel(
    client: Client,
    given: str,
    out: IO[str],
    ask: IO[str] | None,
    *,
    reason: str | None = None,
    wait: float = 5.0,
    as_json: bool = False,
) -> int:
    """Ask it to stop; `ask` is the terminal of a user who must confirm first. Returns the exit code.

    Raises:
        CommandError: if it is not there, or if the monitor denies access.
        ConnectionLost: if the monitor does not answer.
    """
    client.check()
    detail = client.find(given)
    label, one = label_of(detail), snapshot_of(detail)
    if one.status.final:
        return _tell(out, "over", f"{label} is over already: {one.status.value}", BAD, as_json=as_json)
    if ask is not None and on_terminal(ask):
        done = f", {percent(one)}" if percent(one) else ""
        children = number(detail.get("children"))
        those = f" and what it started ({children:,})" if children else ""
        question = f"cancel {label}{those} ({state(one)[0]} for {duration(one.elapsed)}{done})? [y/N] "
        if not _agreed(question, ask):
            return _tell(out, "left", "it goes on", BAD, as_json=as_json)
    query = urlencode({"wait": f"{wait:g}", **({"reason": reason} if reason else {})})
    try:
        answer = client.ask(f"{path_of(one.operation_id)}?{query}", method="DELETE", timeout=wait + MARGIN)
        found, why = str(answer.get("state")), text(answer.get("detail"))
    except ErrorResponse as error:
        if error.status not in (409, 504):
            raise
        found, why = ("timed out", None) if error.status == 504 else ("unreachable", str(error))
    said = _said(found, why, label, one.operation_id, wait)
    asked_only = found == "received" and not wait
    return _tell(out, found, said, OK if found == "obeyed" or asked_only else BAD, as_json=as_json)


def _said(state: str, why: str | None, label: str, key: str, wait: float) -> str:
    if state == "obeyed":
        return f"{label} {'has stopped' if why in (None, STOPPED) else why.removeprefix('it ')}"
    if state == "received":
        within = f" within {wait:g} s" if wait else " yet"
        return f"{label} was asked to stop and has not ended{within}; `otel-progress watch {key}` shows whether it does"
    if state == "timed out":
        return f"the process of {label} did not answer: it may be gone, stopped, or busy in code that never pauses"
    return f"{label} can't be asked to stop: {why or state}"


def _agreed(question: str, ask: IO[str]) -> bool:
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
        return ask.readline().strip().lower() in ("y", "yes")
    except (OSError, ValueError):
        return False


def _tell(out: IO[str], state: str, said: str, code: int, *, as_json: bool) -> int:
    out.write((json.dumps({"state": state, "text": said}) if as_json else said) + "\n")
    return code
