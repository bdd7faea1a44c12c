"""Statistics of one run and of many."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import (
    Operation,
    Progress,
    Snapshot,
    StageSnapshot,
    Status,
    Tally,
    aggregate,
    operation,
    semconv,
    stage,
)
from otel_progress.cli.report.lines_file import read_snapshot
from otel_progress.model import wire
from otel_progress.model.stage_runs import Runs
from otel_progress.model.statistics import STAGES, Statistics, statistics_of
from otel_progress.model.tallies import COUNTERS, MESSAGES, Failures
from otel_progress.model.values import Attributes
from otel_progress.semconv import OTHER_STAGE
from otel_progress.testing import Capture, capture

numbers = st.integers(0, 10**6) | st.floats(0, 1e6)
ended = st.sampled_from([Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.SKIPPED])


@st.composite
def stages(draw: Any) -> StageSnapshot:
    """A stage that ended."""
    name = draw(st.sampled_from("abcd"))
    counted = Progress(draw(st.none() | numbers), None, draw(st.sampled_from(["row", "file"])))
    why = draw(st.none() | st.sampled_from(["no disk", "no net"]))
    return StageSnapshot(name, name, draw(ended), counted, started_at=1.0, elapsed=draw(numbers), reason=why)


@st.composite
def snapshots(draw: Any) -> Snapshot:
    """A run that ended."""
    words = st.sampled_from(["ok", "failed", "skipped", "retried", "odd"])
    runs = Runs()
    for seconds in draw(st.lists(st.floats(0, 1e6), max_size=8)):
        runs.add(draw(ended).value, seconds)
    return Snapshot(
        draw(st.text(max_size=3)),
        "x",
        draw(ended),
        5.0,
        started_at=1.0,
        elapsed=draw(numbers),
        progress=Progress(draw(st.none() | numbers), None, draw(st.sampled_from(["row", "file"]))),
        outcomes=Attributes(draw(st.dictionaries(words, st.integers(0, 1000)))),
        usage=Attributes(draw(st.dictionaries(st.sampled_from(["input_tokens", "cost.USD"]), numbers))),
        stages=tuple(draw(st.lists(stages(), max_size=4))),
        repeated=(runs.seen("r", runs.count),) if runs.count > 1 else (),
        failures=tuple(draw(st.dictionaries(st.sampled_from(["m", "n"]), st.integers(1, 9))).items()),
    )


def leaves(value: Any) -> Iterator[Any]:
    """All plain values in a JSON value."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(item)
    if not isinstance(value, (dict, list)):
        yield value


@settings(max_examples=40)
@given(st.lists(snapshots(), max_size=4))
def test_all_numbers_are_finite_and_rates_are_parts(given_runs: list[Snapshot]) -> None:
    """Whatever runs said, statistics are JSON without NaN, and a success rate is from 0 to 1 or unknown."""
    found = aggregate(given_runs)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert all(math.isfinite(leaf) for leaf in leaves(found.to_dict()) if isinstance(leaf, float))
    for tally in (found.statistics.items, found.statistics.runs):
        assert tally.success_rate is None or 0 <= tally.success_rate <= 1


@settings(max_examples=40)
@given(st.lists(snapshots(), max_size=4))
def test_the_whole_is_the_sum_of_its_runs(given_runs: list[Snapshot]) -> None:
    """Counts of many runs are the sums of those of each run, and no run is left out."""
    whole, each = aggregate(given_runs).statistics, [statistics_of(run) for run in given_runs]
    assert whole.items.ok == sum(one.items.ok for one in each)
    assert whole.items.failed == sum(one.items.failed for one in each)
    assert (whole.durations.count if whole.durations else 0) == len(given_runs)
    for path in ("a", "r"):
        counts = [stage.runs for one in each for stage in one.stages if stage.path == path]
        found = [stage.runs for stage in whole.stages if stage.path == path]
        assert sum(tally.failed for tally in counts) == sum(tally.failed for tally in found)
    assert sum(n for _, n in whole.failures) == sum(n for one in each for _, n in one.failures)


