"""Operations and stages made of spans that the program itself opened: no span is made, and none is sent twice.

This is what an integration that watches spans needs of the inside of this package, and all that it may use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import NonRecordingSpan

from otel_progress import clock
from otel_progress.live import context, hooks
from otel_progress.live.diagnosis.places import Place, here
from otel_progress.live.engine import process, runtime
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.handles import Operation, Stage
from otel_progress.live.records import Adopted
from otel_progress.live.registry import registry
from otel_progress.model.status import Status
from otel_progress.settings import sees_unsampled

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import SpanContext

__all__ = [
    "Place",
    "Status",
    "adopt",
    "begin",
    "clock",
    "drops",
    "end",
    "here",
    "innermost",
    "limit",
    "sees_unsampled",
    "tell_once",
    "twin",
    "watch",
]
AT_ONCE: Final = 0.25
"""Seconds within which two that see the same work tell of its start."""
LOOKED: Final = 1_000
"""Handles that are compared."""

innermost = context.innermost
"""The context variable that holds the innermost handle."""


class AdoptedSpan(NonRecordingSpan):
    """The ids of a span of the program: what is done to it changes nothing, and it keeps that span alive no longer."""

    def __init__(self, ids: SpanContext, parent: SpanContext | None, start_time: int) -> None:
        """Of a span with these ids, that started at a Unix time (ns)."""
        super().__init__(ids)
        self.parent = parent
        self.start_time = start_time


def adopt(
    span: Span,
    *,
    inside: Operation | Stage | None,
    started: float,
    place: Place,
    places: Callable[[], list[Place]],
    usual_limit: float | None = None,
    name: str | None = None,
    agent: str | None = None,
    message: str | None = None,
) -> Operation | Stage:
    """Start an operation, or a stage inside a handle, that stands for an open span of the program.

    Its events bear the ids of that span. Call `end` when the span ends.

    Args:
        span: the span.
        inside: the handle around it; None makes an operation.
        started: when the span started (s, monotonic).
        place: the thread and task that started it.
        places: finds where its work runs now; called in the ticker's thread.
        usual_limit: the allowed idle time of its kind of work (s), where neither code nor earlier runs set one.
            Infinity: none, whatever was learned.
        name: another name than that of the span.
        agent: the agent that does the work, of an operation.
        message: the current step in words.
    """
    ids = AdoptedSpan(span.get_span_context(), span.parent, span.start_time or 0)
    said = name or span.name
    handle: Operation | Stage = Operation(said, agent=agent) if inside is None else Stage(said, parent=inside)
    handle._adopted = Adopted(ids, started, place, places)
    handle._observed = True
    handle._usual_limit = usual_limit
    task = None if place.task is None else place.task()
    loop = getattr(task, "_loop", None)
    if loop is not None:
        process.loops.add(loop)
    handle.start()
    if isinstance(handle, Stage):
        handle._started_ns -= round(max(0.0, (handle._started or started) - started) * 1e9)
        handle._started = handle._moved_at = started
        handle._place = place
    if message is not None:
        handle.update(message=message)
    return handle


def twin(name: str, started: float) -> Operation | Stage | None:
    """What another integration, or the program, declared of the same name at the same moment (s, monotonic)."""
    looked = 0
    for operation in registry.operations():
        if operation._adopted is None:
            for node in (operation, *(operation._running or ())):
                looked += 1
                at_once = abs((node._started or 0.0) - started) < AT_ONCE
                if at_once and node.name == name and node._adopted is None and not node._status.final:
                    found: Operation | Stage = node
                    return found
        if looked > LOOKED:
            break
    return None


def end(handle: Operation | Stage, status: Status, reason: str | None = None) -> None:
    """End an adopted handle, as its span ended."""
    handle._finish(status, reason, None)


def limit(handle: Operation | Stage, seconds: float | None) -> None:
    """Set the usual limit of an adopted handle, whose kind was told late."""
    handle._usual_limit = seconds
    handle.operation._check_at = 0.0


def leave_alone(handle: Operation | Stage, left: bool) -> None:
    """Judge no idle time of an adopted handle, as what opened its span does other work; or judge it again."""
    handle._named_limit = math.inf if left else None
    handle.operation._check_at = 0.0


def watch(watcher: Any) -> None:
    """Have a `hooks.Watcher` hear of each round of the ticker; None ends that."""
    hooks.watcher = watcher
    if watcher is not None and hooks.wanted:
        runtime.ensure()


def begin() -> None:
    """The first span of this process was opened: what runs beside the job starts, as for a first operation."""
    if hooks.on_first is not None:
        hooks.on_first()
    if hooks.wanted:
        runtime.ensure()
