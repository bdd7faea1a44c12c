"""The live view of `run -f`: the command's operations below its own output, and their ends."""

from __future__ import annotations

import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.cli.query.client import Client
from otel_progress.cli.query.rows import GONE, ObservedSnapshot, Row, items, label_of, later_of, mapping
from otel_progress.cli.query.subscription import Item, Subscription
from otel_progress.cli.query.view_model import STAGES, EndedRun, ViewModel
from otel_progress.cli.query.watch_view import HERTZ, WatchView, cut, drawn_on, fitted
from otel_progress.model.snapshot import Progress
from otel_progress.model.units import duration, plural, stopwatch
from otel_progress.render import plain
from otel_progress.render.diversion import on_terminal
from otel_progress.render.overlay import Overlay, PlainOverlay
from otel_progress.render.words import DOT, Line

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Snapshot
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.watcher import Watcher
    from otel_progress.render.tree import TreeNode

SETTLE: Final = 1.5
"""Seconds to wait at the end for the monitor's last events; what is missing then is printed from our own."""
ENDINGS: Final = 50
"""The most ends that are printed from our own events."""


class OwnOperations:
    """The operations of the command, as it reported them to us."""

    def __init__(self, watcher: Watcher) -> None:
        """Read them from the watcher."""
        self.all: Final = watcher.operations
        self._operations = watcher.ledger.operations

    def has(self, key: object) -> bool:
        """Whether an operation is one of them."""
        return key in self._operations

    def same_run(self, told: Snapshot) -> Entry | None:
        """All that we know of a run; the monitor may number it differently, as it counts runs of earlier commands."""
        entry = self._operations.get(told.operation_id)
        return None if entry is None or entry.head.started_at != told.started_at else entry


class FollowedViewModel(ViewModel):
    """The monitor's rows with the stages from our own events: a monitor sends stages for one operation at a time."""

    def __init__(self, heard: OwnOperations, *, draws: bool) -> None:
        """Nothing known yet."""
        super().__init__(draws=draws)
        self._heard = heard

    def branches(self, now: float, room: int) -> tuple[list[TreeNode], int]:
        """The nodes of the tree, with all stages."""
        found, more = super().branches(now, room)
        return [branch._replace(snapshot=self._whole(branch.snapshot)) for branch in found], more

    def _whole(self, told: Snapshot) -> Snapshot:
        """Our own snapshot with the monitor's verdict, and its sums over children."""
        entry = self._heard.same_run(told)
        if entry is None or not entry.open:
            return told
        own = entry.snapshot
        verdict = replace(own, health=told.health, health_reason=told.health_reason, stuck_at=told.stuck_at)
        seen = ObservedSnapshot.of(verdict, frozen=isinstance(told, ObservedSnapshot) and told.frozen)
        whole = later_of(seen, max(0.0, clock.monotonic() - entry.heard_at))
        if told.health in GONE:
            whole = replace(whole, elapsed=told.elapsed, idle=told.idle)
        return replace(
            whole,
            progress=_furthest(whole.progress, told.progress),
            usage=told.usage,
            cancel_requested=told.cancel_requested,
        )

    def _closing(self, row: Row, snapshot: Snapshot) -> list[Line]:
        own = self._heard.same_run(snapshot)
        return super()._closing(row, snapshot if own is None or own.open else own.snapshot)


def _furthest(own: Progress, told: Progress) -> Progress:
    """Our own progress with the ratio of the monitor, if that is higher: it continues from what children had."""
    if own.ratio is None:
        return told
    return own if told.ratio is None else replace(own, ratio=max(own.ratio, told.ratio))


