"""Forwards OTLP requests to the endpoint of each signal, from queues.

Each signal has a bounded queue and a thread, so a receiver that accepts one signal but not another delays only the
latter. Enqueuing never blocks; without room the oldest request is dropped, and counted.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from otel_progress import clock
from otel_progress.outbound import otlp
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.outbound.transport import Transport, connect
from otel_progress.settings import Endpoint

BYTES: Final = 32 * 1024 * 1024
"""The size of all waiting requests of a signal."""
MERGE_AFTER: Final = 600.0
"""Seconds after which waiting requests are merged, if a queue can."""
MERGE_SECONDS: Final = 10.0
"""Seconds between two merges for lack of room."""
STOP_SECONDS: Final = 0.5
"""Seconds that the end waits for a request in flight, whose deadline is over."""
Merge = Callable[[list[bytes]], list[bytes]]
"""Makes fewer requests of these, in order, which say the same about the present."""


class SignalQueue(ABC):
    """The queue of one signal, and a thread that sends its requests in order, with pauses after failures."""

    def __init__(self, signal: str, url: str, transport: Transport, backoff: Backoff = STANDARD) -> None:
        """Prepare the thread, which the subclass starts; nothing is opened before the first request."""
        self.signal = signal
        self.url = without_credentials(url)
        self.lost = 0
        """Requests that were given up."""
        self.refused = 0
        """Items that the receiver rejected from requests that it accepted."""
        self.delivered = False
        """Whether the receiver has taken a request."""
        self.reason = ""
        """What the receiver last answered to a request that it did not accept, or why there was no answer."""
        self.offered: Callable[[str], None] | None = None
        """Called with the control channel that an answer offers; must not block."""
        self._transport = transport
        self._sending = self._stopped = False
        self._backoff = backoff
        self._failures = 0
        self._not_before = 0.0
        self._last_chance: float | None = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"otel-progress-{signal}", daemon=True)

    def hurry(self, deadline: float) -> None:
        """Keep pauses short from now on, as nothing is sent after the deadline."""
        with self._ready:
            self._last_chance = deadline
            self._not_before = min(self._not_before, clock.monotonic() + self._backoff.first)
            self._ready.notify_all()

    def wait(self, deadline: float) -> bool:
        """Wait for all requests to be sent, at most until the deadline; return whether they were."""
        with self._ready:
            while self._is_waiting() and (left := deadline - clock.monotonic()) > 0:
                self._ready.wait(left)
            return not self._is_waiting()

    def losses(self) -> list[str]:
        """Say what could not be forwarded, in at most one line."""
        if not self.lost and not self.refused:
            return []
        what = f"{self.lost + self.refused} {'requests' if self.lost else 'items'} of {self.signal}"
        return [f"{what} could not be passed on to {self.url} ({self.reason[:200] or 'refused'})"]

    def _halt(self) -> None:
        """Send no more; waits a moment for the request in flight."""
        with self._ready:
            self._stopped = True
            self._ready.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    @abstractmethod
    def _is_waiting(self) -> bool:
        """Whether a request waits."""

    @abstractmethod
    def _head(self) -> bytes | None:
        """The next request."""

    @abstractmethod
    def _pop(self, delivered: bool) -> None:
        """Remove the head, which was delivered or is given up."""

    @abstractmethod
    def _worthless(self, answer: Answer) -> bool:
        """Whether a request with this answer is given up, rather than retried."""

    def _fill(self) -> None:  # noqa: B027  # a queue in memory has nothing to load
        """Load more requests; the lock is not held."""

    def _has_more(self) -> bool:
        """Whether requests may have come since `_fill` looked."""
        return False

    def _run(self) -> None:
        while not self._stopped:
            self._fill()
            with self._ready:
                body = self._head()
                if body is None or self._not_before > clock.monotonic():
                    if not self._stopped and not self._has_more():
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
        if answer.control is not None and self.offered is not None:
            self.offered(answer.control)
        self.delivered = self.delivered or answer.delivered
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


class _Waiting(NamedTuple):
    """A request that waits; one with the end of an operation is dropped last."""

    body: bytes
    has_end: bool
    since: float


class MemoryQueue(SignalQueue):
    """A queue in memory."""

    def __init__(
        self,
        signal: str,
        url: str,
        transport: Transport,
        most_bytes: int = BYTES,
        backoff: Backoff = STANDARD,
        merge: Merge | None = None,
    ) -> None:
        """Start the thread; nothing is opened before the first request.

        Args:
            signal: `logs`, `metrics` or `traces`.
            url: where the requests go.
            transport: sends them.
            most_bytes: the size of all waiting requests.
            backoff: the pauses after failures.
            merge: shortens what has waited for `MERGE_AFTER` seconds, or has no room.
        """
        super().__init__(signal, url, transport, backoff)
        self._most = most_bytes
        self._merge = merge
        self._merging = False
        self._merge_at = 0.0
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._thread.start()

    def put(self, body: bytes) -> None:
        """Enqueue a request."""
        with self._ready:
            self._waiting.append(_Waiting(body, bool(otlp.ends_in(body)), clock.monotonic()))
            self._bytes += len(body)
            # What can be merged gets time for it.
            while self._bytes > (self._most if self._merge is None else 2 * self._most) and len(self._waiting) > 1:
                if not self._drop():
                    break
            self._ready.notify_all()

    def stop(self) -> None:
        """Send no more; waiting requests are lost."""
        self.lost += len(self.take_rest())

    def take_rest(self) -> list[bytes]:
        """Send no more; returns the requests that wait, in order."""
        self._halt()
        with self._ready:
            rest = [one.body for one in self._waiting]
            self._waiting.clear()
            self._bytes = 0
        return rest

    def _drop(self) -> bool:
        """Drop the oldest request without an end, or else the oldest; not the one in flight, and not the newest."""
        first, last = int(self._sending), len(self._waiting) - 1
        if first >= last:
            return False
        at = next((number for number in range(first, last) if not self._waiting[number].has_end), first)
        self._bytes -= len(self._waiting[at].body)
        del self._waiting[at]
        self.lost += 1
        self.reason = self.reason or "too much waited"
        return True

    def _fill(self) -> None:
        """Merge what waits if that is due; in the thread that sends, so nothing is in flight."""
        if self._merge is None:
            return
        with self._ready:
            if self._stopped or not self._merge_is_due():
                return
            old, self._merging = list(self._waiting), True
            self._waiting.clear()
        try:
            merged = self._merge([one.body for one in old])
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"
            merged = [one.body for one in old]
        now = clock.monotonic()
        with self._ready:
            self._waiting.extendleft(_Waiting(body, False, now) for body in reversed(merged))
            self._bytes = sum(len(one.body) for one in self._waiting)
            self._merging, self._merge_at = False, now + MERGE_SECONDS
            while self._bytes > self._most and self._drop():
                pass
            self._ready.notify_all()

    def _merge_is_due(self) -> bool:
        now = clock.monotonic()
        old = len(self._waiting) > 1 and now - self._waiting[0].since > MERGE_AFTER
        return old or (self._bytes > self._most and now >= self._merge_at)

    def _is_waiting(self) -> bool:
        return bool(self._waiting) or self._merging

    def _head(self) -> bytes | None:
        return self._waiting[0].body if self._waiting else None

    def _pop(self, delivered: bool) -> None:
        if self._waiting:  # else it was given up while in flight
            self._bytes -= len(self._waiting.popleft().body)
            self.lost += not delivered

    def _worthless(self, answer: Answer) -> bool:
        return not answer.retry


class Forwarder:
    """A queue in memory for each signal; requests of a signal without an endpoint are discarded."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], most_bytes: int = BYTES, merge_metrics: Merge | None = None
    ) -> None:
        """Forward to these endpoints, by signal (`logs`, `metrics`, `traces`).

        Raises:
            MissingDependency: if the client for a protocol is not installed.
        """
        transports = {signal: connect(signal, endpoint) for signal, endpoint in endpoints.items()}
        merges = {"metrics": merge_metrics}
        self.queues = {
            signal: MemoryQueue(signal, endpoints[signal].url, transport, most_bytes, merge=merges.get(signal))
            for signal, transport in transports.items()
        }

    def put(self, signal: str, body: bytes) -> None:
        """Enqueue a request for its endpoint."""
        queue = self.queues.get(signal)
        if queue is not None:
            queue.put(body)

    def hurry(self, deadline: float) -> None:
        """Keep pauses short from now on, as nothing is sent after the deadline."""
        for queue in self.queues.values():
            queue.hurry(deadline)

    def flush(self, timeout: float) -> dict[str, list[bytes]]:
        """Send what waits within the timeout (seconds), and stop; returns the rest, by signal."""
        deadline = clock.monotonic() + timeout
        self.hurry(deadline)
        for queue in self.queues.values():
            queue.wait(deadline)
        return {signal: queue.take_rest() for signal, queue in self.queues.items()}

    def give_up(self, rest: Mapping[str, list[bytes]]) -> None:
        """Count what is left as lost."""
        for signal, bodies in rest.items():
            self.queues[signal].lost += len(bodies)

    def losses(self) -> list[str]:
        """Say what could not be forwarded; a line for each signal."""
        return [line for queue in self.queues.values() for line in queue.losses()]


def without_credentials(url: str) -> str:
    """The address without the user name and password in it."""
    parts = urlsplit(url)
    return url.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else url
