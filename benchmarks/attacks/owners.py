"""Attacks: tokens, and what they must not reach."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.stress.served import Served, event, serving

from benchmarks.attacks import attack, attacks, hold
from otel_progress import semconv as s
from otel_progress.monitor.auth import ANYBODY, CONTROL, READ, Identity

ADMIN, ANN, BOB = "admin-token-0123456789", "ann-token-0123456789", "bob-token-0123456789"
TOKENS = {
    ADMIN: ANYBODY,
    ANN: Identity(frozenset({READ, CONTROL}), "ann"),
    BOB: Identity(frozenset({READ, CONTROL}), "bob"),
}
IN_TIME = 20.0
OF_ANN, OF_BOB = '{"owner": "ann"}', '{"owner": "bob"}'
PROGRAM = """
import asyncio, os, sys, threading, time
import otel_progress as progress
progress.configure(service_name="job", control=True)
told = lambda name: open(os.path.join(sys.argv[1], name), "w").close()
wait = lambda name: os.path.exists(os.path.join(sys.argv[1], name))

def owned(name, owner, **more):
    return progress.operation(name, id=name, attributes={} if owner is None else {"owner": owner}, **more)

def work(name, owner, parent):
    try:
        with owned(name, owner, parent=parent):
            for _ in progress.track(range(10**6)):
                if wait("end"):
                    break
                time.sleep(0.01)
        told(name + ".completed")
    except progress.OperationCancelled:
        told(name + ".cancelled")

@progress.operation("decorated", id="decorated", attributes={"owner": "bob"})
async def decorated():
    while not wait("end"):
        await asyncio.sleep(0.01)
    told("decorated.completed")

async def tasks():
    async with owned("ann-task", "ann"):
        await decorated()

def in_tasks():
    try:
        asyncio.run(tasks())
        told("ann-task.completed")
    except asyncio.CancelledError:
        told("ann-task.cancelled")

top = owned("of-ann", "ann").start()
late = owned("late", None, parent="of-ann").start()
late.set(owner="bob")
threads = [threading.Thread(target=work, args=given) for given in (
    ("plain", None, "of-ann"), ("of-bob", "bob", "of-ann"),
    ("below-bob", None, "of-bob"), ("ann-below", "ann", "of-bob"),
)] + [threading.Thread(target=in_tasks)]
for thread in threads:
    thread.start()
    time.sleep(0.05)
while not wait("end"):
    if late.cancel_requested():
        told("late.cancelled")
    time.sleep(0.02)
for thread in threads:
    thread.join()
late.complete()
top.complete()
"""


def until(true: Callable[[], Any], what: str) -> Any:
    """Return the first true result of the condition."""
    deadline = time.monotonic() + IN_TIME
    while not (found := true()):
        hold(time.monotonic() < deadline, what)
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def monitored(**more: Any) -> Iterator[Served]:
    """Run a monitor with tokens for everyone, ann and bob, and an operation of each."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), tokens=TOKENS, **more) as served:
        served.send(event("of-ann", ATTRIBUTES=OF_ANN), event("of-bob", ATTRIBUTES=OF_BOB), token=ADMIN)
        until(lambda: served.get("/operations", token=ADMIN)["total"] == 2, "both are there")
        time.sleep(0.5)  # so that what is new of them is published
        yield served


def busy(served: Served, many: int = 200) -> None:
    """Let bob send many events."""
    numbers = range(2, many + 2)
    served.send(*(event("of-bob", sequence=n, kind=s.NOTE, ATTRIBUTES=OF_BOB) for n in numbers), token=ADMIN)
    served.send(*(event(f"bob-{n}", ATTRIBUTES=OF_BOB) for n in numbers), token=ADMIN)
    until(lambda: served.get("/operations?limit=1", token=ADMIN)["total"] >= many, "bob is busy")
    time.sleep(0.3)  # so that it is published, where it is


