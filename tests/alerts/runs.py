"""A model of runs, their processes and the way to Prometheus: what Prometheus stores, and what an observer hears.

All times are in seconds of true time since the scenario began. Everything here is a pure function of the scenario.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from otel_progress import semconv as s
from otel_progress.model.health import Hearing
from otel_progress.model.loop import Loop
from otel_progress.model.snapshot import Snapshot, Wait
from otel_progress.model.status import Health, Status

EXPORT = 10
"""From one export of the series to the next, and from one scrape to the next."""
BEAT = 5
"""From one heartbeat of a process to the next."""
RUN_SERIES_AFTER = 5
EPOCH = 1_000_000_000
"""Where the snapshots' clock stands when the scenario begins; promtool's stands at 0."""
JOB = "work"

STALE = "stale"
Point = float | str | None
Labels = tuple[tuple[str, str], ...]
Span = tuple[float, float]
Series = dict[tuple[str, Labels], list[Point]]


def label(attribute: str) -> str:
    """An attribute's name as Prometheus shows it."""
    return attribute.replace(".", "_")


def metric(of: s.Metric, counter: bool = False) -> str:
    """A metric's name as Prometheus shows it."""
    ending = "_seconds" if of.unit == "s" else ""
    return label(of.name) + ending + ("_total" if counter else "")


def within(time: float, spans: Iterable[Span]) -> bool:
    """Whether a moment lies in one of the spans."""
    return any(begin <= time < end for begin, end in spans)


@dataclass(frozen=True)
class Process:
    """A process: it exports while it lives and is not stopped."""

    instance: str = "a"
    born: float = 0
    gone: float = math.inf
    stopped: tuple[Span, ...] = ()
    cut: tuple[Span, ...] = ()
    """When nothing of it arrives, though the Collector works."""
    ended: tuple[tuple[float, str], ...] = ()
    """Ends that only the counters know: when, and with which status."""
    reset: float | None = None
    """When its counters begin again at 0, under the same labels."""
    unseen: tuple[Span, ...] = ()
    """Runs without series of their own: each from its start to its end (or inf)."""
    ratio: tuple[tuple[float, float], ...] = ()
    """The worst idle / stall_after of its runs: what it is, from when on."""

    def speaks(self, time: float) -> bool:
        """Whether it can send at this moment."""
        return self.born <= time < self.gone and not within(time, self.stopped)


@dataclass(frozen=True)
class Run:
    """One attempt of an operation in a process.

    It moves without a pause in `moves` and rests between them; the time of a wait is not idle.
    """

    id: str = "r1"
    name: str = "load"
    process: Process = field(default_factory=Process)
    start: float = 0
    made: float | None = None
    end: float = math.inf
    flushed: bool = True
    """Whether the last 0 leaves the process."""
    moves: tuple[Span, ...] = ((0, math.inf),)
    waits: tuple[tuple[float, float, float | None], ...] = ()
    loops: tuple[Span, ...] = ()
    stall_after: float | None = 60
    slow_after: float | None = None
    start_within: float | None = None
    stage: str = "fetch"
    line: str = "worker.py:12 in fetch"
    attempt: int = 1

    def wait(self, time: float) -> tuple[float, float | None] | None:
        """The wait that is on: for how long already, and what is allowed."""
        for begin, end, allowed in self.waits:
            if begin <= time < end:
                return time - begin, allowed
        return None

    def idle(self, time: float) -> float:
        """Since the last movement, or the end of the last wait; in a wait it stands still."""
        wait = self.wait(time)
        at = time - wait[0] if wait else time
        last = self.start
        for begin, end in self.moves:
            if begin <= at:
                last = max(last, min(end, at))
        for _, end, _ in self.waits:
            if end <= at:
                last = max(last, end)
        return at - last

    def rests(self, time: float) -> float:
        """The idle time as its series tells it: none while it waits."""
        return 0.0 if self.wait(time) else self.idle(time)

    def health(self, time: float) -> Health:
        """What its own process says."""
        if self.wait(time):
            return Health.WAITING
        if within(time, self.loops):
            return Health.LOOPING
        if self.stall_after is not None and self.idle(time) >= self.stall_after:
            return Health.SILENT
        if self.slow_after is not None and time - self.start >= self.slow_after:
            return Health.SLOW
        return Health.PROGRESSING

    def status(self, time: float) -> Status:
        """Pending, running, or completed."""
        if time < self.start:
            return Status.PENDING
        return Status.RUNNING if time < self.end else Status.COMPLETED

    def snapshot(self, time: float, skew: float = 0) -> Snapshot:
        """What its process says of it at this moment, by its own clock."""
        clock = EPOCH + time + skew
        status = self.status(time)
        if status is Status.PENDING:
            since = time - (self.made or 0)
            return Snapshot(self.id, self.name, status, clock, elapsed=since, start_within=self.start_within)
        wait = self.wait(time)
        loop = Loop("step", ("a", "b"), 10, 5) if within(time, self.loops) else None
        return Snapshot(
            self.id,
            self.name,
            Status.WAITING if wait and not status.final else status,
            clock,
            self.attempt,
            elapsed=time - self.start,
            started_at=EPOCH + self.start + skew,
            idle=self.idle(time),
            stall_after=self.stall_after,
            slow_after=self.slow_after,
            health=self.health(time),
            wait=Wait("a reason", *wait) if wait else None,
            loop=loop,
        )


