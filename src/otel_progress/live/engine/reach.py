"""Which operations of this process a request to stop reaches: all below one, or of them those of one owner.

An operation belongs to the owner that its attribute `owner` names; without one, to whom the operation above it belongs.
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
"""Handles that may lie within each other where one is looked for."""


class Reach:
    """What one who asks may stop: everything, or with an owner what names no other."""

    def __init__(self, owner: str | None = None) -> None:
        """With an owner only what belongs to that owner is reached."""
        self._owner = owner
        self._held: frozenset[int] = frozenset()
        self._counted = (-1, -1)

    def has(self, operation: OperationState) -> bool:
        """Whether it is theirs, as far as is known here; what is above it in other processes only the monitor knows."""
        if self._owner is None:
            return True
        named = next((owner for above in _upwards(operation) if (owner := owner_of(above)) is not None), None)
        return named is None or named == self._owner

    def below(self, operation: OperationState) -> Iterator[OperationState]:
        """The running operations of this process that are a part of it, and theirs; none below what is another's."""
        for other in registry.operations():
            if other is not operation and other._status is Status.RUNNING and self._leads_to(other, operation):
                yield other

    def holds_others(self, operation: OperationState) -> bool:
        """Whether an operation of another owner runs below it, and would be cancelled with its task."""
        if self._owner is None:
            return False
        with registry.lock:
            counted = sum(registry.started.values()), sum(registry.ended.values())
        if counted != self._counted:  # many tasks may be looked at between a start and an end
            self._held, self._counted = frozenset(self._holders()), counted
        return id(operation) in self._held

    def names_another(self, operation: OperationState) -> bool:
        """Whether it names an owner who is not the one who asks."""
        return self._owner is not None and owner_of(operation) not in (None, self._owner)

    def _leads_to(self, other: OperationState, operation: OperationState) -> bool:
        """Whether the way up leads to an operation, and over nothing that names another owner."""
        for above in _upwards(other):
            if above is operation:
                return True
            if self.names_another(above):
                return False
        return False

    def _holders(self) -> Iterator[int]:
        """All operations below which something of others runs."""
        for running in registry.operations():
            if running._status is Status.RUNNING:
                others = False
                for above in _upwards(running):
                    if others:
                        yield id(above)
                    others = others or self.names_another(above)


def owner_of(operation: OperationState) -> str | None:
    """The owner that an operation names."""
    more = operation._more
    named = None if more is None else more.attributes.get(semconv.OWNER)
    return named if isinstance(named, str) else None


def _upwards(operation: OperationState) -> Iterator[OperationState]:
    """An operation, and those of this process that it is a part of, from below."""
    above: OperationState | None = operation
    for _ in range(DEPTH):
        if above is None:
            return
        yield above
        above = _above(above)


def _above(operation: OperationState) -> OperationState | None:
    """The operation that it is a part of, if that is of this process."""
    parent = operation._opts.parent or operation._parent
    if isinstance(parent, HandleState):
        return parent.operation
    key = getattr(parent, "operation_id", parent)
    ref = None if key is None else registry.live.get(key)
    return None if ref is None else ref()
