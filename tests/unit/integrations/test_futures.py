"""Pools carry the operation that gave them the work, with no line in the program."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import multiprocessing.pool
import operator
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import joblib
import pytest

import otel_progress as progress
from otel_progress.instrumenting import chosen
from otel_progress.integrations.futures import Carried
from otel_progress.live import hooks
from otel_progress.testing import Capture, capture


@pytest.fixture(autouse=True)
def seen() -> Iterator[Capture]:
    """Capture all signals, with the integration on."""
    with capture() as found:
        chosen.start("futures")
        yield found
        chosen.stop()


def parent_of_an_operation() -> str | None:
    """Return the parent of an operation that starts here."""
    with progress.operation("part") as part:
        return part.parent_id


def parent_of(_: int) -> str | None:
    """Return the same, of an item."""
    return parent_of_an_operation()


def innermost() -> str | None:
    """Return the operation that runs here."""
    here = progress.current()
    return None if here is None else here.id


def test_threads_get_the_context() -> None:
    """By `submit`, `map` and the executor of an event loop; our own executor carries once."""

    async def main() -> str | None:
        return await asyncio.get_running_loop().run_in_executor(None, innermost)

    with ThreadPoolExecutor(1) as pool, progress.operation("job") as job:
        assert pool.submit(innermost).result() == job.id
        assert list(pool.map(lambda _: innermost(), [1])) == [job.id]
        assert asyncio.run(main()) == job.id
        with progress.CarryingExecutor(1) as own:
            assert own.submit(innermost).result() == job.id


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_get_the_parent(method: str) -> None:
    """An operation that starts in a worker is part of the one that gave it the work."""
    with progress.operation("job") as job:
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            assert pool.submit(parent_of_an_operation).result(60) == job.id


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools_of_multiprocessing(method: str) -> None:
    """All ways to give work to one, in processes and in threads."""
    with progress.operation("job") as job:
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(parent_of_an_operation) == job.id
            assert pool.map(parent_of, [1]) == [job.id]
            assert pool.starmap(parent_of, [(1,)]) == [job.id]
            assert list(pool.imap(parent_of, [1])) == [job.id]
            assert list(pool.imap_unordered(parent_of, [1])) == [job.id]
        with multiprocessing.pool.ThreadPool(1) as threads:
            assert threads.map(lambda _: innermost(), [1]) == [job.id]


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend: str) -> None:
    """Its backends are pools of these kinds."""
    with progress.operation("job") as job:
        assert joblib.Parallel(2, backend=backend)(joblib.delayed(parent_of)(i) for i in range(2)) == [job.id] * 2


def test_without_an_operation_nothing_is_carried() -> None:
    """The function stays the one that was given."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(innermost).result() is None


def test_errors_are_those_of_the_pool() -> None:
    """What can't be pickled, and what the function raises."""
    with progress.operation("job"), ProcessPoolExecutor(1) as pool:
        with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
            pool.submit(lambda: 1).result(60)
        with pytest.raises(ZeroDivisionError):
            pool.submit(operator.truediv, 1, 0).result(60)


def test_an_explicit_parent_takes_precedence() -> None:
    """Only operations without any other parent are parts of what was carried."""
    headers: dict[str, str] = {}
    with progress.operation("job") as job:
        progress.inject(headers)
    with progress.operation("other") as other:
        assert Carried(parent_of_an_operation, headers)() == other.id
    assert Carried(parent_of_an_operation, headers)() == job.id
    assert parent_of_an_operation() is None


def test_a_function_that_is_given_by_name() -> None:
    """Pools of multiprocessing take `func=`."""
    with multiprocessing.pool.ThreadPool(1) as pool, progress.operation("job") as job:
        assert pool.apply_async(func=innermost).get() == job.id
        assert list(pool.imap(func=lambda _: innermost(), iterable=[1])) == [job.id]
        with pytest.raises(TypeError):
            pool.apply_async()


def test_other_variables_stay_the_threads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program without a line of ours, a pool's thread has its own context, but for what it works for."""
    variable = contextvars.ContextVar("variable", default="of the worker")
    monkeypatch.setattr(hooks, "configured", False)
    with ThreadPoolExecutor(1) as pool, progress.operation("bar") as bar:
        bar._observed = True
        variable.set("of the program")
        assert pool.submit(variable.get).result() == "of the worker"
        assert pool.submit(innermost).result() == bar.id
    variable.set("of the worker")
