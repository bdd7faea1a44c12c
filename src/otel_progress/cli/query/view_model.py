"""The state behind a live view: the running operations, the lines to print about them, and their tree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import Final, NamedTuple

from otel_progress import clock, semconv
from otel_progress.cli.query.rows import (
    UNKNOWN,
    Row,
    items,
    known_of,
    label_of,
    mark_of,
    number,
    shown,
    snapshot_of,
    status_of,
    text,
)
from otel_progress.cli.query.rows import plain as plain_values
from otel_progress.model.distinguish import Kin
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.render import plain
from otel_progress.render.tree import TreeNode, keep_ended, nested
from otel_progress.render.words import DOT, STYLES, Line, clean

OVER: Final = 64
"""The most ended children that are kept of a running operation."""
STAGES: Final = 15
"""The most stages that a summary shows one by one."""
HAD: Final = 20_000
"""The most ended operations that are remembered, so that no end is printed twice."""
RUNS: Final = 10
"""The most operations whose progress is printed as plain lines at a time."""
LINES: Final = 100
"""The most lines between two frames; an end other than `completed` is always printed."""
EVERY: Final = 5.0
APART: Final = 2.0
"""Seconds from the newest event to a row, from which on a verdict has the time of the row: no event told it."""
_UNTOLD: Final = {
    semconv.UPDATED,
    semconv.HEARTBEAT,
    semconv.PROCESS_HEARTBEAT,
    semconv.OPERATION_STARTED,
    semconv.OPERATION_ENDED,
    semconv.STALLED,
    semconv.RECOVERED,
}
"""Events that are not printed, because rows show them better."""


class Observation(NamedTuple):
    """The newest row of an operation; the monitor made it `age` seconds before `at` (monotonic)."""

    row: Row
    at: float
    age: float

    def now(self, now: float) -> Snapshot:
        """The operation as it is at `now` (monotonic)."""
        return snapshot_of(self.row, self.age + max(0.0, now - self.at))


class EndedRun(NamedTuple):
    """A run that ended.

    The start time tells it from other runs of its id, as a process and a monitor number them differently.
    """

    started_at: float | None
    status: Status

    @classmethod
    def of(cls, one: Snapshot) -> EndedRun:
        """The run that a snapshot shows."""
        return cls(one.started_at, one.status)


class ViewModel:
    """Takes the events of a stream; gives lines to print and the nodes of the tree.

    With `draws` there is a tree, and only ends and trouble are lines; without it, each change of state is a line.
    `root` is the id of the only operation to watch. With `everything`, completed children get a line, too.
    """

    def __init__(self, *, draws: bool, root: str | None = None, everything: bool = False) -> None:
        """Start without any operation."""
        self._draws, self._root, self._everything = draws, root, everything
        self._known: dict[str, Observation] = {}
        self._over: dict[str, list[tuple[str, Snapshot]]] = {}
        self._kin = Kin()
        self._marks: dict[str, str] = {}
        self._told: dict[str, object] = {}
        self._had: dict[str, None] = {}
        self._news: list[Line] = []
        self._more = 0
        self._order: list[tuple[int, str]] | None = None
        self._told_at: dict[str, float] = {}
        self._last_event = 0.0
        self._ahead: float | None = None
        """By how much the monitor's clock is ahead of our monotonic one."""
        self.over: dict[str, EndedRun] = {}
        """The operations that ended last."""
        self.ended: Snapshot | None = None
        """The only operation to watch, once it has ended."""
        self.summary: list[Line] = []
        """Its summary, which is printed last."""

    @property
    def running(self) -> int:
        """The number of running operations."""
        return len(self._known)

    @property
    def troubled(self) -> int:
        """The number of operations in trouble."""
        return sum(mark != UNKNOWN for mark in self._marks.values())

    @property
    def unknown(self) -> int:
        """The number of operations of which the monitor knows nothing now."""
        return sum(mark == UNKNOWN for mark in self._marks.values())

    def state(self) -> Line:
        """The line with the numbers of running, troubled and unknown operations."""
        bad, unknown = self.troubled, self.unknown
        trouble = (f"{DOT}{bad:,} in trouble", "red") if bad else ("", "")
        return (
            (f"{self.running:,} running", "dim"),
            trouble,
            (f"{DOT}{unknown:,} unknown" if unknown else "", "yellow"),
        )

    # -- input

    def server_time(self, now: float) -> None:
        """Take the monitor's clock, in seconds since 1970."""
        self._ahead = now - clock.monotonic()

    def loaded(self, rows: Sequence[Row]) -> list[str]:
        """Take a complete list of what runs; returns the ids of those that no longer do."""
        names = {str(row.get("id")) for row in rows}
        self.changed(rows)
        return [key for key in self._known if key not in names]

    def changed(self, rows: Sequence[Row]) -> None:
        """Take new or changed rows; older revisions than the known ones are ignored."""
        for row in rows:
            if row.get("parent_id") is not None:
                self._kin.take(_kind(row), str(row.get("id")), known_of(row))
        for row in rows:
            before = self._known.get(str(row.get("id")))
            if before is None or (number(row.get("revision")) or 0) >= (number(before.row.get("revision")) or 0):
                self._row(row, before)

    def removed(self, keys: Sequence[object]) -> None:
        """Remove operations that the monitor no longer keeps."""
        for key in keys:
            self._forget(str(key))

    def detail(self, detail: Row) -> None:
        """Take the only operation, with its children."""
        self.changed([detail, *items(detail.get("children_rows"))] if not status_of(detail).final else [detail])

    def events(self, events: Sequence[Row]) -> None:
        """Take events of the only operation; each is printed once."""
        for event in events:
            number_of = number(event.get("id")) or 0
            if number_of <= self._last_event:
                continue
            self._last_event = number_of
            name = event.get("event")
            if name == semconv.NOTE or (not self._draws and name not in _UNTOLD):
                self._say(_stamp(number(event.get("timestamp"))), event_line(event))

    def gone(self, key: str) -> Line:
        """The line for an operation that the monitor no longer keeps."""
        label = label_of(self._known[key].row) if key in self._known else clean(key)
        return ((f"{label} is gone: the monitor no longer keeps it", "yellow"),)

    def _row(self, row: Row, before: Observation | None) -> None:
        key, status = str(row.get("id")), status_of(row)
        again = before is not None and (row.get("attempt") or 1) != (before.row.get("attempt") or 1)
        now, made = clock.monotonic(), number(row.get("as_of"))
        if status.final:
            self._end(row, before)
            return
        known = Observation(
            row, now, 0.0 if made is None or self._ahead is None else max(0.0, now + self._ahead - made)
        )
        self._known[key] = known
        mark = mark_of(row)
        if mark is not None:
            self._marks[key] = mark
        else:
            self._marks.pop(key, None)
        if before is None or _place(before.row) != _place(row):
            self._order = None
        if again:
            self._told.pop(key, None)
        self._turn(row, before if not again else None, known)

    def _turn(self, row: Row, before: Observation | None, known: Observation) -> None:
        """Print what is new about a running operation."""
        label, when = self._label(row), _stamp(number(row.get("timestamp")))
        if before is None and not self._draws:
            runs = status_of(row).value + (f", attempt {row['attempt']}" if (row.get("attempt") or 1) != 1 else "")
            self._say(when, ((f"{label}: ", "bold"), (runs, "")))
        key, seen = str(row.get("id")), self._whole(known.now(known.at))
        trouble = plain.trouble_key(seen)
        # While the monitor itself knows nothing, the last verdict stands.
        if trouble is not Health.UNKNOWN and plain.is_news(self._told.get(key), trouble):
            self._told[key] = trouble
            self._say(_found_at(row), ((f"{label}: ", "bold"), *plain.verdict(Event(semconv.UPDATED, 0, seen))))
        if self._draws or self._root is not None or before is None:
            return
        wait, waited = _waits(row), _waits(before.row)
        if wait != waited:
            self._say(when, ((f"{label}: ", "bold"), (f"waits: {wait}" if wait else f"waited: {waited}", "")))
        stage = text(row.get("stage"))
        if stage and stage != text(before.row.get("stage")):
            self._say(when, ((f"{label}: ", "bold"), (stage, "")))

    def _end(self, row: Row, before: Observation | None) -> None:
        key, snapshot = str(row.get("id")), snapshot_of(row)
        parent = snapshot.parent_id if snapshot.parent_id in self._known else None
        label = self._label(row)
        self._forget(key)
        told, self.over[key] = self.over.pop(key, None), EndedRun.of(snapshot)
        if len(self.over) > HAD:
            del self.over[next(iter(self.over))]
        if key == self._root:
            # Earlier events may still arrive: the summary is printed last.
            self.ended, self.summary = snapshot, plain.closing(snapshot, label_of(row), STAGES)
            return
        if parent is None:
            # After a gap an end may come twice: in the list and in the stream.
            if before is None and told == self.over[key]:
                return
            self._tell(self._closing(row, snapshot), must=snapshot.status is not Status.COMPLETED)
            return
        if before is None and key in self._had:
            return
        self._had[key] = None
        if len(self._had) > HAD:
            del self._had[next(iter(self._had))]
        keep_ended(self._over.setdefault(parent, []), label, snapshot, OVER)
        # If it had ended before we connected, its row in the tree is enough.
        if before is not None and (snapshot.status is not Status.COMPLETED or self._everything or not self._draws):
            line = ((f"{label}: ", "bold"), (plain.outcome(snapshot), STYLES[snapshot.status]))
            self._say(_stamp(snapshot.timestamp), line, must=snapshot.status is not Status.COMPLETED)

    def _whole(self, told: Snapshot) -> Snapshot:
        """All that is known of a running operation."""
        return told

    def _closing(self, row: Row, snapshot: Snapshot) -> list[Line]:
        return plain.closing(snapshot, label_of(row), STAGES)

    def _forget(self, key: str) -> None:
        self._order = None if self._known.pop(key, None) is not None else self._order
        self._over.pop(key, None)
        self._marks.pop(key, None)
        self._told.pop(key, None)
        self._told_at.pop(key, None)

    def _label(self, row: Row) -> str:
        """Its name with the id; below its parent, with what tells it apart from its siblings."""
        parent = self._known.get(str(row.get("parent_id")))
        if parent is None:
            return label_of(row)
        differs = self._kin.differs(_kind(row), str(row.get("id")))
        if differs:
            return f"{text(row.get('name')) or '?'} ({clean(differs)})"
        return label_of(row, child=True, alone=_process(row) == _process(parent.row))

    # -- output: lines

    def news(self) -> list[Line]:
        """The lines since the last call."""
        news, self._news = self._news, []
        if self._more:
            news.append(((f"+ {self._more:,} more that ended or changed", "dim"),))
            self._more = 0
        return news

    def progress(self, now: float) -> list[Line]:
        """A line of progress for each operation that is due; older operations are due less often."""
        lines: list[Line] = []
        for _, key in self._ordered()[:RUNS]:
            known = self._known[key]
            elapsed = number(known.row.get("elapsed")) or 0.0
            if now - self._told_at.setdefault(key, now) >= max(EVERY, elapsed / 50):
                self._told_at[key] = now
                head = ((f"{_stamp(clock.unix())} ", "dim"), (f"{self._label(known.row)}: ", "bold"))
                lines.append((*head, (plain.progressed(known.now(now)), "")))
        return lines

    def _say(self, when: str, line: Line, *, must: bool = False) -> None:
        self._tell([((f"{when} ", "dim"), *line)], must=must)

    def _tell(self, lines: list[Line], *, must: bool) -> None:
        if len(self._news) >= LINES and not must:
            self._more += 1
        else:
            self._news.extend(lines)

    # -- output: the tree

    def branches(self, now: float, room: int) -> tuple[list[TreeNode], int]:
        """The nodes that fit, trouble first, each below its parent; and how many more there are."""
        order = self._ordered()
        chosen: Sequence[int] = range(len(order))
        if len(order) > room:
            bad = set(islice((at for at in chosen if order[at][1] in self._marks), room))
            calm = islice((at for at in chosen if at not in bad), max(room, 1) - len(bad))
            chosen = sorted({*bad, *calm})
        branches = []
        for at in chosen:
            depth, key = order[at]
            known = self._known[key]
            branches.append(TreeNode(depth, self._label(known.row), known.now(now), tuple(self._over.get(key, ()))))
        return branches, len(order) - len(branches)

    def _ordered(self) -> list[tuple[int, str]]:
        """Depth and id of all that run, newest last, as in the process's own terminal."""
        if self._order is None:
            keys = sorted(self._known, key=lambda key: number(self._known[key].row.get("started_at")) or 0.0)
            places = {key: place for place, key in enumerate(keys)}
            parents = [places.get(str(self._known[key].row.get("parent_id"))) for key in keys]
            order = nested(parents)
            if len(order) < len(keys):  # a cycle of parents
                reached = {place for _, place in order}
                order = nested([parent if at in reached else None for at, parent in enumerate(parents)])
            self._order = [(depth, keys[place]) for depth, place in order]
        return self._order


