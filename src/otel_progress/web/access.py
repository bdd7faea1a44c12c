"""Who may see what: the application's own `authorize`, and a guard against pages of other origins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.monitor.auth import ANYBODY, CONTROL, READ, Identity, is_foreign, name_of
from otel_progress.monitor.web.threads import in_thread
from otel_progress.outbound.loopback import is_loopback

if TYPE_CHECKING:
    from starlette.types import Scope

Authorize = Callable[[HTTPConnection], Any]
"""Returns whether a request is served (True or False), or the name of the owner whose operations it may see."""

HOLDS: Final = 300.0
"""Seconds after which a stream ends, so that its reader connects again and is authorized anew."""
FORWARDED: Final = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via", "cf-connecting-ip",
    "true-client-ip",
)  # fmt: skip
"""Headers that a reverse proxy adds."""
_ADVICE: Final = "pass authorize=... to otel_progress.web to decide who may see the operations (docs/web-app.md)"
_FOREIGN: Final = (
    'requests from pages of other origins are not accepted; allow an origin with origins=["https://..."], and keep '
    "the Host header in a proxy"
)


class Denied(Exception):
    """A request that is not admitted, with the HTTP status, the reason, and further headers."""

    def __init__(self, status: int, why: str, headers: Any = None) -> None:
        """With what to do."""
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers


class Access:
    """Admits requests."""

    def __init__(self, authorize: Authorize | None, origins: Iterable[str]) -> None:
        """Ask `authorize`; without one, serve only clients on this machine.

        Raises:
            InvalidArgument: if `authorize` can't be called, or an origin is none.
        """
        if authorize is not None and not callable(authorize):
            raise InvalidArgument(f"authorize must be a function of the connection, not {authorize!r}")
        if isinstance(origins, str):
            raise InvalidArgument('origins is a list, such as ["https://app.example"]')
        self._authorize = authorize
        self._origins = frozenset(str(origin).lower().rstrip("/") for origin in origins)
        wrong = [one for one in self._origins if not one.startswith(("http://", "https://")) or one.count("/") != 2]
        if wrong:
            raise InvalidArgument(f'{wrong[0]!r} is no origin; one is written as "https://app.example"')

    async def admit(self, scope: Scope) -> tuple[Identity, str | None]:
        """Who sends a request, and until when a stream is served (None: as long as it lasts).

        Raises:
            Denied: if it is not served.
        """
        headers = Headers(scope=scope)
        origins = headers.getlist("origin")
        if is_foreign(headers) and not (len(origins) == 1 and origins[0].lower() in self._origins):
            raise Denied(403, _FOREIGN)
        if self._authorize is None:
            why = _not_local(scope, headers)
            if why is not None:
                raise Denied(403, f"{why}; {_ADVICE}")
            return ANYBODY, None
        try:
            owner = await self._ask(HTTPConnection(scope))
        except HTTPException as error:
            raise Denied(error.status_code, error.detail, error.headers) from None
        if not owner:
            raise Denied(403, "you may not see this")
        identity = Identity(frozenset({READ, CONTROL}), None if owner is True else owner)
        return identity, str(clock.monotonic() + HOLDS)

    async def _ask(self, connection: HTTPConnection) -> str | bool:
        """What `authorize` says; a function that is not async runs in a worker thread.

        Raises:
            TypeError: if it is neither a bool nor a string: an object that merely is true must not open anything.
        """
        ask = self._authorize
        assert ask is not None
        if inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(getattr(ask, "__call__", None)):
            found = await ask(connection)
        else:
            found = await in_thread(ask, connection)
            if inspect.isawaitable(found):
                found = await found
        if found is None:
            return False
        if not isinstance(found, (bool, str)):
            kind = type(found).__name__
            raise TypeError(f"authorize must return True, False or the name of an owner, not a value of type {kind}")
        return found


def _not_local(scope: Scope, headers: Headers) -> str | None:
    """Why a request may come from another machine; None if it comes from this one."""
    client = scope.get("client")
    if not client or not is_loopback(client[0]):
        return "only clients on this machine are served here"
    if any(name in headers for name in FORWARDED) or scope.get("http_version") == "1.0":
        return "the request came through a proxy, so its client may be anywhere"
    if not is_loopback(name_of(headers.get("host", "").lower())):
        return "only requests to localhost are served here"
    return None
