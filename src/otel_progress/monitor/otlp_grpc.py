"""OTLP over gRPC, coming in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.monitor import otlp
from otel_progress.monitor.auth import SEND
from otel_progress.monitor.otlp import Envelope, Refused, Taken

if TYPE_CHECKING:
    from otel_progress.monitor.auth import Auth
    from otel_progress.monitor.core import Done

THREADS: Final = 32
"""So many requests are served at once; each has a thread that waits for its message, and for the store."""
SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
"""How often it is looked whether a message takes too long to come in."""
SERVICES: Final = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
_CODES: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 413: "RESOURCE_EXHAUSTED"}

Offer = Callable[[Envelope, "Done"], None]


class GrpcIntake:
    """Takes OTLP over gRPC, from `start()` to `stop()`."""

    def __init__(self, offer: Offer, auth: Auth, host: str, port: int, control: str | None) -> None:
        """Hold a port.

        Raises:
            InvalidArgument: where another program holds it.
            MissingDependency: where gRPC is not installed.
        """
        try:
            import grpc
        except ImportError:
            raise MissingDependency('OTLP over gRPC needs: pip install "otel-progress[monitor]"') from None
        self._grpc = grpc
        self._offer = offer
        self._auth = auth
        self._control = () if control is None else (("otel-progress-control", control),)
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, "otel-progress-grpc"),
            options=(("grpc.max_receive_message_length", otlp.BYTES), ("grpc.so_reuseport", 0)),
            maximum_concurrent_rpcs=THREADS * 2,
        )
        self._server.add_generic_rpc_handlers((_services(self),))
        self._reading: dict[Any, float] = {}
        self._stopped = threading.Event()
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port: int = self._server.add_insecure_port(target)
        except RuntimeError:
            self.port = 0
        if not self.port:
            self._server.stop(None)
            from otel_progress.monitor.app import held

            raise InvalidArgument(held(port, "in use").replace("--port", "--grpc-port"))

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()
        threading.Thread(target=self._hurry, name="otel-progress-grpc-hurry", daemon=True).start()

    def stop(self) -> None:
        """Take no more."""
        self._stopped.set()
        self._server.stop(1.0).wait(2.0)

    def take(self, signal: str, messages: Iterator[bytes], context: Any) -> bytes:
        """Take a request, in a thread of the server; nothing is read of one that may not send."""
        try:
            self._admit(context)
            taken = self._wait(Envelope(signal, self._read(messages, context)))
        except Refused as refused:
            self._refuse(refused, context)
        if signal == "logs":
            context.send_initial_metadata(self._control)
        return otlp.answer(signal, taken).SerializeToString()

    def _admit(self, context: Any) -> None:
        from starlette.datastructures import Headers

        found = [(key.lower(), value) for key, value in context.invocation_metadata() if isinstance(value, str)]
        identity = self._auth.who(Headers(raw=[(key.encode(), value.encode()) for key, value in found]))
        if identity is None:
            raise Refused(401, "a token is needed: send the metadata `authorization: Bearer TOKEN`")
        if SEND not in identity.rights:
            raise Refused(403, "this token has no right to send")

    def _read(self, messages: Iterator[bytes], context: Any) -> bytes:
        """The message of a request."""
        self._reading[context] = clock.monotonic() + otlp.BODY_SECONDS
        try:
            body = next(messages, None)
        except Exception:
            body = None
        finally:
            del self._reading[context]
        if body is None:
            raise Refused(400, "the message did not come, or not in good time")
        return body

    def _hurry(self) -> None:
        """Give up requests whose message does not come: each of them holds a thread."""
        while not self._stopped.wait(LOOK_SECONDS):
            now = clock.monotonic()
            for context, until in list(self._reading.items()):
                if now > until:
                    with contextlib.suppress(Exception):  # it came to its end just now
                        context.cancel()

    def _wait(self, envelope: Envelope) -> Taken:
        stored = threading.Event()
        answers: list[Taken | Refused] = []

        def done(answer: Taken | Refused) -> None:
            answers.append(answer)
            stored.set()

        self._offer(envelope, done)
        if not stored.wait(SECONDS):
            raise Refused(503, "it could not be stored in time", 1)
        answer = answers[0]
        if isinstance(answer, Refused):
            raise answer
        return answer

    def _refuse(self, refused: Refused, context: Any) -> None:
        """Abort with the code that the status stands for; those that may come again say when."""
        code = getattr(self._grpc.StatusCode, _CODES.get(refused.status, "UNAVAILABLE"))
        if refused.retry_after is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", _details(refused)),))
        context.abort(code, refused.reason)


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
            return grpc.stream_unary_rpc_method_handler(lambda messages, context: intake.take(found, messages, context))

    return Services()


def _details(refused: Refused) -> bytes:
    """A `google.rpc.Status` with a `RetryInfo`: 14 is UNAVAILABLE."""
    from otel_progress.telemetry.protobuf import chunk

    delay = chunk(1, b"\x08" + bytes((min(refused.retry_after or 0, 127),)))
    detail = chunk(1, b"type.googleapis.com/google.rpc.RetryInfo") + chunk(2, delay)
    return b"\x08\x0e" + chunk(2, refused.reason.encode()[:1000]) + chunk(3, detail)
