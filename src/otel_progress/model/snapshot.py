"""Everything that is known of one operation at one moment, as immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from otel_progress import semconv
from otel_progress.model.estimate import Estimate
from otel_progress.model.loop import Loop
from otel_progress.model.repeats import StageRuns
from otel_progress.model.status import Health, Status
from otel_progress.model.values import EMPTY, Attributes, Number


def _empty() -> Attributes:
    """The one empty value; Python 3.10 refuses it as a default of a dataclass, as it is a dict."""
    return EMPTY


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        completed: units done, or None where nothing was counted.
        total: units in all, or None where that is not known.
        unit: what is counted.
        ratio: from 0 to 1, as it is shown: it never falls within an attempt, and is 1 only at the end.
        ratio_raw: from 0 to 1, as it follows from the counts; ETA and health use this one.
        rate: units a second, lately.
        eta: when it will be done, or None before there is anything to estimate from.
    """

    completed: Number | None = None
    total: Number | None = None
    unit: str = "item"
    ratio: float | None = None
    ratio_raw: float | None = None
    rate: float | None = None
    eta: Estimate | None = None

    @property
    def percentage(self) -> float | None:
        """The ratio as a percentage with two digits; 100 only where the ratio is 1."""
        if self.ratio is None:
            return None
        return round(self.ratio * 100, 2) if self.ratio >= 1 else min(round(self.ratio * 100, 2), 99.99)


@dataclass(frozen=True)
class Wait:
    """A declared pause: why, for how long already, and when it is overdue (seconds)."""

    reason: str
    elapsed: float
    overdue_after: float | None = None


@dataclass(frozen=True)
class Note:
    """A line of the activity feed; `timestamp` is in seconds since 1970.

    A note with the status `running` (or `started`, `in progress`) tells of an activity that goes on. A later note of
    the same text in the same stage takes its place, and has its `started_at` (seconds since 1970).
    """

    timestamp: float
    text: str
    status: str | None = None
    stage: str | None = None
    attributes: Attributes = field(default_factory=_empty)
    started_at: float | None = None


@dataclass(frozen=True)
class Branch:
    """One line of work inside an operation, judged by itself; times in seconds.

    Attributes:
        path: the path of the stage that it is or runs in; None for the operation itself.
        lane: the thread or task of its `track` loop, where one stage has several.
        child: the id of the child operation that it waits for, and `child_name` its name.
        idle: since it last made progress; of a child, since that one did.
        stall_after: the idle time that is allowed, or None.
        stall_after_source: where the limit comes from; None where it was named.
        health: what its process says of it, with hysteresis; of a child, that child's health.
        reason: of a child that is in trouble, the evidence.
        wait: the declared wait that stops its clock.
        loop: what it repeats without progress.
        stuck_at: the line of code at which it is stuck.
    """

    path: str | None = None
    lane: str | None = None
    child: str | None = None
    child_name: str | None = None
    idle: float = 0.0
    stall_after: float | None = None
    stall_after_source: str | None = None
    health: Health = Health.PROGRESSING
    reason: str | None = None
    wait: Wait | None = None
    loop: Loop | None = None
    stuck_at: str | None = None

    @property
    def label(self) -> str:
        """What people call it: the path of its stage, its thread or task, its child."""
        where = self.path or ""
        if self.lane is not None:
            return f"{where} in {self.lane}" if where else self.lane
        if self.child is not None:
            name = f"child {self.child_name or self.child}"
            return f"{where}, {name}" if where else name
        return where or "the operation itself"

    def later(self, seconds: float) -> Branch:
        """The same branch `seconds` later, if nothing was heard of it since."""
        if self.wait is not None:
            return replace(self, wait=replace(self.wait, elapsed=self.wait.elapsed + seconds))
        return replace(self, idle=self.idle + seconds)


@dataclass(frozen=True)
class StageSnapshot:
    """One stage at one moment; times in seconds, `started_at` since 1970.

    `path` is its name and those of the stages around it, joined by `/`. `planned` tells whether the
    plan named it; a planned stage that did not run yet is pending, and has no `started_at`.
    """

    name: str
    path: str
    status: Status
    progress: Progress = field(default_factory=Progress)
    planned: bool = False
    weight: float | None = None
    expected: float | None = None
    started_at: float | None = None
    elapsed: float = 0.0
    idle: float = 0.0
    stall_after: float | None = None
    description: str | None = None
    message: str | None = None
    reason: str | None = None
    critical: bool = True
    depends_on: tuple[str, ...] = ()
    wait: Wait | None = None
    outcomes: Attributes = field(default_factory=_empty)
    counters: Attributes = field(default_factory=_empty)
    attributes: Attributes = field(default_factory=_empty)
    span_id: str | None = None
    """Of a stage that runs: what a watcher needs to close it."""


