"""Private files belong to us alone, whatever the umask, and are never ones that others put there."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_progress import files
from otel_progress.files import Held, Lock, Unsafe

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
NOBODY = 65_534
SRC = Path(files.__file__).parent
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set a umask that users may have."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    """Return the permissions."""
    return stat.S_IMODE(path.lstat().st_mode)


def give(path: Path, *, uid: int = NOBODY) -> None:
    """Pretend that it belongs to another user."""
    os.chown(path, uid, uid, follow_symlinks=False)


def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Created files and directories, including parent directories, are private."""
    files.make_folder(tmp_path / "a" / "b")
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o700, 0o700]
    path = tmp_path / "a" / "b" / "file"
    os.close(files.open_private(path))
    with Lock(f"{path}.lock"):
        assert [mode(path), mode(Path(f"{path}.lock"))] == [0o600, 0o600]


@pytest.mark.parametrize("before", [0o666, 0o644, 0o200, 0o000])
def test_what_is_there_becomes_private_and_keeps_what_is_in_it(tmp_path: Path, before: int) -> None:
    """A file that was open to others is made private."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o600)
    path.write_text("kept")
    path.chmod(before)
    if os.geteuid() == 0 or before & 0o600 == 0o600:
        os.close(files.open_private(path))
        assert (mode(path), path.read_text()) == (0o600, "kept")


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "socket", "device"])
@pytest.mark.parametrize("opened", [files.open_private, Lock], ids=["open", "lock"])
def test_what_is_no_plain_file_is_refused_and_not_touched(
    tmp_path: Path, kind: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link is not followed, nothing is created at its target, and a pipe does not block."""
    path, other = tmp_path / "file", tmp_path / "other"
    if kind == "link":
        other.touch()
        other.chmod(0o644)
        path.symlink_to(other)
    elif kind == "dangling link":
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            monkeypatch.chdir(tmp_path)  # a socket has a short name only
            bound.bind("file")
    with pytest.raises(OSError, match=r"is a link|no plain file|directory"):
        opened(path)
    assert other.exists() is (kind == "link")
    if kind == "link":
        assert (mode(other), other.read_text()) == (0o644, "")


@as_root
def test_what_belongs_to_others_is_refused(tmp_path: Path) -> None:
    """A file of another user is refused: its owner could write it at any time, whatever its mode."""
    path = tmp_path / "file"
    path.touch()
    give(path)
    with pytest.raises(Unsafe, match=rf"belongs to another user \(uid {NOBODY}\): chown it"):
        files.open_private(path)
    with pytest.raises(Unsafe, match="belongs to another user"):
        files.read_private(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    give(link)
    with pytest.raises(Unsafe, match="is a link of another user"):
        files.resolve(link)


def test_lock_that_has_a_second_name_is_refused(tmp_path: Path) -> None:
    """A hard link is refused: it may be a file of ours under another name."""
    path, lock = tmp_path / "notes", tmp_path / "lock"
    path.touch()
    lock.hardlink_to(path)
    with pytest.raises(Unsafe, match="second name"):
        Lock(lock)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("bits", "fine"), [(0o700, True), (0o755, True), (0o757, False), (0o1777, True), (0o777, False)]
)
def test_folder_in_which_others_may_replace_files_is_refused(tmp_path: Path, bits: int, fine: bool) -> None:
    """In a directory with the sticky bit only the owner of a file may remove it."""
    folder = tmp_path / "open" / "deep"
    for one in (folder.parent, folder):
        one.mkdir()
        one.chmod(0o700)
    for one in (folder, folder.parent):
        one.chmod(bits)
        if fine:
            files.check_folder(folder)
        else:
            with pytest.raises(Unsafe, match="can be written by"):
                files.check_folder(folder)
        one.chmod(0o700)


@as_root
def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """A directory of another user is refused: its owner may replace its content."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o700)
    give(folder)
    with pytest.raises(Unsafe, match="belongs to another user"):
        files.make_folder(folder)


@as_root
def test_group_of_others_may_not_write_and_one_of_our_own_may(tmp_path: Path) -> None:
    """The private group of a user, which many systems give write permission, is accepted."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o770)
    files.check_folder(folder)
    os.chown(folder, 0, NOBODY)
    with pytest.raises(Unsafe, match="can be written by others"):
        files.check_folder(folder)


