"""OTLP over HTTP, by requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.errors import MissingDependency
from otel_progress.outbound import trouble
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.compression import Compression
from otel_progress.outbound.deadline import seconds_of
from otel_progress.outbound.otlp import rejected
from otel_progress.semconv import CONTROL_HEADER, DISCARDS_HEADER
from otel_progress.settings import Endpoint

if TYPE_CHECKING:
    from otel_progress.outbound.session import Reply

RETRYABLE: Final = frozenset({429, 502, 503, 504})
ABOUT_DATA: Final = frozenset({400, 413, 415, 422})
REFUSES_GZIP: Final = frozenset({400, 415})
"""What a receiver answers that can't read gzip; 400 may have other reasons."""
UNSUPPORTED: Final = 415
TOO_LARGE: Final = 413
LEAST: Final = 0.05
"""The shortest timeout of a request, in seconds."""
ANSWER_BYTES: Final = 64 * 1024
"""The largest answer body that is read."""


class HttpTransport:
    """Carries the requests of one signal over HTTP."""

    def __init__(self, signal: str, endpoint: Endpoint) -> None:
        """Prepare a session; nothing is opened before the first request.

        Raises:
            MissingDependency: if requests is not installed.
        """
        try:
            import netrc  # noqa: F401  # else requests imports it at its first request; a fork meanwhile harms the child

            from otel_progress.outbound.session import Session
        except ImportError:
            raise MissingDependency("OTLP over HTTP needs: pip install otel-progress") from None
        self._signal = signal
        self._endpoint = endpoint
        self._session = Session()
        self._session.headers.update(dict(endpoint.headers))
        self._session.headers["Content-Type"] = "application/x-protobuf"
        self._session.headers["User-Agent"] = "otel-progress"
        self._compression = Compression(endpoint)
        if endpoint.client_certificate:
            key = endpoint.client_key
            self._session.cert = (endpoint.client_certificate, key) if key else endpoint.client_certificate

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send an export request; it never raises. A receiver that refuses gzip gets it again without."""
        endpoint = self._endpoint
        seconds = endpoint.timeout if timeout is None else min(timeout, endpoint.timeout)
        end = clock.monotonic() + seconds
        try:
            packed = self._compression.pack(body)
            reply = self._post(body if packed is None else packed, seconds, is_packed=packed is not None)
            if packed is not None:
                reply = self._without_gzip(reply, body, end) or reply
        except Exception as error:
            reason, why = trouble.plain(f"{type(error).__name__}: {error}"), trouble.of_error(endpoint, error)
            return Answer(False, retry=True, unclear=not _refused(error), reason=reason, trouble=why)
        return self._answer(reply)

    def _post(self, body: bytes, seconds: float, *, is_packed: bool) -> Reply:
        # `verify` is passed with each request, as REQUESTS_CA_BUNDLE takes precedence over that of the session.
        headers = {"Content-Encoding": "gzip"} if is_packed else {}
        url, verify = self._endpoint.url, self._endpoint.certificate
        return self._session.repeat(url, body, seconds, ANSWER_BYTES, headers, verify)

    def _without_gzip(self, reply: Reply, body: bytes, end: float) -> Reply | None:
        """Send a request again without gzip, if that may be why it was refused; None if it is not."""
        compression, surely = self._compression, reply.status == UNSUPPORTED
        if _is_good(reply):
            compression.accepted()
        if reply.status not in REFUSES_GZIP or not compression.may_be_to_blame(surely=surely):
            return None
        again = self._post(body, max(LEAST, end - clock.monotonic()), is_packed=False)
        if surely or _is_good(again):
            compression.stop()
        return again

    def _answer(self, reply: Reply) -> Answer:
        status, body = reply.status, reply.body
        page = trouble.web_page(self._endpoint, body)
        if _is_good(reply) and page is None:
            refused, why = rejected(body)
            control, discards = reply.headers.get(CONTROL_HEADER), reply.headers.get(DISCARDS_HEADER) == self._signal
            return Answer(True, rejected=refused, reason=trouble.plain(why), control=control, discards=discards)
        said = body[:200].decode("utf-8", "replace")
        reason = trouble.plain(f"HTTP {status} {said}")
        wrong = trouble.of_status(self._endpoint, self._signal, status, "" if page else said)
        if status < 400:
            return Answer(False, retry=True, reason=reason, trouble=page or wrong)
        if status not in RETRYABLE:
            wrong = wrong if status in (401, 403, trouble.MISDIRECTED) else page or wrong
            about, large = status in ABOUT_DATA, status == TOO_LARGE
            return Answer(False, about_data=about, too_large=large, reason=reason, trouble=wrong)
        wait = seconds_of(reply.headers.get("Retry-After", ""), clock.unix())
        return Answer(False, retry=True, after=wait, unclear=status in (502, 504), reason=reason, trouble=wrong)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _is_good(reply: Reply) -> bool:
    return 200 <= reply.status < 300


def _refused(error: Any) -> bool:
    """Whether the connection itself failed, so that the receiver can't have the request."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return type(cause).__name__ in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError")
