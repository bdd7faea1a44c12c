"""The values of run series: the current stage, what a loop repeats and costs, and how a series ends."""

from __future__ import annotations

import math

import pytest

import otel_progress as progress
from otel_progress import Operation, StagePlan, semconv
from otel_progress.model.snapshot import Event
from otel_progress.telemetry.memory import Point
from otel_progress.telemetry.run_values import LABEL_TEXT, MARKS
from otel_progress.testing import Capture, capture

STAGE = ("stage.completed", "stage.total", "stage.eta")


def series(captured: Capture, operation: Operation, name: str) -> list[float]:
    """All values that a series of an operation had, in order; NaN where it was ended; `stage.…` are of its stage."""
    of = semconv.OF_STAGE if name.startswith("stage.") else None
    return [
        point.value
        for point in captured.series
        if point.name == f"progress.run.{name.removeprefix('stage.')}"
        and point.attributes[semconv.OPERATION_ID] == operation.id
        and point.attributes.get(semconv.OF) == of
    ]


def last(captured: Capture, operation: Operation, name: str) -> float | None:
    """The last value of a series; None without one, NaN if it was ended."""
    found = series(captured, operation, name)
    return found[-1] if found else None


def health(captured: Capture) -> Point:
    """The last point of the verdict that stands."""
    return [point for point in captured.series if point.name == semconv.RUN_HEALTH.name and point.value == 1][-1]


def work(captured: Capture, handle: progress.Operation | progress.Stage, seconds: int) -> None:
    """One unit a second."""
    for _ in range(seconds):
        handle.advance()
        captured.advance(1)


# -- the current stage


def test_the_stage_counts_where_the_operation_does_not(progress_capture: Capture) -> None:
    """Work in stages without a plan has the count, total and ETA of its stage, and no invented ratio."""
    with progress.operation("backup") as op, progress.stage("upload", total=100) as stage:
        work(progress_capture, stage, 25)
        assert [last(progress_capture, op, name) for name in STAGE] == [21, 100, pytest.approx(80, abs=15)]
        assert health(progress_capture).attributes[semconv.STAGE_NAME] == "upload"
        assert last(progress_capture, op, "ratio") is None
        assert last(progress_capture, op, "completed") is None


def test_no_stage_series_where_the_operation_counts(progress_capture: Capture) -> None:
    """An operation with a count of its own shows that; also if it is 0 so far."""
    with progress.operation("backup", total=3, unit="file") as op, progress.stage("upload", total=100) as stage:
        work(progress_capture, stage, 12)
        assert last(progress_capture, op, "total") == 3
        assert [last(progress_capture, op, name) for name in STAGE] == [None, None, None]


def test_the_ratio_is_rolled_up_from_a_plan(progress_capture: Capture) -> None:
    """With planned weights the ratio of the operation follows from its stages."""
    plan = [StagePlan("load", weight=1), StagePlan("train", weight=3)]
    with progress.operation("fit", plan=plan) as op:
        with progress.stage("load"):
            progress_capture.advance(5)
        with progress.stage("train", total=20) as stage:
            work(progress_capture, stage, 17)
            assert last(progress_capture, op, "ratio") == pytest.approx(0.25 + 0.75 * 15 / 20, abs=0.06)
            assert last(progress_capture, op, "stage.total") == 20


def test_a_stage_that_counts_nothing_shows_the_one_around_it(progress_capture: Capture) -> None:
    """A stage for each item of a counting stage doesn't hide the count."""
    with progress.operation("crawl") as op, progress.stage("pages", total=50) as pages:
        for _ in range(12):
            with progress.stage("page"):
                progress_capture.advance(1)
            pages.advance()
        assert last(progress_capture, op, "stage.total") == 50
        assert last(progress_capture, op, "stage.completed") in (9, 10)


