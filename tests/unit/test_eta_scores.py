"""The scores of the ETA benchmark: pure functions of forecasts and what happened."""

from __future__ import annotations

import random

import pytest
from benchmarks.eta import peers
from benchmarks.eta.families import FAMILIES
from benchmarks.eta.play import play
from benchmarks.eta.runs import Run, Step, plain
from benchmarks.eta.score import (
    Forecast,
    Moment,
    Played,
    Scores,
    common,
    constant_factor,
    constant_width,
    covers,
    jumpiness,
    row,
    taking_part,
)

from otel_progress.testing import capture


def run(*etas: float | None, who: str = "x", margin: float = 0.0) -> Played:
    """A run of 10 s, with a forecast each second."""
    moments = []
    for at, eta in enumerate(etas):
        found = {} if eta is None else {who: Forecast(eta, eta - margin, eta + margin)}
        moments.append(Moment(at, 10.0 - at, found))
    return Played(10.0, tuple(moments), {})


def test_a_perfect_forecast_has_no_error() -> None:
    """Who always names the end is neither wrong nor biased nor jumpy."""
    played = run(*(10.0 - at for at in range(10)))
    assert row(played.moments, "x", 10.0) == (0.0, 0.0, 0.0, 0.0)


def test_errors_are_shares_of_the_run_and_of_what_is_left() -> None:
    """Twice the time that is left is wrong by all of it, and late."""
    played = run(20.0, 18.0)
    found = row(played.moments, "x", 10.0)
    assert found is not None
    assert (found.error, found.rest, found.bias) == (pytest.approx(0.95), 1.0, pytest.approx(0.95))


def test_an_estimate_that_stands_still_moves_its_end_a_second_each_second() -> None:
    """Jumpiness counts seconds of the forecast end for each second."""
    assert jumpiness(run(5.0, 5.0, 5.0).moments, "x") == 1.0
    assert jumpiness(run(5.0, 4.0, 3.0).moments, "x") == 0.0
    assert jumpiness(run(5.0).moments, "x") == 0.0


def test_only_moments_with_all_forecasts_are_compared() -> None:
    """Who has no estimate most of the time takes no part; the others are compared where all have one."""
    full, half = run(*[1.0] * 4), run(None, 1.0, 1.0, None, who="y")
    both = Played(10.0, tuple(a._replace(forecasts={**a.forecasts, **b.forecasts}) for a, b in zip(full.moments, half.moments)), {})  # fmt: skip
    assert taking_part(both, ("x", "y", "z")) == {"x", "y"}
    assert [moment.at for moment in common(both, {"x", "y"})] == [1, 2]
    assert taking_part(run(None, None, None, 1.0), ("x",)) == set()


def test_coverage_and_width() -> None:
    """An interval holds the truth or not; its width is a share of the run."""
    found = covers(run(10.0, 11.0, 12.0, margin=2.0), "x")
    assert [one.held for one in found] == [True, True, False]
    assert [one.width for one in found] == pytest.approx([0.4] * 3)


def test_constant_intervals_cover_as_much() -> None:
    """The constant distance is the quantile of the errors, cut at zero."""
    found = covers(run(10.0, 10.0, 10.0, 10.0, margin=1.0), "x")
    assert constant_width(found, 0.5) == pytest.approx(0.2)
    assert constant_width(found, 1.0) == pytest.approx(0.6)


def test_intervals_of_a_constant_factor_cover_as_much() -> None:
    """The factor is the quantile of truth by forecast, either way: here 1, 9/10, 8/10 and 7/10 of it are left."""
    found = covers(run(10.0, 10.0, 10.0, 10.0, margin=1.0), "x")
    assert constant_factor(found, 0.5) == pytest.approx(10 / 9 - 9 / 10)
    assert constant_factor(found, 1.0) == pytest.approx(10 / 7 - 7 / 10)


def test_first_estimates_count_from_a_known_total() -> None:
    """A total that is known after 20 s makes no first estimate late, and a burst is one step."""
    late = Run(
        (*(Step(float(at), "units", 50) for at in range(1, 21)), Step(20.0, "total", 2000), Step(40.0, "units", 1000)),
        None,
    )
    burst = Run((Step(10.0, "units", 100), Step(20.0, "units", 100)), 200)
    with capture() as captured, peers.on(captured.clock):
        for number, one in enumerate((late, burst)):
            steps, seconds = play(captured, one, f"job {number}").first["ours"]
            assert steps <= 1
            assert seconds < 2 or number == 1


def test_late_first_estimates() -> None:
    """A first estimate is late after both 2 steps and 2 s, and if it never came."""
    scores = Scores()
    for first in ({"x": (1.0, 50.0)}, {"x": (50.0, 1.9)}, {"x": (3.0, 2.1)}, {}):
        scores.add(Played(10.0, run(1.0).moments, first), ("x",), "x")
    assert scores.late("x") == 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_families_draw_runs_whose_counts_add_up(name: str) -> None:
    """Steps are in order, and the units of a plain run reach its last total exactly."""
    drawn = FAMILIES[name](random.Random(3))(0)
    assert [step.at for step in drawn.steps] == sorted(step.at for step in drawn.steps)
    assert drawn.seconds > 0
    if drawn.kind in ("plain", "stages"):
        done = drawn.restored + sum(step.number for step in drawn.steps if step.act == "units")
        totals = [step.number for step in drawn.steps if step.act == "total"]
        assert done == (totals[-1] if totals else drawn.total)


def test_all_bars_see_the_same_run_at_the_same_moments() -> None:
    """At a constant pace, each bar soon knows the end; nobody reads the real clock."""
    with capture() as captured, peers.on(captured.clock):
        played = play(captured, plain([1.0] * 40), "job")
    last = played.moments[-10]
    assert set(last.forecasts) == {"ours", "tqdm", "rich", "progressbar2"}
    for who, forecast in last.forecasts.items():
        assert forecast.eta == pytest.approx(last.left, abs=3.0), who
