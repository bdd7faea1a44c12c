"""Command lines as arguments without secrets, and as one line for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Final

MOST: Final = 256
"""The most arguments that are kept."""
LENGTH: Final = 4_096
"""The most characters of all arguments together."""
CUT: Final = "…"
"""The last argument of a command line that was cut."""
KIND: Final = "command"
"""What the redaction is told of such a text."""


def bounded(arguments: Iterable[str]) -> tuple[str, ...]:
    """The arguments within the limits."""
    kept: list[str] = []
    room = LENGTH
    for argument in arguments:
        room -= len(argument)
        if room < 0 or len(kept) >= MOST:
            return (*kept, CUT)
        kept.append(argument)
    return tuple(kept)


def without_secrets(arguments: Sequence[str], redact: Callable[[str, str], str]) -> tuple[str, ...]:
    """The arguments with secrets masked; also one whose meaning only the argument before it tells: `--token abc`.

    Args:
        arguments: the command line.
        redact: a function of the kind of a text and the text.
    """
    out: list[str] = []
    before = ""
    for argument in arguments:
        masked = redact(KIND, argument)
        if before.startswith("-") and masked == argument:
            pair = redact(KIND, f"{before} {argument}")
            if pair.startswith(f"{before} "):
                masked = pair[len(before) + 1 :]
        out.append(masked)
        before = argument
    return tuple(out)


def is_cut(arguments: Sequence[str]) -> bool:
    """Whether arguments are missing."""
    return bool(arguments) and arguments[-1] == CUT


def shell_line(arguments: Sequence[str], folder: str = "") -> str:
    """The line that runs the command in a POSIX shell, in its folder."""
    line = shlex.join(arguments)
    return f"cd {shlex.quote(folder)} && {line}" if folder else line
