"""A pseudo-terminal for a followed command: the command sees a terminal, and we receive what it writes.

It is not the command's controlling terminal, so the end of the command sends no SIGHUP; `/dev/tty` can't be opened
there, and password prompts read stdin. We receive Ctrl+C, Ctrl+Z and the like as signals; all other keys go to the
command.
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
"""The termios flag for erasing whole UTF-8 characters, which Python does not name."""
EOF: Final = b"\x04"
CHUNK: Final = 65_536
GATHER: Final = 0.025
"""Seconds between two frames: output in between is shown together, so that a flood costs little."""
MOST: Final = 1024 * 1024
"""The most bytes of one frame."""
TYPED: Final = 4_096
"""The most typed bytes that wait for the command; then the terminal waits."""
DRAIN_SECONDS: Final = 1.0
"""Seconds without output at the end after which the terminal is left to other processes of the command."""
LOOK: Final = 0.25


class PseudoTerminal:
    """Takes the place of our terminal in the command's stdin, stdout and stderr."""

    def __init__(self, slots: list[int], show: Callable[[bytes], None]) -> None:
        """Create it for these of 0, 1 and 2; `show` receives what the command writes."""
        self._slots, self._show = slots, show
        self._real = slots[-1]
        self._master, self._slave = os.openpty()
        self._before: list[Any] | None = None
        self._typed = b""
        self._deaf = False
        """Whether our terminal is gone: no more keys come."""
        self._shown = 0.0
        self._idle_since: float | None = 0.0
        """Since when nothing came; None while output is being shown."""
        self._lock = threading.Lock()
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="otel-progress-terminal", daemon=True)
        # Only some modes are copied: a shell that waits for its next line has set ours for itself.
        modes, ours = termios.tcgetattr(self._slave), termios.tcgetattr(self._real)
        modes[0] |= ours[0] & IUTF8
        modes[1] &= ~termios.OPOST  # our terminal processes the output
        modes[6][termios.VERASE] = ours[6][termios.VERASE]
        termios.tcsetattr(self._slave, termios.TCSANOW, modes)
        self.resize()

    @property
    def actions(self) -> list[Any]:
        """The file actions of `posix_spawn` that give it to a process."""
        return [(os.POSIX_SPAWN_DUP2, self._slave, slot) for slot in self._slots]

    def start(self) -> None:
        """Pass on what is written and typed; the command has been started."""
        self.take_keys()
        self._thread.start()

    def resize(self) -> None:
        """Copy the size of our terminal."""
        with suppress(OSError):
            size = fcntl.ioctl(self._real, termios.TIOCGWINSZ, SIZE)
            if struct.unpack("HHHH", size)[0]:
                fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)

    def take_keys(self) -> None:
        """Read our keys unbuffered and without echo; only in the foreground."""
        with self._lock, suppress(OSError, termios.error):
            if 0 not in self._slots or self._before is not None or os.tcgetpgrp(0) != os.getpgrp():
                return
            before = termios.tcgetattr(0)
            modes = [*before[:6], list(before[6])]
            modes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR)
            modes[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
            # A signal key discards the keys typed before it: a read must not block on them.
            modes[6][termios.VMIN], modes[6][termios.VTIME] = 0, 0
            termios.tcsetattr(0, termios.TCSADRAIN, modes)
            self._before = before

    def give_back(self) -> None:
        """Restore our terminal; it may be called twice."""
        with self._lock, suppress(OSError, termios.error):
            before, self._before = self._before, None
            if before is not None and os.tcgetpgrp(0) == os.getpgrp():
                termios.tcsetattr(0, termios.TCSADRAIN, before)

    def close(self, interrupted: Callable[[], bool]) -> None:
        """The command has ended: show its last output, however slow our terminal is, and restore our terminal.

        `interrupted` is called again and again meanwhile: it waits a moment and says whether to leave the rest out.
        """
        os.close(self._slave)
        if self._thread.ident is not None:
            closed = clock.monotonic()
            while self._thread.is_alive() and not self._is_drained(closed) and not interrupted():
                pass
            os.write(self._stop_write, b"x")
            self._thread.join(DRAIN_SECONDS)
        self.give_back()
        if not self._thread.is_alive():
            for file in (self._master, self._stop_read, self._stop_write):
                os.close(file)

    def _is_drained(self, closed: float) -> bool:
        """Whether nothing came for a while after our side was closed: other processes hold the terminal."""
        since = self._idle_since
        return since is not None and clock.monotonic() - max(since, closed) >= DRAIN_SECONDS

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
        """Show the output that is there; returns whether there may be more."""
        self._idle_since = None
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
        self._idle_since = clock.monotonic()
        return more


def _is_gone(file: int) -> bool:
    """Whether the other side of the file is closed."""
    asked = select.poll()
    asked.register(file, 0)
    return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in asked.poll(0))
