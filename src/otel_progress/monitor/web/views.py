"""What the API says of operations, as plain JSON values: a row for lists, and all there is of one."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from otel_progress import clock
from otel_progress.model import keys
from otel_progress.model.estimate import Estimate
from otel_progress.model.health import STUCK, Verdict
from otel_progress.model.snapshot import Branch, Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.status import Health, Status, word
from otel_progress.monitor.state import as_of
from otel_progress.monitor.state.child_processes import Judgement, Line
from otel_progress.monitor.state.conditions import RANKS, TROUBLE, Label, state_of
from otel_progress.monitor.state.foreign_traces import MARK
from otel_progress.monitor.state.ledger import Entry, Process, Rival, bare
from otel_progress.monitor.state.rollup import ALMOST, Part, Whole, roll_up
from otel_progress.monitor.state.saved import Event
from otel_progress.monitor.state.timeline import TIMED, attributes_of, timeline
from otel_progress.monitor.web import owned
from otel_progress.monitor.web.event_numbers import Places
from otel_progress.monitor.web.visibility import Sight

if TYPE_CHECKING:
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.store import Store

CHILDREN: Final = 200
ANCESTORS: Final = 16
SKEW: Final = 1.0
"""So many seconds the clocks of a parent and its child may be apart, and it still is of the parent's attempt."""
TIMELINE: Final = 500
SHORT: Final = 500
"""The most characters of a text in a row."""
OWNERS: Final = 1_000
"""For so many owners rows are kept ready."""
ROWS: Final = 20_000
"""So many rows are kept ready."""
UNSHOWN: Final = 1_000
"""The most operations that are counted as impossible to show."""
_UNSOUND: Final = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)
"""What is raised where what was said of an operation can't be shown."""
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_LINE_ENDS: Final = "\x85\u2028\u2029"
DEPTH: Final = 40
"""The deepest that values are nested."""

Json = dict[str, Any]


