"""Starts a command as a shell does, and reports failures as a shell does."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from typing import Any, Final

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
SHELL: Final = "/bin/sh"
HEAD: Final = 128
"""Bytes read from the start of a file to tell a script from a binary."""
NAME: Final = 200
"""The most characters of a command's name in a message."""


class NotStarted(Exception):
    """A command can't be started: the reason, and the exit code that a shell uses for it."""

    def __init__(self, name: str, why: str, code: int) -> None:
        """Create it for the command of this name."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in name[:NAME])
        super().__init__(f"{shown or repr(name)}: {why}")
        self.code = code


def spawn(command: list[str], environ: Mapping[str, str], **how: Any) -> int:
    """Start a command; returns its pid. A script without a `#!` line is run by the shell.

    Args:
        command: its name, or a path, and its arguments.
        environ: its environment.
        how: further arguments of `os.posix_spawn`.

    Raises:
        NotStarted: if there is no such command, or it can't be executed.
    """
    name = command[0]
    if not name:
        raise NotStarted(name, "command not found", NOT_FOUND)
    try:
        return os.posix_spawnp(name, command, environ, **how)
    except OSError as error:
        path = _path_of(name)
        if error.errno != errno.ENOEXEC or not _is_text(path):
            raise _told(name, path, error) from None
    except ValueError as error:  # such as a NUL in an argument
        raise NotStarted(name, str(error), NOT_EXECUTABLE) from None
    try:
        return os.posix_spawn(SHELL, [SHELL, path, *command[1:]], environ, **how)
    except OSError as error:
        raise _told(name, path, error) from None


def _told(name: str, path: str, error: OSError) -> NotStarted:
    if isinstance(error, FileNotFoundError) and not os.path.exists(path):
        return NotStarted(name, "command not found", NOT_FOUND)
    if isinstance(error, FileNotFoundError):
        return NotStarted(name, "the interpreter in its first line does not exist", NOT_EXECUTABLE)
    if os.path.isdir(path):
        return NotStarted(name, "it is a directory", NOT_EXECUTABLE)
    return NotStarted(name, error.strerror or str(error), NOT_EXECUTABLE)


def _path_of(name: str) -> str:
    """The file that a command's name stands for."""
    return name if os.sep in name else shutil.which(name) or name


def _is_text(path: str) -> bool:
    """Whether a file looks like a script, and not like a binary for another machine."""
    try:
        with open(path, "rb") as file:
            return b"\0" not in (head := file.read(HEAD)) and not head.startswith(b"\x7fELF")
    except OSError:
        return False
