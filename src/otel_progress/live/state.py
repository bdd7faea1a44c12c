"""Every field that the job's threads and the ticker share, declared once: its meaning, who writes it, who reads it.

`Handle`, `Operation` and `Stage` derive from the classes here; modules that only need the fields (registry, hooks,
context, branches, the engine) import this one. The leading underscore says that a field is not the user's: users hold
these objects, and may set attributes of their own on them. Modules of this package may use what is declared here.

"job" is the thread that calls a method of the handle, and there may be several. "ticker" is the one thread of
`engine/ticker.py`. "look" is a snapshot that either of them takes. No field needs a lock unless it says so: each write
is one step for other threads, and fields that several threads may create at once are created with `dict.setdefault`.

Class attributes hold the initial values, so that a new handle stores only what differs. `share_keys` then keeps the
memory of a handle small.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from otel_progress.live.guard import drops
from otel_progress.live.records import PLAIN, PLAIN_STAGE, Extras, OperationOptions, StageOptions
from otel_progress.model.status import Health, Status
from otel_progress.model.values import NAME_LENGTH, Attributes, text

if TYPE_CHECKING:
    from otel_progress.live.diagnosis.call_stack import Where
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.lane import Lane, Request
    from otel_progress.live.records import Adopted, DeclaredWait, Gaps, LearnedLimits, NestedCounts, TrailEntry, Used
    from otel_progress.model.curve import Curve
    from otel_progress.model.estimate import Pace
    from otel_progress.model.fields import Progress
    from otel_progress.model.loop import Loop
    from otel_progress.model.outline import StageSoFar
    from otel_progress.model.snapshot import Note, Snapshot
    from otel_progress.model.stage_runs import FoldedRuns
    from otel_progress.model.values import Number

ITEM: Final = str(b"item", "ascii")
"""The unit where none was named; an object of its own, so that `unit="item"` is another."""
PRUNE: Final = 64
"""Children from which on those dropped without an end are removed."""


class HandleState:
    """The fields of an operation or a stage."""

    # -- identity
    _kind = "handle"
    """What it is, in messages: `operation` or `stage`. A constant."""
    name = "unnamed"
    """The name. Written: job, once. Read: all."""
    _parent: HandleState | None = None
    """The handle around it. Written: job, at the start. Read: all."""
    _opts: OperationOptions | StageOptions = PLAIN
    """Its options. Written: job, once. Read: all."""
    _op: OperationState | None = None
    """The operation a stage belongs to; None for an operation. Written: job, at the start. Read: all."""
    _warned_outside = False
    """Whether it started outside of any operation, which was logged. Written and read: job."""
    _scope: Any = None
    """Its keys and state in the checkpoint store (`durable/scope.py: Scope`). Written: job, at the start. Read: all."""
    _end_deferred = False
    """Whether its end failed in the job's thread and is left to the ticker. Written and read: job."""

    # -- status and time
    _status = Status.PENDING
    """What happened to it. Written: job; ticker for those dropped without an end. Read: all."""
    _reason: str | None = None
    """Why it ended. Written: with `_status`. Read: look."""
    _hint: str | None = None
    """What to do about its failure; only of an operation. Written: with `_status`. Read: look."""
    _created = 0.0
    """When it was created (s, monotonic); only with `start_within`. Written: job. Read: ticker, look."""
    _started: float | None = None
    """When it started (s, monotonic). Written: job. Read: all."""
    _started_ns = 0
    """The same as Unix time (ns). Written: job; the first look of an unwatched one. Read: look, spans."""
    _ended: float | None = None
    """When it ended (s, monotonic). Written: with `_status`. Read: all."""
    _moved_at = 0.0
    """When it last made progress (s, monotonic): by counts, stages, waits, children. Written and read: job, ticker."""
    _counted_at = 0.0
    """When its own count last grew (s, monotonic). Written: ticker (sampling). Read: ticker, look."""
    _observe_at = 0.0
    """When the estimate takes its next sample (s, monotonic). Written: job (start, a child ends), ticker. Read: it."""
    _waits: list[DeclaredWait] | None = None
    """Declared waits that are open. Written: job. Read: ticker, look."""
    _waited: float = 0.0
    """Seconds of declared waits that are over. Written: job. Read: ticker (learning)."""
    _stood: float = 0.0
    """Seconds in which all of it waited, by waits that are over. Written: job. Read: ticker, look (outlines)."""
    _stood_until: float = 0.0
    """The end of the last one of them (s, monotonic). Written and read: job."""
    _stood_times = 0
    """How many of them were over. Written: job. Read: ticker (learning)."""
    _slept: float = 0.0
    """Seconds in which the whole process stood still. Written: ticker. Read: ticker, look (outlines)."""
    _suspended = False
    """Whether it belongs to a generator that waits for its consumer. Written: job (decorators). Read: ticker, look."""

    # -- counts
    _advanced: Any = 0
    """Units completed by `advance`: its own count. Written: job. Read: ticker (sampling), look."""
    _final_advanced: Any = None
    """The value of `_advanced` at its end, which later calls do not change; None until then. Written: with `_status`.
    Read: all (counting)."""
    _valid_count: Any = 0
    """The last valid value of `_advanced`. Written and read: job, ticker (counting)."""
    _valid_raw: Any = None
    """The object in `_advanced` that `_valid_count` was read from. Written and read: job, ticker (counting)."""
    _base: Number = 0
    """What to add to `_advanced` since `update(completed=)`. Written: job. Read: ticker, look."""
    _uncounted = 0
    """Progress that no count shows: `update`s above the highest, heartbeats that count. Written: job. Read: ticker."""
    _recorded = 0
    """Calls of `record`. Written: job. Read: ticker, look."""
    _failures = 0
    """Calls of `record` with the outcome `failed`. Written: job. Read: ticker."""
    _highest: Number = 0
    """The highest `update(completed=)`. Written and read: job."""
    _highest_ratio = 0.0
    """The highest `update(ratio=)`. Written and read: job."""
    _counts_itself = False
    """Whether it reports its progress itself; then `track` only proves life. Written: job. Read: ticker, look."""
    _completed_set = False
    """Whether `update(completed=)` was called. Written: job. Read: ticker, look."""
    _total: Number | None = None
    """Units in all. Written: job. Read: ticker, look."""
    _unit = ITEM
    """What is counted. Written: job. Read: ticker, look."""
    _lanes: list[Lane] | None = None
    """Its `track` loops, open and closed ones. Written: job; folding under the registry's lock. Read: ticker, look."""
    _nested: NestedCounts | None = None
    """What ended stages and children left. Written: job, under the registry's lock. Read: ticker, look."""
    _outer_at_start: tuple[Any, Number, int] = (0, 0, 0)
    """What the handle around it had counted by `advance` and `update`, and what had ended in it, at its start.
    Written: job. Read: ticker, look (survey)."""
    _extras: Extras | None = None
    """What only few handles have. Written: job. Read: ticker, look, spans."""
    _sampled: Any = 0
    """All that was completed, at the last sample. Written and read: ticker (sampling)."""
    _sampled_done: Any = 0
    """The same without failures. Written and read: ticker (sampling)."""
    _only_failed = False
    """Whether only failures were new at the last sample. Written and read: ticker (sampling)."""

    _used: Used | None = None
    """What its process had used at its start, then what it used until its end. Written: ticker. Read: look."""

    # -- ratio and estimate
    _restored: Number = 0
    """Units that were completed before it started, as after a resume. Written: job. Read: ticker, look."""
    _named_before: Number = 0
    """Those of them that `restored=` or the first `update(completed=)` named. Written: job. Read: ticker, look."""
    _initial: Number = 0
    """Those of them that its `track` loops began with. Written: job. Read: ticker, look."""
    _jump: tuple[float, float] | None = None
    """When its first `update(completed=)` named several units (s, monotonic), and how many, until more follow.
    Written and read: ticker (progress)."""
    _ratio: float | None = None
    """The ratio that `update` named. Written: job. Read: ticker, look."""
    _partial_unit: tuple[Number, float] = (0, 0.0)
    """Its count, and how much of the next units was done inside it since. Written and read: ticker, look (survey)."""
    _shown: float | None = None
    """The ratio last shown. Written and read: ticker, look (progress)."""
    _inner: dict[str, StageSoFar] | None = None
    """What started and ended inside it, by name. Written: ticker. Read: ticker, look (outlines)."""
    _pace: Pace | None = None
    """Recent counts with their times. Written: ticker; the job skips waits. Read: ticker, look."""

    # -- told: what people and spans see
    _message: str | None = None
    """The current step in words. Written: job. Read: look."""
    _span: Any = None
    """Its span. Written: job (telemetry). Read: all."""
    _trail: list[TrailEntry] | None = None
    """Events kept for its span. Written: job, ticker. Read: job, at the end."""
    _context: Any = None
    """The token that makes current again what was before. Written: job. Read: job, ticker (whether it was entered)."""
    _token: Any = None
    """The same of its span. Written and read: job."""

    _observed = False
    """Whether an integration made it. Written: integrations, before the start. Read: all."""
    _adopted: Adopted | None = None
    """The span of the program that it stands for, if it was made of one. Written: before the start. Read: all."""

    # -- stuck
    _place: Place | None = None
    """The thread and task that entered it or made it current last. Written: job. Read: ticker."""
    _carried: set[Place] | None = None
    """Other threads that run its work by `carry`. Written: job. Read: ticker."""
    _named_limit: float | None = None
    """The named limit that applies, found once; negative for none. Written and read: ticker, look."""
    _usual_limit: float | None = None
    """The limit of its kind of work, where neither code nor earlier runs set one; infinity: none, whatever was learned.
    Written: with `_adopted`, ticker. Read: ticker, look."""
    _learned: LearnedLimits | None = None
    """The learned limits that apply. Written: ticker. Read: ticker, look."""
    _gaps: Gaps | None = None
    """The gaps of its run. Written and read: ticker (learning)."""
    _loops_apart = False
    """Whether its `track` loops are judged one by one from now on. Written and read: ticker, look (branches)."""
    _loops: Any = None
    """Its steps and what they spent (`engine/loops.py: Loops`). Created: job, ticker. Written and read: both."""
    _loop: Loop | None = None
    """The loop it is caught in. Written: ticker (watchdog). Read: ticker, look."""

    @property
    def operation(self) -> OperationState:
        """The operation that it is or belongs to."""
        raise NotImplementedError

    @property
    def status(self) -> Status:
        """What happened to it; waiting while a declared wait is open."""
        return Status.WAITING if self._waits and not self._status.final else self._status

    @property
    def _path(self) -> str | None:
        """The names of the stages down to it, as `load/parse`; None for an operation."""
        return None

    @property
    def _text_name(self) -> str:
        """The name; what a user assigned that is no text is made one, for all who read it later."""
        if type(self.name) is not str:
            self.name = text(self.name, drops, NAME_LENGTH)
        return self.name

    @property
    def _unit_named(self) -> bool:
        """Whether the unit was named."""
        return self._unit is not ITEM

    @property
    def _current_step(self) -> str | None:
        """The current step in words: from `update(message=)`, or the `desc` and item of a loop opened after it."""
        for lane in reversed(self._lanes or ()):
            if not lane.closed and (words := lane.words) is not None:
                return words if lane.over is self._message else self._message
        return self._message

    def _with_extras(self) -> Extras:
        """Its extras, created on first use."""
        if self._extras is None:
            vars(self).setdefault("_extras", Extras())  # one step, so that two threads get the same
        more: Extras = vars(self)["_extras"]
        return more

    def _finish(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        """End it with a status; a later end changes nothing."""
        raise NotImplementedError


class OperationState(HandleState):
    """The fields of an operation."""

    # -- identity
    _kind = "operation"
    attempt = 1
    """The number of this run among those with the same id. Written: job. Read: all."""
    _id: str | None = None
    """Its id, made when it is asked for first. Written: job, ticker. Read: all."""
    _opts: OperationOptions = PLAIN
    _generation = -1
    """The registry's generation at its start; another one belongs to a process that forked. Written: job. Read: all."""
    _session: Any = None
    """What saves its checkpoints (`hooks.py: Session`), if it is resumable. Written: job, at the start. Read: all."""
    _fingerprint: str | None = None
    """What its code and arguments are known by, if it is decorated. Written: job, before the start. Read: durable."""
    _earlier_span: tuple[str, str] | None = None
    """Trace id and span id of the attempt before. Written: job, at the start. Read: spans."""
    _announced = False
    """Whether it was announced to the ticker. Written: job. Read: job, ticker."""
    _end_sent = False
    """Whether the ticker reported its end. Written and read: ticker."""

    # -- its stages and children
    _handed_over = False
    """Whether its id was given to other processes, whose children it can't see. Written: job (inject). Read: look."""
    _stages: list[StageState] | None = None
    """Its stages, except those that were folded. Written: job; folding under the registry's lock. Read: look."""
    _running: dict[StageState, None] | None = None
    """The running stages, in the order of their start. Written: job. Read: ticker, look."""
    _first_stage: StageState | None = None
    """The stage that started first. Written: job. Read: spans."""
    _weighed: dict[str, StageState] | None = None
    """The newest stage of each name that takes part in the ratio. Written: job. Read: ticker, look."""
    _folded: dict[str, tuple[int, float]] | None = None
    """Number and seconds of folded stages, by status. Written: job, look; under the registry's lock. Read: look."""
    _runs: FoldedRuns | None = None
    """Folded stages by path. Written: job, look; under the registry's lock. Read: look."""
    _children: ChildOperations | None = None
    """Its child operations that run in this process. Written: job. Read: ticker, look."""
    _pauses: dict[DeclaredWait, HandleState] | None = None
    """All declared waits that are open in it or its stages, and where. Written: job. Read: ticker, look."""
    _short_waits: dict[str, int] | None = None
    """Short waits that ended, by reason. Written and read: job (`short_waits.py`)."""
    _curve: Curve | None = None
    """What it completed over time. Written: ticker. Read: look."""
    _has_tracked = False
    """Whether a `track` loop was opened anywhere in it. Written: job. Read: job, ticker."""
    _item_loops: dict[Lane, str | None] | None = None
    """Loops of which an item was reported as started, and the path of each. Written and read: ticker (items)."""
    _has_labels = False
    """Whether one of them has a label. Written: job. Read: ticker, look (labels)."""

    # -- told
    _revision = 0
    """Rises with each change that no count shows and the next update should carry. Written: job. Read: ticker."""
    _sent_revision = 0
    """The value of `_revision` at the last snapshot that was sent. Written and read: ticker."""
    _sequence = 0
    """The number of its last event. Written: ticker. Read: ticker, look."""
    _notes: deque[Note] | None = None
    """The newest lines of its activity feed. Written: job. Read: look."""
    _listeners: list[Any] | None = None
    """Listeners to its changes (`engine/listeners.py: Listener`). Written: job. Read: ticker."""
    _verdict_listeners: list[Any] | None = None
    """Listeners to its verdict. Written: job. Read: ticker."""
    _rationed: deque[Any] | None = None
    """Notes and heartbeats that wait for the budget. Written and read: ticker."""
    _stage_tokens: tuple[float, float] | None = None
    """Stage events it may send now, and when that was counted (s, monotonic). Written and read: ticker."""
    _repeated: tuple[Any, ...] | None = None
    """The runs of stages that came more than once, and of how many they were made. Written and read: all, under the
    lock."""
    _estimate_ends = math.inf
    """When to report whether the reported rate or ETA still holds (s, monotonic). Written and read: ticker."""
    _keyframe: int | None = None
    """The number of its last event that carried the whole state; None if the next one must. Written: ticker; `request`
    of keyframes sets it to None. Read: ticker, telemetry."""
    _estimated: tuple[tuple[str, Progress], ...] = ()
    """The estimates that readers were told last (`engine/estimates.py`). Written and read: ticker."""
    _estimated_at = 0.0
    """When that was (s, monotonic). Written and read: ticker."""
    _by_pace = False
    """Whether paces alone gave the estimates of its last snapshot. Written and read: ticker."""
    _has_news = False
    """Whether an update is to leave when it is due. Written and read: ticker."""
    _hurries = False
    """Whether its next update does not wait for the cadence. Written: ticker, job (a wait ends). Read: ticker."""
    _update_at = 0.0
    """When the next plain update is due (s, monotonic). Written: ticker, job (a wait ends). Read: ticker."""
    _shows_wait = False
    """Whether the last event for receivers showed an open wait. Written: ticker. Read: job (the end of a wait)."""
    _update_pause = 0.0
    """How long plain updates wait after its last snapshot, in seconds. Written: ticker. Read: look."""
    _live_until = 0.0
    """Until when somebody asked for all of its updates (s, monotonic). Written: control channel. Read: ticker."""
    _keyframe_at = math.inf
    """When the whole state is sent again (s, monotonic). Written: with `_keyframe`. Read: ticker."""
    _surveyed: tuple[float, Any] | None = None
    """The survey of one moment (`survey.py: Survey`), shared by its stages. Written and read: ticker, look."""
    _late_reported = False
    """Whether its missed start was reported. Written and read: ticker."""

    # -- stuck
    _health = Health.PROGRESSING
    """The verdict that stands. Written: ticker. Read: ticker, look."""
    _overdue = False
    """Whether a wait is overdue, by the same verdict. Written and read: ticker."""
    _slow_reported = False
    """Whether it was reported as slow. Written and read: ticker."""
    _check_at = 0.0
    """When the verdict may change next (s, monotonic); 0 is now. Written: job, ticker. Read: ticker."""
    _counts_until = 0.0
    """Until when (s, monotonic) only its counts matter to the ticker (`sampling.py: counts_alone`), unless `_check_at`
    or `_revision` says otherwise; 0: look at all of it. Written: ticker; 0 by job, control channel, if they change
    what neither of these tells. Read: ticker."""
    _stuck_branches: dict[object, StuckBranch] | None = None
    """Its stuck branches, by `branches.Line.key`. Written: ticker. Read: ticker, look."""
    _stalled_at: float | None = None
    """Since when it is stuck (s, monotonic), until its recovery is reported. Written: ticker. Read: ticker, loops."""
    _worst: Any = None
    """The branch that spoke for it last (`engine/branch_verdicts.py: Judged`). Written: ticker. Read: ticker, look."""
    _cancel_reason: str | None = None
    """Why it was asked to stop. Written: job, ticker, control channel. Read: all."""
    _request: Request | None = None
    """What its `track` loops raise then. Written: control channel. Read: job."""

    def snapshot(self) -> Snapshot:
        """Everything that is known of it now, as an immutable value."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """The id of this run."""
        raise NotImplementedError

    @property
    def parent_id(self) -> str | None:
        """The id of the operation that it is part of, if any."""
        raise NotImplementedError

    def request_cancel(self, reason: str | None = None) -> None:
        """Ask it to stop."""
        raise NotImplementedError


class StageState(HandleState):
    """The fields of a stage."""

    _kind = "stage"
    _opts: StageOptions = PLAIN_STAGE
    _arguments = ""
    """What tells apart the calls of a decorated stage that runs once. Written: job, before the start. Read: durable."""
    _called_on: Any = None
    """The object whose method it is, or the function with a closure. Written: job, before the start. Read: job."""
    _full_path: str | None = None
    """Its path, made when it is asked for first. Written and read: all."""
    _ended_ns = 0
    """When it ended (ns, Unix). Written: job. Read: spans."""
    _end_told = False
    """Whether the ticker told its end, so that nothing of it changes any more. Written: ticker. Read: all."""
    _last_snapshot: tuple[Any, ...] | None = None
    """The snapshot once its end was told, and what it was made of. Written and read: all, under the lock."""


class ChildOperations(dict["weakref.ref[OperationState]", None]):
    """The running child operations, in the order of their start; adding and removing one is a single step.

    Written by the threads in which children start and end, read by the ticker; no step needs a lock.
    """

    __slots__ = ("_prune_at",)

    def __init__(self) -> None:
        """No child yet."""
        self._prune_at = PRUNE

    def take(self, child: OperationState) -> None:
        """A child started."""
        self[weakref.ref(child)] = None
        if len(self) >= self._prune_at:
            for ref in tuple(self):
                if ref() is None:
                    self.pop(ref, None)
            self._prune_at = max(PRUNE, 2 * len(self))

    def leave(self, child: OperationState) -> None:
        """A child ended."""
        self.pop(weakref.ref(child), None)

    def alive(self) -> list[OperationState]:
        """The children that run now."""
        found = [child for ref in tuple(self) if (child := ref()) is not None]
        return [child for child in found if not child._status.final]

    def newest(self) -> OperationState | None:
        """The child that started last, if it still runs."""
        try:
            child = next(reversed(self))()
        except (StopIteration, RuntimeError):  # it changes in another thread
            return None
        return None if child is None or child._status.final else child


class Movement:
    """How a stuck branch moves again (s, monotonic): since when, how often, and since when without a long idle time."""

    __slots__ = ("calm", "last", "moves", "since")

    def __init__(self, moved_at: float, moves: int = 1) -> None:
        """It moved at this monotonic time for the first time; 0 `moves` if its stage only ended."""
        self.since = self.last = moved_at
        self.calm: float | None = moved_at
        self.moves = moves


class StuckBranch:
    """A stuck branch: since when, where, and how it moves again; read and written by the ticker.

    Attributes:
        health: silent or looping.
        since: when it last made progress (s, monotonic).
        found_at: when that was found; renewed while it loops.
        told_at: when it was reported.
        label: the path of its stage.
        hold: seconds it must move before it counts as recovered.
        gone_at: when its stage was found ended, if no other has followed.
        again: how it moves again.
        eased: whether a look found its stage ended: the next stage of that path is stuck at its own limit, not before.
        where: the line at which it is stuck.
        loops: the handle that loops: the branch's own, or one around it.
    """

    __slots__ = (
        *("again", "eased", "found_at", "gone_at", "health", "hold", "label", "loops", "since", "told_at", "where"),
    )

    def __init__(self, health: Health, since: float, now: float, label: str, hold: float) -> None:
        """A branch that is stuck from `now` on."""
        self.label = label
        self.hold = hold
        self.gone_at: float | None = None
        self.health = health
        self.since = since
        self.found_at = self.told_at = now
        self.again: Movement | None = None
        self.eased = False
        self.where: Where | None = None
        self.loops: HandleState | None = None

    @property
    def shown(self) -> Health:
        """The health reported for its branch: stuck until it has moved for long enough, unless its stage is over."""
        return Health.PROGRESSING if self.eased else self.health

    @property
    def still_at(self) -> Where | None:
        """Where it is stuck; None from when it moves again, as it has left that line."""
        has_moved = self.eased or (self.again is not None and self.again.moves > 0)
        return None if has_moved else self.where


Change = tuple[str, OperationState, HandleState, int, Attributes]
"""A change that waits for the ticker: the name of its event, operation, handle, time in ns, and attributes."""


def share_keys(cls: type[HandleState], names: Iterable[str]) -> None:
    """Have CPython share these attribute names among all instances of a class.

    CPython shares only names that one of the first instances had; an instance with another name gets a dict of its
    own, which takes more memory than all the rest of it. There is room for 29 names.
    """
    first = cls.__new__(cls)
    for name in names:
        setattr(first, name, getattr(cls, name, None))
