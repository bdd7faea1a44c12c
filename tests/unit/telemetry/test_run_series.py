"""Series by operation id: while operations run, capped, built anew for each export."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Operation, semconv
from otel_progress.live.engine import runtime
from otel_progress.live.registry import registry
from otel_progress.outbound.answer import Answer
from otel_progress.settings import EVERYTHING, RUN_SERIES, read
from otel_progress.telemetry.memory import Point
from otel_progress.telemetry.run_series import RunSeries
from otel_progress.testing import START, Capture, capture

MIB = 1024 * 1024
OTHERS = (
    semconv.RUN_PENDING,
    semconv.RUN_START_WITHIN,
    semconv.RUN_LOOP_REPEATS,
    semconv.RUN_LOOP_TOKENS,
    semconv.RUN_LOOP_COST,
    semconv.RUN_OVERDUE_AFTER,
    semconv.RUN_LOST,
    semconv.RUN_PARENT,
    semconv.RUN_ENDED,
)
"""Series that an operation has before its start, at its end, without a count of its own, as a child, while it loops, or in an overdue wait."""


def of(captured: Capture, operation: Operation) -> dict[str, Point]:
    """The last point of each series of one operation, by the short name of the metric."""
    return {
        point.name.removeprefix("progress.run."): point
        for point in captured.series
        if point.attributes[semconv.OPERATION_ID] == operation.id
        and not (point.name == semconv.RUN_HEALTH.name and point.value == 0)  # the verdict before
    }


def exports(captured: Capture) -> list[float]:
    """When run series were exported, in seconds since the clock started."""
    return sorted({(point.time - START) / 1e9 for point in captured.series})


def actives(captured: Capture, key: str) -> list[float]:
    """The values of `progress.run.active` of an operation."""
    return [
        point.value
        for point in captured.series
        if point.name == semconv.RUN_ACTIVE.name and point.attributes[semconv.OPERATION_ID] == key
    ]


# -- what there is


@pytest.mark.parametrize("which", RUN_SERIES)
def test_each_row_of_the_table(which: str) -> None:
    """A run has every series of the design's table, with its unit and labels; some only if all are wanted."""
    with capture(run_series=which) as captured:
        with progress.operation("survey", id="run-1", stall_after=30, slow_after=600) as op, progress.stage("parse"):
            op.update(total=100)
            for _ in range(20):
                op.advance()
                captured.advance(1)
            op.heartbeat()
            with progress.waiting("a person", overdue_after=60):
                captured.advance(10.25)
            found = of(captured, op)
    expected: dict[str, tuple[str, Any]] = {
        "active": ("{operation}", 1),
        "start_time": ("s", START / 1e9),
        "idle": ("s", 0),  # a declared wait is no idle time
        "last_heartbeat": ("s", START / 1e9 + 20),
        "stall_after": ("s", 30),
        "slow_after": ("s", 600),
        "eta": ("s", pytest.approx(150, abs=100)),
        "wait_remaining": ("s", pytest.approx(50, abs=0.5)),
        "ratio": ("1", pytest.approx(0.2)),
        "health": ("{operation}", 1),
        "completed": ("{unit}", 20),
        "total": ("{unit}", 100),
    }
    if which != EVERYTHING:
        del expected["last_heartbeat"]
    assert {name: (point.unit, point.value) for name, point in found.items()} == expected
    plain = {semconv.OPERATION_NAME: "survey", semconv.OPERATION_ID: "run-1"}
    for name, point in found.items():
        if name == "health":
            assert point.attributes == {**plain, semconv.HEALTH: "waiting", semconv.STAGE_NAME: "parse"}
        else:
            assert point.attributes == plain
    if which == EVERYTHING:
        assert {f"progress.run.{name}" for name in found} == {
            metric.name for metric in semconv.METRICS if metric.name.startswith("progress.run.")
        } - {metric.name for metric in OTHERS}


def prometheus(metric: semconv.Metric, kind: str) -> str:
    """The name of a metric as Prometheus shows it."""
    words = {"s": "_seconds", "1": "_ratio", "By": "_bytes"}
    name = metric.name.replace(".", "_")
    suffix = "" if metric.unit.startswith("{") else words[metric.unit]
    name = name if name.endswith(suffix) else name + suffix
    return name + ("_total" if kind == "counter" and not name.endswith("_total") else "")


