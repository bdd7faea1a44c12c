"""What the total of an operation counts: the units of its stages, or the stages. Nothing is shown that is not known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Operation, Stage, StagePlan, semconv
from otel_progress.testing import Capture, capture


@dataclass
class Seen:
    """The percentages of a run beside the true ones, at each unit."""

    shown: list[tuple[float, float | None]]
    """The true ratio, and the one shown."""
    etas: list[tuple[float, float | None]]
    """The true time left, and the one shown."""

    def late(self, since: float) -> list[tuple[float, float | None]]:
        """What was shown from a true ratio on."""
        return [one for one in self.shown if one[0] >= since]


Piece = tuple[str, int | None]
"""A stage: its name and its number of units, as it names it; None if it does not."""
UNITS = 50
"""Units of a stage that names no number."""


def in_a_row(pieces: Sequence[Piece], **of_stages: Any) -> Iterator[int]:
    """Stages one after the other; yields at each unit, a second apart."""
    for name, total in pieces:
        with progress.stage(name, total=total, **of_stages) as stage:
            for _ in range(total or UNITS):
                yield 1
                stage.advance()


def side_by_side(pieces: Sequence[Piece], **of_stages: Any) -> Iterator[int]:
    """Stages that run at the same time."""
    op = progress.current()
    assert isinstance(op, Operation)
    stages = [op.stage(name, total=total, **of_stages).start() for name, total in pieces]
    for _ in range(max(total or UNITS for _, total in pieces)):
        yield len(stages)
        for stage in stages:
            stage.advance()
    for stage in stages:
        stage.complete()


def watched(work: Callable[[], Iterator[int]], units: int, captured: Capture, **of_operation: Any) -> Seen:
    """Run work of so many units in an operation, and look at it after each second."""
    done, seen = 0, Seen([], [])
    with progress.operation("work", **of_operation) as op:
        for step in work():
            now = op.snapshot().progress
            seen.shown.append((done / units, now.ratio_raw))
            seen.etas.append(((units - done) / step, None if now.eta is None else now.eta.eta))
            done += step
            captured.advance(1)
    return seen


THREE: list[Piece] = [("load", 50), ("parse", 50), ("save", 50)]
PARTS: list[Piece] = [("part 1", 50), ("part 2", 50), ("part 3", 50)]


@pytest.mark.parametrize("pieces", [THREE, PARTS])
@pytest.mark.parametrize("unit", [None, "row"])
def test_totals_that_add_up_are_its_units(pieces: list[Piece], unit: str | None, progress_capture: Capture) -> None:
    """Three stages of 50 side by side in an operation of 150: it is as far as their units, from the first one on."""
    seen = watched(lambda: side_by_side(pieces), 150, progress_capture, total=150, unit=unit)
    assert all(shown == pytest.approx(true) for true, shown in seen.shown)
    assert all(eta == pytest.approx(left, rel=0.2, abs=2) for left, eta in seen.etas[10:])


@pytest.mark.parametrize(
    ("pieces", "total", "known"),
    [(THREE, 150, 2 / 3), (PARTS, 150, 1 / 3), ([("prep", 10), ("work", 90)], 100, 0.1), (THREE, 3, 2 / 3)],
    ids=["different", "alike", "set-up", "number"],
)
def test_in_a_row_it_is_known_or_not_shown(
    pieces: list[Piece], total: int, known: float, progress_capture: Capture
) -> None:
    """What is shown is true; it is shown when the totals add up, when a second one of a kind starts, or all are there."""
    seen = watched(lambda: in_a_row(pieces), sum(one or 0 for _, one in pieces), progress_capture, total=total)
    assert all(shown is None or shown == pytest.approx(true) for true, shown in seen.shown)
    assert all(shown is not None for _, shown in seen.late(known + 0.01))
    assert seen.etas[-5][1] == pytest.approx(5, abs=2)


def test_a_stage_named_for_the_unit_is_one(progress_capture: Capture) -> None:
    """Epochs that the operation does not count by itself are still its epochs, from the first one on."""
    pieces: list[Piece] = [(f"epoch {number}", 5) for number in range(10)]
    seen = watched(lambda: in_a_row(pieces), 50, progress_capture, total=10, unit="epoch")
    assert all(shown == pytest.approx(true) for true, shown in seen.shown)


def test_as_many_stages_as_the_total_says(progress_capture: Capture) -> None:
    """Three stages side by side in an operation of three, whatever they count."""
    seen = watched(lambda: side_by_side(THREE), 150, progress_capture, total=3)
    assert all(shown == pytest.approx(true) for true, shown in seen.shown)


def test_a_plan_decides_what_counts_alone_do_not(progress_capture: Capture) -> None:
    """Where it is not known what the total counts, the plan still tells the percentage; totals that add up do, too."""
    plan = [StagePlan("load"), StagePlan("parse", weight=3)]
    with progress.operation("work", plan=plan, total=200) as op, progress.stage("load", total=100) as stage:
        stage.advance(50)
        assert op.snapshot().progress.ratio_raw == 0.125
    plan = [StagePlan(name, total=50) for name, _ in THREE]
    seen = watched(lambda: in_a_row(THREE), 150, progress_capture, plan=plan, total=150)
    assert all(shown == pytest.approx(true) for true, shown in seen.shown)
    plan = [StagePlan(name) for name, _ in THREE]
    seen = watched(lambda: in_a_row(THREE), 150, progress_capture, plan=plan, total=3)
    assert all(shown == pytest.approx(true) for true, shown in seen.shown)


def test_tasks_of_their_own_size_are_no_units(progress_capture: Capture) -> None:
    """Eight tasks of five items in an operation of eight tasks, one after the other, never look like items."""
    pieces: list[Piece] = [(f"task {number}", 5) for number in range(8)]
    seen = watched(lambda: in_a_row(pieces), 40, progress_capture, total=8)
    assert all(shown is None or shown <= true + 1e-9 for true, shown in seen.shown)
    assert all(shown == pytest.approx(true) for true, shown in seen.late(0.9))


def test_stages_that_failed_are_no_units(progress_capture: Capture) -> None:
    """A stage that failed and is tried again does not count as one of three."""
    with progress.operation("work", total=3) as op:
        for number, fails in enumerate([False, True, False, False]):
            stage = op.stage(["load", "save", "parse", "sort"][number], total=50).start()
            stage.advance(50)
            found = op.snapshot().progress.ratio_raw
            assert found is None or found <= (number + (0 if fails or number > 1 else 1)) / 3 + 1e-9
            (stage.fail if fails else stage.complete)()


def test_restored_units_are_kept_apart(progress_capture: Capture) -> None:
    """What an earlier run completed does not decide what the total counts."""
    with progress.operation("work", total=150, restored=50) as op, progress.stage("load", total=50) as stage:
        stage.advance(10)
        assert op.snapshot().progress.ratio_raw is None
        with op.stage("save", total=50):
            assert op.snapshot().progress.ratio_raw == 60 / 150


# -- stages side by side, without a total


def test_stages_side_by_side_end_with_the_longest(progress_capture: Capture) -> None:
    """A first run without a total whose stages of different kinds run side by side ends when the last one does."""
    with progress.operation("work") as op:
        stages = [op.stage(name, total=total).start() for name, total in (("load", 20), ("parse", 60), ("save", 40))]
        for second in range(59):
            progress_capture.advance(1)
            for stage, total in zip(stages, (20, 60, 40)):
                if second < total:
                    stage.advance()
                if second == total:
                    stage.complete()
            now = op.snapshot().progress
            assert now.percentage is None
            if second > 10:
                assert now.eta is not None
                assert now.eta.eta == pytest.approx(59 - second, rel=0.1, abs=2)
                assert now.eta.source == "rate"


@pytest.mark.parametrize("case", ["pool", "after another", "no estimate", "one", "again"])
def test_where_more_may_follow_there_is_no_estimate(case: str, progress_capture: Capture) -> None:
    """Tasks of a pool, stages that start after others ended, and those that tell no time: nobody knows the end."""
    names = {"pool": ["task 1", "task 2"], "one": ["load"], "after another": ["load", "parse", "save"]}
    with progress.operation("work") as op:
        stages = [op.stage(name, total=50).start() for name in names.get(case, ["load", "parse"])]
        if case == "no estimate":
            stages.append(op.stage("wait").start())
        for second in range(40):
            progress_capture.advance(1)
            for stage in stages:
                stage.advance(0 if stage.name == "wait" else 1)
            if case in ("after another", "again") and second == 10:
                stages.pop(0).complete()
                progress_capture.advance(1)
                stages.append(op.stage("load" if case == "again" else "sort", total=50).start())
            if second > (10 if case in ("after another", "again") else 0):
                assert op.snapshot().progress.eta is None


# -- beyond the total


@pytest.mark.parametrize(("counts", "total"), [(98, 50), (20, 10)])
def test_beyond_its_total_only_the_counts_are_shown(counts: int, total: int, progress_capture: Capture) -> None:
    """98 of 50: the total is wrong, so there is no percentage and no ETA. The work goes on, so the rate stays."""
    with progress.operation("work", total=total) as op, progress.stage("inner") as stage:
        for _ in range(counts):
            progress_capture.advance(1)
            stage.advance()
        progress_capture.advance(0.1)
        now = op.snapshot().progress
        assert (now.completed, now.total, now.percentage, now.ratio_raw, now.eta) == (counts, total, None, None, None)
        assert now.rate == pytest.approx(1, rel=0.1)
        before = len(progress_capture.series)
        progress_capture.advance(30)
        points = {point.name: point.value for point in progress_capture.series[before:]}
        assert points[semconv.RUN_COMPLETED.name] == counts
        assert math.isnan(points.get(semconv.RUN_RATIO.name, math.nan))  # it ends
        op.update(total=2 * counts)
        assert op.snapshot().progress.percentage == 50
    assert op.snapshot().progress.percentage == 50


def test_a_stage_beyond_its_total_does_not_move_the_plan_back(progress_capture: Capture) -> None:
    """A planned stage that exceeds its total has no percentage; the operation keeps the one it has."""
    with progress.operation("work", plan=["a", "b"]) as op, progress.stage("a", total=10) as stage:
        stage.advance(10)
        assert op.snapshot().progress.ratio == 0.5
        stage.advance(10)
        now = op.snapshot()
        assert (now.progress.ratio, now.stages[0].progress.ratio) == (0.5, None)


def test_fractions_do_not_exceed_their_total(progress_capture: Capture) -> None:
    """A hundred times 0.01 is a bit more than 1, and not beyond it."""
    with progress.operation("work", total=1.0) as op:
        for _ in range(100):
            op.advance(0.01)
        assert op.snapshot().progress.percentage == 99.99


# -- whatever the program

PIECES = st.lists(st.tuples(st.sampled_from(["load", "parse", "save", "part 1", "part 2"]), st.integers(1, 12)))


@settings(max_examples=40, deadline=None)
@given(PIECES, st.booleans(), st.sampled_from([None, "row"]))
def test_units_of_stages_are_never_overstated(pieces: list[Piece], parallel: bool, unit: str | None) -> None:
    """If the total is that of the units of all stages, no percentage is above the truth by more than a stage's share."""
    units = sum(total or 0 for _, total in pieces)
    if not units:
        return
    run = side_by_side if parallel else in_a_row
    with capture() as captured, progress.operation("work", total=units, unit=unit) as op:
        finished, shown = 0, 0.0
        for step in run(pieces):
            now = op.snapshot().progress
            if now.ratio_raw is not None:
                assert now.ratio_raw <= finished / units + max(total or 0 for _, total in pieces) / units + 1e-9
                assert now.ratio is not None
                assert now.ratio >= min(shown, 0.99) or now.ratio_raw < shown
                shown = now.ratio
            finished = min(units, finished + step)
            captured.advance(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.booleans(), st.booleans())
