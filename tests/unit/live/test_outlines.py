"""Stages and child operations of earlier runs are expected again, though no plan names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress.live.engine import learning, runtime
from otel_progress.model.estimate import Estimate
from otel_progress.model.outline import STAGES, Outline, StageSoFar, UsualStage
from otel_progress.model.units import left
from otel_progress.testing import Capture


def eta(handle: progress.Operation | progress.Stage) -> Estimate:
    """The estimate of a handle, which must have one."""
    found = handle.snapshot().progress.eta
    assert found is not None
    assert 0 <= found.low <= found.eta <= found.high
    return found


def in_turn(capture: Capture, **seconds: float) -> None:
    """One run whose stages come one after the other."""
    with progress.operation("deploy"):
        for name, long in seconds.items():
            with progress.stage(name):
                capture.advance(long)


def test_what_comes_after_a_stage_is_added_to_what_is_left_of_it(progress_capture: Capture) -> None:
    """Not the usual duration of the whole counts: a slow first stage leaves the time of the others untouched."""
    in_turn(progress_capture, build=30, test=20, roll_out=60)
    with progress.operation("deploy") as op:
        progress_capture.advance(0.5)
        assert eta(op).eta == pytest.approx(110, rel=0.1)
        with op.stage("build"):
            progress_capture.advance(20)
            assert eta(op).eta == pytest.approx(90, rel=0.05)
            assert (eta(op).source, eta(op).runs) == ("history", 1)
            progress_capture.advance(30)
        with op.stage("test"):
            progress_capture.advance(1)
            assert eta(op).eta == pytest.approx(79, rel=0.05)


def test_a_stage_that_counts_goes_by_its_own_pace(progress_capture: Capture) -> None:
    """The running stage tells what is left of it, earlier runs tell the rest."""
    in_turn(progress_capture, load=10, report=60)
    with progress.operation("deploy") as op, op.stage("load", total=100) as load:
        for _ in range(30):
            progress_capture.advance(1)
            load.advance()
        assert eta(load).eta == pytest.approx(70, rel=0.2)
        assert eta(op).eta == pytest.approx(130, rel=0.15)


def side_by_side(capture: Capture, fast: float, slow: float, pack: float | None = None) -> None:
    """Two stages at once, then one that needs both."""
    with progress.operation("media") as op:
        first, second = op.stage("audio").start(), op.stage("video").start()
        capture.advance(fast)
        first.complete()
        capture.advance(slow - fast)
        second.complete()
        if pack is not None:
            with op.stage("pack"):
                capture.advance(pack)


def test_stages_side_by_side_count_by_the_longest_path(progress_capture: Capture) -> None:
    """Of audio (20 s) and video (60 s) at once and then pack (30 s), 90 s are left, not 110."""
    side_by_side(progress_capture, 20, 60, 30)
    with progress.operation("media") as op:
        audio, video = op.stage("audio").start(), op.stage("video").start()
        progress_capture.advance(10)
        assert eta(op).eta == pytest.approx(80, rel=0.05)
        progress_capture.advance(30)
        audio.complete()  # late, and yet not on the longest path
        assert eta(op).eta == pytest.approx(50, rel=0.05)
        video.complete()  # early
        progress_capture.advance(1)
        with op.stage("pack"):
            progress_capture.advance(1)
            assert eta(op).eta == pytest.approx(29, rel=0.1)


def test_the_end_of_a_branch_that_nothing_needs_waits_for_no_other(progress_capture: Capture) -> None:
    """A usually slow branch that is over early leaves what the other one needs, not the usual rest."""
    side_by_side(progress_capture, 20, 60)
    with progress.operation("media") as op:
        op.stage("audio").start()
        video = op.stage("video").start()
        progress_capture.advance(5)
        video.complete()
        progress_capture.advance(1)
        assert eta(op).eta == pytest.approx(14, rel=0.1)


def test_a_stage_that_is_left_out_is_not_waited_for(progress_capture: Capture) -> None:
    """As soon as one begins that always came after it, it is skipped."""
    in_turn(progress_capture, build=30, test=200, roll_out=60)
    with progress.operation("deploy") as op:
        with op.stage("build"):
            progress_capture.advance(30)
        with op.stage("roll_out"):
            progress_capture.advance(10)
            assert eta(op).eta == pytest.approx(50, rel=0.05)


def test_a_rare_stage_is_not_expected(progress_capture: Capture) -> None:
    """What only one of many runs had does not count."""
    in_turn(progress_capture, build=10, repair=500, roll_out=10)
    for _ in range(3):
        in_turn(progress_capture, build=10, roll_out=10)
    with progress.operation("deploy") as op, op.stage("build"):
        progress_capture.advance(5)
        assert eta(op).eta == pytest.approx(15, rel=0.1)


def test_a_stage_that_repeats_is_expected_as_often_as_before(progress_capture: Capture) -> None:
    """Ten epochs took 100 s: after four that took 15 s each, six of 15 s are left."""

    def epochs(count: int, seconds: float) -> None:
        for _ in range(count):
            with progress.stage("epoch"):
                progress_capture.advance(seconds)
            progress_capture.look()

    with progress.operation("train"):
        epochs(10, 10)
    with progress.operation("train") as op:
        epochs(1, 15)
        assert eta(op).eta == pytest.approx(90, rel=0.1)
        epochs(3, 15)
        assert eta(op).eta == pytest.approx(90, rel=0.1)
        epochs(6, 15)
        assert op.snapshot().progress.eta is None


def test_stages_named_by_data_are_not_expected_again(progress_capture: Capture) -> None:
    """Where each run has names of its own, the duration of the whole is what earlier runs teach."""
    in_turn(progress_capture, oslo=10, paris=10, rome=10)
    with progress.operation("deploy") as op:
        with op.stage("tokyo"):
            progress_capture.advance(10)
        with op.stage("lima"):
            progress_capture.advance(5)
            assert eta(op).eta == pytest.approx(15, rel=0.05)


def test_child_operations_are_expected_like_stages(progress_capture: Capture) -> None:
    """A parent that counts nothing goes by the children that its earlier runs had, and by the pace of these."""
    for _ in range(2):
        with progress.operation("nightly") as op:
            with progress.operation("extract", total=20):
                for number in range(20):
                    progress_capture.advance(1)
                    progress.advance()
                    if number == 9 and _:
                        assert eta(op).eta == pytest.approx(10 + 40, rel=0.1)
            with progress.operation("load"):
                progress_capture.advance(40)


def test_stages_inside_a_stage_are_expected_too(progress_capture: Capture) -> None:
    """Each level has its own earlier runs."""
    for number in range(2):
        with progress.operation("release") as op:
            with op.stage("build") as build:
                with progress.stage("compile"):
                    progress_capture.advance(20)
                    if number:
                        assert eta(build).eta == pytest.approx(30, rel=0.05)
                        assert eta(op).eta == pytest.approx(30 + 50, rel=0.05)
                with progress.stage("link"):
                    progress_capture.advance(30)
            with op.stage("publish"):
                progress_capture.advance(50)


# -- waits, sleep, stuck, ends


def test_declared_waits_are_no_time_of_a_stage(progress_capture: Capture) -> None:
    """A wait of minutes teaches nothing, and takes nothing of what is left."""
    for number in range(2):
        with progress.operation("deploy") as op:
            with op.stage("build"):
                progress_capture.advance(30)
            with op.waiting("approval"):
                progress_capture.advance(240 if not number else 90)
                if number:
                    assert eta(op).eta == pytest.approx(60, rel=0.05)
            with op.stage("roll out"):
                progress_capture.advance(20)
                if number:
                    assert eta(op).eta == pytest.approx(40, rel=0.05)
                progress_capture.advance(40)


def test_a_machine_that_slept_takes_nothing_away(progress_capture: Capture) -> None:
    """Time in which the whole process stood still is no time of a stage, of a plan or of a usual duration."""
    in_turn(progress_capture, build=30, roll_out=60)
    plan = [progress.StagePlan("build", expected=30), progress.StagePlan("roll_out", expected=60)]
    with progress.operation("deploy") as op, progress.operation("planned", plan=plan) as planned:
        op.stage("build").start()
        planned.stage("build").start()
        progress_capture.advance(10)
        progress_capture.clock.sleep(8 * 3600)
        runtime.ticker.round(sample=True)
        progress_capture.advance(5)
        assert eta(op).eta == pytest.approx(75, rel=0.05)
        assert eta(planned).eta == pytest.approx(75, rel=0.05)


def test_a_sleep_before_a_run_is_none_of_it(progress_capture: Capture) -> None:
    """A run that starts as the process wakes up has slept for none of its time."""
    in_turn(progress_capture, build=30, roll_out=60)
    progress_capture.clock.sleep(3600)
    with progress.operation("deploy") as op:
        progress_capture.advance(1)
        assert eta(op).eta == pytest.approx(90, rel=0.05)
        with op.stage("build"):
            progress_capture.advance(10)
            assert eta(op).eta == pytest.approx(80, rel=0.05)


def test_a_stage_far_beyond_its_time_has_no_end(progress_capture: Capture) -> None:
    """Beyond twice its usual time nobody knows: the estimate is none, and it never runs away."""
    in_turn(progress_capture, build=30, roll_out=60)
    with progress.operation("deploy") as op, op.stage("build"):
        for _ in range(60):
            progress_capture.advance(2)
            found = op.snapshot().progress.eta
            assert found is None or found.eta <= 90
        assert op.snapshot().progress.eta is None


def test_a_run_that_failed_teaches_no_stages(progress_capture: Capture) -> None:
    """Only completed runs are expected to happen again."""
    with pytest.raises(OSError), progress.operation("deploy"):
        with progress.stage("build"):
            progress_capture.advance(30)
        raise OSError
    with progress.operation("deploy") as op, op.stage("build"):
        progress_capture.advance(1)
        assert op.snapshot().progress.eta is None


def test_the_stages_are_kept_in_the_file(progress_capture: Capture, tmp_path: Path) -> None:
    """The history file has them; a file from before them is read as well, and two processes add up."""
    in_turn(progress_capture, build=30, roll_out=60)
    progress_capture.look()
    known = learning.learning.learned(progress.operation("deploy"))
    assert known is not None
    path = tmp_path / "history.json"
    learning.write(path, {("deploy", ""): known})
    kept = learning.read(path)["deploy", ""].outline
    assert kept.runs == 1
    assert kept.stages["roll_out"].before == {"build"}
    assert kept.stages["roll_out"].span == pytest.approx(60, abs=1)
    known.merge(learning.read(path)["deploy", ""])
    assert (known.outline.runs, set(known.outline.stages)) == (2, {"build", "roll_out"})
    assert known.outline.stages["build"].share == pytest.approx(1)
    path.write_text(path.read_text().replace('"outline"', '"other"'))
    assert learning.read(path)["deploy", ""].outline.runs == 0


# -- the model alone

NAMES = st.sampled_from([*"abcdef"])
TIMES = st.floats(0, 1e6)
SO_FAR = st.builds(
    StageSoFar,
    st.integers(0, 20),
    st.integers(0, 3),
    TIMES,
    TIMES,
    st.frozensets(NAMES, max_size=3),
)
OWN = st.dictionaries(NAMES, TIMES.map(lambda one: Estimate(one, one / 2, one * 2, "rate")))
USUAL = st.builds(UsualStage, st.floats(0, 1), st.floats(0, 20), TIMES, TIMES, st.frozensets(NAMES, max_size=3))


@given(
    st.builds(Outline, st.integers(0, 9), TIMES, st.floats(0, 4), TIMES, st.dictionaries(NAMES, USUAL)),
    st.dictionaries(NAMES, SO_FAR),
    TIMES,
    OWN,
)
@example(Outline(1, 1000.0, 1.0, 0.0, {}), {}, 5e-324, {})
def test_whatever_earlier_runs_had_the_estimate_is_sound(
    outline: Outline, seen: dict[str, StageSoFar], now: float, own: dict[str, Estimate]
) -> None:
    """No crash, also where stages need each other in a circle; never below zero, and the interval holds it."""
    found = outline.left(seen, now, own)
    assert found is None or 0 <= found.low <= found.eta <= found.high < float("inf")
    outline.add(now, seen)
    again = Outline.from_list(outline.to_list())
    assert set(again.stages) == set(outline.stages)
    again.merge(outline)


def test_the_stages_of_a_name_are_bounded() -> None:
    """Runs with ever new names keep at most a fixed number of stages."""
    outline = Outline()
    for number in range(3 * STAGES):
        outline.add(10.0, {f"{number}-{one}": StageSoFar(1, 0, 0.0, 1.0) for one in range(5)})
    assert len(outline.stages) <= STAGES


@pytest.mark.parametrize("bad", [[], [1], [1, 2, 3, 4, [["a"]]], [1, "x", 0, 0, []], [1, -1, 0, 0, []], "no"])
def test_a_damaged_file_is_refused(bad: object) -> None:
    """A list that no outline wrote is an error, which the reader of the file reports."""
    with pytest.raises((TypeError, ValueError)):
        Outline.from_list(bad)


def test_a_run_that_counts_nothing_has_an_estimate_from_its_second_run_on(progress_capture: Capture) -> None:
    """Identical runs of 24.3 s are foretold exactly, with a wide interval after the first run and a narrower one later."""
    found = []
    for _ in range(4):
        with progress.operation("sleep") as op:
            progress_capture.advance(4.3)
            found.append(op.snapshot().progress.eta)
            progress_capture.advance(20)
    assert found[0] is None
    known = [each for each in found if each is not None]
    assert [each.eta for each in known] == pytest.approx([20, 20, 20], rel=0.01)
    assert [each.runs for each in known] == [1, 2, 3]
    widths = [each.high - each.low for each in known]
    assert widths == sorted(widths, reverse=True)
    assert known[0].low < 12
    assert known[0].high > 30


def test_a_stage_that_counts_nothing_has_an_estimate_from_its_second_run_on(progress_capture: Capture) -> None:
    """After one run, the row of a stage without a count tells its time left, too."""
    in_turn(progress_capture, fetch=4, convert=8)
    with progress.operation("deploy") as op, op.stage("fetch"):
        progress_capture.advance(1)
        stage = op.snapshot().stages[0].progress.eta
        assert stage is not None
        assert stage.eta == pytest.approx(3, rel=0.1)


def test_a_run_whose_stages_all_take_twice_as_long_expects_that_of_the_rest(progress_capture: Capture) -> None:
    """What all ended stages agree on scales the stages to come, and the row of a running stage."""
    for _ in range(2):
        in_turn(progress_capture, download=10, parse=20, train=40, upload=60)
    with progress.operation("deploy") as op:
        for name, seconds in (("download", 20), ("parse", 40), ("train", 80)):
            with op.stage(name):
                progress_capture.advance(seconds)
        with op.stage("upload"):
            progress_capture.advance(1)
            seen = op.snapshot()
            stage = seen.stages[-1].progress.eta
            assert stage is not None
            assert seen.progress.eta is not None
            assert [stage.eta, seen.progress.eta.eta] == pytest.approx([119, 119], rel=0.1)


def test_one_slow_stage_among_others_is_no_slow_run(progress_capture: Capture) -> None:
    """If only some of the ended stages were slower than before, those to come are expected to take what they took."""
    in_turn(progress_capture, download=10, parse=20, train=40, upload=60)
    with progress.operation("deploy") as op:
        for name, seconds in (("download", 30), ("parse", 20)):
            with op.stage(name):
                progress_capture.advance(seconds)
        with op.stage("train"):
            progress_capture.advance(10)
            assert eta(op).eta == pytest.approx(90, rel=0.05)


def test_the_last_stage_is_never_almost_done_once_it_overruns(progress_capture: Capture) -> None:
    """The stage that ends last takes longer than it did: expected is more, not nothing; beyond the upper bound, no time."""
    in_turn(progress_capture, fetch=10, upload=10)
    with progress.operation("deploy") as op:
        with op.stage("fetch"):
            progress_capture.advance(10)
        with op.stage("upload"):
            progress_capture.advance(9)
            assert eta(op).eta == pytest.approx(1, abs=0.5)
            last, shown = 0.0, 0
            for _ in range(40):
                progress_capture.advance(2)
                found = op.snapshot().progress.eta
                if found is not None:
                    assert left(found.eta, found.low, found.high) != "almost done"
                    assert found.eta > last
                    last, shown = found.eta, shown + 1
            assert 2 < shown < 20
            assert op.snapshot().progress.eta is None


def test_a_first_run_that_reached_its_total_has_no_estimate(progress_capture: Capture) -> None:
    """Once all units are done nobody knows how long the rest takes; a later run does, by what the first one took."""
    for run in range(2):
        with progress.operation("one", total=1) as op:
            progress_capture.advance(1)
            op.advance()
            progress_capture.advance(20)
            found = op.snapshot().progress.eta
            assert found is None if run == 0 else found is not None and found.eta == pytest.approx(40, abs=2)
            progress_capture.advance(40)


def test_stages_that_take_turns_are_no_order(progress_capture: Capture) -> None:
    """The loop of an agent has as many stages as turns: the time of earlier runs is left, not that of each name anew."""

    def agent(looks: list[tuple[int, Estimate | None]]) -> None:
        with progress.operation("agent") as op:
            for turn in range(7):
                for name in ("think", "search", "write"):
                    with progress.stage(name):
                        progress_capture.advance(1)
                        looks.append(
                            (20 - 3 * turn - ("think", "search", "write").index(name), op.snapshot().progress.eta)
                        )

    for _ in range(3):
        agent([])
    looks: list[tuple[int, Estimate | None]] = []
    agent(looks)
    with progress.operation("agent") as op:
        for _ in range(60):
            for name in ("think", "search", "write"):
                with progress.stage(name):
                    progress_capture.advance(1)
        assert op.snapshot().progress.eta is None, "nobody knows when a loop ends that outlasts all earlier ones"
    for true, found in looks[:-2]:
        assert found is not None
        assert found.eta == pytest.approx(true, abs=2.5)


def test_a_commit_after_the_last_unit(progress_capture: Capture) -> None:
    """What earlier runs did after their last unit is left when this run has counted all, and is part of the time before."""

    def orders() -> list[tuple[int, float | None]]:
        looks: list[tuple[int, float | None]] = []
        with progress.operation("orders", total=300) as op:
            for second in range(1, 101):
                op.advance(10 if second <= 30 else 0)
                progress_capture.advance(1)
                found = op.snapshot().progress.eta
                looks.append((100 - second, None if found is None else found.eta))
        return looks

    first = orders()
    assert all(found is None for true, found in first if true < 70)
    orders()
    for true, found in orders()[5:-8]:
        assert found == pytest.approx(true, rel=0.1, abs=2)
