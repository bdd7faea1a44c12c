"""Percent: what stages and child operations count moves what is around them, and no number is shown that isn't known."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Operation, Stage, StagePlan, phases, semconv
from otel_progress.model.snapshot import Progress
from otel_progress.testing import Capture, capture


def percent(op: Operation) -> float | None:
    """The percentage as it is shown."""
    return op.snapshot().progress.percentage


def raw(op: Operation) -> float | None:
    """The ratio as it follows from the counts."""
    return op.snapshot().progress.ratio_raw


def of(node: Stage) -> Progress:
    """The progress of the newest stage of a name."""
    return [stage for stage in node.operation.snapshot().stages if stage.path == node._path][-1].progress


def done(op: Operation) -> tuple[Any, Any, str]:
    """Completed, total and unit of an operation."""
    found = op.snapshot().progress
    return found.completed, found.total, found.unit


# -- stages move the operation

INSIDE: dict[str, Callable[[], object]] = {
    "advance": lambda: [progress.advance(50) for _ in range(2)],
    "track": lambda: [None for _ in progress.track(range(100))],
    "update": lambda: progress.update(completed=100),
    "record": lambda: [progress.record("ok") for _ in range(100)],
}


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("unit", [None, "row"])
def test_a_total_takes_what_its_stages_count(name: str, unit: str | None, progress_capture: Capture) -> None:
    """An operation that counted nothing itself takes the sum of its stages, in its unit: all done in stages is 100%."""
    with progress.operation("import", total=400, unit=unit) as op:
        for part in range(1, 5):
            with progress.stage(f"part {part}"):
                INSIDE[name]()
            if part > 1:
                assert (raw(op), done(op)) == (part / 4, (part * 100, 400, unit or "item"))
    assert done(op) == (400, 400, unit or "item")
    assert percent(op) == 100


def test_millions_in_one_stage(progress_capture: Capture) -> None:
    """6.4 million units advanced inside a stage are those of the operation, from the first one on."""
    with progress.operation("import", total=6_400_000) as op, progress.stage("load"):
        progress.advance(640_000)
        assert (percent(op), done(op)[0]) == (10, 640_000)
        with progress.stage("inner", total=1_000_000):
            progress.advance(640_000)
            assert (percent(op), done(op)[0]) == (10, 640_000)  # the outer stage counts by itself
        with progress.stage("inner"):
            pass
    with progress.operation("import", total=6_400_000) as op, progress.stage("load"), progress.stage("deep"):
        progress.advance(640_000)
        assert (percent(op), done(op)[0]) == (10, 640_000)


def test_the_whole_total_in_one_stage(progress_capture: Capture) -> None:
    """One stage over all the units moves the operation from its first item on."""
    with progress.operation("convert", total=4) as op, progress.stage("files"):
        for number, _ in enumerate(progress.track(range(4))):
            assert raw(op) == number / 4


def test_units_that_differ_are_not_added(progress_capture: Capture) -> None:
    """Pages don't move a total of files; the stage has its own count."""
    with progress.operation("convert", total=10, unit="file") as op, progress.stage("read", unit="page") as stage:
        stage.advance(7)
        assert (percent(op), done(op)) == (0, (0, 10, "file"))
        stage.advance(3, unit="file")
        assert (percent(op), done(op)) == (30, (3, 10, "file"))
        assert of(stage).completed == 7


def test_the_unit_of_the_stages_where_none_was_named(progress_capture: Capture) -> None:
    """A total without a unit takes that of its stages."""
    with progress.operation("convert", total=2000) as op, progress.stage("read", unit="file") as stage:
        stage.advance(500)
        assert (percent(op), done(op)) == (25, (500, 2000, "file"))


def test_without_a_total_or_a_unit_nothing_is_added_up(progress_capture: Capture) -> None:
    """Whether items of different stages are the same isn't known: the operation has no count and no percentage."""
    with progress.operation("survey") as op:
        for name in ("load", "parse"):
            with progress.stage(name):
                list(progress.track("abc"))
        assert (percent(op), done(op)[:2]) == (None, (None, None))
    with progress.operation("survey", unit="file") as op, progress.stage("load", unit="file") as stage:
        stage.advance(3)
        assert (percent(op), done(op)) == (None, (3, None, "file"))


