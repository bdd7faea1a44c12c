"""The routes of the monitor: operations and their history, streams, cancel, sessions, the page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.status import Health, Status
from otel_progress.monitor.auth import CONTROL, READ, Identity
from otel_progress.monitor.intake.bodies import read_body
from otel_progress.monitor.intake.requests import Refused
from otel_progress.monitor.state.conditions import ANY_TROUBLE, TROUBLE, WORDS, meant, state_of
from otel_progress.monitor.state.saved import Query
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.web import openapi
from otel_progress.monitor.web.cancel import BODY_BYTES as CONTROL_BYTES
from otel_progress.monitor.web.cancel import OBEYED, RECEIVED, TIMED_OUT, Outcome, TooMany, answers_of
from otel_progress.monitor.web.openapi import (
    EVENTS,
    EVENTS_MOST,
    LIMIT,
    LIMIT_MOST,
    NUMBER_MOST,
    TIME_MOST,
    WAIT,
    WAIT_MOST,
)
from otel_progress.monitor.web.parameters import wrong_name
from otel_progress.monitor.web.publish import ALL, of_operation, of_owner
from otel_progress.monitor.web.stream import ENDED, READERS, serve_events, serve_socket
from otel_progress.monitor.web.views import dump, ended_text

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

SESSION_BYTES: Final = 4_096
BELOW: Final = 1_000
"""So many operations below one are asked to stop with it."""
REASON: Final = 500
LOOK_UP: Final = 0.05
"""Who sees only their own hears that an operation is not there after a multiple of so many seconds."""
_NO_CURSOR: Final = "the cursor is none that this monitor gave; begin without one"
EVENTS_AT_ONCE: Final = 50
EVENTS_BYTES: Final = 8 * 1024 * 1024
"""From so many characters on an answer holds no further events, and says where to go on."""
STATIC: Final = Path(__file__).with_name("static")
_SECONDS: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")
_STATUSES: Final = frozenset(status.value for status in Status if status is not Status.SKIPPED)
_OPEN: Final = frozenset(status.value for status in Status if not status.final)


class Wrong(Exception):
    """A request that can't be served, with the HTTP status and what to do."""

    def __init__(self, status: int, reason: str) -> None:
        """With a status and a reason in words."""
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Api:
    """What answers requests; it belongs to the server's loop."""

    def __init__(
        self,
        core: Core,
        store: Store,
        views: Views,
        hub: Hub,
        publisher: Publisher,
        control: Control,
        auth: Auth,
        about: Mapping[str, Any],
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Answer from these; `/health` says `about` to all, and what `more` returns to who may see everything."""
        self._core = core
        self._store = store
        self._views = views
        self._hub = hub
        self._publisher = publisher
        self._control = control
        self._auth = auth
        self._about = about
        self._more = more
        self._tasks: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[BaseRoute]:
        """All but OTLP."""
        return [
            self._route("/health", self.health),
            self._route("/api", self.describe),
            self._route("/operations", self.operations),
            self._route("/operations/{id}", self.operation),
            self._route("/operations/{id}", self.cancel, "DELETE"),
            self._route("/operations/{id}/events", self.events),
            Route("/operations/{id}/stream", _Asgi(self.stream_one, "/operations/{id}/stream")),
            WebSocketRoute("/operations/{id}/stream", self.socket_one),
            Route("/stream", _Asgi(self.stream, "/stream")),
            WebSocketRoute("/stream", self.socket),
            self._route("/control", self.commands, "POST"),
            Route("/session", self._told(self.session), methods=["GET", "POST", "DELETE"]),  # who you are comes first
            Route("/login/{ticket}", self._told(self.login)),
            Route("/", self._told(self.page)),
            Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
        ]

    def _route(self, path: str, answer: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
        """A route that refuses parameters which it does not take."""

        async def checked(request: Request) -> Response:
            _check_names(path, request.scope)
            return await answer(request)

        return Route(path, self._told(checked), methods=list(methods) or ["GET"])

    def _told(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The same, where what is wrong with a request is told as JSON."""

        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except Wrong as wrong:
                return JSONResponse({"error": wrong.reason}, wrong.status)
            except StoreError as error:
                return JSONResponse({"error": f"the monitor can't read what it has: {error}"}, 503)

        return told

    # -- reading

    async def health(self, request: Request) -> Response:
        """Whether we live, and what we have."""
        more = dict(self._more())
        trouble = self._core.faults.text or more.get("redis", {}).get("trouble")
        out = {**self._about, "status": "degraded" if trouble else "ok"}
        identity = _identity(request.scope)
        if identity is not None and READ in identity.rights:
            with contextlib.suppress(StoreError):  # what is wrong is told below
                out["operations"] = await run_in_threadpool(self._counts, identity)
            out |= self._loading(identity.owner)
        if identity is not None and identity.owner is None:
            out["records"] = {"taken": self._core.taken, "refused": self._core.inbox.refused}
            out["readers"] = self._hub.readers
            out["denied"] = self._auth.denied
            if self._views.unshown:
                out["unshown"] = len(self._views.unshown)
            out |= more
            if trouble:
                out["trouble"] = trouble
        return JSONResponse(out)

    def _loading(self, owner: str | None) -> dict[str, Any]:
        """How far the monitor is with what ran before its start; how many there are is not for one owner to know."""
        told = self._core.loading.told()
        return {} if told is None else {"loading": told if owner is None else {}}

    def _counts(self, identity: Identity) -> dict[str, int]:
        """How many operations there are that one may see."""
        stored = self._store.count(Query(owner=identity.owner))
        if identity.owner is None:
            labels = Counter(list(self._core.labels.values()))
            bad = sum(number for label, number in labels.items() if state_of(Status.RUNNING, label) in TROUBLE)
            if any(label.health is Health.UNKNOWN for label in labels):
                bad = sum(map(self._views.is_trouble, self._running(Query(), frozenset())))
            return {"running": labels.total(), "trouble": bad, "stored": stored}
        running = self._running(Query(owner=identity.owner), frozenset())
        trouble = sum(map(self._views.is_trouble, running))
        return {"running": len(running), "trouble": trouble, "stored": stored}

    async def describe(self, request: Request) -> Response:
        """The description of this API."""
        del request
        return JSONResponse(openapi.document(self._about["version"]))

    async def operations(self, request: Request) -> Response:
        """A list of operations."""
        topic = self._list(request.scope)
        position = self._hub.position(topic)
        query, verdicts = _query(request, _identity_or_401(request.scope))
        limit = _number(request, "limit", LIMIT, LIMIT_MOST)
        cursor = request.query_params.get("cursor") or None
        if cursor is not None and cursor[0] not in "re":
            raise Wrong(400, _NO_CURSOR)
        loading = "".join(f',"loading":{dump(some)}' for some in self._loading(query.owner).values())
        rows, following, counts, trouble, unshown = await run_in_threadpool(
            self._page_of, query, verdicts, limit, cursor
        )
        if query.owner is not None:
            mine = self._hub.topic(topic)
            for key, text in rows:
                mine.give(key, json.loads(text)["revision"])
        head = f'"next":{dump(following)},"total":{sum(counts.values())},"counts":{dump(counts)},"trouble":{trouble}'
        missing = f',"unshown":{unshown}' if unshown else ""
        texts = ",".join(text for _, text in rows)
        body = f'{{"operations":[{texts}],{head},"position":"{position}"{loading}{missing}}}'
        return Response(body.encode(), media_type="application/json")

    def _page_of(
        self, query: Query, verdicts: frozenset[str], limit: int, cursor: str | None
    ) -> tuple[list[tuple[str, str]], str | None, dict[str, int], int, int]:
        """Rows with their ids, the next cursor, how many there are by state, in trouble, and left out of the rows.

        Those that run come first, then the others.
        """
        views = self._views.of(query.owner)
        if query.parent is not None and not views.may_ask_for_children_of(query.parent):
            return [], None, {}, 0, 0
        statuses = set(query.statuses) or _STATUSES
        going = self._running(query, verdicts) if statuses & _OPEN else []
        ended = query._replace(statuses=tuple(sorted(statuses - _OPEN))) if statuses - _OPEN and not verdicts else None
        counts = dict(Counter(self._views.state(entry) for entry in going))
        if ended is not None:
            counts |= self._store.counts(ended)
        trouble = sum(map(self._views.is_trouble, going))
        rows: list[Entry] = []
        start = 0
        if cursor is None or cursor.startswith("r"):
            start = _place(cursor[1:]) if cursor else 0
            rows = going[start : start + limit]
            if start + limit < len(going):
                texts = views.texts(rows)
                return texts, f"r{start + limit}", counts, trouble, len(rows) - len(texts)
        following: str | None = None
        if ended is not None:
            at = cursor[1:] if cursor is not None and cursor.startswith("e") and len(cursor) > 1 else None
            if len(rows) < limit:
                try:
                    kept, next_at = self._store.ended(ended, limit - len(rows), at)
                except ValueError:
                    raise Wrong(400, _NO_CURSOR) from None
                found = (self._core.ledger.find(one.operation_id) for one in kept)
                rows += [entry for entry in found if entry is not None and not entry.open]
                following = None if next_at is None else f"e{next_at}"
            else:
                following = "e"
        texts = views.texts(rows)
        return texts, following, counts, trouble, len(rows) - len(texts)

    def _running(self, query: Query, verdicts: frozenset[str]) -> list[Entry]:
        search, states = (query.search or "").lower(), meant(verdicts)
        found = []
        for entry in list(self._core.ledger.operations.values()):
            head = entry.head
            if not entry.open or (query.statuses and head.status.value not in query.statuses):
                continue
            if states and self._views.state(entry) not in states:
                if ANY_TROUBLE not in verdicts or not self._views.is_trouble(entry):
                    continue
            if (query.name is not None and head.name != query.name) or (
                query.parent is not None and head.parent_id != query.parent
            ):
                continue
            if (query.since is not None and head.timestamp < query.since) or (
                query.until is not None and head.timestamp >= query.until
            ):
                continue
            if query.owner is not None and self._core.ledger.owner_of(head) != query.owner:
                continue
            if search and search not in self._core.ledger.search_text(entry):
                continue
            found.append(entry)
        return sorted(found, key=self._views.rank)

    async def operation(self, request: Request) -> Response:
        """All there is of one."""
        entry = await self._entry(request.path_params["id"], request.scope)
        views = self._views.of(_identity_or_401(request.scope).owner)
        detail = await run_in_threadpool(views.detail, entry)
        return Response(dump(detail).encode(), media_type="application/json")

    async def events(self, request: Request) -> Response:
        """The history of one."""
        entry = await self._entry(request.path_params["id"], request.scope)
        limit = _number(request, "limit", EVENTS, EVENTS_MOST)
        names = _words(request, "event", s.EVENTS)
        before = _number(request, "before", 0, NUMBER_MOST) or None
        after = _number(request, "after", 0, NUMBER_MOST)
        owner = _identity_or_401(request.scope).owner
        texts, following = await run_in_threadpool(
            self._history, entry.head.operation_id, after, before, names or None, limit, owner
        )
        body = f'{{"events":[{",".join(texts)}],"next":{dump(following)}}}'
        return Response(body.encode(), media_type="application/json")

    def _history(
        self, key: str, after: int, before: int | None, names: tuple[str, ...] | None, limit: int, owner: str | None
    ) -> tuple[list[str], int | None]:
        """Events as JSON texts, oldest first, and where to go on; few at a time, as each may be large.

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
            Wrong: where there is none, or it is somebody else's.
        """
        identity, began = _identity_or_401(scope), clock.monotonic()
        key = unquote(raw)
        entry = await run_in_threadpool(self._core.ledger.find, key)
        if entry is None or not identity.may_see(self._core.ledger.owner_of(entry.head)):
            if identity.owner is not None:  # how long it takes tells whether it is there
                await asyncio.sleep(LOOK_UP - (clock.monotonic() - began) % LOOK_UP)
            raise Wrong(404, f"there is no operation {key[:200]!r}; `otel-progress list` shows those that there are")
        return entry

    # -- streams

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What changes, of all operations that one may see."""
        topic = self._list(scope)
        self._has_room()
        await serve_events(self._hub, topic, _after(scope), [], scope, receive, send, session=scope.get("session"))

    async def stream_one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """All there is of one operation, whenever it changes."""
        entry = await self._entry(scope["path_params"]["id"], scope)
        topic, first, since = await self._begin(entry, scope)
        if not entry.open and self._hub.has_all(topic, _after(scope)):
            await Response(status_code=204)(scope, receive, send)  # an EventSource does not come back after that
            return
        session = scope.get("session")
        await serve_events(self._hub, topic, _after(scope), first, scope, receive, send, since=since, session=session)

    async def socket(self, socket: WebSocket) -> None:
        """As `stream`, by a WebSocket."""
        scope = socket.scope
        try:
            _check_names("/stream", scope)
            topic = self._list(scope)
            self._has_room()
        except Wrong as wrong:
            await _deny(socket, wrong)
            return
        session = scope.get("session")
        await serve_socket(self._hub, topic, _after(scope), [], socket.receive, socket.send, session=session)

    async def socket_one(self, socket: WebSocket) -> None:
        """As `stream_one`, by a WebSocket."""
        scope = socket.scope
        try:
            _check_names("/operations/{id}/stream", scope)
            entry = await self._entry(socket.path_params["id"], scope)
            topic, first, since = await self._begin(entry, scope)
        except Wrong as wrong:
            await _deny(socket, wrong)
            return
        session = scope.get("session")
        await serve_socket(
            self._hub, topic, _after(scope), first, socket.receive, socket.send, since=since, session=session
        )

    def _list(self, scope: Scope) -> str:
        """The topic of all that one may see."""
        owner = _identity_or_401(scope).owner
        return ALL if owner is None else of_owner(owner)

    async def _begin(self, entry: Entry, scope: Scope) -> tuple[str, list[tuple[str, str]], str]:
        """The topic of an operation, what is said of it first, and the position before that."""
        self._has_room()
        owner = _identity_or_401(scope).owner
        topic = of_operation(entry.head.operation_id, owner)
        since = self._hub.position(topic)
        read = self._hub.topic(topic)
        read.left_at = clock.monotonic()
        if entry.open:
            read.over = None
        self._publisher.begin(entry.head.operation_id, owner)
        first = [("operation", dump(await run_in_threadpool(self._views.of(owner).detail, entry)))]
        return topic, first if entry.open else [*first, (ENDED, ended_text(entry))], since

    def _has_room(self) -> None:
        if self._hub.readers >= READERS:
            raise Wrong(503, f"{READERS} readers are connected already; try again later")

    # -- cancel

    async def cancel(self, request: Request) -> Response:
        """Ask an operation to stop."""
        entry = await self._entry(request.path_params["id"], request.scope)
        wait = _seconds(request, "wait", WAIT, WAIT_MOST)
        head = entry.head
        attempt = _number(request, "attempt", 0, NUMBER_MOST) or None
        owner = _identity_or_401(request.scope).owner
        views = self._views.of(owner)
        reason = request.query_params.get("reason", "asked to by the monitor")[:REASON]
        if attempt is not None and attempt != entry.number:
            return await self._cancel_rival(entry, attempt, owner, reason, wait)
        if not entry.open:
            raise Wrong(409, f"it is over already: {head.status.value}")
        for below in self._elsewhere(entry, views):
            one = below.head
            self._spawn(self._control.cancel(one.operation_id, one.attempt, below.instance, reason, 0, owner))
        found = await self._control.cancel(head.operation_id, head.attempt, entry.instance, reason, wait, owner)
        return _outcome(found)

    async def _cancel_rival(self, entry: Entry, attempt: int, owner: str | None, reason: str, wait: float) -> Response:
        """Ask an older run to stop, which lives beside the newest one; never that one."""
        now, control = clock.monotonic(), self._control
        live = [rival for rival in (entry.rivals or {}).values() if self._views.is_live(rival, now)]
        for rival in live:
            if rival.number == attempt:
                key, said = entry.head.operation_id, rival.head.attempt
                return _outcome(await control.cancel(key, said, rival.instance, reason, wait, owner))
        runs = [rival.number for rival in live] + ([entry.number] if entry.open else [])
        if not runs:
            raise Wrong(409, f"no attempt runs; attempt {entry.number} is over: {entry.head.status.value}")
        named = " and ".join(f"attempt {number}" for number in sorted(runs))
        raise Wrong(409, f"attempt {attempt} does not run; {named} run{'s' if len(runs) == 1 else ''}")

    def _elsewhere(self, entry: Entry, views: Views) -> list[Entry]:
        """What runs below an operation in other processes: its own process asks what runs there."""
        found: dict[str, Entry] = {}
        waiting = [entry]
        while waiting and len(found) < BELOW:
            for below in views.children_of(waiting.pop().head.operation_id):
                if below.open and below.head.operation_id not in found:
                    found[below.head.operation_id] = below
                    waiting.append(below)
        return [below for below in found.values() if below.instance != entry.instance]

    def _spawn(self, asking: Coroutine[Any, Any, Any]) -> None:
        """Let it be done while others go on."""
        task = asyncio.ensure_future(asking)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def commands(self, request: Request) -> Response:
        """The control channel: a process asks for its commands."""
        body = await _body(request, CONTROL_BYTES)
        try:
            asked = answers_of(body)
            found = await self._control.poll(asked.instance, asked.pid, asked.answers, asked.wait)
        except ValueError as error:
            raise Wrong(400, str(error)) from None
        except TooMany as error:
            raise Wrong(503, str(error)) from None
        return JSONResponse({"commands": found})

    # -- the page

    async def session(self, request: Request) -> Response:
        """Who one is (GET), a new session (POST with a token), or its end (DELETE)."""
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
            raise Wrong(415, 'send JSON: {"token": "…"}')
        token = _token(await _body(request, SESSION_BYTES))
        opened = self._auth.log_in(token)
        if opened is None:
            raise Wrong(401, "this token is not known")
        session, identity = opened
        answer = JSONResponse({"rights": sorted(identity.rights & {READ, CONTROL})})
        self._set_cookie(answer, session, request)
        return answer

    async def login(self, request: Request) -> Response:
        """A link that works once."""
        answer = RedirectResponse("/", 303)
        if request.method == "GET":  # who only looks at where a link leads does not spend it
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
        text = await run_in_threadpool(_read_page)
        return Response(text, media_type="text/html")


class _Asgi:
    """An ASGI application of a handler, which tells as JSON what is wrong with a request."""

    def __init__(self, handler: Callable[[Scope, Receive, Send], Awaitable[None]], path: str) -> None:
        self._handler = handler
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await JSONResponse({"error": "only GET is served here"}, 405, {"allow": "GET"})(scope, receive, send)
            return
        try:
            _check_names(self._path, scope)
            await self._handler(scope, receive, send)
        except Wrong as wrong:
            await JSONResponse({"error": wrong.reason}, wrong.status)(scope, receive, send)
        except ConnectionAbortedError:
            pass  # the reader left


def _outcome(outcome: Outcome) -> Response:
    """What became of a request to stop, as an answer."""
    if outcome.state == OBEYED:
        return JSONResponse({"state": "obeyed", "detail": outcome.detail})
    if outcome.state == RECEIVED:
        return JSONResponse({"state": "received", "detail": outcome.detail}, 202)
    if outcome.state == TIMED_OUT:
        return JSONResponse({"state": "timed out", "detail": outcome.detail}, 504)
    raise Wrong(409, f"{outcome.state}: {outcome.detail}")


async def _deny(socket: WebSocket, wrong: Wrong) -> None:
    await socket.send_denial_response(JSONResponse({"error": wrong.reason}, wrong.status))


async def _body(request: Request, most: int) -> bytes:
    try:
        return await read_body(request, most)
    except Refused as refused:
        raise Wrong(refused.status, refused.reason) from None


def _read_page() -> bytes:
    return (STATIC / "index.html").read_bytes()


def _identity(scope: Scope) -> Identity | None:
    found: Identity | None = scope.get("identity")
    return found


def _identity_or_401(scope: Scope) -> Identity:
    identity = _identity(scope)
    if identity is None:
        raise Wrong(401, "a token is needed: POST it to /session, or send it as `Authorization: Bearer TOKEN`")
    return identity


def _after(scope: Scope) -> str | None:
    """The frame after which a reader goes on."""
    request = Request({**scope, "type": "http", "method": "GET"})
    return request.headers.get("last-event-id") or request.query_params.get("after") or None


def _check_names(path: str, scope: Scope) -> None:
    """Refuse a query parameter that a route does not take.

    Raises:
        Wrong: with the nearest one that it takes.
    """
    given = QueryParams(scope.get("query_string", b""))
    reason = wrong_name(path, scope.get("method", "GET"), given.keys())
    if reason is not None:
        raise Wrong(400, reason)


def _query(request: Request, identity: Identity) -> tuple[Query, frozenset[str]]:
    get = request.query_params.get
    statuses = _words(request, "status", _STATUSES)
    verdicts = _words(request, "verdict", WORDS)
    query = Query(
        statuses=statuses,
        name=get("name"),
        search=get("search") or None,
        since=_time(request, "since"),
        until=_time(request, "until"),
        parent=get("parent"),
        owner=identity.owner,
    )
    return query, frozenset(verdicts)


def _words(request: Request, key: str, known: frozenset[str]) -> tuple[str, ...]:
    given = [word for word in request.query_params.get(key, "").split(",") if word]
    for word in given:
        if word not in known:
            raise Wrong(400, f"{key}={word[:50]} is not known; it is one or more of {', '.join(sorted(known))}")
    return tuple(given)


def _number(request: Request, key: str, default: int, most: int) -> int:
    given = request.query_params.get(key)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or len(given) > 19 or int(given) > most:
        raise Wrong(400, f"{key} is a whole number from 0 to {most}")
    return int(given) if key != "limit" else max(1, int(given))


def _seconds(request: Request, key: str, default: float, most: float) -> float:
    given = _time(request, key)
    if given is None:
        return default
    if not 0 <= given <= most:
        raise Wrong(400, f"{key} is a number of seconds from 0 to {most:g}")
    return given


def _time(request: Request, key: str) -> float | None:
    given = request.query_params.get(key)
    if given is None:
        return None
    if not _SECONDS.fullmatch(given) or not abs(found := float(given)) <= TIME_MOST:
        raise Wrong(400, f"{key} is a number of seconds")
    return found


def _place(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise Wrong(400, _NO_CURSOR)
    return int(text)


def _token(body: bytes) -> str:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    token = given.get("token") if isinstance(given, dict) else None
    if not isinstance(token, str):
        raise Wrong(400, 'send JSON: {"token": "…"}')
    return token


def about(version: str) -> dict[str, Any]:
    """What everybody may know of us."""
    return {"status": "ok", "product": "otel-progress", "version": version, "pid": os.getpid()}
