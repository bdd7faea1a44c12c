"""Keyframes: which events carry the whole state of their operation; the others say what differs from the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

INTERVAL: Final = 300.0
"""Seconds between two keyframes of a running operation, at the most."""
SHORTEST: Final = 10.0
"""Seconds between two keyframes of a young operation, if it sends anything: at its start little is known. Then its age
at the last keyframe counts."""
LATE: Final = 1.0
"""Seconds by which an event may come after it is due, as counts are sampled now and then."""
ALWAYS: Final = frozenset(
    {
        semconv.OPERATION_STARTED,
        semconv.OPERATION_ENDED,
        semconv.STALLED,
        semconv.RECOVERED,
        semconv.SLOW,
        semconv.WAIT_STARTED,
        semconv.WAIT_ENDED,
        semconv.WAIT_OVERDUE,
    }
)
"""Events that are keyframes whenever they are sent."""


def is_due(operation: OperationState, now: float, interval: float) -> bool:
    """Whether an event of an operation has to be a keyframe, whatever it is: the next one would come too late.

    Args:
        operation: the operation.
        now: the time (s, monotonic).
        interval: seconds between two keyframes, at the most.
    """
    at = operation._keyframe_at
    if operation._keyframe is None or now >= at or now > at - operation._update_pause + LATE:
        return True
    last = operation._keyframe_at - interval
    age = 0.0 if operation._started is None else last - operation._started
    return now - last >= max(SHORTEST, age)


def sent(operation: OperationState, sequence: int, now: float, interval: float) -> None:
    """The event with this number is a keyframe; the next one is due after `interval` (s) at the most."""
    operation._keyframe, operation._keyframe_at = sequence, now + interval


def request(operation: OperationState) -> None:
    """Have an operation send a keyframe soon, as somebody lacks its last one; any thread may call it."""
    operation._hurries = True
    operation._keyframe, operation._keyframe_at = None, 0.0
    operation._counts_until = 0.0


def request_id(operation_id: str) -> None:
    """The same by id; does nothing if no such operation runs."""
    operation = registry.find(operation_id)
    if operation is not None and not operation._status.final:
        request(operation)
