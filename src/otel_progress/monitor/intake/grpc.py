"""OTLP over gRPC, received on an event loop of its own, so that a waiting call holds no thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.monitor.auth import SEND
from otel_progress.monitor.intake import reflection
from otel_progress.monitor.intake.acknowledgement import Offer, acknowledged
from otel_progress.monitor.intake.messages import response
from otel_progress.monitor.intake.requests import (
    BODY_SECONDS,
    LARGEST,
    Accepted,
    Envelope,
    Refused,
    Sender,
    address_of,
)
from otel_progress.monitor.ports import held
from otel_progress.settings import quiet_grpc

if TYPE_CHECKING:
    from otel_progress.monitor.auth import Auth
    from otel_progress.monitor.intake.http import BySignal

STREAMS: Final = 128
"""The most concurrent calls on one connection."""
READING: Final = 1_024
"""The most calls whose message is still arriving; beyond it the oldest is aborted."""
MESSAGE_SECONDS: Final = 5.0
"""Seconds within which a message must arrive."""
SECONDS: Final = 30.0
"""Seconds that a request may wait to be stored."""
STOP_SECONDS: Final = 3.0
OPEN_SECONDS: Final = 10.0
"""Seconds that opening the port may take."""
SERVICES: Final = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
HEALTH: Final = "grpc.health.v1.Health"
"""The service of gRPC's health checking protocol: `Check` and `Watch`."""
SERVING: Final = b"\x08\x01"
SERVICE_UNKNOWN: Final = b"\x08\x03"
WATCH_SECONDS: Final = 60.0
"""Seconds after which a call of `Watch` ends."""
_CODES: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 413: "RESOURCE_EXHAUSTED"}


class GrpcIntake:
    """Accepts OTLP over gRPC from `start()` to `stop()`.

    Attributes:
        port: the port it listens on.
        given_up: the number of calls aborted before their message arrived, to make room for others.
    """

    def __init__(self, offer: Offer, auth: Auth, host: str, port: int, headers: BySignal) -> None:
        """Bind a port; answers carry the `headers` of their signal as metadata.

        Raises:
            InvalidArgument: if the port is in use.
            MissingDependency: if gRPC is not installed.
        """
        quiet_grpc()
        try:
            import grpc.aio
        except ImportError:
            raise MissingDependency('OTLP over gRPC needs: pip install "otel-progress[monitor]"') from None
        self._grpc: Any = grpc
        self._offer = offer
        self._auth = auth
        self._metadata = {
            signal: tuple((name.lower(), value) for name, value in more.items()) for signal, more in headers.items()
        }
        self._reading: dict[asyncio.Future[bytes | None], None] = {}
        self.given_up = self.port = 0
        self._loop = asyncio.new_event_loop()
        self._start, self._stop, self._opened = asyncio.Event(), asyncio.Event(), threading.Event()
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._thread = threading.Thread(target=self._run, args=(target,), name="otel-progress-grpc", daemon=True)
        self._thread.start()
        self._opened.wait(OPEN_SECONDS)
        if not self.port:
            raise InvalidArgument(held(port, "in use").replace("--port", "--grpc-port"))

    def start(self) -> None:
        """Answer from now on."""
        self._loop.call_soon_threadsafe(self._start.set)

    def stop(self) -> None:
        """Stop serving; may be called twice."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)

    def _run(self, target: str) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(target))
        finally:
            self._opened.set()
            self._loop.close()

    async def _serve(self, target: str) -> None:
        options = (
            ("grpc.max_receive_message_length", LARGEST),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.so_reuseport", 0),
        )
        server = self._grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((_services(self),))
        try:
            self.port = server.add_insecure_port(target)
        except RuntimeError:
            return
        self._opened.set()
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((asyncio.ensure_future(self._start.wait()), stopping), return_when=asyncio.FIRST_COMPLETED)
        if not self._stop.is_set():
            await server.start()
            await stopping
        await server.stop(1.0)

    async def take(self, signal: str, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Handle one call; the message of an unauthorised one is never read."""
        try:
            token = self._admit(context)
            body = await self._read(messages)
            taken = await self._store(signal, body, context.peer(), token)
        except Refused as refused:
            await self._refuse(refused, context)
        await context.send_initial_metadata(self._metadata.get(signal, ()))
        return response(signal, taken.rejected, taken.reason).SerializeToString()

    def _admit(self, context: Any) -> int | None:
        """Check the token; returns its hash."""
        from starlette.datastructures import Headers

        found = [(key.lower(), value) for key, value in context.invocation_metadata() if isinstance(value, str)]
        headers = Headers(raw=[(key.encode(), value.encode()) for key, value in found])
        identity = self._auth.who(headers)
        if identity is None:
            raise Refused(401, "a token is needed: send the metadata `authorization: Bearer TOKEN`")
        if SEND not in identity.rights:
            raise Refused(403, "this token has no right to send")
        token = headers.get("authorization")
        return None if token is None else hash(token)

    async def _read(self, messages: AsyncIterator[bytes]) -> bytes:
        """The message of a call, if it arrives in time."""
        reading = asyncio.ensure_future(_first(messages))
        self._reading[reading] = None
        if len(self._reading) > READING:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            self.given_up += 1
            oldest.cancel()
        try:
            body = await asyncio.wait_for(reading, min(MESSAGE_SECONDS, BODY_SECONDS))
        except asyncio.CancelledError:
            if reading in self._reading:
                raise
            raise Refused(503, "the message arrived too slowly while many others did", 1) from None
        except Exception:
            body = None
        finally:
            self._reading.pop(reading, None)
        if body is None:
            raise Refused(400, "the message did not arrive, or not in time")
        return body

    async def _store(self, signal: str, body: bytes, connection: str, token: int | None) -> Accepted:
        """Wait until a request is stored."""
        is_over = False
        envelope = Envelope(signal, body, sender=Sender(connection, token, lambda: is_over, _address(connection)))
        try:
            return await asyncio.wait_for(acknowledged(self._offer, envelope), SECONDS)
        except asyncio.TimeoutError:
            raise Refused(503, "the request could not be stored in time", 1) from None
        finally:
            is_over = True  # also when the call is cancelled

    async def _refuse(self, refused: Refused, context: Any) -> NoReturn:
        """Abort with the code that matches the HTTP status; with a retry delay if there is one."""
        code = getattr(self._grpc.StatusCode, _CODES.get(refused.status, "UNAVAILABLE"))
        more = () if refused.retry_after is None else (("grpc-status-details-bin", _details(refused)),)
        await context.abort(code, refused.reason, more)
        raise AssertionError("abort raises")


