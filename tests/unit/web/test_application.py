"""The application over this process's own operations: what is served, to whom, from when to when."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from web_parts import Client, until

import otel_progress as progress
from otel_progress import web
from otel_progress.handlers.handler import CallableHandler
from otel_progress.live import hooks
from otel_progress.web import serving
from otel_progress.web.embedded import NAME, PREFIX, of_process

HOSTILE = "a/b %2F <script>alert(1)</script> \N{GRINNING FACE}"


def client_of(owner: Any = True) -> Client:
    return Client(web.app(authorize=lambda _: owner))


async def row_of(client: Client, key: str) -> Any:
    from urllib.parse import quote

    answer = await client.ask(f"/operations/{quote(key, safe='')}")
    return answer.json if answer.status == 200 else None


def test_what_ran_before_the_first_request_is_there() -> None:
    """Without configure(), an operation that ended before anybody looked is listed, with its history."""
    client = client_of()
    with progress.operation("early", id=HOSTILE, total=2) as operation:
        operation.advance(2)

    async def scene() -> None:
        row = await until(lambda: row_of(client, HOSTILE))
        assert (row["name"], row["status"], row["id"]) == ("early", "completed", HOSTILE)
        events = (await client.ask(f"/operations/{_quoted(HOSTILE)}/events")).json["events"]
        assert [one["event"] for one in events] == ["progress.operation.started", "progress.operation.ended"]

    asyncio.run(scene())


def test_what_runs_before_the_application_is_there_soon() -> None:
    """An operation that started before the application was made is shown within a second or two, even if it is idle."""
    with progress.operation("idle", id="idle"):

        async def scene() -> None:
            client = client_of()
            row = await until(lambda: row_of(client, "idle"))
            assert row["status"] == "running"

        asyncio.run(scene())


def test_what_was_reported_elsewhere_is_there_soon() -> None:
    """An idle operation whose events others had long before reports its whole state to a new application."""
    seen: list[str] = []
    with CallableHandler(lambda event: seen.append(event.name)), progress.operation("idle", id="idle"):

        async def scene() -> None:
            async def is_seen() -> bool:
                return bool(seen)

            await until(is_seen)
            client = client_of()
            assert (await until(lambda: row_of(client, "idle")))["status"] == "running"

        asyncio.run(scene())


def _quoted(key: str) -> str:
    from urllib.parse import quote

    return quote(key, safe="")


def test_owners() -> None:
    """A name that `authorize` returns sees its own operations alone; others do not exist for it."""
    anna, bob = client_of("anna"), client_of("bob")
    running = [
        progress.operation("of anna", id="a", attributes={"owner": "anna"}).start(),
        progress.operation("of bob", id="b", attributes={"owner": "bob"}).start(),
        progress.operation("of nobody", id="n").start(),
    ]

    async def scene() -> None:
        await until(lambda: row_of(anna, "a"))
        await until(lambda: row_of(client_of(), "n"))
        assert [one["id"] for one in (await anna.ask("/operations")).json["operations"]] == ["a"]
        assert (await bob.ask("/operations")).json["total"] == 1
        for path, method in (
            ("/operations/a", "GET"),
            ("/operations/a/events", "GET"),
            ("/operations/a/report", "GET"),
            ("/operations/a/stream", "GET"),
            ("/operations/a", "DELETE"),
        ):
            assert (await bob.ask(path, method)).status == 404
        assert (await bob.socket("/operations/a/ws"))[-1]["type"] == "websocket.close"
        assert (await client_of().ask("/operations")).json["total"] == 3

    asyncio.run(scene())
    for one in running:
        one.complete()


def test_streams_end_with_the_operation() -> None:
    """SSE and WebSocket give the state at once and the end at last; who comes back with the last id gets 204."""
    client = client_of()
    operation = progress.operation("watched", id="w", total=5).start()

    async def scene() -> None:
        await until(lambda: row_of(client, "w"))
        streams = [
            asyncio.ensure_future(client.ask("/operations/w/stream")),
            asyncio.ensure_future(client.socket("/operations/w/ws")),
        ]
        await asyncio.sleep(0)
        operation.advance(5)
        operation.complete()
        events, socket = await asyncio.wait_for(asyncio.gather(*streams), 20)
        names = [line for line in events.body.decode().splitlines() if line.startswith("event: ")]
        assert (names[0], names[1], names[-1]) == ("event: hello", "event: operation", "event: ended")
        texts = [json.loads(one["text"]) for one in socket if one["type"] == "websocket.send"]
        assert (texts[0]["event"], texts[-1]["event"]) == ("hello", "ended")
        last = [line for line in events.body.decode().splitlines() if line.startswith("id: ")][-1][4:]
        assert (await client.ask("/operations/w/stream", last_event_id=last)).status == 204

    asyncio.run(scene())


def test_cancel_reaches_threads_and_tasks() -> None:
    """DELETE asks the operation in this process to stop, in a thread and on the server's own loop, and says that it did."""
    client = client_of("ann")
    started = threading.Event()

    def work() -> None:
        with (
            pytest.raises(progress.OperationCancelled),
            progress.operation("thread", id="t", attributes={"owner": "ann"}),
        ):
            for _ in progress.track(iter(int, 1)):
                started.wait(0.01)

    async def task() -> None:
        async with progress.operation("task", id="k", attributes={"owner": "ann"}):
            await asyncio.sleep(60)

    async def scene() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        running = asyncio.ensure_future(task())
        for key in ("t", "k"):
            assert (await until(lambda key=key: row_of(client, key)))["control"] is True
            answer = await client.ask(f"/operations/{key}?wait=10", "DELETE")
            assert (answer.status, answer.json["state"]) == (200, "obeyed")
        assert (await client.ask("/operations/t", "DELETE")).status == 409
        thread.join(10)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await row_of(client, "k"))["status"] == "cancelled"

    asyncio.run(scene())


