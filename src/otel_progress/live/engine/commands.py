"""Commands from outside the process: they ask an operation to cancel, or log a warning.

Cancelling is cooperative: code checks `raise_if_cancelled`, a `track` loop raises `OperationCancelled` at its next
item, and the asyncio task in which the operation is current is cancelled at its next await. Nothing is killed, and an
answer only says that the operation was asked. An operation that an integration made in a program without a line of ours
is refused, as that program does not know what would be raised in it.
What only changes which events leave is no command but a wish (`wishes.py`).
A command of the kind `warn` is logged as a warning. One of the kind `cancel-owned` names an owner, and reaches nothing
that names another owner; a version that does not know the kind refuses it.
"""

from __future__ import annotations

import gc
import logging
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.live import hooks, stopping
from otel_progress.live.context import innermost
from otel_progress.live.diagnosis.reading import is_task
from otel_progress.live.diagnosis.source_lines import printable
from otel_progress.live.engine import wishes
from otel_progress.live.engine.reach import DEPTH, Reach
from otel_progress.live.guard import drops
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState
from otel_progress.model import values
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

log = logging.getLogger("otel_progress")

RECEIVED: Final = "received"
REFUSED: Final = "refused"
OBSERVED: Final = (
    "its program was not written to be asked, as it is only seen by an integration; Ctrl+C or SIGINT to its process "
    "({pid}) interrupts it"
)
UNKNOWN: Final = "unknown"
CANCEL: Final = "cancel"
CANCEL_OWNED: Final = "cancel-owned"
REMEMBERED: Final = 1_000
"""Commands whose answers are remembered, for repeated deliveries."""
ID_LENGTH: Final = 200
"""Characters of a command's id, at most."""
AGAIN_FIRST: Final = 0.05
"""Seconds to the second search for the task in which the operation is current."""
AGAIN_MOST: Final = 1.0
"""Seconds between two searches, at most."""
LOOKS: Final = 100
"""Searches, at most."""


class Commands:
    """Executes each command once, however often it is delivered."""

    def __init__(self) -> None:
        """No command was received yet."""
        self._answers: dict[str, dict[str, str]] = {}

    def obey(self, command: object) -> dict[str, str] | None:
        """Execute a command; returns the answer, or None for a wish, or an invalid command (which is counted)."""
        try:
            return self._obey(command)
        except Exception:
            drops.add(semconv.DROP_VALUE)
            return None

    def _obey(self, command: Any) -> dict[str, str] | None:
        if wishes.is_wish(command):
            wishes.grant(command)
            return None
        key = command["id"]
        if type(key) is not str or not 0 < len(key) <= ID_LENGTH:
            raise ValueError("a command has an id")
        known = self._answers.get(key)
        if known is not None:
            return known
        state, detail = obey(command)
        answer = self._answers[key] = {"command": key, "state": state, "detail": detail}
        if len(self._answers) > REMEMBERED:
            del self._answers[next(iter(self._answers))]
        return answer


def obey(command: Mapping[str, Any]) -> tuple[str, str]:
    """Execute a command; returns the state of the answer, and its reason.

    Raises:
        ValueError: if the command is invalid; nothing is done then.
    """
    key, attempt, reason = command["operation_id"], command.get("attempt"), command.get("reason")
    if type(command["kind"]) is not str or type(key) is not str or type(attempt) not in (int, type(None)):
        raise ValueError("a command names its kind, an operation, and maybe an attempt")
    if not isinstance(reason, (str, type(None))):
        raise ValueError("a reason is a text")
    if command["kind"] == "warn":
        log.warning("%s", said(reason))
        return RECEIVED, ""
    if command["kind"] not in (CANCEL, CANCEL_OWNED):
        return REFUSED, "this version knows no such command"
    reach = _reach(command)
    operation = _find(key)
    if operation is None or operation._status.final:
        return (REFUSED, "it has ended") if _was_here(key) else (UNKNOWN, "no such operation runs in this process")
    if not reach.has(operation):
        return REFUSED, "it names another owner"
    if attempt is not None and attempt != operation.attempt:
        return REFUSED, f"attempt {operation.attempt} runs, not attempt {attempt}"
    if not stop(operation, said(reason), below=reach):
        return REFUSED, OBSERVED.format(pid=os.getpid())
    return RECEIVED, ""


def _reach(command: Mapping[str, Any]) -> Reach:
    """What a command may cancel.

    Raises:
        ValueError: if it is limited to an owner but names none.
    """
    if command["kind"] == CANCEL:
        return Reach()
    owner = command["owner"]
    if type(owner) is not str or not owner:
        raise ValueError("an owner is a text")
    return Reach(owner)


def said(reason: str | None) -> str:
    """Sanitise a reason from outside: short, on one line, without control characters."""
    known = printable(" ".join(values.text(reason or "", drops).split()), values.MESSAGE_LENGTH)
    return known or "requested"


