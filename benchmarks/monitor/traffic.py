"""Requests as real programs send them: log events by our own encoder, and spans with the same content.

Everything is prepared in advance, so that sending costs almost nothing. The operations of a program are in all phases:
most records are updates; stages start and end, notes are added, waits start and end, operations end and others replace
them.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_progress import __version__
from otel_progress import semconv as s
from otel_progress.live.engine import keyframes
from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Event, Progress, Snapshot, SpanIds, StageSnapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.outbound import otlp
from otel_progress.telemetry.events import Events

BATCH: Final = 512
LEVEL: Final = 6
"""Compression level of gzip, as in OTLP exporters."""
NAMES: Final = ("survey", "import", "train", "translate", "crawl")
STAGES: Final = ("load", "parse", "resolve", "index", "report")
TOTAL: Final = 200
DONE: Final = Progress(TOTAL, TOTAL, "file", 1.0, 1.0)
SHARES: Final = ((0.80, "update"), (0.88, "stage"), (0.95, "note"), (0.98, "wait"), (1.0, "end"))
"""Cumulative shares of the kinds of records that an operation emits."""
BEAT_EVERY: Final = 5.0


class Body(NamedTuple):
    """A request: its program, its number, its records, and its bytes."""

    program: int
    number: int
    records: int
    data: bytes
    ended: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """The shape of a load.

    Attributes:
        operations: number of concurrent operations of all programs.
        programs: number of programs.
        rate: records a second of all programs, by the times in the records.
        batch: records per request.
        shares: cumulative shares of the kinds of records.
        stamped: whether the current step of an operation names its request.
        tag: part of all ids, so that loads are not confused.
        seed: seed of the random choices.
    """

    operations: int = 2_000
    programs: int = 20
    rate: float = 50_000
    batch: int = BATCH
    shares: tuple[tuple[float, str], ...] = SHARES
    stamped: bool = False
    tag: str = "a"
    seed: int = 1


class _Post:
    """Stands in for the pipeline, and only collects what was encoded."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def post(self, letter: Any) -> None:
        self.bodies.append(letter.body)

    def poke(self) -> None:
        """Do nothing: no event waits."""


class _Handle:
    """Stands in for the operation's own handle."""

    def __init__(self, key: str) -> None:
        self.id = key
        self._keyframe: int | None = None


@dataclass
class _Operation:
    """A running operation and its next record."""

    key: str
    name: str
    chance: random.Random
    started_at: float
    sequence: int = 0
    stage: int = 0
    done: int = 0
    message: str = ""
    waits: bool = False
    stages: tuple[StageSnapshot, ...] = ()
    span: SpanIds = field(default_factory=lambda: SpanIds("", ""))

    def __post_init__(self) -> None:
        self.handle = _Handle(self.key)
        hexed = f"{self.chance.getrandbits(128):032x}"
        self.span = SpanIds(hexed, hexed[:16], None, False, True, int(self.started_at * 1e9))

    def says(self, kind: str, now: float) -> Event:
        """Emit the next event."""
        self.sequence += 1
        about: dict[str, Any] = {}
        name, status = s.UPDATED, Status.WAITING if self.waits else Status.RUNNING
        if kind == "start":
            name = s.OPERATION_STARTED
        elif kind == "end":
            name, status = s.OPERATION_ENDED, Status.COMPLETED if self.chance.random() < 0.9 else Status.FAILED
        elif kind == "note":
            name, about = s.NOTE, {s.NOTE_TEXT: f"found {self.chance.randrange(1000)} files, 3 of them new"}
        elif kind == "wait":
            name = s.WAIT_ENDED if self.waits else s.WAIT_STARTED
            self.waits = not self.waits
            status = Status.WAITING if self.waits else Status.RUNNING
            about = {s.WAIT_REASON: "rate limit", s.WAIT_DURATION: 1.5} if not self.waits else {}
        elif kind == "stage":
            self.stage, self.done, name = (self.stage + 1) % len(STAGES), 0, s.STAGE_STARTED
        else:
            self.done = min(self.done + 1, TOTAL - 1)
            self.message = self.message or "src/package/module.py"
        path = STAGES[self.stage]
        return Event(name, int(now * 1e9), self._snapshot(status, now), self.sequence, path, Attributes(about))

    def _snapshot(self, status: Status, now: float) -> Snapshot:
        elapsed, path = now - self.started_at, STAGES[self.stage]
        before = tuple(
            StageSnapshot(one, one, Status.COMPLETED, DONE, True, started_at=self.started_at, elapsed=3.25)
            for one in STAGES[: self.stage]
        )
        current = StageSnapshot(
            path, path, Status.RUNNING, _count(self.done), True, started_at=now - 12.25, elapsed=12.25, idle=0.1,
            span_id=self.span.span_id,
        )  # fmt: skip
        after = tuple(StageSnapshot(one, one, Status.PENDING, planned=True) for one in STAGES[self.stage + 1 :])
        ratio = (self.stage + self.done / TOTAL) / len(STAGES)
        return Snapshot(
            self.key,
            self.name,
            status,
            now,
            sequence=self.sequence,
            health=Health.WAITING if status is Status.WAITING else Health.PROGRESSING,
            reason="ValueError: no such file" if status is Status.FAILED else None,
            started_at=self.started_at,
            elapsed=elapsed,
            idle=0.1,
            stall_after=30.0,
            stage=path,
            message=self.message or None,
            agent="surveyor",
            progress=Progress(None, None, "item", ratio, ratio, None, Estimate(14.0, 11.0, 19.0, "rate")),
            stages=(*before, current, *after),
            wait=Wait("rate limit", 0.5, 60.0) if status is Status.WAITING else None,
            usage=Attributes({"input_tokens": 12_000, "output_tokens": 310, "cost.USD": 0.12}),
            attributes=Attributes({"path": "/data/corpus", "mode": "fast"}),
            span=self.span,
        )


