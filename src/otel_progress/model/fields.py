"""The parts of a snapshot as immutable values: progress, branches, stages, operation fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from otel_progress.model.estimate import Estimate
from otel_progress.model.loop import Loop
from otel_progress.model.reported import Note, Wait
from otel_progress.model.resources import Resources
from otel_progress.model.stage_runs import StageRuns
from otel_progress.model.status import Health, Status
from otel_progress.model.units import is_beyond
from otel_progress.model.values import Attributes, Number, no_attributes

if TYPE_CHECKING:
    from typing_extensions import Self


DIFFERS: Final = 0.01
"""Difference from which on the displayed ratio contradicts the counts."""
IN_HAND: Final = 0.9
"""Largest part of the unit in hand that is taken as done."""
UNDERWAY: Final = 2.0
"""Seconds until an update that is due has arrived."""
_STUCK: Final = frozenset({Health.SILENT, Health.LOOPING})
"""What is stuck says at once when it moves."""
UNREPORTED: Final = 1.0
"""Seconds in which units may have been completed that were not reported yet."""
SAID: Final = 6.5
"""Seconds within which a process says that a unit takes longer, or that there is no estimate any more."""


@dataclass(frozen=True)
class Progress:
    """How far an operation or a stage is.

    Attributes:
        completed: completed units, or None if nothing was counted.
        total: units in all, or None if unknown.
        unit: what is counted.
        ratio: the ratio to show, from 0 to 1; small falls of the raw one do not move it back, and only the end is 1.
        ratio_raw: the ratio that follows from the counts, from 0 to 1; ETA and health use it.
        rate: recent units a second.
        eta: when it will be done, or None if no estimate is possible.
        restored: those of the completed units that an earlier attempt completed; None if there are none. They count
            as progress, and never as pace.
    """

    completed: Number | None = None
    total: Number | None = None
    unit: str = "item"
    ratio: float | None = None
    ratio_raw: float | None = None
    rate: float | None = None
    eta: Estimate | None = None
    restored: Number | None = None

    @property
    def percentage(self) -> float | None:
        """The ratio as a percentage with two digits; 100 only where the ratio is 1."""
        if self.ratio is None:
            return None
        return round(self.ratio * 100, 2) if self.ratio >= 1 else min(round(self.ratio * 100, 2), 99.99)

    @property
    def stated(self) -> float | None:
        """The ratio to state in words: `ratio`, but none if the counts say less, or more than the total."""
        if self.ratio is not None and self.ratio < 1 and is_beyond(self.completed, self.total):
            return None
        if self.ratio is None or self.ratio_raw is None or self.completed is None or not self.total:
            return self.ratio
        return self.ratio if abs(self.ratio - self.ratio_raw) < DIFFERS else None

    def after(self, seconds: float, pause: float | None = None) -> Progress:
        """The same progress `seconds` later, if nothing was heard since: the ETA runs down, then ends.

        An ETA from a count runs down by the unit in hand only, as more units would have been reported; if that one
        takes longer, it is said within `SAID`. During `pause` seconds, in which an update may wait, it runs down
        whatever the unit takes. One from a plan, from children or from earlier runs alone runs down by its lower
        bound; then the end may come at any time, and it stands until more is said, within two seconds.
        """
        if self.eta is None or seconds <= 0:
            return self
        return replace(self, eta=self.left_after(seconds, pause))

    def left_after(self, seconds: float, pause: float | None = None) -> Estimate | None:
        """The ETA that `after` has."""
        eta = self.eta
        if eta is None or seconds <= 0:
            return eta
        if self._stands(eta) and seconds > eta.low:
            return replace(eta, eta=eta.eta - eta.low, low=0.0, high=eta.high - eta.low)
        gone = min(seconds, self._in_hand(eta, UNREPORTED + (pause or 0.0)))
        if gone == seconds or seconds >= max(eta.eta, SAID):
            return eta.after(seconds)
        low = eta.low * (eta.eta - gone) / eta.eta
        return replace(eta, eta=eta.eta - gone, low=low, high=max(0.0, eta.high - gone))

    def _stands(self, eta: Estimate) -> bool:
        """Whether an ETA stands once its lower bound has passed: that from durations alone, or from children."""
        counts = (self.total or 0) > (self.completed or 0)
        return eta.low < eta.eta and (eta.source in ("plan", "children") or (eta.source == "history" and not counts))

    def _in_hand(self, eta: Estimate, unreported: float) -> float:
        """By how many seconds an ETA may run down before the next unit is counted."""
        left = (self.total or 0) - (self.completed or 0)
        if left > 0 and eta.source in ("rate", "history"):
            return max(min(unreported, IN_HAND * eta.eta), eta.eta * min(1.0, IN_HAND / left))
        return eta.eta / 2 if self.ratio is not None and eta.source == "rate" else math.inf


@dataclass(frozen=True)
class Branch:
    """A branch: one line of work inside an operation, judged on its own; times in seconds.

    Attributes:
        path: the path of its stage; None for the operation itself.
        lane: the thread or task of its `track` loop, if one stage has several.
        child: the id of the child operation that it waits for.
        child_name: the name of that child.
        idle: time since the branch, or its child, last made progress.
        stall_after: the allowed idle time, or None.
        stall_after_source: where the limit comes from; None if the user set it.
        health: the health that its process reports, with hysteresis; for a child, the health of the child.
        reason: the evidence, if a child is in trouble.
        wait: the declared wait that stops its clock.
        loop: the cycle that it repeats without progress.
        stuck_at: the line of code where it is stuck.
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
        """The name to show: the path of its stage, its thread or task, its child."""
        where = self.path or ""
        if self.lane is not None:
            return f"{where} in {self.lane}" if where else self.lane
        if self.child is not None:
            name = f"child {self.child_name or self.child}"
            return f"{where}, {name}" if where else name
        return where or "the operation itself"

    def later(self, seconds: float, still: float, unheard: float = 0.0) -> Branch:
        """Return the same branch `seconds` later, in `still` of which its operation is known to have stood still.

        In `unheard` of them nobody could hear whether it moved.
        """
        if self.wait is not None:
            return replace(self, wait=replace(self.wait, elapsed=self.wait.elapsed + seconds))
        still = seconds - unheard if self.health in _STUCK else still
        return replace(self, idle=self.idle + still)


