"""The row of an operation as a JSON object, and the parts that a row and a detail share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import json_keys
from otel_progress.model.attribute_types import is_amount
from otel_progress.model.health import NOT_MOVING, Verdict
from otel_progress.model.ratio import ALMOST
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.states import TROUBLE, Label, state_of
from otel_progress.model.status import Health, Status, word
from otel_progress.model.units import count, duration
from otel_progress.monitor.state.child_processes import Judgement
from otel_progress.monitor.state.ledger import MARK
from otel_progress.monitor.state.rollup import Whole

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry, Process, Rival
    from otel_progress.monitor.state.saved import Mute

SHORT: Final = 500
"""The most characters of a text in a row."""
LABELS: Final = 8
LABEL: Final = 64
"""The most attributes of a child in a row, and the most characters of each."""
_STILL: Final = NOT_MOVING | {Health.DEAD}
"""Verdicts with which neither ETA nor rate is shown."""
CLOCKS: Final[tuple[str, ...]] = ("as_of", "timestamp", "elapsed", "idle", "wait")
"""The fields of a row that advance while nothing is reported; `elapsed`, `idle` and `wait` refer to `timestamp`."""
ESTIMATES: Final[tuple[str, ...]] = ("progress", "stage_progress")
"""The fields of a row that hold an ETA, which runs down while nothing is reported."""

Json = dict[str, Any]


def row_json(
    entry: Entry,
    seen: Snapshot,
    process: Process | None,
    verdict: Verdict | None,
    whole: Whole,
    shown: float | None,
    *,
    was_stuck_before: bool,
) -> Json:
    """A row: what is reported of an operation, the verdict on it, and the figures rolled up from its children."""
    about: Mapping[str, Any] = process.resource if process is not None else {}
    state = state_of(seen.status, _label(verdict))
    progress = _whole(seen, whole, shown)
    stage, stuck_at = where_stuck(seen, verdict)
    if verdict is not None and verdict.health in _STILL:
        progress.pop("eta", None)
        progress.pop("rate", None)
    return without_none(
        {
            "id": seen.operation_id,
            "name": short_text(seen.name),
            "status": seen.status.value,
            "state": state,
            "trouble": True if state in TROUBLE or is_unheard_trouble(state, was_stuck_before) else None,
            "verdict": None if verdict is None else verdict_json(verdict),
            "reason": short_text(seen.reason),
            "presumed": True if entry.presumed is not None and seen.status is Status.LOST else None,
            "hint": short_text(seen.hint),
            "attempt": entry.number,
            "parent_id": seen.parent_id,
            "labels": _labels(seen),
            "agent": short_text(seen.agent),
            "service": short_text(about.get(s.SERVICE_NAME)),
            "host": process.host if process is not None else None,
            "pid": process.pid if process is not None else None,
            "started_at": seen.started_at,
            "timestamp": seen.timestamp,
            "as_of": round(clock.unix(), 3) if entry.open else None,
            "said_at": entry.newest_at,
            "elapsed": seen.elapsed,
            "idle": _idle(seen, verdict, whole) if entry.open else None,
            "stage": short_text(stage),
            "progress": progress,
            "stage_progress": _innermost(seen),
            "wait": wait_json(seen.wait),
            "stuck_at": short_text(stuck_at) if is_stopped(verdict) or was_stuck(seen, verdict) else None,
            "cancel": "requested" if seen.cancel_requested else None,
            "cost": whole.cost or None,
            "tokens": whole.tokens or None,
            "children": whole.children or None,
            "ended": None if entry.open else True,
            "source": "spans" if entry.instance.startswith(MARK) else None,
            "revision": entry.revision,
        }
    )


def is_unheard_trouble(state: str, was_stuck_before: bool) -> bool:
    """Whether an operation whose state is unknown was stuck before."""
    return state == word(Health.UNKNOWN) and was_stuck_before


def _label(verdict: Verdict | None) -> Label:
    if verdict is None:
        return Label(Health.PROGRESSING)
    return Label(verdict.health, verdict.overdue, isinstance(verdict, Judgement) and verdict.frozen)


def _labels(seen: Snapshot) -> Json | None:
    """Short attributes of a child, which may tell it apart from its siblings."""
    if seen.parent_id is None:
        return None
    given = ((key, value) for key, value in seen.attributes.items() if not isinstance(value, tuple))
    return {
        key[:LABEL]: value[:LABEL] if isinstance(value, str) else value for key, value in islice(given, LABELS)
    } or None


def is_stopped(verdict: Verdict | None) -> bool:
    """Whether it is still at the line where it was stuck: not once it moved, ended, or only waits for a child."""
    if verdict is None:
        return False
    return verdict.health in NOT_MOVING or verdict.health is Health.DEAD  # as far as is known it has not moved since


def was_stuck(seen: Snapshot, verdict: Verdict | None) -> bool:
    """Whether it was stuck when its process was last heard, and nothing newer is known."""
    unheard = seen.status is Status.LOST or (verdict is not None and verdict.health is Health.UNKNOWN)
    return unheard and seen.health in NOT_MOVING


def _idle(seen: Snapshot, verdict: Verdict | None, whole: Whole) -> float:
    """Seconds without progress, also below it in other processes; if it is stuck, those of what is stuck."""
    if isinstance(verdict, Judgement) and verdict.clock == "child" and verdict.health in NOT_MOVING:
        return verdict.seconds
    if verdict is not None and verdict.health in NOT_MOVING:
        return seen.idle
    ended = verdict.seconds if isinstance(verdict, Judgement) and verdict.clock == "idle" and verdict.child else None
    return min(seen.idle, whole.idle, seen.idle if ended is None else ended)


def where_stuck(seen: Snapshot, verdict: Verdict | None) -> tuple[str | None, str | None]:
    """Stage and line of the branch that decides the verdict; its process may have named another one."""
    if verdict is None or not seen.branches:
        return seen.stage, seen.stuck_at
    found = next((branch for branch in seen.branches if branch.label == verdict.branch), None)
    if found is not None and verdict.health in NOT_MOVING:
        return found.path, found.stuck_at
    return seen.stage, None if isinstance(verdict, Judgement) and verdict.child is not None else seen.stuck_at


def _whole(seen: Snapshot, whole: Whole, shown: float | None) -> Json:
    """The progress of an operation: as reported, or rolled up from its children."""
    own = seen.progress
    ratio, completed, total, rolled = own.ratio, own.completed, own.total, False
    if shown is not None and (whole.rolled_up or (not own.ratio and not own.completed)):
        ratio, rolled = shown, True
        completed = completed if whole.completed is None else whole.completed
    elif shown is not None:  # it counts by itself by now, and continues from what its children had
        ratio = max(shown, own.ratio or 0.0)
    elif whole.ratio is None and not ratio:
        ratio = None
    if seen.status is Status.COMPLETED and (rolled or whole.rolled_up):
        # If it counted nothing itself, its status counts, unless all children are known: one of them may be lost.
        if whole.rolled_up and whole.ratio is not None and (whole.ratio >= 1 or whole.children >= (total or math.inf)):
            ratio, completed, rolled = whole.ratio, whole.completed, True
        elif not own.completed:
            ratio, completed = 1.0, own.completed
    if seen.status.final:
        ratio, completed, total = _at_the_end(seen, ratio, completed, total)
    return progress_json(
        Progress(completed, total, own.unit, ratio, whole.ratio, own.rate, whole.eta, own.restored),
        seen.message,
        rolled,
    )


def _at_the_end(
    seen: Snapshot, ratio: float | None, completed: Any, total: Any
) -> tuple[float | None, float | None, float | None]:
    """Completed means 100%, never `0 of 2`; any other end shows neither 99% nor 0% of what a stage did."""
    if seen.status is Status.COMPLETED:
        if ratio is not None and not (completed and total):
            ratio = 1.0
        return (ratio, None, None) if ratio == 1 and not completed and total else (ratio, completed, total)
    if ratio is not None and (ratio >= ALMOST or (ratio == 0 and not completed and _has_counted(seen))):
        ratio = None
    return ratio, completed, total


def _has_counted(seen: Snapshot) -> bool:
    """Whether the innermost stage reports progress."""
    stage = _stage_of(seen)
    return stage is not None and bool(stage.progress.completed or stage.progress.ratio)


def mute_json(mute: Mute, entry: Entry, may_name: Callable[[str], bool]) -> Json:
    """Who muted an operation, or the one above it, why, and until when."""
    above = mute.operation_id != entry.head.operation_id
    if above and not may_name(mute.operation_id):
        return without_none({"since": mute.since, "until": mute.until})
    return without_none(
        {
            "by": short_text(mute.who),
            "reason": short_text(mute.reason),
            "since": mute.since,
            "until": mute.until,
            "through": mute.operation_id if above else None,
        }
    )


def rival_json(rival: Rival, process: Process | None) -> Json:
    """An older run of the same id that is still alive."""
    return without_none(
        {
            "attempt": rival.number,
            "started_at": rival.head.started_at,
            "instance": rival.instance,
            "pid": process.pid if process is not None else None,
            "host": process.host if process is not None else None,
        }
    )


def warning_text(entry: Entry, process: Process | None, also: list[Json]) -> str:
    """The warning that several processes run the same id."""
    mine = {"attempt": entry.number, "instance": entry.instance}
    if process is not None:
        mine |= without_none({"pid": process.pid, "host": process.host})
    runs = ", ".join(_run(one) for one in (mine, *also))
    said = f"two processes run the operation {entry.head.operation_id!r}" if len(also) == 1 else (
        f"{len(also) + 1} processes run the operation {entry.head.operation_id!r}"
    )  # fmt: skip
    return f"{said}: {runs}; give each run an id of its own, or stop one"[:SHORT]


def keyframe_text(entry: Entry) -> str | None:
    """What is not known of an operation as a keyframe of its deltas is missing, in words; None if nothing is."""
    if not entry.lacks_keyframe:
        return None
    if entry.pending is None:
        return "its keyframe is missing: only what its newest update says itself is shown"
    completed: Any = entry.pending.brief.get(s.COMPLETED)
    newest = f"; the newest one counts {count(completed)}" if is_amount(completed) else ""
    return f"the updates of its last {duration(entry.heard_later)} can't be read, as their keyframe is missing{newest}"


def _run(one: Json) -> str:
    where = f"pid {one['pid']}" if "pid" in one else one["instance"]
    return f"attempt {one['attempt']} ({where}{' on ' + one['host'] if 'host' in one else ''})"


def verdict_json(verdict: Verdict, *, whole: bool = False) -> Json:
    """A verdict; with `whole` also its evidence."""
    said: Json = {"health": verdict.health.value, "reason": verdict.reason if verdict.troubled or whole else None}
    said["overdue"] = verdict.overdue or None
    said["branch"] = short_text(verdict.branch)
    if isinstance(verdict, Judgement):
        said |= {"reason": verdict.reason, "frozen": verdict.frozen or None, "child": verdict.child}
    if whole:
        said |= {
            "limit": verdict.limit,
            "seconds": verdict.seconds,
            "allowed": verdict.allowed if verdict.allowed != float("inf") else None,
            "clock": verdict.clock,
            "source": verdict.source,
            "seen": verdict.seen,
        }
    return without_none(said)


def progress_json(progress: Progress, message: str | None, rolled: bool = False) -> Json:
    """How far an operation or a stage is."""
    return without_none(
        {
            "percentage": progress.percentage,
            "current_step": short_text(message),
            "ratio": progress.ratio,
            "ratio_raw": progress.ratio_raw if progress.stated is None else None,
            "completed": progress.completed,
            "restored": progress.restored,
            "total": progress.total,
            "unit": progress.unit if progress.completed is not None else None,
            "rate": progress.rate,
            "eta": json_keys.of_eta(progress.eta),
            "rolled_up": True if rolled else None,
        }
    )


def _stage_of(seen: Snapshot) -> StageSnapshot | None:
    """The innermost running stage; of an ended operation the last one."""
    return next((stage for stage in reversed(seen.stages) if stage.path == seen.stage), None)


def _innermost(seen: Snapshot) -> Json | None:
    """The progress of the innermost stage, which often counts although the operation does not."""
    stage = _stage_of(seen)
    if stage is None or (stage.progress.completed is None and stage.progress.ratio is None):
        return None
    return progress_json(stage.progress, None)


def wait_json(wait: Wait | None) -> Json | None:
    """A declared wait."""
    if wait is None:
        return None
    return without_none(
        {"reason": short_text(wait.reason), "elapsed": wait.elapsed, "overdue_after": wait.overdue_after}
    )


def short_text(value: object) -> str | None:
    """A text cut to the length that lists show; None for anything else."""
    return value[:SHORT] if isinstance(value, str) else None


def without_none(given: Json) -> Json:
    """The object without keys whose value is None."""
    return {key: value for key, value in given.items() if value is not None}
