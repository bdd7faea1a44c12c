"""An honest sender beside an attack, both sending to one monitor."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.attacks import hold
from benchmarks.monitor.load import PATIENCE, Server, fetch
from otel_progress import semconv as s
from otel_progress.outbound import otlp

CALM: Final = 10
BESIDE: Final = 10
PASSES: Final = 4.0
"""Seconds after which the honest sender stops."""
WAIT: Final = 0.5
"""Seconds that an honest sender may wait during an attack; more, by these factors, if requests take longer."""
TIMES_CALM: Final = 20
TIMES_ALONE: Final = 5
MEMORY: Final = 400e6
"""Bytes of memory that the monitor may use at most; it needs about 80 MB to start."""


class Monitor(Server):
    """A monitor with its own database."""

    def __init__(self, folder: Path, *more: str) -> None:
        command = [sys.executable, "-m", "otel_progress", "monitor", "--port", "0", "--grpc-port", "0"]
        super().__init__([*command, "--db", str(folder / "m.db"), *more], folder / "log", set())
        self.host = self.grpc = ""

    def __enter__(self) -> Monitor:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"OTLP +http://(\S+) .*and (\S+) \(gRPC\)", self.log.read_text(errors="replace"))
            if found is not None:
                self.host, self.grpc = found.groups()
                return self
            time.sleep(0.01)
        raise self.failed("the monitor did not start")

    def health(self) -> Any:
        """Return the answer of `/health`."""
        return fetch(self.host, "/health")

    def connect(self) -> socket.socket:
        """Open a plain connection."""
        host, _, port = self.host.rpartition(":")
        return socket.create_connection((host, int(port)), PATIENCE)


@contextlib.contextmanager
def monitor(*more: str) -> Iterator[Monitor]:
    """Run a monitor during the block, and check that it stays within its memory."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Monitor(Path(folder), *more) as found:
        yield found
        hold(found.process.poll() is None, "the monitor ended")
        hold(found.peak() < MEMORY, f"the monitor held {found.peak() / 1e6:.0f} MB")


def event(key: str) -> bytes:
    """Return a request with one event of one operation."""
    now = time.time_ns()
    said = {s.SEQUENCE: 1, s.OPERATION_ID: key, s.OPERATION_NAME: "honest", s.STATUS: "running"}
    record = otlp.log_record(s.UPDATED, now, now, 9, "", otlp.attributes(6, said), None, None, False)
    about = otlp.resource({"service.instance.id": "honest", "service.name": "honest"})
    return otlp.envelope(about, otlp.scope(s.SCOPE, ""), [record])


class Honest:
    """A sender of small requests, one after the other."""

    def __init__(self, target: Monitor) -> None:
        self._target = target
        self._connection = http.client.HTTPConnection(target.host, timeout=PATIENCE)
        self._sent: list[str] = []

    def send(self) -> float:
        """Send one request; return the seconds until it was stored."""
        key = f"honest-{len(self._sent)}"
        began = time.monotonic()
        self._connection.request("POST", "/v1/logs", event(key), {"Content-Type": "application/x-protobuf"})
        answer = self._connection.getresponse()
        body = answer.read()
        hold(answer.status == 200, f"an honest sender got {answer.status} {body[:100]!r}")
        hold(not body, "an honest record was refused")
        self._sent.append(key)
        return time.monotonic() - began

    def waits(self, count: int) -> list[float]:
        """Send up to `count` requests for `PASSES` seconds at most; return the seconds that each took."""
        end = time.monotonic() + PASSES
        return [self.send() for _ in range(count) if time.monotonic() < end]

    def lost(self) -> list[str]:
        """Return what was acknowledged and is not shown."""
        self._connection.close()
        shown = set()
        cursor = ""
        while True:
            page = fetch(self._target.host, f"/operations?name=honest&limit=100{cursor}")
            shown |= {row["id"] for row in page["operations"]}
            if not page["next"]:
                return [key for key in self._sent if key not in shown]
            cursor = f"&cursor={page['next']}"


@contextlib.contextmanager
def many(count: int, act: Callable[[], object]) -> Iterator[None]:
    """Repeat an act in `count` threads during the block; its errors are ignored."""
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                act()

    threads = [threading.Thread(target=again, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()  # those that wait for an answer end with the monitor


def beside(
    target: Monitor,
    attack: contextlib.AbstractContextManager[object],
    begun: Callable[[], object],
    alone: float = 0.0,
) -> None:
    """Check that an honest sender is answered during an attack, loses nothing, and waits not much longer than without.

    Args:
        target: the monitor.
        attack: a context manager; the attack runs inside it.
        begun: waits until the attack runs.
        alone: seconds that one request of the attack took. The honest sender may wait for a few of them, as one may
            be in progress when its own arrives, but not for those of all connections.
    """
    honest = Honest(target)
    calm = statistics.median(honest.waits(CALM))
    with attack:
        begun()
        waits = honest.waits(BESIDE)
    may = WAIT + TIMES_CALM * calm + TIMES_ALONE * alone
    half, most = statistics.median(waits), max(waits)
    said = f"an honest sender waited {half:.2f} s, and once {most:.2f} s; without the attack {calm:.3f} s"
    hold(half <= may and most <= 3 * may, f"{said}. He may wait {may:.2f} s, and once {3 * may:.2f} s")
    hold(not (gone := honest.lost()), f"lost what was acknowledged: {gone}")
