"""A client of the monitor's API; it needs only the standard library.

It follows no redirects, which would take the token along, and uses no proxy for a monitor on this machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit

from otel_progress import clock
from otel_progress.cli.query.exit_codes import NO_MONITOR, NOT_FOUND, USAGE, CommandError
from otel_progress.cli.query.options import DEFAULT_URL, LIST_MOST
from otel_progress.cli.tls import speaks_tls
from otel_progress.outbound import loopback
from otel_progress.outbound.deadline import Plain, Tls, within
from otel_progress.outbound.trouble import MISDIRECTED
from otel_progress.render.words import clean
from otel_progress.settings import Environment

TIMEOUT: Final = 10.0
"""Seconds until the head of a response must have arrived."""
BODY_TIMES: Final = 6
"""A whole response may take this many times longer than its head: a list may be large, and the line slow."""
SILENCE: Final = 25.0
"""Seconds without a byte after which a stream counts as lost; a monitor sends a comment every 10."""
TLS_SECONDS: Final = 2.0
"""Seconds to find out whether a port that does not answer speaks TLS."""
CHUNK: Final = 65_536
BODY: Final = 256 * 1024 * 1024
"""The most bytes that a response may have."""
ERROR_BYTES: Final = 1024 * 1024
"""The most bytes that are read of an error response."""
CHOICES: Final = 8
"""The most ids that an error names if a prefix is ambiguous."""
_STARTS: Final = "start one with `otel-progress monitor`"
_LETS_IN: Final = "give its token with --token-file FILE or OTEL_PROGRESS_TOKEN"


class ConnectionLost(Exception):
    """The monitor did not answer, or the connection broke; a retry may help."""


class ErrorResponse(Exception):
    """The monitor answered with an error."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        """Create it with the HTTP status and the JSON body."""
        super().__init__(clean(body.get("error") or f"HTTP status {status}"))
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Client:
    """Queries one monitor."""

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT

    # -- requests

    def operations(self, *, limit: int = LIST_MOST, **query: str | None) -> dict[str, Any]:
        """A page of the list: its rows, the total, and the position in the stream.

        Raises:
            CommandError: if the monitor denies access.
            ConnectionLost: if it does not answer.
        """
        given = {key: value for key, value in query.items() if value}
        return self.ask(f"/operations?{urlencode({**given, 'limit': limit})}")

    def operation(self, key: str) -> dict[str, Any]:
        """All that the monitor knows of one operation.

        Raises:
            CommandError: if it does not exist.
            ConnectionLost: if the monitor does not answer.
        """
        return self.ask(path_of(key))

    def find(self, given: str) -> dict[str, Any]:
        """Find an operation by its id, by the beginning of its id if only one fits, or by its name.

        A name stands for the only one that runs, or if none does, for the one that ended last.

        Raises:
            CommandError: if there is none, or more than one.
            ConnectionLost: if the monitor does not answer.
        """
        try:
            return self.operation(given)
        except CommandError as error:
            if error.code != NOT_FOUND:
                raise
        rows = _rows(self.operations(limit=1000, search=given))
        fits = [row for row in rows if str(row.get("id")).startswith(given)]
        if len(fits) != 1:
            fits = self._named(given) or fits
        if len(fits) == 1:
            return self.operation(str(fits[0]["id"]))
        if not fits:
            raise CommandError(
                f"no operation {clean(given)!r} at {self.url}; `otel-progress list` shows those there are", 4
            )
        ids = ", ".join(clean(row.get("id")) for row in fits[:CHOICES])
        more = f" and {len(fits) - CHOICES} more" if len(fits) > CHOICES else ""
        raise CommandError(f"{clean(given)!r} may be {ids}{more}: give more of the id", USAGE)

    def _named(self, name: str) -> list[dict[str, Any]]:
        """The running operations of a name, else the one that ended last."""
        rows = [row for row in _rows(self.operations(limit=1000, name=name)) if row.get("name") == name]
        running = [row for row in rows if not row.get("ended")]
        return running or sorted(rows, key=_ended_at)[-1:]

    def check(self) -> None:
        """Check that a monitor answers.

        Raises:
            CommandError: if nothing answers, or something else does.
        """
        try:
            health = self.ask("/health")
        except ConnectionLost as error:
            parts = urlsplit(self.url)
            if parts.scheme == "http" and speaks_tls(parts.hostname or "", parts.port or 80, TLS_SECONDS):
                raise self._speaks("TLS", "https") from error
            raise CommandError(f"no monitor answers at {self.url} ({error}): {_STARTS}", NO_MONITOR) from error
        except (CommandError, ErrorResponse) as error:
            if isinstance(error, CommandError) and error.code != NOT_FOUND:
                raise
            health = {}
        if health.get("product") != "otel-progress":
            text = f"what answers at {self.url} is no monitor (an OpenTelemetry Collector, maybe): {_STARTS} on"
            raise CommandError(f"{text} another port, and name it by --url or OTEL_PROGRESS_MONITOR", NO_MONITOR)

    # -- transport

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        timeout: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a request, with a JSON body if one is given, and return the JSON of the response.

        Raises:
            CommandError: if the operation does not exist, or if the monitor denies access.
            ErrorResponse: if the response is another error.
            ConnectionLost: if nothing answers.
        """
        try:
            seconds = timeout or self.timeout
            with within(BODY_TIMES * seconds), self._open(path, method, seconds, body=body) as answer:
                status, received = answer.status, answer.read(BODY)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ConnectionLost(_reason(error)) from error
        found = {} if status == _NO_CONTENT else _json(received)
        if found is None:
            raise ErrorResponse(200, {"error": f"what answers at {self.url} is no monitor"})
        return found

    def stream(self, path: str, last_id: str = "") -> Iterator[bytes]:
        """The bytes of a stream as they come; `SILENCE` seconds without any is a loss. The first item is empty.

        Raises:
            CommandError: if the operation does not exist, or if the monitor denies access.
            ErrorResponse: if the response is another error.
            ConnectionLost: if the connection is lost.
        """
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        try:
            with self._open(path, "GET", self.timeout, headers, silence=SILENCE) as answer:
                yield b""
                heard = clock.monotonic()
                while more := answer.read1(CHUNK):
                    yield more
                    heard = clock.monotonic() if b"\n" in more else heard
                    if clock.monotonic() - heard > SILENCE:
                        raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ConnectionLost(_reason(error)) from error
        raise ConnectionLost("the monitor closed the connection")

    def _open(
        self,
        path: str,
        method: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        *,
        silence: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Open a response: its head within the timeout, `silence` seconds at most between two bytes of its body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, dict(headers or {}), method=method)  # noqa: S310
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        try:
            with within(timeout):
                return _opener(self.url).open(request, timeout=silence or timeout)
        except HTTPError as error:
            with error, within(timeout):
                raw = _read_error(error)
            if error.code == 400 and b"HTTPS" in raw.upper() and self.url.startswith("http:"):
                raise self._speaks("TLS", "https") from error  # as Go and nginx say it
            body = _json(raw) or {}
            answered = ErrorResponse(error.code, body)
            if error.code == 401:
                wrong = "does not take this token" if self.token else "wants a token"
                raise CommandError(f"the monitor at {self.url} {wrong}: {_LETS_IN}", NO_MONITOR) from answered
            if error.code in (403, 404, MISDIRECTED):
                raise CommandError(str(answered), NOT_FOUND if error.code == 404 else NO_MONITOR) from answered
            raise answered from error
        except http.client.BadStatusLine as error:
            if str(getattr(error, "line", ""))[3:4] == _SETTINGS:
                raise self._speaks_grpc() from error
            raise
        except URLError as error:
            if _speaks_no_tls(error.reason):
                raise self._speaks("plain HTTP, not TLS", "http") from error
            raise

    def _speaks_grpc(self) -> CommandError:
        there = self.url.partition("://")[2]
        usual = there.endswith(":4317")
        cure = f"use {self.url.removesuffix('4317')}4318" if usual else "use the monitor's HTTP port (4318 by default)"
        return CommandError(f"what listens at {there} speaks gRPC (HTTP/2): {cure}", NO_MONITOR)

    def _speaks(self, what: str, scheme: str) -> CommandError:
        there = self.url.partition("://")[2]
        return CommandError(f"what listens at {there} speaks {what}: use {scheme}://{there}", NO_MONITOR)


