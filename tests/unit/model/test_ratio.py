"""The ratio to show: noise does not move it back, and it never runs away."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.ratio import ALMOST, held


def shown(raws: list[float]) -> list[float]:
    """What is shown for raw ratios, one after the other."""
    found: list[float] = []
    for raw in raws:
        found.append(held(found[-1] if found else None, raw))
    return found


@pytest.mark.parametrize(
    ("before", "raw", "expected"),
    [
        (None, 0.2, 0.2),
        (0.2, 0.3, 0.3),
        (0.5, 0.41, 0.5),
        (0.5, 0.39, 0.39),
        (0.9, 0.86, 0.9),
        (0.9, 0.85, 0.85),
        (0.1, 0.08, 0.1),
        (0.1, 0.05, 0.05),
        (0.5, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        (0.5, 1.0, ALMOST),
        (ALMOST, 0.25, 0.25),
    ],
)
def test_small_falls_are_held_and_large_ones_shown(before: float | None, raw: float, expected: float) -> None:
    """Held while the rest, compared with what is done, is at most 1.5 times as large as shown."""
    assert held(before, raw) == expected


@pytest.mark.parametrize("every", [1, 30])
def test_an_estimated_total_does_not_move_it_back(every: int) -> None:
    """The rest is estimated with an error of up to a fifth: it never falls, and is near the truth all along."""
    noise, rest = random.Random(1), 0.0
    raws = []
    for done in range(1, 1000):
        if done % every == 0 or not rest:
            rest = (1000 - done) * noise.uniform(0.8, 1.2)
        raws.append(done / (done + rest))
    found = shown(raws)
    assert found == sorted(found)
    assert all(abs(one - done / 1000) < 0.1 for done, one in enumerate(found, 1))


@pytest.mark.parametrize("raws", [[0.2, 0.1], [0.05, 0.1], [0.5, 0.3]])
def test_it_does_not_run_away(raws: list[float]) -> None:
    """A count or total that goes back and forth shows one of its own values."""
    assert shown(raws * 40)[-1] == raws[-1]


@given(st.lists(st.floats(0, 1), min_size=1))
def test_it_is_never_above_what_was_true(raws: list[float]) -> None:
    """It is one of the raw ratios so far, at least the newest, and below 1."""
    for number, one in enumerate(shown(raws), 1):
        assert min(raws[number - 1], ALMOST) <= one <= min(max(raws[:number]), ALMOST)
