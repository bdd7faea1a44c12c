"""Operations as JSON: a row for lists, and a detail with everything known. For an owner, only what is theirs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import json_keys, stage_ends
from otel_progress.model.estimate import Estimate
from otel_progress.model.health import Verdict
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.states import RANKS, TROUBLE, Label, state_of
from otel_progress.model.statistics import records_of
from otel_progress.model.status import Health, Status, word
from otel_progress.model.timeline import TIMED, timeline
from otel_progress.model.values import Attributes, finite
from otel_progress.monitor.state import as_of
from otel_progress.monitor.state.child_processes import JudgedBranch
from otel_progress.monitor.state.ledger import SNAPSHOTS, Entry, Rival, bare
from otel_progress.monitor.state.rollup import Part, roll_up
from otel_progress.monitor.state.saved import HistoryEvent
from otel_progress.monitor.web import owned
from otel_progress.monitor.web.detail_json import (
    attempts_json,
    branch_json,
    command_json,
    event_json,
    loop_json,
    process_json,
    stage_json,
)
from otel_progress.monitor.web.dump import dump
from otel_progress.monitor.web.event_numbers import EventNumbers
from otel_progress.monitor.web.row_json import (
    CLOCKS,
    ESTIMATES,
    is_stopped,
    is_unheard_trouble,
    keyframe_text,
    mute_json,
    rival_json,
    row_json,
    short_text,
    verdict_json,
    warning_text,
    was_stuck,
    where_stuck,
    without_none,
)
from otel_progress.monitor.web.visibility import Visibility

if TYPE_CHECKING:
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.store import Store

CHILDREN: Final = 200
ANCESTORS: Final = 16
SKEW: Final = 1.0
"""Seconds by which the clocks of a parent and a child may differ for the child to belong to the parent's attempt."""
TIMELINE: Final = 500
LIVES: Final = (s.OPERATION_STARTED, s.OPERATION_ENDED)
"""The events from which the attempts of an id are told."""
ATTEMPTS: Final = 300
"""The most of these events that are read, the newest ones."""
OWNERS: Final = 1_000
"""The most owners whose views are cached."""
ROWS: Final = 20_000
"""The most rows that are cached as text."""
UNSHOWN: Final = 1_000
"""The most operations that are remembered as impossible to show."""
_UNSOUND: Final = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)
"""What is raised if the reported state of an operation cannot be shown."""

Json = dict[str, Any]