@dataclass(frozen=True)
class Way:
    """The way from the processes to Prometheus.

    `scraped` series get a stale marker as soon as they are not there; pushed ones just stop, and bear the time of the
    process's clock. `kept` is for how long the Collector goes on showing the last value of what it no longer receives.
    """

    scraped: bool = False
    kept: float = 0
    skew: float = 0
    """What the clocks of the processes show beyond the true time."""
    down: tuple[Span, ...] = ()
    """When the Collector is down."""
    vanishes: bool = False
    """Whether a Collector that is down has no `up` at all, as where targets are discovered."""
    blocked: tuple[Span, ...] = ()
    """When the Collector takes data, but can't pass it on."""
    refused: tuple[Span, ...] = ()
    """When the Collector drops what it can't pass on, and counts that."""
    overrun: tuple[Span, ...] = ()
    """When its queue is full, and part of what it takes is dropped and counted."""
    resting: bool = False
    """Whether it takes nothing."""
    second: tuple[Span, ...] | None = None
    """When a second Collector is down; None where there is only one. No run depends on it."""
    watched: bool = True
    """Whether Prometheus scrapes the Collector's own figures."""
    doubled: bool = False
    """Whether every series comes a second time, with one more label."""
    doubled_until: float = math.inf
    """When the second way breaks."""

    def open(self, process: Process, time: float) -> bool:
        """Whether what the process sends at this moment arrives."""
        closed = (*self.down, *self.blocked, *process.cut)
        return process.speaks(time) and not within(time, closed)


