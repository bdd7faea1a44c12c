"""How long stages took whose emitter does not say it, from the events that reported their ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

from otel_progress import semconv as s
from otel_progress.model.attribute_types import is_seconds
from otel_progress.model.fields import SnapshotFields, StageSnapshot
from otel_progress.model.timeline import TimedEvent, attributes_of

EARLY: Final = 0.001
"""Seconds by which an end may seem to be earlier than its start, by rounding."""
Fields = TypeVar("Fields", bound=SnapshotFields)


def has_untimed(snapshot: SnapshotFields) -> bool:
    """Whether it lists an ended stage of which nobody knows how long it took."""
    return any(stage.untimed and stage.status.final for stage in snapshot.stages)


def timed(snapshot: Fields, events: Iterable[TimedEvent]) -> Fields:
    """The snapshot with the times that follow from the ends of its stages, as its history has them.

    A run of a stage ended at the first reported end of its path since its start, and before the next run began.
    """
    if not has_untimed(snapshot):
        return snapshot
    ends: dict[str, list[TimedEvent]] = {}
    for event in sorted(events, key=lambda event: event.timestamp):
        if event.event == s.STAGE_ENDED and event.stage is not None:
            ends.setdefault(event.stage, []).append(event)
    starts: dict[str, list[float]] = {}
    for stage in snapshot.stages:
        if stage.started_at is not None:
            starts.setdefault(stage.path, []).append(stage.started_at)
    stages = tuple(_timed(stage, ends.get(stage.path, []), starts) for stage in snapshot.stages)
    return replace(snapshot, stages=stages)


def _timed(stage: StageSnapshot, ends: list[TimedEvent], starts: dict[str, list[float]]) -> StageSnapshot:
    began = stage.started_at
    if not stage.untimed or began is None:
        return stage
    until = min((start for start in starts[stage.path] if start > began), default=float("inf"))
    for event in ends:
        if began - EARLY <= event.timestamp <= until:
            said: Any = attributes_of(event).get(s.STAGE_ELAPSED)
            took = float(said) if is_seconds(said) else max(0.0, event.timestamp - began)
            return replace(stage, elapsed=took, untimed=False)
    return stage