def _count(done: int) -> Progress:
    return Progress(done, TOTAL, "file", done / TOTAL, done / TOTAL, 33.3, Estimate(4.0, 3.0, 5.0, "rate"))


class Program:
    """A process with its operations."""

    def __init__(self, shape: Shape, number: int, begin: float) -> None:
        """Start its operations."""
        self._shape = shape
        self._number = number
        self._now = begin
        self._chance = random.Random(shape.seed * 1_000 + number)
        self._made = 0
        self._said = 0
        self._post = _Post()
        self._events = Events(self._post)  # type: ignore[arg-type]
        self._step = shape.programs / shape.rate
        self._beat_at = begin
        instance = f"{shape.tag}-{number:04d}-instance"
        about = {
            "service.name": f"job-{number % 4}",
            "service.instance.id": instance,
            "telemetry.sdk.language": "python",
            "host.name": "worker-3",
            "process.pid": 4_000_000 + number,
        }
        self._resource, self._scope = otlp.resource(about), otlp.scope(s.SCOPE, __version__)
        self._fresh: list[_Operation] = []
        self._running = [self._new() for _ in range(shape.operations // shape.programs)]

    def _new(self) -> _Operation:
        self._made += 1
        key = f"{self._shape.tag}-{self._number:03d}-{self._made:06d}"
        found = _Operation(key, self._chance.choice(NAMES), self._chance, self._now)
        found.stage, found.done = self._chance.randrange(len(STAGES)), self._chance.randrange(TOTAL)
        self._fresh.append(found)
        return found

    def body(self, number: int) -> Body:
        """Return the next request."""
        ended: list[str] = []
        while len(self._post.bodies) < self._shape.batch:
            self._now += self._step
            if self._now >= self._beat_at:
                self._beat_at += BEAT_EVERY
                self._beat()
            elif self._fresh:
                self._say(self._fresh.pop(), "start", number)
            else:
                ended += self._next(number)
        items, self._post.bodies = self._post.bodies[: self._shape.batch], self._post.bodies[self._shape.batch :]
        data = otlp.envelope(self._resource, self._scope, items)
        return Body(self._number, number, len(items), gzip.compress(data, LEVEL), tuple(ended))

    def last(self) -> Snapshot:
        """Return the end of one of its operations."""
        return self._running[0].says("end", self._now + 9).snapshot

    def _next(self, number: int) -> list[str]:
        place = self._said % len(self._running)
        self._said += 1
        operation, drawn = self._running[place], self._chance.random()
        kind = next(kind for share, kind in self._shape.shares if drawn <= share)
        if operation.waits and kind != "end":
            kind = "wait"  # it says nothing else until that is over
        self._say(operation, kind, number)
        if kind != "end":
            return []
        self._running[place] = self._new()
        return [operation.key]

    def _say(self, operation: _Operation, kind: str, number: int) -> None:
        if self._shape.stamped:
            operation.message = f"@{self._number:03d}.{number:06d}"
        event = operation.says(kind, self._now)
        if event.name in keyframes.ALWAYS:
            operation.handle._keyframe = event.sequence
        self._events.on_event(event, operation.handle)  # type: ignore[arg-type]

    def _beat(self) -> None:
        now = int(self._now * 1e9)
        encoded = otlp.attributes(6, {s.HEARTBEAT_INTERVAL: BEAT_EVERY, s.PROCESS_IN_FLIGHT: len(self._running)})
        text = f"the process is alive, {len(self._running)} operations in flight"
        self._post.bodies.append(
            otlp.log_record(s.PROCESS_HEARTBEAT, now, now, otlp.INFO, text, encoded, None, None, False)
        )


def _bodies_of(given: tuple[Shape, int, float, int]) -> list[Body]:
    shape, number, begin, count = given
    program = Program(shape, number, begin)
    return [program.body(at) for at in range(count)]


def events(shape: Shape, requests: int, begin: float) -> list[Body]:
    """Return requests of log events; those of one program in order, all programs in turn."""
    each = -(-requests // shape.programs)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        found = pool.map(_bodies_of, [(shape, number, begin, each) for number in range(shape.programs)])
    return [one for turn in zip(*found) for one in turn][:requests]


def spans(shape: Shape, requests: int, begin: float) -> list[Body]:
    """Return requests of spans: each operation as a trace, with the content of the events as attributes."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    out = []
    for number in range(requests):
        message, program = ExportTraceServiceRequest(), number % shape.programs
        group = message.resource_spans.add()
        for key, value in (("service.name", f"job-{program % 4}"), ("service.instance.id", f"{shape.tag}-{program}")):
            group.resource.attributes.add(key=key).value.string_value = value
        scope = group.scope_spans.add()
        chance = random.Random(shape.seed * 10_000_000 + number)
        while len(scope.spans) < shape.batch:
            for span in _trace(chance, begin + number * 0.01):
                if len(scope.spans) < shape.batch:
                    scope.spans.append(span)
        out.append(Body(program, number, shape.batch, gzip.compress(message.SerializeToString(), LEVEL)))
    return out


def _trace(chance: random.Random, begin: float) -> Iterator[Any]:
    """Return four stages, fifteen model calls, and the root, ordered by their ends, as spans are sent."""
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    trace, root = chance.randbytes(16), chance.randbytes(8)
    key = trace.hex()
    stages = [chance.randbytes(8) for _ in range(4)]
    whole = [(STAGES[at], own, root) for at, own in enumerate(stages)]
    calls = [("chat model", chance.randbytes(8), chance.choice(stages)) for _ in range(15)]
    for at, (name, own, above) in enumerate([*calls, *whole, ("survey", root, b"")]):
        start = int((begin + at) * 1e9)
        span = Span(trace_id=trace, span_id=own, parent_span_id=above, name=name, kind=1, start_time_unix_nano=start)
        span.end_time_unix_nano = start + 900_000_000
        said: dict[str, Any] = {
            s.OPERATION_ID: key,
            s.OPERATION_NAME: "survey",
            s.STAGE_NAME: name,
            s.STATUS: "completed",
            s.COMPLETED: 200,
            s.TOTAL: 200,
            s.UNIT: "file",
            s.MESSAGE: "src/package/module.py",
            s.GEN_AI_AGENT: "surveyor",
            f"{s.GEN_AI_USAGE}.input_tokens": 1200,
            f"{s.GEN_AI_USAGE}.output_tokens": 310,
        }
        for name_of, value in said.items():
            kind = "string_value" if isinstance(value, str) else "int_value"
            setattr(span.attributes.add(key=name_of).value, kind, value)
        yield span