class Views:
    """Looks at what the core knows; it belongs to the server's loop."""

    def __init__(self, core: Core, store: Store, *, trace_url: str | None = None, owner: str | None = None) -> None:
        """Views of a core, with links to traces where it is known where they are; maybe for one owner alone."""
        self._owner = owner
        self._sight = Sight(core, store, owner)
        self._limited: dict[str, Views] = {}
        self._core = core
        self._store = store
        self._trace_url = trace_url
        self.places = Places(store)
        self._revisions = owned.Revisions()
        self.unshown: dict[str, None] = {}
        """Operations that were left out of a list as they can't be shown, by their ids."""
        self.can_reach: Callable[[str], bool] = lambda _: False
        """Whether a process, by its instance, can be told to cancel."""
        self._rows: dict[str, tuple[int, object, str, Json]] = {}
        self._lock = threading.Lock()

    def of(self, owner: str | None) -> Views:
        """The same for one who sees only what belongs to this owner; with None all of it."""
        if owner is None:
            return self
        with self._lock:
            found = self._limited.get(owner)
            if found is None:
                if len(self._limited) >= OWNERS:
                    self._limited.clear()
                found = self._limited[owner] = Views(self._core, self._store, trace_url=self._trace_url, owner=owner)
                found.can_reach, found.unshown = self.can_reach, self.unshown
            return found

    def _may_see(self, entry: Entry) -> bool:
        return self._owner is None or self._core.owner_of(entry.head) == self._owner

    def may_ask_for_children_of(self, operation_id: str) -> bool:
        """Whether one may know which operations are below this one: those of others would show that it is there."""
        return self._owner is None or self._sight.sees(operation_id)

    # -- rows

    def revision(self, entry: Entry) -> int:
        """The revision of its row; of who sees only their own one that rises when what they see changes."""
        found: int = self.row(entry)["revision"]
        return found

    def row_text(self, entry: Entry) -> str:
        """A row as JSON text; it is made once for each change."""
        key = entry.head.operation_id
        if key in self._core.ledger.children or entry.rivals:
            return dump(self.row(entry))  # it changes with its children, and with what else runs under its id
        label = self._core.labels.get(key)
        known = self._rows.get(key)
        if known is not None and known[:2] == (entry.revision, label):
            return known[2] if not known[3] else f"{known[2][:-1]},{dump(self._clocks(entry, known[3]))[1:]}"
        row = self.row(entry)
        if "reason" in (row.get("verdict") or ()):
            return dump(row)  # its evidence grows with time
        clocks: Json = {name: row.pop(name) for name in _CLOCKS if name in row} if entry.open else {}
        text = dump(row)
        with self._lock:
            if len(self._rows) >= ROWS:
                del self._rows[next(iter(self._rows))]
            self._rows[key] = (entry.revision, label, text, {**clocks, "at": clock.monotonic()} if clocks else {})
        return f"{text[:-1]},{dump(clocks)[1:]}" if clocks else text

    def texts(self, entries: Iterable[Entry]) -> list[tuple[str, str]]:
        """Rows as JSON texts, with their ids; one that can't be shown is left out, and counted in `unshown`."""
        found = []
        for entry in entries:
            key = entry.head.operation_id
            try:
                text = self.row_text(entry)
            except _UNSOUND:
                self.leave_out(key)
                continue
            found.append((key, text))
            self.unshown.pop(key, None)
        return found

    def leave_out(self, operation_id: str) -> None:
        """Count an operation that can't be shown."""
        if len(self.unshown) < UNSHOWN:
            self.unshown[operation_id] = None

    def _clocks(self, entry: Entry, known: Json) -> Json:
        """The clocks of a row that was made before, as they are now."""
        now = clock.monotonic()
        made = max(0.0, known["at"] - entry.heard_at)
        later = self._core.observer.later(entry, now) - made
        found = {name: value for name, value in known.items() if name != "at"}
        for name in ("timestamp", "elapsed", "idle"):
            if name in found and not (name == "idle" and "wait" in found):
                found[name] += later
        if "wait" in found:
            found["wait"] = {**found["wait"], "elapsed": found["wait"]["elapsed"] + later}
        return found

    def row(self, entry: Entry) -> Json:
        """A row of an operation; where what was said of it can't be shown, the little that is sound."""
        try:
            return keys.of_row(self._row(entry, self._now(entry)))
        except _UNSOUND:
            head = entry.head
            sound = Entry(head, entry.instance, entry.heard_at, snapshot=bare(head), before=entry)
            sound.revision = entry.revision
            return keys.of_row(self._row(sound, self._shown(sound.snapshot)))

    def _now(self, entry: Entry) -> Snapshot:
        """All that was said of an operation, with its clocks as they are now."""
        if not entry.open:
            return self._shown(entry.snapshot)
        return self._shown(as_of.at(entry.snapshot, self._core.observer.later(entry, clock.monotonic())))

    def _shown(self, whole: Snapshot) -> Snapshot:
        return whole if self._owner is None else owned.snapshot(whole, self._sight)

    def _verdict(self, entry: Entry, now: float) -> Verdict | None:
        """How an operation is, while it is not over."""
        if not entry.open:
            return None
        verdict = self._core.observer.verdict(entry, now)
        return verdict if self._owner is None else owned.verdict(verdict, entry.snapshot, self._sight)

    def _row(self, entry: Entry, seen: Snapshot) -> Json:
        verdict = self._verdict(entry, clock.monotonic())
        process = self._core.process_of(entry.instance)
        whole = roll_up(Part(seen, entry.instance), self._below)
        shown = self._core.show(entry, whole.ratio if whole.rolled_up else None)
        out = _row(entry, seen, process, verdict, whole, shown)
        if self._owner is not None:
            out["revision"] = self._revisions.of(seen.operation_id, entry.revision, out)
        also = self._also(entry)
        if also:
            out |= {"also_running": also, "warning": _warning(entry, process, also)}
        return out

    def _also(self, entry: Entry) -> list[Json]:
        """Older runs of the same id that live beside this one."""
        now = clock.monotonic()
        return [
            _rival(rival, self._core.process_of(rival.instance))
            for rival in (entry.rivals or {}).values()
            if self.is_live(rival, now)
        ]

    def is_live(self, rival: Rival, now: float) -> bool:
        """Whether an older run of an id is known to live."""
        process = self._core.ledger.processes.get(rival.instance)
        if process is None or not rival.proven:
            return False
        hearing = self._core.observer.hearing(Entry(rival.head, rival.instance, process.heard_at), now)
        return hearing.silence < hearing.allowed

    def warning(self, entry: Entry) -> str | None:
        """What is wrong with an operation whose id two processes run; None where only one does."""
        also = self._also(entry)
        return _warning(entry, self._core.process_of(entry.instance), also) if also else None

    def _below(self, operation_id: str) -> Iterator[Part]:
        for entry in self._all_children(operation_id):
            yield Part(entry.snapshot, entry.instance, self._may_see(entry))

    def children_of(self, operation_id: str) -> list[Entry]:
        """The operations right below one that may be seen."""
        return [entry for entry in self._all_children(operation_id) if self._may_see(entry)]

    def _all_children(self, operation_id: str) -> list[Entry]:
        """The operations right below one; of one that is held no more, also those that are held no more."""
        ledger = self._core.ledger
        ids = list(ledger.children.get(operation_id, ()))
        held = [entry for key in ids if (entry := ledger.operations.get(key)) is not None]
        found = held if operation_id in ledger.operations else self._with_stored(operation_id, held)
        return self._of_newest(operation_id, found)

    def _of_newest(self, operation_id: str, children: list[Entry]) -> list[Entry]:
        """Without those that ran, and ended, below an earlier attempt."""
        above = self._core.find(operation_id)
        began = None if above is None or above.number < 2 else above.head.started_at
        if began is None:
            return children
        return [child for child in children if child.open or (child.head.started_at or began) >= began - SKEW]

    def _with_stored(self, operation_id: str, held: list[Entry]) -> list[Entry]:
        known = {entry.head.operation_id for entry in held}
        for kept in self._store.children(operation_id, CHILDREN):
            if kept.operation_id not in known:
                found = self._core.find(kept.operation_id)
                if found is not None and found.head.parent_id == operation_id:
                    held.append(found)
        return held

    def state(self, entry: Entry) -> str:
        """How an operation is, in one of `states.STATES`."""
        label = self._core.labels.get(entry.head.operation_id)
        if label is None and entry.open:
            try:
                label = self._core.observer.label(entry, clock.monotonic())
            except _UNSOUND:
                label = Label(Health.UNKNOWN)
        return state_of(entry.head.status, label or Label(Health.PROGRESSING))

    def is_trouble(self, entry: Entry) -> bool:
        """Whether a list marks it: by its state, or where that is not known just now, by what its process said last."""
        state = self.state(entry)
        return state in TROUBLE or _is_unheard_trouble(state, entry)

    def rank(self, entry: Entry) -> tuple[int, float]:
        """What orders operations that are not over: trouble first, then the newest."""
        state = self.state(entry)
        trouble = RANKS[state] if state in TROUBLE or state == "unknown" else RANKS["progressing"]
        return trouble, -(entry.head.started_at or entry.head.timestamp)

    # -- one operation

    def detail(self, entry: Entry) -> Json:
        """All there is of an operation; where it can't be shown, its row."""
        try:
            return self._detail(entry)
        except _UNSOUND:
            return self.row(entry)

    def _detail(self, entry: Entry) -> Json:
        seen, now = self._now(entry), clock.monotonic()
        lines = self._core.observer.lines(entry, now) if entry.open and seen.branches else []
        verdict = self._verdict(entry, now)
        process = self._core.process_of(entry.instance)
        children = self.children_of(seen.operation_id)
        if len(children) < CHILDREN and seen.operation_id in self._core.ledger.operations:
            found = self._of_newest(seen.operation_id, self._with_stored(seen.operation_id, children))
            children = [one for one in found if self._may_see(one)]
        where = _where(seen, verdict)[1]
        out = self._row(entry, seen)
        out["children"] = len(children) or None
        out = _clean(out)
        out |= _clean(
            {
                "description": seen.description,
                "attributes": dict(seen.attributes),
                "result": dict(seen.result),
                "outcomes": dict(seen.outcomes),
                "counters": dict(seen.counters),
                "usage": dict(seen.usage),
                "verdict": None if verdict is None else _verdict(verdict, whole=True),
                "limits": _clean(
                    {
                        "stall_after": seen.stall_after,
                        "stall_after_source": seen.stall_after_source,
                        "slow_after": seen.slow_after,
                        "slow_after_source": seen.slow_after_source,
                        "start_within": seen.start_within,
                    }
                ),
                "stages": [_stage(stage) for stage in seen.stages],
                "folded": [list(item) for item in seen.folded],
                "timeline": self._timeline(entry),
                "children_rows": [self._child(child) for child in children[:CHILDREN]],
                "ancestors": self._ancestors(seen),
                "stack": seen.stack
                if where == seen.stuck_at and (_is_stopped(verdict) or _was_stuck(seen, verdict))
                else None,
                "loop": _loop(seen) if entry.open else None,
                "branches": [self._line(line) for line in lines] or None,
                "notes_url": f"/operations/{quote(seen.operation_id, safe='')}/events",
                "trace": self._trace(seen),
                "process": _process(process, now),
                "control": entry.open and self.can_reach(entry.instance),
            }
        )
        return keys.of_row(out | keys.of_detail(seen, out))

    def _line(self, line: Line) -> Json:
        """A line of work, and what it waits for."""
        branch, rests_on = line.branch, line.rests_on
        if self._owner is not None:
            branch = owned.branch(branch, self._sight)
            if rests_on is not None and not self._sight.sees_all(rests_on):
                rests_on = rests_on if self._sight.sees(rests_on) else None
                branch = replace(branch, reason=f"a child is {word(branch.health)}", stuck_at=None, wait=None)
        return _branch(branch, rests_on)

    def _child(self, entry: Entry) -> Json:
        """A row, with what tells it from others of its name."""
        seen, row = entry.snapshot, self.row(entry)
        if seen.description:
            row["description"] = _text(seen.description)
        if seen.attributes:
            row["attributes"] = dict(seen.attributes)
        return row

    def _ancestors(self, snapshot: Snapshot) -> list[Json]:
        found: list[Json] = []
        parent, seen = snapshot.parent_id, {snapshot.operation_id}
        while parent is not None and parent not in seen and len(found) < ANCESTORS:
            seen.add(parent)
            above = self._core.find(parent)
            if self._owner is not None and (above is None or not self._may_see(above)):
                break
            found.append(_clean({"id": parent, "name": above.head.name if above is not None else None}))
            parent = above.head.parent_id if above is not None else None
        return found[::-1]

    def _timeline(self, entry: Entry) -> list[Json]:
        """Waits and stalls of this attempt, from its history."""
        rows = self._store.events(entry.head.operation_id, before=2**62, names=TIMED, limit=TIMELINE)
        head = entry.head
        own = entry.number, head.started_at or 0.0
        mine = [self._told(event) for _, event in rows if (event.attempt, event.started_at) == own]
        return timeline(mine, None if entry.open else head.timestamp, entry.snapshot.stages)

    def event(self, number: int, event: Event) -> Json:
        """One event of a history."""
        return event_view(number, self._told(event))

    def _told(self, event: Event) -> Event:
        return event if self._owner is None else owned.event(event, self._sight)

    def _trace(self, snapshot: Snapshot) -> Json | None:
        span = snapshot.span
        if span is None:
            return None
        url = self._trace_url.replace("{trace_id}", span.trace_id) if self._trace_url and span.sampled else None
        return {"trace_id": span.trace_id, "span_id": span.span_id, "sampled": span.sampled, "url": url}