class Views:
    """Shows the state of the core; the loop of the server and its worker threads use it."""

    def __init__(self, core: Core, store: Store, *, trace_url: str | None = None, owner: str | None = None) -> None:
        """Views of a core; with a `trace_url` details link to traces, with an `owner` they show only what is theirs."""
        self._owner = owner
        self._sight = Visibility(core, store, owner)
        self._limited: dict[str, Views] = {}
        self._core = core
        self._store = store
        self._trace_url = trace_url
        self.places = EventNumbers(store)
        self._revisions = owned.Revisions()
        self.unshown: dict[str, None] = {}
        """The ids of operations that lists leave out because they cannot be shown."""
        self.can_reach: Callable[[str], bool] = lambda _: False
        """Whether a process, by its instance, can be asked to cancel."""
        self._rows: dict[str, tuple[int, object, str, Json]] = {}
        self._lock = threading.Lock()

    def of(self, owner: str | None) -> Views:
        """The views for a token that sees only one owner; None sees everything."""
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
        return self._owner is None or self._core.ledger.owner_of(entry.head) == self._owner

    def may_name(self, operation_id: str) -> bool:
        """Whether an id may be named and its children listed; either would reveal that a hidden operation exists."""
        return self._owner is None or self._sight.sees(operation_id)

    # -- rows

    def revision(self, entry: Entry) -> int:
        """The revision of its row; for an owner, one that rises when what the owner sees changes."""
        found: int = self.row(entry)["revision"]
        return found

    def row_text(self, entry: Entry) -> str:
        """A row as JSON text, cached until it changes."""
        key = entry.head.operation_id
        if key in self._core.ledger.children or entry.rivals:
            return dump(self.row(entry))  # it depends on its children and rivals
        label = self._core.labels.get(key)
        known = self._rows.get(key)
        if known is not None and known[:2] == (entry.revision, label):
            return known[2] if not known[3] else f"{known[2][:-1]},{dump(self._clocks(entry, known[3]))[1:]}"
        row = self.row(entry)
        if "reason" in (row.get("verdict") or ()):
            return dump(row)  # its evidence changes with time
        clocks: Json = {name: row.pop(name) for name in _running(row)} if entry.open else {}
        text = dump(row)
        with self._lock:
            if len(self._rows) >= ROWS:
                del self._rows[next(iter(self._rows))]
            self._rows[key] = (entry.revision, label, text, {**clocks, "at": clock.monotonic()} if clocks else {})
        if len(self._core.ledger.operations) > SNAPSHOTS:
            entry.release_snapshot()
        return f"{text[:-1]},{dump(clocks)[1:]}" if clocks else text

    def texts(self, entries: Iterable[Entry]) -> list[tuple[str, str]]:
        """Rows as JSON texts, with their ids; one that cannot be shown is left out, and noted in `unshown`."""
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
        """Note an operation that cannot be shown."""
        if len(self.unshown) < UNSHOWN:
            self.unshown[operation_id] = None

    def _clocks(self, entry: Entry, known: Json) -> Json:
        """The clocks of a cached row, advanced to now."""
        now = clock.monotonic()
        made = max(0.0, known["at"] - entry.heard_at)
        gone = self._core.observer.later(entry, now)
        later = gone - made
        found = {name: value for name, value in known.items() if name != "at"}
        found["as_of"] = round(clock.unix(), 3)
        for name in ("timestamp", "elapsed"):
            if name in found:
                found[name] += later
        if "idle" in found and "wait" not in found:
            found["idle"] = self._core.observer.idle(entry, now)
        if "wait" in found:
            found["wait"] = {**found["wait"], "elapsed": found["wait"]["elapsed"] + later}
            return found
        for name in ESTIMATES:
            if name in found:
                found[name] = _run_down(found[name], later, entry.snapshot.update_pause)
        if "eta" in found:
            found["eta"] = found["progress"].get("eta")
        return found

    def row(self, entry: Entry) -> Json:
        """The row of an operation; if its reported state cannot be shown, a row of what is valid."""
        try:
            return json_keys.of_row(self._row(entry, self._now(entry)))
        except _UNSOUND:
            head = entry.head
            sound = Entry(head, entry.instance, entry.heard_at, snapshot=bare(head), before=entry)
            sound.revision = entry.revision
            return json_keys.of_row(self._row(sound, self._shown(sound.snapshot)))

    def _now(self, entry: Entry) -> Snapshot:
        """The reported state of an operation, with its clocks advanced to now."""
        if not entry.open:
            return self._shown(entry.snapshot)
        now, observer = clock.monotonic(), self._core.observer
        seen = as_of.at(entry.snapshot, observer.later(entry, now))
        return self._shown(replace(seen, idle=observer.idle(entry, now)))

    def seen(self, entry: Entry) -> Snapshot:
        """The state of an operation now: with the verdict of the monitor, its attempt, and its curve so far."""
        seen = replace(self._timed(entry, self._now(entry)), curve=entry.curve_so_far, attempt=entry.number)
        verdict = self._verdict(entry, clock.monotonic())
        if verdict is None:
            return seen
        reason = verdict.reason if verdict.troubled else None
        return replace(seen, health=verdict.health, health_reason=reason, overdue=verdict.overdue)

    def _shown(self, whole: Snapshot) -> Snapshot:
        return whole if self._owner is None else owned.snapshot(whole, self._sight)

    def _verdict(self, entry: Entry, now: float) -> Verdict | None:
        """The verdict on an open operation."""
        if not entry.open:
            return None
        verdict = self._core.observer.verdict(entry, now)
        return verdict if self._owner is None else owned.verdict(verdict, entry.snapshot, self._sight)

    def _row(self, entry: Entry, seen: Snapshot) -> Json:
        verdict = self._verdict(entry, clock.monotonic())
        process = self._core.archive.process(entry.instance)
        whole = roll_up(Part(seen, entry.instance), self._below)
        shown = self._core.shown.show(entry, whole.ratio, rolled_up=whole.rolled_up)
        stuck = self._core.observer.was_stuck(entry)
        out = row_json(entry, seen, process, verdict, whole, shown, was_stuck_before=stuck)
        if self._owner is not None:
            out["revision"] = self._revisions.of(seen.operation_id, entry.revision, out)
        mute = self._core.mutes.covering(entry)
        if mute is not None:
            out["muted"] = mute_json(mute, entry, self.may_name)
        also = self._also(entry)
        if also:
            out["also_running"] = also
        warnings = (
            warning_text(entry, process, also) if also else None,
            keyframe_text(entry),
            self._core.clocks.warning(entry.instance),
        )
        if any(warnings):
            out["warning"] = "; ".join(filter(None, warnings))
        return out

    def _also(self, entry: Entry) -> list[Json]:
        """Older runs of the same id that are still alive."""
        now = clock.monotonic()
        return [
            rival_json(rival, self._core.archive.process(rival.instance))
            for rival in (entry.rivals or {}).values()
            if self.is_live(rival, now)
        ]

    def is_live(self, rival: Rival, now: float) -> bool:
        """Whether an older run of an id is known to be alive."""
        process = self._core.ledger.processes.get(rival.instance)
        if process is None or not rival.proven:
            return False
        hearing = self._core.observer.hearing(Entry(rival.head, rival.instance, process.heard_at), now)
        return hearing.silence < hearing.allowed

    def warning(self, entry: Entry) -> str | None:
        """The warning that two processes run the id of this operation; None if only one does."""
        also = self._also(entry)
        return warning_text(entry, self._core.archive.process(entry.instance), also) if also else None

    def _below(self, operation_id: str) -> Iterator[Part]:
        now = clock.monotonic()
        for entry in self._all_children(operation_id):
            later = self._core.observer.later(entry, now) if entry.open else max(0.0, now - entry.heard_at)
            yield Part(entry.snapshot, entry.instance, self._may_see(entry), later)

    def children_of(self, operation_id: str) -> list[Entry]:
        """The visible children of an operation."""
        return [entry for entry in self._all_children(operation_id) if self._may_see(entry)]

    def _all_children(self, operation_id: str) -> list[Entry]:
        """All children of an operation; if it is no longer in memory, also those in the store."""
        ledger = self._core.ledger
        ids = list(ledger.children.get(operation_id, ()))
        held = [entry for key in ids if (entry := ledger.operations.get(key)) is not None]
        found = held if operation_id in ledger.operations else self._with_stored(operation_id, held)
        return self._of_newest(operation_id, found)

    def _of_newest(self, operation_id: str, children: list[Entry]) -> list[Entry]:
        """The children without those that ended during an earlier attempt."""
        above = self._core.ledger.find(operation_id)
        began = None if above is None or above.number < 2 else above.head.started_at
        if began is None:
            return children
        return [child for child in children if child.open or (child.head.started_at or began) >= began - SKEW]

    def _with_stored(self, operation_id: str, held: list[Entry]) -> list[Entry]:
        known = {entry.head.operation_id for entry in held}
        for kept in self._store.children(operation_id, CHILDREN):
            if kept.operation_id not in known:
                found = self._core.ledger.find(kept.operation_id)
                if found is not None and found.head.parent_id == operation_id:
                    held.append(found)
        return held

    def state(self, entry: Entry) -> str:
        """The state of an operation, one of `model.states.STATES`."""
        label = self._core.labels.get(entry.head.operation_id)
        if label is None and entry.open:
            try:
                label = self._core.observer.label(entry, clock.monotonic())
            except _UNSOUND:
                label = Label(Health.UNKNOWN)
        return state_of(entry.head.status, label or Label(Health.PROGRESSING))

    def is_trouble(self, entry: Entry) -> bool:
        """Whether lists mark it as trouble: by its state, or if that is unknown, by the last reported one."""
        state = self.state(entry)
        return state in TROUBLE or is_unheard_trouble(state, self._core.observer.was_stuck(entry))

    # -- one operation

    def detail(self, entry: Entry) -> Json:
        """Everything known about an operation; if that cannot be shown, its row."""
        try:
            return self._detail(entry)
        except _UNSOUND:
            return self.row(entry)

    def _detail(self, entry: Entry) -> Json:
        seen, now = self._timed(entry, self._now(entry)), clock.monotonic()
        lines = self._core.observer.lines(entry, now) if entry.open and seen.branches else []
        verdict = self._verdict(entry, now)
        process = self._core.archive.process(entry.instance)
        children = self.children_of(seen.operation_id)
        if len(children) < CHILDREN and seen.operation_id in self._core.ledger.operations:
            found = self._of_newest(seen.operation_id, self._with_stored(seen.operation_id, children))
            children = [one for one in found if self._may_see(one)]
        ended = _ends(entry, seen, children)
        where = where_stuck(seen, verdict)[1]
        out = self._row(entry, seen)
        out["children"] = len(children) or None
        out = without_none(out)
        out |= without_none(
            {
                "description": seen.description,
                "attributes": dict(seen.attributes),
                "result": dict(seen.result),
                "outcomes": _outcomes(seen, ended),
                "counters": dict(seen.counters),
                "usage": dict(seen.usage),
                "verdict": None if verdict is None else verdict_json(verdict, whole=True),
                "limits": without_none(
                    {
                        "stall_after": seen.stall_after,
                        "stall_after_source": seen.stall_after_source,
                        "slow_after": seen.slow_after,
                        "slow_after_source": seen.slow_after_source,
                        "start_within": seen.start_within,
                    }
                ),
                "stages": [stage_json(stage) for stage in seen.stages],
                "folded": [list(item) for item in seen.folded],
                "timeline": self._timeline(entry),
                **self._lives(entry),
                "command": command_json(process),
                "sender_mistakes": (self._owner is None and self._core.mistakes.of(entry.instance)) or None,
                "children_rows": [self._child(child) for child in children[:CHILDREN]],
                "ancestors": self._ancestors(seen),
                "stack": seen.stack
                if where == seen.stuck_at and (is_stopped(verdict) or was_stuck(seen, verdict))
                else None,
                "loop": loop_json(seen) if entry.open else None,
                "branches": [self._line(line) for line in lines] or None,
                "notes_url": f"/operations/{quote(seen.operation_id, safe='')}/events",
                "trace": self._trace(seen),
                "process": process_json(process, now),
                "control": entry.open and self.can_reach(entry.instance),
            }
        )
        outcomes = Attributes(_outcomes(seen, ended))
        seen = replace(seen, curve=entry.curve_so_far, child_outcomes=ended, outcomes=outcomes)
        return json_keys.of_row(out | json_keys.of_detail(seen, out))

    def _line(self, line: JudgedBranch) -> Json:
        """A branch, and the child it waits for."""
        branch, rests_on = line.branch, line.rests_on
        if self._owner is not None:
            branch = owned.branch(branch, self._sight)
            if rests_on is not None and not self._sight.sees_all(rests_on):
                rests_on = rests_on if self._sight.sees(rests_on) else None
                branch = replace(branch, reason=f"a child is {word(branch.health)}", stuck_at=None, wait=None)
        return branch_json(branch, rests_on)

    def _child(self, entry: Entry) -> Json:
        """A row, with the attributes that distinguish it from others of its name."""
        seen, row = entry.snapshot, self.row(entry)
        if seen.description:
            row["description"] = short_text(seen.description)
        if seen.attributes:
            row["attributes"] = dict(seen.attributes)
        return row

    def _ancestors(self, snapshot: Snapshot) -> list[Json]:
        found: list[Json] = []
        parent, seen = snapshot.parent_id, {snapshot.operation_id}
        while parent is not None and parent not in seen and len(found) < ANCESTORS:
            seen.add(parent)
            above = self._core.ledger.find(parent)
            if self._owner is not None and (above is None or not self._may_see(above)):
                break
            found.append(without_none({"id": parent, "name": above.head.name if above is not None else None}))
            parent = above.head.parent_id if above is not None else None
        return found[::-1]

    def _timed(self, entry: Entry, seen: Snapshot) -> Snapshot:
        """The state with how long its stages took, where its history knows it and the state does not."""
        return stage_ends.timed(seen, self._told(entry, (s.STAGE_ENDED,))) if stage_ends.has_untimed(seen) else seen

    def _told(self, entry: Entry, names: tuple[str, ...]) -> list[HistoryEvent]:
        """The newest of these events of this attempt, from its history."""
        rows = self._store.events(entry.head.operation_id, before=2**62, names=names, limit=TIMELINE)
        own = entry.number, entry.head.started_at or 0.0
        return [self._visible(event) for _, event in rows if (event.attempt, event.started_at) == own]

    def _timeline(self, entry: Entry) -> list[Json]:
        """The waits and stalls of this attempt, from its history."""
        return timeline(self._told(entry, TIMED), None if entry.open else entry.head.timestamp, entry.snapshot.stages)

    def _lives(self, entry: Entry) -> Json:
        """The attempts of an id, if there is more than one; and when it saved its last checkpoint, if it ended."""
        events, key = self._store.events, entry.head.operation_id
        lives = events(key, before=2**62, names=LIVES, limit=ATTEMPTS) if entry.number > 1 else []
        saved = [] if entry.open else events(key, before=2**62, names=(s.CHECKPOINT,), limit=1)
        return {
            "attempts": attempts_json(map(self._visible, (event for _, event in lives)), entry, self._also(entry))
            if lives
            else None,
            "checkpoint_at": saved[0][1].timestamp if saved else None,
        }

    def event(self, number: int, event: HistoryEvent) -> Json:
        """One event of a history."""
        return event_json(number, self._visible(event))

    def _visible(self, event: HistoryEvent) -> HistoryEvent:
        return event if self._owner is None else owned.event(event, self._sight)

    def _trace(self, snapshot: Snapshot) -> Json | None:
        span = snapshot.span
        if span is None:
            return None
        url = self._trace_url.replace("{trace_id}", span.trace_id) if self._trace_url and span.sampled else None
        return {"trace_id": span.trace_id, "span_id": span.span_id, "sampled": span.sampled, "url": url}