def position(served: Served, token: str = ANN) -> str:
    found = served.get("/operations", token=token)["position"]
    assert isinstance(found, str)
    return found


class Stream:
    """The server-sent events that an owner reads."""

    def __init__(self, served: Served, path: str, **headers: str) -> None:
        self.client = socket.create_connection(("127.0.0.1", served.port), IN_TIME)
        self.client.sendall(served.head(path, **{"Authorization": f"Bearer {ANN}", **headers}))
        self.got = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while part := self.client.recv(65_536):
                self.got += part

    @property
    def ids(self) -> list[tuple[str, int]]:
        found = re.findall(rb"\nid: (\w+)-(\d+)\r?\nevent: ", b"\n" + self.got.replace(b"\r\n", b"\n"))
        return [(epoch.decode(), int(number)) for epoch, number in found]

    def see(self, part: bytes) -> Stream:
        until(lambda: part in self.got, f"{part!r} is told")
        return self

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.client.shutdown(2)
        self.thread.join(5)
        self.client.close()


@attack("owners", "the position of her list, while others are busy")
def positions() -> None:
    with monitored() as served:
        before = position(served)
        busy(served)
        hold(position(served) == before, "her position is as before")
        with Stream(served, f"/stream?after={before}") as stream:
            stream.see(b"event: hello")
            time.sleep(0.3)
            hold(b"reset" not in stream.got, "nothing that is hers changed, so she goes on from there")


@attacks("owners", "the ids of frames on {path}, while others are busy", path=["/stream", "/operations/of-ann/stream"])
def frames(path: str) -> None:
    with monitored() as served, Stream(served, path) as stream:
        stream.see(b"event: hello")
        until(lambda: stream.ids, "a greeting")
        first = stream.ids[0]
        busy(served)
        served.send(event("of-ann", sequence=2, MESSAGE="hers", ATTRIBUTES=OF_ANN), token=ADMIN)
        stream.see(b'"hers"')
        told = sorted({number for _, number in stream.ids})
        hold(told == list(range(first[1], first[1] + len(told))), f"no gap in {told}")
        hold(len(told) <= 4, f"she is told of her own alone: {told}")
        hold(b"bob" not in stream.got, "nothing names others")


@attack("owners", "revisions of her rows, while others are busy")
def revisions() -> None:
    def revision() -> int:
        (row,) = served.get("/operations", token=ANN)["operations"]
        return int(row["revision"])

    with monitored() as served:
        began, before = time.time(), revision()
        busy(served, 1_000)
        hold(revision() == before, "nothing that is hers changed")
        served.send(event("of-ann", sequence=2, ATTRIBUTES=OF_ANN), token=ADMIN)
        until(lambda: revision() > before, "a change of hers is newer")
        hold(before / 1e3 >= began - 1, "it begins with the time, and not with what others did")


@attack("owners", "the numbers of her events, while others are busy")
def numbers() -> None:
    with monitored() as served:
        for sequence in range(2, 5):
            busy(served, 50)
            served.send(event("of-ann", sequence=sequence, kind=s.NOTE, ATTRIBUTES=OF_ANN), token=ADMIN)
        url = "/operations/of-ann/events"
        until(lambda: len(served.get(url, token=ANN)["events"]) == 4, "her history is there")
        told = [one["id"] for one in served.get(url, token=ANN)["events"]]
        hold(told == [1, 2, 3, 4], f"her events are counted by themselves: {told}")
        page = served.get(f"{url}?limit=2", token=ANN)
        hold(page["next"] == 2, f"and so are pages: {page['next']}")
        rest = served.get(f"{url}?after={page['next']}", token=ANN)["events"]
        hold([one["id"] for one in rest] == [3, 4], "a page goes on where the last one ended")
        back = served.get(f"{url}?before={2**53 - 1}&limit=1", token=ANN)
        hold(([one["id"] for one in back["events"]], back["next"]) == ([4], 4), "also when going back")
        hold([one["id"] for one in served.get(f"{url}?before=3", token=ANN)["events"]] == [1, 2], "to the beginning")


