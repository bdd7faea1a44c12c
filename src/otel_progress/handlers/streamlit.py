"""Streamlit: the operations of a page, as a bar, metrics and a list of stages."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.handlers.live_view import take_notice
from otel_progress.handlers.outlet import Outlet
from otel_progress.handlers.scoped import ScopedHandler
from otel_progress.live.state import OperationState
from otel_progress.model.json_keys import stages_in_numbers
from otel_progress.model.status import Status
from otel_progress.model.units import duration, lasting, left, percent
from otel_progress.model.values import positive
from otel_progress.render import html, plain, words
from otel_progress.render.tree import TreeRow
from otel_progress.render.words import DASH, ICONS, STILL, STYLES, clean

if TYPE_CHECKING:
    from typing_extensions import Self

    from otel_progress.handlers.scoped import ScopedOperation
    from otel_progress.model.snapshot import Snapshot
    from otel_progress.render.words import Line

__all__ = ["StreamlitHandler", "show"]

PANELS: Final = 10
"""The most operations that a handler shows at a time: those that run, then those that ended last."""
SHOWN: Final = 500
"""The most operations whose state is kept for `show`."""
STAGES: Final = 15
"""The most stages that are listed of an operation that ended."""


class StreamlitPanel:
    """The elements that show one operation, in their places."""

    def __init__(self, container: Any) -> None:
        """Take a place in a container for each of them."""
        box = container.container(border=True)
        self._head, self._bar = box.empty(), box.empty()
        self._metrics = [column.empty() for column in box.columns(3)]
        self._rest = box.empty()
        self._drawn: dict[Any, Any] = {}

    def show(self, operation: ScopedOperation, now: float) -> Snapshot | None:
        """Update those elements that changed; returns the state that is shown."""
        snapshot, rows, more = operation.look(now)
        if snapshot is None:
            return None
        top = rows[0] if rows and rows[0].depth == 0 and not operation.over else TreeRow(0, 0)
        told = list(operation.told)
        if snapshot.status.final:
            told = [*told, *plain.closing(snapshot, clean(snapshot.name), STAGES)[1:]]
        body = (html.lines(told), html.tree(_below(rows), more))
        self._draw(self._head, "html", html.panel((html.lines(_head(snapshot, top)),)))
        if snapshot.progress.stated is not None:
            self._draw(self._bar, "progress", min(1.0, max(0.0, snapshot.progress.stated)))
        for place, metric in zip(self._metrics, _metrics(snapshot, top)):
            self._draw(place, "metric", *metric)
        if any(body):
            self._draw(self._rest, "html", html.panel(body))
        return snapshot

    def _draw(self, place: Any, kind: str, *value: Any) -> None:
        if self._drawn.get(id(place)) != value:
            getattr(place, kind)(*value)
            self._drawn[id(place)] = value


def _head(snapshot: Snapshot, top: TreeRow) -> list[Line]:
    """Icon, name, and status or trouble; then the percentage, the counts and the rate."""
    status, bad = snapshot.status, words.trouble(snapshot)
    icon, style = (top.icon, top.style) if top.icon else (ICONS.get(status, STILL), STYLES.get(status, "cyan"))
    said = (plain.outcome(snapshot), style) if status.final else (status.value, "dim")
    badge = () if bad is None else ((" ", ""), (f" {bad[0]} ", f"bold white on {bad[1]}"))
    ratio = snapshot.progress.stated
    counts = ("" if ratio is None else percent(ratio), words.counted(snapshot.progress), top.rate)
    line = ((f"{icon} ", style), (f"{clean(snapshot.name)}  ", "bold"), said, *badge)
    about = "  ".join(filter(None, counts))
    return [line, ((about, ""),)] if about and not status.final else [line]


def _metrics(snapshot: Snapshot, top: TreeRow) -> list[tuple[str, str]]:
    """Labels and values: the stage, the time that passed, the time left."""
    numbers = stages_in_numbers(snapshot)
    over, stages, here = snapshot.status.final, numbers["total_stages"], numbers["current_stage"]
    number = numbers["stages_completed"] if over else None if here is None else here + 1
    return [
        ("Stage", f"{number} of {stages}" if stages and number is not None else DASH),
        ("Elapsed", duration(snapshot.elapsed) if over else lasting(snapshot.elapsed)),
        ("Left", DASH if over else _left_of(snapshot, top) or DASH),
    ]


def _left_of(snapshot: Snapshot, top: TreeRow) -> str:
    """The time left: no less than that of a stage that runs, which stands below it."""
    own = snapshot.progress.eta
    running = [stage.progress.eta for stage in snapshot.stages if stage.status is Status.RUNNING and stage.progress.eta]
    longest = max(running, key=lambda one: one.eta, default=None)
    if own is None or longest is None or longest.eta <= own.eta or not top.eta:
        return top.eta.removesuffix(" left")
    return left(longest.eta, longest.low, longest.high)


def _below(rows: list[TreeRow]) -> list[TreeRow]:
    """The rows without that of the operation itself, which has other elements."""
    if not rows or rows[0].depth or rows[0].free is not None:
        return rows
    return [row._replace(depth=max(0, row.depth - 1)) for row in rows[1:]]


class StreamlitHandler(ScopedHandler):
    """Shows the operations that start inside its `with` block in a Streamlit container, while the script runs.

    Each has a bar, its status, metrics (stage, elapsed time, time left), its message, and the list of its stages and of
    what runs below it. It draws in a thread of its own with the script's context, so work in threads, tasks or plain
    calls may take as long as it likes. A page that is closed or run again ends the drawing, not the work. For work
    that outlives the run of the script use `show`.

    Args:
        container: where to draw, such as `st.container()` or `st.sidebar`; by default below what is there.
        operation_id: the id of the one operation to show; by default, those of the block.

    Raises:
        MissingDependency: if Streamlit is not installed.
        InvalidArgument: if `container` is no container of Streamlit.
    """

    _name = "streamlit"

    def __init__(self, container: Any = None, operation_id: str | None = None) -> None:
        """Create it in the script; its place in the container is taken now."""
        super().__init__(operation_id)
        self._script_context = _script_context()
        self._cursors = getattr(self._script_context, "cursors", None)
        self._script = threading.current_thread()
        self._place = _in(container).container()
        self._panels: dict[str, StreamlitPanel] = {}
        self._others: Any = None

    def gone(self) -> bool:
        """Whether the script ended or runs again, so that nothing of this run can be shown."""
        context = self._script_context
        return context is not None and (not self._script.is_alive() or context.cursors is not self._cursors)

    def draw(self, operations: list[ScopedOperation], now: float) -> None:
        """Update the panels."""
        if self._script_context is None or not _is_seen(self._script_context):
            return
        running, over = [one for one in operations if not one.over], [one for one in operations if one.over]
        shown = (running + over[::-1])[:PANELS]
        ids = {one.id for one in shown}
        free = [key for key in self._panels if key not in ids]
        for one in sorted(shown, key=operations.index):
            if one.id not in self._panels:
                full = len(self._panels) >= PANELS
                self._panels[one.id] = self._panels.pop(free.pop(0)) if full else StreamlitPanel(self._place)
            self._panels[one.id].show(one, now)
        text = self.left_out(len(operations) - len(shown))
        if text or self._others is not None:
            self._others = self._others or self._place.empty()
            self._others.text(text)

    def _run(self) -> None:
        if self._script_context is not None:
            from streamlit.runtime.scriptrunner import add_script_run_ctx

            add_script_run_ctx(threading.current_thread(), self._script_context)
        super()._run()

    def _is_inside(self) -> bool:
        """Threads to which the user attached the script's context belong to the page, too."""
        mine = self._script_context
        return super()._is_inside() or (mine is not None and _script_context() is mine)


