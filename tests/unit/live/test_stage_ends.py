"""The event of a stage's end says how long that run of the stage took, whatever else ends beside it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

import otel_progress as progress
from otel_progress import Event, Snapshot, Status, semconv
from otel_progress.model.sentences import sentence
from otel_progress.model.values import Attributes
from otel_progress.testing import Capture


def run(captured: Capture, name: str, seconds: float) -> None:
    """A stage that takes some seconds, while the ticker does not look."""
    with progress.stage(name):
        captured.clock.sleep(seconds)


def test_each_end_carries_its_own_duration(progress_capture: Capture) -> None:
    """Stages of one name that end close together each say their own time, not that of a neighbour."""
    took = [0.04, *[0.0005] * 20, 0.3, 0.002]
    with progress.operation("feed"):
        for seconds in took:
            run(progress_capture, "s", seconds)
        progress_capture.look()
    ends = progress_capture.of(semconv.STAGE_ENDED)
    assert [event.attributes[semconv.STAGE_ELAPSED] for event in ends] == pytest.approx(took)
    assert [event.about and event.about.elapsed for event in ends] == pytest.approx(took)
    assert sentence(ends[0]) == "feed: stage s completed after 40 ms"
    assert sentence(ends[1]) == "feed: stage s completed after 0.5 ms"


def test_ends_that_the_snapshot_no_longer_lists_are_said_in_full(progress_capture: Capture) -> None:
    """A stage that was folded before its end was reported has its duration and its status all the same."""
    with progress.operation("many"):
        run(progress_capture, "s", 7.0)
        for _ in range(300):
            run(progress_capture, "s", 0.001)
        progress_capture.look()
    assert sentence(progress_capture.of(semconv.STAGE_ENDED)[0]) == "many: stage s completed after 7 s"


def test_a_failed_try_is_not_said_of_the_one_that_followed(progress_capture: Capture) -> None:
    """A retried stage says failed for the try that failed, with its reason, and completed for the other."""
    with progress.operation("retry"):
        with suppress(ValueError), progress.stage("load"):
            progress_capture.clock.sleep(0.001)
            raise ValueError("no net")
        run(progress_capture, "load", 0.001)
        progress_capture.look()
    said = [sentence(event) for event in progress_capture.of(semconv.STAGE_ENDED)]
    assert said == [
        "retry: stage load failed after 1 ms (ValueError: no net)",
        "retry: stage load completed after 1 ms",
    ]


def test_nested_stages_of_one_name_and_time(progress_capture: Capture) -> None:
    """A stage inside another that ends with it is found by its path."""
    with progress.operation("nested"):
        for outer in (2.0, 1.0):
            with progress.stage("a"):
                run(progress_capture, "b", outer)
        progress_capture.look()
    ends = progress_capture.of(semconv.STAGE_ENDED)
    assert [(event.stage, event.about and event.about.elapsed) for event in ends] == [
        ("a/b", 2.0),
        ("a", 2.0),
        ("a/b", 1.0),
        ("a", 1.0),
    ]


def test_stages_of_one_name_side_by_side(progress_capture: Capture) -> None:
    """Tasks whose stages overlap and end in the same moment each have their own time."""
    doors = [asyncio.Event() for _ in range(3)]
    leave = asyncio.Event()

    async def work(op: progress.Operation, door: asyncio.Event) -> None:
        await door.wait()
        async with op.stage("gz"):
            await leave.wait()

    async def main() -> None:
        async with progress.operation("pool") as op:
            tasks = [asyncio.create_task(work(op, door)) for door in doors]
            for door, seconds in zip(doors, (5.0, 2.0, 0.25), strict=True):
                door.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                progress_capture.clock.sleep(seconds)
            leave.set()
            await asyncio.gather(*tasks)
            progress_capture.look()

    asyncio.run(main())
    ends = progress_capture.of(semconv.STAGE_ENDED)
    assert sorted(event.about.elapsed for event in ends if event.about) == pytest.approx([0.25, 2.25, 7.25])


def test_the_receiver_gets_the_duration(progress_capture: Capture) -> None:
    """The duration and the status of a stage leave the process with its end."""
    with progress.operation("sent"):
        run(progress_capture, "s", 0.25)
        run(progress_capture, "s", 0.001)
        progress_capture.look()
    sent = [log for log in progress_capture.logs if log.event_name == semconv.STAGE_ENDED]
    assert [log.attributes[semconv.STAGE_ELAPSED] for log in sent] == pytest.approx([0.25, 0.001])
    assert [log.attributes[semconv.STAGE_STATUS] for log in sent] == ["completed", "completed"]


def test_an_event_of_an_earlier_version_is_still_read() -> None:
    """Without its own duration, or with an invalid one, the nearest run of the path is taken, else nothing."""
    stage = progress.StageSnapshot("s", "s", Status.FAILED, started_at=1.0, elapsed=2.0)
    snapshot = Snapshot("i", "x", Status.RUNNING, 4.0, stages=(stage,))
    for own in ({}, {semconv.STAGE_ELAPSED: "long"}, {semconv.STAGE_ELAPSED: -1.0}):
        event = Event(semconv.STAGE_ENDED, 3_000_000_000, snapshot, 1, "s", Attributes(own))
        assert event.about == stage
    assert Event(semconv.STAGE_ENDED, 3_000_000_000, snapshot, 1, "t").about is None
