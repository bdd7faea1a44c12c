"""`os._exit` and `os.execv` run no hooks: here they first wait briefly until what ended has been sent.

Children made by `os.fork` usually end by `os._exit`. A function that was imported before, as by `from os import _exit`,
does not wait.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Final

SECONDS: Final = 0.2
"""Seconds that such a call waits, at most."""


@functools.cache
def watch(leave: Callable[[float], object]) -> None:
    """Have them call `leave` with the seconds that it may take; whatever it raises, they do what they do."""
    for name in ("_exit", "execv", "execve"):  # all others of `os` call these
        plain = getattr(os, name, None)
        if plain is not None:
            setattr(os, name, _after(leave, plain))


def _after(leave: Callable[[float], object], plain: Any) -> Any:
    @functools.wraps(plain)
    def call(*args: Any, **options: Any) -> Any:
        try:
            leave(SECONDS)
        except BaseException:
            pass  # there is nobody left to hear of it
        return plain(*args, **options)

    call.__module__ = "os"  # where pickle finds it
    return call