def ended_text(entry: Entry) -> str:
    """The last event of a stream about one operation, as JSON."""
    head = entry.head
    return dump({"id": head.operation_id, "status": head.status.value, "attempt": entry.number})


def event_view(number: int, event: Event) -> Json:
    """One event of a history."""
    return _clean(
        {
            "id": number,
            "timestamp": event.timestamp,
            "event": event.event,
            "text": event.text,
            "operation_id": event.operation_id,
            "attempt": event.attempt,
            "sequence": event.sequence,
            "stage": event.stage,
            "agent": event.agent,
            "status": event.status,
            "ratio": event.ratio,
            "attributes": attributes_of(event) or None,
        }
    )


_STILL: Final = STUCK | {Health.DEAD}
"""Of what is in this health there is no telling when it will be done."""
_CLOCKS: Final[tuple[str, ...]] = ("timestamp", "elapsed", "idle", "wait")
"""The fields of a row that go on while nothing is said; `elapsed`, `idle` and `wait` are as at `timestamp`."""


def _row(
    entry: Entry, seen: Snapshot, process: Process | None, verdict: Verdict | None, whole: Whole, shown: float | None
) -> Json:
    about: Mapping[str, Any] = process.resource if process is not None else {}
    state = state_of(seen.status, _label(verdict))
    progress = _whole(seen, whole, shown)
    stage, stuck_at = _where(seen, verdict)
    if verdict is not None and verdict.health in _STILL:
        progress.pop("eta", None)
    return _clean(
        {
            "id": seen.operation_id,
            "name": _text(seen.name),
            "status": seen.status.value,
            "state": state,
            "trouble": True if state in TROUBLE or _is_unheard_trouble(state, entry) else None,
            "verdict": None if verdict is None else _verdict(verdict),
            "reason": _text(seen.reason),
            "attempt": entry.number,
            "parent_id": seen.parent_id,
            "agent": _text(seen.agent),
            "service": _text(about.get("service.name")),
            "host": process.host if process is not None else None,
            "pid": process.pid if process is not None else None,
            "started_at": seen.started_at,
            "timestamp": seen.timestamp,
            "said_at": entry.head.timestamp,
            "elapsed": seen.elapsed,
            "idle": _idle(seen, verdict) if entry.open else None,
            "stage": _text(stage),
            "progress": progress,
            "stage_progress": _innermost(seen),
            "wait": _wait(seen.wait),
            "stuck_at": _text(stuck_at) if _is_stopped(verdict) or _was_stuck(seen, verdict) else None,
            "cancel": "requested" if seen.cancel_requested else None,
            "cost": whole.cost or None,
            "tokens": whole.tokens or None,
            "children": whole.children or None,
            "ended": None if entry.open else True,
            "source": "spans" if entry.instance.startswith(MARK) else None,
            "revision": entry.revision,
        }
    )


