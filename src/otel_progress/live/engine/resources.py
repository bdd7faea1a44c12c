"""What the process uses, sampled every 5 s if psutil is installed, and what an operation or a stage saw of it.

CPU time costs one system call, so the ticker reads it at each start as well; snapshots and ends of one round share a
reading. Nothing is kept by operation between samples: the peak of memory since any time follows from the few samples
that no later one exceeds.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, procfs
from otel_progress.live.records import Used
from otel_progress.live.registry import registry
from otel_progress.model.resources import Resources

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState

EVERY: Final = 5.0
"""Seconds between two samples."""
LEAST: Final = 2.0
"""Seconds that a run must last to be told what it used: starts and ends are seen up to a quarter of a second late."""
PEAKS: Final = 720
"""Samples that are kept, at most: each is the highest since it was taken."""
CHILDREN: Final = 100
"""Processes below this one that are measured; of more, only the number of its own children is known."""
THREADS: Final = 256
"""Threads of a process that may be asked for its children."""
SAME: Final = 0.05
"""Seconds for which one reading of the CPU time is used: a round takes hundreds of snapshots."""
SHARE: Final = 200.0
"""A look at child processes is repeated after this many times its own duration, if that is more than `EVERY`."""


def cpu_seconds() -> float:
    """CPU time of this process and of its children that ended, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Sampler:
    """Samples this process; the ticker alone calls `on_tick`, `begun` and `ended`."""

    def __init__(self) -> None:
        """Nothing is sampled yet; a forked child starts anew."""
        self.latest: Resources | None = None
        self.sampled_at = 0.0
        self._process: Any = None
        self._failed = False
        self._cpu = (0.0, 0.0)
        self._peaks: deque[tuple[float, float]] = deque(maxlen=PEAKS)
        self._read = (0.0, -SAME)
        self._children_at = 0.0
        self._children: tuple[int | None, float | None] = (None, None)

    def on_tick(self, now: float) -> None:
        """Sample if it is time, and operations run."""
        if now - self.sampled_at < EVERY and self.latest is not None:
            return
        if self._failed or not registry.live:
            return
        if self._process is None:
            self._find()
        if self._process is not None:
            self._sample(now)

    def fresh(self, now: float) -> Resources | None:
        """The newest sample; None if it is old, as no operation runs."""
        return self.latest if now - self.sampled_at < 3 * EVERY else None

    def _find(self) -> None:
        psutil = sys.modules.get("psutil")  # the runtime imports it, as a fork during the import would break the child
        try:
            self._process = psutil.Process() if psutil is not None else None
        except Exception:
            self._process = None
        self._failed = self._process is None

    def _sample(self, now: float) -> None:
        try:
            memory = float(self._process.memory_info().rss)
            threads = int(self._process.num_threads())
        except Exception:
            self._failed, self.latest = True, None
            return
        read, written = self._disk()
        used = cpu_seconds()
        before, at = self._cpu
        cpu = max(0.0, used - before) / (now - at) if self.latest is not None and now > at else None
        self._cpu, self.sampled_at = (used, now), now
        count, children_memory = self._look_at_children(now)
        while self._peaks and self._peaks[-1][1] <= memory:
            self._peaks.pop()
        self._peaks.append((now, memory))
        self.latest = Resources(None, cpu, memory, None, threads, read, written, count, children_memory)

    def _disk(self) -> tuple[float | None, float | None]:
        """Bytes read from disks and written to them; not known on macOS, or without the right."""
        try:
            counters = self._process.io_counters()
            return float(counters.read_bytes), float(counters.write_bytes)
        except Exception:
            return None, None

    def _look_at_children(self, now: float) -> tuple[int | None, float | None]:
        """Number of child processes and memory of all below; not each time if it takes long."""
        if now < self._children_at:
            return self._children
        began = clock.monotonic()
        try:
            direct = procfs.children(os.getpid(), THREADS)
            if direct is None:
                direct = [child.pid for child in self._process.children()]
            self._children = (len(direct), self._memory_below(direct))
        except Exception:
            self._children = (None, None)
        self._children_at = now + SHARE * (clock.monotonic() - began)
        return self._children

    def _memory_below(self, pids: list[int]) -> float | None:
        """Resident memory of these processes and of all below them; None if there are too many."""
        memory, seen = 0.0, set(pids)
        left = list(pids)
        while left:
            if len(seen) > CHILDREN:
                return None
            pid = left.pop()
            memory += self._memory_of(pid)
            below = procfs.children(pid, THREADS)
            if below is None and procfs.look(pid) is not None:
                return None
            new = set(below or ()) - seen
            seen |= new
            left.extend(new)
        return memory

    def _memory_of(self, pid: int) -> float:
        try:
            return float(type(self._process)(pid).memory_info().rss)
        except Exception:
            return 0.0  # it ended meanwhile

    def begun(self, node: HandleState, now: float) -> None:
        """Note what was used when a handle started."""
        if not self._failed:
            node._used = Used(cpu_seconds(), now)

    def ended(self, node: HandleState, now: float) -> None:
        """Note what was used until a handle ended."""
        used = node._used
        if used is not None and used.seen is None:
            used.seen = self.of(node, now)
            node._used = used if used.seen is not None else None

    def of(self, node: HandleState, now: float) -> Resources | None:
        """What was used since a handle started; None if nothing was sampled."""
        used, latest = node._used, self.latest
        if used is None or latest is None:
            return None
        if used.seen is not None:
            return used.seen
        cpu = max(0.0, self._cpu_lately(now) - used.cpu_at) if now - used.began_at >= LEAST else None
        return Resources(
            None if cpu is None else round(cpu, 2),
            None if latest.cpu is None else round(latest.cpu, 3),
            latest.memory,
            self.peak(node._started or now),
            latest.threads,
            latest.read_bytes,
            latest.written_bytes,
            latest.children,
            latest.children_memory,
        )

    def _cpu_lately(self, now: float) -> float:
        """The CPU time at a monotonic time, to `SAME`."""
        read, at = self._read
        if not 0 <= now - at < SAME:
            read = cpu_seconds()
            self._read = read, now
        return read

    def peak(self, since: float) -> float | None:
        """The most resident memory sampled since a monotonic time, in bytes."""
        return next((memory for at, memory in tuple(self._peaks) if at >= since), None)


sampler = Sampler()


def forget() -> None:
    """Start anew in a forked child: what was sampled is of its parent."""
    global sampler
    sampler = Sampler()