def test_prometheus_names() -> None:
    """Under Prometheus's rules for units and counters the names are those of the design."""
    counters = {semconv.STARTED, semconv.ENDED, semconv.UNITS_COMPLETED, semconv.TOKENS, semconv.COST, semconv.DROPS}
    counters |= {semconv.PROCESS_CPU_TIME, semconv.PROCESS_DISK_IO}
    names = {prometheus(metric, "counter" if metric in counters else "gauge") for metric in semconv.METRICS}
    assert names == {
        "progress_operation_active",
        "progress_operation_started_total",
        "progress_operation_ended_total",
        "progress_operation_duration_seconds",
        "progress_stage_duration_seconds",
        "progress_operation_stall_ratio",
        "progress_units_completed_total",
        "progress_tokens_total",
        "progress_cost_total",
        "progress_limit_size",
        "process_cpu_time_seconds_total",
        "process_cpu_utilization_ratio",
        "process_memory_usage_bytes",
        "process_thread_count",
        "process_disk_io_bytes_total",
        "progress_sdk_dropped_total",
        "progress_run_active",
        "progress_run_parent",
        "progress_run_ended_seconds",
        "progress_run_start_time_seconds",
        "progress_run_idle_seconds",
        "progress_run_last_heartbeat_seconds",
        "progress_run_stall_after_seconds",
        "progress_run_slow_after_seconds",
        "progress_run_eta_seconds",
        "progress_run_wait_remaining_seconds",
        "progress_run_overdue_after_seconds",
        "progress_run_ratio",
        "progress_run_health",
        "progress_run_completed",
        "progress_run_total",
        "progress_run_loop_repeats",
        "progress_run_loop_tokens",
        "progress_run_loop_cost",
        "progress_run_pending_seconds",
        "progress_run_start_within_seconds",
        "progress_run_lost_seconds",
    }
    for metric in semconv.METRICS:
        assert not (metric in counters and metric.name.endswith("total"))
        assert metric.unit != "1" or metric.name.endswith("ratio") or metric is semconv.PROCESS_CPU_UTILIZATION


def test_health_and_stage_are_labels_of_one_series(progress_capture: Capture) -> None:
    """The health series says what an observer would conclude, and the innermost running stage; its value is 1."""
    with progress.operation("survey", stall_after=20, slow_after=75) as op:
        seen = []
        for step in (30.25, 0.0, 50.0):
            if step:
                progress_capture.advance(step)
            else:
                op.advance()
                progress_capture.stage = op.stage("late", stall_after=1000).start()  # type: ignore[attr-defined]
                progress_capture.advance(25)
            point = of(progress_capture, op)["health"]
            seen.append((point.attributes[semconv.HEALTH], point.attributes.get(semconv.STAGE_NAME), point.value))
    assert seen == [("silent", None, 1.0), ("progressing", "late", 1.0), ("slow", "late", 1.0)]


def test_the_verdict_before_says_0_until_the_next(progress_capture: Capture) -> None:
    """A query over time finds exactly one verdict that is 1."""
    with progress.operation("survey", stall_after=20) as op:
        progress_capture.advance(10)
        progress_capture.advance(25)
        for _ in range(20):
            op.advance()
            progress_capture.advance(1)
        last = {point.attributes[semconv.HEALTH]: point.value for point in health_points(progress_capture)}
        assert last == {"progressing": 1, "silent": 0}
        times = {point.time for point in health_points(progress_capture) if point.value == 0}
        assert max(times) == max(point.time for point in health_points(progress_capture))


def health_points(captured: Capture) -> list[Point]:
    return [point for point in captured.series if point.name == semconv.RUN_HEALTH.name]


def test_the_line_at_which_it_hangs_is_a_label(progress_capture: Capture) -> None:
    """While it is stuck, and only then, the health series says at which line of code."""
    with progress.operation("survey", stall_after=20) as op:
        progress_capture.advance(10)
        progress_capture.advance(25)
        at = health_points(progress_capture)[-1].attributes.get(semconv.STUCK_AT)
        if at is None:
            at = health_points(progress_capture)[-2].attributes.get(semconv.STUCK_AT)
        assert at == op.snapshot().stuck_at is not None
        for _ in range(20):
            op.advance()
            progress_capture.advance(1)
        standing = [point for point in health_points(progress_capture) if point.value == 1]
        assert semconv.STUCK_AT not in standing[-1].attributes


