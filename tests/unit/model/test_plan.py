"""Plans: stages that are known before they run, and the percentage they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import InvalidArgument, Operation, StagePlan, Status, phases
from otel_progress.model.plan import make_plan
from otel_progress.testing import Capture, capture

PHASES = {"designing": 5, "training": 20, "backtesting": 65, "assessing": 90}


def percent(op: Operation) -> float | None:
    """Return the shown percentage."""
    return op.snapshot().progress.percentage


def statuses(op: Operation) -> dict[str, str]:
    """Return status by stage path."""
    return {stage.path: stage.status.value for stage in op.snapshot().stages}


def test_percent_is_right_from_the_start(progress_capture: Capture) -> None:
    """With a plan the percentage is 0 before the first stage, and follows the weights as stages go on and end."""
    plan = [StagePlan("a", weight=1), StagePlan("b", weight=3), StagePlan("c", weight=0)]
    op = progress.operation("work", plan=plan)
    assert op.snapshot().progress.percentage == 0
    with op:
        assert percent(op) == 0
        with progress.stage("a", total=4) as a:
            a.advance(2)
            assert percent(op) == 12.5
        assert percent(op) == 25
        with progress.stage("b") as b:
            b.update(ratio=0.5)
            assert percent(op) == 62.5
        with progress.stage("c"):
            pass
        assert percent(op) == 99.99
    assert percent(op) == 100


def test_planned_stages_show_as_pending_with_what_the_plan_says(progress_capture: Capture) -> None:
    """A planned stage shows before it runs, with all that its plan says of it."""
    planned = StagePlan("load", 5, 30, "reads all", 100, "file", critical=False, depends_on=("a",))
    with progress.operation("work", plan=["a", planned]) as op:
        a, load = op.snapshot().stages
        assert (a.status, a.planned, a.weight, a.started_at) == (Status.PENDING, True, 1, None)
        assert (load.status, load.weight, load.expected, load.description) == (Status.PENDING, 5, 30, "reads all")
        assert (load.progress.total, load.progress.unit, load.critical) == (100, "file", False)
        assert load.depends_on == ("a",)


def test_a_planned_stage_that_runs_keeps_what_the_plan_says(progress_capture: Capture) -> None:
    """What the plan says of a stage holds for its run, unless the run says otherwise."""
    planned = StagePlan("load", 5, 30, "reads all", 100, "file", critical=False, depends_on=("a",))
    with progress.operation("work", plan=["a", planned]) as op, progress.stage("load") as stage:
        stage.advance(50)
        found = next(s for s in op.snapshot().stages if s.name == "load")
        assert (found.weight, found.expected, found.description) == (5, 30, "reads all")
        assert (found.progress.completed, found.progress.total, found.progress.unit) == (50, 100, "file")
        assert (found.planned, found.critical, found.depends_on) == (True, False, ("a",))
        assert found.progress.ratio == 0.5
    with progress.operation("work", plan=[planned]) as op, progress.stage("load", total=10, unit="row", weight=2):
        found = op.snapshot().stages[0]
        assert (found.progress.total, found.progress.unit, found.weight) == (10, "row", 2)


def test_skipped_stages_show_as_such(progress_capture: Capture) -> None:
    """A planned stage is skipped once a later one started, or the operation ended; it is no error."""
    with progress.operation("work", plan=["a", "b", "c"]) as op:
        with progress.stage("b"):
            assert statuses(op) == {"b": "running", "a": "skipped", "c": "pending"}
    assert statuses(op) == {"b": "completed", "a": "skipped", "c": "skipped"}
    assert op.status is Status.COMPLETED


def test_a_skipped_stage_may_still_come(progress_capture: Capture) -> None:
    """A stage that was passed over and then runs after all is a planned stage like any other."""
    with progress.operation("work", plan=["a", "b", "c"]) as op:
        with progress.stage("b"):
            pass
        before = percent(op)
        with progress.stage("a"):
            pass
        assert statuses(op) == {"b": "completed", "a": "completed", "c": "pending"}
        assert before == 50
        assert op.snapshot().progress.ratio_raw == pytest.approx(2 / 3)


def test_unplanned_stages_show_as_such(progress_capture: Capture) -> None:
    """An unplanned stage is shown as unplanned; it moves the percentage only with a weight of its own."""
    with progress.operation("work", plan=["a"]) as op:
        with progress.stage("surprise"):
            assert percent(op) == 0
        with progress.stage("heavy", weight=1):
            pass
        assert {s.name: s.planned for s in op.snapshot().stages} == {"surprise": False, "heavy": False, "a": True}
        assert percent(op) == 50


def test_a_repeated_stage_counts_by_its_newest_run(progress_capture: Capture) -> None:
    """A planned stage that runs again counts by its newest run, and the percentage says so."""
    with progress.operation("work", plan=["a", "b"]) as op:
        with progress.stage("a"):
            pass
        assert percent(op) == 50
        with progress.stage("a", total=10) as again:
            assert (percent(op), op.snapshot().progress.ratio_raw) == (0, 0)
            again.advance(5)
            assert op.snapshot().progress.ratio_raw == 0.25
            assert percent(op) == 25


def test_a_stage_inside_another_is_not_the_planned_one(progress_capture: Capture) -> None:
    """Only stages right below the operation are those of its plan."""
    with progress.operation("work", plan=["a", "b"]) as op:
        with progress.stage("a"), progress.stage("b"):
            assert percent(op) == 0
            assert {(s.path, s.planned) for s in op.snapshot().stages} == {("a", True), ("a/b", False), ("b", True)}


def test_a_failed_stage_counts_as_far_as_it_came(progress_capture: Capture) -> None:
    """A stage that failed counts as far as it came."""
    with progress.operation("work", plan=["a", "b"]) as op:
        with pytest.raises(ValueError, match="no"), progress.stage("a", total=10) as a:
            a.advance(5)
            raise ValueError("no")
        assert percent(op) == 25


def test_a_total_or_ratio_of_the_operation_overrides_the_plan(progress_capture: Capture) -> None:
    """The total or ratio of an operation overrides its plan."""
    with progress.operation("work", plan=["a", "b"]) as op:
        op.update(completed=1, total=10)
        assert percent(op) == 10
        op.update(ratio=0.75)
        assert percent(op) == 75


def test_phases_interpolate(progress_capture: Capture) -> None:
    """Phases start at their percentages; inside one the percentage follows its own progress."""
    with progress.operation("work", plan=phases(PHASES)) as op:
        assert percent(op) == 0
        with progress.stage("designing"):
            assert percent(op) == 5
        assert percent(op) == 20
        with progress.stage("training", total=3) as training:
            training.advance()
            assert percent(op) == 35
        assert percent(op) == 65
        with progress.stage("assessing") as last:
            assert percent(op) == 90
            last.update(ratio=0.5)
            assert percent(op) == 95
    assert percent(op) == 100


def test_phases_static(progress_capture: Capture) -> None:
    """Without interpolation the percentage stands still inside a phase."""
    with progress.operation("work", plan=phases(PHASES, interpolate=False)) as op:
        with progress.stage("training", total=3) as training:
            training.advance()
            assert percent(op) == 20
        assert percent(op) == 65
        with progress.stage("backtesting"):
            assert percent(op) == 65


def test_phases_are_stages(progress_capture: Capture) -> None:
    """Phases are planned stages, weighted by their width."""
    plan = phases(PHASES)
    assert [(stage.name, stage.weight) for stage in plan.stages] == [
        ("designing", 15),
        ("training", 45),
        ("backtesting", 25),
        ("assessing", 10),
    ]
    with progress.operation("work", plan=plan) as op:
        assert set(statuses(op).values()) == {"pending"}


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no name": (lambda: StagePlan(""), "a stage's name must be a non-empty string, not ''"),
    "name of another type": (lambda: StagePlan(5), "not 5"),  # type: ignore[arg-type]
    "weight below 0": (lambda: StagePlan("a", weight=-1), "the weight of 'a' must be a number of at least 0, not -1"),
    "weight nan": (lambda: StagePlan("a", weight=float("nan")), "not nan"),
    "weight text": (lambda: StagePlan("a", weight="5"), "not '5'"),  # type: ignore[arg-type]
    "weight too big": (lambda: StagePlan("a", weight=10**400), "the weight of 'a'"),
    "weight a bool": (lambda: StagePlan("a", weight=True), "not True"),
    "expected 0": (lambda: StagePlan("a", expected=0), "expected of 'a' must be a number of seconds above 0, or None"),
    "total inf": (
        lambda: StagePlan("a", total=float("inf")),
        "the total of 'a' must be a number of at least 0, not inf",
    ),
    "total below 0": (lambda: StagePlan("a", total=-1), "not -1"),
    "same name twice": (lambda: make_plan(["a", "b", "a"]), "a plan names each stage once"),
    "not a stage": (lambda: make_plan(["a", 5]), "it has 5"),  # type: ignore[list-item]
    "a text": (lambda: make_plan("design"), "a plan is a list of StagePlan or names"),
    "a dict": (lambda: make_plan({"a": 5}), r"phases\(\{...\}\), not {'a': 5}"),
    "a number": (lambda: make_plan(5), "not 5"),  # type: ignore[arg-type]
    "phases: none": (lambda: phases({}), "needs at least one phase"),
    "phases: below 0": (lambda: phases({"a": -1}), r"from 0 to below 100, not \[-1\]"),
    "phases: 100": (lambda: phases({"a": 0, "b": 100}), "from 0 to below 100"),
    "phases: nan": (lambda: phases({"a": float("nan")}), "from 0 to below 100"),
    "phases: a text": (lambda: phases({"a": "5"}), "from 0 to below 100"),  # type: ignore[dict-item]
    "phases: falling": (lambda: phases({"a": 5, "b": 5}), r"at a higher percentage than the one before, not \[5, 5\]"),
    "in an operation": (lambda: progress.operation("x", plan=["a", "a"]), "a plan names each stage once"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_plans_are_rejected(name: str) -> None:
    """An invalid plan raises InvalidArgument, whose text says what is wrong."""
    make, text = WRONG[name]
    with pytest.raises(InvalidArgument, match=text):
        make()


def test_what_a_plan_says_is_made_safe() -> None:
    """Texts of a plan are cut and made valid; one name as depends_on is one name."""
    stage = StagePlan("n" * 500, description="\ud800" + "d" * 5000, unit="\ud800", depends_on="a")  # type: ignore[arg-type]
    assert (len(stage.name), stage.unit, stage.depends_on) == (200, "?", ("a",))
    assert stage.description is not None
    assert len(stage.description) == 1024
    stage.description.encode()


def test_an_empty_plan_is_none() -> None:
    """A plan without stages is no plan."""
    assert make_plan([]) is None
    assert make_plan(None) is None


def test_percent_comes_from_the_expected_weights_whatever_the_order(progress_capture: Capture) -> None:
    """Stages of a plan that run at once add up."""
    with progress.operation("work", plan=[StagePlan("a", 1), StagePlan("b", 1)]) as op:
        a, b = op.stage("a", total=10).start(), op.stage("b", total=10).start()
        a.advance(5)
        b.advance(2)
        assert percent(op) == 35


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 10), st.booleans()), max_size=12),
)
def test_percent_is_100_only_at_the_end(weights: list[float], runs: list[tuple[int, int, bool]]) -> None:
    """Whatever stages run, skip, repeat or fail: the percentage does not run away, and is 100 exactly at the end."""
    plan = [StagePlan(f"s{n}", weight) for n, weight in enumerate(weights)]
    with capture(), progress.operation("work", plan=plan) as op:
        before = 0.0
        for number, done, failed in runs:
            stage = op.stage(f"s{number}", total=10).start()
            stage.advance(done)
            for end in (lambda: None, stage.fail if failed else stage.complete):
                end()
                shown = op.snapshot().progress
                assert shown.ratio is not None
                assert shown.ratio_raw is not None
                assert min(shown.ratio_raw, 0.9999) <= shown.ratio <= max(before, shown.ratio_raw)
                assert shown.ratio < 1
                assert 0 <= shown.ratio_raw <= 1
                before = shown.ratio
        op.complete()
        assert percent(op) == 100
