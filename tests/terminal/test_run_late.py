"""`otel-progress run` where the receiver starts after the command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.terminal.real import Monitor
from tests.terminal.screens import ROOT, environment, wait_until

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")

RUN = """
import sys
from otel_progress import cli, settings

settings.DEFAULT_ENDPOINTS["http/protobuf"] = sys.argv[1]
sys.exit(cli.main(["run", "--", sys.executable, "-c", sys.argv[2]]))
"""
JOB = """
import time
import otel_progress as progress

with progress.operation("survey", id="survey-1", stall_after=300):
    with progress.stage("load", total=2, unit="file") as load:
        load.advance(2)
    print("loaded", flush=True)
    while True:
        progress.raise_if_cancelled()
        time.sleep(0.05)
"""


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A command below `run`, and the port at which nothing listens yet."""
    number, place = port(), {"XDG_STATE_HOME": str(tmp_path / "run")}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, f"http://127.0.0.1:{number}", JOB],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in environment(**place).items() if key != "OTEL_EXPORTER_OTLP_ENDPOINT"},
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    yield process, number
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_monitor_that_starts_later_knows_the_command(
    started: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    """It shows what the command reported before there was a monitor, and its requests to stop reach the command."""
    process, number = started
    monitor = Monitor(tmp_path, port=number)
    try:
        url = f"{monitor.url}/operations/survey-1"
        wait_until(lambda: answered(url) is not None, 30)
        operation = answered(url)
        assert operation["status"] == "running"
        assert [(stage["name"], stage["status"]) for stage in operation["stages"]] == [("load", "completed")]
        wait_until(lambda: answered(url)["control"], 30)
        urllib.request.urlopen(urllib.request.Request(f"{url}?wait=0", method="DELETE"), timeout=10).close()
        _, errors = process.communicate(timeout=30)
        assert answered(url)["status"] == "cancelled"
        assert "otel-progress:" not in errors
    finally:
        monitor.kill()


def test_receiver_that_never_comes_is_no_loss(started: tuple[subprocess.Popen[str], int]) -> None:
    """Where nobody ever listens, nothing is said and the end waits for nobody."""
    process, _ = started
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert "otel-progress:" not in errors


def answered(url: str) -> Any:
    """What the monitor says of the operation; None while it does not know it."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None
