"""A connection of an OTLP server, with limits on the time and size of its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from otel_progress.monitor.intake.bodies import DRAINED, GONE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

HEAD_SECONDS: Final = 10.0
"""Seconds within which the head of a request must arrive, and the first request of a connection must begin."""
BODY_SECONDS: Final = 15.0
"""Seconds within which a body must arrive; the application gives up earlier, with a proper response."""
HEAD_BYTES: Final = 512 * 1024
"""The most bytes read before a head is complete; more than asyncio reads at once, as that may contain a body."""
REQUEST_BYTES: Final = DRAINED + HEAD_BYTES
"""The most bytes read of one request; the application refuses earlier, with a proper response."""
STUCK_SECONDS: Final = 15.0
"""Seconds after which a client that reads nothing of its response is disconnected; twice as long at most."""


class Guarded(HttpToolsProtocol):
    """A connection with limits on the time and size of requests, and on how long a response may remain unread."""

    _read = 0
    _most = HEAD_BYTES
    _timer: asyncio.TimerHandle | None = None
    _checking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the limits of a new connection."""
        self._gone: list[Callable[[], object]] = []
        super().connection_made(transport)
        self._expect(HEAD_SECONDS, HEAD_BYTES)
        self._checking = self.loop.call_later(STUCK_SECONDS, self._check_writes, 0)

    def data_received(self, data: bytes) -> None:
        """Count bytes; close a connection that exceeds its limit."""
        if self._timer is not None:
            self._read += len(data)
            if self._read > self._most:
                self.transport.close()
                return
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._timer is None and self.transport.get_protocol() is self:
            self._expect(HEAD_SECONDS, HEAD_BYTES)  # neither the start of a request nor an upgrade

    def on_message_begin(self) -> None:
        """Expect the head of a request."""
        self._read = 0
        self._expect(HEAD_SECONDS, HEAD_BYTES)
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[GONE] = self._gone

    def on_headers_complete(self) -> None:
        """Expect the body."""
        self._expect(BODY_SECONDS, REQUEST_BYTES)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the timer: the request is complete."""
        self._in_time()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who serve its requests, and stop the timers."""
        for call in tuple(self._gone):
            call()
        self._in_time()
        if self._checking is not None:
            self._checking.cancel()
        super().connection_lost(exc)

    def _expect(self, seconds: float, most: int) -> None:
        self._in_time()
        self._most = most
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_writes(self, before: int) -> None:
        """Abort if nothing was read since; also after an upgrade to a WebSocket, and while a connection closes."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting >= before > 0:
            self.transport.abort()
            return
        if not self.transport.is_closing() or waiting:
            self._checking = self.loop.call_later(STUCK_SECONDS, self._check_writes, waiting)
