"""A loop that is tried again in the same attempt: it goes on after the items that the loop before it did.

Nothing says which loops have the same items. What is known: a workflow says that a step is tried again; and a loop that
an exception ended, and that begins once more at the same place of the code, was tried again by the code around it.
"""

from __future__ import annotations

from dis import opname
from typing import TYPE_CHECKING, Final

from otel_progress.live.lane import Request
from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from types import FrameType

    from otel_progress.durable.scope import Scope
    from otel_progress.live.records import LoopOptions

_ON_PURPOSE: Final = frozenset({"POP_TOP", "POP_ITER"})
"""Where the interpreter drops the iterator of a loop that `break` or `return` leaves."""


def may_begin(scope: Scope, options: LoopOptions, mixed: bool) -> bool:
    """Whether a loop may be opened in a scope: the first one, and one that is tried again.

    Args:
        scope: the scope.
        options: those of the loop.
        mixed: whether the job counts by other means as well.
    """
    last = scope.loop
    if scope.again or (last is None and not mixed):
        return True
    if last is None or last.site != options.site or last.mark != options.mark:
        return False
    dropped = not last.over and last.lane is not None and last.lane.closed  # an async one, which ends later
    return last.raised or dropped or (not last.mark and bool(scope.hand))


def take_over(scope: Scope) -> int:
    """Let a loop go on after the one before it, which is stopped if it still runs.

    Returns:
        The units that are counted so far: those items are left out, and not counted once more.
    """
    last = scope.loop
    if last is None:
        return 0
    if scope.item is not None:
        scope.seen.discard(scope.item)
    marked = len(scope.seen)
    scope.marked |= scope.seen
    scope.seen = set()
    scope.item = scope.outcome = scope.left_at = None
    lane = last.lane
    if lane is None or not last.mark:
        return last.counted
    if not lane.closed:
        lane.stop(Request("this loop was begun again, while it still ran"))
        lane.close()
    with registry.lock:
        done = lane.completed if last.key is None else min(marked, lane.completed)
        lane.cut(done)
    return last.counted + done


def by_exception(frame: FrameType | None) -> bool:
    """Whether an exception ends a loop of this frame, which drops its iterator now."""
    return frame is None or opname[frame.f_code.co_code[frame.f_lasti]] not in _ON_PURPOSE
