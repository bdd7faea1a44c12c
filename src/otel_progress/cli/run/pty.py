"""A terminal for a command that we follow: it sees one, and what it writes comes to us.

It is not the command's controlling terminal, so the end of the command hangs nobody up; `/dev/tty` can't be opened
there, and who asks for a password turns to stdin. Ctrl+C, Ctrl+Z and the like come to us as signals; all other keys
go to the command.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from otel_progress import clock

SIZE: Final = b"\0" * 8
IUTF8: Final = 0o40000
"""Letters are erased whole; Python has no name for it."""
EOF: Final = b"\x04"
CHUNK: Final = 65_536
GATHER: Final = 0.025
"""Seconds from one picture to the next: what comes between is shown at once, so that a flood costs little."""
MOST: Final = 1024 * 1024
"""And so many bytes at the most."""
TYPED: Final = 4_096
"""Typed bytes that wait for the command to read; then the terminal waits."""
DRAIN_SECONDS: Final = 1.0
"""How long the end waits for what others of the command's processes hold open."""
LOOK: Final = 0.25


class PseudoTerminal:
    """Stands for ours at those of the command's stdin, stdout and stderr that are a terminal here."""

    def __init__(self, slots: list[int], show: Callable[[bytes], None]) -> None:
        """For these of 0, 1 and 2; `show` takes what the command writes."""
        self._slots, self._show = slots, show
        self._real = slots[-1]
        self._master, self._slave = os.openpty()
        self._before: list[Any] | None = None
        self._typed = b""
        self._deaf = False
        """Whether our terminal is gone: nobody types any more."""
        self._shown = 0.0
        self._lock = threading.Lock()
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="otel-progress-terminal", daemon=True)
        # Not all as in ours: a shell that waits for its next line has that in a mode of its own.
        modes, ours = termios.tcgetattr(self._slave), termios.tcgetattr(self._real)
        modes[0] |= ours[0] & IUTF8
        modes[1] &= ~termios.OPOST  # ours does that to what is shown
        modes[6][termios.VERASE] = ours[6][termios.VERASE]
        termios.tcsetattr(self._slave, termios.TCSANOW, modes)
        self.resize()

    @property
    def actions(self) -> list[Any]:
        """What gives it to a process that is started."""
        return [(os.POSIX_SPAWN_DUP2, self._slave, slot) for slot in self._slots]

    def start(self) -> None:
        """The command has it: pass on what is written and typed."""
        self.take_keys()
        self._thread.start()

    def resize(self) -> None:
        """As large as ours."""
        with suppress(OSError):
            size = fcntl.ioctl(self._real, termios.TIOCGWINSZ, SIZE)
            if struct.unpack("HHHH", size)[0]:
                fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)

    def take_keys(self) -> None:
        """Each key comes at once, and is shown by the command's terminal alone; only in the foreground."""
        with self._lock, suppress(OSError, termios.error):
            if 0 not in self._slots or self._before is not None or os.tcgetpgrp(0) != os.getpgrp():
                return
            before = termios.tcgetattr(0)
            modes = [*before[:6], list(before[6])]
            modes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR)
            modes[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
            # A key that stands for a signal empties the queue of those typed before: a read must not wait for them.
            modes[6][termios.VMIN], modes[6][termios.VTIME] = 0, 0
            termios.tcsetattr(0, termios.TCSADRAIN, modes)
            self._before = before

    def give_back(self) -> None:
        """Our terminal as it was; it may be called twice."""
        with self._lock, suppress(OSError, termios.error):
            before, self._before = self._before, None
            if before is not None and os.tcgetpgrp(0) == os.getpgrp():
                termios.tcsetattr(0, termios.TCSADRAIN, before)

    def close(self) -> None:
        """The command has ended: show what it wrote at last, and give our terminal back."""
        os.close(self._slave)
        if self._thread.ident is not None:
            self._thread.join(DRAIN_SECONDS)
            os.write(self._stop_write, b"x")
            self._thread.join(DRAIN_SECONDS)
        self.give_back()
        if not self._thread.is_alive():
            for file in (self._master, self._stop_read, self._stop_write):
                os.close(file)

    # -- in its thread

    def _run(self) -> None:
        while True:
            wanted = [self._master, self._stop_read]
            if self._before is not None and not self._deaf and len(self._typed) < TYPED:
                wanted.append(0)
            try:
                ready, room, _ = select.select(wanted, [self._master] if self._typed else [], [], LOOK)
            except (OSError, ValueError):
                return
            if 0 in ready:
                self._read_keys()
            if room:
                with suppress(OSError):
                    self._typed = self._typed[os.write(self._master, self._typed[:256]) :]
            if self._master in ready and not self._read():
                return
            if self._stop_read in ready:
                return

    def _read_keys(self) -> None:
        with self._lock:
            if self._before is None:
                return
            try:
                keys = os.read(0, TYPED)
            except OSError:
                keys = b""
            if not keys and _is_gone(0):
                self._deaf, keys = True, EOF
            self._typed += keys

    def _read(self) -> bool:
        """Show what there is by now; whether there may be more."""
        parts: list[bytes] = []
        size, more, until = 0, True, self._shown + GATHER
        while more and size < MOST:
            try:
                part = os.read(self._master, CHUNK)
            except OSError:
                part = b""
            more = bool(part)
            parts.append(part)
            size += len(part)
            left = max(0.0, until - clock.monotonic())
            if not select.select([self._master], [], [], left)[0]:
                break
            if not left and clock.monotonic() > until + GATHER:
                break
        self._shown = clock.monotonic()
        if size:
            self._show(b"".join(parts))
        return more


def _is_gone(file: int) -> bool:
    """Whether nobody types there any more."""
    asked = select.poll()
    asked.register(file, 0)
    return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in asked.poll(0))
