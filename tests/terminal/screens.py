"""A command in a real pseudo-terminal, and the screen that its user sees."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
START = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
"""Takes the terminal for its own, so that Ctrl+C and a new size reach it as they do in a real one."""


def environment(**more: str) -> dict[str, str]:
    left_out = {"CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "OTEL_PROGRESS_MONITOR", "OTEL_PROGRESS_TOKEN"}
    kept = {key: value for key, value in os.environ.items() if key not in left_out and "proxy" not in key.lower()}
    return {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC", **more}


def command(*given: str) -> list[str]:
    return [sys.executable, "-m", "otel_progress.cli", *given]


class Terminal:
    """A command in a terminal of its own, one of ours or any `program`; used with `with`."""

    def __init__(
        self,
        *given: str,
        program: list[str] | None = None,
        columns: int = 100,
        lines: int = 30,
        env: dict[str, str] | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.changed = threading.Condition()
        self.slow = False
        """Whether the terminal takes only 2 kB a second."""
        self.master, slave = pty.openpty()
        self._set_size(lines, columns)
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *(program or command(*given))],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(**(env or {})),
            cwd=ROOT,
        )
        os.close(slave)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(5)
        os.close(self.master)

    def _read(self) -> None:
        while True:
            if self.slow:
                time.sleep(0.25)
            try:
                more = os.read(self.master, 512 if self.slow else 65_536)
            except OSError:
                more = b""
            with self.changed:
                self.raw += more
                self.stream.feed(more)
                self.changed.notify_all()
            if not more:
                return

    def _set_size(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    # -- what its user does

    def resize(self, columns: int, lines: int) -> None:
        with self.changed:
            self.screen.resize(lines, columns)
            self._set_size(lines, columns)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    # -- and sees

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def history(self) -> str:
        above = ["".join(line[at].data for at in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join([*(line.rstrip() for line in above), self.text])

    @property
    def cursor_visible(self) -> bool:
        return not self.screen.cursor.hidden

    def see(self, *parts: str, timeout: float = 15.0) -> str:
        """Wait until all of these stand on the screen."""
        return self.until(lambda text: all(part in text for part in parts), timeout, f"{parts}")

    def until(self, true: Callable[[str], bool], timeout: float = 15.0, what: str = "it") -> str:
        with self.changed:
            if not self.changed.wait_for(lambda: true(self.text), timeout):
                raise AssertionError(f"{what} was not seen; the screen:\n{self.history}")
            return self.text

    def exit_code(self, timeout: float = 10.0) -> int:
        code = self.process.wait(timeout)
        self.reader.join(timeout)
        return code


def wait_until(true: Callable[[], bool], timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.01)
