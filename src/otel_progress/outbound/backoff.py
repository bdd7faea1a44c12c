"""The retry policy: how long to pause after a request failed.

Pure: a count of failures goes in, seconds come out. Each sender counts its failures in a row, starts again from zero
after a success, and waits in its own way, so that a flush or a shutdown can cut the pause short. (Retry libraries such
as stamina and tenacity own the loop and sleep inside it, which is why none is used here.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DOUBLINGS: Final = 30
"""The pause grows no more after this many failures, whatever `longest` is; it keeps the power of two small."""


@dataclass(frozen=True)
class Backoff:
    """Pauses that double with each failure in a row.

    Attributes:
        first: the pause after the first failure, and the shortest one, in seconds.
        longest: the longest pause, in seconds.
        longest_asked: the longest pause that a receiver may ask for, as with `Retry-After`, in seconds.
        jitter: a source of random numbers from 0 to 1, such as `random.random`. With one, each pause is spread between
            `first` and twice its length, so that many senders do not come back at the same moment.

    Example:
        >>> [Backoff().pause(failures) for failures in (1, 2, 3, 9)]
        [0.25, 0.5, 1.0, 5.0]
    """

    first: float = 0.25
    longest: float = 5.0
    longest_asked: float = 60.0
    jitter: Callable[[], float] | None = None

    def pause(self, failures: int, asked: float | None = None) -> float:
        """Seconds to wait after this many failures in a row (at least 1).

        Args:
            failures: requests that failed since the last success.
            asked: the pause that the receiver asked for; it replaces ours, and is bounded by `longest_asked`.
        """
        if asked is not None:
            return self.bounded(asked)
        plain = self.first * 2.0 ** min(failures - 1, DOUBLINGS)
        if self.jitter is None:
            return min(self.longest, plain)
        return self.first + (min(self.longest, 2 * plain) - self.first) * self.jitter()

    def bounded(self, asked: float | None) -> float:
        """The pause that a receiver asked for, as far as it is followed; 0 without one."""
        return min(asked or 0.0, self.longest_asked)


STANDARD: Final = Backoff()
"""The policy of everything that sends OTLP: 0.25 s, doubling up to 5 s; a receiver may ask for up to 60 s."""
