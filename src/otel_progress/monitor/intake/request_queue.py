"""The bounded, fair queue of requests in front of the core.

The order is weighted fair queueing (A. Demers, S. Keshav, S. Shenker, Analysis and simulation of a fair queueing
algorithm, SIGCOMM 1989): the next request is the one that would finish first if all connections were served at once,
each with an equal share. So a small request does not wait for a connection with a thousand requests, or with one that
costs a thousand times as much.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from otel_progress import clock
from otel_progress.monitor.intake.requests import BYTES, Done, Envelope, Refused, Sender

REQUESTS: Final = 8_192
"""The most requests in the queue."""
BYTES_WAITING: Final = 64 * 1024 * 1024
"""The most bytes in the queue."""
TURN_REQUESTS: Final = 64
"""The most requests in one turn of the core; a turn is one transaction."""
TURN_BYTES: Final = 2 * BYTES
"""The cost in uncompressed bytes at which a turn takes no more requests."""
ALONE: Final = 1024 * 1024
"""The cost above which a request begins a turn: the answers to those before it do not wait for it."""
TURN_SECONDS: Final = 0.2
"""Seconds after which a turn takes no more requests."""
LATE: Final = 1.0
"""Seconds; a client that gives up earlier did not do so because the monitor is slow."""


FULL: Final = "too many requests are waiting to be stored"


@dataclass(order=True)
class Job:
    """A queued request.

    Attributes:
        envelope: the request.
        done: called with the answer.
        own: whether it was sent to this monitor, not received from another one.
        since: when it was queued, by the monotonic clock.
        due: its position in the queue.
    """

    envelope: Envelope = field(compare=False)
    done: Done = field(compare=False)
    own: bool = field(compare=False)
    since: float = field(default=0.0, compare=False)
    due: tuple[float, int] = (0.0, 0)

    @property
    def size(self) -> int:
        """The size of its body in bytes."""
        return len(self.envelope.body)


class RequestQueue:
    """The queued requests. It has no lock; the core holds its own.

    Attributes:
        bytes: the size of all queued bodies.
        most_requests: the most requests in the queue.
        most_bytes: the most bytes in the queue.
    """

    def __init__(self, most_requests: int = REQUESTS, most_bytes: int = BYTES_WAITING) -> None:
        """Start empty, with limits on the number of requests and the size of their bodies."""
        self.most_requests = most_requests
        self.most_bytes = most_bytes
        self.bytes = 0
        self._jobs: list[Job] = []
        self._time = 0.0
        self._number = 0
        self._latest = 0.0
        self._last: dict[Hashable, float] = {}
        self._connections: dict[Hashable, Counter[Hashable]] = {}

    def __len__(self) -> int:
        """The number of queued requests."""
        return len(self._jobs)

    def put(self, job: Job) -> list[Job]:
        """Queue a request; returns those evicted to make room, as their senders are further ahead of their share.

        Raises:
            Refused: if there is no room, and no sender is further ahead.
        """
        sender = job.envelope.sender
        begin = max(self._time, self._last.get(_key(sender), 0.0))
        self._number += 1
        job.due = begin + job.envelope.cost * self._rivals(sender), self._number
        job.since = clock.monotonic()
        out = self._make_room(job)
        heapq.heappush(self._jobs, job)
        self.bytes += job.size
        self._last[_key(sender)] = due = job.due[0]
        self._latest = max(self._latest, due)
        self._connections.setdefault(sender.token, Counter())[sender.connection] += 1
        return out

    def pop(self, most_cost: float = math.inf) -> Job | None:
        """Remove and return the next request; None if there is none, or if it costs more than this."""
        if not self._jobs or self._jobs[0].envelope.cost > most_cost:
            return None
        job = heapq.heappop(self._jobs)
        self._time += job.envelope.cost / len(self._last)
        self._forget(job)
        return job

    def _rivals(self, sender: Sender) -> int:
        """The number of connections that share a token, if other tokens compete: together they get one share."""
        own = self._connections.get(sender.token, ())
        return max(1, len(own)) if len(self._connections) > (1 if own else 0) else 1

    def _make_room(self, job: Job) -> list[Job]:
        """Evict requests behind this one, the last one first, until it fits."""
        out: list[Job] = []
        count, size = len(self._jobs) + 1, self.bytes + job.size
        while (count > self.most_requests or size > self.most_bytes) and job.due[0] < self._latest:
            last = max((one for one in self._jobs if one not in out), default=None)
            self._latest = job.due[0] if last is None else last.due[0]
            if last is None or last.due <= job.due:
                break
            out.append(last)
            count, size = count - 1, size - last.size
        if count > self.most_requests or size > self.most_bytes:
            raise Refused(429, FULL, 1)
        for one in out:
            self._jobs.remove(one)
            self._forget(one)
        if out:
            heapq.heapify(self._jobs)
        return out

    def _forget(self, job: Job) -> None:
        """Remove a request from the accounts."""
        sender = job.envelope.sender
        self.bytes -= job.size
        own = self._connections[sender.token]
        own[sender.connection] -= 1
        if not own[sender.connection]:
            del own[sender.connection], self._last[_key(sender)]
        if not own:
            del self._connections[sender.token]


def _key(sender: Sender) -> Hashable:
    return sender.token, sender.connection
