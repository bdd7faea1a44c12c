"""Learned limits: from earlier runs, kept in memory and in a file."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Health, StagePlan, files, semconv
from otel_progress.live import guard, hooks
from otel_progress.live.engine import learning, runtime
from otel_progress.live.engine.learning import KEYS, Learning, of_file, read, read_attempts, write
from otel_progress.model.history import (
    BEYOND,
    FLOOR,
    FULL,
    KNOWN,
    MANY,
    PRIOR,
    RUNS,
    STEADY,
    UNCOUNTED,
    Durations,
    Learned,
    Seen,
)
from otel_progress.testing import Capture, capture


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=300))
def test_no_limit_is_below_what_ended_well(gaps: list[float]) -> None:
    """A learned limit is well above the longest gap that was followed by progress, and above the floor."""
    learned = Learned()
    for gap in gaps:
        learned.gaps.add(gap)
    limit = learned.stall_after()
    assert limit is not None
    assert limit >= FLOOR
    assert limit >= BEYOND * max(gaps) * 2 ** (-1 / 8) * 0.999


def test_without_progress_there_is_no_limit() -> None:
    """Work that never reported progress has no limit."""
    assert Learned().stall_after() is None
    assert Learned().slow_after() is None


def test_the_prior_gives_way_to_what_is_seen() -> None:
    """The more gaps were seen, the less the prior counts; the limit only falls as steady work goes on."""
    limits = [Learned().stall_after(Seen(units=second, steady=second)) or 0.0 for second in range(1, 2000)]
    assert PRIOR * 0.9 < limits[0] <= PRIOR
    assert limits == sorted(limits, reverse=True)
    assert limits[int(MANY)] <= 60


def test_healthy_gaps_with_a_long_tail_stay_below_the_limit() -> None:
    """20,000 log-normal gaps, like those of model calls, stay below the limit that 200 of them taught."""
    for seed in range(20):
        draw = random.Random(seed)
        learned = Learned()
        for _ in range(200):
            learned.gaps.add(draw.lognormvariate(1.5, 1.0))
        limit = learned.stall_after(Seen(units=200, gaps=200))
        assert limit is not None
        assert sum(draw.lognormvariate(1.5, 1.0) > limit for _ in range(20_000)) <= 2


def test_one_outlier_does_not_set_the_limit_for_ever() -> None:
    """The histogram forgets: long after one odd gap, the limit is near that of steady work again."""
    learned = Learned()
    learned.gaps.add(36_000)
    for _ in range(4 * int(FULL)):
        learned.gaps.add(1.0)
    assert (learned.stall_after(Seen(units=MANY, steady=STEADY)) or 0) <= 60
    assert learned.gaps.total <= FULL


@given(st.lists(st.floats(0.05, 1e7), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_right_to_within_a_bucket(given: list[float], part: float) -> None:
    """A quantile is that of the sorted durations, to within an eighth of a doubling."""
    durations = Durations()
    for seconds in given:
        durations.add(seconds)
    found = durations.quantile(part)
    ordered = sorted(given)
    near = [ordered[min(len(given) - 1, max(0, round(part * len(given)) + off))] for off in (-2, -1, 0, 1)]
    assert min(near) * 0.9 <= found <= max(near) * 1.1


@pytest.mark.parametrize("bad", [0, -1, float("nan")])
def test_invalid_durations_are_ignored(bad: float) -> None:
    """Zero, negative numbers and NaN are not durations."""
    durations = Durations()
    durations.add(bad)
    assert durations.total == 0


def test_a_run_needs_five_before_it_can_be_slow() -> None:
    """The time of a whole run is limited once enough runs completed."""
    learned = Learned()
    for number in range(RUNS):
        assert learned.slow_after() is None, number
        learned.ended(100, 5, counted=True)
    limit = learned.slow_after()
    assert limit is not None
    assert 200 < limit < 1800


def test_it_is_the_same_after_a_file(tmp_path: Path) -> None:
    """What is written is what is read."""
    learned = Learned(3)
    learned.gaps.add(5, 7)
    learned.durations.add(50, 3)
    learned.longest.add(5, 3)
    assert Learned.from_dict(json.loads(json.dumps(learned.to_dict()))) == learned


# -- in a process


def run(captured: Capture, items: int = 30, each: float = 4.0) -> None:
    with progress.operation("survey"):
        for _ in progress.track(range(items)):
            captured.advance(each)


def test_the_limit_is_learned_and_says_from_where(progress_capture: Capture) -> None:
    """The second run has a limit from the first, and the snapshot says so; past it, the run is silent."""
    run(progress_capture)
    with progress.operation("survey") as op:
        op.advance()
        progress_capture.advance(2)
        snapshot = op.snapshot()
        source = snapshot.stall_after_source or ""
        assert re.fullmatch(r"learned from 1 run, longest gap 4(\.\d)? s", source)
        assert snapshot.stall_after is not None
        assert FLOOR < snapshot.stall_after < PRIOR
        progress_capture.advance(snapshot.stall_after)
        assert op.snapshot().health is Health.SILENT
        assert f"({source})" in (op.snapshot().health_reason or "")


def test_a_run_learns_from_itself(progress_capture: Capture) -> None:
    """A first run that moved for long and then hangs is found, without any limit named."""
    with progress.operation("survey") as op:
        for _ in range(600):
            op.advance()
            progress_capture.advance(1)
        assert re.fullmatch(r"\d+ units so far, longest gap under 2 s", op.snapshot().stall_after_source or "")
        progress_capture.advance(60)
        assert op.snapshot().health is Health.SILENT


def test_a_longer_gap_that_ended_well_counts_at_once(progress_capture: Capture) -> None:
    """The run itself is not called stuck for what it just showed to be healthy."""
    with progress.operation("survey") as op:
        for _ in range(2000):
            op.advance()
            progress_capture.advance(1)
        before = op.snapshot().stall_after or 0.0
        progress_capture.advance(before - 2)
        op.advance()
        progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING
        progress_capture.advance(before * 1.2)
        assert op.snapshot().health is Health.PROGRESSING


def test_one_that_never_counted_is_never_silent(progress_capture: Capture) -> None:
    """Without any progress ever seen, nor enough earlier runs, silence says nothing."""
    for _ in range(int(UNCOUNTED) - 1):
        with progress.operation("train"):
            progress_capture.advance(3)
    with progress.operation("train") as op:
        progress_capture.advance(3 * PRIOR)
        assert op.snapshot().health is not Health.SILENT


@pytest.mark.parametrize("each", [0.05, 0.1, 0.4])
def test_300_steady_units_earn_a_limit_below_a_minute(each: float, progress_capture: Capture) -> None:
    """The first run of a name is found stuck within a minute, and what is said is what was seen."""
    with progress.operation("survey") as op:
        for _ in range(300):
            op.advance()
            progress_capture.advance(each)
        snapshot = op.snapshot()
        assert FLOOR <= (snapshot.stall_after or 0) <= 60
        found = re.fullmatch(r"(\d+) units so far, longest gap under 2 s", snapshot.stall_after_source or "")
        assert found is not None
        assert 250 <= int(found[1]) <= 300
        progress_capture.advance(45)
        assert op.snapshot().health is Health.PROGRESSING, "it may be a long unit at the end"
        progress_capture.advance(16)
        assert op.snapshot().health is Health.SILENT


def test_short_runs_without_units_earn_a_limit(progress_capture: Capture) -> None:
    """A run that never counts has no progress in all its time, so its whole duration is a gap."""
    for _ in range(20):
        with progress.operation("call"):
            progress_capture.advance(3.6)
    with progress.operation("call") as op:
        progress_capture.advance(30)
        assert op.snapshot().health is Health.PROGRESSING
        progress_capture.advance(30)
        assert op.snapshot().health is Health.SILENT
        assert re.fullmatch(
            r"no progress for 60 s, stall_after is .* \(learned from 20 runs, none longer than 3\.\d s\)",
            op.snapshot().health_reason or "",
        )


def test_runs_that_had_nothing_to_do_teach_little(progress_capture: Capture) -> None:
    """Twenty runs of 50 ms without a unit may all have been empty: they earn no limit for a real one."""
    for _ in range(20):
        with progress.operation("call"):
            progress_capture.advance(0.05)
    with progress.operation("call") as op:
        progress_capture.advance(120)
        assert op.snapshot().stall_after is None


def test_a_pause_at_the_end_is_learned_from_whole_runs(progress_capture: Capture) -> None:
    """A flush that each run has at its end is healthy, and so is one that is twice as long."""
    for number in range(25):
        with progress.operation("export") as op:
            for _ in range(50):
                op.advance()
                progress_capture.advance(0.5)
            progress_capture.advance(80 if number == 24 else 40)
            assert op.snapshot().health is Health.PROGRESSING, number


def test_a_pause_between_stages_is_learned(progress_capture: Capture) -> None:
    """What an operation does before its first stage, and between two, has a limit of its own."""
    for _ in range(21):
        with progress.operation("etl") as op:
            progress_capture.advance(30)
            with progress.stage("load"):
                progress_capture.advance(1)
            progress_capture.advance(20)
            with progress.stage("clean"):
                progress_capture.advance(1)
            assert op.snapshot().health is Health.PROGRESSING
    with progress.operation("etl") as op:
        progress_capture.advance(1)
        assert 40 + 5 * 30 <= (op.snapshot().stall_after or 0) <= 400


def test_waits_are_no_gaps(progress_capture: Capture) -> None:
    """A declared wait teaches nothing of how long the work itself is quiet."""
    for _ in range(20):
        with progress.operation("ask"):
            progress_capture.advance(3)
            with progress.waiting("a person"):
                progress_capture.advance(90)
    with progress.operation("ask") as op:
        progress_capture.advance(1)
        assert (op.snapshot().stall_after or 0) <= 60


def test_each_loop_side_by_side_teaches_its_own_gaps(progress_capture: Capture) -> None:
    """Gaps are counted per handle; those of concurrent loops may add up to more than its time."""
    with progress.operation("pool") as op:
        for _ in range(3):
            op.advance()
            progress_capture.advance(10)
            for _ in range(4):
                learning.learning.gap(op.operation, op, 10.0)
        limit = learning.learning.limits(op.operation, op).stall_after
        assert limit is not None
        assert limit < PRIOR
        assert learning.learning.longest(op.operation, op) == pytest.approx(10, rel=0.1)


@given(
    st.lists(st.floats(0.05, 5e4), max_size=40),
    st.builds(Seen, st.floats(0, 1e9), st.floats(0, 1e6), st.integers(0, 1000), st.floats(0, 1e5)),
)
def test_a_limit_is_between_the_floor_and_what_is_far_above_all_that_was_seen(runs: list[float], seen: Seen) -> None:
    """Whatever was seen, a limit is finite, above the floor and above each run's longest gap, and has a source."""
    learned = Learned()
    for longest in runs:
        learned.ended(2 * longest, longest, counted=True)
        learned.gaps.add(longest)
    limit = learned.stall_after(seen)
    if limit is None:
        assert not runs
        return
    assert FLOOR <= limit < float("inf")
    assert all(limit > longest for longest in runs)
    assert learned.source("", seen)


