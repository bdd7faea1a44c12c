"""Carries finished OTLP requests to a receiver, over HTTP or gRPC.

One request never takes longer than its timeout (1.5 s at the most), however slowly the other side sends; what may be
tried again, and when, follows the OTLP specification: 429, 502, 503 and 504 with their Retry-After, and the gRPC codes
that say so. Any other refusal of a receiver is final for the request, but only some are about its data; the rest (401,
404, …) are about the way to the receiver. What no receiver of OTLP answers (a redirect, a web page, no whole answer) is
no refusal. A request that got no answer is sent again, so a receiver may get an event twice; its id, attempt and
sequence tell.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_progress import clock, forks
from otel_progress.errors import MissingDependency
from otel_progress.outbound import trouble
from otel_progress.outbound.backoff import STANDARD
from otel_progress.outbound.deadline import seconds_of
from otel_progress.outbound.otlp import rejected, retry_delay
from otel_progress.outbound.trouble import Trouble
from otel_progress.semconv import CONTROL_HEADER
from otel_progress.settings import Endpoint, quiet_grpc

if TYPE_CHECKING:
    from otel_progress.outbound.session import Reply

OTLP: Final = frozenset({"otlp", "otlp_proto_http", "otlp_proto_grpc"})
"""The names that `OTEL_LOGS_EXPORTER` and its like have for OTLP."""
RETRYABLE: Final = frozenset({429, 502, 503, 504})
SERVICES: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
ABOUT_DATA: Final = frozenset({400, 413, 415, 422})
TOO_LARGE: Final = 413
RECONNECT: Final = {
    "grpc.initial_reconnect_backoff_ms": round(STANDARD.first * 1000),
    "grpc.max_reconnect_backoff_ms": round(STANDARD.longest * 1000),
}
"""The pauses between attempts to connect; else gRPC makes them 2 minutes long in a long outage."""
FORK_WAIT: Final = 0.04
"""How long a fork waits for calls under way, in seconds."""
CUT_WAIT: Final = 0.01
"""How long it waits for the threads of those that it cut off."""
ANSWER_BYTES: Final = 64 * 1024
"""The most of an answer that is read."""
_RETRYABLE_CODES: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
)
_ABOUT_DATA_CODES: Final = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "ALREADY_EXISTS"})


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        delivered: the receiver has it.
        retry: it may be sent again.
        after: the receiver asked to wait so many seconds first.
        rejected: items that the receiver refused although it took the request.
        unclear: no answer came, or a gateway's: the receiver may have it all the same.
        about_data: it was refused for what it holds, so it is of no use to anyone.
        too_large: it was refused for its size; in parts it may be taken.
        reason: what was answered, or why nothing was, where something went wrong.
        trouble: the same in words, with the cure.
        control: where the receiver passes commands on, as it said.
    """

    delivered: bool
    retry: bool = False
    after: float | None = None
    rejected: int = 0
    unclear: bool = False
    about_data: bool = False
    too_large: bool = False
    reason: str = ""
    trouble: Trouble | None = None
    control: str | None = None


class Said:
    """What the log says of one signal: that it is not delivered, once, and that it is again."""

    def __init__(self, name: str) -> None:
        """Of this signal, in words."""
        self._name = name
        self.trouble: Trouble | None = None
        """Why the last request was not delivered."""

    def answered(self, answer: Answer) -> None:
        """A request came to this."""
        before = self.trouble
        if answer.delivered:
            self.trouble = None
        else:
            text = f"{self._name} can't be delivered ({answer.reason})"
            self.trouble = answer.trouble or Trouble("the receiver", text, text, self._name)
            trouble.teller.begin(self.trouble)
        if before is not None and before != self.trouble:
            trouble.teller.over(before, replaced=not answer.delivered)


