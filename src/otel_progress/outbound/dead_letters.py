"""Dead letters: webhook deliveries that were given up or refused, in a private file from which they can be sent again.

A line is a JSON object: `time` (Unix seconds), `reason`, `id`, `kind`, `operation_id`, and the `body` as it was posted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_progress import clock, files
from otel_progress.errors import InvalidArgument

log = logging.getLogger("otel_progress")

MOST_BYTES: Final = 16 * 1024 * 1024
"""The size at which the file is renamed to `<path>.1`, which replaces the one before."""
SENDING: Final = ".sending"
"""What is added to the name of the file while its letters are sent again."""


class DeadLetter(NamedTuple):
    """A delivery that did not arrive, and why."""

    reason: str
    id: str
    kind: str
    operation_id: str
    body: bytes


class DeadLetters:
    """A file of dead letters; several processes may use one. It is opened for each write, and never held open."""

    def __init__(self, path: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> None:
        """Check the path.

        Args:
            path: the file, which no other user can read.
            most_bytes: the size at which it is renamed.

        Raises:
            InvalidArgument: if no file can be created there.
        """
        self.path: Final = Path(os.path.abspath(path))
        self._most = most_bytes
        self._told = False
        self._lock = threading.Lock()
        try:
            os.close(files.open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        except OSError as error:
            raise InvalidArgument(f"dead letters can't be kept in {self.path}: {error.strerror or error}") from None

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Append letters; an error is logged once, and never raised."""
        text = b"".join(_line(one) for one in letters)
        if not text:
            return
        with self._lock:
            try:
                self._append(text)
            except OSError as error:
                if not self._told:
                    self._told = True
                    log.warning("dead letters can't be written to %s: %s", self.path, error)

    def _append(self, text: bytes) -> None:
        fd = files.open_private(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if size and size + len(text) > self._most:
                os.replace(self.path, f"{self.path}.1")
                os.close(fd)
                fd = files.open_private(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
                size = 0
            if size and os.pread(fd, 1, size - 1) != b"\n":  # a full disk cut the last line off
                text = b"\n" + text
            os.write(fd, text)
        finally:
            os.close(fd)


def _line(one: DeadLetter) -> bytes:
    body = one.body.decode("utf-8", "replace")
    said = {"time": round(clock.unix(), 3), **one._asdict(), "body": body}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


class Resent(NamedTuple):
    """How many dead letters arrived, failed again, and could not be read."""

    arrived: int = 0
    failed: int = 0
    unreadable: int = 0


def resend(path: str | os.PathLike[str], post: Callable[[DeadLetter], str | None]) -> Resent:
    """Send the letters of a file again, in their order; those that fail again are put back.

    The file is renamed while they are sent. If that is interrupted, the next call continues with what was renamed, so a
    receiver may see an id twice.

    Args:
        path: the file.
        post: sends one letter; returns why it failed, or None.

    Raises:
        OSError: if the file can't be read.
    """
    here, aside = Path(path), Path(f"{os.fspath(path)}{SENDING}")
    interrupted = aside.exists()
    if not interrupted:
        os.replace(here, aside)
    first = _resend(here, aside, post)
    if not (interrupted and here.exists()):
        return first
    os.replace(here, aside)
    second = _resend(here, aside, post)
    return Resent(first.arrived + second.arrived, second.failed, first.unreadable + second.unreadable)


def _resend(here: Path, aside: Path, post: Callable[[DeadLetter], str | None]) -> Resent:
    letters, unreadable = _read(aside)
    failed = [one._replace(reason=why) for one in letters if (why := post(one)) is not None]
    if failed:
        DeadLetters(here).add(failed)
    aside.unlink()
    return Resent(len(letters) - len(failed), len(failed), unreadable)


def _read(path: Path) -> tuple[list[DeadLetter], int]:
    """The letters of a file, and how many lines are none."""
    letters, broken = [], 0
    for line in files.read_private(path).splitlines():
        try:
            said: dict[str, Any] = json.loads(line)
            reason, id, kind, operation, body = (str(said[key]) for key in (*DeadLetter._fields,))
            letters.append(DeadLetter(reason, id, kind, operation, body.encode()))
        except (ValueError, KeyError, TypeError):
            broken += 1
    return letters, broken
