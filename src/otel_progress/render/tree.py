"""Renders snapshots as the lines of a tree: first rows, then columns that fit the terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress.model.distinguish import apart
from otel_progress.model.feed import RUNNING as RUNNING_NOTES
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.stage_runs import DONE_BEFORE, was_done_before
from otel_progress.model.status import Health, Status
from otel_progress.model.units import duration, lasting, percent, plural, rate, spelled, stopwatch
from otel_progress.render import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_progress.model.snapshot import Snapshot, StageSnapshot
    from otel_progress.model.stage_runs import StageRuns
    from otel_progress.render.words import Line, Span

STILL_FROM: Final = 1.5
"""Idle seconds after which the spinner stands still."""
REPEATED: Final = 5
"""The most repeated stages with a line of their own; those with the most runs."""
ACTIVITIES: Final = 3
"""The most running activities (notes) with a line of their own."""
NAMED: Final = 3
"""The most healthy branches that are named beside a troubled one."""
AFTER: Final = 24
"""Characters of the names of stages that a pending one waits for; longer ones are counted."""
STANDING: Final = NOT_MOVING | {Health.DEAD, Health.UNKNOWN}
"""In these states, rate and ETA mean nothing."""
TROUBLED, ROOT, RUNNING, MESSAGE, BAD, COUNTS, PENDING, DONE = range(8)
"""Ranks: if there is no room, the highest is dropped first."""


class TreeRow(NamedTuple):
    """A line of the tree; one with `free` has no columns."""

    rank: int
    depth: int
    icon: str = ""
    style: str = ""
    name: str = ""
    ratio: float | None = None
    amount: str = ""
    rate: str = ""
    eta: str = ""
    elapsed: str = ""
    free: Line | None = None
    percent: str = ""


class TreeOptions(NamedTuple):
    """The number of the frame, and how many ended items are shown one by one."""

    frame: int
    newest: int
    calm: words.Calm | None = None
    """The texts of estimates that a live view showed last."""


class TreeNode(NamedTuple):
    """An operation with its label and depth, and its ended children with their labels."""

    depth: int
    label: str
    snapshot: Snapshot
    over: Sequence[tuple[str, Snapshot]] = ()


def nested(parents: Sequence[int | None]) -> list[tuple[int, int]]:
    """Depth and index of each item in the order of a tree; `parents` holds the index of each parent, or None."""
    below: dict[int | None, list[int]] = defaultdict(list)
    for place, parent in enumerate(parents):
        below[parent].append(place)
    order: list[tuple[int, int]] = []
    waiting = [(0, place) for place in reversed(below[None])]
    while waiting:
        depth, place = waiting.pop()
        order.append((depth, place))
        waiting.extend((depth + 1, child) for child in reversed(below.get(place, ())))
    return order


# -- from snapshots to rows


def rows_of(branches: Iterable[TreeNode], look: TreeOptions) -> list[TreeRow]:
    """The rows of operations, each with its stages, then its children, then its pending stages."""
    rows: list[TreeRow] = []
    to_come: list[tuple[int, list[TreeRow]]] = []
    for branch in branches:
        while to_come and to_come[-1][0] >= branch.depth:
            rows.extend(to_come.pop()[1])
        own, later = _branch(branch, look), 2 if branch.depth else 0
        last = 1 + max(at for at, row in enumerate(own) if row.rank != PENDING)
        own = [row if row.rank == TROUBLED else row._replace(rank=row.rank + later) for row in own]
        rows.extend((*own[:last], *_over(branch, look)))
        to_come.append((branch.depth, own[last:]))
    return rows + [row for _, left in reversed(to_come) for row in left]


def _branch(branch: TreeNode, look: TreeOptions) -> list[TreeRow]:
    snapshot, depth = branch.snapshot, 2 * branch.depth
    head = _head(snapshot, branch.label, depth, look)
    return [head, *_about(snapshot, depth + 1), *_stages(snapshot, depth + 1, look)]


def _over(branch: TreeNode, look: TreeOptions) -> list[TreeRow]:
    """Its ended children: the newest, the newest that did not complete, and the number of the others by status."""
    depth, over = 2 * branch.depth + 2, branch.over
    bad = [at for at, (_, child) in enumerate(over) if child.status is not Status.COMPLETED]
    shown = {*range(len(over))[-look.newest :], *bad[-look.newest :]}
    rows = [_ended(child, label, depth) for at, (label, child) in enumerate(over) if at in shown]
    rest = Counter(child.status for at, (_, child) in enumerate(over) if at not in shown)
    order = sorted(rest, key=lambda status: status is not Status.COMPLETED)
    folded = [_done(f"{rest[status]} more {status}", depth - 1, status) for status in order]
    return [*folded, *rows]


def keep_ended(over: list[tuple[str, Snapshot]], label: str, child: Snapshot, most: int) -> None:
    """Add an ended child; of too many, drop the oldest completed one, else the oldest."""
    over.append((label, child))
    if len(over) > most:
        del over[next((at for at, (_, one) in enumerate(over) if one.status is Status.COMPLETED), 0)]


def _head(snapshot: Snapshot, label: str, depth: int, look: TreeOptions) -> TreeRow:
    if snapshot.attempt > 1:
        label += f" (attempt {snapshot.attempt})"
    row, bad = _going(snapshot, label, depth, look, (snapshot.operation_id, "")), words.trouble(snapshot)
    if bad is not None:
        icon = words.UNKNOWN if snapshot.health is Health.UNKNOWN else words.TROUBLE
        row = _still(row, snapshot) if snapshot.health in STANDING else row
        return row._replace(rank=TROUBLED, icon=icon, style=f"bold {bad[1]}")
    return row._replace(rank=ROOT, style=f"bold {row.style}")


def _still(row: TreeRow, snapshot: Snapshot) -> TreeRow:
    """Remove the rate, which means nothing for what stands still, and say so instead of the ETA."""
    return row._replace(rate="", eta="no estimate" if snapshot.health in NOT_MOVING and snapshot.progress.total else "")


def _going(node: Snapshot | StageSnapshot, name: str, depth: int, look: TreeOptions, key: tuple[str, str]) -> TreeRow:
    """A running item with all columns; its spinner turns only while it makes progress."""
    progress = node.progress
    icon = words.MOVING[look.frame % len(words.MOVING)] if node.idle < STILL_FROM else words.STILL
    return TreeRow(
        RUNNING,
        depth,
        words.ICONS[Status.WAITING] if node.wait else icon,
        "yellow" if node.wait else "cyan",
        name,
        progress.ratio,
        words.counted(progress),
        rate(progress.rate, progress.unit),
        words.remaining(progress, look.calm, key, waits=node.status is Status.WAITING),
        "" if words.is_untimed(node) else stopwatch(node.elapsed),
        percent="" if progress.stated is None else percent(progress.stated),
    )


def _ended(node: Snapshot | StageSnapshot, name: str, depth: int) -> TreeRow:
    rank = DONE if node.status is Status.COMPLETED else BAD
    row = TreeRow(rank, depth, words.ICONS.get(node.status, words.STILL), words.STYLES.get(node.status, ""), name)
    if was_done_before(node):
        return row._replace(amount=DONE_BEFORE)
    spent = "" if words.is_untimed(node) else duration(node.elapsed)
    return row._replace(amount=words.counted(node.progress), elapsed=spent)


def _done(text: str, depth: int, status: Status = Status.COMPLETED) -> TreeRow:
    well = status is Status.COMPLETED
    style = "dim" if well else words.STYLES[status]
    return TreeRow(DONE if well else BAD, depth, free=((f"{words.ICONS[status]} {text}", style),))


def _about(snapshot: Snapshot, depth: int) -> list[TreeRow]:
    """Trouble, waits, counts, and the message if no stage has one."""
    rows: list[TreeRow] = []
    bad = words.trouble(snapshot)
    if bad is not None:
        free = ((f" {bad[0]} ", f"bold white on {bad[1]}"), (f" {spelled(snapshot.health_reason or '')}", bad[1]))
        rows.append(TreeRow(TROUBLED, depth, free=free))
        if snapshot.stuck_at:
            rows.append(TreeRow(TROUBLED, depth, free=((f"at {words.clean(snapshot.stuck_at)}", bad[1]),)))
        rows.extend(_strands(snapshot, depth))
    told = bad is not None and snapshot.health is Health.WAITING  # its badge says how long it waits, and for what
    if not told and not any(stage.wait for stage in snapshot.stages):
        rows.extend(_wait(snapshot, depth))
    if snapshot.cancel_requested:
        rows.append(TreeRow(ROOT, depth, free=(("asked to stop", "bold yellow"),)))
    if counts := words.tally(snapshot):
        rows.append(TreeRow(COUNTS, depth, free=counts))
    rows.extend(_said(depth, snapshot.attributes))
    rows.extend(_activities(snapshot, depth))
    return rows if snapshot.stage else [*rows, *_message(snapshot, snapshot, depth)]


def _said(depth: int, *values: Mapping[str, object]) -> list[TreeRow]:
    """Attributes and counters on one line."""
    text = "  ".join(filter(None, map(words.said, values)))
    return [TreeRow(COUNTS, depth, free=((text, "dim"),))] if text else []


def _activities(snapshot: Snapshot, depth: int) -> list[TreeRow]:
    """The newest activities that were noted as running and have not ended."""
    running = [note for note in snapshot.notes if note.status in RUNNING_NOTES][-ACTIVITIES:]
    rows: list[TreeRow] = []
    for note in running:
        since = lasting(snapshot.timestamp - note.timestamp)
        line = words.noted(note.status, note.text, note.attributes)
        rows.append(TreeRow(MESSAGE, depth, free=(*line, (f"  {since}", "dim"))))
    return rows


def _wait(node: Snapshot | StageSnapshot, depth: int) -> list[TreeRow]:
    if node.wait is None:
        return []
    return [TreeRow(RUNNING, depth, free=((words.waiting(node.wait), "yellow"),))]


def _strands(snapshot: Snapshot, depth: int) -> list[TreeRow]:
    """The troubled branches except the worst, which the badge names; and the healthy ones."""
    strands = [] if snapshot.status.final else [words.strand(branch) for branch in snapshot.branches]
    bad = [one for one in strands if one.troubled]
    rows = [
        TreeRow(
            TROUBLED,
            depth,
            free=((f"{one.state.upper()} {one.label}", f"bold {one.style}"), (f"  {one.words}", one.style)),
        )
        for one in bad[1:]
    ]
    well = Counter(one.label for one in strands if not one.troubled)
    if bad and well:
        names = [f"{count} {label}" if count > 1 else label for label, count in well.most_common(NAMED)]
        others = f"{', '.join(names)}{', …' if len(well) > NAMED else ''}"
        rows.append(
            TreeRow(COUNTS, depth, free=((f"{sum(well.values()):,} beside it in no trouble: {others}", "dim"),))
        )
    return rows


def _message(snapshot: Snapshot, node: Snapshot | StageSnapshot, depth: int) -> list[TreeRow]:
    known = node.wait is not None or snapshot.health_reason is not None
    idle = None if known else words.idling(node.idle, node.stall_after or snapshot.stall_after)
    spans: list[Span] = [idle, ("  ", "")] if idle is not None else []
    if node.message:
        spans.append((words.clean(node.message), "dim"))
    return [TreeRow(MESSAGE, depth, free=tuple(spans))] if spans else []


def _stages(snapshot: Snapshot, depth: int, look: TreeOptions) -> list[TreeRow]:
    """The stages, nested; of ended unplanned ones, the newest."""
    over = [stage for stage in snapshot.stages if stage.status.final]
    many = len(over) > look.newest
    together = snapshot.repeated if many or snapshot.folded else ()
    repeated = {runs.path for runs in together if many}
    ended = [stage for stage in over if not stage.planned and stage.path not in repeated]
    bad = [stage for stage in over if stage.status in words.STYLES and stage.status is not Status.COMPLETED]
    kept = {id(stage) for stage in (*ended[-look.newest :], *bad[-look.newest :])}
    again = {id(stage) for stage in over if stage.path in repeated} - kept
    hidden = {id(stage) for stage in ended} - kept
    shown = [stage for stage in snapshot.stages if id(stage) not in hidden | again]
    names = _apart(shown)
    newest: dict[str, int] = {}
    parents: list[int | None] = []
    for at, stage in enumerate(shown):
        parents.append(newest.get(stage.path[: -len(stage.name) - 1]))
        newest[stage.path] = at
    rows: list[TreeRow] = []
    for level, at in nested(parents):
        name = words.clean(shown[at].name if level else shown[at].path) + names.get(id(shown[at]), "")
        rows.extend(_stage(snapshot, shown[at], name, depth + min(level, 8), look))
    most = sorted(together, key=lambda runs: -runs.count)[: max(REPEATED, look.newest)]
    rows[:0] = [_repeated(runs, depth - 1) for runs in together if runs in most]
    folded = sum(count for _, count, _ in snapshot.folded) - sum(runs.folded for runs in snapshot.repeated)
    more = len(hidden) + max(0, folded)
    return [_done(f"{more:,} more {plural('stage', more)}", depth - 1), *rows] if more else rows


def _repeated(runs: StageRuns, depth: int) -> TreeRow:
    """A repeated stage on one line."""
    bad = any(status != Status.COMPLETED for status in runs.counts)
    icon = (f"{words.ICONS[Status.COMPLETED]} ", "yellow" if bad else "green")
    return TreeRow(DONE, depth, free=(icon, *words.repeated(runs)))


def _apart(shown: Sequence[StageSnapshot]) -> dict[int, str]:
    """What tells running stages of one path apart: ` (url=/1)`."""
    by_path: dict[str, list[StageSnapshot]] = defaultdict(list)
    for stage in shown:
        if not stage.status.final:
            by_path[stage.path].append(stage)
    found: dict[int, str] = {}
    for stages in by_path.values():
        differing = apart([(stage.attributes, stage.description) for stage in stages])
        found.update({id(stage): f" ({words.clean(text)})" for stage, text in zip(stages, differing) if text})
    return found


def _stage(snapshot: Snapshot, stage: StageSnapshot, name: str, depth: int, look: TreeOptions) -> list[TreeRow]:
    status = stage.status
    icon = words.ICONS.get(status, "")
    if status is Status.SKIPPED:
        return [TreeRow(DONE, depth, icon, "dim", name, amount="skipped")]
    if status is Status.PENDING:
        expected = f"~{duration(stage.expected)}" if stage.expected else ""
        return [TreeRow(PENDING, depth, icon, "dim", name, amount=_condition(stage), elapsed=expected)]
    if status.final:
        rows = [_ended(stage, name, depth)]
        if status is not Status.COMPLETED and stage.reason:
            rows.append(TreeRow(BAD, depth + 1, free=((words.clean(stage.reason), words.STYLES[status]),)))
        return rows
    row = _going(stage, name, depth, look, (snapshot.operation_id, stage.path))
    if (style := _trouble_of(snapshot, stage)) is not None:
        row = _still(row, snapshot)._replace(icon=words.TROUBLE, style=f"bold {style}")
    if stage.expected and stage.elapsed > stage.expected and stage.progress.eta is None:
        row = row._replace(eta=f"planned: {duration(stage.expected)} in all")
    said = _said(depth + 1, stage.outcomes, stage.counters, stage.attributes)
    return [row, *_wait(stage, depth + 1), *_message(snapshot, stage, depth + 1), *said]


def _condition(stage: StageSnapshot) -> str:
    """What a pending stage waits for: `after parse`."""
    named = ", ".join(map(words.clean, stage.depends_on))
    if len(named) > AFTER:
        named = f"{len(stage.depends_on)} stages"
    return f"after {named}" if named else ""


def _trouble_of(snapshot: Snapshot, stage: StageSnapshot) -> str | None:
    """The colour of a troubled stage: by its own branch, else as the innermost stage of a stuck operation."""
    if not snapshot.branches:
        bad = words.trouble(snapshot)
        return bad[1] if bad is not None and snapshot.health in NOT_MOVING and stage.path == snapshot.stage else None
    strands = (words.strand(branch) for branch in snapshot.branches if branch.path == stage.path)
    return next((one.style for one in strands if one.troubled), None)


# -- from rows to lines


def fitting(rows: Sequence[TreeRow], height: int, more: int = 0) -> tuple[list[TreeRow], int]:
    """The rows that fit `height` lines, the most important ones if not all do; and how many items are not shown."""
    if len(rows) + bool(more) <= height:
        return list(rows), more
    best = sorted(range(len(rows)), key=lambda at: (rows[at].rank, at))[: height - 1]
    shown = [rows[at] for at in sorted(best)]
    return shown, more + sum(row.free is None for row in rows) - sum(row.free is None for row in shown)


class TreeLayout:
    """Lays rows out; a column never gets narrower while something is shown, so that nothing jitters."""

    def __init__(self) -> None:
        """Start with empty columns."""
        self._widths: dict[str, int] = {}

    def lines(self, rows: Sequence[TreeRow], width: int, height: int, more: int = 0) -> list[Line]:
        """At most `height` lines of at most `width` cells; the rest is counted on the last line."""
        if not rows:
            self._widths.clear()
            return []
        shown, more = fitting(rows, height, more)
        columns = self._columns(shown, width)
        lines = [_line(row, columns, width - 1) for row in shown]
        return [*lines, ((f"+ {more:,} more", "dim"),)] if more else lines

    def _columns(self, rows: Sequence[TreeRow], width: int) -> dict[str, int]:
        """The width of each column; 0 for those that a narrow terminal leaves out."""
        from rich.cells import cell_len

        widths = self._widths
        for row in rows:
            if row.free is None:
                for column in ("amount", "rate", "eta", "elapsed"):
                    widths[column] = max(widths.get(column, 0), cell_len(getattr(row, column)))
                widths["name"] = max(widths.get("name", 12), 2 * row.depth + 2 + cell_len(row.name))
        columns = {**widths, "percent": 4, "name": min(widths.get("name", 12), max(12, width * 2 // 5))}

        def rest() -> int:
            return width - 1 - sum(size + 2 for size in columns.values() if size)

        if rest() < 10:
            columns["rate"] = 0
        for column in ("eta", "amount", "percent", "elapsed"):  # the bar goes first: the percentage says the same
            if rest() < 0:
                columns[column] = 0
        columns["bar"] = min(40, rest()) if rest() >= 5 else 0
        return columns


def _line(row: TreeRow, columns: dict[str, int], width: int) -> Line:
    indent = "  " * row.depth
    if row.free is not None:
        return _fit(((f"{indent}  ", ""), *row.free), width)
    faint = "dim" if row.style == "dim" else ""
    strong = faint or ("bold" if row.depth == 0 else "")
    name = _fit(((f"{indent}{row.icon} ", row.style), (row.name, strong)), columns["name"], pad=True)
    cells: list[Span] = [*name, *_bar(row, columns["bar"])]
    for column, text, style in (
        ("percent", row.percent, strong),
        ("amount", row.amount, faint),
        ("rate", row.rate, "dim"),
        ("eta", row.eta, "magenta"),
        ("elapsed", row.elapsed, "dim"),
    ):
        if columns.get(column):
            cells.append(("  " + text.rjust(columns[column]), style))
    return _fit(cells, width)


def _bar(row: TreeRow, size: int) -> Line:
    if row.ratio is None or not size:
        return ((" " * (size and size + 2), ""),)
    full, half = divmod(int(row.ratio * size * 2), 2)
    if row.ratio < 1 and full + half == size:  # beside 99%, no bar looks full
        full, half = size - 1, 0
    filled = "━" * full + "╾" * half
    return (("  " + filled, row.style.removeprefix("bold ")), ("─" * (size - len(filled)), "bright_black"))


def _fit(spans: Iterable[Span], size: int, *, pad: bool = False) -> Line:
    """The spans cut to a number of cells, with `…` at the cut."""
    from rich.cells import cell_len, set_cell_size

    line: list[Span] = []
    for text, style in spans:
        taken = cell_len(text)
        if taken > size:
            return (*line, (set_cell_size(text, size - 1) + "…", style)) if size > 0 else tuple(line)
        line.append((text, style))
        size -= taken
    return (*line, (" " * size, "")) if pad else tuple(line)