def test_a_wait_that_is_over_leaves_0(progress_capture: Capture) -> None:
    """Once a wait had a limit, the time left is 0 whenever no wait is on, so that looking back finds none overdue."""
    with progress.operation("survey") as op:
        progress_capture.advance(15)
        assert "wait_remaining" not in of(progress_capture, op)
        with op.waiting("a person", overdue_after=5):
            progress_capture.advance(15)
            assert of(progress_capture, op)["wait_remaining"].value < 0
        progress_capture.advance(15)
        assert of(progress_capture, op)["wait_remaining"].value == 0


def test_a_limit_that_is_gone_leaves_infinity(progress_capture: Capture) -> None:
    """After a stage with a limit comes one without: its idle time is not held against the limit of before."""
    with progress.operation("survey", stall_after=None) as op:
        progress_capture.advance(15)
        assert "stall_after" not in of(progress_capture, op)
        with op.stage("load", stall_after=30):
            progress_capture.advance(15)
            assert of(progress_capture, op)["stall_after"].value == 30
        with op.stage("listen"):
            progress_capture.advance(60)
            seen = of(progress_capture, op)
        assert seen["idle"].value > 30
        assert seen["stall_after"].value == math.inf


def test_one_that_has_not_started_has_series(progress_capture: Capture) -> None:
    """With a limit for its start, it shows for how long it is due; after the start that is 0 once more, and no longer."""
    op = progress.operation("survey", start_within=10)
    progress_capture.advance(25)
    found = of(progress_capture, op)
    assert found["start_within"].value == 10
    assert found["pending"].value == pytest.approx(25, abs=11)
    assert "active" not in found
    op.start()
    progress_capture.advance(30)
    pending = [point for point in progress_capture.series if point.name == semconv.RUN_PENDING.name]
    assert pending[-1].value == 0
    assert [point.value for point in pending].count(0) == 1
    assert of(progress_capture, op)["active"].value == 1
    op.complete()


def test_one_that_ends_right_after_its_start_is_pending_no_longer(progress_capture: Capture) -> None:
    """The last 0 leaves at the start, so a process that exits before the next export sends it, too."""
    op = progress.operation("survey", start_within=10)
    progress_capture.advance(25)
    op.start()
    op.complete()
    progress_capture.look()
    assert [point.value for point in progress_capture.series if point.name == semconv.RUN_PENDING.name][-1] == 0


def test_one_that_is_dropped_before_its_start_is_pending_no_longer(progress_capture: Capture) -> None:
    """The pending series of an operation that is gone ends."""
    op = progress.operation("survey", start_within=10)
    progress_capture.advance(25)
    del op
    progress_capture.advance(11)
    assert [point.value for point in progress_capture.series if point.name == semconv.RUN_PENDING.name][-1] == 0


def test_a_long_wait_is_waiting_at_the_next_export(progress_capture: Capture) -> None:
    """A wait is seen in the health label within seconds, whatever limits the operation has."""
    with progress.operation("survey", stall_after=3600) as op:
        progress_capture.advance(9)
        with progress.waiting("a person"):
            progress_capture.advance(2)
            assert of(progress_capture, op)["health"].attributes[semconv.HEALTH] == "waiting"


# -- when


def test_only_operations_older_than_five_seconds_have_series(progress_capture: Capture) -> None:
    """An operation that ends before it is 5 s old makes no series; one that is older has them at the next export."""
    short = progress.operation("short").start()
    long = progress.operation("long").start()
    progress_capture.advance(4.75)
    short.complete()
    progress_capture.advance(20)
    long.complete()
    progress_capture.advance(1)
    assert of(progress_capture, short) == {}
    assert exports(progress_capture) == [10.25, 20.25, 25.0]


def test_the_age_can_be_set() -> None:
    """With `run_series_after=0` every operation has series from the first export on."""
    with capture(run_series_after=0.0) as captured:
        op = progress.operation("survey").start()
        captured.advance(0.25)
        assert of(captured, op)["active"].value == 1


def test_they_are_exported_every_ten_seconds_unless_the_variable_says_otherwise() -> None:
    """`OTEL_METRIC_EXPORT_INTERVAL` is the interval of the run series, in milliseconds; 10 s without it."""
    for variables, times in (({}, [10.25, 20.25, 30.25]), ({"OTEL_METRIC_EXPORT_INTERVAL": "15000"}, [15.25, 30.25])):
        with capture(metric_interval=read(environ=variables).metric_interval) as captured:
            op = progress.operation("survey").start()
            captured.advance(35)
            assert exports(captured) == times
            op.complete()


