"""Passes OTLP requests on to the endpoint of each signal; whoever gives them never waits.

Each signal has a queue with a limit and a thread of its own, so a receiver that takes one signal and not another holds
nothing else up. What finds no room is dropped, the oldest first, and counted.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from otel_progress import clock
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.outbound.transport import Transport, connect
from otel_progress.settings import Endpoint

BYTES: Final = 32 * 1024 * 1024
"""The most that waits of one signal."""


class Way(ABC):
    """The way of one signal: a thread that sends what waits, in order, and pauses where the receiver is away."""

    def __init__(self, signal: str, url: str, transport: Transport, backoff: Backoff = STANDARD) -> None:
        """Nothing is opened before the first request; who inherits starts the thread."""
        self.signal = signal
        self.url = bare(url)
        self.lost = 0
        self.refused = 0
        self.reason = ""
        self._transport = transport
        self._sending = self._stopped = False
        self._backoff = backoff
        self._failures = 0
        self._not_before = 0.0
        self._last_chance: float | None = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"otel-progress-{signal}", daemon=True)

    def hurry(self, deadline: float) -> None:
        """Pauses are short from now on, as nothing is sent after the deadline."""
        with self._ready:
            self._last_chance = deadline
            self._not_before = min(self._not_before, clock.monotonic() + self._backoff.first)
            self._ready.notify_all()

    def wait(self, deadline: float) -> bool:
        """Wait until all was sent, or until the deadline; whether all was."""
        with self._ready:
            while self._is_waiting() and (left := deadline - clock.monotonic()) > 0:
                self._ready.wait(left)
            return not self._is_waiting()

    def told(self) -> list[str]:
        """What could not be passed on, in words."""
        if not self.lost and not self.refused:
            return []
        what = f"{self.lost + self.refused} {'requests' if self.lost else 'items'} of {self.signal}"
        return [f"{what} could not be passed on to {self.url} ({self.reason[:200] or 'refused'})"]

    @abstractmethod
    def _is_waiting(self) -> bool:
        """Whether anything is to be sent."""

    @abstractmethod
    def _head(self) -> bytes | None:
        """What is sent next."""

    @abstractmethod
    def _pop(self, delivered: bool) -> None:
        """The head was sent, or is given up."""

    @abstractmethod
    def _worthless(self, answer: Answer) -> bool:
        """Whether a request that was not delivered is given up."""

    def _fill(self) -> None:  # noqa: B027  # what waits in memory needs none
        """Get more to send; the lock is not held."""

    def _stirred(self) -> bool:
        """Whether there may be more than `_fill` saw."""
        return False

    def _run(self) -> None:
        while not self._stopped:
            self._fill()
            with self._ready:
                body = self._head()
                if body is None or self._not_before > clock.monotonic():
                    if not self._stopped and not self._stirred():
                        self._ready.wait(self._pause_left(body))
                    continue
                last = self._last_chance
                self._sending = not self._stopped
            if self._sending:
                answer = self._transport.send(body, None if last is None else max(0.1, last - clock.monotonic()))
                with self._ready:
                    self._settle(answer)
        self._transport.close()

    def _pause_left(self, body: bytes | None) -> float | None:
        left = self._not_before - clock.monotonic()
        return max(0.01, left) if body is not None or left > 0 else None

    def _settle(self, answer: Answer) -> None:
        self._sending = False
        self.reason = answer.reason or self.reason
        self.refused += answer.rejected
        if answer.delivered or self._worthless(answer):
            self._pop(answer.delivered)
            self._failures, self._not_before = 0, 0.0
        else:
            self._pause(answer.after)
        self._ready.notify_all()

    def _pause(self, after: float | None = None) -> None:
        self._failures += 1
        pause = self._backoff.pause(self._failures, after)
        if self._last_chance is not None:
            pause = min(pause, self._backoff.first)
        self._not_before = clock.monotonic() + pause


class Lane(Way):
    """A way whose requests wait in memory."""

    def __init__(
        self, signal: str, url: str, transport: Transport, most_bytes: int = BYTES, backoff: Backoff = STANDARD
    ) -> None:
        """Nothing is opened before the first request."""
        super().__init__(signal, url, transport, backoff)
        self._most = most_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
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

    def stop(self) -> None:
        """Send no more; what waits is lost."""
        with self._ready:
            self._stopped = True
            self.lost += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._ready.notify_all()

    def _is_waiting(self) -> bool:
        return bool(self._waiting)

    def _head(self) -> bytes | None:
        return self._waiting[0] if self._waiting else None

    def _pop(self, delivered: bool) -> None:
        if self._waiting:  # else it was given up while it was on its way
            self._bytes -= len(self._waiting.popleft())
            self.lost += not delivered

    def _worthless(self, answer: Answer) -> bool:
        return not answer.retry


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

    def hurry(self, deadline: float) -> None:
        """Pauses are short from now on, as nothing is sent after the deadline."""
        for lane in self.lanes.values():
            lane.hurry(deadline)

    def flush(self, timeout: float) -> None:
        """Send what waits, within so many seconds, and stop."""
        deadline = clock.monotonic() + timeout
        self.hurry(deadline)
        for lane in self.lanes.values():
            lane.wait(deadline)
        for lane in self.lanes.values():
            lane.stop()

    def losses(self) -> list[str]:
        """What could not be passed on, in words; a line for each signal."""
        return [line for lane in self.lanes.values() for line in lane.told()]


def bare(url: str) -> str:
    """An address without the name and password that may stand in it."""
    parts = urlsplit(url)
    return url.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else url
