"""Receivers that block or harm a sender: each transport against all bad receivers at once (`zoo.py`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

import otel_progress as progress
from benchmarks.attacks import attack, attacks, hold
from benchmarks.attacks import zoo as z
from otel_progress import semconv as s
from otel_progress.cli.doctor.backends import BackendUnavailable, all_three
from otel_progress.cli.doctor.endpoint import reach
from otel_progress.cli.query.client import BODY_TIMES, Client, ConnectionLost, ErrorResponse
from otel_progress.cli.query.exit_codes import CommandError
from otel_progress.monitor.outlets.relay import DiskQueue
from otel_progress.monitor.state.saved import Batch
from otel_progress.monitor.state.store import Store
from otel_progress.outbound import otlp
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.queue import MemoryQueue, SignalQueue
from otel_progress.outbound.transport import Transport, connect
from otel_progress.outbound.webhook import Webhook, WebhookOptions
from otel_progress.settings import Endpoint
from otel_progress.telemetry.control_channel import Channel
from otel_progress.telemetry.outbox import EncodedEvent, Unsent
from otel_progress.telemetry.pipeline import Pipeline

TIMEOUT: Final = 0.4
"""The deadline of a request in these attacks, in seconds."""
DRIP: Final = 0.1
"""Seconds between two bytes; shorter than the deadline, so that no timeout between bytes ends the transfer."""
HELD: Final = 5.0
"""Seconds after which a request counts as unbounded: more than ten deadlines."""
SOME: Final = 3.0
"""Seconds of sending to the bad receivers."""
BUSY: Final = 0.5
"""The share of a core above which a sender spins."""
SECRET: Final = "Bearer let-me-in"
TICKS: Final = os.sysconf("SC_CLK_TCK")


def until(met: Callable[[], bool], timeout: float = 30.0) -> bool:
    """Wait until the condition is true."""
    deadline = time.monotonic() + timeout
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def cpu(thread: threading.Thread) -> float:
    """Return the CPU seconds of a thread of this process."""
    text = Path(f"/proc/self/task/{thread.native_id}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / TICKS


@dataclass
class Timed:
    """A transport that records how long each request took."""

    inner: Transport
    seconds: list[float] = field(default_factory=list)
    since: float | None = None

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send and record the duration."""
        self.since = began = time.monotonic()
        try:
            return self.inner.send(body, timeout)
        finally:
            self.since = None
            self.seconds.append(time.monotonic() - began)

    def close(self) -> None:
        """Close the connections."""
        self.inner.close()

    @property
    def longest(self) -> float:
        """Return the longest request, including the current one."""
        since = self.since
        return max([*self.seconds, 0.0 if since is None else time.monotonic() - since])


def endpoint_of(bad: z.Bad, signal: str, protocol: str) -> Endpoint:
    """Return the endpoint of a signal, with a secret that no other host must see."""
    url = bad.url if protocol == "grpc" else f"{bad.url}/v1/{signal}"
    trusted = z.trusted() if bad.kind.client == "https" else None
    return Endpoint(protocol, url, (("authorization", SECRET),), TIMEOUT, certificate=trusted)


@contextmanager
def zoo(kinds: Mapping[str, z.Kind], **given: Any) -> Iterator[dict[str, z.Bad]]:
    """Run all of these at once, and a witness that must receive no connection."""
    with ExitStack() as stack:
        witness = stack.enter_context(z.Witness())
        yield {
            name: stack.enter_context(z.Bad(kind, drip=DRIP, other=witness.url, **given))
            for name, kind in kinds.items()
        }
        hold(not witness.heard, f"another host was sent {witness.heard[:1]}")


def letters(name: str) -> list[EncodedEvent]:
    """Return the start and the end of an operation."""
    return [
        EncodedEvent(event, name, otlp.log_record(event, 1, 1, otlp.INFO, name, b"", None, None, False))
        for event in (s.OPERATION_STARTED, s.OPERATION_ENDED)
    ]


def events(bad: z.Bad) -> list[str]:
    """Return the names of the events that arrived after the receiver became honest."""
    found = []
    for request in list(bad.bodies):
        said = ExportLogsServiceRequest.FromString(request.body)
        scopes = [scoped for one in said.resource_logs for scoped in one.scope_logs]
        found += [log.event_name for scoped in scopes for log in scoped.log_records]
    return found


