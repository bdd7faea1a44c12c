"""The report of many runs, compared."""

from __future__ import annotations

import math
from typing import Final

from otel_progress import semconv
from otel_progress.model.status import Status
from otel_progress.model.units import BYTES, amount, count, duration, part, plural
from otel_progress.render.words import clean
from otel_progress.reports import charts, phrases
from otel_progress.reports.comparison import Change, Comparison, RunRow, success_of
from otel_progress.reports.document import Cell, Document, Facts, Remark, Table, Tile, sections, table
from otel_progress.reports.run import moment
from otel_progress.reports.stage_table import overlapping
from otel_progress.reports.tables import tallied

SHOWN: Final = 100
"""Runs and stages that are listed."""


def document(found: Comparison) -> Document:
    """Make the report of many runs."""
    made = sections(
        ("Durations over time", [charts.durations(found.rows)]),
        ("What changed", [_compared(found), _changes(found)]),
        ("Slowest stages", [_stages(found)]),
        (
            "Failures",
            [
                tallied([("all", found.statistics.runs)], "runs", success_of),
                tallied([("all", found.statistics.items)], "records"),
                _messages(found),
            ],
        ),
        ("Cost and units", [_cost(found)]),
        ("Components", [tallied(list(found.statistics.components), "component")]),
        ("Runs", [_runs(found)]),
    )
    since = "" if found.since is None else f" since {moment(found.since)[:16]} UTC"
    return Document(
        clean(found.name) or "no runs",
        f"{found.number:,} {plural('run', found.number)}{since}",
        "comparison",
        "off",
        _remarks(found),
        _tiles(found),
        made,
        f"As of {moment(found.as_of)} UTC. Read from {clean(found.source)}.",
    )


def _remarks(found: Comparison) -> tuple[Remark, ...]:
    said = []
    running = found.number - found.ended
    if running:
        have = "has" if running == 1 else "have"
        said.append(Remark(f"{running:,} {plural('run', running)} {have} no end yet, and no part in the durations."))
    if found.retried:
        count_ = f"{found.retried:,} {'run is' if found.retried == 1 else 'runs are'} a second or later attempt"
        said.append(
            Remark(f"{count_}; what earlier attempts of the same id did, cost and failed at is not counted.", "off")
        )
    if found.number > len(found.rows):
        text = f"Charts, changes and the list of runs show the newest {len(found.rows):,}; all other numbers count all."
        said.append(Remark(text, "off"))
    return tuple(said)


def _tiles(found: Comparison) -> tuple[Tile, ...]:
    spread, tally, failing = found.statistics.durations, found.statistics.runs, found.failure_rate
    tiles = [Tile("runs", f"{found.number:,}", f"{tally.ok:,} completed")]
    if failing is not None:
        bad = round(failing * found.ended)
        tiles.append(
            Tile("failure rate", part(failing), f"{bad:,} of {found.ended:,} failed or lost", "bad" if bad else "good")
        )
    if spread is not None and spread.p50 is not None:
        tiles.append(Tile("median duration", duration(spread.p50), f"mean {duration(spread.mean)}"))
        if spread.p90 is not None:
            tiles.append(Tile("p90", duration(spread.p90), f"longest {duration(spread.longest)}"))
    if found.statistics.cost:
        tiles.append(Tile("cost", phrases.money(found.statistics.cost), "of all runs"))
    return tuple(tiles)


def _compared(found: Comparison) -> Remark | None:
    if not found.recent:
        return Remark("There are too few runs to tell what changed: it takes four that ended.", "off")
    ended = sum(row.ended for row in found.rows)
    newest = "run" if found.recent == 1 else f"{found.recent:,} runs"
    what = f"The newest {newest} compared with the {ended - found.recent:,} before"
    return Remark(f"{what}: {'differences of 10% and more' if found.changes else 'no difference of 10% or more'}.")


def _changes(found: Comparison) -> Table | None:
    rows: list[tuple[object, ...]] = [
        (_what(one), _number(one, one.before), _number(one, one.recent), Cell(_by(one), _tone(one)))
        for one in found.changes[:SHOWN]
    ]
    return table("what|>before|>newest|>change", rows) if rows else None


def _what(one: Change) -> str:
    names = {
        "duration": "median duration of completed runs",
        "failure rate": "failure rate",
        "cost": f"mean cost in {one.of}",
        "units": f"median {plural(one.of)} of completed runs" if one.of not in ("1", *BYTES) else "median units",
        "stage": f"time in stage {one.of} a run, median",
    }
    return clean(names[one.what])