# -- the running part of the next unit


def test_an_epoch_counts_while_it_runs(progress_capture: Capture) -> None:
    """What runs inside one that counts is a part of its next unit; an epoch isn't 0% until its end."""
    with progress.operation("learn", plan=["train"]) as op, progress.stage("train", total=10) as train:
        for epoch in range(10):
            with progress.stage(f"epoch {epoch}"):
                for batch in progress.track(range(4)):
                    if epoch or not batch:  # until the first unit, four of ten epochs and four batches look alike
                        assert of(train).ratio_raw == pytest.approx((epoch + batch / 4) / 10)
                        assert raw(op) == pytest.approx((epoch + batch / 4) / 10)
                        assert of(train).completed == epoch
            train.advance()
            assert of(train).ratio_raw == pytest.approx((epoch + 1) / 10)


def test_several_stages_for_each_unit(progress_capture: Capture) -> None:
    """Two stages for each unit are one unit at the most, and what was reached is held until it is counted."""
    with progress.operation("learn", total=5, unit="epoch") as op:
        for epoch in range(5):
            for name in ("train", "validate"):
                with progress.stage(name):
                    for batch in progress.track(range(3)):
                        found = raw(op)
                        assert (found is None) is (epoch == 0 and (batch > 0 or name == "validate"))
                        assert found is None or epoch / 5 <= found <= (epoch + 1) / 5
            op.advance()
            assert percent(op) == min(99.99, (epoch + 1) * 20)


def test_a_stage_beside_its_own_count_adds_nothing(progress_capture: Capture) -> None:
    """Where both count the same items, each item counts once."""
    with progress.operation("copy", total=4) as op, progress.stage("files", total=4) as stage:
        for number in range(4):
            op.advance()
            stage.advance()
            assert raw(op) == (number + 1) / 4


def test_a_loop_with_stages_inside(progress_capture: Capture) -> None:
    """The item in hand counts as far as its stage came."""
    with progress.operation("convert") as op:
        for number, _ in enumerate(progress.track(["a", "b"], unit="file")):
            with progress.stage("pages", total=4) as stage:
                stage.advance(2)
                assert (raw(op), done(op)) == ((number + 0.5) / 2, (number, 2, "file"))


def test_a_first_stage_that_may_be_one_unit_has_no_percentage(progress_capture: Capture) -> None:
    """Ten epochs of five batches, or ten items of which a stage does five: until it is clear, nothing is shown."""
    with progress.operation("work", total=10) as op:
        with progress.stage("first"):
            list(progress.track(range(5)))
            assert (raw(op), percent(op), done(op)) == (None, None, (None, 10, "item"))
        with progress.stage("first"):
            for number, _ in enumerate(progress.track(range(5))):
                assert raw(op) == (5 + number) / 10 or not number  # nobody counted a unit for the first one
        assert done(op)[0] == 10


# -- children


def test_children_count_by_the_total(progress_capture: Capture) -> None:
    """An operation of three children is as far as they are."""
    with progress.operation("batch", total=3) as op:
        for number in range(3):
            with progress.operation("part", total=10) as part:
                part.advance(5)
                assert raw(op) == pytest.approx((number + 0.5) / 3)
            assert (raw(op), done(op)[0]) == (pytest.approx((number + 1) / 3), number + 1)
    assert percent(op) == 100


def test_failed_children_are_an_outcome(progress_capture: Capture) -> None:
    """A child that failed is done, and the outcomes say that it failed, unless the operation records its own."""
    with progress.operation("batch", total=3) as op:
        with progress.stage("load", total=3) as load:
            for number in range(3):
                with suppress(ValueError), progress.operation("part"):
                    if number:
                        raise ValueError
        assert (load.snapshot().outcomes, load.snapshot().progress.completed) == ({"failed": 2}, 3)
        assert op.snapshot().outcomes == {"failed": 2}
        op.record("ok")
        assert op.snapshot().outcomes == {"ok": 1}