def test_idle_is_monotonic_when_the_wall_clock_jumps(progress_capture: Capture) -> None:
    """A wall clock that jumps by hours, forward or back, moves no idle time and no start time."""
    with progress.operation("survey") as op:
        progress_capture.advance(8)
        progress_capture.clock.jump(7200)
        progress_capture.advance(2.25)
        forward = of(progress_capture, op)
        progress_capture.clock.jump(-14400)
        progress_capture.advance(10)
        back = of(progress_capture, op)
    assert (forward["idle"].value, back["idle"].value) == (10.25, 20.25)
    assert forward["start_time"].value == back["start_time"].value == START / 1e9


# -- the cap


def test_at_most_so_many_operations_have_series_and_the_rest_is_counted() -> None:
    """Beyond the cap an operation has no series, and is counted once; it gets them when there is room."""
    with capture(run_series_max=3) as captured:
        operations = [progress.operation("survey").start() for _ in range(5)]
        captured.advance(40)
        shown = [op for op in operations if of(captured, op)]
        assert shown == operations[:3]
        assert captured.drops[semconv.DROP_RUN_SERIES] == 2
        operations[0].complete()
        captured.advance(10)
        assert of(captured, operations[3])["active"].value == 1
        assert captured.drops[semconv.DROP_RUN_SERIES] == 2


def test_those_that_have_series_keep_them() -> None:
    """An operation with series does not lose them to another one that is older."""
    with capture(run_series_max=1) as captured:
        first = progress.operation("survey").start()
        captured.advance(20)
        others = [progress.operation("survey").start() for _ in range(3)]
        captured.advance(20)
        assert actives(captured, first.id) == [1.0] * 3
        assert [of(captured, op) for op in others] == [{}, {}, {}]


def test_ten_thousand_operations_go_in_requests_below_one_mebibyte() -> None:
    """Also with 10,000 operations with long names and ids, each request stays below 1 MiB, and no point is missing."""
    with capture(run_series_max=10_000) as captured:
        name = "ü" * 150
        ids = [f"{number:05}" + "x" * 150 for number in range(10_000)]
        operations = [progress.operation(name, id=key, stall_after=5).start() for key in ids]
        captured.clock.sleep(10)
        runtime.ticker.round()
        sizes = [len(request) for request in captured.metrics_receiver.requests]
        assert max(sizes) < MIB
        count = defaultdict(int)
        for point in captured.series:
            count[point.name] += 1
        assert count[semconv.RUN_ACTIVE.name] == count[semconv.RUN_HEALTH.name] == 10_000
        captured.metrics_receiver.requests.clear()
        for op in operations:
            op.complete()
        runtime.ticker.round()
        sizes = [len(request) for request in captured.metrics_receiver.requests]
        assert max(sizes) < MIB
        assert sorted(point.value for point in captured.series) == [0.0] * 10_000 + [START / 1e9 + 10] * 10_000


def test_three_thousand_ids_one_after_the_other() -> None:
    """After 3,000 operation ids the one that lives is visible, and nothing of the others is left."""
    with capture(run_series_after=0.0, metric_interval=0.25) as captured:
        runs = _runs()
        for number in range(3000):
            op = progress.operation("survey", id=f"run-{number}").start()
            captured.clock.sleep(0.25)
            runtime.ticker.round()
            if number < 2999:
                op.complete()
        assert of(captured, op)["active"].value == 1
        captured.metrics_receiver.requests.clear()
        captured.advance(0.25)
        assert {point.attributes[semconv.OPERATION_ID] for point in captured.series} == {"run-2999"}
        assert len(runs._shown) == 1
        assert len(runs._finals) == len(runs._left_out) == 0


def _runs() -> RunSeries:
    from otel_progress.live import hooks

    return next(call.__self__ for call in hooks.on_tick if isinstance(getattr(call, "__self__", None), RunSeries))


