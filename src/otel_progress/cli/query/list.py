"""`otel-progress list`: lists the operations that the monitor knows, those in trouble first."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Final, NamedTuple

from otel_progress import clock
from otel_progress.cli.guide import sending
from otel_progress.cli.parsing import offer, whole
from otel_progress.cli.parsing import words as some_of
from otel_progress.cli.query.cells import begun, counted, doing, icon, muted_words, percent, remaining, spent, state
from otel_progress.cli.query.client import Client
from otel_progress.cli.query.execution import execute, require_rich
from otel_progress.cli.query.exit_codes import OK
from otel_progress.cli.query.options import LIST_MOST, common_options
from otel_progress.cli.query.rows import Row, items, number, snapshot_of, text
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.states import ANY_TROUBLE, OPEN_STATES
from otel_progress.model.status import STUCK_WORD, Health, Status
from otel_progress.render import words
from otel_progress.render.diversion import on_terminal
from otel_progress.render.screen import Screen

STATUSES: Final = tuple(status.value for status in Status if status is not Status.SKIPPED)
VERDICTS: Final = (Health.SILENT.value, *OPEN_STATES[1:], ANY_TROUBLE)
STUCK: Final = {STUCK_WORD: Health.SILENT.value}
"""What people say, and its word on the wire."""
_FILTERS: Final = ("status", "verdict", "name", "search")
_ABOUT: Final = "List operations: those in trouble first, then the running ones, then the ended ones, newest first."
_EXAMPLE: Final = """\
example:
  otel-progress list --status running,waiting
  otel-progress list --verdict stuck,dead --json"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `list`."""
    common_options(parser, _ABOUT, _EXAMPLE)
    add = parser.add_argument
    status = add("--status", type=some_of(STATUSES), metavar="A,B", help=f"only these: {', '.join(STATUSES)}")
    offer(status, STATUSES)
    verdicts = ", ".join(OPEN_STATES)
    about = f"only these: {verdicts}; `trouble` selects every state that is marked"
    verdict = add("--verdict", type=some_of(VERDICTS, STUCK), metavar="A,B", help=about)
    offer(verdict, (STUCK_WORD, *VERDICTS[1:]))
    add("--name", metavar="NAME", help="only operations of this name")
    add("--search", metavar="TEXT", help="only if the id or the name contains this text")
    about = "at most N operations, from 1 to 10000 (default: %(default)s)"
    add("--limit", type=whole(1, LIST_MOST), default=100, metavar="N", help=about)
    add("--json", action="store_true", help="write the monitor's answer as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Write the list that the options ask for; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    require_rich(arguments)
    query = {name: getattr(arguments, name) for name in _FILTERS}
    return write_list(client, query, arguments.limit, sys.stdout, as_json=arguments.json)


class Column(NamedTuple):
    """A heading with its cells; if the columns do not fit, the one with the highest rank is dropped first."""

    head: str
    cells: Sequence[words.Span]
    rank: int
    right: bool = False


def write_list(
    client: Client, query: Mapping[str, str | None], limit: int, out: IO[str], *, as_json: bool = False
) -> int:
    """Write the list; returns the exit code.

    Raises:
        CommandError: if the monitor denies access.
        ConnectionLost: if it does not answer.
    """
    client.check()
    page = client.operations(limit=limit, **query)
    if as_json:
        out.write(json.dumps(page) + "\n")
        return OK
    screen, rows = Screen(out, draws=False), items(page.get("operations"))
    loading = page.get("loading")
    if isinstance(loading, dict):
        counts = (
            f": {loading['loaded']:,} of {loading['of']:,} are loaded" if {"loaded", "of"} <= loading.keys() else ""
        )
        screen.print([((f"the monitor has just started and still loads what ran before{counts}", "yellow"),)])
    if not rows:
        screen.print(_nothing(client, filtered=any(query.values())))
        return OK
    width = screen.rich.width if on_terminal(out) else None
    screen.print(table(_columns(rows), width))
    total = number(page.get("total")) or len(rows)
    if total > len(rows):
        screen.print([((f"{len(rows):,} of {total:,}; --limit N shows more", "dim"),)])
    return OK


def table(columns: Sequence[Column], width: int | None) -> list[words.Line]:
    """Lay the columns out with their headings; to fit a width, columns are dropped and the last one is cut."""
    from rich.cells import cell_len, set_cell_size

    def wide(column: Column) -> int:
        return max(cell_len(cell) for cell in (column.head, *(text for text, _ in column.cells)))

    kept = [column for column in columns if any(cell for cell, _ in column.cells)]
    if width is not None:
        while len(kept) > 1 and sum(wide(column) + 2 for column in kept[:-1]) + 12 > width:
            kept.remove(max(kept, key=lambda column: column.rank))
    sizes = [wide(column) for column in kept]
    if width is not None:
        sizes[-1] = min(sizes[-1], max(8, width - 1 - sum(size + 2 for size in sizes[:-1])))

    def line(cells: Sequence[words.Span]) -> words.Line:
        last = max((at for at, (cell, _) in enumerate(cells) if cell), default=0)
        spans: list[words.Span] = []
        for at, ((cell, style), size) in enumerate(zip(cells[: last + 1], sizes)):
            cut = cell if cell_len(cell) <= size else set_cell_size(cell, size - 1) + "…"
            pad = " " * (size - cell_len(cut))
            laid = pad + cut if kept[at].right else cut + pad
            spans.append((laid.rstrip() if at == last else laid + "  ", style))
        return tuple(spans)

    heads = line([(column.head, "dim") for column in kept])
    return [heads, *(line(cells) for cells in zip(*(column.cells for column in kept)))]


def _columns(rows: Sequence[Row]) -> list[Column]:
    now = clock.unix()
    known = [snapshot_of(row) for row in rows]
    ids = [(one.operation_id, "bold" if not one.status.final else "") for one in known]
    return [
        Column("", [icon(one) for one in known], 0),
        Column("ID", ids, 1),
        Column("NAME", [(one.name, "") for one in known], 5),
        Column("STATE", [state(one) for one in known], 2),
        Column("DONE", [(percent(one), "") for one in known], 3, right=True),
        Column("", [(counted(one, row), "dim") for one, row in zip(known, rows)], 8),
        Column("TIME", [(spent(one), "dim") for one in known], 4, right=True),
        Column("ETA", [(remaining(one), "magenta") for one in known], 6, right=True),
        Column("STARTED", [(begun(one, now), "dim") for one in known], 9),
        Column("DOING", [_doing(one, row) for one, row in zip(known, rows)], 7),
    ]


def _doing(one: Snapshot, row: Row) -> words.Span:
    """What it does, after who muted it, and before what else is wrong."""
    said, style = doing(one)
    return "; ".join(filter(None, (muted_words(row), said, text(row.get("warning"))))), style


def _nothing(client: Client, *, filtered: bool) -> list[words.Line]:
    if filtered:
        return [(("nothing matches; `otel-progress list` shows all", "dim"),)]
    return [
        ((f"the monitor at {client.url} knows no operation yet; send some with", ""),),
        ((f"    {sending(client.url)}", "bold"),),
    ]