def _is_unheard_trouble(state: str, entry: Entry) -> bool:
    """Whether one of which nothing is known just now was stuck before."""
    return state == word(Health.UNKNOWN) and entry.open and entry.head.health in STUCK


def _label(verdict: Verdict | None) -> Label:
    if verdict is None:
        return Label(Health.PROGRESSING)
    return Label(verdict.health, verdict.overdue, isinstance(verdict, Judgement) and verdict.frozen)


def _is_stopped(verdict: Verdict | None) -> bool:
    """Whether the line where it was stuck is where it is: not once it moved, ended, or only waits for a child."""
    if verdict is None:
        return False
    return verdict.health in STUCK or verdict.health is Health.DEAD  # nobody knows that it moved since it was said


def _was_stuck(seen: Snapshot, verdict: Verdict | None) -> bool:
    """Whether it was stuck when its process was heard last, and nothing newer is known of where it is."""
    unheard = seen.status is Status.LOST or (verdict is not None and verdict.health is Health.UNKNOWN)
    return unheard and seen.health in STUCK


def _idle(seen: Snapshot, verdict: Verdict | None) -> float:
    """Since when it makes no progress; of one that waits for a child elsewhere, since when that one does not."""
    if isinstance(verdict, Judgement) and verdict.clock == "child" and verdict.health in STUCK:
        return verdict.seconds
    return seen.idle


