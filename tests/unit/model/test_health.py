"""Health: one pure function of (snapshot, now), just before and just at each limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Health, Snapshot, Status, semconv
from otel_progress.model.health import Hearing, Verdict, judge
from otel_progress.model.loop import Loop
from otel_progress.model.snapshot import Progress, Wait
from otel_progress.model.status import word
from otel_progress.testing import Capture

BASE = Snapshot("1", "work", Status.RUNNING, timestamp=100.0)
JUST = 0.001


@pytest.mark.parametrize(
    ("snapshot", "limit", "health"),
    [
        (replace(BASE, stall_after=10), "stall_after", Health.SILENT),
        (replace(BASE, slow_after=10), "slow_after", Health.SLOW),
        (replace(BASE, status=Status.PENDING, start_within=10), "start_within", Health.SLOW),
    ],
)
def test_a_limit_counts_as_reached_at_exactly_its_value(snapshot: Snapshot, limit: str, health: Health) -> None:
    """An operation is healthy just before a limit, and has the verdict of the limit exactly at it and after."""
    assert judge(snapshot, 110 - JUST).health in (Health.PROGRESSING, Health.WAITING)
    for now in (110, 110 + JUST, 1e6):
        verdict = judge(snapshot, now)
        assert (verdict.health, verdict.limit, verdict.allowed) == (health, limit, 10)
        assert verdict.seconds == pytest.approx(now - 100)
        assert verdict.troubled
        assert verdict.reason is not None
        assert f"{limit} is 10 s" in verdict.reason


def test_silence_outranks_slowness() -> None:
    """An operation that is both is silent; once it moves again it is slow."""
    both = replace(BASE, stall_after=10, slow_after=5)
    assert judge(both, 110).health is Health.SILENT
    assert judge(both, 109).health is Health.SLOW


def test_without_limits_it_progresses() -> None:
    """Without limits an operation is always progressing, and has no reason."""
    verdict = judge(BASE, 1e9)
    assert verdict == Verdict(Health.PROGRESSING, "stall_after", 1e9 - 100, None, clock="idle")
    assert not verdict.troubled
    assert verdict.reason is None


def test_a_declared_wait_stops_the_stuck_clock() -> None:
    """A waiting operation is neither silent nor slow, however long; past its own limit the wait is overdue."""
    waiting = replace(BASE, status=Status.WAITING, stall_after=1, slow_after=1, wait=Wait("tea", 0.0, 60))
    for now, overdue in ((160 - JUST, False), (160, True), (1e6, True)):
        verdict = judge(waiting, now)
        assert (verdict.health, verdict.overdue, verdict.troubled) == (Health.WAITING, overdue, overdue)
    assert judge(waiting, 160).reason == "waiting for 60 s, overdue_after is 60 s"
    endless = judge(replace(waiting, wait=Wait("tea", 0.0)), 1e6)
    assert (endless.health, endless.overdue, endless.reason) == (Health.WAITING, False, None)


@pytest.mark.parametrize("status", [status for status in Status if status.final])
def test_what_is_over_has_no_trouble(status: Status) -> None:
    """A final status has no health of its own, and time changes nothing."""
    over = replace(BASE, status=status, stall_after=1, slow_after=1, wait=Wait("tea", 5, 1))
    assert judge(over, 1e6) == Verdict(Health.PROGRESSING)


def test_a_clock_behind_changes_nothing() -> None:
    """An observer whose clock is behind sees what the snapshot said."""
    assert judge(replace(BASE, idle=9.9, stall_after=10), 5).health is Health.PROGRESSING
    assert judge(replace(BASE, idle=10, stall_after=10), 5).health is Health.SILENT


def test_the_process_tells_each_change_once(progress_capture: Capture) -> None:
    """The process reports a stall once, when the limit is reached, and its end once, with its duration."""
    with progress.operation("work", stall_after=5) as op:
        progress_capture.advance(60)
        (stalled,) = progress_capture.of(semconv.STALLED)
        assert stalled.snapshot.health is Health.SILENT
        assert stalled.snapshot.health_reason == "no progress for 5 s, stall_after is 5 s"
        assert stalled.timestamp / 1e9 - (op.snapshot().started_at or 0) == pytest.approx(5, abs=1)
        for second in range(4):
            if second < 3:
                assert op.snapshot().health is Health.SILENT  # until it moved for half its limit
            op.advance()
            progress_capture.advance(0.8)
        (recovered,) = progress_capture.of(semconv.RECOVERED)
        assert recovered.snapshot.health is Health.PROGRESSING
        assert recovered.attributes[semconv.STALL_DURATION] == pytest.approx(60, abs=1)
        progress_capture.advance(10)
        assert len(progress_capture.of(semconv.STALLED)) == 2


def test_a_wait_ends_a_stall(progress_capture: Capture) -> None:
    """A stuck operation that declares a wait is no longer stuck."""
    with progress.operation("work", stall_after=5) as op:
        progress_capture.advance(6)
        with op.waiting("a person", overdue_after=10):
            progress_capture.advance(1)
            assert len(progress_capture.of(semconv.RECOVERED)) == 1
            progress_capture.advance(8)
            assert op.snapshot().health_reason is None
            progress_capture.advance(1)
            assert op.snapshot().health_reason == "waiting for 10 s, overdue_after is 10 s"
        assert len(progress_capture.of(semconv.STALLED)) == 1


def test_slow_is_a_verdict_not_an_event(progress_capture: Capture) -> None:
    """An operation past slow_after is slow while it makes progress."""
    with progress.operation("work", slow_after=5) as op:
        for _ in range(6):
            op.advance()
            progress_capture.advance(1)
        assert op.snapshot().health is Health.SLOW
        assert progress_capture.of(semconv.STALLED) == []
    assert op.snapshot().health is Health.PROGRESSING


@pytest.mark.parametrize("name", ["stall_after", "slow_after", "start_within"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "30", True, 10**400])
def test_invalid_limits_are_rejected(name: str, value: object) -> None:
    """A limit is a finite number of seconds above 0."""
    with pytest.raises(progress.InvalidArgument, match=f"{name} must be a number of seconds above 0, or None"):
        progress.operation("work", **{name: value})  # type: ignore[call-overload]


def test_a_wait_that_becomes_overdue_is_reported(progress_capture: Capture) -> None:
    """When a declared wait passes its limit, an update says so, though the verdict stays waiting."""
    with progress.operation("work") as op, op.waiting("approval", overdue_after=10):
        progress_capture.advance(9)
        before = len(progress_capture.events)
        progress_capture.advance(2)
        told = progress_capture.events[before:]
        assert [event.snapshot.health for event in told] == [Health.WAITING]
        assert told[0].snapshot.health_reason == "waiting for 10 s, overdue_after is 10 s"


# -- from outside

NEVER_BLIND = 1e9


@pytest.mark.parametrize("interval", [1.0, 5.0, 60.0])
def test_an_unheard_process_is_dead_after_three_of_its_intervals(interval: float) -> None:
    """An operation is dead exactly when its process was silent for three announced intervals, whatever its snapshot says."""
    for snapshot in (BASE, replace(BASE, status=Status.WAITING, wait=Wait("tea", 0.0)), replace(BASE, stall_after=1)):
        allowed = 3 * interval
        before = judge(snapshot, 100, Hearing(allowed - JUST, interval, NEVER_BLIND))
        assert before.health is not Health.DEAD
        verdict = judge(snapshot, 100, Hearing(allowed, interval, NEVER_BLIND))
        assert (verdict.health, verdict.clock, verdict.allowed) == (Health.DEAD, "heartbeat", allowed)
        assert "not heard of" in (verdict.reason or "")


def test_a_process_that_is_heard_again_is_judged_as_before() -> None:
    """Dead is open to correction."""
    assert judge(BASE, 200, Hearing(30, 5)).health is Health.DEAD
    assert judge(BASE, 200, Hearing(0.1, 5)).health is Health.PROGRESSING


@pytest.mark.parametrize("watching", [0.0, 1.0, 14.9])
def test_an_observer_that_was_blind_says_unknown_not_dead(watching: float) -> None:
    """After its own start, its own sleep or its own outage, an observer needs as long as a verdict takes."""
    verdict = judge(BASE, 1000, Hearing(900, 5, watching))
    assert verdict.health is Health.UNKNOWN
    assert "was not listening until" in (verdict.reason or "")
    assert judge(BASE, 1000, Hearing(900, 5, 15)).health is Health.DEAD


def test_an_observer_that_was_blind_does_not_say_silent_of_what_it_missed() -> None:
    """A snapshot from before a blind time proves nothing about that time."""
    stalls = replace(BASE, stall_after=10)
    assert judge(stalls, 160, Hearing(1.0, 5, 3)).health is Health.UNKNOWN
    fresh = replace(stalls, timestamp=159.0, idle=30)
    assert judge(fresh, 160, Hearing(0.5, 5, 3)).health is Health.SILENT


def test_from_outside_only_the_process_says_that_one_is_silent() -> None:
    """An old snapshot of a living process proves no silence: updates of moving work may be held back."""
    moves = replace(BASE, stall_after=10, idle=2)
    assert judge(moves, 160).health is Health.SILENT
    assert judge(moves, 160, Hearing(1.0, 5, 1e9)).health is Health.PROGRESSING
    verdict = judge(replace(moves, idle=10), 160, Hearing(1.0, 5, 1e9))
    assert (verdict.health, verdict.seconds) == (Health.SILENT, 70)


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.1, 600), st.floats(0, 1e6), st.sampled_from(list(Status)))
def test_no_observer_calls_dead_what_it_could_not_hear(
    age: float, silence: float, interval: float, watching: float, status: Status
) -> None:
    """Dead needs a whole allowed silence in which the observer listened; a final status is never in trouble."""
    verdict = judge(replace(BASE, status=status), 100 + age, Hearing(silence, interval, watching))
    if verdict.health is Health.DEAD:
        assert silence >= 3 * interval
        assert watching >= 3 * interval
        assert not status.final
    if status.final:
        assert not verdict.troubled


def test_what_the_process_calls_stuck_stays_so() -> None:
    """While the process holds the verdict, so does every observer: there is one verdict."""
    held = replace(BASE, health=Health.SILENT, stall_after=10, idle=1)
    assert judge(held, 101).health is Health.SILENT
    assert "moving again" in (judge(held, 101).reason or "")
    assert judge(replace(held, health=Health.PROGRESSING), 101).health is Health.PROGRESSING


def test_looping_outranks_silence_and_the_waits_between() -> None:
    """A looping operation is looping, even if it is idle, slow or between two turns."""
    loop = Loop("step", ("a",), 12, 10, 40)
    for snapshot in (
        replace(BASE, loop=loop),
        replace(BASE, loop=loop, stall_after=1, idle=50, slow_after=1),
        replace(BASE, loop=loop, status=Status.WAITING, wait=Wait("back-off", 1.0)),
    ):
        verdict = judge(snapshot, 100)
        assert (verdict.health, verdict.clock) == (Health.LOOPING, "steps")
        assert verdict.reason == loop.reason


def test_the_evidence_says_what_was_last_seen() -> None:
    """Stage, count and message of the last sign are part of a verdict of trouble."""
    seen = replace(
        BASE,
        stall_after=5,
        stage="parse",
        message="reading x.py",
        progress=Progress(completed=12, total=40, unit="file"),
    )
    assert judge(seen, 110).seen == "parse, 12 of 40 files, reading x.py"
    assert judge(seen, 110, Hearing(20)).seen == "parse, 12 of 40 files, reading x.py"


def test_the_evidence_says_where_a_limit_comes_from() -> None:
    """A limit that the user did not set is reported with its source."""
    seen = replace(BASE, stall_after=90, stall_after_source="learned from 41 runs")
    verdict = judge(seen, 190)
    assert verdict.source == "learned from 41 runs"
    assert verdict.reason == "no progress for 90 s, stall_after is 90 s (learned from 41 runs)"


def test_a_heartbeat_of_the_work_is_progress_only_if_declared(progress_capture: Capture) -> None:
    """With heartbeat_counts=True a heartbeat of the work is progress; otherwise, and for the process, it is not."""
    for counts, health in ((True, Health.PROGRESSING), (False, Health.SILENT)):
        with progress.operation("work", stall_after=10, heartbeat_counts=counts) as op:
            for _ in range(15):
                op.heartbeat()
                progress_capture.advance(1)
            assert op.snapshot().health is health


def test_the_word_for_silent_is_stuck() -> None:
    """People read `stuck` for `silent`, and may say either; every other verdict is called by its value."""
    assert word(Health.SILENT) == "stuck"
    assert Health("stuck") is Health("silent") is Health.SILENT
    for health in Health:
        assert Health(word(health)) is health
        assert health is Health.SILENT or word(health) == health.value
    with pytest.raises(ValueError, match="hanging"):
        Health("hanging")
