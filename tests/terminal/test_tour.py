"""`make demo` in a real terminal: what it says, and that the Ctrl-C that ends it is no error."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


class Terminal:
    """A command in a terminal of its own, as its foreground job."""

    def __init__(self, *command: str) -> None:
        """Start it."""
        self.text = ""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.environ["BROWSER"] = "true"
            for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of a make that runs the tests
                os.environ.pop(name, None)
            os.chdir(ROOT)
            os.execvp(command[0], command)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until a pattern is there."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < end, self.text
            assert self._read(), self.text
        return found

    def interrupt(self) -> int:
        """Press Ctrl-C, read what still comes, and return the exit code."""
        os.write(self._screen, b"\x03")
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        try:
            some = os.read(self._screen, 65536)
        except OSError:  # the end, on Linux
            return False
        self.text += some.decode(errors="replace")
        return bool(some)


@pytest.mark.timeout(240)
def test_demo_ends_cleanly_by_ctrl_c(tmp_path: Path) -> None:
    """It says what it does from the start, names a command that can be pasted, and ends with 0 and without an error."""
    # The environment that runs the tests stands in for the one that make would set up.
    ready = tmp_path / "ready"
    ready.touch()
    terminal = Terminal("make", "demo", f"RUN={sys.executable}", f"READY={ready}")
    terminal.wait_for("starting a monitor")
    command = shlex.split(terminal.wait_for(r"in another terminal: (.+?)\r?\n")[1])
    program = shutil.which(command[0], path=f"{ROOT}{os.pathsep}{os.environ['PATH']}") or str(ROOT / command[0])
    assert os.access(program, os.X_OK), command
    terminal.wait_for(r"\d+ s  import: failed")
    assert terminal.interrupt() == 0, terminal.text
    after = terminal.text.partition("^C")[2]
    assert after.strip() == "all jobs have ended", terminal.text
    for sign in ("Traceback", "Error", "error", "refused", "***"):
        assert sign not in terminal.text.replace("ValueError: record 37", ""), terminal.text
