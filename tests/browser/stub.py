"""A stub of the monitor: it serves the page and the API with made-up operations.

It shows what is hard to provoke for real. To see the page: `python -m tests.browser.stub --port 8000`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parents[2] / "src/otel_progress/monitor/web/static"
FINAL = {"completed", "failed", "cancelled", "lost", "interrupted"}
ROW = [
    "warning",
    "id",
    "name",
    "status",
    "verdict",
    "reason",
    "state",
    "attempt",
    "parent_id",
    "agent",
    "service",
    "host",
    "pid",
    "started_at",
    "timestamp",
    "elapsed",
    "idle",
    "stage",
    "progress",
    "wait",
    "stuck_at",
    "cancel",
    "cost",
    "tokens",
    "children",
    "ended",
    "source",
    "revision",
]
TROUBLE = ("silent", "looping", "dead", "overdue", "slow", "unknown")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
Operation = dict[str, Any]


def trouble(operation: Operation) -> str:
    """Return the group of an operation in trouble, or nothing."""
    verdict = operation.get("verdict") or {}
    if operation["status"] in FINAL:
        return ""
    if verdict.get("overdue"):
        return "overdue"
    return verdict.get("health", "") if verdict.get("health") in TROUBLE else ""


class World:
    """The data of the stub, changed from any thread and read by the server's loop."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.operations: dict[str, Operation] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.epoch = "a"
        self.sequence = 0
        self.revision = 0
        self.log: deque[tuple[int, str]] = deque(maxlen=50_000)
        self.event_id = 0
        self.token: str | None = None
        self.rights = ["read", "control"]
        self.on_cancel: dict[str, tuple[int, dict[str, str]]] = {}
        self.requests: list[str] = []
        self.watching: list[str] = []
        self.interval = 0.1

    def put(self, operation: Operation | str, **changes: Any) -> Operation:
        """Add an operation, or change one by its id, and notify every reader."""
        with self.lock:
            before = self.operations.get(operation, {}) if isinstance(operation, str) else operation
            now = {"attempt": 1, "status": "running", **before, **changes}
            now.setdefault("timestamp", time.time())
            if now["status"] in FINAL:
                now.pop("verdict", None)
                now["ended"] = True
            self.sequence += 1
            self.revision += 1
            now["revision"] = self.revision
            self.operations[now["id"]] = now
            self.log.append((self.sequence, now["id"]))
            return now

    def remove(self, ident: str) -> None:
        with self.lock:
            self.operations.pop(ident, None)
            self.sequence += 1
            self.log.append((self.sequence, ident))

    def say(self, ident: str, event: str, text: str = "", **more: Any) -> None:
        """Add an event to the feed of an operation."""
        with self.lock:
            self.event_id += 1
            line = {
                "id": self.event_id,
                "timestamp": time.time(),
                "event": event,
                "text": text,
                "operation_id": ident,
                **more,
            }
            self.events.setdefault(ident, []).append(line)

    def row(self, operation: Operation) -> Operation:
        verdict = operation.get("verdict")
        row = {key: operation[key] for key in ROW if operation.get(key) is not None}
        if verdict:
            row["verdict"] = {
                key: verdict[key]
                for key in ("health", "reason", "overdue", "branch", "frozen", "child")
                if key in verdict
            }
        return row

    def since(self, position: int, limit: int = 200) -> tuple[int, list[Operation], list[str]] | None:
        """Return what changed after this position, or None if that is no longer known."""
        with self.lock:
            if position > self.sequence or (self.log and position < self.log[0][0] - 1):
                return None
            changed: dict[str, None] = {}
            end = position
            first = position + 1 - self.log[0][0] if self.log else 0
            for sequence, ident in itertools.islice(self.log, first, None):
                if ident not in changed and len(changed) == limit:
                    break
                changed[ident] = None
                end = sequence
            rows = [self.row(self.operations[ident]) for ident in changed if ident in self.operations]
            return end, rows, [ident for ident in changed if ident not in self.operations]


