"""Who holds an operation: a process, by what the system knows of it; and the proof that it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from otel_progress import launch, procfs
from otel_progress.model.command_line import bounded


@dataclass(frozen=True)
class Holder:
    """A process that holds an operation.

    Attributes:
        host: the name of its machine.
        boot: the run of the kernel that it belongs to; empty if unknown.
        namespace: the namespace in which its pid counts; empty if unknown.
        pid: its number.
        ticks: when it started, in clock ticks since boot; 0 if unknown.
        command: the command line that started it.
        cwd: its working directory at that time.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    ticks: int
    command: tuple[str, ...] = ()
    cwd: str = ""

    def __str__(self) -> str:
        """Name it for an error message."""
        return f"process {self.pid} on {self.host}"

    def is_same(self, other: Holder) -> bool:
        """Whether both are the same process, as far as that is known."""
        return bool(self.ticks) and (self.boot, self.namespace, self.pid, self.ticks) == (
            other.boot,
            other.namespace,
            other.pid,
            other.ticks,
        )

    def is_gone(self, here: Holder) -> bool:
        """Whether it is proven dead, as another process sees it; False if that can't be known."""
        if not self.ticks or not self.boot or (self.boot, self.namespace) != (here.boot, here.namespace):
            return False
        seen = procfs.look(self.pid)
        return seen is None or seen.ticks != self.ticks


_known: Holder | None = None


def this_process() -> Holder:
    """This process as a holder."""
    global _known
    pid = os.getpid()
    if _known is None or _known.pid != pid:
        seen = procfs.look(pid)
        known = seen is not None
        _known = Holder(
            socket.gethostname(),
            procfs.boot_id() if known else "",
            procfs.pid_namespace() if known else "",
            pid,
            0 if seen is None else seen.ticks,
            bounded(launch.command()),
            launch.folder(),
        )
    return _known