class Transport(Protocol):
    """Carries the requests of one signal."""

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send an export request; it never raises."""

    def close(self) -> None:
        """Let connections go."""


def connect(signal: str, endpoint: Endpoint) -> Transport:
    """The transport for a signal (`logs`, `metrics` or `traces`); nothing is opened before the first request.

    Raises:
        MissingDependency: where the client for the protocol is not installed.
    """
    if endpoint.protocol == "grpc":
        return _Grpc(signal, endpoint)
    return _Http(signal, endpoint)


class _Http:
    def __init__(self, signal: str, endpoint: Endpoint) -> None:
        try:
            import netrc  # noqa: F401  # requests imports it at the first request; a fork in that moment harms the child

            from otel_progress.outbound.session import Session
        except ImportError:
            raise MissingDependency("OTLP over HTTP needs: pip install otel-progress") from None
        self._signal = signal
        self._endpoint = endpoint
        self._session = Session()
        self._session.headers.update(dict(endpoint.headers))
        self._session.headers["Content-Type"] = "application/x-protobuf"
        self._session.headers["User-Agent"] = "otel-progress"
        if endpoint.compression == "gzip":
            self._session.headers["Content-Encoding"] = "gzip"
        if endpoint.client_certificate:
            key = endpoint.client_key
            self._session.cert = (endpoint.client_certificate, key) if key else endpoint.client_certificate

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        endpoint = self._endpoint
        seconds = endpoint.timeout if timeout is None else min(timeout, endpoint.timeout)
        if endpoint.compression == "gzip":
            body = gzip.compress(body, 1)
        try:
            # `verify` is given here, as REQUESTS_CA_BUNDLE stands above that of the session.
            reply = self._session.ask(
                "POST", endpoint.url, seconds, ANSWER_BYTES, data=body, verify=endpoint.certificate
            )
        except Exception as error:
            reason, why = trouble.plain(f"{type(error).__name__}: {error}"), trouble.of_error(endpoint, error)
            return Answer(False, retry=True, unclear=not _refused(error), reason=reason, trouble=why)
        return self._answer(reply)

    def _answer(self, reply: Reply) -> Answer:
        status, body = reply.status, reply.body
        page = trouble.web_page(self._endpoint, body)
        if 200 <= status < 300 and page is None:
            refused, why = rejected(body)
            return Answer(True, rejected=refused, reason=trouble.plain(why), control=reply.headers.get(CONTROL_HEADER))
        said = body[:200].decode("utf-8", "replace")
        reason = trouble.plain(f"HTTP {status} {said}")
        wrong = trouble.of_status(self._endpoint, self._signal, status, "" if page else said)
        if status < 400:
            return Answer(False, retry=True, reason=reason, trouble=page or wrong)
        if status not in RETRYABLE:
            wrong = wrong if status in (401, 403) else page or wrong
            about, large = status in ABOUT_DATA, status == TOO_LARGE
            return Answer(False, about_data=about, too_large=large, reason=reason, trouble=wrong)
        wait = seconds_of(reply.headers.get("Retry-After", ""), clock.unix())
        return Answer(False, retry=True, after=wait, unclear=status in (502, 504), reason=reason, trouble=wrong)

    def close(self) -> None:
        self._session.close()


def _refused(error: Any) -> bool:
    """Whether not even a connection was made."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return type(cause).__name__ in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError")


class Gate:
    """Keeps our threads out of gRPC while the process forks: a child that is forked inside a call of it may crash."""

    def __init__(self) -> None:
        """Open."""
        self._ready = threading.Condition()
        self._calls: set[Any] = set()
        self._cut: set[Any] = set()
        self._forks = 0

    def call(self, start: Callable[[], Any]) -> Any:
        """Start a call when no fork is under way, and wait for its result; one that a fork cut off is started again."""
        while True:
            with self._ready:
                self._ready.wait_for(lambda: not self._forks)
                future = start()
                self._calls.add(future)
            try:
                return future.result()
            except Exception:
                if future not in self._cut:
                    raise
            finally:
                with self._ready:
                    self._calls.discard(future)
                    self._cut.discard(future)
                    self._ready.notify_all()

    def apart(self, call: Callable[[], None]) -> None:
        """Do this while no fork is under way."""
        with self._ready:
            self._ready.wait_for(lambda: not self._forks)
            call()

    def close(self) -> None:
        """Let no call begin, wait a moment for those under way, and cut off what is left."""
        with self._ready:
            self._forks += 1
            if self._ready.wait_for(lambda: not self._calls, FORK_WAIT):
                return
            self._cut |= self._calls
            for future in self._calls:
                future.cancel()
            self._ready.wait_for(lambda: not self._calls, CUT_WAIT)

    def open(self) -> None:
        """Go on."""
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
    """Once, when gRPC is used first."""
    if _before_fork not in forks.before:
        forks.before.append(_before_fork)
        forks.after.append(_after_fork)
        forks.in_child.insert(0, _after_fork_in_child)


