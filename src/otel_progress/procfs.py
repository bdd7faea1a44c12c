"""Processes as the system sees them; the only reader of `/proc`. Without `/proc` nothing is known."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
MACHINE_ID: Final = Path("/etc/machine-id")
_ISO: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_ESTABLISHED: Final = "01"
_LISTENING: Final = "0A"
GONE: Final = "ZX"
"""The states of a dead process whose parent has not collected it yet."""
STATES: Final = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "dead",
    "X": "dead",
    "I": "idle",
}


@dataclass(frozen=True)
class ProcessStat:
    """A process at one moment.

    Attributes:
        pid: its number, which the system may reuse later.
        ticks: its start in clock ticks since boot; with the pid, it identifies the process.
        state: one letter, a key of `STATES`.
    """

    pid: int
    ticks: int
    state: str


@dataclass(frozen=True)
class PidSpace:
    """Where a pid means one process.

    Attributes:
        boot: identifies the run of the kernel.
        namespace: identifies the pid namespace, among those of this run that exist.
        machine: identifies the installation of the system.
    """

    boot: str
    namespace: str
    machine: str

    @property
    def is_known(self) -> bool:
        """Whether a pid seen here can be told from one seen elsewhere."""
        return bool(self.boot and self.namespace)

    def is_same(self, other: PidSpace) -> bool:
        """Whether a pid means the same process in both."""
        return self.is_known and (self.boot, self.namespace) == (other.boot, other.namespace)

    def is_earlier_boot(self, other: PidSpace) -> bool:
        """Whether it was on the machine of `other`, before that was started again."""
        return bool(self.boot and other.boot and self.machine) and (
            self.machine == other.machine and self.boot != other.boot
        )


def pid_space(proc: Path = PROC, machine_id: Path = MACHINE_ID) -> PidSpace:
    """Where the pids that this process sees count."""
    try:
        machine = machine_id.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    return PidSpace(boot_id(proc), pid_namespace(proc), machine)


def is_hidden(pid: int, proc: Path = PROC) -> bool:
    """Whether a process with this pid may be alive although `look` doesn't find it, as with `hidepid`."""
    try:
        (proc / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        pass
    except OSError:
        return True
    else:
        return False
    if os.name == "nt":  # where signal 0 is Ctrl+C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def look(pid: int, proc: Path = PROC) -> ProcessStat | None:
    """The process with this pid; None if none is alive, or nothing is known."""
    try:
        said = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        fields = said.rpartition(")")[2].split()
        seen = ProcessStat(pid, int(fields[19]), fields[0])
        threads = len(os.listdir(proc / str(pid) / "task")) if seen.state in GONE else 0
    except (OSError, ValueError, IndexError):
        return None
    # A process whose first thread is dead lives on with its other threads.
    return None if seen.state in GONE and threads <= 1 else seen


def session_of(pid: int, proc: Path = PROC) -> int | None:
    """The session of a process; None if none is alive, or nothing is known."""
    try:
        said = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        return int(said.rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return None


def children(pid: int, most: int, proc: Path = PROC) -> list[int] | None:
    """The child processes of a process; None if the system does not tell, or the process has over `most` threads."""
    try:
        threads = os.listdir(proc / str(pid) / "task")
        if len(threads) > most:
            return None
        lines = [(proc / str(pid) / "task" / thread / "children").read_text("ascii") for thread in threads]
    except (OSError, ValueError):
        return None
    return [int(child) for line in lines for child in line.split()]


def with_variable(name: str, value: str, proc: Path = PROC) -> list[ProcessStat]:
    """The processes that were started with an environment variable of this value, except this one.

    A variable is inherited, so these are the descendants of whoever set it, also if their parents are gone. Those of
    other users are not found.
    """
    wanted = os.fsencode(f"{name}={value}")
    found = []
    for folder in proc.glob("[0-9]*"):
        try:
            mine = int(folder.name) != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue  # it ended, or belongs to another user
        seen = look(int(folder.name), proc) if mine else None
        if seen is not None:
            found.append(seen)
    return found


def created(seen: ProcessStat, proc: Path = PROC) -> float | None:
    """The creation time, in seconds since 1970, or None."""
    try:
        with (proc / "stat").open(encoding="ascii", errors="replace") as lines:
            boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return boot + seen.ticks / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else None
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def executable(pid: int, proc: Path = PROC) -> str | None:
    """The name of the file that a process runs; None if nobody tells."""
    try:
        return Path(os.readlink(proc / str(pid) / "exe")).name
    except OSError:
        return None


def command(pid: int, proc: Path = PROC) -> tuple[list[str], str | None]:
    """The command line of a process, empty if nobody tells, and its working directory."""
    folder = proc / str(pid)
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return [], None
    try:
        cwd = os.readlink(folder / "cwd")
    except OSError:
        cwd = None
    return [os.fsdecode(word) for word in words], cwd


def boot_id(proc: Path = PROC) -> str:
    """What identifies this run of the kernel; empty if that is unknown."""
    try:
        return (proc / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def pid_namespace(proc: Path = PROC) -> str:
    """What identifies the namespace in which our pids count, as `pid:[4026531836]`; empty if that is unknown."""
    try:
        return os.readlink(proc / "self" / "ns" / "pid")
    except OSError:
        return ""


def catches(number: int, proc: Path = PROC) -> bool:
    """Whether this process has a handler for a signal, as the system sees it; False if that is unknown."""
    try:
        lines = (proc / "self" / "status").read_text(encoding="ascii", errors="replace").splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return False
    return bool(caught >> (number - 1) & 1)


def iso(moment: float) -> str:
    """Format seconds since 1970 as ISO 8601."""
    text = datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def from_iso(text: str) -> float | None:
    """Parse ISO 8601 into seconds since 1970; None if it is invalid."""
    parts = _ISO.fullmatch(text)
    if parts is None:
        return None
    whole, fraction, zone = parts.groups(default="0")
    try:  # Python 3.10 reads no other number of digits than 6
        moment = datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}{zone.replace('Z', '+00:00')}")
    except ValueError:
        return None
    return moment.timestamp()


def waits_in(pid: int, proc: Path = PROC) -> str:
    """The kernel function in which the process waits; empty if that is unknown."""
    try:
        text = (proc / str(pid) / "wchan").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
    return "" if text == "0" else text


def has_running_thread(pid: int, proc: Path = PROC) -> bool:
    """Whether a thread of the process runs now, or would if a processor were free; False if that is unknown."""
    tasks = proc / str(pid) / "task"
    found = (look(int(folder.name), tasks) for folder in tasks.glob("[0-9]*"))
    return any(thread is not None and thread.state == "R" for thread in found)


def memory_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """How often the kernel killed for lack of memory in our control group; None if that is unknown."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        roots: tuple[Path, ...]
        if not controllers:
            roots, name = (cgroups, cgroups / "unified"), "memory.events"
        elif "memory" in controllers.split(","):
            roots, name = (cgroups / "memory",), "memory.oom_control"
        else:
            continue
        for root in roots:
            for folder in (root / path.lstrip("/"), root):
                kills = _number(folder / name, "oom_kill")
                if kills is not None:
                    return kills
    return None


def _number(path: Path, key: str) -> int | None:
    """The number after a key, in a file with a key and a number in each line."""
    try:
        pairs = dict(line.split(None, 1) for line in path.read_text(encoding="ascii").splitlines() if " " in line)
        return int(pairs[key])
    except (OSError, ValueError, KeyError):
        return None


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port."""

    pid: int
    name: str


def listener(port: int, proc: Path = PROC) -> Holder | None:
    """The process that listens on a TCP port of this machine; None if there is none, or it is another user's."""
    sockets = _sockets(port, _LISTENING, proc)
    if not sockets:
        return None
    for folder in proc.glob("[0-9]*/fd"):
        try:
            if any(_target(link) in sockets for link in folder.iterdir()):
                name = (folder.parent / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return Holder(int(folder.parent.name), name)
        except (OSError, ValueError):
            continue  # it ended, or belongs to another user
    return None


def has_connection(pid: int, port: int, proc: Path = PROC) -> bool:
    """Whether a process holds the TCP connection that comes from this port; False if that cannot be seen."""
    sockets = _sockets(port, _ESTABLISHED, proc)
    try:
        return bool(sockets) and any(_target(link) in sockets for link in (proc / str(pid) / "fd").iterdir())
    except OSError:
        return False  # it ended, or belongs to another user


def _target(link: Path) -> str:
    """Where a link leads; empty for a file that was closed since its folder was listed."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _sockets(port: int, state: str, proc: Path) -> set[str]:
    """The TCP sockets with this local port in this state, as links in the folder of a process name them."""
    tables = (proc / "net" / name for name in ("tcp", "tcp6"))
    return {f"socket:[{inode}]" for table in tables for inode in _inodes(table, port, state)}


def _inodes(table: Path, port: int, state: str) -> list[str]:
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return []
    rows = (line.split() for line in lines)
    return [row[9] for row in rows if len(row) > 9 and row[3] == state and row[1].endswith(f":{port:04X}")]
