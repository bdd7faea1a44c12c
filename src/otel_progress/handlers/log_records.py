"""Log records: each change of an operation through the standard `logging`, at a level that says how bad it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.handler import Handler
from otel_progress.handlers.mailbox import PLAIN
from otel_progress.model.feed import BAD
from otel_progress.model.status import Status
from otel_progress.render import plain
from otel_progress.render.words import clean, joined

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Event

__all__ = ["LOGGER", "LoggingHandler"]

LOGGER: Final = "otel_progress.operations"
"""The logger that the records go to by default."""
_ENDS: Final = {
    Status.COMPLETED: logging.INFO,
    Status.FAILED: logging.ERROR,
    Status.LOST: logging.ERROR,
    Status.CANCELLED: logging.WARNING,
    Status.INTERRUPTED: logging.WARNING,
}
_TROUBLE: Final = frozenset({semconv.STALLED, semconv.WAIT_OVERDUE, semconv.SLOW})


class LoggingHandler(Handler):
    """Logs every change of state of every operation: starts, ends, stages, waits, notes, stalls, recoveries.

    Failures are errors; stalls, overdue waits, slow operations, cancellations and notes of trouble are warnings; stages
    are DEBUG; all else is INFO. Plain updates of counts are not logged. Each record has extra fields:
    `progress_event`, `progress_operation_id`, `progress_operation_name`, `progress_status`, `progress_stage`,
    `progress_ratio`, `progress_completed`, `progress_total`, `progress_elapsed` (seconds), `progress_health`,
    `progress_stuck_at`, and `progress_reason`; what is not known is None.

    Args:
        logger: a logger, or the name of one.

    Example:
        `with LoggingHandler(): work()`
    """

    def __init__(self, logger: logging.Logger | str = LOGGER) -> None:
        """Create it; nothing is logged before `start()`."""
        if not isinstance(logger, (logging.Logger, str)):
            raise InvalidArgument(f"logger must be a logging.Logger or the name of one, not {logger!r}")
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def handle(self, event: Event) -> None:
        """Log a change."""
        level = level_of(event)
        if level is not None and self._logger.isEnabledFor(level):
            snapshot = event.snapshot
            who = f"{clean(snapshot.name)} {clean(snapshot.operation_id)}"
            self._logger.log(level, "%s: %s", who, _said(event), extra=_fields(event))


def level_of(event: Event) -> int | None:
    """The level of the record of an event; None for plain updates."""
    if event.name in PLAIN:
        return None
    if event.name == semconv.OPERATION_ENDED:
        return _ENDS.get(event.snapshot.status, logging.INFO)
    if event.name in _TROUBLE:
        return logging.WARNING
    if event.name == semconv.NOTE:
        return logging.WARNING if event.attributes.get(semconv.NOTE_STATUS) in BAD else logging.INFO
    if event.name == semconv.STAGE_ENDED and event.about is not None and event.about.status is Status.FAILED:
        return logging.WARNING
    return logging.DEBUG if event.name in (semconv.STAGE_STARTED, semconv.STAGE_ENDED) else logging.INFO


def _said(event: Event) -> str:
    if event.name == semconv.OPERATION_ENDED:
        return plain.outcome(event.snapshot)
    if event.name == semconv.RECOVERED:
        line = plain.recovered(event)
    elif event.name in (semconv.STALLED, semconv.SLOW):
        line = plain.verdict(event)
    else:
        line = plain.changed(event)
    return joined(line)


def _fields(event: Event) -> dict[str, Any]:
    snapshot = event.snapshot
    whole = snapshot.progress
    return {
        "progress_event": event.name,
        "progress_operation_id": snapshot.operation_id,
        "progress_operation_name": snapshot.name,
        "progress_status": snapshot.status.value,
        "progress_stage": event.stage or snapshot.stage,
        "progress_ratio": whole.stated,
        "progress_completed": whole.completed,
        "progress_total": whole.total,
        "progress_elapsed": round(snapshot.elapsed, 3),
        "progress_health": snapshot.health.value,
        "progress_stuck_at": snapshot.stuck_at,
        "progress_reason": snapshot.reason or snapshot.health_reason,
    }
