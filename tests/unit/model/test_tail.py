"""How much longer a unit takes that has lasted for a while, by the times of other units of the run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model import tail


def seen(*times: float) -> bytes:
    """A run of units that took these times."""
    kept = tail.start(times[0], 0)
    for each in times:
        kept = tail.add(kept, each)
    return kept


def test_steady_units_explain_little_more_than_their_time() -> None:
    """A unit of one and a half times the usual length is a surprise."""
    assert 10 <= tail.explained(seen(*[10.0] * 20)) < 15


def test_units_of_all_lengths_explain_long_ones() -> None:
    """Tools that take from 1 to 60 s explain one of a minute, not one of ten."""
    assert 60 < tail.explained(seen(*[1.0, 4.0, 8.0, 15.0, 60.0] * 4)) < 600


def test_few_units_explain_nothing() -> None:
    """Three units are no distribution."""
    assert tail.explained(seen(1.0, 30.0, 5.0)) == 0.0


def test_of_steady_units_less_is_left_the_longer_one_takes() -> None:
    """At the usual time it is nearly done."""
    kept = seen(*[10.0] * 20)
    assert tail.left(kept, 10.0, 8.0)[0] == pytest.approx(2.0)
    assert tail.left(kept, 10.0, 10.0)[0] < 1.5


def test_of_units_of_all_lengths_more_is_left_the_longer_one_takes() -> None:
    """What has outlasted most others is one of the long ones."""
    kept = seen(*[1.0, 4.0, 8.0, 15.0, 60.0] * 4)
    early, late = tail.left(kept, 10.0, 12.0), tail.left(kept, 10.0, 40.0)
    assert early[0] < late[0]
    assert late[0] > 5
    assert late[1] > late[0]


@given(st.lists(st.floats(0.01, 1e9), min_size=1, max_size=60), st.floats(1e-3, 1e9), st.floats(0.0, 1e9))
def test_whatever_units_took_the_rest_is_finite(times: list[float], usual: float, ran: float) -> None:
    """Nothing overflows, and the expected rest is no more than the upper bound."""
    kept = seen(*times)
    eta, most = tail.left(kept, usual, ran)
    assert 0 <= eta <= most < math.inf
    assert 0 <= tail.explained(kept) < math.inf


def test_a_few_units_of_all_lengths_leave_more_room_than_many_or_steady_ones() -> None:
    """How long the next units take is known the better, the more were seen, and the more alike they were."""
    uneven = [1.0, 4.0, 8.0, 15.0, 60.0]
    few, many = tail.may_take_longer(seen(*uneven), 10), tail.may_take_longer(seen(*uneven * 8), 10)
    steady = tail.may_take_longer(seen(*[10.0] * 5), 10)
    assert 1.0 < few <= 1.6
    assert steady < 0.2 < many < few
    assert tail.may_take_longer(seen(*uneven * 8), 1) > many


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60), st.floats(1, 1e9))
def test_the_room_is_sound_whatever_was_seen(times: list[float], more: float) -> None:
    """Never below zero, never without bound."""
    assert 0 <= tail.may_take_longer(seen(*times), more) <= 1.6
