"""Requests that one client may send per second, so that a flood is answered with 429 before it costs much.

A client is a token at an address: a fleet shares its token, and machines behind one address may have several tokens.
Its requests are counted by the virtual scheduling algorithm (GCRA, ITU-T I.371): one number for each client.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

RATE: Final = 2_000.0
"""Requests that a client may send per second; a program sends one every few seconds, a Collector a few per second."""
BURST: Final = 10.0
"""Seconds of requests that may come at once, as after an outage."""
CLIENTS: Final = 10_000
"""The most clients that are remembered."""


class RateLimit:
    """Counts requests by client. It has no lock."""

    def __init__(self, rate: float = RATE, burst: float = BURST, clients: int = CLIENTS) -> None:
        """A client may send `rate` requests per second, and `burst` seconds' worth of them at once; 0 is no limit."""
        self.rate = rate
        self._burst = burst
        self._most = clients
        self._next: dict[Hashable, float] = {}
        """When the next request of a client would come if it kept to the rate."""

    def take(self, client: Hashable, now: float) -> int | None:
        """Count a request; returns the seconds after which to retry if it is one too many."""
        if not self.rate:
            return None
        due = max(self._next.get(client, now), now)
        if due - now > self._burst:
            return max(1, math.ceil(due - now - self._burst))
        if client not in self._next and len(self._next) >= self._most:
            self._forget(now)
        self._next[client] = due + 1 / self.rate
        return None

    def _forget(self, now: float) -> None:
        """Forget clients that keep to the rate; if all exceed it, the one that is heard least."""
        self._next = {client: due for client, due in self._next.items() if due > now}
        if len(self._next) >= self._most:
            del self._next[min(self._next, key=self._next.__getitem__)]
