"""`POST /hooks/claude-code`: where the hooks of Claude Code post their events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otel_progress import clock
from otel_progress.model.snapshot import Snapshot
from otel_progress.monitor.auth import Identity
from otel_progress.monitor.hooks.claude_code import ClaudeCode, child_id
from otel_progress.monitor.hooks.payload import HookEvent, read
from otel_progress.monitor.intake.bodies import read_body, sender_of
from otel_progress.monitor.intake.http import Take
from otel_progress.monitor.intake.requests import JSON, LARGEST, Envelope, Refused

PATH: Final = "/hooks/claude-code"
AT_ONCE: Final = 64 * 1024
"""Bytes up to which a body is parsed on the event loop; the output of a tool may be much longer."""

Recall = Callable[[str], Awaitable["Snapshot | None"]]
"""Returns what the store knows of an operation."""


def route(sessions: ClaudeCode, take: Take, recall: Recall) -> Route:
    """The route; `take` accepts what an event changed.

    Each answer is an empty JSON object, which decides nothing, so that a hook never changes what the agent does.
    """

    async def hook(request: Request) -> Response:
        try:
            event = await _read(request)
            await _recall(event)
            body = sessions.request(event, clock.time_ns(), _owner(request))
            if body:
                with sender_of(request) as sender:
                    await take(Envelope("logs", body, sender=sender))
        except Refused as refused:
            headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
            return JSONResponse({"error": refused.reason}, refused.status, headers)
        return JSONResponse({})

    async def _recall(event: HookEvent) -> None:
        """Bring back what was known of its agents before this monitor started."""
        keys = [event.session] if event.agent is None else [event.session, child_id(event.session, event.agent)]
        for key in keys:
            if not sessions.is_known(key):
                known = await recall(key)
                if known is not None:
                    sessions.recall(known)

    return Route(PATH, hook, methods=["POST"])


async def _read(request: Request) -> HookEvent:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Refused(415, f"the content type must be {JSON}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > LARGEST:
        raise Refused(413, f"the body is larger than {LARGEST} bytes")
    body = await read_body(request, LARGEST)
    return read(body) if len(body) <= AT_ONCE else await asyncio.to_thread(read, body)


def _owner(request: Request) -> str | None:
    identity = request.scope.get("identity")
    return identity.owner if isinstance(identity, Identity) else None
