"""Our own way out for log events and run series: one outbox, one sender thread.

Nothing here goes through the processors of a provider that someone else made: the user's own logs are not sent twice,
and nobody's failing export or order of shutdown is ours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live import runtime
from otel_progress.live.drops import drops
from otel_progress.live.guard import tell_once
from otel_progress.telemetry import protobuf
from otel_progress.telemetry.outbox import Letter, Outbox
from otel_progress.telemetry.transport import Answer, Transport

log = logging.getLogger("otel_progress")
BACKOFF_FIRST: Final = 0.25
BACKOFF_MOST: Final = 5.0

Delivered = Callable[[], None]


class Pipeline:
    """Sends what the ticker puts in; `logs` and `metrics` may be None where a signal is turned off."""

    def __init__(self, logs: Transport | None, metrics: Transport | None, resource: bytes, version: str, outbox: int) -> None:
        """Send by these transports, in the name of this resource."""
        self._logs = logs
        self._metrics = metrics
        self._resource = resource
        self._scope = protobuf.scope(s.SCOPE, version)
        self._outbox = Outbox(outbox)
        self._series: list[tuple[bytes, Delivered]] = []
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._flushes: list[threading.Event] = []
        self._poked = self._stopped = self._told = False
        self._backoff = BACKOFF_FIRST
        self._not_before = 0.0
        self._thread: threading.Thread | None = None

    # -- for the ticker

    def post(self, letter: Letter) -> None:
        """Put an event into the outbox."""
        if self._logs is not None:
            with self._lock:
                self._outbox.add(letter)

    def post_series(self, requests: list[tuple[bytes, Delivered]]) -> None:
        """Send these metrics next; they take the place of those that were not sent yet."""
        if self._metrics is not None:
            with self._lock:
                self._series = requests

    def poke(self) -> None:
        """Send what is there, unless the receiver asked for a pause."""
        if not self._outbox and not self._series:
            return
        if self._thread is None:
            if not runtime.threads_allowed:
                self.pump()
                return
            self._thread = threading.Thread(target=self._run, name="otel-progress-sender", daemon=True)
            self._thread.start()
        with self._ready:
            self._poked = True
            self._ready.notify()

    def flush(self, timeout: float) -> bool:
        """Try at once to send all that is there, and wait for it so many seconds."""
        if self._thread is None or not self._thread.is_alive():
            self._not_before = 0.0
            self.pump(clock.monotonic() + timeout)
            return not self._outbox
        done = threading.Event()
        with self._ready:
            self._flushes.append(done)
            self._ready.notify()
        return done.wait(timeout) and not self._outbox

    def close(self) -> None:
        """Let the thread end when it has sent what it has in hand; it may be called twice."""
        with self._ready:
            self._stopped = True
            self._ready.notify()

    # -- the thread

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(self._due, timeout=self._pause())
                flushes, self._flushes = self._flushes, []
                self._poked = False
                if self._stopped and not flushes:
                    break
            if flushes:
                self._not_before = 0.0
            try:
                self.pump()
            except Exception:
                tell_once("the sender failed; it goes on")
            for done in flushes:
                done.set()
        for transport in (self._logs, self._metrics):
            if transport is not None:
                transport.close()

    def _due(self) -> bool:
        return self._stopped or bool(self._flushes) or (self._poked and clock.monotonic() >= self._not_before)

    def _pause(self) -> float | None:
        waiting = self._outbox or self._series
        return max(0.01, self._not_before - clock.monotonic()) if waiting and self._not_before else None

    def pump(self, deadline: float = float("inf")) -> None:
        """Send until nothing is left, or the receiver wants a pause."""
        if clock.monotonic() < self._not_before:
            return
        for send_next in (self._send_events, self._send_series):
            while clock.monotonic() < deadline and send_next():
                pass

    def _send_events(self) -> bool:
        """Send one request of events; whether to go on."""
        with self._lock:
            batch = self._outbox.take()
        if not batch or self._logs is None:
            return False
        answer = self._logs.send(self._request(letter.body for letter in batch.values()))
        with self._lock:
            if answer.delivered:
                self._outbox.acknowledge(batch)
            elif not answer.retry:
                self._outbox.discard(batch)
        return self._learn(answer)

    def _send_series(self) -> bool:
        with self._lock:
            if not self._series or self._metrics is None:
                return False
            body, delivered = self._series.pop(0)
        answer = self._metrics.send(body)
        if answer.delivered:
            delivered()
        elif not answer.retry:
            drops.add(s.DROP_REJECTED)
        return self._learn(answer)

    def request(self, items: list[bytes]) -> bytes:
        """An export request with these metrics."""
        return self._request(items)

    def _request(self, items: object) -> bytes:
        return protobuf.envelope(self._resource, self._scope, items)  # type: ignore[arg-type]

    def _learn(self, answer: Answer) -> bool:
        """Take a pause after a failure, longer each time; tell of the first."""
        if answer.rejected:
            drops.add(s.DROP_REJECTED, answer.rejected)
        if not answer.delivered and not self._told:
            self._told = True
            log.warning("telemetry can't be delivered (%s); the job goes on, what waits too long is counted", answer.reason)
        if answer.delivered:
            self._backoff, self._not_before, self._told = BACKOFF_FIRST, 0.0, False
            return True
        if answer.retry:
            pause = self._backoff if answer.after is None else min(answer.after, 60.0)
            self._not_before = clock.monotonic() + pause
            self._backoff = min(self._backoff * 2, BACKOFF_MOST)
            return False
        return True
