"""Declared waits of what runs here, which may be work that is not shown yet: its wait begins when it is."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from otel_progress.live import context
from otel_progress.live.late import Late, innermost_here

if TYPE_CHECKING:
    from otel_progress.live.handles import Operation, Stage
    from otel_progress.live.waits import Waiting


class LateWait:
    """A wait of such work, for `with`; it may be entered once."""

    __slots__ = ("_is_over", "_late", "_lock", "_wait", "reason")

    def __init__(self, late: Late, reason: str) -> None:
        """A wait that has not begun."""
        self.reason = reason
        self._late = late
        self._lock = threading.Lock()
        self._wait: Waiting | None = None
        self._is_over = False

    def begin(self, node: Operation | Stage) -> None:
        """The work is shown, or was before; the ticker calls this, too."""
        with self._lock:
            if self._wait is None and not self._is_over:
                self._wait = node.waiting(self.reason)
                self._wait.__enter__()
                self._wait.place = self._late.place

    def __enter__(self) -> None:
        """Begin the wait."""
        self._late.pause = self.begin
        node = self._late.node
        if node is not None:
            self.begin(node)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; the idle time restarts at zero."""
        self._late.pause = None
        with self._lock:
            self._is_over = True
            if self._wait is not None:
                self._wait.__exit__(kind, error, trace)


def waiting_here(reason: str) -> LateWait | Waiting | None:
    """A wait of the innermost work that runs here; None where none does, or where the program declares one itself."""
    late: Late | None = innermost_here()
    node: Operation | Stage | None = context.running_here()  # type: ignore[assignment]
    shown = None if late is None else late.node
    if any(one is not None and one._waits for one in (node, shown)):
        return None
    if late is not None:
        return LateWait(late, reason)
    return None if node is None else node.waiting(reason)
