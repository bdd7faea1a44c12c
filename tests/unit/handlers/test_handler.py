"""Handlers of one's own: what they get, when they are slow, broken, async; how they are chosen."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.handlers import chosen, handler
from otel_progress.handlers.handler import CallableHandler, Handler
from otel_progress.live import guard
from otel_progress.live.engine import process, runtime
from otel_progress.model.snapshot import Event
from otel_progress.testing import Capture


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chosen, "_is_chosen", False)
    yield
    chosen.stop()


@pytest.fixture
def threads(progress_capture: Capture) -> Iterator[Capture]:
    """Handlers have threads of their own; the ticker is driven by the test. All of it ends before the capture does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime.ticker, "start", lambda: None)
        patch.setattr(process, "threads_allowed", True)
        yield progress_capture


class Kept(Handler):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def opened(self) -> None:
        self.got.append("opened")

    def handle(self, event: Event) -> None:
        self.entered.set()
        self.go.wait(30)
        self.got.append(event.name.removeprefix("progress."))

    def closed(self) -> None:
        self.got.append("closed")


def test_every_event_in_order(progress_capture: Capture) -> None:
    """It gets each event with its snapshot, is opened before the first, and closed after the last."""
    kept = Kept()
    with kept, progress.operation("job"):
        progress.note("hello")
    assert kept.got == ["opened", "operation.started", "note", "operation.ended", "closed"]


def test_without_an_event_nothing_is_opened(progress_capture: Capture) -> None:
    """What `opened` takes is not taken for nothing."""
    kept = Kept()
    with kept:
        pass
    assert kept.got == []


def test_slow_handler_gets_the_newest_state(threads: Capture) -> None:
    """While it works, updates are merged and changes are kept; the job and the ticker do not wait."""
    kept = Kept()
    kept.go.clear()
    with kept:
        with progress.operation("job", total=100):
            threads.look()
            assert kept.entered.wait(30)
            for _ in range(20):
                progress.advance()
                threads.advance(1)
            progress.note("hello")
        threads.look()
        kept.go.set()
    assert kept.got == ["opened", "operation.started", "note", "operation.ended", "closed"]


def test_handler_that_hangs_is_left_behind(
    threads: Capture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`stop()` waits for a second at most, and says that something is lost."""
    monkeypatch.setattr(handler, "EXIT_SECONDS", 0.01)
    kept = Kept()
    kept.go.clear()
    with kept, progress.operation("job"):
        pass
    assert "did not take all events" in caplog.text
    kept.go.set()


class Broken(Handler):
    """Fails with whatever it was made with."""

    def __init__(self, error: BaseException) -> None:
        self.calls, self.error = 0, error

    def handle(self, event: Event) -> None:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_error_is_logged_once_and_counted(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """An error, even SystemExit, does not end it, nor does it reach the job."""
    broken = Broken(error)
    with broken, progress.operation("job"):
        pass
    assert broken.calls == 2
    assert guard.drops[semconv.DROP_LISTENER_ERROR] == 2
    assert caplog.text.count("the handler Broken failed in handle(); it still gets every event") == 1


def test_async_handler_runs_on_a_loop_of_its_thread(threads: Capture) -> None:
    """All calls of an async `handle` see the same loop, which is not the job's."""
    loops = []

    class Posts(Handler):
        async def handle(self, event: Event) -> None:
            await asyncio.sleep(0)
            loops.append((asyncio.get_running_loop(), threading.current_thread().name))

    with Posts(), progress.operation("job"):
        pass
    assert len(loops) == 2
    assert len(set(loops)) == 1
    assert loops[0][1] == "otel-progress-posts"


def test_functions_and_objects_are_handlers(progress_capture: Capture) -> None:
    """A function of an event, an object with `handle`, and an async function will do."""
    got = []

    class Plain:
        def handle(self, event: Event) -> None:
            got.append(("object", event.name))

    async def later(event: Event) -> None:
        got.append(("async", event.name))

    progress.configure(handlers=[lambda event: got.append(("function", event.name)), Plain(), later])
    with progress.operation("job"):
        pass
    progress_capture.look()
    assert {kind for kind, name in got if name == "progress.operation.ended"} == {"function", "object", "async"}
    progress.configure(handlers=[])
    before = len(got)
    with progress.operation("another"):
        pass
    progress_capture.look()
    assert len(got) == before
    progress.shutdown()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("console", r'handlers must be a list, such as \["console"\]'),
        (3, "handlers must be a list"),
        ([3], "a handler must be a Handler, the name of one"),
        ([Kept], "make an object of this class"),
        (["jsonline"], "there is no handler 'jsonline' .did you mean 'jsonlines'"),
        ([""], "there is no handler ''"),
    ],
)
def test_invalid_handlers(progress_capture: Capture, given: Any, says: str) -> None:
    """A clear error, and what ran before still runs."""
    kept = Kept()
    chosen.start([kept])
    with pytest.raises(progress.InvalidArgument, match=says):
        progress.configure(handlers=given)
    assert kept._running