# -- what is only read


def test_secret_is_read_where_it_is_one(tmp_path: Path) -> None:
    """A secret may be mounted as a link, but must not be readable by everybody or writable by others."""
    path, link = tmp_path / "tokens", tmp_path / "link"
    path.touch()
    path.chmod(0o600)
    path.write_text("secret")
    link.symlink_to(path)
    for bits, why in ((0o600, ""), (0o640, ""), (0o644, "read by everybody: chmod 600"), (0o602, "written by others")):
        path.chmod(bits)
        if why:
            with pytest.raises(Unsafe, match=why):
                files.read_private(link, secret=True)
        else:
            assert files.read_private(link, secret=True) == b"secret"


def test_secret_may_come_by_a_pipe(tmp_path: Path) -> None:
    """A secret may come from a pipe, as with `<(command)` in a shell."""
    read, write = os.pipe()
    threading.Timer(0.1, lambda: (os.write(write, b"secret"), os.close(write))).start()
    assert files.read_private(f"/dev/fd/{read}", secret=True) == b"secret"
    os.close(read)


# -- locks


def test_one_holder_at_a_time_and_it_says_who(tmp_path: Path) -> None:
    """A second lock in the same process is refused too; nothing is written before it is held."""
    path = tmp_path / "lock"
    with Lock(path):
        with pytest.raises(Held) as held:
            Lock(path)
        assert held.value.pid == os.getpid()
        assert path.read_text() == str(os.getpid())
    Lock(path).release()


HOLD = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such locks")
def test_who_may_only_read_the_file_can_not_hold_it(tmp_path: Path) -> None:
    """Only a user who may write the lock file can hold it; else a reader could keep the monitor from starting."""
    path = tmp_path / "lock"
    path.touch()
    path.chmod(0o644)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"held\n"
        with Lock(path):
            assert mode(path) == 0o600
        reader.communicate()


def test_lock_is_renewed_where_its_file_was_removed_or_replaced(tmp_path: Path) -> None:
    """A removed lock file is replaced, so a second monitor cannot start; if it did, that is reported."""
    path = tmp_path / "lock"
    lock = Lock(path)
    path.unlink()
    lock.renew()
    with pytest.raises(Held):
        Lock(path)
    path.unlink()
    with Lock(path), pytest.raises(Held):
        lock.renew()
    lock.renew()
    lock.release()


# -- nobody goes around it

OWN_WAY = {
    "cli/assets.py": "files for others: dashboards and rules, where somebody asks for them",
    "cli/doctor/connection.py": "reads a certificate",
    "cli/query/client.py": "opens addresses",
    "cli/query/execution.py": "the null device",
    "cli/streams.py": "the null device",
    "cli/run/spawning.py": "reads the first line of a command",
    "handlers/jsonlines.py": "a log that somebody names, for whoever reads logs there",
    "live/engine/learning.py": "a new file beside the history, which then takes its place",
    "outbound/grpc_transport.py": "reads certificates",
    "outbound/spool.py": "wraps the descriptor of a private file",
    "reports/writing.py": "a report where somebody asks for it, to send on",
    "outbound/dead_letters.py": "locks a file that `resend` names, and reads it as a private one",
    "procfs.py": "reads what the kernel says",
    "cli/run/deaths.py": "makes a private file by mkstemp, and removes it",
    "durable/told.py": "adds to the file that `run` made, and makes none",
}
"""Modules that open files in another way, and why they may."""
OPENS = re.compile(
    r"(?<!def )(?<![\w.])open\(|os\.open\(|\.mkdir\(|mkstemp|write_text\(|write_bytes\(|Path\([^)]*\)\.open\(|makedirs"
)


def test_everything_else_is_opened_here() -> None:
    """A module that opens files uses private ones, or is listed here with a reason."""
    found = set()
    for path in SRC.rglob("*.py"):
        name = path.relative_to(SRC).as_posix()
        if name != "files.py" and OPENS.search(path.read_text(encoding="utf-8")):
            found.add(name)
    assert found <= OWN_WAY.keys(), found - OWN_WAY.keys()
