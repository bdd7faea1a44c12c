"""The pipeline for log events and run series: one outbox, one sender thread.

It does not use the processors of the application's providers, so the application's own logs are not sent twice, and
their failing exports and order of shutdown do not concern us.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live.engine import keyframes, process
from otel_progress.live.guard import drops, tell_once
from otel_progress.model import wire
from otel_progress.model.values import Value
from otel_progress.outbound import otlp
from otel_progress.outbound.answer import Answer, SignalStatus
from otel_progress.outbound.backoff import STANDARD
from otel_progress.outbound.transport import Transport
from otel_progress.outbound.trouble import DOCTOR, Trouble
from otel_progress.telemetry.outbox import REQUEST_BYTES, EncodedEvent, Outbox, Unsent

TO_MONITOR: Final = 5.0
"""The longest silence toward a monitor, in seconds."""
TO_COLLECTOR: Final = 15.0
"""The longest silence toward another receiver, in seconds."""
SLACK: Final = 0.1
"""By how many seconds a heartbeat may be early, as rounds of the ticker are not exact."""
LEAST: Final = 0.05
"""The shortest timeout of a request, in seconds."""
LOCK_SECONDS: Final = 0.1
"""How long a signal handler waits for the lock, which the interrupted code may hold, in seconds."""

Delivered = Callable[[], None]
Offered = Callable[[str], None]


class PacedTransport:
    """The transport of one signal, with the pauses between its requests."""

    def __init__(self, name: str, transport: Transport) -> None:
        """Start without a pause; `name` is the signal as people read it."""
        self.name = name
        self.transport = transport
        self.not_before = 0.0
        """When the next request may be sent, by the monotonic clock."""
        self.most_bytes = REQUEST_BYTES
        """The largest request; it shrinks if the receiver refuses one for its size."""
        self.status = SignalStatus(name)
        self._failures = 0

    def send(self, body: bytes, deadline: float) -> Answer:
        """Send a request by the deadline; a failure starts a pause, and the first one is logged."""
        left = deadline - clock.monotonic()
        answer = self.transport.send(body, max(LEAST, left) if math.isfinite(left) else None)
        self.status.update(answer)
        if answer.delivered:
            self._failures, self.not_before = 0, 0.0
            self.most_bytes = min(2 * self.most_bytes, REQUEST_BYTES)
            return answer
        if answer.retry or not answer.about_data:
            self._failures += 1
            self.not_before = clock.monotonic() + STANDARD.pause(self._failures, answer.after)
        return answer


class Pipeline:
    """Sends what the ticker posts; a signal whose transport is None is turned off."""

    def __init__(
        self,
        logs: Transport | None,
        metrics: Transport | None,
        resource: Mapping[str, Value],
        version: str,
        outbox: int,
        offered: Offered | None = None,
        heartbeat: float | None = None,
    ) -> None:
        """Prepare the pipeline; no thread is started.

        Args:
            logs: the transport for events.
            metrics: the transport for run series.
            resource: the resource of the process.
            version: the version of the instrumentation scope.
            outbox: events that may wait.
            offered: called with the control channel that a receiver offers.
            heartbeat: the longest silence in seconds; None: 5 s toward a monitor, 15 s toward another receiver.
        """
        self._logs = None if logs is None else PacedTransport("log events", logs)
        self._metrics = None if metrics is None else PacedTransport("run series", metrics)
        self._transports = [one for one in (self._logs, self._metrics) if one is not None]
        self._about = resource
        self._resource = otlp.resource(resource)
        self._resources: dict[tuple[float, bool], bytes] = {}
        """The encoded resource of events, by the interval that it promises, and whether it describes the process."""
        self._scope = otlp.scope(s.SCOPE, version)
        self._outbox = Outbox(outbox, lacks=keyframes.request_id)
        self._offered = offered
        self._heartbeat = heartbeat
        self._is_monitor = False
        self.discards_series = False
        """Whether the receiver said that it keeps no metrics."""
        self._announced = self.interval
        self._spoke_at = clock.monotonic()
        self._series: list[tuple[bytes, Delivered]] = []
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._flushes: list[threading.Event] = []
        self._poked = self._stopped = self._hurries = False
        self._thread: threading.Thread | None = None

    @property
    def interval(self) -> float:
        """The longest silence that the receiver of events is promised, in seconds."""
        return self._heartbeat or (TO_MONITOR if self._is_monitor else TO_COLLECTOR)

    # -- for the ticker

    def is_over(self, since: float, now: float) -> bool:
        """Whether the interval has passed since a time; the one that was promised last also binds, if it is shorter."""
        interval = min(self.interval, self._announced)
        return now - since >= interval - min(SLACK, interval / 20)

    def is_silent(self, now: float) -> bool:
        """Whether no event waits, and the receiver got none during the interval."""
        return not self._outbox and self.is_over(self._spoke_at, now)

    def post(self, event: EncodedEvent) -> None:
        """Put an event into the outbox."""
        if self._logs is not None:
            with self._lock:
                self._outbox.add(event)

    def post_series(self, requests: list[tuple[bytes, Delivered]]) -> None:
        """Send these metrics next; they replace those that were not sent yet."""
        if self._metrics is not None:
            with self._lock:
                self._series = requests

    @property
    def series_waiting(self) -> bool:
        """Whether some of the last metrics were not sent yet."""
        return bool(self._series)

    @property
    def takes_series(self) -> bool:
        """Whether metrics are sent at all."""
        return self._metrics is not None

    @property
    def trouble_of_metrics(self) -> Trouble | None:
        """Why metrics are not delivered."""
        return None if self._metrics is None else self._metrics.status.trouble

    def all_sent(self) -> bool:
        """Whether all events that were posted were sent."""
        return not self._outbox

    def unsent(self, *, final: bool) -> tuple[Unsent, Trouble | None]:
        """What the receiver does not have, and why; with `final`, waiting events are dropped and counted.

        A signal handler may call it.
        """
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return Unsent(), None
        try:
            lost = self._outbox.give_up() if final else self._outbox.unsent()
        finally:
            self._lock.release()
        return lost, None if self._logs is None else self._logs.status.trouble

    def poke(self) -> None:
        """Send what waits, unless a pause lasts."""
        if not self._outbox and not self._series:
            return
        if self._thread is None:
            if not process.threads_allowed:
                self.pump()
                return
            self._thread = threading.Thread(target=self._run, name="otel-progress-sender", daemon=True)
            self._thread.start()
        with self._ready:
            self._poked = True
            self._ready.notify()

    def flush(self, timeout: float) -> bool:
        """Send all that waits at once, whatever the pause; return whether all was sent within the timeout (seconds)."""
        if self._thread is None or not self._thread.is_alive():
            self._hurry(clock.monotonic() + timeout)
            return not self._outbox
        done = threading.Event()
        with self._ready:
            self._flushes.append(done)
            self._ready.notify()
        return done.wait(timeout) and not self._outbox

    def close(self) -> None:
        """End the thread after its current request; may be called twice."""
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
            try:
                if flushes:
                    self._hurry()
                else:
                    self.pump()
            except Exception:
                tell_once("the sender failed; it goes on")
            for done in flushes:
                done.set()
        for paced in self._transports:
            paced.transport.close()
        self.unsent(final=True)

    def _due(self) -> bool:
        return self._stopped or bool(self._flushes) or (self._poked and bool(self._open()))

    def _open(self) -> list[PacedTransport]:
        """The transports that have something to send, and no pause."""
        now = clock.monotonic()
        return [paced for paced in self._transports if self._waiting(paced) and now >= paced.not_before]

    def _waiting(self, paced: PacedTransport) -> int:
        return len(self._outbox if paced is self._logs else self._series)

    def _pause(self) -> float | None:
        """Seconds until the first pause of a transport with something to send is over."""
        times = [paced.not_before for paced in self._transports if self._waiting(paced) and paced.not_before]
        return max(0.01, min(times) - clock.monotonic()) if times else None

    def _hurry(self, deadline: float = float("inf")) -> None:
        """Send at once, whatever the pause; the process may end before all is sent."""
        for paced in self._transports:
            paced.not_before = 0.0
        self._hurries = True
        try:
            self.pump(deadline)
        finally:
            self._hurries = False

    def pump(self, deadline: float = float("inf")) -> None:
        """Send until nothing waits, the deadline is over, or a request fails."""
        for paced in self._open():
            send_next = self._send_events if paced is self._logs else self._send_series
            while clock.monotonic() < deadline and send_next(paced, deadline):
                pass

    def _send_events(self, paced: PacedTransport, deadline: float) -> bool:
        """Send one request of events; return whether to go on."""
        with self._lock:
            batch = self._outbox.take(paced.most_bytes, ends_first=self._hurries or bool(self._flushes))
            new = self._outbox.assume_known(batch)
        if not batch:
            return False
        began, interval = clock.monotonic(), self.interval
        answer = paced.send(self._request_of_events(batch.values(), interval), deadline)
        if answer.delivered:
            self._spoke_at, self._announced = began, interval
            self._is_monitor = answer.control is not None  # nothing else offers a control channel
        if answer.control is not None and self._offered is not None:
            self._offered(answer.control)
        with self._lock:
            if answer.delivered:
                self._outbox.acknowledge(batch)
                self._outbox.refused(batch, min(answer.rejected, len(batch)), _refusal(answer))
                return True
            if not answer.unclear:
                self._outbox.assume_unknown(new)
            if answer.retry:
                self._outbox.keep(batch)
                return False
            if answer.too_large and len(batch) > 1:
                self._outbox.keep(batch)
                paced.most_bytes = sum(len(event.body) for event in batch.values()) // 2
                return True
            kept = self._outbox.discard(batch, ends=answer.about_data, why=_refusal(answer))
        return not kept and answer.about_data

    def _send_series(self, paced: PacedTransport, deadline: float) -> bool:
        with self._lock:
            if not self._series:
                return False
            body, delivered = self._series.pop(0)
        answer = paced.send(body, deadline)
        if answer.delivered:
            self.discards_series = answer.discards
            delivered()
            if answer.rejected > 0:
                drops.add(s.DROP_REJECTED)
        elif not answer.retry:
            drops.add(s.DROP_REJECTED)
        return answer.delivered or answer.about_data

    def request(self, items: list[bytes]) -> bytes:
        """Encode an export request with these metrics."""
        return otlp.envelope(self._resource, self._scope, items)

    def _request_of_events(self, events: Collection[EncodedEvent], interval: float) -> bytes:
        """Encode an export request with events, whose resource says how to read them, and what silence is promised.

        Only with a keyframe it also describes the process: most requests hold one small event. Metrics say neither:
        with a resource of their own they would have a second `target_info` in Prometheus.
        """
        key = interval, any(event.is_keyframe for event in events)
        encoded = self._resources.get(key)
        if encoded is None:
            about = {name: value for name, value in self._about.items() if key[1] or not name.startswith(s.DESCRIBING)}
            encoded = otlp.resource({**about, s.SCHEMA: wire.SCHEMA, s.HEARTBEAT_INTERVAL: interval})
            self._resources[key] = encoded
        return otlp.envelope(encoded, self._scope, [event.body for event in events])


def _refusal(answer: Answer) -> str:
    """Why a receiver refused events, in words."""
    if answer.trouble is not None:
        return answer.trouble.text
    return f"the receiver refused some ({answer.reason or 'it does not say why'}): {DOCTOR}"
