"""What a live screen shows of the operations that run: news that stays, and the tree; told from the ticker's events.

The ticker hands over events; the thread of the screen asks for what is new and for what runs. The console and the
notebook are two such screens.
"""

from __future__ import annotations

from collections import Counter, deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Literal

from otel_progress import clock, semconv
from otel_progress.live.guard import drops
from otel_progress.live.handles import Operation
from otel_progress.live.registry import registry
from otel_progress.live.reporting import announce
from otel_progress.live.state import HandleState
from otel_progress.model.distinguish import Kin
from otel_progress.model.feed import RUNNING
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.render import plain
from otel_progress.render.tree import TreeNode, TreeOptions, keep_ended, nested, rows_of
from otel_progress.render.words import STYLES, Calm, clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_progress.live.state import OperationState
    from otel_progress.render.tree import TreeRow
    from otel_progress.render.words import Line

Verbosity = Literal["quiet", "normal", "verbose"]

QUEUE: Final = 1_000
"""The most events that wait for the screen; as many ends may wait in addition."""
MOST: Final = 100_000
"""The most events that wait if operations do not complete: their ends are not dropped before."""
LINES: Final = 40
"""The most lines between two frames; trouble and ends other than `completed` are always shown."""
RUNS: Final = 10
"""The most operations whose progress is printed as plain lines at a time."""
NEWEST: Final = 3
"""The most ended unplanned stages, and ended children, that the tree shows one by one."""
STAGES: Final = 15
"""The most stages that a summary shows one by one."""
ALL: Final = 64
"""Both limits if verbose: all that a snapshot holds."""
_PAIRS: Final = {
    semconv.STAGE_STARTED: semconv.STAGE_ENDED,
    semconv.WAIT_STARTED: semconv.WAIT_ENDED,
}
_TOLD: Final = {
    semconv.OPERATION_STARTED,
    semconv.OPERATION_ENDED,
    semconv.STAGE_STARTED,
    semconv.STAGE_ENDED,
    semconv.WAIT_STARTED,
    semconv.WAIT_OVERDUE,
    semconv.WAIT_ENDED,
    semconv.NOTE,
}


def take_notice(wanted: str | None = None) -> OperationState | None:
    """Have the operations reported that run already, though nobody looked until now.

    Args:
        wanted: the id of the only one that matters; it is returned if it runs.
    """
    found = None
    for operation in registry.in_flight(Operation):
        if wanted is None or operation.id == wanted:
            found = operation
            if not operation._announced:
                announce(operation)
    return found


