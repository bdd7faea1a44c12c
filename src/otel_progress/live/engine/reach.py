"""Which operations of this process a cancel request reaches: all below an operation, or only those of one owner.

An operation belongs to the owner named by its attribute `owner`; without one, to the owner of the operation above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_progress.live.state import OperationState


DEPTH: Final = 1_000
"""Levels of nested operations that are searched."""


class Reach:
    """What a request may cancel: everything, or with an owner only what names no other owner."""

    def __init__(self, owner: str | None = None) -> None:
        """With an owner, only what belongs to that owner is reached."""
        self._owner = owner
        self._held: frozenset[int] = frozenset()
        self._counted = (-1, -1)

    def has(self, operation: OperationState) -> bool:
        """Whether an operation is reached, as far as this process knows; the monitor knows those above it elsewhere."""
        if self._owner is None:
            return True
        named = next((owner for above in _upwards(operation) if (owner := owner_of(above)) is not None), None)
        return named is None or named == self._owner

    def below(self, operation: OperationState) -> Iterator[OperationState]:
        """The running operations below it in this process that are reached; none below another owner's."""
        for other in registry.operations():
            if other is not operation and other._status is Status.RUNNING and self._leads_to(other, operation):
                yield other

    def holds_others(self, operation: OperationState) -> bool:
        """Whether an operation of another owner runs below it and would be cancelled with its task."""
        if self._owner is None:
            return False
        with registry.lock:
            counted = sum(registry.started.values()), sum(registry.ended.values())
        if counted != self._counted:  # many tasks may be looked at between a start and an end
            self._held, self._counted = frozenset(self._holders()), counted
        return id(operation) in self._held

    def names_another(self, operation: OperationState) -> bool:
        """Whether it names another owner than the request."""
        return self._owner is not None and owner_of(operation) not in (None, self._owner)

    def _leads_to(self, other: OperationState, operation: OperationState) -> bool:
        """Whether an operation is above another one, with no other owner between them."""
        for above in _upwards(other):
            if above is operation:
                return True
            if self.names_another(above):
                return False
        return False

    def _holders(self) -> Iterator[int]:
        """The ids of operations below which an operation of another owner runs."""
        for running in registry.operations():
            if running._status is Status.RUNNING:
                others = False
                for above in _upwards(running):
                    if others:
                        yield id(above)
                    others = others or self.names_another(above)


def owner_of(operation: OperationState) -> str | None:
    """The owner that an operation names."""
    more = operation._extras
    named = None if more is None else more.attributes.get(semconv.OWNER)
    return named if isinstance(named, str) else None


def _upwards(operation: OperationState) -> Iterator[OperationState]:
    """An operation and those above it in this process, from the inside out."""
    above: OperationState | None = operation
    for _ in range(DEPTH):
        if above is None:
            return
        yield above
        above = _above(above)


def _above(operation: OperationState) -> OperationState | None:
    """The operation above it, if that is in this process."""
    parent = operation._opts.parent or operation._parent
    if isinstance(parent, HandleState):
        return parent.operation
    key = getattr(parent, "operation_id", parent)
    return None if key is None else registry.find(key)