@given(st.lists(st.floats(1e-3, 10), min_size=2, max_size=40), st.lists(st.floats(1e-3, 10), min_size=2, max_size=40))
def test_quantiles_of_many_runs_equal_those_of_one(some: list[float], others: list[float]) -> None:
    """The runs of a stage in two operations give the quantiles of one operation with all of them, over the wire too."""

    def operation(seconds: list[float]) -> Snapshot:
        runs = Runs()
        for one in seconds:
            runs.add("completed", one)
        whole = Snapshot("i", "x", Status.COMPLETED, 5.0, started_at=1.0, repeated=(runs.seen("r", 0),))
        return wire.from_attributes(wire.to_attributes(whole), 5.0)

    (two,) = aggregate([operation(some), operation(others)]).statistics.stages
    (one,) = statistics_of(operation(some + others)).stages
    assert two.durations is not None
    assert one.durations is not None
    assert (two.durations.p50, two.durations.p90, two.durations.p99) == (
        one.durations.p50,
        one.durations.p90,
        one.durations.p99,
    )


def test_quantiles_that_are_not_known_are_none() -> None:
    """Two running operations, of which a monitor knows only quantiles, have no common ones: they are not made up."""
    runs = Runs()
    for seconds in (1.0, 2.0, 3.0):
        runs.add("completed", seconds)
    running = Snapshot("i", "x", Status.RUNNING, 5.0, started_at=1.0, repeated=(runs.seen("r", 0),))
    heard = wire.from_attributes(wire.to_attributes(running), 5.0)
    alone, both = statistics_of(heard).stages[0].durations, aggregate([heard, heard]).statistics.stages[0].durations
    assert alone is not None
    assert alone.p50 == pytest.approx(2.0, rel=0.02)
    assert alone.p99 == pytest.approx(3, rel=0.02)
    assert both is not None
    assert both.p50 is None
    assert both.mean == pytest.approx(2.0)
    assert both.longest == 3.0


def test_an_operation_says_what_it_did(progress_capture: Capture) -> None:
    """Outcomes, components, cost a unit and failures by message, while it runs and after its end, in all forms."""
    with progress.operation("import") as op:
        for number in range(10):
            error = None if number else ValueError("no date")
            op.record("ok" if number else "failed", component="parser", error=error)
        op.usage(input_tokens=30, output_tokens=10, cost=0.5)
        running = op.statistics()
    found = op.statistics()
    assert (running.runs.ok, found.runs.ok) == (0, 1)
    assert (found.items.ok, found.items.failed, found.items.success_rate) == (9, 1, 0.9)
    assert dict(found.components)["parser"] == found.items
    assert found.failures == (("ValueError: no date", 1),)
    assert found.tokens == {"input": 30, "output": 10}
    assert found.cost_per_unit == {"USD": 0.05}
    assert op.snapshot().to_dict()["statistics"]["failures"] == [{"message": "ValueError: no date", "count": 1}]
    assert op.summary_dict()["statistics"]["items"] == found.items.to_dict()
    assert "success: 90% of 10" in op.summary()
    assert "failed x 1: ValueError: no date" in op.summary()
    progress_capture.look()
    sent = wire.from_attributes(wire.to_attributes(op.snapshot()), op.snapshot().timestamp)
    assert statistics_of(sent).to_dict() == op.statistics().to_dict()
    with pytest.raises(FrozenInstanceError):
        found.runs = found.items  # type: ignore[misc]


def test_secrets_in_messages_are_masked(progress_capture: Capture) -> None:
    """The message of a failed item passes the redaction, as every text does."""
    with progress.operation("import") as op:
        op.record("failed", error="password=hunter2hunter2")
    assert "hunter2" not in json.dumps(op.statistics().to_dict())


