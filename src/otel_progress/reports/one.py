"""The report of one run."""

from __future__ import annotations

from otel_progress.model.health import NOT_MOVING
from otel_progress.model.statistics import Statistics, statistics_of
from otel_progress.model.status import Status, word
from otel_progress.model.units import BYTES, duration, part, percent, rate, spelled
from otel_progress.render import words
from otel_progress.render.words import clean
from otel_progress.reports import charts, family, phrases, stage_table, tables
from otel_progress.reports.document import ROWS, Block, Cell, Code, Document, Facts, Remark, Tile, sections, table
from otel_progress.reports.run import Run, moment
from otel_progress.reports.standing import standing


def document(run: Run) -> Document:
    """Make the report of a run."""
    one = run.snapshot
    found = statistics_of(one)
    state, tone = standing(run)
    made = sections(
        ("Summary", [_facts(run, found)]),
        ("Where it is stuck" if run.alive and not one.status.final else "Where it was stuck", _stuck(run)),
        ("Stages", [charts.gantt(run), stage_table.stages(run, found)]),
        ("Waits and stalls", [tables.pauses(run)]),
        ("Progress over time", list(charts.curves(run))),
        ("Outcomes", [tables.outcomes(found), tables.failures(found)]),
        ("Resources", [tables.resources(one.resources, ended=one.status.final or not run.alive)]),
        ("Attempts", [tables.attempts(run)]),
        ("Children", [family.children(run), family.children_ended(run, found)]),
        ("With children", family.with_children(run, found)),
        ("Feed", [tables.feed(run)]),
    )
    when = f"{'Ended' if one.status.final else 'As of' if run.alive else 'Last heard of'} {moment(run.as_of)} UTC"
    return Document(
        clean(one.name),
        clean(one.operation_id),
        state,
        tone,
        _remarks(run),
        _tiles(run, found),
        made,
        f"{when}. Read from {clean(run.source)}.",
    )


def _open_remark(run: Run) -> Remark:
    when = f"{moment(run.as_of)} UTC"
    if run.alive and run.snapshot.status is Status.PENDING:
        return Remark(f"Not started yet, as of {when}.", "open")
    if run.alive:
        return Remark(f"Still running, as of {when}.", "open")
    if run.alive is False:
        said = "its process is gone. It was killed, or ended without a word here"
        return Remark(f"No end is known, and {said}; it was last heard of at {when}.", "bad")
    return Remark(f"No end is known: it was last heard of at {when}, and may still run or have been killed.", "warn")


def _remarks(run: Run) -> tuple[Remark, ...]:
    one = run.snapshot
    said: list[Remark] = []
    if not one.status.final:
        said.append(_open_remark(run))
    if one.health_reason and not one.status.final:
        said.append(Remark(f"{word(one.health)}: {clean(spelled(one.health_reason))}", "bad"))
    if one.reason:
        said.append(Remark(clean(one.reason), charts.tone_of(one.status)))
    if one.hint:
        said.append(Remark(f"hint: {clean(one.hint)}"))
    if run.unknown:
        said.append(Remark(run.unknown, "off"))
    return tuple(said)


def _tiles(run: Run, found: Statistics) -> tuple[Tile, ...]:
    one, progress = run.snapshot, run.snapshot.progress
    state, tone = standing(run)
    tiles = [Tile("state", state, f"attempt {one.attempt}" if one.attempt > 1 else "", tone)]
    span = "duration" if one.status.final else "running for" if run.alive else "ran at least"
    tiles.append(Tile(span, duration(one.elapsed), _paused(run)))
    counted = phrases.counted(progress)
    if progress.stated is not None:
        tiles.append(Tile("progress", percent(progress.stated), counted))
    elif counted:
        tiles.append(Tile("progress", counted))
    if not one.status.final and run.alive and progress.eta is not None and one.health not in NOT_MOVING:
        tiles.append(Tile("estimate", words.remaining(progress, waits=one.status is Status.WAITING)))
    if found.items.success_rate is not None:
        tone = "" if found.items.failed else "good"
        remark = f"{found.items.failed:,} of {found.items.ok + found.items.failed:,} failed"
        tiles.append(Tile("success rate", part(found.items.success_rate), remark, tone))
    if found.cost:
        tiles.append(Tile("cost", phrases.money(found.cost), _per_unit(found, progress.unit)))
    return tuple(tiles)


def _paused(run: Run) -> str:
    """How long it waited and was stuck; those of branches side by side are not added up twice."""
    said = []
    for kind, word_ in (("wait", "waiting"), ("stall", "stuck")):
        seconds = _covered([(p.begin, run.as_of if p.end is None else p.end) for p in run.pauses if p.kind == kind])
        if seconds > 0:
            said.append(f"{duration(seconds)} {word_}")
    return ", ".join(said)


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of what intervals cover together."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _per_unit(found: Statistics, unit: str) -> str:
    named = {**dict.fromkeys(BYTES, "byte"), "1": "unit"}.get(unit, clean(unit))
    return f"{phrases.money(found.cost_per_unit)} per {named}" if found.cost_per_unit else ""


def _facts(run: Run, found: Statistics) -> Facts:
    one = run.snapshot
    now = "" if one.status.final else one.message or one.stage or ""
    restored = one.progress.restored
    tokens = phrases.tokens(found.tokens)
    rates = ", ".join(filter(None, (rate(n, unit) for unit, n in phrases.numbers(found.rate))))
    pairs = (
        ("about", one.description or ""),
        ("agent", one.agent or ""),
        ("part of", one.parent_id or ""),
        ("started", f"{moment(one.started_at)} UTC" if one.started_at is not None else ""),
        ("ended" if one.status.final else "as of" if run.alive else "last heard of", f"{moment(run.as_of)} UTC"),
        ("now" if run.alive else "last", now),
        ("units", ", ".join(phrases.quantity(key, n) for key, n in phrases.numbers(found.units) if n)),
        ("of an earlier attempt", phrases.quantity(one.progress.unit, restored) if restored else ""),
        ("figures", f"those of attempt {one.attempt} alone, cost and records too" if one.attempt > 1 else ""),
        ("mean rate", rates),
        ("tokens", tokens),
        ("cost", phrases.money(found.cost)),
        ("attributes", phrases.listed(one.attributes)),
        ("result", phrases.listed(one.result)),
    )
    return Facts(tuple((name, clean(value)) for name, value in pairs if value))


def _stuck(run: Run) -> list[Block | None]:
    """The line where it was stuck, each place once, and the call stack."""
    one = run.snapshot
    places: dict[str, float] = {}
    for pause in run.pauses:
        if pause.kind == "stall" and pause.stuck_at:
            places[pause.stuck_at] = places.get(pause.stuck_at, 0.0) + pause.seconds(run.as_of)
    if one.stuck_at:
        places.setdefault(one.stuck_at, 0.0)
    rows: list[tuple[object, ...]] = [
        (Cell(clean(place), "bad"), duration(seconds) if seconds else "") for place, seconds in places.items()
    ]
    stack = "\n".join(clean(line) for line in (one.stack or "").splitlines())
    return [table("line|>for", rows[:ROWS]) if rows else None, Code(stack) if stack else None]
