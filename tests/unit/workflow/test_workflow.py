"""Workflows: what runs when, what steps get, and what each way to fail shows."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import anyio
import pytest
import trio

import otel_progress as progress
from otel_progress import (
    InvalidArgument,
    InvalidState,
    MissingDependency,
    OperationCancelled,
    Snapshot,
    StageSnapshot,
    Status,
)
from otel_progress.live.engine import commands
from otel_progress.testing import Capture
from otel_progress.workflow import Step, Workflow, adaptive

QUICK = 0.001
"""Seconds of a first pause between two tries."""


def stage_of(snapshot: Snapshot | None, name: str) -> StageSnapshot:
    assert snapshot is not None
    return next(stage for stage in snapshot.stages if stage.name == name)


def statuses(snapshot: Snapshot | None) -> dict[str, str]:
    assert snapshot is not None
    return {stage.name: stage.status.value for stage in snapshot.stages}


def notes(snapshot: Snapshot | None) -> list[str]:
    assert snapshot is not None
    return [note.text for note in snapshot.notes]


def final(capture: Capture, name: str) -> Snapshot:
    capture.look()
    return capture.ended(name)


def fails(text: str = "broken") -> Callable[[], object]:
    def failing() -> object:
        raise ValueError(text)

    return failing


async def forever() -> None:
    await anyio.sleep_forever()


async def ended(seconds: float, condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


# -- what steps get


def test_results_pass_on_by_name(progress_capture: Capture) -> None:
    """A step gets the task, and the results of the steps before it under their names."""

    def plan(topic: str) -> str:
        return f"plan of {topic}"

    async def search(plan: str, task: str) -> list[str]:
        return [plan, task]

    def write(query: str, so_far: dict[str, Any], *, search: list[str]) -> Any:
        return query, so_far, search

    work = Workflow(
        "research",
        stages=[Step("write", write, after=["search"]), Step("plan", plan), Step("search", search, after=["plan"])],
    )
    results = work.run("tea")
    assert results["search"] == ["plan of tea", "tea"]
    assert results["write"] == (
        "tea",
        {"plan": "plan of tea", "search": ["plan of tea", "tea"]},
        ["plan of tea", "tea"],
    )
    assert final(progress_capture, "research").status is Status.COMPLETED


class Agent:
    async def execute(self, task: str, context: dict[str, Any], progress_callback: Any = None) -> str:
        await progress_callback(40, "reading")
        self.seen = progress.operations()[-1].snapshot()
        return f"{task} {context}"


class SyncAgent:
    def execute(self, task: str, context: dict[str, Any], **more: Any) -> Any:
        return task, context, more


class AsyncCallable:
    async def __call__(self, task: str) -> str:
        return task.upper()


CALLABLES: dict[str, tuple[Any, object]] = {
    "function": (lambda task: task * 2, "tt"),
    "no arguments": (lambda: 7, 7),
    "async callable object": (AsyncCallable(), "T"),
    "partial": (functools.partial(lambda prefix, task: prefix + task, "x"), "xt"),
    "partial coroutine": (functools.partial(AsyncCallable.__call__, AsyncCallable()), "T"),
    "builtin": (len, 1),
    "no signature": (str, "t"),
    "any arguments": (lambda *args: args, ("t", {})),
    "agent": (SyncAgent(), ("t", {}, {})),
    "coroutine from a lambda": (lambda task: AsyncCallable()(task), "T"),
    "decorated": (progress.stage("inner")(lambda task: task), "t"),
    "default stays": (lambda task, size=3: size, 3),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_every_kind_of_callable(kind: str, progress_capture: Capture) -> None:
    """Functions, coroutine functions, callable objects and agents run alike."""
    run, expected = CALLABLES[kind]
    assert Workflow("w", stages=[Step("only", run)]).run("t") == {"only": expected}


def test_agents_report_progress(progress_capture: Capture) -> None:
    """`progress_callback` takes a percentage and a message, with or without await."""
    agent = Agent()
    assert Workflow("w", stages=[Step("a", agent)]).run("tea") == {"a": "tea {}"}
    seen = stage_of(agent.seen, "a")
    assert (seen.progress.ratio, seen.message) == (0.4, "reading")


def test_threads_have_the_context(progress_capture: Capture) -> None:
    """In the thread of a function the stage is current: counts, waits and notes arrive there."""

    def count() -> str:
        for _ in progress.track("abc"):
            progress.note("one")
        assert threading.current_thread() is not threading.main_thread()
        return progress.current(required=True).name

    work = Workflow("w", stages=[Step("count", count)])
    assert work.run(id="r") == {"count": "w"}
    snapshot = work.get_progress("r")
    assert stage_of(snapshot, "count").progress.completed == 3
    assert {note.stage for note in snapshot.notes} == {"count"}  # type: ignore[union-attr]


def test_steps_that_may_run_side_by_side(progress_capture: Capture) -> None:
    """Steps that do not wait for each other run at once, in tasks and in threads."""
    meet = threading.Barrier(3)

    async def one() -> None:
        await anyio.to_thread.run_sync(meet.wait, 5)

    def two() -> None:
        meet.wait(5)

    stages = [
        Step("one", one),
        Step("two", two),
        Step("three", two),
        Step("end", lambda: 1, after=["one", "two", "three"]),
    ]
    assert Workflow("w", stages=stages).run()["end"] == 1


def test_fifty_threads_at_once(progress_capture: Capture) -> None:
    """No step waits for a free thread of a pool, as it would be shown as running."""
    meet = threading.Barrier(50)
    assert len(Workflow("w", stages=[Step(f"s{n}", lambda: meet.wait(20)) for n in range(50)]).run()) == 50


def test_a_long_chain(progress_capture: Capture) -> None:
    """A long chain neither recurses nor stays open."""

    async def nothing() -> None: ...

    stages = [Step(f"s{n}", nothing, after=[f"s{n - 1}"] if n else []) for n in range(300)]
    assert len(Workflow("w", stages=stages).run()) == 300


def test_the_plan_is_known_before_the_first_step(progress_capture: Capture) -> None:
    """Weights, expected durations, dependencies and what is critical show from the start, before any step runs."""
    seen: list[Snapshot] = []

    def first() -> None:
        seen.append(progress.current(required=True).snapshot())

    stages = [
        Step("first", first),
        Step("second", first, after=["first"], weight=3, expected=60, critical=False, description="more"),
    ]
    work = Workflow("w", stages=stages)
    assert str(work) == "w\n  first\n  second: after first; expected 1 min; weight 3; not critical"
    work.run()
    second = stage_of(seen[0], "second")
    assert second.status is Status.PENDING
    assert (second.weight, second.expected, second.depends_on) == (3, 60, ("first",))
    assert (second.critical, second.description, second.planned) == (False, "more", True)
    progress_capture.look()
    started = progress_capture.of("progress.operation.started")
    assert [stage.name for stage in started[0].snapshot.stages] == ["first", "second"]


def test_expected_durations_come_from_earlier_runs(progress_capture: Capture) -> None:
    """What earlier runs of the workflow took is the expected duration of a step that names none."""
    seen: list[StageSnapshot] = []

    def first() -> None:
        seen.append(stage_of(progress.current(required=True).snapshot(), "second"))

    work = Workflow(
        "w", stages=[Step("first", first), Step("second", lambda: progress_capture.clock.sleep(40), after=["first"])]
    )
    for _ in range(3):
        work.run()
        progress_capture.advance(1)
    assert seen[0].expected is None
    assert seen[-1].expected == pytest.approx(40, rel=0.1)


def test_an_earlier_branch_is_not_skipped_while_a_later_one_runs(progress_capture: Capture) -> None:
    """A step that did not start counts as skipped only if a step that depends on it has started."""
    seen: list[Snapshot] = []

    async def slow() -> None:
        await anyio.sleep(0.05)

    def late() -> None:
        seen.append(progress.current(required=True).snapshot())

    stages = [
        Step("a", slow),
        Step("b", lambda: 1, after=["a"]),
        Step("c", lambda: 1),
        Step("d", late, after=["c"]),
        Step("e", lambda: 1, after=["b", "d"]),
    ]
    Workflow("w", stages=stages).run()
    assert statuses(seen[0])["b"] == "pending"


# -- failing


def test_stop(progress_capture: Capture) -> None:
    """A critical step that fails stops the others; its own exception comes out, and its stage shows what is skipped."""
    error = ValueError("no such page")

    async def failing() -> None:
        await anyio.sleep(0)
        raise error

    work = Workflow(
        "w",
        stages=[
            Step("bad", failing),
            Step("long", forever),
            Step("next", fails(), after=["bad"]),
            Step("last", fails(), after=["next"]),
        ],
    )
    with pytest.raises(ValueError, match="no such page") as caught:
        work.run(id="r")
    assert caught.value is error
    snapshot = work.get_progress("r")
    assert snapshot is not None
    assert (snapshot.status, snapshot.reason) == (Status.FAILED, "ValueError: no such page")
    assert statuses(snapshot) == {"bad": "failed", "long": "cancelled", "next": "skipped", "last": "skipped"}
    assert stage_of(snapshot, "bad").attributes == {"skipped": "next, last", "stopped": "long"}
    assert notes(snapshot) == ["skipped as bad failed: next, last", "stopped as bad failed: long"]


def test_stop_tells_threads(progress_capture: Capture) -> None:
    """When a critical step fails, functions in threads see that they should stop."""
    running = threading.Event()

    def cooperative() -> None:
        running.set()
        for _ in range(500):
            progress.raise_if_cancelled()
            threading.Event().wait(0.01)
        raise AssertionError("was not stopped")

    def failing() -> None:
        running.wait(5)
        raise ValueError("broken")

    work = Workflow("w", stages=[Step("long", cooperative), Step("bad", failing)])
    with pytest.raises(ValueError, match="broken"):
        work.run(id="r")
    assert statuses(work.get_progress("r")) == {"long": "cancelled", "bad": "failed"}
    assert not any("still runs" in note for note in notes(work.get_progress("r")))


def test_not_critical(progress_capture: Capture) -> None:
    """The others go on without a step that is not critical; they get None, or the default of their parameter."""

    def write(search: object, more: object = "default") -> object:
        return search, more

    stages = [
        Step("search", fails(), critical=False),
        Step("more", fails(), critical=False),
        Step("write", write, after=["search", "more"]),
    ]
    work = Workflow("w", stages=stages)
    results = work.run(id="r")
    assert results == {"write": (None, "default")}
    assert sorted(results.failed) == ["more", "search"]
    snapshot = work.get_progress("r")
    assert snapshot is not None
    assert snapshot.status is Status.COMPLETED
    assert statuses(snapshot) == {"search": "failed", "more": "failed", "write": "completed"}
    assert "goes on without search, which is not critical" in notes(snapshot)


def test_retry(progress_capture: Capture) -> None:
    """Each try that fails is noted, each pause is a declared wait, and the result is that of the last try."""
    tries = []

    def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("reset")
        return "done"

    work = Workflow("w", stages=[Step("flaky", flaky, retries=3, backoff=QUICK)])
    assert work.run(id="r") == {"flaky": "done"}
    snapshot = work.get_progress("r")
    assert notes(snapshot) == ["try 1 of 4 failed: ConnectionError: reset", "try 2 of 4 failed: ConnectionError: reset"]
    progress_capture.look()
    waits = [event.attributes["progress.wait.reason"] for event in progress_capture.of("progress.wait.started")]
    assert len(waits) == 2
    assert waits[0].startswith("try 2 of 4 after about ")  # type: ignore[union-attr]
    assert len(progress_capture.of("progress.wait.ended")) == 2


def test_retries_end(progress_capture: Capture) -> None:
    """After the last try its exception comes out, without another wait."""
    tries = []

    async def broken() -> None:
        tries.append(1)
        raise ConnectionError(len(tries))

    with pytest.raises(ConnectionError, match="3"):
        Workflow("w", stages=[Step("a", broken, retries=2, backoff=QUICK)]).run()
    progress_capture.look()
    assert len(progress_capture.of("progress.wait.started")) == 2


@pytest.mark.parametrize(
    ("retry_on", "tries"),
    [
        (ConnectionError, 1),
        ((ConnectionError, ValueError), 3),
        (lambda error: "broken" in str(error), 3),
        (lambda error: False, 1),
    ],
)
def test_retry_on(retry_on: Any, tries: int, progress_capture: Capture) -> None:
    """`retry_on` decides which exceptions are worth another try."""
    made = []

    def broken() -> None:
        made.append(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Workflow("w", stages=[Step("a", broken, retries=2, retry_on=retry_on, backoff=QUICK)]).run()
    assert len(made) == tries


class HttpError(Exception):
    headers = MappingProxyType({"Retry-After": "0.01"})


def test_retry_after(progress_capture: Capture) -> None:
    """A server's Retry-After decides the pause."""
    made = []

    def busy() -> None:
        made.append(1)
        if len(made) < 2:
            raise HttpError("429")

    Workflow(
        "w", stages=[Step("a", busy, retries=1, backoff=1000)]
    ).run()  # else it would wait for a quarter of an hour
    progress_capture.look()
    (wait,) = progress_capture.of("progress.wait.started")
    assert wait.attributes["progress.wait.reason"] == "try 2 of 2 after 10 ms, as the server asks"


