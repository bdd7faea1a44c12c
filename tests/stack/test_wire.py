"""What leaves a process for the real Collector: gzip, one resource a request, and heartbeats only in silence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from .collector import Collector

ROOT = Path(__file__).parents[2]
INTERVAL = 1.0
PROGRAM = """
import sys, time
import otel_progress as progress
progress.configure()
with progress.operation("wire", id="wire", total=400) as op:
    for number in range(20):
        with progress.stage(f"stage {number}"):
            for _ in range(20):
                op.note("a note that says what was done, as notes do")
                op.advance()
    for _ in range(40):
        op.advance()
        time.sleep(0.1)
    sys.stdin.readline()
"""


class Wire:
    """Passes bytes on to a receiver, and keeps what clients sent."""

    def __init__(self, endpoint: str) -> None:
        self._to = ("127.0.0.1", urlsplit(endpoint).port or 0)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.sent = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._to) as there:
            back = threading.Thread(target=self._pass, args=(there, client, bytearray()), daemon=True)
            back.start()
            self._pass(client, there, self.sent)
            back.join()

    def _pass(self, source: socket.socket, to: socket.socket, kept: bytearray) -> None:
        try:
            while part := source.recv(65536):
                kept += part
                to.sendall(part)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Accept nothing more."""
        self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._server.close()


@contextmanager
def program(endpoint: str, protocol: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The running program; it ends with a line."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env = {
        **kept,
        "OTEL_SERVICE_NAME": "wire",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_PROGRESS_HEARTBEAT": f"{INTERVAL}",
        "PYTHONPATH": str(ROOT / "src"),
        **variables,
    }
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdin=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_little_is_sent_and_all_arrives(collector: Collector, protocol: str) -> None:
    """The Collector reads gzip, gets one resource a request, and a heartbeat only after an interval without events."""
    to = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    with (
        closing(Wire(to)) as wire,
        program(wire.endpoint, protocol, OTEL_EXPORTER_OTLP_COMPRESSION="gzip") as process,
    ):
        beats = collector.wait_for(
            lambda: [log for log in collector.logs() if log["event_name"] == "progress.process.heartbeat"]
        )
        process.communicate("end\n", 20)
    others = [log for log in collector.logs() if log["event_name"] != "progress.process.heartbeat"]
    assert others[-1]["event_name"] == "progress.operation.ended"
    assert others[-1]["attributes"]["progress.completed"] == 440
    for beat in beats:
        before = [log["time_unix_nano"] for log in others if log["time_unix_nano"] < beat["time_unix_nano"]]
        assert beat["time_unix_nano"] - max(before) >= 0.9 * INTERVAL * 1e9
    groups = groups_in(collector)
    raw = sum(len(json.dumps(group)) for group in groups)
    assert len(groups) < len(others) / 5
    for group in groups:
        about = {pair["key"]: pair["value"] for pair in group["resource"]["attributes"]}
        assert about["progress.heartbeat.interval"] == {"doubleValue": INTERVAL}
        assert int(about["progress.schema"]["intValue"]) == 2
    assert len(wire.sent) < raw / 5
    if protocol == "http/protobuf":
        assert b"content-encoding: gzip" in bytes(wire.sent).lower()


def groups_in(collector: Collector) -> list[dict[str, Any]]:
    """What the Collector wrote of log events, by resource."""
    written = collector._read("logs").splitlines()
    return [group for line in written for group in json.loads(line)["resourceLogs"]]
