"""Request bodies while they arrive: each has a time limit, and all together a size limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final
from weakref import WeakKeyDictionary

from starlette.requests import ClientDisconnect, Request

from otel_progress.monitor.intake.requests import BODY_SECONDS, LARGEST, Refused, Sender, address_of

GONE: Final = "otel_progress.gone"
"""The key in the ASGI scope of a request that lists what to call when its connection is closed."""
READING: Final = 64 * 1024 * 1024
"""The most bytes of incomplete bodies, over all connections."""

DRAINED: Final = 4 * LARGEST
"""The most bytes of a refused body that are read and forgotten."""


class _Body:
    """A body that is still arriving."""

    __slots__ = ("size", "task")

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.size = 0
        self.task = task


class Bodies:
    """The incomplete bodies on one event loop. When they exceed `READING` together, the oldest is aborted.

    A well-behaved body arrives in milliseconds; one that is still incomplete by then is most likely held back.

    Attributes:
        given_up: the number of bodies aborted to make room for others.
    """

    def __init__(self) -> None:
        """None yet."""
        self.given_up = 0
        self._size = 0
        self._bodies: dict[asyncio.Task[bytes], _Body] = {}

    async def read(self, request: Request, most: int) -> bytes:
        """Read the body of a request.

        Raises:
            Refused: if it is too large, incomplete or too slow.
        """
        task = asyncio.ensure_future(self._read(request, most))
        body = self._bodies[task] = _Body(task)
        try:
            return await asyncio.wait_for(task, BODY_SECONDS)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body took more than {BODY_SECONDS:g} s to arrive") from None
        except asyncio.CancelledError:
            if task in self._bodies:
                raise
            raise Refused(503, "the body arrived too slowly while many others did", 1) from None
        except ClientDisconnect:
            raise Refused(400, "the connection was closed before the body was complete") from None
        finally:
            if self._bodies.pop(task, None) is not None:
                self._size -= body.size

    async def _read(self, request: Request, most: int) -> bytes:
        whole = bytearray()
        while not _is_read(request):
            part = await _next(request)
            whole += part
            if len(whole) > most:
                raise Refused(413, f"the body is larger than {most} bytes")
            self._add(len(part))
        return bytes(whole)

    def _add(self, size: int) -> None:
        """Account for `size` more bytes that the current task has read."""
        task = asyncio.current_task()
        body = self._bodies.get(task) if task is not None else None
        if body is None:
            return
        body.size += size
        self._size += size
        while self._size > READING and len(self._bodies) > 1:
            oldest = next(iter(self._bodies))
            self._size -= self._bodies.pop(oldest).size
            self.given_up += 1
            oldest.cancel()


_all: WeakKeyDictionary[asyncio.AbstractEventLoop, Bodies] = WeakKeyDictionary()


def bodies() -> Bodies:
    """The incomplete bodies of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _all.get(loop)
    if found is None:
        found = _all[loop] = Bodies()
    return found


async def read_body(request: Request, most: int) -> bytes:
    """Read the body of a request.

    Raises:
        Refused: if it is too large, incomplete or too slow.
    """
    return await bodies().read(request, most)


async def drain(request: Request) -> None:
    """Read and forget what is left of a body that is refused, if it is not too large.

    A client that is still sending when the connection is closed sees a reset instead of the answer.
    """
    length = request.headers.get("content-length", "")
    if "expect" in request.headers or (length.isdecimal() and int(length) > DRAINED):
        return
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_drain(request), BODY_SECONDS)


async def _drain(request: Request) -> None:
    left = DRAINED
    with contextlib.suppress(ClientDisconnect):
        while left > 0 and not _is_read(request):
            left -= len(await _next(request))


def _is_read(request: Request) -> bool:
    """Whether the whole body was read: what comes then is only the end of the connection."""
    return getattr(request.state, "is_read", False)


async def _next(request: Request) -> bytes:
    """The next part of a body.

    Raises:
        ClientDisconnect: if the connection was closed.
    """
    message = await request.receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    request.state.is_read = not message.get("more_body", False)
    part: bytes = message.get("body", b"")
    return part


def _address(request: Request) -> str | None:
    return None if request.client is None else address_of(request.client.host)


@contextlib.contextmanager
def sender_of(request: Request) -> Iterator[Sender]:
    """The sender of a request, while it is served."""
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True

    calls: list[Callable[[], object]] = request.scope.get(GONE, [])
    calls.append(leave)
    try:
        token = request.headers.get("authorization")
        yield Sender(request.client, None if token is None else hash(token), lambda: gone, _address(request))
    finally:
        calls.remove(leave)
