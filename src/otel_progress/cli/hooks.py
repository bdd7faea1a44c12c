"""`otel-progress hooks`: prints the settings by which a coding agent reports what it does to a monitor."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from otel_progress.cli.parsing import describe
from otel_progress.errors import InvalidArgument
from otel_progress.outbound.loopback import is_loopback
from otel_progress.settings import environment

TOKEN: Final = "OTEL_PROGRESS_TOKEN"
MONITOR: Final = "OTEL_PROGRESS_MONITOR"
DEFAULT_URL: Final = "http://127.0.0.1:4318"
PATH: Final = "/hooks/claude-code"
TIMEOUT: Final = 5
"""Seconds that the agent waits for the monitor, which answers within milliseconds."""
EVENTS: Final = (
    "UserPromptSubmit", "PreToolUse", "PostToolUse", "PostToolUseFailure", "SubagentStart", "SubagentStop",
    "Notification", "PreCompact", "Stop", "StopFailure", "SessionEnd",
)  # fmt: skip
"""The events that are asked for. `PermissionRequest` is not: where the monitor is away, it would deny the tool."""
_ABOUT: Final = """\
Print the settings by which a coding agent reports its turns, tools and sub-agents to a monitor, while they run. Claude
Code 2.1.78 or newer reads them from ~/.claude/settings.json, or from .claude/settings.json in a project. If the
monitor is not running, the agent goes on without it. docs/claude-code.md says what is shown."""
_EXAMPLE: Final = f"""\
example:
  otel-progress hooks claude-code > hooks.json        then merge it into ~/.claude/settings.json
  otel-progress hooks claude-code --url https://monitor.example.com

environment:
  {MONITOR}   the address of the monitor, instead of --url (default {DEFAULT_URL})
  {TOKEN}     named in the settings as the token to send, if it is set or if the monitor is elsewhere"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `hooks`."""
    describe(parser, _ABOUT, _EXAMPLE)
    parser.add_argument("agent", choices=["claude-code"], help="the agent that reads the settings")
    parser.add_argument("--url", metavar="URL", help=f"the address of the monitor (default {DEFAULT_URL})")


def main(arguments: argparse.Namespace) -> int:
    """Print the settings; returns the exit code."""
    environ = environment()
    url = arguments.url or environ.get(MONITOR, "").strip() or DEFAULT_URL
    sys.stdout.write(json.dumps(settings(url, environ), indent=2) + "\n")
    return 0


def settings(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings for a monitor at this address.

    Raises:
        InvalidArgument: if it is no address.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.path not in ("", "/") or parts.query or parts.username is not None:
        raise InvalidArgument(f"--url needs the address of a monitor such as {DEFAULT_URL}, not {url!r}")
    hook: dict[str, Any] = {"type": "http", "url": f"{parts.scheme}://{parts.netloc}{PATH}", "timeout": TIMEOUT}
    if environ.get(TOKEN) or not is_loopback(parts.hostname or ""):
        hook |= {"headers": {"Authorization": f"Bearer ${TOKEN}"}, "allowedEnvVars": [TOKEN]}
    return {"hooks": {event: [{"hooks": [hook]}] for event in EVENTS}}
