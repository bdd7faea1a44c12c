"""Standard streams that the caller closed, as `2>&-` does.

The next file that is opened, such as a socket or a database, would get the number of a closed stream, and receive what
is written to the stream. So the null device takes each free number before anything else is opened. It is not
inherited: a child process finds its streams as the caller left them.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill() -> None:
    """Open the null device in place of each closed standard stream; call it before anything else, once or more.

    Raises:
        OSError: if there is no null device.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(_null(number), mode, closefd=False))


def _null(number: int) -> int:
    """Open the null device under this number, or under another one if a file has it already."""
    null = os.open(os.devnull, os.O_RDWR)  # the lowest free number; those below are taken by now
    if null < number:
        os.dup2(null, number, inheritable=False)
        os.close(null)
        return number
    return null
