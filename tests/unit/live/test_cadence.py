"""How often plain updates leave for a receiver: less often the longer the work runs; changes of state leave at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import semconv
from otel_progress.live import hooks
from otel_progress.live.engine.cadence import LEASE_MOST, MOST, PARTS, SHARE, STEPS, Cadence, cadence
from otel_progress.live.engine.commands import Commands
from otel_progress.model.snapshot import Event
from otel_progress.settings import LIVE
from otel_progress.testing import Capture, capture

HOUR = 3600.0
SAMPLE = 0.75
"""Seconds between two samples of the counts."""
NEAREST = 1.3
"""The ratio of 2% of an age and the step that it is rounded to, at most."""


@pytest.fixture
def captured() -> Iterator[Capture]:
    """All that leaves toward a receiver of which nothing else is known."""
    with capture(update_interval=None) as found:
        yield found


def age(event: Event) -> float:
    """The age of the operation when the event happened."""
    return event.timestamp / 1e9 - (event.snapshot.started_at or 0.0)


def moves(captured: Capture, op: progress.Operation, seconds: float, each: float = 1.0) -> None:
    """The operation completes a unit at a time."""
    for _ in range(round(seconds / each)):
        op.advance()
        captured.advance(each)


def updates(captured: Capture, after: int = 0) -> list[Event]:
    """The plain updates that left."""
    return [event for event in captured.events[after:] if event.name == semconv.UPDATED]


def gaps(events: list[Event]) -> list[float]:
    """Seconds between two events."""
    return [(later.timestamp - sooner.timestamp) / 1e9 for sooner, later in itertools.pairwise(events)]


# -- counts


def test_an_hour_of_movement_is_less_than_300_updates(captured: Capture) -> None:
    """About 2% of the age, 1 s at least and 60 s at most: 267 in an hour, and some more in its first minute."""
    with progress.operation("job") as op:
        moves(captured, op, HOUR)
        found = updates(captured)
        assert 240 <= len(found) <= 300
        for sooner, gap in zip(found, gaps(found)):
            pause = min(MOST, SHARE * age(sooner))
            assert gap <= max(1.0, NEAREST * pause) + 2 * SAMPLE + 0.01
            assert gap >= max(SAMPLE, (1 - 1 / PARTS) * pause / NEAREST - SAMPLE) - 0.01
        since = op.snapshot().progress.completed - found[-1].snapshot.progress.completed
        assert abs(since - (HOUR - age(found[-1]))) < 1


def test_a_day_adds_one_update_a_minute(captured: Capture) -> None:
    """After 50 minutes the pause grows no more."""
    with progress.operation("job") as op:
        moves(captured, op, HOUR)
        known = len(captured.events)
        moves(captured, op, HOUR)
        assert len(updates(captured, known)) in (58, 59, 60)


def test_what_stopped_is_told_within_one_pause(captured: Capture) -> None:
    """The last count before a standstill leaves when the next update is due, and none follows it."""
    with progress.operation("job") as op:
        moves(captured, op, 600)
        total = op.snapshot().progress.completed
        captured.advance(SHARE * 700 + 2)
        known = updates(captured)[-1]
        assert known.snapshot.progress.completed == total
        assert age(known) <= 600 + SHARE * 600 + 2 * SAMPLE


def test_the_updates_of_a_process_leave_together(captured: Capture) -> None:
    """Operations that began at any time have a few moments in common, so a request has the updates of many."""
    together = [progress.operation("job").start() for _ in range(40) if captured.advance(1) is None]
    captured.advance(600)
    for _ in range(60):
        for op in together:
            op.advance()
        captured.advance(1)
    known = len(captured.events)
    for _ in range(48):
        for op in together:
            op.advance()
        captured.advance(1)
    found = updates(captured, known)
    assert len(found) >= 3 * len(together)
    assert len({event.timestamp for event in found}) <= 6 * PARTS
    for op in together:
        op.complete()


@given(st.sampled_from(STEPS), st.lists(st.floats(0.25, 100), min_size=1, max_size=20))
def test_an_update_is_due_within_its_pause_and_not_long_before(pause: float, apart: list[float]) -> None:
    """At one of its parts, which are the same for all operations of the process."""
    pace, now, moments = Cadence(), 1000.0, []
    for seconds in apart:
        now += seconds
        due = pace.due(pause, now)
        assert now + (1 - 1 / PARTS) * pause - 0.001 <= due <= now + pause
        moments.append(due)
    offsets = [((moment - moments[0]) * PARTS / pause) % 1 for moment in moments]
    assert all(min(one, 1 - one) < 0.01 for one in offsets)


def test_what_never_waits_is_due_at_once() -> None:
    """And a forked child chooses other moments than its parent."""
    pace = Cadence()
    assert pace.due(0.0, 5.0) == 5.0
    before = pace.due(4.0, 100.0)
    pace.forget()
    assert pace.due(4.0, 100.6) % 1 != pytest.approx(before % 1, abs=0.1)


@pytest.mark.parametrize(("interval", "least", "most"), [(10, 7.5 - SAMPLE, 11.6), (LIVE, 0.2, 1.6)])
def test_the_pause_can_be_set(interval: float, least: float, most: float) -> None:
    """A number of seconds holds from the start and for ever; live means with each sample."""
    with capture(update_interval=interval) as captured, progress.operation("job") as op:
        moves(captured, op, 400)
        assert all(least <= gap <= most for gap in gaps(updates(captured))[1:])


def test_other_events_carry_the_counts_too(captured: Capture) -> None:
    """A stage every ten seconds says all that an update would: no update leaves between them."""
    with progress.operation("job") as op:
        moves(captured, op, 1000)
        known = len(captured.events)
        for _ in range(20):
            with op.stage("part"):
                moves(captured, op, 10)
        assert updates(captured, known) == []


def test_the_parent_of_what_moves_is_told_as_rarely(captured: Capture) -> None:
    """The progress of a child is news of its parent, at the parent's own cadence."""
    with progress.operation("parent") as parent:
        captured.advance(1000)
        with progress.operation("child") as child:
            known = len(captured.events)
            moves(captured, child, 100)
            found = [event for event in updates(captured, known) if event.snapshot.operation_id == parent.id]
    assert 4 <= len(found) <= 6


