"""The standard streams where the caller closed one, as `2>&-` does.

The number of a closed stream would go to the next file that is opened, such as a socket or a database, and what is
written to the stream would go there. So each number is taken by the null device before anything else is opened. It is
not inherited: a command that is started finds its streams as the caller left them.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill() -> None:
    """Let the null device stand for each standard stream that is closed; call it before anything else, once or more.

    Raises:
        OSError: where there is no null device.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(_null(number), mode, closefd=False))


def _null(number: int) -> int:
    """The null device under this number, or under another one where a file has that already."""
    null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free; those below are taken by now
    if null < number:
        os.dup2(null, number, inheritable=False)
        os.close(null)
        return number
    return null
