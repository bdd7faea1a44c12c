"""What a child operation in the same process completes is sent as progress of its parent, too."""

from __future__ import annotations

from typing import Any

import pytest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.live.handles import Operation
from otel_progress.testing import Capture


def said(captured: Capture, operation: Operation) -> dict[str, Any]:
    """The attributes of the last event of an operation."""
    return next(
        log.attributes for log in reversed(captured.logs) if log.attributes.get(semconv.OPERATION_ID) == operation.id
    )


def same(captured: Capture, operation: Operation) -> None:
    """Whoever listens knows the count, the ratio and whether there is an ETA as its own process does."""
    own, sent = operation.snapshot().progress, said(captured, operation)
    assert (sent.get(semconv.COMPLETED), sent.get(semconv.RATIO)) == (own.completed, own.ratio)
    assert (semconv.ETA in sent) is (own.eta is not None)


@pytest.mark.parametrize("options", [{}, {"unit": "customer"}])
def test_children_that_end_are_progress(progress_capture: Capture, options: dict[str, str]) -> None:
    """Each child that ends is one unit of a parent with a total, in all that is sent."""
    with progress.operation("all", total=4, **options) as parent:
        for done in range(4):
            with progress.operation("part"):
                progress_capture.advance(20)
            progress_capture.advance(1)
            same(progress_capture, parent)
            assert said(progress_capture, parent)[semconv.COMPLETED] == done + 1
            assert said(progress_capture, parent)[semconv.RATIO] >= min(0.99, (done + 1) / 4)
            assert said(progress_capture, parent)[semconv.IDLE] < 2
    progress_capture.advance(1)
    assert said(progress_capture, parent)[semconv.STATUS] == "completed"


def test_an_estimate_from_children_is_sent(progress_capture: Capture) -> None:
    """A parent whose children end at a steady pace has the ETA in what is sent, not only where it runs."""
    with progress.operation("all", total=6) as parent:
        for _ in range(3):
            with progress.operation("part"):
                progress_capture.advance(20)
        progress_capture.advance(1)
        assert semconv.ETA in said(progress_capture, parent)
        same(progress_capture, parent)


def test_children_that_fail_or_do_not_count(progress_capture: Capture) -> None:
    """A child that failed is over; the parent says the same there and here."""
    with progress.operation("all", total=4) as parent:
        for _ in range(2):
            with pytest.raises(ValueError, match="no"), progress.operation("part"):
                progress_capture.advance(9)
                raise ValueError("no")
            progress_capture.advance(1)
            same(progress_capture, parent)


def test_stages_of_a_planned_child(progress_capture: Capture) -> None:
    """A child that follows a plan is partly done when one of its stages ends, and so is its parent."""
    with progress.operation("all", total=2) as parent, progress.operation("part", plan=["a", "b"]):
        with progress.stage("a"):
            progress_capture.advance(10)
        progress_capture.advance(1)
        assert said(progress_capture, parent)[semconv.RATIO] == 0.25
        same(progress_capture, parent)


def test_a_child_that_reports_its_ratio(progress_capture: Capture) -> None:
    """A ratio that a child reports is part of the unit of its parent."""
    with progress.operation("all", total=2) as parent, progress.operation("part") as part:
        part.update(ratio=0.5)
        progress_capture.advance(1)
        assert said(progress_capture, parent)[semconv.RATIO] == 0.25
        same(progress_capture, parent)


def test_grandparents(progress_capture: Capture) -> None:
    """What ends two levels below is progress of all above it."""
    with progress.operation("year", total=2) as year, progress.operation("month", total=2) as month:
        with progress.operation("day"):
            progress_capture.advance(10)
        progress_capture.advance(1)
        same(progress_capture, month)
        same(progress_capture, year)
        assert said(progress_capture, year)[semconv.RATIO] == 0.25


def test_children_in_stages_and_threads(progress_capture: Capture) -> None:
    """Children of a stage, and children that a pool runs, are progress of the parent like any other."""
    with progress.operation("all") as parent, parent.stage("load", total=3):
        for _ in range(2):
            with progress.operation("part"):
                progress_capture.advance(5)
        progress_capture.advance(1)
        same(progress_capture, parent)
        stage = next(one for one in parent.snapshot().stages if one.name == "load")
        assert stage.progress.completed == 2
        assert '"load"' in str(said(progress_capture, parent)[semconv.STAGES])
