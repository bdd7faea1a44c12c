"""Small OTLP requests without ASGI: read by the protocol itself, and answered as soon as the core has stored them.

A program sends a small request every few seconds, so with thousands of programs each request counts, not its bytes.
What is unusual (a large body, one without a length, another encoding, a refusal by its headers) goes through `http.py`,
which says what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from starlette.datastructures import Headers

from otel_progress.monitor.intake.connection import BODY_SECONDS, HEAD_BYTES, Guarded
from otel_progress.monitor.intake.http import BySignal, accepted, is_usual, refusal
from otel_progress.monitor.intake.messages import SIGNALS
from otel_progress.monitor.intake.requests import (
    JSON,
    Accepted,
    Acknowledgement,
    Done,
    Envelope,
    Refused,
    Sender,
    address_of,
)

if TYPE_CHECKING:
    import asyncio

    from starlette.responses import Response

SMALL: Final = 64 * 1024
"""The most bytes of a body that is read here."""
READING: Final = 32 * 1024 * 1024
"""The most bytes of incomplete bodies that are read here, over all connections."""
_PATHS: Final = {f"/v1/{signal}".encode(): signal for signal in SIGNALS}

Offer = Callable[[Envelope, Done], None]
"""Enqueues a request, and calls back with the answer from another thread; raises `Refused` if there is no room."""
Admit = Callable[[str, Headers], bool]
"""Whether the sender of a request to this path may send."""


class DirectIntake:
    """What all connections share: the way to the core, and the answers on their way back.

    Attributes:
        reading: the bytes of incomplete bodies.
        taken: the number of requests that were read here.
    """

    def __init__(
        self,
        offer: Offer,
        admit: Admit,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        more: BySignal | None = None,
    ) -> None:
        """Responses carry `headers`, and those of their signal in `more`."""
        self.offer = offer
        self.admit = admit
        self.reading = self.taken = 0
        self._more = more or {}
        self._headers = headers
        self._lock = threading.Lock()
        self._answers: list[tuple[DirectRequest, Acknowledgement]] = []
        self._usual = {
            signal: self._of(accepted(signal, Accepted(), False, self._more.get(signal))) for signal in SIGNALS
        }

    def protocol(self) -> type[DirectProtocol]:
        """The protocol of its connections, for uvicorn."""
        return type("DirectProtocolOfIntake", (DirectProtocol,), {"intake": self})

    def answer(self, request: DirectRequest, found: Acknowledgement, loop: asyncio.AbstractEventLoop) -> None:
        """Answer a request; any thread may call it. Many answers at once wake the loop once."""
        with self._lock:
            self._answers.append((request, found))
            if len(self._answers) > 1:
                return
        try:
            loop.call_soon_threadsafe(self._settle)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            self._answers.clear()

    def _settle(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
        for request, found in answers:
            request.finish(found)

    def response(self, signal: str, found: Acknowledgement, is_json: bool) -> tuple[bytes, bytes]:
        """The head of a response, up to its last header, and its body."""
        if isinstance(found, Refused):
            return self._of(refusal(found, is_json))
        if not is_json and not found.rejected and not found.reason:
            return self._usual[signal]
        return self._of(accepted(signal, found, is_json, self._more.get(signal)))

    def _of(self, made: Response) -> tuple[bytes, bytes]:
        status = f"HTTP/1.1 {made.status_code} {HTTPStatus(made.status_code).phrase}\r\n".encode()
        return status + _lines([*made.raw_headers, *self._headers]), bytes(made.body)


class DirectRequest:
    """A request; the fields without a line here are those that uvicorn's protocol knows of each request.

    Attributes:
        signal: `logs`, `metrics` or `traces`.
        size: the length of its body.
    """

    __slots__ = (
        "_protocol",
        "body",
        "disconnected",
        "is_json",
        "keep_alive",
        "more_body",
        "response_complete",
        "signal",
        "size",
        "zipped",
    )

    def __init__(self, protocol: DirectProtocol, signal: str, size: int, *, zipped: bool, is_json: bool) -> None:
        """Its body is still to come."""
        self._protocol = protocol
        self.signal = signal
        self.size = size
        self.zipped = zipped
        self.is_json = is_json
        self.body = bytearray()
        self.keep_alive = True
        self.more_body = True
        self.disconnected = self.response_complete = False

    @property
    def message_event(self) -> DirectRequest:
        """Where the end of the connection is reported."""
        return self

    def set(self) -> None:
        """The connection is lost; nobody waits."""

    def is_gone(self) -> bool:
        """Whether the connection is lost."""
        return self.disconnected

    def arrived(self) -> None:
        """The body need not be counted any more; may be called twice."""
        if self.more_body:
            self.more_body = False
            self._protocol.intake.reading -= self.size

    def finish(self, found: Acknowledgement) -> None:
        """Respond."""
        if not self.response_complete:
            self.response_complete = True
            self._protocol.respond(self, found)


class DirectProtocol(Guarded):
    """A connection that takes small OTLP requests itself, and leaves all others to ASGI."""

    intake: DirectIntake
    _direct: DirectRequest | None = None
    _admitted: list[tuple[bytes, bytes]] | None = None
    """The headers of the last admitted request, without the length of its body."""

    def on_headers_complete(self) -> None:
        """Take the request, or leave it to ASGI."""
        self._direct = self._taken()
        if self._direct is None:
            super().on_headers_complete()
            return
        self._expect(BODY_SECONDS, SMALL + HEAD_BYTES)
        self._direct.keep_alive = cast("Any", self.parser).should_keep_alive()
        self.cycle = self._direct  # type: ignore[assignment]
        self.intake.reading += self._direct.size
        self.intake.taken += 1

    def _taken(self) -> DirectRequest | None:
        """The request, if it is a usual one."""
        signal, parser = _PATHS.get(self.url), cast("Any", self.parser)  # not every version of httptools has types
        if (
            signal is None
            or parser.get_method() != b"POST"
            or self.expect_100_continue
            or parser.get_http_version() != "1.1"
            or not (self.cycle is None or self.cycle.response_complete)
        ):
            return None
        given = dict(self.headers)
        length = given.pop(b"content-length", b"")
        if not length.isdigit() or int(length) > min(SMALL, READING - self.intake.reading):
            return None
        others = [pair for pair in self.headers if pair[0] != b"content-length"]
        if len(others) + 1 != len(self.headers) or b"transfer-encoding" in given:
            return None
        if others != self._admitted:
            headers = Headers(raw=self.headers)
            if not is_usual(headers) or not self.intake.admit(self.url.decode(), headers):
                return None
            self._admitted = None if b"cookie" in given else others  # a session ends, a token does not
        is_json = given[b"content-type"].partition(b";")[0].strip().lower() == JSON.encode()
        zipped = given.get(b"content-encoding", b"").lower() == b"gzip"
        return DirectRequest(self, signal, int(length), zipped=zipped, is_json=is_json)

    def on_body(self, body: bytes) -> None:
        """Collect a part of the body."""
        current: object = self.cycle
        if self._direct is None or current is not self._direct:
            super().on_body(body)
        else:
            self._direct.body += body

    def on_message_complete(self) -> None:
        """Offer the request to the core."""
        request, current = self._direct, cast("object", self.cycle)
        if request is None or current is not request:
            super().on_message_complete()
            return
        self._in_time()
        request.arrived()
        token = next((value for name, value in self.headers if name == b"authorization"), None)
        address = address_of(self.client[0]) if self.client else None
        sender = Sender(self.client, None if token is None else hash(token.decode("latin-1")), request.is_gone, address)
        envelope = Envelope(request.signal, bytes(request.body), request.zipped, request.is_json, sender)
        request.body.clear()
        loop, answer = self.loop, self.intake.answer
        try:
            self.intake.offer(envelope, lambda found: answer(request, found, loop))
        except Refused as refused:
            request.finish(refused)

    def respond(self, request: DirectRequest, found: Acknowledgement) -> None:
        """Write a response, and go on with the connection."""
        if self.transport.is_closing():
            return
        head, body = self.intake.response(request.signal, found, request.is_json)
        more = _lines(self.server_state.default_headers)
        self.transport.write(
            b"".join((head, more, b"\r\n" if request.keep_alive else b"connection: close\r\n\r\n", body))
        )
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answer."""
        if self._direct is not None:
            self._direct.arrived()
        super().connection_lost(exc)


def _lines(headers: Any) -> bytes:
    return b"".join(b"%s: %s\r\n" % pair for pair in headers)
