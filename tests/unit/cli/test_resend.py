"""`otel-progress resend`: dead letters go again, signed and with their ids; what fails again stays."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import standardwebhooks
from webhook_receiver import Hook

from otel_progress.cli import main
from otel_progress.outbound.dead_letters import DeadLetter, DeadLetters

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A receiver."""
    monkeypatch.setenv("OTEL_PROGRESS_WEBHOOK_SECRET", SECRET)
    made = Hook()
    yield made
    made.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two dead letters."""
    found = tmp_path / "dead.jsonl"
    DeadLetters(found).add(DeadLetter("refused", id, "failed", "op", b'{"id":"%s"}' % id.encode()) for id in "ab")
    return found


def test_letters_arrive_with_their_ids(hook: Hook, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Signed anew, so that the receiver does not find them too old."""
    assert main(["resend", str(file), "--webhook", hook.url]) == 0
    for id, post in zip("ab", hook.posts):
        assert standardwebhooks.Webhook(SECRET).verify(post.body, post.headers) == {"id": id}
        assert post.headers["webhook-id"] == id
    assert capsys.readouterr().out == "2 deliveries arrived\n"
    assert not file.exists()


@pytest.mark.parametrize("exists", [True, False], ids=["empty", "sent before"])
def test_nothing_to_send_is_no_failure(
    hook: Hook, file: Path, exists: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose letters all arrived is gone; a timer that runs the command again sees success."""
    file.write_bytes(b"")
    if not exists:
        file.unlink()
    assert main(["resend", str(file), "--webhook", hook.url]) == 0
    assert "nothing to send" in capsys.readouterr().out
    assert file.exists() is False
    assert hook.posts == []


def test_a_refused_one_stays_and_the_next_is_tried(
    hook: Hook, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says which, and ends with 1."""
    monkeypatch.setenv("OTEL_PROGRESS_WEBHOOK_URL", hook.url)
    hook.answer = lambda post: (400 if post.said["id"] == "a" else 200, {})
    assert main(["resend", str(file)]) == 1
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["a"]
    assert "1 delivery arrived, 1 stays in" in capsys.readouterr().err


def test_a_receiver_that_is_away_is_asked_once(hook: Hook, file: Path) -> None:
    """The rest is put back untried."""
    hook.answer = lambda _: (503, {})
    assert main(["resend", str(file), "--webhook", hook.url]) == 1
    assert len(hook.posts) == 1
    assert len(file.read_text().splitlines()) == 2


def test_a_url_is_needed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the variable."""
    with pytest.raises(SystemExit):
        main(["resend", str(file)])
    assert "OTEL_PROGRESS_WEBHOOK_URL" in capsys.readouterr().err


def test_a_file_of_something_else_is_refused(hook: Hook, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says that nothing was done."""
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("line 1\n")
    assert main(["resend", str(thesis), "--webhook", hook.url]) == 1
    assert "holds no dead letters; it was not changed" in capsys.readouterr().err
    assert thesis.read_text() == "line 1\n"


def test_lines_that_are_none_stay(hook: Hook, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are something left: the exit code is 1."""
    with file.open("a") as raw:
        raw.write('{"cut":')
    assert main(["resend", str(file), "--webhook", hook.url]) == 1
    assert "2 deliveries arrived, 1 line that is no dead letter stays in" in capsys.readouterr().err
    assert file.read_text() == '{"cut":\n'


def test_neither_a_receiver_nor_a_job_writes_escape_sequences(
    hook: Hook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts of others are printed without control characters."""
    file = tmp_path / "dead.jsonl"
    DeadLetters(file).add([DeadLetter("refused", "a", "failed", "\x1b]0;owned\x07", b"{}")])
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_once, args=(server,))
        thread.start()
        assert main(["resend", str(file), "--webhook", f"http://127.0.0.1:{server.getsockname()[1]}/"]) == 1
        thread.join()
    said = capsys.readouterr().err
    assert "RED" in said
    assert said.replace("\n", "").isprintable()


def answer_once(server: socket.socket) -> None:
    """Answer with a status line that is none."""
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 \x1b[31mRED\x1b]0;owned\x07\r\n\r\n")