class ShownOperations(ScopedHandler):
    """Keeps the state of operations that `show` was asked for, for every page of this process; draws nothing."""

    _name = "streamlit-shown"
    most = SHOWN

    def start(self) -> Self:
        """Start; no context belongs to it."""
        Outlet.start(self)
        return self

    def find(self, operation: OperationState | str) -> ScopedOperation | None:
        """The state of an operation, kept from now on; None if it is unknown."""
        if isinstance(operation, str):
            if operation in self._roots:
                return self._roots[operation]
            found = take_notice(operation)
            if found is None:
                return None
            operation = found
        elif operation.id not in self._roots:
            take_notice(operation.id)
        self._add(operation)
        return self._roots.get(operation.id)

    def draw(self, operations: list[ScopedOperation], now: float) -> None:
        """Pages draw."""

    def _is_inside(self) -> bool:
        return False

    def _run(self) -> None:
        """Needs no thread."""


_shown = ShownOperations()


def show(
    operation: OperationState | str, container: Any = None, *, every: float = 1.0, rerun: bool = False
) -> Snapshot | None:
    """Show an operation of this process on a Streamlit page, also if it runs in the background and outlives the script.

    It is a fragment that updates itself while the operation runs; the script goes on at once. Call it in each run of
    the script. Anyone who knows an id can show its operation: keep the ids of
    different users apart, for example in `st.session_state`.

    Args:
        operation: the operation, or its id; by its id it is found while it runs, and later if it was shown before.
        container: where to draw; by default below what is there.
        every: seconds between two updates.
        rerun: run the whole script again when the operation ends, once, so that it can show the result. Not for scripts
            that start an operation in each run: they would never end.

    Returns:
        Its state now; None if it is unknown.

    Raises:
        MissingDependency: if Streamlit is not installed.
        InvalidArgument: if an argument is invalid.
    """
    streamlit, place = _streamlit(), _in(container)
    if not isinstance(operation, (str, OperationState)):
        raise InvalidArgument(f"show() needs an operation or its id, not {operation!r}")
    pause = positive("every", every)
    _shown.start()
    found = _shown.find(operation)
    if found is None:
        place.html(html.lines((((f"operation {clean(operation)} is not known in this process", "dim"),),)))
        return None
    snapshot = found.look(clock.monotonic())[0]
    runs = snapshot is None or not snapshot.status.final

    def panel() -> Snapshot | None:
        state = StreamlitPanel(streamlit).show(found, clock.monotonic())
        if rerun and runs and state is not None and state.status.final:
            _rerun_once(found.id)
        return state

    with place.container():
        drawn: Snapshot | None = streamlit.fragment(panel, run_every=pause if runs else None)()
    return drawn


def _rerun_once(operation_id: str) -> None:
    """Run the script of this session again, once for each operation; does not return then."""
    streamlit = _streamlit()
    done: list[str] = streamlit.session_state.setdefault("_otel_progress_ended", [])
    if operation_id not in done:
        done.append(operation_id)
        del done[:-SHOWN]
        streamlit.rerun()


def _streamlit() -> Any:
    try:
        import streamlit
    except ImportError:
        raise MissingDependency('Streamlit is not installed: pip install "otel-progress[streamlit]"') from None
    return streamlit


def _in(container: Any) -> Any:
    """The container, or the page."""
    if container is None:
        return _streamlit()
    if not callable(getattr(container, "container", None)):
        raise InvalidArgument(f"container must be a container of Streamlit, such as st.container(), not {container!r}")
    return container


def _script_context() -> Any:
    """The context of the script that runs in this thread, or None outside of Streamlit."""
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    return get_script_run_ctx(suppress_warning=True)


def _is_seen(context: Any) -> bool:
    """Whether a browser shows the session."""
    from streamlit import runtime

    return not runtime.exists() or bool(runtime.get_instance().is_active_session(context.session_id))
