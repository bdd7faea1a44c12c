"""The whole state of what runs is sent again every five minutes, and each overdue wait is an event of its own."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.live.engine import keyframes
from otel_progress.live.engine.keyframes import INTERVAL as KEYFRAME
from otel_progress.live.engine.ticker import KEYFRAMES
from otel_progress.outbound.answer import Answer
from otel_progress.telemetry.memory import Log
from otel_progress.testing import Capture, capture

HOUR = 3600.0


def updates(captured: Capture, after: int = 0) -> list[Log]:
    """The updates that were sent, without the first ones."""
    return [log for log in captured.logs if log.event_name == semconv.UPDATED][after:]


def seconds(log: Log) -> float:
    """When it left."""
    return log.time / 1e9


# -- the whole state again


def test_a_stall_sends_stage_and_stack_every_five_minutes(progress_capture: Capture) -> None:
    """While it is stuck nothing changes, so an update repeats all that a reader needs; the stall is told once."""
    with progress.operation("job", stall_after=30) as op, progress.stage("read") as stage:
        stage.advance()
        op.usage(cost=0.5)
        op.update(message="page 4")
        progress_capture.advance(40)
        known = len(updates(progress_capture))
        progress_capture.advance(HOUR)
        found = updates(progress_capture, known)
        assert len(found) == 12
        gaps = [seconds(later) - seconds(sooner) for sooner, later in itertools.pairwise(found)]
        assert all(KEYFRAME <= gap <= KEYFRAME + 1 for gap in gaps)
        for log in found:
            said = log.attributes
            assert said[semconv.HEALTH] == "silent"
            assert (said[semconv.STAGE_NAME], said[semconv.STAGE_CURRENT]) == ("read", "read")
            assert "test_keyframes.py" in said[semconv.STACK]
            assert "test_keyframes.py" in said[semconv.STUCK_AT]
            assert said[semconv.MESSAGE] == "page 4"
            assert said[semconv.OPERATION_ATTEMPT] == 1
            assert "cost.USD" in said[semconv.USAGE]
        assert found[-1].attributes[semconv.IDLE] > HOUR - 10
        assert progress_capture.names().count(semconv.STALLED) == 1


def test_the_stuck_branch_speaks_though_its_neighbour_waits(progress_capture: Capture) -> None:
    """Of parallel stages the repeated state is about the one that is stuck."""
    with progress.operation("job", stall_after=20) as op:
        stuck, asks = op.stage("stuck").start(), op.stage("asks").start()
        with asks.waiting("ada"):
            progress_capture.advance(30)
            known = len(updates(progress_capture))
            progress_capture.advance(HOUR / 4)
            found = updates(progress_capture, known)
            assert len(found) == 3
            assert {log.attributes[semconv.STAGE_NAME] for log in found} == {"stuck"}
        stuck.complete()
        asks.complete()


def test_a_long_wait_sends_its_state(progress_capture: Capture) -> None:
    """A declared wait of an hour is never older than five minutes for a reader."""
    with progress.operation("job"), progress.waiting("approval", overdue_after=7200):
        progress_capture.advance(5)
        known = len(updates(progress_capture))
        progress_capture.advance(HOUR)
        found = updates(progress_capture, known)
        assert len(found) in (11, 12)
        assert {log.attributes[semconv.WAIT_REASON] for log in found} == {"approval"}
        assert found[-1].attributes[semconv.WAIT_DURATION] > HOUR - KEYFRAME


def test_a_loop_that_spends_sends_its_state(progress_capture: Capture) -> None:
    """A loop whose steps go on is repeated like any other trouble, with what repeats."""
    with progress.operation("agent", loop_after=3):
        for _ in range(400):
            progress.step("search")
            progress_capture.advance(3)
    found = [log for log in updates(progress_capture) if log.attributes[semconv.HEALTH] == "looping"]
    assert len(found) >= 3
    assert all('"search"' in log.attributes[semconv.LOOP] for log in found)


def test_work_without_a_limit_that_says_nothing_sends_its_state(progress_capture: Capture) -> None:
    """Nobody judges it, but a reader still finds it."""
    with progress.operation("quiet"), progress.stage("compute"):
        progress_capture.advance(HOUR / 2)
        found = updates(progress_capture)
        assert len(found) in (5, 6)
        assert {log.attributes[semconv.STAGE_NAME] for log in found} == {"compute"}


def test_one_that_moves_sends_nothing_more(progress_capture: Capture) -> None:
    """Where updates leave anyway, none is added."""
    with progress.operation("busy") as op:
        before = len(progress_capture.logs)
        for _ in range(100):
            op.advance()
            progress_capture.advance(10)
        events = [log for log in progress_capture.logs[before:] if log.event_name == semconv.UPDATED]
        assert len(events) <= 2 * 100 + 5


def test_an_ended_operation_sends_nothing(progress_capture: Capture) -> None:
    """After the end there is no state to repeat."""
    with progress.operation("job"):
        progress_capture.advance(1)
    progress_capture.advance(1)
    count = len(progress_capture.logs)
    progress_capture.advance(2 * KEYFRAME)
    assert {log.event_name for log in progress_capture.logs[count:]} <= {semconv.PROCESS_HEARTBEAT}


def test_the_budget_does_not_hold_back_the_state_of_what_is_stuck() -> None:
    """With a budget of one event in 100 s, busy neighbours do not hide a stuck operation."""
    with capture(event_budget=0.01) as captured:
        stuck = progress.operation("stuck", stall_after=10).start()
        busy = [progress.operation("busy").start() for _ in range(20)]
        for _ in range(700):
            for op in busy:
                op.advance()
            captured.advance(1)
        found = [log for log in updates(captured) if log.attributes[semconv.OPERATION_NAME] == "stuck"]
        assert len(found) >= 2
        for op in (stuck, *busy):
            op.complete()


def test_many_stuck_operations_take_turns(progress_capture: Capture) -> None:
    """400 operations that got stuck together are repeated over several rounds, none of them left out."""
    jobs = [progress.operation("job", stall_after=10).start() for _ in range(400)]
    progress_capture.advance(15)
    count = len(progress_capture.events)
    progress_capture.advance(KEYFRAME)
    found = [event for event in progress_capture.events[count:] if event.name == semconv.UPDATED]
    assert {event.snapshot.operation_id for event in found} == {job.id for job in jobs}
    assert max(Counter(event.timestamp for event in found).values()) <= KEYFRAMES + 200  # the budget of a second
    for job in jobs:
        job.complete()


# -- overdue waits


def overdue(captured: Capture) -> list[tuple[str, str]]:
    """Stage and reason of each event of an overdue wait."""
    return [
        (event.stage or "", str(event.attributes[semconv.WAIT_REASON])) for event in captured.of(semconv.WAIT_OVERDUE)
    ]


def test_each_wait_is_overdue_once_and_its_end_says_by_how_much(progress_capture: Capture) -> None:
    """Two waits side by side are two events; a wait that ends in time is none."""
    with progress.operation("job") as op:
        left, right = op.stage("left").start(), op.stage("right").start()
        one, other = left.waiting("ada", overdue_after=5), right.waiting("bob", overdue_after=8)
        with left.waiting("in time", overdue_after=5):
            progress_capture.advance(2)
        with one:
            with other:
                progress_capture.advance(20)
                assert overdue(progress_capture) == [("left", "ada"), ("right", "bob")]
            progress_capture.advance(1)
        progress_capture.advance(1)
        left.complete()
        right.complete()
    ends = [event.attributes.get(semconv.WAIT_OVERDUE_BY) for event in progress_capture.of(semconv.WAIT_ENDED)]
    assert ends == [None, pytest.approx(12), pytest.approx(16)]
    assert len(progress_capture.of(semconv.WAIT_OVERDUE)) == 2


def test_an_overdue_wait_beside_a_stuck_branch_is_told(progress_capture: Capture) -> None:
    """A stall outranks it in the verdict, but doesn't hide the event."""
    with progress.operation("job", stall_after=5) as op:
        stuck, asks = op.stage("stuck").start(), op.stage("asks").start()
        with asks.waiting("ada", overdue_after=10):
            progress_capture.advance(13)
            assert overdue(progress_capture) == [("asks", "ada")]
        stuck.complete()
        asks.complete()


