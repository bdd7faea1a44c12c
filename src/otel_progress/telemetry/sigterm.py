"""The handler of SIGTERM that `configure(handle_sigterm=True)` puts before the one that is set."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


def chain(on_signal: Callable[[], None]) -> None:
    """Call this on SIGTERM before what was done on it so far; a second call changes nothing."""
    before = signal.getsignal(signal.SIGTERM)
    if getattr(before, "otel_progress", False):
        return

    def handle(number: int, frame: Any) -> None:
        on_signal()
        if callable(before):
            before(number, frame)
        elif before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    handle.otel_progress = True  # type: ignore[attr-defined]
    handle.before = before  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, handle)


def unchain() -> None:
    """Put the handler before ours back, if ours is still set and this is the main thread."""
    handler = signal.getsignal(signal.SIGTERM)
    if getattr(handler, "otel_progress", False) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler.before)  # type: ignore[union-attr]
