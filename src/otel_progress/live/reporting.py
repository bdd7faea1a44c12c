"""What handles report: to their span, and to the ticker if events are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress import clock, semconv
from otel_progress.live import hooks
from otel_progress.live.registry import registry
from otel_progress.live.trail import keep
from otel_progress.model.values import EMPTY, Attributes

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState


def report(event: str, node: HandleState, attributes: Attributes) -> None:
    """Report an event of a handle: it is kept for the span, and queued for the ticker."""
    operation = node.operation
    if operation._started is None or not (hooks.wanted or node._span is not None) or not registry.owns(operation):
        return
    now = clock.time_ns()
    if node._span is not None:
        keep(node, event, now, attributes)
    if hooks.wanted:
        registry.report(event, operation, node, now, attributes)


def tell_agent(operation: OperationState, event: str) -> None:
    """Keep a proposed event of the GenAI conventions for the span, if an agent does the work."""
    if operation._opts.agent is not None and operation._span is not None:
        keep(operation, event, clock.time_ns(), EMPTY)


def announce(operation: OperationState) -> None:
    """Register an operation with the ticker, as events are wanted, and report its start."""
    if operation._opts.id is None:
        registry.add(operation)
    operation._announced = True
    for prepare in hooks.on_operation:
        prepare(operation)
    report(semconv.OPERATION_STARTED, operation, EMPTY)
