"""A run that is stopped: steps in threads and coroutines that check or loop end, and nothing is marked twice."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import otel_progress as progress
from otel_progress import OperationCancelled, Snapshot
from otel_progress.live.engine import commands
from otel_progress.testing import Capture
from otel_progress.workflow import Step, Workflow


class Steps:
    """One step of each kind, and how each ended."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self.begun: set[str] = set()
        self.all_begun = threading.Event()
        self.ended: dict[str, str] = {}
        self.items: list[int] = []

    def begin(self, name: str) -> None:
        """A step works."""
        self.begun.add(name)
        if self.begun >= {"loops", "checks", "awaits"}:
            self.all_begun.set()

    def loops(self) -> None:
        """A loop in a thread."""
        try:
            for item in progress.track(range(1000), key=str):
                self.items.append(item)
                self.begin("loops")
                threading.Event().wait(0.01)
        except BaseException as error:
            self.ended["loops"] = type(error).__name__
            raise

    def checks(self) -> None:
        """Code in a thread that checks."""
        try:
            while True:
                self.begin("checks")
                threading.Event().wait(0.01)
                progress.raise_if_cancelled()
        except BaseException as error:
            self.ended["checks"] = type(error).__name__
            raise

    async def awaits(self) -> None:
        """A coroutine with a loop."""
        try:
            for _ in progress.track(range(1000), key=str):
                self.begin("awaits")
                await anyio.sleep(0.01)
        except BaseException as error:
            self.ended["awaits"] = type(error).__name__
            raise

    def workflow(self, **options: Any) -> Workflow:
        """All of them side by side."""
        stages = [Step("loops", self.loops), Step("checks", self.checks), Step("awaits", self.awaits)]
        return Workflow("w", stages=stages, **options)


def notes(snapshot: Snapshot | None) -> list[str]:
    """The feed."""
    assert snapshot is not None
    return [note.text for note in snapshot.notes]


STOPS: dict[str, Callable[[Workflow], object]] = {
    "cancel": lambda work: work.cancel("r", "enough"),
    "monitor": lambda work: commands.obey({"kind": "cancel", "operation_id": "r", "reason": "enough"}),
}


@pytest.mark.parametrize("how", STOPS)
def test_every_kind_of_step_stops(how: str, tmp_path: Path, progress_capture: Capture) -> None:
    """All have ended when `run` returns, and say so; the next run begins with the item that was in hand."""
    steps = Steps()
    work = steps.workflow(checkpoint=tmp_path / "work.db")
    thread = threading.Thread(target=lambda: steps.all_begun.wait(10) and STOPS[how](work))
    thread.start()
    with pytest.raises(OperationCancelled, match="'w' was asked to stop: enough; stopped: loops, checks, awaits"):
        work.run(id="r")
    thread.join()
    assert set(steps.ended) == {"loops", "checks", "awaits"}
    assert {steps.ended["loops"], steps.ended["checks"]} == {"OperationCancelled"}
    found = work.get_progress("r")
    assert notes(found) == ["cancelled; stopped: loops, checks, awaits"]
    first, again = steps.items[:], Steps()
    again_work = again.workflow(checkpoint=tmp_path / "work.db")
    thread = threading.Thread(target=lambda: again.all_begun.wait(10) and again_work.cancel("r"))
    thread.start()
    with pytest.raises(OperationCancelled):
        again_work.run(id="r")
    thread.join()
    assert again.items[0] in {first[-1], first[-1] + 1}


