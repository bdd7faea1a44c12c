"""The times of single units of a run: how much longer one takes that has lasted for a while, and what is no surprise.

Times are taken as log-normal; their mean and spread (log) are those of the newest units. Kept as bytes, which take a
quarter of the memory.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Final

from otel_progress.model import outlasting

_KEPT: Final = Struct("3f")
"""The number of units, the mean logarithm of their seconds, and the mean square of how far they are from it."""
_NEWEST: Final = 40.0
"""Units whose times count; older ones fade."""
_KNOWN: Final = 6
"""Units that must be seen before they say what is no surprise."""
_FAR: Final = 2.0
"""Standard deviations within which a unit is no surprise, and how many more for a single unit."""
_MORE: Final = 3.0
_EIGHTY: Final = 1.2816
_UNSURE: Final = 1.5
"""How much larger an error is whose size is known from a single unit."""
_FARTHEST: Final = 1.6
"""The largest logarithm by which units that vary may take longer."""
_LEAST, _MOST = 0.1, 3.0
"""The least and the largest spread (log)."""
_SHORT: Final = 1e-6
"""The least usual time, as a part of what a unit has lasted."""
_HUGE: Final = 100.0
"""The largest logarithm of a time."""


def start(seconds: float, many: int) -> bytes:
    """Begin with `many` units, each of which took about `seconds`."""
    return _KEPT.pack(min(many, _NEWEST), math.log(seconds), 0.0)


def add(kept: bytes, seconds: float) -> bytes:
    """Add a unit that took `seconds`, above 0."""
    number, mean, square = _KEPT.unpack(kept)
    number = min(number + 1, _NEWEST)
    off = math.log(seconds) - mean
    mean += off / number
    square += (off * (math.log(seconds) - mean) - square) / number
    return _KEPT.pack(number, mean, square)


def spread(kept: bytes) -> float:
    """Return the standard deviation of the logarithms."""
    number, _, square = _KEPT.unpack(kept)
    return min(_MOST, max(_LEAST, math.sqrt(max(0.0, square) * number / max(1.0, number - 1))))


def explained(kept: bytes) -> float:
    """Return the seconds that a unit may take without a surprise; 0 while too few were seen."""
    number, mean, _ = _KEPT.unpack(kept)
    return 0.0 if number < _KNOWN else math.exp(min(_HUGE, mean + (_FAR + _MORE / number) * spread(kept)))


def may_take_longer(kept: bytes, more: float) -> float:
    """Return by how much (log) the next units may take longer than the mean of those so far, in 90% of all cases.

    The mean of a few skewed times is mostly too low, and its error is known from these few alone.

    Args:
        kept: the units so far.
        more: the number of units that are left, at least 1.
    """
    number: float = max(1.0, _KEPT.unpack(kept)[0])
    square = math.log1p(math.expm1(spread(kept) ** 2) * (1 / number + 1 / more))
    return min(_FARTHEST, square / 2 + _EIGHTY * math.sqrt(square) * (1 + _UNSURE / number))


def left(kept: bytes, usual: float, ran: float) -> tuple[float, float]:
    """Return the seconds left of a unit that has lasted for `ran`: expected, and at most in 90% of all cases."""
    eta, _, high = outlasting.left(max(usual, _SHORT * ran), _EIGHTY * spread(kept), ran)
    return eta, high