@pytest.mark.parametrize("run", [forever, lambda: threading.Event().wait(5)])
def test_timeout(run: Any, progress_capture: Capture) -> None:
    """A try that takes too long fails with a TimeoutError that names the step and the limit."""
    work = Workflow("w", stages=[Step("slow", run, timeout=0.02)])
    with pytest.raises(TimeoutError, match="step 'slow' took longer than 20 ms"):
        work.run(id="r")
    assert stage_of(work.get_progress("r"), "slow").status is Status.FAILED
    assert any("still runs: Python can't stop a thread" in text for text in notes(work.get_progress("r"))) is (
        run is not forever
    )


def test_fallback(progress_capture: Capture) -> None:
    """Once all tries failed, the fallback runs in the same stage, and its result counts."""

    async def cached(task: str, plan: str) -> str:
        return f"{task} {plan}"

    stages = [
        Step("plan", lambda: "plan"),
        Step("search", fails(), after=["plan"], retries=1, backoff=QUICK, fallback=cached),
    ]
    work = Workflow("w", stages=stages)
    assert work.run("tea", id="r")["search"] == "tea plan"
    stage = stage_of(work.get_progress("r"), "search")
    assert stage.status is Status.COMPLETED
    assert str(stage.attributes["fallback"]).endswith("cached")
    assert notes(work.get_progress("r"))[-1].endswith("cached after ValueError: broken")