def test_an_exception_through_stages_is_one_failure(progress_capture: Capture) -> None:
    """An error that passes two stages and the operation is counted once."""
    with pytest.raises(OSError), progress.operation("import") as op, progress.stage("load"), progress.stage("read"):
        raise OSError("no disk")
    ((message, count),) = op.statistics().failures
    assert "no disk" in message
    assert count == 1


def test_memory_is_bounded() -> None:
    """Thousands of messages, components and stage paths keep a bounded number; a frequent message survives."""
    failures = Failures()
    for number in range(5000):
        failures.add("always the same")
        failures.add(f"row {number}")
    assert len(failures) <= COUNTERS
    assert failures.top(1) == (("always the same", 5000), (OTHER_STAGE, 5000))
    one = Snapshot("i", "x", Status.COMPLETED, 1.0)
    many = [
        replace(one, stages=tuple(StageSnapshot(f"s{n}{m}", f"s{n}{m}", Status.FAILED) for m in range(64)))
        for n in range(64)
    ]
    found = aggregate(many).statistics
    assert len(found.stages) <= STAGES + 1
    assert sum(stage.runs.failed for stage in found.stages) == 64 * 64
    assert found.stages[-1].path == OTHER_STAGE


@pytest.mark.parametrize("each", [10, 20, 30, 40, 50, 100])
def test_the_most_frequent_failure_is_found_among_thousands(each: int) -> None:
    """A message that comes 20 to 200 times among 2,000 that come once is the first, with its true number."""
    failures = Failures()
    for number in range(2000):
        failures.add(f"row {number}")
        if number % each == 0:
            failures.add("no disk")
    assert failures.top(10)[0] == ("no disk", -(-2000 // each))


def test_a_frequent_failure_that_begins_late_is_found() -> None:
    """It is the first though others came before, and no count is above the true one; the rest is under `_other`."""
    failures = Failures()
    for number in range(5000):
        failures.add(f"row {number}")
    for number in range(100):
        failures.add("no disk")
        failures.add(f"late {number}")
    (first, count), *_ = failures.top(10)
    assert first == "no disk"
    assert 100 - 5200 // COUNTERS - 1 <= count <= 100
    listed = failures.top(MESSAGES - 1)
    assert len(listed) == MESSAGES
    assert listed[-1][0] == OTHER_STAGE
    assert sum(found for _, found in listed) == 5200


@given(
    st.lists(st.tuples(st.integers(0, 700), st.integers(1, 9)), max_size=2000),
)
@settings(max_examples=25, deadline=None)
def test_counts_of_failures_are_never_too_high(given: list[tuple[int, int]]) -> None:
    """Each is at most the true one, and by no more below it than a share of all; few messages are counted exactly."""
    failures, true = Failures(), Counter[str]()
    for number, count in given:
        failures.add(f"m{number}", count)
        true[f"m{number}"] += count
    told = dict(failures.top(10_000))
    whole = true.total()
    assert sum(told.values()) == whole
    for message, count in true.items():
        assert count - whole / COUNTERS <= told.get(message, 0) <= count
    if len(true) <= COUNTERS:
        assert told == true


def test_merged_failures_keep_what_was_counted_together() -> None:
    """The counts of runs add up; what they counted under `_other` stays there and comes last."""
    failures = Failures()
    for _ in range(3):
        failures.add(OTHER_STAGE, 1000)
        failures.add("no disk", 2)
    assert failures.top(10) == (("no disk", 6), (OTHER_STAGE, 3000))


def test_results_of_many_runs(progress_capture: Capture) -> None:
    """`aggregate` takes operations and snapshots, and gathers what each gave to `result`."""
    runs = []
    for score in (1, 2):
        with progress.operation("train", id=f"run {score}") as op:
            op.result(score=score)
        runs.append(op)
    found = aggregate([runs[0], runs[1].snapshot()])
    assert found.values("score") == [1, 2]
    assert [key for key, _ in found.results] == ["run 1", "run 2"]
    assert found.statistics.runs.ok == 2
    assert found.statistics.curve == ()
    assert aggregate([]).statistics.durations is None
    with pytest.raises(TypeError, match="operations or snapshots"):
        aggregate(["run 1"])


def test_progress_over_time_is_kept_in_few_points(progress_capture: Capture) -> None:
    """A run of any length has at most 65 points, in order, the last one at its end."""
    with progress.operation("long", total=1000) as op:
        for _ in range(300):
            op.advance()
            progress_capture.advance(2)
    curve = op.statistics().curve
    assert 30 <= len(curve) <= 65
    assert curve[-1][1] == 300
    assert list(curve) == sorted(curve)


def test_progress_over_time_is_flat_while_a_short_run_hangs(progress_capture: Capture) -> None:
    """A run that stops for 5 seconds in its middle, and whose rest comes at once, has a curve that shows the stop."""
    with progress.operation("steady", total=100, unit="row") as op, progress.stage("load"):
        for _ in range(50):
            op.advance()
            progress_capture.advance(0.05)
        progress_capture.advance(5)
        op.advance(50)
    curve = op.statistics().curve
    assert curve[-1] == (7.5, 100)
    (first, *_, last) = [seconds for seconds, units in curve if units == 50]
    assert first <= 3.5
    assert last >= 6.5


@pytest.mark.parametrize("broken", ["5", "[]", "{}", '"x"', "[[1]]", '{"a":1}', '[["m",-1]]', '{"memory":"x"}'])
def test_senders_are_untrusted(broken: str) -> None:
    """Broken statistics of an event are ignored; the rest of the event is read."""
    said = wire.to_attributes(Snapshot("i", "x", Status.COMPLETED, 5.0))
    names = ("progress.components", "progress.failures", "progress.curve", "progress.resources")
    found = wire.from_attributes({**said, **dict.fromkeys(names, broken)}, 5.0)
    assert (found.components, found.failures, found.resources) in (((), (), None), ((("a", {}),), (), None))
    json.dumps(statistics_of(found).to_dict(), allow_nan=False)


def test_children_are_counted_apart_from_records() -> None:
    """Four children completed and one failed: no record failed, in the process, on the wire, or in the aggregate."""
    with capture() as captured:
        with operation("outer") as op:
            for number in range(5):
                with suppress(ValueError), operation("inner", total=2) as child, stage("part"):
                    child.record("ok")
                    if number == 4:
                        raise ValueError("no")
        captured.advance(1)
        told = captured.ended("outer")
    found = op.statistics()
    assert (found.items, found.children) == (Tally(), Tally(ok=4, failed=1))
    assert found.items.success_rate is None
    assert found.children.success_rate == 0.8
    assert statistics_of(told) == found == aggregate([op]).statistics
    sent = wire.from_attributes(wire.to_attributes(told), told.timestamp)
    assert statistics_of(sent) == statistics_of(told)


def test_children_inside_stages_are_those_of_the_operation() -> None:
    """A child in a nested stage counts for its stage and for the operation, once, and a cancelled one is no failure."""
    with capture(), operation("outer") as op, op.stage("a"), stage("b"):
        for status in ("ok", "failed", "cancelled"):
            child = operation("inner").start()
            {"ok": child.complete, "failed": lambda c=child: c.fail("no"), "cancelled": child.cancel}[status]()
    found = op.statistics()
    assert (found.children.ok, found.children.failed) == (1, 1)
    assert found.children.others == {"cancelled": 1}
    assert found.items == Tally()
    assert all(one.items == Tally() for one in found.stages)


def test_own_records_beside_failed_children_are_outcomes() -> None:
    """An operation that records items counts them, whatever its children did."""
    with capture(), operation("outer") as op:
        with suppress(ValueError), operation("inner"):
            raise ValueError("no")
        op.record("failed", error="no date")
    found = op.statistics()
    assert (found.items, found.children) == (Tally(failed=1), Tally(failed=1))


def test_one_run_is_its_own_quantile() -> None:
    """Quantiles of a single run are its duration, not the middle of a bucket."""
    with capture() as captured, operation("one") as op:
        captured.advance(0.2852)
    spread = op.statistics().durations
    assert spread is not None
    assert spread.p50 == spread.p99 == spread.longest == spread.mean


def test_a_forked_child_adds_nothing_to_its_parent() -> None:
    """Records in a forked child are of a copy: the parent counts its own."""
    with capture(), operation("parent") as op:
        op.record("ok")
        pid = os.fork()
        if pid == 0:
            op.record("failed")
            os._exit(0)
        os.waitpid(pid, 0)
        op.record("ok")
    assert op.statistics().items == Tally(ok=2)


def test_tasks_and_threads_share_one_count() -> None:
    """Records of 20 tasks and of 4 threads are all there, with the stages that ran side by side."""

    async def task(op: Operation) -> None:
        async with op.stage("call"):
            await asyncio.sleep(0)
            op.record("ok", component="api")

    async def main(op: Operation) -> None:
        await asyncio.gather(*(task(op) for _ in range(20)))

    with capture(), operation("both") as op:
        asyncio.run(main(op))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: op.record("failed", component="disk", error="full"), range(40)))
    found = op.statistics()
    assert found.items == Tally(ok=20, failed=40)
    assert dict(found.components) == {"api": Tally(ok=20), "disk": Tally(failed=40)}
    assert [(stage.path, stage.runs) for stage in found.stages] == [("call", Tally(ok=20))]
    assert found.failures == (("full", 40),)


