"""The cadence: how long a plain update waits after the last event of its operation, and who asked for all of them.

The longer work has run, the less a new count tells: an update waits about 2% of the age of its operation. A monitor
that shows an operation to somebody asks for all updates, for some seconds at a time.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from otel_progress import clock, forks
from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

SHARE: Final = 0.02
"""The pause before a plain update, as a share of the age of its operation."""
MOST: Final = 60.0
"""The longest pause that follows from the age, in seconds."""
STEPS: Final = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 42.0, MOST)
"""The pauses that there are, in seconds; that of an age is near to its share. With 14 s no heartbeat of 15 s is due."""
_UP: Final = 0.9
"""By how much sooner than at the geometric mean of two steps the longer one holds: an hour has as many updates as if
there were no steps, whose samples would have come a little later each time."""
PARTS: Final = 4
"""Updates of a process leave together: at the ends of as many parts of a pause, for all operations with that pause."""
_INSTANT: Final = 1e-6
LEASE_MOST: Final = 60.0
"""The longest time for which one request asks for all updates, in seconds."""


class Cadence:
    """Decides when plain updates are due. It has no lock: each field is written in one step.

    Attributes:
        fixed: the pause in seconds that somebody set; None follows the age.
        live_until: until when all operations are live (s, monotonic).
        origin: from when the parts of pauses count (s, monotonic); None until the first update of the process.
    """

    def __init__(self) -> None:
        """Nobody asked for anything."""
        self.fixed: float | None = None
        self.live_until = -math.inf
        self.origin: float | None = None

    def pause(self, operation: OperationState, now: float, least: float) -> float:
        """Seconds that a plain update waits after an event of now; 0 if it does not wait.

        Args:
            operation: whose updates.
            now: the monotonic time.
            least: a pause up to this is none.
        """
        if now < self.live_until or now < operation._live_until:
            return 0.0
        pause = self.fixed
        if pause is None:
            started = operation._started
            pause = 0.0 if started is None else nearest(SHARE * (now - started))
        return pause if pause > least else 0.0

    def due(self, pause: float, now: float) -> float:
        """When a plain update is due after an event of now: at most a pause later (s, monotonic), with others.

        A request for each costs the process and its receiver several times as much as one for all of them.
        """
        if self.origin is None:
            self.origin = now
        part = pause / PARTS
        if not part:
            return now
        return now + pause - (now + pause - self.origin + _INSTANT) % part

    def forget(self) -> None:
        """Choose other moments: a forked child does not send when its parent and all others do."""
        self.origin = None

    def ask(self, ids: Iterable[str] | None, seconds: float) -> None:
        """Make these operations live for some seconds from now, or all; any thread may call it."""
        until = clock.monotonic() + min(seconds, LEASE_MOST)
        if ids is None:
            self.live_until = max(self.live_until, until)
            return
        for key in ids:
            operation = registry.find(key)
            if operation is not None:
                operation._live_until = max(operation._live_until, until)


def nearest(pause: float) -> float:
    """The step for a pause (s), 0.85 to 1.3 times as long; only what does not exceed the first one has that."""
    place = bisect_left(STEPS, pause)
    if place == 0:
        return STEPS[0]
    if place == len(STEPS):
        return MOST
    below, above = STEPS[place - 1], STEPS[place]
    return below if place > 1 and pause * pause < _UP * below * above else above


cadence: Final = Cadence()
forks.in_child.append(cadence.forget)