def test_a_fallback_that_fails(progress_capture: Capture) -> None:
    """The exception of the fallback comes out, with the first one as its context."""
    with pytest.raises(ValueError, match="worse") as caught:
        Workflow("w", stages=[Step("a", fails(), fallback=fails("worse"))]).run()
    assert str(caught.value.__context__) == "broken"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_a_program_ends_the_workflow(error: BaseException, progress_capture: Capture) -> None:
    """SystemExit and KeyboardInterrupt in a step are never retried, whatever its options say."""

    def leaves() -> None:
        raise error

    with pytest.raises(type(error)):
        Workflow("w", stages=[Step("a", leaves, retries=5, critical=False, fallback=lambda: 1)]).run()
    assert final(progress_capture, "w").status is Status.INTERRUPTED


# -- words


def test_its_plan_in_words(progress_capture: Capture) -> None:
    """One is no plural."""
    stages = [Step("a", fails(), retries=1), Step("b", fails(), retries=2)]
    assert str(Workflow("w", stages=stages)) == "w\n  a: 1 retry\n  b: 2 retries"


@pytest.mark.parametrize("set_up", [False, True])
def test_the_log_of_retries(set_up: bool, progress_capture: Capture) -> None:
    """Stamina's records of our own retries pass only where a handler waits for them; those of others always do."""
    seen: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    root, handler = logging.getLogger(), Handler()
    before, last = root.handlers[:], logging.lastResort
    try:
        root.handlers[:] = [handler] if set_up else []
        logging.lastResort = None if set_up else handler  # type: ignore[assignment]
        with contextlib.suppress(ValueError):
            Workflow("w", stages=[Step("a", fails(), retries=1, backoff=QUICK)]).run()
        logging.getLogger("stamina").warning("of another")
    finally:
        root.handlers[:], logging.lastResort = before, last
    said = [record.getMessage() for record in seen if record.name == "stamina"]
    assert said == [*(["stamina.retry_scheduled"] if set_up else []), "of another"]


