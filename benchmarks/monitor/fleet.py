"""A fleet of programs that send to one monitor as the SDK does, in one process.

python -m benchmarks.monitor.fleet HOST --operations 50000 --processes 5000 --seconds 60

Each program has connections of its own: one for requests, and one that polls for commands. Its operations last two
hours and are of all ages; each reports every 2% of its age, but at least every second and at most every 60 s, together
with others of its program as the SDK has it, and moves through its stages. Every 5 minutes an event carries the whole
state, others only what changed. A program without events sends a heartbeat every 15 s, and its metrics every minute. It
prints a line of JSON when all operations have begun, and another one at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gzip
import heapq
import json
import random
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from benchmarks.harness import full_or_short
from benchmarks.monitor.uplink import Uplink
from otel_progress import __version__
from otel_progress import semconv as s
from otel_progress.live.engine.cadence import SHARE, Cadence, nearest
from otel_progress.model import wire
from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Progress, Snapshot, SpanIds, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.outbound import otlp

LASTS: Final = 7200.0
"""Seconds that each operation lasts."""
STAGES: Final = tuple(f"stage-{number}" for number in range(10))
TOTAL: Final = 500
WHOLE_EVERY: Final = 300.0
"""Seconds between two events with the whole state."""
BEAT_EVERY: Final = 15.0
METRICS_EVERY: Final = 60.0
"""Seconds between two requests of metrics, as the monitor says that it keeps none."""
SERIES: Final = 12
"""Run series of each operation."""
TOGETHER: Final = 0.25
"""Seconds of events that leave in one request."""
WARM_UP: Final = 2_000
"""Operations that begin per second while the load is built up."""
SETTLE: Final = full_or_short(5.0, 1.0)
"""Seconds after that until the load is steady."""
LEVEL: Final = 1
"""The level of gzip."""
NAMES: Final = ("survey", "import", "train", "translate", "crawl")
KEYFRAME: Final = "progress.keyframe"


class Given(NamedTuple):
    """The size of the load: all operations and programs, whether each event is whole, and what else is sent."""

    operations: int
    processes: int
    whole: bool
    live: bool
    metrics: bool
    polls: bool
    gzip: bool
    seed: int


def pause(age: float, *, live: bool) -> float:
    """Seconds between two plain updates at this age."""
    return 1.0 if live else nearest(SHARE * age)


@dataclass(eq=False)
class Operation:
    """A running operation."""

    key: str
    name: str
    began: float
    trace: str
    sequence: int = 0
    stage: int = -1
    keyframe: int | None = None
    whole_at: float = 0.0
    sent: dict[str, Any] = field(default_factory=dict)

    def event(self, now: float, *, whole: bool) -> bytes:
        """Encode the next event at this Unix time."""
        elapsed = now - self.began
        share = min(elapsed / LASTS, 1.0)
        stage = min(int(share * len(STAGES)), len(STAGES) - 1)
        if share >= 1:
            name = s.OPERATION_ENDED
        elif self.keyframe is None:
            name = s.OPERATION_STARTED
        else:
            name = s.UPDATED if stage == self.stage else s.STAGE_STARTED
        self.stage = stage
        self.sequence += 1
        whole = whole or self.keyframe is None or share >= 1 or now - self.whole_at >= WHOLE_EVERY
        keys = self._whole(now, elapsed, share) if whole else self._delta(now, elapsed, share)
        keys.pop(s.SEQUENCE, None)
        own: dict[str, Any] = {s.SEQUENCE: self.sequence}
        if name == s.STAGE_STARTED:
            own |= {s.STAGE_PATH: STAGES[stage], s.STAGE_NAME: STAGES[stage]}
        if whole:
            self.keyframe, self.whole_at = self.sequence, now
        else:
            own[KEYFRAME] = self.keyframe
        moment = int(now * 1e9)
        text = f"{self.name} is at {STAGES[stage]}, {share:.0%}"
        return otlp.log_record(
            name, moment, moment, otlp.INFO, text, otlp.attributes(6, own | keys), self.trace, self.trace[:16], True
        )

    def _message(self, now: float) -> str:
        return f"@{now:.3f} src/package/module.py"

    def _whole(self, now: float, elapsed: float, share: float) -> dict[str, Any]:
        each = LASTS / len(STAGES)
        stages = []
        for number, path in enumerate(STAGES):
            if number < self.stage:
                done = Progress(TOTAL, TOTAL, "file", 1.0, 1.0)
                begun = self.began + number * each
                stages.append(
                    StageSnapshot(path, path, Status.COMPLETED, done, True, started_at=begun, elapsed=each)
                )  # fmt: skip
            elif number == self.stage:
                stages.append(self._running(elapsed, each))
            else:
                stages.append(StageSnapshot(path, path, Status.PENDING, planned=True))
        status = Status.COMPLETED if share >= 1 else Status.RUNNING
        snapshot = Snapshot(
            self.key,
            self.name,
            status,
            now,
            sequence=self.sequence,
            health=Health.PROGRESSING,
            started_at=self.began,
            elapsed=round(elapsed, 2),
            idle=0.1,
            stall_after=30.0,
            stage=STAGES[self.stage],
            message=self._message(now),
            agent="surveyor",
            progress=self._progress(elapsed, share),
            stages=tuple(stages),
            usage=Attributes({"input_tokens": 12_000, "output_tokens": 310, "cost.USD": 0.12}),
            attributes=Attributes({"path": "/data/corpus", "mode": "fast"}),
            span=SpanIds(self.trace, self.trace[:16], None, False, True, int(self.began * 1e9)),
        )
        return dict(wire.to_attributes(snapshot))

    def _progress(self, elapsed: float, share: float) -> Progress:
        done, ratio, rate = int(share * TOTAL), round(share, 4), round(TOTAL / LASTS, 4)
        return Progress(done, TOTAL, "item", ratio, ratio, rate, self._eta(elapsed))

    def _eta(self, elapsed: float) -> Estimate:
        left = round(max(0.0, LASTS - elapsed), 1)
        return Estimate(left, round(left * 0.9, 1), round(left * 1.2, 1), "rate")

    def _running(self, elapsed: float, each: float) -> StageSnapshot:
        here = elapsed - self.stage * each
        done = min(int(here / each * TOTAL), TOTAL - 1)
        progress = Progress(done, TOTAL, "file", done / TOTAL, done / TOTAL, 0.69, Estimate(4.0, 3.0, 5.0, "rate"))
        path = STAGES[self.stage]
        begun = self.began + self.stage * each
        return StageSnapshot(
            path, path, Status.RUNNING, progress, True, started_at=begun, elapsed=round(here, 2), idle=0.1,
            span_id=self.trace[:16],
        )  # fmt: skip

    def _delta(self, now: float, elapsed: float, share: float) -> dict[str, Any]:
        bare = Snapshot(
            self.key,
            self.name,
            Status.RUNNING,
            now,
            started_at=self.began,
            elapsed=round(elapsed, 2),
            idle=0.1,
            health=Health.PROGRESSING,
            stage=STAGES[self.stage],
            message=self._message(now),
            progress=self._progress(elapsed, share),
            stages=(self._running(elapsed, LASTS / len(STAGES)),),
        )
        return dict(wire.to_attributes(bare))


class Program:
    """A process with its operations, and what it sends when."""

    def __init__(self, number: int, given: Given, fleet: Fleet) -> None:
        """Without operations yet."""
        self._given = given
        self._fleet = fleet
        self._number = number
        self._chance = random.Random(given.seed * 100_000 + number)
        self._made = 0
        self.instance = f"fleet-{given.seed}-{number:05d}"
        about = {
            "service.name": f"job-{number % 20}",
            "service.instance.id": self.instance,
            "telemetry.sdk.language": "python",
            "host.name": f"worker-{number % 100}",
            "process.pid": 4_000_000 + number,
            "progress.schema": 2,
            "progress.heartbeat.interval": BEAT_EVERY,
        }
        self._resource, self._scope = otlp.resource(about), otlp.scope(s.SCOPE, __version__)
        self._series = b""
        self._due: list[tuple[float, int, Operation]] = []
        self._pace = Cadence()
        self.links = Uplink(fleet.host, fleet.told)
        self.polls = Uplink(fleet.host, fleet.polled)
        self._beat_at = self._metrics_at = 0.0

    def begin(self, now: float) -> None:
        """Start its operations, of all ages; its first request holds a heartbeat."""
        for _ in range(self._given.operations // self._given.processes):
            self._new(now, self._chance.uniform(0, LASTS))
        self._metrics_at = now + self._chance.uniform(0, METRICS_EVERY)
        self._send(now, [self._beat(now)])
        if self._given.polls:
            self.poll()

    def _new(self, now: float, age: float) -> None:
        self._made += 1
        key = f"{self._number:05d}-{self._made:06d}-{self._chance.getrandbits(32):08x}"
        trace = f"{self._chance.getrandbits(128):032x}"
        made = Operation(key, self._chance.choice(NAMES), now - age, trace)
        heapq.heappush(self._due, (now, self._made, made))

    @property
    def next_at(self) -> float:
        """When it has something to send."""
        at = min(self._due[0][0], self._beat_at)
        return min(at, self._metrics_at) if self._given.metrics else at

    def turn(self, now: float) -> None:
        """Send what is due."""
        if self._given.metrics and now >= self._metrics_at:
            self._metrics_at += METRICS_EVERY
            self._send_metrics(now)
        items: list[bytes] = []
        while self._due[0][0] <= now + TOGETHER:
            _, number, operation = heapq.heappop(self._due)
            items.append(operation.event(now, whole=self._given.whole))
            age = now - operation.began
            if age >= LASTS:
                self._new(now, 0.0)
            else:
                heapq.heappush(self._due, (self._pace.due(pause(age, live=self._given.live), now), number, operation))
        if not items and now >= self._beat_at:
            items = [self._beat(now)]
        if items:
            self._send(now, items)

    def _send(self, now: float, items: list[bytes]) -> None:
        self._beat_at = now + BEAT_EVERY
        self._fleet.events += len(items)
        self._post("/v1/logs", self._packed(otlp.envelope(self._resource, self._scope, items)))

    def _send_metrics(self, now: float) -> None:
        if not self._series:  # the same bytes each time: the monitor keeps no metrics
            self._series = self._packed(otlp.envelope(self._resource, self._scope, self._points(now)))
        self._fleet.metrics += 1
        self._post("/v1/metrics", self._series)

    def _points(self, now: float) -> list[bytes]:
        """Twelve run series of each operation."""
        moment, value = otlp.point_time(int(now * 1e9)), otlp.point_value(float(self._number))
        heads = [
            otlp.point_head(
                otlp.attributes(otlp.POINT_ATTRIBUTES, {s.OPERATION_ID: one.key, s.OPERATION_NAME: one.name})
            )
            for _, _, one in self._due
        ]
        points = [head + moment + value for head in heads]
        return [otlp.gauge(metric, points) for metric in islice(s.METRICS, SERIES)]

    def _packed(self, body: bytes) -> bytes:
        return gzip.compress(body, LEVEL) if self._given.gzip else body

    def _post(self, path: str, body: bytes) -> None:
        headers = "Content-Type: application/x-protobuf\r\n"
        if self._given.gzip:
            headers += "Content-Encoding: gzip\r\n"
        self._fleet.bytes += len(body)
        self.links.post(path, headers, body)

    def _beat(self, now: float) -> bytes:
        moment = int(now * 1e9)
        encoded = otlp.attributes(6, {s.HEARTBEAT_INTERVAL: BEAT_EVERY, s.JUDGED_BY: "process"})
        return otlp.log_record(
            s.PROCESS_HEARTBEAT, moment, moment, otlp.INFO, "the process is alive", encoded, None, None, False
        )

    def poll(self) -> None:
        """Ask for commands, as long as the monitor holds it."""
        body = json.dumps({"instance": self.instance, "pid": 4_000_000 + self._number, "answers": [], "wait": 20.0})
        self.polls.post("/control", "Content-Type: application/json\r\n", body.encode(), self.poll)


class Fleet:
    """All programs; it counts what they send, and how long each request took."""

    def __init__(self, host: str, given: Given) -> None:
        """Of one monitor."""
        self.host = host
        self.events = self.metrics = self.bytes = self.polls = 0
        self.answers: collections.Counter[int] = collections.Counter()
        self.delays: list[float] = []
        self.late = 0.0
        self._given = given
        self._programs = [Program(number, given, self) for number in range(given.processes)]

    def told(self, status: int, delay: float) -> None:
        """A request was answered; 0 if its connection was lost."""
        self.answers[status] += 1
        self.delays.append(delay)

    def polled(self, status: int, delay: float) -> None:
        """A poll was answered."""
        del delay
        self.polls += status == 200

    async def run(self, seconds: float) -> None:
        """Build the load up, then keep it up for so long."""
        schedule: list[tuple[float, int]] = []
        each = self._given.operations / self._given.processes
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number, program in enumerate(self._programs):
            due += each / WARM_UP
            await asyncio.sleep(max(0.0, due - loop.time()))
            program.begin(time.time())
            heapq.heappush(schedule, (time.time(), number))
            if number % 20 == 0:
                self._turn(schedule)
        await self._keep(schedule, time.time() + SETTLE)
        print(json.dumps(self._figures()), flush=True)
        self.events = self.metrics = self.bytes = self.polls = 0
        self.answers.clear()
        self.delays.clear()
        self.late = 0.0
        began = time.time()
        await self._keep(schedule, began + seconds)
        print(json.dumps({**self._figures(), "seconds": time.time() - began}), flush=True)

    async def _keep(self, schedule: list[tuple[float, int]], until: float) -> None:
        while time.time() < until:
            self._turn(schedule)
            await asyncio.sleep(0.005)

    def _turn(self, schedule: list[tuple[float, int]]) -> None:
        now = time.time()
        while schedule and schedule[0][0] <= now:
            at, number = heapq.heappop(schedule)
            self.late = max(self.late, now - at)
            program = self._programs[number]
            program.turn(time.time())
            heapq.heappush(schedule, (program.next_at, number))

    def _figures(self) -> dict[str, Any]:
        delays = sorted(self.delays) or [0.0]
        return {
            "events": self.events,
            "requests": sum(self.answers.values()),
            "metrics": self.metrics,
            "polls": self.polls,
            "bytes": self.bytes,
            "answers": dict(self.answers),
            "p50": delays[len(delays) // 2],
            "p99": delays[int(len(delays) * 0.99)],
            "late": self.late,
            "used": time.process_time(),
        }


def main() -> None:
    """Run a fleet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor.fleet", description="A fleet of programs.")
    parser.add_argument("host", metavar="HOST:PORT")
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--whole", action="store_true", help="every event carries the whole state")
    parser.add_argument("--live", action="store_true", help="every operation reports each second")
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--no-polls", action="store_true")
    parser.add_argument("--no-gzip", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    given = Given(
        told.operations, told.processes, told.whole, told.live, not told.no_metrics, not told.no_polls,
        not told.no_gzip, told.seed,
    )  # fmt: skip
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65_536, hard) if hard > 0 else 65_536, hard))
    try:
        import uvloop
    except ImportError:
        asyncio.run(Fleet(told.host, given).run(told.seconds))
    else:
        uvloop.run(Fleet(told.host, given).run(told.seconds))


if __name__ == "__main__":
    main()
