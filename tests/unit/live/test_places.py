"""Where work runs: threads, tasks of asyncio and of trio, and what is told of them when they hang."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing.pool
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import trio
from test_call_stack import Job

import otel_progress as progress
from otel_progress import OperationCancelled, semconv
from otel_progress.live import guard
from otel_progress.live.diagnosis import holders
from otel_progress.live.diagnosis.call_stack import Place, here, where
from otel_progress.testing import Capture

LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
WAIT = 30.0


def at(marker: str) -> str:
    """The line that ends with this marker."""
    (number,) = (number for number, line in enumerate(LINES, 1) if line.endswith(f"# {marker}"))
    return f"test_places.py:{number} in "


def until(met: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


class Trio:
    """Trio in a thread of its own, until the test ends."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.over = threading.Event()

    def run(self, main: Callable[[], Awaitable[object]]) -> None:
        """Run it there; at the end it is cancelled."""

        async def until_over() -> None:
            async with trio.open_nursery() as nursery:
                self.scope, self.token = nursery.cancel_scope, trio.lowlevel.current_trio_token()
                nursery.start_soon(main)
                self.told.put("started")

        self.thread = threading.Thread(target=trio.run, args=(until_over,), name="trio", daemon=True)
        self.thread.start()
        assert self.told.get(timeout=WAIT) == "started"

    def place(self) -> Place:
        """The next place that was told."""
        found: Place = self.told.get(timeout=WAIT)
        return found

    def end(self) -> None:
        """Cancel what still runs."""
        if hasattr(self, "thread"):
            with contextlib.suppress(trio.RunFinishedError):
                self.token.run_sync_soon(self.scope.cancel)
            self.thread.join(WAIT)
            assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Trio]:
    """Trio in a thread of its own."""
    made = Trio()
    yield made
    made.end()


# -- places


def test_a_place_in_trio_is_its_task(running: Trio) -> None:
    """In trio a place is the task; outside of tasks it is the thread, also once trio is imported."""

    async def main() -> None:
        running.told.put((here(), here(), weakref.ref(trio.lowlevel.current_task())))
        await trio.sleep_forever()

    running.run(main)
    one, again, task = running.told.get(timeout=WAIT)
    assert one == again
    assert one.task == task
    assert here() == here()
    assert here().task is None
    assert here() != one


def test_places_are_compared_after_their_end() -> None:
    """Places of tasks that are gone are still the same, or not, as they were."""

    async def two() -> tuple[Place, Place]:
        return here(), here()

    async def main() -> list[tuple[Place, Place]]:
        return list(await asyncio.gather(two(), two()))

    (one, same), (other, _) = asyncio.run(main())
    gc.collect()
    assert one.task is not None
    assert one.task() is None
    assert one == same
    assert one != other
    (three, also), *_ = [trio.run(two)]
    gc.collect()
    assert three == also
    assert three not in (one, other)


def test_a_task_of_trio_that_is_over(running: Trio) -> None:
    """Nothing is told of a trio task that is over."""

    async def main() -> None:
        running.told.put(here())

    running.run(main)
    place = running.place()
    until(lambda: where([place]) is None, "it is still told of")


# -- in the process


def test_a_stage_in_trio_that_hangs(running: Trio, progress_capture: Capture) -> None:
    """The stalled event of an operation in trio names the line of the stage that hangs, not of one beside it."""

    async def moves(stop: trio.Event) -> None:
        with progress.stage("moves", stall_after=None):
            running.told.put("moves")
            await stop.wait()

    async def hangs() -> None:
        with progress.stage("hangs", stall_after=5):
            running.told.put("hangs")
            await trio.sleep_forever()  # a stage in trio

    async def main() -> None:
        with progress.operation("trio", stall_after=None):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(moves, trio.Event())
                nursery.start_soon(hangs)

    running.run(main)
    assert {running.told.get(timeout=WAIT), running.told.get(timeout=WAIT)} == {"moves", "hangs"}
    # The stage is open a moment before its task waits.
    tasks = [place for place in _places_of("hangs") if place.task is not None]
    until(
        lambda: (found := where(tasks)) is not None and found.at.startswith(at("a stage in trio")), "it does not wait"
    )
    progress_capture.advance(8)
    (stalled,) = progress_capture.of(semconv.STALLED)
    assert str(stalled.attributes[semconv.STUCK_AT]).startswith(at("a stage in trio"))
    assert "in moves" not in str(stalled.attributes[semconv.STACK])