def test_a_file_of_an_earlier_version_is_read() -> None:
    """Without the longest gap of each run, the longest of all counts for each, and that of runs without units is all."""
    counted = Learned.from_dict({"runs": 30, "gaps": {"0": 900, "8": 3}, "durations": {"20": 30}})
    assert counted.evidence == 1
    assert (counted.stall_after() or 0) > 40 + 5 * 4
    uncounted = Learned.from_dict({"runs": 20, "gaps": {}, "durations": {"7": 20}})
    assert (uncounted.stall_after() or 0) <= 60


def test_what_was_named_rules(progress_capture: Capture) -> None:
    """A limit that the user set is never replaced by a learned one."""
    run(progress_capture)
    with progress.operation("survey", stall_after=7, slow_after=9) as op:
        progress_capture.advance(2)
        snapshot = op.snapshot()
        assert (snapshot.stall_after, snapshot.stall_after_source) == (7, None)
        assert (snapshot.slow_after, snapshot.slow_after_source) == (9, None)


def test_each_stage_has_its_own(progress_capture: Capture) -> None:
    """A slow stage and a quick one of the same operation have different limits."""

    def once() -> dict[str, float]:
        limits = {}
        with progress.operation("etl"):
            for name, each in (("load", 40.0), ("clean", 1.0)):
                with progress.stage(name):
                    for number in progress.track(range(20)):
                        progress_capture.advance(each)
                        if number == 2:
                            limits[name] = progress.current(required=True).snapshot().stall_after or 0.0
        return limits

    for _ in range(int(KNOWN) + 1):
        limits = once()
    assert limits["load"] > 2 * limits["clean"]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_only_what_completed_teaches(end: str, progress_capture: Capture) -> None:
    """The last silence of an aborted run is not a healthy gap."""
    op = progress.operation("survey").start()
    op.advance()
    progress_capture.advance(1)
    progress_capture.advance(500)
    getattr(op, end)()
    progress_capture.look()
    known = learning.learning._known.get(("survey", ""))
    assert known is None or known.gaps.longest < 10