def rank_of(state: str) -> int:
    """The rank of an open operation in lists, by its state: trouble first, and what is no trouble together."""
    return RANKS[state] if state in TROUBLE or state == "unknown" else RANKS["progressing"]


def _running(row: Json) -> list[str]:
    """The fields of a row that change while nothing is reported."""
    estimates = [name for name in ESTIMATES if "eta" in row.get(name, ())]
    return [*(name for name in CLOCKS if name in row), *estimates, *(["eta"] if "progress" in estimates else ())]


def _run_down(progress: Json, later: float, pause: float | None) -> Json:
    """The progress `later` seconds later; without the ETA once its time is over."""
    done, total, ratio = (progress.get(key) for key in ("completed", "total", "ratio"))
    seen = Progress(done, total, ratio=ratio, eta=Estimate(*progress["eta"].values()))
    eta = json_keys.of_eta(seen.after(later, pause).eta)
    kept = {key: value for key, value in progress.items() if key != "eta"}
    return kept if eta is None else {**kept, "eta": eta}


def _ends(entry: Entry, seen: Snapshot, children: list[Entry]) -> Attributes:
    """How its children ended: those of its own process, as far as that counted them, and those of other processes."""
    found = {key: int(n) for key, n in seen.child_outcomes.items() if isinstance(n, (int, float)) and finite(n)}
    mine, others = Counter[str](), Counter[str]()
    for child in children:
        if child.head.status.final:
            own = child.instance == entry.instance
            (mine if own else others)[_ENDS.get(child.head.status, child.head.status.value)] += 1
    for word_, n in mine.items():
        found[word_] = max(n, found.get(word_, 0))
    for word_, n in others.items():
        found[word_] = n + found.get(word_, 0)
    return Attributes(found)


_ENDS: Final = {Status.COMPLETED: "ok", Status.LOST: "failed"}


def _outcomes(seen: Snapshot, ended: Attributes) -> Json:
    """The outcomes of an operation; of one that recorded none, how many of its children failed or were lost."""
    records = dict(records_of(seen))
    return records or {key: n for key, n in ended.items() if key == "failed"}