@dataclass(frozen=True)
class World:
    """Runs and a way, over a time."""

    runs: tuple[Run, ...]
    way: Way = field(default_factory=Way)
    until: float = 1800
    alone: tuple[Process, ...] = ()
    """Processes without a run that has series."""

    @property
    def grid(self) -> range:
        """The moments of the exports."""
        return range(0, int(self.until) + 1, EXPORT)

    @property
    def processes(self) -> tuple[Process, ...]:
        """Each process once."""
        return tuple(dict.fromkeys((*(run.process for run in self.runs), *self.alone)))

    # -- what Prometheus stores

    def series(self) -> Series:
        """The samples of every series, one for each moment of the grid."""
        found: Series = {}
        for process in self.processes:
            sent: dict[tuple[str, Labels], dict[int, float]] = {}
            for time in self.grid:
                if self.way.open(process, time):
                    for name, labels, value in self._exported(process, time):
                        sent.setdefault((name, labels), {})[time] = value
            for key, values in sent.items():
                # The same run may come again in the same process: its attempts make one series.
                found[key] = self._stored(values)
        if self.way.doubled:
            for (name, labels), points in list(found.items()):
                last = int(min(self.way.doubled_until, self.until)) // EXPORT
                found[name, (*labels, ("otel_scope_version", "2"))] = points[: last + 1]
        found.update(self._collectors())
        return found

    def _exported(self, process: Process, time: float) -> Iterator[tuple[str, Labels, float]]:
        who = (("job", JOB), ("instance", process.instance))
        names = {run.name for run in self.runs if run.process == process} or {"load"}
        for name in sorted(names):
            yield from self._by_name(process, name, who, time)
        newest: dict[tuple[str, Labels], float] = {}
        for run in self.runs:
            if run.process == process:
                labels = ((label(s.OPERATION_NAME), run.name), (label(s.OPERATION_ID), run.id), *who)
                newest.update(((of, more), value) for of, more, value in self._of_run(run, labels, time))
        for (of, more), value in newest.items():
            yield of, more, value

    def _by_name(self, process: Process, name: str, who: Labels, time: float) -> Iterator[tuple[str, Labels, float]]:
        labels = ((label(s.OPERATION_NAME), name), *who)
        mine = [run for run in self.runs if run.process == process and run.name == name]
        active = sum(run.start <= time < run.end for run in mine) + sum(
            begin <= time < end for begin, end in process.unseen
        )
        yield metric(s.ACTIVE), labels, active
        since = process.reset if process.reset is not None and process.reset <= time else -1.0
        for status in ("completed", "failed", "cancelled"):
            count = sum(said == status and since < at <= time for at, said in process.ended)
            yield metric(s.ENDED, counter=True), (*labels, (label(s.STATUS), status)), count
        ratios = [run.rests(time) / run.stall_after for run in mine if run.stall_after and run.start <= time < run.end]
        ratios += [ratio for at, ratio in process.ratio if at <= time][-1:]
        if ratios:
            yield metric(s.STALL_RATIO), labels, max(ratios)

    def _of_run(self, run: Run, labels: Labels, time: float) -> Iterator[tuple[str, Labels, float]]:
        if run.made is not None and run.start_within is not None:
            if run.made <= time < run.start:
                yield metric(s.RUN_PENDING), labels, time - run.made
                yield metric(s.RUN_START_WITHIN), labels, run.start_within
            elif run.start <= time < run.start + EXPORT:
                yield metric(s.RUN_PENDING), labels, 0
        if time < run.start + RUN_SERIES_AFTER:
            return
        if time >= run.end:
            # The last point waits until it is taken; then there is none.
            first = next((at for at in self.grid if at >= run.end and self.way.open(run.process, at)), None)
            if run.flushed and time == first:
                yield metric(s.RUN_ACTIVE), labels, 0
            return
        yield metric(s.RUN_ACTIVE), labels, 1
        yield metric(s.RUN_START_TIME), labels, run.start + self.way.skew
        yield metric(s.RUN_IDLE), labels, run.rests(time)
        if run.stall_after is not None:
            yield metric(s.RUN_STALL_AFTER), labels, run.stall_after
        if run.slow_after is not None:
            yield metric(s.RUN_SLOW_AFTER), labels, run.slow_after
        if any(begin <= time and allowed is not None for begin, _, allowed in run.waits):
            wait = run.wait(time)
            yield metric(s.RUN_WAIT_REMAINING), labels, wait[1] - wait[0] if wait and wait[1] is not None else 0
        yield from self._health_of(run, labels, time)

    def _health_of(self, run: Run, labels: Labels, time: float) -> Iterator[tuple[str, Labels, float]]:
        def shown(at: float) -> Labels:
            health = run.health(at)
            line = ((label(s.STUCK_AT), run.line),) if health in (Health.SILENT, Health.LOOPING) else ()
            return (*labels, (label(s.HEALTH), health.value), (label(s.STAGE_NAME), run.stage), *line)

        now = shown(time)
        before = (shown(at) for at in range(int(time) - EXPORT, int(run.start), -EXPORT))
        other = next((was for was in before if was != now), None)
        yield metric(s.RUN_HEALTH), now, 1
        if other is not None:
            yield metric(s.RUN_HEALTH), other, 0

    def _stored(self, sent: Mapping[int, float]) -> list[Point]:
        way = self.way
        points: list[Point] = [None] * len(self.grid)
        if not way.scraped:
            for time, value in sent.items():
                # What a clock that is behind sends comes with a time that is past; see `promtool.rules_for`.
                place = int(time + max(way.skew, 0)) // EXPORT
                if 0 <= place < len(points):
                    points[place] = value
            return points
        last: tuple[int, float] | None = None
        there = False
        for place, time in enumerate(self.grid):
            if within(time, way.down):
                last = None
            elif time in sent:
                last = time, sent[time]
            elif last is not None and time - last[0] > way.kept:
                last = None
            if last is not None:
                points[place] = last[1]
            elif there:
                points[place] = STALE
            there = last is not None
        return points

    def _collectors(self) -> Series:
        way = self.way
        if not way.watched:
            return {}
        found: Series = {}
        downs = [way.down] if way.second is None else [way.down, way.second]
        for number, down in enumerate(downs):
            labels = (("job", "otel-collector"), ("instance", f"c{number}"))
            gone: Point = STALE if way.vanishes else 0.0
            found["up", labels] = [gone if within(at, down) else 1.0 for at in self.grid]
            kinds = ("receiver_accepted", "exporter_sent", "exporter_send_failed", "exporter_enqueue_failed")
            lists: dict[str, list[Point]] = {kind: [] for kind in kinds}
            taken = sent = failed = dropped = 0.0
            for at in self.grid:
                if within(at, down):
                    for points in lists.values():
                        points.append(STALE)
                    taken = sent = failed = dropped = 0.0
                    continue
                if way.resting:
                    for points in lists.values():
                        points.append(0)
                    continue
                taken += 50
                dropped += 5 * within(at, way.overrun)
                failed += 50 * within(at, way.refused)
                sent += 50 * (not within(at, (*way.blocked, *way.refused)))
                for points, value in zip(lists.values(), (taken, sent, failed, dropped), strict=True):
                    points.append(value)
            for kind, points in lists.items():
                side = ("receiver", "otlp") if kind.startswith("receiver") else ("exporter", "prometheus")
                found[f"otelcol_{kind}_metric_points_total", (*labels, side)] = points
        return found

    # -- what an observer hears

    def heard(self, key: str, time: float) -> tuple[Snapshot, float, Hearing] | None:
        """The last snapshot of an operation that came in, by its newest attempt, when that was, and what is heard."""
        snapshots = [found for run in self.runs if run.id == key if (found := self._last_of(run, time))]
        if not snapshots:
            return None
        at, run = max(snapshots, key=lambda item: (item[1].attempt, item[0]))
        last = self._last_beat(run.process, time)
        hearing = Hearing(time - max(at, last), BEAT, self._watching(time))
        return run.snapshot(at, self.way.skew), at, hearing

    def _last_of(self, run: Run, time: float) -> tuple[float, Run] | None:
        """The last moment at which it said how it is: with each beat, and at its begin; after its end not unless flushed."""
        begin = run.made if run.made is not None else run.start
        last = time if run.flushed else min(time, run.end - 1)
        beats = range(math.ceil(begin / BEAT) * BEAT, int(last) + 1, BEAT)
        found = next((float(at) for at in reversed(beats) if self.way.open(run.process, at)), None)
        if found is None and begin <= time and self.way.open(run.process, begin):
            found = begin
        return (found, run) if found is not None else None

    def _last_beat(self, process: Process, time: float) -> float:
        beats = range(0, int(time) + 1, BEAT)
        return next((float(at) for at in reversed(beats) if self.way.open(process, at)), -math.inf)

    def _watching(self, time: float) -> float:
        blind = (*self.way.down, *self.way.blocked)
        if within(time, blind):
            return 0.0
        return time - max((end for _, end in blind if end <= time), default=-math.inf)