@dataclass(frozen=True)
class StageSnapshot:
    """One stage at one moment; times in seconds, `started_at` since 1970.

    `path` joins the names of the enclosing stages and its own with `/`. `planned` is true if the plan names the stage;
    a planned stage that has not run yet is pending and has no `started_at`.
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
    outcomes: Attributes = field(default_factory=no_attributes)
    counters: Attributes = field(default_factory=no_attributes)
    attributes: Attributes = field(default_factory=no_attributes)
    span_id: str | None = None
    """Only for a running stage: an observer needs it to close the span."""
    cpu_seconds: float | None = None
    """CPU time that its process used while it ran; None if not measured."""
    peak_memory: Number | None = None
    """The most resident memory of its process seen while it ran, in bytes; None if not measured."""
    usage: Attributes = field(default_factory=no_attributes)
    """Tokens and cost that it spent itself; `usage` of the operation has the sum of all."""
    child_outcomes: Attributes = field(default_factory=no_attributes)
    """Child operations of this process that ended inside it: how many are `ok` and `failed`."""
    untimed: bool = False
    """Whether nobody knows how long it took, so that `elapsed` is 0: only of other SDKs, which may leave that out."""

    @property
    def has_run(self) -> bool:
        """Whether it has begun, also if its emitter does not say when."""
        return self.started_at is not None or self.status not in (Status.PENDING, Status.SKIPPED)

    @property
    def is_timed(self) -> bool:
        """Whether it has begun, and it is known how long it took so far."""
        return self.has_run and not self.untimed


@dataclass(frozen=True)
class SpanIds:
    """What an observer needs to close the spans of a dead process: ids in hex, times in nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    parent_remote: bool = False
    sampled: bool = True
    start_time: int = 0
    kind: str = "internal"


@dataclass(frozen=True)
class SnapshotFields:
    """The fields of `Snapshot`, which documents them; `health` judges them and `keys` turns them into JSON."""

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
    outcomes: Attributes = field(default_factory=no_attributes)
    counters: Attributes = field(default_factory=no_attributes)
    usage: Attributes = field(default_factory=no_attributes)
    result: Attributes = field(default_factory=no_attributes)
    attributes: Attributes = field(default_factory=no_attributes)
    notes: tuple[Note, ...] = ()
    heartbeat_at: float | None = None
    cancel_requested: bool = False
    span: SpanIds | None = None
    repeated: tuple[StageRuns, ...] = ()
    hint: str | None = None
    components: tuple[tuple[str, Attributes], ...] = ()
    failures: tuple[tuple[str, int], ...] = ()
    curve: tuple[tuple[float, Number], ...] = ()
    resources: Resources | None = None
    child_outcomes: Attributes = field(default_factory=no_attributes)
    update_pause: float | None = None
    observed: bool = False

    def still(self, later: float) -> float:
        """Return in how many of the `later` seconds after its time it is known to have made no progress.

        That is none of them while an update that would tell progress may still wait.
        """
        pause = self.update_pause
        return 0.0 if pause and later <= pause + UNDERWAY and self.health not in _STUCK else later

    def at(self, now: float, unheard: float = 0.0) -> Self:
        """Return the same operation at `now` (seconds since 1970), assuming that no event was sent since.

        In `unheard` of the seconds until then nobody could hear whether it moved: they are no idle time.
        """
        later = max(0.0, now - self.timestamp)
        if self.status.final or not later:
            return self
        wait = self.wait and replace(self.wait, elapsed=self.wait.elapsed + later)
        still = max(0.0, self.still(later) - unheard)
        idle = self.idle if wait else self.idle + still
        elapsed = self.elapsed + later
        branches = tuple(branch.later(later, still, unheard) for branch in self.branches)
        progress = self.progress if wait else self.progress.after(later, self.update_pause)
        return replace(self, timestamp=now, elapsed=elapsed, idle=idle, wait=wait, branches=branches, progress=progress)
