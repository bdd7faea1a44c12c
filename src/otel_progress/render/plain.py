"""Renders events and snapshots as lines that stay: changes, progress, and the summary at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.stage_runs import DONE_BEFORE, was_done_before
from otel_progress.model.status import Status
from otel_progress.model.summary import path_of
from otel_progress.model.units import amount, duration, lasting, percent, plural, rate, spelled
from otel_progress.render import words

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Event, Snapshot, StageSnapshot
    from otel_progress.model.stage_runs import StageRuns
    from otel_progress.render.words import Line, Span

ALSO: Final = 3
"""Further stuck branches that a line names."""
SHARE: Final = 20
"""Cells of the bar that shows a stage's share of the time."""


def changed(event: Event) -> Line:
    """A change of state, or a note, as text."""
    where = f"{words.clean(event.stage)} " if event.stage else ""
    reason = words.clean(event.attributes.get(semconv.WAIT_REASON, ""))
    text = f"{where}started"
    if event.name == semconv.NOTE:
        status = event.attributes.get(semconv.NOTE_STATUS)
        where = f"{words.clean(event.stage)}: " if event.stage else ""
        said = event.attributes.get(semconv.NOTE_TEXT, "")
        return ((where, "dim"), *words.noted(None if status is None else str(status), said, event.attributes))
    if event.name == semconv.WAIT_STARTED:
        text = f"{where}waits: {reason}"
    elif event.name == semconv.WAIT_OVERDUE:
        waited = event.attributes.get(semconv.WAIT_DURATION)
        text = f"{where}overdue after {duration(waited) if isinstance(waited, float) else ''}: {reason}"
    elif event.name == semconv.WAIT_ENDED:
        waited = event.attributes.get(semconv.WAIT_DURATION)
        late = event.attributes.get(semconv.WAIT_OVERDUE_BY)
        over = f", overdue by {duration(late)}" if isinstance(late, float) else ""
        text = f"{where}waited {duration(waited) if isinstance(waited, float) else ''}{over}: {reason}"
    elif event.name == semconv.STAGE_ENDED:
        stage = event.about
        text = f"{where}ended" if stage is None else where + outcome(stage)
    return ((text, ""),)


def verdict(event: Event) -> Line:
    """Trouble with its evidence, or a recovery."""
    return trouble(event.snapshot) or recovered(event)


def trouble(snapshot: Snapshot) -> Line:
    """The badge, the evidence and the place of trouble; empty without trouble."""
    bad = words.trouble(snapshot)
    if bad is None:
        return ()
    reason, stage = spelled(snapshot.health_reason or ""), words.clean(snapshot.stage or "")
    where = f" in {stage}" if stage and not reason.startswith(f"{stage}: ") else ""
    where += f", at {words.clean(snapshot.stuck_at)}" if snapshot.stuck_at else ""
    return ((bad[0], f"bold {bad[1]}"), (f" {reason}{where}{_also(snapshot)}", ""))


def trouble_key(snapshot: Snapshot) -> object:
    """What a line about trouble is repeated for: another verdict, and another place that is stuck; None without it."""
    if snapshot.health_reason is None or snapshot.status.final:
        return None
    return (snapshot.health, snapshot.stage, snapshot.stuck_at) if snapshot.health in NOT_MOVING else snapshot.health


def is_news(before: object, now: object) -> bool:
    """Whether trouble is another one than before, by their keys: what moves again has only left the line."""
    if isinstance(before, tuple) and isinstance(now, tuple) and now[2] is None:
        return before[:2] != now[:2]
    return before != now


def _also(snapshot: Snapshot) -> str:
    """The other branches that are stuck; the first is the one that the verdict is about."""
    if snapshot.health not in NOT_MOVING:
        return ""
    stuck = [branch for branch in snapshot.branches[1:] if branch.health in NOT_MOVING]
    if not stuck:
        return ""
    said = [
        words.clean(one.label) + (f" at {words.clean(one.stuck_at)}" if one.stuck_at else "") for one in stuck[:ALSO]
    ]
    more = f", and {len(stuck) - ALSO:,} more" if len(stuck) > ALSO else ""
    return f"; also stuck: {', '.join(said)}{more}"


