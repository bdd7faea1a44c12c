"""Checks whether an endpoint accepts OTLP: sends one empty request and interprets the answer, or its absence."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.doctor import connection
from otel_progress.cli.doctor.configuration import address, shown
from otel_progress.cli.doctor.findings import Problem, problem
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.transport import connect
from otel_progress.outbound.trouble import MISDIRECTED
from otel_progress.settings import Endpoint

if TYPE_CHECKING:
    from otel_progress.outbound.session import Reply

ANSWER_BYTES: Final = 1024 * 1024
"""The most bytes of an answer; large enough for a web page."""
LOOK_SECONDS: Final = 1.5
_PREFIX: Final = "OTEL_EXPORTER_OTLP"
_BUSY: Final = (429, 503)
_BEHIND: Final = (502, 504)
_NO_PATH: Final = (404, 405)
_EMPTY: Final = (400, 422)
"""Some receivers refuse an empty request; then the test operation decides."""


@dataclass(frozen=True)
class EndpointResult:
    """The result for one endpoint.

    Attributes:
        problem: the problem, or None.
        seconds: how long the answer took.
        ahead: the seconds by which the receiver's clock is ahead of ours, if it sent its time.
        through: the proxy on the way, or empty.
    """

    problem: Problem | None
    seconds: float = 0.0
    ahead: float | None = None
    through: str = ""


def reach(signal: str, endpoint: Endpoint, environ: Mapping[str, str], timeout: float) -> EndpointResult:
    """Send an empty export request as the SDK would; if it fails, find out why."""
    try:
        host, port = address(endpoint)
    except ValueError as error:
        return EndpointResult(problem("address", f"{shown(endpoint.url)} is not a valid address: {error}"))
    wrong = connection.files(endpoint, _PREFIX)
    proxy = proxy_of(endpoint, environ)
    if wrong is None and not proxy:
        wrong = connection.resolve(host, port, timeout)
    if wrong is not None:
        return EndpointResult(wrong, through=proxy)
    ask = _ask_grpc if endpoint.protocol == "grpc" else _ask_http
    try:
        reached: EndpointResult = connection.bounded(lambda: ask(signal, endpoint, environ, proxy), timeout)
    except TimeoutError as error:
        reached = EndpointResult(problem("hangs", f"{shown(endpoint.url)}: {error}"))
    return EndpointResult(reached.problem, reached.seconds, reached.ahead, proxy)


def proxy_of(endpoint: Endpoint, environ: Mapping[str, str]) -> str:
    """The proxy for this endpoint, without its password; empty if there is none."""
    host, port = address(endpoint)
    scheme = "https" if endpoint.url.startswith("https") else "http"
    names = (
        [f"{scheme}_proxy", "all_proxy"] if endpoint.protocol != "grpc" else ["grpc_proxy", "https_proxy", "http_proxy"]
    )
    none = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if any(_exempt(part.strip(), host, port) for part in none.split(",")):
        return ""
    found = next((value for name in names for value in (environ.get(name), environ.get(name.upper())) if value), "")
    return shown(found if "://" in found else f"http://{found}") if found else ""


def _exempt(rule: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY covers this host."""
    name = rule.lstrip(".").lower()
    if not name:
        return False
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        return name in ("*", host, f"{host}:{port}") or host.endswith(f".{name}")


def _ask_http(signal: str, endpoint: Endpoint, environ: Mapping[str, str], proxy: str) -> EndpointResult:
    from requests import exceptions

    from otel_progress.outbound.session import Session

    body = gzip.compress(b"", 1) if endpoint.compression == "gzip" else b""
    headers = {**dict(endpoint.headers), "Content-Type": "application/x-protobuf", "User-Agent": "otel-progress"}
    if endpoint.compression == "gzip":
        headers["Content-Encoding"] = "gzip"
    with Session() as session:
        if endpoint.client_certificate:
            key = endpoint.client_key
            session.cert = (endpoint.client_certificate, key) if key else endpoint.client_certificate
        began, sent = clock.monotonic(), clock.unix()
        try:
            reply = session.ask(
                "POST",
                endpoint.url,
                endpoint.timeout,
                ANSWER_BYTES,
                data=body,
                headers=headers,
                verify=endpoint.certificate,
            )
            ahead = _ahead(reply.headers.get("Date"), sent, clock.unix())
            return EndpointResult(_judge(signal, endpoint, reply), clock.monotonic() - began, ahead)
        except (exceptions.ProxyError, exceptions.InvalidProxyURL) as error:
            return EndpointResult(
                problem("proxy", f"the proxy {proxy} fails: {_short(error)}", host=address(endpoint)[0])
            )
        except exceptions.ReadTimeout:
            took = f"{shown(endpoint.url)} takes the request, but does not answer within {endpoint.timeout:g} s"
            return EndpointResult(_why(endpoint, environ, proxy, took, ""))
        except (OSError, ValueError) as error:  # the base of all exceptions of requests is an OSError
            return EndpointResult(_why(endpoint, environ, proxy, None, _short(error)))


def _ask_grpc(signal: str, endpoint: Endpoint, environ: Mapping[str, str], proxy: str) -> EndpointResult:
    began = clock.monotonic()
    transport = connect(signal, endpoint)
    try:
        answer = transport.send(b"")
    finally:
        transport.close()
    seconds = clock.monotonic() - began
    return EndpointResult(None if answer.delivered else _judge_grpc(endpoint, environ, proxy, answer), seconds)


