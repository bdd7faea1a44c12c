"""Waiting on an event loop until the core has stored a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from otel_progress.monitor.intake.requests import Accepted, Acknowledgement, Done, Envelope, Refused

Offer = Callable[[Envelope, Done], None]
"""Enqueues a request and calls back with the answer, from another thread; raises `Refused` if there is no room."""


async def acknowledged(offer: Offer, envelope: Envelope) -> Accepted:
    """Offer a request, and wait for its answer.

    Raises:
        Refused: if the request is not stored.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Accepted] = loop.create_future()

    def settle(found: Acknowledgement) -> None:
        if answer.done():
            return
        if isinstance(found, Refused):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def done(found: Acknowledgement) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            loop.call_soon_threadsafe(settle, found)

    offer(envelope, done)
    return await answer
