"""The child operations that an operation started in this process."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress.live.operation import Operation

PRUNE: Final = 64
"""Children from which on those that were dropped without an end are looked for."""


class ChildOperations(dict["weakref.ref[Operation]", None]):
    """The children that run, in the order of their start; each leaves in one step.

    Written by the threads in which children start and end, read by the ticker; no step needs a lock.
    """

    __slots__ = ("_prune_at",)

    def __init__(self) -> None:
        """No child yet."""
        self._prune_at = PRUNE

    def take(self, child: Operation) -> None:
        """A child started."""
        self[weakref.ref(child)] = None
        if len(self) >= self._prune_at:
            for ref in tuple(self):
                if ref() is None:
                    self.pop(ref, None)
            self._prune_at = max(PRUNE, 2 * len(self))

    def leave(self, child: Operation) -> None:
        """A child ended."""
        self.pop(weakref.ref(child), None)

    def alive(self) -> list[Operation]:
        """Those that run now."""
        found = [child for ref in tuple(self) if (child := ref()) is not None]
        return [child for child in found if not child._status.final]

    def newest(self) -> Operation | None:
        """The one that started last, if it runs still."""
        try:
            child = next(reversed(self))()
        except (StopIteration, RuntimeError):  # it changes in another thread
            return None
        return None if child is None or child._status.final else child
