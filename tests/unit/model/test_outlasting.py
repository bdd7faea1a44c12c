"""How much longer something takes that has run for a while."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.outlasting import left
from otel_progress.model.outline import Outline

USUAL = st.floats(1e-6, 1e9)
WIDTHS = st.floats(0.1, 1.2)


@given(USUAL, WIDTHS, st.floats(0, 1e6))
def test_it_is_sound_whatever_has_passed(usual: float, width: float, times: float) -> None:
    """No NaN, nothing below zero, and the interval holds the estimate, also far beyond the usual time."""
    eta, low, high = left(usual, width, times * usual)
    assert 0 <= low <= eta <= high < math.inf


@given(USUAL, WIDTHS)
def test_at_the_start_it_is_the_usual_time(usual: float, width: float) -> None:
    """Nothing has passed: the median, and the middle 80%."""
    assert left(usual, width, 0) == pytest.approx((usual, usual / math.exp(width), usual * math.exp(width)))


def test_a_time_that_vanishes_beside_the_usual_one_is_none() -> None:
    """The smallest number divided by a usual time is 0, which has no logarithm."""
    assert left(1000.0, 0.5, 5e-324) == left(1000.0, 0.5, 0)


@given(USUAL, WIDTHS)
def test_it_falls_more_slowly_than_time_passes(usual: float, width: float) -> None:
    """A second that passed takes at most a second off, and the end moves away, never closer."""
    ends = [part / 20 * usual + left(usual, width, part / 20 * usual)[0] for part in range(30)]
    assert all(after >= before * (1 - 1e-6) for before, after in pairwise(ends))


@given(USUAL, st.floats(0.3, 1.2))
def test_what_outlasts_its_usual_time_is_expected_to_take_longer(usual: float, width: float) -> None:
    """At the usual time something is left, and a standard deviation later more."""
    soon, later = (left(usual, width, usual * math.exp(part * width / 1.2816))[0] for part in (0, 1))
    assert later > soon > 0


def test_a_run_that_outlasts_earlier_ones_does_not_count_down_to_nothing() -> None:
    """Runs of 10, 100 and 30 s, and now one of 300 s: never 0.2 s with an upper bound of minutes."""
    outline = Outline()
    for took in (10.0, 100.0, 30.0):
        outline.add(took, {})
    found = [outline.by_duration(float(second)) for second in range(300)]
    assert all(one is None or one.eta > one.high / 50 for one in found)
    assert found[60] is not None
    assert found[-1] is None
