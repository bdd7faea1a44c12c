"""How busy the machine is, by psutil; looked at once a second at most."""

from __future__ import annotations

import importlib
import math
from typing import Any, Final

LOOK_EVERY: Final = 1.0
"""Seconds between two looks."""
BUSY: Final = 95.0
"""Per cent of the processors from which on a limit does not grow, and of memory from which on it shrinks."""


class Machine:
    """Processors and memory of this machine."""

    def __init__(self) -> None:
        """Nothing is known before the first look; without psutil, never."""
        self._psutil: Any
        try:
            self._psutil = importlib.import_module("psutil")
        except ImportError:
            self._psutil = None
        self._looked_at = -math.inf
        self._cpu = self._memory = 0.0

    def is_busy(self, now: float) -> bool:
        """Whether its processors have no time left."""
        self._look(now)
        return self._cpu >= BUSY

    def is_short_of_memory(self, now: float) -> bool:
        """Whether next to no memory is left."""
        self._look(now)
        return self._memory >= BUSY

    def _look(self, now: float) -> None:
        if self._psutil is None or now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        self._cpu = self._psutil.cpu_percent(interval=None)
        self._memory = self._psutil.virtual_memory().percent
