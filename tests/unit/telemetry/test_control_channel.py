"""The control channel: a monitor asks operations of other processes to stop, and hears what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
import uvicorn
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import otel_progress as progress
from otel_progress import OperationCancelled, Status, clock, semconv
from otel_progress.live import hooks
from otel_progress.live.engine import commands as live
from otel_progress.live.engine import runtime
from otel_progress.live.engine.commands import Commands
from otel_progress.monitor.web import cancel as monitor
from otel_progress.monitor.web.cancel import CommandAnswer, Control, Outcome, TooMany, answers_of
from otel_progress.outbound.backoff import Backoff
from otel_progress.settings import Endpoint
from otel_progress.telemetry import control_channel
from otel_progress.telemetry.control_channel import Channel, follow
from otel_progress.testing import Capture, FakeClock

HEADER = "Otel-Progress-Control"
FINAL = {"completed", "failed", "cancelled", "lost", "interrupted"}


def until(met: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait for a condition; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def command(operation_id: str, reason: str | None = "enough", key: str = "c1", **more: Any) -> dict[str, Any]:
    """A command to cancel, as a monitor sends it."""
    return {"id": key, "kind": "cancel", "operation_id": operation_id, "reason": reason, **more}


def obey(operation_id: str, reason: str | None = "enough", **more: Any) -> tuple[str, str]:
    """What a process answers to a command."""
    return live.obey(command(operation_id, reason, **more))


# -- a monitor of real sockets


class Monitor:
    """A small OTLP receiver that offers a control channel, over real sockets."""

    def __init__(self, *, port: int = 0, offer: str | None = "/control", status: int = 200) -> None:
        self.offer = offer
        self.status = status
        self.failures = 0
        self.headers: list[dict[str, str]] = []
        self.asked: list[monitor.Asked] = []
        self.where: dict[str, str] = {}
        self.ends: dict[str, dict[str, Any]] = {}
        self.logs = 0
        self.control = Control()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = Starlette(
            routes=[
                Route("/v1/{signal}", self._otlp, methods=["POST"]),
                Route("/control", self._poll, methods=["POST"]),
            ]
        )
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )
        self._loop: asyncio.AbstractEventLoop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._server.serve(sockets=[self._socket])

    def __enter__(self) -> Monitor:
        self._thread.start()
        assert self._ready.wait(20)
        until(lambda: self._server.started, "the server starts")
        return self

    def __exit__(self, *_: object) -> None:
        self.on_loop(self.control.close)
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def take(self, body: bytes) -> None:
        """Read log events."""
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            resource = {pair.key: pair.value.string_value for pair in group.resource.attributes}
            for record in (record for scope in group.scope_logs for record in scope.log_records):
                about = {pair.key: pair.value for pair in record.attributes}
                if semconv.OPERATION_ID not in about:
                    continue
                key = about[semconv.OPERATION_ID].string_value
                self.where[key] = resource["service.instance.id"]
                if record.event_name == semconv.OPERATION_ENDED:
                    said = {name: about[name].string_value for name in about}
                    self.ends[key] = said
                    self.on_loop(
                        self.control.ended, key, said[semconv.STATUS], about[semconv.OPERATION_ATTEMPT].int_value
                    )

    async def _otlp(self, request: Request) -> Response:
        if request.path_params["signal"] == "logs":
            self.logs += 1
            self.take(await request.body())
        headers = {} if self.offer is None else {HEADER: self.offer}
        return Response(b"", media_type="application/x-protobuf", headers=headers)

    async def _poll(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        if self.status != 200 or len(self.headers) <= self.failures:
            return Response(status_code=503 if self.status == 200 else self.status)
        asked = answers_of(await request.body())
        self.asked.append(asked)
        return JSONResponse({"commands": await self.control.poll(*asked[:4], wishes=asked.wishes)})

    def on_loop(self, call: Callable[..., object], *args: object) -> None:
        self._loop.call_soon_threadsafe(call, *args)

    def start_cancel(self, key: str, *, attempt: int | None = None, reason: str = "enough", wait: float = 20.0) -> Any:
        """Ask an operation to stop; gives a future of the outcome."""
        until(lambda: key in self.where and self.control.connected(self.where[key]), f"{key} can be reached")
        asking = self.control.cancel(key, attempt, self.where[key], reason, wait)
        return asyncio.run_coroutine_threadsafe(asking, self._loop)

    def cancel(self, key: str, **options: Any) -> Outcome:
        """Ask an operation to stop, and wait for what becomes of it."""
        return self.start_cancel(key, **options).result(30)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """After the test nobody takes events, and the ticker rests."""
    wanted, sinks = hooks.wanted, list(hooks.sinks)
    yield
    hooks.wanted, hooks.sinks[:] = wanted, sinks
    runtime.rest()


@pytest.fixture
def server() -> Iterator[Monitor]:
    """A monitor."""
    with Monitor() as found:
        yield found


class Program:
    """A program in a process of its own that sends to a monitor."""

    def __init__(self, code: str, endpoint: str, **environ: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COV_", "PYTEST_"))}
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_PROGRESS_INTERVAL": "0.05",
            "OTEL_PROGRESS_HEARTBEAT": "0.2",
        }
        head = "import asyncio, os, sys, threading, time\nimport otel_progress as progress\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", head + code],
            env={**kept, **settings, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def finish(self) -> tuple[str, str]:
        """Wait for its end; returns what it said, and its errors."""
        said, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return said, errors


SYNC = """
progress.configure()
try:
    with progress.operation("work", id="w"), progress.stage("parse"):
        while True:
            progress.raise_if_cancelled()
            time.sleep(0.01)
except progress.OperationCancelled as error:
    print(error)
"""


def test_code_that_asks_is_stopped(server: Monitor) -> None:
    """`raise_if_cancelled` raises with the reason, operation and stage end as cancelled, and the monitor hears it."""
    with Program(SYNC, server.url) as program:
        assert server.cancel("w", reason="not needed") == ("obeyed", "it ended as cancelled")
        said, errors = program.finish()
    assert said == "'work' was asked to stop: not needed\n"
    assert errors == ""
    assert server.ends["w"][semconv.STATUS_REASON] == "OperationCancelled: 'work' was asked to stop: not needed"
    (stage,) = json.loads(server.ends["w"][semconv.STAGES])
    assert "cancelled" in str(stage)
    assert not server.control.requested("w")


def test_a_task_is_cancelled_at_its_await(server: Monitor) -> None:
    """An asyncio task that waits for ever in an operation is cancelled where it waits."""
    code = """
progress.configure()

@progress.operation("agent", id="a")
async def agent():
    async with progress.stage("think"):
        await asyncio.Event().wait()

async def main():
    try:
        await agent()
    except asyncio.CancelledError:
        print("cancelled")

asyncio.run(main())
"""
    with Program(code, server.url) as program:
        assert server.cancel("a").state == "obeyed"
        assert program.finish() == ("cancelled\n", "")
    assert "enough" in server.ends["a"][semconv.STATUS_REASON]


def test_work_that_never_asks_is_said_to_go_on(server: Monitor) -> None:
    """Synchronous code that never asks is not stopped: the answer is `received`, and it shows as asked to stop."""
    code = """
progress.configure()
with progress.operation("deaf", id="d"):
    sys.stdin.readline()
"""
    with Program(code, server.url) as program:
        assert server.cancel("d", wait=0.5) == ("received", "")
        assert server.control.requested("d")
        program.process.communicate("\n", timeout=60)
    until(lambda: "d" in server.ends, "the end is told")
    assert server.ends["d"][semconv.STATUS] == "completed"
    until(lambda: not server.control.requested("d"), "it is over")


def test_a_forked_child_has_a_channel_of_its_own(server: Monitor) -> None:
    """A forked child asks under its own instance id, and its operation stops while that of the parent goes on."""
    code = """