class LiveView:
    """The state behind a screen of operations of this process.

    Args:
        verbosity: see `Console`.
        draws: whether a tree is drawn, which shows most changes itself.
        mine: whether an operation belongs to this view; all do by default.
    """

    def __init__(
        self, verbosity: Verbosity, *, draws: bool, mine: Callable[[OperationState], bool] | None = None
    ) -> None:
        """Nothing is known yet."""
        self._verbosity, self._draws, self._mine = verbosity, draws, mine
        self._calm = Calm()
        self.queue: deque[tuple[Event, bool, bool]] = deque()
        self._in_trouble: dict[str, object] = {}
        self._seen: dict[str, tuple[float, int, Snapshot]] = {}
        self._over: dict[str, list[tuple[str, Snapshot]]] = {}
        self._told_at: dict[str, float] = {}
        self._kin = Kin()

    # -- events, in the ticker's thread

    def take(self, event: Event, operation: OperationState) -> None:
        """Queue an event that is worth a line; called by the ticker."""
        snapshot, key = event.snapshot, event.snapshot.operation_id
        before = self._in_trouble.pop(key, None)
        verdict = plain.trouble_key(snapshot)
        is_news = plain.is_news(before, verdict)
        if verdict is not None:
            self._in_trouble[key] = verdict if is_news else before
        turned = is_news and not snapshot.status.final
        if event.name not in _TOLD and not turned:
            return
        ended = event.name == semconv.OPERATION_ENDED
        room = QUEUE if not ended else 2 * QUEUE if snapshot.status is Status.COMPLETED else MOST
        if len(self.queue) >= room:
            drops.add(semconv.DROP_LISTENER)
            return
        child = (
            isinstance(operation._opts.parent or operation._parent, HandleState) or snapshot.parent_id in registry.live
        )
        self.queue.append((event, turned, child))

    # -- lines that stay

    def news(self) -> list[Line]:
        """The lines since the last frame; those beyond the limit are only counted."""
        lines: list[Line] = []
        told = more = 0
        news = [self.queue.popleft() for _ in range(len(self.queue))]
        for event, _, _ in news:
            self._meet(event.snapshot)
        for event, turned, child in news if self._verbosity == "verbose" else _paired(news):
            if turned:
                lines.append(self._stamped(event, plain.verdict(event)))
            ended = event.name == semconv.OPERATION_ENDED
            said = turned and event.name == semconv.WAIT_OVERDUE  # the verdict is the same news
            new = self._ending(event, child) if ended else [] if said else self._change(event)
            must = ended and event.snapshot.status is not Status.COMPLETED
            if new and not must and told == LINES:
                more += 1
                continue
            told += bool(new and not must)
            lines.extend(new)
        if more:
            lines.append(((f"+ {more:,} more that ended or changed", "dim"),))
        return lines

    def _change(self, event: Event) -> list[Line]:
        """The line for a change of state; a tree shows most of them itself."""
        if event.name not in _TOLD or self._verbosity == "quiet":
            return []
        goes_on = event.attributes.get(semconv.NOTE_STATUS) in RUNNING
        if self._draws and (event.name != semconv.NOTE or goes_on):
            return []
        return [self._stamped(event, plain.changed(event))]

    def _ending(self, event: Event, child: bool) -> list[Line]:
        snapshot, label = event.snapshot, self._label(event.snapshot)
        self.forget(snapshot.operation_id)
        if not child:
            room = ALL if self._verbosity == "verbose" else STAGES
            return plain.closing(snapshot, label, room)
        if snapshot.parent_id in registry.live:
            keep_ended(self._over.setdefault(snapshot.parent_id, []), label, snapshot, ALL)
        told = self._verbosity == "verbose" or (not self._draws and self._verbosity == "normal")
        if snapshot.status is Status.COMPLETED and not told:
            return []
        return [self._stamped(event, ((plain.outcome(snapshot), STYLES[snapshot.status]),), label)]

    def forget(self, operation_id: str) -> None:
        """Leave an operation that ended out of the tree from now on."""
        for store in (self._seen, self._told_at, self._over):
            store.pop(operation_id, None)

    def _stamped(self, event: Event, line: Line, label: str = "") -> Line:
        when = datetime.fromtimestamp(event.timestamp / 1e9, timezone.utc).astimezone()
        return ((f"{when:%H:%M:%S} ", "dim"), (f"{label or self._label(event.snapshot)}: ", "bold"), *line)

    def progress(self, now: float, every: float) -> list[Line]:
        """A plain line of progress for each operation that is due."""
        lines: list[Line] = []
        before, self._told_at = self._told_at, {}
        for _, snapshot in self._look(now, RUNS)[0]:
            key = snapshot.operation_id
            self._told_at[key] = before.get(key, now)
            if now - self._told_at[key] >= max(every, snapshot.elapsed / 50):
                self._told_at[key] = now
                event = Event(semconv.UPDATED, clock.time_ns(), snapshot)
                lines.append(self._stamped(event, ((plain.progressed(snapshot), ""),)))
        return lines

    # -- the tree

    def rows(self, now: float, frame: int, room: int) -> tuple[list[TreeRow], int]:
        """The rows of the operations that run, at most `room` of them, trouble first; and the number of the others."""
        shown, more = self._look(now, room)
        for _, snapshot in shown:
            self._meet(snapshot)
        look = TreeOptions(frame, ALL if self._verbosity == "verbose" else NEWEST, self._calm)
        nodes = [
            TreeNode(depth, self._label(snapshot), snapshot, tuple(self._over.get(snapshot.operation_id, ())))
            for depth, snapshot in shown
        ]
        return rows_of(nodes, look), more

    def _look(self, now: float, room: int) -> tuple[list[tuple[int, Snapshot]], int]:
        """Depth and snapshot of the operations that fit, trouble first; and the number of the others.

        An operation that just ended stays until the ticker reports its end, so that nothing flickers.
        """
        mine = self._mine
        running = [one for one in registry.operations() if (mine is None or mine(one)) and not one.status.final]
        running.sort(key=lambda one: one._started or now)
        places = {one.id: place for place, one in enumerate(running)}
        order = nested([places.get(one.parent_id or "") for one in running])
        calm = (Health.PROGRESSING, Health.WAITING)
        first = sorted(range(len(order)), key=lambda at: (running[order[at][1]]._health in calm, at))
        shown = [(order[at][0], running[order[at][1]].snapshot()) for at in sorted(first[: max(room, 1)])]
        left = {key: seen for key, seen in self._seen.items() if key not in places and now - seen[0] < 1}
        self._seen = {**left, **{snapshot.operation_id: (now, depth, snapshot) for depth, snapshot in shown}}
        self._over = {key: over for key, over in self._over.items() if key in places}
        return shown + [(depth, snapshot) for _, depth, snapshot in left.values()], len(order) - len(shown)

    def _label(self, snapshot: Snapshot) -> str:
        """The name with the id if the caller gave one; else with what tells it apart from others of its name."""
        name, (prefix, _, number) = clean(snapshot.name), snapshot.operation_id.rpartition("-")
        if prefix != registry.prefix:
            return f"{name} {clean(snapshot.operation_id)}"
        self._meet(snapshot)
        if registry.started.get(snapshot.name, 0) < 2:
            return name
        differs = self._kin.differs(snapshot.name, snapshot.operation_id)
        return f"{name} ({clean(differs)})" if differs else f"{name} #{number}"

    def _meet(self, snapshot: Snapshot) -> None:
        """Remember what may tell it apart from others of its name."""
        self._kin.take(snapshot.name, snapshot.operation_id, (snapshot.attributes, snapshot.description))


def _paired(news: list[tuple[Event, bool, bool]]) -> list[tuple[Event, bool, bool]]:
    """Drop the start of what ended within the same frame: the line of its end is enough."""
    ends: Counter[tuple[object, ...]] = Counter()
    kept: list[tuple[Event, bool, bool]] = []
    for one in reversed(news):
        event = one[0]
        key: tuple[object, ...] = (event.snapshot.operation_id, event.stage, _PAIRS.get(event.name, event.name))
        if event.name == semconv.NOTE:
            key = (*key, event.attributes.get(semconv.NOTE_TEXT))
        begins = event.name in _PAIRS or event.attributes.get(semconv.NOTE_STATUS) in RUNNING
        if begins and ends[key] and not one[1]:
            ends[key] -= 1
            continue
        if not begins:
            ends[key] += 1
        kept.append(one)
    return kept[::-1]
