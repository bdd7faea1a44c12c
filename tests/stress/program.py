"""Runs a program of `programs/` as a user would, and reads its output and the time of its end."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

PROGRAMS = Path(__file__).with_name("programs")
STATE = tempfile.TemporaryDirectory(prefix="otel-progress-state-")
"""The state folder of all programs of this process: what they keep is no user's."""


def exit_seconds() -> float:
    """Return the longest time from a program's last line to its end: two seconds to send, and half a second for Python.

    On a busy machine Python takes longer.
    """
    return 2.0 + 0.5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program: ours, without what would change its telemetry."""
    # Unbuffered output of several processes would mix.
    ours = ("OTEL_", "COV_", "PYTEST_", "PYTHONUNBUFFERED")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {
        **kept,
        "OTEL_SERVICE_NAME": "stress",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "PYTHONFAULTHANDLER": "1",
        "XDG_STATE_HOME": STATE.name,
        **more,
    }


class Program:
    """A running program; its lines are split into words."""

    def __init__(
        self,
        name: str,
        *args: object,
        env: Mapping[str, str] | None = None,
        python: Path | str = sys.executable,
        command: tuple[str, ...] = (),
    ) -> None:
        """Start it, with `command` in front of the interpreter if it is given."""
        run = [*(command or (str(python),)), str(PROGRAMS / f"{name}.py"), *map(str, args)]
        self.process = subprocess.Popen(
            run,
            env=environment(**(env or {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[list[str]] = []
        self.errors = ""
        self.ended = 0.0
        self._lines: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The whole group: remaining children would keep the pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.split())
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()

    def line(self, word: str = "", timeout: float = 30.0) -> list[str]:
        """Wait for the next line that begins with this word, and return it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                words = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"the program did not say {word!r} within {timeout:g} s; {self._so_far()}"
                ) from None
            if words is None:
                self.process.wait(10)
                raise AssertionError(f"the program ended without saying {word!r}; {self._so_far()}")
            self.said.append(words)
            if words and words[0].startswith(word):
                return words

    def tell(self, line: str = "") -> None:
        """Write a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end, and read its whole output."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            # faulthandler then shows where it hangs.
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            for reader in self._readers:
                reader.join(5)
            raise AssertionError(f"the program did not end within {timeout:g} s; {self._so_far()}") from None
        self.ended = time.monotonic()
        for reader in self._readers:
            reader.join(10)
        while (words := self._lines.get()) is not None:
            self.said.append(words)
        return code

    def finish(self, code: int = 0, timeout: float = 60.0) -> dict[str, str]:
        """Wait for its end with this exit code; returns its last `name value` lines."""
        found = self.wait(timeout)
        assert found == code, f"exit code {found}; {self._so_far()}"
        return self.values()

    def values(self) -> dict[str, str]:
        """Return its `name value` lines."""
        return {words[0]: words[1] for words in self.said if len(words) > 1}

    def held(self) -> float:
        """Return the seconds from the line `end <monotonic>` to the end of the process."""
        return self.ended - float(self.values()["end"])

    def _so_far(self) -> str:
        return f"it said {self.said[-10:]}, errors: {self.errors[-3000:]}"


def run(name: str, *args: Any, env: Mapping[str, str] | None = None, code: int = 0, **options: Any) -> Program:
    """Run a program to its end."""
    with Program(name, *args, env=env, **options) as program:
        program.finish(code)
    return program
