"""The curve of completed units over time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from otel_progress.model.curve import POINTS, Curve, Points


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


def _run(*parts: tuple[float, int], every: float = 0.25) -> Curve:
    """A curve of a run, whose parts are (seconds, units): looked at each quarter of a second, as by the ticker."""
    curve, at, done = Curve(restored=0), 0.0, 0
    for seconds, units in parts:
        looks = round(seconds / every)
        for look in range(1, looks + 1):
            at += every
            now = done + units * look // looks
            if units:
                curve.add(at, now)
            else:
                curve.stands(at)
        done += units
    return curve


def _at(points: Points, seconds: float) -> float:
    """What the line through the points says of a moment."""
    for earlier, later in pairwise(points):
        if earlier[0] <= seconds <= later[0]:
            return earlier[1] + (later[1] - earlier[1]) * (seconds - earlier[0]) / (later[0] - earlier[0])
    raise AssertionError(seconds)


def test_a_stop_of_a_short_run_is_flat() -> None:
    """A count that stood for seconds does not climb through them, also if all of the rest came at once."""
    curve = _run((2.5, 50), (5.0, 0))
    assert [_at(curve.until(6.0, 50), seconds) for seconds in (3.0, 5.5)] == [50, 50], "while it stands"
    points = curve.until(7.6, 100)
    assert [_at(points, seconds) for seconds in (2.5, 4.0, 7.3)] == [50, 50, 50], "at the end"
    curve.add(7.6, 100)
    assert [_at(curve.until(9.0, 100), seconds) for seconds in (2.5, 4.0, 7.3, 8.0)] == [50, 50, 50, 100]


def test_a_stop_that_is_not_known_is_not_drawn() -> None:
    """If more was completed since the last point, nobody knows when; a time between two looks is no stop."""
    curve = Curve(restored=0)
    curve.add(1.0, 10)
    curve.moved = True
    curve.stands(8.0)
    assert curve.until(9.0, 90) == ((0.0, 0), (1.0, 10), (9.0, 90))
    quick = Curve(restored=0)
    quick.add(1.0, 10)
    quick.stands(1.5)
    assert quick.until(3.0, 90) == ((0.0, 0), (1.0, 10), (3.0, 90))


@pytest.mark.parametrize("times", [3, 30, 300, 3_000])
def test_stops_take_no_more_memory(times: int) -> None:
    """A run that stops and starts again and again has as few points as any other, and long stops stay flat."""
    curve = _run(*[(2.0, 8), (4.0, 0)] * times, (max(60.0, 2.0 * times), 0), (2.0, 8))
    end = 6.0 * times + max(60.0, 2.0 * times)
    points = curve.until(end + 2.0, 8 * times + 8)
    assert len(points) <= POINTS + 1
    assert len(curve.points) <= 2 * POINTS
    assert all(later[0] > earlier[0] and later[1] >= earlier[1] for earlier, later in pairwise(points))
    assert _at(points, end - 1.0) == pytest.approx(8 * times)


def test_a_run_that_stops_for_long_then_goes_on_for_long_keeps_the_stop() -> None:
    """The ends of a long stop outlive the thinning."""
    curve = _run((100.0, 100), (200.0, 0), (3_000.0, 3_000))
    points = curve.until(3_300.0, 3_100)
    assert [_at(points, seconds) for seconds in (101.0, 200.0, 299.0)] == [100, 100, 100]
