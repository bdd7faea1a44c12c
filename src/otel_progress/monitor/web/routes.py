"""The routes of the monitor: operations and their history, streams, cancel, sessions, the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.monitor.auth import CONTROL, READ, WATCHING, Identity, refuse
from otel_progress.monitor.intake.bodies import read_body
from otel_progress.monitor.intake.requests import Refused
from otel_progress.monitor.state.saved import Mute
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.web import openapi, report
from otel_progress.monitor.web.cancel import BODY_BYTES as CONTROL_BYTES
from otel_progress.monitor.web.cancel import OBEYED, RECEIVED, TIMED_OUT, Outcome, TooMany, answers_of
from otel_progress.monitor.web.detail_json import ended_text
from otel_progress.monitor.web.dump import dump
from otel_progress.monitor.web.listing import Listing
from otel_progress.monitor.web.monitor_health import MonitorHealth, Part
from otel_progress.monitor.web.mute_request import asked_mute
from otel_progress.monitor.web.openapi import EVENTS, EVENTS_MOST, LIMIT, LIMIT_MOST, NUMBER_MOST, WAIT, WAIT_MOST
from otel_progress.monitor.web.page_files import PageFiles
from otel_progress.monitor.web.parameters import check_names, number, query_of, seconds, words
from otel_progress.monitor.web.publish import ALL, of_operation, of_owner
from otel_progress.monitor.web.request_error import RequestError
from otel_progress.monitor.web.row_json import mute_json
from otel_progress.monitor.web.stream import ENDED, READERS, serve_events, serve_socket
from otel_progress.monitor.web.threads import in_thread
from otel_progress.monitor.web.wishes import LEASE, shown_ids

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from otel_progress.monitor.auth import Auth
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.web.cancel import Control
    from otel_progress.monitor.web.publish import Publisher
    from otel_progress.monitor.web.stream import Hub
    from otel_progress.monitor.web.views import Views
    from otel_progress.monitor.web.wishes import Wishes

SESSION_BYTES: Final = 4_096
MUTE_BYTES: Final = 8_192
WATCHING_BYTES: Final = 256 * 1024
STORED_WITHIN: Final = 10.0
"""Seconds until a mute must be stored."""
BELOW: Final = 1_000
"""The most descendants of an operation that are asked to stop with it."""
REASON: Final = 500
LOOK_UP: Final = 0.05
"""Seconds; a 404 for an owner comes after a multiple of this, so that its time reveals nothing."""
EVENTS_AT_ONCE: Final = 50
EVENTS_BYTES: Final = 8 * 1024 * 1024
"""The number of characters from which on a response holds no further events, and says where to continue."""
STATIC: Final = Path(__file__).with_name("static")


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ApiWords:
    """What the API says where it is served.

    Attributes:
        advice: what to do if an operation is not known.
        reason: the reason of a cancel that names none.
    """

    advice: str = "`otel-progress list` shows all operations"
    reason: str = "cancelled from the monitor"


class Api:
    """The routes of the monitor and their handlers; it belongs to the loop of the server."""

    def __init__(
        self,
        core: Core,
        store: Store,
        views: Views,
        hub: Hub,
        publisher: Publisher,
        control: Control,
        auth: Auth,
        version: str,
        parts: tuple[Part, ...] = (),
        words: ApiWords = ApiWords(),  # it is immutable
        wishes: Wishes | None = None,
    ) -> None:
        """Answer from these; `parts` add what they say of themselves to `/health`.

        `wishes` asks other processes for what screens show, if there are any.
        """
        self._wishes = wishes
        self._words = words
        self._core = core
        self._store = store
        self._views = views
        self._hub = hub
        self._publisher = publisher
        self._control = control
        self._auth = auth
        self._version = version
        self._listing = Listing(core, store, views)
        self._health = MonitorHealth(core, self._listing, views, hub, auth, version, parts)
        self._tasks: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[BaseRoute]:
        """All routes except OTLP."""
        return [
            Mount("/static", PageFiles(STATIC)),  # a page needs thirty of these, so they are looked up first
            self._route("/health", self.health),
            self._route("/api", self.describe),
            *self.operation_routes(),
            self._route("/operations/{id}/mute", self.mute, "POST"),
            self._route("/operations/{id}/mute", self.unmute, "DELETE"),
            self._route("/control", self.commands, "POST"),
            self._route(WATCHING, self.watching, "POST"),
            Route(
                "/session", self._with_errors(self.session), methods=["GET", "POST", "DELETE"]
            ),  # it checks who you are first
            Route("/login/{ticket}", self._with_errors(self.login)),
            Route("/", self._with_errors(self.page)),
        ]

    def operation_routes(self) -> list[BaseRoute]:
        """The routes of operations: lists, details, histories, streams, cancel."""
        return [
            self._route("/operations", self.operations),
            self._route("/operations/{id}", self.operation),
            self._route("/operations/{id}", self.cancel, "DELETE"),
            self._route("/operations/{id}/events", self.events),
            self._route("/operations/{id}/report", self.report),
            Route("/operations/{id}/stream", _Asgi(self.stream_one, "/operations/{id}/stream")),
            WebSocketRoute("/operations/{id}/stream", self.socket_one),
            Route("/stream", _Asgi(self.stream, "/stream")),
            WebSocketRoute("/stream", self.socket),
        ]

    def _route(self, path: str, answer: Handler, *methods: str) -> Route:
        """A route that refuses unknown parameters."""

        async def checked(request: Request) -> Response:
            check_names(path, request.scope)
            return await answer(request)

        return Route(path, self._with_errors(checked), methods=list(methods) or ["GET"])

    def _with_errors(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler, with errors reported as JSON."""

        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except RequestError as error:
                return JSONResponse({"error": error.reason}, error.status)
            except StoreError as error:
                return JSONResponse({"error": f"the monitor cannot read its store: {error}"}, 503)

        return answered

    # -- reading

    async def health(self, request: Request) -> Response:
        """Whether the monitor is well, and how much it holds."""
        return JSONResponse(await self._health.report(_identity(request.scope)))

    async def describe(self, request: Request) -> Response:
        """The OpenAPI document."""
        del request
        return JSONResponse(openapi.document(self._version))

    async def operations(self, request: Request) -> Response:
        """A list of operations."""
        topic = self._list(request.scope)
        position = self._hub.position(topic)
        query, verdicts = query_of(request, _identity_or_401(request.scope))
        limit = number(request, "limit", LIMIT, LIMIT_MOST)
        cursor = request.query_params.get("cursor") or None
        loading = "".join(f',"loading":{dump(some)}' for some in self._health.loading(query.owner).values())
        page = await in_thread(self._listing.page, query, verdicts, limit, cursor)
        if query.owner is not None:
            mine = self._hub.topic(topic)
            for key, text in page.rows:
                mine.give(key, json.loads(text)["revision"])
        counts = f'"total":{sum(page.counts.values())},"counts":{dump(page.counts)},"trouble":{page.trouble}'
        missing = f',"unshown":{page.unshown}' if page.unshown else ""
        texts = ",".join(text for _, text in page.rows)
        body = f'{{"operations":[{texts}],"next":{dump(page.next)},{counts},"position":"{position}"{loading}{missing}}}'
        return Response(body.encode(), media_type="application/json")

    async def operation(self, request: Request) -> Response:
        """Everything known about one operation."""
        entry = await self._entry(request.path_params["id"], request.scope)
        views = self._views.of(_identity_or_401(request.scope).owner)
        detail = await in_thread(views.detail, entry)
        return Response(dump(detail).encode(), media_type="application/json")

    async def events(self, request: Request) -> Response:
        """The history of one operation."""
        entry = await self._entry(request.path_params["id"], request.scope)
        limit = number(request, "limit", EVENTS, EVENTS_MOST)
        names = words(request, "event", s.EVENTS)
        before = number(request, "before", 0, NUMBER_MOST) or None
        after = number(request, "after", 0, NUMBER_MOST)
        owner = _identity_or_401(request.scope).owner
        texts, following = await in_thread(
            self._history, entry.head.operation_id, after, before, names or None, limit, owner
        )
        body = f'{{"events":[{",".join(texts)}],"next":{dump(following)}}}'
        return Response(body.encode(), media_type="application/json")

    async def report(self, request: Request) -> Response:
        """The report of one operation, as a file to save."""
        form = request.query_params.get("format") or "html"
        if form not in report.TYPES:
            raise RequestError(400, f"there is no format {form[:50]!r}; there are {', '.join(report.TYPES)}")
        entry = await self._entry(request.path_params["id"], request.scope)
        views = self._views.of(_identity_or_401(request.scope).owner)
        content = await in_thread(report.render, views, self._store, entry, form)
        return Response(
            content, media_type=report.TYPES[form][0], headers=report.headers(entry.head.operation_id, form)
        )

    def _history(
        self, key: str, after: int, before: int | None, names: tuple[str, ...] | None, limit: int, owner: str | None
    ) -> tuple[list[str], int | None]:
        """Events as JSON texts, oldest first, and where to continue; read a few at a time, as each may be large.

        Numbers are the store's, or for an owner those within the operation.
        """
        views, owned = self._views.of(owner), owner is not None
        texts: list[str] = []
        size, places = 0, self._views.places
        if owned:
            after = places.number(key, after) if after else 0
            before = None if before is None else places.number(key, before)
        while len(texts) < limit and size < EVENTS_BYTES:
            most = min(EVENTS_AT_ONCE, limit - len(texts))
            rows = self._store.events(key, after=after, before=before, names=names, limit=most)
            found = [dump(views.event(*row)) for row in (places.numbered(key, rows) if owned else rows)]
            size += sum(map(len, found))
            texts = found + texts if before is not None else texts + found
            if len(rows) < most:
                return texts, None
            if before is not None:
                before = rows[0][0]
            else:
                after = rows[-1][0]
        following = after if before is None else before
        return texts, places.numbered(key, [(following, None)])[0][0] if owned else following

    async def _entry(self, raw: str, scope: Scope) -> Entry:
        """The operation that a path names.

        Raises:
            RequestError: if it does not exist, or belongs to somebody else.
        """
        identity, began = _identity_or_401(scope), clock.monotonic()
        key = unquote(raw)
        entry = await in_thread(self._core.ledger.find, key)
        if entry is None or not identity.may_see(self._core.ledger.owner_of(entry.head)):
            if identity.owner is not None:  # so that the time does not reveal whether it exists
                await asyncio.sleep(LOOK_UP - (clock.monotonic() - began) % LOOK_UP)
            raise RequestError(404, f"no operation {key[:200]!r} is known; {self._words.advice}")
        return entry

    # -- streams

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Changes of all operations that may be seen."""
        topic = self._list(scope)
        self._has_room()
        await serve_events(self._hub, topic, _after(scope), [], scope, receive, send, session=scope.get("session"))

    async def stream_one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One operation, whenever it changes."""
        entry = await self._entry(scope["path_params"]["id"], scope)
        topic, first, since = await self._begin(entry, scope)
        if not entry.open and self._hub.has_all(topic, _after(scope)):
            await Response(status_code=204)(scope, receive, send)  # an EventSource does not reconnect after that
            return
        session = scope.get("session")
        await serve_events(self._hub, topic, _after(scope), first, scope, receive, send, since=since, session=session)

    async def socket(self, socket: WebSocket) -> None:
        """As `stream`, over a WebSocket."""
        scope = socket.scope
        try:
            check_names("/stream", scope)
            topic = self._list(scope)
            self._has_room()
        except RequestError as error:
            await _deny(socket, error)
            return
        session = scope.get("session")
        await serve_socket(self._hub, topic, _after(scope), [], socket.receive, socket.send, session=session)

    async def socket_one(self, socket: WebSocket) -> None:
        """As `stream_one`, over a WebSocket."""
        scope = socket.scope
        try:
            check_names("/operations/{id}/stream", scope)
            entry = await self._entry(socket.path_params["id"], scope)
            topic, first, since = await self._begin(entry, scope)
        except RequestError as error:
            await _deny(socket, error)
            return
        session = scope.get("session")
        await serve_socket(
            self._hub, topic, _after(scope), first, socket.receive, socket.send, since=since, session=session
        )

    def _list(self, scope: Scope) -> str:
        """The topic of everything that may be seen."""
        owner = _identity_or_401(scope).owner
        return ALL if owner is None else of_owner(owner)

    async def _begin(self, entry: Entry, scope: Scope) -> tuple[str, list[tuple[str, str]], str]:
        """The topic of an operation, its first frames, and the position before them."""
        self._has_room()
        owner = _identity_or_401(scope).owner
        topic = of_operation(entry.head.operation_id, owner)
        since = self._hub.position(topic)
        read = self._hub.topic(topic)
        read.left_at = clock.monotonic()
        if entry.open:
            read.over = None
        self._publisher.begin(entry.head.operation_id, owner)
        first = [("operation", dump(await in_thread(self._views.of(owner).detail, entry)))]
        return topic, first if entry.open else [*first, (ENDED, ended_text(entry))], since

    def _has_room(self) -> None:
        if self._hub.readers >= READERS:
            raise RequestError(503, f"{READERS} readers are connected already; try again later")

    async def watching(self, request: Request) -> Response:
        """A screen says which operations it shows; they are live for some seconds."""
        body = await _body(request, WATCHING_BYTES)
        owner = _identity_or_401(request.scope).owner
        try:
            ids = shown_ids(body)
        except ValueError as error:
            raise RequestError(400, str(error)) from None
        if self._wishes is not None:
            views = self._views.of(owner)
            self._wishes.show(key for key in ids if owner is None or views.may_name(key))
        return JSONResponse({"for": LEASE})

    # -- cancel

    async def cancel(self, request: Request) -> Response:
        """Ask an operation to stop."""
        entry = await self._entry(request.path_params["id"], request.scope)
        wait = seconds(request, "wait", WAIT, WAIT_MOST)
        head = entry.head
        attempt = number(request, "attempt", 0, NUMBER_MOST) or None
        owner = _identity_or_401(request.scope).owner
        views = self._views.of(owner)
        reason = request.query_params.get("reason", self._words.reason)[:REASON]
        if attempt is not None and attempt != entry.number:
            return await self._cancel_rival(entry, attempt, owner, reason, wait)
        if not entry.open:
            raise RequestError(409, f"it is over already: {head.status.value}")
        for below in self._elsewhere(entry, views):
            one = below.head
            self._spawn(self._control.cancel(one.operation_id, one.attempt, below.instance, reason, 0, owner))
        found = await self._control.cancel(head.operation_id, head.attempt, entry.instance, reason, wait, owner)
        return _outcome(found)

    async def _cancel_rival(self, entry: Entry, attempt: int, owner: str | None, reason: str, wait: float) -> Response:
        """Ask an older run that is still alive to stop, never the newest one."""
        now, control = clock.monotonic(), self._control
        live = [rival for rival in (entry.rivals or {}).values() if self._views.is_live(rival, now)]
        for rival in live:
            if rival.number == attempt:
                key, said = entry.head.operation_id, rival.head.attempt
                return _outcome(await control.cancel(key, said, rival.instance, reason, wait, owner))
        runs = [rival.number for rival in live] + ([entry.number] if entry.open else [])
        if not runs:
            raise RequestError(409, f"no attempt runs; attempt {entry.number} is over: {entry.head.status.value}")
        named = " and ".join(f"attempt {number}" for number in sorted(runs))
        raise RequestError(409, f"attempt {attempt} does not run; {named} run{'s' if len(runs) == 1 else ''}")

    def _elsewhere(self, entry: Entry, views: Views) -> list[Entry]:
        """Running descendants of an operation in other processes; its own process asks those that run there."""
        found: dict[str, Entry] = {}
        waiting = [entry]
        while waiting and len(found) < BELOW:
            for below in views.children_of(waiting.pop().head.operation_id):
                if below.open and below.head.operation_id not in found:
                    found[below.head.operation_id] = below
                    waiting.append(below)
        return [below for below in found.values() if below.instance != entry.instance]

    def _spawn(self, asking: Coroutine[Any, Any, Any]) -> None:
        """Run a task in the background."""
        task = asyncio.ensure_future(asking)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- mute

    async def mute(self, request: Request) -> Response:
        """Keep webhooks silent about an operation and what is below it."""
        entry = await self._entry(request.path_params["id"], request.scope)
        asked = asked_mute(await _body(request, MUTE_BYTES), clock.unix())
        if not entry.open:
            raise RequestError(409, f"it is over already: {entry.head.status.value}")
        who = asked.by or _identity_or_401(request.scope).owner
        mute = Mute(entry.head.operation_id, entry.number, who, asked.reason, clock.unix(), asked.until)
        await self._change_mute(mute.operation_id, mute)
        return JSONResponse({"muted": mute_json(mute, entry, lambda _: True)})

    async def unmute(self, request: Request) -> Response:
        """Let webhooks speak of an operation again."""
        entry = await self._entry(request.path_params["id"], request.scope)
        if self._core.mutes.of(entry) is None:
            above = self._core.mutes.covering(entry)
            views, through = self._views.of(_identity_or_401(request.scope).owner), ""
            if above is not None and views.may_name(above.operation_id):
                through = f" itself: {above.operation_id!r} above it is"
            raise RequestError(409, f"it is not muted{through}")
        await self._change_mute(entry.head.operation_id, None)
        return Response(status_code=204)

    async def _change_mute(self, operation_id: str, mute: Mute | None) -> None:
        """Returns once it is stored.

        Raises:
            RequestError: if it can't be stored.
        """
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[Refused | None] = loop.create_future()

        def answer(failed: Refused | None) -> None:
            if not stored.done():
                stored.set_result(failed)

        def done(failed: Refused | None) -> None:
            loop.call_soon_threadsafe(answer, failed)

        self._core.mute(operation_id, mute, done)
        try:
            failed = await asyncio.wait_for(stored, STORED_WITHIN)
        except asyncio.TimeoutError:
            raise RequestError(503, "the monitor did not store it in time; try again") from None
        if failed is not None:
            raise RequestError(failed.status, failed.reason)

    async def commands(self, request: Request) -> Response:
        """The control channel: a process polls for its commands."""
        body = await _body(request, CONTROL_BYTES)
        try:
            asked = answers_of(body)
            found = await self._control.poll(asked.instance, asked.pid, asked.answers, asked.wait, wishes=asked.wishes)
        except ValueError as error:
            raise RequestError(400, str(error)) from None
        except TooMany as error:
            raise RequestError(503, str(error)) from None
        return JSONResponse({"commands": found})

    # -- the page

    async def session(self, request: Request) -> Response:
        """The rights of the client (GET), a new session (POST with a token), or its end (DELETE)."""
        if request.method == "POST":
            return await self._log_in(request)
        if request.method == "DELETE":
            self._auth.close(self._auth.session_of(request.headers))
            gone = Response(status_code=204)
            gone.delete_cookie(self._auth.cookie, path="/", httponly=True, samesite="strict")
            return gone
        identity = _identity_or_401(request.scope)
        rights = sorted(identity.rights & {READ, CONTROL})
        return JSONResponse({"rights": rights, "owner": identity.owner, "needs_token": self._auth.needs_token})

    async def _log_in(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError(415, 'send JSON: {"token": "…"}')
        token = _token(await _body(request, SESSION_BYTES))
        opened = self._auth.log_in(token)
        if opened is None:
            raise RequestError(401, "this token is not known")
        session, identity = opened
        answer = JSONResponse({"rights": sorted(identity.rights & {READ, CONTROL})})
        self._set_cookie(answer, session, request)
        return answer

    async def login(self, request: Request) -> Response:
        """Open a session by a link that works once."""
        answer = RedirectResponse("/", 303)
        if request.method == "GET":  # a HEAD request, as of a link preview, does not use up the link
            session = self._auth.redeem(request.path_params["ticket"])
            if session is not None:
                self._set_cookie(answer, session, request)
        return answer

    def _set_cookie(self, answer: Response, session: str, request: Request) -> None:
        secure = request.headers.get("origin", "").startswith("https://")
        answer.set_cookie(self._auth.cookie, session, path="/", secure=secure, httponly=True, samesite="strict")

    async def page(self, request: Request) -> Response:
        """The page."""
        del request
        return Response(_page(), media_type="text/html")


class _Asgi:
    """An ASGI application for a handler, with errors reported as JSON."""

    def __init__(self, handler: Callable[[Scope, Receive, Send], Awaitable[None]], path: str) -> None:
        self._handler = handler
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await JSONResponse({"error": "only GET is served here"}, 405, {"allow": "GET"})(scope, receive, send)
            return
        try:
            check_names(self._path, scope)
            await self._handler(scope, receive, send)
        except RequestError as error:
            await JSONResponse({"error": error.reason}, error.status)(scope, receive, send)
        except ConnectionAbortedError:
            pass  # the reader left


def _outcome(outcome: Outcome) -> Response:
    """The response for an outcome."""
    if outcome.state == OBEYED:
        return JSONResponse({"state": "obeyed", "detail": outcome.detail})
    if outcome.state == RECEIVED:
        return JSONResponse({"state": "received", "detail": outcome.detail}, 202)
    if outcome.state == TIMED_OUT:
        return JSONResponse({"state": "timed out", "detail": outcome.detail}, 504)
    raise RequestError(409, f"{outcome.state}: {outcome.detail}")


async def _deny(socket: WebSocket, error: RequestError) -> None:
    await refuse(JSONResponse({"error": error.reason}, error.status), socket.scope, socket.receive, socket.send)


async def _body(request: Request, most: int) -> bytes:
    try:
        return await read_body(request, most)
    except Refused as refused:
        raise RequestError(refused.status, refused.reason) from None


@cache
def _page() -> bytes:
    return (STATIC / "index.html").read_bytes()


def _identity(scope: Scope) -> Identity | None:
    found: Identity | None = scope.get("identity")
    return found


def _identity_or_401(scope: Scope) -> Identity:
    identity = _identity(scope)
    if identity is None:
        raise RequestError(401, "a token is needed: POST it to /session, or send it as `Authorization: Bearer TOKEN`")
    return identity


def _after(scope: Scope) -> str | None:
    """The id of the frame after which a reader continues."""
    request = Request({**scope, "type": "http", "method": "GET"})
    return request.headers.get("last-event-id") or request.query_params.get("after") or None


def _token(body: bytes) -> str:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    token = given.get("token") if isinstance(given, dict) else None
    if not isinstance(token, str):
        raise RequestError(400, 'send JSON: {"token": "…"}')
    return token