class LiveView(WatchView):
    """Follows the operations of one command through a monitor, in its own thread, until `finish()`."""

    _prefix = "otel-progress: "

    def __init__(self, client: Client, out: IO[str], watcher: Watcher) -> None:
        """Create it, not shown yet; of the monitor's operations it shows those that the watcher knows."""
        self._draws = drawn_on(out)
        self.overlay = Overlay(out) if self._draws else PlainOverlay(out) if on_terminal(out) else None
        self._heard = OwnOperations(watcher)
        super().__init__(client, out, screen=self.overlay, board=FollowedViewModel(self._heard, draws=self._draws))
        self._began = clock.monotonic()
        self._until: float | None = None
        self._failed = ""
        self._frame = threading.Lock()
        self._stops = threading.Event()
        self.asked: Callable[[], str] = lambda: ""
        """Returns the result of Ctrl+C as text."""
        self.restarts_at: float | None = None
        """When the command, which has ended, is started again; None while it runs."""
        self._thread = threading.Thread(target=self._run, name="otel-progress-view", daemon=True)

    def start(self) -> None:
        """Start showing; it may be called for each start of the command."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def is_blind(self) -> bool:
        """Whether the monitor does not answer."""
        return self._down is not None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing meanwhile; the terminal is as it was."""
        with self._frame:
            self._screen.take_down()
            yield

    def finish(self) -> None:
        """The command has ended: show the last events, then the missing ends; it may be called twice."""
        if self._thread.is_alive():
            self._until = clock.monotonic() + SETTLE
            self._thread.join(2 * SETTLE)
        if not self._stops.is_set():
            self._stops.set()
            with self._frame:
                self._screen.take_down()
                self._screen.print([*self._board.news(), *self._endings()])

    # -- in its thread

    def _run(self) -> None:
        feed = Subscription(self._client).start()
        try:
            while not self._stops.is_set() and not self._is_over():
                with self._frame:
                    self._show()
                for item in feed.take(1 / HERTZ):
                    self._take(item)
        except Exception as error:  # the command goes on, and its end is printed all the same
            self._failed = f"it is no longer followed ({type(error).__name__}: {error})"
            with self._frame:
                self._screen.take_down()
                self._screen.print([((self._prefix + self._failed, "yellow"),)])
        finally:
            feed.stop()

    def _is_over(self) -> bool:
        if self._until is None:
            return False
        told = self._down is not None or self._failed or not any(True for _ in self._untold())
        return bool(told) or clock.monotonic() >= self._until

    def _take(self, item: Item) -> None:
        kind, data = item
        if kind == "over":
            self._failed = str(data)
        elif kind == "loaded":
            super()._take(Item(kind, self._mine(data)))
        elif kind == "changes":
            given = mapping(data)
            super()._take(Item(kind, {"rows": self._mine(given.get("rows")), "removed": given.get("removed")}))
        else:
            super()._take(item)

    def _mine(self, rows: Any) -> list[Any]:
        return [row for row in items(rows) if self._heard.has(row.get("id"))]

    # -- what is shown

    def _show(self) -> None:
        if self._draws and not _in_front(self._out):
            self._screen.take_down()
        else:
            super()._show()

    def _foot(self) -> list[Line]:
        """How many run, what Ctrl+C does or did, and whether the connection is lost."""
        said, restarts_at, width = self.asked(), self.restarts_at, self._screen.rich.width
        if restarts_at is not None:
            left = max(0.0, restarts_at - clock.monotonic())
            line: Line = ((f"the command restarts in {duration(left)}", "bold yellow"), (f"{DOT}Ctrl+C ends it", "dim"))
        elif said:
            return [((part, "bold yellow"),) for part in textwrap.wrap(said, width - 1)]
        elif self._failed:
            line = ((self._failed, "yellow"),)
        elif self._down is not None:
            left = self._down.until - clock.monotonic()
            line = ((self._lost(left), "bold yellow"), (f"  {self._down.reason}; the command goes on", "yellow"))
        else:
            runs = self._board.running
            state = self._board.state() if runs else ((self._idle(), "dim"),)
            key = self._ctrl_c()
            line = fitted([state, ((self._client.url, "dim"),), ((key, "dim"),)], width) if key else state
        return [cut(line, width)]

    def _ctrl_c(self) -> str:
        """What the first Ctrl+C does; empty once the command has ended."""
        if self._until is not None:
            return ""
        running = [entry.snapshot for entry in self._heard.all() if entry.open]
        if any(not one.observed for one in running):
            return "Ctrl+C cancels"
        return f"Ctrl+C interrupts{' (KeyboardInterrupt)' if running else ''}"

    def _idle(self) -> str:
        """What is known of a command while the monitor shows none of its operations."""
        for_so_long = stopwatch(clock.monotonic() - self._began)
        if self._until is not None:
            return f"{for_so_long}{DOT}the command has ended"
        known = self._heard.all()
        if any(entry.open for entry in known):
            return f"{for_so_long}{DOT}an operation has started"
        if known:
            return f"{for_so_long}{DOT}{len(known):,} {plural('operation', len(known))} ended, none runs now"
        return f"{for_so_long}{DOT}the command has started, no operation yet"

    # -- at the end

    def _untold(self) -> Iterator[Entry]:
        """Operations without a parent whose end the monitor did not report."""
        for entry in self._heard.all():
            head = entry.head
            part = head.parent_id is not None and self._heard.has(head.parent_id)
            run = EndedRun(head.started_at, head.status)
            if not entry.open and not part and self._board.over.get(head.operation_id) != run:
                yield entry

    def _endings(self) -> list[Line]:
        """The summaries that were not printed yet."""
        lines: list[Line] = []
        untold = list(self._untold())
        for entry in untold[:ENDINGS]:
            one = entry.snapshot
            lines.extend(plain.closing(one, label_of({"name": one.name, "id": one.operation_id}), STAGES))
        if len(untold) > ENDINGS:
            lines.append(((f"+ {len(untold) - ENDINGS:,} more that ended", "dim"),))
        return lines


def _in_front(out: IO[str]) -> bool:
    """Whether we are in the foreground of the terminal."""
    try:
        return os.tcgetpgrp(out.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True