def test_stages_as_units_are_never_overstated(count: int, each: int, parallel: bool, alike: bool) -> None:
    """If the total is the number of stages, no percentage is above the truth by more than one stage.

    Unless the totals of the first ones happen to add up to it, or at least two of them fit into it: then they look like
    parts of it, until more of them come than fit.
    """
    if not parallel and (count % each == 0 or 2 * each <= count):
        return
    pieces: list[Piece] = [(f"part {n}" if alike else chr(97 + n), each) for n in range(count)]
    run = side_by_side if parallel else in_a_row
    with capture() as captured, progress.operation("work", total=count) as op:
        finished = 0
        for step in run(pieces):
            found = op.snapshot().progress.ratio_raw
            assert found is None or found <= finished / (count * each) + 1 / count + 1e-9
            finished += step
            captured.advance(1)


def test_a_stage_is_no_operation(progress_capture: Capture) -> None:
    """The rules hold for a stage with stages inside, too."""
    with progress.operation("work"), progress.stage("all", total=150) as outer:
        inner = [outer.stage(name, total=total).start() for name, total in THREE]
        for stage in inner:
            stage.advance(25)
        assert isinstance(outer, Stage)
        seen = next(one for one in outer.operation.snapshot().stages if one.path == "all")
        assert (seen.progress.ratio_raw, seen.progress.completed) == (0.5, 75)