def test_a_plan_says_when_it_is_slow(progress_capture: Capture) -> None:
    """Past twice what the plan expects in all, a run that moves is slow, by the plan."""
    plan = [StagePlan("a", expected=10), StagePlan("b", expected=20)]
    with progress.operation("build", plan=plan) as op:
        for second in range(65):
            op.advance()
            progress_capture.advance(1)
            health = op.snapshot().health
            assert health is (Health.SLOW if second >= 59 else Health.PROGRESSING), second
        assert (op.snapshot().slow_after, op.snapshot().slow_after_source) == (60, "from the plan")
        assert "(from the plan)" in (op.snapshot().health_reason or "")


def test_history_says_when_it_is_slow(progress_capture: Capture) -> None:
    """After enough runs, one that takes far longer and still moves is slow."""
    for _ in range(RUNS):
        run(progress_capture)
    with progress.operation("survey") as op:
        progress_capture.advance(1)
        limit = op.snapshot().slow_after
        assert limit is not None
        while op.snapshot().elapsed < limit:
            assert op.snapshot().health is Health.PROGRESSING
            op.advance()
            progress_capture.advance(20)
        op.advance()
        progress_capture.advance(1)
        assert op.snapshot().health is Health.SLOW
        assert op.snapshot().slow_after_source == f"learned from {RUNS} runs"


