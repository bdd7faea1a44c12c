"""Quantiles in constant memory."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.sketch import ACCURACY, BUCKETS, Sketch

durations = st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=300)


def sketch_of(values: list[float]) -> Sketch:
    """A sketch of these values."""
    found = Sketch()
    for value in values:
        found.add(value)
    return found


@given(durations, st.floats(0, 1))
def test_a_quantile_is_within_its_error(values: list[float], part: float) -> None:
    """Each quantile is within 2% of the value of that rank."""
    exact = sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
    assert abs(sketch_of(values).quantile(part) - exact) <= ACCURACY * exact * (1 + 1e-9)


@given(st.lists(st.floats(0, 1e30, allow_nan=False), max_size=400), st.lists(st.floats(0, 1e30), max_size=400))
def test_merged_sketches_equal_one_of_all(some: list[float], others: list[float]) -> None:
    """Sketches of parts that fit together hold what one sketch of all values holds; memory is bounded in any case."""
    merged, whole = sketch_of(some), sketch_of(some + others)
    merged.merge(sketch_of(others))
    assert merged.count == whole.count == len(some) + len(others)
    assert len(merged.buckets) <= BUCKETS
    assert len(whole.buckets) <= BUCKETS
    assert merged.buckets == whole.buckets


@given(st.lists(st.floats()))
def test_no_value_breaks_it(values: list[float]) -> None:
    """NaN, infinity and negative numbers are ignored, so no quantile is one of them."""
    found = sketch_of(values)
    assert found.count == sum(0 <= value < math.inf for value in values)
    assert all(math.isfinite(found.quantile(part)) for part in (0, 0.5, 0.99, 1))


def test_a_range_that_is_too_wide_loses_its_lower_end_only() -> None:
    """Beyond its buckets the lowest values share one, and high quantiles stay accurate."""
    values = [1.02**power for power in range(1000)]
    found = sketch_of(values)
    assert len(found.buckets) == BUCKETS
    assert abs(found.quantile(0.99) - values[989]) <= ACCURACY * values[989]
