"""One deadline for a whole HTTP exchange, however slowly the other side sends.

The timeouts of sockets, http.client and requests apply to each read, so a receiver that sends a byte now and then holds
a request for ever; nor do they bound what comes before the body of an answer. Connections that derive from `Limited`
obey the deadline of the thread that uses them:

    with within(1.5, most_bytes=65_536):
        ...     # connect, send, read: raises TimeoutError after 1.5 s, and TooMuch beyond 65,536 bytes

No thread watches: each read and write gets the time that is left. A single call of the operating system can't be
shortened: resolving a name takes as long as the resolver takes, and each address of a name may take the whole time to
connect.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final

from otel_progress import clock

HEAD_BYTES: Final = 64 * 1024
"""The largest head of an answer, including interim answers (100 Continue)."""
DIGITS: Final = 10
"""Digits of a `Retry-After` that are read."""


class TooMuch(http.client.HTTPException):
    """An answer is larger than allowed."""


class _Limit:
    """The time and bytes left to one thread."""

    def __init__(self, seconds: float, most_bytes: float) -> None:
        self._until = clock.monotonic() + seconds
        self._seconds = seconds
        self._most = most_bytes

    def left(self) -> float:
        """Seconds left; raises TimeoutError if there are none."""
        left = self._until - clock.monotonic()
        if left <= 0:
            raise TimeoutError(f"no complete answer within {self._seconds:g} s")
        return left

    def take(self, count: int) -> None:
        """Count received bytes; raises TooMuch beyond the limit."""
        self._most -= count
        if self._most < 0:
            raise TooMuch("the answer is too large")


class _OfThread(threading.local):
    limit: _Limit | None = None


_here = _OfThread()


@contextmanager
def within(seconds: float, most_bytes: float = math.inf) -> Iterator[None]:
    """Limit how long this thread uses `Limited` connections, and the bytes that it reads from them, heads included."""
    before, _here.limit = _here.limit, _Limit(seconds, most_bytes)
    try:
        yield
    finally:
        _here.limit = before


class _Bytes(io.RawIOBase):
    """The bytes of an answer, within the limits."""

    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock = sock
        self._raw = raw
        self.head: float = HEAD_BYTES
        """Bytes that may still precede the body."""

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
            with suppress(OSError):  # it may be closed already
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
    """A response that is read within the limits."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        """Read from a socket, as http.client does."""
        super().__init__(sock, *args, **more)
        self._bytes = _Bytes(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._bytes)

    def begin(self) -> None:
        """Read the head."""
        super().begin()
        self._bytes.head = math.inf


def _seconds(timeout: Any, otherwise: Any = math.inf) -> Any:
    """The timeout of a connection if it is a number; None and urllib3's default marker are not."""
    return timeout if isinstance(timeout, (int, float)) else otherwise


class Limited:
    """Makes a connection of http.client or urllib3 obey the limits; a mixin that precedes that class."""

    response_class: type[http.client.HTTPResponse] = Response
    sock: socket.socket | None
    timeout: Any
    _file: tuple[int, int] | None = None
    """Identifies what the socket was connected as."""

    def connect(self) -> None:
        """Connect, with the TLS handshake, in the time left."""
        limit, before = _here.limit, self.timeout
        if limit is None:
            super().connect()  # type: ignore[misc]
        else:
            self.timeout = min(limit.left(), _seconds(before))
            try:
                super().connect()  # type: ignore[misc]
            finally:
                self.timeout = before
            self._restore_timeout()
        self._file = None if self.sock is None else _file_of(self.sock)

    @property
    def is_connected(self) -> bool:
        """Whether it can be used again; urllib3 asks before each request."""
        self._let_go()
        return bool(super().is_connected)  # type: ignore[misc]

    def close(self) -> None:
        """Close it, but nothing that has its number now."""
        self._let_go()
        super().close()  # type: ignore[misc]

    def _let_go(self) -> None:
        """Forget a socket that the program closed, as by `os.closerange`: its number may be another file's now."""
        if self.sock is not None and self._file is not None and _file_of(self.sock) != self._file:
            self.sock.detach()
            self.sock = None

    def _restore_timeout(self) -> None:
        """Restore the timeout of the connection."""
        if self.sock is not None:
            self.sock.settimeout(_seconds(self.timeout, None))

    def send(self, data: Any) -> None:
        """Send in the time left."""
        limit = _here.limit
        self._let_go()
        if limit is not None and self.sock is None:
            self.connect()
        if limit is not None and self.sock is not None:
            self.sock.settimeout(limit.left())
        super().send(data)  # type: ignore[misc]
        if limit is not None:
            self._restore_timeout()


def _file_of(sock: socket.socket) -> tuple[int, int] | None:
    """Identifies the file behind a socket; None if it is closed."""
    try:
        found = os.fstat(sock.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Plain(Limited, http.client.HTTPConnection):
    """An HTTP connection."""


class Tls(Limited, http.client.HTTPSConnection):
    """An HTTPS connection."""


def seconds_of(retry_after: str, now: float) -> float | None:
    """Parse a `Retry-After` header, which holds seconds or a date; None if it is invalid.

    Args:
        retry_after: the header.
        now: Unix seconds.

    Example:
        >>> seconds_of("120", now=0.0)
        120.0
    """
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:DIGITS])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
