"""The console: shows what runs as a live tree in the terminal, or as plain lines without a terminal.

Its own thread looks at the operations eight times a second and draws what fits the terminal. Ends, trouble and notes
come from the ticker through a bounded queue, and stay above the tree. Prints and log lines are written between two
frames. The job never waits for a frame, except when it prints.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections import Counter, deque
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Final, Literal

from otel_progress import clock, semconv, settings
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.handlers.outlet import Outlet
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState
from otel_progress.model.distinguish import Kin
from otel_progress.model.feed import RUNNING
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.render import plain
from otel_progress.render.diversion import on_terminal
from otel_progress.render.screen import Screen
from otel_progress.render.tree import TreeLayout, TreeNode, TreeOptions, keep_ended, nested, rows_of
from otel_progress.render.words import STYLES, Calm, clean

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.render.words import Line

__all__ = ["Console"]

Verbosity = Literal["quiet", "normal", "verbose"]

HERTZ: Final = 8
QUEUE: Final = 1_000
"""The most events that wait for the console; as many ends may wait in addition."""
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


class Console(Outlet):
    """Shows every operation of this process in the terminal; use it with `with`, or with `start()` and `stop()`.

    If the file is not a terminal, `TERM` is `dumb`, or `CI` is set, it writes plain lines instead: one for each
    change of state, and a line of progress for each operation every few seconds. A forked child shows nothing.
    Prints and log lines of this process appear above the tree; output of other processes may tear it.

    Args:
        verbosity: `quiet` for endings and trouble only; `normal` for notes, warnings and failed items too; `verbose`
            for all stages, and for children that completed.
        file: the output; standard error by default, so that `> out.txt` receives the job's own output only.
        live: whether to draw a tree; detected by default.
        every: seconds between two plain lines of progress of an operation; older operations print less often.

    Raises:
        MissingDependency: if Rich is not installed.
    """

    _name = "console"

    def __init__(
        self,
        verbosity: Verbosity = "normal",
        file: IO[str] | None = None,
        *,
        live: bool | None = None,
        every: float = 5.0,
    ) -> None:
        """Create a console; it shows nothing before `start()`."""
        if verbosity not in ("quiet", "normal", "verbose"):
            raise InvalidArgument(f"verbosity must be 'quiet', 'normal' or 'verbose', not {verbosity!r}")
        if importlib.util.find_spec("rich") is None:
            raise MissingDependency('the console needs Rich: pip install "otel-progress[console]"')
        self.verbosity = verbosity
        self._file = file
        self._wanted = live
        self._every = every
        self._lock, self._stopping = threading.RLock(), threading.Event()

    # -- life cycle

    def _begin(self) -> None:
        file = self._file or sys.stderr
        wanted = on_terminal(file) and settings.attended() if self._wanted is None else self._wanted
        self._draws = wanted and self.verbosity != "quiet"
        self._screen = Screen(file, draws=self._draws)
        self._sheet, self._calm = TreeLayout(), Calm()
        self._queue: deque[tuple[Event, bool, bool]] = deque()
        self._in_trouble: dict[str, Health] = {}
        self._seen: dict[str, tuple[float, int, Snapshot]] = {}
        self._over: dict[str, list[tuple[str, Snapshot]]] = {}
        self._told_at: dict[str, float] = {}
        self._kin = Kin()
        self._stopping.clear()

    def _run(self) -> None:
        while not self._stopping.wait(1 / HERTZ):
            self.refresh()

    def _finish(self) -> None:
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        if self._running:
            self._exit(0.0)
        self._leave()

    def _leave(self) -> None:
        super()._leave()
        self._stopping.set()
        try:
            self._screen.take_down()
        except Exception:
            tell_once("the terminal could not be given back; the job goes on")

    def _exit(self, _: float) -> None:
        """Print the ends and restore the terminal; if the process goes on, the next frame draws again."""
        try:
            with self._lock:
                news = self._news()
                self._screen.take_down()
                self._screen.print(news)
        except Exception:
            tell_once("the console failed at the end; the job goes on")

    def _after_fork_in_child(self) -> None:
        """Restore the streams in the child; the tree is the parent's."""
        self._lock, self._stopping = threading.RLock(), threading.Event()
        self._screen.forget()
        super()._after_fork_in_child()

    # -- events, in the ticker's thread

    def _take(self, event: Event, operation: OperationState) -> None:
        """Queue an event that is worth a line; the console's own thread prints it."""
        snapshot, key = event.snapshot, event.snapshot.operation_id
        before = self._in_trouble.pop(key, None)
        verdict = None if snapshot.health_reason is None or snapshot.status.final else snapshot.health
        if verdict is not None:
            self._in_trouble[key] = verdict
        turned = verdict is not before and not snapshot.status.final
        if event.name not in _TOLD and not turned:
            return
        ended = event.name == semconv.OPERATION_ENDED
        if len(self._queue) >= QUEUE * (1 + ended):
            drops.add(semconv.DROP_LISTENER)
            return
        child = (
            isinstance(operation._opts.parent or operation._parent, HandleState) or snapshot.parent_id in registry.live
        )
        self._queue.append((event, turned, child))

    # -- drawing

    def refresh(self) -> None:
        """Draw one frame; called by the thread. After an error, which is logged once, the console stops."""
        try:
            with self._lock:
                if self._running:
                    self._draw(clock.monotonic())
        except Exception:
            self._leave()
            tell_once("the console failed, and stops; the job goes on")

    def _draw(self, now: float) -> None:
        news, screen = self._news(), self._screen
        lines = self._tree(now) if self._draws else []
        if lines:
            screen.put_up()
        else:
            screen.take_down()
        if not self._draws and self.verbosity != "quiet":
            news.extend(self._progress(now))
        screen.draw(lines, news)

    # -- lines that stay

    def _news(self) -> list[Line]:
        """The lines since the last frame; those beyond the limit are only counted."""
        lines: list[Line] = []
        told = more = 0
        news = [self._queue.popleft() for _ in range(len(self._queue))]
        for event, _, _ in news:
            self._meet(event.snapshot)
        for event, turned, child in news if self.verbosity == "verbose" else _paired(news):
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
        if event.name not in _TOLD or self.verbosity == "quiet":
            return []
        goes_on = event.attributes.get(semconv.NOTE_STATUS) in RUNNING
        if self._draws and (event.name != semconv.NOTE or goes_on):
            return []
        return [self._stamped(event, plain.changed(event))]

    def _ending(self, event: Event, child: bool) -> list[Line]:
        snapshot, label = event.snapshot, self._label(event.snapshot)
        for store in (self._seen, self._told_at, self._over):
            store.pop(snapshot.operation_id, None)
        if not child:
            room = ALL if self.verbosity == "verbose" else STAGES
            return plain.closing(snapshot, label, room)
        if snapshot.parent_id in registry.live:
            keep_ended(self._over.setdefault(snapshot.parent_id, []), label, snapshot, ALL)
        told = self.verbosity == "verbose" or (not self._draws and self.verbosity == "normal")
        if snapshot.status is Status.COMPLETED and not told:
            return []
        return [self._stamped(event, ((plain.outcome(snapshot), STYLES[snapshot.status]),), label)]

    def _stamped(self, event: Event, line: Line, label: str = "") -> Line:
        when = datetime.fromtimestamp(event.timestamp / 1e9, timezone.utc).astimezone()
        return ((f"{when:%H:%M:%S} ", "dim"), (f"{label or self._label(event.snapshot)}: ", "bold"), *line)

    def _progress(self, now: float) -> list[Line]:
        """A plain line of progress for each operation that is due."""
        lines: list[Line] = []
        before, self._told_at = self._told_at, {}
        for _, snapshot in self._look(now, RUNS)[0]:
            key = snapshot.operation_id
            self._told_at[key] = before.get(key, now)
            if now - self._told_at[key] >= max(self._every, snapshot.elapsed / 50):
                self._told_at[key] = now
                event = Event(semconv.UPDATED, clock.time_ns(), snapshot)
                lines.append(self._stamped(event, ((plain.progressed(snapshot), ""),)))
        return lines

    # -- the tree

    def _tree(self, now: float) -> list[Line]:
        width, height = self._screen.rich.size
        shown, more = self._look(now, height - 1)
        for _, snapshot in shown:
            self._meet(snapshot)
        look = TreeOptions(int(now * HERTZ), ALL if self.verbosity == "verbose" else NEWEST, self._calm)
        branches = [
            TreeNode(depth, self._label(snapshot), snapshot, tuple(self._over.get(snapshot.operation_id, ())))
            for depth, snapshot in shown
        ]
        return self._sheet.lines(rows_of(branches, look), width, max(2, height - 2), more)

    def _look(self, now: float, room: int) -> tuple[list[tuple[int, Snapshot]], int]:
        """Depth and snapshot of the operations that fit, trouble first; and the number of the others.

        An operation that just ended stays until the ticker reports its end, so that nothing flickers.
        """
        running = [one for one in registry.operations() if not one.status.final]
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
