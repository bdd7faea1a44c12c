"""The first process of a container, for which the kernel drops a signal without a handler.

Until a command handles SIGTERM itself, for which it is to be imported first, a stop of the container would be lost.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

_FIRST = 1


def end_at_sigterm() -> None:
    """In process 1, let SIGTERM end the program as it ends any other; call it first, in the main thread."""
    if os.getpid() == _FIRST and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
