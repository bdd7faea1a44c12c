"""Which operations a token that sees only one owner may see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.store import Store

MOST: Final = 2_000
"""The most descendants of an operation whose owners are looked up; beyond it they count as others'."""


class Visibility:
    """What one owner may see."""

    def __init__(self, core: Core, store: Store, owner: str | None) -> None:
        """For an owner; None sees everything."""
        self._core = core
        self._store = store
        self._owner = owner

    def sees(self, operation_id: str) -> bool:
        """Whether an operation exists and may be seen; False does not tell which."""
        entry = self._core.ledger.find(operation_id)
        return entry is not None and (self._owner is None or self._core.ledger.owner_of(entry.head) == self._owner)

    def sees_all(self, operation_id: str) -> bool:
        """Whether an operation and everything below it may be seen."""
        return self.sees(operation_id) and self.below(operation_id) is not False

    def below(self, operation_id: str) -> bool | None:
        """Whether everything below an operation may be seen; None if nothing is below it."""
        seen, waiting = {operation_id}, [operation_id]
        while waiting:
            for key in self._children(waiting.pop()):
                if key not in seen:
                    if len(seen) > MOST or not self.sees(key):
                        return False
                    seen.add(key)
                    waiting.append(key)
        return True if len(seen) > 1 else None

    def _children(self, operation_id: str) -> list[str]:
        ledger = self._core.ledger
        held = list(ledger.children.get(operation_id, ()))
        if operation_id in ledger.operations:
            return held
        return [*held, *(kept.operation_id for kept in self._store.children(operation_id, MOST))]