progress.configure()
with progress.operation("parent", id="p") as parent:
    sys.stdin.readline()
    pid = os.fork()
    if pid == 0:
        try:
            with progress.operation("child", id="k"):
                while True:
                    progress.raise_if_cancelled()
                    time.sleep(0.01)
        except progress.OperationCancelled:
            progress.shutdown()
            os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), parent.cancel_requested(), flush=True)
    while not parent.cancel_requested():
        time.sleep(0.01)
"""
    with Program(code, server.url) as program:
        until(lambda: "p" in server.where and server.control.connected(server.where["p"]), "the parent asks")
        assert program.process.stdin is not None
        program.process.stdin.write("\n")
        program.process.stdin.flush()
        assert server.cancel("k").state == "obeyed"
        assert server.where["k"] != server.where["p"]
        assert program.process.stdout is not None
        assert program.process.stdout.readline() == "7 False\n"
        assert server.cancel("p").state == "obeyed"
        _, errors = program.finish()
    assert "Traceback" not in errors


def test_the_end_of_the_process_is_not_held(server: Monitor) -> None:
    """A process whose request for commands is held at the monitor ends at once."""
    code = """
progress.configure()
with progress.operation("work", id="w"):
    sys.stdin.readline()
"""
    with Program(code, server.url) as program:
        until(lambda: "w" in server.where and server.control.connected(server.where["w"]), "it asks")
        began = time.monotonic()
        program.process.communicate("\n", timeout=60)
        assert time.monotonic() - began < 5 < control_channel.WAIT
        assert program.process.returncode == 0


def test_a_monitor_that_comes_back_is_asked_again() -> None:
    """After an outage of the monitor its commands arrive again, and the job logs nothing."""
    with Monitor() as first:
        program = Program(SYNC, first.url)
        until(lambda: "w" in first.where and first.control.connected(first.where["w"]), "it asks")
        port = first.port
    with program, Monitor(port=port) as second:
        until(lambda: second.asked, "it asks again")
        second.where.setdefault("w", second.asked[0].instance)
        assert second.cancel("w").state == "obeyed"
        _, errors = program.finish()
    assert "Traceback" not in errors
    assert errors.count("control channel") <= 1


def test_it_can_be_turned_off(server: Monitor) -> None:
    """With `control=False`, or the variable, nobody is asked for commands."""
    code = """
progress.configure(control=False if len(sys.argv) > 1 else None)
with progress.operation("work", id="w"):
    sys.stdin.readline()
    print([thread.name for thread in threading.enumerate() if "control" in thread.name])
"""
    for environ, told in ((False, {"OTEL_PROGRESS_CONTROL": "false"}), (True, {})):
        text = code.replace("len(sys.argv) > 1", str(environ))
        server.logs = 0
        with Program(text, server.url, **told) as program:
            until(lambda: server.logs >= 3, "some events came")
            assert program.process.communicate("\n", timeout=60)[0] == "[]\n"
    assert server.asked == []


def test_over_grpc_the_channel_is_in_the_initial_metadata(server: Monitor) -> None:
    """A receiver that speaks gRPC names the URL in the initial metadata of its answer."""

    class Logs(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            def export(body: bytes, call: Any) -> bytes:
                server.take(body)
                call.send_initial_metadata(((HEADER.lower(), f"{server.url}/control"),))
                return b""

            return grpc.unary_unary_rpc_method_handler(export)

    receiver = grpc.server(ThreadPoolExecutor(2), handlers=(Logs(),))
    port = receiver.add_insecure_port("127.0.0.1:0")
    receiver.start()
    try:
        endpoint = f"http://127.0.0.1:{port}"
        told = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_PROGRESS_CONTROL": server.url}
        with Program(SYNC, endpoint, **told) as program:
            assert server.cancel("w").state == "obeyed"
            program.finish()
    finally:
        receiver.stop(None).wait(20)


def test_importing_brings_no_http_client() -> None:
    """Neither importing the package nor running an operation brings a client, nor what would use it."""
    code = """
import sys, otel_progress
with otel_progress.operation("x"):
    pass
print([name for name in ("http.client", "requests", "otel_progress.telemetry.control_channel") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


# -- obeying


def test_an_operation_that_is_not_here_is_unknown(progress_capture: Capture) -> None:
    """Nothing is done for an id that never ran in this process."""
    assert obey("elsewhere") == ("unknown", "no such operation runs in this process")


@pytest.mark.parametrize("given", ["mine", None])
def test_one_that_has_ended_is_refused(given: str | None, progress_capture: Capture) -> None:
    """A late request is answered that the operation has ended, whether its id was given or generated."""
    with progress.operation("work", id=given) as op:
        pass
    assert obey(op.id) == ("refused", "it has ended")
    assert not op.cancel_requested()


def test_another_attempt_is_refused(progress_capture: Capture) -> None:
    """A command for one attempt does not stop another one."""
    with progress.operation("work", id="w"):
        pass
    with progress.operation("work", id="w") as op:
        assert obey("w", attempt=1) == ("refused", "attempt 2 runs, not attempt 1")
        assert not op.cancel_requested()
        assert obey("w", attempt=2) == ("received", "")
        assert op.cancel_requested()


def test_one_that_has_not_started_finds_out_when_it_does(progress_capture: Capture) -> None:
    """An operation that is only expected yet is asked, too."""
    op = progress.operation("late", start_within=5)
    assert obey(op.id) == ("received", "")
    with pytest.raises(OperationCancelled, match="enough"), op:
        progress.raise_if_cancelled()


def test_the_reason_is_made_safe(progress_capture: Capture) -> None:
    """A reason from outside is short, on one line and printable; without one it is `requested`."""
    with progress.operation("work") as op:
        obey(op.id, "a\nb\x1b[31m\x00" + "c" * 5000)
        assert op._cancel_reason is not None
        assert op._cancel_reason.startswith("a b?[31m?cc")
        assert len(op._cancel_reason) <= 1024
    with progress.operation("work") as op:
        obey(op.id, " \n")
        assert op._cancel_reason == "requested"


def test_a_command_that_comes_twice_is_obeyed_once(progress_capture: Capture) -> None:
    """The same command again gets the same answer, and does nothing."""
    commands = Commands()
    with progress.operation("work") as op:
        first = commands.obey(command(op.id))
        assert first == {"command": "c1", "state": "received", "detail": ""}
        op._cancel_reason = None
        assert commands.obey(command(op.id)) == first
        assert not op.cancel_requested()
    assert commands.obey(command(op.id)) == first
    for number in range(live.REMEMBERED + 10):
        commands.obey(command("x", key=f"n{number}"))
    assert len(commands._answers) == live.REMEMBERED


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        [],
        {},
        {"id": 1, "kind": "cancel", "operation_id": "w"},
        {"id": "", "kind": "cancel", "operation_id": "w"},
        {"id": "x" * 201, "kind": "cancel", "operation_id": "w"},
        {"id": "c", "kind": "cancel"},
        {"id": "c", "operation_id": "w"},
        {"id": "c", "kind": "cancel", "operation_id": ["w"]},
        {"id": "c", "kind": "cancel", "operation_id": "w", "attempt": "1"},
        {"id": "c", "kind": "cancel", "operation_id": "w", "attempt": True},
        {"id": "c", "kind": "cancel", "operation_id": "w", "reason": {}},
        {"do": "live", "ids": ["w"]},
        {"do": "live", "ids": ["w"], "for": "15"},
        {"do": "live", "ids": ["w"], "for": True},
        {"do": "live", "ids": ["w"], "for": float("nan")},
        {"do": "live", "ids": ["w"], "for": float("inf")},
        {"do": "live", "ids": ["w"], "for": -1},
        {"do": "live", "ids": "w", "for": 15},
        {"do": "live", "ids": [1], "for": 15},
        {"do": "keyframe"},
        {"do": "keyframe", "ids": None},
        {"do": "keyframe", "ids": {"w": 1}},
    ],
)
def test_a_malformed_command_is_counted(given: object, progress_capture: Capture) -> None:
    """What can't be read is ignored and counted."""
    with progress.operation("work", id="w") as op:
        assert Commands().obey(given) is None
        assert progress_capture.drops == {semconv.DROP_VALUE: 1}
        assert not op.cancel_requested()


