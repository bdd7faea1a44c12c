"""Attacks: requests that try to exhaust the monitor."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.attacks import attack, attacks, hold
from benchmarks.attacks.beside import Honest, Monitor, beside, event, many, monitor
from benchmarks.attacks.bombs import BOMBS, TELLING, Bomb, bomb
from otel_progress.monitor.intake.requests import PROTOBUF

CONNECTIONS: Final = 20
EXPORT: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
ANSWERS: Final = {b"200", b"400", b"413", b"429"}
APART: Final = (("grpc.use_local_subchannel_pool", 1),)
"""Options of a channel with its own connection."""


def _posting(target: Monitor, given: Bomb, answers: list[bytes]) -> Callable[[], None]:
    """Send this and wait for the answer."""
    request = given.request(target.host)

    def post() -> None:
        with target.connect() as client:
            client.sendall(request)
            if len(answers) < 1_000:
                answers.append(client.recv(4_096))

    return post


def _post_with_others(what: str) -> None:
    with monitor() as target:
        answers: list[bytes] = []
        post = _posting(target, bomb(what), answers)
        began = time.monotonic()
        post()
        alone = time.monotonic() - began
        answers.clear()
        beside(target, many(CONNECTIONS, post), lambda: _until(answers), alone)
        hold(
            all(one.split()[1] in (b"200", b"400", b"413", b"429") for one in answers if one), f"answers: {answers[:3]}"
        )


@attacks("intake", "{what}, by 20 connections", what=TELLING)
def small_and_dear(what: str) -> None:
    _post_with_others(what)


@attacks("intake", "{what}, by 20 connections", long=True, what=[one for one in BOMBS if one not in TELLING])
def small_and_dear_too(what: str) -> None:
    _post_with_others(what)


@attack("intake", "clients that leave as soon as they have sent")
def leaving() -> None:
    """Many expensive requests whose senders have left."""
    given = bomb("60,000 attributes in JSON")
    with monitor() as target:
        request, sent = given.request(target.host), [0]

        def leave() -> None:
            with target.connect() as client:
                client.sendall(request)
                time.sleep(0.3)  # so that it waits in the queue when the connection ends
            sent[0] += 1

        began = time.monotonic()
        _posting(target, given, [])()
        alone = time.monotonic() - began
        beside(target, many(CONNECTIONS, leave), lambda: _until(lambda: sent[0] > CONNECTIONS), alone)
        dropped = target.health()["intake"]["client_gone"]
        hold(dropped, "no request was dropped although their clients had gone")


@attack("intake", "bodies that stay incomplete, 400 MB together")
def incomplete() -> None:
    size = 4 * 1024 * 1024 - 1
    with monitor() as target, contextlib.ExitStack() as held:
        begun: list[None] = []
        whole = Bomb("logs", PROTOBUF, bytes(size + 1), zipped=False).request(target.host)

        @contextlib.contextmanager
        def slow() -> Iterator[None]:
            for _ in range(100):
                client = held.enter_context(target.connect())
                with contextlib.suppress(OSError):
                    client.sendall(whole[:-1])
            begun.append(None)
            yield

        beside(target, slow(), lambda: _until(begun))
        hold(target.health()["intake"]["too_slow"], "no body was given up")


@attack("intake", "thousands of requests by 200 connections")
def many_small() -> None:
    with monitor() as target:
        request = Bomb("logs", PROTOBUF, event("attack"), zipped=False).request(target.host) * 50
        answers: list[bytes] = []

        def pipeline() -> None:
            with target.connect() as client:
                client.sendall(request)
                answers.append(client.recv(4_096))

        beside(target, many(200, pipeline), lambda: _until(answers))


@attack("intake", "400 connections, each with a request that is slow to read")
def queue_of_dear_ones() -> None:
    """Expensive requests wait for minutes; the honest sender does not wait for them."""
    given = bomb("60,000 attributes in JSON")
    with monitor() as target, contextlib.ExitStack() as opened:
        began = time.monotonic()
        _posting(target, given, [])()
        alone, request = time.monotonic() - began, given.request(target.host)

        @contextlib.contextmanager
        def queued() -> Iterator[None]:
            for _ in range(400):
                opened.enter_context(target.connect()).sendall(request)
            yield

        beside(target, queued(), lambda: _until(lambda: target.health()["intake"]["waiting"] > 300), alone)
        opened.close()
        _until(lambda: target.health()["intake"]["waiting"] == 0)
        hold(target.health()["intake"]["client_gone"] > 300, "requests were read that nobody waited for")


@attack("intake", "thousands of calls over gRPC by one connection")
def many_calls() -> None:
    grpc = _grpc()
    with monitor() as target, grpc.insecure_channel(target.grpc, APART) as channel:
        export, answers = channel.unary_unary(EXPORT), [0]

        def call() -> None:
            with contextlib.suppress(grpc.RpcError, ValueError):  # the latter from a channel that is closed
                for waiting in [export.future(event("attack")) for _ in range(100)]:
                    waiting.result()
                    answers[0] += 1

        beside(target, many(4, call), lambda: _until(lambda: answers[0] > 100))


@attack("intake", "calls over gRPC without a message, 64 by each of 4 connections")
def without_message() -> None:
    grpc = _grpc()
    hold_on = threading.Event()

    def never() -> Iterator[bytes]:
        hold_on.wait(60)
        yield from ()

    with monitor() as target, contextlib.ExitStack() as opened:
        channels = [opened.enter_context(grpc.insecure_channel(target.grpc, APART)) for _ in range(5)]
        opened.callback(hold_on.set)
        export = channels.pop().unary_unary(EXPORT)
        export(event("calm"), timeout=60)
        held = [one.stream_unary(EXPORT).future(never()) for one in channels for _ in range(64)]
        time.sleep(0.2)
        began = time.monotonic()
        for number in range(10):
            export(event(f"honest-{number}"), timeout=60)
        took = time.monotonic() - began
        hold_on.set()
        hold(took < 5, f"ten honest calls took {took:.1f} s")
        for one in held:
            one.cancel()


@attack("intake", "an entry of Redis that never fits")
def never_fits() -> None:
    """Later items of the other monitor are shown, and `/health` counts what was skipped."""
    if shutil.which("redis-server") is None:
        return
    with tempfile.TemporaryDirectory() as folder, _redis(Path(folder)) as (url, client):
        client.execute_command("XADD", "otel-progress", "*", "v", "1", "origin", "x", "otlp", bytes(65 << 20))
        client.execute_command("XADD", "otel-progress", "*", "v", "1", "origin", "x", "otlp", b"\xff\xff")
        client.execute_command("XADD", "otel-progress", "*", "v", "1", "origin", "x", "otlp", event("next"))
        with Monitor(Path(folder), "--redis", url) as target:
            _until(lambda: target.health()["operations"]["running"] == 1)
            said = target.health()["redis"]
            hold(said["skipped"] == 2 and said["skipped_why"], f"/health does not tell what was skipped: {said}")
            honest = Honest(target)
            hold(not honest.waits(1)[0] > 10, "an honest sender waited")
            hold(not honest.lost(), "an honest sender lost something")


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, Any]]:
    import redis

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, protocol=2)
    try:
        _until(lambda: _answers(client))
        yield f"redis://127.0.0.1:{port}/0", client
    finally:
        client.connection_pool.disconnect()
        client.close()
        process.kill()
        process.wait()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except Exception:
        return False


def _grpc() -> Any:
    import grpc

    return grpc


def _until(true: object, seconds: float = 30.0) -> None:
    """Wait until the result is true."""
    end = time.monotonic() + seconds
    while not (true() if callable(true) else true):
        hold(time.monotonic() < end, "the attack did not begin")
        time.sleep(0.01)