class _Entry:
    """What the metadata of an installed package would give."""

    name = "theirs"

    def load(self) -> type[Handler]:
        return Kept


def test_handler_of_another_package(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group `otel_progress.handlers` is found by its name."""
    monkeypatch.setattr(metadata, "entry_points", lambda group: [_Entry()] if group == chosen.GROUP else [])
    found = chosen.named("theirs")
    assert isinstance(found, Kept)
    with pytest.raises(progress.InvalidArgument, match=r"no handler 'their' \(did you mean 'theirs'\?\); there are: "):
        chosen.named("their")


@pytest.mark.parametrize(("given", "warns"), [("[print_name]", False), ("[]", True), ("None", True)])
def test_handlers_need_no_collector(given: str, warns: bool) -> None:
    """A program that gives handlers and names no receiver sends nothing, and hears of no receiver that is away."""
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))  # a port on which nobody listens, whatever runs on this machine
    address = f"http://localhost:{nobody.getsockname()[1]}"
    program = f"""
        import otel_progress as progress
        from otel_progress import settings
        settings.DEFAULT_ENDPOINTS["http/protobuf"] = "{address}"
        def print_name(event):
            print(event.name, event.snapshot.status.value, flush=True)
        progress.configure("backup", handlers={given})
        with progress.operation("job"):
            pass
        progress.shutdown()
    """
    environ = {} if not warns else {"OTEL_PROGRESS_CONTROL": "false"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    nobody.close()
    assert (address in done.stderr) == warns, done.stderr
    if not warns:
        assert done.stderr == ""
        assert "progress.operation.ended completed" in done.stdout


CLOSES = """
    import sys, threading, time
    import otel_progress as progress
    from otel_progress.handlers.handler import Handler

    class Mine(Handler):
        def __init__(self, name):
            self.name = name
        def handle(self, event):
            if self.name == "hangs":
                time.sleep(60)
            time.sleep(0.05)
        def closed(self):
            if self.name == "hangs in closed":
                time.sleep(60)
            print("closed", self.name, threading.current_thread().name, flush=True)

    for name in {names}:
        Mine(name).start()
    progress.operation("x").start().complete()
    {end}
"""


@pytest.mark.parametrize(
    ("names", "end", "closed"),
    [
        (["a", "b"], "", ["a", "b"]),
        (["a"], "sys.exit(3)", ["a"]),
        (["a"], "raise ValueError", ["a"]),
        (["hangs", "a"], "", ["a"]),
        (["hangs in closed", "a", "b"], "", ["a", "b"]),
    ],
)
def test_closed_is_called_at_the_end_of_the_process(names: list[str], end: str, closed: list[str]) -> None:
    """Without `stop()`, too, in the thread of the handler, after its last event; one that hangs takes nobody's place."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CLOSES.format(names=names, end=end))],
        env={"OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert sorted(done.stdout.splitlines()) == [f"closed {name} otel-progress-mine" for name in closed]


def test_environment_names_handlers() -> None:
    """`OTEL_PROGRESS_HANDLERS` starts them with the first operation; a wrong name is logged, and stops nobody."""
    program = """
        import logging, sys
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
        import otel_progress as progress
        with progress.operation("job", id="x", total=2):
            progress.advance(2)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"OTEL_PROGRESS_HANDLERS": "logging, nonsense", "OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "OTEL_PROGRESS_HANDLERS: nonsense is not started: there is no handler 'nonsense'" in done.stdout
    assert "INFO otel_progress.operations job x: started" in lines
    assert any(line.startswith("INFO otel_progress.operations job x: completed after") for line in lines)


def test_shutdown_ends_handlers_without_telemetry(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_SDK_DISABLED` keeps `configure()` from sending; the handlers that it started end all the same."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    kept = Kept()
    progress.configure(handlers=[kept])
    assert kept._running
    progress.shutdown()
    assert not kept._running


def test_callable_handler_names_its_function(caplog: pytest.LogCaptureFixture, progress_capture: Capture) -> None:
    """A failing function is named in the log."""

    def post(event: Event) -> None:
        raise OSError

    with caplog.at_level(logging.WARNING), CallableHandler(post), progress.operation("job"):
        pass
    assert ".post failed in handle()" in caplog.text
