"""The keys under which an operation is told as JSON: `Snapshot.to_dict()` and the monitor's API use the same.

Durations and `elapsed_time` are in seconds, `started_at` and `updated_at` in seconds since 1970, times that end in
`_completion` in ISO 8601 (UTC). A key whose value is not known holds None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from enum import Enum
from math import isfinite
from typing import Any, Final

from otel_progress import semconv
from otel_progress.model.estimate import Estimate
from otel_progress.model.health import Verdict, judge
from otel_progress.model.repeats import StageRuns
from otel_progress.model.snapshot import Branch, Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Health, Status, word

Json = dict[str, Any]


_MADE: Final = frozenset({"progress", "stages", "branches", "repeated", "timestamp"})
"""Fields that are told in another form."""


def of_snapshot(snapshot: Snapshot) -> Json:
    """All that a snapshot holds, and what follows from it; see `Snapshot.to_dict`."""
    verdict = None if snapshot.status.final else judge(snapshot, snapshot.timestamp)
    out = {name: plain(getattr(snapshot, name)) for name in snapshot.__dataclass_fields__ if name not in _MADE}
    out |= brief(snapshot, verdict) | stages_in_numbers(snapshot) | history(snapshot)
    out["updated_at"] = snapshot.timestamp
    out["progress"] = of_progress(snapshot.progress, snapshot.message)
    out["stages"] = [of_stage(stage) for stage in snapshot.stages]
    out["branches"] = [of_branch(branch) for branch in snapshot.branches]
    out["repeated"] = [of_runs(runs) for runs in snapshot.repeated]
    # The names of version 0.1; gone after the next one.
    out["timestamp"] = datetime.fromtimestamp(snapshot.timestamp, timezone.utc).isoformat()
    out["progress_percentage"] = snapshot.progress.percentage
    out["metadata"] = plain(snapshot.attributes)
    return out


def brief(snapshot: Snapshot, verdict: Verdict | None, progress: Progress | None = None) -> Json:
    """What a bar and a list need.

    Args:
        snapshot: the operation.
        verdict: what the observer concludes; None where it is over.
        progress: how far it is, where the observer knows more than the snapshot says.
    """
    progress = snapshot.progress if progress is None else progress
    return {
        "operation_id": snapshot.operation_id,
        "name": snapshot.name,
        "status": snapshot.status.value,
        "percentage": progress.percentage,
        "current_step": snapshot.message or snapshot.stage,
        "eta": of_eta(progress.eta),
        "verdict": None if verdict is None else of_verdict(verdict),
    }


def of_row(row: Mapping[str, Any]) -> Json:
    """A row of the monitor's list with the keys of `brief` beside its own: null where something is not known."""
    progress, verdict = row.get("progress") or {}, row.get("verdict")
    return {
        **row,
        "operation_id": row["id"],
        "percentage": progress.get("percentage"),
        "current_step": progress.get("current_step") or row.get("stage"),
        "eta": progress.get("eta"),
        "verdict": verdict and {**verdict, "health": word(Health(verdict["health"]))},
    }


def of_detail(snapshot: Snapshot, row: Mapping[str, Any]) -> Json:
    """What the monitor says of one operation beside its row and the fields of the snapshot."""
    eta = (row.get("progress") or {}).get("eta")
    done = None if eta is None or snapshot.status.final else _moment(snapshot.timestamp + eta["seconds"])
    return {
        **stages_in_numbers(snapshot),
        **history(snapshot),
        "estimated_completion": done,
        "updated_at": snapshot.timestamp,
        "repeated": [of_runs(runs) for runs in snapshot.repeated],
    }


def of_eta(eta: Estimate | None) -> Json | None:
    """When it will be done: `seconds` from the moment of the snapshot, and the interval."""
    return None if eta is None else {"seconds": eta.eta, "low": eta.low, "high": eta.high, "source": eta.source}


def of_verdict(verdict: Verdict) -> Json:
    """What is concluded (`health`, with `stuck` for `silent`), and the evidence; `reason` only where it is trouble."""
    return {
        "health": word(verdict.health),
        "reason": verdict.reason if verdict.troubled else None,
        "overdue": verdict.overdue,
        "limit": verdict.limit,
        "seconds": verdict.seconds,
        "allowed": verdict.allowed if verdict.allowed is not None and isfinite(verdict.allowed) else None,
        "clock": verdict.clock,
        "source": verdict.source,
        "seen": verdict.seen,
        "branch": verdict.branch,
    }


