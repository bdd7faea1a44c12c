"""Our threads, hidden from a program that waits for all of its own: ours end with the process."""

from __future__ import annotations

import functools
import threading
from typing import Final

PREFIX: Final = "otel-progress"
"""How the names of our threads begin."""


@functools.cache
def hide() -> None:
    """Leave them out of `threading.enumerate()` and `threading.active_count()`."""
    plain = threading.enumerate

    @functools.wraps(plain)
    def enumerate() -> list[threading.Thread]:
        return [thread for thread in plain() if not thread.name.startswith(PREFIX)]

    @functools.wraps(threading.active_count)
    def active_count() -> int:
        return len(enumerate())

    threading.enumerate, threading.active_count = enumerate, active_count
