"""The real monitor, for tests in a terminal."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.terminal.screens import ROOT, command, environment


class Monitor:
    """The real one, on a port and with a file of its own; it can be killed and started again."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.port = folder, port
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        given = command("monitor", "--port", str(self.port), "--grpc-port", "none", "--db", str(self.folder / "m.db"))
        self.process = subprocess.Popen(
            given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment(), cwd=ROOT
        )
        told = []
        for line in self.process.stdout:
            told.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                return
        raise AssertionError("the monitor did not start: " + "".join(told))

    def environment(self) -> dict[str, str]:
        return environment(XDG_STATE_HOME=str(self.folder), PYTHONUNBUFFERED="1")

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        self.process.stdout.close()