def recovered(event: Event) -> Line:
    """A recovery, and how long it was stuck if that is known."""
    stuck = event.attributes.get(semconv.STALL_DURATION)
    return ((f"moving again after {duration(stuck)}" if isinstance(stuck, float) else "in order again", "green"),)


def outcome(node: StageSnapshot | Snapshot) -> str:
    """`completed after 2 s, 10 files`."""
    if was_done_before(node):
        return DONE_BEFORE
    text = node.status.value
    if not words.is_untimed(node):
        text += f" after {duration(node.elapsed)}"
    if node.progress.completed:
        text += f", {words.counted(node.progress)}"
    return text + (f": {words.clean(node.reason)}" if node.reason else "")


def progressed(snapshot: Snapshot) -> str:
    """A line of progress: the whole, and the running stage."""
    whole, bad = snapshot.progress, words.trouble(snapshot)
    parts = [bad[0] if bad else "", percent(whole.stated) if whole.stated is not None else "", words.counted(whole)]
    here = next((stage for stage in reversed(snapshot.stages) if stage.path == snapshot.stage), None)
    if here is not None:
        parts.append(f"{words.clean(here.path)} {words.counted(here.progress)}".strip())
        whole = here.progress if whole.rate is None else whole
    if snapshot.health not in NOT_MOVING:
        waits = snapshot.status is Status.WAITING
        parts.extend((rate(whole.rate, whole.unit), words.remaining(snapshot.progress, waits=waits)))
    idle = words.idling(snapshot.idle, snapshot.stall_after)
    if snapshot.wait is not None:
        parts.append(words.waiting(snapshot.wait))
    elif idle is not None:
        parts.append(idle[0])
    parts.append(f"elapsed {lasting(snapshot.elapsed)}")
    if bad and snapshot.stuck_at:
        parts.append(f"at {words.clean(snapshot.stuck_at)}")
    said = f" - {words.clean(snapshot.message)}" if snapshot.message else ""
    return "  ".join(part for part in parts if part) + said


def closing(snapshot: Snapshot, label: str, room: int) -> list[Line]:
    """The summary of an ended operation: status, time, progress, its stages with their share of the time, results."""
    style, ratio = words.STYLES[snapshot.status], snapshot.progress.stated
    at = "" if ratio is None or snapshot.status is Status.COMPLETED else f" at {percent(ratio)}"
    head: list[Span] = [
        (f"{words.ICONS[snapshot.status]} {label} ", style if "bold" in style else f"bold {style}"),
        (f"{snapshot.status.value} after {duration(snapshot.elapsed)}{at}", style),
    ]
    if snapshot.progress.completed:
        head.append((f"  {words.counted(snapshot.progress)}", ""))
    if snapshot.reason:
        head.append((f": {words.clean(snapshot.reason)}", style))
    lines: list[Line] = [tuple(head)]
    if snapshot.hint:
        lines.append(((f"    hint: {words.clean(snapshot.hint)}", "bold"),))
    lines.extend(_stages(snapshot, room))
    if counts := words.tally(snapshot):
        lines.append((("    ", ""), *counts))
    if snapshot.result:
        results = (f"{words.clean(key)} {_shown(value)}" for key, value in snapshot.result.items())
        lines.append(((f"    {words.DOT.join(results)}", ""),))
    if snapshot.attributes:
        lines.append(((f"    {words.said(snapshot.attributes)}", "dim"),))
    return lines


