"""OTLP over gRPC, coming in: on an event loop of its own, so that a call that only waits holds no thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.monitor.auth import SEND
from otel_progress.monitor.intake import records
from otel_progress.monitor.intake.records import Envelope, Refused, Sender, Taken

if TYPE_CHECKING:
    from otel_progress.monitor.auth import Auth
    from otel_progress.monitor.intake.request_queue import Done

STREAMS: Final = 128
"""The most calls on one connection at a time."""
READING: Final = 1_024
"""The most calls whose message has not come in yet; where there are more, the oldest is given up."""
MESSAGE_SECONDS: Final = 5.0
"""The longest that a message may take to come in."""
SECONDS: Final = 30.0
"""The longest that a request waits for the store."""
STOP_SECONDS: Final = 3.0
OPEN_SECONDS: Final = 10.0
"""The longest that it may take to open the port."""
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
        given_up: calls that were given up for others before their message came.
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
        self._grpc: Any = grpc
        self._offer = offer
        self._auth = auth
        self._control = () if control is None else (("otel-progress-control", control),)
        self._reading: dict[asyncio.Future[bytes | None], None] = {}
        self.given_up = self.port = 0
        self._loop = asyncio.new_event_loop()
        self._start, self._stop, self._opened = asyncio.Event(), asyncio.Event(), threading.Event()
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._thread = threading.Thread(target=self._run, args=(target,), name="otel-progress-grpc", daemon=True)
        self._thread.start()
        self._opened.wait(OPEN_SECONDS)
        if not self.port:
            from otel_progress.monitor.app import held

            raise InvalidArgument(held(port, "in use").replace("--port", "--grpc-port"))

    def start(self) -> None:
        """Answer from now on."""
        self._loop.call_soon_threadsafe(self._start.set)

    def stop(self) -> None:
        """Take no more; it may be called twice."""
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
            ("grpc.max_receive_message_length", records.BYTES),
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
        """Take a request; nothing is read of one that may not send."""
        try:
            token = self._admit(context)
            body = await self._read(messages)
            taken = await self._store(signal, body, context.peer(), token)
        except Refused as refused:
            await self._refuse(refused, context)
        if signal == "logs":
            await context.send_initial_metadata(self._control)
        return records.answer(signal, taken).SerializeToString()

    def _admit(self, context: Any) -> int | None:
        """What it was admitted by."""
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
        """The message of a request, where it comes in good time."""
        reading = asyncio.ensure_future(_first(messages))
        self._reading[reading] = None
        if len(self._reading) > READING:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            self.given_up += 1
            oldest.cancel()
        try:
            body = await asyncio.wait_for(reading, min(MESSAGE_SECONDS, records.BODY_SECONDS))
        except asyncio.CancelledError:
            if reading in self._reading:
                raise
            raise Refused(503, "the message came in too slowly while many others did", 1) from None
        except Exception:
            body = None
        finally:
            self._reading.pop(reading, None)
        if body is None:
            raise Refused(400, "the message did not come, or not in good time")
        return body

    async def _store(self, signal: str, body: bytes, connection: str, token: int | None) -> Taken:
        """Wait until a request is stored."""
        answer: asyncio.Future[Taken | Refused] = self._loop.create_future()

        def settle(found: Taken | Refused) -> None:
            if not answer.done():
                answer.set_result(found)

        def done(found: Taken | Refused) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(settle, found)

        self._offer(Envelope(signal, body, sender=Sender(connection, token, answer.done)), done)
        try:
            found = await asyncio.wait_for(answer, SECONDS)  # it is cancelled with the call, and so gone
        except asyncio.TimeoutError:
            raise Refused(503, "it could not be stored in time", 1) from None
        if isinstance(found, Refused):
            raise found
        return found

    async def _refuse(self, refused: Refused, context: Any) -> NoReturn:
        """Abort with the code that the status stands for; those that may come again say when."""
        code = getattr(self._grpc.StatusCode, _CODES.get(refused.status, "UNAVAILABLE"))
        more = () if refused.retry_after is None else (("grpc-status-details-bin", _details(refused)),)
        await context.abort(code, refused.reason, more)
        raise AssertionError("abort raises")


async def _first(messages: AsyncIterator[bytes]) -> bytes | None:
    async for message in messages:
        return message
    return None


def _services(intake: GrpcIntake) -> Any:
    """What finds the handler of a method."""
    import grpc

    class Services(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            service, _, method = call.method.lstrip("/").partition("/")
            signal = SERVICES.get(service)
            if signal is None or method != "Export":
                return None
            found: str = signal

            async def take(messages: AsyncIterator[bytes], context: Any) -> bytes:
                return await intake.take(found, messages, context)

            return grpc.stream_unary_rpc_method_handler(take)

    return Services()


def _details(refused: Refused) -> bytes:
    """A `google.rpc.Status` with a `RetryInfo`: 14 is UNAVAILABLE."""
    from otel_progress.outbound.otlp import chunk

    delay = chunk(1, b"\x08" + bytes((min(refused.retry_after or 0, 127),)))
    detail = chunk(1, b"type.googleapis.com/google.rpc.RetryInfo") + chunk(2, delay)
    return b"\x08\x0e" + chunk(2, refused.reason.encode()[:1000]) + chunk(3, detail)
