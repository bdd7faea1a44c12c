"""OTLP over HTTP: the routes, and the responses that the OTLP specification asks for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from otel_progress.monitor.intake.bodies import drain, read_body, sender_of
from otel_progress.monitor.intake.messages import SIGNALS, response, to_json
from otel_progress.monitor.intake.requests import (
    BYTES,
    JSON,
    LARGEST,
    PROTOBUF,
    RECORDS,
    Accepted,
    Envelope,
    Parcel,
    Refused,
)

_BROWSER: Final = ("origin", "sec-fetch-site")
"""Headers that only browsers send; `fetch` of Node.js sends `Sec-Fetch-Mode`, too."""

_UNREAD: Final = (403, 413, 415)
"""The status of answers that are given before a body was read."""

BySignal = Mapping[str, Mapping[str, str]]
"""Headers of responses, by signal."""
Take = Callable[[Envelope], Awaitable[Accepted]]
"""Accepts a request, or raises `Refused`."""


def routes(take: Take, *, most_bytes: int = LARGEST, headers: BySignal | None = None) -> list[Route]:
    """The routes `POST /v1/logs`, `/v1/metrics` and `/v1/traces`; responses carry the `headers` of their signal."""

    def route(signal: str) -> Route:
        more = (headers or {}).get(signal)

        async def export(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            is_json = kind == JSON
            try:
                _admit(request, kind, most_bytes)
                body = await read_body(request, most_bytes)
                zipped = request.headers.get("content-encoding", "identity").lower() == "gzip"
                with sender_of(request) as sender:
                    taken = await take(Envelope(signal, body, zipped, is_json, sender))
            except Refused as refused:
                if refused.status in _UNREAD:
                    await drain(request)
                return refusal(refused, is_json=kind != PROTOBUF)
            return accepted(signal, taken, is_json, more)

        return Route(f"/v1/{signal}", export, methods=["POST"])

    return [route(signal) for signal in SIGNALS]


def application(
    take: Callable[[Parcel], Accepted],
    *,
    most_bytes: int = BYTES,
    most_records: int = RECORDS,
    headers: Mapping[str, str] | None = None,
) -> Starlette:
    """An ASGI application that calls `take` with each request; `take` must return quickly.

    Responses to logs carry `headers`.
    """

    async def opened(envelope: Envelope) -> Accepted:
        return take(envelope.open(most_bytes, most_records))

    by_signal = None if headers is None else {"logs": headers}
    return Starlette(routes=routes(opened, most_bytes=most_bytes, headers=by_signal))


def _admit(request: Request, kind: str, most: int) -> None:
    """Refuse a request by its headers, before its body is read."""
    headers = request.headers
    if any(name in headers for name in _BROWSER):
        raise Refused(403, "requests from web pages are not accepted here")
    if kind not in (PROTOBUF, JSON):
        raise Refused(415, f"the content type must be {PROTOBUF} or {JSON}")
    if headers.get("content-encoding", "identity").lower() not in ("gzip", "identity"):
        raise Refused(415, "the content encoding must be gzip or identity")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise Refused(413, f"the body is larger than {most} bytes; send smaller batches")


def is_usual(headers: Headers) -> bool:
    """Whether a request is not refused by its headers."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return (
        not any(name in headers for name in _BROWSER)
        and kind in (PROTOBUF, JSON)
        and headers.get("content-encoding", "identity").lower() in ("gzip", "identity")
    )


def accepted(signal: str, taken: Accepted, is_json: bool, headers: Mapping[str, str] | None) -> Response:
    """The response to an accepted request."""
    message = response(signal, taken.rejected, taken.reason)
    if is_json:
        return Response(to_json(message), 200, headers, JSON)
    return Response(message.SerializeToString(), 200, headers, PROTOBUF)


def refusal(refused: Refused, is_json: bool) -> Response:
    """An error response: a `google.rpc.Status`, whose field 2 is the message."""
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if is_json:
        body = json.dumps({"message": refused.reason}).encode()
    else:
        text = refused.reason.encode()[:16_000]
        size = bytes((len(text) & 0x7F | 0x80, len(text) >> 7)) if len(text) > 0x7F else bytes((len(text),))
        body = b"\x12" + size + text
    return Response(body, refused.status, headers, JSON if is_json else PROTOBUF)
