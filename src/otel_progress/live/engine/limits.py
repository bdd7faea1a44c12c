"""Which limits a snapshot shows, and where they come from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otel_progress.live.branches import named_stall_after

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState


def stall_limit(node: HandleState) -> tuple[float | None, str | None]:
    """The idle time that is allowed for a branch in this handle, in seconds, and its source where nobody named it."""
    named, learned = named_stall_after(node), node._learned
    if named is not None:
        return (None if math.isinf(named) else named), None
    return (None, None) if learned is None else (learned.stall_after, learned.stall_source)


def slow_after(operation: OperationState) -> float | None:
    """The run time that counts: the limit that was named, else that of the plan, else the learned one."""
    named, learned = operation._opts.slow_after, operation._learned
    return named if named is not None or learned is None else learned.slow_after


def slow_limit(operation: OperationState) -> dict[str, Any]:
    """The run time that is allowed, and its source where nobody named it, as a snapshot has them."""
    said, learned = operation._opts.slow_after, operation._learned
    if said is not None or learned is None:
        return {"slow_after": said}
    return {"slow_after": learned.slow_after, "slow_after_source": learned.slow_source}
