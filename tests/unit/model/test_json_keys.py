"""The keys of JSON: one set for `to_dict()` and the API, with what a bar, a list and a history need."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Health, Progress, Snapshot, StagePlan, Status
from otel_progress.model import json_keys
from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import StageSnapshot
from otel_progress.testing import START, Capture


def test_a_bar_has_what_it_needs(progress_capture: Capture) -> None:
    """Percentage, current step, ETA in seconds with its interval, and the verdict stand at the top, under these names."""
    with progress.operation("survey", id="run-1", total=10, stall_after=300) as op:
        for _ in range(4):
            progress_capture.advance(5)
            op.advance()
        progress_capture.advance(5)
        op.update(message="reading 5.txt")
        found = op.snapshot().to_dict()
    assert (found["operation_id"], found["name"], found["status"]) == ("run-1", "survey", "running")
    assert (found["percentage"], found["current_step"]) == (40, "reading 5.txt")
    assert sorted(found["eta"]) == ["high", "low", "runs", "seconds", "source"]
    assert found["eta"]["low"] <= found["eta"]["seconds"] <= found["eta"]["high"]
    assert (found["verdict"]["health"], found["verdict"]["reason"], found["verdict"]["overdue"]) == (
        "progressing",
        None,
        False,
    )
    assert found["elapsed_time"] == 25
    assert found["updated_at"] == START / 1e9 + 25
    assert found["estimated_completion"].startswith("2023-11-14T22:1")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_is_not_known_is_null(progress_capture: Capture) -> None:
    """All keys are there from the first moment; without a plan, a count or a message they hold null."""
    with progress.operation("survey") as op:
        found = op.snapshot().to_dict()
    for key in ("percentage", "current_step", "eta", "estimated_completion", "average_stage_duration", "failed_stage"):
        assert found[key] is None, key
    assert (found["current_stage"], found["total_stages"], found["stages_completed"]) == (None, 0, 0)
    assert found["stage_history"] == []
    assert op.snapshot().to_dict().keys() == found.keys()


def test_one_that_is_over_has_no_verdict_and_no_eta(progress_capture: Capture) -> None:
    """An ended operation is described by its status alone."""
    with progress.operation("survey", total=2) as op:
        op.advance(2)
    found = op.snapshot().to_dict()
    assert (found["status"], found["percentage"], found["verdict"], found["eta"]) == ("completed", 100, None, None)


def test_the_verdict_says_stuck_with_its_evidence(progress_capture: Capture) -> None:
    """The verdict uses the word that people read; the old key `health` keeps the value of the wire."""
    with progress.operation("survey", stall_after=10) as op:
        progress_capture.advance(20)
        found = op.snapshot().to_dict()
    assert (found["verdict"]["health"], found["health"]) == ("stuck", "silent")
    assert found["verdict"]["reason"] == "no progress for 20 s, stall_after is 10 s"
    assert (found["verdict"]["limit"], found["verdict"]["seconds"], found["verdict"]["allowed"]) == (
        "stall_after",
        20,
        10,
    )


def test_stages_in_numbers_and_their_history(progress_capture: Capture) -> None:
    """The place of the running stage, how many there are and completed, what ended, and how long one takes."""
    plan = [StagePlan(name) for name in ("load", "parse", "report")]
    with progress.operation("survey", plan=plan) as op:
        with progress.stage("load"):
            progress_capture.clock.sleep(2)
        for attempt in range(2):
            with progress.stage("parse") as parse, progress.stage("read"):
                progress_capture.clock.sleep(5)
                found = op.snapshot().to_dict()
                if not attempt:
                    parse.fail("no answer")
    assert (found["current_stage"], found["total_stages"], found["stages_completed"]) == (1, 3, 1)
    assert (found["failed_stage"], found["current_step"]) == ("parse", "parse/read")
    assert [(one["stage"], one["status"], one["duration"]) for one in found["stage_history"]] == [
        ("load", "completed", 2),
        ("parse", "failed", 5),
        ("parse/read", "completed", 5),
    ]
    assert found["stage_history"][1]["reason"] == "no answer"
    assert found["average_stage_duration"] == 3.5
    over = op.snapshot().to_dict()
    assert (over["current_stage"], over["total_stages"], over["stages_completed"]) == (None, 3, 2)
    assert over["average_stage_duration"] == 4


def test_the_deepest_of_the_stages_that_failed_is_named(progress_capture: Capture) -> None:
    """An exception fails all stages around it; the innermost one is where it failed."""
    op = progress.operation("survey")
    with pytest.raises(OSError), op, progress.stage("parse"), progress.stage("read"):
        raise OSError("no")
    assert op.snapshot().to_dict()["failed_stage"] == "parse/read"


def test_numbers_that_folding_made_unknown_are_null(progress_capture: Capture) -> None:
    """Repeated runs of few names keep the numbers right; where names were folded away, they are null, never wrong."""
    with progress.operation("crawl") as op:
        with progress.stage("login"):
            pass
        for _ in range(500):
            with progress.stage("fetch"):
                progress_capture.clock.sleep(2)
        found = op.snapshot().to_dict()
        assert (found["total_stages"], found["stages_completed"]) == (2, 2)
        assert found["average_stage_duration"] == pytest.approx(2, abs=0.01)
        assert (found["repeated"][0]["name"], found["repeated"][0]["count"]) == ("fetch", 500)
        for number in range(200):
            with progress.stage(f"file {number}"):
                pass
        found = op.snapshot().to_dict()
    assert (found["current_stage"], found["total_stages"], found["stages_completed"]) == (None, None, None)


def test_an_observer_may_know_more_than_the_snapshot() -> None:
    """The monitor adds up children: its progress takes the place of the snapshot's own under the same keys."""
    seen = Snapshot("1", "a", Status.RUNNING, 5.0, progress=Progress(ratio=0.1))
    found = json_keys.brief(seen, None, replace(seen.progress, ratio=0.5, eta=Estimate(10, 5, 20, "rate")))
    assert (found["percentage"], found["eta"]["seconds"]) == (50, 10)


def deep(name: str) -> Any:
    """A snapshot whose stage has this name."""
    return Snapshot("1", "a", Status.RUNNING, 1e300, stages=(StageSnapshot(name, name, Status.RUNNING),), stage=name)


@pytest.mark.parametrize("name", ["a/b", "/", "", "_other"])
def test_odd_names_and_times_harm_nothing(name: str) -> None:
    """Whatever a stage is called, and whatever a sender says the time is, the numbers are there."""
    found = json_keys.stages_in_numbers(deep(name))
    assert (found["current_stage"], found["total_stages"]) == (0, 1)
    late = replace(deep(name), progress=Progress(eta=Estimate(1e300, 1, 1, "rate")), health=Health.SILENT)
    assert json_keys.history(late)["estimated_completion"] is None


def test_during_a_wait_nobody_knows_when_it_will_be_done(progress_capture: Capture) -> None:
    """The estimate is what comes after the wait; a time of day would move with the clock."""
    with progress.operation("survey", total=10) as op:
        for _ in range(4):
            progress_capture.advance(5)
            op.advance()
        assert op.snapshot().to_dict()["estimated_completion"] is not None
        with progress.waiting("licence"):
            progress_capture.advance(5)
            found = op.snapshot().to_dict()
            assert found["eta"] is not None
            assert found["estimated_completion"] is None
        progress_capture.advance(5)
        op.advance()
        assert op.snapshot().to_dict()["estimated_completion"] is not None
