"""The reference of the command line, from its parsers."""

from __future__ import annotations

import argparse
from typing import Final

from otel_progress.cli import COMMANDS, _parsers

WIDTH: Final = 100


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command, with its options."""
    return {name: _parsers([name])[1][name] for name in COMMANDS}


def page() -> str:
    """Return the page: each command with its usage, options and examples."""
    head = (
        "# Commands\n\n`otel-progress COMMAND --help` prints the same. Tokens are read from files or the environment, "
        "never from arguments.\n\n| command | what it does |\n|---|---|\n"
        + "".join(f"| [`{name}`](#otel-progress-{name}) | {cell(it.help)} |\n" for name, it in COMMANDS.items())
    )
    return "\n".join((head, *(_command(parser) for parser in parsers().values())))


def _command(parser: argparse.ArgumentParser) -> str:
    usage = _formatter(parser)
    usage.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, "")  # noqa: SLF001
    parts = [f"## {parser.prog}", (parser.description or "").strip(), f"```text\n{usage.format_help().strip()}\n```"]
    rows = "".join(_row(parser, it) for it in parser._actions if it.help is not argparse.SUPPRESS)  # noqa: SLF001
    parts.append(f"| option | meaning |\n|---|---|\n{rows}".rstrip())
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(filter(None, parts)) + "\n"


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = _formatter(parser)
    named = formatter._format_action_invocation(action)  # noqa: SLF001
    return f"| `{cell(named)}` | {cell(formatter._expand_help(action) if action.help else '')} |\n"  # noqa: SLF001


def _formatter(parser: argparse.ArgumentParser) -> argparse.HelpFormatter:
    """Return what formats the help of a parser, for lines of the same width on each terminal."""
    formatter = parser.formatter_class(parser.prog, width=WIDTH)
    if hasattr(formatter, "_set_color"):  # of Python 3.14
        formatter._set_color(False)  # noqa: SLF001
    return formatter


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
