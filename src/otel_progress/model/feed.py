"""The feed of an operation: an activity that was told as running becomes the one line that tells its end."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import replace
from typing import Final

from otel_progress.model.snapshot import Note

RUNNING: Final = frozenset({"running", "started", "in progress", "in_progress"})
"""Statuses of a note that tell of an activity that goes on; a later note of the same text and stage tells its end."""
BAD: Final = frozenset({"failed", "error", "warning"})
"""Statuses of a note that tells of trouble."""


def add(notes: MutableSequence[Note], note: Note) -> None:
    """Append a note; where it tells of an activity that runs in `notes`, it takes the place of that one."""
    if note.status is not None:
        for place, before in enumerate(notes):
            if before.status in RUNNING and (before.text, before.stage) == (note.text, note.stage):
                del notes[place]
                note = replace(note, started_at=before.started_at or before.timestamp)
                break
    notes.append(note)
