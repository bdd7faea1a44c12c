"""Writes the report of an operation of this process to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.live.misuse import warn
from otel_progress.live.running import children
from otel_progress.model import sentences
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.timeline import TIMED
from otel_progress.model.values import Attributes, shown
from otel_progress.render.words import joined, noted
from otel_progress.reports import writing
from otel_progress.reports.run import Run, Told, pauses_of

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

CHILDREN: Final = 100
UNKNOWN: Final = (
    "The process itself keeps only its newest stages and notes, and no children that ended; the monitor and a file of "
    "JSON lines have all of them."
)
"""What a report from inside the process leaves out."""


def write(operation: OperationState, path: str | os.PathLike[str], form: str | None) -> Path | None:
    """Write a report; see `Operation.report`."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgument(f"report() needs the path of a file, not {shown(path)}")
    form = writing.format_of(path, form)
    try:
        return writing.write(run_of(operation), path, form)
    except OSError as error:
        warn("report", "wrote nothing to %s: %s; the job goes on", os.path.abspath(path), error.strerror or error)
        return None


def run_of(operation: OperationState) -> Run:
    """All that this process still knows of an operation."""
    snapshot = operation.snapshot()
    told = sorted(_told(operation, snapshot), key=lambda one: one.timestamp)
    numbered = [one._replace(sequence=number) for number, one in enumerate(told, 1)]
    timed = [one for one in numbered if one.event in TIMED]
    running = children(operation)
    return Run(
        snapshot,
        f"the process itself (pid {os.getpid()})",
        pauses_of(timed, snapshot),
        tuple(numbered),
        children=tuple(child.snapshot() for child in running[:CHILDREN]),
        more_children=max(0, len(running) - CHILDREN),
        alive=True,
        unknown=UNKNOWN if snapshot.folded or operation._children is not None else None,
    )


def _told(operation: OperationState, snapshot: Snapshot) -> Iterator[Told]:
    """Notes and stages of the snapshot, and the waits and stalls that the handles keep for their spans."""
    for note in snapshot.notes:
        about = f"{note.stage}: " if note.stage else ""
        text = about + joined(noted(note.status, note.text, note.attributes))
        yield Told(0, note.timestamp, s.NOTE, note.stage, text, note.status)
    for stage in snapshot.stages:
        if stage.started_at is None:
            continue
        for name, when in ((s.STAGE_STARTED, stage.started_at), (s.STAGE_ENDED, stage.started_at + stage.elapsed)):
            if name == s.STAGE_STARTED or stage.status.final:
                own = Attributes({s.STAGE_ELAPSED: stage.elapsed, s.STAGE_STATUS: stage.status.value})
                text = sentences.sentence(Event(name, int(when * 1e9), snapshot, stage=stage.path, attributes=own))
                yield Told(0, when, name, stage.path, text)
    for node in dict.fromkeys((operation, *tuple(operation._stages or ()), *tuple(operation._running or ()))):
        path = None if node is operation else getattr(node, "_path", None)
        for name, when, about in tuple(node._trail or ()):
            if name in TIMED or name == s.WAIT_OVERDUE:
                yield _timed(name, when, path, about, snapshot)


def _timed(name: str, when: int, path: str | None, about: Any, snapshot: Snapshot) -> Told:
    own = Attributes(about or {})
    text = sentences.sentence(Event(name, when, snapshot, stage=path, attributes=own))
    return Told(0, when / 1e9, name, path, text, None, json.dumps(dict(own), default=str))