@dataclass(frozen=True)
class SpanIds:
    """What a watcher needs to close the trace of a process that is gone: ids in hex, and times in ns."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    parent_remote: bool = False
    sampled: bool = True
    start_time: int = 0
    kind: str = "internal"


@dataclass(frozen=True)
class Snapshot:
    """Everything that is known of one operation at one moment.

    Times are in seconds; `started_at` and `timestamp` since 1970. `elapsed` and `idle` come from the
    monotonic clock. `stages` has at most 64 stages: all that run, then the newest, failed ones before others; the
    rest are only counts and seconds by status, in `folded`. `repeated` has the count and the durations of each stage
    that ended more than once, whether its runs are told one by one or not.

    `stall_after` and `slow_after` are the limits that count, and their source says where they come from where nobody
    named them. While it is silent or looping, `stuck_at` is the line of the user's code, and `stack` the way to it.

    `branches` holds the lines of work that run side by side, at most 16, the worst first; it is empty where there is
    only one. While one of them is in trouble, `stage`, `idle`, `stall_after`, `wait` and `stuck_at` are those of the
    worst. `overdue` tells that a declared wait is past its own limit.
    """

    operation_id: str
    name: str
    status: Status
    timestamp: float
    attempt: int = 1
    parent_id: str | None = None
    sequence: int = 0
    health: Health = Health.PROGRESSING
    health_reason: str | None = None
    reason: str | None = None
    started_at: float | None = None
    elapsed: float = 0.0
    idle: float = 0.0
    stall_after: float | None = None
    stall_after_source: str | None = None
    slow_after: float | None = None
    slow_after_source: str | None = None
    start_within: float | None = None
    loop: Loop | None = None
    stuck_at: str | None = None
    stack: str | None = None
    stage: str | None = None
    message: str | None = None
    description: str | None = None
    agent: str | None = None
    progress: Progress = field(default_factory=Progress)
    stages: tuple[StageSnapshot, ...] = ()
    folded: tuple[tuple[str, int, float], ...] = ()
    wait: Wait | None = None
    overdue: bool = False
    branches: tuple[Branch, ...] = ()
    outcomes: Attributes = field(default_factory=_empty)
    counters: Attributes = field(default_factory=_empty)
    usage: Attributes = field(default_factory=_empty)
    result: Attributes = field(default_factory=_empty)
    attributes: Attributes = field(default_factory=_empty)
    notes: tuple[Note, ...] = ()
    heartbeat_at: float | None = None
    cancel_requested: bool = False
    span: SpanIds | None = None
    repeated: tuple[StageRuns, ...] = ()

    def at(self, now: float) -> Snapshot:
        """The same operation at `now` (seconds since 1970), if nothing was heard of it since."""
        later = max(0.0, now - self.timestamp)
        if self.status.final or not later:
            return self
        wait = self.wait and replace(self.wait, elapsed=self.wait.elapsed + later)
        idle = self.idle if wait else self.idle + later
        elapsed = self.elapsed + later
        branches = tuple(branch.later(later) for branch in self.branches)
        return replace(self, timestamp=now, elapsed=elapsed, idle=idle, wait=wait, branches=branches)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: only dicts, lists, texts, numbers, booleans and None; the monitor's API uses the same keys.

        Beside the fields of the snapshot: `percentage`, `current_step`, `eta` (`seconds`, `low`, `high`, `source`) and
        `verdict` (`health`, `reason` and the evidence; None where it is over); `current_stage`, `total_stages`,
        `stages_completed`, `failed_stage`, `stage_history`, `average_stage_duration`, `elapsed_time`,
        `estimated_completion`, `updated_at`; see `docs/guide.md`. The keys `progress_percentage`, `metadata`,
        `timestamp`, `health`, `health_reason` and `progress.eta.eta` are deprecated: the next version leaves them out.
        """
        from otel_progress.model.keys import of_snapshot

        return of_snapshot(self)


@dataclass(frozen=True)
class Event:
    """Something that happened to an operation, and the operation as it was right after.

    `name` is one of `semconv.EVENTS`, `timestamp` is in ns since 1970. `sequence` rises with each event of an
    operation; events that happened close together share a snapshot, which is as new as the last of them.
    """

    name: str
    timestamp: int
    snapshot: Snapshot
    sequence: int = 0
    stage: str | None = None
    attributes: Attributes = field(default_factory=_empty)

    @property
    def about(self) -> StageSnapshot | None:
        """The stage that it is about, as far as the snapshot tells it.

        Of several runs of one path it is the one that started or ended when the event happened, else the newest.
        """
        when = self.timestamp / 1e9

        def distance(stage: StageSnapshot) -> float:
            started = stage.started_at or 0.0
            if self.name == semconv.STAGE_ENDED:
                return abs(when - started - stage.elapsed)
            return abs(when - started) if self.name == semconv.STAGE_STARTED else 0.0

        found = [stage for stage in self.snapshot.stages if stage.path == self.stage]
        return min(reversed(found), key=distance, default=None)
