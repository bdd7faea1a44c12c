"""How much longer something takes that has run for a while, by how long it took before.

Durations are taken as log-normal. The interval is the middle 80% of those durations that are longer than what has run
(the conditional survival function). The expected end is the usual one until that comes near; then it moves from the
lower bound of what is left to its median, which it reaches one standard deviation beyond the usual time. So what has
outlasted its usual time is expected to take longer, not to end at once; the upper end leaves room for as long again.
"""

from __future__ import annotations

import math
from typing import Final

_EIGHTY: Final = 1.2816
"""Standard deviations from the median to either end of the middle 80%."""
_MOST: Final = 8.0
"""Standard deviations beyond which nothing is looked for."""
_FARTHEST: Final = 2.0
"""What lasts longer than this many standard deviations shows that durations vary more than was known."""
_LOW, _MEDIAN, _HIGH = 0.1, 0.5, 0.9


def left(usual: float, width: float, ran: float) -> tuple[float, float, float]:
    """Return the seconds left: expected, and the bounds between which the end is in 80% of all cases.

    Args:
        usual: the median of earlier durations, in seconds; above 0.
        width: half the width of their middle 80% (log); above 0.
        ran: seconds that it has run.
    """
    deviation = width / _EIGHTY
    if ran / usual <= 0:  # a tiny time divided by a long one is 0
        return usual, usual / math.exp(width), usual * math.exp(width)
    deviation = max(deviation, math.log(ran / usual) / _FARTHEST)
    passed = math.log(ran / usual) / deviation
    still = _beyond(passed)

    def after(part: float) -> float:
        return max(0.0, usual * math.exp(deviation * _quantile(still * (1 - part))) - ran)

    late = _LOW + (_MEDIAN - _LOW) * min(1.0, max(0.0, passed))
    eta = max(usual - ran, after(late))
    again = ran if ran > usual else 0.0
    return eta, min(after(_LOW), eta), max(after(_HIGH), eta, again)


def _beyond(deviations: float) -> float:
    """The share of a normal distribution beyond so many standard deviations."""
    return math.erfc(deviations / math.sqrt(2)) / 2


def _quantile(share: float) -> float:
    """Beyond how many standard deviations this share of a normal distribution is, from -8 to 8.

    An approximation (Abramowitz and Stegun, 26.2.23) that two steps of Halley's method make exact to rounding.
    """
    tail = min(share, 1 - share)
    if tail <= _beyond(_MOST):
        return _MOST if share < 0.5 else -_MOST
    far = math.sqrt(-2 * math.log(tail))
    found = far - (2.515517 + far * (0.802853 + far * 0.010328)) / (
        1 + far * (1.432788 + far * (0.189269 + far * 0.001308))
    )
    for _ in range(2):
        off = (_beyond(found) - tail) * math.sqrt(2 * math.pi) * math.exp(found * found / 2)
        found += off / (1 - found * off / 2)
    return found if share < 0.5 else -found
