"""Private files: how the product's own files are created, opened and locked.

Another user who can write such a file, or its folder, could make us read or overwrite anything. So a file must be ours,
and no other user may write it; links are not followed; and whatever the umask, no other user may read the files that we
create. Access control lists are not checked. On systems without file owners, nothing is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
PID_BYTES: Final = 20
_OTHERS: Final = 0o077
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY"))
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_FLOCK: Final = "@hhqqi4x"
"""The layout of `struct flock` on Linux, which alone has locks that belong to an open file, not to a process."""


class Unsafe(PermissionError):
    """Another user could write or read the file; the message says what to do."""

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        """Combine the path with what is wrong, and what to do."""
        super().__init__(errno.EPERM, f"{os.fspath(path)} {why}")

    def __str__(self) -> str:
        """The message without the error number."""
        return str(self.strerror)


class Held(BlockingIOError):
    """Another program holds the lock; `pid` is its process, if known."""

    def __init__(self, pid: int | None) -> None:
        """Name the process that holds the lock."""
        super().__init__(errno.EAGAIN, "another program holds it")
        self.pid = pid


def open_private(path: str | os.PathLike[str], flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open or create a file of ours that no other user may read or write; returns the descriptor.

    Only its mode is changed. The folder is not checked; see `check_folder`.

    Raises:
        Unsafe: if it is a link, no regular file, or belongs to another user.
        OSError: if it can't be opened.
    """
    fd = _open(path, flags | _NOFOLLOW)
    try:
        found = os.fstat(fd)
        _check_file(path, found, alone=True)
        if hasattr(os, "fchmod") and stat.S_IMODE(found.st_mode) != MODE and _has_owners():
            os.fchmod(fd, MODE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_private(path: str | os.PathLike[str], *, secret: bool = False) -> bytes:
    """Read a file that no other user may write and, if it is a secret, that not everybody may read.

    Links are followed, as secrets are often mounted that way, and their target is checked. It may be a pipe.

    Raises:
        Unsafe: if others may write it, everybody may read a secret, or it belongs to a user other than us and root.
        OSError: if it can't be read.
    """
    fd = _open(path, os.O_RDONLY)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        _check_file(path, found, alone=False)
        if hasattr(os, "set_blocking") and stat.S_ISFIFO(found.st_mode):
            os.set_blocking(fd, True)
        if secret and _has_owners() and found.st_mode & stat.S_IROTH:
            raise Unsafe(path, f"can be read by everybody: chmod 600 {os.fspath(path)}")
        return file.read()


def make_folder(path: Path) -> None:
    """Create a private folder, with its parents, or check an existing one.

    Raises:
        Unsafe: if another user can write it.
        OSError: if it can't be created.
    """
    missing = []
    at = path
    while not os.path.lexists(at):
        missing.append(at)
        at = at.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
            folder.chmod(FOLDER_MODE)  # whatever the umask
    check_folder(path)


def check_folder(path: Path) -> None:
    """Refuse a folder in which another user could replace our files.

    Raises:
        Unsafe: if it belongs to a user other than us and root, if others can write it and it has no sticky bit, or if
            everybody can write one of its parents.
        OSError: if it can't be examined.
    """
    if not _has_owners():
        return
    path = Path(os.path.realpath(path))
    found = path.stat()
    if found.st_uid not in (_user(), 0):
        raise Unsafe(path, f"belongs to another user (uid {found.st_uid}): chown it, or use another folder")
    if not found.st_mode & stat.S_ISVTX and _is_written_by_others(found):
        raise Unsafe(path, f"can be written by others: chmod go-w {path}, or use another folder")
    for above in path.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise Unsafe(above, f"can be written by everybody: chmod o-w {above}, or use another folder")


def resolve(path: str | os.PathLike[str]) -> Path:
    """Resolve links, except those of other users.

    Raises:
        Unsafe: if the path is a link that belongs to a user other than us and root.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and _has_owners() and found.st_uid not in (_user(), 0):
            raise Unsafe(path, f"is a link of another user (uid {found.st_uid}): remove it, or name another file")
    return Path(os.path.realpath(path))


def tighten(path: str | os.PathLike[str]) -> None:
    """Make a file of ours private, if it exists; another process may have created it.

    This opens and closes the file, which releases the POSIX locks that this process has on it.

    Raises:
        Unsafe: see `open_private`.
        OSError: if it can't be opened.
    """
    with contextlib.suppress(FileNotFoundError):
        os.close(open_private(path, os.O_RDWR))


class Lock:
    """A lock file with one holder at a time, until it is released or its process ends, however that happens.

    Only users who may write the file can hold the lock. The file is not changed before the lock is held.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Acquire the lock.

        Raises:
            Held: if another process holds it.
            OSError: if the file can't be opened; `Unsafe` is one.
        """
        self._path = os.fspath(path)
        self._fd: int | None = None
        self._held: sqlite3.Connection | None = None
        try:
            import fcntl
        except ImportError:
            self._hold_by_sqlite()
            return
        if sys.platform == "win32":
            return
        fd = open_private(self._path)
        try:
            if os.fstat(fd).st_nlink > 1:  # another user may have given this name to another file of ours
                raise Unsafe(self._path, "has a second name (a hard link): remove it")
            try:
                if sys.platform == "linux":
                    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
                else:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                raise Held(_pid(fd)) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode("ascii"), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _hold_by_sqlite(self) -> None:
        import sqlite3

        held = sqlite3.connect(self._path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            held.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            held.close()
            raise Held(None) from None
        self._held = held

    def renew(self) -> None:
        """Lock the file that is at the path now, if ours was removed or replaced.

        Raises:
            Held: if another process holds it.
            OSError: if it can't be opened.
        """
        before = self._fd
        if before is None:
            return
        with contextlib.suppress(FileNotFoundError):
            if is_same(os.fstat(before), os.stat(self._path, follow_symlinks=False)):
                return
        again = Lock(self._path)
        self._fd = again._fd
        os.close(before)

    def release(self) -> None:
        """Release the lock; may be called twice. The file stays, as deleting it would allow two holders."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def __enter__(self) -> Lock:
        """Return the lock, which is held already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.release()


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both describe the same file."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _open(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file without waiting for the other end of a pipe."""
    try:
        return os.open(path, flags | _FLAGS, MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise Unsafe(path, "is a link, which is not followed: remove it") from None
        if error.errno == errno.ENXIO:
            raise Unsafe(path, "is no plain file: remove it, or name another one") from None
        raise


def _check_file(path: str | os.PathLike[str], found: os.stat_result, *, alone: bool) -> None:
    if not (stat.S_ISREG(found.st_mode) or (stat.S_ISFIFO(found.st_mode) and not alone)):
        raise Unsafe(path, "is no plain file: remove it, or name another one")
    if not _has_owners():
        return
    if found.st_uid != _user() and (alone or found.st_uid != 0):
        raise Unsafe(path, f"belongs to another user (uid {found.st_uid}): chown it, or name another file")
    if not alone and _is_written_by_others(found):
        raise Unsafe(path, f"can be written by others: chmod go-w {os.fspath(path)}")


def _is_written_by_others(found: os.stat_result) -> bool:
    """Whether another user may write; a group with no other member does not count."""
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_gid)


def _is_own_group(gid: int) -> bool:
    """Whether a group is the private group of this user, which many systems create for each user."""
    if sys.platform == "win32":
        return False
    import grp
    import pwd

    try:
        me, group = pwd.getpwuid(_user()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


def _has_owners() -> bool:
    return hasattr(os, "geteuid")


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1


def _pid(fd: int) -> int | None:
    if sys.platform == "win32":
        return None
    text = os.pread(fd, PID_BYTES, 0).strip()
    return int(text) if text.isdigit() else None
