"""How busy the machine is: by how much a process that only sleeps wakes up too late."""

from __future__ import annotations

import bisect
import subprocess
import sys
import threading
import time
from typing import Final

CALM: Final = 0.1
"""Up to so many seconds too late, a delay says something of us, and not of the machine."""
_SLEEPER: Final = """
import time
while True:
    before = time.monotonic()
    time.sleep(0.05)
    late = time.monotonic() - before - 0.05
    print(time.time(), late, flush=True)
"""


class Load:
    """Measures from `start()` to `stop()`, in a process of its own."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._late: list[float] = []

    def start(self) -> None:
        """Begin."""
        self._process = subprocess.Popen([sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, name="load", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at, late = map(float, line.split())
            self._late.append(late)
            self._times.append(at)

    def worst(self, since: float, until: float) -> float:
        """By how much it was too late at the worst between two times, in seconds."""
        first = bisect.bisect_left(self._times, since)
        last = bisect.bisect_right(self._times, until + 0.1)
        return max(self._late[first:last], default=0.0)

    def lately(self) -> float:
        """The worst of the last two seconds; how late the next one is already, if that is worse."""
        now = time.time()
        due = now - self._times[-1] - 0.05 if self._times else 0.0
        return max(self.worst(now - 2.0, now), due)

    def quantile(self, part: float) -> float:
        """The lateness that so many of all looks don't exceed."""
        ordered = sorted(self._late)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
