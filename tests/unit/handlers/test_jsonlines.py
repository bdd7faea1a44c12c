"""JSON lines: an object for each event, in a file that stays small."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import otel_progress as progress
from otel_progress.handlers import jsonlines as module
from otel_progress.handlers.jsonlines import JsonLines
from otel_progress.live import guard, hooks
from otel_progress.live.engine import process, runtime
from otel_progress.testing import Capture


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_told", set())


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_for_each_event(progress_capture: Capture, tmp_path: Path) -> None:
    """Each event is one JSON object on one line, in order, with its snapshot."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path), progress.operation("job", id="x1", total=2), progress.stage("load"):
        progress.note("two\nlines 漢字", "ok", size=3)
    lines = read(path)
    assert [line["event"] for line in lines] == [event.name for event in progress_capture.events]
    assert [line["sequence"] for line in lines] == sorted(line["sequence"] for line in lines)
    note = next(line for line in lines if line["event"] == "progress.note")
    assert note["stage"] == "load"
    assert note["attributes"]["progress.note.text"] == "two\nlines 漢字"
    assert note["attributes"]["size"] == 3
    assert lines[-1]["snapshot"]["operation_id"] == "x1"
    assert lines[-1]["snapshot"]["status"] == "completed"
    assert lines[-1]["snapshot"]["stages"][0]["name"] == "load"
    when = datetime.fromisoformat(lines[0]["timestamp"])
    assert when.timestamp() == progress_capture.events[0].timestamp / 1e9


def test_every_line_is_flushed(progress_capture: Capture, tmp_path: Path) -> None:
    """What was told is in the file at once, before any stop."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path), progress.operation("job"):
        progress_capture.look()
        assert read(path)[0]["event"] == "progress.operation.started"


def test_nothing_is_opened_before_the_first_event(progress_capture: Capture, tmp_path: Path) -> None:
    """Without an operation there is no file."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path):
        pass
    assert not path.exists()


def test_a_stream_is_the_callers(progress_capture: Capture) -> None:
    """A stream gets the lines, and is not closed."""
    stream = io.StringIO()
    with JsonLines(stream), progress.operation("job"):
        pass
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "progress.operation.ended"


def test_a_file_is_appended_to(progress_capture: Capture, tmp_path: Path) -> None:
    """A second run goes on where the first ended."""
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with JsonLines(path), progress.operation("job"):
            pass
    assert [line["event"].rpartition(".")[2] for line in read(path)] == ["started", "ended"] * 2


def test_the_file_stays_small(progress_capture: Capture, tmp_path: Path) -> None:
    """At max_bytes the file becomes `.1`, in place of the one before; both hold whole lines, and no more than that."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path, max_bytes=10_000):
        for _ in range(30):
            with progress.operation("job"):
                pass
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["events.jsonl", "events.jsonl.1"]
    assert all(0 < file.stat().st_size <= 10_000 for file in tmp_path.iterdir())
    assert read(path)[-1]["event"] == "progress.operation.ended"
    assert read(tmp_path / "events.jsonl.1")


def test_a_line_larger_than_the_limit_is_written(progress_capture: Capture, tmp_path: Path) -> None:
    """A single line beyond max_bytes has a file of its own; no event is lost to the limit."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path, max_bytes=10), progress.operation("job"):
        pass
    assert len(read(path)) == len(read(tmp_path / "events.jsonl.1")) == 1


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_a_limit_that_cant_be_meant(tmp_path: Path, bad: Any) -> None:
    """max_bytes is a whole number above 0."""
    with pytest.raises(progress.InvalidArgument, match="max_bytes"):
        JsonLines(tmp_path / "x", max_bytes=bad)


# -- what goes wrong is never felt


