"""`otel-progress unmute`: lets webhooks speak of an operation again."""

from __future__ import annotations

import argparse
import json
import sys
from typing import IO, Final

from otel_progress.cli.query.client import Client, path_of
from otel_progress.cli.query.execution import execute
from otel_progress.cli.query.exit_codes import OK
from otel_progress.cli.query.options import ID_HELP, common_options
from otel_progress.cli.query.rows import label_of

_ABOUT: Final = """\
End the mute of an operation: the monitor's webhooks speak of it again. If it is in trouble, they do at once."""
_EXAMPLE: Final = """\
example:
  otel-progress unmute survey-1"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `unmute`."""
    common_options(parser, _ABOUT, _EXAMPLE)
    parser.add_argument("id", metavar="ID", help=ID_HELP)
    parser.add_argument("--json", action="store_true", help="write the result as JSON")


def main(arguments: argparse.Namespace) -> int:
    """End the mute; returns the exit code."""
    return execute(arguments, lambda client, given: unmute(client, given.id, sys.stdout, as_json=given.json))


def unmute(client: Client, given: str, out: IO[str], *, as_json: bool = False) -> int:
    """End the mute of an operation; returns the exit code.

    Raises:
        CommandError: if it is not there, or if the monitor denies access.
        ErrorResponse: if it is not muted.
        ConnectionLost: if the monitor does not answer.
    """
    client.check()
    detail = client.find(given)
    client.ask(f"{path_of(str(detail['id']))}/mute", method="DELETE")
    said = f"{label_of(detail)} is no longer muted"
    out.write((json.dumps({"text": said}) if as_json else said) + "\n")
    return OK