def test_busy_worker_threads_hold_nothing_up() -> None:
    """A host whose sync calls fill Starlette's worker threads still serves progress, and can cancel."""
    from starlette.concurrency import run_in_threadpool

    client, release = client_of(), threading.Event()

    async def scene() -> None:
        calls = [asyncio.ensure_future(run_in_threadpool(release.wait, 30)) for _ in range(60)]
        await asyncio.sleep(0.05)
        answer = await asyncio.wait_for(client.ask("/operations"), 10)
        assert answer.status == 200
        release.set()
        await asyncio.gather(*calls)

    asyncio.run(scene())


@pytest.mark.parametrize("prefix", ["/progress", "/a/b"])
def test_mounted(prefix: str) -> None:
    """`app` and `routes` work below a prefix, with encoded ids, behind a root path that a proxy removed or not."""
    paths = [
        "/operations",
        f"/operations/{_quoted(HOSTILE)}",
        f"/operations/{_quoted(HOSTILE)}/events",
        "/progress-operation.js",
        "/words.js",
        "/sse.js",
    ]
    hosts = [
        Starlette(routes=[Mount(prefix, app=web.app())]),
        Starlette(routes=[Mount(prefix, routes=web.routes())]),
    ]
    with progress.operation("mounted", id=HOSTILE):

        async def scene() -> None:
            await until(lambda: row_of(Client(web.app()), HOSTILE))
            for host in hosts:
                removed = [("/proxy", "")] if host is hosts[0] else []  # Starlette itself does not find routes then
                for root, before in (("", ""), ("/proxy", "/proxy"), *removed):
                    client = Client(host, root_path=root)
                    for path in paths:
                        answer = await client.ask(before + prefix + path)
                        assert answer.status == 200, (root, path, answer.body)
                    assert (await client.ask(f"{before}{prefix}/operations/none")).status == 404

        asyncio.run(scene())