def test_an_overdue_wait_of_a_child_is_told_by_the_child(progress_capture: Capture) -> None:
    """Once for each wait: the parent, which waits for the child, does not repeat it."""
    with progress.operation("parent"), progress.operation("child"), progress.waiting("ada", overdue_after=4):
        progress_capture.advance(8)
    assert [event.snapshot.name for event in progress_capture.of(semconv.WAIT_OVERDUE)] == ["child"]


def test_the_event_is_within_a_second_and_says_why(progress_capture: Capture) -> None:
    """It leaves at once, as a warning with its evidence, and stands on the span."""
    with progress.operation("job"), progress.stage("ask"), progress.waiting("ada", overdue_after=30):
        progress_capture.advance(31.5)
    (log,) = (log for log in progress_capture.logs if log.event_name == semconv.WAIT_OVERDUE)
    assert log.severity == "WARN"
    assert log.body == "job: a wait is overdue: waiting for 30 s, overdue_after is 30 s"
    assert log.attributes[semconv.WAIT_OVERDUE_BY] <= 1
    (span,) = (span for span in progress_capture.spans if span.name == "ask")
    assert semconv.WAIT_OVERDUE in [event.name for event in span.events]


# -- which events carry the whole state


def deltas(captured: Capture) -> list[Log]:
    """The events that say only what differs from a keyframe."""
    return [log for log in captured.logs if semconv.KEYFRAME in log.sent]


