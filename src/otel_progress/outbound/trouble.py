"""Why requests fail, in one line with the cure; logged once when it begins, and once when it is over."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from otel_progress import clock, forks
from otel_progress.settings import Endpoint, run_endpoint

log = logging.getLogger("otel_progress")

REPEAT_AFTER: Final = 10.0
"""The shortest time between two log lines about the same trouble, in seconds."""
SHOWN: Final = 200
"""Characters of a receiver's answer that are logged."""
KNOWN: Final = 100
"""Troubles that are remembered."""
SILENT: Final = "silent"
"""The kind of trouble with a receiver that took a request and did not answer in time."""
DOCTOR: Final = "run `otel-progress doctor`"
MISDIRECTED: Final = 421
"""The HTTP status of a receiver that does not answer to the name in the request."""
_SETTINGS: Final = "\x04"
"""The type of the HTTP/2 frame that a server sends first; it is the fourth byte."""
_LOOPBACK: Final = ("localhost", "::1")
_HTML: Final = re.compile(rb"\s*(<!doctype\s+html|<html)", re.IGNORECASE)
_CERTIFICATE: Final = re.compile(r"certificate verify failed: ([^(\]]+)")


@dataclass(frozen=True)
class Trouble:
    """Why an endpoint does not accept requests; equal if address, kind and signal are.

    Attributes:
        address: scheme, host and port, without credentials.
        kind: the kind of trouble.
        text: what is wrong and what to do, in words.
        signal: the only signal concerned; empty if everything sent to the address is.
    """

    address: str
    kind: str
    text: str = field(compare=False)
    signal: str = ""


def of_error(endpoint: Endpoint, error: BaseException) -> Trouble:
    """Explain an exception of a request over HTTP."""
    names = {type(part).__name__ for part in _chain(error)}
    said = " ".join(str(part) for part in _chain(error))
    if "ReadTimeout" in names or "ReadTimeoutError" in names:
        return _trouble(endpoint, SILENT)
    if "ConnectTimeoutError" in names or "ConnectTimeout" in names:
        return _trouble(endpoint, "unreachable")
    if any(str(getattr(part, "line", ""))[3:4] == _SETTINGS for part in _chain(error)):
        return _trouble(endpoint, "port_of_grpc")
    return _of_words(endpoint, said) or _trouble(endpoint, "failed", f"{type(error).__name__}: {_last(error)}")


def is_late_answer_of_run(trouble: Trouble | None) -> bool:
    """Whether `otel-progress run` took a request and did not answer in time: it reports itself what it lacks."""
    return trouble is not None and trouble.kind == SILENT and trouble.address == run_endpoint()


def of_grpc(endpoint: Endpoint, signal: str, code: str, details: str) -> Trouble:
    """Explain a gRPC status."""
    if code == "DEADLINE_EXCEEDED":
        return _trouble(endpoint, SILENT)
    if "Expected SETTINGS frame" in details or "http1" in details.lower():
        return _trouble(endpoint, "port_of_http")
    if "http2 header with status" in details or "content-type: text/html" in details:
        return _trouble(endpoint, "web_page")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _trouble(endpoint, "refused_us", f"gRPC {code}")
    if code == "UNIMPLEMENTED":
        return _trouble(endpoint, "no_service", f"gRPC {code}", signal)
    return _of_words(endpoint, details) or _trouble(endpoint, code, f"gRPC {code}: {details}", signal)


def of_status(endpoint: Endpoint, signal: str, status: int, said: str) -> Trouble:
    """Explain an HTTP status."""
    if status == MISDIRECTED:
        return _trouble(endpoint, "other_name", f"HTTP {status}")
    if status in (401, 403):
        return _trouble(endpoint, "refused_us", f"HTTP {status}")
    if status in (404, 405):
        return _trouble(endpoint, "no_service", f"HTTP {status}", signal)
    return _trouble(endpoint, str(status), f"HTTP {status} {said}".rstrip(), signal)


def web_page(endpoint: Endpoint, body: bytes) -> Trouble | None:
    """The trouble if an answer is a web page, which no OTLP receiver sends, whatever the status."""
    return _trouble(endpoint, "web_page") if _HTML.match(body.removeprefix(b"\xef\xbb\xbf")) else None


def _of_words(endpoint: Endpoint, said: str) -> Trouble | None:
    """Explain a message of OpenSSL, the operating system or gRPC."""
    certificate = _CERTIFICATE.search(said)
    if certificate or "CERTIFICATE_VERIFY_FAILED" in said:
        return _trouble(endpoint, "certificate", certificate[1].strip() if certificate else "it can't be verified")
    if "WRONG_VERSION_NUMBER" in said or "record layer failure" in said:
        return _trouble(endpoint, "no_tls")
    if "NameResolutionError" in said or "Failed to resolve" in said or "errors resolving" in said:
        return _trouble(endpoint, "name")
    if "Connection refused" in said or "ConnectionRefused" in said:
        return _trouble(endpoint, "refused")
    if "unreachable" in said or "No route to host" in said:
        return _trouble(endpoint, "unreachable")
    return None