def test_children_side_by_side(progress_capture: Capture) -> None:
    """Children in the threads of a pool add up."""
    with progress.operation("batch", total=4) as op:
        parts = [progress.operation("part", total=10, parent=op).start() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda part: part.advance(5), parts))
        assert raw(op) == 0.5
        for part in parts:
            part.complete()
        assert (raw(op), done(op)[0]) == (1.0, 4)


def test_children_fill_the_stage_they_run_in(progress_capture: Capture) -> None:
    """A child moves the stage in which it was started, where that has a total, and so the plan."""
    plan = [StagePlan("fetch", weight=1), StagePlan("parse", weight=3)]
    with progress.operation("survey", plan=plan) as op:
        with progress.stage("fetch"):
            pass
        with progress.stage("parse", total=2) as parse:
            with progress.operation("agent", total=4) as agent:
                agent.advance(2)
                assert of(parse).ratio_raw == 0.25
                assert percent(op) == pytest.approx(25 + 75 / 4)
            assert percent(op) == pytest.approx(25 + 75 / 2)


def test_children_that_the_plan_names(progress_capture: Capture) -> None:
    """A child operation with the name of a planned stage is that stage."""
    with progress.operation("release", plan=[StagePlan("design", 1), StagePlan("build", 3)]) as op:
        with progress.operation("design", total=2) as design:
            design.advance()
            assert percent(op) == 12.5
            assert [stage.name for stage in op.snapshot().stages] == ["build"]
        assert percent(op) == 25
        with pytest.raises(ValueError, match="no"), progress.operation("build", total=2) as build:
            build.advance()
            raise ValueError("no")
        assert percent(op) == 62.5


def test_children_whose_number_is_not_known(progress_capture: Capture) -> None:
    """Nobody knows how many children may come: no percentage."""
    with progress.operation("agent") as op, progress.operation("tool", total=2) as tool:
        tool.advance()
        assert percent(op) is None


def test_children_that_count_the_same_unit(progress_capture: Capture) -> None:
    """Where parent and child name the same unit, the units add up."""
    with progress.operation("import", total=300, unit="row") as op:
        for number in range(3):
            with progress.operation("part", total=100, unit="row") as part:
                part.advance(100)
                assert done(op)[0] == (number + 1) * 100
    assert percent(op) == 100


def test_a_child_that_is_counted_by_its_parent(progress_capture: Capture) -> None:
    """A parent that counts its children by itself counts each once."""
    with progress.operation("batch", total=2) as op:
        for number in range(2):
            with progress.operation("part", total=2) as part:
                part.advance()
                assert raw(op) == (number + 0.5) / 2
            op.advance()
            assert raw(op) == (number + 1) / 2


def test_children_of_children(progress_capture: Capture) -> None:
    """A grandchild moves its parent, and so its grandparent."""
    with progress.operation("a", total=1) as a, progress.operation("b", total=2), progress.operation("c", total=2) as c:
        c.advance()
        assert raw(a) == 0.25


# -- the end


def test_a_completed_one_shows_what_it_counted(progress_capture: Capture) -> None:
    """Completed is 100%, unless its count says otherwise: then that is shown. Nothing counted is no 0."""
    with progress.operation("work", total=2) as op:
        assert done(op) == (0, 2, "item")
    assert (percent(op), done(op)) == (100, (None, 2, "item"))
    with progress.operation("work", total=4) as op:
        op.advance(3)
    assert (percent(op), done(op)) == (75, (3, 4, "item"))
    with progress.operation("work", total=4) as op:
        op.advance(5)
    assert (percent(op), done(op)) == (100, (5, 4, "item"))


def test_a_failed_one_with_all_done_shows_no_percentage(progress_capture: Capture) -> None:
    """99% would say that something was left; one that failed on the way keeps where it stopped."""
    for count, expected in ((10, None), (4, 40)):
        with pytest.raises(ValueError, match="no"), progress.operation("work", total=10) as op:
            op.advance(count)
            raise ValueError("no")
        assert (percent(op), done(op)[:2]) == (expected, (count, 10))


