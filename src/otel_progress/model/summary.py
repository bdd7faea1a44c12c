"""Summary of a snapshot: a few lines of text, or a small dict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from otel_progress import semconv
from otel_progress.model import json_keys
from otel_progress.model.feed import BAD
from otel_progress.model.snapshot import Note, Snapshot, StageSnapshot
from otel_progress.model.stage_runs import DONE_BEFORE, StageRuns, was_done_before
from otel_progress.model.statistics import statistics_of
from otel_progress.model.status import Status, word
from otel_progress.model.units import duration, money, part, percent, plural, spelled, units

FAILURES: Final = 3
"""Messages of failures that a summary shows."""
NOTES: Final = 5
"""Notes that a summary shows; failures and warnings come before others."""
_SAID: Final = ("outcomes", "counters", "usage", "result", "attributes")
_KEYS: Final = (
    *("operation_id", "name", "status", "reason", "hint", "attempt", "percentage", "current_step", "verdict"),
    *("started_at", "elapsed_time", "estimated_completion", "total_stages", "stages_completed", "failed_stage"),
    *("average_stage_duration", "stage_history", "repeated", *_SAID, "statistics", "resources"),
)


def summary_dict(snapshot: Snapshot) -> dict[str, Any]:
    """Return the summary as plain JSON types, under the keys of `Snapshot.to_dict()`."""
    whole = json_keys.of_snapshot(snapshot)
    progress = {key: whole["progress"][key] for key in ("completed", "total", "unit")}
    return {**{key: whole[key] for key in _KEYS}, **progress}


def summary(snapshot: Snapshot) -> str:
    """Return status, time, progress, stages, outcomes, usage, results, attributes and notes, one per line."""
    head = f"{snapshot.name}: {snapshot.status.value} after {duration(snapshot.elapsed)}"
    if snapshot.progress.stated is not None:
        head += f", {percent(snapshot.progress.stated)}"
    if snapshot.reason:
        head += f" ({snapshot.reason})"
    hint = [f"  hint: {snapshot.hint}"] if snapshot.hint else []
    lines = [head, *hint, *_now(snapshot), *_stages(snapshot)]
    for what in _SAID:
        said = spent(snapshot.usage) if what == "usage" else pairs(getattr(snapshot, what))
        if said:
            lines.append(f"  {what}: {said}")
    lines.extend(_statistics(snapshot))
    lines.extend(f"  note: {note_text(note)}" for note in _notes(snapshot))
    return "\n".join(lines)


def _statistics(snapshot: Snapshot) -> list[str]:
    """Return success rate, components with failures, and the most frequent failures; nothing without failures."""
    found = statistics_of(snapshot)
    lines = []
    if found.items.failed and found.items.success_rate is not None:
        lines.append(f"  success: {part(found.items.success_rate)} of {found.items.ok + found.items.failed:,}")
    for name, tally in found.components:
        if tally.failed and tally.success_rate is not None:
            lines.append(f"  {name}: {part(tally.success_rate)} of {tally.ok + tally.failed:,} ok")
    lines.extend(f"  failed x {count:,}: {message}" for message, count in snapshot.failures[:FAILURES])
    return lines


def _now(snapshot: Snapshot) -> list[str]:
    """Return its current step, and what is wrong."""
    if snapshot.status.final:
        return []
    lines = [f"  {word(snapshot.health)}: {spelled(snapshot.health_reason)}"] if snapshot.health_reason else []
    return [*lines, f"  now: {snapshot.message}"] if snapshot.message else lines


def _stages(snapshot: Snapshot) -> list[str]:
    """Return a line per stage; runs of one path share one, unless they are bad, and so do those left out."""
    repeated = {runs.path: runs for runs in snapshot.repeated}
    ended = [stage for stage in snapshot.stages if stage.status.final]
    bad = {stage.path: stage for stage in ended if stage.status is not Status.COMPLETED}
    planned = any(stage.planned for stage in snapshot.stages)
    listed = {stage.path for stage in snapshot.stages}
    lines = [_runs(runs) for path, runs in repeated.items() if path not in listed]
    left_out = Counter(stage.path for stage in snapshot.stages if was_done_before(stage))
    for stage in snapshot.stages:
        if was_done_before(stage):
            times = left_out.pop(stage.path, 0)
            if times:
                lines.append(f"  {stage.path}{f' x {times:,}' if times > 1 else ''}: {DONE_BEFORE}")
            continue
        runs = repeated.get(stage.path)
        if runs is None:
            lines.append(_stage(stage, planned))
            continue
        if stage.path in listed:
            listed.remove(stage.path)
            lines.append(_runs(runs))
        if not stage.status.final or stage is bad.get(stage.path):
            lines.append(_stage(stage, planned))
    return [*lines, *_more(snapshot)]


def _more(snapshot: Snapshot) -> list[str]:
    """Return the folded stages that no other line counts."""
    if not any(runs.folded for runs in snapshot.repeated):
        return [
            f"  {count:,} more {plural('stage', count)} {status}, {duration(spent)} in all"
            for status, count, spent in snapshot.folded
        ]
    left = sum(count for _, count, _ in snapshot.folded) - sum(runs.folded for runs in snapshot.repeated)
    return [f"  {left:,} more {plural('stage', left)}"] if left > 0 else []


def _runs(runs: StageRuns) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in runs.counts.items())
    spread = f"median {duration(runs.median)}, p95 {duration(runs.p95)}, longest {duration(runs.longest)}"
    return f"  {path_of(runs)} x {runs.count:,}: {counts}, {duration(runs.seconds)} in all; {spread}"


def path_of(runs: StageRuns) -> str:
    """Return the path of a repeated stage; `other stages` for those beyond the limit."""
    return "other stages" if runs.path == semconv.OTHER_STAGE else runs.path


def _stage(stage: StageSnapshot, planned: bool) -> str:
    line = f"  {stage.path}: {stage.status.value}"
    if stage.is_timed:
        line += f" {'after' if stage.status.final else 'for'} {duration(stage.elapsed)}"
    done, total = stage.progress.completed, stage.progress.total
    if done is not None:
        line += f", {units(done, None if total == done else total, stage.progress.unit)}"
    if planned and not stage.planned and "/" not in stage.path:
        line += " (unplanned)"
    if stage.reason:
        line += f" ({stage.reason})"
    said = [pairs(what) for what in (stage.counters, stage.attributes) if what]
    return f"{line}; {'; '.join(said)}" if said else line


def _notes(snapshot: Snapshot) -> list[Note]:
    """Return the newest notes in order, preferring failures and warnings."""
    ranked = sorted(range(len(snapshot.notes)), key=lambda at: (snapshot.notes[at].status in BAD, at), reverse=True)
    return [snapshot.notes[at] for at in sorted(ranked[:NOTES])]


def note_text(note: Note) -> str:
    """Return a note in one line, with its attributes, and its status unless the text begins with it."""
    said = pairs(note.attributes)
    status = f"{note.status}: " if note.status and not note.text.startswith(note.status) else ""
    return f"{status}{note.text}" + (f" ({said})" if said else "")


def spent(usage: Mapping[str, object]) -> str:
    """Format tokens and cost: `input_tokens=1200, cost=0.50 USD`."""
    said = []
    for key, value in usage.items():
        what, _, currency = key.partition(".")
        paid = what == "cost" and isinstance(value, (int, float))
        said.append(f"cost={money(value, currency)}" if paid else f"{key}={shown(value)}")  # type: ignore[arg-type]
    return ", ".join(said)


def pairs(values: Mapping[str, object]) -> str:
    """Format attributes: `root=/usr, depth=3`; names of our own are omitted, as the text says them already."""
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items() if not key.startswith(semconv.PREFIX))


def shown(value: object) -> str:
    """Format an attribute value for people."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(shown, value)) if isinstance(value, tuple) else str(value)
