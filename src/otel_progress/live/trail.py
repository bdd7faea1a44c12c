"""The events of a handle that are kept until its span ends; bounded, and thinned out from the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.live.guard import drops

if TYPE_CHECKING:
    from otel_progress.live.records import TrailEntry
    from otel_progress.live.state import HandleState, OperationState
    from otel_progress.model.snapshot import Progress, Snapshot
    from otel_progress.model.values import Number

MOST: Final = 128
"""Span events of one span; the default limit of the SDK."""
SHARE: Final = 0.05
"""Rise of the ratio from one update in a span to the next."""
GROWTH: Final = 1.5
"""Without a ratio: growth of the time since the start from one update to the next."""
_STAGES: Final = frozenset({s.STAGE_STARTED, s.STAGE_ENDED})


class ReachedProgress(NamedTuple):
    """The progress of a handle at one time; smaller than the attributes made of it at the end of the span."""

    completed: Number | None
    total: Number | None
    unit: str
    ratio: float | None
    message: str | None

    def attributes(self) -> dict[str, Any]:
        """As attributes of a span event."""
        said = {s.COMPLETED: self.completed, s.TOTAL: self.total, s.RATIO: self.ratio, s.MESSAGE: self.message}
        if self.completed is not None:
            said[s.UNIT] = self.unit
        return {key: value for key, value in said.items() if value is not None}


def follow(operation: OperationState, snapshot: Snapshot, now: int) -> None:
    """Keep the progress of an operation and its running stages, if their spans have not recorded it for a while."""
    if operation._span is None:
        return
    _follow(operation, snapshot.progress, operation._message, now)
    told = {(stage.path, stage.started_at): stage for stage in snapshot.stages if not stage.status.final}
    for stage in tuple(operation._running or ()):
        seen = told.get((stage._path or stage.name, stage._started_ns / 1e9))
        if seen is not None and stage._span is not None:
            _follow(stage, seen.progress, seen.message, now)


def _follow(node: HandleState, progress: Progress, message: str | None, now: int) -> None:
    reached = ReachedProgress(progress.completed, progress.total, progress.unit, progress.ratio, message)
    if reached.completed is None and reached.ratio is None and message is None:
        return
    before = next((event for event in reversed(node._trail or ()) if event[0] == s.UPDATED), None)
    if before is not None:
        was: ReachedProgress = before[2]
        if reached.ratio is not None:
            due = reached.ratio >= (was.ratio or 0.0) + SHARE
        else:
            due = now - node._started_ns >= GROWTH * (before[1] - node._started_ns)
        if not due or reached == was:
            return
    keep(node, s.UPDATED, now, reached)


def keep(node: HandleState, event: str, now: int, about: Any) -> None:
    """Keep an event for the end of the node's span; a span of the program gets none."""
    if node._adopted is not None:
        return
    trail = node._trail
    if trail is None:
        trail = node._trail = []
    trail.append((event, now, about))
    if len(trail) >= 2 * MOST:
        drops.add(s.DROP_SPAN_EVENTS, MOST)
        node._trail = thin(trail, MOST)


def thin(kept: list[TrailEntry], most: int) -> list[TrailEntry]:
    """Thin out the events from the middle: plain ones first, then those of stages; the first and last stay."""
    for kind in (s.RATIONED, _STAGES, s.EVENTS):
        excess = len(kept) - most
        if excess <= 0:
            break
        found = [index for index in range(1, len(kept) - 1) if kept[index][0] in kind]
        begin = max(0, (len(found) - excess) // 2)
        cut = frozenset(found[begin : begin + excess])
        kept = [event for index, event in enumerate(kept) if index not in cut]
    return kept
