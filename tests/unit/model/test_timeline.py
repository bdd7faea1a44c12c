"""The timeline: when an operation waited, from its events."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from otel_progress import semconv as s
from otel_progress.model.timeline import timeline


class Told(NamedTuple):
    """An event as a history keeps it."""

    sequence: int
    timestamp: float
    event: str
    attributes: str
    stage: str | None = None
    text: str = ""


def told(at: int, event: str, reason: str | None) -> Told:
    return Told(at, float(at), event, json.dumps({} if reason is None else {s.WAIT_REASON: reason}))


@pytest.mark.parametrize("is_said", [True, False])
def test_waits_within_each_other_are_intervals_of_their_own(is_said: bool) -> None:
    """An end belongs to the wait that it names, and if it names none to the one that began last."""
    events = [
        told(1, s.WAIT_STARTED, "outer"),
        told(2, s.WAIT_STARTED, "inner"),
        told(4, s.WAIT_ENDED, "inner" if is_said else None),
        told(7, s.WAIT_ENDED, "outer" if is_said else None),
    ]
    found = [(one["reason"], one["from"], one["to"]) for one in timeline(events)]
    assert found == [("outer", 1.0, 7.0), ("inner", 2.0, 4.0)]


def test_an_end_ends_the_wait_that_it_names() -> None:
    """Waits of one stage may overlap: the one that began first may end first."""
    events = [
        told(1, s.WAIT_STARTED, "a"),
        told(2, s.WAIT_STARTED, "b"),
        told(4, s.WAIT_ENDED, "a"),
        told(7, s.WAIT_ENDED, "b"),
    ]
    assert [(one["reason"], one["to"]) for one in timeline(events)] == [("a", 4.0), ("b", 7.0)]
