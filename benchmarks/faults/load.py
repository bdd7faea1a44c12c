"""Load of the machine, measured by how late a sleeping process wakes up."""

from __future__ import annotations

import bisect
import subprocess
import sys
import threading
import time
from typing import Final

CALM: Final = 0.1
"""Seconds of lateness up to which a delay is ours and not the machine's."""
_SLEEPER: Final = """
import time
while True:
    before = time.monotonic()
    time.sleep(0.05)
    late = time.monotonic() - before - 0.05
    print(time.time(), late, flush=True)
"""


class Load:
    """Measures the lateness from `start()` to `stop()`, in its own process."""

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
        """Return the largest lateness between two times, in seconds."""
        first = bisect.bisect_left(self._times, since)
        last = bisect.bisect_right(self._times, until + 0.1)
        return max(self._late[first:last], default=0.0)

    def lately(self) -> float:
        """Return the largest lateness of the last two seconds, including the pending wake-up."""
        now = time.time()
        due = now - self._times[-1] - 0.05 if self._times else 0.0
        return max(self.worst(now - 2.0, now), due)

    def quantile(self, part: float) -> float:
        """Return the lateness that this share of the samples does not exceed."""
        ordered = sorted(self._late)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
