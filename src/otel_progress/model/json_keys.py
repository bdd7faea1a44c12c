"""The JSON form of an operation, with the same keys in `Snapshot.to_dict()` and in the monitor's API.

Durations and `elapsed_time` are in seconds, `started_at` and `updated_at` in seconds since 1970, and times whose key
ends in `_completion` in ISO 8601 (UTC). An unknown value is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from enum import Enum
from math import isfinite
from typing import Any, Final

from otel_progress import semconv
from otel_progress.model.estimate import Estimate
from otel_progress.model.fields import Branch, Progress, SnapshotFields, StageSnapshot
from otel_progress.model.health import Verdict, judge
from otel_progress.model.stage_runs import StageRuns, was_done_before
from otel_progress.model.statistics import statistics_of
from otel_progress.model.status import Health, Status, word

Json = dict[str, Any]

_MADE: Final = frozenset(
    {
        "progress",
        "stages",
        "branches",
        "repeated",
        "timestamp",
        "components",
        "failures",
        "curve",
        "resources",
        "child_outcomes",
    }
)
"""Fields that get another form in JSON."""


def of_snapshot(snapshot: SnapshotFields) -> Json:
    """Return all fields of a snapshot and what follows from them; see `Snapshot.to_dict`."""
    verdict = None if snapshot.status.final else judge(snapshot, snapshot.timestamp)
    out = {name: plain(getattr(snapshot, name)) for name in snapshot.__dataclass_fields__ if name not in _MADE}
    out |= brief(snapshot, verdict) | stages_in_numbers(snapshot) | history(snapshot)
    out["updated_at"] = snapshot.timestamp
    out["progress"] = of_progress(snapshot.progress, snapshot.message)
    out["stages"] = [of_stage(stage) for stage in snapshot.stages]
    out["branches"] = [of_branch(branch) for branch in snapshot.branches]
    out["repeated"] = _repeated(snapshot)
    out |= measured(snapshot)
    # Deprecated names of version 0.1; the version after the next removes them.
    out["timestamp"] = datetime.fromtimestamp(snapshot.timestamp, timezone.utc).isoformat()
    out["progress_percentage"] = snapshot.progress.percentage
    out["metadata"] = plain(snapshot.attributes)
    return out


def brief(snapshot: SnapshotFields, verdict: Verdict | None, progress: Progress | None = None) -> Json:
    """Return what a progress bar and a list need.

    Args:
        snapshot: the operation.
        verdict: the conclusion of the observer; None once the operation is over.
        progress: how far it is, if the observer knows more than the snapshot.
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
    """Return a row of the monitor's list with the keys of `brief` added; unknown values are None."""
    progress, verdict = row.get("progress") or {}, row.get("verdict")
    return {
        **row,
        "operation_id": row["id"],
        "percentage": progress.get("percentage"),
        "current_step": progress.get("current_step") or row.get("stage"),
        "eta": progress.get("eta"),
        "verdict": verdict and {**verdict, "health": word(Health(verdict["health"]))},
    }


def of_detail(snapshot: SnapshotFields, row: Mapping[str, Any]) -> Json:
    """Return what the monitor adds to the row and the fields of one operation."""
    eta = (row.get("progress") or {}).get("eta")
    return {
        **stages_in_numbers(snapshot),
        **history(snapshot),
        "estimated_completion": None if eta is None else _completion(snapshot, eta["seconds"], eta["source"]),
        "updated_at": snapshot.timestamp,
        "repeated": _repeated(snapshot),
        **measured(snapshot),
    }


def measured(snapshot: SnapshotFields) -> Json:
    """Return the statistics, and what the process used (`Resources`), or None."""
    resources = snapshot.resources
    return {
        "statistics": statistics_of(snapshot).to_dict(),
        "resources": None if resources is None else resources.to_dict(),
    }


def of_eta(eta: Estimate | None) -> Json | None:
    """Return the ETA: `seconds` from the time of the snapshot, the interval, and where it comes from."""
    if eta is None:
        return None
    return {"seconds": eta.eta, "low": eta.low, "high": eta.high, "source": eta.source, "runs": eta.runs}