def test_of_parallel_stages_the_last_one_started_shows_then_the_other(progress_capture: Capture) -> None:
    """The rule is that of the stage label: once the newest stage ends, the older one is current again."""
    with progress.operation("mix") as op:
        slow, fast = op.stage("slow", total=1000).start(), op.stage("fast", total=10).start()
        for _ in range(11):
            slow.advance()
            fast.advance()
            progress_capture.advance(1)
        assert (last(progress_capture, op, "stage.total"), health(progress_capture).attributes[semconv.STAGE_NAME]) == (
            10,
            "fast",
        )
        fast.complete()
        work(progress_capture, slow, 10)
        assert last(progress_capture, op, "stage.total") == 1000
        assert health(progress_capture).attributes[semconv.STAGE_NAME] == "slow"
        slow.complete()


def test_the_stuck_one_of_parallel_stages_shows_and_has_no_eta(progress_capture: Capture) -> None:
    """Count and stage label are those of the stage in trouble; what is stuck has no time left."""
    with progress.operation("mix", stall_after=30) as op:
        stuck, moves = op.stage("stuck", total=7).start(), op.stage("moves", total=1000).start()
        stuck.advance(2)
        work(progress_capture, moves, 45)
        assert health(progress_capture).attributes[semconv.STAGE_NAME] == "stuck"
        assert [last(progress_capture, op, name) for name in STAGE[:2]] == [2, 7]
        assert math.isnan(last(progress_capture, op, "stage.eta") or 0)
        stuck.complete()
        moves.complete()


def test_series_of_a_stage_end_with_it(progress_capture: Capture) -> None:
    """When nothing that counts runs, the series are ended in a few exports, and are not sent again."""
    with progress.operation("backup") as op:
        with progress.stage("upload", total=100) as stage:
            work(progress_capture, stage, 21)
        with progress.stage("verify"):
            progress_capture.advance(70)
        found = series(progress_capture, op, "stage.completed")
        assert [math.isnan(value) for value in found] == [False] * (len(found) - MARKS) + [True] * MARKS
        with progress.stage("again", total=5) as stage:
            work(progress_capture, stage, 11)
            assert last(progress_capture, op, "stage.total") == 5


def test_tracks_of_a_stage_count(progress_capture: Capture) -> None:
    """A `track` loop in a stage is the stage's count."""
    with progress.operation("survey") as op, progress.stage("parse"):
        for _ in progress.track(range(40)):
            progress_capture.advance(1)
            if last(progress_capture, op, "stage.total"):
                break
        assert last(progress_capture, op, "stage.total") == 40


def test_an_idle_operation_without_stages_has_no_stage_series(progress_capture: Capture) -> None:
    """Nothing counted, nothing shown."""
    with progress.operation("sleep") as op:
        progress_capture.advance(15)
        assert [last(progress_capture, op, name) for name in STAGE] == [None, None, None]


# -- loops


def test_a_loop_is_named_with_its_repeats_and_its_price(progress_capture: Capture) -> None:
    """The label says what repeats, the gauges how often and what it cost; after the loop they are 0."""
    with progress.operation("agent", loop_after=4) as op:
        progress.advance()
        for _ in range(20):
            for key in ("search", "read"):
                progress.step(key)
                progress.usage(input_tokens=90, output_tokens=10, cost=0.25)
                progress_capture.advance(0.5)
        found = health(progress_capture).attributes
        assert (found[semconv.HEALTH], found[semconv.LOOP]) == ("looping", "read → search")
        assert (last(progress_capture, op, "loop.repeats") or 0) >= 8
        assert (last(progress_capture, op, "loop.tokens") or 0) >= 1600
        assert (last(progress_capture, op, "loop.cost") or 0) >= 4
        labels = {tuple(p.attributes.items()) for p in progress_capture.series if p.attributes.get(semconv.LOOP)}
        assert len(labels) == 1, "the label stays the same while the loop lasts"
        for _ in range(40):
            progress.advance()
            progress_capture.advance(1)
        assert semconv.LOOP not in health(progress_capture).attributes
        names = ("loop.repeats", "loop.tokens", "loop.cost")
        assert [last(progress_capture, op, name) for name in names] == [0, 0, 0]


