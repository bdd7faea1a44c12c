"""The curve of completed units over time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from otel_progress.model.curve import POINTS, Curve


@pytest.mark.parametrize("seconds", [10, 64, 1_000, 400_000])
def test_a_run_of_any_length_has_few_points_at_even_distances(seconds: int) -> None:
    """At most 64 points and the present; the widest gap is at most four times the average."""
    curve = Curve()
    for at in range(1, seconds + 1):
        curve.add(float(at), 3 * at)
    points = curve.until(seconds + 0.5, 3 * seconds)
    assert len(points) <= POINTS + 1
    assert all(units == 3 * at for at, units in points[:-1])
    assert all(type(units) is int for _, units in points)
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(points)]
    assert max(gaps) <= 4 * seconds / len(points) + 1


def test_a_curve_goes_on_where_it_was_told() -> None:
    """A reader that takes over a curve keeps its points and its spacing."""
    first, second = Curve(), Curve()
    for at in range(1, 301):
        first.add(float(at), at)
    second = Curve(first.until(300.0, 300))
    for at in range(301, 401):
        first.add(float(at), at)
        second.add(float(at), at)
    assert first.until(401, 401) == second.until(401, 401)


def test_a_told_curve_that_is_out_of_order_is_skipped() -> None:
    """Senders are untrusted: points that go back in time are left out."""
    assert Curve(((5.0, 1), (2.0, 9), (7.0, 2), (8.0, 3))).until(9.0, 4) == ((5.0, 1), (7.0, 2), (9.0, 4))