def test_events_carry_the_curve_now_and_then() -> None:
    """Most updates go without the curve; some have it, the end does, and `snapshot()` always."""
    with capture() as captured:
        with operation("long", total=200) as op:
            for _ in range(100):
                op.advance()
                captured.advance(1)
            assert len(op.snapshot().curve) > 30
        captured.advance(1)
        events = [event for event in captured.events if event.snapshot.name == "long"]
    updates = [event.snapshot for event in events if event.name == semconv.UPDATED]
    whole = [seen for seen in updates if seen.curve]
    assert 2 <= len(whole) < len(updates) / 4
    assert events[-1].name == semconv.OPERATION_ENDED
    assert events[-1].snapshot.curve == op.snapshot().curve


def test_a_stage_has_the_tokens_and_the_cost_that_it_spent() -> None:
    """Usage inside a stage counts for the stage and for the operation, once; beside all stages for the operation."""
    with capture() as captured:
        with operation("agent") as op:
            for _ in range(2):
                with op.stage("think"):
                    progress.usage(input_tokens=100, cost=0.25)
            op.usage(output_tokens=7)
        captured.advance(1)
        told = captured.ended("agent")
    for found in (op.statistics(), statistics_of(wire.from_attributes(wire.to_attributes(told), told.timestamp))):
        (stage_found,) = found.stages
        assert (stage_found.tokens, stage_found.cost) == ({"input": 200}, {"USD": 0.5})
        assert (found.tokens, found.cost) == ({"input": 200, "output": 7}, {"USD": 0.5})


