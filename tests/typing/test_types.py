"""The types that type checkers infer; checked by mypy --strict and pyright, and run once as a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from typing_extensions import assert_type

import otel_progress as progress
from otel_progress import (
    CarryingExecutor,
    Operation,
    Parent,
    Plan,
    Snapshot,
    Stage,
    StagePlan,
    StageRuns,
    StageSnapshot,
    Status,
)
from otel_progress.testing import Capture


@pytest.fixture(autouse=True)
def apart(progress_capture: Capture) -> None:
    """Nothing that runs here affects other tests."""


@progress.operation
def bare(a: int, *, b: str = "") -> float:
    return float(a)


@progress.operation("called", stall_after=30)
def called(a: int) -> str:
    return str(a)


@progress.operation(stall_after=30, plan=["a", StagePlan("b", weight=2)])
def options_only(a: int) -> str:
    return str(a)


@progress.operation("job")
async def job(a: int) -> bytes:
    return b"x" * a


@progress.operation
async def bare_job() -> int:
    return 1


@progress.operation("items")
def items(a: int) -> Iterator[int]:
    yield from range(a)


@progress.operation
async def stream(a: int) -> AsyncIterator[str]:
    for number in range(a):
        yield str(number)


@progress.stage
def bare_step(a: int) -> int:
    return a


@progress.stage("step", weight=2)
def step(a: int) -> int:
    return a


@progress.stage(unit="file")
async def async_step(a: int) -> str:
    return str(a)


class Worker:
    @progress.operation
    def method(self, a: int) -> str:
        return str(a)

    @progress.operation("classy")
    @classmethod
    def above(cls, a: int) -> str:
        return str(a)

    @classmethod
    @progress.operation("classy")
    def below(cls, a: int) -> str:
        return str(a)

    @progress.operation
    @staticmethod
    def static(a: int) -> str:
        return str(a)

    @progress.stage("wait")
    async def wait(self) -> int:
        return 1


async def numbers() -> AsyncIterator[int]:
    yield 1


def test_decorated_functions_keep_their_types() -> None:
    """A decorated function keeps its type: bare, called, with options only, as operation and as stage."""
    assert_type(bare(1, b="x"), float)
    assert_type(called(1), str)
    assert_type(options_only(1), str)
    assert_type(list(items(1)), list[int])
    with progress.operation("work"):
        assert_type(bare_step(1), int)
        assert_type(step(1), int)
    plain: Callable[[int], str] = called
    waiting: Callable[[int], Awaitable[bytes]] = job
    assert plain is called
    assert waiting is job


def test_decorated_methods_keep_their_types() -> None:
    """So does a method, a class method and a static method."""
    assert_type(Worker().method(1), str)
    assert_type(Worker.above(1), str)
    assert_type(Worker.below(1), str)
    assert_type(Worker.static(1), str)


def test_decorated_coroutines_keep_their_types() -> None:
    """So do coroutines and async generators."""

    async def main() -> None:
        assert_type(await job(1), bytes)
        assert_type(await bare_job(), int)
        assert_type([item async for item in stream(1)], list[str])
        with progress.operation("work"):
            assert_type(await async_step(1), str)
            assert_type(await Worker().wait(), int)

    asyncio.run(main())


def test_context_managers_give_their_handles() -> None:
    """with and async with return the handle and let exceptions pass: later code is reached only without one."""

    async def main() -> None:
        async with progress.operation("work") as op, progress.stage("s") as stage:
            assert_type(op, Operation)
            assert_type(stage, Stage)
            assert_type(op.stage("t", weight=1), Stage)
            async with progress.waiting("tea", overdue_after=5):
                pass

    def returns() -> int:
        with progress.operation("work", id="x", parent=Parent(None)), progress.stage("s"):
            return 1

    with progress.operation("work", total=3, unit="file") as op, progress.stage("s", total=1, critical=False) as stage:
        assert_type(op, Operation)
        assert_type(stage, Stage)
        assert_type(op.start, Callable[[], Operation])
        assert_type(op.status, Status)
        assert_type(op.snapshot(), Snapshot)
        assert_type(op.snapshot().to_dict(), dict[str, Any])
        assert_type(op.summary(), str)
        assert_type(op.summary_dict(), dict[str, Any])
        assert_type(op.snapshot().repeated, tuple[StageRuns, ...])
        assert_type(stage.snapshot(), StageSnapshot)
        assert_type(progress.operations(), list[Operation])
        assert_type(progress.get("x"), Operation | None)
        stage.complete("all of it")
        assert_type(stage.operation, Operation)
        assert_type(op.add_listener(lambda snapshot: snapshot.name), Callable[[], None])
    assert_type(returns(), int)
    asyncio.run(main())


def test_track_gives_the_items() -> None:
    """track yields the items with their type, for `for` and for `async for`, from the module and from handles."""

    async def main() -> None:
        async for number in progress.track(numbers(), unit="token"):
            assert_type(number, int)
        assert_type(await progress.track(numbers()).__anext__(), int)

    with progress.operation("work") as op:
        for text in progress.track(["a"]):
            assert_type(text, str)
        for key, value in op.track({"a": 1}.items()):
            assert_type(key, str)
            assert_type(value, int)
        assert_type(list(progress.track(range(3))), list[int])
        assert_type(next(progress.track(iter("ab"))), str)
        asyncio.run(main())


def test_current_is_known() -> None:
    """current() may return None, current(required=True) may not."""
    assert_type(progress.current(), "Operation | None")
    with progress.operation("work"):
        assert_type(progress.current(required=True), Operation)


def test_the_rest_is_known() -> None:
    """carry keeps the type of the function; the executor returns futures; plans and headers have their types."""

    def add(a: int, b: str) -> float:
        return float(a)

    assert_type(progress.carry(add)(1, "x"), float)
    with CarryingExecutor(1) as pool:
        assert_type(pool.submit(add, 1, "x"), Future[float])
    assert_type(progress.phases({"a": 5, "b": 20}, interpolate=False), Plan)
    assert_type(progress.extract({}), Parent)
    with progress.operation("work"):
        assert_type(progress.cancel_requested(), bool)
