"""The formats that need nothing else installed: text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, Final, Union

from otel_progress.model.json_keys import plain
from otel_progress.model.snapshot import Progress
from otel_progress.model.statistics import aggregate, statistics_of
from otel_progress.render.words import clean
from otel_progress.reports import compared, one
from otel_progress.reports.comparison import Comparison
from otel_progress.reports.document import Code, Document, Facts, Remark, Table, Tile
from otel_progress.reports.run import Run, moment

Report = Union[Run, Comparison]

WIDE: Final = 60
"""Characters of a cell of text before it is cut."""
_MARKS: Final = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")
_NUMBERED: Final = re.compile(r"^(\d{1,9})([.)])")
_BULLET: Final = re.compile(r"^([-+=])")
_LINKED: Final = re.compile(r"(?<=/)(?=/)|(?<=@)|(?<=#)(?=\d)|(?<=www)(?=\.)|(?<=\bgh)(?=-\d)", re.IGNORECASE)
"""Where an address, a name or a number would become a link; a space without width prevents that."""
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet would run as a formula; full-width signs count too."""


def document_of(report: Report) -> Document:
    """The report as a document."""
    return one.document(report) if isinstance(report, Run) else compared.document(report)


# -- text


def text(report: Report) -> str:
    """The report as text for a terminal or a mail; charts are left out, their numbers are in the tables."""
    page = document_of(report)
    head = f"{page.title}  {page.subtitle}  {page.state}"
    lines = [head, "=" * min(len(head), 100), *(remark.text for remark in page.remarks), ""]
    wide = max((len(tile.name) for tile in page.tiles), default=0)
    lines.extend(f"{tile.name:<{wide}}  {_figure(tile)}" for tile in page.tiles)
    for section in page.sections:
        body = [line for block in section.blocks for line in _text_of(block)]
        if body:
            lines += ["", section.title, "-" * len(section.title), *body]
    return "\n".join([*lines, "", page.colophon]) + "\n"


def _figure(tile: Tile) -> str:
    return tile.value + (f" ({tile.remark})" if tile.remark else "")


def _text_of(block: object) -> list[str]:
    if isinstance(block, Facts):
        wide = max(len(name) for name, _ in block.rows)
        return [f"{name:<{wide}}  {value}" for name, value in block.rows]
    if isinstance(block, Code):
        return [f"  {line}" for line in block.text.splitlines()]
    if isinstance(block, Remark):
        return [block.text]
    return _columns(block) if isinstance(block, Table) else []


