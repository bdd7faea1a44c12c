"""One declared wait for all tasks of an operation: open while some of them wait and none of them works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otel_progress.api import waiting

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class _Tasks:
    """Tasks and threads of one operation: how many work, how many wait, and the wait that is shown."""

    __slots__ = ("shown", "waiting", "working")

    def __init__(self) -> None:
        """None yet."""
        self.working = self.waiting = 0
        self.shown: AbstractContextManager[object] | None = None


class OneWait:
    """The declared waits of a limit, one for each operation: a task that waits beside others that work is no pause."""

    def __init__(self, reason: Callable[[], str]) -> None:
        """`reason` says what is waited for."""
        self._reason = reason
        self._lock = threading.Lock()
        self._tasks: dict[str, _Tasks] = {}

    @contextmanager
    def waiting(self, operation_id: str | None) -> Iterator[None]:
        """A task of an operation waits."""
        self._change(operation_id, waiting_more=1, opens=True)
        try:
            yield
        finally:
            self._change(operation_id, waiting_more=-1)

    def works(self, operation_id: str | None) -> None:
        """A task of an operation works from now on."""
        self._change(operation_id, working_more=1)

    def leaves(self, operation_id: str | None, *, hands_over: bool) -> None:
        """A task of an operation works no more; `hands_over` says that another one of it will at once."""
        self._change(operation_id, working_more=-1, opens=not hands_over)

    def _change(
        self, operation_id: str | None, *, waiting_more: int = 0, working_more: int = 0, opens: bool = False
    ) -> None:
        if operation_id is None:
            return
        with self._lock:
            tasks = self._tasks.setdefault(operation_id, _Tasks())
            tasks.waiting += waiting_more
            tasks.working += working_more
            pauses = tasks.waiting > 0 and tasks.working == 0
            if pauses and opens and tasks.shown is None:
                tasks.shown = waiting(self._reason())
                tasks.shown.__enter__()
            elif not pauses and tasks.shown is not None:
                tasks.shown.__exit__(None, None, None)
                tasks.shown = None
            if not tasks.waiting and not tasks.working:
                del self._tasks[operation_id]
