"""The live view of `watch`: a tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence
from typing import IO, Any, Final

from otel_progress import clock, settings
from otel_progress.cli.guide import sending
from otel_progress.cli.query.client import Client, ConnectionLost, ErrorResponse
from otel_progress.cli.query.exit_codes import NOT_FOUND, CommandError
from otel_progress.cli.query.on_screen import OnScreen
from otel_progress.cli.query.rows import items, label_of, mapping, number, snapshot_of, text
from otel_progress.cli.query.subscription import Disconnected, Item, Subscription
from otel_progress.cli.query.view_model import STAGES, ViewModel
from otel_progress.model.snapshot import Snapshot
from otel_progress.render import plain
from otel_progress.render.diversion import on_terminal
from otel_progress.render.screen import Screen
from otel_progress.render.tree import TreeLayout, TreeOptions, rows_of
from otel_progress.render.words import DOT, Calm, Line, clean

HERTZ: Final = 8
LINGER: Final = 0.2
"""Seconds to wait for late events when the operation has ended."""
NEWEST: Final = 3
"""The most ended unplanned stages, and ended children, that the tree shows one by one."""
LOOKUPS: Final = 50
"""The most operations that are looked up after a gap because they no longer run."""


class WatchView:
    """Shows what a subscription delivers: a tree on a terminal, plain lines elsewhere."""

    _prefix = ""
    """Begins lines about the connection and the monitor, where a command prints lines of its own."""

    def __init__(
        self,
        client: Client,
        out: IO[str],
        key: str | None = None,
        *,
        everything: bool = False,
        screen: Screen | None = None,
        board: ViewModel | None = None,
    ) -> None:
        """Show one operation, or all; on a screen and with a view model of its own unless they are given."""
        self._client, self._key, self._out = client, key, out
        self._draws = drawn_on(out)
        self._screen, self._sheet = screen or Screen(out, draws=self._draws), TreeLayout()
        self._calm = Calm()
        self._board = board or ViewModel(draws=self._draws, root=key, everything=everything)
        self._down: Disconnected | None = None
        self._blind = 0.0
        self._told: str | None = None
        self._shown = OnScreen(client)
        self._listed = False
        """Whether the first list has arrived."""

    def run(self, first: dict[str, Any] | None, before: list[dict[str, Any]]) -> Snapshot:
        """Run until that operation ends, or until interrupted; returns its last state.

        Raises:
            CommandError: if the subscription ends.
        """
        feed = Subscription(self._client, self._key)
        try:
            for row in before:
                self._screen.print(plain.closing(snapshot_of(row), label_of(row), STAGES))
            if first is not None:
                self._board.detail(first)
            if self._board.ended is None:
                feed.start()
                self._follow(feed)
            assert self._board.ended is not None
            return self._board.ended
        except KeyboardInterrupt:
            self._goes_on()
            raise
        finally:
            feed.stop()
            self._leave()

    def _follow(self, feed: Subscription) -> None:
        while self._board.ended is None:
            self._show()
            for item in feed.take(1 / HERTZ):
                self._take(item)
            if reader_left(self._out):
                raise BrokenPipeError
        until = clock.monotonic() + LINGER
        while (left := until - clock.monotonic()) > 0:
            for item in feed.take(left):
                if item.kind == "events":
                    self._take(item)

    def _take(self, item: Item) -> None:
        kind, data = item
        if kind in ("up", "down"):
            self._connection(data)
        elif kind == "over":
            raise data
        elif kind == "gone":
            raise CommandError("".join(words for words, _ in self._board.gone(self._key or "")), NOT_FOUND)
        elif kind == "loaded":
            self._loaded(data)
        elif kind == "trouble":
            self._trouble(mapping(data).get("text"))
        elif kind == "hello":
            self._trouble(mapping(data).get("trouble"))
            self._board.server_time(number(mapping(data).get("server_time")) or clock.unix())
        elif kind == "changes":
            self._board.changed(items(mapping(data).get("rows")))
            self._board.removed(mapping(data).get("removed") or [])
        elif kind == "operation":
            self._board.detail(mapping(data))
        elif kind == "events":
            self._board.events(items(mapping(data).get("events")))

    def _connection(self, down: Disconnected | None) -> None:
        """The connection was lost or restored; without a tree, print that once, and each change of the pause."""
        now, before = clock.monotonic(), self._down
        self._down = down
        if down is not None and before is None:
            self._blind = now
        if self._draws:
            return
        if down is not None and (before is None or before.pause != down.pause):
            self._screen.print([((f"{self._prefix}{self._lost(down.pause)} ({down.reason})", "yellow"),)])
        elif down is None and before is not None:
            self._screen.print([((f"{self._prefix}connected again", "green"),)])

    def _trouble(self, given: object) -> None:
        """Print a problem of the monitor itself, once."""
        words = text(given)
        if words != self._told:
            self._told = words
            line = f"the monitor has a problem: {words}" if words else "the monitor has recovered"
            self._screen.print([((self._prefix + line, "yellow" if words else "green"),)])

    def _loaded(self, data: Any) -> None:
        if self._key is not None:
            self._board.detail(data)
            return
        self._listed = True
        missing = self._board.loaded(items(data))
        for key in missing[:LOOKUPS]:
            try:
                self._board.changed([self._client.operation(key)])
            except (CommandError, ErrorResponse):
                self._screen.print([self._board.gone(key)])
                self._board.removed([key])
            except ConnectionLost:
                return
        self._board.removed(missing[LOOKUPS:])

    # -- what is shown

    def _show(self) -> None:
        # Clocks stop while the connection is lost: nothing is known of what runs.
        now = self._blind if self._down is not None else clock.monotonic()
        news = self._board.news()
        if not self._draws:
            if self._down is None:
                news.extend(self._board.progress(now))
            self._screen.print(news)
            return
        foot = self._foot()
        width, room = self._screen.rich.width, self._screen.room
        branches, more = self._board.branches(now, room)
        if self._key is None and self._down is None:  # the stream of one operation says it by itself
            self._shown.show(branch.snapshot.operation_id for branch in branches)
        rows = rows_of(branches, TreeOptions(int(now * HERTZ), NEWEST, self._calm))
        tree = self._sheet.lines(rows, width, max(2, room - len(foot)), more)
        self._screen.put_up()
        self._screen.draw([*tree, *foot], news)

    def _foot(self) -> list[Line]:
        """How many run, or how to send some; and whether the connection is lost."""
        if self._down is not None:
            left = self._down.until - clock.monotonic()
            line: Line = ((self._lost(left), "bold yellow"), (f"  {self._down.reason}", "yellow"))
        elif self._key is not None or not self._listed:
            return []
        elif not self._board.running:
            line = (("nothing runs yet", "bold"), (f"{DOT}Ctrl+C leaves", "dim"))
            how = sending(self._client.url)
            return [
                cut(line, self._screen.rich.width),
                cut((("send with  ", "dim"), (how, "")), self._screen.rich.width),
            ]
        else:
            parts: list[Line] = [self._board.state(), ((self._client.url, "dim"),), (("Ctrl+C leaves", "dim"),)]
            line = fitted(parts, self._screen.rich.width)
        return [cut(line, self._screen.rich.width)]

    def _lost(self, pause: float) -> str:
        if pause <= 0:
            return "connection lost, retrying"
        return f"connection lost, retrying in {max(1, round(pause))} s"

    def _goes_on(self) -> None:
        """Print that the operation goes on."""
        if self._draws and self._key is not None:
            self._screen.take_down()
            self._screen.print([((f"{clean(self._key)} goes on; `otel-progress cancel` ends it", "dim"),)])

    def _leave(self) -> None:
        """Print what is left, and restore the terminal."""
        self._screen.take_down()
        self._screen.print([*self._board.news(), *self._board.summary])


def drawn_on(out: IO[str]) -> bool:
    """Whether it is a terminal on which a tree can be redrawn."""
    return on_terminal(out) and settings.attended()


def reader_left(out: IO[str]) -> bool:
    """Whether it is a pipe whose reader is gone; found out without writing to it."""
    if sys.platform == "win32" or not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(out.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def fitted(parts: Sequence[Line], width: int) -> Line:
    """Join parts by dots; where they are too wide, the last one stays and those before it go, from the right."""
    *others, last = parts
    while others:
        line = [piece for part in others for piece in (*part, (DOT, "dim"))]
        if sum(len(words) for words, _ in (*line, *last)) < width:
            return (*line, *last)
        others.pop()
    return last


def cut(line: Line, width: int) -> Line:
    """Cut a line to the width, so that it never wraps."""
    cut: list[tuple[str, str]] = []
    left = width - 1
    for words, style in line:
        cut.append((words[:left], style))
        left -= len(words[:left])
    return tuple(cut)
