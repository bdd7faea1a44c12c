"""The report of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from otel_progress import semconv
from otel_progress.model import units
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.resources import Resources
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.statistics import StageStatistics, Statistics, Tally, aggregate, statistics_of
from otel_progress.model.status import Status, word
from otel_progress.model.summary import shown
from otel_progress.model.units import amount, count, duration, part, percent, plural, rate, size, spelled
from otel_progress.render import words
from otel_progress.reports import charts
from otel_progress.reports.comparison import success_of
from otel_progress.reports.document import (
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Remark,
    Table,
    Tile,
    sections,
    table,
)
from otel_progress.reports.run import Run, Told, moment

clean = words.clean
FEED: Final = 200
"""Lines of the feed: the first few and the newest."""
FIRST: Final = 20
ROWS: Final = 100
"""Rows of other tables."""
QUIET: Final = frozenset({semconv.UPDATED, semconv.HEARTBEAT, semconv.PROCESS_HEARTBEAT, semconv.CHECKPOINT})
"""Events that the feed leaves out."""


def document(run: Run) -> Document:
    """Make the report of a run."""
    one = run.snapshot
    found = statistics_of(one)
    state, tone = standing(run)
    made = sections(
        ("Summary", [_facts(run, found)]),
        ("Where it is stuck" if run.alive and not one.status.final else "Where it was stuck", _stuck(run)),
        ("Stages", [charts.gantt(run), _stages(run, found)]),
        ("Waits and stalls", [_pauses(run)]),
        ("Progress over time", list(charts.curves(run))),
        ("Outcomes", [_outcomes(found), _failures(found)]),
        ("Resources", [_resources(one.resources, ended=one.status.final or not run.alive)]),
        ("Attempts", [_attempts(run)]),
        ("Children", [_children(run), _children_ended(run, found)]),
        ("With children", _tree(run, found)),
        ("Feed", [_feed(run)]),
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


def state_of(one: Snapshot) -> tuple[str, str]:
    """The word for how a run stands, and its tone."""
    if one.status.final:
        return one.status.value, charts.tone_of(one.status)
    bad = words.trouble(one)
    if bad is not None:
        return bad[0].lower(), "bad" if bad[1] == "red" else "warn"
    return (one.status.value if one.status is not Status.RUNNING else word(one.health)), "open"


def standing(run: Run) -> tuple[str, str]:
    """The word for how a run stands, and its tone; one without an end whose process is gone does not run."""
    one = run.snapshot
    if one.status.final or run.alive:
        return state_of(one)
    if run.alive is False:
        return "no end known", "bad"
    return state_of(one) if words.trouble(one) is not None else ("no end known", "warn")


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
    counted = _counted(progress)
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
        tiles.append(Tile("cost", money(found.cost), _per_unit(found, progress.unit)))
    return tuple(tiles)


def _counted(progress: Progress) -> str:
    """What is done with its unit, items too: `60 items`, `7/100 rows`."""
    said = words.counted(progress)
    return (
        f"{said} {plural('item', progress.total or progress.completed or 0)}"
        if progress.unit == "item" and said
        else said
    )


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


def money(cost: Mapping[str, object]) -> str:
    """Amounts of money: `1.2 USD, 3 EUR`; currencies are never added up."""
    return ", ".join(units.money(n, clean(currency)) for currency, n in cost.items() if isinstance(n, (int, float)))


def _per_unit(found: Statistics, unit: str) -> str:
    named = {"By": "byte", "1": "unit"}.get(unit, clean(unit))
    return f"{money(found.cost_per_unit)} per {named}" if found.cost_per_unit else ""


def _facts(run: Run, found: Statistics) -> Facts:
    one = run.snapshot
    now = "" if one.status.final else one.message or one.stage or ""
    restored = one.progress.restored
    tokens = _tokens(found.tokens)
    rates = ", ".join(filter(None, (rate(n, unit) for unit, n in _numbers(found.rate))))
    pairs = (
        ("about", one.description or ""),
        ("agent", one.agent or ""),
        ("part of", one.parent_id or ""),
        ("started", f"{moment(one.started_at)} UTC" if one.started_at is not None else ""),
        ("ended" if one.status.final else "as of" if run.alive else "last heard of", f"{moment(run.as_of)} UTC"),
        ("now" if run.alive else "last", now),
        ("units", ", ".join(_unit(key, n) for key, n in _numbers(found.units) if n)),
        ("of an earlier attempt", _unit(one.progress.unit, restored) if restored else ""),
        ("figures", f"those of attempt {one.attempt} alone, cost and records too" if one.attempt > 1 else ""),
        ("mean rate", rates),
        ("tokens", tokens),
        ("cost", money(found.cost)),
        ("attributes", _said(one.attributes)),
        ("result", _said(one.result)),
    )
    return Facts(tuple((name, clean(value)) for name, value in pairs if value))


def _tokens(tokens: Mapping[str, object]) -> str:
    """Tokens by direction: `1,200 input, 300 output`."""
    return ", ".join(f"{count(n)} {clean(key)}" for key, n in _numbers(tokens))


def _numbers(values: Mapping[str, object]) -> list[tuple[str, float]]:
    return [(key, value) for key, value in values.items() if isinstance(value, (int, float))]


def _unit(unit: str, n: float) -> str:
    return amount(n, unit) + ("" if unit in ("By", "1") else f" {plural(clean(unit), n)}")


def _said(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items())


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


def _stages(run: Run, found: Statistics) -> Table | None:
    one = run.snapshot
    listed: dict[str, list[StageSnapshot]] = {}
    for stage in one.stages:
        listed.setdefault(stage.path, []).append(stage)
    known = {stage.path: stage for stage in found.stages}
    rows = [_stage(path, listed.get(path, []), known.get(path), run) for path in dict.fromkeys((*listed, *known))]
    if not rows:
        return None
    named = {path for path in known if path != semconv.OTHER_STAGE}
    spent = sum(stage.durations.total for path, stage in known.items() if stage.durations and "/" not in path)
    folded = sum(n for _, n, _ in one.folded) - sum(runs.folded for runs in one.repeated if runs.path in named)
    more = [f"+ {len(rows) - ROWS:,} more rows"] if len(rows) > ROWS else []
    more += [f"{folded:,} more {plural('stage', folded)} ended; their names are no longer known"] if folded > 0 else []
    more += overlapping(spent, one.elapsed)
    return table(
        "stage|state|>runs|>failed|>began after|>duration|>share|counted"
        "|>p50|>p90|>tokens|>cost|>CPU|>peak memory|reason",
        rows[:ROWS],
        "; ".join(more),
    )


def overlapping(spent: float, whole: float) -> list[str]:
    """What shares mean, if stages took longer than the time there was."""
    if spent <= whole * 1.01:
        return []
    return ["share is of the time from start to end; what ran side by side overlaps, and adds up to more than 100%"]


def _stage(path: str, listed: list[StageSnapshot], found: StageStatistics | None, run: Run) -> tuple[object, ...]:
    one = run.snapshot
    open_for = sum(stage.elapsed for stage in listed if not stage.status.final)
    spent = (found.durations.total if found and found.durations else 0.0) + open_for
    first = min((stage.started_at for stage in listed if stage.started_at is not None), default=None)
    open_ = next((stage for stage in listed if not stage.status.final), None)
    newest = open_ or max(listed, key=lambda stage: stage.started_at or 0.0, default=None)
    bad = [stage for stage in listed if stage.status.final and stage.status is not Status.COMPLETED]
    worst = open_ if open_ and open_.reason else bad[-1] if bad else None
    runs = found.runs if found else Tally()
    status = newest.status if newest else Status.FAILED if runs.failed else Status.COMPLETED
    number = runs.ok + runs.failed + runs.skipped + sum(int(n) for _, n in _numbers(runs.others))
    many = found.durations if found and found.durations and found.durations.count > 1 else None
    counted = ", ".join(_unit(key, n) for key, n in _numbers(found.units) if n) if found else ""
    before = first is None or number > len(listed)  # earlier runs are folded: their start is not known
    return (
        "other stages" if path == semconv.OTHER_STAGE else clean(path),
        Cell(status.value, charts.tone_of(status) if status is not Status.PENDING else ""),
        f"{number:,}" if number > 1 else "",
        Cell(f"{runs.failed:,}" if runs.failed and number > 1 else "", "bad"),
        "" if before or first is None else duration(max(0.0, first - run.began)),
        duration(spent) if number or open_for else "",
        part(spent / one.elapsed) if one.elapsed and spent else "",
        counted,
        duration(many.p50) if many and many.p50 is not None else "",
        duration(many.p90) if many and many.p90 is not None else "",
        _tokens(found.tokens) if found else "",
        money(found.cost) if found else "",
        duration(found.cpu_seconds) if found and found.cpu_seconds is not None else "",
        size(found.peak_memory) if found and found.peak_memory is not None else "",
        clean(worst.reason) if worst and worst.reason and worst.reason != one.reason else "",
    )


def _pauses(run: Run) -> Table | None:
    rows: list[tuple[object, ...]] = []
    for pause in run.pauses[:ROWS]:
        seconds = duration(pause.seconds(run.as_of)) + (" so far" if pause.end is None else "")
        stuck = pause.kind == "stall"
        rows.append(
            (
                Cell("stuck" if stuck else "waited", "bad" if stuck else "wait"),
                clean(pause.stage or ""),
                duration(max(0.0, pause.begin - run.began)),
                seconds,
                clean(spelled(pause.reason, pause.seconds(run.as_of) if pause.end is None else 0.0)),
                clean(pause.stuck_at or ""),
            )
        )
    hidden = len(run.pauses) - ROWS
    more = f"+ {hidden:,} more" if hidden > 0 else ""
    return table("what|stage|>began after|>duration|reason|line", rows, more) if rows else None


def tallied(
    rows: list[tuple[str, Tally]], first: str, success: Callable[[Tally], float | None] = lambda one: one.success_rate
) -> Table | None:
    """A table of outcomes; empty columns are left out. Give `success_of` for runs, so that lost ones are no success."""
    made: list[tuple[object, ...]] = []
    for name, tally in rows:
        others = ", ".join(f"{count(n)} {clean(key)}" for key, n in _numbers(tally.others) if n)
        rate_ = success(tally)
        numbers = [f"{n:,}" if n else "" for n in (tally.ok, tally.failed, tally.skipped, tally.retried)]
        if any(numbers) or others:
            made.append((clean(name), *numbers, others, "" if rate_ is None else part(rate_)))
    return table(f"{first}|>ok|>failed|>skipped|>retried|others|>success", made[:ROWS]) if made else None


def _outcomes(found: Statistics) -> Table | None:
    rows = [("all", found.items), *found.components]
    return tallied(rows, "component" if found.components else "records")


def _failures(found: Statistics) -> Table | None:
    rows: list[tuple[object, ...]] = [(Cell(clean(message), "bad"), f"{n:,}") for message, n in found.failures]
    return table("failure|>times", rows) if rows else None


def _by_process(count_: float | None) -> str | None:
    """Bytes that the process has read or written: not those of the run alone."""
    return None if count_ is None else f"{size(count_)} since the process began"


def _resources(found: Resources | None, *, ended: bool) -> Facts | None:
    if found is None:
        return None
    pairs = (
        ("CPU time", None if found.cpu_seconds is None else duration(found.cpu_seconds)),
        ("CPU lately", None if found.cpu is None or ended else f"{count(round(found.cpu, 2))} cores"),
        ("memory", None if found.memory is None else size(found.memory)),
        ("peak memory", None if found.peak_memory is None else size(found.peak_memory)),
        ("threads", None if found.threads is None else count(found.threads)),
        ("read from disks", _by_process(found.read_bytes)),
        (
            "written to disks",
            _by_process(found.written_bytes),
        ),
        ("child processes", None if not found.children else count(found.children)),
        ("their memory", None if not found.children_memory else size(found.children_memory)),
    )
    rows = tuple((name, value) for name, value in pairs if value is not None)
    return Facts(rows) if rows else None


def _attempts(run: Run) -> Table | None:
    rows: list[tuple[object, ...]] = []
    for one in run.attempts:
        spent = None if one.started_at is None or one.ended_at is None else one.ended_at - one.started_at
        status = Status(one.status) if one.status in set(Status) else None
        rows.append(
            (
                f"{one.number}",
                moment(one.started_at),
                Cell(one.status or "no end was reported", "" if status is None else charts.tone_of(status)),
                "" if spent is None else duration(max(0.0, spent)),
                "" if one.ratio is None else percent(one.ratio),
                clean(one.reason or ""),
            )
        )
    return table("attempt|started (UTC)|state|>duration|>reached|reason", rows[:ROWS]) if len(rows) > 1 else None


def _alike(run: Run) -> frozenset[str]:
    """The attributes that all children have in common: they tell nothing of one child."""
    said = [dict(child.attributes) for child in run.children]
    first = said[0] if len(said) > 1 else {}
    return frozenset(key for key, value in first.items() if all(one.get(key) == value for one in said))


def _children(run: Run) -> Table | None:
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
                _counted(child.progress),
                clean(_said({key: value for key, value in child.attributes.items() if key not in alike})),
                clean(child.reason or child.health_reason or ""),
            )
        )
    hidden = max(0, len(run.children) - ROWS) + run.more_children
    more = f"+ {hidden:,} more {plural('child', hidden) if hidden == 1 else 'children'}" if hidden else ""
    return table("child|id|state|>duration|>done|counted|attributes|reason", rows, more) if rows else None


def _children_ended(run: Run, found: Statistics) -> Table | None:
    """How the children of its own process ended, if some of them are not listed."""
    known = found.children
    ended = known.ok + known.failed + known.skipped + sum(int(n) for _, n in _numbers(known.others))
    if ended <= sum(child.status.final for child in run.children):
        return None
    return tallied([("its own process", found.children)], "ended children of", success_of)


def _tree(run: Run, own: Statistics) -> list[Block | None]:
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
            ", ".join(_unit(key, n) for key, n in _numbers(found.units) if n),
            _tokens(found.tokens),
            money(found.cost),
            duration(found.durations.total) if found.durations else "",
        )
        for name, number, found in rows
    ]
    others = aggregate(below).statistics
    more = "Time in all adds up what ran side by side."
    heads = "statistics of|>operations|>records ok|>records failed|units|>tokens|>cost|>time in all"
    runs = tallied([("below this one", others.runs)], "operations", success_of)
    messages: list[tuple[object, ...]] = [(Cell(clean(message), "bad"), f"{n:,}") for message, n in others.failures]
    failures = table("failure below|>times", messages) if messages else None
    return [Remark(said), table(heads, cells, more), runs, failures]


def _text(told: Told, run: Run) -> str:
    """An event in words; how long it was stuck is said as in the table of stalls."""
    text = told.text.removeprefix(run.snapshot.name).removeprefix(":").strip()
    if told.event != semconv.RECOVERED:
        return clean(text)
    ended = [p for p in run.pauses if p.kind == "stall" and p.end is not None and p.begin < told.timestamp]
    ended = [p for p in ended if not told.stage or p.stage in (None, told.stage)] or ended
    if not ended or "moves again after" not in text:
        return clean(text)
    seconds = max(ended, key=lambda pause: pause.begin).seconds(run.as_of)
    return clean(text.partition("moves again after")[0] + f"moves again; it was stuck for {duration(seconds)}")


def _feed(run: Run) -> Table | None:
    told = [one for one in run.feed if one.event not in QUIET]
    hidden = max(0, len(told) - FEED)
    some = told if not hidden else [*told[:FIRST], *told[FIRST + hidden :]]
    rows: list[tuple[object, ...]] = [(moment(one.timestamp)[5:], _text(one, run)) for one in some]
    more = f"{hidden:,} more lines after the first {FIRST}" if hidden else ""
    return table("time (UTC)|what happened", rows, more) if rows else None
