"""OTLP over gRPC, coming in: on an event loop of its own, so that a call that only waits holds no thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.monitor import otlp
from otel_progress.monitor.auth import SEND
from otel_progress.monitor.otlp import Envelope, Refused, Sender, Taken

if TYPE_CHECKING:
    from otel_progress.monitor.auth import Auth
    from otel_progress.monitor.waiting import Done

STREAMS: Final = 64
"""The most calls of one connection at a time; the client's own library holds back the others."""
READING: Final = 256
"""The most calls whose message has not come in yet; when there are more, the oldest is given up."""
MESSAGE_SECONDS: Final = 5.0
"""The longest that a message may take to come in."""
SECONDS: Final = 30.0
"""The longest that a request waits for the store."""
START_SECONDS: Final = 10.0
SERVICES: Final = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
_CODES: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 413: "RESOURCE_EXHAUSTED"}

Offer = Callable[[Envelope, "Done"], None]


class GrpcIntake:
    """Takes OTLP over gRPC, from `start()` to `stop()`.

    Attributes:
        port: where it listens.
        given_up: calls that made room for others before their message came.
    """

    def __init__(self, offer: Offer, auth: Auth, host: str, port: int, control: str | None) -> None:
        """Hold a port.

        Raises:
            InvalidArgument: where another program holds it.
            MissingDependency: where gRPC is not installed.
        """
        try:
            import grpc.aio
        except ImportError:
            raise MissingDependency('OTLP over gRPC needs: pip install "otel-progress[monitor]"') from None
        self._grpc = grpc
        self._offer = offer
        self._auth = auth
        self._control = () if control is None else (("otel-progress-control", control),)
        self._reading: dict[asyncio.Future[bytes], None] = {}
        self.given_up = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="otel-progress-grpc", daemon=True)
        self._opened = threading.Event()
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._thread.start()
        self._opened.wait(START_SECONDS)
        if not self.port:
            from otel_progress.monitor.app import held

            raise InvalidArgument(held(port, "in use").replace("--port", "--grpc-port"))

    def start(self) -> None:
        """Answer from now on."""
        self._started.set()
