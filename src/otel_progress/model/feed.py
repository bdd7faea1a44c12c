"""The activity feed of an operation: the note that ends an activity replaces the note that started it."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import replace
from typing import Final

from otel_progress.model.reported import Note

RUNNING: Final = frozenset({"running", "started", "in progress", "in_progress"})
"""Statuses of a note about an ongoing activity; a later note with the same text and stage ends it."""
BAD: Final = frozenset({"failed", "error", "warning"})
"""Statuses of a note about a failure or a warning."""


def add(notes: MutableSequence[Note], note: Note) -> None:
    """Append a note; if it ends an activity in `notes`, it replaces that note."""
    if note.status is not None:
        for position, before in enumerate(notes):
            if before.status in RUNNING and (before.text, before.stage) == (note.text, note.stage):
                del notes[position]
                note = replace(note, started_at=before.started_at or before.timestamp)
                break
    notes.append(note)
