"""The watched command: a child in our own process group, so that it keeps the terminal and job control.

A followed command has its own session instead, so that we receive what is typed in our terminal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from otel_progress.cli.run.spawning import spawn

RESTORED: Final = tuple(
    getattr(signal, name) for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ", "SIGCHLD") if hasattr(signal, name)
)
"""Signals that Python ignores; a command must not inherit that."""
LINE: Final = 4_096
"""The most bytes that are kept of a line of stderr."""
TAIL_SECONDS: Final = 0.5
"""Seconds to wait for the rest of stderr when the command has ended."""


class Child:
    """A started command."""

    def __init__(self, pid: int, session: int, tail: Tail | None = None) -> None:
        """Create it for a process that was just started in this session."""
        self.pid = pid
        self.session = session
        self.code: int | None = None
        self.signal: str | None = None
        self._status: int | None = None
        self._tail = tail

    def ended(self) -> bool:
        """Whether it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
                if self._status < 0:
                    self.signal = _name(-self._status)
                else:
                    self.code = self._status
        return self._status is not None

    def send(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if not self.ended():
            os.kill(self.pid, number)

    def send_all(self, number: int) -> None:
        """Send a signal to its whole process group, if it still runs; for a command with its own session."""
        if not self.ended():
            os.killpg(self.pid, number)

    def tail(self) -> str | None:
        """The last lines of its stderr, if they were kept."""
        return None if self._tail is None else self._tail.text()

    @property
    def exit_code(self) -> int:
        """Its exit code as a shell reports it: 128 + n if signal n killed it."""
        assert self._status is not None
        return self._status if self._status >= 0 else 128 - self._status


def start(
    command: list[str],
    environ: Mapping[str, str],
    stderr_tail: int = 0,
    *,
    actions: Sequence[Any] | None = None,
    write: Callable[[bytes], None] | None = None,
) -> Child:
    """Start a command on our standard streams; stderr passes through a pipe if its last lines are kept.

    Args:
        command: the command and its arguments.
        environ: its environment.
        stderr_tail: the number of last lines of stderr to keep.
        actions: file actions of `posix_spawn`; with these, the command gets its own session.
        write: receives its stderr if that passes through a pipe.

    Raises:
        NotStarted: if there is no such command, or it can't be executed.
    """
    tail = Tail(stderr_tail, write or _write) if stderr_tail else None
    files = [*(actions or ()), *([(os.POSIX_SPAWN_DUP2, tail.write_end, 2)] if tail is not None else [])]
    own: dict[str, Any] = {} if actions is None else {"setsid": True}
    try:
        pid = spawn(command, environ, file_actions=files, setsigmask=(), setsigdef=RESTORED, **own)
    except BaseException:
        if tail is not None:
            tail.close()
        raise
    if tail is not None:
        tail.start()
    return Child(pid, pid if own else os.getsid(0), tail)


class Tail:
    """A pipe for stderr: passes everything on and keeps the last lines."""

    def __init__(self, lines: int, write: Callable[[bytes], None]) -> None:
        """Keep the last `lines` lines; `write` receives everything."""
        self._write = write
        self._read_end, self.write_end = os.pipe()
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._rest = b""
        self._thread = threading.Thread(target=self._run, name="otel-progress-stderr", daemon=True)

    def start(self) -> None:
        """Start reading; the child has the write end now."""
        os.close(self.write_end)
        self._thread.start()

    def close(self) -> None:
        """Close the pipe; the child could not be started."""
        os.close(self.write_end)
        os.close(self._read_end)

    def text(self) -> str:
        """The last lines: after the end of the pipe, or after `TAIL_SECONDS` if other processes still hold it."""
        self._thread.join(TAIL_SECONDS)
        lines = [*tuple(self._lines), *([self._rest] if self._rest else [])][-(self._lines.maxlen or 0) :]
        return b"\n".join(lines).decode("utf-8", "replace")

    def _run(self) -> None:
        while True:
            part = os.read(self._read_end, 65_536)
            if not part:
                break
            self._keep(part)
            self._write(part)
        os.close(self._read_end)

    def _keep(self, part: bytes) -> None:
        *whole, rest = (self._rest + part).split(b"\n")
        self._lines.extend(line[:LINE] for line in whole)
        self._rest = rest[:LINE]


def _write(part: bytes) -> None:
    """Write all of it to our stderr, if that is still open."""
    try:
        while part:
            part = part[os.write(2, part) :]
    except OSError:
        pass


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
