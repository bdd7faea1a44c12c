"""Handlers of one request, on a progress bar that remembers what it is told; the real one is in tests/screens."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

import otel_progress as progress
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.gradio import GradioHandler
from otel_progress.handlers.scoped import ScopedHandler, ScopedOperation
from otel_progress.testing import Capture

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Bar:
    """Remembers each call, and the request of its context."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, str]] = []
        self.requests: set[str] = set()

    def __call__(self, value: Any, desc: str = "", unit: str = "") -> None:
        self.said.append((value, desc or unit))
        self.requests.add(request.get())


class Kept(ScopedHandler):
    """Keeps the names of what it draws."""

    most = 3

    def __init__(self, operation_id: str | None = None) -> None:
        super().__init__(operation_id)
        self.drawn: list[str] = []

    def draw(self, operations: list[ScopedOperation], now: float) -> None:
        self.drawn = [snapshot.name for one in operations if (snapshot := one.look(now)[0]) is not None]


def test_the_bar_of_an_operation(progress_capture: Capture) -> None:
    """The bar has the ratio, and the text what Gradio does not say itself; at the end, the outcome."""
    bar = Bar()
    with GradioHandler(bar) as handler, progress.operation("import", total=4, unit="file"):
        progress.advance(1)
        handler.refresh()
        handler.refresh()
    assert bar.said[0] == (0.25, "import: 1/4 files · no estimate")
    assert bar.said[-1][1].startswith("✓ import completed after")
    assert len(bar.said) == 2


def test_without_a_total(progress_capture: Capture) -> None:
    """Without a ratio no bar is drawn: the seconds that passed stand beside the text."""
    bar = Bar()
    with GradioHandler(bar) as handler, progress.operation("import"):
        progress_capture.advance(7)
        progress.update(message="asking")
        handler.refresh()
    assert bar.said[0] == ((7, None), "s · import: asking")


def test_it_speaks_in_the_context_of_the_request(progress_capture: Capture) -> None:
    """Whichever thread draws, the library sees the request in which the handler was made."""
    bar = Bar()
    token = request.set("of Ada")
    handler = GradioHandler(bar)
    request.reset(token)
    with handler, progress.operation("import"):
        thread = threading.Thread(target=handler.refresh)
        thread.start()
        thread.join()
    assert bar.requests == {"of Ada"}


def test_only_what_starts_inside(progress_capture: Capture) -> None:
    """Operations of the block, its tasks and carried threads, and of the operation around it; none of other threads."""

    def work(name: str) -> None:
        with progress.operation(name):
            pass

    async def task() -> None:
        await asyncio.gather(*(asyncio.to_thread(work, name) for name in ("to thread",)))

    before = progress.operation("before").start()
    with Kept() as kept:
        work("inside")
        for target in (progress.carry(work), work):
            thread = threading.Thread(target=target, args=("carried" if target is not work else "other",))
            thread.start()
            thread.join()
        kept.refresh()
    assert kept.drawn == ["inside", "carried"]
    with Kept() as kept:
        asyncio.run(task())
    assert kept.drawn == ["to thread"]
    with progress.operation("around"), Kept() as kept:
        work("below")
        kept.refresh()
    assert kept.drawn == ["around"]
    before.complete()


def test_two_blocks_at_once(progress_capture: Capture) -> None:
    """Two requests at once, in tasks of one loop, see each their own."""
    kept = [Kept(), Kept()]

    async def serve(number: int) -> None:
        with kept[number], progress.operation(f"request {number}"):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(serve(0), serve(1))

    asyncio.run(both())
    assert [one.drawn for one in kept] == [["request 0"], ["request 1"]]


def test_one_operation_by_its_id(progress_capture: Capture) -> None:
    """An operation of another thread can be named; it may run already, and nobody may have watched it."""
    running = progress.operation("old", id="old-1").start()
    with Kept("old-1") as kept:
        with progress.operation("not this one"):
            pass
        kept.refresh()
        assert kept.drawn == ["old"]
        running.complete()
    assert kept.drawn == ["old"]


def test_many_are_counted(progress_capture: Capture) -> None:
    """Those that ended make room for those that run; what is left out is counted, with what failed."""
    with Kept() as kept:
        for number in range(5):
            operation = progress.operation(f"{number}").start()
            operation.fail("broken") if number == 0 else operation.complete()
            progress_capture.advance()
        kept.refresh()
        running = [progress.operation(f"runs {number}").start() for number in range(4)]
        for one in running:
            one.complete()
    assert len(kept.drawn) == 3
    assert kept.left_out() == "+ 6 more, 1 failed"


def test_those_whose_end_is_not_told_yet_are_counted(progress_capture: Capture) -> None:
    """An operation that ended a moment ago is one of those that are not drawn, although no event said so."""
    kept = Kept()
    with kept:
        for _ in range(8):
            with progress.operation("short"):
                pass
        kept.refresh()
        assert (len(kept.drawn), kept.left_out(hidden=1)) == (3, "+ 6 more")
        progress_capture.look()
        assert kept.left_out() == "+ 5 more"


def test_a_bar_that_fails(progress_capture: Capture) -> None:
    """An error of the library is none of the job."""
    with GradioHandler(lambda *_, **__: 1 / 0), progress.operation("import") as job:
        pass
    assert job.status is progress.Status.COMPLETED


def test_what_is_refused() -> None:
    """A bar that can't be called, and an id that is none, are refused where they are given."""
    for wrong in (None, 3, Bar):
        with pytest.raises(InvalidArgument, match=r"gr\.Progress"):
            GradioHandler(wrong)
    with pytest.raises(InvalidArgument, match="operation_id"):
        GradioHandler(Bar(), operation_id=3)  # type: ignore[arg-type]


def test_stopped_in_another_context(progress_capture: Capture) -> None:
    """It may be stopped twice, and in another thread than it was started."""
    kept = Kept().start()
    thread = threading.Thread(target=kept.stop)
    thread.start()
    thread.join()
    kept.stop()
    with progress.operation("after"):
        pass
    assert kept.drawn == []


def test_in_a_fork() -> None:
    """A forked child draws nothing, ends well, and may start a handler of its own; the parent goes on drawing."""
    code = """
        import os, sys
        import otel_progress as progress
        from otel_progress.handlers.gradio import GradioHandler
        said = []
        def bar(value, desc="", unit=""):
            said.append((os.getpid(), desc or unit))
        with GradioHandler(bar), progress.operation("parent"):
            child = os.fork()
            if not child:
                with progress.operation("child"):
                    pass
                assert said == [] or all(pid != os.getpid() for pid, _ in said)
                with GradioHandler(bar), progress.operation("own"):
                    pass
                assert any("own" in text for _, text in said)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert "parent completed" in said[-1][1], said
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
