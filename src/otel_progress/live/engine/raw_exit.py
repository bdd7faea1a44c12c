"""`os._exit`, which runs no hooks at the end of a process: it waits briefly until what ended has been sent.

Children made by `os.fork` end that way. A copy that somebody imported before, as by `from os import _exit`, does not
wait.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Final

SECONDS: Final = 0.2
"""Seconds that `os._exit` waits, at most."""


@functools.cache
def watch(leave: Callable[[float], object]) -> None:
    """Have `os._exit` call `leave` with the seconds that it may take; whatever it raises, the process ends."""
    plain: Any = os._exit

    @functools.wraps(plain)
    def _exit(status: int) -> None:
        try:
            leave(SECONDS)
        finally:
            plain(status)

    os._exit = _exit  # type: ignore[assignment]
