"""Passes OTLP requests on from the disk: what was taken is sent on at last, over outages and restarts.

Each signal has a thread of its own, which reads the oldest requests from the store, sends them in order and asks for
their deletion. A request whose answer got lost, or whose deletion did not come to be before the process died, is sent
again. Only what is refused for what it holds is given up, and the oldest where more waits than may; both are counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from otel_progress import clock
from otel_progress.monitor.state.store import Store, StoreError
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.outbound.queue import SignalQueue
from otel_progress.outbound.transport import Transport, connect
from otel_progress.settings import TIMEOUT_MOST, Endpoint

BYTES: Final = 256 * 1024 * 1024
"""The most that waits of one signal."""
CHUNK: Final = 1024 * 1024
"""So much is read from the disk at once."""
WEIGH_SECONDS: Final = 1.0
"""How often it is looked how much waits."""

Delete = Callable[[list[int]], None]
"""Takes the ids of requests that wait no more; called by any thread."""


class DiskQueue(SignalQueue):
    """A queue in the store; `_seen` is the id of the last request that was read, so none is read twice."""

    def __init__(
        self,
        signal: str,
        url: str,
        transport: Transport,
        store: Store,
        delete: Delete,
        most_bytes: int = BYTES,
        backoff: Backoff = STANDARD,
    ) -> None:
        """What waits from an earlier run is sent first."""
        super().__init__(signal, url, transport, backoff)
        self._store = store
        self._delete = delete
        self._most = most_bytes
        self._loaded: deque[tuple[int, bytes]] = deque()
        self._seen = 0
        self._more = True
        self._reading = False
        self._weigh_at = 0.0
        self._away = False
        self._thread.start()

    def wake(self) -> None:
        """More waits in the store."""
        with self._ready:
            self._more = True
            self._ready.notify_all()

    def stop(self) -> None:
        """Send no more; what waits stays in the store, for the next time."""
        with self._ready:
            self._stopped = True
            self._ready.notify_all()

    def join(self, timeout: float) -> None:
        """Wait until the thread reads no more."""
        self._thread.join(timeout)

    def trouble(self) -> str | None:
        """Why nothing gets through just now, in words."""
        if not self._away:
            return None
        return f"{self.signal} wait to be passed on to {self.url} ({self.reason[:200] or 'no answer'})"

    # -- what `SignalQueue` asks for

    def _is_waiting(self) -> bool:
        return bool(self._loaded) or self._more or self._reading

    def _has_more(self) -> bool:
        return self._more and not self._loaded

    def _head(self) -> bytes | None:
        return self._loaded[0][1] if self._loaded else None

    def _pop(self, delivered: bool) -> None:
        self._away = False
        self.lost += not delivered
        self._delete([self._loaded.popleft()[0]])
        if not self._loaded:
            self._more = True  # what waits behind it was not read yet

    def _worthless(self, answer: Answer) -> bool:
        """A receiver that does not know us, or not this address, may be put right; its requests wait so long."""
        return answer.about_data

    def _settle(self, answer: Answer) -> None:
        self._away = not answer.delivered
        super()._settle(answer)

    def _fill(self) -> None:
        """Read on, and drop what is too much; the lock is not held, as whoever wakes this must not wait for a disk."""
        found: list[tuple[int, bytes]] = []
        try:
            self._weigh()
            with self._ready:
                if self._loaded or not self._more:
                    return
                self._more, self._reading = False, True
            found = self._store.outgoing(self.signal, CHUNK, after=self._seen)
        except StoreError as error:
            with self._ready:
                self._more = True
                self.reason = str(error)
                self._pause()
                if not self._stopped:
                    self._ready.wait(max(0.01, self._not_before - clock.monotonic()))
        with self._ready:
            self._reading = False
            if found:
                self._loaded.extend(found)
                self._seen = found[-1][0]
            self._ready.notify_all()

    def _weigh(self) -> None:
        now = clock.monotonic()
        if now < self._weigh_at:
            return
        self._weigh_at = now + WEIGH_SECONDS
        loaded = sum(len(body) for _, body in self._loaded)
        excess = loaded + self._store.outgoing_bytes(self.signal, after=self._seen) - self._most
        gone: list[int] = []
        while excess > 0 and self._loaded:
            id, body = self._loaded.popleft()
            gone.append(id)
            excess -= len(body)
        while excess > 0 and (sizes := self._store.outgoing_sizes(self.signal, after=self._seen)):
            for id, size in sizes:
                if excess <= 0:
                    break
                gone.append(id)
                excess -= size
                self._seen = id
        if gone:
            self.lost += len(gone)
            self.reason = self.reason or "too much waited"
            self._more = True
            self._delete(gone)


class Relay:
    """One way a signal; requests of a signal without an endpoint should not be put into the store."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        store: Store,
        delete: Delete,
        *,
        most_bytes: int = BYTES,
        backoff: Backoff = STANDARD,
    ) -> None:
        """To these endpoints, by signal (`logs`, `metrics`, `traces`); what waits is sent from now on.

        Args:
            endpoints: where each signal goes.
            store: where requests wait.
            delete: is told by threads of the relay which of them wait no more; a later batch has them in `sent`.
            most_bytes: the most that waits of one signal.
            backoff: the pauses between tries.

        Raises:
            MissingDependency: where the client for a protocol is not installed.
        """
        transports = {signal: connect(signal, endpoint) for signal, endpoint in endpoints.items()}
        self.lanes = {
            signal: DiskQueue(signal, endpoints[signal].url, transport, store, delete, most_bytes, backoff)
            for signal, transport in transports.items()
        }

    @property
    def signals(self) -> frozenset[str]:
        """The signals that are passed on."""
        return frozenset(self.lanes)

    def wake(self, signal: str) -> None:
        """Requests of this signal were written to the store."""
        lane = self.lanes.get(signal)
        if lane is not None:
            lane.wake()

    def stop(self, timeout: float) -> None:
        """Send what waits, within so many seconds, and stop; the rest stays in the store. It may be called twice.

        After it `delete` is called no more, and the store may be closed.
        """
        deadline = clock.monotonic() + timeout
        for lane in self.lanes.values():
            lane.hurry(deadline)
        for lane in self.lanes.values():
            lane.wait(deadline)
        for lane in self.lanes.values():
            lane.stop()
        for lane in self.lanes.values():
            lane.join(TIMEOUT_MOST + 1.0)

    def losses(self) -> list[str]:
        """What could not be passed on, in words; a line for each signal."""
        return [line for lane in self.lanes.values() for line in lane.losses()]

    def troubles(self) -> list[str]:
        """What does not get through just now, in words; it waits."""
        return [line for lane in self.lanes.values() if (line := lane.trouble()) is not None]
