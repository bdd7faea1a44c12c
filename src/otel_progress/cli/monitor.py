"""`otel-progress monitor`: runs the built-in monitor."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_progress.cli.guide import sending
from otel_progress.cli.parsing import between, describe, offer
from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.model.redact import Redact, by_name, guarded
from otel_progress.model.secrets import mask_secrets
from otel_progress.settings import Environment, environment
from otel_progress.version import VERSION

if TYPE_CHECKING:
    from otel_progress.monitor.app import Monitor, Options
    from otel_progress.outbound.spool import SpoolQueue
    from otel_progress.outbound.webhook import WebhookOptions
    from otel_progress.settings import Endpoint

USAGE: Final = 2
"""The exit code for an invalid command line."""
TOKEN: Final = "OTEL_PROGRESS_TOKEN"
UNSENT: Final = "unsent"
"""The folder, in our state folder, of what a receiver that was away did not take."""
SECRET: Final = "OTEL_PROGRESS_WEBHOOK_SECRET"
_WEBHOOK: Final = ("format", "events", "dead_letters", "addresses")
"""The options of a webhook, beside its URL and its secret."""
_ABOUT: Final = """\
Receive OpenTelemetry data (OTLP) and show in a browser what runs, waits, is slow, stuck, looping or lost, while it
runs. Nothing else is needed. State and history are kept in a file and survive a restart."""
_EXAMPLE: Final = f"""\
example:
  otel-progress monitor --open
  {sending("http://127.0.0.1:4318")}
                                                                       (in another terminal)
  otel-progress watch                                                  (the same, in the terminal)

  otel-progress monitor --forward http://collector:4318                forward everything to a Collector
  otel-progress monitor --host 0.0.0.0 --token-file tokens.txt         for a team; each line of the file is
                                                                       TOKEN [rights=read,control,send] [owner=NAME]
environment:
  {TOKEN}            one token with all rights, instead of --token-file
  {SECRET}   what --webhook signs with: whsec_ and base64 (Standard Webhooks), or any text"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `monitor`."""
    describe(parser, _ABOUT, _EXAMPLE)
    add = parser.add_argument
    add("--port", type=port, default=4318, help="for OTLP over HTTP, the page and the API (default 4318; 0: any)")
    add("--grpc-port", type=port_or_none, default=4317, help="for OTLP over gRPC (default 4317; none: no gRPC)")
    add("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1; others need a token)")
    add("--db", type=Path, help="the file for state and history (default: in the user's state folder)")
    add(
        "--keep-days",
        type=between(0.001, 36_500, "days"),
        default=30.0,
        metavar="N",
        help="keep ended operations for N days (default 30)",
    )
    add(
        "--keep-mb",
        type=between(1, 1e9, "MB"),
        default=1024.0,
        metavar="N",
        help="let the file grow to N MB (default 1024)",
    )
    add(
        "--client-rate",
        type=between(0, 1e6, "requests per second"),
        default=2000.0,
        metavar="N",
        help="take N requests per second from one client of another machine, 0 for any number (default 2000)",
    )
    add("--interval", type=between(0.02, 10), default=0.1, metavar="S", help="seconds between updates (default 0.1)")
    add("--forward", metavar="URL", help="forward all OTLP to this endpoint; what can't be sent waits on disk")
    add("--redis", metavar="URL", help="share state with other monitors through a Redis Stream")
    add("--webhook", metavar="URL", help="post ended, failed, stalled, recovered and lost operations as JSON")
    form = add("--webhook-format", metavar="NAME", help="generic, slack, teams or discord (default generic)")
    offer(form, ("generic", "slack", "teams", "discord"))
    add("--webhook-events", metavar="KINDS", help="such as failed,lost, or all (default: ends and trouble)")
    add("--webhook-dead-letters", metavar="FILE", help="keep what the webhook did not take, to send it again")
    add("--webhook-addresses", metavar="WHICH", help="what it may reach: public, private or any (default private)")
    add("--token-file", type=Path, metavar="FILE", help="tokens, one per line; each request then needs one")
    add(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another host name that browsers may use for it",
    )
    add("--trace-url", metavar="URL", help="the address of a trace in your tracing backend, with {trace_id} in it")
    add("--open", action="store_true", help="open the page in a browser")
    add("--quiet", action="store_true", help="print problems only")


def main(arguments: argparse.Namespace) -> int:
    """Run the monitor until it is interrupted; returns the exit code."""
    try:
        monitor = make(arguments, environment())
    except InvalidArgument as error:
        return _fail(str(error), USAGE)
    except ProgressError as error:  # before ImportError: MissingDependency is both, and says what to install
        return _fail(str(error))
    except ImportError as error:
        return _fail(f'monitor needs more packages ({error}): pip install "otel-progress[monitor]"')

    def ready() -> None:
        if not arguments.quiet:
            _greet(monitor)
        if arguments.open:
            link = monitor.auth.link() if monitor.auth.needs_token else ""
            threading.Thread(target=webbrowser.open, args=(monitor.url + link,), daemon=True).start()

    unsent = _send_unsent(monitor.forward)
    with contextlib.suppress(KeyboardInterrupt):
        monitor.run(ready=ready)
    for queue in unsent:
        queue.stop()
    for line in monitor.losses():
        say(line)
    return 0


def _send_unsent(endpoints: Mapping[str, Endpoint]) -> list[SpoolQueue]:
    """Start to send what an `otel-progress run` could not send to these endpoints."""
    from otel_progress.monitor.intake.newest_points import newest_now
    from otel_progress.outbound.spool import Spool

    spool = Spool(state_folder(environment()) / UNSENT)
    return spool.senders(endpoints, newest_now)