def test_the_label_of_a_loop_is_bounded_and_redacted(progress_capture: Capture) -> None:
    """Long and secret steps make a short label."""
    with progress.operation("agent", loop_after=3):
        for _ in range(30):
            progress.step("password=hunter2hunter2 " + "x" * 300)
            progress_capture.advance(1)
        text = health(progress_capture).attributes[semconv.LOOP]
    assert len(text) <= LABEL_TEXT
    assert "hunter2" not in text


# -- overdue waits


def limits(captured: Capture, since: int = 0) -> list[tuple[str, float]]:
    """The limits of overdue waits from a point on, each with the reason of its wait."""
    return [
        (str(point.attributes[semconv.WAIT_REASON]), point.value)
        for point in captured.series[since:]
        if point.name == semconv.RUN_OVERDUE_AFTER.name
    ]


def test_an_overdue_wait_is_named_with_its_limit(progress_capture: Capture) -> None:
    """A wait has the series only while it is overdue; then the series is 0 a few times, and ends."""
    with progress.operation("import"):
        with progress.waiting("approval", overdue_after=30):
            progress_capture.advance(29)
            assert limits(progress_capture) == []
            progress_capture.advance(2)
            assert set(limits(progress_capture)) == {("approval", 30)}
            progress_capture.advance(10)
        over = len(progress_capture.series)
        progress_capture.advance(100)
        assert limits(progress_capture, over) == [("approval", 0)] * MARKS


def test_of_two_waits_only_the_current_one_has_a_limit(progress_capture: Capture) -> None:
    """Another wait that is overdue soon after the first one has a series of its own; that of the first one is 0."""
    with progress.operation("import"):
        with progress.waiting("ada", overdue_after=2):
            progress_capture.advance(15)
        over = len(progress_capture.series)
        with progress.waiting("bob", overdue_after=3):
            progress_capture.advance(15)
        assert dict(limits(progress_capture, over)) == {"ada": 0, "bob": 3}


def test_of_parallel_waits_the_one_that_was_due_first_has_a_limit(progress_capture: Capture) -> None:
    """Two branches wait beside one that works: the limit and the reason are of the wait that is overdue for longest."""
    with progress.operation("agent") as op:
        slow, quick, works = (op.stage(name).start() for name in ("slow", "quick", "works"))
        with slow.waiting("the board", overdue_after=20), quick.waiting("a lock", overdue_after=6):
            for _ in range(30):
                works.advance()
                progress_capture.advance(1)
        assert set(limits(progress_capture)) == {("a lock", 6)}


def test_many_overdue_waits_leave_few_series(progress_capture: Capture) -> None:
    """However many waits with reasons of their own were overdue, an export has only the newest ones."""
    with progress.operation("agent"):
        for number in range(30):
            with progress.waiting(f"order {number}", overdue_after=1):
                progress_capture.advance(12)
        over = len(progress_capture.series)
        progress_capture.advance(10)
        assert len(limits(progress_capture, over)) <= MARKS


def test_the_reason_of_an_overdue_wait_is_bounded_and_redacted(progress_capture: Capture) -> None:
    """Long and secret reasons make a short label."""
    with progress.operation("agent"), progress.waiting("password=hunter2hunter2 " + "x" * 300, overdue_after=1):
        progress_capture.advance(12)
    [(reason, _)] = set(limits(progress_capture))
    assert "hunter2" not in reason
    assert len(reason) <= LABEL_TEXT


# -- several troubles at once


def verdicts(captured: Capture) -> dict[tuple[str, str | None, str | None], float]:
    """The last value of each series of verdicts, by verdict, stage and loop."""
    return {
        tuple(point.attributes.get(key) for key in (semconv.HEALTH, semconv.STAGE_NAME, semconv.LOOP)): point.value  # type: ignore[misc]
        for point in captured.series
        if point.name == semconv.RUN_HEALTH.name
    }


