"""The children of a run, and its statistics with them."""

from __future__ import annotations

from otel_progress.model.statistics import Statistics, aggregate
from otel_progress.model.units import duration, percent, plural
from otel_progress.render.words import clean
from otel_progress.reports import phrases, tables
from otel_progress.reports.comparison import success_of
from otel_progress.reports.document import ROWS, Block, Cell, Remark, Table, table
from otel_progress.reports.run import Run
from otel_progress.reports.standing import state_of


def children(run: Run) -> Table | None:
    """The children, with what sets each apart."""
    rows: list[tuple[object, ...]] = []
    alike = _alike(run)
    for child in run.children[:ROWS]:
        state, tone = state_of(child)
        ratio = child.progress.stated
        rows.append(
            (
                clean(child.name),
                clean(child.operation_id),
                Cell(state, tone),
                duration(child.elapsed),
                "" if ratio is None else percent(ratio),
                phrases.counted(child.progress),
                clean(phrases.listed({key: value for key, value in child.attributes.items() if key not in alike})),
                clean(child.reason or child.health_reason or ""),
            )
        )
    hidden = max(0, len(run.children) - ROWS) + run.more_children
    more = f"+ {hidden:,} more {plural('child', hidden) if hidden == 1 else 'children'}" if hidden else ""
    return table("child|id|state|>duration|>done|counted|attributes|reason", rows, more) if rows else None


def children_ended(run: Run, found: Statistics) -> Table | None:
    """How the children of its own process ended, if some of them are not listed."""
    known = found.children
    ended = known.ok + known.failed + known.skipped + sum(int(n) for _, n in phrases.numbers(known.others))
    if ended <= sum(child.status.final for child in run.children):
        return None
    return tables.tallied([("its own process", found.children)], "ended children of", success_of)


def with_children(run: Run, own: Statistics) -> list[Block | None]:
    """Statistics of the run alone, and of the run with all listed operations below it."""
    below = (*run.children, *run.below)
    if not below:
        return []
    tree = aggregate((run.snapshot, *below)).statistics
    hidden = run.more_below or run.more_children
    missing = f"; {hidden:,} more {plural('operation', hidden)} below it are not counted" if hidden else ""
    open_ = sum(not child.status.final for child in below)
    still = f" {open_:,} of them {'has' if open_ == 1 else 'have'} no end yet." if open_ else ""
    said = f"This operation alone, and together with the {len(below):,} below it{missing}.{still}"
    rows = [("this operation", 1, own), ("with children", 1 + len(below), tree)]
    cells: list[tuple[object, ...]] = [
        (
            name,
            f"{number:,}",
            f"{found.items.ok:,}" if found.items.ok else "",
            f"{found.items.failed:,}" if found.items.failed else "",
            ", ".join(phrases.quantity(key, n) for key, n in phrases.numbers(found.units) if n),
            phrases.tokens(found.tokens),
            phrases.money(found.cost),
            duration(found.durations.total) if found.durations else "",
        )
        for name, number, found in rows
    ]
    others = aggregate(below).statistics
    more = "Time in all adds up what ran side by side."
    heads = "statistics of|>operations|>records ok|>records failed|units|>tokens|>cost|>time in all"
    runs = tables.tallied([("below this one", others.runs)], "operations", success_of)
    messages: list[tuple[object, ...]] = [(Cell(clean(message), "bad"), f"{n:,}") for message, n in others.failures]
    failures = table("failure below|>times", messages) if messages else None
    return [Remark(said), table(heads, cells, more), runs, failures]


def _alike(run: Run) -> frozenset[str]:
    """The attributes that all children have in common: they tell nothing of one child."""
    said = [dict(child.attributes) for child in run.children]
    first = said[0] if len(said) > 1 else {}
    return frozenset(key for key, value in first.items() if all(one.get(key) == value for one in said))
