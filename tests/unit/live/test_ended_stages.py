"""An ended stage is captured once: later snapshots and events tell the same of it, and what still changes is seen."""

from __future__ import annotations

import threading

import otel_progress as progress
from otel_progress import Operation, Status, semconv
from otel_progress.live.engine import capture as capturing
from otel_progress.live.survey import Survey
from otel_progress.testing import Capture


def fresh(operation: Operation, captured: Capture) -> list[progress.StageSnapshot]:
    """The stages as they are when nothing is kept."""
    now = captured.clock.monotonic()
    return [capturing._stage(stage, now, Survey(operation)) for stage in operation._stages or ()]


def test_it_is_captured_once(progress_capture: Capture) -> None:
    """The snapshot of a stage whose end was told is one object, equal to a fresh one; a running one is not kept."""
    with progress.operation("a", total=3) as one:
        for name in ("read", "read", "check"):
            with one.stage(name, total=2, unit="row") as stage:
                progress_capture.clock.sleep(3)
                stage.advance(2)
                stage.usage(input_tokens=7)
            progress_capture.look()
        with one.stage("write"):
            progress_capture.clock.sleep(1)
            first, second = one.snapshot(), one.snapshot()
            assert [a is b for a, b in zip(first.stages, second.stages, strict=True)] == [True, True, True, False]
            assert list(second.stages) == fresh(one, progress_capture)
            assert [runs.count for runs in second.repeated] == [2]


def test_a_child_that_outlives_its_stage_is_seen(progress_capture: Capture) -> None:
    """How a child ended is told of its stage although that had ended before."""
    with progress.operation("a") as one:
        with one.stage("spread"):
            child = progress.operation("part").start()
        progress_capture.clock.sleep(2)
        progress_capture.look()
        assert dict(one.snapshot().stages[0].child_outcomes) == {}
        child.fail("no disk")
        progress_capture.look()
        stage = one.snapshot().stages[0]
        assert list(one.snapshot().stages) == fresh(one, progress_capture)
        assert stage.status is Status.COMPLETED


def test_what_was_used_is_there(progress_capture: Capture) -> None:
    """A stage that ended between two looks keeps nothing from before its end was told."""
    with progress.operation("a") as one:
        with one.stage("quick"):
            progress_capture.clock.sleep(0.01)
        assert one.snapshot().stages[0].status is Status.COMPLETED  # nobody told its end yet
        progress_capture.look()
        assert list(one.snapshot().stages) == fresh(one, progress_capture)


def test_runs_are_counted_while_old_ones_fold(progress_capture: Capture) -> None:
    """The runs of a path are all counted, however many stages are no longer listed."""
    with progress.operation("a") as one:
        for number in range(1, 200):
            with one.stage("step"):
                progress_capture.clock.sleep(0.1)
            if number % 7 == 0:
                progress_capture.look()
                assert [runs.count for runs in one.snapshot().repeated] == [number]


def test_threads_see_whole_stages(progress_capture: Capture) -> None:
    """Snapshots taken by several threads while stages end list each stage with its end."""
    wrong: list[object] = []
    with progress.operation("a") as one:
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                wrong.extend(s for s in one.snapshot().stages if s.status.final and not s.elapsed)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            with one.stage("step"):
                progress_capture.clock.sleep(0.5)
            progress_capture.look()
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(progress_capture.of(semconv.STAGE_ENDED)) > 0
