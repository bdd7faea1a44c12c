"""`otel-progress watch`: shows what runs, live; or one operation until it ends."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

from otel_progress.cli.query.client import Client, ConnectionLost, ErrorResponse
from otel_progress.cli.query.execution import execute, require_rich
from otel_progress.cli.query.exit_codes import NO_MONITOR, NOT_FOUND, CommandError, of_status
from otel_progress.cli.query.options import ID_HELP, common_options
from otel_progress.cli.query.rows import number, status_of
from otel_progress.cli.query.subscription import Item, Subscription
from otel_progress.cli.query.watch_view import HERTZ, WatchView, reader_left
from otel_progress.model.status import Status

BEFORE: Final = 20
"""The most operations that had ended before, shown with `--all`."""
_ABOUT: Final = """\
Show what runs as a live tree, or one operation until it ends. A summary of what ended stays above the tree. After a
lost connection it reconnects by itself and misses nothing. If the output is not a terminal, it writes plain lines."""
_EXAMPLE: Final = """\
example:
  otel-progress watch
  otel-progress watch survey-1 && echo completed
  otel-progress watch --json | jq -r .id"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `watch`."""
    common_options(parser, _ABOUT, _EXAMPLE)
    add = parser.add_argument
    add("id", nargs="?", metavar="ID", help=f"only this operation, until it ends: {ID_HELP}")
    add("--all", action="store_true", help="also show what ended before, and completed children")
    add("--json", action="store_true", help="write one JSON object per line")


def main(arguments: argparse.Namespace) -> int:
    """Show what runs until Ctrl+C, or one operation until it ends; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    require_rich(arguments)
    return watch(client, arguments.id, sys.stdout, as_json=arguments.json, everything=arguments.all)


def watch(client: Client, given: str | None, out: IO[str], *, as_json: bool = False, everything: bool = False) -> int:
    """Show what runs until Ctrl+C, or one operation until it ends; returns the exit code.

    Raises:
        CommandError: if there is no monitor, no such operation, or it is gone.
        BrokenPipeError: if the reader is gone.
    """
    client.check()
    try:
        first = client.find(given) if given is not None else None
        before = _ended_before(client) if everything and given is None else []
    except (ConnectionLost, ErrorResponse) as error:
        raise CommandError(f"the monitor at {client.url} does not answer: {error}", NO_MONITOR) from error
    key = str(first["id"]) if first is not None else None
    if as_json:
        return _lines(client, key, first, before, out)
    return of_status(WatchView(client, out, key, everything=everything).run(first, before).status)


def _ended_before(client: Client) -> list[dict[str, Any]]:
    """The operations that ended last, oldest first."""
    over = ",".join(one.value for one in Status if one.final and one is not Status.SKIPPED)
    return list(reversed(client.operations(limit=BEFORE, status=over)["operations"]))


# -- as JSON


def _lines(
    client: Client, key: str | None, first: dict[str, Any] | None, before: list[dict[str, Any]], out: IO[str]
) -> int:
    """Write one JSON object per line: rows as they change, or an operation and its events."""
    for row in (*before, *([first] if first is not None else [])):
        _write(out, row)
    if first is not None and status_of(first).final:
        return of_status(status_of(first))
    feed = Subscription(client, key).start()
    last: dict[str, float] = {str(key): number((first or {}).get("revision")) or -1.0}
    try:
        while True:
            for item in feed.take(1 / HERTZ):
                for one in _objects(item, key):
                    if not _newer(one, last):
                        continue
                    _write(out, one)
                    if key is not None and "event" not in one and status_of(one).final:
                        return of_status(status_of(one))
            if reader_left(out):
                raise BrokenPipeError
    finally:
        feed.stop()


def _objects(item: Item, key: str | None) -> Iterator[dict[str, Any]]:
    if item.kind == "over":
        raise item.data
    if item.kind == "gone":
        raise CommandError(f"{key} is gone: the monitor no longer keeps it", NOT_FOUND)
    data = item.data
    if item.kind in ("operation", "loaded"):
        yield from [data] if isinstance(data, dict) else data
    elif item.kind == "changes":
        yield from data.get("rows", ())
        yield from ({"id": one, "removed": True} for one in data.get("removed", ()))
    elif item.kind == "events":
        yield from data.get("events", ())


def _newer(one: dict[str, Any], last: dict[str, float]) -> bool:
    """Whether a row is new: after a gap the whole list comes again."""
    key, revision = str(one.get("id")), number(one.get("revision"))
    if "event" in one or revision is None:
        return True
    if revision <= last.get(key, -1.0):
        return False
    last[key] = revision
    if one.get("ended"):
        last.pop(key)
    return True


def _write(out: IO[str], one: dict[str, Any]) -> None:
    out.write(json.dumps(one, separators=(",", ":")) + "\n")
    out.flush()
