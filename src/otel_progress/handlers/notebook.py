"""Notebooks (Jupyter, Colab, VS Code): a panel below each cell that shows the operations which that cell started.

A panel is one display that is updated in place, as HTML with plain text beside it: every front end shows one of the
two without an extension, and the last state stays in the saved notebook. A thread looks at the operations twice a
second. When a cell ends, its panel is brought up to date first, so that the output of the cell is complete.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import threading
import weakref
from collections import Counter, deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.handlers.console import Console
from otel_progress.handlers.live_view import LiveView, Verbosity, take_notice
from otel_progress.handlers.outlet import DrawnOutlet
from otel_progress.live import hooks
from otel_progress.live.engine import runtime
from otel_progress.live.guard import tell_once
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState
from otel_progress.model.status import Status
from otel_progress.render import html
from otel_progress.render.tree import TreeLayout, fitting
from otel_progress.render.words import joined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event
    from otel_progress.render.words import Line

__all__ = ["NotebookHandler"]

HERTZ: Final = 2
"""Updates of a panel a second, at most."""
ROWS: Final = 40
"""The most rows of the tree in a panel."""
LINES: Final = 200
"""The most lines of ends and trouble in a panel; completed ones make room first."""
SETTLE: Final = 5.0
"""Seconds that the end of a cell waits for the ticker, at most; usually it answers in a millisecond."""
WIDTH: Final = 120
"""Characters of a line of the plain text."""
CELL: Final = re.compile(r"ipykernel_\d+/(\d+\.py):(\d+)")
"""A place in the file that a cell is compiled from."""
PANELS: Final = 200
"""The most panels that are remembered; those in which nothing runs are forgotten first."""


class NotebookPanel:
    """The display below one cell: lines that stay, and the tree of what runs."""

    def __init__(self, request: Mapping[str, Any], verbosity: Verbosity, homes: Mapping[Any, NotebookPanel]) -> None:
        """Of the cell that `request` executes; nothing is shown yet."""
        self.view = LiveView(verbosity, draws=True, mine=lambda operation: homes.get(operation) is self)
        self.runs = True
        self._layout = TreeLayout()
        self._ended: Counter[Status] = Counter()
        self.attach(request)

    def attach(self, request: Mapping[str, Any]) -> None:
        """Belong to this run of the cell: a new display, without what was told in the earlier one."""
        self.request, self.display_id, self.shown = request, f"otel-progress-{os.urandom(8).hex()}", ""
        self._told: deque[Line] = deque()
        self._ended.clear()
        self._cut = 0

    def take(self, event: Event, operation: OperationState) -> None:
        """Take an event of one of its operations; called by the ticker."""
        self.runs = True
        if event.name == semconv.OPERATION_ENDED:
            self._ended[event.snapshot.status] += 1
        self.view.take(event, operation)

    def bundle(self, now: float) -> dict[str, str]:
        """What it shows now, as HTML and as plain text."""
        for line in self.view.news():
            self._keep(line)
        rows, more = self.view.rows(now, int(now * HERTZ), ROWS)
        self.runs = bool(rows)
        rows, more = fitting(rows, ROWS, more)
        told = [*self._summary(), *self._told]
        when: list[Line] = (
            [((f"as of {datetime.fromtimestamp(clock.time_ns() / 1e9, timezone.utc).astimezone():%H:%M:%S}", "dim"),)]
            if rows
            else []
        )
        plain = [*told, *self._layout.lines(rows, WIDTH, ROWS + 1, more), *when]
        return {
            "text/html": html.panel((html.lines(told), html.tree(rows, more), html.lines(when))),
            "text/plain": "\n".join(joined(line).rstrip() for line in plain),
        }

    def _keep(self, line: Line) -> None:
        """Add a line; of too many, drop the oldest that tells no trouble, else the oldest."""
        self._told.append(line)
        if len(self._told) > LINES:
            self._cut += 1
            del self._told[next((at for at, old in enumerate(self._told) if not _bad(old)), 0)]

    def _summary(self) -> list[Line]:
        """How many ended in which way, if there is no line for each."""
        ended = sum(self._ended.values())
        if not self._cut and ended <= LINES:
            return []
        counts = ", ".join(f"{count:,} {status.value}" for status, count in self._ended.most_common())
        cut = f"; {self._cut:,} lines are not shown" if self._cut else ""
        return [((f"{ended:,} ended: {counts}{cut}", "bold"),)]


class NotebookHandler(DrawnOutlet):
    """Shows the operations of this kernel below the cells that start them.

    The panel of a cell shows what the console shows: a tree with bars, rates and ETAs of what runs, and lines that stay
    for ends and trouble. It goes on while work in a thread or a task outlives its cell; a cell that is run again takes
    over what it left running. While anything runs, the panel says as of when it is, so that the saved notebook of a
    killed kernel tells what was known last.

    Where there is no notebook (a script, a terminal) it is a `Console`. A kernel needs one handler: a second one that
    is started takes over the panels, and `with` uses the one that runs already.

    Args:
        verbosity: as of `Console`.

    Raises:
        MissingDependency: if Rich is not installed.

    Example:
        `NotebookHandler().start()` in the first cell.
    """

    _name, _hertz = "notebook", HERTZ

    def __init__(self, verbosity: Verbosity = "normal") -> None:
        """Create it; nothing is shown before `start()`."""
        if verbosity not in ("quiet", "normal", "verbose"):
            raise InvalidArgument(f"verbosity must be 'quiet', 'normal' or 'verbose', not {verbosity!r}")
        if importlib.util.find_spec("rich") is None:
            raise MissingDependency('the notebook handler needs Rich: pip install "otel-progress[notebook]"')
        self._verbosity = verbosity
        self._console: Console | None = None
        self._borrows = False
        self._panels: list[NotebookPanel] = []
        self._homes: weakref.WeakKeyDictionary[OperationState, NotebookPanel] = weakref.WeakKeyDictionary()
        self._lock, self._drawing = threading.RLock(), threading.RLock()

    # -- life cycle

    def start(self) -> Self:
        """Start, until `stop()` or the end of the kernel; takes over from a handler that runs already."""
        if _shell() is None:
            self._console = self._console or Console(self._verbosity)
            self._console.start()
            return self
        super().start()
        take_notice()
        return self

    def stop(self) -> None:
        """Show what happened so far as the last state; it may be called twice."""
        console, self._console = self._console, None
        if console is not None:
            console.stop()
        super().stop()

    def __enter__(self) -> Self:
        """Start, unless a handler runs already, which then shows it."""
        self._borrows = _active is not None and _active is not self and _active._running
        return self if self._borrows else self.start()

    def __exit__(self, *_: object) -> None:
        """Stop; a handler that ran already goes on."""
        if not self._borrows:
            self.stop()
        elif _active is not None:
            _active.settle()

    def _begin(self) -> None:
        super()._begin()
        global _active
        before, _active = _active, self
        if before is not None and before is not self and before._running:
            self._panels, self._homes = before.hand_over()
        self._shell = _shell()
        for name, call in self._cell_events():
            self._shell.events.register(name, call)

    def _finish(self) -> None:
        self._end_thread()
        self.refresh()
        self._leave()
        self._panels, self._homes = [], weakref.WeakKeyDictionary()

    def hand_over(self) -> tuple[list[NotebookPanel], Any]:
        """Stop, and give away the panels as they are, to the handler that takes its place."""
        panels, homes = self._panels, self._homes
        self._leave()
        self._panels, self._homes = [], weakref.WeakKeyDictionary()
        return panels, homes

    def _leave(self) -> None:
        super()._leave()
        for name, call in self._cell_events():
            try:
                self._shell.events.unregister(name, call)
            except ValueError:
                pass

    def _places(self) -> tuple[tuple[list[Any], Any], ...]:
        return (*super()._places(), (hooks.on_operation, self._begun))

    def _exit(self, _: float) -> None:
        self.refresh()

    def _after_fork_in_child(self) -> None:
        """The panels are the parent's."""
        global _active
        self._lock, self._drawing = threading.RLock(), threading.RLock()
        self._panels, self._homes, _active = [], weakref.WeakKeyDictionary(), None
        super()._after_fork_in_child()
        self._leave()

    # -- cells

    def _cell_events(self) -> tuple[tuple[str, Any], ...]:
        return ("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ended)

    def _cell_begins(self, *_: object) -> None:
        """A cell is run again: what it left running is shown in its new output."""
        try:
            request = _request(self._shell)
            cell = _cell(request)
            with self._drawing, self._lock:
                for panel in [one for one in self._panels if cell is not None and _cell(one.request) == cell]:
                    if panel.runs:
                        panel.attach(request)
                    else:
                        self._panels.remove(panel)
        except Exception:
            tell_once("the notebook handler failed; the job goes on")

    def _cell_ended(self, *_: object) -> None:
        self.settle()

    def settle(self) -> None:
        """Bring the panels up to date, before the cell counts as done."""
        if any(panel.runs for panel in self._panels) or registry.changes:
            runtime.ticker.ask(runtime.ticker.round, SETTLE)
            self.refresh()

    def _begun(self, operation: OperationState) -> None:
        """Remember the cell of an operation; called in the job's thread."""
        try:
            with self._lock:
                self._panel_of(operation)
        except Exception:
            tell_once("the notebook handler failed; the job goes on")

    def _panel_of(self, operation: OperationState) -> NotebookPanel:
        """The panel of an operation: its parent's, else that of the cell that runs in this thread or task."""
        panel = self._homes.get(operation)
        if panel is None:
            parent = operation._opts.parent or operation._parent
            panel = self._homes.get(parent.operation) if isinstance(parent, HandleState) else None
            self._homes[operation] = panel = panel or self._panel_here()
            panel.runs = True
        return panel

    def _panel_here(self) -> NotebookPanel:
        request = _request(self._shell)
        for panel in reversed(self._panels):
            if _number(panel.request) == _number(request):
                return panel
        self._panels.append(panel := NotebookPanel(request, self._verbosity, self._homes))
        if len(self._panels) > PANELS:
            del self._panels[next((at for at, one in enumerate(self._panels) if not one.runs), 0)]
        return panel

    # -- events and frames

    def _take(self, event: Event, operation: OperationState) -> None:
        """Queue an event; called by the ticker."""
        with self._lock:
            self._panel_of(operation).take(event, operation)

    def refresh(self) -> None:
        """Update the panels in which something runs or ended; called by the thread."""
        try:
            with self._drawing:
                if not self._running:
                    return
                with self._lock:
                    for operation in registry.operations():
                        self._panel_of(operation)
                    panels = [one for one in self._panels if one.runs]
                for panel in panels:
                    self._draw(panel)
        except Exception:
            tell_once("the notebook handler could not show a panel; the job goes on")

    def _draw(self, panel: NotebookPanel) -> None:
        bundle = {kind: self._with_cells(text) for kind, text in panel.bundle(clock.monotonic()).items()}
        shown = bundle["text/html"]
        if not bundle["text/plain"] or shown == panel.shown:
            return
        self._publish(bundle, panel)
        panel.shown = shown

    def _with_cells(self, text: str) -> str:
        """Name lines of cells as tracebacks do: `In[8] line 2`, not the file that a cell is compiled from."""
        known = getattr(self._shell.compile, "format_code_name", None)
        if known is None or "ipykernel_" not in text:
            return text
        from ipykernel.compiler import get_tmp_directory

        def named(found: re.Match[str]) -> str:
            cell = known(f"{get_tmp_directory()}{os.sep}{found[1]}")
            return found[0] if cell is None else f"{cell[1]} line {found[2]}"

        return CELL.sub(named, text)

    def _publish(self, bundle: dict[str, str], panel: NotebookPanel) -> None:
        """Show a bundle below the cell of a panel, whichever cell runs now.

        An update names the display and no cell: programs such as nbclient read only messages of the cell that runs.
        """
        from IPython.display import display, update_display

        if panel.shown:
            update_display(bundle, display_id=panel.display_id, raw=True)
            return
        publisher = self._shell.display_pub
        enter = getattr(publisher, "set_thread_parent", None)  # without it, the display goes to the newest cell
        token = enter(panel.request) if enter is not None else None
        try:
            display(bundle, display_id=panel.display_id, raw=True)
        finally:
            if enter is not None:
                publisher.reset_thread_parent(token)


_active: NotebookHandler | None = None


def _shell() -> Any:
    """The shell of IPython if it belongs to a kernel, whose front end shows displays; else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def _request(shell: Any) -> Mapping[str, Any]:
    """The message that asked for the cell which runs here."""
    return shell.get_parent() or {}


def _number(request: Mapping[str, Any]) -> Any:
    """What tells the runs of cells apart."""
    return request.get("header", {}).get("msg_id")


def _cell(request: Mapping[str, Any]) -> Any:
    """The id of the cell, if the front end tells it."""
    return request.get("metadata", {}).get("cellId")


def _bad(line: Line) -> bool:
    return any("red" in style or "yellow" in style for _, style in line)
