"""A reported snapshot, advanced to the moment of a response."""

from __future__ import annotations

from dataclasses import replace

from otel_progress.model.snapshot import Snapshot, StageSnapshot


def at(snapshot: Snapshot, later: float) -> Snapshot:
    """The snapshot `later` seconds after it was reported, with running clocks and ETAs advanced.

    The clocks of ended operations, and of stages that have not started, stand still.
    """
    if snapshot.status.final or later <= 0:
        return snapshot
    still, stands = snapshot.still(later), snapshot.wait is not None
    pause = snapshot.update_pause
    stages = tuple(_stage(stage, later, still, pause, stands=stands) for stage in snapshot.stages)
    return replace(snapshot.at(snapshot.timestamp + later), stages=stages)


def _stage(stage: StageSnapshot, later: float, still: float, pause: float | None, *, stands: bool) -> StageSnapshot:
    if stage.status.final or not stage.has_run:
        return stage
    wait = stage.wait and replace(stage.wait, elapsed=stage.wait.elapsed + later)
    idle = stage.idle if wait else stage.idle + still
    progress = stage.progress if wait or stands else stage.progress.after(later, pause)
    return replace(stage, elapsed=stage.elapsed + later, idle=idle, wait=wait, progress=progress)