def test_local_handlers_get_every_update(captured: Capture) -> None:
    """What is shown inside the process is not paced, and does not change what leaves."""
    here: list[Event] = []
    hooks.sinks.append(lambda event, _: here.append(event))
    with progress.operation("job") as op:
        moves(captured, op, 600)
        for _ in range(60):
            captured.advance(1)
        assert 600 <= len([event for event in here if event.name == semconv.UPDATED]) <= 900
        assert len(updates(captured)) <= 190
        assert updates(captured)[-1].snapshot.progress.completed == 600


# -- changes of state


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (semconv.STAGE_STARTED, lambda op: op.stage("next").start()),
        (semconv.NOTE, lambda op: op.note("look")),
        (semconv.WAIT_STARTED, lambda op: op.waiting("approval").__enter__()),
        (semconv.OPERATION_ENDED, lambda op: op.complete()),
        (semconv.HEARTBEAT, lambda op: op.heartbeat()),
    ],
)
def test_changes_of_state_do_not_wait(captured: Capture, event: str, change: Callable[[object], object]) -> None:
    """However old the operation is, and just after an update."""
    op = progress.operation("job").start()
    moves(captured, op, 2000)
    known = len(captured.events)
    change(op)
    captured.advance(1)
    assert event in [one.name for one in captured.events[known:]]


def test_a_stall_and_a_recovery_do_not_wait(captured: Capture) -> None:
    """Both leave within a second of the moment when they are true."""
    with progress.operation("job", stall_after=20) as op:
        moves(captured, op, 2000)
        captured.advance(21)
        assert captured.names()[-1] == semconv.STALLED
        moves(captured, op, 40)
        assert semconv.RECOVERED in captured.names()[-3:]


