"""The ETA of real structures: stages, children, resumed runs, growing totals, waits, stalls, and earlier runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import otel_progress as progress
from otel_progress import InvalidArgument, StagePlan
from otel_progress.live.engine import learning, runtime
from otel_progress.model.estimate import Estimate
from otel_progress.model.history import Learned
from otel_progress.model.usual_waits import UsualWaits
from otel_progress.testing import Capture


def eta(handle: progress.Operation | progress.Stage) -> Estimate:
    """The estimate of a handle, which must have one."""
    found = handle.snapshot().progress.eta
    assert found is not None
    return found


def work(capture: Capture, units: int, seconds: float = 1.0) -> None:
    """Complete units of the innermost handle, each after some seconds."""
    for _ in range(units):
        capture.advance(seconds)
        progress.advance()


# -- resumed runs


def test_restored_units_are_done_and_no_pace(progress_capture: Capture) -> None:
    """`restored=` counts as done from the start; the ETA follows the units of this run alone."""
    with progress.operation("train", total=1000, restored=500) as op:
        assert op.snapshot().progress.completed == 500
        assert op.snapshot().progress.eta is None
        work(progress_capture, 20)
        assert op.snapshot().progress.completed == 520
        assert eta(op).eta == pytest.approx(480, rel=0.1)


def test_a_count_set_right_at_the_start_is_restored(progress_capture: Capture) -> None:
    """`update(completed=500)` as the first thing names the units of an earlier run."""
    with progress.operation("train", total=1000) as op:
        op.update(completed=500)
        progress_capture.advance(5)
        assert op.snapshot().progress.eta is None
        work(progress_capture, 20)
        assert eta(op).eta == pytest.approx(480, rel=0.35)


def test_a_count_set_later_is_work(progress_capture: Capture) -> None:
    """`update(completed=)` after the first second, or one by one, is work of this run, as the next one shows."""
    with progress.operation("train", total=100) as op:
        progress_capture.advance(20)
        op.update(completed=20)
        progress_capture.advance(1)
        assert op.snapshot().progress.eta is None, "it may be what an earlier run completed"
        progress_capture.advance(19)
        op.update(completed=40)
        progress_capture.advance(1)
        assert eta(op).eta == pytest.approx(60, rel=0.25)
    with progress.operation("one by one", total=100) as op:
        for number in range(1, 31):
            op.update(completed=number)
            progress_capture.advance(0.5)
        assert eta(op).eta == pytest.approx(35, rel=0.15)


def test_a_loop_continues_where_an_earlier_run_stopped(progress_capture: Capture) -> None:
    """`track(initial=)` counts the items of an earlier run as done; the iterable has the rest."""
    with progress.operation("copy") as op:
        for number, _ in enumerate(progress.track(range(60, 100), initial=60)):
            progress_capture.advance(1)
            if number == 19:
                seen = op.snapshot().progress
                assert (seen.completed, seen.total) == (79, 100)
                assert eta(op).eta == pytest.approx(21, rel=0.15)
    assert op.snapshot().progress.completed == 100


def test_a_given_total_includes_the_restored_items(progress_capture: Capture) -> None:
    """`track(initial=, total=)` of a generator means the total of both runs."""
    with progress.operation("copy") as op:
        for _ in progress.track((n for n in range(5)), initial=5, total=10):
            progress_capture.advance(1)
        assert (op.snapshot().progress.completed, op.snapshot().progress.total) == (10, 10)


@pytest.mark.parametrize("wrong", [-1, float("nan"), "many"])
def test_restored_must_be_a_count(wrong: object) -> None:
    """`restored` that is no count of at least 0 is refused, with the option's name."""
    with pytest.raises(InvalidArgument, match="restored must be a number of at least 0"):
        progress.operation("train", restored=wrong)  # type: ignore[call-overload]