def stop(
    operation: OperationState,
    reason: str,
    *,
    below: Reach | None = None,
    still: Callable[[OperationState], bool] | None = None,
) -> bool:
    """Ask an operation to cancel: code sees it when it checks, loops at their next item, its asyncio task awaiting.

    A loop of an asyncio task raises only if the task of its operation can't be cancelled, or not at once. Operations
    of programs that know no requests are left alone; returns whether any was asked.

    Args:
        operation: the operation.
        reason: the reason, as it is shown.
        below: also ask the operations below it in this process, as far as this reaches.
        still: decides on the event loop whether the task is still to be cancelled.

    """
    cancelled: weakref.WeakSet[Any] = weakref.WeakSet()
    reached = (operation, *(() if below is None else below.below(operation)))
    asked = [each for each in reached if hooks.takes_requests(each)]
    for each in asked:
        stopping.ask(each, reason)
    for each in asked:  # the outermost first: what it started in a task group is then cancelled in the group's own way
        _TaskCancellation(each, reason, still, cancelled, below or Reach(), inner=each is not operation).reach()
    for each in asked:
        task_waits = below is not None and below.holds_others(each)
        stopping.stop(each, tasks=task_waits or _task(each) is None)
    return bool(asked)


class _TaskCancellation:
    """Tries to cancel the task of one operation, until that succeeds or the operation is over."""

    def __init__(
        self,
        operation: OperationState,
        reason: str,
        still: Callable[[OperationState], bool] | None,
        cancelled: weakref.WeakSet[Any],
        limits: Reach,
        *,
        inner: bool,
    ) -> None:
        self._operation = weakref.ref(operation)  # so that a dropped one is noticed
        self._reason = reason
        self._still = still
        self._cancelled = cancelled
        self._inner = inner
        self._limits = limits
        self._held = False
        self._looks = 0

    def reach(self) -> None:
        """Continue in the event loop of the task."""
        operation = self._operation()
        task = None if operation is None else _task(operation)
        if task is None:
            return
        try:
            task.get_loop().call_soon_threadsafe(self._on_loop)
        except RuntimeError:
            return  # its loop is closed

    def _on_loop(self) -> None:
        """Cancel the task, unless the operation ended or continued in another task meanwhile."""
        operation = self._operation()
        if operation is None or operation._status is not Status.RUNNING:
            return
        if self._still is not None and not self._still(operation):
            return
        task = _task(operation)
        if task is None or self._looks >= LOOKS:
            return
        loop = task.get_loop()
        if not _runs_here(loop):
            self._looks += 1
            self.reach()
        elif self._spares(operation, task):
            loop.call_later(AGAIN_MOST if self._held else AGAIN_FIRST, self._on_loop)
            self._held = True
        elif self._held and operation._request is not None and operation._request.told:
            return  # a loop has raised meanwhile: it ends, or cleans up
        elif _is_current(operation, task):
            self._cancel(task)
        else:
            # Between two items of an async generator the task runs code that is no part of the operation.
            self._looks += 1
            loop.call_later(min(AGAIN_MOST, AGAIN_FIRST * self._looks), self._on_loop)

    def _spares(self, operation: OperationState, task: Any) -> bool:
        """Whether cancelling the task now would also cancel operations of other owners that it waits for."""
        inside = any(self._limits.names_another(each) for each in _within(operation, task))
        return inside or self._limits.holds_others(operation)

    def _cancel(self, task: Any) -> None:
        if task in self._cancelled:
            return
        cancelling = getattr(task, "cancelling", None)  # Python 3.10 has no such thing
        if self._inner and cancelling is not None and cancelling() > 0:
            return  # a second time would cut off how it cleans up
        self._cancelled.add(task)
        task.cancel(self._reason)


def _task(operation: OperationState) -> Any:
    """The asyncio task in which the operation was started or made current last, unless that is done."""
    place = operation._place
    task = place.task() if place is not None and place.task is not None else None
    # A task of trio can't be cancelled from outside: it hears of it at `raise_if_cancelled` and in `track`.
    return None if task is None or not is_task(task) or task.done() else task


def _runs_here(loop: Any) -> bool:
    """Whether this thread runs the loop."""
    import asyncio

    return asyncio._get_running_loop() is loop


def _is_current(operation: OperationState, task: Any) -> bool:
    """Whether a task suspended at an await is inside the operation."""
    return any(node is operation for node in _entered(task))


def _within(operation: OperationState, task: Any) -> list[OperationState]:
    """The operations that a task entered inside an operation."""
    inner = takewhile(lambda node: node is not operation, _entered(task))
    return [node.operation for node in inner if isinstance(node, HandleState) and node.operation is not operation]


def _entered(task: Any) -> Iterator[Any]:
    """The handles that a task has entered, the innermost first."""
    context = _context(task)
    node: Any = None if context is None else context.get(innermost)
    for _ in range(DEPTH):
        if node is None:
            return
        yield node
        token = node._context
        before = None if token is None else token.old_value
        node = before if isinstance(before, HandleState) else node._parent


def _context(task: Any) -> Context | None:
    """The context of a task."""
    get = getattr(task, "get_context", None)
    if get is not None:
        known: Context | None = get()
        return known
    # Before Python 3.12 a task made in C shows it to the garbage collector alone.
    named = getattr(task, "_context", None)
    return named or next((found for found in gc.get_referents(task) if type(found) is Context), None)


def _find(key: str) -> OperationState | None:
    """The running or pending operation of this id in this process."""
    found = registry.find(key)
    if found is None:
        found = next((pending for pending in list(registry.pending) if pending.id == key), None)
    return found


def _was_here(key: str) -> bool:
    """Whether an operation of this id ran in this process."""
    return key in registry.attempts or key in registry.live or key.startswith(f"{registry.prefix}-")
