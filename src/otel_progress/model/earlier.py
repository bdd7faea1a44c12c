"""What a snapshot of what ended says of a moment before its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_progress.model.status import Health, Status
from otel_progress.model.values import EMPTY

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot

ROUNDED: Final = 0.002
"""Seconds by which times of one snapshot may differ: they are rounded, and come from two clocks."""


def earlier(snapshot: Snapshot, at: float) -> Snapshot:
    """The operation as it was at a moment (s, Unix) before its end; what is not known of that moment is left out.

    It ran, and so did the stages that had begun and not ended. How much was completed nobody knows any more.
    """
    stages = tuple(_stage(one, at) for one in snapshot.stages if (one.started_at or 0.0) <= at + ROUNDED)
    running = [one.path for one in stages if not one.status.final and one.has_run]
    return replace(
        snapshot,
        status=Status.RUNNING,
        timestamp=at,
        elapsed=_since(snapshot.started_at, at),
        idle=0.0,
        health=Health.PROGRESSING,
        health_reason=None,
        reason=None,
        hint=None,
        loop=None,
        stuck_at=None,
        stack=None,
        stage=running[-1] if running else None,
        message=None,
        progress=_uncounted(snapshot.progress),
        stages=stages,
        folded=(),
        repeated=(),
        wait=None,
        overdue=False,
        branches=(),
        outcomes=EMPTY,
        counters=EMPTY,
        usage=EMPTY,
        result=EMPTY,
        notes=tuple(note for note in snapshot.notes if note.timestamp <= at + ROUNDED),
        components=(),
        failures=(),
        curve=(),
        resources=None,
        child_outcomes=EMPTY,
    )


def _stage(stage: StageSnapshot, at: float) -> StageSnapshot:
    if stage.started_at is None or not stage.status.final or stage.started_at + stage.elapsed <= at + ROUNDED:
        return stage
    return replace(
        stage,
        status=Status.RUNNING,
        elapsed=_since(stage.started_at, at),
        idle=0.0,
        progress=_uncounted(stage.progress),
        message=None,
        reason=None,
        outcomes=EMPTY,
        counters=EMPTY,
        usage=EMPTY,
        child_outcomes=EMPTY,
        cpu_seconds=None,
        peak_memory=None,
    )


def _uncounted(progress: Progress) -> Progress:
    return replace(progress, completed=None, ratio=None, ratio_raw=None, rate=None, eta=None)


def _since(started: float | None, at: float) -> float:
    return 0.0 if started is None else max(0.0, at - started)
