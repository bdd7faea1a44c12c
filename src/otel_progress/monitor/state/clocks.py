"""Which processes have a clock that differs from the monitor's: said on their rows, in details and in `/health`.

Only the times of events are compared with the monitor's; no duration is computed from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from otel_progress import clock
from otel_progress.model.units import duration

WRONG: Final = 10.0
"""The difference in seconds from which on a clock is called wrong; less may be the way of an event."""
PROCESSES: Final = 1_000
"""The most processes that are remembered; the oldest makes room."""


class Clocks:
    """The processes with a wrong clock. It belongs to the thread of the core; others may read."""

    def __init__(self) -> None:
        """None yet."""
        self._ahead: dict[str, float] = {}

    def hear(self, instance: str, times: Sequence[int]) -> None:
        """Events of a process arrive now, which happened at these times, in ns since 1970 by its clock."""
        if not times:
            return
        ahead = (max(times) - clock.time_ns()) / 1e9
        if -WRONG <= ahead <= WRONG:
            self._ahead.pop(instance, None)
            return
        if instance not in self._ahead and len(self._ahead) >= PROCESSES:
            del self._ahead[next(iter(self._ahead))]
        self._ahead[instance] = ahead

    def warning(self, instance: str) -> str | None:
        """What is wrong with the clock of a process, in words; None if it is right as far as is known."""
        ahead = self._ahead.get(instance)
        if ahead is None:
            return None
        by = duration(abs(round(ahead)))
        if ahead > 0:
            return f"the clock of its process is {by} ahead of the monitor's"
        return f"the clock of its process is {by} behind the monitor's, or what it sends arrives late"

    def health(self) -> dict[str, Any]:
        """How many processes have a wrong clock, and the newest warning, for `/health`."""
        wrong = tuple(self._ahead)
        if not wrong:
            return {}
        newest = wrong[-1]
        return {"clocks": {"wrong": len(wrong), "newest": f"{newest}: {self.warning(newest)}"}}
