"""Handlers that show only operations of one request: of a page, a session, a cell, not of the whole process.

A server works for many users in one process, and none may see the operations of another. So these handlers take the
operations that start inside their `with` block, in tasks and threads that inherit its context, and what runs below.
"""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Final

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.live_view import LiveView, take_notice
from otel_progress.handlers.outlet import DrawnOutlet
from otel_progress.live import hooks
from otel_progress.live.context import running_here
from otel_progress.live.guard import tell_once
from otel_progress.live.state import HandleState
from otel_progress.model.status import Status
from otel_progress.render.tree import fitting

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Self

    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event, Snapshot
    from otel_progress.render.tree import TreeRow
    from otel_progress.render.words import Line

HERTZ: Final = 2
"""Looks a second."""
ROOTS: Final = 100
"""The most operations of one handler."""
LINES: Final = 50
"""The most lines of ends and trouble that are kept of an operation."""
ROWS: Final = 30
"""The most rows of stages and children of an operation."""

_inside: contextvars.ContextVar[tuple[ScopedHandler, ...]] = contextvars.ContextVar(
    "otel_progress_handlers", default=()
)
"""The handlers whose `with` blocks are around."""


class ScopedOperation:
    """One operation with all that runs below it: its newest state, lines that stay, and rows of the tree."""

    def __init__(self, operation: OperationState, mine: Callable[[OperationState], bool]) -> None:
        """Of an operation; `mine` says whether another one runs below it."""
        self.id = operation.id
        self.told: deque[Line] = deque(maxlen=LINES)
        self._operation = weakref.ref(operation)
        self._view = LiveView("normal", draws=True, mine=mine)
        self._last = operation.snapshot() if operation._status.final else None
        self._lock = threading.Lock()

    @property
    def status(self) -> Status:
        """Its status, as it was last reported."""
        return Status.RUNNING if self._last is None else self._last.status

    @property
    def over(self) -> bool:
        """Whether its end was reported."""
        return self.status.final

    def take(self, event: Event) -> None:
        """Take an event of it; called by the ticker."""
        self._last = event.snapshot

    def take_below(self, event: Event, operation: OperationState) -> None:
        """Take an event for the lines that stay; called by the ticker."""
        self._view.take(event, operation)

    def look(self, now: float) -> tuple[Snapshot | None, list[TreeRow], int]:
        """Its state, the rows of it and of what runs below it, and the number of those that are not shown."""
        operation = self._operation()
        with self._lock:
            if self.over:
                self._view.forget(self.id)
            self.told.extend(self._view.news())
            rows, more = fitting(*self._rows(now))
        snapshot = self._last
        if operation is not None and (snapshot is None or not snapshot.status.final):
            snapshot = operation.snapshot()
        return snapshot, rows, more

    def _rows(self, now: float) -> tuple[list[TreeRow], int, int]:
        rows, more = self._view.rows(now, int(now * HERTZ), ROWS)
        return rows, ROWS, more