def _trouble(endpoint: Endpoint, kind: str, said: str = "", signal: str = "") -> Trouble:
    address, said = address_of(endpoint), plain(said)
    host = urlsplit(address).hostname or ""
    wrong, cure = {
        "refused": (f"nothing listens at {address}", _start(endpoint, address, host)),
        SILENT: (f"{address} does not answer within {endpoint.timeout:g} s", ""),
        "unreachable": (f"{address} can't be reached", "check the address"),
        "name": (f"the name {host} does not resolve", "check the address"),
        "no_tls": _no_tls(endpoint, address),
        "certificate": (f"the certificate of {address} is not accepted: {said}", "set OTEL_EXPORTER_OTLP_CERTIFICATE"),
        "port_of_grpc": (
            f"{address} speaks gRPC, but gets HTTP",
            f"{_other_port(address, 4318)}set OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        ),
        "port_of_http": (
            f"{address} speaks HTTP, but gets gRPC",
            f"{_other_port(address, 4317)}set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
        "web_page": (f"a web server answers at {address}, not a receiver of OTLP", "check the address"),
        "other_name": (
            f"{address} is not known there by this name ({said})",
            f"start the monitor with --allowed-host {host}",
        ),
        "refused_us": (f"{address} refuses us ({said})", "set OTEL_EXPORTER_OTLP_HEADERS"),
        "no_service": (f"{address} takes no {signal} ({said})", "check the address"),
    }.get(kind, (f"{address} does not take {signal or 'what it is sent'} ({said})", ""))
    return Trouble(address, kind, f"{wrong}: {cure}, or {DOCTOR}" if cure else f"{wrong}: {DOCTOR}", signal)


def _no_tls(endpoint: Endpoint, address: str) -> tuple[str, str]:
    place = address.partition("://")[2]
    if endpoint.is_bare:
        return f"{place} speaks no TLS", f"write http://{place}, or set OTEL_EXPORTER_OTLP_INSECURE=true"
    return f"{address} speaks no TLS", f"use http://{place}"


def address_of(endpoint: Endpoint) -> str:
    """Scheme, host and port, without credentials."""
    scheme, _, rest = endpoint.url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"


def plain(said: str) -> str:
    """Make text of a receiver fit for a log line: short, and free of control characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in said[: 2 * SHOWN])
    return " ".join(shown.split())[:SHOWN]


def _start(endpoint: Endpoint, address: str, host: str) -> str:
    if host not in _LOOPBACK and not host.startswith("127."):
        return "start the Collector there, or check the address"
    port = urlsplit(address).port
    usual, option = (4317, "--grpc-port") if endpoint.protocol == "grpc" else (4318, "--port")
    more = "" if port in (None, usual) else f" {option} {port}"
    return f"start `otel-progress monitor{more}`"


def _other_port(address: str, port: int) -> str:
    """The likely cure if the address has the usual port of the other protocol."""
    usual = {4318: 4317, 4317: 4318}[port]
    return f"use port {port}, or " if address.endswith(f":{usual}") else ""


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, and those that it wraps."""
    found: list[BaseException] = []
    queue: list[Any] = [error]
    while queue and len(found) < 10:
        one = queue.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            queue += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    return found


def _last(error: BaseException) -> str:
    """The message of the innermost exception, shortened."""
    return str(_chain(error)[-1])[:200]


class Reporter:
    """Logs each trouble once, whichever signal meets it first, and once when it is over."""

    def __init__(self) -> None:
        """Start without trouble."""
        self._lock = threading.Lock()
        self._open: dict[Trouble, bool] = {}
        """The troubles of now, and whether they were logged."""
        self._logged_at: dict[Trouble, float] = {}

    def begin(self, trouble: Trouble) -> None:
        """Something was not delivered for this reason."""
        with self._lock:
            if trouble in self._open or len(self._open) >= KNOWN or is_late_answer_of_run(trouble):
                return
            now = clock.monotonic()
            due = now - self._logged_at.get(trouble, -REPEAT_AFTER) >= REPEAT_AFTER
            self._open[trouble] = due
            if due:
                self._logged_at.pop(trouble, None)
                self._logged_at[trouble] = now
            if len(self._logged_at) > KNOWN:
                del self._logged_at[next(iter(self._logged_at))]
        if due:
            log.warning("%s; the job goes on", trouble.text)

    def over(self, trouble: Trouble, *, replaced: bool = False) -> None:
        """Something was delivered after this trouble, or another trouble took its place."""
        with self._lock:
            logged = self._open.pop(trouble, False)
        if logged and not replaced:
            log.warning("%s takes %s now", trouble.address, trouble.signal or "telemetry")

    def after_fork_in_child(self) -> None:
        """Keep quiet about what the parent logged; its lock may be held."""
        self._lock = threading.Lock()
        self._open = dict.fromkeys(self._open, False)


reporter = Reporter()


def _after_fork_in_child() -> None:
    reporter.after_fork_in_child()


forks.in_child.append(_after_fork_in_child)