def event_line(event: Row) -> Line:
    """An event as text; a note in the colour of its status."""
    words = text(event.get("text")) or str(event.get("event"))
    attributes = event.get("attributes")
    status = str(event.get("status"))
    style = {"failed": "red", "error": "red", "lost": "red", "warning": "yellow", "ok": "green"}.get(status, "")
    agent = text(event.get("agent"))
    said = ""
    if event.get("event") == semconv.NOTE and isinstance(attributes, dict):
        words = text(attributes.get(semconv.NOTE_TEXT)) or words
        given = {key: value for key, value in plain_values(attributes).items() if not key.startswith("progress.")}
        said = "".join(f"  {key}={shown(value)}" for key, value in given.items())
    if agent and words.startswith((f"{agent}: ", f"{agent} ")):  # the operation is named after its agent
        agent = None
    return ((f"{agent}: ", "bold") if agent else ("", ""), (words, style), (said, "dim"))


def _found_at(row: Row) -> str:
    """When a verdict was found: with the newest event, or later by the monitor, which heard nothing more."""
    said, seen = number(row.get("timestamp")), number(row.get("as_of"))
    return _stamp(seen if said is not None and seen is not None and seen - said > APART else said)


def _stamp(seconds: float | None) -> str:
    """The local time of day."""
    return stamp(clock.unix() if seconds is None else seconds)


def stamp(seconds: float, *, day: bool = False) -> str:
    """Unix seconds as the local time of day, with the date if `day`."""
    try:
        when = datetime.fromtimestamp(seconds, timezone.utc).astimezone()
    except (ValueError, OverflowError, OSError):
        return "--:--:--"
    return f"{when:%Y-%m-%d %H:%M:%S}" if day else f"{when:%H:%M:%S}"


def _waits(row: Row) -> str | None:
    wait = row.get("wait")
    return (text(wait.get("reason")) or "") if isinstance(wait, dict) else None


def _kind(row: Row) -> tuple[str, str]:
    """Its parent and name, which its siblings share."""
    return str(row.get("parent_id")), str(row.get("name"))


def _process(row: Row) -> tuple[object, object]:
    return row.get("host"), row.get("pid")


def _place(row: Row) -> tuple[object, object]:
    return row.get("parent_id"), row.get("started_at")
