"""The roll-up: an operation with all below it, from raw figures alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.monitor import rollup
from otel_progress.monitor.rollup import roll_up


def op(key: str, parent: str | None = None, status: Status = Status.RUNNING, **more: Any) -> Snapshot:
    """An operation."""
    return Snapshot(key, "work", status, 100.0, parent_id=parent, **more)


def spent(**amounts: float) -> Attributes:
    """Usage, with `usd` for the cost."""
    return Attributes({"cost.USD" if key == "usd" else f"{key}_tokens": amount for key, amount in amounts.items()})


def whole(*operations: Snapshot) -> rollup.Whole:
    """The first of them with all below it."""

    def below(key: str) -> Iterable[Snapshot]:
        return [one for one in operations if one.parent_id == key]

    return roll_up(operations[0], below)


def eta(seconds: float) -> Estimate:
    """So many seconds, more or less."""
    return Estimate(seconds, seconds / 2, seconds * 2, "rate")


def test_ratio_without_one_of_its_own_is_the_mean_of_the_children() -> None:
    """A child that is over is done, however it ended; one that tells nothing has done nothing."""
    found = whole(
        op("a"),
        op("b", "a", Status.FAILED),
        op("c", "a", progress=Progress(ratio=0.9, ratio_raw=0.5)),
        op("d", "a"),
        op("e", "a", Status.COMPLETED),
    )
    assert (found.ratio, found.rolled_up, found.children) == (2.5 / 4, True, 4)


def test_ratio_of_its_own_counts() -> None:
    """What an operation says of itself is not overruled by its children."""
    found = whole(op("a", progress=Progress(ratio=0.25, eta=eta(9))), op("b", "a", Status.COMPLETED))
    assert (found.ratio, found.eta, found.rolled_up) == (0.25, eta(9), False)


def test_ratio_is_not_known_where_the_children_tell_nothing_of_what_is_left() -> None:
    """All of them are over but it is not; or they say nothing; or it counts itself, in a stage that runs."""
    assert whole(op("a"), op("b", "a", Status.COMPLETED)).ratio is None
    assert whole(op("a"), op("b", "a")).ratio is None
    assert whole(op("a", status=Status.FAILED), op("b", "a", Status.COMPLETED)).ratio is None
    children = (op("b", "a", Status.COMPLETED), op("c", "a", progress=Progress(ratio=0.5)))
    counted = StageSnapshot("s", "s", Status.RUNNING, Progress(3, 9), started_at=1.0)
    silent = StageSnapshot("s", "s", Status.RUNNING, started_at=1.0)
    assert whole(op("a", stages=(counted,)), *children).ratio is None
    assert whole(op("a", stages=(silent,)), *children).ratio == 0.75
    assert whole(op("a"), *[op(str(number), "a", progress=Progress(ratio=1.0)) for number in range(9)]).ratio == 0.9999


def test_ratio_out_of_bounds_does_not_spoil_the_mean() -> None:
    """A program of another language may send any number."""
    assert whole(op("a"), op("b", "a", progress=Progress(ratio=50.0)), op("c", "a")).ratio == 0.5
    assert whole(op("a"), op("b", "a", progress=Progress(ratio=-1.0)), op("c", "a")).ratio == 0.0


def test_eta_is_that_of_the_child_that_takes_longest_where_all_running_ones_have_one() -> None:
    """Children that are over need none; one without an ETA leaves all without."""
    some = (
        op("b", "a", progress=Progress(eta=eta(5))),
        op("c", "a", progress=Progress(eta=eta(8))),
        op("d", "a", Status.COMPLETED),
    )
    found = whole(op("a"), *some).eta
    assert found is not None
    assert (found.eta, found.high, found.source) == (8, 16, "children")
    assert whole(op("a"), *some, op("e", "a")).eta is None


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


def test_bounds_of_depth_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain is followed so deep, and so many operations are looked at, however many there are."""
    chain = [op("0", usage=spent(usd=1.0))]
    chain += [op(str(number), str(number - 1), usage=spent(usd=1.0)) for number in range(1, 100)]
    assert whole(*chain).cost == {"USD": float(rollup.DEPTH + 1)}
    monkeypatch.setattr(rollup, "MOST", 10)
    wide = [op("a", usage=spent(usd=1.0)), *(op(str(number), "a", usage=spent(usd=1.0)) for number in range(100))]
    assert whole(*wide).cost == {"USD": 10.0}


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
