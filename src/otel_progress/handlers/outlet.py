"""The bases of all outlets: start, stop, and the hooks for events, exit and fork; and a thread that draws."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

from otel_progress import forks
from otel_progress.live.engine import process, runtime
from otel_progress.live.hooks import item_sinks, sinks

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Outlet:
    """Receives every event of this process, its exit and its forks; has its own thread."""

    _name: ClassVar[str]
    _begin: Callable[[], None]
    _run: Callable[[], None]
    _finish: Callable[[], None]
    _take: Callable[..., None]
    _exit: Callable[[float], None]
    _running = False
    _thread: threading.Thread | None = None
    items = False
    """Whether it gets the events of single items, `progress.item.started` and `progress.item.completed`, as well."""

    def start(self) -> Self:
        """Start, until `stop()` or the end of the process; it may be called twice."""
        if self._running:
            return self
        self._begin()
        self._running = True
        for place, call in self._places():
            place.append(call)
        runtime.want()
        runtime.ensure()
        if process.threads_allowed:
            self._thread = threading.Thread(target=self._run, name=f"otel-progress-{self._name}", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Show or write what happened so far, and release everything; it may be called twice."""
        if self._running:
            runtime.ticker.ask(runtime.ticker.round, 0.5)
            self._finish()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop, as `stop()` does."""
        self.stop()

    def _places(self) -> tuple[tuple[list[Any], Any], ...]:
        """The lists of callbacks, each with ours."""
        return (
            (sinks, self._take),
            (process.at_exit, self._exit),
            (forks.in_child, self._after_fork_in_child),
            *(((item_sinks, self._take),) if self.items else ()),
        )

    def _leave(self) -> None:
        """Remove the callbacks."""
        self._running = False
        for place, call in self._places():
            if call in place:
                place.remove(call)
        runtime.unwant()

    def _after_fork_in_child(self) -> None:
        """Stop in a forked child, until that starts an outlet of its own."""
        Outlet._leave(self)
        self._thread = None


class DrawnOutlet(Outlet):
    """An outlet that is drawn again and again, by its own thread."""

    _hertz: ClassVar[int]
    refresh: Callable[[], None]

    def _begin(self) -> None:
        self._stopping = threading.Event()

    def _run(self) -> None:
        while not self._stopping.wait(1 / self._hertz):
            self.refresh()

    def _end_thread(self) -> None:
        """Let the thread end, and wait for it; it may be the one that calls."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _leave(self) -> None:
        super()._leave()
        self._stopping.set()

    def _after_fork_in_child(self) -> None:
        self._stopping = threading.Event()
        super()._after_fork_in_child()
