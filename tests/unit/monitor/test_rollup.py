"""The roll-up: an operation with all below it, from raw figures alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.estimate import Estimate
from otel_progress.model.ratio import ALMOST
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.state import rollup
from otel_progress.monitor.state.rollup import Part, roll_up, show


def op(key: str, parent: str | None = None, status: Status = Status.RUNNING, **more: Any) -> Snapshot:
    """An operation."""
    return Snapshot(key, "work", status, 100.0, parent_id=parent, **more)


def spent(**amounts: float) -> Attributes:
    """Usage, with `usd` for the cost."""
    return Attributes({"cost.USD" if key == "usd" else f"{key}_tokens": amount for key, amount in amounts.items()})


def whole(*operations: Snapshot, here: tuple[str, ...] = (), most: int = rollup.MOST) -> rollup.Whole:
    """The first of them with all below it; each runs in a process of its own, but for those that are `here`."""

    def part(one: Snapshot) -> Part:
        return Part(one, "here" if one is operations[0] or one.operation_id in here else one.operation_id)

    def below(key: str) -> Iterable[Part]:
        return [part(one) for one in operations if one.parent_id == key]

    return roll_up(part(operations[0]), below, most)


def eta(seconds: float) -> Estimate:
    """An estimate with an interval."""
    return Estimate(seconds, seconds / 2, seconds * 2, "rate")


def at(ratio: float, **more: Any) -> Progress:
    """So far, by the raw figures."""
    return Progress(ratio=ratio, ratio_raw=ratio, **more)


def test_children_of_the_own_process_are_the_process_s_business() -> None:
    """Where all children run in the process of their parent, its number is the one on every screen."""
    children = (op("b", "a", progress=at(0.5)), op("c", "a", Status.COMPLETED))
    assert whole(op("a"), *children, here=("b", "c")).ratio is None
    found = whole(op("a", progress=at(0.25)), *children, here=("b", "c"))
    assert (found.ratio, found.rolled_up, found.children) == (0.25, False, 2)


def test_ratio_is_the_mean_of_as_many_children_as_the_total_says() -> None:
    """A child that is over is done, however it ended; one that has not started is not."""
    found = whole(
        op("a", progress=Progress(0, 4, "item", 0.0, 0.0)),
        op("b", "a", Status.FAILED),
        op("c", "a", progress=Progress(ratio=0.9, ratio_raw=0.5)),
        op("d", "a", Status.PENDING),
        op("e", "a", Status.COMPLETED),
    )
    assert (found.ratio, found.rolled_up, found.children) == (2.5 / 4, True, 4)


def test_a_lost_child_does_not_count_as_completed() -> None:
    """A child that was lost keeps its last known ratio; only one that reported its end is done."""
    lost = [op(key, "a", Status.LOST, progress=at(0.5)) for key in ("b", "c")]
    found = whole(op("a", progress=Progress(0, 3, "item", 0.0, 0.0)), *lost)
    assert (found.ratio, found.completed) == (pytest.approx(1 / 3), 0)
    two = op("a", progress=Progress(0, 2, "item", 0.0, 0.0))
    assert whole(two, op("b", "a", Status.LOST), op("c", "a", Status.FAILED)).ratio == 0.5


def test_a_parent_that_completed_has_what_its_children_have() -> None:
    """That it completed says nothing of a child that was lost; a count of its own would."""
    lost = op("c", "a", Status.LOST, progress=at(0.5))
    parent = op("a", status=Status.COMPLETED, progress=at(1.0, total=2))
    found = whole(parent, op("b", "a", Status.COMPLETED), lost)
    assert (found.ratio, found.completed) == (0.75, 1)
    counted = replace(parent, progress=at(1.0, total=2, completed=2))
    assert whole(counted, op("b", "a", Status.COMPLETED), lost).ratio == 1.0


def test_unknown_is_unknown_and_not_nothing() -> None:
    """A running child that tells nothing leaves the whole unknown, also where its process says 0 of nothing counted."""
    children = (op("b", "a", Status.COMPLETED), op("c", "a"))
    assert whole(op("a"), *children).ratio is None
    assert whole(op("a"), op("b", "a")).ratio is None


def test_children_whose_number_nobody_named_tell_nothing() -> None:
    """Without a total, those that are known may be two of two, or two of two hundred."""
    some = [op(key, "a", progress=at(0.5, eta=eta(9))) for key in "bc"]
    for children in (some, [*some, op("d", "a", Status.COMPLETED)], [*some, op("e", "a", Status.PENDING)]):
        found = whole(op("a"), *children)
        assert (found.ratio, found.eta, found.rolled_up) == (None, None, False)
    before = Estimate(40.0, 30.0, 60.0, "history", 3)
    assert whole(op("a", progress=Progress(eta=before)), *some).eta == before


def test_total_of_the_parent_counts_its_children() -> None:
    """`operation(total=10)` whose process sees nothing of ten jobs elsewhere: they are counted here, as what they are."""
    parent = op("a", progress=Progress(0, 10, "item", 0.0, 0.0))
    children = [op(f"e{number}", "a", Status.COMPLETED) for number in range(3)]
    found = whole(parent, *children, op("f", "a", progress=at(0.5)))
    assert (found.ratio, found.completed, found.rolled_up) == (0.35, 3, True)
    many = [op(f"e{number}", "a", Status.COMPLETED) for number in range(11)]
    assert whole(parent, *many).ratio is None  # it is a total of something else
    rows = op("a", progress=Progress(0, 1000, "row", 0.0, 0.0))
    parts = [op(f"e{number}", "a", progress=Progress(100, 300, "row", 1 / 3, 1 / 3)) for number in range(2)]
    assert (whole(rows, *parts).ratio, whole(rows, *parts).completed) == (0.2, 200)


def test_count_of_its_own_is_not_overruled() -> None:
    """What an operation counted itself, or in a stage that runs, counts."""
    children = (op("b", "a", Status.COMPLETED), op("c", "a", progress=at(0.5)))
    found = whole(op("a", progress=at(0.25, completed=3, total=12, eta=eta(9))), *children)
    assert (found.ratio, found.eta, found.rolled_up) == (0.25, eta(9), False)
    counted = StageSnapshot("s", "s", Status.RUNNING, Progress(3, 9), started_at=1.0)
    silent = StageSnapshot("s", "s", Status.RUNNING, started_at=1.0)
    assert whole(op("a", stages=(counted,)), *children).ratio is None
    two = Progress(0, 2, "item", 0.0, 0.0)
    assert whole(op("a", progress=two, stages=(silent,)), *children).ratio == 0.75


def test_a_count_of_the_children_leaves_them_the_rest() -> None:
    """If it counts one unit as each child ends, the children know more of the rest: what they did, and how fast."""
    children = (
        op("b", "a", Status.COMPLETED, elapsed=40.0),
        op("c", "a", started_at=80.0, elapsed=20.0, progress=at(0.5, eta=eta(20))),
    )
    found = whole(op("a", progress=at(0.5, completed=1, total=2, eta=eta(90))), *children)
    assert (found.ratio, found.completed, found.rolled_up) == (0.75, 1, True)
    assert found.eta == replace(eta(20), source="children")
    rest = whole(op("a", progress=at(0.25, completed=1, total=4, eta=eta(90))), *children)
    assert (rest.ratio, rest.completed) == (0.375, 1)


def test_ratio_out_of_bounds_does_not_spoil_the_mean() -> None:
    """A program of another language may send any number."""
    two = op("a", progress=Progress(0, 2, "item", 0.0, 0.0))
    assert whole(two, op("b", "a", progress=at(50.0)), op("c", "a", progress=at(0.0))).ratio == 0.5
    assert whole(two, op("b", "a", progress=at(-1.0)), op("c", "a", progress=at(0.0))).ratio == 0.0


def test_eta_is_not_that_of_the_current_child_alone() -> None:
    """That of the slowest, if all are there; those that are known to follow take as long as these."""

    def of(total: int) -> Snapshot:
        return op("a", progress=Progress(0, total, "item", 0.0, 0.0))

    some = (op("b", "a", progress=at(0.5, eta=eta(5))), op("c", "a", progress=at(0.5, eta=eta(8))))
    found = whole(of(3), *some, op("d", "a", Status.COMPLETED)).eta
    assert found is not None
    assert (found.eta, found.high, found.source) == (8, 16, "children")
    assert whole(of(3), *some, op("e", "a", progress=at(0.5))).eta is None
    later = whole(of(3), *some, op("e", "a", Status.PENDING)).eta
    assert later is not None
    assert later.eta > 8
    more = whole(of(5), *some).eta
    assert more is not None
    assert more.eta > later.eta


@given(st.lists(st.none() | st.floats(0, 1), max_size=60))
def test_what_is_shown_is_the_raw_ratio_or_was_shown_before(raws: list[float | None]) -> None:
    """Whatever the raw ratio does, and however many children come; it stays below 1, and real advance shows."""
    shown: rollup.Shown | None = None
    for raw in raws:
        if raw is None:
            continue
        before, shown = shown, show(shown, raw)
        assert shown.value in (min(raw, ALMOST), before.value if before else 0)
        assert min(raw, ALMOST) <= shown.value < 1
    if shown is not None:
        assert shown == show(shown, raws_last(raws))
        assert show(shown, 1.0).value >= shown.value


def raws_last(raws: list[float | None]) -> float:
    """The last that was known."""
    return next(raw for raw in reversed(raws) if raw is not None)


def test_a_large_fall_is_shown() -> None:
    """Two children more: the number says so, and then rises with what they do; a small fall is held."""
    shown = show(None, 0.8)
    assert show(shown, 0.75).value == 0.8
    shown = show(shown, 0.4)
    assert shown.value == 0.4
    assert show(shown, 0.7).value == 0.7


def test_cost_and_tokens_add_up_over_all_generations() -> None:
    """Also of children that are over, and where the operation itself is."""
    found = whole(
        op("a", status=Status.COMPLETED, usage=spent(usd=1.0, input=10)),
        op("b", "a", Status.FAILED, usage=spent(usd=2.0, output=5)),
        op("c", "b", usage=spent(usd=4.0, input=1)),
        op("x", "elsewhere", usage=spent(usd=100.0)),
    )
    assert (found.cost, found.tokens) == ({"USD": 7.0}, {"input": 11, "output": 5})


@pytest.mark.parametrize(
    "amount", [float("nan"), float("inf"), 10**400, "1", True, None], ids=lambda one: repr(one)[:9]
)
def test_amount_that_is_none_adds_nothing(amount: Any) -> None:
    """One bad figure does not spoil the sums of all above."""
    usage = Attributes({"cost.USD": amount, "input_tokens": amount})
    found = whole(op("a", usage=spent(usd=1.0)), op("b", "a", usage=usage))
    assert (found.cost, found.tokens) == ({"USD": 1.0}, {})


def test_sums_stay_finite() -> None:
    """Two amounts that are finite may have a sum that is not."""
    found = whole(op("a", usage=spent(usd=1.7e308)), op("b", "a", usage=spent(usd=1.7e308)))
    assert found.cost == {"USD": 1.7e308}


def test_bounds_of_depth_and_width() -> None:
    """The depth of a chain and the number of operations that are rolled up are limited."""
    chain = [op("0", usage=spent(usd=1.0))]
    chain += [op(str(number), str(number - 1), usage=spent(usd=1.0)) for number in range(1, 100)]
    assert whole(*chain).cost == {"USD": float(rollup.DEPTH + 1)}
    wide = [op("a", usage=spent(usd=1.0)), *(op(str(number), "a", usage=spent(usd=1.0)) for number in range(100))]
    assert whole(*wide, most=10).cost == {"USD": 10.0}


@given(st.lists(st.sampled_from([None, *"abcdef"]), min_size=6, max_size=6), st.permutations("abcdef"))
def test_whatever_the_parents_each_operation_counts_once_at_most(parents: list[str | None], order: list[str]) -> None:
    """Also where parents go in a circle, or one is its own parent; and the order of children decides nothing."""
    operations = [op(key, parent, usage=spent(usd=1.0)) for key, parent in zip("abcdef", parents)]
    above = dict(zip("abcdef", parents))

    def is_below(key: str) -> bool:
        seen = set()
        found: str | None = key
        while found is not None and found not in seen:
            if found == "a":
                return True
            seen.add(found)
            found = above.get(found)
        return False

    first, rest = operations[0], [one for key in order for one in operations[1:] if one.operation_id == key]
    expected = float(sum(is_below(key) for key in "abcdef"))
    assert whole(first, *rest).cost == whole(*operations).cost == {"USD": expected}
