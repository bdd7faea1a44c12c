"""Metrics by operation name, on the application's meter provider."""

from __future__ import annotations

from typing import Any

import pytest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.telemetry.memory import Point
from otel_progress.testing import Capture, capture

Labels = dict[str, Any]


def points(captured: Capture, metric: semconv.Metric) -> list[tuple[Labels, float]]:
    """Labels (without the prefix of the key) and value of each point of a metric."""
    found = []
    for point in captured.metrics():
        if point.name == metric.name:
            assert point.unit == metric.unit
            labels = {key.removeprefix("progress."): value for key, value in point.attributes.items()}
            found.append((labels, point.value))
    return sorted(found, key=lambda point: sorted(point[0].items()))


def value(captured: Capture, metric: semconv.Metric, **labels: str) -> float:
    """The value of the one point that has these labels (`_` for `.`)."""
    wanted = {key.replace("_", "."): value for key, value in labels.items()}
    (found,) = (number for given, number in points(captured, metric) if wanted.items() <= given.items())
    return found


def test_active_started_and_ended(progress_capture: Capture) -> None:
    """By name: how many run, how many started, and how many ended with which status."""
    running = [progress.operation("survey").start() for _ in range(3)]
    progress_capture.look()
    assert points(progress_capture, semconv.ACTIVE) == [({"operation.name": "survey"}, 3)]
    assert points(progress_capture, semconv.STARTED) == [({"operation.name": "survey"}, 3)]
    assert points(progress_capture, semconv.ENDED) == [({"operation.name": "survey", "status": "lost"}, 0)]
    running[0].complete()
    running[1].fail("no")
    running[2].cancel()
    assert points(progress_capture, semconv.ACTIVE) == [({"operation.name": "survey"}, 0)]
    assert points(progress_capture, semconv.ENDED) == [
        ({"operation.name": "survey", "status": status}, int(status != "lost"))
        for status in ("cancelled", "completed", "failed", "lost")
    ]


def test_a_waiting_operation_is_active(progress_capture: Capture) -> None:
    """An operation that waits is in flight all the same."""
    with progress.operation("survey"), progress.waiting("a person"):
        assert value(progress_capture, semconv.ACTIVE) == 1


def test_durations_with_name_stage_and_status(progress_capture: Capture) -> None:
    """Each end is one recorded duration: of operations by name and status, of stages also by the stage's name."""
    for error in (None, ValueError("no")):
        try:
            with progress.operation("survey"):
                with progress.stage("parse"):
                    progress_capture.clock.sleep(2)
                if error:
                    raise error
        except ValueError:
            pass
    progress_capture.look()
    assert points(progress_capture, semconv.OPERATION_DURATION) == [
        ({"operation.name": "survey", "status": "completed"}, 1),
        ({"operation.name": "survey", "status": "failed"}, 1),
    ]
    assert points(progress_capture, semconv.STAGE_DURATION) == [
        ({"operation.name": "survey", "stage.name": "parse", "status": "completed"}, 2)
    ]


def test_durations_are_monotonic(progress_capture: Capture) -> None:
    """A wall clock that jumps changes no duration; histograms hold the seconds that really passed."""
    with progress.operation("survey"):
        progress_capture.clock.sleep(3)
        progress_capture.clock.jump(-3600)
    progress_capture.look()
    data = progress_capture._memory._reader.get_metrics_data()
    (histogram,) = (
        metric.data.data_points[0]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == semconv.OPERATION_DURATION.name
    )
    assert histogram.sum == 3.0
    assert histogram.explicit_bounds[-1] >= 86_400


def test_histograms_carry_the_trace_as_an_exemplar(progress_capture: Capture) -> None:
    """An exemplar of a duration names the trace of an operation that took that long."""
    with progress.operation("survey"), progress.stage("parse"):
        progress_capture.clock.sleep(1)
    progress_capture.look()
    trace = next(span for span in progress_capture.spans if span.name == "survey").context.trace_id
    found: dict[str, Point] = {point.name: point for point in progress_capture.metrics()}
    for metric in (semconv.OPERATION_DURATION, semconv.STAGE_DURATION):
        assert found[metric.name].exemplars == (f"{trace:032x}",)


def test_the_worst_stall_ratio(progress_capture: Capture) -> None:
    """The gauge is the worst idle / stall_after of a name; operations without a limit, or that wait, don't count.

    A name of which none has a limit, or none runs any more, says 0: no last value lingers.
    """
    good = progress.operation("survey", stall_after=100).start()
    bad = progress.operation("survey", stall_after=10).start()
    progress.operation("free").start()
    waits = progress.operation("waits", stall_after=1).start()
    waits.waiting("a person").__enter__()
    progress_capture.advance(15)
    assert points(progress_capture, semconv.STALL_RATIO) == [
        ({"operation.name": "free"}, 0.0),
        ({"operation.name": "survey"}, pytest.approx(1.5, abs=0.1)),
        ({"operation.name": "waits"}, 0.0),
    ]
    bad.complete()
    assert value(progress_capture, semconv.STALL_RATIO, operation_name="survey") == pytest.approx(0.15, abs=0.01)
    good.complete()
    assert value(progress_capture, semconv.STALL_RATIO, operation_name="survey") == 0