def _columns(table: Table) -> list[str]:
    """A table with aligned columns; the last one is as wide as it needs."""
    rows = [[column.name for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
    last = len(table.columns) - 1
    rows = [[cell if at == last else _cut(cell) for at, cell in enumerate(row)] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(last + 1)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns)
        ]
        lines.append("  ".join(cells).rstrip())
    return [*lines, *([table.more] if table.more else [])]


def _cut(cell: str) -> str:
    return cell if len(cell) <= WIDE else cell[: WIDE - 1] + "…"


# -- Markdown


def markdown(report: Report) -> str:
    """The report as Markdown, with the tables of GitHub; texts are escaped, so none becomes a link or HTML."""
    page = document_of(report)
    lines = [f"# {_escaped(page.title)}", "", f"{_escaped(page.subtitle)}: **{_escaped(page.state)}**", ""]
    for remark in page.remarks:
        lines += [f"> {_escaped(remark.text)}", ">"]
    lines = [*lines[:-1], ""] if page.remarks else lines
    lines += _grid(["", ""], [[tile.name, _figure(tile)] for tile in page.tiles])
    for section in page.sections:
        body = [line for block in section.blocks for line in _markdown_of(block)]
        if body:
            lines += [f"## {section.title}", "", *body]
    return "\n".join([*lines, f"*{_escaped(page.colophon)}*"]) + "\n"


def _markdown_of(block: object) -> list[str]:
    if isinstance(block, Facts):
        return _grid(["", ""], [list(row) for row in block.rows])
    if isinstance(block, Code):
        return [*(f"    {line}" for line in block.text.splitlines()), ""]
    if isinstance(block, Remark):
        return [_escaped(block.text), ""]
    if not isinstance(block, Table):
        return []
    rows = [[cell.text for cell in row] for row in block.rows]
    grid = _grid([column.name for column in block.columns], rows, [column.right for column in block.columns])
    return [*grid, *([_escaped(block.more), ""] if block.more else [])]


def _grid(heads: list[str], rows: Iterable[list[str]], right: Iterable[bool] = ()) -> list[str]:
    marks = ["---:" if is_right else "---" for _, is_right in zip_longest(heads, right, fillvalue=False)]
    lines = [f"| {' | '.join(map(_escaped, heads))} |", f"| {' | '.join(marks)} |"]
    return [*lines, *(f"| {' | '.join(map(_escaped, row))} |" for row in rows), ""]


def _escaped(text: str) -> str:
    """A text in which no sign has a meaning in Markdown; addresses, @names and #numbers do not become links."""
    marked = _MARKS.sub(r"\\\1", text.strip())
    marked = _BULLET.sub(r"\\\1", _NUMBERED.sub(r"\1\\\2", marked))
    return _LINKED.sub("\u200b", marked)


# -- JSON


def as_json(report: Report) -> str:
    """The report as one JSON object: `docs/reports.md` says its keys."""
    said = _run_dict(report) if isinstance(report, Run) else _comparison_dict(report)
    return json.dumps(said, ensure_ascii=False, indent=2, default=str, allow_nan=False) + "\n"


def _run_dict(run: Run) -> dict[str, Any]:
    return {
        "report": "run",
        "source": run.source,
        "as_of": run.as_of,
        "still_running": False if run.snapshot.status.final else run.alive,
        "operation": _finite(run.snapshot.to_dict()),
        "pauses": [{**pause._asdict(), "seconds": pause.seconds(run.as_of)} for pause in run.pauses],
        "attempts": [attempt._asdict() for attempt in run.attempts],
        "children": [_finite(child.to_dict()) for child in run.children],
        "more_children": run.more_children,
        "with_children": _with_children(run),
        "feed": [
            {"timestamp": told.timestamp, "event": told.event, "stage": told.stage, "text": told.text}
            for told in run.feed
        ],
        "unknown": run.unknown,
    }


def _with_children(run: Run) -> dict[str, Any] | None:
    """Statistics of the run and of all listed operations below it; those of `operation` are its own."""
    below = (*run.children, *run.below)
    if not below:
        return None
    found = aggregate((run.snapshot, *below)).statistics.to_dict()
    return {
        "operations": 1 + len(below),
        "not_counted": run.more_below or run.more_children,
        "statistics": _finite(found),
    }


def _comparison_dict(found: Comparison) -> dict[str, Any]:
    return {
        "report": "comparison",
        "name": found.name,
        "source": found.source,
        "as_of": found.as_of,
        "since": found.since,
        "number": found.number,
        "ended": found.ended,
        "failure_rate": found.failure_rate,
        "statistics": _finite(found.statistics.to_dict()),
        "recent": found.recent,
        "changes": [{**change._asdict(), "factor": change.factor} for change in found.changes],
        "runs": [_finite(plain(row._asdict())) for row in found.rows],
    }


def _finite(value: Any) -> Any:
    """The value with None for numbers that JSON can't hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


# -- CSV


def as_csv(report: Report) -> str:
    """Stages of one run, or the runs of a comparison, one a row.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    rows = _stage_rows(report) if isinstance(report, Run) else _run_rows(report)
    writer.writerows([_safe(value) for value in row] for row in rows)
    return out.getvalue()


def _safe(value: object) -> object:
    """A cell: a number without the noise of adding up, or a text without control characters that is no formula."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if not isinstance(value, str):
        return "" if value is None else value
    text = clean(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _stage_rows(run: Run) -> Iterable[list[object]]:
    yield [
        *("operation_id", "name", "attempt", "stage", "status", "started_at", "duration_seconds", "completed", "total"),
        *("unit", "ok", "failed", "cpu_seconds", "peak_memory_bytes", "reason"),
    ]
    head = run.snapshot
    ids: list[object] = [head.operation_id, head.name, head.attempt]
    items = statistics_of(head).items
    found = head.resources
    used = [None, None] if found is None else [found.cpu_seconds, found.peak_memory]
    progress = head.progress
    counted = _counted(progress)
    whole = [head.status.value, _iso(head.started_at), round(head.elapsed, 6), *counted, items.ok, items.failed]
    yield [*ids, "", *whole, *used, head.reason]
    for stage in head.stages:
        progress = stage.progress
        tally = [stage.outcomes.get("ok", 0), stage.outcomes.get("failed", 0)]
        spent = round(stage.elapsed, 6) if stage.is_timed else None
        counted = _counted(progress)
        began = [stage.path, stage.status.value, _iso(stage.started_at), spent]
        yield [*ids, *began, *counted, *tally, stage.cpu_seconds, stage.peak_memory, stage.reason]


def _counted(progress: Progress) -> list[object]:
    """Completed units, the total, and the unit if there is any of them."""
    none = progress.completed is None and progress.total is None
    return [progress.completed, progress.total, "" if none else progress.unit]


def _run_rows(found: Comparison) -> Iterable[list[object]]:
    currencies = sorted({currency for row in found.rows for currency in row.cost})
    yield [
        *("operation_id", "name", "attempt", "status", "started_at", "duration_seconds", "completed", "unit"),
        *("ok", "failed", *(f"cost_{currency}" for currency in currencies), "reason"),
    ]
    for row in found.rows:
        cost = [row.cost.get(currency) for currency in currencies]
        began = [row.operation_id, row.name, row.attempt, row.status.value, _iso(row.started_at)]
        yield [
            *began,
            round(row.duration, 6),
            row.completed,
            row.unit if row.completed is not None else "",
            row.ok,
            row.failed,
            *cost,
            row.reason,
        ]


def _iso(seconds: float | None) -> str:
    found = moment(seconds)
    return f"{found.replace(' ', 'T')}Z" if found else ""
