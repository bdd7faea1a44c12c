"""A model of the route from runs to Prometheus: what Prometheus stores, and what an observer hears.

Everything here is a pure function of the scenario; times are those of runs.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from otel_progress import semconv as s
from otel_progress.model.health import Hearing
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health
from otel_progress.telemetry.run_points import REPEAT
from otel_progress.telemetry.run_values import COLUMNS

from .runs import BEAT, EXPORT, RUN_SERIES_AFTER, Labels, Process, Run, Span, label, metric, within

STALE = "stale"
SELDOM = {metric(column.metric) for column in COLUMNS if column.seldom} | {metric(s.RUN_HEALTH), metric(s.RUN_PARENT)}
Point = float | str | None
Series = dict[tuple[str, Labels], list[Point]]


@dataclass(frozen=True)
class Way:
    """The route from the processes to Prometheus.

    `scraped` series get a stale marker as soon as they are missing; pushed ones just stop, and have the time of the
    process's clock. `kept` is how long the Collector keeps the last value of what it no longer receives.
    """

    scraped: bool = False
    kept: float = 0
    skew: float = 0
    """By how much the clocks of the processes are ahead."""
    down: tuple[Span, ...] = ()
    """When the Collector is down."""
    restarts: tuple[float, ...] = ()
    """When the Collector restarts between two scrapes, so that it never looks down."""
    vanishes: bool = False
    """Whether a Collector that is down has no `up` at all, as with service discovery."""
    blocked: tuple[Span, ...] = ()
    """When the Collector receives data, but cannot export it."""
    refused: tuple[Span, ...] = ()
    """When the Collector drops what it cannot export, and counts it."""
    overrun: tuple[Span, ...] = ()
    """When its queue is full, and most of its data is dropped and counted."""
    foreign: tuple[Span, ...] = ()
    """When the store refuses part of what the Collector sends, and what other applications sent."""
    door: tuple[Span, ...] = ()
    """When the Collector refuses all that comes."""
    pushes: tuple[Span, ...] = ()
    """When the Collector refuses part of what comes, which the senders send again."""
    resting: bool = False
    """Whether it receives nothing."""
    second: tuple[Span, ...] | None = None
    """When a second Collector is down; None without one. No run depends on it."""
    verdicts: bool = True
    """Whether the verdicts of the processes arrive."""
    watched: bool = True
    """Whether Prometheus scrapes the Collector's own metrics."""
    doubled: bool = False
    """Whether every series arrives a second time, with one more label."""
    doubled_until: float = math.inf
    """When the second route breaks."""

    def open(self, process: Process, time: float) -> bool:
        """Return whether what the process sends at this moment arrives."""
        return process.speaks(time) and self.clear(process, time)

    def clear(self, process: Process, time: float) -> bool:
        """Return whether what is sent for the process at this moment arrives, by itself or by a runner."""
        return not within(time, (*self.down, *self.blocked, *self.door, *process.cut))