def _same(body: Any) -> Any:
    return body


def _asked(error: Any) -> float | None:
    """The seconds that the trailing metadata of a status ask to wait."""
    try:
        found = next((value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"), b"")
        return retry_delay(found) if isinstance(found, bytes) else None
    except Exception:
        return None


def _control(call: Any) -> str | None:
    """What the initial metadata of an answer says of a control channel."""
    try:
        found = next((value for key, value in call.initial_metadata() or () if key == CONTROL_HEADER.lower()), None)
    except Exception:
        return None
    return found if isinstance(found, str) else None


class _Grpc:
    def __init__(self, signal: str, endpoint: Endpoint) -> None:
        quiet_grpc()
        try:
            import grpc
            import grpc._channel  # grpc imports these two at the first call; a fork in that moment harms the child
            import grpc.experimental
        except ImportError:
            raise MissingDependency('OTLP over gRPC needs: pip install "otel-progress[grpc]"') from None
        _guard_forks()
        self._grpc = grpc
        self._signal = signal
        self._method = SERVICES[signal]
        self._endpoint = endpoint
        self._channel: Any = None
        self._call: Any = None

    def _open(self) -> Any:
        grpc, endpoint = self._grpc, self._endpoint
        scheme, _, rest = endpoint.url.partition("://")
        target = rest.rstrip("/")
        options = tuple(RECONNECT.items())
        zip_it = grpc.Compression.Gzip if endpoint.compression == "gzip" else grpc.Compression.NoCompression
        if scheme == "https":
            self._channel = grpc.secure_channel(target, self._credentials(), options, compression=zip_it)
        else:
            self._channel = grpc.insecure_channel(target, options, compression=zip_it)
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
        seconds = self._endpoint.timeout if timeout is None else min(timeout, self._endpoint.timeout)
        deadline = clock.monotonic() + seconds
        under_way: Any = None

        def start() -> Any:
            nonlocal under_way
            call, left = self._call or self._open(), max(0.1, deadline - clock.monotonic())
            under_way = call.future(body, timeout=left, metadata=self._endpoint.headers)
            return under_way

        try:
            answer = gate.call(start)
        except self._grpc.RpcError as error:
            code, details = error.code().name, str(error.details())
            if code == "DEADLINE_EXCEEDED":
                gate.apart(self.close)  # gRPC goes on reading, at our cost, whatever it is sent on this connection
            cut = "RST_STREAM" in details  # by something on the way: a receiver of OTLP answers with a status
            return Answer(
                False,
                retry=code in _RETRYABLE_CODES or cut,
                after=_asked(error),
                unclear=code in ("DEADLINE_EXCEEDED", "CANCELLED") or "failed to connect" not in details,
                about_data=code in _ABOUT_DATA_CODES,
                reason=trouble.plain(f"gRPC {code}: {details}"),
                trouble=trouble.of_grpc(self._endpoint, self._signal, code, details),
            )
        except Exception as error:
            wrong = trouble.of_error(self._endpoint, error)
            reason = trouble.plain(f"{type(error).__name__}: {error}")
            return Answer(False, retry=True, unclear=True, reason=reason, trouble=wrong)
        refused, why = rejected(answer)
        return Answer(True, rejected=refused, reason=trouble.plain(why), control=_control(under_way))

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = self._call = None
