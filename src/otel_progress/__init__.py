"""See long-running work while it runs: operations, stages, progress and verdicts as plain OpenTelemetry."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from otel_progress.api import (
    add_listener,
    advance,
    cancel_requested,
    current,
    get,
    heartbeat,
    note,
    on_recover,
    on_stall,
    on_verdict,
    operation,
    operations,
    raise_if_cancelled,
    record,
    request_cancel,
    result,
    set,
    stage,
    step,
    touch,
    track,
    update,
    usage,
    waiting,
)
from otel_progress.api import use_named_integrations as _use_named_integrations
from otel_progress.errors import (
    CheckpointError,
    CheckpointMismatch,
    DuplicateOperation,
    InvalidArgument,
    InvalidState,
    LeaseLost,
    MissingDependency,
    NoOperation,
    OperationCancelled,
    OperationHeld,
    ProgressError,
)
from otel_progress.live.boundary import public as _public
from otel_progress.live.context import carry
from otel_progress.live.guard import swallow as _swallow
from otel_progress.live.handles import Operation, Stage
from otel_progress.live.records import Parent
from otel_progress.model.plan import Plan, StagePlan
from otel_progress.model.plan import phases as _phases
from otel_progress.model.secrets import MASK as _MASK
from otel_progress.model.secrets import mask_secrets as _mask_secrets
from otel_progress.model.snapshot import Event, Progress, Snapshot, StageSnapshot
from otel_progress.model.stage_runs import StageRuns
from otel_progress.model.statistics import Aggregate, Spread, StageStatistics, Statistics, Tally, aggregate
from otel_progress.model.status import Health, Status
from otel_progress.telemetry.spans import extract, inject
from otel_progress.version import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from otel_progress.durable.store import CheckpointStore
    from otel_progress.live.executor import CarryingExecutor
    from otel_progress.telemetry.setup import configure, shutdown
    from otel_progress.workflow import Step, Workflow, adaptive

__all__ = [
    "Aggregate",
    "CarryingExecutor",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointStore",
    "DuplicateOperation",
    "Event",
    "Health",
    "InvalidArgument",
    "InvalidState",
    "LeaseLost",
    "MissingDependency",
    "NoOperation",
    "Operation",
    "OperationCancelled",
    "OperationHeld",
    "Parent",
    "Plan",
    "Progress",
    "ProgressError",
    "Snapshot",
    "Spread",
    "Stage",
    "StagePlan",
    "StageRuns",
    "StageSnapshot",
    "StageStatistics",
    "Statistics",
    "Status",
    "Step",
    "Tally",
    "Workflow",
    "__version__",
    "adaptive",
    "add_listener",
    "advance",
    "aggregate",
    "cancel_requested",
    "carry",
    "configure",
    "current",
    "extract",
    "get",
    "heartbeat",
    "inject",
    "mask_secrets",
    "note",
    "on_recover",
    "on_stall",
    "on_verdict",
    "operation",
    "operations",
    "phases",
    "raise_if_cancelled",
    "record",
    "request_cancel",
    "result",
    "set",
    "shutdown",
    "stage",
    "step",
    "touch",
    "track",
    "update",
    "usage",
    "waiting",
]

mask_secrets = _public(_MASK)(_mask_secrets)
phases = _public(Plan(()), strict=True)(_phases)

_LATER = {
    "CarryingExecutor": "otel_progress.live.executor",
    "CheckpointStore": "otel_progress.durable.store",
    "Step": "otel_progress.workflow",
    "Workflow": "otel_progress.workflow",
    "adaptive": "otel_progress.workflow",
    "configure": "otel_progress.telemetry.setup",
    "shutdown": "otel_progress.telemetry.setup",
}


def __getattr__(name: str) -> Any:
    """Import a costly name on first access. If the import of a function fails, it is retried when it is called."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import importlib

        value = getattr(importlib.import_module(_LATER[name]), name)
    except ModuleNotFoundError:
        raise
    except BaseException as error:
        if not name.islower():
            raise
        _swallow(error, f"the import of {name}()")
        return functools.partial(_again, name)
    globals()[name] = value
    return value


def _again(name: str, *args: Any, **options: Any) -> Any:
    """Retry the import of a function, and call it if the import succeeds."""
    found = __getattr__(name)
    return None if isinstance(found, functools.partial) else found(*args, **options)


_use_named_integrations()
