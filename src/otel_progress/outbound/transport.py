"""Carries encoded OTLP requests to a receiver, over HTTP or gRPC.

A request never takes longer than its timeout (1.5 s at most), however slowly the receiver sends. What may be retried,
and when, follows the OTLP specification: 429, 502, 503 and 504 with their Retry-After, and the gRPC codes that the
specification lists. Every other refusal is final for the request. Some refusals are about the data (400, 413, …), the
rest are about the connection (401, 404, …). What no OTLP receiver answers (a redirect, a web page, half an answer) is
no refusal. A request without an answer is sent again, so a receiver may get an event twice; the id, attempt and
sequence of an event identify it.
"""

from __future__ import annotations

from typing import Final, Protocol

from otel_progress.outbound.answer import Answer
from otel_progress.outbound.grpc_transport import GrpcTransport
from otel_progress.outbound.http_transport import HttpTransport
from otel_progress.settings import Endpoint

OTLP: Final = frozenset({"otlp", "otlp_proto_http", "otlp_proto_grpc"})
"""The names that `OTEL_LOGS_EXPORTER` and its like have for OTLP."""


class Transport(Protocol):
    """Carries the requests of one signal."""

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send an export request; it never raises."""

    def close(self) -> None:
        """Close the connections."""


def connect(signal: str, endpoint: Endpoint) -> Transport:
    """Make the transport for a signal (`logs`, `metrics` or `traces`); nothing is opened before the first request.

    Raises:
        MissingDependency: if the client for the protocol is not installed.
    """
    if endpoint.protocol == "grpc":
        return GrpcTransport(signal, endpoint)
    return HttpTransport(signal, endpoint)
