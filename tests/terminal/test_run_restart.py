"""`otel-progress run --restart` in a real pseudo-terminal."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from tests.terminal.screens import Terminal

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")

HIDES = """
if [ -e begun ]; then stty -a | grep -o -w -- '-echo\\|echo'; read line; echo "heard $line"; exit 0; fi
touch begun; stty -echo; kill -KILL $$
"""
DIES = """
import os, sys, time
from pathlib import Path
import otel_progress as progress
with progress.operation("ingest", id="ingest-7", total=1351) as op:
    op.advance(130)
    print("attempt", op.attempt, flush=True)
    time.sleep(0.4)
    while op.attempt > 1:
        progress.raise_if_cancelled()
        time.sleep(0.02)
    os.kill(os.getpid(), 9)
"""


def test_terminal_is_as_it_was_before_each_start(tmp_path: Path) -> None:
    """A program that is killed while it hides what is typed leaves no silent terminal to the next start."""
    with Terminal("run", "--restart=on-failure", "--", "sh", "-c", f"cd {tmp_path}; {HIDES}") as terminal:
        assert "-echo" not in terminal.see("restart 1)", "\necho")
        terminal.type("yes\r")
        terminal.see("heard yes", "the command succeeded after 1 restart")
        assert terminal.exit_code(30) == 0


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    """Ctrl+C that kills the command is no failure: the exit code is 130, and nothing begins again."""
    with Terminal("run", "--restart=on-failure", "--", "cat") as terminal:
        terminal.type("works\r")
        terminal.see("works\nworks")
        terminal.type("\x03")
        terminal.see("was killed by SIGINT", "not restarted: SIGINT was received")
        assert terminal.exit_code(30) == 130


def test_followed_command_is_restarted(tmp_path: Path) -> None:
    """`run -f` shows the pause below the output, then the next attempt; a cancelled operation begins no third one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = {"XDG_STATE_HOME": str(tmp_path), "OTEL_PROGRESS_MONITOR": url, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    run = ("run", "-f", "--restart=on-failure:3", "--", sys.executable, "-c", DIES)
    with Terminal(*run, env=env, columns=120) as terminal:
        terminal.see("attempt 1", "the command restarts in", "Ctrl+C ends it")
        text = terminal.see("attempt 2", "1 running")
        assert "lost: ingest [ingest-7], 130 of 1,351 items" in text
        assert "restarts in 1 s (restart 1 of 3)" in text
        terminal.type("\x03")
        terminal.see("not restarted: SIGINT was received")
        assert terminal.exit_code(30) == 1
        assert "attempt 3" not in terminal.text