def whole(captured: Capture) -> list[str]:
    """The names of the events that carry the whole state, without the prefix."""
    logs = [log for log in captured.logs if log.event_name != semconv.PROCESS_HEARTBEAT]
    return [log.event_name.removeprefix("progress.") for log in logs if semconv.KEYFRAME not in log.sent]


def test_what_changes_the_verdict_is_a_keyframe_and_the_rest_says_what_differs(progress_capture: Capture) -> None:
    """Start, stall, recovery, waits and end are whole; stages, notes and updates are not."""
    with progress.operation("job", stall_after=5) as op:
        op.stage("read").start()
        progress_capture.advance(1)
        op.advance()
        op.note("hello")
        progress_capture.advance(8)
        for _ in range(6):
            op.advance()
            progress_capture.advance(1)
        with op.waiting("ada"):
            progress_capture.advance(1)
    progress_capture.look()
    assert [name for name in whole(progress_capture) if name != "updated"] == [
        *("operation.started", "stalled", "recovered", "wait.started", "wait.ended", "operation.ended")
    ]
    names = {log.event_name.removeprefix("progress.") for log in deltas(progress_capture)}
    assert names == {"stage.started", "stage.ended", "note", "updated"}


def test_a_young_operation_sends_keyframes_more_often(progress_capture: Capture) -> None:
    """Little is known at the start, so deltas would say the same again and again; later every five minutes is enough."""
    with progress.operation("job") as op:
        for _ in range(1200):
            op.advance()
            progress_capture.advance(1)
    frames = [log for log in updates(progress_capture) if semconv.KEYFRAME not in log.sent]
    ages = [log.attributes[semconv.ELAPSED] for log in frames]
    assert ages == [pytest.approx(age, rel=0.15) for age in (10, 20, 40, 80, 160, 320, 620, 920)]


def test_a_requested_keyframe_comes_within_a_second_even_if_nothing_moves(progress_capture: Capture) -> None:
    """Whoever lacks it does not wait for five minutes."""
    with progress.operation("job") as op:
        progress_capture.advance(30)
        before = len(progress_capture.logs)
        keyframes.request_id(op.id)
        keyframes.request_id("unknown")
        progress_capture.advance(1)
        (log,) = [log for log in progress_capture.logs[before:] if log.event_name == semconv.UPDATED]
        assert semconv.KEYFRAME not in log.sent
        progress_capture.advance(30)
        assert [log for log in progress_capture.logs[before:] if log.event_name == semconv.UPDATED] == [log]


def test_a_keyframe_that_was_dropped_is_followed_by_another() -> None:
    """While the receiver is away the outbox is full; what comes after is readable all the same."""
    with capture(outbox=3) as captured:
        captured.logs_receiver.answer = lambda _: Answer(delivered=False, retry=True)
        jobs = [progress.operation("job").start() for _ in range(8)]
        captured.advance(5)
        captured.logs_receiver.answer = lambda _: Answer(delivered=True)
        for _ in range(10):
            for job in jobs:
                job.advance()
            captured.advance(1)
        for job in jobs:
            first = next(log for log in captured.logs if log.attributes.get(semconv.OPERATION_ID) == job.id)
            assert semconv.KEYFRAME not in first.sent
            job.complete()


def test_the_interval_of_keyframes_can_be_set() -> None:
    """For receivers that come and go."""
    with capture(keyframe_interval=60.0) as captured, progress.operation("quiet"):
        captured.advance(HOUR / 2)
        found = updates(captured)
    assert len(found) == pytest.approx(29, abs=1)


def test_of_many_stages_those_in_trouble_are_listed_first(progress_capture: Capture) -> None:
    """Of 80 that run, the stuck one and the one whose wait is overdue are the oldest; no list is without them."""
    with progress.operation("job") as op:
        first = [op.stage("stuck", stall_after=5).start(), op.stage("asks").start()]
        with first[1].waiting("ada", overdue_after=5):
            others = [op.stage(f"s{number}").start() for number in range(78)]
            progress_capture.advance(10)
            snapshot = op.snapshot()
        listed = [stage.path for stage in snapshot.stages]
        assert listed == ["stuck", "asks", *(f"s{number}" for number in range(16, 78))]
        assert [(status, count) for status, count, _ in snapshot.folded] == [("running", 16)]
        for stage in (*first, *others):
            stage.complete()
