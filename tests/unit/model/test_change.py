"""A change of pace is proven by parts that differ far more than those before and after it do."""

from __future__ import annotations

import itertools
import random

import pytest

from otel_progress.model.change import change_of_pace

CHANGES: dict[str, tuple[list[float], int | None]] = {
    # seconds for each unit, and after which unit the pace is another one
    "steady": ([1.0] * 20, None),
    "ten times slower": ([1.0] * 10 + [10.0] * 10, 10),
    "ten times quicker": ([10.0] * 10 + [1.0] * 10, 10),
    "just below three times": ([1.0] * 10 + [2.99] * 10, None),
    "just above three times": ([1.0] * 10 + [3.01] * 10, 10),
    "one part before: not eight times": ([1.0] + [7.9] * 10, None),
    "one part before: eight times": ([1.0] + [8.1] * 10, 1),
    "a single long unit": ([1.0] * 10 + [50.0] + [1.0] * 10, None),
    "too few units after it": ([1.0] * 10 + [10.0] * 4, None),
    "too short after it": ([1.0] * 10 + [0.1] * 10, None),
    "turns": ([1.0, 20.0] * 10, None),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_found_where_it_is(kind: str) -> None:
    """It is the point after which the pace is another one, if enough was seen since."""
    each, found = CHANGES[kind]
    times = [*itertools.accumulate(each, initial=0.0)]
    assert change_of_pace(times, [float(count) for count in range(len(times))]) == found


def test_noise_is_no_change() -> None:
    """Units of very different length, in random order, have no change of pace."""
    rng = random.Random(5)
    for _ in range(200):
        times = [*itertools.accumulate((rng.expovariate(1.0) + 1e-3 for _ in range(24)), initial=0.0)]
        assert change_of_pace(times, [float(count) for count in range(25)]) is None