@dataclass
class Sender:
    """A pipeline that sends to one bad receiver."""

    bad: z.Bad
    protocol: str
    offers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.timed = Timed(connect("logs", endpoint_of(self.bad, "logs", self.protocol)))
        self.pipeline = Pipeline(self.timed, None, {}, "0", 1000, self.offers.append)
        for letter in letters(self.bad.kind.name):
            self.pipeline.post(letter)
        known = set(threading.enumerate())
        self.pipeline.poke()
        made = set(threading.enumerate()) - known
        self.thread = next(thread for thread in made if thread.name == "otel-progress-sender")


def against(kinds: Mapping[str, z.Kind], protocol: str) -> None:
    """Send to all, then make them honest: no request blocks, nothing spins, all retained events arrive."""
    with zoo(kinds) as bads:
        senders = [Sender(bad, protocol) for bad in bads.values()]
        end = time.monotonic() + SOME
        while time.monotonic() < end:
            for sender in senders:
                sender.pipeline.poke()
            time.sleep(0.1)
        broke = [f"{one.bad.kind.name}: {why}" for one in senders if (why := harm(one, SOME))]
        hold(not broke, "; ".join(broke))
        for sender in senders:
            sender.bad.mend(grpc=protocol == "grpc")
            if sender.bad.kind.name.startswith("429"):
                sender.pipeline.flush(SOME)  # an hour is honoured, and too long for this
        late = [one for one in senders if not until(lambda one=one: arrived(one), 20.0)]
        names = [f"{one.bad.kind.name} ({events(one.bad)})" for one in late]
        hold(not late, f"what happened did not arrive: {', '.join(names)}")
        for sender in senders:
            sender.pipeline.close()


def harm(one: Sender, seconds: float) -> str:
    """Return the harm that a bad receiver did to its sender, or an empty text."""
    if one.timed.longest > HELD or not one.timed.seconds:
        return f"it held a request for {one.timed.longest:.1f} s"
    if (used := cpu(one.thread)) > BUSY * seconds:
        return f"its sender used {used:.1f} s of CPU in {seconds:g} s"
    return ""


def arrived(one: Sender) -> bool:
    """Whether all has arrived as expected; on a busy machine an answer may come too late."""
    one.pipeline.poke()
    came = set(events(one.bad)) == {s.OPERATION_STARTED, s.OPERATION_ENDED}
    lost = Unsent(1, 1) if one.bad.kind.fate == z.REFUSED else Unsent()
    counted = one.pipeline.unsent(final=False)[0] == lost
    return one.pipeline.all_sent() and counted and (came or one.bad.kind.fate != z.KEPT)


@attack("receivers", "log events over HTTP")
def http_events() -> None:
    """Each bad HTTP receiver against the pipeline of log events."""
    against(z.KINDS, "http/protobuf")


@attack("receivers", "log events over gRPC")
def grpc_events() -> None:
    """Each bad HTTP/2 receiver against the pipeline of log events."""
    against(z.KINDS_OF_GRPC, "grpc")


def lanes(make: Callable[[z.Bad, Timed, Path], SignalQueue]) -> None:
    """Forward a request to each bad HTTP receiver, then make them honest."""
    with zoo(z.KINDS) as bads, tempfile.TemporaryDirectory() as folder:
        timed = {name: Timed(connect("logs", endpoint_of(bad, "logs", "http/protobuf"))) for name, bad in bads.items()}
        ways = {name: make(bad, timed[name], Path(folder) / str(bad.port)) for name, bad in bads.items()}
        time.sleep(SOME)
        held = [name for name, one in timed.items() if one.longest > HELD or not one.seconds]
        busy = [name for name, way in ways.items() if way._thread.is_alive() and cpu(way._thread) > BUSY * SOME]
        hold(not held, f"a request was held by: {', '.join(held)}")
        hold(not busy, f"a lane spins because of: {', '.join(busy)}")
        for name, way in ways.items():
            bads[name].mend()
            way.hurry(time.monotonic() + 20.0)
        late = [
            name for name, way in ways.items() if not until(lambda name=name, way=way: passed(bads[name], way), 20.0)
        ]
        for way in ways.values():
            way.stop()  # type: ignore[attr-defined]
        for way in ways.values():
            way._thread.join(HELD)
        hold(not late, f"what was to be passed on was neither delivered nor counted: {', '.join(late)}")


def passed(bad: z.Bad, way: SignalQueue) -> bool:
    """Whether the request has arrived, or was dropped and counted."""
    came = bool(bad.bodies)
    return {z.KEPT: came and not way.lost, z.REFUSED: way.lost == 1 and not came, z.TAKEN: not way.lost}[bad.kind.fate]