_NO_CONTENT: Final = 204
_SETTINGS: Final = "\x04"
"""The type of the HTTP/2 frame that a gRPC server sends first; it is the fourth byte."""


def _rows(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in page["operations"] if isinstance(row, dict)]


def _ended_at(row: Mapping[str, Any]) -> float:
    at = row.get("timestamp")
    return float(at) if isinstance(at, (int, float)) else 0.0


def path_of(key: str) -> str:
    """The path of an operation; its id is one segment, whatever characters it holds."""
    return f"/operations/{quote(key, safe='').replace('.', '%2E')}"


def client_of(options: argparse.Namespace, environ: Mapping[str, str]) -> Client:
    """A client for the monitor of the options, else of the environment, else of this machine.

    Raises:
        CommandError: if an option or a variable is invalid.
    """
    env = Environment(environ)
    given, name = (
        (options.url, "--url") if options.url else (env.text("OTEL_PROGRESS_MONITOR"), "OTEL_PROGRESS_MONITOR")
    )
    token = env.text("OTEL_PROGRESS_TOKEN")
    if options.token_file:
        try:
            token = _first_word(Path(options.token_file).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CommandError(
                f"the token file can't be read: {getattr(error, 'strerror', None) or error}", USAGE
            ) from error
        if not token:
            raise CommandError(f"the token file {clean(options.token_file)} is empty", USAGE)
    if not (token.isascii() and token.isprintable()):
        raise CommandError("a token must be printable ASCII; this one is not", USAGE)
    return Client(_address(given, name) if given else DEFAULT_URL, token or None)


def _first_word(content: str) -> str:
    """The first token of a token file; the rest of its line is for the monitor."""
    lines = (line.split() for line in content.splitlines() if not line.lstrip().startswith("#"))
    return next((line[0] for line in lines if line), "")


def _address(given: str, name: str) -> str:
    """The URL of a monitor, without a trailing slash.

    Raises:
        CommandError: if it is invalid.
    """
    example, shown = f"as in {DEFAULT_URL}", clean(given)
    try:
        parts = urlsplit(given)
        wrong = not parts.hostname or parts.port == 0
    except ValueError:
        raise CommandError(f"{name} has no valid host and port, {example}: {shown!r}", USAGE) from None
    if parts.scheme not in ("http", "https"):
        raise CommandError(f"{name} must begin with http:// or https://, {example}, not {shown!r}", USAGE)
    if parts.username is not None or parts.password is not None:
        raise CommandError(f"{name} must not hold a password; {_LETS_IN}", USAGE)
    if wrong or not given.isprintable() or " " in given:
        raise CommandError(f"{name} has no valid host and port, {example}: {shown!r}", USAGE)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise CommandError(f"{name} must end after the port: {parts.scheme}://{parts.netloc}, not {shown!r}", USAGE)
    return f"{parts.scheme}://{parts.netloc}"


def _read_error(error: HTTPError) -> bytes:
    """The body of an error response, as far as it arrives."""
    try:
        return error.read(ERROR_BYTES)
    except (OSError, http.client.HTTPException):
        return b""


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Plain, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Tls, request)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    here: dict[str, str] | None = {} if is_loopback(urlsplit(url).hostname or "") else None
    return urllib.request.build_opener(_Stay, _Http, _Https, urllib.request.ProxyHandler(here))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    return loopback.is_loopback(host.lower()) or host.lower().endswith(".localhost")


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _speaks_no_tls(reason: object) -> bool:
    if not isinstance(reason, ssl.SSLError) or isinstance(reason, ssl.SSLCertVerificationError):
        return False
    return reason.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def _reason(error: BaseException) -> str:
    """The cause of a failure, in a few words."""
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; SSL_CERT_FILE names another authority"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)):
        return "the monitor closed the connection"
    return clean(getattr(error, "strerror", None) or error or type(error).__name__)
