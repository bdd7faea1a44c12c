"""Forwards OTLP requests from the disk: what was accepted arrives eventually, despite outages and restarts.

Each signal has a thread that reads the oldest requests from the store, sends them in order and asks for their deletion.
A request whose response was lost, or that was not deleted before the process died, is sent again. A request is given up
only if it is refused for its content, or if it is the oldest and too many wait; both are counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_progress import clock
from otel_progress.monitor.intake.messages import item_count
from otel_progress.monitor.state.listener import CoreListener
from otel_progress.monitor.state.store import Store, StoreError
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.outbound.queue import SignalQueue
from otel_progress.outbound.transport import Transport, connect
from otel_progress.settings import TIMEOUT_MOST, Endpoint

BYTES: Final = 256 * 1024 * 1024
"""The most bytes of one signal that wait."""
CHUNK: Final = 1024 * 1024
"""The bytes that are read from the disk at once."""
STUCK_AFTER: Final = 30.0
"""Seconds without an accepted request after which forwarding counts as stuck."""
WEIGH_SECONDS: Final = 1.0
"""Seconds between two checks of how much waits."""

Delete = Callable[[list[int]], None]
"""Called by any thread with the ids of requests that no longer wait."""


class DiskQueue(SignalQueue):
    """A queue whose requests wait in the store; they are read up to the id `_seen`, so none is read twice."""

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
        self._failing_since: float | None = None
        """When the first request was not accepted since the last that was."""
        self._failed_at = 0.0
        self._thread.start()

    def wake(self) -> None:
        """More requests are in the store."""
        with self._ready:
            self._more = True
            self._ready.notify_all()

    def stop(self) -> None:
        """Stop sending; what waits stays in the store for the next start."""
        with self._ready:
            self._stopped = True
            self._ready.notify_all()

    def join(self, timeout: float) -> None:
        """Wait until the thread has stopped reading."""
        self._thread.join(timeout)

    def trouble(self, after: float) -> str | None:
        """Why nothing is accepted, in words, once that has lasted for `after` seconds; None if it is well.

        If nothing waits, only the time up to the last attempt counts: one refused request proves no outage.
        """
        since = self._failing_since
        if since is None:
            return None
        now = clock.monotonic()
        if (now if self._loaded else self._failed_at) - since < after:
            return None
        reason = self.reason[:200] or "no answer"
        return f"{self.signal} have not been accepted by {self.url} for {now - since:.0f} s ({reason})"

    # -- what `SignalQueue` asks for

    def _is_waiting(self) -> bool:
        return bool(self._loaded) or self._more or self._reading

    def _has_more(self) -> bool:
        return self._more and not self._loaded

    def _head(self) -> bytes | None:
        return self._loaded[0][1] if self._loaded else None

    def _pop(self, delivered: bool) -> None:
        self.lost += not delivered
        self._delete([self._loaded.popleft()[0]])
        if not self._loaded:
            self._more = True  # what waits behind it was not read yet

    def _worthless(self, answer: Answer) -> bool:
        """Only a request that is refused for its content is given up: a wrong token or address can be corrected."""
        return answer.about_data

    def _settle(self, answer: Answer) -> None:
        if self._is_accepted(answer):
            self._failing_since = None
        else:
            self._failed_at = clock.monotonic()
            if self._failing_since is None:
                self._failing_since = self._failed_at
        super()._settle(answer)

    def _is_accepted(self, answer: Answer) -> bool:
        """Whether the receiver accepted anything of the request in progress."""
        if not answer.delivered or not answer.rejected:
            return answer.delivered
        body = self._head()
        return body is not None and answer.rejected < item_count(self.signal, body)

    def _fill(self) -> None:
        """Read more, and drop what is too much; without the lock, as `wake` must not wait for a disk."""
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


class Relay(CoreListener):
    """One queue for each signal; requests of a signal without an endpoint should not be put into the store.

    Attributes:
        lanes: the queues, by signal.
        stuck_after: seconds without an accepted request after which forwarding counts as stuck.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        store: Store,
        delete: Delete,
        *,
        most_bytes: int = BYTES,
        backoff: Backoff = STANDARD,
    ) -> None:
        """Forward to these endpoints, by signal (`logs`, `metrics`, `traces`); what waits is sent from now on.

        Args:
            endpoints: where each signal goes.
            store: where requests wait.
            delete: called by threads of the relay with the ids of requests that no longer wait; see `Batch.sent`.
            most_bytes: the most bytes of one signal that wait.
            backoff: the pauses between tries.

        Raises:
            MissingDependency: if the client for a protocol is not installed.
        """
        self.stuck_after = STUCK_AFTER
        transports = {signal: connect(signal, endpoint) for signal, endpoint in endpoints.items()}
        self.lanes = {
            signal: DiskQueue(signal, endpoints[signal].url, transport, store, delete, most_bytes, backoff)
            for signal, transport in transports.items()
        }

    @property
    def signals(self) -> frozenset[str]:
        """The signals that are forwarded."""
        return frozenset(self.lanes)

    def queued(self, signal: str) -> None:
        """Read the requests of this signal that were stored."""
        lane = self.lanes.get(signal)
        if lane is not None:
            lane.wake()

    def stop(self, timeout: float) -> None:
        """Send what waits, within `timeout` seconds, and stop; the rest stays in the store. May be called twice.

        Afterwards `delete` is not called any more, and the store may be closed.
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
        """What could not be forwarded, in words; a line for each signal."""
        return [line for lane in self.lanes.values() for line in lane.losses()]

    def troubles(self) -> list[str]:
        """What has not got through for `stuck_after` seconds, in words; a line for each signal."""
        return [line for lane in self.lanes.values() if (line := lane.trouble(self.stuck_after)) is not None]

    def health(self) -> dict[str, Any]:
        """What `/health` says about forwarding."""
        lost = sum(lane.lost for lane in self.lanes.values())
        rejected = sum(lane.refused for lane in self.lanes.values())
        found: dict[str, Any] = {"lost": lost, "rejected": rejected}
        troubles = self.troubles()
        return {"forward": found | ({"trouble": "; ".join(troubles)} if troubles else {})}
