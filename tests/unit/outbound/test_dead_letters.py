"""Dead letters: kept for nobody else, bounded, and sent again in order; what fails again stays."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from pathlib import Path

import pytest

from otel_progress.errors import InvalidArgument
from otel_progress.outbound.dead_letters import LARGEST, SENDING, DeadLetter, DeadLetters, Resent, resend


def letter(id: str, body: bytes = b"{}") -> DeadLetter:
    return DeadLetter("refused", id, "failed", "op", body)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_it_is_private_and_bounded(tmp_path: Path) -> None:
    """No other user reads it; both files together never hold more than twice the limit."""
    file = tmp_path / "dead.jsonl"
    dead = DeadLetters(file, most_bytes=1_000)
    for number in range(100):
        dead.add([letter(str(number))])
    assert file.stat().st_size <= 1_000
    older = Path(f"{file}.1")
    assert older.stat().st_size <= 1_000
    assert [*ids(older), *ids(file)][-1] == "99"
    assert {path.stat().st_mode & 0o777 for path in (file, older)} == {0o600}


def test_a_path_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    """A folder that is not there, a folder in its place, a link."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "none" / "dead.jsonl", tmp_path, tmp_path / "link"):
        with pytest.raises(InvalidArgument, match="dead letters can't be kept in"):
            DeadLetters(path)


def test_a_full_disk_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is harmed if it can't be written later."""
    dead = DeadLetters(tmp_path / "dead.jsonl")
    dead.path.unlink()
    dead.path.mkdir()
    with caplog.at_level(logging.WARNING, "otel_progress"):
        dead.add([letter("a")])
        dead.add([letter("b")])
    assert len(caplog.messages) == 1
    assert "dead letters can't be written" in caplog.text


def test_resending_keeps_what_fails_again(tmp_path: Path) -> None:
    """Letters go in order, with their bytes; the file is gone once all arrived."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([letter("a", '{"n":"ü"}'.encode()), letter("b"), letter("c")])
    got: list[DeadLetter] = []

    def post(one: DeadLetter) -> str | None:
        got.append(one)
        return "HTTP 500" if one.id == "b" else None

    assert resend(file, post) == Resent(2, 1, 0)
    assert [one.id for one in got] == ["a", "b", "c"]
    assert got[0].body == '{"n":"ü"}'.encode()
    assert ids(file) == ["b"]
    assert resend(file, lambda _: None) == Resent(1, 0, 0)
    assert not file.exists()
    assert resend(file, lambda _: None) == Resent()
    with pytest.raises(FileNotFoundError):
        resend(tmp_path / "no folder" / "dead.jsonl", lambda _: None)


SPOILT = [b"\xff\xfe", b'{"id": 1}', b"[]", b"[" * 100_000, b'{"reason":']


def test_lines_that_are_no_letters_are_kept_and_spoil_none(tmp_path: Path) -> None:
    """A full disk cuts a line off, somebody edits the file, a line is too deep: the rest is sent, these lines stay."""
    file = tmp_path / "dead.jsonl"
    dead = DeadLetters(file)
    dead.add([letter("a")])
    with file.open("ab") as raw:
        raw.write(b"\n".join(SPOILT))
    dead.add([letter("b")])
    got: list[str] = []
    assert resend(file, lambda one: got.append(one.id)) == Resent(2, 0, 5)  # type: ignore[func-returns-value]
    assert got == ["a", "b"]
    assert file.read_bytes().split(b"\n") == [*SPOILT, b""]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "content", [b"my thesis, line 1\nline 2\n", b'{"reason":"refused","id":"a"', b"[" * 100_000, b"\n"]
)
def test_a_file_that_holds_no_letters_is_not_touched(tmp_path: Path, content: bytes) -> None:
    """Whatever it is: same bytes, same mode, same file, nothing beside it."""
    file = tmp_path / "thesis.txt"
    file.write_bytes(content)
    file.chmod(0o640)
    before = file.stat()
    if content.strip():
        with pytest.raises(InvalidArgument, match="holds no dead letters"):
            resend(file, lambda _: None)
    after = file.stat()
    assert (after.st_ino, after.st_mode, file.read_bytes()) == (before.st_ino, before.st_mode, content)
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_no_regular_file_is_not_touched(tmp_path: Path) -> None:
    """A pipe, a folder, a device."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    before = sorted(tmp_path.iterdir())
    for path in before:
        with pytest.raises(InvalidArgument, match="no regular file"):
            resend(path, lambda _: None)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_others_may_write_stays(tmp_path: Path) -> None:
    """Anyone may have put letters there."""
    file = tmp_path / "public.jsonl"
    DeadLetters(file).add([letter("a")])
    file.chmod(0o666)
    with pytest.raises(PermissionError):
        resend(file, lambda _: None)
    assert ids(file) == ["a"]


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """It is not read into memory."""
    file = tmp_path / "huge"
    file.touch()
    os.truncate(file, LARGEST + 1)
    with pytest.raises(InvalidArgument, match="larger than"):
        resend(file, lambda _: None)