def test_bad_requests() -> None:
    """An unknown path, method, parameter and a broken number are answered as JSON."""
    client = client_of()

    async def scene() -> None:
        for path, method, status in (
            ("/", "GET", 404), ("/session", "GET", 404), ("/control", "POST", 404), ("/v1/logs", "POST", 404), ("/health", "GET", 404), ("/static/app.js", "GET", 404),
            ("/operations", "POST", 405), ("/operations?colour=red", "GET", 400), ("/operations?limit=x", "GET", 400), ("/operations/..%2f..%2fetc", "GET", 404),
            ("/../embedded.py", "GET", 404),
        ):  # fmt: skip
            answer = await client.ask(path, method)
            assert (answer.status, list(answer.json)) == (status, ["error"]), path

    asyncio.run(scene())


def test_headers() -> None:
    """Data is not cached, and no script runs in it; the scripts are checked for changes at each use."""
    client = client_of()

    async def scene() -> None:
        data, script = await client.ask("/operations"), await client.ask("/progress-operation.js")
        assert (data.headers["cache-control"], script.headers["cache-control"]) == ("no-store", "no-cache")
        assert "default-src 'none'" in data.headers["content-security-policy"]
        assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
        assert (await client.ask("/progress-operation.js", if_none_match=script.headers["etag"])).status == 304

    asyncio.run(scene())


def test_middleware_of_the_host() -> None:
    """Streams pass through middleware that compresses or wraps responses, and end with the operation."""

    async def wrap(_: Any, call_next: Any) -> Any:
        return await call_next(_)

    middleware = [Middleware(GZipMiddleware, minimum_size=1), Middleware(BaseHTTPMiddleware, dispatch=wrap)]
    client = Client(Starlette(routes=[Mount("/p", app=web.app())], middleware=middleware))
    operation = progress.operation("wrapped", id="w").start()

    async def scene() -> None:
        await until(lambda: row_of(Client(web.app()), "w"))
        stream = asyncio.ensure_future(client.ask("/p/operations/w/stream", accept_encoding="gzip"))
        await asyncio.sleep(0)
        operation.complete()
        answer = await asyncio.wait_for(stream, 20)
        assert b"event: ended" in answer.body

    asyncio.run(scene())