def request() -> bytes:
    """Return a complete request of log events."""
    items = [letter.body for letter in letters("job")]
    return otlp.envelope(otlp.resource({}), otlp.scope(s.SCOPE, "0"), items)


@attack("receivers", "monitor --forward")
def forwarded() -> None:
    """Each bad receiver against the relay of the monitor."""
    stores: list[Store] = []

    def make(bad: z.Bad, timed: Timed, path: Path) -> SignalQueue:
        store = Store(path)
        stores.append(store)
        store.write(Batch(outgoing=(("logs", request()),)))
        return DiskQueue("logs", bad.url, timed, store, lambda _: None)

    try:
        lanes(make)
    finally:
        for store in stores:
            store.close()


@attack("receivers", "death certificates")
def certificates() -> None:
    """Each bad receiver against the queue of `otel-progress run`, certificates included."""

    def make(bad: z.Bad, timed: Timed, _: Path) -> SignalQueue:
        lane = MemoryQueue("logs", bad.url, timed)
        lane.put(request())
        return lane

    lanes(make)


def threads(name: str) -> list[threading.Thread]:
    """Return the threads of this name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


@attack("receivers", "webhooks")
def webhooks() -> None:
    """Each bad receiver against webhooks: nothing spins, it ends in time, and failed deliveries are counted."""
    name = "otel-progress-webhook"
    with zoo(z.KINDS) as bads:
        hooks = {kind: Webhook(WebhookOptions(f"{bad.url}/hook"), timeout=TIMEOUT) for kind, bad in bads.items()}
        for hook in hooks.values():
            hook.put("ended", "job", {"id": "job"})
        time.sleep(SOME)
        busy = [thread for thread in threads(name) if cpu(thread) > BUSY * SOME]
        hold(not busy, f"{len(busy)} webhooks spin")
        for hook in hooks.values():
            hook.close(0.05)
        hold(until(lambda: not threads(name), HELD), f"{len(threads(name))} webhooks go on after their end")
        uncounted = [
            kind for kind, hook in hooks.items() if hook.delivered + sum(hook._deliveries.dropped.values()) != 1
        ]
        hold(not uncounted, f"neither delivered nor counted: {', '.join(uncounted)}")


def at_once(calls: Mapping[str, Callable[[], object]]) -> dict[str, tuple[float, object]]:
    """Call all at once; return for each its duration and what it returned or raised."""

    def run(call: Callable[[], object]) -> tuple[float, object]:
        began = time.monotonic()
        try:
            found = call()
        except Exception as error:
            found = error
        return time.monotonic() - began, found

    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = {name: pool.submit(run, call) for name, call in calls.items()}
        return {name: one.result() for name, one in waiting.items()}


@attack("receivers", "list, show, watch and cancel")
def commands() -> None:
    """Each request of `list`, `show`, `watch` and `cancel` ends in time, with an expected error."""
    calls: dict[str, Callable[[Client], object]] = {
        "check": lambda client: client.check(),
        "list": lambda client: client.operations()["operations"],
        "show": lambda client: client.find("job"),
        "stream": lambda client: next(client.stream("/events/stream")),
        "cancel": lambda client: client.ask("/operations/job", method="DELETE"),
    }
    with zoo(z.KINDS) as bads:
        clients = {name: Client(bad.url, "let-me-in", TIMEOUT) for name, bad in bads.items()}
        every = [(word, name) for word in calls for name in clients]
        came = at_once({f"{word}, {name}": partial(calls[word], clients[name]) for word, name in every})
    good = (CommandError, ConnectionLost, ErrorResponse)
    held = [f"{name} ({took:.1f} s)" for name, (took, _) in came.items() if took > HELD + BODY_TIMES * TIMEOUT]
    hold(not held, f"it was held by: {', '.join(held)}")
    odd = [f"{name} ({found!r})" for name, (_, found) in came.items() if not isinstance(found, (*good, bytes))]
    hold(not odd, f"no error that is told: {', '.join(odd)}")


@attacks("receivers", "doctor, {protocol}", protocol=("http/protobuf", "grpc"))
def doctor(protocol: str) -> None:
    """`doctor` finds what is wrong with each, in time."""
    kinds = z.KINDS_OF_GRPC if protocol == "grpc" else z.KINDS
    with zoo(kinds) as bads:
        came = at_once(
            {name: partial(reach, "logs", endpoint_of(bad, "logs", protocol), {}, HELD) for name, bad in bads.items()}
        )
    held = [f"{name} ({took:.1f} s)" for name, (took, _) in came.items() if took > 3 * HELD]
    hold(not held, f"it was held by: {', '.join(held)}")
    blind = [
        f"{name} ({found!r})"
        for name, (_, found) in came.items()
        if kinds[name].fate != z.TAKEN and getattr(found, "problem", None) is None
    ]
    hold(not blind, f"nothing was found wrong with: {', '.join(blind)}")


@attack("receivers", "doctor's backends")
def backends() -> None:
    """A backend that is queried for the test operation blocks nothing, whatever it answers."""
    with zoo(z.KINDS) as bads:
        asked = {name: all_three()[0] for name in bads}
        for name, backend in asked.items():
            backend.url = bads[name].url
        came = at_once({name: partial(backend.get, "/api", TIMEOUT) for name, backend in asked.items()})
    held = [f"{name} ({took:.1f} s)" for name, (took, _) in came.items() if took > HELD]
    hold(not held, f"it was held by: {', '.join(held)}")
    odd = [
        f"{name} ({found!r})" for name, (_, found) in came.items() if not isinstance(found, (BackendUnavailable, tuple))
    ]
    hold(not odd, f"it fails on: {', '.join(odd)}")


@attack("receivers", "the control channel")
def channels() -> None:
    """A receiver that is bad only on the control channel: nothing spins, nothing leaks."""
    name = "otel-progress-control"
    with zoo(z.KINDS, paths="/control") as bads, progress.operation("attacked"):
        made = [Channel(endpoint_of(bad, "logs", "http/protobuf"), "instance") for bad in bads.values()]
        for channel in made:
            channel.offered("/control")
        time.sleep(SOME)
        busy = [thread for thread in threads(name) if cpu(thread) > BUSY * SOME]
        for channel in made:
            channel.close()
        hold(not busy, f"{len(busy)} channels spin")


JOB: Final = """
import sys, time
import otel_progress as progress
progress.configure()
longest, began, used = 0.0, time.monotonic(), time.process_time() - time.thread_time()
for number in range(20):
    before = time.monotonic()
    with progress.operation("job", id=f"job-{number}"), progress.stage("step"):
        longest = max(longest, time.monotonic() - before)
        time.sleep(0.1)
    before = time.monotonic()
