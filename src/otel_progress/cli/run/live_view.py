"""What a followed command does, as a tree below what it writes itself; and at last what became of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.cli.query.client import Client
from otel_progress.cli.query.rows import GONE, Row, items, label_of, later_of, mapping
from otel_progress.cli.query.subscription import Item, Subscription
from otel_progress.cli.query.view_model import STAGES, ViewModel
from otel_progress.cli.query.watch_view import HERTZ, WatchView, cut, drawn_on
from otel_progress.model.units import stopwatch
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
"""Seconds that the end is held for what the monitor still has to tell; what it does not tell is told from here."""
ENDINGS: Final = 50
"""Operations of which the end is told from here."""


class OwnOperations:
    """The operations of one command, as we heard of them ourselves."""

    def __init__(self, watcher: Watcher) -> None:
        """From its watcher."""
        self.all: Final = watcher.operations
        self._operations = watcher.ledger.operations

    def has(self, key: object) -> bool:
        """Whether it is one of them."""
        return key in self._operations

    def of(self, key: str, attempt: int) -> Snapshot | None:
        """All that is known of that attempt."""
        entry = self._operations.get(key)
        return None if entry is None or entry.head.attempt != attempt else entry.snapshot


class FollowedViewModel(ViewModel):
    """What the monitor says, with the stages that only we know of; a monitor gives them for one operation at a time."""

    def __init__(self, heard: OwnOperations, *, draws: bool) -> None:
        """Nothing known yet."""
        super().__init__(draws=draws)
        self._heard = heard

    def branches(self, now: float, room: int) -> tuple[list[TreeNode], int]:
        """The tree, with all stages."""
        found, more = super().branches(now, room)
        return [branch._replace(snapshot=self._whole(branch.snapshot)) for branch in found], more

    def _whole(self, told: Snapshot) -> Snapshot:
        """As we heard it, with what the monitor makes of it: its verdict, and sums over its children."""
        own = self._heard.of(told.operation_id, told.attempt)
        if own is None or own.status.final:
            return told
        verdict = replace(own, health=told.health, health_reason=told.health_reason, stuck_at=told.stuck_at)
        whole = later_of(verdict, max(0.0, clock.unix() - own.timestamp))
        if told.health in GONE:
            whole = replace(whole, elapsed=told.elapsed, idle=told.idle)
        progress = whole.progress if whole.progress.ratio is not None else told.progress
        return replace(whole, progress=progress, usage=told.usage, cancel_requested=told.cancel_requested)

    def _closing(self, row: Row, snapshot: Snapshot) -> list[Line]:
        own = self._heard.of(str(row.get("id")), snapshot.attempt)
        return super()._closing(row, own if own is not None and own.status.final else snapshot)


class LiveView(WatchView):
    """Follows the operations of one command by a monitor, in a thread of its own, until it is told to end."""

    def __init__(self, client: Client, out: IO[str], watcher: Watcher) -> None:
        """Nothing is shown yet; of what the monitor tells, only what the watcher heard of is shown."""
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
        """What became of Ctrl+C, in words."""
        self._thread = threading.Thread(target=self._run, name="otel-progress-view", daemon=True)

    def start(self) -> None:
        """Show from now on."""
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn, and the terminal is as it was."""
        with self._frame:
            self._screen.take_down()
            yield

    def finish(self) -> None:
        """The command is over: show what is still to come, then the rest of the endings; it may be called twice."""
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
        except Exception as error:  # the command goes on, and its end is told all the same
            self._failed = f"it is not followed any more ({type(error).__name__}: {error})"
            with self._frame:
                self._screen.take_down()
                self._screen.print([((self._failed, "yellow"),)])
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
        """How many run, what Ctrl+C does or did; and whether we still hear of them."""
        said = self.asked()
        if said:
            line: Line = ((said, "bold yellow"),)
        elif self._failed:
            line = ((self._failed, "yellow"),)
        elif self._down is not None:
            left = self._down.until - clock.monotonic()
            line = ((self._lost(left), "bold yellow"), (f"  {self._down.reason}; the command goes on", "yellow"))
        else:
            runs = self._board.running
            began = f"{stopwatch(clock.monotonic() - self._began)}{DOT}no operation runs"
            does = "cancels" if runs else "interrupts"
            line = self._board.state() if runs else ((began, "dim"),)
            line = (*line, (f"{DOT}{self._client.url}{DOT}Ctrl+C {does}", "dim"))
        return [cut(line, self._screen.rich.width)]

    # -- at the end

    def _untold(self) -> Iterator[Entry]:
        """Operations that ended, of which the monitor did not tell it; those that are part of another are left out."""
        for entry in self._heard.all():
            head = entry.head
            part = head.parent_id is not None and self._heard.has(head.parent_id)
            if not entry.open and not part and self._board.over.get(head.operation_id) != (head.attempt, head.status):
                yield entry

    def _endings(self) -> list[Line]:
        """What the command's operations came to, as far as it was not told."""
        lines: list[Line] = []
        untold = list(self._untold())
        for entry in untold[:ENDINGS]:
            one = entry.snapshot
            lines.extend(plain.closing(one, label_of({"name": one.name, "id": one.operation_id}), STAGES))
        if len(untold) > ENDINGS:
            lines.append(((f"+ {len(untold) - ENDINGS:,} more that ended", "dim"),))
        return lines


def _in_front(out: IO[str]) -> bool:
    """Whether we are not in the background of the terminal."""
    try:
        return os.tcgetpgrp(out.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True
