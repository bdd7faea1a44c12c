"""Passes OTLP requests on to the endpoint of each signal; whoever gives them never waits.

Each signal has a queue with a limit and a thread of its own, so a receiver that takes one signal and not another holds
nothing else up. What finds no room is dropped, the oldest first, and counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from otel_progress import clock
from otel_progress.settings import Endpoint
from otel_progress.telemetry.transport import Transport, connect

BYTES: Final = 32 * 1024 * 1024
"""The most that waits of one signal."""
BACKOFF_FIRST: Final = 0.25
BACKOFF_MOST: Final = 5.0
PAUSE_MOST: Final = 60.0


class Lane:
    """The way of one signal."""

    def __init__(self, signal: str, url: str, transport: Transport, most_bytes: int = BYTES) -> None:
        """Nothing is opened before the first request."""
        self.signal = signal
        self.url = bare(url)
        self.lost = 0
        self.refused = 0
        self.reason = ""
        self._transport = transport
        self._most = most_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._sending = self._stopped = False
        self._backoff = BACKOFF_FIRST
        self._not_before = 0.0
        self._last_chance: float | None = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"otel-progress-{signal}", daemon=True)
        self._thread.start()

    def put(self, body: bytes) -> None:
        """Send this after what waits."""
        with self._ready:
            self._waiting.append(body)
            self._bytes += len(body)
            while self._bytes > self._most and len(self._waiting) > 1:
                del_at = 1 if self._sending else 0
                if del_at >= len(self._waiting) - 1:
                    break
                self._bytes -= len(self._waiting[del_at])
                del self._waiting[del_at]
                self.lost += 1
                self.reason = self.reason or "too much waited"
            self._ready.notify_all()

    def hurry(self, deadline: float) -> None:
        """Pauses are short from now on, and what is not sent at the deadline is lost."""
        with self._ready:
            self._last_chance = deadline
            self._not_before = min(self._not_before, clock.monotonic() + BACKOFF_FIRST)
            self._ready.notify_all()

    def wait(self, deadline: float) -> bool:
        """Wait until all was sent, or until the deadline; whether all was."""
        with self._ready:
            while self._waiting and (left := deadline - clock.monotonic()) > 0:
                self._ready.wait(left)
            return not self._waiting

    def stop(self) -> None:
        """Send no more; what waits is lost."""
        with self._ready:
            self._stopped = True
            self.lost += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._ready.notify_all()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._stopped and not (self._waiting and clock.monotonic() >= self._not_before):
                    self._ready.wait(max(0.01, self._not_before - clock.monotonic()) if self._waiting else None)
                if self._stopped:
                    break
                body, last = self._waiting[0], self._last_chance
                self._sending = True
            answer = self._transport.send(body, None if last is None else max(0.1, last - clock.monotonic()))
            with self._ready:
                self._sending = False
                self.reason = answer.reason or self.reason
                self.refused += answer.rejected
                if answer.delivered or not answer.retry:
                    if self._waiting:
                        self._waiting.popleft()
                        self._bytes -= len(body)
                        self.lost += not answer.delivered
                    self._backoff, self._not_before = BACKOFF_FIRST, 0.0
                else:
                    self._pause(answer.after)
                self._ready.notify_all()
        self._transport.close()

    def _pause(self, after: float | None) -> None:
        pause = self._backoff if after is None else min(after, PAUSE_MOST)
        if self._last_chance is not None:
            pause = min(pause, BACKOFF_FIRST)
        self._not_before = clock.monotonic() + pause
        self._backoff = min(self._backoff * 2, BACKOFF_MOST)


class Forwarder:
    """One lane a signal; a signal without an endpoint goes nowhere."""

    def __init__(self, endpoints: Mapping[str, Endpoint], most_bytes: int = BYTES) -> None:
        """To these endpoints, by signal (`logs`, `metrics`, `traces`).

        Raises:
            MissingDependency: where the client for a protocol is not installed.
        """
        transports = {signal: connect(signal, endpoint) for signal, endpoint in endpoints.items()}
        self.lanes = {
            signal: Lane(signal, endpoints[signal].url, transport, most_bytes)
            for signal, transport in transports.items()
        }

    def put(self, signal: str, body: bytes) -> None:
        """Pass a request on."""
        lane = self.lanes.get(signal)
        if lane is not None:
            lane.put(body)

    def flush(self, timeout: float) -> None:
        """Send what waits, within so many seconds, and stop."""
        deadline = clock.monotonic() + timeout
        for lane in self.lanes.values():
            lane.hurry(deadline)
        for lane in self.lanes.values():
            lane.wait(deadline)
        for lane in self.lanes.values():
            lane.stop()

    def losses(self) -> list[str]:
        """What could not be passed on, in words; a line for each signal."""
        return [
            f"{lane.lost + lane.refused} {'requests' if lane.lost else 'items'} of {lane.signal} could not be passed "
            f"on to {lane.url} ({lane.reason[:200] or 'refused'})"
            for lane in self.lanes.values()
            if lane.lost or lane.refused
        ]


def bare(url: str) -> str:
    """An address without the name and password that may stand in it."""
    parts = urlsplit(url)
    return url.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else url