@attack("owners", "the end of what others keep in the store")
def removed() -> None:
    with monitored() as served, Stream(served, "/stream") as stream:
        stream.see(b"event: hello")
        served.monitor.core.journal._removed += [f"bob-{number}" for number in range(10)]
        served.send(event("of-ann", sequence=2, MESSAGE="hers", ATTRIBUTES=OF_ANN), token=ADMIN)
        stream.see(b'"hers"')
        hold(b"reset" not in stream.got, "she does not load anew because something of others is gone")
        hold(b"bob" not in stream.got, "and nothing names it")


@attack("owners", "parents and children of others beside hers")
def relatives() -> None:
    with monitored() as served:
        served.send(
            event("hers", OPERATION_PARENT_ID="of-bob", ATTRIBUTES=OF_ANN),
            event("lost", OPERATION_PARENT_ID="nowhere", ATTRIBUTES=OF_ANN),
            token=ADMIN,
        )
        until(lambda: served.get("/operations", token=ANN)["total"] == 3, "hers are there")
        for path in ("/operations", "/operations/hers", "/operations/lost"):
            told = json.dumps(served.get(path, token=ANN))
            hold("bob" not in told and "nowhere" not in told, f"{path} names neither one of others nor one not there")
        for parent in ("of-bob", "nowhere"):
            page = served.get(f"/operations?parent={parent}", token=ANN)
            hold((page["total"], page["operations"]) == (0, []), "she can't find out whether there is such a parent")
        whole = served.get("/operations/hers", token=ADMIN)
        hold(whole["ancestors"] == [{"id": "of-bob", "name": "job"}], "who may see all sees it")


@attack("owners", "what happens below hers to one of others")
def below() -> None:
    with monitored() as served:
        served.send(event("bob-below", OPERATION_PARENT_ID="of-ann", ATTRIBUTES=OF_BOB), token=ADMIN)
        with Stream(served, "/stream") as list_, Stream(served, "/operations/of-ann/stream") as one:
            list_.see(b"event: hello"), one.see(b"event: operation")
            time.sleep(0.5)
            before = len(list_.ids), len(one.ids)
            for sequence in range(2, 6):
                served.send(
                    event("bob-below", sequence=sequence, OPERATION_PARENT_ID="of-ann", ATTRIBUTES=OF_BOB), token=ADMIN
                )
                time.sleep(0.2)
            hold((len(list_.ids), len(one.ids)) == before, "she is not told of changes of another's")
            hold(b"bob" not in list_.got + one.got, "nothing names it")


@attack("owners", "evidence that rests on a child of another")
def evidence() -> None:
    with monitored() as served:
        branches = json.dumps(
            [
                {"path": "s", "idle": 500.0, "health": "silent", "child": "bob-1", "child_name": "bob-import",
                 "reason": "is stuck: no progress of bob-import/bob-1", "stall_after": 60.0},
                {"path": "t", "idle": 1.0, "health": "progressing"},
            ]
        )  # fmt: skip
        served.send(
            event("bob-1", "bob-import", OPERATION_PARENT_ID="of-ann", ATTRIBUTES=OF_BOB),
            event("of-ann", sequence=2, ATTRIBUTES=OF_ANN, BRANCHES=branches, HEALTH="silent"),
            token=ADMIN,
        )
        until(lambda: "bob-import" in json.dumps(served.get("/operations/of-ann", token=ADMIN)), "all may be seen")
        for path in ("/operations", "/operations/of-ann"):
            told = json.dumps(served.get(path, token=ANN))
            hold("bob" not in told, f"{path} names it: {told}")


