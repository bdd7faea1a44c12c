"""Estimates in words: rounded as roughly as they are known, and calm."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Progress
from otel_progress.model.units import left
from otel_progress.render.words import TEXTS, Calm, remaining, source

LONGEST = len("50 min to 1.5 h left")
MONTHS = st.floats(min_value=0, max_value=1e12)


@given(MONTHS, MONTHS, MONTHS)
def test_every_estimate_has_a_short_text(eta: float, below: float, above: float) -> None:
    """No estimate is negative, empty, or wider than its column."""
    text = remaining(Progress(1, 9, eta=Estimate(eta, max(0.0, eta - below), eta + above, "rate")))
    assert text == "almost done" or text.endswith(" left")
    assert "-" not in text
    assert len(text) <= LONGEST


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_impossible_estimate_has_no_text(bad: float) -> None:
    """An interval without bounds is not shown."""
    assert left(bad, 1, 2) == left(10, 1, bad) == ""


def changes(texts: list[str]) -> int:
    return sum(before != after for before, after in itertools.pairwise(texts))


def test_a_live_text_does_not_flip_between_two_roundings() -> None:
    """An estimate that trembles around the border of two roundings keeps its text."""
    rng, calm = random.Random(4), Calm()
    etas = [Estimate(210 + rng.uniform(-9, 9), 200, 225, "rate") for _ in range(200)]
    assert changes([calm.say(("a", ""), eta) for eta in etas]) == 0
    assert changes([left(eta.eta, eta.low, eta.high) for eta in etas]) > 50


def test_a_live_text_does_not_flip_between_a_number_and_a_range() -> None:
    """An interval whose width trembles around the limit keeps its form."""
    rng, calm = random.Random(5), Calm()
    etas = [Estimate(240, 200, 300 + rng.uniform(-15, 15), "rate") for _ in range(200)]
    assert changes([calm.say(("a", ""), eta) for eta in etas]) <= 1


def test_a_text_follows_an_estimate_down_without_going_back() -> None:
    """While ten minutes run down, the text changes a few times, and none comes twice."""
    calm = Calm()
    texts = [calm.say(("a", ""), Estimate(left, 0.95 * left, 1.05 * left, "rate")) for left in range(600, 0, -1)]
    assert changes(texts) == len(set(texts)) - 1 < 30
    assert (texts[0], texts[-1]) == ("about 10 min", "almost done")


def test_a_live_text_follows_a_real_change() -> None:
    """An estimate that doubles has a new text at once."""
    calm = Calm()
    assert calm.say(("a", ""), Estimate(240, 230, 250, "rate")) == "about 4 min"
    assert calm.say(("a", ""), Estimate(480, 470, 490, "rate")) == "about 8 min"
    assert calm.say(("b", ""), Estimate(255, 250, 260, "rate")) == "about 4 min"


def test_the_texts_of_a_live_view_are_bounded() -> None:
    """A view that shows ever new operations forgets the old ones."""
    calm = Calm()
    for number in range(3 * TEXTS):
        calm.say((str(number), ""), Estimate(5, 4, 6, "rate"))
    assert len(calm._shown) <= TEXTS + 1


@pytest.mark.parametrize(
    ("completed", "total", "said"),
    [
        (0, 200, "no estimate yet"),
        (1, 200, "no estimate"),
        (3, 200, "no estimate"),
        (200, 200, "all counted"),
        (1, 1, "all counted"),
        (None, None, ""),
        (5, None, ""),
        (98, 50, "beyond its total"),
    ],
)
def test_no_estimate_yet_is_said_where_one_is_to_be_expected(
    completed: int | None, total: int | None, said: str
) -> None:
    """Without an estimate of a count with a total, the text says so; without a total it is empty.

    From the first unit on there may have been one, so `yet` would be wrong.
    """
    assert remaining(Progress(completed, total)) == said


def test_a_live_view_does_not_say_yet_after_an_estimate() -> None:
    """An estimate by earlier runs may end before the first unit is done; then there was one."""
    calm, key = Calm(), ("a", "")
    assert remaining(Progress(0, 9), calm, key) == "no estimate yet"
    assert remaining(Progress(0, 9, eta=Estimate(240, 230, 250, "history", 3)), calm, key) == "about 4 min left"
    assert remaining(Progress(0, 9), calm, key) == "no estimate"
    assert remaining(Progress(0, 9), calm, ("b", "")) == "no estimate yet"


def test_almost_done_needs_the_upper_bound_to_agree() -> None:
    """A second that may be ten is not almost done."""
    assert left(1, 0, 7) == "almost done"
    assert left(1, 0, 10) == "up to 10 s"
    assert left(0.2, 0, 108) == "up to 2 min"


def test_during_a_wait_the_text_says_what_comes_after_it() -> None:
    """The estimate stands still in a declared wait: it is what is left then, not now."""
    soon, later = Estimate(1, 1, 2, "rate"), Estimate(240, 230, 250, "rate")
    assert remaining(Progress(1, 9, eta=later), waits=True) == "then about 4 min"
    assert remaining(Progress(1, 9, eta=soon), waits=True) == "then almost done"
    assert remaining(Progress(0, 9), waits=True) == "no estimate yet"
    assert remaining(Progress(1, 9, eta=Estimate(240, 230, 250, "children")), waits=True) == "about 4 min left"


@pytest.mark.parametrize(
    ("where", "runs", "said"),
    [
        ("rate", 0, "pace now"),
        ("plan", 0, "planned"),
        ("history", 12, "from 12 earlier runs"),
        ("history", 1, "from 1 earlier run"),
        ("history", 0, "from earlier runs"),
    ],
)
def test_source_in_words(where: str, runs: int, said: str) -> None:
    """People read where an estimate comes from, and how many runs it uses."""
    assert source(Estimate(1, 1, 1, where, runs)) == said
