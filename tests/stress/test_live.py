"""A real program and a real monitor: what somebody looks at is live, and what nobody looks at is not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_progress.monitor.web import wishes

from .program import environment
from .served import Served, serving, wait_until

PROGRAM = """
import sys, time
import otel_progress as progress
progress.configure("program", update_interval=600)
with progress.operation("seen", id="seen") as seen, progress.operation("unseen", id="unseen", parent=None) as unseen:
    print("ready", flush=True)
    while True:
        seen.advance()
        unseen.advance()
        time.sleep(0.05)
"""


@contextmanager
def program(monitor: Served) -> Iterator[None]:
    """Run it beside the block."""
    env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{monitor.host}", OTEL_TRACES_EXPORTER="none")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wait_until(lambda: {"seen", "unseen"} <= set(monitor.monitor.core.ledger.operations))
        wait_until(lambda: monitor.monitor.control.connected(monitor.monitor.core.ledger.operations["seen"].instance))
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def counted(monitor: Served, key: str) -> Any:
    """What the monitor knows that it completed."""
    return monitor.monitor.core.ledger.operations[key].snapshot.progress.completed or 0


def moves(monitor: Served, key: str, times: int = 3) -> None:
    """New counts of it arrive, again and again."""
    for _ in range(times):
        before = counted(monitor, key)
        wait_until(lambda before=before: counted(monitor, key) > before)


def test_all_is_live_while_few_operations_run(tmp_path: Path) -> None:
    """A program whose updates wait for ten minutes sends each to a monitor that has room."""
    with serving(tmp_path) as monitor, program(monitor):
        moves(monitor, "seen")
        moves(monitor, "unseen")


def test_what_is_on_a_screen_is_live_while_many_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room only an operation that a page or a stream shows moves, and others stand still meanwhile."""
    monkeypatch.setattr(wishes, "ROOM", 0)
    with serving(tmp_path) as monitor, program(monitor):
        before = counted(monitor, "unseen")
        body = json.dumps({"ids": ["seen", "no such thing"]}).encode()
        answer = monitor.ask("POST", "/watching", body, {"Content-Type": "application/json"})
        assert (answer.status, answer.json) == (200, {"for": wishes.LEASE})
        moves(monitor, "seen")
        assert counted(monitor, "unseen") == before
        with monitor.connect() as stream:
            stream.sendall(monitor.head("/operations/unseen/stream"))
            heard = threading.Thread(target=stream.recv, args=(1,), daemon=True)
            heard.start()
            moves(monitor, "unseen")


def test_a_lacking_state_is_sent_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process answers with an event of its whole state, long before its next update is due."""
    monkeypatch.setattr(wishes, "ROOM", 0)
    with serving(tmp_path) as monitor, program(monitor):
        before = counted(monitor, "seen")
        monitor.monitor.core.ledger.lacking["seen"] = None
        wait_until(lambda: counted(monitor, "seen") > before)
