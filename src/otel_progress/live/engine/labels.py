"""Labels: what the item in hand of a `track` loop is called; they are made when a snapshot is taken.

A label is the user's code, and runs beside the loop: it may raise, return anything, or never return. So one that is
not plainly harmless is called in a thread of its own, and nobody waits for it longer than `PATIENCE`. A late answer is
used if its item is still in hand. Threads that never come back are bounded; the item that such a label was given lives
as long as the label does not return, and all other items no longer than their loop holds them.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from otel_progress import forks, semconv
from otel_progress.live import redaction
from otel_progress.live.engine import process
from otel_progress.live.guard import drops, tell_once
from otel_progress.model.origin import of_the_job
from otel_progress.model.values import NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_progress.live.lane import Lane
    from otel_progress.live.state import OperationState

PATIENCE: Final = 0.02
"""Seconds that a snapshot waits for a label."""
THREADS: Final = 4
"""Threads for labels; while all of them hang, no item is shown but plain ones."""
HANDLES: Final = 64
"""The newest stages of an operation whose loops are asked."""
_PLAIN: Final = frozenset({str, int, float, bool})
_idle: list[SimpleQueue[_Question]] = []
_started: list[threading.Thread] = []


class _Question:
    """What is this item called?"""

    __slots__ = ("done", "item", "label", "number", "text")

    def __init__(self, label: Callable[[Any], object], item: Any, number: int) -> None:
        """Ask about the item with this number."""
        self.label: Callable[[Any], object] | None = label
        self.item: Any = item
        self.number = number
        self.text: str | None = None
        self.done = threading.Event()

    def answer(self) -> None:
        """Call the label."""
        try:
            self.text = _called(self.label, self.item)
        finally:
            self.label = self.item = None


def _called(label: Any, item: Any) -> str | None:
    try:
        given = label(item)
        return None if given is None else redaction.text("item", given, NAME_LENGTH)
    except BaseException as error:
        if of_the_job(error) and threading.current_thread() is threading.main_thread():
            raise
        what = type(error).__name__
    # without the traceback, which would keep the item alive
    tell_once(f"a label of track(label=...) raised {what}; its item is not shown, and the job goes on", trace=False)
    return None


def ask(operation: OperationState) -> None:
    """Find out what the items are called that the loops of an operation have in hand; it must hold no lock."""
    if not operation._has_labels or operation._status.final:
        return
    for node in (operation, *tuple(operation._running or ())[-HANDLES:]):
        for lane in reversed(tuple(node._lanes or ())):
            if lane.label is not None and not lane.closed:
                if not _ask(lane):
                    return  # the others are asked the next time
                break


def news(operation: OperationState) -> bool:
    """Whether a loop has an item in hand that no snapshot shows, though no count says so; called by the ticker."""
    for node in (operation, *tuple(operation._running or ())[-HANDLES:]):
        for lane in reversed(tuple(node._lanes or ())):
            if lane.label is not None and not lane.closed:
                if _is_news(lane):
                    return True
                break
    return False


def _is_news(lane: Lane) -> bool:
    if lane.pending is not None:
        return lane.pending.done.is_set()  # type: ignore[no-any-return]
    try:
        return lane.held()[0] != lane.asked
    except Exception:
        return False


def _ask(lane: Lane) -> bool:
    """Ask a loop; false if it took all the time that there is."""
    pending = lane.pending
    if pending is not None:
        if not pending.done.is_set():
            return True
        lane.pending = None
        lane.asked, lane.called = pending.number, pending.text
    label = lane.label
    try:
        number, item = lane.held()
    except Exception:  # there is none, or the loop moves on at this moment
        lane.asked, lane.called = 0, None
        return True
    if number == lane.asked or label is None:
        return True
    lane.asked, lane.called = number, None
    if label is str and type(item) in _PLAIN:
        lane.called = redaction.text("item", item, NAME_LENGTH)
        return True
    if not process.threads_allowed:
        lane.called = _called(label, item)
        return True
    question = _Question(label, item, number)
    del item
    if not _pass_on(question):
        return True
    if question.done.wait(PATIENCE):
        lane.called = question.text
        return True
    lane.pending = question
    return False


def _pass_on(question: _Question) -> bool:
    """Give a question to a thread; false if all of them hang, or none can start."""
    try:
        _idle.pop().put(question)
        return True
    except IndexError:
        pass
    if len(_started) >= THREADS:
        return False
    queue: SimpleQueue[_Question] = SimpleQueue()
    thread = threading.Thread(target=_run, args=(queue,), name="otel-progress-labels", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter ends, or the system has no thread left
        return False
    _started.append(thread)
    queue.put(question)
    return True


def _run(queue: SimpleQueue[_Question]) -> None:
    while True:
        question = queue.get()
        try:
            question.answer()
        except BaseException:
            drops.add(semconv.DROP_ERROR)
        _idle.append(queue)
        question.done.set()
        del question


def after_fork_in_child() -> None:
    """Start anew: the threads are the parent's."""
    _idle.clear()
    _started.clear()


forks.in_child.append(after_fork_in_child)