def test_more_initial_items_than_the_total_are_ignored(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """`track(initial=)` above the total is ignored with a warning that says why; the loop runs on."""
    with progress.operation("copy") as op:
        assert list(progress.track(range(3), initial=50, total=10)) == [0, 1, 2]
        assert op.snapshot().progress.completed == 3
    assert "initial" in caplog.text


def test_a_decorated_function_restores_in_each_call(progress_capture: Capture) -> None:
    """`restored=` of a decorator applies to each call."""

    @progress.operation("train", total=100, restored=40)
    def train() -> float | None:
        return progress.current().snapshot().progress.completed

    assert [train(), train()] == [40, 40]


# -- totals, retries, waits, stalls


def test_a_total_that_becomes_known_gives_an_eta(progress_capture: Capture) -> None:
    """Without a total there is no ETA; as soon as it is known, the pace so far makes one."""
    with progress.operation("crawl") as op:
        work(progress_capture, 30)
        assert op.snapshot().progress.eta is None
        op.update(total=100)
        assert eta(op).eta == pytest.approx(70, rel=0.1)


def test_a_total_that_grows_raises_the_eta(progress_capture: Capture) -> None:
    """New units need time at the pace so far."""
    with progress.operation("crawl", total=50) as op:
        work(progress_capture, 30)
        assert eta(op).eta == pytest.approx(20, rel=0.15)
        op.update(total=130)
        assert eta(op).eta == pytest.approx(100, rel=0.15)


def test_a_machine_that_slept_did_not_work_slower(progress_capture: Capture) -> None:
    """Time in which the whole process stood still is no time of the pace."""
    with progress.operation("work", total=100) as op:
        work(progress_capture, 30)
        progress_capture.clock.sleep(3600)
        runtime.ticker.round(sample=True)
        work(progress_capture, 3)
        assert eta(op).eta == pytest.approx(67, rel=0.15)


def test_a_stalled_run_says_so_instead_of_running_away(progress_capture: Capture) -> None:
    """While nothing moves the ETA first runs down and then is none; it never grows with the stall."""
    with progress.operation("work", total=100, stall_after=60) as op:
        work(progress_capture, 30)
        before = eta(op).eta
        for _ in range(120):
            progress_capture.advance(1)
            found = op.snapshot().progress.eta
            assert found is None or found.eta <= before + 1
        assert op.snapshot().progress.eta is None


def test_a_retry_estimates_anew(progress_capture: Capture) -> None:
    """A stage that runs again after a failure has an estimate of its own pace."""
    with progress.operation("work"):
        with pytest.raises(OSError), progress.stage("load", total=50):
            work(progress_capture, 20, 5.0)
            raise OSError
        with progress.stage("load", total=50) as again:
            work(progress_capture, 20)
            assert eta(again).eta == pytest.approx(30, rel=0.25)


# -- stages and children


def test_stages_side_by_side_count_by_the_longest(progress_capture: Capture) -> None:
    """Two running stages of a plan take as long as the slower one, not both together."""
    with progress.operation("work", plan=["fast", "slow"]) as op:
        fast, slow = op.stage("fast", total=100).start(), op.stage("slow", total=100).start()
        for _ in range(20):
            progress_capture.advance(1)
            fast.advance(2)
            slow.advance(1)
        assert eta(op).eta == pytest.approx(80, rel=0.15)
        assert eta(op).source == "rate"


def test_stages_to_come_add_to_the_running_one(progress_capture: Capture) -> None:
    """The running stage counts by its pace, those to come by the plan."""
    with progress.operation("work", plan=[StagePlan("a", expected=100), StagePlan("b", expected=50)]) as op:
        with op.stage("a", total=40):
            work(progress_capture, 20)
            found = eta(op)
            assert found.eta == pytest.approx(70, rel=0.15)
            assert found.low < found.eta < found.high


def test_planned_stages_without_times_take_those_of_earlier_runs(progress_capture: Capture) -> None:
    """From the second run on, each planned stage is expected to take as long as before."""
    for number in range(2):
        with progress.operation("nightly", plan=["load", "report"]) as op:
            with op.stage("load", total=20):
                work(progress_capture, 10)
                if number:
                    found = eta(op)
                    assert found.eta == pytest.approx(10 + 60, rel=0.2)
                    assert (found.source, found.runs) == ("history", 1)
                work(progress_capture, 10)
            with op.stage("report"):
                progress_capture.advance(60)


def test_stages_that_no_plan_names_are_expected_by_earlier_runs(progress_capture: Capture) -> None:
    """An operation without plan and count is expected to take as long as its earlier runs, all their stages included."""
    for number in range(4):
        with progress.operation("deploy") as op:
            with op.stage("build"):
                progress_capture.advance(30)
            if number >= 2:
                found = eta(op)
                assert found.eta == pytest.approx(60, rel=0.25)
                assert (found.source, found.runs) == ("history", number)
            with op.stage("roll out"):
                progress_capture.advance(60)


def test_children_are_parts_of_the_next_units(progress_capture: Capture) -> None:
    """A running child counts as a fraction of a unit, so the ETA does not wait for its end."""
    with progress.operation("all", total=4) as op:
        for _ in range(2):
            with progress.operation("part", total=20):
                work(progress_capture, 20)
            op.advance()
        with progress.operation("part", total=20):
            work(progress_capture, 10)
            assert eta(op).eta == pytest.approx(30, rel=0.25)


# -- earlier runs


def test_the_second_run_has_an_estimate_before_its_first_unit(progress_capture: Capture) -> None:
    """A name that ran before is expected to take as long a unit as before, from the start."""
    for number in range(2):
        with progress.operation("import", total=50) as op:
            if number:
                progress_capture.advance(1)
                found = eta(op)
                assert found.eta == pytest.approx(99, rel=0.1)
                assert (found.source, found.runs) == ("history", 1)
            work(progress_capture, 50, 2.0)


def test_a_run_that_failed_teaches_no_duration(progress_capture: Capture) -> None:
    """Only completed runs are expected to happen again."""
    with pytest.raises(OSError), progress.operation("import", total=50):
        work(progress_capture, 5, 2.0)
        raise OSError
    with progress.operation("import", total=50) as op:
        progress_capture.advance(1)
        assert op.snapshot().progress.eta is None


def test_what_runs_taught_is_kept_in_the_file(progress_capture: Capture, tmp_path: Path) -> None:
    """The history file has how runs went; a file from before it is read as well."""
    with progress.operation("import", total=50):
        work(progress_capture, 50, 2.0)
    progress_capture.advance(1)
    known = learning.learning.learned(progress.operation("import"), "")
    assert known is not None
    path = tmp_path / "history.json"
    learning.write(path, {("import", ""): known})
    assert learning.read(path)["import", ""].course.runs == 1
    path.write_text(path.read_text().replace('"course"', '"other"'))
    assert learning.read(path)["import", ""].course.runs == 0


def test_thousands_of_operations_share_a_bound_on_tests(progress_capture: Capture) -> None:
    """Above the bound of a second, an estimate follows the rate; none is missing."""
    many = [progress.operation("many", total=100).start() for _ in range(60)]
    for _ in range(20):
        for op in many:
            op.advance()
        progress_capture.advance(1)
    found = [eta(op) for op in many]
    assert all(one.eta == pytest.approx(80, rel=0.2) for one in found)
    assert all(one.low < one.eta < one.high for one in found)
    for op in many:
        op.complete()


def diamond() -> list[StagePlan]:
    """A plan whose middle stages need nothing of each other."""
    return [
        StagePlan("load", expected=10),
        StagePlan("words", expected=20, depends_on=("load",)),
        StagePlan("images", expected=60, depends_on=("load",)),
        StagePlan("publish", expected=30, depends_on=("words", "images")),
    ]


def test_a_plan_that_names_what_stages_need_counts_by_the_longest_path(progress_capture: Capture) -> None:
    """Of words (20 s) and images (60 s) only the longer one counts: before their start, and while they run."""
    with progress.operation("book", plan=diamond()) as op:
        with op.stage("load"):
            progress_capture.advance(5)
            assert eta(op).eta == pytest.approx(95, rel=0.05)
            progress_capture.advance(5)
        op.stage("words").start()
        images = op.stage("images", total=60).start()
        for _ in range(15):
            progress_capture.advance(1)
            images.advance()
        assert eta(op).eta == pytest.approx(75, rel=0.1)


def test_stages_that_do_not_run_side_by_side_add_up(progress_capture: Capture) -> None:
    """A stage that may start, and does not while another runs, shows that they come one after the other."""
    with progress.operation("book", plan=diamond()) as op:
        with op.stage("load"):
            progress_capture.advance(10)
        with op.stage("words"):
            progress_capture.advance(10)
            assert eta(op).eta == pytest.approx(10 + 60 + 30, rel=0.05)


def test_three_units_of_twenty_minutes_each(progress_capture: Capture) -> None:
    """There is no estimate before the first one, then one that runs down calmly and is never above its time."""
    with progress.operation("train", total=3, unit="model") as op:
        progress_capture.advance(1200)
        assert op.snapshot().progress.eta is None
        op.advance()
        before = 2400 * 1.25
        for _ in range(40):
            progress_capture.advance(30)
            found = op.snapshot().progress.eta
            assert found is not None
            assert 1200 * 0.75 <= found.eta <= before + 1
            before = found.eta


def test_a_job_that_takes_less_than_a_second_has_no_nonsense(progress_capture: Capture) -> None:
    """What ends before the first look has no estimate, and none below zero."""
    with progress.operation("tiny", total=10) as op:
        for _ in range(10):
            progress_capture.clock.sleep(0.05)
            op.advance()
            found = op.snapshot().progress.eta
            assert found is None or 0 <= found.low <= found.eta <= found.high
    assert op.snapshot().progress.eta is None


@pytest.mark.parametrize("unit", ["row", None])
@pytest.mark.parametrize("restored", [None, 100])
def test_a_stage_in_another_unit_is_no_part_of_a_unit(
    restored: int | None, unit: str | None, progress_capture: Capture
) -> None:
    """Five files that are downloaded before 1,000 rows say nothing about the rows: no ETA, then that of the rows."""
    with progress.operation("import", total=1000, unit=unit, restored=restored) as op:
        with progress.stage("download", total=5, unit="file"):
            for _ in range(5):
                work(progress_capture, 1, 2.0)
                assert op.snapshot().progress.eta is None
        progress_capture.advance(3)
        assert op.snapshot().progress.eta is None
        with progress.stage("insert", unit="row"):
            for _ in range(30):
                progress_capture.advance(0.1)
                progress.advance(10)
            assert unit is None or eta(op).eta < 60  # two units, and none named: nobody knows which one is meant


def test_stages_in_another_unit_are_parts_once_a_unit_was_counted(progress_capture: Capture) -> None:
    """From the second epoch on, its batches are a part of it."""
    with progress.operation("train", total=10, unit="epoch") as op:
        for epoch in range(2):
            with progress.stage(f"epoch {epoch}", total=20, unit="batch"):
                work(progress_capture, 10, 3.0)
                assert (op.snapshot().progress.eta is None) is not bool(epoch)
                assert op.snapshot().progress.ratio_raw == pytest.approx((epoch + 0.5) / 10)
                work(progress_capture, 10, 3.0)
            op.advance()


def test_all_units_done_leaves_no_eta(progress_capture: Capture) -> None:
    """Earlier runs that ended with their last unit say nothing about a count that has reached its total."""
    for _ in range(3):
        with progress.operation("single", total=1) as op:
            progress_capture.advance(60)
            progress.advance()
            assert op.snapshot().progress.eta is None
    for run in range(3):
        with progress.operation("at once", total=1) as op:
            op.advance()
            assert run or op.snapshot().progress.eta is None
            progress_capture.advance(60)


# -- waits to come, growing totals, resumed runs, plans of names


def limited(captured: Capture, units: int, stop: int | None = None) -> Estimate | None:
    """A run of 1 s a unit that waits 10 s after every fifth one; returns its estimate at a unit."""
    found = None
    with progress.operation("limited", total=units) as op:
        for unit in range(1, units + 1):
            captured.advance(1)
            op.advance()
            if unit == stop:
                found = op.snapshot().progress.eta
            if unit % 5 == 0:
                with op.waiting("rate limit"):
                    captured.advance(10)
    return found


def test_waits_that_earlier_runs_had_are_expected(progress_capture: Capture) -> None:
    """After a run that waited 10 times, the second one knows of those that are still to come."""
    limited(progress_capture, 50)
    found = limited(progress_capture, 50, stop=22)
    assert found is not None
    assert found.eta == pytest.approx(28 + 60, rel=0.1)
    assert found.low <= 88 <= found.high


def test_waits_of_one_run_among_others_are_not_expected(progress_capture: Capture) -> None:
    """An approval of an hour in one run of several says nothing about the next one."""
    for number in range(4):
        with progress.operation("deploy", total=40) as op:
            if number == 1:
                with op.waiting("approval"):
                    progress_capture.advance(3600)
            for unit in range(40):
                progress_capture.advance(1)
                op.advance()
                if number == 3 and unit == 19:
                    found = op.snapshot().progress.eta
                    assert found is not None
                    assert found.eta == pytest.approx(20, rel=0.15)


def test_waits_are_kept_in_the_file(progress_capture: Capture, tmp_path: Path) -> None:
    """What is known of waits survives the process; damaged values are refused."""
    known = Learned()
    known.runs = 1
    known.waits.add(60.0, 3)
    assert Learned.from_dict(known.to_dict()).waits == known.waits
    with pytest.raises(ValueError, match="waits"):
        UsualWaits.from_list([1, float("nan"), 0, 0])


@pytest.mark.parametrize("ahead", [3, 10])
def test_a_queue_that_grows_has_no_end(ahead: int, progress_capture: Capture) -> None:
    """While the total stays ahead of the count by as much there is no estimate; it returns once the queue is closed."""
    with progress.operation("queue", total=ahead) as op:
        for unit in range(150):
            op.update(total=min(180, unit + ahead + 1))
            progress_capture.advance(1)
            op.advance()
            if unit >= 20:
                assert op.snapshot().progress.eta is None
        op.update(total=200)
        for _ in range(40):
            progress_capture.advance(1)
            op.advance()
        found = op.snapshot().progress.eta
    assert found is not None
    assert found.low <= 10 <= found.high


def test_a_total_that_grew_and_stays_has_an_estimate(progress_capture: Capture) -> None:
    """A crawler that has found all its pages has an estimate again."""
    with progress.operation("crawl", total=20) as op:
        for unit in range(150):
            op.update(total=min(200, 20 + 2 * unit))
            op.advance()
            progress_capture.advance(1)
        found = op.snapshot().progress.eta
    assert found is not None
    assert found.low <= 50 <= found.high


def test_a_resumed_run_uses_earlier_runs(progress_capture: Capture) -> None:
    """If the second half of the units is three times slower, a run resumed at the half expects that."""
    for _ in range(2):
        with progress.operation("import", total=100) as op:
            for unit in range(100):
                progress_capture.advance(1 if unit < 50 else 3)
                op.advance()
    with progress.operation("import", total=100, restored=50) as op:
        progress_capture.advance(3)
        op.advance()
        progress_capture.advance(1)
        found = op.snapshot().progress.eta
    assert found is not None
    assert found.eta == pytest.approx(146, rel=0.15)


def test_a_plan_of_names_alone_has_no_estimate_at_first(progress_capture: Capture) -> None:
    """Two of three stages say nothing about the third one; once a stage counts, or a run is known, there is one."""
    for number in range(2):
        with progress.operation("names", plan=["a", "b", "c"]) as op:
            for name, takes in (("a", 4), ("b", 4), ("c", 20)):
                with progress.stage(name):
                    progress_capture.advance(takes / 2)
                    found = op.snapshot().progress.eta
                    assert (found is None) == (number == 0)
                    progress_capture.advance(takes / 2)


def test_one_long_pause_is_no_pace(progress_capture: Capture) -> None:
    """30 normal units after a pause of 120 s the estimate is near what is left."""
    with progress.operation("pause", total=300) as op:
        for unit in range(90):
            op.advance()
            progress_capture.advance(120 if unit == 59 else 1)
        found = op.snapshot().progress.eta
    assert found is not None
    assert found.eta == pytest.approx(210, rel=0.5)
    assert found.low <= 210 <= found.high