def test_a_step_that_ignores_its_timeout(progress_capture: Capture) -> None:
    """Its result counts, and the feed says that it took too long."""

    async def stubborn() -> int:
        try:
            await anyio.sleep(10)
        except BaseException:
            return 3
        return 4

    work = Workflow("w", stages=[Step("a", stubborn, timeout=0.01)])
    assert work.run(id="r") == {"a": 3}
    assert notes(work.get_progress("r"))[0].endswith("stubborn went on after its timeout of 10 ms")


# -- stopping


@pytest.mark.parametrize("how", ["workflow", "operation", "step"])
def test_cancel(how: str, progress_capture: Capture) -> None:
    """A cancelled run stops what runs, and says what was done."""
    begun = threading.Event()
    cleaned = []

    async def long() -> None:
        begun.set()
        try:
            if how == "step":
                progress.request_cancel("enough")
            await anyio.sleep_forever()
        finally:
            cleaned.append(1)

    stages = [Step("plan", lambda: 1), Step("long", long, after=["plan"]), Step("write", lambda: 1, after=["long"])]
    work = Workflow("w", stages=stages)

    def stop() -> None:
        begun.wait(5)
        if how == "workflow":
            assert work.cancel("r", "enough")
        elif how == "operation":
            one = progress.get("r")
            assert one is not None
            one.request_cancel("enough")

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(OperationCancelled, match="enough; done: plan; stopped: long; not begun: write"):
        work.run(id="r")
    thread.join()
    assert cleaned == [1]
    snapshot = work.get_progress("r")
    assert snapshot is not None
    assert snapshot.status is Status.CANCELLED
    assert statuses(snapshot) == {"plan": "completed", "long": "cancelled", "write": "skipped"}
    assert notes(snapshot) == ["cancelled; done: plan; stopped: long; not begun: write"]
    assert not work.cancel("r")
    assert not work.cancel("another")


