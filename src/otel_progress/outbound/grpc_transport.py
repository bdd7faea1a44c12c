"""OTLP over gRPC, and the gate that keeps calls of gRPC away from a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from otel_progress import clock, forks
from otel_progress.errors import MissingDependency
from otel_progress.outbound import trouble
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import STANDARD
from otel_progress.outbound.compression import Compression
from otel_progress.outbound.otlp import rejected, retry_delay
from otel_progress.semconv import CONTROL_HEADER, DISCARDS_HEADER
from otel_progress.settings import Endpoint, quiet_grpc

METHODS: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
RECONNECT: Final = {
    "grpc.initial_reconnect_backoff_ms": round(STANDARD.first * 1000),
    "grpc.max_reconnect_backoff_ms": round(STANDARD.longest * 1000),
}
"""The pauses between attempts to connect; gRPC's own grow to 2 minutes in a long outage."""
FORK_WAIT: Final = 0.04
"""How long a fork waits for calls in flight, in seconds."""
CANCEL_WAIT: Final = 0.01
"""How long a fork waits for the threads of the calls that it cancelled, in seconds."""
_RETRYABLE: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
)
_UNIMPLEMENTED: Final = "UNIMPLEMENTED"
"""The status of a server that has no such service, or can't read gzip."""
_ABOUT_DATA: Final = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "ALREADY_EXISTS"})


class Gate:
    """Keeps our threads out of gRPC while the process forks: a child forked during a call may crash."""

    def __init__(self) -> None:
        """Start open."""
        self._ready = threading.Condition()
        self._calls: set[Any] = set()
        self._cancelled: set[Any] = set()
        self._forks = 0

    def call(self, start: Callable[[], Any]) -> Any:
        """Start a call outside of any fork, and wait for its result; a call that a fork cancelled is started again."""
        while True:
            with self._ready:
                self._ready.wait_for(lambda: not self._forks)
                future = start()
                self._calls.add(future)
            try:
                return future.result()
            except Exception:
                if future not in self._cancelled:
                    raise
            finally:
                with self._ready:
                    self._calls.discard(future)
                    self._cancelled.discard(future)
                    self._ready.notify_all()

    def apart(self, call: Callable[[], None]) -> None:
        """Make a call that does not wait, outside of any fork."""
        with self._ready:
            self._ready.wait_for(lambda: not self._forks)
            call()

    def close(self) -> None:
        """Let no call start, wait briefly for those in flight, and cancel the rest."""
        with self._ready:
            self._forks += 1
            if self._ready.wait_for(lambda: not self._calls, FORK_WAIT):
                return
            self._cancelled |= self._calls
            for future in self._calls:
                future.cancel()
            self._ready.wait_for(lambda: not self._calls, CANCEL_WAIT)

    def open(self) -> None:
        """Let calls start again."""
        with self._ready:
            self._forks -= 1
            self._ready.notify_all()


gate = Gate()


def _before_fork() -> None:
    gate.close()


def _after_fork() -> None:
    gate.open()


def _after_fork_in_child() -> None:
    global gate
    gate = Gate()


def _guard_forks() -> None:
    """Register with `forks` when gRPC is first used."""
    if _before_fork not in forks.before:
        forks.before.append(_before_fork)
        forks.after.append(_after_fork)
        forks.in_child.insert(0, _after_fork_in_child)


def _same(body: Any) -> Any:
    return body


