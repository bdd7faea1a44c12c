"""The mailbox of a handler: newest state, all changes, in order, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import semconv
from otel_progress.handlers import mailbox as module
from otel_progress.handlers.mailbox import Mailbox
from otel_progress.model.snapshot import Event
from otel_progress.testing import capture

with capture():
    _SNAPSHOTS = [progress.operation(name).start().snapshot() for name in "ab"]
NAMES = [semconv.UPDATED, semconv.HEARTBEAT, semconv.NOTE, semconv.STAGE_STARTED, semconv.STALLED, semconv.RECOVERED]


def event(name: str, which: int = 0, number: int = 0) -> Event:
    return Event(name, number, _SNAPSHOTS[which], number)


def drained(box: Mailbox) -> list[Event]:
    found = []
    while (one := box.take()) is not None:
        found.append(one)
    return found


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 1))))
def test_changes_stay_in_order_and_the_newest_state_is_kept(given: list[tuple[str, int]]) -> None:
    """All changes come out in order; of each operation the last event is the newest one put in; the order is kept."""
    box = Mailbox()
    events = [event(name, which, number) for number, (name, which) in enumerate(given)]
    assert all(map(box.put, events))
    assert len(box) <= len(events)
    found = drained(box)
    assert [one for one in found if one.name not in module.PLAIN] == [
        one for one in events if one.name not in module.PLAIN
    ]
    assert [one.timestamp for one in found] == sorted(one.timestamp for one in found)
    for which in (0, 1):
        mine = [one for one in events if one.snapshot is _SNAPSHOTS[which]]
        got = [one for one in found if one.snapshot is _SNAPSHOTS[which]]
        assert got[-1:] == mine[-1:]
        assert sum(one.name in module.PLAIN for one in got) <= 1
    assert len(box) == 0


def test_a_flood_of_notes_does_not_keep_an_end_out() -> None:
    """Beyond the limit changes are refused, and the ends, stalls and recoveries still wait; then there is room again."""
    box = Mailbox()
    taken = [box.put(event(semconv.NOTE, 0, number)) for number in range(module.CHANGES + 10)]
    assert taken.count(False) == 10
    assert box.put(event(semconv.OPERATION_ENDED, 0, 5000))
    assert box.put(event(semconv.STALLED, 1, 5001))
    assert [one.name for one in drained(box)[-2:]] == [semconv.OPERATION_ENDED, semconv.STALLED]
    assert box.put(event(semconv.NOTE, 0, 6000))


def test_ends_are_bounded_too(monkeypatch: object) -> None:
    """Memory has an end: beyond a hundred thousand even these are refused."""
    box = Mailbox()
    for number in range(module.VITAL_MOST):
        box.put(event(semconv.OPERATION_ENDED, 0, number))
    assert not box.put(event(semconv.OPERATION_ENDED, 0, 1))
    box.take()
    assert box.put(event(semconv.OPERATION_ENDED, 0, 1))
