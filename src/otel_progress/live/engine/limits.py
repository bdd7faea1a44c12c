"""The limits that apply, named or learned, and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_progress.live import hooks
from otel_progress.live.branches import named_stall_after, stall_after

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState


def stall_limit(node: HandleState) -> tuple[float | None, str | None]:
    """The allowed idle time of a branch in this handle, in seconds, and the source of a learned one."""
    limit, learned = stall_after(node), node._learned
    if limit is None or learned is None or named_stall_after(node) is not None or hooks.stall_after is not None:
        return limit, None
    return limit, learned.stall_source if limit == learned.stall_after else None


def slow_after(operation: OperationState) -> float | None:
    """The allowed run time: the named limit, else that of the plan, else the learned one."""
    named, learned = operation._opts.slow_after, operation._learned
    return named if named is not None or learned is None else learned.slow_after


def slow_limit(operation: OperationState) -> dict[str, Any]:
    """The allowed run time and the source of a learned one, as fields of a snapshot."""
    said, learned = operation._opts.slow_after, operation._learned
    if said is not None or learned is None:
        return {"slow_after": said}
    return {"slow_after": learned.slow_after, "slow_after_source": learned.slow_source}
