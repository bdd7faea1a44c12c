"""Events as sentences, for people who read logs: `backup completed after 12.3 s, 100% (…)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.snapshot import Event, Snapshot, StageSnapshot
from otel_progress.model.stage_runs import DONE_BEFORE, was_done_before
from otel_progress.model.status import Health, Status, word
from otel_progress.model.units import count, duration, left, percent, plural, remaining, spelled, units


def sentence(event: Event) -> str:
    """Say an event of an operation in one sentence that begins with the operation's name."""
    return f"{event.snapshot.name}{SENTENCES[event.name](event)}"


def conclusion(row: Mapping[str, Any]) -> str:
    """Say how an operation stands by its row, for what an observer concluded without an event of the operation."""
    verdict, name = row.get("verdict") or {}, row.get("name")
    if row.get("ended"):
        return f"{name} {row.get('state')} after {duration(row.get('elapsed') or 0.0)}{_because(row.get('reason'))}"
    reason = verdict.get("reason")
    state = row.get("state")
    what = "a wait is overdue" if state == "overdue" else state
    return f"{name}: {what}: {spelled(reason)}" if reason else f"{name}: {what}"


def _started(event: Event) -> str:
    attempt = event.snapshot.attempt
    about = f": {event.snapshot.description}" if event.snapshot.description else ""
    return " started" + (f", attempt {attempt}" if attempt > 1 else "") + about


def _ended(event: Event) -> str:
    snapshot = event.snapshot
    what = f" {snapshot.status.value} after {duration(snapshot.elapsed)}{_percent(snapshot)}{_because(snapshot.reason)}"
    return f"{what}; hint: {snapshot.hint}" if snapshot.hint else what


def _stage_ended(event: Event) -> str:
    stage = event.about
    if stage is None:
        return f": stage {event.stage} ended"
    if was_done_before(stage):
        return f": stage {stage.path} was {DONE_BEFORE}"
    spent = "" if stage.untimed else f" after {duration(stage.elapsed)}"
    what = f": stage {stage.path} {stage.status.value}{spent}"
    return f"{what}{_count(stage)}{_because(stage.reason)}"


def _updated(event: Event) -> str:
    snapshot = event.snapshot
    stage = event.about
    counted = snapshot if stage is None or stage.progress.completed is None else stage
    whole = counted if snapshot.progress.ratio is None else snapshot
    eta = whole.progress.eta
    rest = "" if eta is None else left(eta.eta, eta.low, eta.high)
    waits = snapshot.status is Status.WAITING
    rest = f", {remaining(rest, waits=waits, source=eta.source)}" if eta is not None and rest else ""
    said = f"{event.stage or ''}{_count(counted)}{_percent(whole)}{rest}".removeprefix(", ") or "goes on"
    if snapshot.health_reason:
        said += f" ({word(snapshot.health)}: {spelled(snapshot.health_reason)})"
    return f": {said}" + (f": {snapshot.message}" if snapshot.message else "")


def _stalled(event: Event) -> str:
    snapshot = event.snapshot
    reason = _reason(event)
    where = f" in {event.stage}" if event.stage and not reason.startswith(f"{event.stage}: ") else ""
    at = f", at {snapshot.stuck_at}" if snapshot.stuck_at else ""
    what = "looping" if snapshot.health is Health.LOOPING else "stuck"
    return f": {what}{where}{at}: {reason}"


def _troubled(event: Event) -> str:
    kind = "a wait is overdue" if event.name == s.WAIT_OVERDUE else "slow"
    return f": {kind}: {_reason(event)}"


def _reason(event: Event) -> str:
    return spelled(str(event.attributes.get(s.HEALTH_REASON) or event.snapshot.health_reason or "no progress"))


def _recovered(event: Event) -> str:
    return f": moves again{_after(event, s.STALL_DURATION)}"


def _wait_ended(event: Event) -> str:
    over = _number(event, s.WAIT_OVERDUE_BY)
    late = f", overdue by {duration(over)}" if over else ""
    spent = _number(event, s.WAIT_DURATION) if s.WAIT_DURATION in event.attributes else None
    waited = "waited" if spent is None else f"waited {duration(spent)}"
    return f": {waited} for {event.attributes.get(s.WAIT_REASON, 'something')}{late}"


def _checkpoint(event: Event) -> str:
    marked = int(_number(event, s.CHECKPOINT_KEYS))
    return ": checkpoint saved" + (f", {count(marked)} {plural('key', marked)} marked" if marked else "")


SENTENCES: Final[Mapping[str, Callable[[Event], str]]] = {
    s.WAIT_OVERDUE: _troubled,
    s.SLOW: _troubled,
    s.OPERATION_STARTED: _started,
    s.OPERATION_ENDED: _ended,
    s.STAGE_STARTED: lambda event: f": stage {event.stage} started",
    s.STAGE_ENDED: _stage_ended,
    s.UPDATED: _updated,
    s.HEARTBEAT: lambda event: ": the work gave a heartbeat" + (f" in {event.stage}" if event.stage else ""),
    s.NOTE: lambda event: f": {event.attributes.get(s.NOTE_TEXT, '')}",
    s.WAIT_STARTED: lambda event: f": waits for {event.attributes.get(s.WAIT_REASON, 'something')}",
    s.WAIT_ENDED: _wait_ended,
    s.STALLED: _stalled,
    s.RECOVERED: _recovered,
    s.CHECKPOINT: _checkpoint,
    s.ITEM_STARTED: lambda event: f": begins {event.attributes.get(s.ITEM, '')}",
    s.ITEM_COMPLETED: lambda event: f": {event.attributes.get(s.ITEM, '')} done",
}
"""What follows the name of the operation, by the name of the event."""


def _number(event: Event, key: str) -> float:
    value = event.attributes.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _after(event: Event, key: str) -> str:
    """After how long, if the event says it."""
    return f" after {duration(_number(event, key))}" if key in event.attributes else ""


def _count(about: Snapshot | StageSnapshot) -> str:
    progress = about.progress
    if progress.completed is None:
        return ""
    return f", {units(progress.completed, progress.total, progress.unit)}"


def _percent(about: Snapshot | StageSnapshot) -> str:
    ratio = about.progress.stated
    return "" if ratio is None else f", {percent(ratio)}"


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