def of_verdict(verdict: Verdict) -> Json:
    """Return the verdict (`health`, with `stuck` for `silent`) and the evidence; `reason` if it needs attention."""
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
    """Return how far an operation or a stage is."""
    eta = of_eta(progress.eta)
    return {
        "percentage": progress.percentage,
        "current_step": message,
        "ratio": progress.ratio,
        "ratio_raw": progress.ratio_raw,
        "completed": progress.completed,
        "restored": progress.restored,
        "total": progress.total,
        "unit": progress.unit,
        "rate": progress.rate,
        "eta": None if eta is None else eta | {"eta": eta["seconds"]},  # deprecated name of version 0.1
    }


def of_stage(stage: StageSnapshot) -> Json:
    """Return a stage that the snapshot lists."""
    out = {name: plain(getattr(stage, name)) for name in stage.__dataclass_fields__ if name not in _MADE}
    out["child_outcomes"] = plain(stage.child_outcomes)
    if out.pop("untimed"):
        out["elapsed"] = None
    return out | {"progress": of_progress(stage.progress, stage.message)}


def of_branch(branch: Branch) -> Json:
    """Return a branch; `label` is the name to show, `path` that of its stage."""
    out = {name: plain(getattr(branch, name)) for name in branch.__dataclass_fields__}
    return {"label": branch.label, **out, "health": word(branch.health)}


def _repeated(snapshot: SnapshotFields) -> list[Json]:
    return [of_runs(runs, buckets=snapshot.status.final) for runs in snapshot.repeated]


def of_runs(runs: StageRuns, *, buckets: bool = False) -> Json:
    """Return the statistics of a stage that ended more than once, with the `buckets` of its sketch if wanted.

    Quantiles of many operations follow from the buckets alone.
    """
    out = {name: plain(getattr(runs, name)) for name in runs.__dataclass_fields__ if name != "buckets"}
    if buckets and runs.buckets:
        out["buckets"] = plain(runs.buckets)
    return {"name": runs.name, "count": runs.count, **out}


def stages_in_numbers(snapshot: SnapshotFields) -> Json:
    """Return how many stages there are, and which one runs.

    Nested stages do not count, and all runs of one name are one stage. `current_stage` is the index of the running
    stage, from 0, in order of start. The three numbers are None if stages were folded whose names are no longer known.
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


def _names(snapshot: SnapshotFields) -> dict[str, bool] | None:
    """Return the outermost stages by name, and whether each is completed; None if some names are unknown."""
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


def history(snapshot: SnapshotFields) -> Json:
    """Return what is over, and when the rest will be.

    `stage_history` has the ended stages that the snapshot lists, in order of start; `average_stage_duration` is the
    mean of all ended runs of outermost stages.
    """
    ended = [stage for stage in snapshot.stages if stage.status.final and stage.has_run]
    eta = snapshot.progress.eta
    return {
        "stage_history": [_ended(stage) for stage in ended],
        "average_stage_duration": _average(ended, snapshot.repeated),
        "elapsed_time": snapshot.elapsed,
        "estimated_completion": None if eta is None else _completion(snapshot, eta.eta, eta.source),
    }


def _completion(snapshot: SnapshotFields, seconds: float, source: str) -> str | None:
    """When it will be done. None during a declared wait: the estimate is what comes after it, whenever that is."""
    if snapshot.status.final or (snapshot.status is Status.WAITING and source != "children"):
        return None
    return _moment(snapshot.timestamp + seconds)


def _ended(stage: StageSnapshot) -> Json:
    return {
        "stage": stage.path,
        "status": stage.status.value,
        "started_at": stage.started_at,
        "duration": None if stage.untimed else stage.elapsed,
        "message": stage.message,
        "reason": stage.reason,
    }


def _average(ended: Iterable[StageSnapshot], repeated: Iterable[StageRuns]) -> float | None:
    runs = {one.path: one for one in repeated if one.path == one.name and one.path != semconv.OTHER_STAGE}
    single = (stage for stage in ended if stage.path == stage.name and stage.path not in runs)
    once = [stage.elapsed for stage in single if not stage.untimed and not was_done_before(stage)]
    count = len(once) + sum(one.count for one in runs.values())
    return round((sum(once) + sum(one.seconds for one in runs.values())) / count, 3) if count else None


def _moment(timestamp: float) -> str | None:
    try:
        return datetime.fromtimestamp(timestamp, timezone.utc).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def plain(value: Any) -> Any:
    """Convert a value to plain JSON types."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
