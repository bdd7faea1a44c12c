"""The programs and commands of README.md and docs/tutorial.md do what these pages say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.terminal.screens import ROOT, Terminal, command, environment

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
START = "otel-progress run -f -- python agent.py"


class Reader:
    """Somebody who follows a page, in a folder of their own, with a free port for the monitor."""

    def __init__(self, folder: Path, page: str) -> None:
        """Save the program of the page; its work is made faster, and its limit is kept."""
        found = re.search(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert found is not None
        self.folder, self.program = folder, found[1]
        (folder / "agent.py").write_text(self.program.replace("0.25", "0.05"), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        bin = folder / "bin"
        bin.mkdir()
        for name, given in (("otel-progress", " ".join(command())), ("python", sys.executable)):
            (bin / name).write_text(f'#!/bin/sh\nexec {given} "$@"\n', encoding="utf-8")
            (bin / name).chmod(0o755)
        self.env = {
            "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(folder / "state"),
            "OTEL_PROGRESS_MONITOR": self.url,
            "PYTHONUNBUFFERED": "1",
        }

    def starts(self) -> Terminal:
        """Return the terminal in which the program was started."""
        return Terminal(program=["sh", "-c", f"cd {self.folder} && exec {START}"], env=self.env)

    def runs(self, *given: str) -> str:
        """Return what a command prints."""
        done = subprocess.run(
            ["otel-progress", *given],
            check=False,
            executable=self.folder / "bin" / "otel-progress",
            cwd=self.folder,
            env=environment(**self.env),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def line(self, code: str) -> int:
        """Return the number of the line with this code."""
        return next(at for at, line in enumerate(self.program.splitlines(), 1) if code in line)


def test_readme_finds_the_stuck_agent(tmp_path: Path) -> None:
    """The first minute of README.md: its program is found stuck at its line, and a second Ctrl+C ends it."""
    assert f"```sh\n{START}\n```" in README
    reader = Reader(tmp_path, README)
    with reader.starts() as terminal:
        terminal.see("STUCK", "11/40 pages", f"at agent.py:{reader.line('sleep')} in research", reader.url, timeout=90)
        terminal.type("\x03")
        terminal.see("received", timeout=30)
        terminal.type("\x03")
        assert terminal.exit_code(60) == 130


def test_tutorial_from_the_start_to_the_look_back(tmp_path: Path) -> None:
    """The agent hangs, is found by each command that the page names, is killed, and goes on where it stopped."""
    for said in (START, "otel-progress list", "otel-progress show research-1", "kill -9", "touch server-is-up"):
        assert said in TUTORIAL
    reader = Reader(tmp_path, TUTORIAL)
    stuck = f"at agent.py:{reader.line('recv')} in search"
    with reader.starts() as terminal:
        terminal.see("STUCK", "11/40 pages", stuck, timeout=90)
        assert stuck in reader.runs("list")
        shown = reader.runs("show", "research-1")
        assert stuck in shown
        assert "here.recv(1)" in shown
        pid = re.search(r"pid (\d+)", shown)
        assert pid is not None
        os.kill(int(pid[1]), signal.SIGKILL)
        assert terminal.exit_code(60) == 137
        assert "its process was killed by SIGKILL" in terminal.history
    left = reader.runs("recover", "--store", "work.db")
    assert "11 of 40 pages, 27%" in left
    assert "in hand when its process died: 12" in left
    (tmp_path / "server-is-up").touch()
    with reader.starts() as terminal:
        assert terminal.exit_code(90) == 0
        assert re.search(r"✓ research-1 completed after .* 40 pages", terminal.history)
    monitor = subprocess.Popen(
        command("monitor", "--quiet", "--port", reader.url.rpartition(":")[2], "--grpc-port", "none"),
        env=environment(**reader.env),
    )
    try:
        for _ in range(100):
            shown = reader.runs("show", "research-1")
            if "attempts" in shown:
                break
        assert re.search(r"attempt 2 +completed", shown)
        assert re.search(r"attempt 1 +lost after .* at 27%: killed by SIGKILL", shown)
        assert "resumed at 11 of 40 pages (attempt 2, after SIGKILL" in shown
    finally:
        monitor.terminate()
        monitor.wait(20)
