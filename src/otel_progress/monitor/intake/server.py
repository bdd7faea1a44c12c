"""The intake: the OTLP application, served on this machine alone by a thread of its own."""

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
from otel_progress.monitor.intake import http, records
from otel_progress.monitor.intake.bodies import GONE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HOST: Final = "127.0.0.1"
STOP_SECONDS: Final = 1.0
TURNS: Final = 5
"""Rounds of the event loop in which what lies in a socket becomes a request under way."""
HEAD_SECONDS: Final = 10.0
"""The longest that the head of a request may take to come in, and the first of a connection to begin."""
BODY_SECONDS: Final = 15.0
"""The longest that a body may take; the application gives up before, and says so."""
HEAD_BYTES: Final = 512 * 1024
"""The most that is read while a head is not complete; above what asyncio reads at once, as a body may be in it."""
REQUEST_BYTES: Final = records.BYTES + HEAD_BYTES
"""The most that is read of a request; the application refuses bodies before, and says so."""
STUCK_SECONDS: Final = 15.0
"""Who takes nothing of what is sent to it for so long, or twice as long at the most, loses its connection."""


class Guarded(HttpToolsProtocol):
    """A connection whose requests begin and end in good time, not with an endless head, and whose answers are taken."""

    _read = 0
    _most = HEAD_BYTES
    _timer: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody came."""
        self._gone: list[Callable[[], object]] = []
        super().connection_made(transport)
        self._expect(HEAD_SECONDS, HEAD_BYTES)
        self._look = self.loop.call_later(STUCK_SECONDS, self._see_what_is_stuck, 0)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if self._timer is not None:
            self._read += len(data)
            if self._read > self._most:
                self.transport.close()
                return
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._timer is None and self.transport.get_protocol() is self:
            self._expect(HEAD_SECONDS, HEAD_BYTES)  # it was neither the beginning of a request nor an upgrade

    def on_message_begin(self) -> None:
        """A head begins."""
        self._read = 0
        self._expect(HEAD_SECONDS, HEAD_BYTES)
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[GONE] = self._gone

    def on_headers_complete(self) -> None:
        """It is complete, and a body may come."""
        self._expect(BODY_SECONDS, REQUEST_BYTES)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is there."""
        self._in_time()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing will come any more."""
        for call in tuple(self._gone):
            call()
        self._in_time()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _expect(self, seconds: float, most: int) -> None:
        self._in_time()
        self._most = most
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _see_what_is_stuck(self, before: int) -> None:
        """Also after an upgrade to a WebSocket, and where the connection is to close but the last is not taken."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting >= before > 0:
            self.transport.abort()
            return
        if not self.transport.is_closing() or waiting:
            self._look = self.loop.call_later(STUCK_SECONDS, self._see_what_is_stuck, waiting)


class Intake:
    """Takes OTLP on a port of this machine, from `start()` to `stop()`."""

    def __init__(
        self,
        take: Callable[[records.Parcel], records.Taken],
        *,
        port: int = 0,
        most_bytes: int = records.BYTES,
        most_records: int = records.RECORDS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Hold a port: the given one, or any that is free; answers to logs bear these headers.

        Raises:
            InvalidArgument: where another program holds the port.
        """
        self._app = http.application(take, most_bytes=most_bytes, most_records=most_records, headers=headers)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            raise InvalidArgument(f"port {port} can't be had ({error.strerror}); give another one") from None
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
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # else its warnings stand on stderr
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="otel-progress-intake", daemon=True)

    def start(self) -> None:
        """Answer from now on; connections that came before are taken, too."""
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more, and let the port go; it may be called twice."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._socket.close()

    def settled(self, timeout: float = 0.5) -> bool:
        """Whether nothing is under way: all that had reached this machine's sockets was taken."""
        if not self._ready.wait(timeout) or self._loop is None:
            return False
        for _ in range(TURNS):
            turned = threading.Event()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return True  # it is stopped
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
