"""An OTLP server on the loopback interface, in a thread of its own; `otel-progress run` uses it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from otel_progress.errors import InvalidArgument
from otel_progress.monitor.intake import http
from otel_progress.monitor.intake.bodies import DRAINED, GONE
from otel_progress.monitor.intake.requests import BYTES, RECORDS, Accepted, Parcel

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HOST: Final = "127.0.0.1"
STOP_SECONDS: Final = 1.0
TURNS: Final = 5
"""Turns of the event loop after which bytes in a socket have become a request in progress."""
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


class Intake:
    """Accepts OTLP on a loopback port, from `start()` to `stop()`."""

    def __init__(
        self,
        take: Callable[[Parcel], Accepted],
        *,
        port: int = 0,
        most_bytes: int = BYTES,
        most_records: int = RECORDS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Bind a port, any free one by default; responses to logs carry `headers`.

        Raises:
            InvalidArgument: if the port is in use.
        """
        self._app = http.application(take, most_bytes=most_bytes, most_records=most_records, headers=headers)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            raise InvalidArgument(f"port {port} cannot be bound ({error.strerror}); choose another one") from None
        self._socket.listen(1024)
        self.port: int = self._socket.getsockname()[1]
        self.endpoint: Final = f"http://{HOST}:{self.port}"
        self._busy = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
            http=Guarded,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=300,
            timeout_graceful_shutdown=1,
        )
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # otherwise its warnings go to stderr
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="otel-progress-intake", daemon=True)

    def start(self) -> None:
        """Start serving; earlier connections are accepted, too."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and release the port; may be called twice."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._socket.close()

    def settled(self, timeout: float = 0.5) -> bool:
        """Whether no request is in progress: all bytes that had reached this machine's sockets are processed."""
        if not self._ready.wait(timeout) or self._loop is None:
            return False
        for _ in range(TURNS):
            turned = threading.Event()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return True  # the server has stopped
            if not turned.wait(timeout):
                return False
        return self._busy == 0

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._busy += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._busy -= 1

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._server.serve(sockets=[self._socket])
