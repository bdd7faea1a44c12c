"""Receivers that hold or harm a sender: each transport against the whole zoo at once (`zoo.py`)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from benchmarks.attacks import Broke, attack, hold
from benchmarks.attacks import zoo as z
from otel_progress import semconv as s
from otel_progress.settings import Endpoint
from otel_progress.telemetry import protobuf
from otel_progress.telemetry.outbox import Letter
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.telemetry.transport import Answer, Transport, connect

TIMEOUT: Final = 0.4
"""The deadline of a request in these attacks, in seconds."""
DRIP: Final = 0.1
"""Shorter than the deadline, so that no timeout from byte to byte ends a drip."""
HELD: Final = 5.0
"""More than ten deadlines: a request that takes longer has none."""
SOME: Final = 3.0
"""How long the bad receivers are sent to."""
BUSY: Final = 0.5
"""The share of a core above which a sender spins."""
SECRET: Final = "Bearer let-me-in"
TICKS: Final = os.sysconf("SC_CLK_TCK")


def until(met: Callable[[], bool], timeout: float = 30.0) -> bool:
    """Wait for it."""
    deadline = time.monotonic() + timeout
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def cpu(thread: threading.Thread) -> float:
    """The CPU seconds of a thread of this process so far."""
    text = Path(f"/proc/self/task/{thread.native_id}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / TICKS


@dataclass
class Timed:
    """A transport that remembers how long each request took."""

    inner: Transport
    seconds: list[float] = field(default_factory=list)
    since: float | None = None

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send, and remember."""
        self.since = began = time.monotonic()
        try:
            return self.inner.send(body, timeout)
        finally:
            self.since = None
            self.seconds.append(time.monotonic() - began)

    def close(self) -> None:
        """Let connections go."""
        self.inner.close()

    @property
    def longest(self) -> float:
        """The longest request, the one under way included."""
        since = self.since
        return max([*self.seconds, 0.0 if since is None else time.monotonic() - since])


def endpoint_of(bad: z.Bad, signal: str, protocol: str) -> Endpoint:
    """Where a signal goes, with a secret that no other host must see."""
    url = bad.url if protocol == "grpc" else f"{bad.url}/v1/{signal}"
    trusted = z.trusted() if bad.kind.client == "https" else None
    return Endpoint(protocol, url, (("authorization", SECRET),), TIMEOUT, certificate=trusted)


@contextmanager
def zoo(kinds: Mapping[str, z.Kind], **given: Any) -> Iterator[dict[str, z.Bad]]:
    """All of these at once, and a witness that nobody may come to."""
    with ExitStack() as stack:
        witness = stack.enter_context(z.Witness())
        yield {
            name: stack.enter_context(z.Bad(kind, drip=DRIP, other=witness.url, **given))
            for name, kind in kinds.items()
        }
        hold(not witness.heard, f"another host was sent {witness.heard[:1]}")


def letters(name: str) -> list[Letter]:
    """The start and the end of an operation."""
    return [
        Letter(event, name, protobuf.log_record(event, 1, 1, protobuf.INFO, name, b"", None, None, False))
        for event in (s.OPERATION_STARTED, s.OPERATION_ENDED)
    ]


def events(bad: z.Bad) -> list[str]:
    """The names of the events that came once the receiver was honest."""
    found = []
    for request in list(bad.bodies):
        said = ExportLogsServiceRequest.FromString(request.body)
        found += [log.event_name for one in said.resource_logs for scoped in one.scope_logs for log in scoped.log_records]
    return found


@dataclass
class Sender:
    """A pipeline that sends to one bad receiver."""

    bad: z.Bad
    protocol: str
    offers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.timed = Timed(connect("logs", endpoint_of(self.bad, "logs", self.protocol)))
        self.pipeline = Pipeline(self.timed, None, protobuf.resource({}), "0", 1000, self.offers.append)
        for letter in letters(self.bad.kind.name):
            self.pipeline.post(letter)
        known = set(threading.enumerate())
        self.pipeline.poke()
        made = set(threading.enumerate()) - known
        self.thread = next(thread for thread in made if thread.name == "otel-progress-sender")


def against(kinds: Mapping[str, z.Kind], protocol: str) -> None:
    """Send to all of these, then make them honest: no request is held, nothing spins, all that is kept arrives once."""
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
                sender.pipeline._at_once()  # an hour is honoured, and too long for this
        late = [one for one in senders if not until(lambda one=one: arrived(one), 20.0)]
        names = [f"{one.bad.kind.name} ({events(one.bad)})" for one in late]
        hold(not late, f"what happened did not arrive once: {', '.join(names)}")
        for sender in senders:
            sender.pipeline.close()


def harm(one: Sender, seconds: float) -> str:
    """What a bad receiver did to its sender, or nothing."""
    if one.timed.longest > HELD or not one.timed.seconds:
        return f"it held a request for {one.timed.longest:.1f} s"
    if (used := cpu(one.thread)) > BUSY * seconds:
        return f"its sender used {used:.1f} s of CPU in {seconds:g} s"
    return ""


def arrived(one: Sender) -> bool:
    """Whether all is as it should be now that the receiver is honest."""
    one.pipeline.poke()
    if one.bad.kind.fate != z.KEPT:
        return one.pipeline.all_sent()
    return sorted(events(one.bad)) == sorted([s.OPERATION_STARTED, s.OPERATION_ENDED])


@attack("receivers", "log events over HTTP")
def http_events() -> None:
    """Each bad receiver of HTTP, against the pipeline of log events."""
    against(z.KINDS, "http/protobuf")


@attack("receivers", "log events over gRPC")
def grpc_events() -> None:
    """Each bad receiver of HTTP/2, against the pipeline of log events."""
    against(z.KINDS_OF_GRPC, "grpc")


if __name__ == "__main__":
    import sys

    for call in (http_events, grpc_events):
        try:
            call()
        except Broke as error:
            sys.stderr.write(str(error).replace("; ", "\n") + "\n")