def _where(seen: Snapshot, verdict: Verdict | None) -> tuple[str | None, str | None]:
    """Stage and line of the branch that decides; its process may have named another one."""
    if verdict is None or not seen.branches:
        return seen.stage, seen.stuck_at
    found = next((branch for branch in seen.branches if branch.label == verdict.branch), None)
    if found is not None and verdict.health in STUCK:
        return found.path, found.stuck_at
    return seen.stage, None if isinstance(verdict, Judgement) and verdict.child is not None else seen.stuck_at


def _whole(seen: Snapshot, whole: Whole, shown: float | None) -> Json:
    """How far an operation is: as its process says, or rolled up from its children."""
    own = seen.progress
    ratio, completed, total, rolled = own.ratio, own.completed, own.total, False
    if shown is not None and (whole.rolled_up or (not own.ratio and not own.completed)):
        ratio, rolled = shown, True
        completed = completed if whole.completed is None else whole.completed
    elif whole.ratio is None and not ratio:
        ratio = None
    if seen.status is Status.COMPLETED and (rolled or whole.rolled_up):
        # All its children are known by now. Where it counted nothing itself, its own word counts.
        if whole.rolled_up and whole.ratio is not None and whole.ratio >= 1:
            ratio, completed, rolled = 1.0, whole.completed, True
        elif not own.completed:
            ratio, completed = 1.0, own.completed
    if seen.status.final:
        ratio, completed, total = _at_the_end(seen, ratio, completed, total)
    elif ratio == 0 and not completed and _has_counted(seen):
        ratio = None  # its stage counts, and the operation does not: it is further than nothing
    return _progress(Progress(completed, total, own.unit, ratio, rate=own.rate, eta=whole.eta), seen.message, rolled)