@attack("owners", "whether an id is there, by status, words and time")
def oracle() -> None:
    with monitored() as served:
        times: dict[str, list[float]] = {"of-bob": [], "nowhere": []}
        for _ in range(30):
            for key, found in times.items():
                began = time.perf_counter()
                answer = served.ask("GET", f"/operations/{key}", token=ANN)
                found.append(time.perf_counter() - began)
                hold(answer.status == 404, "both are not there")
                hold(answer.body.replace(key.encode(), b"") == answer.body.replace(key.encode(), b""), "in one way")
                hold("owner" not in answer.body.decode(), "the words don't tell")
        there, not_there = (statistics.median(found) for found in times.values())
        hold(abs(there - not_there) < 0.25 * min(there, not_there), f"{there:.4f} s there, {not_there:.4f} s not there")
        for method, path in (("DELETE", ""), ("DELETE", "?attempt=7"), ("GET", "/events?limit=x"), ("GET", "/stream")):
            said = [
                (answer.status, answer.body.decode().replace(key, "")) for key in times
                if (answer := served.ask(method, f"/operations/{key}{path}", token=ANN))
            ]  # fmt: skip
            hold(said[0] == said[1] and said[0][0] == 404, f"{method} {path}: {said}")


@attack("owners", "counts of the monitor, and its trouble in words")
def counts() -> None:
    with monitored() as served:
        busy(served, 50)
        found = served.get("/health", token=ANN)
        hold(found["operations"] == {"running": 1, "stored": 0, "trouble": 0}, f"her own alone: {found}")
        hold(not {"records", "readers", "trouble", "denied"} & found.keys(), f"no figures of the whole: {found}")
        with Stream(served, "/stream") as stream:
            stream.see(b"event: hello")
            served.monitor.core.faults.current = "the row of bob-7 can't be read"
            stream.see(b"event: trouble")
            hold(b"bob" not in stream.got, "that it is in trouble, without the words")


@attack("owners", "an id of one operation, run by two owners")
def rivals() -> None:
    with monitored() as served:
        served.send(event("of-ann", sequence=9, ATTRIBUTES=OF_BOB, OPERATION_ATTEMPT=2), instance="i2", token=ADMIN)
        hold(served.ask("GET", "/operations/of-ann", token=BOB).status == 404, "it is of whom it was first")
        for attempt in ("", "?attempt=1", "?attempt=2", "?attempt=3"):
            hold(served.ask("DELETE", f"/operations/of-ann{attempt}", token=BOB).status == 404, "also each attempt")


# -- tokens and sessions


def log_in(served: Served, token: str) -> dict[str, str]:
    """Return the header of a new session."""
    body = json.dumps({"token": token}).encode()
    opened = served.ask("POST", "/session", body, {"Content-Type": "application/json"})
    hold(opened.status == 200, f"a session for a right token: {opened.status}")
    return {"Cookie": opened.headers["Set-Cookie"].partition(";")[0]}


@attack("owners", "a thousand logins with a limited token")
def logins() -> None:
    with monitored() as served:
        others = [log_in(served, ADMIN), log_in(served, BOB)]
        mine = [log_in(served, ANN)]
        for _ in range(1_100):
            served.monitor.auth.log_in(ANN)
        mine.append(log_in(served, ANN))
        status = [served.ask("GET", "/session", headers=each).status for each in (*others, *mine)]
        hold(status == [200, 200, 401, 200], f"sessions of others go on, and her oldest is over: {status}")


@attack("owners", "a stream that outlives its session")
def logged_out() -> None:
    with monitored() as served:
        session = log_in(served, ANN)
        with Stream(served, "/stream", Authorization="", **session) as stream:
            stream.see(b"event: hello")
            hold(served.ask("DELETE", "/session", headers=session).status == 204, "she logs out")
            until(lambda: stream.got.endswith(b"\r\n0\r\n\r\n"), "the stream is over")
            hold(served.ask("GET", "/operations", headers=session).status == 401, "and the session, too")


