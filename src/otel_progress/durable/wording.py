"""What users read of a resume: how the feed says that it goes on, and why a stage is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.durable.holder import this_process
from otel_progress.durable.kept import GONE, LOST, RUNNING
from otel_progress.errors import CheckpointError
from otel_progress.model.units import duration, plural, units

if TYPE_CHECKING:
    from otel_progress.durable.kept import StoredOperation

SHOWN: Final = 3
"""Keys that an error names."""
_ENDED: Final = {
    RUNNING: "its process died",
    LOST: "its process died",
    "completed": "it completed",
    "failed": "it failed",
    "cancelled": "it was cancelled",
    "interrupted": "it was interrupted",
}
"""How the feed says that an earlier attempt ended."""


def resumed(before: StoredOperation, how: str, attempt: int, done: float | None, total: float | None = None) -> str:
    """How the feed says that an operation goes on.

    Args:
        before: how it stood.
        how: how and when it ended.
        attempt: the number of the new attempt.
        done: how many units are left out; None if the store knows of none.
        total: how many there are now, in the operation's own loop; None if only the earlier attempt knew.
    """
    far = before.summary
    unit = far.unit or "item"
    place = f" in {far.stage}" if far.stage and total is None and before.status != "completed" else ""
    if done:
        at = f" at {units(done, _at_least(far.total if total is None else total, done), unit)}{place}"
        return f"resumed{at} (attempt {attempt}, after {how})"
    then = f" at {units(far.completed, far.total, unit)}" if far.completed else ""
    return f"resumed (attempt {attempt}, after {how}{then}{place})"


def how_it_ended(before: StoredOperation) -> str:
    """How and when it ended; a process that nobody saw dying was last heard of at that time."""
    ago = duration(max(0.0, clock.unix() - (before.ended_at or before.seen_at)))
    here = this_process()
    if before.status == RUNNING and before.holder.is_same(here):
        return f"this process left it {ago} ago"  # it replaced its program (`exec`), or dropped the operation
    if before.status == RUNNING and not before.holder.is_gone(here):
        return f"its lease expired, last renewed {ago} ago"
    how = _ENDED.get(before.status, before.status)
    if before.status == LOST and before.reason and before.reason != GONE:
        how = before.reason
    return f"{how} {ago} ago" if before.ended_at else f"{how} at most {ago} ago"


def _at_least(total: float | None, done: float) -> float | None:
    """A total, unless more are done: it was of other items."""
    return None if total is None or total < done else total


def mixed(name: str) -> str:
    """Why stages that run side by side are refused."""
    return (
        f"several stages {name!r} run in different threads or tasks, so a later attempt could not tell them apart: "
        f"name each after its work, as in stage({name!r}, key=item.id)"
    )


def one_of(name: str, keys: Sequence[str]) -> str:
    """Why a stage of an unknown item is refused."""
    more = " and more" if len(keys) == SHOWN else ""
    return (
        f"a loop or is_done() has handed out {', '.join(map(repr, keys))}{more}, not done yet, and stage {name!r} may "
        "belong to any of them or to none, so a later attempt could not tell whose results these are: name its work, "
        f'as in stage({name!r}, key=item.id), or mark the items first, by done(key) or record("failed", item=key)'
    )


def twice(name: str) -> str:
    """Why a stage that runs once is refused the second time."""
    return (
        f"stage {name!r} runs once, and a stage of this name has completed here in this attempt, so this one would get "
        f"its result: name its work, as in stage({name!r}, once=True, key=item.id); with the same key it gets that "
        "result"
    )


def withheld(id: str, keys: Sequence[str]) -> CheckpointError:
    """The error for an operation that did all but some items, so that the next attempt has them apart from others."""
    count, more = len(keys), f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
    return CheckpointError(
        f"operation {id!r} has done all but {count:,} {plural('item', count)}: {', '.join(keys[:SHOWN])}{more}. "
        "Several attempts were killed while these and others were in hand, so the next attempt tries them apart: "
        "start it again"
    )


def all_at_once(name: str) -> str:
    """What is wrong with a comprehension over a loop that marks."""
    return (
        f"a comprehension or list() takes all items of track(..., key=...) in {name!r} before it goes on, and each is "
        "marked as done when the next one is taken: if their work follows, as of coroutines for gather() or futures, "
        "use track(..., mark=False), and done(key) when an item is done; else write it as a loop"
    )