def test_cancel_reaches_a_workflow_inside(progress_capture: Capture) -> None:
    """A workflow that a step runs is part of the outer one: its operation is a child, and a cancel reaches it."""
    begun = threading.Event()

    async def long() -> None:
        begun.set()
        await anyio.sleep_forever()

    inner = Workflow("inner", stages=[Step("long", long)])
    outer = Workflow("outer", stages=[Step("call", lambda: inner.run(id="i"))])
    thread = threading.Thread(target=lambda: begun.wait(5) and outer.cancel("o"))
    thread.start()
    with pytest.raises(OperationCancelled):
        outer.run(id="o")
    thread.join()
    found = inner.get_progress("i")
    assert found is not None
    assert (found.status, found.parent_id) == (Status.CANCELLED, "o")


def test_a_task_that_is_cancelled(progress_capture: Capture) -> None:
    """Cancelling the task of `arun` cancels the run; CancelledError passes."""
    work = Workflow("w", stages=[Step("long", forever)])

    async def main() -> None:
        task = asyncio.create_task(work.arun(id="r"))
        await ended(5, lambda: work.get_progress("r"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    snapshot = work.get_progress("r")
    assert snapshot is not None
    assert snapshot.status is Status.CANCELLED
    assert notes(snapshot) == ["cancelled; stopped: long"]


def test_a_step_that_cancels_itself(progress_capture: Capture) -> None:
    """A CancelledError that a step lets out, though nobody asked, never counts as done."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    work = Workflow("w", stages=[Step("a", cancelled), Step("b", lambda: 1, after=["a"])])
    with pytest.raises(OperationCancelled, match="step 'a' cancelled itself; stopped: a; not begun: b"):
        work.run()
    assert final(progress_capture, "w").status is Status.CANCELLED


# -- running


def test_runs_at_once(progress_capture: Capture) -> None:
    """A workflow may run many times at once; each run has its own results, and is found by its id."""
    work = Workflow(
        "w", stages=[Step("double", lambda task: task * 2), Step("add", lambda double: double + 1, after=["double"])]
    )

    async def main() -> list[Any]:
        return await asyncio.gather(*(work.arun(n, id=f"r{n}") for n in range(20)))

    assert [found["add"] for found in asyncio.run(main())] == [2 * n + 1 for n in range(20)]
    assert stage_of(work.get_progress("r7"), "add").status is Status.COMPLETED
    assert work.get_progress("r20") is None


def test_trio(progress_capture: Capture) -> None:
    """`arun` runs in trio, too, with retries and cancel."""
    made = []

    async def flaky() -> str:
        made.append(1)
        await trio.sleep(0)
        if len(made) < 2:
            raise ValueError("once")
        return "done"

    work = Workflow("w", stages=[Step("a", flaky, retries=1, backoff=QUICK), Step("b", lambda a: a, after=["a"])])
    assert trio.run(work.arun) == {"a": "done", "b": "done"}

    async def long() -> None:
        progress.request_cancel()
        await trio.sleep_forever()

    with pytest.raises(OperationCancelled):
        trio.run(Workflow("w", stages=[Step("long", long)]).arun)


def test_run_in_an_event_loop(progress_capture: Capture) -> None:
    """`run` in a coroutine is a clear error, as in a notebook; `arun` works there."""
    work = Workflow("w", stages=[Step("a", lambda: 1)])

    async def main() -> Any:
        with pytest.raises(InvalidState, match=r"use 'await workflow\.arun\(\.\.\.\)'"):
            work.run()
        return await work.arun()

    assert asyncio.run(main()) == {"a": 1}


def test_the_same_id_twice(progress_capture: Capture) -> None:
    """An id that is alive is refused; afterwards it makes a new attempt."""
    work = Workflow("w", stages=[Step("a", forever)])

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(work.arun, id="r"))
            await ended(5, lambda: work.get_progress("r"))
            with pytest.raises(progress.DuplicateOperation):
                await work.arun(id="r")
            assert work.get_progress("r").status is Status.RUNNING  # type: ignore[union-attr]
            group.cancel_scope.cancel()

    anyio.run(main)
    again = Workflow("w", stages=[Step("a", lambda: 1)])
    again.run(id="r")
    assert again.get_progress("r").attempt == 2  # type: ignore[union-attr]


def test_callbacks(progress_capture: Capture) -> None:
    """A callback gets the changes of every run, and exactly one final snapshot each, until it is removed."""
    seen: list[Snapshot] = []
    work = Workflow("w", stages=[Step("a", lambda: 1)])
    remove = work.add_callback(seen.append)
    work.run(id="r")
    progress_capture.look()
    assert [one.status for one in seen if one.status.final] == [Status.COMPLETED]
    remove()
    remove()
    count = len(seen)
    work.run()
    progress_capture.look()
    assert len(seen) == count
    with pytest.raises(InvalidArgument, match="a callback must be a function, not 3"):
        work.add_callback(3)  # type: ignore[arg-type]


def test_only_the_last_runs_are_kept(progress_capture: Capture) -> None:
    """A workflow that runs for ever keeps the last hundred runs."""

    async def nothing() -> None: ...

    work = Workflow("w", stages=[Step("a", nothing)])

    async def main() -> None:
        for n in range(103):
            await work.arun(id=f"r{n}")

    asyncio.run(main())
    assert work.get_progress("r2") is None
    assert work.get_progress("r3") is not None
    assert len(work._ended) == 100
    assert not work._runs


# -- invalid workflows


def one(task: object) -> object:
    return task


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


INVALID: dict[str, tuple[Callable[[], object], str]] = {
    "no steps": (lambda: Workflow("w", stages=[]), "a workflow needs at least one step"),
    "no list": (lambda: Workflow("w", stages="plan"), r"stages must be a list of Step\(...\), not 'plan'"),  # type: ignore[arg-type]
    "no step": (lambda: Workflow("w", stages=[one]), r"stages must be a list of Step\(...\); it has <function"),  # type: ignore[list-item]
    "same names": (lambda: Workflow("w", stages=[Step("a", one), Step("a", one)]), "two steps have the name 'a'"),
    "unknown": (
        lambda: Workflow("w", stages=[Step("a", one, after=["b"])]),
        "step 'a' is after 'b', which is no step; there are a",
    ),
    "circle": (
        lambda: Workflow("w", stages=[Step("a", one, after=["b"]), Step("b", one, after=["a"])]),
        "in a circle: (a → b → a|b → a → b)",
    ),
    "itself": (lambda: Step("a", one, after=["a"]), "step 'a' can't be after itself"),
    "after text": (lambda: Step("a", one, after="plan"), r"write after=\['plan'\]"),
    "after number": (lambda: Step("a", one, after=[3]), "it has 3"),  # type: ignore[list-item]
    "nothing to call": (lambda: Step("a", 3), r"needs a function, or an agent with execute\(task, context\), not 3"),
    "called already": (lambda: Step("a", forever()), "coroutine that was called already"),
    "class": (lambda: Step("a", Agent), r"give it an instance: Agent\(\)"),
    "generator": (lambda: Step("a", generator), "generator function"),
    "async generator": (lambda: Step("a", async_generator), "generator function"),
    "no name": (lambda: Step("", one), "a step's name must be a printable text"),
    "name": (lambda: Step(3, one), "not 3"),  # type: ignore[arg-type]
    "long name": (lambda: Step("a" * 1000, one), "a step's name"),
    "reserved": (lambda: Step("task", one), "a step can't be named 'task'"),
    "retries": (
        lambda: Step("a", one, retries=-1),
        "retries of step 'a' must be a whole number from 0 to 1000, not -1",
    ),
    "retries text": (lambda: Step("a", one, retries="3"), "not '3'"),  # type: ignore[arg-type]
    "endless retries": (lambda: Step("a", one, retries=10**9), "from 0 to 1000"),
    "timeout": (lambda: Step("a", one, timeout=0), "timeout of step 'a' must be a number of seconds above 0"),
    "backoff": (lambda: Step("a", one, backoff=-1), "backoff of step 'a'"),
    "nan": (lambda: Step("a", one, timeout=float("nan")), "timeout of step 'a'"),
    "retry_on": (lambda: Step("a", one, retry_on=KeyboardInterrupt), "kinds of Exception, not KeyboardInterrupt"),  # type: ignore[arg-type]
    "retry_on text": (
        lambda: Step("a", one, retry_on="ValueError"),
        "an exception class, a tuple of them, or a function",
    ),  # type: ignore[arg-type]
    "critical": (lambda: Step("a", one, critical="no"), "critical of step 'a' must be True or False, not 'no'"),  # type: ignore[arg-type]
    "retry_on nothing": (lambda: Step("a", one, retry_on=()), "retry_on of step 'a' names no exception"),
    "weight": (lambda: Step("a", one, weight=-1), "weight"),
    "expected": (lambda: Step("a", one, expected=0), "expected"),
    "stall_after": (lambda: Step("a", one, stall_after=0), "stall_after of step 'a'"),
    "fallback": (lambda: Step("a", one, fallback=[]), "the fallback of step 'a' needs a function"),
    "parameter": (
        lambda: Workflow("w", stages=[Step("a", lambda task, context, size: 1)]),
        "the parameter 'size' of .* gets no value",
    ),
    "mistyped": (
        lambda: Workflow("w", stages=[Step("search", one), Step("b", lambda serach: 1, after=["search"])]),
        "'serach' .* did you mean 'search'",
    ),
    "not before": (
        lambda: Workflow("w", stages=[Step("search", one), Step("b", lambda search: 1)]),
        r"a step that need not be over then; add after=\['search'\]",
    ),
    "plan": (
        lambda: Workflow("w", stages=[Step("a", one)], plan=["x"]),
        "sets the option 'plan' of its operations itself",
    ),
    "option": (lambda: Workflow("w", stages=[Step("a", one)], stall_afte=3), "did you mean 'stall_after'"),
    "workflow name": (lambda: Workflow("", stages=[Step("a", one)]), "an operation's name"),
}


@pytest.mark.parametrize("case", INVALID)
def test_mistakes_show_when_a_workflow_is_made(case: str) -> None:
    """What can't work is refused before anything runs, with what is allowed."""
    make, said = INVALID[case]
    with pytest.raises(InvalidArgument, match=said):
        make()


def test_names_that_are_no_identifiers(progress_capture: Capture) -> None:
    """The result of step `fetch-all` is the parameter `fetch_all`."""
    stages = [Step("fetch-all", lambda: 3), Step("b", lambda fetch_all: fetch_all, after=["fetch-all"])]
    assert Workflow("w", stages=stages).run()["b"] == 3


# -- what is installed


@pytest.mark.parametrize("make", [lambda: Workflow("w", stages=[Step("a", one)]), adaptive])
@pytest.mark.parametrize("package", ["anyio", "stamina"])
def test_without_the_extra(package: str, make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package of the extra, what needs it says how to install it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"needs {package}: pip install 'otel-progress\[workflow\]'"):
        make()


def test_importing_needs_no_extra() -> None:
    """The module imports none of its packages before a workflow is made."""
    code = (
        "import sys; before = set(sys.modules); import otel_progress.workflow; "
        "print(sorted({'anyio', 'stamina', 'tenacity', 'psutil'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


# -- what hangs, and what only waits


class Background:
    """A run in another thread; the test lets it go on."""

    def __init__(self, work: Workflow, id: str, *, in_trio: bool = False) -> None:
        self.error: BaseException | None = None
        run = (
            functools.partial(trio.run, functools.partial(work.arun, id=id))
            if in_trio
            else functools.partial(work.run, id=id)
        )
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._thread.start()

    def _run(self, run: Callable[[], object]) -> None:
        try:
            run()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("in_trio", [False, True])
@pytest.mark.parametrize("kind", ["thread", "task"])
def test_a_step_that_hangs_is_named_with_its_line(kind: str, in_trio: bool, progress_capture: Capture) -> None:
    """A step that hangs, in a thread or in a task, is stuck, and its own line of code is shown; that of a thread follows the line that waits."""
    begun, go_on = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set() or go_on.wait(10)  # type: ignore[func-returns-value]  # HERE

    async def waits() -> None:
        begun.set()
        while not go_on.is_set():
            await anyio.sleep(0.01)  # HERE

    work = Workflow("w", stages=[Step("hangs", hangs if kind == "thread" else waits)], stall_after=10)
    running = Background(work, "r", in_trio=in_trio)
    assert begun.wait(10)
    progress_capture.advance(12)
    snapshot = work.get_progress("r")
    go_on.set()
    running.join()
    assert snapshot is not None
    assert snapshot.health == "silent"
    own, _, behind = str(snapshot.stuck_at).partition(", waiting for thread ")
    path, line = (behind.partition(" at ")[2] or own).split(" in ")[0].rsplit(":", 1)
    with open(__file__, encoding="utf-8") as source:
        assert "HERE" in source.read().splitlines()[int(line) - 1]
    assert path.endswith("test_workflow.py")


def test_a_pause_is_not_stuck(progress_capture: Capture) -> None:
    """A step that waits for its next try waits, however long, and a cancel ends its pause at once."""
    failed = threading.Event()

    def failing() -> None:
        failed.set()
        raise ValueError("broken")

    work = Workflow("w", stages=[Step("a", failing, retries=1, backoff=1000)], stall_after=10)
    running = Background(work, "r")
    assert failed.wait(10)
    for _ in range(1000):
        if progress_capture.of("progress.wait.started"):
            break
        threading.Event().wait(0.005)
        progress_capture.look()
    progress_capture.advance(100)
    snapshot = work.get_progress("r")
    work.cancel("r")
    running.join()
    assert snapshot is not None
    assert (snapshot.status, snapshot.health) == (Status.WAITING, "waiting")
    assert isinstance(running.error, OperationCancelled)


def test_a_monitor_stops_it(progress_capture: Capture) -> None:
    """A cancel command from outside stops a run as `cancel` does."""
    begun = threading.Event()

    async def long() -> None:
        begun.set()
        await anyio.sleep_forever()

    running = Background(Workflow("w", stages=[Step("long", long)]), "r")
    assert begun.wait(10)
    said = commands.obey({"kind": "cancel", "operation_id": "r", "reason": "enough"})
    running.join()
    assert said == (commands.RECEIVED, "")
    assert str(running.error) == "'w' was asked to stop: enough; stopped: long"
    assert final(progress_capture, "w").status is Status.CANCELLED
