"""Dead letters: kept for nobody else, bounded, and sent again in order; what fails again stays."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from otel_progress.errors import InvalidArgument
from otel_progress.outbound.dead_letters import SENDING, DeadLetter, DeadLetters, Resent, resend


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
    with pytest.raises(FileNotFoundError):
        resend(file, post)


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    """A full disk cuts a line off, somebody edits the file: the rest is sent."""
    file = tmp_path / "dead.jsonl"
    dead = DeadLetters(file)
    dead.add([letter("a")])
    with file.open("ab") as raw:
        raw.write(b'\xff\xfe\n{"id": 1}\n[]\n{"reason":')
    dead.add([letter("b")])
    got: list[str] = []
    assert resend(file, lambda one: got.append(one.id)) == Resent(2, 0, 4)  # type: ignore[func-returns-value]
    assert got == ["a", "b"]


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
