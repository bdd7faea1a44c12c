"""Dead letters: webhook deliveries that were given up or refused, in a private file from which they can be sent again.

A line is a JSON object: `time` (Unix seconds), `reason`, `id`, `kind`, `operation_id`, and the `body` as it was posted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_progress import clock, files
from otel_progress.errors import InvalidArgument

log = logging.getLogger("otel_progress")

MOST_BYTES: Final = 16 * 1024 * 1024
"""The size at which the file is renamed to `<path>.1`, which replaces the one before."""
SENDING: Final = ".sending"
"""What is added to the name of the file while its letters are sent again."""

LARGEST: Final = 16 * MOST_BYTES
"""The largest file that is taken for one of dead letters."""


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

    def put_back(self, letters: Iterable[DeadLetter], lines: Iterable[bytes]) -> None:
        """Append letters, and lines that are none, whatever the size of the file.

        Raises:
            OSError: if not all of it was written.
        """
        text = b"".join((*(_line(one) for one in letters), *(line + b"\n" for line in lines)))
        if text:
            with self._lock:
                self._append(text, bounded=False)

    def _append(self, text: bytes, *, bounded: bool = True) -> None:
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            if bounded and size and size + len(text) > self._most:
                os.replace(self.path, f"{self.path}.1")
                os.close(fd)
                fd = self._open()
                size = os.fstat(fd).st_size
            if size and _byte(fd, size - 1) != b"\n":  # a full disk cut the last line off
                text = b"\n" + text
            while text:
                text = text[os.write(fd, text) :]
        finally:
            os.close(fd)

    def _open(self) -> int:
        """Open the file, for this process alone until it is closed; not one that was renamed meanwhile."""
        while True:
            fd = files.open_private(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            _alone(fd)
            with contextlib.suppress(FileNotFoundError):
                if files.is_same(os.fstat(fd), os.stat(self.path)):
                    return fd
            os.close(fd)


def _byte(fd: int, at: int) -> bytes:
    os.lseek(fd, at, os.SEEK_SET)  # what is written is appended, wherever this is
    return os.read(fd, 1)


def _alone(fd: int) -> None:
    """Wait until no other process appends to the file, or reads it to send it again: for a moment."""
    try:
        import fcntl
    except ImportError:  # such systems rename no open file
        return
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(fd, fcntl.LOCK_EX)


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
    """Send the letters of a file again, in their order; those that fail again, and lines that are none, are put back.

    Nothing is touched before the file proved to be one of dead letters. It is renamed while they are sent. If that is
    interrupted, the next call continues with what was renamed, so a receiver may see an id twice. A link is resolved.

    Args:
        path: the file.
        post: sends one letter; returns why it failed, or None.

    Raises:
        InvalidArgument: if it is no regular file, holds no dead letters, or is being sent by another process.
        OSError: if it can't be read, or what failed again can't be written; then nothing is lost.
    """
    here = files.resolve(path)
    aside = Path(f"{here}{SENDING}")
    if here.parent.is_dir() and not os.path.lexists(here) and not os.path.lexists(aside):
        return Resent()  # nothing failed yet, or all was sent
    _check(here, aside)
    with _sole_sender(aside):
        interrupted, more = _check(here, aside)
        os.close(files.open_private(here, os.O_WRONLY | os.O_CREAT | os.O_APPEND))  # what fails can be put back
        found = _resend(here, aside, post) if interrupted else Resent()
        if more:
            os.replace(here, aside)
            again = _resend(here, aside, post)
            found = again._replace(arrived=found.arrived + again.arrived)
        return found._replace(unreadable=_tidy(here))


def _check(here: Path, aside: Path) -> tuple[bool, bool]:
    """Whether there is what an interrupted call left, and whether the file holds letters; it changes nothing."""
    interrupted = os.path.lexists(aside)
    if interrupted and not _read(aside)[0]:
        raise InvalidArgument(f"{aside}, where an interrupted `resend` keeps dead letters, holds none: move it away")
    if interrupted and not os.path.lexists(here):
        return True, False
    letters, others = _read(here)
    if others and not letters and not interrupted:
        raise InvalidArgument(f"{here} holds no dead letters; it was not changed")
    return interrupted, bool(letters)


@contextlib.contextmanager
def _sole_sender(aside: Path) -> Iterator[None]:
    """Let no other process send the same letters meanwhile."""
    name = f"{aside}.lock"
    try:
        lock = files.Lock(name)
        lock.renew()  # whoever held it may have removed the file
    except files.Held as held:
        who = "another process" if held.pid is None else f"process {held.pid}"
        raise InvalidArgument(f"{who} sends these dead letters just now: try again when it is done") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
        lock.release()


def _resend(here: Path, aside: Path, post: Callable[[DeadLetter], str | None]) -> Resent:
    letters, others = _read(aside)
    failed = [one._replace(reason=why) for one in letters if (why := post(one)) is not None]
    DeadLetters(here).put_back(failed, others)
    aside.unlink()
    return Resent(len(letters) - len(failed), len(failed))


def _tidy(here: Path) -> int:
    """Remove the file if it is empty; else return how many of its lines are no letters."""
    fd = files.open_private(here, os.O_RDWR | os.O_CREAT)
    try:
        _alone(fd)
        is_empty = not os.fstat(fd).st_size
        if is_empty:
            here.unlink()  # whoever waits to append makes a new one
    finally:
        os.close(fd)
    return 0 if is_empty else len(_read(here)[1])


def _read(path: Path) -> tuple[list[DeadLetter], list[bytes]]:
    """The letters of a file, and the lines that are none."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidArgument(f"{path} is no regular file, so it holds no dead letters; it was not changed")
    if found.st_size > LARGEST:
        raise InvalidArgument(f"{path} is larger than dead letters get ({LARGEST >> 20} MiB); it was not changed")
    letters, others = [], []
    fd = os.open(path, os.O_RDONLY)
    try:
        _alone(fd)
        lines = files.read_private(path).split(b"\n")
    finally:
        os.close(fd)
    for line in filter(bytes.strip, lines):
        try:
            letters.append(_letter(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            others.append(line)
    return letters, others


def _letter(said: dict[str, Any]) -> DeadLetter:
    """A letter from its line; its id and kind must be fit for a header."""
    texts = [said[key] for key in DeadLetter._fields]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a field is no text")
    reason, id, kind, operation, body = texts
    if not all(text.isascii() and text.isprintable() and text.strip() for text in (id, kind)):
        raise ValueError("no id or no kind")
    return DeadLetter(reason, id, kind, operation, body.encode())