def test_the_end_of_an_estimate_does_not_wait(captured: Capture) -> None:
    """Once the count stands still for longer than its pace explains, no reader goes on to show a rate."""
    with progress.operation("job", total=100_000, stall_after=None) as op:
        moves(captured, op, 2000)
        assert updates(captured)[-1].snapshot.progress.eta is not None
        for _ in range(60):
            captured.advance(1)
            if op.snapshot().progress.rate is None:
                break
        captured.advance(1)
        assert captured.events[-1].snapshot.progress.rate is None
        assert captured.events[-1].snapshot.progress.eta is None


# -- live


def test_a_lease_makes_everything_live_and_ends(captured: Capture) -> None:
    """While a monitor asks, updates leave with each sample; afterwards as before, and nothing is lost between."""
    with progress.operation("job") as op:
        moves(captured, op, 2000)
        known = len(captured.events)
        cadence.ask(None, 15)
        moves(captured, op, 15)
        assert len(updates(captured, known)) >= 14
        known = len(captured.events)
        moves(captured, op, 120)
        assert 3 <= len(updates(captured, known)) <= 5
        assert gaps(updates(captured, known - 1))[0] <= 1.6  # before the first pause readers are told that there is one


def test_a_lease_of_some_leaves_others_alone(captured: Capture) -> None:
    """Only what somebody looks at is live."""
    with progress.operation("seen") as seen, progress.operation("unseen", parent=None) as unseen:
        for _ in range(2000):
            seen.advance()
            unseen.advance()
            captured.advance(1)
        known = len(captured.events)
        cadence.ask([seen.id, "nobody"], 30)
        for _ in range(30):
            seen.advance()
            unseen.advance()
            captured.advance(1)
        found = [event.snapshot.name for event in updates(captured, known)]
        assert found.count("seen") >= 29
        assert found.count("unseen") <= 2


def test_two_monitors_each_hold_their_own_lease(captured: Capture) -> None:
    """A shorter request never cuts a longer one."""
    with progress.operation("job") as op:
        moves(captured, op, 2000)
        cadence.ask([op.id], 40)
        cadence.ask([op.id], 5)
        cadence.ask(None, 5)
        known = len(captured.events)
        moves(captured, op, 38)
        assert len(updates(captured, known)) >= 36


def test_no_request_lasts_for_long(captured: Capture) -> None:
    """Who asks for a year gets a minute."""
    with progress.operation("job") as op:
        moves(captured, op, 3000)
        cadence.ask(None, 1e9)
        moves(captured, op, LEASE_MOST + 2)
        known = len(captured.events)
        moves(captured, op, 120)
        assert len(updates(captured, known)) <= 3


# -- what a monitor wishes


def test_wishes_are_granted_without_an_answer(captured: Capture) -> None:
    """All live, some live, a whole event; what another version may wish for is ignored."""
    commands = Commands()
    with progress.operation("job") as op:
        moves(captured, op, 2000)
        known = len(captured.events)
        assert commands.obey({"do": "live", "ids": [op.id], "for": 15}) is None
        moves(captured, op, 10)
        assert len(updates(captured, known)) >= 9
        captured.advance(100)
        known = len(captured.events)
        assert commands.obey({"do": "keyframe", "ids": [op.id, "nobody"]}) is None
        captured.advance(1)
        assert len(updates(captured, known)) == 1
        assert commands.obey({"do": "sing", "ids": 7}) is None
        assert captured.drops == {}


def test_wishes_for_whole_events_stay_within_the_budget() -> None:
    """A monitor that asks for everything each second makes no more events than the budget allows."""
    with capture(update_interval=None, event_budget=10) as captured:
        jobs = [progress.operation("job").start() for _ in range(100)]
        captured.advance(1)
        known = len(captured.events)
        for _ in range(20):
            for _ in range(5):
                Commands().obey({"do": "keyframe", "ids": [job.id for job in jobs]})
            captured.advance(1)
        assert len(updates(captured, known)) <= 20 * 10 + 10
        for job in jobs:
            job.complete()
