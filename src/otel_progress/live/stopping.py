"""Requests to stop an operation: its code sees them when it checks, its `track` loops raise at their next item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from otel_progress.live import redaction
from otel_progress.live.lane import Request
from otel_progress.live.track import stop_loops

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

DEPTH: Final = 1_000
"""Levels of operations below one that are asked, too."""


def asked_to_stop(name: str, reason: str) -> str:
    """The text of `OperationCancelled`."""
    return f"{name!r} was asked to stop: {reason}"


def ask(operation: OperationState, reason: str | None) -> None:
    """Ask an operation to stop: code that checks finds out. Asked again, it has the newest reason."""
    operation._cancel_reason = (redaction.text("reason", reason) if reason is not None else "") or "requested"
    operation._revision += 1


def stop(operation: OperationState, *, tasks: bool) -> None:
    """Make the loops of an operation that was asked raise at their next item.

    Args:
        operation: the operation.
        tasks: whether loops of asyncio tasks do, too; not if their tasks are cancelled.
    """
    text = asked_to_stop(operation.name, operation._cancel_reason or "requested")
    request = operation._request = Request(text, tasks=tasks)
    for node in (operation, *(operation._running or ())):
        stop_loops(node, request)


def stop_all(operation: OperationState, reason: str | None) -> None:
    """Ask an operation to stop, with those below it in this process, and all their loops.

    It takes no lock, as handlers of signals call it.
    """
    for each in (operation, *_below(operation)):
        if not each._status.final:
            ask(each, reason)
            stop(each, tasks=True)


def _below(operation: OperationState) -> Iterator[OperationState]:
    """The running operations below one in this process."""
    level = [operation]
    for _ in range(DEPTH):
        level = [child for one in level if one._children for child in one._children.alive()]
        yield from level
        if not level:
            return