class ScopedHandler(DrawnOutlet):
    """The base of handlers of one request: it draws the operations that start inside its `with` block.

    The operation around the block belongs to it as well. A plain thread inherits no context: start it with
    `Thread(target=carry(work))`.

    Args:
        operation_id: the one operation to draw, wherever it was started, instead of those of the block.
    """

    _name, _hertz = "scoped", HERTZ
    most = ROOTS
    """The most operations that are kept; ended ones make room for new ones, and are counted in `forgotten`."""

    def __init__(self, operation_id: str | None = None) -> None:
        """Create it; nothing is drawn before `start()`."""
        if operation_id is not None and (not isinstance(operation_id, str) or not operation_id):
            raise InvalidArgument(f"operation_id must be the id of an operation, not {operation_id!r}")
        self._wanted = operation_id
        self._lock, self._drawing = threading.RLock(), threading.RLock()
        self._token: contextvars.Token[Any] | None = None

    def draw(self, operations: list[ScopedOperation], now: float) -> None:
        """Show these operations; called twice a second in the handler's thread, and once at the end."""
        raise NotImplementedError

    def left_out(self, hidden: int = 0) -> str:
        """How many operations are not drawn: `+ 1,200 more`, with those that did not complete; empty if all are."""
        more = hidden + self._begun_here - len(self._roots)
        bad = [(status, count) for status, count in self.forgotten.items() if status is not Status.COMPLETED]
        return f"+ {more:,} more" + "".join(f", {count:,} {status.value}" for status, count in bad) if more else ""

    def gone(self) -> bool:
        """Whether nobody can see it any longer; then it stops."""
        return False

    # -- life cycle

    def start(self) -> Self:
        """Start, until `stop()`; operations that start in this context from now on are drawn."""
        if self._running:
            return self
        super().start()
        if self._wanted is not None and (operation := take_notice(self._wanted)) is not None:
            self._add(operation)
        self._token = _inside.set((*_inside.get(), self))
        return self

    def stop(self) -> None:
        """Draw the last state; it may be called twice."""
        token, self._token = self._token, None
        if token is not None:
            try:
                _inside.reset(token)
            except ValueError:  # stopped in another task or thread than started
                pass
        super().stop()

    def _begin(self) -> None:
        super()._begin()
        self._roots: OrderedDict[str, ScopedOperation] = OrderedDict()
        self._unlisted: weakref.WeakSet[OperationState] = weakref.WeakSet()
        self._begun_here = 0
        """The number of roots, with those that are not kept, or whose end is yet to be told."""
        self.forgotten: Counter[Status] = Counter()
        self._root_of: weakref.WeakKeyDictionary[OperationState, str] = weakref.WeakKeyDictionary()
        here = running_here()
        if here is not None and self._wanted is None:
            self._add(here.operation)

    def _finish(self) -> None:
        self._end_thread()
        try:
            self.refresh()
        finally:  # a library may end the script of a page by an exception
            self._leave()

    def _places(self) -> tuple[tuple[list[Any], Any], ...]:
        return (*super()._places(), (hooks.on_operation, self._begun))

    def _exit(self, _: float) -> None:
        self.refresh()

    def _after_fork_in_child(self) -> None:
        """The page is the parent's."""
        self._lock, self._drawing = threading.RLock(), threading.RLock()
        super()._after_fork_in_child()
        self._leave()

    # -- operations and events

    def _begun(self, operation: OperationState) -> None:
        """Take an operation that starts inside; called in the job's thread."""
        try:
            if self._parent_root(operation) is not None or (self._wanted is None and self._is_inside()):
                self._add(operation)
        except Exception:
            tell_once("the handler %s failed; the job goes on", type(self).__name__)

    def _is_inside(self) -> bool:
        """Whether the operation that starts in this thread or task belongs to the handler."""
        return self in _inside.get()

    def _add(self, operation: OperationState) -> str:
        """Take an operation: below its parent if that is ours, else as a root."""
        with self._lock:
            found = self._root_of.get(operation) or self._parent_root(operation)
            if found is None or found not in self._roots:
                found = operation.id

                def mine(one: OperationState, root: str = found) -> bool:
                    return self._root_of.get(one) == root

                self._begun_here += operation not in self._unlisted
                self._make_room()
                if len(self._roots) >= self.most:
                    self._unlisted.add(operation)
                    return found
                self._unlisted.discard(operation)
                self._roots[found] = ScopedOperation(operation, mine)
            self._root_of[operation] = found
            return found

    def _make_room(self) -> None:
        """Forget the oldest operation that ended, and count it."""
        if len(self._roots) >= self.most:
            over = next((one for one in self._roots.values() if one.over), None)
            if over is not None:
                self.forgotten[over.status] += 1
                del self._roots[over.id]

    def _parent_root(self, operation: OperationState) -> str | None:
        parent = operation._opts.parent or operation._parent
        return self._root_of.get(parent.operation) if isinstance(parent, HandleState) else None

    def _take(self, event: Event, operation: OperationState) -> None:
        """Keep an event of ours; called by the ticker."""
        ends = event.name == semconv.OPERATION_ENDED
        if operation in self._unlisted and not self._listed(operation, event, ends):
            return
        root = self._root_of.get(operation)
        if root is None and (self._parent_root(operation) is not None or operation.id == self._wanted):
            root = self._add(operation)
        found = None if root is None else self._roots.get(root)
        if found is None:
            return
        if event.snapshot.operation_id == found.id:
            found.take(event)
        if not ends or event.snapshot.operation_id != found.id:  # its own end is shown in another way
            found.take_below(event, operation)

    def _listed(self, operation: OperationState, event: Event, ends: bool) -> bool:
        """Whether there is room now for an operation for which there was none; one that ended is counted."""
        with self._lock:
            if ends:
                self._unlisted.discard(operation)
                self.forgotten[event.snapshot.status] += 1
                return False
            return self._add(operation) in self._roots

    # -- frames

    def refresh(self) -> None:
        """Draw once; called by the thread. An error is logged once, and the job goes on."""
        try:
            with self._drawing:
                if self._running and not self.gone():
                    with self._lock:
                        operations = list(self._roots.values())
                    self.draw(operations, clock.monotonic())
                elif self._running:
                    self._leave()
        except Exception:
            tell_once("the handler %s could not draw; the job goes on", type(self).__name__)
