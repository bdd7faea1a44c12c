"""The ASGI application: `app()` to mount, `routes()` to add, `lifespan` to start and end with the host."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from otel_progress.monitor.auth import deny, refuse, safely
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.web.routes import STATIC
from otel_progress.monitor.web.threads import in_thread
from otel_progress.web import serving
from otel_progress.web.access import Access, Authorize, Denied
from otel_progress.web.embedded import of_process
from otel_progress.web.paths import below_root, undecoded

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

COMPONENT: Final = "progress-operation.js"
_OWN: Final = StaticFiles(directory=Path(__file__).with_name("static"), check_dir=False)
_SHARED: Final = StaticFiles(directory=STATIC, check_dir=False)
SCRIPTS: Final = {f"/{COMPONENT}": _OWN, "/words.js": _SHARED, "/sse.js": _SHARED}
"""The web component, and what it imports, by path; anybody may load them, as they hold no data."""


def app(*, authorize: Authorize | None = None, origins: Iterable[str] = ()) -> ASGIApp:
    """An ASGI application that serves the operations of this process; mount it, or run it alone.

    It collects events from this call on, and starts the rest with the first request, or with `lifespan`.

    Args:
        authorize: called with each connection (`starlette.requests.HTTPConnection`), sync or async; a stream asks
            again every five minutes. True: served, and may cancel. False or None: 403. A string: the name of an owner,
            who sees and cancels only operations whose attribute `owner` is that name, and those below them. It may
            raise `HTTPException`. Without it only clients on this machine are served, and none behind a proxy.
        origins: further origins whose pages may send requests, such as `https://app.example`. Responses allow no CORS;
            that is up to the application.

    Raises:
        InvalidArgument: if an argument is invalid.

    Example:
        `api.mount("/progress", app(authorize=lambda connection: connection.session.get("user")))`
    """
    return Application(Access(authorize, origins))


def routes(*, authorize: Authorize | None = None, origins: Iterable[str] = ()) -> list[BaseRoute]:
    """The same as a list of routes, for `Mount("/progress", routes=routes(...))`; arguments as of `app`."""
    served = Application(Access(authorize, origins))
    found: list[BaseRoute] = []
    for path in ("/operations", "/operations/{rest:path}", "/stream"):
        below = _Below(served, path)
        found += [Route(path, below), WebSocketRoute(path, below)]
    return [*found, *(Route(path, _Below(served, path)) for path in SCRIPTS)]


@contextlib.asynccontextmanager
async def lifespan(_: Any = None) -> AsyncIterator[None]:
    """Start and end with the host.

    Pass it as the `lifespan` of the application, or write `async with lifespan():` in one of your own. Without it the
    first request starts what is needed, and the end of the process ends it.
    """
    of_process.hold()
    try:
        await serving.serving()
        yield
    finally:
        if of_process.release():
            await serving.end()
            await in_thread(of_process.close)


class Application:
    """Serves requests, and refuses what is not admitted."""

    def __init__(self, access: Access) -> None:
        """Collect events from now on."""
        self._access = access
        of_process.collect()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, below the point where this is mounted."""
        if scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self.serve(below_root(scope), scope, receive, send)

    async def serve(self, inner: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for this decoded path."""
        path = undecoded(scope, inner)
        send = safely(send, {**scope, "path": path})
        if path in SCRIPTS and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            script = await SCRIPTS[path].get_response(path[1:], scope)
            script.headers["cache-control"] = "no-cache"
            await script(scope, receive, send)
            return
        try:
            identity, until = await self._access.admit(scope)
        except Denied as denied:
            answer = JSONResponse({"error": denied.why}, denied.status, denied.headers)
            await refuse(answer, scope, receive, send)
            return
        try:
            served = await serving.serving()
        except (OSError, RuntimeError, StoreError) as error:
            await deny(503, f"the operations of this process can't be served: {error}", scope, receive, send)
            return
        inside = {**scope, "path": path, "raw_path": path.encode("latin-1"), "root_path": ""}
        inside |= {"identity": identity, "session": until, "path_params": {}}
        await served.application(inside, receive, send)


class _Below:
    """One route of the application, wherever it is added."""

    def __init__(self, served: Application, path: str) -> None:
        self._served = served
        self._prefix = path.partition("{")[0]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._served.serve(self._prefix + scope["path_params"].get("rest", ""), scope, receive, send)


async def _serve_lifespan(receive: Receive, send: Send) -> None:
    """Start and end, as the server says."""
    await receive()
    try:
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})