@dataclass(frozen=True)
class World:
    """Runs and a route, over a time."""

    runs: tuple[Run, ...]
    way: Way = field(default_factory=Way)
    until: float = 1800
    alone: tuple[Process, ...] = ()
    """Processes without runs with series."""

    @property
    def grid(self) -> range:
        """Return the moments of the exports."""
        return range(0, int(self.until) + 1, EXPORT)

    @property
    def processes(self) -> tuple[Process, ...]:
        """Return each process once."""
        return tuple(dict.fromkeys((*(run.process for run in self.runs), *self.alone)))

    # -- what Prometheus stores

    def series(self) -> Series:
        """Return the samples of every series, one for each moment of the grid."""
        found: Series = {}
        for process in self.processes:
            sent: dict[tuple[str, Labels], dict[int, float]] = {}
            for time in self.grid:
                if self.way.open(process, time):
                    for name, labels, value in self._exported(process, time):
                        if not _has(sent.get((name, labels)), name, time, value):
                            sent.setdefault((name, labels), {})[time] = value
            for name, labels, time, value in self._proven(process):
                sent.setdefault((name, labels), {})[time] = value
            for key, values in sent.items():
                # A run may be resumed in the same process: its attempts share one series.
                found[key] = self._stored(values)
        if self.way.doubled:
            for (name, labels), points in list(found.items()):
                last = int(min(self.way.doubled_until, self.until)) // EXPORT
                found[name, (*labels, ("otel_scope_version", "2"))] = points[: last + 1]
        found.update(self._collectors())
        return found

    def _exported(self, process: Process, time: float) -> Iterator[tuple[str, Labels, float]]:
        who = (("job", process.job), ("instance", process.instance))
        names = {run.name for run in self.runs if run.process == process} or {"load"}
        for name in sorted(names) if time < process.counted_until else ():
            yield from self._by_name(process, name, who, time)
        newest: dict[tuple[str, Labels], float] = {}
        for run in self.runs:
            if run.process == process:
                labels = ((label(s.OPERATION_NAME), run.name), (label(s.OPERATION_ID), run.id), *who, *_where(process))
                newest.update(((of, more), value) for of, more, value in self._of_run(run, labels, time))
        for (of, more), value in newest.items():
            yield of, more, value

    def _proven(self, process: Process) -> Iterator[tuple[str, Labels, int, float]]:
        """Return what a runner sends once for the runs of a process that is gone."""
        time = next((at for at in self.grid if at >= process.proven and self.way.clear(process, at)), None)
        if time is None:
            return
        for run in self.runs:
            if run.process == process and run.start <= process.gone < run.end:
                labels = (
                    (label(s.OPERATION_NAME), run.name),
                    (label(s.OPERATION_ID), run.id),
                    ("job", process.job),
                    ("instance", process.instance),
                    *_where(process),
                )
                of = labels if run.parent is None else (*labels, (label(s.OPERATION_PARENT_ID), run.parent))
                yield metric(s.RUN_ACTIVE), of, time, 0
                yield metric(s.RUN_LOST), (*labels, (label(s.EXIT), process.exit)), time, process.proven
                yield metric(s.ACTIVE), (labels[0], *labels[2:4]), time, 0

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
        running = [(run.rests(time), run.worst(time).stall_after) for run in mine if run.start <= time < run.end]
        ratios = [idle / limit for idle, limit in running if limit]
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
        of = labels if run.parent is None else (*labels, (label(s.OPERATION_PARENT_ID), run.parent))
        end = (*labels, (label(s.STATUS), run.outcome))
        if time >= run.end:
            # The last point waits until it is delivered; then there are no more.
            first = next((at for at in self.grid if at >= run.end and self.way.open(run.process, at)), None)
            if run.flushed and time == first:
                yield metric(s.RUN_ACTIVE), of, 0
                yield metric(s.RUN_ENDED), end, run.end
            return
        yield metric(s.RUN_ACTIVE), of, 1
        if run.parent_name is not None and run.parent is not None:
            named = (
                (label(s.OPERATION_PARENT_NAME), run.parent_name),
                (label(s.OPERATION_PARENT_SERVICE), run.parent_job),
            )
            yield metric(s.RUN_PARENT), (*of, *named), 1
        yield metric(s.RUN_START_TIME), labels, run.start + self.way.skew
        yield metric(s.RUN_IDLE), labels, run.rests(time)
        limits = [run.worst(at).stall_after for at in range(math.ceil(run.start), int(time) + 1, EXPORT)]
        if any(limit is not None for limit in limits):
            yield metric(s.RUN_STALL_AFTER), labels, math.inf if limits[-1] is None else limits[-1]
        if run.slow_after is not None:
            yield metric(s.RUN_SLOW_AFTER), labels, run.slow_after
        waits = [wait for line in run.branches or (run,) for wait in line.waits]
        if any(begin <= time and allowed is not None for begin, _, allowed in waits):
            yield metric(s.RUN_WAIT_REMAINING), labels, run.remaining(time) or 0
        if self.way.verdicts:
            yield from self._health_of(run, labels, time)

    def _health_of(self, run: Run, labels: Labels, time: float) -> Iterator[tuple[str, Labels, float]]:
        def shown(at: float) -> Labels:
            health, worst = run.health(at), run.worst(at)
            line: Labels = ((label(s.STUCK_AT), worst.line),) if health in (Health.SILENT, Health.LOOPING) else ()
            if health is Health.LOOPING:
                line = (*line, (label(s.LOOP), "read → search"))
            return (*labels, (label(s.HEALTH), health.value), (label(s.STAGE_NAME), worst.stage), *line)

        now = shown(time)
        before = (shown(at) for at in range(int(time) - EXPORT, int(run.start), -EXPORT))
        other = next((was for was in before if was != now), None)
        yield metric(s.RUN_HEALTH), now, 1
        if other is not None:
            yield metric(s.RUN_HEALTH), other, 0
        for line in run.branches:  # a loop beside a hang
            if any(begin <= time for begin, _ in line.loops):
                beside: Labels = (*labels, (label(s.HEALTH), "looping"), (label(s.STAGE_NAME), line.stage))
                beside = (*beside, (label(s.STUCK_AT), line.line), (label(s.LOOP), "read → search"))
                if beside != now:
                    there = run.health(time) is Health.SILENT and line.state(time) == "looping"
                    yield metric(s.RUN_HEALTH), beside, float(there)

    def _stored(self, sent: Mapping[int, float]) -> list[Point]:
        way = self.way
        points: list[Point] = [None] * len(self.grid)
        if not way.scraped:
            for time, value in sent.items():
                # A clock that is behind sends times in the past; see `promtool.rules_for`.
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
            kinds = (
                "receiver_accepted",
                "receiver_refused",
                "exporter_sent",
                "exporter_send_failed",
                "exporter_enqueue_failed",
            )
            lists: dict[str, list[Point]] = {kind: [] for kind in kinds}
            taken = turned = sent = failed = dropped = 0.0
            ups: list[Point] = []
            began = -3600.0
            for at in self.grid:
                began = max(
                    began, *(end for _, end in down if end <= at), *(it for it in way.restarts if it <= at), began
                )
                ups.append(STALE if within(at, down) else at - began)
                if within(at, down):
                    for points in lists.values():
                        points.append(STALE)
                    taken = turned = sent = failed = dropped = 0.0
                    continue
                if way.resting:  # but for a point that the store refuses
                    taken, failed = taken + within(at, way.foreign), failed + within(at, way.foreign)
                    for points, value in zip(lists.values(), (taken, 0, 0, failed, 0), strict=True):
                        points.append(value)
                    continue
                closed = within(at, way.door)
                taken += 50 * (not closed)
                turned += 50 * closed + 20 * within(at, way.pushes)
                dropped += 40 * within(at, way.overrun)
                failed += 50 * within(at, way.refused) + 20 * within(at, way.foreign)
                full = within(at, way.overrun)
                sent += (10 if full else 50) * (not within(at, (*way.blocked, *way.refused, *way.door)))
                for points, value in zip(lists.values(), (taken, turned, sent, failed, dropped), strict=True):
                    points.append(value)
            found["otelcol_process_uptime_seconds_total", labels] = ups
            for kind, points in lists.items():
                side = ("receiver", "otlp") if kind.startswith("receiver") else ("exporter", "prometheus")
                found[f"otelcol_{kind}_metric_points_total", (*labels, side)] = points
        return found

    # -- what an observer hears

    def heard(self, key: str, time: float) -> tuple[Snapshot, float, Hearing] | None:
        """Return the last snapshot of the newest attempt that arrived, when it arrived, and what is heard."""
        snapshots = [found for run in self.runs if run.id == key if (found := self._last_of(run, time))]
        if not snapshots:
            return None
        at, run = max(snapshots, key=lambda item: (item[1].attempt, item[0]))
        last = self._last_beat(run.process, time)
        hearing = Hearing(time - max(at, last), BEAT, self._watching(time))
        return run.snapshot(at, self.way.skew), at, hearing

    def _last_of(self, run: Run, time: float) -> tuple[float, Run] | None:
        """Return when it last reported its state: at its begin and at each heartbeat; after its end only if flushed."""
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
        blind = (*self.way.down, *self.way.blocked, *self.way.door)
        if within(time, blind):
            return 0.0
        return time - max((end for _, end in blind if end <= time), default=-math.inf)


def _has(sent: Mapping[int, float] | None, name: str, time: float, value: float) -> bool:
    """Return whether the receiver has this value already: some are sent when they change, and once a minute."""
    if not sent or name not in SELDOM:
        return False
    last = max(sent)
    return sent[last] == value and time - last < REPEAT


def _where(process: Process) -> Labels:
    """Return the label of its environment, which only the series of runs have on every route."""
    return ((label(s.ENVIRONMENT), process.environment),) if process.environment else ()
