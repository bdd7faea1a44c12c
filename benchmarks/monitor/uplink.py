"""A connection of one program to a monitor: one request at a time, kept open, with little work for each."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Any, Final

QUEUE: Final = 100
"""The most requests that wait; as in the SDK, more of them are dropped."""
RETRY: Final = 1.0
"""Seconds after a failure until the next try."""


class Uplink(asyncio.Protocol):
    """Sends requests in order, and reports the status and the delay of each answer."""

    def __init__(self, host: str, told: Callable[[int, float], object]) -> None:
        """To a monitor; `told` is called with the status, 0 if the connection was lost, and the seconds it took."""
        self._host = host
        self._told = told
        self._queue: collections.deque[tuple[bytes, Callable[[], object] | None]] = collections.deque(maxlen=QUEUE)
        self._transport: asyncio.Transport | None = None
        self._current: tuple[float, Callable[[], object] | None] | None = None
        self._connecting: asyncio.Task[Any] | None = None
        self._got = b""

    def post(self, path: str, headers: str, body: bytes, then: Callable[[], object] | None = None) -> None:
        """Send a request, and call `then` after the answer."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._queue.append((head.encode() + body, then))
        self._next()

    def _next(self) -> None:
        if self._current is not None or not self._queue:
            return
        if self._transport is None:
            if self._connecting is None:
                self._connecting = asyncio.ensure_future(self._connect())
            return
        data, then = self._queue.popleft()
        self._current = time.monotonic(), then
        self._transport.write(data)

    async def _connect(self) -> None:
        address, _, port = self._host.rpartition(":")
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, address, int(port))
        except OSError:
            self._told(0, 0.0)
            await asyncio.sleep(RETRY)
        self._connecting = None
        self._next()

    def connection_made(self, transport: Any) -> None:
        """Send what waits."""
        self._transport, self._got = transport, b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Connect again for what waits."""
        del exc
        self._transport = None
        if self._current is not None:
            begin, then = self._current
            self._current = None
            self._told(0, time.monotonic() - begin)
            if then is not None:
                asyncio.get_running_loop().call_later(RETRY, then)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Take an answer."""
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found or self._current is None:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        size = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < size:
            return
        self._got = rest[size:]
        begin, then = self._current
        self._current = None
        self._told(int(head[9:12]), time.monotonic() - begin)
        if then is not None:
            then()
        self._next()
