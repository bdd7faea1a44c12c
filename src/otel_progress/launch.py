"""How this process was started: its command line, and the folder that it works in."""

from __future__ import annotations

import os
import sys
from typing import Final

_OF_SPAWN: Final = "--multiprocessing-fork"
"""The argument with which multiprocessing starts a worker, whose command line is of no use to anybody else."""


def command() -> tuple[str, ...]:
    """The command line that started this process, with the path of the interpreter; empty if it can't be started so."""
    given = list(sys.orig_argv)
    if not given or _OF_SPAWN in given:
        return ()
    if sys.executable and os.sep not in given[0]:  # found by a search path that others may not have
        given[0] = sys.executable
    return tuple(given)


def is_code() -> bool:
    """Whether the command line is a program in itself (`python -c`), which is nobody else's to read."""
    return sys.argv[:1] == ["-c"]


def folder() -> str:
    """The working directory; empty if it no longer exists."""
    try:
        return os.getcwd()
    except OSError:
        return ""