def test_the_maker_keeps_nothing_of_what_is_over() -> None:
    """The memory of the run series does not grow with the number of past operations."""
    with capture(run_series_after=0.0, metric_interval=0.25, run_series_max=50) as captured:
        runs = _runs()

        def generation() -> None:
            for _ in range(200):
                op = progress.operation("survey").start()
                captured.clock.sleep(0.05)
                op.complete()
            captured.advance(0.5)
            captured.metrics_receiver.requests.clear()
            captured.logs_receiver.requests.clear()
            captured.events.clear()
            captured._memory._spans.clear()
            gc.collect()

        generation()
        tracemalloc.start()
        try:
            generation()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(5):
                generation()
            assert tracemalloc.get_traced_memory()[0] - before < 60_000
        finally:
            tracemalloc.stop()
        assert not runs._shown
        assert not runs._finals
        assert not runs._left_out


# -- the last point


def test_the_last_active_is_zero_and_goes_at_once(progress_capture: Capture) -> None:
    """Within a quarter of a second after its end, its last `active` is 0, and it is said when and how it ended; no other series is sent again."""
    op, other = progress.operation("survey").start(), progress.operation("other").start()
    progress_capture.advance(12)
    before = len(progress_capture.series)
    op.complete()
    progress_capture.clock.sleep(0.25)
    runtime.ticker.round()
    ended, last = progress_capture.series[before:]
    assert (last.name, last.value, last.attributes[semconv.OPERATION_ID]) == (semconv.RUN_ACTIVE.name, 0.0, op.id)
    assert (ended.name, ended.value) == (semconv.RUN_ENDED.name, pytest.approx(START / 1e9 + 12.25))
    assert ended.attributes[semconv.STATUS] == "completed"
    progress_capture.advance(30)
    assert actives(progress_capture, op.id) == [1.0, 0.0]
    assert actives(progress_capture, other.id) == [1.0] * 4


def test_two_names_with_one_id_both_end(progress_capture: Capture) -> None:
    """A second name with the id of the first, started in an outage, takes nothing of what the first one has to say."""
    receiver = progress_capture.metrics_receiver
    taken = receiver.answer
    with progress.operation("load", id="2026-11-29"):
        progress_capture.advance(12)
        receiver.answer = lambda _: Answer(False, retry=True, reason="away")
    with progress.operation("export", id="2026-11-29"):
        progress_capture.advance(12)
        receiver.answer = taken
        progress_capture.advance(12)
        said = [point for point in progress_capture.series if point.attributes[semconv.OPERATION_NAME] == "load"]
        assert [point.value for point in said if point.name == semconv.RUN_ACTIVE.name][-1] == 0.0
        assert [point.attributes[semconv.STATUS] for point in said if point.name == semconv.RUN_ENDED.name] == [
            "completed"
        ]


def test_a_receiver_that_takes_one_request_has_the_whole_end(progress_capture: Capture) -> None:
    """An end says that it ended, and that it does not run, in one request; what is not delivered is counted."""
    receiver = progress_capture.metrics_receiver
    taken, bodies = receiver.answer, list[bytes]()
    op = progress.operation("survey").start()
    progress_capture.advance(12)

    def only_one(body: bytes) -> Answer:
        bodies.append(body)
        return taken(body) if len(bodies) == 1 else Answer(False, retry=True, reason="away")

    receiver.answer = only_one
    op.complete()
    progress_capture.advance(1)
    assert actives(progress_capture, op.id)[-1] == 0.0
    assert any(point.name == semconv.RUN_ENDED.name for point in progress_capture.series)


def test_an_end_that_was_not_told_yet_is_in_the_series(progress_capture: Capture) -> None:
    """At a hurried exit the ends of many operations are not told any more; each that is not active has its end."""
    runs, ops = _runs(), [progress.operation("survey").start() for _ in range(3)]
    progress_capture.advance(12)
    for op in ops:
        op.complete()
    registry.changes.clear()
    runs._next = 0.0
    runs.on_tick(progress_capture.clock.monotonic())
    ended = {
        point.attributes[semconv.OPERATION_ID]
        for point in progress_capture.series
        if point.name == semconv.RUN_ENDED.name
    }
    assert ended == {op.id for op in ops}
    assert all(actives(progress_capture, op.id)[-1] == 0.0 for op in ops)


def test_a_last_zero_that_never_arrives_is_counted(progress_capture: Capture) -> None:
    """It is known how many runs that ended still run for Prometheus, until they don't."""
    runs, receiver = _runs(), progress_capture.metrics_receiver
    op = progress.operation("survey").start()
    progress_capture.advance(12)
    taken, receiver.answer = receiver.answer, lambda _: Answer(False, retry=True, reason="away")
    op.complete()
    progress_capture.advance(1)
    assert runs.unsent() == 1
    receiver.answer = taken
    progress_capture.advance(60)
    assert runs.unsent() == 0