def test_units_by_name_stage_and_unit(progress_capture: Capture) -> None:
    """Completed units are counted while the work runs, by name, stage and unit; also those in other units."""
    with progress.operation("survey", unit="round") as op:
        op.advance(2)
        with progress.stage("parse", unit="file") as stage:
            stage.advance(5)
            for _ in progress.track(range(7), unit="token"):
                pass
            running = points(progress_capture, semconv.UNITS_COMPLETED)
    progress_capture.look()
    expected = [
        ({"operation.name": "survey", "stage.name": "parse", "unit": "file"}, 5),
        ({"operation.name": "survey", "stage.name": "parse", "unit": "token"}, 7),
        ({"operation.name": "survey", "unit": "round"}, 2),
    ]
    assert running == expected
    assert points(progress_capture, semconv.UNITS_COMPLETED) == expected


def test_units_add_up_over_runs_and_never_fall(progress_capture: Capture) -> None:
    """The count of units only rises: over runs, when a count is set back, between an end and the next round."""
    seen = [0.0]
    for run in range(3):
        op = progress.operation("survey").start()
        for step in (40, 10, 50):
            op.update(completed=step)
            seen.append(value(progress_capture, semconv.UNITS_COMPLETED))
        op.complete()
        seen.append(value(progress_capture, semconv.UNITS_COMPLETED))
        progress_capture.look()
        seen.append(value(progress_capture, semconv.UNITS_COMPLETED))
        assert seen[-1] == 50 * (run + 1)
    assert seen == sorted(seen)


def test_stage_names_are_capped(progress_capture: Capture) -> None:
    """The first 30 stage names of an operation name have labels of their own; the others are `_other`, and counted."""
    for _ in range(2):
        with progress.operation("survey"):
            for number in range(50):
                with progress.stage(f"s{number}") as stage:
                    stage.advance()
            progress_capture.look()
            progress_capture.metrics()
    with progress.operation("another"), progress.stage("s49"):
        pass
    progress_capture.look()
    durations = points(progress_capture, semconv.STAGE_DURATION)
    of_survey = [(labels, count) for labels, count in durations if labels["operation.name"] == "survey"]
    assert len(of_survey) == 31
    assert value(progress_capture, semconv.STAGE_DURATION, stage_name=semconv.OTHER_STAGE) == 40
    assert value(progress_capture, semconv.UNITS_COMPLETED, stage_name=semconv.OTHER_STAGE) == 40
    assert value(progress_capture, semconv.STAGE_DURATION, stage_name="s49") == 1
    assert progress_capture.drops[semconv.DROP_STAGE_NAME] == 40


def test_operation_names_are_capped(progress_capture: Capture) -> None:
    """After 1,000 operation names the rest is `_other` in every metric, so that no label grows without bound."""
    last = None
    for number in range(1010):
        last = progress.operation(f"name{number}", stall_after=5).start()
        last.advance()
        if number < 1009:
            last.complete()
    progress_capture.advance(1)
    assert value(progress_capture, semconv.STARTED, operation_name=semconv.OTHER_STAGE) == 10
    assert value(progress_capture, semconv.ACTIVE, operation_name=semconv.OTHER_STAGE) == 1
    assert value(progress_capture, semconv.ENDED, operation_name=semconv.OTHER_STAGE, status="completed") == 9
    assert value(progress_capture, semconv.OPERATION_DURATION, operation_name=semconv.OTHER_STAGE) == 9
    assert value(progress_capture, semconv.UNITS_COMPLETED, operation_name=semconv.OTHER_STAGE) == 10
    assert value(progress_capture, semconv.STALL_RATIO, operation_name=semconv.OTHER_STAGE) > 0
    for metric in (semconv.ACTIVE, semconv.STARTED, semconv.OPERATION_DURATION):
        assert len(points(progress_capture, metric)) <= 1001
    assert len(points(progress_capture, semconv.ENDED)) <= 1001 + 500  # completed, and the first names lost


def test_tokens_and_cost(progress_capture: Capture) -> None:
    """Tokens add up by direction, money by currency; garbage and negative amounts never lower them."""
    for _ in range(2):
        with progress.operation("survey"):
            progress.usage(input_tokens=800, output_tokens=90, cost=0.25)
            progress.usage(cost=2, currency="EUR")
            progress.usage(input_tokens=-5, cost=float("nan"))
    assert points(progress_capture, semconv.TOKENS) == [
        ({"operation.name": "survey", "token.direction": "input"}, 1600),
        ({"operation.name": "survey", "token.direction": "output"}, 180),
    ]
    assert points(progress_capture, semconv.COST) == [
        ({"currency": "EUR", "operation.name": "survey"}, 4),
        ({"currency": "USD", "operation.name": "survey"}, 0.5),
    ]


def test_what_limits_dropped_is_a_metric() -> None:
    """Each reason for which something was dropped is a counter."""
    with capture(run_series_max=1) as captured:
        operations = [progress.operation("survey").start() for _ in range(4)]
        operations[0].note("x" * 5000)
        progress.advance()
        captured.advance(12)
        found = {labels["drop.reason"]: count for labels, count in points(captured, semconv.DROPS)}
    assert found == {semconv.DROP_RUN_SERIES: 3, semconv.DROP_TEXT: 1, semconv.DROP_OUTSIDE: 1}


def test_no_operation_id_is_ever_a_label(progress_capture: Capture) -> None:
    """Instruments of the SDK keep every label for ever, so an id is never one of them."""
    with progress.operation("survey", stall_after=5), progress.stage("parse"):
        progress.advance()
        progress.usage(input_tokens=1, cost=1)
        progress_capture.advance(10)
    progress_capture.look()
    found = progress_capture.metrics()
    assert {point.name for point in found} >= {
        metric.name
        for metric in semconv.METRICS
        if not metric.name.startswith("progress.run.")
        and metric not in (semconv.DROPS, semconv.STALL_RATIO, semconv.LIMIT_SIZE)
    }
    assert not any(semconv.OPERATION_ID in point.attributes for point in found)
