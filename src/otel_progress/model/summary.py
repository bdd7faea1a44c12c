"""A snapshot in a few lines of text."""

from __future__ import annotations

from otel_progress.model.snapshot import Snapshot


def seconds(value: float) -> str:
    """A duration as people say it: `0.4 s`, `3 m 12 s`, `2 h 05 m`."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} m"


def summary(snapshot: Snapshot) -> str:
    """Status, time, progress, stages, outcomes, usage and results, a line each."""
    head = f"{snapshot.name}: {snapshot.status.value} after {seconds(snapshot.elapsed)}"
    if snapshot.progress.percentage is not None:
        head += f", {snapshot.progress.percentage:g}%"
    if snapshot.reason:
        head += f" ({snapshot.reason})"
    lines = [head]
    planned = any(stage.planned for stage in snapshot.stages)
    for stage in snapshot.stages:
        line = f"  {stage.path}: {stage.status.value}"
        if stage.started_at is not None:
            line += f" in {seconds(stage.elapsed)}"
        done, total = stage.progress.completed, stage.progress.total
        if done is not None:
            line += f", {done:g}" + (f" of {total:g}" if total not in (None, done) else "") + f" {stage.progress.unit}"
        if planned and not stage.planned and "/" not in stage.path:
            line += " (unplanned)"
        lines.append(line)
    lines.extend(f"  {count} more stages {status} in {seconds(spent)}" for status, count, spent in snapshot.folded)
    for what in ("outcomes", "usage", "result"):
        pairs = getattr(snapshot, what)
        if pairs:
            lines.append(f"  {what}: " + ", ".join(f"{key}={value}" for key, value in pairs.items()))
    return "\n".join(lines)