def test_units_of_an_earlier_attempt_are_no_throughput(progress_capture: Capture) -> None:
    """A resumed run counts them as done; rate and cost of a unit are those of this attempt; sums of attempts as well."""
    with operation("load", id="load-1", total=1_000, unit="row", restored=600) as op:
        for _ in range(40):
            op.advance(10)
            progress_capture.advance(1)
        op.usage(cost=2.0)
    found = op.statistics()
    assert found.units == {"row": 1_000}
    assert found.rate["row"] == pytest.approx(10)
    assert found.cost_per_unit["USD"] == pytest.approx(0.005)
    assert op.snapshot().progress.restored == 600
    both = aggregate([op, op]).statistics
    assert both.rate["row"] == pytest.approx(10)


def test_an_attempt_that_only_restored_has_no_rate(progress_capture: Capture) -> None:
    """A run that goes on from an earlier one and did nothing yet has no throughput, and no cost of a unit."""
    with operation("load", total=10, unit="row", restored=10) as op:
        progress_capture.advance(5)
        op.usage(cost=1.0)
    found = op.statistics()
    assert (found.units, found.rate, found.cost_per_unit) == ({"row": 10}, {}, {})


def test_the_wire_tells_what_was_restored(progress_capture: Capture) -> None:
    """A monitor makes the same statistics of a resumed run, and a stage tells its own."""
    with operation("load", unit="row") as op, op.stage("copy", total=10) as copied:
        copied.update(completed=4)
        copied.advance(2)
        progress_capture.advance(2)
        there = wire.from_attributes(wire.to_attributes(op.snapshot()), op.snapshot().timestamp)
        assert there.stages[0].progress.restored == 4
    assert statistics_of(there).to_dict()["rate"] == statistics_of(op.snapshot()).to_dict()["rate"]