def test_a_ratio_alone_is_no_count(progress_capture: Capture) -> None:
    """A stage that says a ratio has done 0 items no more than 5."""
    with progress.operation("work", total=10) as op, progress.stage("step") as stage:
        stage.update(ratio=0.5)
        assert (of(stage).completed, of(stage).ratio) == (None, 0.5)
        op.update(ratio=0.25)
        assert (percent(op), done(op)[:2]) == (25, (None, 10))


def test_a_plan_counts_where_a_total_says_nothing(progress_capture: Capture) -> None:
    """With a plan and a total that nothing moved yet, the plan tells."""
    with progress.operation("work", plan=["a", "b"], total=100) as op:
        with progress.stage("a"):
            pass
        assert (percent(op), done(op)[:2]) == (50, (None, 100))


def test_one_number_everywhere(progress_capture: Capture) -> None:
    """Snapshot, log event, span and series say the same."""
    with progress.operation("import", total=4000, unit="row") as op, progress.stage("load"):
        progress.advance(1000)
        progress_capture.advance(30)
        point = {p.name: p.value for p in progress_capture.series}
        assert (point[semconv.RUN_COMPLETED.name], point[semconv.RUN_RATIO.name]) == (1000, 0.25)
        sent = [log.attributes for log in progress_capture.logs if log.event_name == semconv.UPDATED][-1]
        assert (sent[semconv.COMPLETED], sent[semconv.RATIO]) == (1000, 0.25)
        assert semconv.RATIO_RAW not in sent  # it is the same
        assert percent(op) == 25
    progress_capture.look()
    span = next(span for span in progress_capture.spans if span.name == "import")
    assert span.attributes is not None
    assert (span.attributes[semconv.COMPLETED], span.attributes[semconv.UNIT]) == (1000, "row")


# -- rules that hold whatever happens

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["stage", "child", "end", "fail", "advance", "up", "completed", "ratio", "total", "track"]),
        st.integers(0, 12),
    ),
    max_size=25,
)


class Job:
    """A job that does what it is told, in any order."""

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.open: list[Operation | Stage] = [op]
        self.shown: dict[int, float] = {}

    def do(self, act: str, n: int) -> None:
        """One step of it."""
        here = self.open[-1]
        if act == "stage":
            self.open.append(here.stage(f"s{n % 3}", total=n or None).start())
        elif act == "child":
            self.open.append(progress.operation(f"s{n % 3}", total=n or None, parent=here).start())
        elif act in ("end", "fail"):
            if len(self.open) > 1:
                (self.open.pop().complete if act == "end" else self.open.pop().fail)()
        elif act == "advance":
            here.advance(n)
        elif act == "up":
            self.op.advance(n)
        elif act == "track":
            for _ in here.track(range(n)):
                self.look()
        else:
            here.update(**{act: n / 12 if act == "ratio" else n})  # type: ignore[arg-type]

    def look(self) -> None:
        """What holds at each moment."""
        for node in self.open:
            self.check(node.operation.snapshot().progress, node.operation)
            if isinstance(node, Stage):
                self.check(of(node), node)

    def check(self, found: Progress, node: Operation | Stage) -> None:
        """Shown is at least raw and below 1, raw is from 0 to 1; shown disappears only where raw is not known."""
        if found.ratio_raw is not None:
            assert 0 <= found.ratio_raw <= 1
        before = self.shown.get(id(node))
        assert (found.ratio is None) is (found.ratio_raw is None)
        if found.completed is not None and found.total and found.completed > found.total and node._ratio is None:
            assert found.ratio is None
            assert found.eta is None
        if found.ratio is not None:
            assert min(found.ratio_raw or 0, 0.9999) <= found.ratio < 1
            assert found.ratio <= max(before or 0, found.ratio_raw or 0)
            self.shown[id(node)] = found.ratio


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(["", "total", "plan", "phases"]))
def test_shown_is_one_only_at_the_end(steps: list[tuple[str, int]], kind: str) -> None:
    """Whatever stages, children and counts come: shown does not run away, and is 1 only at completion."""
    options: dict[str, Any] = {
        "": {},
        "total": {"total": 10},
        "plan": {"plan": ["s0", StagePlan("s1", 3), "s2"]},
        "phases": {"plan": phases({"s0": 0, "s1": 20})},
    }[kind]
    with capture(), progress.operation("job", **options) as op:
        job = Job(op)
        for act, n in steps:
            job.do(act, n)
            job.look()
        for node in reversed(job.open):
            node.complete()
        last = op.snapshot().progress
        assert last.ratio is not None
        assert 0 <= last.ratio <= 1
        short = last.completed is not None and last.total is not None and last.completed < last.total
        assert last.ratio < 1 or not short or op._ratio is not None


