"""Long-running work, seen while it runs: operations, stages, progress and heartbeats as plain OpenTelemetry."""

from __future__ import annotations

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
    track,
    update,
    usage,
    waiting,
)
from otel_progress.errors import (
    DuplicateOperation,
    InvalidArgument,
    InvalidState,
    MissingDependency,
    NoOperation,
    OperationCancelled,
    ProgressError,
)
from otel_progress.live.context import carry
from otel_progress.live.operation import Operation, Parent
from otel_progress.live.stage import Stage
from otel_progress.model.status import Health, Status
from otel_progress.telemetry.spans import extract, inject

if TYPE_CHECKING:
    from otel_progress.live.executor import CarryingExecutor
    from otel_progress.model.plan import Plan, StagePlan, phases
    from otel_progress.model.repeats import StageRuns
    from otel_progress.model.secrets import mask_secrets
    from otel_progress.model.snapshot import Event, Progress, Snapshot, StageSnapshot
    from otel_progress.telemetry.setup import configure, shutdown

__version__ = "0.1.0"

__all__ = [
    "CarryingExecutor",
    "DuplicateOperation",
    "Event",
    "Health",
    "InvalidArgument",
    "InvalidState",
    "MissingDependency",
    "NoOperation",
    "Operation",
    "OperationCancelled",
    "Parent",
    "Plan",
    "Progress",
    "ProgressError",
    "Snapshot",
    "Stage",
    "StagePlan",
    "StageRuns",
    "StageSnapshot",
    "Status",
    "__version__",
    "add_listener",
    "advance",
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
    "track",
    "update",
    "usage",
    "waiting",
]

_LATER = {
    "CarryingExecutor": "otel_progress.live.executor",
    "Event": "otel_progress.model.snapshot",
    "Plan": "otel_progress.model.plan",
    "Progress": "otel_progress.model.snapshot",
    "Snapshot": "otel_progress.model.snapshot",
    "StagePlan": "otel_progress.model.plan",
    "StageRuns": "otel_progress.model.repeats",
    "StageSnapshot": "otel_progress.model.snapshot",
    "configure": "otel_progress.telemetry.setup",
    "mask_secrets": "otel_progress.model.secrets",
    "phases": "otel_progress.model.plan",
    "shutdown": "otel_progress.telemetry.setup",
}


def __getattr__(name: str) -> Any:
    """Import what is costly when it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value