def _stages(snapshot: Snapshot, room: int) -> list[Line]:
    """One line per stage path: how often it ran, how long, and its share of the time."""
    repeated = {runs.path: runs for runs in snapshot.repeated}
    ran: dict[str, list[StageSnapshot]] = {path: [] for path in repeated}
    first, began = dict.fromkeys(repeated, 0.0), 0.0
    for stage in snapshot.stages:
        if stage.has_run:
            began = began if stage.started_at is None else stage.started_at  # they are in the order of their starts
            if not ran.setdefault(stage.path, []):
                first[stage.path] = began
            ran[stage.path].append(stage)
    paths = sorted(ran, key=first.__getitem__)
    shown = [(_named(path, ran[path], repeated.get(path)), path) for path in paths[:room]]
    wide = min(48, max((len(name) for name, _ in shown), default=0))
    lines: list[Line] = []
    for name, path in shown:
        lines.extend(_stage(snapshot, name.ljust(wide), ran[path], repeated.get(path)))
    more = sum(count for _, count, _ in snapshot.folded) - sum(runs.folded for runs in snapshot.repeated)
    more += sum(repeated[path].count if path in repeated else len(ran[path]) for path in paths[room:])
    return [*lines, ((f"    + {more:,} more {plural('stage', more)}", "dim"),)] if more > 0 else lines


def _named(path: str, told: list[StageSnapshot], runs: StageRuns | None) -> str:
    """`fetch x 400` for a stage that ran more than once."""
    count = len(told) if runs is None else runs.count + sum(not one.status.final for one in told)
    name = words.clean(path) if runs is None else words.clean(path_of(runs))
    return f"{name} x {count:,}" if count > 1 else name


def _stage(snapshot: Snapshot, name: str, told: list[StageSnapshot], runs: StageRuns | None) -> list[Line]:
    bad = [one for one in told if one.status is not Status.COMPLETED]
    retried = bool(bad) and runs is None and told[-1].status is Status.COMPLETED
    worst = bad[0] if bad and not retried else None
    status = Status.COMPLETED if worst is None else worst.status
    style = words.STYLES.get(status, "")
    if runs is None and told and all(map(was_done_before, told)):
        return [((f"  {words.ICONS.get(status, words.STILL)} ", style), (f"{name}  {DONE_BEFORE}", "dim"))]
    spent = sum(one.elapsed for one in told if runs is None or not one.status.final) + (runs.seconds if runs else 0.0)
    if runs is None and told and all(map(words.is_untimed, told)):
        return [((f"  {words.ICONS.get(status, words.STILL)} ", style), (name, ""))]
    share = min(1.0, spent / snapshot.elapsed) if snapshot.elapsed else 0.0
    bar = "▪" * max(1, round(share * SHARE))
    gap = f"{'':{SHARE + 2 - len(bar)}}"
    ends = Counter(one.status.value for one in bad)
    said = ", ".join(f"{n:,} {status}" for status, n in ends.items()) if retried else _about(told[0]) if told else ""
    about: Line = words.repeated(runs)[1:] if runs else (((said, "dim"),) if said else ())
    line = (
        (f"  {words.ICONS.get(status, words.STILL)} ", style),
        (f"{name}{duration(spent):>10}  {share:4.0%} of the time  ", ""),
        (bar, "cyan"),
        *(((gap, ""), *about) if about else ()),
    )
    if worst is None or not worst.reason or worst.reason == snapshot.reason:
        return [line]
    return [line, ((f"      {words.clean(worst.reason)}", style),)]


def _about(stage: StageSnapshot) -> str:
    """The count of a stage, its other counters and attributes, and its result."""
    counted = words.counted(stage.progress) if stage.progress.completed else ""
    said = stage.reason if stage.status is Status.COMPLETED else None
    parts = (counted, words.said(stage.counters), words.said(stage.attributes), words.clean(said or ""))
    return "  ".join(part for part in parts if part)


def _shown(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return amount(value)
    return words.clean(", ".join(map(str, value)) if isinstance(value, tuple) else value)
