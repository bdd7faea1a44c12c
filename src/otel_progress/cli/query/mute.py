"""`otel-progress mute`: keeps webhooks silent about an operation."""

from __future__ import annotations

import argparse
import getpass
import json
import re
import sys
from collections.abc import Mapping
from typing import IO, Any, Final

from otel_progress import clock
from otel_progress.cli.query.cells import until_words
from otel_progress.cli.query.client import Client, path_of
from otel_progress.cli.query.execution import execute
from otel_progress.cli.query.exit_codes import OK
from otel_progress.cli.query.options import ID_HELP, common_options
from otel_progress.cli.query.rows import label_of, mapping

LONGEST: Final = 30 * 86_400.0
"""The longest mute with a time, in seconds."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ABOUT: Final = """\
Keep the monitor's webhooks silent about an operation and everything below it: somebody knows already. It stays in all
lists and counts, marked as muted. The mute is over when the operation ends, or after --for; if it is still in trouble
then, the webhooks report that."""
_EXAMPLE: Final = """\
example:
  otel-progress mute survey-1 --for 2h --reason "the archive is down, back at noon"
  otel-progress unmute survey-1"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mute`."""
    common_options(parser, _ABOUT, _EXAMPLE)
    add = parser.add_argument
    add("id", metavar="ID", help=ID_HELP)
    add("--for", dest="seconds", type=_seconds, metavar="TIME", help="30m, 2h, 1d (default: until it ends)")
    add("--reason", metavar="TEXT", help="why; everybody who sees the operation sees it")
    add("--by", metavar="NAME", help="who mutes it (default: your user name)")
    add("--json", action="store_true", help="write the result as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Mute an operation; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    asked = {
        "by": (arguments.by or _user() or "")[:100] or None,
        "reason": arguments.reason,
        "until": None if arguments.seconds is None else clock.unix() + arguments.seconds,
    }
    return mute(client, arguments.id, sys.stdout, asked, as_json=arguments.json)


def mute(client: Client, given: str, out: IO[str], asked: Mapping[str, Any], *, as_json: bool = False) -> int:
    """Mute an operation; returns the exit code.

    Raises:
        CommandError: if it is not there, or if the monitor denies access.
        ErrorResponse: if the monitor refuses.
        ConnectionLost: if the monitor does not answer.
    """
    client.check()
    detail = client.find(given)
    body = {key: value for key, value in asked.items() if value is not None}
    answer = client.ask(f"{path_of(str(detail['id']))}/mute", method="POST", body=body)
    said = f"{label_of(detail)} is muted {until_words(mapping(answer.get('muted')))}"
    out.write((json.dumps(answer) if as_json else said) + "\n")
    return OK


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def _seconds(given: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", given.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be a time such as 30m, 2h or 1d, at most 30d, not {given!r}")
    return seconds
