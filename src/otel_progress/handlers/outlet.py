"""What all outlets share: how one is started and stopped, and what it hears of."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

from otel_progress import forks
from otel_progress.live.engine import process, runtime
from otel_progress.live.hooks import sinks

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Outlet:
    """Hears of every event of this process, of its end, and of a fork; has a thread of its own."""

    _name: ClassVar[str]
    _begin: Callable[[], None]
    _run: Callable[[], None]
    _finish: Callable[[], None]
    _take: Callable[..., None]
    _exit: Callable[[float], None]
    _running = False
    _thread: threading.Thread | None = None

    def start(self) -> Self:
        """Go on from now, until `stop()` or the end of the process; it may be called twice."""
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
        """Tell what happened so far, and give everything back; it may be called twice."""
        if self._running:
            runtime.ticker.ask(runtime.ticker.round, 0.5)
            self._finish()

    def __enter__(self) -> Self:
        """Go on from now."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Tell what happened so far, and give everything back."""
        self.stop()

    def _places(self) -> tuple[tuple[list[Any], Any], ...]:
        """Where it is hooked in."""
        return (
            (sinks, self._take),
            (process.at_exit, self._exit),
            (forks.in_child, self._after_fork_in_child),
        )

    def _leave(self) -> None:
        """Hear of nothing any more."""
        self._running = False
        for place, call in self._places():
            if call in place:
                place.remove(call)
        runtime.unwant()

    def _after_fork_in_child(self) -> None:
        """The outlet is the parent's; a forked child is silent until it starts one of its own."""
        Outlet._leave(self)
        self._thread = None
