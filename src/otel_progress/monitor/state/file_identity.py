"""Whether the open file is still the one that a restart will read: it may be removed, replaced or truncated.

What is written to a removed file is lost with the process. So after each commit, before it is acknowledged, the names
are compared with what is open; that takes microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from otel_progress import files

HEADER: Final = 100
"""The first bytes of an SQLite file."""
_MAGIC: Final = b"SQLite format 3\x00"


class FileIdentity:
    """The file of a store and its log, as they were opened. It belongs to the thread that writes."""

    def __init__(self, path: Path, log_bytes: int) -> None:
        """Open the file, and create it if it does not exist; to be closed after SQLite has closed it.

        SQLite itself truncates the log to `log_bytes`.

        It holds a descriptor of its own, as closing one releases all locks that SQLite has on the file.

        Raises:
            OSError: if it cannot be opened, `files.Unsafe` included.
        """
        self._path = path
        self._log = Path(f"{path}-wal")
        self._fd = files.open_private(path)
        self._logged: os.stat_result | None = None
        self._size = self._log_size = 0
        self._log_bytes = log_bytes
        self._needs: Callable[[], int] = lambda: 0

    def begin(self, needs: Callable[[], int]) -> None:
        """SQLite has opened both; `needs` returns how many bytes of the log it needs."""
        self._needs = needs
        self._logged = self._log.stat()
        self.emptied()

    def emptied(self) -> None:
        """We emptied the log."""
        log = _stat(self._log)
        self._log_size = 0 if log is None else log.st_size

    def lost(self) -> str | None:
        """What happened to the file, in words; None if a restart will read it."""
        found, log = _stat(self._path), _stat(self._log)
        if found is None:
            folder = "" if self._path.parent.exists() else "the folder of "
            return f"{folder}{self._path} was removed while the monitor ran"
        opened = os.fstat(self._fd)
        if not files.is_same(found, opened):
            return f"{self._path} was replaced by another file while the monitor ran"
        if self._logged is not None:
            if log is None or not files.is_same(log, self._logged):
                how = "removed" if log is None else "replaced"
                return f"{self._log}, the newest part of the database, was {how} while the monitor ran"
            if (
                log.st_size < min(self._log_size, self._log_bytes) and log.st_size < self._needs()
            ):  # others may empty it
                return f"{self._log}, the newest part of the database, was truncated while the monitor ran"
            self._log_size = log.st_size
        return self._cut_off(opened.st_size)

    def _cut_off(self, size: int) -> str | None:
        """Whether the file is shorter than its own header says; the missing start may be in its log."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        head = os.read(self._fd, HEADER)
        if len(head) < HEADER or not head.startswith(_MAGIC):
            return (
                f"the start of {self._path} was overwritten or truncated while the monitor ran" if self._size else None
            )
        page = int.from_bytes(head[16:18], "big")
        page = 65_536 if page == 1 else page
        if size < self._size and size < page * int.from_bytes(head[28:32], "big"):
            return f"{self._path} was truncated while the monitor ran"
        self._size = size
        return None

    def close(self) -> None:
        """Close the file; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except OSError:
        return None
