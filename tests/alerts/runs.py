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
"""From one export of the series to the next, and from one scrape to the next."""
BEAT = 5
"""From one heartbeat of a process to the next."""
RUN_SERIES_AFTER = 5
EPOCH = 1_000_000_000
"""Where the snapshots' clock stands when the scenario begins; promtool's stands at 0."""
JOB = "work"

Labels = tuple[tuple[str, str], ...]
Span = tuple[float, float]
Pause = tuple[float, float, float | None]
"""A wait: its begin, its end, and how long it may last."""


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
class Line:
    """One line of work, judged by itself.

    It moves without a pause in `moves` and rests between them; the time of a wait is not idle.
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

    def state(self, time: float) -> str:
        """What is true of it: a word of `ORDER`."""
        if within(time, self.loops):
            return "looping"
        wait = self.wait(time)
        if wait:
            return "overdue" if wait[1] is not None and wait[0] >= wait[1] else "waiting"
        if self.stall_after is not None and self.idle(time) >= self.stall_after:
            return "silent"
        return "progressing"

    def branch(self, time: float) -> Branch:
        """The same as its process says it."""
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
"""What is true of a line or a run: the later, the worse."""
HEALTH = {word: Health.WAITING if word == "overdue" else Health(word) for word in ORDER}
LOOP = Loop("step", ("a", "b"), 10, 5)


@dataclass(frozen=True)
class Run:
    """One attempt of an operation in a process.

    It is one line of work, with the stage and the figures named here, or has several `branches`.
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
    waits: tuple[Pause, ...] = ()
    loops: tuple[Span, ...] = ()
    stall_after: float | None = 60
    slow_after: float | None = None
    start_within: float | None = None
    stage: str = "fetch"
    line: str = "worker.py:12 in fetch"
    attempt: int = 1
    parent: str | None = None
    """The id of the operation that it is part of."""
    branches: tuple[Line, ...] = ()
    """Its lines of work, where there are several."""
    children: tuple[Run, ...] = ()
    """Runs in the same process that it waits for; without `branches`, it does nothing else meanwhile."""

    def lines(self, time: float) -> tuple[Line, ...]:
        """Its own lines of work that run; at least one does."""
        if self.branches:
            return tuple(line for line in self.branches if line.start <= time < line.end)
        moves = (*self.moves, *((child.start, child.end) for child in self.children))
        return (Line(self.stage, self.start, moves, self.waits, self.loops, self.stall_after, self.line),)

    def worst(self, time: float) -> Line:
        """The line that speaks for it: the worst, and of several the nearest to its limit."""

        def weight(line: Line) -> tuple[int, float]:
            near = line.idle(time) / line.stall_after if line.stall_after and not line.wait(time) else 0.0
            return ORDER.index(line.state(time)), near

        return max(self.lines(time), key=weight)

    def rests(self, time: float) -> float:
        """The idle time as its series tells it: none while it waits."""
        worst = self.worst(time)
        return 0.0 if worst.wait(time) else worst.idle(time)

    def remaining(self, time: float) -> float | None:
        """The time that is left of the wait that is due first."""
        waits = [wait for line in self.lines(time) if (wait := line.wait(time)) and wait[1] is not None]
        return min((allowed - elapsed for elapsed, allowed in waits if allowed is not None), default=None)

    def here(self, time: float) -> list[Run]:
        """Its children in the same process that run."""
        return [child for child in self.children if child.start <= time < child.end]

    def state(self, time: float) -> str:
        """What its own process says: that of the worst branch, children in the process included."""
        here = self.here(time)
        found = [child.state(time) for child in here]
        if self.branches or not here:
            found.append(self.worst(time).state(time))
        state = max(found, key=ORDER.index)
        late = self.slow_after is not None and time - self.start >= self.slow_after
        return "slow" if state == "progressing" and late else state

    def health(self, time: float) -> Health:
        """The same as the label shows it."""
        return HEALTH[self.state(time)]

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