def test_a_closed_stream(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A closed stream is logged once and counted; the job does not feel it."""
    stream = io.StringIO()
    stream.close()
    with JsonLines(stream), progress.operation("job"):
        pass
    assert len(caplog.records) == 1
    assert progress_capture.drops["listener_error"] == 2


def test_a_folder_that_is_not_there(
    progress_capture: Capture, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A path that can't be opened is logged once, and tried anew with each event."""
    folder = tmp_path / "later"
    with JsonLines(folder / "events.jsonl"), progress.operation("job"):
        progress_capture.look()
        folder.mkdir()
    assert len(caplog.records) == 1
    assert [line["event"] for line in read(folder / "events.jsonl")] == ["progress.operation.ended"]


def test_a_full_disk(progress_capture: Capture, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a full disk cut off is one torn line; the next one is whole."""

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            return int(self.file.write(data[:10]))

        def close(self) -> None:
            self.file.close()

    path = tmp_path / "events.jsonl"
    writer = JsonLines(path)
    with writer, progress.operation("job"):
        progress_capture.look()
        whole, writer._file = writer._file, Full(writer._file)
        progress.note("does not fit")
        progress_capture.look()
        writer._file = whole
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [len(line) == 10 for line in lines] == [False, True, False]
    assert json.loads(lines[2])["event"] == "progress.operation.ended"
    assert progress_capture.drops["listener_error"] == 1
    assert len(caplog.records) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_device_that_is_full(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the operating system is logged once and counted."""
    with JsonLines("/dev/full"), progress.operation("job"):
        pass
    assert len(caplog.records) == 1
    assert progress_capture.drops["listener_error"] == 2


def test_a_hanging_disk_is_not_felt(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that hangs holds up neither the job nor the ticker; what does not fit the queue is counted."""
    go_on, begun = threading.Event(), threading.Event()

    class Hanging(io.StringIO):
        def write(self, text: str) -> int:
            begun.set()
            go_on.wait(30)
            return super().write(text)

    monkeypatch.setattr(module, "QUEUE", 5)
    with monkeypatch.context() as patch:  # undone here, before the capture ends and puts back what it found
        patch.setattr(process, "threads_allowed", True)
        patch.setattr(runtime, "ensure", lambda: None)
        stream = Hanging()
        writer = JsonLines(stream).start()
        with progress.operation("job"):
            progress_capture.look()
            assert begun.wait(10)
            for _ in range(10):
                with progress.waiting("x"):
                    pass
            progress_capture.look()
            assert progress_capture.drops["listener"] == 15
        go_on.set()
        writer.stop()
    assert len(stream.getvalue().splitlines()) == 6


def test_start_and_stop_twice(progress_capture: Capture, tmp_path: Path) -> None:
    """Starting or stopping twice does no more than once."""
    writer = JsonLines(tmp_path / "events.jsonl")
    assert writer.start() is writer.start()
    assert hooks.sinks.count(writer._take) == 1
    writer.stop()
    writer.stop()
    assert writer._take not in hooks.sinks


# -- real processes


def run(code: str, path: Path) -> list[dict[str, Any]]:
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(path)], check=True, timeout=60)
    return read(path)


def test_the_end_of_the_process_is_written(tmp_path: Path) -> None:
    """A writer that nobody stopped writes the end of what the process took with it."""
    lines = run(
        """
        import sys
        import otel_progress as progress
        from otel_progress.handlers.jsonlines import JsonLines
        JsonLines(sys.argv[1]).start()
        job = progress.operation("job").start()
        """,
        tmp_path / "events.jsonl",
    )
    assert [line["snapshot"]["status"] for line in lines] == ["running", "interrupted"]


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    """The file belongs to one process; a child that wants one starts its own."""
    lines = run(
        """
        import os, sys
        import otel_progress as progress
        from otel_progress.handlers.jsonlines import JsonLines
        from otel_progress.live.engine import runtime
        with JsonLines(sys.argv[1]), progress.operation("parent"):
            child = os.fork()
            if not child:
                with progress.operation("child"):
                    pass
                runtime.ticker.ask(runtime.ticker.round, 10)
                with JsonLines(sys.argv[1]), progress.operation("own"):
                    pass
                os._exit(0)
            os.waitpid(child, 0)
        """,
        tmp_path / "events.jsonl",
    )
    assert {line["snapshot"]["name"] for line in lines} == {"parent", "own"}