@pytest.mark.parametrize("unit", ["ledger", "item"])
@pytest.mark.parametrize("who", ["operation", "stage", "nobody", "failures only"])
def test_records_of_the_operation_do_not_hide_what_its_stages_count(
    progress_capture: Capture, unit: str, who: str
) -> None:
    """Records count only if nothing else counts: stages of 20 and 10 are 30 of 30, whoever records some of them."""
    named = {} if unit == "item" else {"unit": unit}
    with progress.operation("import", total=30, **named) as op:
        with op.stage("collect", total=20, **named) as collect:
            for number in range(20):
                collect.advance()
                if who in {"operation", "stage"} or (who == "failures only" and number % 5 == 0):
                    (collect if who == "stage" else op).record("failed" if who == "failures only" else "ok")
            progress_capture.advance(1)
            if named:
                assert op.snapshot().progress.completed == 20
        with op.stage("check", total=10, **named) as check:
            check.advance(5)
            progress_capture.advance(1)
            assert op.snapshot().progress.completed == 25
            check.advance(5)
    assert (op.snapshot().progress.completed, op.snapshot().progress.ratio) == (30, 1.0)


@pytest.mark.parametrize("rows", [1, 100])
def test_records_of_each_stage_count_where_stages_count_something_else(progress_capture: Capture, rows: int) -> None:
    """Five files with a record each are 5 of 5 files, however many rows their stages count."""
    with progress.operation("import", total=5, unit="file") as op:
        for number in range(5):
            with op.stage(f"file {number}", total=rows, unit="row") as file:
                file.advance(rows)
            op.record("ok")
            progress_capture.advance(1)
            assert op.snapshot().progress.completed == number + 1
    assert op.snapshot().progress.ratio == 1.0


def test_a_stage_that_counts_a_part_does_not_hide_records(progress_capture: Capture) -> None:
    """Where records of the operation are more than its stages counted, they count."""
    with progress.operation("import", total=100, unit="row") as op:
        with op.stage("sample", unit="row") as sample:
            sample.advance(5)
        for _ in range(100):
            op.record("ok")
        assert op.snapshot().progress.completed == 100
    assert op.snapshot().progress.ratio == 1.0