def test_the_last_zero_is_kept_until_it_is_delivered(progress_capture: Capture) -> None:
    """While the receiver does not answer, the last 0 waits, and it is delivered once."""
    op = progress.operation("survey").start()
    progress_capture.advance(12)
    receiver = progress_capture.metrics_receiver
    taken = receiver.answer
    receiver.answer = lambda _: Answer(False, retry=True, reason="away")
    op.complete()
    progress_capture.advance(60)
    assert actives(progress_capture, op.id) == [1.0]
    receiver.answer = taken
    progress_capture.advance(60)
    assert actives(progress_capture, op.id) == [1.0, 0.0]


def test_a_receiver_that_keeps_no_metrics_gets_them_once_a_minute(progress_capture: Capture) -> None:
    """That shows when one that does has taken its place: from then on it has all, and no end that it can't know."""
    receiver = progress_capture.metrics_receiver
    taken = receiver.answer
    with progress.operation("survey") as op:
        progress_capture.advance(30)
        often = len(exports(progress_capture))
        receiver.answer = lambda body: replace(taken(body), discards=True)
        progress_capture.advance(10)  # the first one that says so
        progress_capture.advance(600)
        seldom = len(exports(progress_capture)) - often
        assert (often, seldom) == (2, 11)
        with progress.operation("short"):
            progress_capture.advance(20)
        receiver.answer = taken
        progress_capture.advance(60)
        known = len(exports(progress_capture))
        progress_capture.advance(60)
        assert len(exports(progress_capture)) - known == 6
    progress_capture.advance(1)
    assert actives(progress_capture, op.id)[-1] == 0.0


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda op: op.fail("broken"), "failed"),
        (lambda op: op.cancel("asked to"), "cancelled"),
    ],
)
def test_how_it_ended_is_a_label(progress_capture: Capture, end: Any, status: str) -> None:
    """What ended says how, so that nobody takes a failure for a recovery."""
    op = progress.operation("survey").start()
    progress_capture.advance(12)
    end(op)
    progress_capture.advance(1)
    said = [point for point in progress_capture.series if point.name == semconv.RUN_ENDED.name]
    assert [point.attributes[semconv.STATUS] for point in said] == [status]


# -- the parent


def parents(captured: Capture) -> list[tuple[Any, ...]]:
    """The id, name and service of the parent in each point that names one."""
    keys = (semconv.OPERATION_PARENT_ID, semconv.OPERATION_PARENT_NAME, semconv.OPERATION_PARENT_SERVICE)
    return [
        tuple(point.attributes[key] for key in keys)
        for point in captured.series
        if point.name == semconv.RUN_PARENT.name
    ]


def test_a_child_names_its_parent_with_its_service(progress_capture: Capture) -> None:
    """A child in the same process names its parent by id, name and service; nothing else has such a series."""
    with progress.operation("nightly", id="n-1"), progress.operation("part"):
        progress_capture.advance(12)
    assert parents(progress_capture) == [("n-1", "nightly", "test")]


def test_a_child_elsewhere_is_told_name_and_service(progress_capture: Capture) -> None:
    """What `inject` writes names the operation here, not the one that its own process continues; `extract` reads all of it."""
    odd = 'n, ö;="\n1'
    with progress.operation("nightly, 50%", id=odd):
        headers = progress.inject()
    found = progress.extract(headers)
    assert (found.operation_id, found.name, found.service) == (odd, "nightly, 50%", "test")
    with progress.operation("part", parent=found):
        progress_capture.advance(12)
        with progress.operation("piece"):
            again = progress.extract(progress.inject())
    assert parents(progress_capture) == [(odd, "nightly, 50%", "test")]
    assert again.name == "piece"


@pytest.mark.parametrize("parent", ["n-1", progress.Parent("n-1")])
def test_an_id_alone_names_no_parent(progress_capture: Capture, parent: Any) -> None:
    """A parent known by its id alone gets no name or service: they would be guessed."""
    with progress.operation("part", parent=parent):
        progress_capture.advance(12)
    assert parents(progress_capture) == []


