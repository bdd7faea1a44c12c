"""The command `otel-progress`: finds the command that was named and hands over to its module."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from otel_progress.cli import first_process, guide, streams
from otel_progress.cli.parsing import first_word, parse
from otel_progress.errors import InvalidArgument
from otel_progress.version import VERSION

NO_COMMAND: Final = 2
"""The exit code without a command."""
INTERRUPTED: Final = 130
"""The exit code after Ctrl+C: 128 + SIGINT."""


class Command(NamedTuple):
    """One command: its line in `otel-progress --help`, and its module below this package."""

    help: str
    module: str

    def load(self) -> Any:
        """Import the module: `options(parser)` declares its options, `main(arguments)` returns the exit code."""
        return importlib.import_module(f"{__name__}.{self.module}")


COMMANDS: Final = {
    "run": Command("run a command and watch it", "run.command"),
    "recover": Command("list what was interrupted or lost, and start it again", "recover.command"),
    "monitor": Command("take OTLP and show what runs, in a browser and for `watch`", "monitor"),
    "watch": Command("show live what runs", "query.watch"),
    "list": Command("list operations", "query.list"),
    "show": Command("show all of one operation", "query.show"),
    "report": Command("write a report of a run, or compare runs", "report.command"),
    "cancel": Command("ask an operation to stop", "query.cancel"),
    "mute": Command("keep webhooks silent about an operation", "query.mute"),
    "unmute": Command("let webhooks speak of it again", "query.unmute"),
    "mcp": Command("serve an agent that asks what runs and what is stuck, over MCP", "mcp"),
    "hooks": Command("print the settings that make a coding agent report to a monitor", "hooks"),
    "resend": Command("send again what a webhook did not take", "resend"),
    "doctor": Command("find out what is wrong with a set-up", "doctor.command"),
    "completion": Command("print shell completion for bash, zsh or fish", "completion"),
    "assets": Command("copy docs, dashboards, alert rules and Collector configurations out", "assets"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    first_process.end_at_sigterm()
    streams.fill()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # while it imports what it needs
        return INTERRUPTED


def _run(given: list[str]) -> int:
    """Find the command, and hand over to it."""
    if not given:
        sys.stderr.write(guide.TEXT)
        return NO_COMMAND
    ours, watched = _split(given)
    parser, commands = _parsers(ours)
    arguments = parse(parser, commands, ours)
    name = arguments.command_name
    if name == "run":
        arguments.command.extend(watched)
    try:
        return int(COMMANDS[name].load().main(arguments))
    except InvalidArgument as error:
        commands[name].error(str(error))


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and the command after the first `--`, unless that `--` is already part of the command."""
    if given[:1] != ["run"] or "--" not in given:
        return given, []
    at = given.index("--")
    ours, watched = given[:at], given[at + 1 :]
    begun = bool(_parsers(ours)[0].parse_known_args(ours)[0].command)
    return (given, []) if begun else (ours, watched)


def _parsers(given: Sequence[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The main parser, and one for each command; only the command that was given has its options loaded."""
    parser = argparse.ArgumentParser("otel-progress", description="Long-running work, seen while it runs.")
    parser.add_argument("--version", action="version", version=f"otel-progress {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command_name")
    chosen = first_word(given)
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.help)
        if name == chosen:
            command.load().options(own)
    return parser, commands.choices
