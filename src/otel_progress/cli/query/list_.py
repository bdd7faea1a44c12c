"""`otel-progress list`: what the monitor knows, in trouble first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from otel_progress import clock
from otel_progress.cli.query.client import Client
from otel_progress.cli.query.exit_codes import OK
from otel_progress.cli.query.rows import Row, items, number, snapshot_of, stage_progress_of
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health
from otel_progress.model.summary import seconds
from otel_progress.render import words
from otel_progress.render.diversion import on_terminal
from otel_progress.render.screen import Screen


class Column(NamedTuple):
    """A heading, its cells, and how it is laid out; the highest rank goes first where they do not fit."""

    head: str
    cells: Sequence[words.Span]
    rank: int
    right: bool = False


def list_(client: Client, query: dict[str, str | None], limit: int, out: IO[str], *, as_json: bool = False) -> int:
    """Write the list; returns the exit code.

    Raises:
        Told: where the monitor lets nobody in.
        Lost: where it does not answer.
    """
    client.check()
    page = client.operations(limit=limit, **query)
    if as_json:
        out.write(json.dumps(page) + "\n")
        return OK
    screen, rows = Screen(out, draws=False), items(page.get("operations"))
    loading = page.get("loading")
    if isinstance(loading, dict):
        counts = f": {loading['loaded']:,} of {loading['of']:,} are" if {"loaded", "of"} <= loading.keys() else ""
        screen.print([((f"the monitor has just started, and not all that ran before is there{counts}", "yellow"),)])
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
    """The columns side by side with their headings; where a width is given some go, and the last one is cut to fit."""
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
    known = [snapshot_of(row, max(0.0, now - (number(row.get("timestamp")) or now))) for row in rows]
    ids = [(one.operation_id, "bold" if not one.status.final else "") for one in known]
    return [
        Column("", [icon(one) for one in known], 0),
        Column("ID", ids, 1),
        Column("NAME", [(one.name, "") for one in known], 5),
        Column("STATE", [state(one) for one in known], 2),
        Column("DONE", [(percent(one), "") for one in known], 3, right=True),
        Column("", [(counted(one, row), "dim") for one, row in zip(known, rows)], 8),
        Column("TIME", [(words.passed(one.elapsed), "dim") for one in known], 4, right=True),
        Column(
            "ETA", [(words.remaining(one.progress).removeprefix("ETA "), "magenta") for one in known], 6, right=True
        ),
        Column("STARTED", [(ago(one.started_at, now), "dim") for one in known], 9),
        Column("DOING", [doing(one) for one in known], 7),
    ]


def icon(one: Snapshot) -> words.Span:
    """The sign that the tree has for it."""
    bad = words.trouble(one)
    if bad is not None:
        return words.UNKNOWN if one.health is Health.UNKNOWN else words.TROUBLE, f"bold {bad[1]}"
    if one.status in words.ICONS:
        return words.ICONS[one.status], words.STYLES.get(one.status, "yellow" if one.wait else "")
    return words.STILL, "cyan"


def state(one: Snapshot) -> words.Span:
    """Its status, or what is wrong with it."""
    bad = words.trouble(one)
    if bad is not None:
        return bad[0], f"bold {bad[1]}"
    return one.status.value, words.STYLES.get(one.status, "yellow" if one.wait else "cyan")


def percent(one: Snapshot) -> str:
    """`45%`; 100% is only said of what is done."""
    return "" if one.progress.ratio is None else f"{int(one.progress.ratio * 100)}%"


def counted(one: Snapshot, row: Row) -> str:
    """How much is done; of what ended without a count of its own, what its last stage had."""
    own = words.counted(one.progress)
    if own and (one.progress.completed or not one.status.final):
        return own
    return words.counted(stage_progress_of(row)) if one.status.final else own


def ago(point: float | None, now: float) -> str:
    """`3 m 12 s ago`."""
    return "" if point is None else f"{seconds(max(0.0, now - point))} ago"


def doing(one: Snapshot) -> words.Span:
    """Why it is in trouble or over, what it waits for, or what it does."""
    bad = words.trouble(one)
    if bad is not None:
        return (f"at {one.stuck_at}: " if one.stuck_at else "") + str(one.health_reason), bad[1]
    if one.wait is not None:
        return words.waiting(one.wait), "yellow"
    if one.status.final:
        return one.reason or "", words.STYLES.get(one.status, "")
    return ("asked to stop; " if one.cancel_requested else "") + (one.message or ""), ""


def _nothing(client: Client, *, filtered: bool) -> list[words.Line]:
    if filtered:
        return [(("nothing fits; `otel-progress list` shows all", "dim"),)]
    send = f"    OTEL_EXPORTER_OTLP_ENDPOINT={client.url} python job.py"
    return [((f"the monitor at {client.url} has heard of no operation yet; send some with", ""),), ((send, "bold"),)]


def queried(status: str | None, verdict: str | None, name: str | None, search: str | None) -> dict[str, Any]:
    """The filters as the API has them."""
    return {"status": status, "verdict": verdict, "name": name, "search": search}