def test_a_file_outlives_the_process(tmp_path: Path) -> None:
    """What one process learned is there for the next, and both add up."""
    path = tmp_path / "history.json"
    for runs in (1, 2, 3):
        with capture() as captured:
            learning.learning = Learning(path)
            run(captured)
            captured.look()
            learning.learning.save()
        assert read(path)["survey", ""].runs == runs


def test_two_processes_add_to_one_file(tmp_path: Path) -> None:
    """Each saves what is new to it; nobody's runs are lost."""
    path = tmp_path / "history.json"
    with capture() as captured:
        first, second = Learning(path), Learning(path)
        for learned in (first, second, first):
            learning.learning = learned
            run(captured)
            captured.look()
            learned.save()
    assert read(path)["survey", ""].runs == 3


def used(path: Path, caplog: pytest.LogCaptureFixture) -> tuple[Learning | None, str]:
    """What `configure(history=path)` learns from, and what it warns of."""
    caplog.clear()
    return of_file(path), caplog.text


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"version": 2}', '{"version": 1, "learned": [{"operation": "x"}]}', "\0\0"]
)
def test_a_file_that_is_something_else_is_kept_and_stops_no_job(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file with other content, as one that was cut off, is named in a warning, and left unchanged."""
    path = tmp_path / "history.json"
    path.write_text(text)
    found, warned = used(path, caplog)
    assert found is None
    assert f"{path} is no history of otel-progress" in warned
    assert "move it away, or name another file" in warned
    assert "Traceback" not in warned
    assert path.read_text() == text


def test_bytes_that_are_no_text_stop_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A binary file is no history."""
    path = tmp_path / "history.json"
    path.write_bytes(b"\xff\xfe")
    found, warned = used(path, caplog)
    assert found is None
    assert "move it away" in warned


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_no_history_yet(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As from `mktemp` or a full disk: it is filled at the next save."""
    path = tmp_path / "history.json"
    path.write_text(text)
    path.chmod(0o600)
    found, warned = used(path, caplog)
    assert (found is not None, warned) == (True, "")
    assert found is not None
    with capture() as captured:
        learning.learning = found
        run(captured)
        captured.look()
        found.save()
    assert read(path)["survey", ""].runs == 1


def test_a_folder_that_is_not_there_stops_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names it."""
    found, warned = used(tmp_path / "nowhere" / "history.json", caplog)
    assert found is None
    assert f"the folder {tmp_path / 'nowhere'} does not exist; create it" in warned


def test_a_folder_in_place_of_the_file_stops_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names it."""
    found, warned = used(tmp_path, caplog)
    assert found is None
    assert str(tmp_path) in warned


def test_the_job_starts_whatever_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`configure` goes on, with one warning; a path of a wrong type is still an error."""
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    path = tmp_path / "history.json"
    path.write_text("{")
    progress.configure(history=path)
    progress.shutdown(0)
    assert caplog.text.count("no history is kept in") == 1
    with pytest.raises(progress.InvalidArgument, match="history must be the path of a file"):
        progress.configure(history=7)  # type: ignore[arg-type]


def test_a_file_that_breaks_during_the_run_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be saved is logged once, without a traceback."""
    monkeypatch.setattr(guard, "_told", set())
    path = tmp_path / "history.json"
    with capture() as captured:
        learning.learning = learned = Learning(path)
        for _ in range(2):
            run(captured)
            captured.look()
            path.write_text("{{{")
            learned.save()
    warned = [record for record in caplog.records if "could not be saved" in record.getMessage()]
    assert len(warned) == 1
    assert warned[0].exc_info is None
    assert "move it away" in warned[0].getMessage()


def test_a_file_that_can_t_be_written_harms_nobody(tmp_path: Path) -> None:
    """The job continues, and what was learned stays in memory."""
    path = tmp_path / "deep" / "history.json"
    path.parent.mkdir()
    with capture() as captured:
        learning.learning = learned = Learning(path)
        path.parent.rmdir()
        run(captured)
        captured.look()
        learned.save()
        assert learned._known["survey", ""].runs == 1


def test_names_are_bounded() -> None:
    """The number of names in memory is bounded."""
    with capture() as captured:
        for number in range(KEYS + 50):
            with progress.operation(f"work {number}") as op:
                op.advance()
            captured.look()
        assert len(learning.learning._known) <= KEYS


def test_learned_limits_travel(progress_capture: Capture) -> None:
    """Log events and the series of the run carry the limit that counts."""
    run(progress_capture, items=60)
    with progress.operation("survey") as op:
        op.advance()
        progress_capture.advance(12)
        op.update(message="x")
        progress_capture.advance(1)
        log = progress_capture.logs[-1]
        assert log.attributes[semconv.STALL_AFTER_SOURCE].startswith("learned from 1 run")
        limits = [point.value for point in progress_capture.series if point.name == semconv.RUN_STALL_AFTER.name]
        assert limits[-1] == pytest.approx(log.attributes[semconv.STALL_AFTER])


def test_an_incident_teaches_little(progress_capture: Capture) -> None:
    """A hang of hours that somebody freed does not become the norm; gaps that come again raise the limit step by step."""
    run(progress_capture, items=60)
    limits = []
    for _ in range(3):
        with progress.operation("survey") as op:
            op.advance()
            progress_capture.advance(1)
            limits.append(op.snapshot().stall_after or 0.0)
            progress_capture.advance(3600)
            op.advance()
            progress_capture.advance(1)
    assert all(after < 3 * before for before, after in pairwise(limits))
    assert limits[-1] > limits[0]


@pytest.mark.parametrize("runs", ["1e999", "-1", '"x"', "[[[[", "null"])
def test_a_broken_file_is_a_clear_warning(runs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a broken file contains, the warning is clear."""
    path = tmp_path / "history.json"
    learned = f'{{"operation": "x", "stage": "", "runs": {runs}, "gaps": {{}}, "durations": {{}}}}'
    path.write_text(f'{{"version": 1, "learned": [{learned}]}}')
    found, warned = used(path, caplog)
    assert found is None
    assert "history.json is no history" in warned


def test_a_lock_that_others_hold_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """What can't be saved now is saved the next time, and nothing is lost."""
    path = tmp_path / "history.json"
    with capture() as captured:
        learning.learning = learned = Learning(path)
        run(captured)
        captured.look()
        with files.Lock(f"{path}.lock"):
            run(captured)
            captured.look()
            learned.save()
        learned.save()
    assert read(path)["survey", ""].runs == 2


def test_the_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    """Others who share it can still read it."""
    path, link = tmp_path / "real.json", tmp_path / "history.json"
    path.write_text('{"version": 1, "learned": []}')
    path.chmod(0o664)
    link.symlink_to(path)
    with capture() as captured:
        learning.learning = learned = Learning(link)
        run(captured)
        captured.look()
        learned.save()
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o664
    assert read(path)["survey", ""].runs == 1


def test_the_file_is_for_its_owner_alone_and_what_everybody_can_write_teaches_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that others can write could make every limit endless, so it is not read."""
    path = tmp_path / "history.json"
    with capture() as captured:
        learning.learning = learned = Learning(path)
        run(captured)
        captured.look()
        learned.save()
    assert [one.stat().st_mode & 0o777 for one in (path, tmp_path / "history.json.lock")] == [0o600, 0o600]
    path.chmod(0o666)
    found, warned = used(path, caplog)
    assert found is None
    assert "can be written by others: chmod go-w" in warned


def test_sources_name_stages(progress_capture: Capture) -> None:
    """The source says whether the runs were those of a stage."""
    with progress.operation("etl"):
        for _ in range(30):
            with progress.stage("load") as stage:
                stage.advance()
                progress_capture.advance(1)
                source = progress.current(required=True).snapshot().stall_after_source
    assert source is not None
    assert "runs of load" in source


@pytest.mark.parametrize("gaps", [[2, 2, 3, 18], [2, 20], [3, 3, 3, 3, 3, 3, 15, 40]])
def test_gaps_of_seconds_give_no_limit_of_hours(gaps: list[float]) -> None:
    """Without evidence half an hour is allowed; few and different gaps are no evidence for more than that."""
    learned = Learned()
    for gap in gaps:
        learned.gaps.add(gap)
    seen = Seen(units=len(gaps), steady=10, gaps=len(gaps), longest=max(gaps))
    limit = learned.stall_after(seen)
    assert limit is not None
    assert BEYOND * max(gaps) < limit <= PRIOR


def test_long_gaps_give_a_longer_limit_than_without_evidence() -> None:
    """Who pauses for half an hour may do so again, and for longer."""
    learned = Learned()
    for gap in (60, 600, 1_800):
        learned.gaps.add(gap)
    assert (learned.stall_after() or 0) > 2 * PRIOR


# -- attempts

PROGRAM = """
import os, signal, sys, time
import otel_progress as progress

progress.configure(history=sys.argv[1])
operation = progress.operation("survey", id="survey-1").start()
print(operation.attempt, flush=True)
if sys.argv[2] == "kill":
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
operation.complete()
"""


def test_attempts_go_on_over_processes_that_share_a_history(tmp_path: Path) -> None:
    """A run of an id that was given is the next attempt, also after one that was killed; without a file it is 1."""
    file = tmp_path / "history.json"

    def run(how: str) -> str:
        environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}  # nothing listens there
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(file), how], stdin=PIPE, stdout=PIPE, text=True, env=environ
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            number = process.stdout.readline().strip()
            if how == "kill":
                deadline = time.monotonic() + 60
                while not (file.exists() and read_attempts(file).get("survey-1") == int(number)):
                    assert time.monotonic() < deadline, "the attempt was not saved"
                    time.sleep(0.05)
            process.communicate("\n", timeout=60)
        return number

    assert [run(how) for how in ("end", "kill", "end")] == ["1", "2", "3"]
    assert read_attempts(file) == {"survey-1": 3}


def test_attempts_in_a_file_are_bounded_and_sound(tmp_path: Path) -> None:
    """The ids that began last stay; what is no number of an attempt is left out; an older file has none."""
    file = tmp_path / "history.json"
    write(file, {}, learning._joined({f"k{n}": 1 for n in range(learning.IDS)}, {"new": 2, "k0": 5}))
    kept = read_attempts(file)
    assert len(kept) == learning.IDS
    assert list(kept)[-2:] == ["new", "k0"]
    assert "k1" not in kept
    file.write_text('{"version": 1, "learned": [], "attempts": {"a": "x", "b": -1, "c": true, "d": 4}}')
    assert (read(file), read_attempts(file)) == ({}, {"d": 4})
    file.write_text('{"version": 1, "learned": []}')
    assert read_attempts(file) == {}


WATCHED = """
import io
import otel_progress as progress
from otel_progress.handlers.console import Console

with Console(file=io.StringIO()):
    with progress.operation("survey", total=2) as operation:
        operation.advance(2)
"""


def test_variable_names_the_file_of_whatever_watches(tmp_path: Path) -> None:
    """A console alone makes use of `OTEL_PROGRESS_HISTORY`; a file that can't be used is said once, and stays."""
    file = tmp_path / "history.json"

    def run() -> str:
        environ = {**os.environ, "OTEL_PROGRESS_HISTORY": str(file)}
        done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, env=environ, check=True)
        return done.stderr

    assert [run(), run()] == ["", ""]
    assert read(file)["survey", ""].runs == 2
    file.write_text("broken")
    assert run().count("no history is kept in") == 1
    assert file.read_text() == "broken"


ALONE = """
import threading

import otel_progress as progress

for _ in range(2):
    with progress.operation("survey", total=2) as operation:
        operation.advance(2)
print(any(thread.name.startswith("otel-progress") for thread in threading.enumerate()))
"""


def test_a_named_history_is_kept_by_a_program_that_nothing_watches(tmp_path: Path) -> None:
    """`OTEL_PROGRESS_HISTORY` is enough to learn; without it nothing starts."""
    file = tmp_path / "history.json"

    def run(**environ: str) -> str:
        whole = {**os.environ, **environ}
        done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, env=whole, check=True)
        assert not done.stderr
        return done.stdout.strip()

    assert [run(OTEL_PROGRESS_HISTORY=str(file)), run()] == ["True", "False"]
    assert read(file)["survey", ""].runs == 2


def test_a_named_history_outlives_what_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are learned after the last observer is gone, if a file is named."""
    with capture():
        for consumers in (hooks.sinks, hooks.paced_sinks, hooks.on_change, hooks.verdicts):
            consumers.clear()
        runtime.unwant()
        assert not hooks.wanted
        monkeypatch.setenv("OTEL_PROGRESS_HISTORY", str(tmp_path / "history.json"))
        runtime.unwant()
        assert hooks.wanted