def _places_of(stage: str) -> list[Place]:
    from otel_progress.live.registry import registry

    nodes = [node for operation in registry.operations() for node in operation._running or () if node.name == stage]
    return [node._place for node in nodes if node._place is not None]


def test_what_is_to_stop_in_trio(running: Trio, progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A request to stop reaches work in trio where its code asks; its task is not taken for one of asyncio."""
    asked = threading.Event()

    async def main() -> None:
        try:
            with progress.operation("trio", stall_after=5, stall_policy="cancel"):
                running.told.put("open")
                while True:
                    await trio.sleep(0.001)
                    progress.raise_if_cancelled()
        except OperationCancelled:
            asked.set()

    running.run(main)
    assert running.told.get(timeout=WAIT) == "open"
    progress_capture.advance(8)
    assert asked.wait(WAIT)
    assert caplog.messages == []


# -- what a look leaves alone


class Kept:
    """Something that a function in a pool was given."""


def in_executor(work: Callable[[Kept], object], then: threading.Event) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work, Kept()).result()
        then.wait()


def in_thread_pool(work: Callable[[Kept], object], then: threading.Event) -> None:
    with multiprocessing.pool.ThreadPool(1) as pool:
        pool.map(work, [Kept()])
        then.wait()


def in_anyio(work: Callable[[Kept], object], then: threading.Event) -> None:
    async def main() -> None:
        await anyio.to_thread.run_sync(work, Kept())
        await anyio.to_thread.run_sync(then.wait)

    anyio.run(main)


def in_trio(work: Callable[[Kept], object], then: threading.Event) -> None:
    async def main() -> None:
        await trio.to_thread.run_sync(work, Kept())
        await trio.to_thread.run_sync(then.wait)

    trio.run(main)


@pytest.mark.parametrize("run", [in_executor, in_thread_pool, in_anyio, in_trio])
def test_pools_keep_nothing_because_of_a_look(run: Callable[[Any, threading.Event], None]) -> None:
    """What a pool's thread had in hand when it was looked at goes when its work is done, though the thread lives on."""
    release = threading.Event()
    refs: list[weakref.ref[Kept]] = []

    def work(kept: Kept) -> None:
        refs.append(weakref.ref(kept))
        release.wait(WAIT)  # in a pool

    job = Job(lambda job: run(work, job.stop))
    job.on_release.append(release.set)
    gc.disable()
    try:
        with job as place:
            until(lambda: (found := where([place])) is not None and at("in a pool") in found.at, "not seen")
            release.set()
            until(lambda: refs[0]() is None, "it is kept")
    finally:
        gc.enable()


def test_a_look_that_fails_is_made_simpler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where it fails to find out for whom a thread waits, its own line is told."""

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(guard, "_told", set())
    monkeypatch.setattr(holders, "thread_that_owns", fail)

    def waits(job: Job) -> None:
        job.stop.wait()  # simpler

    with Job(waits) as place:
        until(lambda: (found := where([place])) is not None and found.at.startswith(at("simpler")), "not seen")
    assert "could not be seen" in caplog.text


# -- installed jobs

INSTALLED = """
import threading, urllib.request
from otel_progress import operation, stage

def load(tell):
    tell()
    threading.Event().wait(60)

def main(tell):
    with operation("installed"):
        tools.call(load, tell)

from . import tools
"""
TOOLS = """
def call(work, *args):
    return work(*args)
"""
LOOKS = """
import sys, threading, time
from otel_progress.live.diagnosis.call_stack import here, where
import library, myjobs

def looks(place):
    for _ in range(3000):
        found = where([place])
        if found is not None and "in load" in found.at:
            break
        time.sleep(0.01)
    print(found.at)
    print(found.stack)
    import os
    sys.stdout.flush()
    os._exit(0)

places = []
threading.Thread(target=myjobs.main, args=(lambda: places.append(here()),), daemon=True).start()
while not places:
    time.sleep(0.01)
looks(places[0])
"""


def test_an_installed_job(tmp_path: Path) -> None:
    """Code of an installed package is the user's if that package uses this library."""
    packages = tmp_path / "site-packages"
    for name, source in {"myjobs/__init__": INSTALLED, "myjobs/tools": TOOLS, "library": "import threading\n"}.items():
        path = packages / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    code = (
        f"import sys; sys.path.insert(0, {str(packages)!r}); exec(compile({LOOKS!r}, 'site-packages/looks.py', 'exec'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    first, *stack = done.stdout.splitlines()
    assert first == "myjobs/__init__.py:7 in load"
    assert any("myjobs/tools.py:3 in call" in line for line in stack)
    assert "threading.Event().wait(60)" in done.stdout