def _address(peer: str) -> str | None:
    """The address in a peer such as `ipv4:10.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    host = unquote(peer.partition(":")[2]).rpartition(":")[0]
    return address_of(host.strip("[]")) if host else None


async def _first(messages: AsyncIterator[bytes]) -> bytes | None:
    async for message in messages:
        return message
    return None


def _services(intake: GrpcIntake) -> Any:
    """The generic handler that routes the three export methods."""
    import grpc

    class Services(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            service, _, method = call.method.lstrip("/").partition("/")
            if service == HEALTH:
                return _health(method, grpc)
            if service in reflection.SERVICES:
                return reflection.handler(method, grpc, tuple(SERVICES))
            signal = SERVICES.get(service)
            if signal is None or method != "Export":
                return None
            found: str = signal

            async def take(messages: AsyncIterator[bytes], context: Any) -> bytes:
                return await intake.take(found, messages, context)

            return grpc.stream_unary_rpc_method_handler(take)

    return Services()


def _health(method: str, grpc: Any) -> Any:
    """The methods of the health checking protocol of gRPC; they need no token, as `/health` does not."""

    async def check(request: bytes, context: Any) -> bytes:
        if request and request[2:].decode("utf-8", "replace") not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service; there are " + ", ".join(SERVICES))
        return SERVING

    async def watch(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        known = not request or request[2:].decode("utf-8", "replace") in SERVICES
        yield SERVING if known else SERVICE_UNKNOWN
        await asyncio.sleep(WATCH_SECONDS)  # a client that watches on asks again; until then nothing changes

    if method == "Check":
        return grpc.unary_unary_rpc_method_handler(check)
    return grpc.unary_stream_rpc_method_handler(watch) if method == "Watch" else None


def _details(refused: Refused) -> bytes:
    """A `google.rpc.Status` with a `RetryInfo`; code 14 is UNAVAILABLE."""
    from otel_progress.outbound.otlp import chunk

    delay = chunk(1, b"\x08" + bytes((min(refused.retry_after or 0, 127),)))
    detail = chunk(1, b"type.googleapis.com/google.rpc.RetryInfo") + chunk(2, delay)
    return b"\x08\x0e" + chunk(2, refused.reason.encode()[:1000]) + chunk(3, detail)