def _asked(error: Any) -> float | None:
    """The pause that the trailing metadata of a status asks for, in seconds."""
    try:
        found = next((value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"), b"")
        return retry_delay(found) if isinstance(found, bytes) else None
    except Exception:
        return None


def _header(call: Any, name: str) -> str | None:
    """A header in the initial metadata of an answer."""
    try:
        found = next((value for key, value in call.initial_metadata() or () if key == name.lower()), None)
    except Exception:
        return None
    return found if isinstance(found, str) else None


class GrpcTransport:
    """Carries the requests of one signal over gRPC."""

    def __init__(self, signal: str, endpoint: Endpoint) -> None:
        """Load gRPC; nothing is opened before the first request.

        Raises:
            MissingDependency: if grpcio is not installed.
        """
        quiet_grpc()
        try:
            import grpc
            import grpc._channel  # else grpc imports these two at its first call; a fork meanwhile harms the child
            import grpc.experimental
        except ImportError:
            raise MissingDependency('OTLP over gRPC needs: pip install "otel-progress[grpc]"') from None
        _guard_forks()
        self._grpc = grpc
        self._signal = signal
        self._method = METHODS[signal]
        self._endpoint = endpoint
        self._compression = Compression(endpoint)
        self._channel: Any = None
        self._call: Any = None

    def _open(self) -> Any:
        grpc, endpoint = self._grpc, self._endpoint
        scheme, _, rest = endpoint.url.partition("://")
        target = rest.rstrip("/")
        options = tuple(RECONNECT.items())
        if scheme == "https":
            self._channel = grpc.secure_channel(target, self._credentials(), options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._call = self._channel.unary_unary(self._method, request_serializer=_same, response_deserializer=_same)
        return self._call

    def _credentials(self) -> Any:
        def load(path: str | None) -> bytes | None:
            if path is None:
                return None
            with open(path, "rb") as file:
                return file.read()

        endpoint = self._endpoint
        return self._grpc.ssl_channel_credentials(
            load(endpoint.certificate), load(endpoint.client_key), load(endpoint.client_certificate)
        )

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send an export request; it never raises. A receiver that refuses gzip gets it again without."""
        seconds = self._endpoint.timeout if timeout is None else min(timeout, self._endpoint.timeout)
        deadline = clock.monotonic() + seconds
        compression = self._compression
        is_packed = compression.covers(body)  # gRPC itself sends what gets no smaller as it is
        answer, code = self._ask(body, deadline, is_packed=is_packed)
        if is_packed and answer.delivered:
            compression.accepted()
        elif is_packed and code == _UNIMPLEMENTED and compression.may_be_to_blame(surely=False):
            again, code = self._ask(body, deadline, is_packed=False)
            if again.delivered:
                compression.stop()
            return again
        return answer

    def _ask(self, body: bytes, deadline: float, *, is_packed: bool) -> tuple[Answer, str]:
        """Send a request once; the status, too, if it is not OK."""
        algorithms = self._grpc.Compression
        algorithm = algorithms.Gzip if is_packed else algorithms.NoCompression
        in_flight: Any = None

        def start() -> Any:
            nonlocal in_flight
            call, left = self._call or self._open(), max(0.1, deadline - clock.monotonic())
            in_flight = call.future(body, timeout=left, metadata=self._endpoint.headers, compression=algorithm)
            return in_flight

        try:
            answer = gate.call(start)
        except self._grpc.RpcError as error:
            code, details = error.code().name, str(error.details())
            if code == "DEADLINE_EXCEEDED":
                gate.apart(self.close)  # else gRPC goes on reading whatever arrives on this connection
            reset = "RST_STREAM" in details  # by a proxy: an OTLP receiver answers with a status
            failed = Answer(
                False,
                retry=code in _RETRYABLE or reset,
                after=_asked(error),
                unclear=code in ("DEADLINE_EXCEEDED", "CANCELLED") or "failed to connect" not in details,
                about_data=code in _ABOUT_DATA,
                reason=trouble.plain(f"gRPC {code}: {details}"),
                trouble=trouble.of_grpc(self._endpoint, self._signal, code, details),
            )
            return failed, code
        except Exception as error:
            wrong = trouble.of_error(self._endpoint, error)
            reason = trouble.plain(f"{type(error).__name__}: {error}")
            return Answer(False, retry=True, unclear=True, reason=reason, trouble=wrong), ""
        refused, why = rejected(answer)
        control, discards = _header(in_flight, CONTROL_HEADER), _header(in_flight, DISCARDS_HEADER) == self._signal
        return Answer(True, rejected=refused, reason=trouble.plain(why), control=control, discards=discards), ""

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._call = None