def test_a_warning_is_logged_once_and_asks_for_nothing(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """A monitor may tell a process what it should know, on one line; nothing is cancelled, also where it comes twice."""
    commands = Commands()
    command = {"id": "c", "kind": "warn", "operation_id": "w", "reason": "two processes\nrun it"}
    with progress.operation("work", id="w") as op:
        for _ in range(2):
            assert commands.obey(command) == {"command": "c", "state": "received", "detail": ""}
        assert not op.cancel_requested()
    assert [one.getMessage() for one in caplog.records] == ["two processes run it"]


def test_an_end_in_another_process_is_that_of_another_run() -> None:
    """If an id runs twice, the end of one run does not answer the request to stop the other."""

    async def scene() -> tuple[str, str]:
        control = Control()
        for instance in ("p1", "p2"):
            await control.poll(instance, 1)
        asked = [asyncio.ensure_future(control.cancel("w", 1, instance, wait=5)) for instance in ("p1", "p2")]
        for instance in ("p1", "p2"):
            (command,) = await control.poll(instance, 1, wait=5)
            await control.poll(instance, 1, (CommandAnswer(command["id"], "received"),))
        control.ended("w", "cancelled", 1, "p2")
        second = await asked[1]
        assert not asked[0].done()
        control.ended("w", "failed", 1, "p1")
        return (await asked[0]).detail, second.detail

    assert asyncio.run(scene()) == ("it ended as failed", "it ended as cancelled")


def test_a_command_of_another_kind_is_refused(progress_capture: Capture) -> None:
    """An unknown command, as of a later version, is refused with a message."""
    assert Commands().obey({"id": "c", "kind": "pause", "operation_id": "w"}) == {
        "command": "c",
        "state": "refused",
        "detail": "this version knows no such command",
    }


def _lazily(items: Any) -> Iterator[Any]:
    yield from items


@pytest.mark.parametrize("make", [list, tuple, lambda items: range(len(items)), _lazily, dict.fromkeys, enumerate])
def test_a_loop_over_track_is_stopped_at_its_next_item(make: Any, progress_capture: Capture) -> None:
    """Asked from outside, `track` raises where it would give the next item, which stays in its source."""
    source = make([0, 1, 2, 3, 4, 5])
    seen = 0
    with pytest.raises(OperationCancelled, match="enough"), progress.operation("long", id="long-1") as long:
        for _ in progress.track(source):
            seen += 1
            if seen == 3:
                assert obey("long-1")[0] == "received"
    assert seen == 3
    assert long.status == "cancelled"
    assert long.snapshot().progress.completed == 2
    if make is _lazily:
        assert next(source) == 3


def test_a_loop_that_cleans_up_runs_to_its_end(progress_capture: Capture) -> None:
    """Once a loop has raised, later ones are left alone; so are those of other operations, and of an asyncio task."""
    cleaned = []
    with pytest.raises(OperationCancelled), progress.operation("long", id="long-1") as long:
        try:
            with progress.stage("work"):
                for _ in progress.track([1, 2, 3]):
                    obey("long-1")
        finally:
            cleaned.extend(progress.track(["a", "b"]))
    assert cleaned == ["a", "b"]
    assert long.status == "cancelled"
    with progress.operation("other", id="other-1"):
        assert list(progress.track(range(3))) == [0, 1, 2]


def test_a_loop_that_begins_after_the_request_is_stopped(progress_capture: Capture) -> None:
    """Where no loop was open when the request came, the next one raises at its first item."""
    with progress.operation("long", id="long-1"):
        obey("long-1")
        with pytest.raises(OperationCancelled):
            list(progress.track([1, 2, 3]))
        assert list(progress.track([1, 2, 3])) == [1, 2, 3]


def test_loops_of_threads_and_of_children_are_stopped(progress_capture: Capture) -> None:
    """Every open loop of the operation and of what runs below it raises, in whatever thread."""
    began, asked = threading.Barrier(3), threading.Event()

    def work(handle: Any) -> int:
        done = 0
        with contextlib.suppress(OperationCancelled):
            for _ in handle.track(range(100)):
                done += 1
                if done == 5:
                    began.wait(10)
                    asked.wait(10)
        return done

    with progress.operation("outer", id="outer-1") as outer, ThreadPoolExecutor(2) as pool:
        child = progress.operation("inner", parent=outer).start()
        results = [pool.submit(work, handle) for handle in (outer, child)]
        began.wait(10)
        obey("outer-1")
        asked.set()
        assert [result.result(10) for result in results] == [5, 5]


def test_a_loop_of_an_asyncio_task_ends_with_the_task(progress_capture: Capture) -> None:
    """There the task is cancelled, and the loop raises nothing of its own: cleaning up is asked for once."""

    async def main() -> str:
        try:
            with progress.operation("long", id="long-1"):
                for _ in progress.track(range(100)):
                    obey("long-1")
                    await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return "cancelled"
        return "?"

    assert run(main) == "cancelled"


def test_what_runs_below_is_asked_too(progress_capture: Capture) -> None:
    """Child operations of this process are asked at any depth, however they came to their parent; others are not."""
    with progress.operation("other") as other:
        pass
    other = progress.operation("other").start()
    with progress.operation("top", id="top") as top, progress.stage("s"):
        child = progress.operation("child").start()
        with child.use(), progress.stage("t"):
            below = progress.operation("below").start()
        by_id = progress.operation("by id", parent="top").start()
        by_stage = progress.operation("by stage", parent=child).start()
    top = progress.operation("again", id="top").start()
    under = progress.operation("under", parent="top").start()
    assert obey(child.id) == ("received", "")
    asked = {op.name for op in (other, child, below, by_id, by_stage, top, under) if op.cancel_requested()}
    assert asked == {"child", "below", "by stage"}
    obey("top")
    assert top.cancel_requested()
    assert under.cancel_requested()
    assert not other.cancel_requested()


# -- what an owner may stop


def obey_owner(operation_id: str, owner: object = "ann", **more: Any) -> tuple[str, str]:
    """What a process answers to a command of an owner."""
    return live.obey({**command(operation_id, **more), "kind": "cancel-owned", "owner": owner})


def owned(name: str, owner: str | None, **more: Any) -> progress.Operation:
    """An operation that names an owner."""
    return progress.operation(name, id=name, attributes={} if owner is None else {"owner": owner}, **more)


def test_what_names_another_owner_goes_on(progress_capture: Capture) -> None:
    """A request of an owner reaches what names no other, at any depth, and nothing below what names another."""
    ops = [owned("top", "ann").start()]
    for name, owner, parent in (
        ("plain", None, "top"),
        ("of-bob", "bob", "top"),
        ("below-bob", None, "of-bob"),
        ("ann-below-bob", "ann", "of-bob"),
        ("deep", "ann", "plain"),
        ("of-nobody", "", "deep"),
    ):
        ops.append(owned(name, owner, parent=parent).start())
    assert obey_owner("top") == ("received", "")
    assert {op.name for op in ops if op.cancel_requested()} == {"top", "plain", "deep"}
    assert obey("top") == ("received", "")
    assert all(op.cancel_requested() for op in ops)


def test_one_that_names_another_owner_is_refused(progress_capture: Capture) -> None:
    """The process does not rely on the monitor: what is another's by its own word, or by that above it, is left alone."""
    top = owned("of-bob", "bob").start()
    child = owned("child", None, parent="of-bob").start()
    late = owned("late", None).start()
    late.set(owner="bob")
    for op in (top, child, late):
        assert obey_owner(op.id) == ("refused", "it names another owner")
        assert not op.cancel_requested()
    free = owned("free", None, parent="elsewhere").start()  # what is above it only the monitor knows
    assert obey_owner("free", attempt=2) == ("refused", "attempt 1 runs, not attempt 2")
    assert obey_owner("free", attempt=1) == ("received", "")
    assert free.cancel_requested()


@pytest.mark.parametrize("owner", [None, "", 7, ["ann"]])
def test_a_command_of_an_owner_names_one(owner: object, progress_capture: Capture) -> None:
    """Without a readable owner nothing is done; it is never taken for one that reaches everything."""
    op = owned("w", None).start()
    given = {**command("w"), "kind": "cancel-owned", "owner": owner}
    assert Commands().obey(given) is None
    del given["owner"]
    assert Commands().obey(given) is None
    assert not op.cancel_requested()


@pytest.mark.parametrize("how", ["nested", "task", "group", "decorated"])
def test_a_task_that_others_depend_on_is_cancelled_after_them(how: str, progress_capture: Capture) -> None:
    """Cancelling her task would cancel what it runs or awaits; so it is cancelled when nothing of others runs below."""
    ended: list[str] = []

    async def bobs(go: asyncio.Event) -> None:
        async with owned("of-bob", "bob") as op:
            await go.wait()
        ended.append(op.status.value)

    @progress.operation("of-bob", attributes={"owner": "bob"})
    async def decorated(go: asyncio.Event) -> None:
        await go.wait()
        ended.append("completed")

    async def anns(go: asyncio.Event) -> None:
        async with owned("of-ann", "ann"):
            if how == "nested":
                await bobs(go)
            elif how == "decorated":
                await decorated(go)
            elif how == "task":
                await asyncio.ensure_future(bobs(go))
            else:
                await asyncio.gather(bobs(go), asyncio.sleep(0))
            await asyncio.Event().wait()

    async def main() -> None:
        go = asyncio.Event()
        task = asyncio.ensure_future(anns(go))
        await turns()
        assert obey_owner("of-ann") == ("received", "")
        await asyncio.sleep(0.1)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert ended == ["completed"]


def test_a_loop_in_such_a_task_is_stopped_between_two_items(progress_capture: Capture) -> None:
    """Where each item is an operation of others, the loop raises at its next item, and cleaning up is undisturbed."""
    seen: list[str] = []

    async def main() -> None:
        async with owned("of-ann", "ann"):
            try:
                for number in progress.track(range(100)):
                    async with owned(f"bob-{number}", "bob") as op:
                        if number == 1:
                            assert obey_owner("of-ann") == ("received", "")
                        await asyncio.sleep(0.01)
                    seen.append(op.status.value)
            finally:
                await asyncio.sleep(0.2)
                seen.append("cleaned")

    with pytest.raises(OperationCancelled):
        run(main)
    assert seen == ["completed", "completed", "cleaned"]


# -- tasks


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function to its end; what takes too long is not just cancelled, as that is what we look for."""

    async def bounded() -> Any:
        task = asyncio.ensure_future(main())
        await asyncio.wait({task}, timeout=20)
        assert task.done(), "it takes too long"
        return task.result()

    return asyncio.run(bounded())


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_reason_of_a_cancelled_task_is_kept(progress_capture: Capture) -> None:
    """The status says why it was cancelled, also where the way through other tasks loses the words."""

    async def job() -> None:
        async with progress.operation("agent", id="a"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncio.CancelledError from None

    async def main() -> None:
        task = asyncio.create_task(job())
        await turns()
        assert obey("a") == ("received", "")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    progress_capture.look()
    ended = progress_capture.ended("agent")
    assert (ended.status, ended.reason) == (Status.CANCELLED, "cancelled: enough")


def test_code_behind_the_operation_is_not_cancelled(progress_capture: Capture) -> None:
    """A request that reaches the loop when the operation is over cancels nothing."""

    async def main() -> str:
        with progress.operation("agent", id="a"):
            assert obey("a") == ("received", "")
        await turns()
        return "done"

    assert run(main) == "done"


def test_code_that_goes_on_after_the_end_is_not_cancelled(progress_capture: Capture) -> None:
    """Nor does it where the operation ended by its own words, and its block goes on."""

    async def main() -> str:
        with progress.operation("agent", id="a") as op:
            assert obey("a") == ("received", "")
            op.complete()
            await turns()
        return "done"

    assert run(main) == "done"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not tell that it is being cancelled")
def test_one_below_that_is_ending_already_is_left_to_it(progress_capture: Capture) -> None:
    """A child operation whose task is being cancelled cleans up undisturbed when its parent is asked to stop."""
    cleaned: list[str] = []

    async def child() -> None:
        async with progress.operation("child", parent="top"):
            try:
                await asyncio.Event().wait()
            finally:
                await turns(20)
                cleaned.append("child")

    async def top() -> None:
        async with progress.operation("top", id="top"):
            await asyncio.Event().wait()

    async def main() -> None:
        tasks = [asyncio.create_task(top()), asyncio.create_task(child())]
        await turns()
        tasks[1].cancel()
        await turns()
        assert obey("top") == ("received", "")
        await asyncio.wait(tasks)

    run(main)
    assert cleaned == ["child"]


def test_a_task_that_only_started_it_is_not_cancelled(progress_capture: Capture) -> None:
    """Who starts an operation for others to do is not stopped with it; the task in which it is current is."""
    said: list[str] = []

    async def worker(op: progress.Operation) -> None:
        with op.use():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                said.append("worker")
                raise
            finally:
                op.cancel()

    async def main() -> str:
        op = progress.operation("job").start()
        assert obey(op.id, key="early") == ("received", "")
        await turns()
        task = asyncio.create_task(worker(op))
        await asyncio.wait({task})
        assert task.cancelled()
        return op.status.value

    assert run(main) == "cancelled"
    assert said == ["worker"]


def test_the_consumer_of_a_generator_is_cancelled_only_inside_it(progress_capture: Capture) -> None:
    """Between two items the consumer goes on; where it waits for the next one, the generator is cancelled."""
    inside = asyncio.Event()
    seen: list[Any] = []

    @progress.operation("feed", id="f")
    async def feed() -> AsyncIterator[int]:
        yield 1
        inside.set()
        await asyncio.Event().wait()
        yield 2

    async def consumer() -> None:
        async for item in feed():
            assert obey("f") == ("received", "")
            await asyncio.sleep(0.02)  # the request comes here
            seen.append(item)

    async def main() -> None:
        task = asyncio.create_task(consumer())
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert seen == [1]
    assert inside.is_set()
    progress_capture.look()
    assert progress_capture.ended("feed").status is Status.CANCELLED


def test_a_task_group_cleans_up_undisturbed(progress_capture: Capture) -> None:
    """Child operations in tasks of their own are cancelled once: what they await while they clean up, they get."""
    cleaned: list[str] = []

    async def child(name: str) -> None:
        async with progress.operation(name):
            try:
                await asyncio.Event().wait()
            finally:
                await turns(20)
                cleaned.append(name)

    async def top() -> None:
        async with progress.operation("top", id="top"):
            await asyncio.gather(child("a"), child("b"))

    async def main() -> None:
        task = asyncio.create_task(top())
        await turns()
        obey("top")
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns(50)

    run(main)
    assert sorted(cleaned) == ["a", "b"]
    progress_capture.look()
    assert {progress_capture.ended(name).status for name in ("a", "b", "top")} == {Status.CANCELLED}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no task groups")
def test_children_of_a_real_task_group(progress_capture: Capture) -> None:
    """A task group whose task is asked to stop ends all its children, each once, and then its operation."""
    cleaned: list[str] = []

    async def child(name: str) -> None:
        async with progress.operation(name):
            try:
                await asyncio.Event().wait()
            finally:
                await turns(20)
                cleaned.append(name)

    async def main() -> None:
        async def top() -> None:
            async with progress.operation("top", id="top"), asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
                group.create_task(child("a"))
                group.create_task(child("b"))

        task = asyncio.create_task(top())
        await turns()
        obey("top")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert sorted(cleaned) == ["a", "b"]
    progress_capture.look()
    assert {progress_capture.ended(name).status for name in ("a", "b", "top")} == {Status.CANCELLED}


def test_only_the_child_is_cancelled_where_it_alone_is_meant(progress_capture: Capture) -> None:
    """A child in a task group may be stopped alone; the parent and its other children go on."""

    async def child(name: str, release: asyncio.Event) -> str:
        async with progress.operation(name, id=name):
            await release.wait()
            return name

    async def main() -> list[Any]:
        release = asyncio.Event()
        async with progress.operation("top"):
            tasks = [asyncio.create_task(child(name, release)) for name in ("a", "b")]
            await turns()
            obey("a")
            await turns()
            release.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = run(main)
    assert isinstance(first, asyncio.CancelledError)
    assert second == "b"
    progress_capture.look()
    assert progress_capture.ended("top").status is Status.COMPLETED


def test_a_task_that_goes_on_after_all_can_be_asked_again(progress_capture: Capture) -> None:
    """One that swallows the first request is cancelled by the next command, not again and again by one."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        async with progress.operation("agent", id="a"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await turns()
        obey("a", key="1")
        await asyncio.sleep(0.2)
        assert (swallowed, task.done()) == (1, False)
        obey("a", key="2")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_task_in_the_loop_of_another_thread(progress_capture: Capture) -> None:
    """The command comes from our own thread, whatever thread the loop runs in."""
    ready = threading.Event()
    said: list[str] = []

    async def job() -> None:
        async with progress.operation("agent", id="a"):
            ready.set()
            await asyncio.Event().wait()

    def other() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(job())
        said.append("over")

    thread = threading.Thread(target=contextvars.copy_context().run, args=(other,))
    thread.start()
    assert ready.wait(20)
    assert obey("a") == ("received", "")
    thread.join(20)
    assert said == ["over"]


def test_the_outer_operation_of_a_nested_one(progress_capture: Capture) -> None:
    """An operation is inside its task also while another one, of whatever parent, is current there."""

    async def job() -> None:
        async with progress.operation("outer", id="o"):
            async with progress.operation("inner", parent="far away"):
                await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(job())
        await turns()
        obey("o")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_closed_loop_harms_nothing(progress_capture: Capture) -> None:
    """A task whose loop is gone can't be cancelled; the operation is asked all the same."""
    loop = asyncio.new_event_loop()

    async def job() -> None:
        with progress.operation("agent", id="a"):
            await asyncio.Event().wait()

    task = loop.create_task(job())
    loop.run_until_complete(turns())
    loop.close()
    assert obey("a") == ("received", "")
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()  # type: ignore[union-attr]


# -- which URLs are followed

LOCAL = Endpoint("http/protobuf", "http://127.0.0.1:4318/v1/logs")
FAR = Endpoint("http/protobuf", "http://far.example:4318/v1/logs")
KNOWN = Endpoint("http/protobuf", "http://far.example:4318/v1/logs", (("authorization", "Bearer x"),))
SAFE = Endpoint("http/protobuf", "https://far.example/v1/logs", (("authorization", "Bearer x"),))
CERTIFIED = Endpoint("http/protobuf", "https://far.example/v1/logs", client_certificate="/c.pem")
NAMED = Endpoint("http/protobuf", "https://me:secret@far.example/v1/logs")
GRPC = Endpoint("grpc", "http://localhost:4317")
GRPC_SAFE = Endpoint("grpc", "https://far.example:4317", (("authorization", "Bearer x"),))

FOLLOWED = [
    (LOCAL, "/control", "http://127.0.0.1:4318/control"),
    (LOCAL, "http://localhost:4318/c", "http://localhost:4318/c"),
    (LOCAL, "http://[::1]:4318/c", "http://[::1]:4318/c"),
    (KNOWN, "/control", "http://far.example:4318/control"),
    (KNOWN, "https://FAR.example:4318/control", "https://FAR.example:4318/control"),
    (SAFE, "/control", "https://far.example/control"),
    (SAFE, "https://far.example:443/control", "https://far.example:443/control"),
    (CERTIFIED, "/control", "https://far.example/control"),
    (NAMED, "/control", "https://me:secret@far.example/control"),
    (GRPC, "http://127.0.0.1:4318/control", "http://127.0.0.1:4318/control"),
    (GRPC_SAFE, "https://far.example:4318/control", "https://far.example:4318/control"),
]
NOT_FOLLOWED = [
    (FAR, "/control"),
    (FAR, "http://127.0.0.1:22/control"),
    (LOCAL, "http://far.example/control"),
    (LOCAL, "http://127.0.0.1@far.example/control"),
    (LOCAL, "http://127.0.0.1.far.example/control"),
    (LOCAL, "http://127.0.0.1:6379/control"),
    (LOCAL, "http://127.0.0.1/control"),
    (NAMED, "https://far.example:8443/control"),
    (GRPC, "http://127.0.0.1:9/control"),
    (Endpoint("grpc", "http://localhost:9317"), "http://127.0.0.1:4318/control"),
    (KNOWN, "http://other.example/control"),
    (KNOWN, "http://127.0.0.1/control"),
    (SAFE, "http://far.example/control"),
    (GRPC_SAFE, "http://far.example/control"),
]
UNREADABLE = [
    (LOCAL, ""),
    (LOCAL, "control"),
    (LOCAL, "ftp://127.0.0.1/control"),
    (LOCAL, "file:///etc/passwd"),
    (LOCAL, "//far.example/control"),
    (LOCAL, "http://\\far.example/control"),
    (LOCAL, "http://127.0.0.1:x/control"),
    (LOCAL, "http://127.0.0.1:99999/control"),
    (LOCAL, "http:///control"),
    (LOCAL, "http://[::1/control"),
    (LOCAL, "/a\r\nb"),
    (LOCAL, "/" + "x" * 3000),
    (LOCAL, "http://u:p@127.0.0.1/control"),
    (GRPC, "/control"),
]


@pytest.mark.parametrize(("endpoint", "offer", "url"), FOLLOWED)
def test_urls_that_are_followed(endpoint: Endpoint, offer: str, url: str) -> None:
    """On this machine, or where we show who we are, at the endpoint's own host and port, no less safely.

    The ports 4317 and 4318 of OTLP belong together.
    """
    way = follow(offer, endpoint)
    assert (way.url, way.trusted) == (url, True)
    assert "secret" not in way.shown


@pytest.mark.parametrize(("endpoint", "offer"), NOT_FOLLOWED)
def test_urls_that_are_not_followed(endpoint: Endpoint, offer: str) -> None:
    """A receiver can't send us elsewhere: to another host, another port of this machine, or without TLS."""
    with pytest.raises(ValueError):
        follow(offer, endpoint)


@pytest.mark.parametrize(("endpoint", "offer"), UNREADABLE)
def test_what_is_no_url_is_never_followed(endpoint: Endpoint, offer: str) -> None:
    """Invalid URLs are refused even with control=True."""
    with pytest.raises(ValueError):
        follow(offer, endpoint, True)


def test_another_port_can_be_set() -> None:
    """An address that the user sets is followed, that one alone; a refusal names it."""
    offer = "http://127.0.0.1:9/control"
    assert follow(offer, LOCAL, "http://127.0.0.1:9") == (offer, offer, True, True)
    for endpoint, where in ((LOCAL, "http://127.0.0.1:8"), (LOCAL, "https://127.0.0.1:9"), (LOCAL, False)):
        with pytest.raises(ValueError, match=r"own port; OTEL_PROGRESS_CONTROL=http://127\.0\.0\.1:9 follows it"):
            follow(offer, endpoint, where)
    assert not follow("http://other.example/c", SAFE, "http://other.example").trusted


@pytest.mark.parametrize(
    ("endpoint", "offer"), [(FAR, "/control"), (LOCAL, "https://far.example/c"), (SAFE, "http://far.example/c")]
)
def test_any_url_where_the_user_said_so(endpoint: Endpoint, offer: str) -> None:
    """With control=True any URL is followed, but credentials go neither to another host nor without TLS."""
    assert follow(offer, endpoint, True).trusted is (endpoint is FAR)


# -- the channel


@pytest.fixture
def running() -> Iterator[progress.Operation]:
    """An operation that runs, and somebody who wants events, in this very process."""
    remove = progress.add_listener(lambda snapshot: None)
    with progress.operation("work", id=f"w-{os.urandom(4).hex()}") as op:
        yield op
    remove()


QUICK = Backoff(first=0.01, longest=0.05)


@contextlib.contextmanager
def opened(endpoint: Endpoint, offer: str = "/control", **options: Any) -> Iterator[Channel]:
    """A channel to which something was offered."""
    made = Channel(endpoint, "instance-1", **options)
    made.offered(offer)
    try:
        yield made
    finally:
        made.close()


def at(server: Monitor, **options: Any) -> Endpoint:
    return Endpoint("http/protobuf", f"{server.url}/v1/logs", **options)


def thread_of(made: Channel) -> threading.Thread:
    assert made._thread is not None
    return made._thread


def test_it_says_who_it_is(server: Monitor, running: progress.Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests bear the headers of the endpoint, the instance and the pid; a proxy is never asked for this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with opened(at(server, headers=(("authorization", "Bearer x"), ("x-more", "y")))):
        until(lambda: server.asked, "it asks")
    assert server.asked[0] == ("instance-1", os.getpid(), (), control_channel.WAIT, True)
    assert server.headers[0]["authorization"] == "Bearer x"
    assert server.headers[0]["x-more"] == "y"
    assert server.headers[0]["content-type"] == "application/json"


def test_a_monitor_that_moved_is_followed(server: Monitor, running: progress.Operation) -> None:
    """When another URL is offered, the next request goes there."""
    with Monitor() as other, opened(at(server), where=True, wait=0.1) as made:
        until(lambda: server.asked, "it asks")
        made.offered(f"{other.url}/control")
        until(lambda: other.asked, "it asks there")


def test_an_answer_goes_with_the_next_request(server: Monitor, running: progress.Operation) -> None:
    """The monitor hears what its process said of the command."""
    server.where[running.id] = server.where["gone"] = "instance-1"
    with opened(at(server)):
        assert server.cancel("gone", wait=5) == ("refused", "no such operation runs in this process")
        assert server.cancel(running.id, attempt=9, wait=5) == ("refused", "attempt 1 runs, not attempt 9")
        assert server.cancel(running.id, wait=0) == ("received", "")
    with pytest.raises(OperationCancelled):
        running.raise_if_cancelled()


def test_what_comes_after_the_close_is_not_obeyed(server: Monitor, running: progress.Operation) -> None:
    """A closed channel obeys no command, so its successor gets it."""
    server.where[running.id] = "instance-1"
    with opened(at(server)) as first:
        until(lambda: server.asked, "it asks")
    asking = server.start_cancel(running.id, wait=20)
    thread_of(first).join(20)
    assert not running.cancel_requested()
    with opened(at(server)):
        until(running.cancel_requested, "it is asked")
    server.on_loop(server.control.ended, running.id, "cancelled")
    assert asking.result(20).state == "obeyed"


def test_a_url_that_is_not_followed_is_told_once(caplog: pytest.LogCaptureFixture, running: progress.Operation) -> None:
    """An offer that must not be followed is not followed, and one log line says why."""
    with opened(FAR) as made:
        for number in range(5):
            made.offered(f"http://127.0.0.1:{number + 1}/control")
    assert made._thread is None
    (record,) = caplog.records
    assert "OTEL_PROGRESS_CONTROL=true" in record.getMessage()


def test_at_the_end_of_the_interpreter_nothing_is_opened(
    server: Monitor, running: progress.Operation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged if no thread can be started any more."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with opened(at(server)):
        assert caplog.records == []


@pytest.mark.parametrize(("status", "lines"), [(404, 0), (405, 0), (410, 0), (401, 1), (403, 1)])
def test_who_says_no_is_not_asked_again(
    status: int, lines: int, server: Monitor, running: progress.Operation, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver without a channel, or that refuses us, is asked once; a refusal is logged once."""
    server.status = status
    with opened(at(server)) as made:
        thread_of(made).join(20)
        for _ in range(3):
            made.offered("/control")
        assert not thread_of(made).is_alive()
    assert len(server.headers) == 1
    assert len(caplog.records) == lines


def test_a_failure_is_told_once_a_streak(
    server: Monitor, running: progress.Operation, caplog: pytest.LogCaptureFixture
) -> None:
    """A channel that does not answer is asked again after pauses, and logged once until it answers."""
    server.status = 503
    with opened(at(server), backoff=QUICK):
        until(lambda: len(server.headers) > 10, "it is asked again and again")
        assert len(caplog.records) == 1
        assert "HTTP 503" in caplog.text
        server.status = 200
        until(lambda: server.asked, "it goes on")


@pytest.mark.parametrize("where", ["a program without a line of ours", "below run"])
def test_what_nobody_can_act_on_is_no_warning(
    where: str,
    server: Monitor,
    running: progress.Operation,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Programs that take no requests, and those below `run`, which says it itself, show nothing of the channel."""
    if where == "below run":
        monkeypatch.setenv("OTEL_PROGRESS_RUN", at(server).url)
    else:
        monkeypatch.setattr(running, "_observed", True)
        monkeypatch.setattr(hooks, "configured", False)
    server.status = 403
    with caplog.at_level(logging.INFO, "otel_progress"), opened(at(server), backoff=QUICK):
        until(lambda: "refuses us" in caplog.text, "it is logged")
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_moment_without_an_answer_is_not_told(
    server: Monitor, running: progress.Operation, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart of the monitor is not logged."""
    server.failures = control_channel.STREAK - 1
    with opened(at(server)):
        until(lambda: server.asked, "it goes on")
    assert caplog.records == []


def test_an_answer_is_kept_until_it_is_delivered(server: Monitor, running: progress.Operation) -> None:
    """An answer that could not be delivered goes with the next request that can be."""
    server.where[running.id] = "instance-1"
    with opened(at(server), backoff=QUICK):
        until(lambda: server.control.connected("instance-1"), "it asks")
        server.status = 503
        asking = server.start_cancel(running.id, wait=0.1)
        until(lambda: len(server.headers) > 3, "the answer does not get through")
        before = len(server.asked)
        server.status = 200
        assert asking.result(20).state == "received"
    assert server.asked[before].answers[0].state == "received"


def test_nobody_is_asked_in_circles(server: Monitor, running: progress.Operation) -> None:
    """A receiver that does not hold requests is polled with growing pauses, and nothing is logged."""
    waits: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return super().wait(0.001)

    made = Channel(at(server), "instance-1", wait=0)
    made._stopped = Stopped()
    made.offered("/control")
    until(lambda: len(waits) > 7, "it pauses")
    made.close()
    assert waits[:7] == [0.25, 0.5, 1, 2, 4, 5, 5]


def test_wishes_are_granted_at_most_once_a_second(server: Monitor, running: progress.Operation) -> None:
    """A monitor that answers each poll at once with a wish neither makes a busy loop nor counts as broken."""
    waits: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return super().wait(0.001)

    class Wishing:
        def due(self, instance: str, pid: int | None) -> list[dict[str, Any]]:
            return [{"do": "live", "ids": None, "for": 15}]

    server.control.wishes = Wishing()  # type: ignore[assignment]
    made = Channel(at(server), "instance-1", wait=0)
    made._stopped = Stopped()
    made.offered("/control")
    until(lambda: len(waits) > 5, "it pauses")
    made.close()
    assert all(0.5 < wait <= control_channel.QUICK for wait in waits[1:6])


def test_it_rests_while_nothing_runs(server: Monitor) -> None:
    """After a time without any operation nobody is asked, until one runs and the channel is offered again."""
    remove = progress.add_listener(lambda snapshot: None)
    made = Channel(at(server), "instance-1", wait=0.1, idle=0.0)
    with progress.operation("one"):
        made.offered("/control")
        until(lambda: server.asked, "it asks")
    thread = thread_of(made)
    thread.join(20)
    assert not thread.is_alive()
    made.offered("/control")
    assert made._thread is thread
    with progress.operation("two"):
        made.offered("/control")
        assert made._thread is not thread
        assert thread_of(made).is_alive()
    made.close()
    thread_of(made).join(20)
    remove()


class Canned(threading.Thread):
    """A server that gives every request the same bytes."""

    def __init__(self, answer: bytes, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(daemon=True)
        self._answer = answer
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._socket.getsockname()[1]}"
        self.count = self.failed = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(20)
                    try:
                        self._serve(connection)
                    except OSError:
                        self.failed += 1

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            if connection.recv(65536):
                self.count += 1
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
            connection.sendall(head + self._answer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def certified(path: Path) -> tuple[Canned, Endpoint]:
    """A server that wants a client certificate, and the endpoint of one who has it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(path / "ca.pem")
    mine, theirs = authority.issue_cert("me@here.example"), authority.issue_cert("localhost", "127.0.0.1")
    mine.private_key_pem.write_to_path(path / "key.pem")
    for blob in mine.cert_chain_pems:
        blob.write_to_path(path / "cert.pem", append=True)
    wanted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wanted.verify_mode = ssl.CERT_REQUIRED
    theirs.configure_cert(wanted)
    authority.configure_trust(wanted)
    canned = Canned(b'{"commands": []}', tls=wanted)
    files = {"certificate": "ca.pem", "client_certificate": "cert.pem", "client_key": "key.pem"}
    return canned, Endpoint("http/protobuf", canned.url, **{key: str(path / name) for key, name in files.items()})


@pytest.mark.parametrize("what", ["all", "certificate", "client_certificate"])
def test_both_sides_of_tls_are_checked(what: str, tmp_path: Path, running: progress.Operation) -> None:
    """The receiver's certificate is verified, and it gets ours; without either, nothing is sent."""
    canned, endpoint = certified(tmp_path)
    if what != "all":
        endpoint = dataclasses.replace(endpoint, **{what: None})
    canned.start()
    with opened(endpoint, backoff=QUICK):
        until(lambda: canned.count if what == "all" else canned.failed > 4, "it asks")
    canned.close()
    assert (canned.count > 0) is (what == "all")


@pytest.mark.parametrize(
    "answer",
    [b"", b"no", b"[]", b'{"commands": 7}', b"[" * 100_000, b'{"commands": [' + b"0," * 1_000_000 + b"0]}"],
    ids=["nothing", "text", "list", "number", "deep", "endless"],
)
def test_an_answer_that_can_not_be_read_is_a_failure(
    answer: bytes, running: progress.Operation, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a receiver answers, the channel only tries again."""
    canned = Canned(answer)
    canned.start()
    with opened(Endpoint("http/protobuf", canned.url), backoff=QUICK) as made:
        until(lambda: canned.count > 4, "it asks again")
        assert thread_of(made).is_alive()
    canned.close()
    assert len(caplog.records) == 1


# -- the monitor's side


def test_a_body_is_read() -> None:
    """What a process sends is read; what is not said has a value."""
    body = {"instance": "i", "pid": 7, "answers": [{"command": "c", "state": "received"}], "wait": 20, "more": 1}
    assert answers_of(json.dumps(body).encode()) == ("i", 7, (CommandAnswer("c", "received"),), 20, False)
    assert answers_of(b'{"instance": "i", "answers": null, "does": null}') == ("i", None, (), 0, False)
    assert answers_of(b'{"instance": "i"}') == ("i", None, (), 0, False)
    assert answers_of(b'{"instance": "i", "does": ["live", "more"]}').wishes
    for wait in (b"1e9", b"9" * 400):
        assert answers_of(b'{"instance": "i", "wait": ' + wait + b"}").wait == monitor.WAIT_MOST
    (answer,) = answers_of(
        json.dumps(
            {"instance": "i", "answers": [{"command": "c", "state": "refused", "detail": "a\n\x1bb" + "c" * 9999}]}
        ).encode()
    ).answers
    assert answer.detail.startswith("a ?bcc")
    assert len(answer.detail) <= 1024


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"instance": ""}',
        b'{"instance": 7}',
        b'{"instance": "' + b"x" * 201 + b'"}',
        b'{"instance": "i", "pid": -1}',
        b'{"instance": "i", "pid": true}',
        b'{"instance": "i", "pid": 1e3}',
        b'{"instance": "i", "pid": 99999999999}',
        b'{"instance": "i", "wait": -1}',
        b'{"instance": "i", "wait": NaN}',
        b'{"instance": "i", "wait": Infinity}',
        b'{"instance": "i", "wait": "1"}',
        b'{"instance": "i", "wait": true}',
        b'{"instance": "i", "does": "live"}',
        b'{"instance": "i", "answers": {}}',
        b'{"instance": "i", "answers": [1]}',
        b'{"instance": "i", "answers": [{"command": "c"}]}',
        b'{"instance": "i", "answers": [{"command": "c", "state": "obeyed"}]}',
        b'{"instance": "i", "answers": [{"command": "c", "state": []}]}',
        b'{"instance": "i", "answers": [{"command": 1, "state": "received"}]}',
        b'{"instance": "i", "answers": [{"command": "c", "state": "received", "detail": 1}]}',
        json.dumps({"instance": "i", "answers": [{"command": "c", "state": "received"}] * 1001}).encode(),
        b'{"instance": "i", "more": "' + b"x" * monitor.BODY_BYTES + b'"}',
    ],
)
def test_a_bad_body_is_refused_in_words(body: bytes) -> None:
    """An invalid offer raises ValueError, and nothing else."""
    with pytest.raises(ValueError, match=r"\w"):
        answers_of(body)


def test_a_command_is_given_and_its_end_heard() -> None:
    """A held request gets the command at once; the caller hears `obeyed` when the operation ends."""

    async def main() -> None:
        control = Control()
        poll = asyncio.create_task(control.poll("i", 1, [], 20))
        await turns()
        asking = asyncio.create_task(control.cancel("w", 2, "i", "why\nnot", 20))
        (given,) = await poll
        assert given == {"id": given["id"], "kind": "cancel", "operation_id": "w", "attempt": 2, "reason": "why not"}
        assert control.requested("w")
        assert await control.poll("i", 1, [CommandAnswer(given["id"], "received")], 0) == []
        await turns()
        assert not asking.done()
        control.ended("w", "interrupted", 1)
        await turns()
        assert not asking.done(), "the end of an older attempt is not its end"
        control.ended("w", "cancelled", 2)
        assert await asking == ("obeyed", "it ended as cancelled")
        assert not control.requested("w")
        assert control.counts["obeyed"] == 1
        control.ended("w", "cancelled", 2)

    run(main)


def test_who_never_asked_is_unreachable() -> None:
    """Without a control channel the answer is `unreachable`, at once; so it is a minute after it last asked."""

    async def main() -> None:
        control = Control()
        assert (await control.cancel("w", None, "i")).state == "unreachable"
        fake = FakeClock()
        before = clock.install(fake)
        try:
            await control.poll("i", 1, [], 0)
            assert control.connected("i")
            fake.sleep(monitor.PRESENT - 1)
            assert control.connected("i")
            fake.sleep(2)
            assert not control.connected("i")
            assert (await control.cancel("w", None, "i")).state == "unreachable"
        finally:
            clock.install(before)
        assert not control.requested("w")

    run(main)


def test_a_process_that_does_not_answer_is_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has some time to answer; the command waits for it for a while, and then no longer."""
    monkeypatch.setattr(monitor, "ANSWER_LEAST", 0.05)

    async def main() -> None:
        control = Control()
        await control.poll("i", 1, [], 0)
        assert (await control.cancel("w", None, "i", wait=0)).state == "timed out"
        assert control.requested("w")
        assert len(await control.poll("i", 1, [], 0)) == 1
        monkeypatch.setattr(monitor, "PRESENT", 0.05)
        await control.poll("j", 1, [], 0)
        asking = asyncio.create_task(control.cancel("v", None, "j", wait=20))
        assert await asking == ("timed out", "its process did not answer")
        assert await control.poll("j", 1, [], 0) == []
        assert not control.requested("v")

    run(main)


def test_an_unanswered_command_is_given_again_but_not_for_ever() -> None:
    """Who asks without an answer did not get it: it is given again, a few times."""

    async def main() -> None:
        control = Control()
        await control.poll("i", 1, [], 0)
        asking = asyncio.create_task(control.cancel("w", None, "i", wait=20))
        await turns()
        given = [await control.poll("i", 1, [], 0) for _ in range(monitor.TRIES + 3)]
        assert [len(commands) for commands in given] == [1] * monitor.TRIES + [0] * 3
        assert len({commands[0]["id"] for commands in given if commands}) == 1
        asking.cancel()

    run(main)


def test_the_newer_request_of_a_process_takes_the_place_of_the_older() -> None:
    """An older request ends empty, the newer one gets the commands; other processes are not touched."""

    async def main() -> None:
        control = Control()
        older = asyncio.create_task(control.poll("i", 1, [], 20))
        other = asyncio.create_task(control.poll("j", 1, [], 20))
        await turns()
        newer = asyncio.create_task(control.poll("i", 1, [], 20))
        asking = asyncio.create_task(control.cancel("w", None, "i"))
        assert await older == []
        assert len(await newer) == 1
        assert not other.done()
        for task in (other, asking):
            task.cancel()

    run(main)


def test_processes_that_share_an_instance_id_each_hear_of_it() -> None:
    """Where several go by one id, the one that knows the operation takes it; only if none does, it is refused."""

    async def main() -> None:
        control = Control()
        polls = [asyncio.create_task(control.poll("i", pid, [], 20)) for pid in (1, 2)]
        await turns()
        asking = asyncio.create_task(control.cancel("w", None, "i", wait=0.1))
        (first,), (second,) = await asyncio.gather(*polls)
        assert first == second
        assert await control.poll("i", 1, [CommandAnswer(first["id"], "unknown")], 0) == []
        await turns()
        assert not asking.done()
        await control.poll("i", 2, [CommandAnswer(first["id"], "received")], 0)
        assert (await asking).state == "received"
        again = asyncio.create_task(control.cancel("v", None, "i"))
        await turns()
        for pid in (1, 2):
            ((given),) = await control.poll("i", pid, [], 0)
            await control.poll("i", pid, [CommandAnswer(given["id"], "unknown", "not here")], 0)
        assert await again == ("refused", "not here")
        assert not control.requested("v")

    run(main)


def test_a_request_on_its_way_is_joined() -> None:
    """Two who ask for the same share one command; after the answer, another request is a new one."""

    async def main() -> None:
        control = Control()
        await control.poll("i", 1, [], 0)
        first = asyncio.create_task(control.cancel("w", None, "i", wait=20))
        second = asyncio.create_task(control.cancel("w", None, "i", wait=20))
        await turns()
        (given,) = await control.poll("i", 1, [], 0)
        await control.poll("i", 1, [CommandAnswer(given["id"], "received")], 0)
        third = asyncio.create_task(control.cancel("w", None, "i", wait=20))
        await turns()
        (anew,) = await control.poll("i", 1, [], 0)
        assert anew["id"] != given["id"]
        control.ended("w", "completed")
        assert {outcome.state for outcome in await asyncio.gather(first, second, third)} == {"obeyed"}
        assert await control.poll("i", 1, [], 0) == []

    run(main)


def test_a_request_of_an_owner_is_joined_by_that_owner_alone() -> None:
    """One who may stop more is not served by a command that stops less, nor the other way; both hear of the end."""

    async def main() -> None:
        control = Control()
        await control.poll("i", 1, [], 0)
        asked = [asyncio.create_task(control.cancel("w", 1, "i", wait=20, owner=who)) for who in ("ann", None, "ann")]
        await turns()
        told = await control.poll("i", 1, [], 0)
        assert [(one["kind"], one.get("owner")) for one in told] == [
            ("cancel-owned", "ann"),
            ("cancel", None),
            ("cancel-owned", "ann"),
        ]
        control.ended("w", "cancelled", 1, "i")
        assert {outcome.state for outcome in await asyncio.gather(*asked)} == {"obeyed"}

    run(main)


def test_an_older_process_refuses_what_it_can_not_limit() -> None:
    """A version that does not know commands of owners stops nothing, and the answer says what to do."""

    async def main() -> None:
        control = Control()
        await control.poll("i", 1, [], 0)
        asked = asyncio.create_task(control.cancel("w", 1, "i", wait=20, owner="ann"))
        await turns()
        (given,) = await control.poll("i", 1, [], 0)
        answer = CommandAnswer(given["id"], "refused", "this version knows no such command")  # as 0.1 says
        await control.poll("i", 1, [answer], 0)
        assert await asked == Outcome("refused", monitor.TOO_OLD)

    run(main)


def test_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances, commands and what is remembered have limits; what holds a request or a command is not forgotten."""
    monkeypatch.setattr(monitor, "INSTANCES", 2)
    monkeypatch.setattr(monitor, "COMMANDS", 3)
    monkeypatch.setattr(monitor, "REQUESTED", 2)
    monkeypatch.setattr(monitor, "PROCESSES", 2)
    monkeypatch.setattr(monitor, "ANSWER_LEAST", 0.0)

    async def main() -> None:
        control = Control()
        held = asyncio.create_task(control.poll("a", 1, [], 20))
        await turns()
        for name in "bcd":
            await control.poll(name, 1, [], 0)
        assert [name for name in "abcd" if control.connected(name)] == ["a", "d"]
        states = [(await control.cancel(f"w{n}", None, "d", wait=0)).state for n in range(4)]
        assert states == ["timed out"] * 3 + ["refused"]
        assert [control.requested(f"w{n}") for n in range(4)] == [False, True, True, False]
        with pytest.raises(TooMany):
            await control.poll("e", 1, [], 0)
        for pid in range(10):
            await control.poll("d", pid, [], 0)
        assert len(control._instances["d"].heard) == 2
        held.cancel()

    run(main)


def test_at_its_end_all_who_wait_are_let_go() -> None:
    """Closing ends held requests and open questions at once."""

    async def main() -> None:
        control = Control()
        await control.poll("i", 1, [], 0)
        asking = asyncio.create_task(control.cancel("w", None, "i", wait=20))
        held = asyncio.create_task(control.poll("j", 1, [], 20))
        await turns()
        control.close()
        control.close()
        assert await held == []
        assert await asking == ("unreachable", "the monitor ends")
        assert await control.poll("i", 1, [], 20) == []
        assert (await control.cancel("w", None, "i")).state == "unreachable"

    run(main)
