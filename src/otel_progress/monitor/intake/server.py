"""An OTLP server on the loopback interface, in a thread of its own; `otel-progress run` uses it.

Its address is known at once. What serves HTTP is imported in that thread, while the command starts: connections wait.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from otel_progress.errors import InvalidArgument
from otel_progress.monitor.intake.requests import BYTES, RECORDS, Accepted, Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

HOST: Final = "127.0.0.1"
STOP_SECONDS: Final = 1.0
PATIENCE: Final = 0.25
"""Seconds that the import waits for a first connection: the command starts faster, and may be over by then."""
TURNS: Final = 5
"""Turns of the event loop after which bytes in a socket have become a request in progress."""


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
        self._take = take
        self._options: dict[str, Any] = {"most_bytes": most_bytes, "most_records": most_records, "headers": headers}
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
        self._server: Any = None
        self._stops = False
        self._thread = threading.Thread(target=self._run, name="otel-progress-intake", daemon=True)

    def start(self) -> None:
        """Start serving; earlier connections are accepted, too."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and release the port; may be called twice."""
        self._stops = True
        if self._server is not None:
            self._server.should_exit = True
        if self._thread.is_alive() and (self._ready.is_set() or self._is_called()):
            self._thread.join(STOP_SECONDS)
        self._socket.close()

    def settled(self, timeout: float = 0.5) -> bool:
        """Whether no request is in progress: all bytes that had reached this machine's sockets are processed."""
        if not self._ready.is_set() and not self._is_called():
            return True
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

    def _is_called(self, timeout: float = 0.0) -> bool:
        """Whether a connection waits to be accepted; without one, waits for the first one for `timeout` seconds."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                return bool(selector.select(timeout))
        except (OSError, ValueError):
            return False

    def _run(self) -> None:
        if self._is_called(PATIENCE) or not self._stops:
            asyncio.run(self._main())

    async def _main(self) -> None:
        import uvicorn

        from otel_progress.monitor.intake import http
        from otel_progress.monitor.intake.connection import Guarded

        config = uvicorn.Config(
            self._counted(http.application(self._take, **self._options)),
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
        self._server.should_exit = self._stops
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._server.serve(sockets=[self._socket])

    def _counted(self, application: ASGIApp) -> ASGIApp:
        """The application, with its requests in progress counted."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            self._busy += 1
            try:
                await application(scope, receive, send)
            finally:
                self._busy -= 1

        return serve
