"""The ETA of uneven work: units of all lengths, waits again and again, growing totals, stages that last, new machines."""

from __future__ import annotations

import itertools
import math
import random

import pytest

import otel_progress as progress
from otel_progress.model.estimate import Estimate
from otel_progress.model.outline import Outline, StageSoFar
from otel_progress.model.past import Record
from otel_progress.testing import Capture


def eta(handle: progress.Operation | progress.Stage) -> Estimate:
    """The estimate of a handle, which must have one."""
    found = handle.snapshot().progress.eta
    assert found is not None
    return found


# -- one unit


def test_between_two_reports_an_estimate_only_runs_down_until_the_unit_is_late(progress_capture: Capture) -> None:
    """It falls for as long as a unit usually takes; then it rises slowly, and stays until nothing explains the unit."""
    rng = random.Random(3)
    with progress.operation("agent", total=40) as op:
        for _ in range(30):
            progress_capture.advance(8 * rng.lognormvariate(0, 1.0))
            op.advance()
        seen = []
        for _ in range(50):
            progress_capture.advance(1)
            seen.append(eta(op).eta)
    falls = [after < before + 1e-6 for before, after in itertools.pairwise(seen)]
    late = falls.index(False) if False in falls else len(falls)
    assert late >= 4
    assert all(after >= before - 1.01 for before, after in itertools.pairwise(seen))
    assert seen[-1] > 0.8 * seen[late]


def test_a_last_unit_as_long_as_others_keeps_its_estimate(progress_capture: Capture) -> None:
    """Where tools take from 1 to 40 s, the last one of 30 s never has none, nor almost none."""
    with progress.operation("agent", total=21) as op:
        for each in [1.0, 3.0, 6.0, 12.0, 40.0] * 4:
            progress_capture.advance(each)
            op.advance()
        for second in range(30):
            progress_capture.advance(1)
            assert eta(op).eta > 1
            assert second < 20 or eta(op).eta > 5


def test_before_its_first_unit_a_run_keeps_the_time_of_all_others(progress_capture: Capture) -> None:
    """Units took 10 s each; after 60 s without any, the other eleven are still to come."""
    for _ in range(3):
        with progress.operation("job", total=12) as op:
            for _ in range(12):
                progress_capture.advance(10)
                op.advance()
    with progress.operation("job", total=12) as op:
        for _ in range(6):
            progress_capture.advance(10)
            assert eta(op).eta >= 105


# -- stages


def test_an_operation_ends_no_earlier_than_its_running_stages(progress_capture: Capture) -> None:
    """The operation counts rows, which are soon done, while a stage has 30 more parts of 5 s."""
    with progress.operation("rows", total=200) as op, progress.stage("upload", total=40, unit="part") as stage:
        for part in range(10):
            for _ in range(19):
                progress_capture.advance(0.26)
                op.advance()
            stage.advance()
            if part > 3:
                seen = op.snapshot()
                assert seen.progress.eta is not None
                assert seen.stages[0].progress.eta is not None
                assert seen.progress.eta.eta >= seen.stages[0].progress.eta.eta > 100
        op.advance(10)
        assert op.snapshot().progress.completed == 200
        assert eta(op).eta == pytest.approx(150, rel=0.15)


def test_an_outer_stage_ends_no_earlier_than_one_inside(progress_capture: Capture) -> None:
    """What holds for an operation holds for a stage; one that is not critical holds up nothing."""
    for critical in (True, False):
        with progress.operation("nest") as op, progress.stage("outer", total=100) as outer:
            with progress.stage("inner", total=100, unit="part", critical=critical) as inner:
                for _ in range(12):
                    progress_capture.advance(5)
                    inner.advance()
                    outer.advance(5)
                around, inside = op.snapshot().stages
            assert around.progress.eta is not None
            assert inside.progress.eta is not None
            assert (around.progress.eta.eta >= inside.progress.eta.eta) is critical


# -- waits and growth


def test_waits_that_come_again_and_again_are_expected(progress_capture: Capture) -> None:
    """After three waits for a rate limit in a first run, as many for each unit are expected; after one, none is."""
    with progress.operation("llm", total=400) as op:
        for unit in range(1, 161):
            progress_capture.advance(1)
            op.advance()
            if unit == 60:
                assert eta(op).eta == pytest.approx(340, rel=0.1)
            if unit % 40 == 0:
                with op.waiting("rate limit"):
                    progress_capture.advance(30)
        found = eta(op)
    assert found.eta == pytest.approx(240 + 6 * 30, rel=0.1)
    assert found.low <= 240 + 5 * 30 < found.high