def _number(one: Change, value: float | None) -> str:
    if value is None:
        return "none"
    if one.what in ("duration", "stage"):
        return duration(value)
    if one.what == "failure rate":
        return part(value)
    return phrases.money({one.of: value}) if one.what == "cost" else amount(value, one.of)


def _by(one: Change) -> str:
    factor = one.factor
    if one.what == "failure rate":
        points = _points(one.recent) - _points(one.before)
        return f"{points:+d} {plural('point', abs(points))}" if points else "under 1 point"
    if factor is None:
        return "gone" if one.recent is None else "new"
    return f"{factor:+,.0%}"


def _points(ratio: float | None) -> int:
    """A rate in whole percent, as the columns beside it show it."""
    return math.floor((ratio or 0) * 100 + 0.5)


def _tone(one: Change) -> str:
    if one.what == "units" or one.recent is None or one.before is None:
        return ""
    return "bad" if one.recent > one.before else "good"


def _stages(found: Comparison) -> Table | None:
    whole = sum(row.duration for row in found.rows if not row.ended)
    whole += found.statistics.durations.total if found.statistics.durations else 0.0
    timed = [(stage, stage.durations) for stage in found.statistics.stages if stage.durations is not None]
    timed.sort(key=lambda pair: -pair[1].total)
    rows: list[tuple[object, ...]] = [
        (
            "other stages" if stage.path == semconv.OTHER_STAGE else clean(stage.path),
            f"{spread.count:,}",
            "" if spread.p50 is None else duration(spread.p50),
            "" if spread.p90 is None else duration(spread.p90),
            duration(spread.longest),
            duration(spread.total),
            part(spread.total / whole) if whole else "",
            Cell(f"{stage.runs.failed:,}" if stage.runs.failed else "", "bad"),
        )
        for stage, spread in timed[:SHOWN]
    ]
    more = [f"+ {len(timed) - SHOWN:,} more stages"] if len(timed) > SHOWN else []
    more += overlapping(sum(spread.total for stage, spread in timed if "/" not in stage.path), whole)
    return table("stage|>runs|>p50|>p90|>longest|>in all|>share|>failed", rows, "; ".join(more)) if rows else None


def _messages(found: Comparison) -> Table | None:
    rows: list[tuple[object, ...]] = [
        (Cell(clean(message), "bad"), f"{n:,}") for message, n in found.statistics.failures
    ]
    return table("failure|>times", rows) if rows else None


def _cost(found: Comparison) -> Facts | None:
    one, runs = found.statistics, max(1, found.number)
    pairs = []
    for currency, n in one.cost.items():
        if isinstance(n, (int, float)):
            mean = f", mean of a run {phrases.money({currency: n / runs})}" if found.number > 1 else ""
            pairs.append((f"cost in {clean(currency)}", phrases.money({currency: n}) + mean))
    if one.cost_per_unit:
        pairs.append(("cost per unit", phrases.money(one.cost_per_unit)))
    for unit, n in one.units.items():
        if isinstance(n, (int, float)) and n:
            pairs.append((clean(plural(unit)) if unit not in ("1", *BYTES) else "bytes", amount(n, unit)))
    for direction, n in one.tokens.items():
        pairs.append((f"{clean(direction)} tokens", count(n) if isinstance(n, (int, float)) else ""))
    return Facts(tuple(pairs)) if pairs else None


def _runs(found: Comparison) -> Table | None:
    some = found.rows[::-1][:SHOWN]
    rows = [_run(row) for row in some]
    hidden = found.number - len(some)
    more = f"+ {hidden:,} earlier {plural('run', hidden)}" if hidden > 0 else ""
    return (
        table("run|>attempt|state|started (UTC)|>duration|>counted|>ok|>failed|>cost|reason", rows, more)
        if rows
        else None
    )


def _run(row: RunRow) -> tuple[object, ...]:
    counted = "" if row.completed is None else amount(row.completed, row.unit)
    open_ = not row.status.final
    return (
        clean(row.operation_id),
        f"{row.attempt}" if row.attempt > 1 else "",
        Cell(row.state or row.status.value, "open" if open_ else charts.tone_of(Status(row.status))),
        moment(row.started_at),
        duration(row.duration) + (" so far" if open_ else ""),
        counted,
        f"{row.ok:,}" if row.ok else "",
        f"{row.failed:,}" if row.failed else "",
        phrases.money(row.cost),
        clean(row.reason or ""),
    )