def test_stages_that_end_in_many_threads_lose_nothing(progress_capture: Capture) -> None:
    """What stages counted adds up, in whatever thread they end."""

    def work(number: int) -> None:
        for _ in range(50):
            with op.stage(f"part {number}") as stage:
                stage.advance(10)

    with progress.operation("import", total=4000) as op:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert done(op)[0] == 4000


def test_a_stage_that_outlives_its_outer_one_goes_on_counting(progress_capture: Capture) -> None:
    """What runs on after the stage around it counts for what is left around it."""
    with progress.operation("import", total=4000) as op:
        outer = op.stage("outer").start()
        inner = outer.stage("inner").start()
        inner.advance(1000)
        outer.complete()
        assert done(op)[0] == 1000
        inner.advance(1000)
        inner.complete()
        assert done(op)[0] == 2000


def test_a_hostile_number_inside_a_stage(progress_capture: Capture) -> None:
    """Counts that are no numbers harm nothing around them."""
    with progress.operation("import", total=4000) as op, progress.stage("load") as stage:
        stage.advance(float("nan"))
        with progress.stage("inner"):
            progress.advance(10**400)
        assert percent(op) is not None


def test_a_child_that_names_its_parent_by_id(progress_capture: Capture) -> None:
    """A child may name its parent by its id."""
    with progress.operation("batch", total=2) as op:
        child = progress.operation("part", total=2, parent=op.id).start()
        child.advance()
        assert raw(op) == 0.25
        child.complete()
        assert raw(op) == 0.5


def test_tasks_side_by_side_that_count_items_of_their_own(progress_capture: Capture) -> None:
    """Eight tasks of five items each are no eight items: the total counts tasks, whatever their units are called."""
    with progress.operation("batch", total=8) as op:
        stages = [op.stage(f"task {n}", total=5).start() for n in range(8)]
        for number, stage in enumerate(stages, 1):
            stage.advance(5)
            assert raw(op) == pytest.approx(number / 8)
            stage.complete()
            op.advance()
            assert raw(op) == pytest.approx(number / 8)


def test_a_stage_that_failed_and_comes_again(progress_capture: Capture) -> None:
    """Where one stage is all of the work, a second run of it starts from nothing, and the percentage says so."""
    with progress.operation("copy", total=4) as op:
        with pytest.raises(ValueError, match="no"), progress.stage("files", total=4) as stage:
            stage.advance(2)
            assert (raw(op), percent(op)) == (0.5, 50)
            raise ValueError("no")
        assert (raw(op), percent(op)) == (0, 0)
        with progress.stage("files", total=4) as stage:
            stage.advance(2)
            assert (raw(op), percent(op)) == (0.5, 50)
            stage.advance(2)
    assert done(op)[:2] == (4, 4)


def test_a_plan_with_dependencies_skips_by_them(progress_capture: Capture) -> None:
    """With `depends_on`, a stage is skipped once one that depends on it starts, wherever they stand in the plan."""
    plan = [StagePlan("a"), StagePlan("b"), StagePlan("c", depends_on=("a",)), StagePlan("d", depends_on=("c",))]
    with progress.operation("build", plan=plan) as op:
        with progress.stage("d"):
            found = {stage.name: stage.status.value for stage in op.snapshot().stages}
            assert found == {"a": "skipped", "b": "pending", "c": "skipped", "d": "running"}
        assert raw(op) == pytest.approx(1 / 2)