def of_progress(progress: Progress, message: str | None = None) -> Json:
    """How far an operation or a stage is."""
    eta = of_eta(progress.eta)
    return {
        "percentage": progress.percentage,
        "current_step": message,
        "ratio": progress.ratio,
        "ratio_raw": progress.ratio_raw,
        "completed": progress.completed,
        "total": progress.total,
        "unit": progress.unit,
        "rate": progress.rate,
        "eta": None if eta is None else eta | {"eta": eta["seconds"]},  # the second is the name of version 0.1
    }


def of_stage(stage: StageSnapshot) -> Json:
    """A stage that is told one by one."""
    out = {name: plain(getattr(stage, name)) for name in stage.__dataclass_fields__ if name != "progress"}
    return out | {"progress": of_progress(stage.progress, stage.message)}


def of_branch(branch: Branch) -> Json:
    """One of the branches side by side; `label` is what people call it, `path` that of its stage."""
    out = {name: plain(getattr(branch, name)) for name in branch.__dataclass_fields__}
    return {"label": branch.label, **out, "health": word(branch.health)}


def of_runs(runs: StageRuns) -> Json:
    """A stage that ended more than once."""
    out = {name: plain(getattr(runs, name)) for name in runs.__dataclass_fields__}
    return {"name": runs.name, "count": runs.count, **out}


def stages_in_numbers(snapshot: Snapshot) -> Json:
    """How many stages there are, and which one runs.

    Stages inside others don't count, and runs of one name are one stage. `current_stage` is the place of the one that
    runs, from 0 on, in the order in which they started. Where stages were folded whose names are not known any more,
    the three numbers are None.
    """
    names = _names(snapshot)
    here = None
    if names is not None and snapshot.stage is not None:
        here = next((at for at, name in enumerate(names) if _inside(snapshot.stage, name)), None)
    failed = [stage.path for stage in snapshot.stages if stage.status is Status.FAILED]
    return {
        "current_stage": here,
        "total_stages": None if names is None else len(names),
        "stages_completed": None if names is None else sum(names.values()),
        "failed_stage": failed[-1] if failed else None,
    }


def _names(snapshot: Snapshot) -> dict[str, bool] | None:
    """The outermost stages by name, and whether each is completed; None where some of them are not known."""
    known = sum(runs.folded for runs in snapshot.repeated if runs.path != semconv.OTHER_STAGE)
    if sum(count for _, count, _ in snapshot.folded) > known:
        return None
    outer = {stage.name: stage.status is Status.COMPLETED for stage in snapshot.stages if stage.path == stage.name}
    before = {
        runs.path: Status.COMPLETED.value in runs.counts
        for runs in snapshot.repeated
        if runs.path not in outer and not any(_inside(runs.path, name) for name in outer) and runs.path == runs.name
    }
    return before | outer


def _inside(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def history(snapshot: Snapshot) -> Json:
    """What is over, and when the rest will be.

    `stage_history` has the stages that ended, in the order in which they started, as far as they are told one by one;
    `average_stage_duration` is the mean of all ended runs of stages that are inside no other.
    """
    ended = [stage for stage in snapshot.stages if stage.status.final and stage.started_at is not None]
    eta = snapshot.progress.eta
    done = None
    if eta is not None and not snapshot.status.final:
        done = _moment(snapshot.timestamp + eta.eta)
    return {
        "stage_history": [_ended(stage) for stage in ended],
        "average_stage_duration": _average(ended, snapshot.repeated),
        "elapsed_time": snapshot.elapsed,
        "estimated_completion": done,
    }


def _ended(stage: StageSnapshot) -> Json:
    return {
        "stage": stage.path,
        "status": stage.status.value,
        "started_at": stage.started_at,
        "duration": stage.elapsed,
        "message": stage.message,
        "reason": stage.reason,
    }


def _average(ended: Iterable[StageSnapshot], repeated: Iterable[StageRuns]) -> float | None:
    runs = {one.path: one for one in repeated if one.path == one.name and one.path != semconv.OTHER_STAGE}
    once = [stage.elapsed for stage in ended if stage.path == stage.name and stage.path not in runs]
    count = len(once) + sum(one.count for one in runs.values())
    return round((sum(once) + sum(one.seconds for one in runs.values())) / count, 3) if count else None


def _moment(timestamp: float) -> str | None:
    try:
        return datetime.fromtimestamp(timestamp, timezone.utc).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def plain(value: Any) -> Any:
    """The value in the types that JSON has."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
