"""The lag of the event loops of this process."""

from __future__ import annotations

import weakref
from typing import Any, Final

from otel_progress import clock

BLOCKED: Final = 1.0
"""Seconds without a response after which a loop counts as blocked."""


class LoopLag:
    """Measures the lag: schedules a callback on each loop, and times it."""

    def __init__(self) -> None:
        """No loop is measured yet."""
        self._lags: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()

    def worst(self, loops: weakref.WeakSet[Any]) -> float | None:
        """The worst lag in seconds: of the last response, or how long one is overdue; None without a loop."""
        now, worst = clock.monotonic(), None
        for loop in list(loops):
            if loop.is_closed() or not loop.is_running():
                self._lags.pop(loop, None)
                continue
            before = self._lags.get(loop)
            if before is None or before >= 0:
                self._lags[loop] = -now
                try:
                    loop.call_soon_threadsafe(self._answer, loop, now)
                except RuntimeError:
                    self._lags.pop(loop, None)
            if before is not None:
                worst = max(worst or 0.0, before if before >= 0 else now + before)
        return worst

    def blocked(self) -> list[Any]:
        """The loops whose response is overdue by more than a second."""
        now = clock.monotonic()
        return [loop for loop, lag in list(self._lags.items()) if lag < 0 and now + lag > BLOCKED]

    def _answer(self, loop: Any, asked: float) -> None:
        self._lags[loop] = clock.monotonic() - asked
