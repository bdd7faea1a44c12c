"""A model of runs and their processes: what each process says of them.

All times are in seconds of true time since the scenario began. Everything here is a pure function of the scenario.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from otel_progress import semconv as s
from otel_progress.model.loop import Loop
from otel_progress.model.snapshot import Branch, Snapshot, Wait
from otel_progress.model.status import Health, Status

EXPORT = 10
"""Seconds between two exports of the series, and between two scrapes."""
BEAT = 5
"""Seconds between two heartbeats of a process."""
RUN_SERIES_AFTER = 5
EPOCH = 1_000_000_000
"""The time of the snapshots' clock when the scenario begins; promtool's is 0."""
JOB = "work"

Labels = tuple[tuple[str, str], ...]
Span = tuple[float, float]
Pause = tuple[float, float, float | None]
"""A wait: its begin, its end, and its limit."""


def label(attribute: str) -> str:
    """Return the Prometheus label of an attribute."""
    return attribute.replace(".", "_")


def metric(of: s.Metric, counter: bool = False) -> str:
    """Return the Prometheus name of a metric."""
    ending = "_seconds" if of.unit == "s" else ""
    return label(of.name) + ending + ("_total" if counter else "")


def within(time: float, spans: Iterable[Span]) -> bool:
    """Return whether a moment lies in one of the spans."""
    return any(begin <= time < end for begin, end in spans)


@dataclass(frozen=True)
class Process:
    """A process: it exports while it lives and is not stopped."""

    instance: str = "a"
    job: str = JOB
    environment: str = ""
    """Its deployment environment, a label of the series of its runs."""
    born: float = 0
    gone: float = math.inf
    stopped: tuple[Span, ...] = ()
    cut: tuple[Span, ...] = ()
    """When none of its data arrives, though the Collector works."""
    ended: tuple[tuple[float, str], ...] = ()
    """Ends that only the counters show: time and status."""
    reset: float | None = None
    """When its counters restart at 0, under the same labels."""
    unseen: tuple[Span, ...] = ()
    """Runs without series of their own: each from its start to its end (or inf)."""
    proven: float = math.inf
    """When a runner outside reports that the process is gone."""
    exit: str = "killed by SIGKILL (out of memory)"
    counted_until: float = math.inf
    """Until when its metrics by name are sent."""
    ratio: tuple[tuple[float, float], ...] = ()
    """The highest idle / stall_after of its runs: the value, and from when on."""

    def speaks(self, time: float) -> bool:
        """Return whether it can send at this moment."""
        return self.born <= time < self.gone and not within(time, self.stopped)


@dataclass(frozen=True)
class Line:
    """One branch, judged by itself.

    It makes continuous progress in `moves` and rests between them; a wait is not idle time.
    """

    stage: str = "fetch"
    start: float = 0
    moves: tuple[Span, ...] = ((0, math.inf),)
    waits: tuple[Pause, ...] = ()
    loops: tuple[Span, ...] = ()
    stall_after: float | None = 60
    line: str = "worker.py:12 in fetch"
    end: float = math.inf

    def wait(self, time: float) -> tuple[float, float | None] | None:
        """Return the current wait: its duration so far, and its limit."""
        for begin, end, allowed in self.waits:
            if begin <= time < end:
                return time - begin, allowed
        return None

    def idle(self, time: float) -> float:
        """Return the time since the last progress or the end of the last wait; in a wait it stands still."""
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

    def state(self, time: float) -> str:
        """Return the true verdict: a word of `ORDER`."""
        if within(time, self.loops):
            return "looping"
        wait = self.wait(time)
        if wait:
            return "overdue" if wait[1] is not None and wait[0] >= wait[1] else "waiting"
        if self.stall_after is not None and self.idle(time) >= self.stall_after:
            return "silent"
        return "progressing"

    def branch(self, time: float) -> Branch:
        """Return the verdict that its process reports."""
        wait = self.wait(time)
        return Branch(
            self.stage,
            idle=self.idle(time),
            stall_after=self.stall_after,
            health=HEALTH[self.state(time)],
            wait=Wait("a reason", *wait) if wait else None,
            loop=LOOP if within(time, self.loops) else None,
        )


ORDER = ("waiting", "progressing", "slow", "overdue", "looping", "silent")
"""The verdicts of a branch or a run; the later ones are worse."""
HEALTH = {word: Health.WAITING if word == "overdue" else Health(word) for word in ORDER}
LOOP = Loop("step", ("a", "b"), 10, 5)


@dataclass(frozen=True)
class Run:
    """One attempt of an operation in a process.

    It is one branch, with the stage and the figures given here, or has several `branches`.
    """

    id: str = "r1"
    name: str = "load"
    process: Process = field(default_factory=Process)
    start: float = 0
    made: float | None = None
    end: float = math.inf
    flushed: bool = True
    """Whether the last 0 is sent."""
    moves: tuple[Span, ...] = ((0, math.inf),)
    waits: tuple[Pause, ...] = ()
    loops: tuple[Span, ...] = ()
    stall_after: float | None = 60
    slow_after: float | None = None
    start_within: float | None = None
    stage: str = "fetch"
    line: str = "worker.py:12 in fetch"
    attempt: int = 1
    parent: str | None = None
    """The id of the parent operation."""
    parent_name: str | None = "load"
    """Its name; None if the child knows only the id."""
    parent_job: str = JOB
    outcome: str = "completed"
    """The status with which it ends."""
    branches: tuple[Line, ...] = ()
    """Its branches, if there are several."""
    children: tuple[Run, ...] = ()
    """Child runs in the same process that it waits for. Without `branches` it does nothing else meanwhile."""
    _worst: dict[float, Line] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Results of `worst`, which each series asks for each time."""

    def lines(self, time: float) -> tuple[Line, ...]:
        """Return its own running branches; at least one runs."""
        if self.branches:
            return tuple(line for line in self.branches if line.start <= time < line.end)
        moves = (*self.moves, *((child.start, child.end) for child in self.children))
        return (Line(self.stage, self.start, moves, self.waits, self.loops, self.stall_after, self.line),)

    def worst(self, time: float) -> Line:
        """Return the branch that its series describe: the worst and, of several, the nearest to its limit."""

        def weight(line: Line) -> tuple[int, float]:
            near = line.idle(time) / line.stall_after if line.stall_after and not line.wait(time) else 0.0
            return ORDER.index(line.state(time)), near

        if time not in self._worst:
            self._worst[time] = max(self.lines(time), key=weight)
        return self._worst[time]

    def rests(self, time: float) -> float:
        """Return the idle time in its series: none while it waits."""
        worst = self.worst(time)
        return 0.0 if worst.wait(time) else worst.idle(time)

    def remaining(self, time: float) -> float | None:
        """Return the remaining time of the wait that is due first."""
        waits = [wait for line in self.lines(time) if (wait := line.wait(time)) and wait[1] is not None]
        return min((allowed - elapsed for elapsed, allowed in waits if allowed is not None), default=None)

    def here(self, time: float) -> list[Run]:
        """Return its running children in the same process."""
        return [child for child in self.children if child.start <= time < child.end]

    def state(self, time: float) -> str:
        """Return the verdict of its own process: that of the worst branch, including children in the process."""
        here = self.here(time)
        found = [child.state(time) for child in here]
        if self.branches or not here:
            found.append(self.worst(time).state(time))
        state = max(found, key=ORDER.index)
        late = self.slow_after is not None and time - self.start >= self.slow_after
        return "slow" if state == "progressing" and late else state

    def health(self, time: float) -> Health:
        """Return the same verdict as a label value."""
        return HEALTH[self.state(time)]

    def status(self, time: float) -> Status:
        """Return `pending`, `running` or `completed`."""
        if time < self.start:
            return Status.PENDING
        return Status.RUNNING if time < self.end else Status.COMPLETED

    def snapshot(self, time: float, skew: float = 0) -> Snapshot:
        """Return the snapshot of its process at this moment, by the process's own clock."""
        clock = EPOCH + time + skew
        status = self.status(time)
        if status is Status.PENDING:
            since = time - (self.made or 0)
            return Snapshot(self.id, self.name, status, clock, elapsed=since, start_within=self.start_within)
        here = self.here(time)
        branches = tuple(line.branch(time) for line in self.lines(time)) if self.branches or not here else ()
        branches += tuple(replace(child.worst(time).branch(time), child=child.id, path=None) for child in here)
        worst = self.worst(time).branch(time)
        waits = all(branch.wait is not None for branch in branches)
        return Snapshot(
            self.id,
            self.name,
            Status.WAITING if waits and not status.final else status,
            clock,
            self.attempt,
            parent_id=self.parent,
            elapsed=time - self.start,
            started_at=EPOCH + self.start + skew,
            idle=worst.idle,
            stall_after=worst.stall_after,
            slow_after=self.slow_after,
            health=self.health(time),
            wait=worst.wait,
            loop=worst.loop,
            branches=branches if len(branches) > 1 or here else (),
            sequence=int(time) + 1,
        )
