"""The requests that wait for the core: in a fair order, within bounds, without those that nobody waits for any more.

The order is weighted fair queueing (A. Demers, S. Keshav, S. Shenker, Analysis and simulation of a fair queueing
algorithm, SIGCOMM 1989): the next request is the one that would be done first if all connections were served at once,
each with an equal share. So a small request does not wait for a connection with a thousand requests, or with one that
costs a thousand times as much.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Union

from otel_progress import clock
from otel_progress.monitor.intake.records import BYTES, Envelope, Refused, Sender, Taken

REQUESTS: Final = 8_192
"""The most requests that wait."""
BYTES_WAITING: Final = 64 * 1024 * 1024
"""The most bytes that they hold together."""
TURN_REQUESTS: Final = 64
"""The most requests in one turn of the core, which is one transaction."""
TURN_BYTES: Final = 2 * BYTES
"""A turn takes no more requests when those that it has cost so much, in unpacked bytes."""
TURN_SECONDS: Final = 0.2
"""A turn takes no more requests after so long."""
LATE: Final = 1.0
"""Who gave up before this time, in seconds, gave up for reasons of its own, not because we were slow."""

Answer = Union[Taken, Refused]
Done = Callable[[Answer], None]


@dataclass(order=True)
class Job:
    """A request that waits.

    Attributes:
        envelope: the request.
        done: what to call with the answer.
        own: whether it came to us first, and not by another monitor.
        since: when it came, by the monotonic clock.
        due: its place in the order.
    """

    envelope: Envelope = field(compare=False)
    done: Done = field(compare=False)
    own: bool = field(compare=False)
    since: float = field(default=0.0, compare=False)
    due: tuple[float, int] = (0.0, 0)

    @property
    def size(self) -> int:
        """The bytes that it holds while it waits."""
        return len(self.envelope.body)


class Waiting:
    """The requests that wait. It has no lock of its own.

    Attributes:
        bytes: what they hold together.
    """

    def __init__(self) -> None:
        """None yet."""
        self.bytes = 0
        self._jobs: list[Job] = []
        self._time = 0.0
        self._number = 0
        self._latest = 0.0
        self._last: dict[Hashable, float] = {}
        self._connections: dict[Hashable, Counter[Hashable]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._jobs)

    def put(self, job: Job) -> list[Job]:
        """Let a request wait; returns those that made room for it, as their senders are further ahead of their share.

        Raises:
            Refused: where there is no room, and no sender is further ahead.
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

    def pop(self) -> Job | None:
        """The request that is next."""
        if not self._jobs:
            return None
        job = heapq.heappop(self._jobs)
        self._time += job.envelope.cost / len(self._last)
        self._forget(job)
        return job

    def _rivals(self, sender: Sender) -> int:
        """How many connections share a token, where there are others: they have the share of one together."""
        own = self._connections.get(sender.token, ())
        return max(1, len(own)) if len(self._connections) > (1 if own else 0) else 1

    def _make_room(self, job: Job) -> list[Job]:
        """Take out requests that come later than this one, the last first, until it fits."""
        out: list[Job] = []
        count, size = len(self._jobs) + 1, self.bytes + job.size
        while (count > REQUESTS or size > BYTES_WAITING) and job.due[0] < self._latest:
            last = max((one for one in self._jobs if one not in out), default=None)
            self._latest = job.due[0] if last is None else last.due[0]
            if last is None or last.due <= job.due:
                break
            out.append(last)
            count, size = count - 1, size - last.size
        if count > REQUESTS or size > BYTES_WAITING:
            raise Refused(429, "too much waits to be stored", 1)
        for one in out:
            self._jobs.remove(one)
            self._forget(one)
        if out:
            heapq.heapify(self._jobs)
        return out

    def _forget(self, job: Job) -> None:
        """It waits no more."""
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
