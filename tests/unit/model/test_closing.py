"""What comes after the last unit, by earlier runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.closing import Closing
from otel_progress.model.estimate import Estimate

SECONDS = st.floats(0, 1e9)


def closing(*runs: float) -> Closing:
    """What these runs taught."""
    found = Closing()
    for seconds in runs:
        found.add(seconds)
    return found


def test_usual_time_is_left_and_then_some() -> None:
    """It counts down to the usual time; what has outlasted it has no end at once, and then no estimate."""
    known = closing(70, 70, 70)
    for ran in (0, 30, 60):
        found = known.left(ran)
        assert found is not None
        assert found.eta == pytest.approx(70 - ran)
        assert (found.source, found.runs) == ("history", 3)
    late = known.left(75)
    assert late is not None
    assert late.eta > 0
    assert known.left(140) is None


@pytest.mark.parametrize("runs", [(), (0, 0, 0), (1, 1.5), (0, 0, 0, 0, 90)], ids=["none", "nothing", "short", "once"])
def test_nothing_is_said_that_is_not_known(runs: tuple[float, ...]) -> None:
    """Without earlier runs, after runs that ended with their last unit, or after one that did not, nothing is added."""
    left = Estimate(10.0, 8.0, 12.0, "rate")
    known = closing(*runs)
    assert known.left(1) is None
    assert known.after(left) == left


@given(st.lists(SECONDS, max_size=8), SECONDS)
def test_bounds_are_in_order_and_a_file_keeps_all(runs: list[float], ran: float) -> None:
    """Whatever was learned, the interval holds its middle, and what is written is read."""
    known = closing(*runs)
    for found in (known.left(ran), known.after(Estimate(5.0, 4.0, 6.0, "rate"))):
        assert found is None or 0 <= found.low <= found.eta <= found.high
    again = Closing.from_list(known.to_list())
    assert again.runs == known.runs
    assert again.seconds == pytest.approx(known.seconds, abs=1e-6)


def test_runs_of_two_processes() -> None:
    """What two processes learned is their mean, by runs."""
    known = closing(60, 60)
    known.merge(closing(80, 80))
    assert (known.runs, known.seconds) == (4, pytest.approx(72))


@pytest.mark.parametrize("given", [[1, 2], [1, -2, 3], [1, float("nan"), 3], ["x", 1, 1], None])
def test_what_is_no_list_of_ours_is_refused(given: object) -> None:
    """A file of somebody else is an error, not a strange estimate."""
    with pytest.raises((TypeError, ValueError)):
        Closing.from_list(given)