def make(given: argparse.Namespace, environ: Mapping[str, str]) -> Monitor:
    """Make the monitor that these options describe; it holds its ports and its file.

    Raises:
        ProgressError: if that fails; the text says what to do.
    """
    from otel_progress.monitor.app import Monitor

    return Monitor(_options(given, environ), say)


def _options(given: argparse.Namespace, environ: Mapping[str, str]) -> Options:
    from otel_progress.monitor import auth
    from otel_progress.monitor.app import Options

    tokens: dict[str, auth.Identity] = {}
    if given.token_file is not None:
        tokens |= auth.read_tokens(given.token_file)
    if environ.get(TOKEN):
        tokens[auth.checked(environ[TOKEN], TOKEN)] = auth.ANYBODY
    if given.trace_url is not None and "{trace_id}" not in given.trace_url:
        raise InvalidArgument("--trace-url must contain {trace_id}, which stands for the trace id")
    if given.port and given.port == given.grpc_port:
        raise InvalidArgument(f"--port and --grpc-port are both {given.port}: HTTP and gRPC need a port each")
    return Options(
        db=given.db or default_db(environ),
        host=given.host,
        port=given.port,
        grpc_port=given.grpc_port,
        interval=given.interval,
        keep_days=given.keep_days,
        client_rate=given.client_rate,
        keep_bytes=int(given.keep_mb * 1024 * 1024),
        tokens=tokens,
        hosts=tuple(given.allowed_host),
        forward=_forward(given, environ),
        redis=given.redis,
        webhook=_webhook(given, environ),
        trace_url=given.trace_url,
        capture_inputs=Environment(environ).flag("OTEL_PROGRESS_CAPTURE_INPUTS"),
        redact=redaction(environ),
    )


def redaction(environ: Mapping[str, str]) -> Redact:
    """The redaction that `OTEL_PROGRESS_REDACT` names, for texts that this process keeps or sends by itself."""
    named = environ.get("OTEL_PROGRESS_REDACT", "").strip() or "secrets"
    if ":" in named and "" not in sys.path:
        sys.path.insert(0, "")  # the function is looked up as a job in this folder does
    try:
        return guarded(by_name(named))
    except ValueError as error:
        say(f"OTEL_PROGRESS_REDACT={named!r} is not used, secrets are masked: {error}")
        return mask_secrets


def _webhook(given: argparse.Namespace, environ: Mapping[str, str]) -> WebhookOptions | None:
    """The webhook; the variables say the rest, but the URL, which a job of the same environment may need."""
    from otel_progress.outbound.webhook import WebhookOptions

    more = {name: getattr(given, f"webhook_{name}") for name in _WEBHOOK}
    if given.webhook is not None:
        return WebhookOptions.read(environ, url=given.webhook, **more)
    named = next((name for name, value in more.items() if value is not None), None)
    if named is not None:
        raise InvalidArgument(f"--webhook-{named.replace('_', '-')} needs --webhook URL")
    return None


def state_folder(environ: Mapping[str, str]) -> Path:
    """The folder of this product in the user's state folder; without a home, in the folder for temporary files."""
    state = environ.get("XDG_STATE_HOME")
    if state:
        return Path(state) / "otel-progress"
    try:
        home = Path(environ.get("HOME") or "~").expanduser()
    except RuntimeError:  # no HOME, and the user is not in the list of users
        return Path(tempfile.gettempdir()) / f"otel-progress-{os.getuid() if hasattr(os, 'getuid') else 'state'}"
    return home / ".local" / "state" / "otel-progress"


def default_db(environ: Mapping[str, str]) -> Path:
    """The default file for state: in the user's state folder."""
    return state_folder(environ) / "monitor.db"


def _forward(given: argparse.Namespace, environ: Mapping[str, str]) -> Mapping[str, Endpoint]:
    """The endpoints to forward to; headers, certificates and compression come from the environment."""
    from urllib.parse import urlsplit

    from otel_progress import settings
    from otel_progress.outbound.loopback import is_loopback

    if given.forward is None:
        return {}
    parts = urlsplit(given.forward)
    try:
        at = parts.port
    except ValueError:
        raise InvalidArgument(f"--forward {given.forward!r} is not a valid address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"--forward needs an address such as http://collector:4318, not {given.forward!r}")
    if is_loopback(parts.hostname) and at in (given.port, given.grpc_port):
        raise InvalidArgument("--forward names this monitor itself; name the Collector behind it")
    named = {f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT" for signal in settings.SIGNALS}
    mine = {key: value for key, value in environ.items() if key not in named}
    found = settings.read(environ={**mine, "OTEL_EXPORTER_OTLP_ENDPOINT": given.forward}).endpoints
    return {signal: found[signal] for signal in settings.SIGNALS}


def _greet(monitor: Monitor) -> None:
    grpc = f", and {monitor.host}:{monitor.grpc_port} (gRPC)" if monitor.grpc_port else ""
    lines = [
        f"otel-progress monitor {VERSION}",
        f"  page     {monitor.url}{monitor.auth.link() if monitor.auth.needs_token else ''}",
        f"  OTLP     {monitor.url} (http/protobuf and JSON){grpc}",
        f"  kept in  {monitor.path}",
        f"  send     {sending(monitor.url)}",
        "Ctrl+C ends it; its state is kept.",
    ]
    if monitor.auth.needs_token:
        lines.insert(2, "           (this link works once, within five minutes; later: the page asks for a token)")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(f"otel-progress: {line}\n")
    sys.stderr.flush()


def _fail(reason: str, code: int = 1) -> int:
    say(reason)
    return code


def port(text: str) -> int:
    """Parse a port."""
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def port_or_none(text: str) -> int | None:
    """Parse a port, or `none`."""
    return None if text == "none" else port(text)