def test_a_cancelled_task_stops_threads(progress_capture: Capture) -> None:
    """So they do where only the task of `arun` is cancelled."""
    steps = Steps()
    work = steps.workflow()

    async def main() -> None:
        task = asyncio.create_task(work.arun(id="r"))
        await asyncio.to_thread(steps.all_begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert {steps.ended["loops"], steps.ended["checks"]} == {"OperationCancelled"}
    found = work.get_progress("r")
    assert found is not None
    assert (found.status, found.reason) == ("cancelled", "cancelled: its task was cancelled")
    assert notes(found) == ["cancelled; stopped: loops, checks, awaits"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_scope_stops_threads(backend: str, progress_capture: Capture) -> None:
    """So they do where a scope around `arun` is cancelled."""
    steps = Steps()
    work = steps.workflow()

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: work.arun(id="r"))
                while not steps.all_begun.is_set():
                    await anyio.sleep(0.01)
                scope.cancel()

    anyio.run(main, backend=backend)
    assert {steps.ended["loops"], steps.ended["checks"]} == {"OperationCancelled"}
    found = work.get_progress("r")
    assert found is not None
    assert found.reason == "cancelled: its task was cancelled"
    (said,) = notes(found)
    assert sorted(said.removeprefix("cancelled; stopped: ").split(", ")) == ["awaits", "checks", "loops"]


def test_a_coroutine_that_never_awaits(progress_capture: Capture) -> None:
    """A loop over `track` ends even where it leaves the event loop no time."""
    begun = threading.Event()

    async def spins() -> None:
        for _ in progress.track(iter(int, 1)):
            begun.set()

    work = Workflow("w", stages=[Step("spins", spins)])
    thread = threading.Thread(target=lambda: begun.wait(10) and work.cancel("r"))
    thread.start()
    with pytest.raises(OperationCancelled, match="stopped: spins"):
        work.run(id="r")
    thread.join()


def test_a_thread_that_checks_too_rarely(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends without it and says so; it stops at its next check, after the end."""
    monkeypatch.setattr("otel_progress.workflow.attempts.GRACE", 0.05)
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def works() -> None:
        begun.set()
        go_on.wait(10)
        try:
            progress.raise_if_cancelled()
        except OperationCancelled:
            over.set()

    work = Workflow("w", stages=[Step("works", works)])
    thread = threading.Thread(target=lambda: begun.wait(10) and work.cancel("r"))
    thread.start()
    with pytest.raises(OperationCancelled):
        work.run(id="r")
    thread.join()
    said = notes(work.get_progress("r"))
    assert said[0].endswith("works still runs: Python can't stop a thread")
    go_on.set()
    assert over.wait(10)


def test_a_step_that_fails_stops_loops_in_threads(progress_capture: Capture) -> None:
    """What runs beside a critical step that fails ends as well."""
    steps = Steps()

    def fails() -> None:
        steps.all_begun.wait(10)
        raise ValueError("broken")

    stages = [Step("loops", steps.loops), Step("checks", steps.checks), Step("awaits", steps.awaits)]
    with pytest.raises(ValueError, match="broken"):
        Workflow("w", stages=[*stages, Step("fails", fails)]).run()
    assert {steps.ended["loops"], steps.ended["checks"]} == {"OperationCancelled"}


PROGRAM = """
import sys, threading, time
import anyio
import otel_progress as progress
from otel_progress.workflow import Step, Workflow

ended = {}

def says(name):
    def decorate(fn):
        def call():
            try:
                fn()
            except BaseException as error:
                ended[name] = type(error).__name__
                raise
        return call
    return decorate

@says("loops")
def loops():
    for _ in progress.track(range(1000)):
        time.sleep(0.01)

@says("checks")
def checks():
    print("running", flush=True)
    while True:
        time.sleep(0.01)
        progress.raise_if_cancelled()

async def spins():
    print("running", flush=True)
    for _ in progress.track(iter(int, 1)):
        pass

stages = [Step("spins", spins)] if "spins" in sys.argv else [Step("loops", loops), Step("checks", checks)]
work = Workflow("w", stages=stages)
try:
    work.run(id="r")
finally:
    print(type(sys.exc_info()[1]).__name__, ended, [note.text for note in work.get_progress("r").notes], flush=True)
"""


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGINT, "KeyboardInterrupt", -signal.SIGINT), (signal.SIGTERM, "SystemExit", 143)],
)
@pytest.mark.parametrize("kind", ["threads", "spins"])
def test_signals_stop_steps_that_check_or_loop(kind: str, number: signal.Signals, name: str, code: int) -> None:
    """After Ctrl+C or SIGTERM threads have ended when `run` does, and so has a coroutine that never awaits."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        program.send_signal(number)
        said, errors = program.communicate(timeout=30)
    ended = {} if kind == "spins" else {"loops": "OperationCancelled", "checks": "OperationCancelled"}
    steps = "spins" if kind == "spins" else "loops, checks"
    head, _, feed = said.partition(" [")
    assert feed == f"'cancelled; stopped: {steps}']\n"
    assert head.partition(" ")[0] == name
    assert eval(head.partition(" ")[2]) == ended
    assert "does nothing" not in errors
    assert program.returncode == code
