"""The small records that fields of handles hold; `state.py` says which field holds which."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from otel_progress.model.reported import Wait
from otel_progress.model.resources import Resources
from otel_progress.model.tallies import Failures, Tallies
from otel_progress.model.values import EMPTY, Attributes, Number

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from otel_progress.live.diagnosis.places import Place
    from otel_progress.model.plan import Plan

UnitCounts: TypeAlias = "dict[str | None, Number]"
"""Counts by unit; None is the unit of those that name none."""
TrailEntry = tuple[str, int, Any]
"""An event kept for a span: its name, its time in ns, and its content (attributes, a stage, or the progress)."""


# -- options


class Parent(NamedTuple):
    """An operation elsewhere, as `extract` found it: its id, its OpenTelemetry context, its name and its service."""

    operation_id: str | None
    context: Any = None
    name: str | None = None
    service: str | None = None


class Resume(NamedTuple):
    """How an operation is resumed; see `otel_progress.operation`. `store` is True for that of `configure`."""

    store: Any
    fingerprint: str | None = None
    mismatch: str = "raise"
    wait_for_lease: float | None = None
    required: bool = True


class LoopOptions(NamedTuple):
    """How a `track` loop is resumed; see `otel_progress.track`.

    Attributes:
        place: the thread and task in which `track` was called.
        site: the code that called it, and the index of the instruction.
    """

    key: Callable[[Any], Any] | None
    mark: bool
    retry_failed: bool
    place: Place
    site: tuple[CodeType, int]


class OperationOptions(NamedTuple):
    """The options of an operation, validated; `stall_after` is infinity where the operation may idle."""

    id: str | None = None
    plan: Plan | None = None
    description: str | None = None
    agent: str | None = None
    parent: Any = None
    stall_after: float | None = None
    slow_after: float | None = None
    start_within: float | None = None
    heartbeat_counts: bool = False
    loop_after: int | None = None
    cancels: bool = False
    resume: Resume | None = None

    @property
    def once(self) -> bool:
        """An operation does not run once; a stage may."""
        return False


class StageOptions(NamedTuple):
    """The options of a stage, validated; `stall_after` is infinity where the stage may idle."""

    weight: float | None = None
    description: str | None = None
    expected: float | None = None
    stall_after: float | None = None
    critical: bool = True
    depends_on: tuple[str, ...] = ()
    once: bool = False
    key: str | int | None = None

    @property
    def plan(self) -> None:
        """A stage has no plan; an operation may."""


class Adopted(NamedTuple):
    """A span of the program that an operation or a stage stands for.

    Attributes:
        span: has the ids of that span, and does not keep it alive.
        started: when it began (s, monotonic).
        place: the thread and task that began it.
        places: finds where its work runs now.
    """

    span: Any
    started: float
    place: Place
    places: Callable[[], list[Place]]


PLAIN: Final = OperationOptions()
PLAIN_STAGE: Final = StageOptions()


UNSAID: Final[Any] = object()
"""The default of `stall_after`: the limit is inherited, or learned."""


def idle_limit(given: float | None, check: Callable[[str, float | None], float | None]) -> float | None:
    """`stall_after` as options hold it: None if it was not given, infinity for `None`, which lets it idle."""
    if given is UNSAID:
        return None
    return math.inf if given is None else check("stall_after", given)


# -- counts


class Extras:
    """What only few handles have; created on first use.

    Attributes:
        attributes: given to the constructor or to `set`.
        beats: heartbeats of the work.
        beat_at: the time of the last one (s, Unix).
        outcomes: records by outcome.
        result: given to `result`.
        sums: completed and total of closed `track` loops, by unit; None is for nested ones.
        units: units counted with `advance(unit=)`.
        usage: tokens and cost of the operation.
        spent: of these, what a stage spent; None if nothing.
        components: outcomes by component; changed under the registry's lock.
        failures: failed records by message; changed under the registry's lock.
    """

    __slots__ = (
        *("attributes", "beat_at", "beats", "components", "failures", "outcomes", "result", "spent", "sums", "units"),
        "usage",
    )

    def __init__(self) -> None:
        """Nothing yet."""
        self.attributes: Attributes = EMPTY
        # `counts[key] += n` is one step for other threads, `counts[key] = counts.get(key, 0) + n` is not.
        self.outcomes: defaultdict[str, Number] = defaultdict(int)
        self.usage: defaultdict[str, Number] = defaultdict(int)
        self.result: Attributes = EMPTY
        self.sums: dict[str | None, tuple[Number, Number]] = {}
        self.units: defaultdict[str, Number] = defaultdict(int)
        self.beats = 0
        self.beat_at: float | None = None
        self.spent: defaultdict[str, Number] | None = None
        self.components = Tallies()
        self.failures = Failures()


class NestedCounts:
    """What ended stages and child operations left to the handle around them.

    Attributes:
        sums: units that stages counted.
        ended: ended stages that counted or said anything, and ended child operations.
        counted: stages that counted at all.
        begun: stages that counted, or named a total or a ratio, except for those that failed.
        totals: the totals of stages, by their unit.
        largest: the largest total of a stage.
        bare: whether a stage counted by `advance` alone, without a total of its own.
        child_sums: units that child operations counted.
        children: ended child operations.
        failed: those of them that failed.
        ends: child operations by how they ended, of an operation also those in its stages; None if there are none.
        kinds: names of stages that counted, without digits; at most 16.
        again: whether a name came a second time.
        restored: units that an earlier run completed, of those that stages counted.
        recorded: records in stages that count by nothing else; they count in the unit of the handle around them.
        planned: the ratio of ended child operations that the plan names; the newest run of each name.
    """

    __slots__ = (
        *("again", "bare", "begun", "child_sums", "children", "counted", "ended", "ends", "failed", "kinds"),
        *("largest", "planned", "recorded", "restored", "sums", "totals"),
    )

    def __init__(self) -> None:
        """Nothing yet."""
        self.sums: UnitCounts = {}
        self.counted = self.begun = 0
        self.totals: UnitCounts = {}
        self.ended = 0
        self.largest: Number = 0
        self.bare = False
        self.kinds: set[str] = set()
        self.again = False
        self.child_sums: UnitCounts = {}
        self.children = self.failed = 0
        self.ends: dict[str, int] | None = None
        self.planned: dict[str, float] = {}
        self.restored: Number = 0
        self.recorded = 0


class Used:
    """What the process used while a handle ran; see `engine/resources.py`.

    Attributes:
        cpu_at: CPU time of the process at the start, in seconds.
        began_at: when that was read (s, monotonic).
        seen: what was used, once it has ended.
    """

    __slots__ = ("began_at", "cpu_at", "seen")

    def __init__(self, cpu_at: float, began_at: float) -> None:
        """At the start."""
        self.cpu_at = cpu_at
        self.began_at = began_at
        self.seen: Resources | None = None


# -- time


class DeclaredWait:
    """A wait that the job declared with `waiting`; see `waits.py`.

    Attributes:
        reason: what the job waits for.
        overdue_after: seconds after which the wait is overdue; None without a limit.
        place: the thread and task that declared it.
        since: when it began (s, monotonic).
        told_overdue: whether it was reported as overdue; written and read by the ticker.
        is_folded: whether its start was not reported (`short_waits.py`); written by the job, then by the ticker.
    """

    __slots__ = ("is_folded", "overdue_after", "place", "reason", "since", "told_overdue")

    def __init__(self, reason: str, overdue_after: float | None) -> None:
        """A wait that has not begun."""
        self.reason = reason
        self.overdue_after = overdue_after
        self.since = 0.0
        self.place: Place | None = None
        self.told_overdue = False
        self.is_folded = False

    @property
    def due(self) -> float:
        """When it is overdue (s, monotonic); infinity without a limit."""
        return math.inf if self.overdue_after is None else self.since + self.overdue_after

    def seen(self, now: float) -> Wait:
        """The wait as a value, at a monotonic time."""
        return Wait(self.reason, max(0.0, now - self.since), self.overdue_after)


class LearnedLimits(NamedTuple):
    """The limits, in seconds, of a handle whose code names none, and where each comes from."""

    stall_after: float | None = None
    stall_source: str | None = None
    slow_after: float | None = None
    slow_source: str | None = None
    by_runs: bool = False
    """Whether earlier runs taught the allowed idle time; else the run so far did."""


class Gaps:
    """The gaps (times without progress) in one run of a handle; read and written by the ticker.

    Attributes:
        gaps: how many were seen one by one.
        seconds: their sum.
        longest: the longest; a gap reported as a stall counts as its limit.
        between: the longest time between two stages without a count and without a wait, in seconds.
        until: the end of the last stage (s, monotonic).
        count: what the handle had counted then.
        waited: seconds the handle had waited until then.
    """

    __slots__ = ("between", "count", "gaps", "longest", "seconds", "until", "waited")

    def __init__(self) -> None:
        """None yet."""
        self.gaps = 0
        self.seconds = self.longest = self.between = self.waited = 0.0
        self.until: float | None = None
        self.count: Any = 0
