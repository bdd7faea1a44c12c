"""Loops: what repeats, and what must not be called a loop."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Health, semconv
from otel_progress.live.engine.loops import LOOP_AFTER, QUIET, STAGES_AFTER, STAGES_QUIET
from otel_progress.model.loop import CYCLE, Loop, Steps
from otel_progress.testing import Capture


def steps(keys: str) -> Steps:
    taken = Steps()
    for key in keys:
        taken.add(key)
    return taken


@given(st.lists(st.sampled_from("abcdefghijk"), min_size=1, max_size=CYCLE, unique=True), st.integers(2, 30))
def test_a_cycle_is_found_at_exactly_its_limit(turn: list[str], limit: int) -> None:
    """A cycle of up to eight steps is found exactly when it has come `limit` times in a row."""
    keys = list(islice(cycle(turn), len(turn) * limit))
    taken = steps("".join(keys[:-1]))
    assert taken.found(limit) is None
    taken.add(keys[-1])
    assert taken.found(limit) == (tuple(turn), limit)


@given(st.lists(st.integers(0, 10_000), unique=True, max_size=200))
def test_steps_that_never_come_again_are_no_loop(keys: list[int]) -> None:
    """Work on ever new things is no loop, however long."""
    taken = Steps()
    for key in keys:
        taken.add(str(key))
    assert taken.found(2) is None


def test_another_step_breaks_the_row() -> None:
    """One other step between, and the count starts again."""
    assert steps("a" * 9 + "b" + "a" * 9).found(10) is None
    assert steps("a" * 9 + "b" + "a" * 10).found(10) == (("a",), 10)
    assert steps("ab" * 9 + "c" + "ab" * 9).found(10) is None


def test_the_shortest_cycle_is_reported() -> None:
    """Ten times the same step is that step, not five times a pair of it."""
    assert steps("a" * 20).found(10) == (("a",), 20)


def test_a_cycle_of_more_than_eight_is_not_found() -> None:
    """The memory is bounded, so longer cycles are not found."""
    assert steps("abcdefghi" * 20).found(2) is None


def turn(captured: Capture, *keys: str, times: int, each: float = 1.0) -> None:
    for _ in range(times):
        for key in keys:
            progress.step(key)
            captured.advance(each)


def test_a_cycle_of_tool_calls_is_looping_once(progress_capture: Capture) -> None:
    """The same two calls again and again: one event, with the cycle as evidence."""
    with progress.operation("agent") as op:
        turn(progress_capture, "search cats", "read cats", times=LOOP_AFTER + 5)
        stalled = progress_capture.of(semconv.STALLED)
        assert len(stalled) == 1
        snapshot = stalled[0].snapshot
        assert snapshot.health is Health.LOOPING
        assert snapshot.loop is not None
        assert (snapshot.loop.kind, snapshot.loop.repeats, snapshot.loop.limit) == ("step", LOOP_AFTER, LOOP_AFTER)
        assert set(snapshot.loop.keys) == {"search cats", "read cats"}
        assert "10 times in a row" in (snapshot.health_reason or "")
        assert op.snapshot().health is Health.LOOPING


def test_one_less_is_no_loop(progress_capture: Capture) -> None:
    """A retry that comes to an end within the limit is fine."""
    with progress.operation("agent") as op:
        turn(progress_capture, "GET /", times=LOOP_AFTER - 1)
        assert op.snapshot().health is Health.PROGRESSING
        turn(progress_capture, "GET /next", times=LOOP_AFTER - 1)
        assert op.snapshot().health is Health.PROGRESSING
    assert not progress_capture.of(semconv.STALLED)


def test_steps_with_progress_are_work(progress_capture: Capture) -> None:
    """The same step for each unit is how most work looks."""
    with progress.operation("crawl", total=100) as op:
        for _ in range(100):
            op.step("fetch")
            op.step("store")
            op.advance()
            progress_capture.advance(0.3)
    assert not progress_capture.of(semconv.STALLED)


def test_steps_right_after_progress_count(progress_capture: Capture) -> None:
    """Which steps came before a unit and which after it is known exactly, however rarely counts are read."""
    with progress.operation("crawl", loop_after=5) as op:
        for _ in range(4):
            op.step("a")
        op.advance()
        for _ in range(5):
            op.step("a")
        progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING
    with progress.operation("crawl", loop_after=5) as op:
        for _ in range(4):
            op.step("a")
        op.advance()
        for _ in range(4):
            op.step("a")
        progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING


def test_many_steps_within_a_unit_are_work_where_units_take_long(progress_capture: Capture) -> None:
    """Repeats within twice the time of the longest unit so far are no loop."""
    with progress.operation("crawl", total=10) as op:
        for number in range(9):
            progress_capture.advance(60)
            op.advance()
            assert op.snapshot().health is Health.PROGRESSING, number
        for _ in range(110):
            op.step("poll")
            progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING
        for _ in range(25):
            op.step("poll")
            progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING


def test_it_recovers_with_the_first_unit_and_holds(progress_capture: Capture) -> None:
    """New progress ends the loop, once it lasts; the event says how long it took."""
    with progress.operation("agent", total=10) as op:
        turn(progress_capture, "a", times=LOOP_AFTER + 1)
        assert op.snapshot().health is Health.LOOPING
        op.advance()
        progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING
        progress_capture.advance(10)
        assert op.snapshot().health is Health.PROGRESSING
    recovered = progress_capture.of(semconv.RECOVERED)
    assert len(recovered) == 1
    assert recovered[0].attributes[semconv.STALL_DURATION] == pytest.approx(LOOP_AFTER + 1, abs=2)


def test_a_loop_that_stops_is_silent_or_fine(progress_capture: Capture) -> None:
    """Without further steps nothing loops: it is silent where a limit says so."""
    with progress.operation("agent", stall_after=100) as op:
        op.advance()
        turn(progress_capture, "a", times=LOOP_AFTER + 1)
        assert op.snapshot().health is Health.LOOPING
        progress_capture.advance(101)
        assert op.snapshot().health is Health.SILENT


def test_the_limit_can_be_said(progress_capture: Capture) -> None:
    """`loop_after=3` means three, at once, for steps and for stages."""
    with progress.operation("agent", loop_after=3) as op:
        turn(progress_capture, "a", times=3, each=0.1)
        progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING
    with progress.operation("agent", loop_after=3) as op:
        for _ in range(3):
            with progress.stage("think"):
                progress_capture.advance(0.1)
        progress_capture.advance(1)
        loop = op.snapshot().loop
        assert loop is not None
        assert (loop.kind, loop.keys, loop.repeats) == ("stage", ("think",), 3)


@pytest.mark.parametrize("bad", [1, 0, -3, 2.5, "3", True])
def test_a_bad_limit_says_what_is_right(bad: object) -> None:
    """An invalid limit is refused where it is given."""
    with pytest.raises(progress.InvalidArgument, match="whole number of at least 2"):
        progress.operation("x", loop_after=bad)  # type: ignore[call-overload]


def test_stages_that_complete_are_no_loop_where_nothing_is_counted(progress_capture: Capture) -> None:
    """An agent that thinks and acts in turn, and counts nothing, is at work."""
    with progress.operation("agent", stall_after=30) as op:
        for _ in range(200):
            for name in ("think", "act"):
                with progress.stage(name):
                    op.usage(input_tokens=10)
                    progress_capture.advance(2)
        assert op.snapshot().health is Health.PROGRESSING
    assert not progress_capture.of(semconv.STALLED)


def test_stages_that_repeat_for_each_unit_are_work(progress_capture: Capture) -> None:
    """A stage for each part of a unit is no loop while units come."""
    with progress.operation("embed", total=20, stall_after=30) as op:
        for _ in range(5):
            for _ in range(50):
                with progress.stage("chunk"):
                    progress_capture.advance(1)
            op.advance()
    assert not progress_capture.of(semconv.STALLED)


def test_stages_that_repeat_while_units_stand_still_are_looping(progress_capture: Capture) -> None:
    """Where units are counted, and none comes for long while the same stages complete again and again, it loops."""
    with progress.operation("embed", total=20) as op:
        op.advance()
        progress_capture.advance(1)
        passed = 0.0
        while op.snapshot().health is Health.PROGRESSING and passed < 3 * STAGES_QUIET:
            for name in ("load", "check"):
                with progress.stage(name):
                    progress_capture.advance(2)
            passed += 4
        assert STAGES_QUIET <= passed <= STAGES_QUIET + 5
        loop = op.snapshot().loop
        assert loop is not None
        assert loop.kind == "stage"
        assert loop.repeats >= STAGES_AFTER


def test_units_counted_in_a_short_stage_are_progress(progress_capture: Capture) -> None:
    """A stage that begins, counts and ends between two looks has made progress."""
    with progress.operation("embed", loop_after=5) as op:
        for _ in range(50):
            with progress.stage("batch") as stage:
                stage.advance()
            progress_capture.advance(0.3)
        assert op.snapshot().health is Health.PROGRESSING


def test_a_stage_that_fails_again_and_again_is_looping(progress_capture: Capture) -> None:
    """A retry loop: the same stage failed ten times in a row."""
    with progress.operation("sync") as op:
        for _ in range(LOOP_AFTER):
            assert op.snapshot().health is Health.PROGRESSING
            with pytest.raises(OSError), progress.stage("connect"):
                raise OSError("refused")
            progress_capture.advance(1)
        loop = op.snapshot().loop
        assert loop is not None
        assert (loop.kind, loop.keys) == ("failure", ("connect",))
        assert "connect failed 10 times in a row" in (op.snapshot().health_reason or "")


def test_stages_that_fail_on_different_things_are_no_loop(progress_capture: Capture) -> None:
    """A stage whose message says what it works on is another step for each; a batch that fails is no retry."""
    with progress.operation("sync") as op:
        for number in range(3 * LOOP_AFTER):
            with pytest.raises(OSError), progress.stage("fetch", message=f"page {number}"):
                raise OSError("refused")
            progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING


def test_a_success_between_failures_is_no_loop(progress_capture: Capture) -> None:
    """A stage that comes through now and then is at work."""
    with progress.operation("sync") as op:
        for number in range(5 * LOOP_AFTER):
            try:
                with progress.stage("connect"):
                    if number % 5:
                        raise OSError("refused")
            except OSError:
                pass
            progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING


def test_cost_that_grows_while_work_does_not_is_looping_not_silent(progress_capture: Capture) -> None:
    """Past its idle limit, one that keeps spending is busy; one that stopped spending is silent."""
    for busy, health in ((True, Health.LOOPING), (False, Health.SILENT)):
        with progress.operation("agent", stall_after=30) as op:
            op.advance()
            for second in range(35):
                if busy or second < 10:
                    op.usage(output_tokens=50)
                progress_capture.advance(1)
            snapshot = op.snapshot()
            assert snapshot.health is health
            if busy:
                assert snapshot.loop is not None
                assert snapshot.loop.kind == "usage"
                assert snapshot.loop.spent["output_tokens"] >= 30 * 50


def test_waits_between_the_turns_don_t_hide_a_loop(progress_capture: Capture) -> None:
    """A retry that waits before each turn is looping as well, and is reported once."""
    with progress.operation("sync") as op:
        for _ in range(LOOP_AFTER + 5):
            op.step("GET /")
            with op.waiting("back-off"):
                progress_capture.advance(2)
        assert op.snapshot().health is Health.LOOPING
    assert len(progress_capture.of(semconv.STALLED)) == 1


def test_no_loop_is_reported_within_seconds(progress_capture: Capture) -> None:
    """A burst of the same step is no loop before it lasted a little."""
    with progress.operation("poll") as op:
        for _ in range(100):
            op.step("x")
        progress_capture.advance(QUIET - 1)
        assert op.snapshot().health is Health.PROGRESSING
        op.step("x")
        progress_capture.advance(2)
        assert op.snapshot().health is Health.LOOPING


@pytest.mark.parametrize("key", [None, 3, ("search", 4), "x" * 5000, b"bytes", object()])
def test_any_key_will_do(key: object, progress_capture: Capture) -> None:
    """A key of any kind is a step, and never breaks the job."""
    with progress.operation("agent") as op:
        for _ in range(LOOP_AFTER + 1):
            progress.step(key)
            progress_capture.advance(1)
        assert op.snapshot().health is Health.LOOPING


def test_long_keys_that_differ_at_their_end_differ(progress_capture: Capture) -> None:
    """What is cut from a key still counts."""
    with progress.operation("agent") as op:
        for number in range(50):
            op.step("x" * 3000 + str(number))
            progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING


def test_outside_an_operation_a_step_does_nothing() -> None:
    """It says so once, as all module functions do."""
    progress.step("anywhere")


def test_the_reason_reads_well() -> None:
    """The evidence is a sentence."""
    loop = Loop("step", ("search", "read"), 12, 10, 41.2)
    assert loop.reason == "search → read came 12 times in a row with no new progress for 41 s, loop_after is 10"


@pytest.mark.parametrize("staged", [False, True])
def test_polls_for_each_unit_are_called_a_loop_once_at_most(staged: bool, progress_capture: Capture) -> None:
    """Before the first unit nothing tells a poll from a loop; once units come, repeats within twice the longest do."""
    told: list[Health] = []
    with progress.operation("poll") as op:
        op.on_verdict(lambda old, new, seen: told.append(new))
        for _ in range(9):
            with progress.stage("wait") if staged else nullcontext():
                for _ in range(20):
                    progress.step("poll job")
                    progress_capture.advance(0.4)
            op.advance()
        assert op.snapshot().health is Health.PROGRESSING
        assert told == [Health.LOOPING, Health.PROGRESSING]
        assert len(progress_capture.of(semconv.STALLED)) == len(progress_capture.of(semconv.RECOVERED)) == 1


def test_a_loop_is_found_again_after_one_that_ended(progress_capture: Capture) -> None:
    """Where units are known, a long loop that ended with one does not become the norm."""
    with progress.operation("agent") as op:
        for _ in range(2):
            for number in range(9):
                op.step(f"new {number}")
                progress_capture.advance(1)
                op.advance()
            turn(progress_capture, "same", times=60)
            assert op.snapshot().health is Health.LOOPING
            op.advance()
            progress_capture.advance(11)
    stalled = progress_capture.of(semconv.STALLED)
    assert len(stalled) == 2
    loops = [event.snapshot.loop for event in stalled]
    assert all(loop is not None and loop.seconds < 60 for loop in loops)