@attack("owners", "guessed tokens, sessions and links")
def guesses() -> None:
    with monitored() as served:
        link = served.monitor.auth.link()
        for guess in (ADMIN[:-1], ADMIN + "x", ADMIN.upper(), "", "x" * 4_000, "ü" * 30):
            value = guess.encode().decode("latin-1")
            hold(served.ask("GET", "/operations", headers={"Authorization": f"Bearer {value}"}).status == 401, guess)
            cookie = {"Cookie": f"{served.monitor.auth.cookie}={value}"}
            hold(served.ask("GET", "/operations", headers=cookie).status == 401, "no session")
        for ticket in (link[:-1], link + "x", link.upper(), "/login/"):
            answer = served.ask("GET", ticket)
            hold("Set-Cookie" not in answer.headers, "no link")
        hold("Set-Cookie" in served.ask("GET", link).headers, "the link is not spent by guesses")
        hold(served.get("/health", token=ADMIN)["denied"] == 8, "who runs it sees that somebody guesses")


# -- cancel


@contextlib.contextmanager
def program(served: Served) -> Iterator[Path]:
    """Run nested operations of ann and bob in one process, in threads and tasks."""
    with tempfile.TemporaryDirectory() as folder:
        headers = f"authorization=Bearer%20{ADMIN}"
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{served.host}"}
        env |= {"OTEL_EXPORTER_OTLP_HEADERS": headers, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder], env=env)
        names = {"of-ann", "plain", "of-bob", "below-bob", "ann-below", "ann-task", "decorated", "late"}
        try:
            until(lambda: names <= {row["id"] for row in rows(served)}, "all of it runs")
            until(lambda: served.get("/operations/of-ann", token=ANN)["control"], "and can be reached")
            yield Path(folder)
            hold(process.wait(IN_TIME) == 0, "the program ends well")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def rows(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = served.get("/operations?limit=100", token=ADMIN)["operations"]
    return found


@attack("owners", "cancel: operations of others below hers, in threads, tasks and decorated functions")
def cancel() -> None:
    with monitored() as served, program(served) as folder:
        for key in ("of-bob", "decorated", "below-bob"):
            hold(served.ask("DELETE", f"/operations/{key}?wait=0", token=ANN).status == 404, f"{key} is not hers")
        for key in ("of-ann?wait=1", "ann-task?wait=1&attempt=1"):
            answer = served.ask("DELETE", f"/operations/{key}", token=ANN)
            hold(answer.status == 202, f"{key} is asked: {answer.status} {answer.body!r}")
        until((folder / "plain.cancelled").exists, "what names no owner is stopped with hers")
        time.sleep(1.0)
        ended = {path.name for path in folder.iterdir()}
        hold(ended == {"plain.cancelled"}, f"nothing of others is: {ended}")
        (folder / "end").touch()
        for name in ("decorated", "of-bob", "below-bob"):
            until((folder / f"{name}.completed").exists, f"{name} completes")


@attack("owners", "cancel: by a token without an owner, while one of an owner is under way")
def cancel_all() -> None:
    with monitored() as served, program(served) as folder:
        mine = threading.Thread(target=served.ask, args=("DELETE", "/operations/of-ann?wait=3"), kwargs={"token": ANN})
        mine.start()
        served.ask("DELETE", "/operations/of-ann?wait=0", token=ADMIN)
        for name in ("plain", "of-bob", "below-bob", "ann-below", "late"):
            until((folder / f"{name}.cancelled").exists, f"{name} is stopped")
        mine.join()
        (folder / "end").touch()


def polled(served: Served, *answers: dict[str, str], instance: str = "i1", wait: float = 5) -> list[dict[str, Any]]:
    """Return the commands for a process."""
    body = json.dumps({"instance": instance, "pid": 1, "answers": list(answers), "wait": wait}).encode()
    found: list[dict[str, Any]] = served.ask("POST", "/control", body, token=ADMIN).json["commands"]
    return found


@attack("owners", "cancel: operations of others below hers, in other processes")
def cancel_elsewhere() -> None:
    with monitored() as served:
        for key, parent, instance, attributes in (
            ("child", "of-ann", "i2", "{}"),
            ("bob-below", "of-ann", "i3", OF_BOB),
            ("ann-below-bob", "bob-below", "i4", OF_ANN),
        ):
            served.send(event(key, OPERATION_PARENT_ID=parent, ATTRIBUTES=attributes), instance=instance, token=ADMIN)
        until(lambda: served.get("/operations?limit=1", token=ADMIN)["total"] == 5, "all of it runs")
        names = ("i1", "i2", "i3", "i4")
        for name in names:
            polled(served, instance=name, wait=0)
        served.ask("DELETE", "/operations/of-ann?wait=0", token=ANN)
        told = {name: polled(served, instance=name, wait=0.5) for name in names}
        asked = {name: [(one["kind"], one["operation_id"], one.get("owner")) for one in told[name]] for name in names}
        hers = {"i1": [("cancel-owned", "of-ann", "ann")], "i2": [("cancel-owned", "child", "ann")], "i3": [], "i4": []}
        hold(asked == hers, f"what is hers is asked, and by her alone: {asked}")


@attack("owners", "cancel: a process that does not know commands of owners")
def cancel_old() -> None:
    with monitored() as served:
        polled(served, wait=0)
        said: list[Any] = []
        ask = lambda: said.append(served.ask("DELETE", "/operations/of-ann?wait=5", token=ANN))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        (command,) = polled(served)
        hold(command["kind"] != "cancel", "what an older process would obey without the owner is never sent")
        polled(
            served,
            {"command": command["id"], "state": "refused", "detail": "this version knows no such command"},
            wait=0,
        )
        thread.join(IN_TIME)
        hold(said[0].status == 409, "it is refused")
        hold("update it" in said[0].body.decode(), f"and said what to do: {said[0].body!r}")


AWAITS = """
import asyncio
import otel_progress as progress
progress.configure(service_name="job")

@progress.operation("bob-research", id="bob-1", attributes={"owner": "bob"}, stall_after=0.5)
async def bob_work():
    with progress.stage("bob-stage"):
        await bob_frame()

async def bob_frame():
    await asyncio.sleep(60)

async def hers():
    async with progress.operation("ann-top", id="ann-top", attributes={"owner": "ann"}, stall_after=0.5):
        async with progress.operation("ann-mid", id="ann-mid", attributes={"owner": "ann"}, stall_after=0.5):
            with progress.stage("delegate"):
                await bob_work()

asyncio.run(hers())
"""


@attack("owners", "what a child of another, awaited in her own process, makes her operations say")
def awaited() -> None:
    with monitored() as served:
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{served.host}"}
        env["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer {ADMIN}"
        program = subprocess.Popen([sys.executable, "-c", AWAITS], env=env)
        try:
            until(lambda: served.ask("GET", "/operations/ann-mid", token=ANN).status == 200, "hers is there")
            with Stream(served, "/operations/ann-mid/stream") as stream:
                until(lambda: "bob" in json.dumps(served.get("/operations/ann-top", token=ADMIN)["timeline"]), "stuck")
                until(lambda: "bob" in json.dumps(served.get("/operations/ann-mid", token=ADMIN)["timeline"]), "stuck")
                stream.see(b"progress.stalled")
                for key in ("ann-top", "ann-mid"):
                    for path in (f"/operations/{key}", f"/operations/{key}/events", "/operations"):
                        told = json.dumps(served.get(path, token=ANN)).replace(str(served.port), "")
                        hold("bob" not in told, f"{path} says nothing of bob's child: {told}")
                hold(b"bob" not in stream.got, "nor does the stream")
                hold(served.get("/operations/ann-top", token=ANN)["state"] == "stuck", "she sees that hers is stuck")
        finally:
            program.kill()
            program.wait()
