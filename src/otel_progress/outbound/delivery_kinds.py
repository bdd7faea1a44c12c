"""Kinds of deliveries: what a change of an operation is called in webhooks and messages; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.model.status import Status

ALERTS: Final = frozenset({"ended", "failed", "stalled", "recovered", "lost", "dead", "overdue", "slow"})
"""The kinds that are delivered unless others are chosen: ends, trouble, and its end."""
UPDATED: Final = "updated"
"""A plain update: any later delivery about the operation replaces it."""
_ENDS: Final = {Status.FAILED.value: "failed", Status.LOST.value: "lost"}
_KINDS: Final = {
    semconv.STALLED: "stalled",
    semconv.RECOVERED: "recovered",
    semconv.WAIT_OVERDUE: "overdue",
    semconv.SLOW: "slow",
}
_OTHERS: Final = {
    semconv.OPERATION_STARTED: "started",
    semconv.STAGE_STARTED: "stage_started",
    semconv.STAGE_ENDED: "stage_ended",
    semconv.WAIT_STARTED: "wait_started",
    semconv.WAIT_ENDED: "wait_ended",
    semconv.NOTE: "note",
    semconv.CHECKPOINT: "checkpoint",
    semconv.UPDATED: UPDATED,
    semconv.HEARTBEAT: UPDATED,
}
"""Kinds that are delivered only if they are chosen."""
KINDS: Final = ALERTS | frozenset(_OTHERS.values())


def kind_of(event: str, status: str | None = None) -> str | None:
    """The alerting kind of an event, given the status of its operation; None for most events.

    An end has exactly one kind: `failed`, `lost`, or else `ended`.

    Example:
        >>> kind_of("progress.operation.ended", "failed")
        'failed'
    """
    if event == semconv.OPERATION_ENDED:
        return _ENDS.get(status or "", "ended")
    return _KINDS.get(event)


def any_kind_of(event: str, status: str | None = None) -> str | None:
    """The kind of an event, plain updates included; None if it is none of an operation."""
    return kind_of(event, status) or _OTHERS.get(event)


def closes_a_wait(event: str, attributes: Mapping[str, Any]) -> bool:
    """Whether an event ends a wait that was overdue, so that whoever was called about it can rest."""
    return event == semconv.WAIT_ENDED and bool(attributes.get(semconv.WAIT_OVERDUE_BY))


def chosen(events: str | Iterable[str] | None) -> frozenset[str]:
    """The kinds that an option names: None for `ALERTS`, `all`, or names (in a text separated by commas).

    Raises:
        InvalidArgument: if there is no such kind.

    Example:
        >>> sorted(chosen("failed, stalled"))
        ['failed', 'stalled']
    """
    if events is None:
        return ALERTS
    if not isinstance(events, (str, Iterable)):
        raise InvalidArgument(f'events must be "all" or a list of kinds, not {events!r}')
    names = [one.strip() for one in events.split(",")] if isinstance(events, str) else list(events)
    if names == ["all"]:
        return KINDS
    wrong = [one for one in names if one not in KINDS]
    if wrong or not names:
        told = f", not {wrong[0]!r}" if wrong else ""
        raise InvalidArgument(f'events must be "all" or some of {", ".join(sorted(KINDS))}{told}')
    return frozenset(names)
