"""Ctrl+C and SIGTERM: what runs is stopped and cleaned up, and the program ends as signalled."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, anyio, otel_progress as progress
from otel_progress.workflow import Step, Workflow

def ended(snapshot, event):
    if event.name == "progress.operation.ended":
        print(snapshot.status.value, [note.text for note in snapshot.notes], flush=True)

async def long():
    try:
        print("running", flush=True)
        await anyio.sleep_forever()
    finally:
        print("cleaned up", flush=True)

if "handle" in sys.argv:
    progress.configure("x", handle_sigterm=True, endpoint="http://127.0.0.1:1")
progress.add_listener(ended)
Workflow("w", stages=[Step("plan", lambda: 1), Step("long", long, after=["plan"])]).run()
"""


@pytest.mark.parametrize(
    ("number", "argument", "code"),
    [(signal.SIGTERM, "", 143), (signal.SIGTERM, "handle", -signal.SIGTERM), (signal.SIGINT, "", -signal.SIGINT)],
)
def test_a_signal_stops_in_order(number: signal.Signals, argument: str, code: int) -> None:
    """Steps clean up, the operation ends as interrupted and says what was done, and the exit code tells the signal."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, argument], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        program.send_signal(number)
        said = program.communicate(timeout=30)[0]
    assert said == "cleaned up\ninterrupted ['cancelled; done: plan; stopped: long']\n"
    assert program.returncode == code
