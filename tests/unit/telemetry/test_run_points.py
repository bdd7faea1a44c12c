"""Which points of run series are sent when: what seldom changes goes when it changes, and once a minute."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

import otel_progress as progress
from otel_progress import StagePlan, semconv
from otel_progress.live import hooks
from otel_progress.outbound.answer import Answer
from otel_progress.telemetry.memory import Point
from otel_progress.telemetry.run_series import RunSeries
from otel_progress.testing import START, Capture, capture

MOST = 12
"""Series that a usual operation has at once."""
LIMITS = (semconv.RUN_START_TIME, semconv.RUN_STALL_AFTER, semconv.RUN_SLOW_AFTER, semconv.RUN_TOTAL)


def when(captured: Capture, metric: semconv.Metric, value: float | None = None) -> list[float]:
    """When points of a metric were sent, in seconds since the clock started."""
    return [
        (point.time - START) / 1e9
        for point in captured.series
        if point.name == metric.name and value in (None, point.value)
    ]


def key(point: Point) -> tuple[str, frozenset[tuple[str, object]]]:
    """What makes a series."""
    return point.name, frozenset(point.attributes.items())


@pytest.mark.parametrize("counts", ["its stages", "itself"])
def test_a_usual_operation_has_few_series_at_once(counts: str) -> None:
    """Ten stages one after the other, with every limit, as a planned child: no export has more than 12."""
    plan = [StagePlan(f"stage {number}") for number in range(10)] if counts == "its stages" else None
    with capture() as captured, progress.operation("all", stall_after=None):
        with progress.operation("import", stall_after=60, slow_after=7200, plan=plan) as op:
            if counts == "itself":
                op.update(total=700)
            for number in range(10):
                with progress.stage(f"stage {number}", total=70) as stage:
                    for _ in range(70):
                        stage.advance()
                        if counts == "itself":
                            op.advance()
                        captured.advance(1)
        own = [point for point in captured.series if point.attributes[semconv.OPERATION_ID] == op.id]
    exports: defaultdict[int, set[object]] = defaultdict(set)
    for point in own:
        if point.name != semconv.RUN_ENDED.name:
            exports[point.time].add(key(point))
    assert max(len(found) for found in exports.values()) == MOST


def test_limits_are_sent_once_a_minute(progress_capture: Capture) -> None:
    """What does not change is sent at first, and then each minute; what moves, at each export."""
    with progress.operation("import", total=1000, stall_after=60, slow_after=7200) as op:
        for _ in range(300):
            op.advance()
            progress_capture.advance(1)
    for metric in LIMITS:
        assert when(progress_capture, metric) == [10.25, 70.25, 130.25, 190.25, 250.25], metric
    assert len(when(progress_capture, semconv.RUN_COMPLETED)) == len(when(progress_capture, semconv.RUN_IDLE)) == 29


def test_a_limit_that_changes_is_sent_at_the_next_export(progress_capture: Capture) -> None:
    """The limit of the next stage holds from the next export on, not from the next minute on."""
    with progress.operation("import", stall_after=None):
        with progress.stage("load", stall_after=30):
            progress_capture.advance(15)
        with progress.stage("convert", stall_after=300):
            progress_capture.advance(15)
    assert when(progress_capture, semconv.RUN_STALL_AFTER, 30) == [10.25]
    assert when(progress_capture, semconv.RUN_STALL_AFTER, 300) == [20.25]


def test_a_verdict_is_sent_once_a_minute_and_when_it_changes(progress_capture: Capture) -> None:
    """The verdict that stands is repeated, and so is the 0 of the one before it."""
    with progress.operation("import", stall_after=25):
        progress_capture.advance(200)
    sent = Counter(point.value for point in progress_capture.series if point.name == semconv.RUN_HEALTH.name)
    assert sent == {1: 1 + 4, 0: 4}  # progressing, then stuck from 25 s on


def test_what_did_not_arrive_is_sent_again(progress_capture: Capture) -> None:
    """A receiver that was away gets the limits with the first export that it takes, however short it was away."""
    with progress.operation("import", stall_after=None):
        progress_capture.advance(15)
        progress_capture.metrics_receiver.answer = lambda _: Answer(delivered=False, retry=True)
        with progress.stage("load", stall_after=30):
            progress_capture.advance(20)
            progress_capture.metrics_receiver.answer = lambda _: Answer(delivered=True)
            progress_capture.advance(10)
            assert len(when(progress_capture, semconv.RUN_STALL_AFTER, 30)) == 1
            progress_capture.advance(20)
            assert when(progress_capture, semconv.RUN_STALL_AFTER, 30) == [40.25]


def test_an_interval_of_a_minute_sends_everything_each_time() -> None:
    """With a long export interval limits are no older than about a minute either."""
    with capture(metric_interval=45.0) as captured, progress.operation("import", stall_after=600):
        captured.advance(300)
        assert when(captured, semconv.RUN_STALL_AFTER) == when(captured, semconv.RUN_ACTIVE)


def test_what_the_receiver_has_is_bounded() -> None:
    """What is remembered of an operation does not grow with its stages."""
    with capture() as captured, progress.operation("import") as op:
        [runs] = [it.__self__ for it in hooks.on_tick if isinstance(getattr(it, "__self__", None), RunSeries)]
        for number in range(60):
            with progress.stage(f"stage {number}"):
                captured.advance(10)
        assert len(runs._shown[op.id].told) < 2 * MOST


def test_the_stage_has_no_time_left_where_the_operation_has() -> None:
    """By default there is one estimate, the operation's if it has one; with `all` there are both, and both counts."""
    for which, estimates, counts in (("default", 1, 1), ("all", 2, 2)):
        with capture(run_series=which) as captured:
            with progress.operation("fit", total=100) as op, progress.stage("train", total=20) as stage:
                for _ in range(15):
                    op.advance()
                    stage.advance()
                    captured.advance(1)
                points = list(captured.series)
        of = {name: {key(it) for it in points if it.name == name.name} for name in (semconv.RUN_ETA, semconv.RUN_TOTAL)}
        assert (len(of[semconv.RUN_ETA]), len(of[semconv.RUN_TOTAL])) == (estimates, counts)