def test_a_loop_beside_a_hang_stays_visible(progress_capture: Capture) -> None:
    """A stuck branch is the verdict; a loop beside it has a series of its own, and both are over when they are over."""
    silent, loops = ("silent", "hangs", None), ("looping", "searches", "search cats")
    with progress.operation("agent", loop_after=5) as op:
        searches = op.stage("searches").start()
        op.stage("hangs", stall_after=30).start()
        for second in range(90):
            if second < 70:
                searches.step("search cats")
            if second == 25:  # the loop is the verdict so far
                found = verdicts(progress_capture)
                assert (found[loops], silent in found) == (1, False)
            if second == 55:
                found = verdicts(progress_capture)
                assert (found[silent], found[loops]) == (1, 1)
                assert last(progress_capture, op, "loop.repeats") == pytest.approx(50, abs=10)
            if second == 80:
                searches.advance()
            progress_capture.advance(1)
        found = verdicts(progress_capture)
        assert (found[silent], found[loops]) == (1, 0)
        times = [point for point in progress_capture.series if point.name == semconv.RUN_HEALTH.name]
        assert len({(str(it.attributes), it.time) for it in times}) == len(times), "two values at one time"


def test_an_overdue_wait_beside_a_hang_has_its_own_stage(progress_capture: Capture) -> None:
    """The stage of an overdue wait is the one that waits, not the one that is stuck beside it."""
    with progress.operation("order") as op:
        approval, net = op.stage("approval").start(), op.stage("net", stall_after=20).start()
        with approval.waiting("the boss", overdue_after=40):
            progress_capture.advance(60)
        points = [point for point in progress_capture.series if point.name == semconv.RUN_OVERDUE_AFTER.name]
        assert {point.attributes.get(semconv.STAGE_NAME) for point in points} == {"approval"}
        assert health(progress_capture).attributes[semconv.STAGE_NAME] == "net"
        net.complete()


# -- the ETA


def told(captured: Capture) -> Event:
    """The last event that left."""
    return captured.events[-1]


def test_series_and_events_have_the_same_eta() -> None:
    """Between two updates the ETA of steady work is the one that readers were told, as they run it down."""
    with capture(update_interval=None) as captured, progress.operation("survey", total=4_000) as op:
        work(captured, op, 900)
        compared = 0
        for _ in range(100):
            known, event = len(captured.series), told(captured)
            work(captured, op, 1)
            for point in captured.series[known:]:
                if point.name == semconv.RUN_ETA.name and told(captured) is event:
                    seen = event.snapshot.at(point.time / 1e9).progress.eta
                    assert seen is not None
                    assert point.value == pytest.approx(seen.eta, abs=0.001)
                    compared += 1
        assert compared > 3


def test_a_series_does_not_wait_for_an_update_to_tell_another_pace() -> None:
    """Where the count goes on twice as fast as readers were told, the next export has the ETA of now."""
    with capture(update_interval=60) as captured, progress.operation("survey", total=700) as op:
        work(captured, op, 600)
        event = told(captured)
        while told(captured) is event:
            work(captured, op, 1)
        event = told(captured)
        for _ in range(12):
            op.advance(2)
            captured.advance(1)
        point = [point for point in captured.series if point.name == semconv.RUN_ETA.name][-1]
        seen = event.snapshot.at(point.time / 1e9).progress.eta
        assert told(captured) is event
        assert seen is not None
        assert point.value < 0.93 * seen.eta


def test_a_series_has_no_eta_once_all_is_counted() -> None:
    """What readers were told is over when no unit is left."""
    with capture(update_interval=60) as captured, progress.operation("survey", total=620) as op:
        work(captured, op, 605)
        op.advance(15)
        captured.advance(12)
        assert last(captured, op, "completed") == 620
        assert math.isnan(last(captured, op, "eta") or 0.0)
