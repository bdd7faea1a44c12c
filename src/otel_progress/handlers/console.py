"""The console: shows what runs as a live tree in the terminal, or as plain lines without a terminal.

Its own thread looks at the operations eight times a second and draws what fits the terminal. Ends, trouble and notes
come from the ticker through a bounded queue, and stay above the tree. Prints and log lines are written between two
frames. The job never waits for a frame, except when it prints.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import IO, TYPE_CHECKING, Final

from otel_progress import clock, settings
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.handlers.live_view import LiveView, Verbosity
from otel_progress.handlers.outlet import DrawnOutlet
from otel_progress.live.guard import tell_once
from otel_progress.model.snapshot import Event
from otel_progress.render.diversion import on_terminal
from otel_progress.render.screen import Screen
from otel_progress.render.tree import TreeLayout

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.render.words import Line

__all__ = ["Console"]


HERTZ: Final = 8


class Console(DrawnOutlet):
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

    _name, _hertz = "console", HERTZ

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
        self._lock = threading.RLock()

    # -- life cycle

    def _begin(self) -> None:
        super()._begin()
        file = self._file or sys.stderr
        wanted = on_terminal(file) and settings.attended() if self._wanted is None else self._wanted
        self._draws = wanted and self.verbosity != "quiet"
        self._screen = Screen(file, draws=self._draws)
        self._sheet, self._view = TreeLayout(), LiveView(self.verbosity, draws=self._draws)

    def _finish(self) -> None:
        self._end_thread()
        if self._running:
            self._exit(0.0)
        self._leave()

    def _leave(self) -> None:
        super()._leave()
        try:
            self._screen.take_down()
        except Exception:
            tell_once("the terminal could not be given back; the job goes on")

    def _exit(self, _: float) -> None:
        """Print the ends and restore the terminal; if the process goes on, the next frame draws again."""
        try:
            with self._lock:
                news = self._view.news()
                self._screen.take_down()
                self._screen.print(news)
        except Exception:
            tell_once("the console failed at the end; the job goes on")

    def _after_fork_in_child(self) -> None:
        """Restore the streams in the child; the tree is the parent's."""
        self._lock = threading.RLock()
        self._screen.forget()
        super()._after_fork_in_child()

    def _take(self, event: Event, operation: OperationState) -> None:
        """Queue an event; the console's own thread prints it."""
        self._view.take(event, operation)

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
        news, screen = self._view.news(), self._screen
        lines = self._tree(now) if self._draws else []
        if lines:
            screen.put_up()
        else:
            screen.take_down()
        if not self._draws and self.verbosity != "quiet":
            news.extend(self._view.progress(now, self._every))
        screen.draw(lines, news)

    def _tree(self, now: float) -> list[Line]:
        width, height = self._screen.rich.size
        rows, more = self._view.rows(now, int(now * HERTZ), height - 1)
        return self._sheet.lines(rows, width, max(2, height - 2), more)