def _at_the_end(
    seen: Snapshot, ratio: float | None, completed: Any, total: Any
) -> tuple[float | None, float | None, float | None]:
    """What completed is at 100% and not `0 of 2`; what ended otherwise is not at 99%, nor at 0% of what a stage did."""
    if seen.status is Status.COMPLETED:
        if ratio is not None and not (completed and total):
            ratio = 1.0
        return (ratio, None, None) if ratio == 1 and not completed and total else (ratio, completed, total)
    if ratio is not None and (ratio >= ALMOST or (ratio == 0 and not completed and _has_counted(seen))):
        ratio = None
    return ratio, completed, total


def _has_counted(seen: Snapshot) -> bool:
    """Whether the innermost stage tells how far it is."""
    stage = _stage_of(seen)
    return stage is not None and bool(stage.progress.completed or stage.progress.ratio)


def _rival(rival: Rival, process: Process | None) -> Json:
    return _clean(
        {
            "attempt": rival.number,
            "started_at": rival.head.started_at,
            "instance": rival.instance,
            "pid": process.pid if process is not None else None,
            "host": process.host if process is not None else None,
        }
    )


def _warning(entry: Entry, process: Process | None, also: list[Json]) -> str:
    mine = {"attempt": entry.number, "instance": entry.instance}
    if process is not None:
        mine |= _clean({"pid": process.pid, "host": process.host})
    runs = ", ".join(_run(one) for one in (mine, *also))
    said = f"two processes run the operation {entry.head.operation_id!r}" if len(also) == 1 else (
        f"{len(also) + 1} processes run the operation {entry.head.operation_id!r}"
    )  # fmt: skip
    return f"{said}: {runs}; give each run an id of its own, or stop one"[:SHORT]


def _run(one: Json) -> str:
    where = f"pid {one['pid']}" if "pid" in one else one["instance"]
    return f"attempt {one['attempt']} ({where}{' on ' + one['host'] if 'host' in one else ''})"


def _verdict(verdict: Verdict, *, whole: bool = False) -> Json:
    said: Json = {"health": verdict.health.value, "reason": verdict.reason if verdict.troubled or whole else None}
    said["overdue"] = verdict.overdue or None
    said["branch"] = _text(verdict.branch)
    if isinstance(verdict, Judgement):
        said |= {"reason": verdict.reason, "frozen": verdict.frozen or None, "child": verdict.child}
    if whole:
        said |= {
            "limit": verdict.limit,
            "seconds": verdict.seconds,
            "allowed": verdict.allowed if verdict.allowed != float("inf") else None,
            "clock": verdict.clock,
            "source": verdict.source,
            "seen": verdict.seen,
        }
    return _clean(said)