def _why(endpoint: Endpoint, environ: Mapping[str, str], proxy: str, hung: str | None, said: str) -> Problem:
    """The problem behind a request that got no answer."""
    found = None if proxy else _look(endpoint, environ)
    if found is not None:
        return found
    if hung is not None:
        return problem("hangs", hung)
    return problem("not_otlp", f"what listens on {shown(endpoint.url)} gives no OTLP answer: {said}")


def _look(endpoint: Endpoint, environ: Mapping[str, str]) -> Problem | None:
    """Examine the connection with the certificate authorities that the client trusts."""
    import requests

    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if endpoint.protocol != "grpc" else ()
    name = next((name for name in names if environ.get(name)), "")
    file = endpoint.certificate or environ.get(name) or str(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    found = connection.look(endpoint, file, LOOK_SECONDS)
    if found is not None and found.code == "certificate_untrusted" and name and not endpoint.certificate:
        return problem(found.code, f"{found.text} (authorities come from {name})")
    return found


def _judge(signal: str, endpoint: Endpoint, response: Reply) -> Problem | None:
    """The problem that an HTTP response shows, or None."""
    status, body = response.status, response.body
    url = shown(endpoint.url)
    said = f"{url} answers {status} {response.reason}".rstrip()
    words = body[:200].decode("utf-8", "replace")
    if 200 <= status < 300:
        return _judge_taken(url, response.headers.get("Content-Type", ""), body)
    if status == 400 and endpoint.url.startswith("http://") and b"HTTPS" in body.upper():
        return problem("tls_needed", f"{said}: it speaks TLS, but the address is plain text")
    if 300 <= status < 400:
        target = shown(response.headers.get("Location", "nowhere"))
        return problem("redirected", f"{said}: it points to {target}")
    if status == MISDIRECTED:
        return problem("other_name", f"{said} {words}", host=address(endpoint)[0])
    if status in (401, 403):
        return _judge_refusal(status, said, endpoint, response.headers.get("WWW-Authenticate", ""))
    if status == 407:
        return problem("proxy", f"the proxy answers {status}: it requires authentication", host=address(endpoint)[0])
    if status in _NO_PATH:
        return problem("path", f"{said}: it takes no {signal} there")
    if status == 413:
        return problem("too_large", said)
    if status in _BUSY:
        after = response.headers.get("Retry-After", "")
        return problem("busy", f"{said}{f', again after {after} s' if after.isdecimal() else ''}")
    if status in _BEHIND:
        return problem("gateway", said)
    if status == 415:
        return problem("refused_data", f"{said} {words}")
    if status in _EMPTY:
        return None
    return problem("failed", f"{said} {words}")


def _judge_taken(url: str, kind: str, body: bytes) -> Problem | None:
    """Check that a 2xx response is an OTLP response."""
    start = body.lstrip()[:1]
    if "html" in kind.lower() or start == b"<":
        return problem("web_page", f"{url} answers with a web page")
    if not body:
        return None
    protobuf = "protobuf" in kind.lower() and body[:1] == b"\x0a"
    if protobuf or ("json" in kind.lower() and _is_object(body)):
        return None
    return problem("not_otlp", f"{url} answers with {kind.partition(';')[0] or 'something'} that is no answer of OTLP")


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _judge_refusal(status: int, said: str, endpoint: Endpoint, wanted: str) -> Problem:
    if status == 403:
        return problem("forbidden", said)
    names = [name for name, _ in endpoint.headers]
    scheme = f" ({wanted.split(maxsplit=1)[0].rstrip(',')})" if wanted.split() else ""
    if "authorization" in names:
        return problem("unauthorized", f"{said}{scheme}: the header authorization is sent, but not accepted")
    other = f"; sent: {', '.join(names)}" if names else ""
    return problem("unauthorized", f"{said}{scheme}: no header authorization is sent{other}")


def _judge_grpc(endpoint: Endpoint, environ: Mapping[str, str], proxy: str, answer: Answer) -> Problem | None:
    code, _, words = answer.reason.removeprefix("gRPC ").partition(": ")
    url = shown(endpoint.url)
    said = f"{url} answers {code}"
    if code == "UNAUTHENTICATED":
        return _judge_refusal(401, said, endpoint, "")
    if code == "PERMISSION_DENIED":
        return _judge_refusal(403, said, endpoint, "")
    if code == "UNIMPLEMENTED":
        return problem("path", f"{said}: {words}")
    if code == "RESOURCE_EXHAUSTED" and "larger than max" not in words:
        return problem("busy", f"{said}: {words}")
    if code == "RESOURCE_EXHAUSTED":
        return problem("too_large", f"{said}: {words}")
    if code == "INVALID_ARGUMENT":
        return None
    found = None if proxy else _look(endpoint, environ)
    if found is not None:
        return found
    if code == "DEADLINE_EXCEEDED":
        return problem("hangs", f"{url} takes the request, but does not answer within {endpoint.timeout:g} s")
    if code == "UNAVAILABLE" and connection.speaker(*address(endpoint), LOOK_SECONDS) == connection.HTTP_2:
        return problem("busy", f"{said}: {words}")
    return problem("not_otlp", f"what listens on {url} gives no OTLP answer: {answer.reason}")


def _ahead(date: str | None, sent: float, came: float) -> float | None:
    """The seconds by which the other clock is ahead; half a second is added, as its time is truncated."""
    try:
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - (sent + came) / 2
    except (ValueError, TypeError):
        return None


def _short(error: BaseException) -> str:
    """The message of an exception, without object names."""
    text = str(error)
    return (text.partition("Caused by ")[2] or text)[:160] or type(error).__name__