def test_a_dropped_handle_ends_its_series(progress_capture: Capture) -> None:
    """An operation that nobody holds any more ends, and so do its series."""
    op = progress.operation("survey", id="run-1").start()
    progress_capture.advance(12)
    del op
    gc.collect()
    progress_capture.advance(1)
    assert actives(progress_capture, "run-1") == [1.0, 0.0]


def test_a_new_attempt_is_not_ended_by_the_old_one(progress_capture: Capture) -> None:
    """When an id runs again before the last 0 of its first attempt was delivered, that 0 is no longer sent."""
    receiver = progress_capture.metrics_receiver
    taken = receiver.answer
    progress_capture.op = progress.operation("survey", id="run-1").start()  # type: ignore[attr-defined]
    progress_capture.advance(12)
    receiver.answer = lambda _: Answer(False, retry=True, reason="away")
    progress_capture.op.complete()  # type: ignore[attr-defined]
    progress_capture.advance(1)
    again = progress.operation("survey", id="run-1").start()
    progress_capture.advance(20)
    receiver.answer = taken
    progress_capture.advance(20)
    assert again.attempt == 2
    assert set(actives(progress_capture, "run-1")[1:]) == {1.0}


def test_lost_ends_end_their_series_too(progress_capture: Capture) -> None:
    """Where the change that told of an end was lost, the series end all the same at the next export."""
    op = progress.operation("survey").start()
    progress_capture.advance(12)
    op.complete()
    registry.changes.clear()
    progress_capture.advance(10)
    assert actives(progress_capture, op.id) == [1.0, 0.0]


def test_those_without_series_are_forgotten_too() -> None:
    """An operation beyond the cap is not remembered after its end, also where the change that told of it was lost."""
    with capture(run_series_max=0) as captured:
        op = progress.operation("survey").start()
        captured.advance(12)
        assert _runs()._left_out == {op.id}
        op.complete()
        registry.changes.clear()
        captured.advance(10)
        assert _runs()._left_out == set()
        assert captured.drops[semconv.DROP_RUN_SERIES] == 1


# -- values


def test_values_are_finite_and_clamped(progress_capture: Capture) -> None:
    """Whatever a job reports, every value of every series is a finite number of at most 64 bits."""
    ops = []
    for value in (math.nan, math.inf, -math.inf, -5, 10**400, 2**63, 1e308, "many", None, b"x", True):
        op = progress.operation("survey").start()
        op.advance(value)  # type: ignore[arg-type]
        op.update(completed=value, total=value, ratio=value)  # type: ignore[arg-type]
        op.usage(input_tokens=value, cost=value)  # type: ignore[arg-type]
        op.waiting("x", overdue_after=value).__enter__()  # type: ignore[arg-type]
        ops.append(op)
    progress_capture.advance(25)
    assert progress_capture.series
    for point in progress_capture.series:
        assert math.isfinite(point.value), point
        if point.name in {semconv.RUN_COMPLETED.name, semconv.RUN_TOTAL.name}:
            assert 0 <= point.value <= 2.0**63 or point.value <= 1e308
        if point.name == semconv.RUN_RATIO.name:
            assert 0 <= point.value <= 1
    for op in ops:
        assert of(progress_capture, op)["active"].value == 1


def test_one_broken_operation_does_not_hide_the_others(progress_capture: Capture, caplog: Any) -> None:
    """Where the values of one operation can't be read, the others are exported all the same."""
    good, broken = progress.operation("good").start(), progress.operation("broken").start()

    def fail() -> Any:
        raise RuntimeError("broken")

    vars(broken)["_progress"] = fail
    progress_capture.advance(12)
    assert of(progress_capture, good)["active"].value == 1
    assert [log.event_name for log in progress_capture.logs if log.attributes.get(semconv.OPERATION_NAME) == "good"]


def test_series_carry_the_environment(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every series of a run has the environment of its process, as on some routes a resource is no label."""
    monkeypatch.setattr(registry, "environment", "prod")
    with progress.operation("survey", id="run-1", stall_after=30) as op:
        progress_capture.advance(40)
    progress_capture.advance(10)
    found = [point for point in progress_capture.series if point.attributes[semconv.OPERATION_ID] == op.id]
    assert {point.name for point in found} > {semconv.RUN_ACTIVE.name, semconv.RUN_HEALTH.name, semconv.RUN_ENDED.name}
    assert {point.attributes.get(semconv.ENVIRONMENT) for point in found} == {"prod"}