def test_a_total_that_grows_slowly_has_an_estimate(progress_capture: Capture) -> None:
    """200 pages, of which each tenth adds another one, end: there is an estimate all the time."""
    with progress.operation("crawl", total=200) as op:
        for unit in range(1, 100):
            if unit % 10 == 0:
                op.update(total=200 + unit // 10)
            progress_capture.advance(1)
            op.advance()
            assert unit < 5 or eta(op).eta > 0
        assert 100 < eta(op).eta < 130


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_queue_may_stop_growing_or_go_on(progress_capture: Capture, every: int) -> None:
    """Of each few pages one adds another: the interval holds the end if that goes on, and if it stops at once."""
    with progress.operation("crawl", total=200) as op:
        total = 200
        for unit in range(1, 121):
            if unit % every == 0:
                total += 1
                op.update(total=total)
            progress_capture.advance(1)
            op.advance()
        found = eta(op)
    left = total - 120
    assert found.low <= left
    assert found.high >= left / (1 - 1 / every)


# -- runs that changed for good


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_two_runs_in_a_row_that_differ_alike_replace_earlier_ones(factor: float) -> None:
    """On a new machine the third run is foretold, whatever was before; a single odd run changes little."""
    record, outline = Record(), Outline()
    for took in [180.0, 175.0, 185.0, 178.0] * 2:
        record.add([1 / 16] * 16, took, 100.0)
        outline.add(took, {})
    record.add([1 / 16] * 16, 180.0 * factor, 100.0)
    outline.add(180.0 * factor, {})
    odd_record, odd_outline = Record.from_list(record.to_list()), Outline.from_list(outline.to_list())
    record.add([1 / 16] * 16, 178.0 * factor, 100.0)
    outline.add(178.0 * factor, {})
    assert math.exp(record.each) * 100 == pytest.approx(180 * factor, rel=0.05)
    assert outline.took == pytest.approx(180 * factor, rel=0.05)
    odd_record.add([1 / 16] * 16, 180.0, 100.0)
    odd_outline.add(180.0, {})
    assert math.exp(odd_record.each) * 100 == pytest.approx(180, rel=0.35)
    assert odd_outline.took == pytest.approx(180, rel=0.5)


def test_runs_of_one_process_each_teach_as_those_of_one_process_do() -> None:
    """A nightly job is a process of its own each time: what its runs taught is merged into the file one by one."""
    here, file = (Record(), Outline()), (Record(), Outline())
    for took in (100.0, 140.0, 90.0, 110.0, 330.0, 320.0):
        one = Record(), Outline()
        shares = [2 / 16] * 4 + [2 / 3 / 16] * 12
        stages = {"load": StageSoFar(1, 0, 0.0, took / 2), "save": StageSoFar(1, 0, took / 2, took)}
        for record, outline in (here, one):
            record.add(shares, took, 50.0)
            outline.add(took, stages)
        file[0].merge(one[0])
        file[1].merge(one[1])
    assert file[0].to_list() == pytest.approx(here[0].to_list(), abs=1e-5)
    assert file[1].took == pytest.approx(here[1].took)
    assert file[1].varies == pytest.approx(here[1].varies)
    assert file[1].stages["save"].span == pytest.approx(here[1].stages["save"].span)


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_few_quick_steps_do_not_disprove_earlier_runs(progress_capture: Capture, seed: int) -> None:
    """Where units take from 1 to 60 s, four quick ones at the start are chance or not: the interval allows for both."""
    rng, took = random.Random(seed), []
    for _ in range(5):
        with progress.operation("agent", total=15) as op:
            times = [9 * rng.lognormvariate(0, 1.1) for _ in range(15)]
            for each in times:
                progress_capture.advance(each)
                op.advance()
            took.append(sum(times))
    with progress.operation("agent", total=15) as op:
        for _ in range(4):
            progress_capture.advance(1.5)
            op.advance()
        progress_capture.advance(1)
        found = eta(op)
    assert found.eta > 45
    assert found.high > min(took) / 2
    assert found.low < 11 * 1.5