def test_workers_of_a_pool_return_their_snapshots(progress_capture: Capture) -> None:
    """A snapshot can be pickled, so a pool's parent gathers what its workers return."""
    del progress_capture
    snapshots = []
    for part in range(3):
        with operation("part", unit="row") as op:
            op.advance(part)
            op.result(part=part)
        snapshots.append(pickle.loads(pickle.dumps(op.snapshot())))  # our own
    found = aggregate(snapshots)
    assert found.statistics.units == {"row": 3}
    assert found.values("part") == [0, 1, 2]


def failing(counts: str) -> Statistics:
    """Twenty items, of which four fail; successes are counted in one way or another."""
    with operation("job") as op:
        if counts == "track":
            for number in progress.track(range(20)):
                if number < 4:
                    op.record("failed", component="parser")
        elif counts == "stage":
            with stage("read") as read:
                for number in range(20):
                    read.record("failed") if number < 4 else read.advance()
        elif counts == "of the operation, in a stage":
            with stage("read"):
                for number in progress.track(range(20)):
                    if number < 4:
                        op.record("failed")
        elif counts == "nothing":
            for _ in range(4):
                op.record("failed", component="parser")
        else:
            for number in range(20):
                op.record("failed" if number < 4 else "ok", component="parser")
    assert "success: 0%" not in op.summary() or counts == "nothing"
    return op.statistics()


@pytest.mark.parametrize("counts", ["track", "stage", "of the operation, in a stage"])
def test_failures_alone_give_no_success_rate(counts: str, progress_capture: Capture) -> None:
    """Where only failures are recorded beside units that were counted, nobody knows how many of these went well."""
    del progress_capture
    found = failing(counts)
    assert (found.items.failed, found.items.success_rate) == (4, None)
    assert all(tally.success_rate is None for _, tally in found.components)
    assert all(one.items.success_rate is None for one in found.stages)
    assert found.to_dict()["items"]["success_rate"] is None


def test_a_success_rate_of_all_records(progress_capture: Capture) -> None:
    """With successes recorded it is their part; with failures and nothing else counted, all of it failed."""
    del progress_capture
    assert failing("records").items.success_rate == 0.8
    assert dict(failing("records").components)["parser"].success_rate == 0.8
    assert failing("nothing").items.success_rate == 0


def test_a_run_that_does_not_know_makes_the_whole_unknown(progress_capture: Capture) -> None:
    """Runs have no success rate together if that of one of them is not known, whatever others recorded."""
    with operation("a") as one:
        for _ in progress.track(range(10)):
            pass
        one.record("failed")
    with operation("b") as other:
        other.record("ok")
    assert aggregate([one, other]).statistics.items.success_rate is None
    del progress_capture