def _progress(progress: Progress, message: str | None, rolled: bool = False) -> Json:
    return _clean(
        {
            "percentage": progress.percentage,
            "current_step": _text(message),
            "ratio": progress.ratio,
            "completed": progress.completed,
            "total": progress.total,
            "unit": progress.unit if progress.completed is not None else None,
            "rate": progress.rate,
            "eta": _eta(progress.eta),
            "rolled_up": True if rolled else None,
        }
    )


def _stage_of(seen: Snapshot) -> StageSnapshot | None:
    """The innermost stage, of one that is over the last that ran."""
    return next((stage for stage in reversed(seen.stages) if stage.path == seen.stage), None)


def _innermost(seen: Snapshot) -> Json | None:
    """How far the innermost stage is, which often counts where the operation does not."""
    stage = _stage_of(seen)
    if stage is None or (stage.progress.completed is None and stage.progress.ratio is None):
        return None
    return _progress(stage.progress, None)


def _eta(eta: Estimate | None) -> Json | None:
    return None if eta is None else {"seconds": eta.eta, "low": eta.low, "high": eta.high, "source": eta.source}


def _wait(wait: Wait | None) -> Json | None:
    if wait is None:
        return None
    return _clean({"reason": _text(wait.reason), "elapsed": wait.elapsed, "overdue_after": wait.overdue_after})


def _stage(stage: StageSnapshot) -> Json:
    return _clean(
        {
            "name": stage.name,
            "path": stage.path,
            "status": stage.status.value,
            "planned": stage.planned or None,
            "weight": stage.weight,
            "expected": stage.expected,
            "started_at": stage.started_at,
            "elapsed": stage.elapsed,
            "idle": stage.idle,
            "progress": _progress(stage.progress, None),
            "message": stage.message,
            "reason": stage.reason,
            "description": stage.description,
            "wait": _wait(stage.wait),
            "critical": None if stage.critical else False,
            "depends_on": list(stage.depends_on) or None,
            "attributes": dict(stage.attributes) or None,
            "outcomes": dict(stage.outcomes) or None,
            "counters": dict(stage.counters) or None,
        }
    )


def _branch(branch: Branch, rests_on: str | None) -> Json:
    return _clean(
        {
            "label": _text(branch.label),
            "path": _text(branch.path),
            "lane": _text(branch.lane),
            "child": rests_on or branch.child,
            "health": word(branch.health),
            "reason": _text(branch.reason),
            "idle": branch.idle,
            "stall_after": branch.stall_after,
            "wait": _wait(branch.wait),
            "stuck_at": _text(branch.stuck_at),
        }
    )


def _loop(seen: Snapshot) -> Json | None:
    loop = seen.loop
    return None if loop is None else {"kind": loop.kind, "keys": list(loop.keys), "repeats": loop.repeats}


def _process(process: Process | None, now: float) -> Json | None:
    if process is None:
        return None
    return _clean(
        {
            "instance": process.instance,
            "pid": process.pid,
            "host": process.host,
            "service": _text(process.resource.get("service.name")),
            "heard_ago": round(max(0.0, now - process.heard_at), 3),
            "heartbeat": process.interval if process.beats else None,
            "resource": dict(process.resource),
        }
    )


def _text(value: object) -> str | None:
    """A text that is short enough for a list."""
    return value[:SHORT] if isinstance(value, str) else None


def _clean(given: Json) -> Json:
    """Without what is None, and without numbers that JSON does not have."""
    return {key: value for key, value in given.items() if value is not None}


def dump(value: object) -> str:
    """As JSON text in one line; what no JSON has is left empty or told in words."""
    try:
        text = _dump(value)
    except (ValueError, TypeError, RecursionError):
        text = json.dumps(_sane(value), ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else _plain(text)


def _plain(text: str) -> str:
    """Without halves of characters, and without what some readers of lines take for the end of one."""
    for end in _LINE_ENDS:
        if end in text:
            text = text.replace(end, f"\\u{ord(end):04x}")
    return text.encode("utf-8", "replace").decode()


def _sane(value: Any, depth: int = 0) -> Any:
    if depth > DEPTH:
        return "…"
    if isinstance(value, dict):
        return {str(key): _sane(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sane(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)