def test_no_room_for_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a folder for temporary files there is 503 with the reason, and the job goes on; later it works."""
    client = client_of()
    with progress.operation("job", id="j") as operation:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
            answer = asyncio.run(client.ask("/operations"))
            assert (answer.status, "none" in answer.json["error"]) == (503, True)
            operation.advance()
        assert asyncio.run(until(lambda: row_of(client, "j")))["status"] == "running"


def test_begin_and_end() -> None:
    """Importing starts nothing; an application collects, its lifespan starts the rest, and its end leaves nothing behind."""
    before, sinks = threading.active_count(), list(hooks.sinks)

    async def scene() -> None:
        host = web.app()
        assert of_process.running is None
        async with web.lifespan():
            folder = of_process.running.store.path.parent
            assert folder.name.startswith(PREFIX)
            assert (folder.stat().st_mode & 0o777) == 0o700
            async with web.lifespan():  # of a second application
                pass
            assert (await Client(host).ask("/operations")).status == 200
        assert of_process.running is None
        assert not folder.exists()
        assert hooks.sinks == sinks
        assert (await Client(host).ask("/operations")).status == 200  # a request starts it anew

    asyncio.run(scene())
    of_process.close()
    assert threading.active_count() <= before + 1  # asyncio's own worker may end a moment later


def test_lifespan_of_the_server() -> None:
    """Run alone, the application answers the server's lifespan."""

    async def scene() -> list[str]:
        said: list[str] = []
        come: asyncio.Queue[Any] = asyncio.Queue()
        come.put_nowait({"type": "lifespan.startup"})

        async def send(message: Any) -> None:
            said.append(message["type"])
            come.put_nowait({"type": "lifespan.shutdown"})

        await web.app()({"type": "lifespan"}, come.get, send)
        return said

    assert asyncio.run(scene()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_each_loop_in_turn() -> None:
    """A test client that runs each request on a loop of its own sees the same operations; two loops at once do not."""
    client = client_of()
    with progress.operation("turns", id="t"):
        asyncio.run(until(lambda: row_of(client, "t")))
        assert asyncio.run(client.ask("/operations/t")).status == 200
        first, started, release = asyncio.new_event_loop(), threading.Event(), threading.Event()

        async def hold() -> None:
            await client.ask("/operations")
            started.set()
            while not release.is_set():
                await asyncio.sleep(0.01)

        thread = threading.Thread(target=first.run_until_complete, args=(hold(),))
        thread.start()
        assert started.wait(10)
        assert asyncio.run(client.ask("/operations")).status == 503
        release.set()
        thread.join(10)
        assert asyncio.run(client.ask("/operations")).status == 200
        _close(first)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_leftovers_are_removed() -> None:
    """The folder of a process that was killed goes at the next start, one in use or a young one stays."""
    old, young = (Path(tempfile.mkdtemp(prefix=PREFIX)) for _ in range(2))
    for folder in (old, young):
        (folder / NAME).write_bytes(b"x")
    os.utime(old, (0, 0))
    asyncio.run(client_of().ask("/operations"))
    assert (old.exists(), young.exists()) == (False, True)
    (young / NAME).unlink()
    young.rmdir()


def test_fork() -> None:
    """A worker forked before the first request serves its own operations; a child of a serving one collects nothing."""
    sinks, client = len(hooks.sinks), client_of()
    assert _in_child(lambda: _serves(client, "mine")) == "mine"
    asyncio.run(client.ask("/operations"))
    with progress.operation("parent", id="p"):
        assert _in_child(lambda: str(len(hooks.sinks))) == str(sinks)
        assert _in_child(lambda: _serves(client, "later")) == "later"
        folder = of_process.running.store.path.parent
        assert folder.exists()
        asyncio.run(until(lambda: row_of(client, "p")))


FORKS = """
import os, signal
import otel_progress as progress
from otel_progress import web
from otel_progress.live.engine import runtime

runtime.want()
with progress.operation("first"):
    pass
web.app()
if os.fork() == 0:
    os._exit(7)
signal.alarm(20)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_fork_of_a_process_whose_events_were_wanted_before_it_collected() -> None:
    """The child does not wait for a lock that Python frees only after our hook."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def _serves(client: Client, key: str) -> str:
    with progress.operation(key, id=key):
        asyncio.run(until(lambda: row_of(client, key)))
        rows = asyncio.run(client.ask("/operations")).json["operations"]
    of_process.close()
    return ",".join(row["id"] for row in rows)


def _in_child(call: Any) -> str:
    """What a call returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(call()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        found = said.read()
    os.waitpid(pid, 0)
    return found


def test_permission_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends when its permission is old, so that its reader asks again; without `authorize` it lasts."""
    monkeypatch.setattr("otel_progress.web.access.HOLDS", 0.1)
    client = client_of()
    with progress.operation("long", id="l"):

        async def scene() -> None:
            await until(lambda: row_of(client, "l"))
            answer = await asyncio.wait_for(client.ask("/operations/l/stream"), 10)
            assert b"event: operation" in answer.body
            assert b"event: ended" not in answer.body
            assert (await client.socket("/operations/l/ws"))[-1]["code"] == 1008

        asyncio.run(scene())


def test_nobody_looks() -> None:
    """With nobody connected, the loop wakes about once a second, and what changed is not kept for anybody."""
    client = client_of()

    async def scene() -> None:
        await client.ask("/operations")
        served = await serving.serving()
        assert served._hub.topics == {}
        assert served.publisher._pause() == serving.IDLE

    asyncio.run(scene())