def test_lost_runs_are_no_success() -> None:
    """Of nine completed, three failed and three lost runs, 60% were a success, as 40% were failures."""
    ends = [Status.COMPLETED] * 9 + [Status.FAILED] * 3 + [Status.LOST] * 3
    runs = [Snapshot(f"n-{n}", "n", status, 5.0, started_at=1.0, elapsed=4.0) for n, status in enumerate(ends)]
    found = aggregate(runs).statistics.runs
    assert found.success_rate == 0.6
    assert dict(found.others) == {"lost": 3}


def test_records_of_an_operation_and_of_its_stages_are_units_of_one_kind(progress_capture: Capture) -> None:
    """Three records on the operation and two in each of two stages are seven units: money is divided by these."""
    with operation("mix") as op:
        for _ in range(3):
            op.record("ok")
        for name in ("s", "t"):
            with progress.stage(name):
                for _ in range(2):
                    progress.record("ok")
                    progress.usage(cost=1)
                progress_capture.advance(1)
                assert op.statistics().units["item"] == op.statistics().items.ok
    found = op.statistics()
    assert (found.items.ok, found.units, found.cost_per_unit) == (7, {"item": 7}, {"USD": 0.571428571429})


def test_records_count_beside_no_total_and_no_other_unit(progress_capture: Capture) -> None:
    """A total, or a named unit, says what the operation counts: records of its stages are none of these."""
    del progress_capture
    for own in ({"total": 3}, {"unit": "file"}):
        with operation("mix", **own) as op:  # type: ignore[arg-type]
            for _ in range(3):
                op.record("ok")
            with progress.stage("s"):
                progress.record("ok")
        assert op.snapshot().progress.completed == 3


def test_money_has_no_noise_of_its_additions(progress_capture: Capture) -> None:
    """Fractions that are added up are shown as they are meant, in the summary, in JSON and in each stage."""
    del progress_capture
    with operation("llm") as op, progress.stage("ask"):
        for _ in range(60):
            op.usage(cost=0.01, input_tokens=3)
            progress.usage(cost=0.001)
    found = op.statistics().to_dict()
    assert found["cost"] == {"USD": 0.66}
    assert found["stages"][0]["cost"] == {"USD": 0.06}
    assert "cost=0.66 USD," in f"{op.summary()},".replace("\n", ",")
    assert op.snapshot().to_dict()["usage"] == {"cost.USD": 0.66, "input_tokens": 180}


def test_a_curve_starts_with_the_run(progress_capture: Capture) -> None:
    """Units that came before the first look are part of it, and those of an earlier attempt are where it begins."""
    with operation("front") as op:
        for _ in range(60):
            op.record("ok")
        progress_capture.advance(6)
    curve = op.statistics().curve
    assert (curve[0], curve[-1]) == ((0.0, 0), (6.0, 60))
    with operation("again", unit="row", restored=150) as op:
        progress_capture.advance(1)
        op.advance(50)
        progress_capture.advance(4)
    curve = op.statistics().curve
    assert (curve[0], curve[-1]) == ((0.0, 150), (5.0, 200))
    assert op.statistics().rate["row"] == 10


def test_quantiles_of_many_runs_survive_json(progress_capture: Capture) -> None:
    """Stages that ran several times in several runs have p50 and p90 from JSON lines and from the API, too."""
    runs = []
    for night in range(3):
        with operation("night") as op:
            for number in range(5):
                with progress.stage("load"):
                    progress_capture.clock.sleep(1.0 + night + number)
        runs.append(op.snapshot())
    read = [read_snapshot(json.loads(json.dumps(run.to_dict()))) for run in runs]
    spreads = [aggregate(given_runs).statistics.stages[0].durations for given_runs in (runs, read)]
    assert spreads[0] is not None
    assert spreads[0] == spreads[1]
    assert spreads[0].p50 == pytest.approx(4, rel=0.02)
