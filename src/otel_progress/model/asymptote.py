"""A ratio that comes ever nearer to 1 and never reaches it, as an estimate of how much is done often does."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress.model.forecast import Course

_HALVINGS: Final = 3
"""How often what is left must have halved before that says anything."""
_AS_LONG: Final = 0.85
"""The part of the time of a halving that the next one takes, at least; it takes half of it at a constant pace."""


def approaches(course: Course, time: float, done: float, left: float) -> bool:
    """Return whether each halving of what was left took about as long as the one before, so that it has no end.

    Args:
        course: how it went.
        time: seconds since the start.
        done: how much was done by then.
        left: how much is left.
    """
    marks = [done + left - left * 2**halving for halving in range(_HALVINGS, -1, -1)]
    if marks[0] < course.since[1]:
        return False
    times = [course.time_at(mark, time, done) for mark in marks[:-1]]
    took = [end - begin for begin, end in itertools.pairwise([*times, time])]
    return all(later >= _AS_LONG * before for before, later in itertools.pairwise(took))
