"""The parts of a detail as JSON objects: stages, branches, the process, and the events of a history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from otel_progress import semconv as s
from otel_progress.model.command_line import is_cut, shell_line
from otel_progress.model.secrets import MASK
from otel_progress.model.status import Status, word
from otel_progress.model.timeline import attributes_of
from otel_progress.monitor.web.dump import dump
from otel_progress.monitor.web.row_json import progress_json, short_text, wait_json, without_none

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Branch, Snapshot, StageSnapshot
    from otel_progress.monitor.state.ledger import Entry, Process
    from otel_progress.monitor.state.saved import HistoryEvent

Json = dict[str, Any]


def ended_text(entry: Entry) -> str:
    """The data of the last event of a stream about one operation."""
    head = entry.head
    return dump({"id": head.operation_id, "status": head.status.value, "attempt": entry.number})


def event_json(number: int, event: HistoryEvent) -> Json:
    """An event of a history; `number` is its id."""
    return without_none(
        {
            "id": number,
            "timestamp": event.timestamp,
            "event": event.event,
            "text": event.text,
            "operation_id": event.operation_id,
            "attempt": event.attempt,
            "sequence": event.sequence,
            "stage": event.stage,
            "agent": event.agent,
            "status": event.status,
            "ratio": event.ratio,
            "attributes": attributes_of(event) or None,
        }
    )


def stage_json(stage: StageSnapshot) -> Json:
    """A stage."""
    return without_none(
        {
            "name": stage.name,
            "path": stage.path,
            "status": stage.status.value,
            "planned": stage.planned or None,
            "weight": stage.weight,
            "expected": stage.expected,
            "started_at": stage.started_at,
            "elapsed": None if stage.untimed else stage.elapsed,
            "idle": stage.idle,
            "progress": progress_json(stage.progress, None),
            "message": stage.message,
            "reason": stage.reason,
            "description": stage.description,
            "wait": wait_json(stage.wait),
            "critical": None if stage.critical else False,
            "depends_on": list(stage.depends_on) or None,
            "attributes": dict(stage.attributes) or None,
            "outcomes": dict(stage.outcomes) or None,
            "counters": dict(stage.counters) or None,
            "usage": dict(stage.usage) or None,
            "child_outcomes": dict(stage.child_outcomes) or None,
            "cpu_seconds": stage.cpu_seconds,
            "peak_memory": stage.peak_memory,
        }
    )


def branch_json(branch: Branch, rests_on: str | None) -> Json:
    """A branch, and the operation in another process on which it rests."""
    return without_none(
        {
            "label": short_text(branch.label),
            "path": short_text(branch.path),
            "lane": short_text(branch.lane),
            "child": rests_on or branch.child,
            "health": word(branch.health),
            "reason": short_text(branch.reason),
            "idle": branch.idle,
            "stall_after": branch.stall_after,
            "wait": wait_json(branch.wait),
            "stuck_at": short_text(branch.stuck_at),
        }
    )


def loop_json(seen: Snapshot) -> Json | None:
    """The loop that an operation is in."""
    loop = seen.loop
    return None if loop is None else {"kind": loop.kind, "keys": list(loop.keys), "repeats": loop.repeats}


def attempts_json(events: Iterable[HistoryEvent], entry: Entry, alive: Iterable[Json] = ()) -> list[Json]:
    """The attempts of an id in order, from its history: when each began and ended, and how.

    Runs of which the monitor heard late may have the number of another one: then the one that began first is told.

    Args:
        events: their starts and ends.
        entry: the newest attempt.
        alive: older attempts that are known to run still.
    """
    found: dict[int, Json] = {}
    told = list(events)
    latest_first = sorted(told, key=lambda event: -event.started_at)
    began = {event.attempt: event.started_at for event in latest_first if event.started_at}
    if entry.head.started_at:
        began[entry.number] = entry.head.started_at
    for event in sorted(told, key=lambda event: (event.attempt, event.timestamp)):
        if event.started_at and event.started_at != began[event.attempt]:
            continue
        one = found.setdefault(event.attempt, {"attempt": event.attempt})
        if event.started_at:
            one["started_at"] = event.started_at
        if event.event == s.OPERATION_ENDED and "ended_at" not in one:
            own = attributes_of(event)
            signal, code = own.get(s.EXIT_SIGNAL), own.get(s.EXIT_CODE)
            one |= {
                "ended_at": event.timestamp,
                "status": event.status,
                "ratio": event.ratio,
                "reason": short_text(own.get(s.STATUS_REASON)),
                "signal": short_text(signal),
                "exit_code": code if isinstance(code, int) else None,
            }
    for run in alive:
        known = found.setdefault(run["attempt"], {"attempt": run["attempt"], "started_at": run.get("started_at")})
        if known.get("started_at") in (None, run.get("started_at")):
            known["status"] = Status.RUNNING.value
    newest = found.setdefault(entry.number, {"attempt": entry.number})
    newest |= {"status": entry.head.status.value, "started_at": entry.head.started_at, "from": _resumed_at(entry)}
    return [without_none(found[number]) for number in sorted(found)]


def _resumed_at(entry: Entry) -> float | None:
    """The ratio that earlier attempts had reached; None without one, or if it is not known.

    The event of a start does not say it: its snapshot may be newer, and have progress of this attempt.
    """
    own = entry.snapshot.progress
    return min(1.0, own.restored / own.total) if own.restored and own.total else None


def command_json(process: Process | None) -> Json | None:
    """The command that started the process of an operation, and the line that starts it again."""
    given = () if process is None else process.resource.get(s.PROCESS_COMMAND_ARGS)
    if process is None or not isinstance(given, (list, tuple)) or not given:
        return None
    arguments = [str(argument) for argument in given]
    folder = process.resource.get(s.PROCESS_FOLDER)
    folder = folder if isinstance(folder, str) else ""
    return without_none(
        {
            "args": arguments,
            "folder": folder or None,
            "line": shell_line(arguments, folder),
            "masked": any(MASK in argument for argument in arguments) or None,
            "cut": is_cut(arguments) or None,
        }
    )


def process_json(process: Process | None, now: float) -> Json | None:
    """The process of an operation."""
    if process is None:
        return None
    return without_none(
        {
            "instance": process.instance,
            "pid": process.pid,
            "host": process.host,
            "service": short_text(process.resource.get(s.SERVICE_NAME)),
            "heard_ago": round(max(0.0, now - process.heard_at), 3),
            "heartbeat": process.interval if process.beats else None,
            "resource": dict(process.resource),
        }
    )
