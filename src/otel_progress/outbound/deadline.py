"""One deadline for a whole HTTP exchange, however slowly the other side sends.

The timeouts of sockets, http.client and requests count from one byte to the next, so a receiver that sends a byte now
and then holds a request for ever; nor do they bound how much comes before an answer's body. Connections made of
`Limited` obey the deadline of the thread that uses them:

    with within(1.5, most_bytes=65_536):
        ...     # connect, send, read: TimeoutError once it is over, TooMuch once more has come

No thread watches: each read and each write is given the time that is left. What the operating system does in one call
of its own can't be shortened: resolving a name takes as long as the resolver does, and each address of a name may take
the whole time to connect.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final

from otel_progress import clock

HEAD_BYTES: Final = 64 * 1024
"""The most that comes before an answer's body, interim answers (100 Continue) included."""
DIGITS: Final = 10


class TooMuch(http.client.HTTPException):
    """More came than was to be read."""


class _Limit:
    """What is left to the exchanges of one thread."""

    def __init__(self, seconds: float, most_bytes: float) -> None:
        self._until = clock.monotonic() + seconds
        self._seconds = seconds
        self._most = most_bytes

    def left(self) -> float:
        """Seconds; raises TimeoutError where none are left."""
        left = self._until - clock.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {self._seconds:g} s")
        return left

    def take(self, count: int) -> None:
        """Count bytes that came; raises TooMuch beyond the limit."""
        self._most -= count
        if self._most < 0:
            raise TooMuch("the answer is larger than any that is expected")


class _OfThread(threading.local):
    limit: _Limit | None = None


_here = _OfThread()


@contextmanager
def within(seconds: float, most_bytes: float = math.inf) -> Iterator[None]:
    """Limit what this thread does with `Limited` connections, and how many bytes it reads from them, heads included."""
    before, _here.limit = _here.limit, _Limit(seconds, most_bytes)
    try:
        yield
    finally:
        _here.limit = before


class _Bytes(io.RawIOBase):
    """The bytes of one answer, as the limits let them through."""

    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock = sock
        self._raw = raw
        self.head: float = HEAD_BYTES
        """Bytes that may still come before the body."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        limit = _here.limit
        if limit is None:
            return self._count(self._raw.readinto(buffer), None)
        before = self._sock.gettimeout()
        self._sock.settimeout(limit.left())
        try:
            return self._count(self._raw.readinto(buffer), limit)
        finally:
            with suppress(OSError):  # it may be closed by now
                self._sock.settimeout(before)

    def _count(self, count: int | None, limit: _Limit | None) -> int | None:
        if count and limit is not None:
            limit.take(count)
        self.head -= count or 0
        if self.head < 0:
            raise TooMuch(f"more than {HEAD_BYTES // 1024} KiB came before the answer")
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer that is read within the limits."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        """Of this socket, as http.client makes it."""
        super().__init__(sock, *args, **more)
        self._bytes = _Bytes(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._bytes)

    def begin(self) -> None:
        """Read the head."""
        super().begin()
        self._bytes.head = math.inf


def _seconds(timeout: Any, otherwise: Any = math.inf) -> Any:
    """The timeout of a connection, where it is a number; None and urllib3's word for the default are not."""
    return timeout if isinstance(timeout, (int, float)) else otherwise


class Limited:
    """Makes a connection of http.client or urllib3 obey the limits; it stands before that class among the bases."""

    response_class: type[http.client.HTTPResponse] = Response
    sock: socket.socket | None
    timeout: Any

    def connect(self) -> None:
        """Connect, and shake hands, in the time that is left."""
        limit, before = _here.limit, self.timeout
        if limit is None:
            super().connect()  # type: ignore[misc]
            return
        self.timeout = min(limit.left(), _seconds(before))
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self.timeout = before
        self._calm()

    def _calm(self) -> None:
        """Give the socket the timeout of the connection again."""
        if self.sock is not None:
            self.sock.settimeout(_seconds(self.timeout, None))

    def send(self, data: Any) -> None:
        """Send in the time that is left."""
        limit = _here.limit
        if limit is not None and self.sock is None:
            self.connect()
        if limit is not None and self.sock is not None:
            self.sock.settimeout(limit.left())
        super().send(data)  # type: ignore[misc]
        if limit is not None:
            self._calm()


class Plain(Limited, http.client.HTTPConnection):
    """HTTP."""


class Tls(Limited, http.client.HTTPSConnection):
    """HTTPS."""


def seconds_of(retry_after: str, now: float) -> float | None:
    """The seconds that a Retry-After asks for, written as seconds or as a date; None where it can't be read.

    Args:
        retry_after: the header.
        now: Unix seconds.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:DIGITS])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