def test_a_link_is_resolved(tmp_path: Path) -> None:
    """What arrived is gone from the file itself, and the link stays."""
    file, link = tmp_path / "dead.jsonl", tmp_path / "link"
    DeadLetters(file).add([letter("a"), letter("b")])
    link.symlink_to(file.name)
    assert resend(link, lambda one: "HTTP 500" if one.id == "b" else None) == Resent(1, 1, 0)
    assert link.is_symlink()
    assert ids(file) == ["b"]


def test_a_file_beside_it_that_is_no_leftover_is_not_touched(tmp_path: Path) -> None:
    """Nothing is sent before somebody looked."""
    file, other = tmp_path / "dead.jsonl", tmp_path / f"dead.jsonl{SENDING}"
    DeadLetters(file).add([letter("a")])
    other.write_text("mine\n")
    with pytest.raises(InvalidArgument, match="move it away"):
        resend(file, lambda _: None)
    assert (ids(file), other.read_text()) == (["a"], "mine\n")


def test_a_leftover_with_a_bad_line_is_recovered(tmp_path: Path) -> None:
    """The line stays, its neighbours and newer letters are sent."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([letter("a")])
    with file.open("ab") as raw:
        raw.write(b"[" * 100_000)
    file.rename(f"{file}{SENDING}")
    DeadLetters(file).add([letter("b")])
    assert resend(file, lambda _: None) == Resent(2, 0, 1)
    assert file.read_bytes() == b"[" * 100_000 + b"\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_letter_whose_id_is_no_header_stays_and_stops_no_other(tmp_path: Path) -> None:
    """It can't be posted at all, so it is no reason to take the receiver for away."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([letter("a\r\nX: y"), letter("\u00fc"), letter(""), letter("b")])
    assert resend(file, lambda _: None) == Resent(1, 0, 3)


def test_two_at_once_send_nothing_twice(tmp_path: Path) -> None:
    """The second one says who is at work; what it was given stays for later."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([letter("a")])
    got: list[str] = []

    def post(one: DeadLetter) -> str | None:
        got.append(one.id)
        DeadLetters(file).add([letter("new")])
        with pytest.raises(InvalidArgument, match=f"process {os.getpid()} sends these"):
            resend(file, post)
        return None

    assert resend(file, post) == Resent(1, 0, 0)
    assert (got, ids(file)) == (["a"], ["new"])
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_put_back_is_not_lost(tmp_path: Path) -> None:
    """The disk is full after a few bytes: it is said, and the next call finds all letters."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([letter("a"), letter("b")])
    write, room = os.write, [10]

    def until_full(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[: room.pop()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", until_full)
        with pytest.raises(OSError, match="No space left"):
            resend(file, lambda _: "HTTP 500")
    assert resend(file, lambda _: None) == Resent(2, 0, 1)  # one line was cut off


def test_letters_that_come_while_it_is_sent_again_and_again_are_never_lost(tmp_path: Path) -> None:
    """Processes append at any moment, also between the renaming and the reading."""
    file = tmp_path / "dead.jsonl"
    wanted = {str(number) for number in range(300)}

    def write() -> None:
        for id in sorted(wanted):
            DeadLetters(file).add([letter(id)])

    writer = threading.Thread(target=write)
    got: set[str] = set()
    writer.start()
    while writer.is_alive() or file.exists():
        if file.exists():
            resend(file, lambda one: got.add(one.id))  # type: ignore[func-returns-value]
    writer.join()
    assert got == wanted


def test_an_interrupted_resending_is_continued(tmp_path: Path) -> None:
    """Nothing is lost if it is killed, and what came meanwhile is sent, too."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([letter("a"), letter("b")])

    def killed(one: DeadLetter) -> str | None:
        if one.id == "b":
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        resend(file, killed)
    assert os.path.exists(f"{file}{SENDING}")
    DeadLetters(file).add([letter("c")])
    got: list[str] = []
    assert resend(file, lambda one: got.append(one.id)) == Resent(3, 0, 0)  # type: ignore[func-returns-value]
    assert got == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) == []
