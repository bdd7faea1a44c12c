"""Repeated stages: statistics by path, with counts and quantiles of the durations."""

from __future__ import annotations

import random
import statistics
from itertools import count

import pytest

import otel_progress as progress
from otel_progress import Snapshot, StageRuns, Status, semconv
from otel_progress.live.running import KEPT_BAD, STAGES
from otel_progress.model.stage_runs import PATHS, FoldedRuns, Runs
from otel_progress.testing import Capture


def runs_of(snapshot: Snapshot, path: str) -> StageRuns:
    """Return the statistics of one path."""
    return next(runs for runs in snapshot.repeated if runs.path == path)


def fetch(capture: Capture, seconds: float, *, fails: bool = False, name: str = "fetch") -> None:
    """One run of a stage."""
    stage = progress.stage(name).start()
    capture.clock.sleep(seconds)
    stage.fail("no answer") if fails else stage.complete()


def test_a_stage_that_runs_400_times_is_one_entry_with_counts_and_quantiles(progress_capture: Capture) -> None:
    """Counts by status, the time in all and the quantiles are those of all runs, also of those that were folded."""
    rng = random.Random(7)
    spent = [rng.lognormvariate(-1.5, 0.7) for _ in range(400)]
    with progress.operation("crawl") as op:
        for number, seconds in enumerate(spent):
            fetch(progress_capture, seconds, fails=number % 133 == 0)
            if number % 50 == 0:
                progress_capture.look()
        seen = op.snapshot()
    runs = runs_of(seen, "fetch")
    assert runs.counts == {"completed": 396, "failed": 4}
    assert (runs.count, runs.name, runs.folded) == (400, "fetch", 400 - STAGES)
    assert runs.seconds == pytest.approx(sum(spent), abs=0.01)
    assert runs.longest == pytest.approx(max(spent), rel=0.001)
    quantiles = statistics.quantiles(spent, n=20)
    for mine, right in ((runs.median, quantiles[9]), (runs.p90, quantiles[17]), (runs.p95, quantiles[18])):
        assert mine == pytest.approx(right, rel=0.11)
    assert seen.folded == (("completed", 336, pytest.approx(seen.folded[0][2])),)
    assert [stage.status for stage in seen.stages].count(Status.FAILED) == 4


def test_runs_are_taken_together_from_the_second_on(progress_capture: Capture) -> None:
    """A stage that ran once has only its own entry; two runs are a repeat, in nested paths as well."""
    with progress.operation("crawl") as op:
        fetch(progress_capture, 1, name="login")
        fetch(progress_capture, 1)
        assert op.snapshot().repeated == ()
        fetch(progress_capture, 3)
        with progress.stage("parse"):
            fetch(progress_capture, 0, name="read")
            fetch(progress_capture, 0, name="read")
            seen = op.snapshot()
    assert [(runs.path, runs.count, runs.longest) for runs in seen.repeated] == [("fetch", 2, 3), ("parse/read", 2, 0)]


def test_a_stage_that_ran_once_is_not_pushed_out_by_one_that_runs_often(progress_capture: Capture) -> None:
    """Of the stages that ended, the runs of a repeated path are folded first, whatever came before them."""
    with progress.operation("crawl") as op:
        fetch(progress_capture, 1, name="login")
        for number in range(200):
            fetch(progress_capture, 0.1)
            if number % 70 == 0:
                progress_capture.look()
        seen = op.snapshot()
    assert len(seen.stages) == STAGES
    assert seen.stages[0].path == "login"


def test_failed_runs_are_folded_last_and_do_not_take_all_the_room(progress_capture: Capture) -> None:
    """The newest failed runs stay, but half of the room is for the newest of the others."""
    with progress.operation("crawl") as op:
        for number in range(300):
            fetch(progress_capture, 0.1, fails=number < 100)
        seen = op.snapshot()
    assert len(seen.stages) == STAGES
    assert [stage.status for stage in seen.stages].count(Status.FAILED) == KEPT_BAD
    assert seen.stages[-1].status is Status.COMPLETED


def test_all_running_stages_are_listed_whatever_ended(progress_capture: Capture) -> None:
    """A running stage is listed, even if hundreds started and ended after it."""
    with progress.operation("crawl") as op:
        with progress.stage("serve"):
            for number in range(300):
                fetch(progress_capture, 0.1, fails=bool(number % 2))
            seen = op.snapshot()
    assert seen.stages[0].path == "serve"
    assert seen.stages[0].status is Status.RUNNING


def test_paths_are_bounded_and_the_one_that_comes_again_keeps_its_place(progress_capture: Capture) -> None:
    """Of thousands of names that come once only a sum is kept; the repeated one among them keeps count and quantiles."""
    numbers = count()
    with progress.operation("crawl") as op:
        for _ in range(40):
            for _ in range(20):
                fetch(progress_capture, 0.5, name=f"file {next(numbers)}")
            for _ in range(20):
                fetch(progress_capture, 2)
            progress_capture.look()
        seen = op.snapshot()
        assert op._runs is not None
        assert len(op._runs) <= PATHS + 1
    assert runs_of(seen, "fetch").count == 800
    assert runs_of(seen, "fetch").median == pytest.approx(2, rel=0.1)
    other = runs_of(seen, semconv.OTHER_STAGE)
    assert other.median == pytest.approx(0.5, rel=0.1)
    told = sum(stage.path.startswith("file") for stage in seen.stages)
    named = sum(runs.count for path, runs in op._runs.items() if path.startswith("file"))
    assert other.count + named + told == 800


def test_quantiles_are_right_from_under_a_millisecond_to_hours() -> None:
    """Durations of any size a stage may have keep their quantiles to within a tenth; one run is exact."""
    for seconds in (0.0007, 0.004, 0.05, 1.0, 60.0, 3600.0, 400_000.0):
        runs = Runs()
        runs.add("completed", seconds)
        assert runs.seen("a", 0).median == seconds
        for factor in (0.5, 0.9, 1.1, 2.0):
            runs.add("completed", seconds * factor)
        assert runs.seen("a", 0).median == pytest.approx(seconds, rel=0.12)


def test_the_one_with_the_fewest_runs_gives_up_its_place() -> None:
    """The rarest path is merged into `_other`; no run is lost."""
    folded = FoldedRuns()
    for number in range(3 * PATHS):
        folded.add(f"n{number}", "completed", 1.0)
        folded.add("often", "failed", 2.0)
    assert folded["often"].count == 3 * PATHS
    assert len(folded) == PATHS + 1
    assert sum(runs.count for runs in folded.values()) == 6 * PATHS


def test_what_is_repeated_reaches_the_wire(progress_capture: Capture) -> None:
    """The log events carry the runs, so that readers elsewhere show the same line."""
    with progress.operation("crawl"):
        for _ in range(3):
            fetch(progress_capture, 1)
    progress_capture.advance(1)
    log = next(log for log in progress_capture.logs if log.event_name == semconv.OPERATION_ENDED)
    assert log.attributes[semconv.STAGES_REPEATED] == '[["fetch",{"completed":3},3.0,1.0,1.0,1.0,1.0,0,1.0,[[0,3]]]]'
