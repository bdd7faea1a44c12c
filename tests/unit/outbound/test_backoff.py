"""The retry policy: what a count of failures makes of a pause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.outbound.backoff import STANDARD, Backoff


def test_the_pause_doubles_with_each_failure_up_to_the_longest() -> None:
    """0.25 s, 0.5 s, … and never more than `longest`."""
    assert [STANDARD.pause(failures) for failures in range(1, 8)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_first_pause_is_the_shortest_whatever_the_longest() -> None:
    """A `longest` below `first` wins: the limit is never exceeded."""
    assert Backoff(first=1.0, longest=0.5).pause(1) == 0.5


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 0.0), (0.1, 0.1), (7.0, 7.0), (60.0, 60.0), (86_400.0, 60.0)])
def test_a_receiver_that_asks_for_a_pause_gets_it_up_to_a_limit(asked: float, pause: float) -> None:
    """What the receiver asks for replaces the computed pause, in either direction."""
    assert STANDARD.pause(4, asked) == pause


def test_no_request_for_a_pause_is_bounded_to_none() -> None:
    """`bounded` says 0 where the receiver asked for nothing."""
    assert STANDARD.bounded(None) == 0.0


@pytest.mark.parametrize(
    ("chance", "pauses"), [(0.0, [0.5, 0.5, 0.5]), (1.0, [1.0, 2.0, 4.0]), (0.5, [0.75, 1.25, 2.25])]
)
def test_jitter_spreads_a_pause_between_the_first_and_twice_its_length(chance: float, pauses: list[float]) -> None:
    """The plain pauses would be 0.5, 1 and 2 s."""
    backoff = Backoff(first=0.5, longest=60.0, jitter=lambda: chance)
    assert [backoff.pause(failures) for failures in (1, 2, 3)] == pauses


@given(st.integers(1, 10**9), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1e12)))
def test_no_pause_exceeds_its_bounds(failures: int, chance: float, asked: float | None) -> None:
    """However many failures, whatever chance says, and whatever is asked for."""
    for backoff in (STANDARD, Backoff(jitter=lambda: chance)):
        pause = backoff.pause(failures, asked)
        assert 0 <= pause <= (backoff.longest if asked is None else backoff.longest_asked)


def test_equal_counts_make_equal_pauses() -> None:
    """The policy keeps no state: a sender that starts counting again starts with the first pause."""
    assert [STANDARD.pause(count) for count in (1, 5, 1)] == [0.25, 4.0, 0.25]
