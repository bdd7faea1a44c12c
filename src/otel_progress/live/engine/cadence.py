"""The cadence: how long a plain update waits after the last event of its operation, and who asked for all of them.

The longer work has run, the less a new count tells: an update waits 2% of the age of its operation. A monitor that
shows an operation to somebody asks for all updates, for some seconds at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

SHARE: Final = 0.02
"""The pause before a plain update, as a share of the age of its operation."""
MOST: Final = 60.0
"""The longest pause that follows from the age, in seconds."""
LEASE_MOST: Final = 60.0
"""The longest time for which one request asks for all updates, in seconds."""


class Cadence:
    """Decides when plain updates are due. It has no lock: each field is written in one step.

    Attributes:
        fixed: the pause in seconds that somebody set; None follows the age.
        live_until: until when all operations are live (s, monotonic).
    """

    def __init__(self) -> None:
        """Nobody asked for anything."""
        self.fixed: float | None = None
        self.live_until = -math.inf

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
            pause = 0.0 if started is None else min(MOST, SHARE * (now - started))
        return pause if pause > least else 0.0

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


cadence: Final = Cadence()
