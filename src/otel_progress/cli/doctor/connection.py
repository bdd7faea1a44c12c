"""Finds out with plain sockets why a request got no answer: name, connection, TLS, protocol."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from otel_progress.cli.doctor.configuration import address, shown
from otel_progress.cli.doctor.findings import Problem, problem
from otel_progress.cli.tls import speaks_tls
from otel_progress.settings import Endpoint

HTTP_1: Final = "HTTP/1"
HTTP_2: Final = "HTTP/2"
TLS: Final = "TLS"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""The start of an HTTP/2 connection: the preface, and empty settings."""
_SETTINGS: Final = 4
_ALERT: Final = 0x15
_EXPIRED: Final = (9, 10)
_OTHER_NAME: Final = (62, 63, 64)
_WANTED_ANOTHER: Final = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_UNKNOWN")
_FILES: Final = (
    ("CERTIFICATE", "certificate"),
    ("CLIENT_KEY", "client_key"),
    ("CLIENT_CERTIFICATE", "client_certificate"),
)


def bounded(call: Callable[[], Any], timeout: float) -> Any:
    """Call in a thread; returns or raises what the call does, and abandons it after the timeout.

    Raises:
        TimeoutError: if the call takes longer.
    """
    done: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            done.append((True, call()))
        except BaseException as error:
            done.append((False, error))

    thread = threading.Thread(target=run, name="otel-progress-doctor", daemon=True)
    thread.start()
    thread.join(timeout)
    if not done:
        raise TimeoutError(f"no answer within {timeout:.1f} s")
    good, value = done[0]
    if not good:
        raise value
    return value


def resolve(host: str, port: int, timeout: float) -> Problem | None:
    """Check that the name resolves."""
    try:
        bounded(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout)
    except TimeoutError:
        return problem("name_unknown", f"the name {host} does not resolve within {timeout:.1f} s")
    except (OSError, UnicodeError) as error:
        return problem("name_unknown", f"the name {host} does not resolve: {_words(error)}")
    return None


def files(endpoint: Endpoint, prefix: str) -> Problem | None:
    """Check that the certificate files that TLS needs can be read."""
    if not endpoint.url.startswith("https"):
        return None
    for what, field in _FILES:
        path = getattr(endpoint, field)
        if path is None:
            continue
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except OSError as error:
            text = f"{path} can't be read: {error.strerror}"
            return problem("certificate_file", text, variable=f"{prefix}_{what}")
    return None


def look(endpoint: Endpoint, authorities: str, timeout: float) -> Problem | None:
    """Why no request gets through; None if the sockets show nothing wrong."""
    host, port = address(endpoint)
    where = f"{host}:{port}"
    try:
        socket.create_connection((host, port), timeout).close()
    except ConnectionRefusedError:
        return problem("refused", f"nothing listens on {where} (connection refused)")
    except TimeoutError:
        return problem("unreachable", f"no connection to {where} within {timeout:.1f} s")
    except OSError as error:
        return problem("unreachable", f"no connection to {where}: {_words(error)}")
    if endpoint.url.startswith("https"):
        return _tls(endpoint, host, port, authorities, timeout)
    return _plain(endpoint, host, port, timeout)


def _plain(endpoint: Endpoint, host: str, port: int, timeout: float) -> Problem | None:
    speaks, where = speaker(host, port, timeout), f"{host}:{port}"
    if speaks == HTTP_2 and endpoint.protocol != "grpc":
        return problem("port_of_grpc", f"{where} speaks gRPC (HTTP/2), but it gets HTTP/1")
    if speaks == HTTP_1 and endpoint.protocol == "grpc":
        return problem("port_of_http", f"{where} speaks HTTP/1, but it gets gRPC (HTTP/2)")
    if speaks == TLS:
        return problem("tls_needed", f"{where} speaks TLS, but {shown(endpoint.url)} is plain text")
    return None


def speaker(host: str, port: int, timeout: float) -> str | None:
    """The protocol of a port: HTTP/1, HTTP/2, TLS, or None if unknown."""
    first = _say(host, port, _PREFACE, timeout)
    if len(first) >= 9 and first[3] == _SETTINGS and first[5:9] == bytes(4):
        return HTTP_2
    if speaks_tls(host, port, timeout):
        return TLS
    for answer in (first, _say(host, port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), timeout)):
        if answer.startswith(b"HTTP/1"):
            return HTTP_1
    return None


def _say(host: str, port: int, text: bytes, timeout: float) -> bytes:
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(text)
            return connection.recv(64)
    except OSError:
        return b""


def _tls(endpoint: Endpoint, host: str, port: int, authorities: str, timeout: float) -> Problem | None:
    where = f"{host}:{port}"
    if not speaks_tls(host, port, timeout):
        if _say(host, port, _PREFACE, timeout):
            return problem("tls_not_spoken", f"{where} speaks no TLS, but {shown(endpoint.url)} asks for it")
        return None
    try:
        context = ssl.create_default_context(cafile=authorities)
        if endpoint.client_certificate:
            context.load_cert_chain(endpoint.client_certificate, endpoint.client_key)
    except (OSError, ssl.SSLError) as error:
        names = "OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY"
        return problem("certificate_file", f"a file holds no certificate or key: {_words(error)}", variable=names)
    if endpoint.protocol == "grpc":
        context.set_alpn_protocols(["h2"])
    try:
        raw = socket.create_connection((host, port), timeout)
        with raw, context.wrap_socket(raw, server_hostname=host) as connection:
            connection.recv(1)
    except ssl.SSLCertVerificationError as error:
        return _certificate(error, where)
    except ssl.SSLError as error:
        reason = error.reason or ""
        own = bool(endpoint.client_certificate)
        if any(word in reason for word in _WANTED_ANOTHER) or "HANDSHAKE_FAILURE" in reason:
            text = f"{where} {'refuses our certificate' if own else 'wants a certificate of the client'} ({reason})"
            return problem("client_certificate", text)
        return problem("failed", f"no TLS with {where}: {_words(error)}")
    except OSError:
        return None
    return None


def _certificate(error: ssl.SSLCertVerificationError, where: str) -> Problem:
    said = error.verify_message.rstrip(".")
    if error.verify_code in _EXPIRED:
        return problem("certificate_expired", f"the certificate of {where} is not valid now: {said}")
    if error.verify_code in _OTHER_NAME:
        return problem("certificate_name", f"the certificate of {where} is for another name: {said}")
    return problem("certificate_untrusted", f"the certificate of {where} is not trusted: {said}")


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