def order(operation: Operation) -> tuple[int, float]:
    group = trouble(operation)
    if group:
        return ({"looping": 0, "silent": 0}.get(group, TROUBLE.index(group)), -operation.get("started_at", 0))
    if operation["status"] in FINAL:
        return (11, -operation["timestamp"])
    return (10, -operation.get("started_at", 0))


def names(value: str | None) -> set[str]:
    return set(value.split(",")) if value else set()


class Api:
    """The routes of the API."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.closing = asyncio.Event()

    def app(self) -> Starlette:
        routes = [
            Route("/", self.page),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/session", self.session, methods=["GET", "POST", "DELETE"]),
            Route("/stream", self.guard(self.stream)),
            Route("/watching", self.guard(self.watching), methods=["POST"]),
            Route("/operations", self.guard(self.operations)),
            Route("/operations/{rest:path}", self.guard(self.operation), methods=["GET", "DELETE"]),
        ]
        return Starlette(routes=routes)

    async def page(self, request: Request) -> Response:
        return FileResponse(
            STATIC / "index.html", headers={"Content-Security-Policy": CSP, "Referrer-Policy": "no-referrer"}
        )

    def guard(self, route: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            self.world.requests.append(f"{request.method} {request.url.path}?{request.url.query}")
            if self.world.token and request.cookies.get("stub") != self.world.token:
                return JSONResponse({"error": "a token is needed: POST /session"}, 401)
            return await route(request)

        return guarded

    async def watching(self, request: Request) -> Response:
        self.world.watching = (await request.json())["ids"]
        return JSONResponse({"for": 15})

    async def session(self, request: Request) -> Response:
        world = self.world
        if request.method == "DELETE":
            answer = JSONResponse({})
            answer.delete_cookie("stub")
            return answer
        if request.method == "POST":
            if (await request.json()).get("token") != world.token:
                return JSONResponse({"error": "this token is not known: take the one of --token-file"}, 401)
            answer = JSONResponse({"rights": world.rights, "owner": None, "needs_token": True})
            answer.set_cookie("stub", world.token or "", httponly=True, samesite="strict")
            return answer
        if world.token and request.cookies.get("stub") != world.token:
            return JSONResponse({"error": "a token is needed: POST /session"}, 401)
        return JSONResponse({"rights": world.rights, "owner": None, "needs_token": bool(world.token)})

    async def operations(self, request: Request) -> Response:
        query = request.query_params
        statuses, verdicts = names(query.get("status")), names(query.get("verdict"))
        search = query.get("search", "").lower()
        world = self.world
        with world.lock:
            found = [
                one
                for one in world.operations.values()
                if (not statuses or one["status"] in statuses)
                and (not verdicts or trouble(one) in verdicts or (one.get("verdict") or {}).get("health") in verdicts)
                and (not query.get("name") or one.get("name") == query["name"])
                and (not query.get("parent") or one.get("parent_id") == query["parent"])
                and (not search or search in json.dumps(world.row(one)).lower())
            ]
            found.sort(key=order)
            start, limit = int(query.get("cursor", 0)), min(int(query.get("limit", 100)), 10_000)
            body = {
                "operations": [world.row(one) for one in found[start : start + limit]],
                "next": str(start + limit) if start + limit < len(found) else None,
                "total": len(found),
                "position": f"{world.epoch}-{world.sequence}",
            }
        return JSONResponse(body)

    async def operation(self, request: Request) -> Response:
        # The server decodes %2F in the path; the raw path tells an id with a slash from a route.
        raw = request.scope["raw_path"].decode().removeprefix("/operations/").split("/")
        from urllib.parse import unquote

        ident, rest = unquote(raw[0]), raw[1:]
        found = self.world.operations.get(ident)
        if found is None:
            return JSONResponse({"error": f"there is no operation {ident}"}, 404)
        if rest == ["events"]:
            return self.feed(ident, request)
        if request.method == "DELETE":
            return await self.cancel(found, request)
        return JSONResponse(self.detail(found))

    def detail(self, found: Operation) -> Operation:
        world = self.world
        with world.lock:
            children = [
                {**world.row(one), **{key: one[key] for key in ("attributes", "description") if key in one}}
                for one in world.operations.values()
                if one.get("parent_id") == found["id"]
            ]
            ancestors, above = [], world.operations.get(found.get("parent_id", ""))
            while above is not None:
                ancestors.insert(0, {"id": above["id"], "name": above["name"]})
                above = world.operations.get(above.get("parent_id", ""))
            return {**found, "children_rows": children, "ancestors": ancestors}

    def feed(self, ident: str, request: Request) -> Response:
        query = request.query_params
        limit = int(query.get("limit", 200))
        wanted = names(query.get("event"))
        after, before = int(query.get("after", 0)), int(query.get("before", 0))
        lines = [line for line in self.world.events.get(ident, []) if not wanted or line["event"] in wanted]
        if before:
            lines = [line for line in lines if line["id"] < before][-limit:]
        else:
            lines = [line for line in lines if line["id"] > after][:limit]
        return JSONResponse({"events": lines, "next": lines[-1]["id"] if len(lines) == limit else None})

    async def cancel(self, found: Operation, request: Request) -> Response:
        world = self.world
        code, body = world.on_cancel.get(found["id"], (200, {"state": "obeyed"}))
        await asyncio.sleep(0.05)
        if code < 300:
            world.put(found["id"], cancel="requested")
        if code == 200:
            world.put(
                found["id"], status="cancelled", reason=request.query_params.get("reason") or "cancelled by the monitor"
            )
        return JSONResponse(body, code)

    async def stream(self, request: Request) -> Response:
        at = request.headers.get("last-event-id") or request.query_params.get("after") or ""
        return StreamingResponse(self.frames(at), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def frames(self, at: str) -> AsyncIterator[str]:
        world = self.world
        epoch, _, position = at.partition("-")
        hello = {
            "position": f"{world.epoch}-{world.sequence}",
            "interval": 0.1,
            "version": "0.1.0",
            "server_time": time.time(),
        }
        yield f"id: {at or hello['position']}\nevent: hello\ndata: {json.dumps(hello)}\n\n"
        seen = int(position) if at and epoch == world.epoch else world.sequence
        if at and epoch != world.epoch:
            yield f"id: {world.epoch}-{world.sequence}\nevent: reset\ndata: {{}}\n\n"
        beat = time.monotonic()
        while not self.closing.is_set():
            changes = world.since(seen)
            if changes is None:
                seen = world.sequence
                yield f"id: {world.epoch}-{seen}\nevent: reset\ndata: {{}}\n\n"
            elif changes[0] > seen:
                seen, rows, removed = changes
                yield f"id: {world.epoch}-{seen}\nevent: changes\ndata: {json.dumps({'rows': rows, 'removed': removed})}\n\n"
            elif time.monotonic() - beat > 5:
                beat = time.monotonic()
                yield ": beat\n\n"
            try:
                await asyncio.wait_for(
                    self.closing.wait(), 0.02 if changes and len(changes[1]) == 200 else world.interval
                )
            except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
                continue


class Stub:
    """A server in a thread, which can be killed and started again on its port with its data."""

    def __init__(self, world: World, port: int = 0) -> None:
        self.world = world
        with socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", port))
            self.port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server: uvicorn.Server | None = None

    def start(self) -> Stub:
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(10)
        return self

    def _run(self, ready: threading.Event) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            self.api = Api(self.world)
            config = uvicorn.Config(
                self.api.app(), port=self.port, log_level="error", timeout_graceful_shutdown=1, lifespan="off"
            )
            self.server = uvicorn.Server(config)
            serving = asyncio.ensure_future(self.server.serve())
            while not self.server.started and not serving.done():
                await asyncio.sleep(0.01)
            ready.set()
            await serving

        asyncio.run(serve())

    def stop(self) -> None:
        if self.server is not None:
            self.loop.call_soon_threadsafe(self.api.closing.set)
            self.server.should_exit = True
            self.thread.join(10)
            self.server = None


def main() -> None:
    from tests.browser.scene import animate, fill, many

    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--many", type=int, default=0)
    options.add_argument("--token")
    given = options.parse_args()
    world = World()
    world.token = given.token
    fill(world)
    many(world, given.many)
    stub = Stub(world, given.port).start()
    print(stub.url, flush=True)
    animate(world)


if __name__ == "__main__":
    main()
