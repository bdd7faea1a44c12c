"""`otel-progress resend`: sends the dead letters of a webhook again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.parsing import describe
from otel_progress.errors import InvalidArgument
from otel_progress.render.words import clean
from otel_progress.settings import environment

if TYPE_CHECKING:
    from otel_progress.outbound.dead_letters import DeadLetter
    from otel_progress.outbound.webhook import WebhookOptions

FAILED: Final = 1
_ABOUT: Final = """\
Send again what a webhook refused or did not take, from the file that --webhook-dead-letters (of `monitor`) or
OTEL_PROGRESS_WEBHOOK_DEAD_LETTERS names. Each delivery keeps its id. What fails again stays in the file, as do lines
that are no dead letters; after a failure that may pass, such as a receiver that is away, the rest is not tried. A file
without dead letters is not changed."""
_EXAMPLE: Final = """\
example:
  otel-progress resend dead-letters.jsonl --webhook https://example.org/hook

environment:
  OTEL_PROGRESS_WEBHOOK_URL         instead of --webhook
  OTEL_PROGRESS_WEBHOOK_SECRET      what deliveries are signed with"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `resend`."""
    describe(parser, _ABOUT, _EXAMPLE)
    parser.add_argument("file", type=Path, metavar="FILE", help="the dead letters")
    parser.add_argument("--webhook", metavar="URL", help="where to")
    parser.add_argument("--webhook-addresses", metavar="WHICH", help="public, private or any (default private)")


def main(arguments: argparse.Namespace) -> int:
    """Send them; returns the exit code: 1 if something is left.

    Raises:
        InvalidArgument: if an option or a variable is invalid.
    """
    from otel_progress.outbound.dead_letters import resend
    from otel_progress.outbound.webhook import WebhookOptions

    environ = {name: value for name, value in environment().items() if not name.endswith("_DEAD_LETTERS")}
    given = WebhookOptions.read(environ, url=arguments.webhook, addresses=arguments.webhook_addresses)
    try:
        found = resend(arguments.file, _Sender(given).post)
    except InvalidArgument as error:
        return _say(clean(error), FAILED)
    except OSError as error:
        return _say(f"{clean(arguments.file)} can't be sent: {error.strerror or error}", FAILED)
    unread = found.unreadable
    if not any(found):
        return _say(clean(f"nothing to send: no dead letters in {arguments.file}"), 0)
    arrived = f"{_several(found.arrived, 'delivery', 'deliveries')} arrived"
    left = f", {_several(found.failed, 'stays', 'stay')} in {arguments.file}" if found.failed else ""
    others = _several(unread, "line that is no dead letter stays", "lines that are no dead letters stay")
    broken = f", {others} in {arguments.file}" if unread else ""
    return _say(clean(f"{arrived}{left}{broken}"), FAILED if found.failed or unread else 0)


class _Sender:
    """Sends letters until the receiver can't be reached."""

    def __init__(self, given: WebhookOptions) -> None:
        from otel_progress.outbound.signatures import key_of
        from otel_progress.outbound.webhook_endpoint import WebhookEndpoint

        self._endpoint = WebhookEndpoint(given.url, given.addresses)
        self._key = key_of(given.secret)
        self._away = ""

    def post(self, letter: DeadLetter) -> str | None:
        """Send a letter; returns why it failed."""
        from otel_progress.outbound.trouble import plain
        from otel_progress.outbound.webhook import TIMEOUT, headers

        if self._away:
            return self._away
        sent = headers(letter.id, letter.kind, letter.body, self._key, clock.unix())
        result = self._endpoint.post(letter.body, sent, TIMEOUT)
        if result.arrived:
            return None
        _say(f"{letter.kind} of {plain(letter.operation_id)}: {result.reason}", FAILED)
        if result.retry:
            self._away = result.reason
        return result.reason


def _several(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _say(line: str, code: int) -> int:
    stream = sys.stderr if code else sys.stdout
    stream.write(f"otel-progress: {line}\n" if code else f"{line}\n")
    return code
