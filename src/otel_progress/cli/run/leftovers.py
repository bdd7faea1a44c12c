"""What a command that died leaves behind, put in order before it is started again: processes, the terminal, stdin."""

from __future__ import annotations

import os
import signal
import stat
import termios
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from otel_progress import clock, procfs

GRACE_SECONDS: Final = 10.0
"""Seconds from SIGTERM to SIGKILL for processes that a command left behind."""


class LeftProcesses:
    """The processes that one start of the command left behind: asked to end at once, killed after a grace period."""

    def __init__(self, found: Iterable[procfs.ProcessStat], grace: float = GRACE_SECONDS) -> None:
        """Send SIGTERM to all of them."""
        self._left = {seen.pid: seen for seen in found}
        self._kill_at = clock.monotonic() + grace
        self.pids = tuple(sorted(self._left))
        self._send(signal.SIGTERM)

    def are_gone(self) -> bool:
        """Whether all have ended; sends SIGKILL when the grace period is over."""
        self._look()
        if self._left and clock.monotonic() >= self._kill_at:
            self._send(signal.SIGKILL)
            self._look()
        return not self._left

    def _look(self) -> None:
        for pid, seen in list(self._left.items()):
            now = procfs.look(pid)
            if now is None or now.ticks != seen.ticks:
                del self._left[pid]

    def _send(self, number: int) -> None:
        self._look()
        for pid in self._left:
            with suppress(OSError):
                os.kill(pid, number)


def descendants(name: str, value: str, session: int | None) -> list[procfs.ProcessStat]:
    """The processes of a session that inherited a variable with this value; a daemon has a session of its own."""
    return [seen for seen in procfs.with_variable(name, value) if procfs.session_of(seen.pid) == session]


class StandardStreams:
    """Our standard streams as they are before the first start: the modes of the terminal, the position of stdin."""

    def __init__(self) -> None:
        """Remember them."""
        self._terminal = next((number for number in (0, 1, 2) if os.isatty(number)), None)
        self._modes: list[Any] | None = None
        if self._terminal is not None and _in_foreground(self._terminal):
            with suppress(OSError, termios.error):
                self._modes = termios.tcgetattr(self._terminal)
        self._position = _position_of(0)

    def restore(self) -> None:
        """Make them as they were: a killed program may leave the terminal without echo, and a file half read."""
        if self._position is not None:
            with suppress(OSError):
                os.lseek(0, self._position, os.SEEK_SET)
        if self._modes is None or self._terminal is None:
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # else we would stop in the background
        try:
            with suppress(OSError, termios.error):
                if _is_abandoned(self._terminal):
                    os.tcsetpgrp(self._terminal, os.getpgrp())
                if _in_foreground(self._terminal):
                    termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._modes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False


def _is_abandoned(terminal: int) -> bool:
    """Whether the foreground belongs to a process group that no longer exists, as after a killed shell."""
    try:
        os.killpg(os.tcgetpgrp(terminal), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _position_of(file: int) -> int | None:
    """The position in a regular file; None for anything that can't be read twice."""
    try:
        return os.lseek(file, 0, os.SEEK_CUR) if stat.S_ISREG(os.fstat(file).st_mode) else None
    except OSError:
        return None