others = time.process_time() - time.thread_time() - used
print(longest, others / (time.monotonic() - began), time.monotonic(), flush=True)
"""
ENDS: Final = re.compile(r"(\d+) ends? of (?:an )?operations?, .* could not be sent before the end: (.*)")
OF_HTTP: Final = (
    "never accepts",
    "503 for ever",
    "413",
    "drips the head",
    "100 Continue without end",
    "a web page",
)
OF_GRPC: Final = ("accepts and says nothing", "pings without end", "cuts each stream off")


@attacks("receivers", "a whole process, {protocol}", protocol=("http/protobuf", "grpc"))
def processes(protocol: str) -> None:
    """A job that sends all signals there is not slowed, ends in time, and reports at exit what was lost."""
    kinds = z.KINDS_OF_GRPC if protocol == "grpc" else z.KINDS
    with zoo({name: kinds[name] for name in (OF_GRPC if protocol == "grpc" else OF_HTTP)}) as bads:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COV_", "PYTEST_"))}
        environ |= {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_TIMEOUT": str(TIMEOUT)}
        told = {name: {**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": bad.url} for name, bad in bads.items()}
        came = at_once({name: partial(run, env) for name, env in told.items()})
    broke = [f"{name}: {found}" for name, (_, found) in came.items() if found]
    hold(not broke, "; ".join(broke))


def run(env: Mapping[str, str]) -> str:
    """Run the job; return what went wrong, or an empty text."""
    command = [sys.executable, "-c", JOB]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        try:
            out, err = job.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            job.kill()
            return "it does not end"
    ended = time.monotonic()
    if job.returncode or not out:
        return f"exit code {job.returncode}: {err[-300:]}"
    longest, others, at = map(float, out.split())
    said = err.splitlines()[-1] if err else ""
    found = ENDS.match(said)
    if longest > 1.0 or others > BUSY:
        return f"a call took {longest:.2f} s; the share of a core beside the job was {others:.2f}"
    if ended - at > 10.0:
        return f"its end was held for {ended - at:.1f} s"
    if found is None or found[1] != "20":
        return f"its last line is {said!r}"
    return ""
