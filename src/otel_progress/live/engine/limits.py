"""Which limit counts: the one that was named, else the one that was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_progress.live.running import innermost

if TYPE_CHECKING:
    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation


def stall_after(operation: Operation) -> float | None:
    """The idle time that counts: the limit that was named, else the learned one."""
    named = named_stall_after(operation)
    learned = operation._learned
    return named if named is not None or learned is None else learned.stall_after


def slow_after(operation: Operation) -> float | None:
    """The run time that counts: the limit that was named, else that of the plan, else the learned one."""
    named, learned = operation._opts.slow_after, operation._learned
    return named if named is not None or learned is None else learned.slow_after


def named_stall_after(operation: Operation) -> float | None:
    """The limit of the innermost running stage, else that of its parent, and so on up."""
    node: Handle | None = innermost(operation)
    while node is not None and node is not operation:
        limit: float | None = node._opts.stall_after  # type: ignore[attr-defined]
        if limit is not None:
            return limit
        node = node._parent
    return operation._opts.stall_after


def named_and_learned(operation: Operation) -> dict[str, Any]:
    """The limits that count, and the sources of those that nobody named."""
    learned = operation._learned
    said = operation._opts.slow_after
    limits: dict[str, Any] = {"stall_after": named_stall_after(operation), "slow_after": said}
    if learned is not None:
        if limits["stall_after"] is None:
            limits |= {"stall_after": learned.stall_after, "stall_after_source": learned.stall_source}
        if said is None:
            limits |= {"slow_after": learned.slow_after, "slow_after_source": learned.slow_source}
    return limits
