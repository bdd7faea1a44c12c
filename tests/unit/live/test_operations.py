"""Operations and stages: every form of them, and what becomes of each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import functools
import gc
import inspect
import json
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Operation, OperationCancelled, Stage, Status, semconv
from otel_progress.live.running import STAGES
from otel_progress.live.stage import begin_stages
from otel_progress.testing import Capture

FORMS = {"operation": progress.operation, "stage": progress.stage}


def here() -> Operation:
    """The operation that runs here."""
    return progress.current(required=True)


@progress.operation
def plain(a: int, b: int = 2, *args: int, key: str = "k") -> tuple[Operation, int]:
    """Adds."""
    return here(), a + b


@progress.operation("job")
async def job(a: int) -> Operation:
    """Waits."""
    await asyncio.sleep(0)
    return here()


@progress.operation(stall_after=30, unit="file")
def counting(count: int) -> Iterator[Operation]:
    """Yields."""
    for _ in range(count):
        yield here()


@progress.operation("stream", total=3)
async def stream(count: int) -> AsyncIterator[Operation]:
    """Streams."""
    for _ in range(count):
        await asyncio.sleep(0)
        yield here()


@progress.stage
def step(a: int) -> str | None:
    """A step."""
    return here().snapshot().stage


class Worker:
    """Methods of every kind."""

    def __init__(self, name: str = "w") -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Worker) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]

    @progress.operation
    def method(self, a: int) -> tuple[str, int, str]:
        """A method."""
        return self.name, a, here().name

    @progress.operation("classy")
    @classmethod
    def above(cls, a: int) -> tuple[type, int, str]:
        return cls, a, here().name

    @classmethod
    @progress.operation
    def below(cls, a: int) -> tuple[type, int, str]:
        return cls, a, here().name

    @progress.operation
    @staticmethod
    def static_above(a: int) -> tuple[int, str]:
        return a, here().name

    @staticmethod
    @progress.operation(stall_after=3)
    def static_below(a: int) -> tuple[int, str]:
        return a, here().name

    @progress.operation
    async def coroutine(self) -> str:
        return here().name

    @progress.operation
    def generator(self) -> Iterator[str]:
        yield here().name

    @progress.operation("asked")
    def __call__(self) -> str:
        return here().name


# -- decorating


def test_bare_decorator_takes_the_name_of_the_function(progress_capture: Capture) -> None:
    """@operation without a name is named after its function."""
    op, total = plain(1)
    assert (op.name, total, op.status) == ("plain", 3, Status.COMPLETED)


def test_decorator_with_options_only(progress_capture: Capture) -> None:
    """@operation(stall_after=30) is named after its function, and each call has the options."""
    first, second = (list(counting(1))[0] for _ in range(2))
    assert first is not second
    assert (first.name, first.snapshot().stall_after, first.snapshot().progress.unit) == ("counting", 30, "file")
    assert second.snapshot().stall_after == 30


def test_decorator_with_a_plan_that_can_be_read_once(progress_capture: Capture) -> None:
    """A plan given as an iterator serves each call."""

    @progress.operation(plan=(name for name in ("a", "b")))
    def work() -> list[str]:
        return [stage.name for stage in here().snapshot().stages]

    assert work() == work() == ["a", "b"]


def test_decorated_coroutine_and_async_generator(progress_capture: Capture) -> None:
    """A coroutine is an operation while it runs, an async generator from its first item to its end."""

    async def main() -> tuple[Operation, list[Operation]]:
        return await job(1), [op async for op in stream(2)]

    op, ops = asyncio.run(main())
    assert (op.name, op.status) == ("job", Status.COMPLETED)
    assert ops[0] is ops[1]
    assert (ops[0].name, ops[0].status, ops[0].snapshot().progress.total) == ("stream", Status.COMPLETED, 3)


def test_decorated_methods_of_every_kind(progress_capture: Capture) -> None:
    """Methods, class methods and static methods get their owner, whichever decorator is on top."""
    worker = Worker()
    assert worker.method(1) == ("w", 1, "method")
    assert Worker.method(worker, 1) == ("w", 1, "method")
    assert Worker.above(2) == worker.above(2) == (Worker, 2, "classy")
    assert Worker.below(2) == worker.below(2) == (Worker, 2, "below")
    assert Worker.static_above(3) == worker.static_above(3) == (3, "static_above")
    assert Worker.static_below(3) == worker.static_below(3) == (3, "static_below")
    assert asyncio.run(worker.coroutine()) == "coroutine"
    assert list(worker.generator()) == ["generator"]
    assert worker() == "asked"


def test_decorated_stages_of_every_kind(progress_capture: Capture) -> None:
    """@stage has the same forms as @operation, and each call is a stage of its own."""

    @progress.stage("fetch", weight=2)
    async def fetch() -> str | None:
        await asyncio.sleep(0)
        return here().snapshot().stage

    @progress.stage(unit="line")
    def lines() -> Iterator[str | None]:
        yield here().snapshot().stage

    @progress.stage
    async def tokens() -> AsyncIterator[str | None]:
        yield here().snapshot().stage

    async def main() -> list[str | None]:
        with progress.operation("work"):
            found = [step(1), step(2), await fetch(), *lines()]
            found += [name async for name in tokens()]
            assert [s.name for s in here().snapshot().stages] == ["step", "step", "fetch", "lines", "tokens"]
            assert {s.status for s in here().snapshot().stages} == {Status.COMPLETED}
            assert here().snapshot().stages[3].progress.unit == "line"
            return found

    assert asyncio.run(main()) == ["step", "step", "fetch", "lines", "tokens"]


def test_decorated_stage_outside_an_operation_only_runs(progress_capture: Capture) -> None:
    """A decorated stage without an operation around it runs its function, of every kind."""

    @progress.stage
    def both(a: int) -> int:
        return a

    @progress.stage
    def lines() -> Iterator[int]:
        yield from (1, 2)

    assert both(5) == 5
    assert list(lines()) == [1, 2]


def test_stage_of_a_handle_decorates_too(progress_capture: Capture) -> None:
    """op.stage("x") decorates a function, whose calls are stages of that operation wherever it is called."""
    op = progress.operation("work").start()

    @op.stage("mine")
    def work() -> None:
        progress.advance(2)

    work()
    op.complete()
    (stage,) = op.snapshot().stages
    assert (stage.name, stage.progress.completed) == ("mine", 2)


DECORATED: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "function": (plain, inspect.isfunction),
    "coroutine": (job, inspect.iscoroutinefunction),
    "generator": (counting, inspect.isgeneratorfunction),
    "async generator": (stream, inspect.isasyncgenfunction),
    "stage": (step, inspect.isfunction),
    "method": (Worker().method, inspect.ismethod),
    "coroutine method": (Worker().coroutine, inspect.iscoroutinefunction),
    "generator method": (Worker().generator, inspect.isgeneratorfunction),
}


@pytest.mark.parametrize("name", DECORATED)
def test_decorated_functions_look_as_before(name: str) -> None:
    """Name, module, docstring, annotations, signature and what `inspect` says are those of the function."""
    decorated, kind = DECORATED[name]
    original = decorated.__wrapped__
    assert kind(decorated)
    assert inspect.signature(decorated) == inspect.signature(original)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(decorated, attribute) == getattr(original, attribute)


@pytest.mark.parametrize("name", ["function", "coroutine", "generator", "async generator", "stage"])
def test_decorated_functions_pickle_by_name(name: str) -> None:
    """A decorated function pickles by its qualified name, and copies as itself."""
    decorated, _ = DECORATED[name]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(decorated, protocol)) is decorated
    assert copy.copy(decorated) is decorated
    assert copy.deepcopy({"fn": decorated})["fn"] is decorated


def test_decorated_methods_pickle_with_their_owner(progress_capture: Capture) -> None:
    """A decorated method of an instance or class pickles as a method does."""
    bound = pickle.loads(pickle.dumps(Worker("x").method))
    assert bound(1) == ("x", 1, "method")
    assert pickle.loads(pickle.dumps(Worker.above))(1) == (Worker, 1, "classy")
    assert pickle.loads(pickle.dumps(Worker.static_above))(1) == (1, "static_above")


def test_decorator_goes_by_what_a_function_is_not_by_what_it_wraps(progress_capture: Capture) -> None:
    """A plain function around a coroutine, and a context manager around a generator, work as before."""

    async def inner() -> str:
        return here().name

    @progress.operation
    @functools.wraps(inner)
    def outer() -> str:
        return asyncio.run(inner())

    @progress.operation
    @contextlib.contextmanager
    def managed() -> Iterator[int]:
        yield 1

    assert outer() == "inner"
    with managed() as value:
        assert value == 1


def test_decorated_partials_and_callable_objects(progress_capture: Capture) -> None:
    """Partials and objects with a (coroutine) `__call__` can be decorated."""

    async def add(a: int, b: int) -> tuple[str, int]:
        return here().name, a + b

    class Adder:
        async def __call__(self, a: int, b: int) -> tuple[str, int]:
            return here().name, a + b

    assert asyncio.run(progress.operation("adding")(functools.partial(add, 1))(2)) == ("adding", 3)
    assert asyncio.run(progress.operation(Adder())(1, 2)) == ("Adder", 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", [Worker, 5, None.__class__])
def test_what_can_not_be_decorated_is_told(form: str, what: Any) -> None:
    """Decorating a class or a value raises InvalidArgument, which says what to do."""
    with pytest.raises(progress.InvalidArgument, match=r"decorate the method|must be a text"):
        FORMS[form](what)


def test_options_without_a_name_are_told() -> None:
    """Options beside a bare function are told at once, and so are bad ones without a name."""
    with pytest.raises(progress.InvalidArgument, match="options go with a name"):
        progress.operation(len, total=3)  # type: ignore[call-overload]
    with pytest.raises(progress.InvalidArgument, match="stall_after must be a number of seconds above 0"):
        progress.operation(stall_after=-1)
    with pytest.raises(progress.InvalidArgument, match=r"no option .colour.; it takes name, id, plan"):
        progress.operation("x", colour="red")  # type: ignore[call-overload]


# -- one fresh handle per call


def test_recursive_calls_are_operations_of_their_own(progress_capture: Capture) -> None:
    """Each level of a recursion is an operation, the child of the one above."""
    seen: list[Operation] = []

    @progress.operation
    def down(depth: int) -> None:
        seen.append(here())
        if depth:
            down(depth - 1)
        assert here() is seen[-1 - depth]

    down(2)
    assert len({op.id for op in seen}) == 3
    assert [op.parent_id for op in seen] == [None, seen[0].id, seen[1].id]


def test_concurrent_calls_are_operations_of_their_own(progress_capture: Capture) -> None:
    """Calls of one coroutine at once, and of one function in threads, don't know of each other."""

    async def main() -> list[Operation]:
        return await asyncio.gather(*(job(n) for n in range(5)))

    ops = asyncio.run(main())
    together = threading.Barrier(4)

    @progress.operation
    def work() -> Operation:
        together.wait()
        return here()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ops += [task.result() for task in [pool.submit(work) for _ in range(4)]]
    assert len({op.id for op in ops}) == 9
    assert {op.parent_id for op in ops} == {None}


# -- with, async with, handles


def test_with_and_async_with(progress_capture: Capture) -> None:
    """Both give the handle, which is current within and ended after."""
    with progress.operation("one") as one:
        assert here() is one
        assert one.status is Status.RUNNING

    async def main() -> Operation:
        async with progress.operation("two") as two, progress.stage("s") as stage:
            await asyncio.sleep(0)
            assert here() is two
            assert stage.status is Status.RUNNING
            async with two.use() as used:
                assert used is two
        return two

    two = asyncio.run(main())
    assert (one.status, two.status) == (Status.COMPLETED, Status.COMPLETED)
    assert progress.current() is None


def test_imperative_handle_is_current_only_in_use(progress_capture: Capture) -> None:
    """start() does not make it current; `with op.use()` does, and ends nothing."""
    op = progress.operation("callbacks").start()
    assert progress.current() is None
    with op.use() as used:
        assert used is op
        assert here() is op
        with op.use(), op.stage("s"):
            progress.advance(2)
        assert here() is op
    assert progress.current() is None
    assert op.status is Status.RUNNING
    op.complete()
    assert op.snapshot().stages[0].progress.completed == 2


def test_use_in_a_callback_of_another_thread(progress_capture: Capture) -> None:
    """A handle can be used in any thread, in several at once."""
    op = progress.operation("callbacks").start()

    def callback() -> None:
        with op.use():
            progress.advance()

    threads = [threading.Thread(target=callback) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    op.complete()
    assert op.snapshot().progress.completed == 4


ENDS: dict[str, tuple[Callable[[Any], None], Status, str | None]] = {
    "complete": (lambda op: op.complete(), Status.COMPLETED, None),
    "fail": (lambda op: op.fail(), Status.FAILED, None),
    "fail with a reason": (lambda op: op.fail("no disk"), Status.FAILED, "no disk"),
    "fail with an exception": (lambda op: op.fail(ValueError("no")), Status.FAILED, "ValueError: no"),
    "cancel": (lambda op: op.cancel(), Status.CANCELLED, None),
    "cancel with a reason": (lambda op: op.cancel("enough"), Status.CANCELLED, "enough"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ENDS)
def test_the_first_end_stays(first: str, form: str, progress_capture: Capture) -> None:
    """complete, fail and cancel end a handle; whatever ends it later changes nothing."""
    end, status, reason = ENDS[first]
    with progress.operation("outer") as outer:
        handle = FORMS[form]("x").start()
        progress_capture.clock.sleep(2)
        end(handle)
        progress_capture.clock.sleep(5)
        for again, _, _ in ENDS.values():
            again(handle)
        outer_snapshot = outer.snapshot()
    found: Any = handle.snapshot() if isinstance(handle, Operation) else outer_snapshot.stages[0]
    assert (found.status, found.reason, found.elapsed) == (status, reason, 2)
    progress_capture.look()
    ended = [
        e for e in progress_capture.events if e.name.endswith(".ended") and (e.stage == "x" or e.snapshot.name == "x")
    ]
    assert len(ended) == 1


@pytest.mark.parametrize("form", FORMS)
def test_starting_twice_is_an_error(form: str, progress_capture: Capture) -> None:
    """A handle runs once; the text says to make a new one."""
    with progress.operation("outer"):
        handle = FORMS[form]("x").start()
        with pytest.raises(progress.InvalidState, match="was started before; make a new"):
            handle.start()
        with pytest.raises(progress.InvalidState), handle:
            pass
        assert handle.status is Status.RUNNING
        handle.complete()
        with pytest.raises(progress.InvalidState):
            handle.start()


def test_ended_before_its_start(progress_capture: Capture) -> None:
    """An operation that was given up before its start can't be started, and is told of nowhere."""
    op = progress.operation("x")
    op.cancel("not needed")
    assert op.status is Status.CANCELLED
    with pytest.raises(progress.InvalidState, match="ended before its start"):
        op.start()
    progress_capture.look()
    assert progress_capture.events == []


# -- how it ends


class Mine(Exception):
    """Of the job."""


class MineBase(BaseException):
    """Of the job, and no Exception."""


class Unprintable(Exception):
    """Its text can't be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class LateCancelled(asyncio.CancelledError):
    """A kind of cancellation."""


EXCEPTIONS: dict[str, tuple[BaseException, Status, str]] = {
    "Exception": (Mine("so"), Status.FAILED, "Mine: so"),
    "no text": (Mine(), Status.FAILED, "Mine"),
    "BaseException": (MineBase("so"), Status.FAILED, "MineBase: so"),
    "unprintable": (Unprintable(), Status.FAILED, "Unprintable"),
    "StopIteration": (StopIteration(1), Status.FAILED, "StopIteration: 1"),
    "TimeoutError": (asyncio.TimeoutError(), Status.FAILED, "TimeoutError"),
    "asyncio": (asyncio.CancelledError(), Status.CANCELLED, "CancelledError"),
    "a kind of it": (LateCancelled("bye"), Status.CANCELLED, "LateCancelled: bye"),
    "futures": (concurrent.futures.CancelledError(), Status.CANCELLED, "CancelledError"),
    "ours": (OperationCancelled("by me"), Status.CANCELLED, "OperationCancelled: by me"),
    "GeneratorExit": (GeneratorExit(), Status.CANCELLED, "GeneratorExit"),
    "KeyboardInterrupt": (KeyboardInterrupt(), Status.INTERRUPTED, "KeyboardInterrupt"),
    "SystemExit": (SystemExit(3), Status.INTERRUPTED, "SystemExit: 3"),
}


def raiser(error: BaseException) -> None:
    """Raise."""
    raise error


def _with(form: str, error: BaseException) -> None:
    with FORMS[form]("x"):
        raiser(error)


def _function(form: str, error: BaseException) -> None:
    FORMS[form]("x")(raiser)(error)


def _coroutine(form: str, error: BaseException) -> None:
    @FORMS[form]("x")
    async def run() -> None:
        raiser(error)

    run().send(None)


def _async_with(form: str, error: BaseException) -> None:
    async def run() -> None:
        async with FORMS[form]("x"):
            raiser(error)

    run().send(None)


def _generator(form: str, error: BaseException) -> None:
    @FORMS[form]("x")
    def run() -> Iterator[None]:
        raiser(error)
        yield

    next(run())


def _async_generator(form: str, error: BaseException) -> None:
    @FORMS[form]("x")
    async def run() -> AsyncIterator[None]:
        raiser(error)
        yield

    run().__anext__().send(None)  # type: ignore[attr-defined]


WAYS = {fn.__name__.strip("_"): fn for fn in (_with, _function, _coroutine, _async_with, _generator, _async_generator)}


# Python itself turns a StopIteration in a coroutine or generator into a RuntimeError.
WHATS = [(name, way) for way in WAYS for name in EXCEPTIONS if name != "StopIteration" or way in {"with", "function"}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "way"), WHATS)
def test_exceptions_pass_unchanged_and_decide_the_status(
    name: str, way: str, form: str, progress_capture: Capture
) -> None:
    """The job's own exception passes as it is, with its traceback and nothing chained to it; the status follows."""
    error, status, reason = EXCEPTIONS[name]
    error.__traceback__ = error.__context__ = error.__cause__ = None
    with progress.operation("outer") as outer:
        with pytest.raises(type(error)) as caught:
            WAYS[way](form, error)
        assert caught.value is error
        assert error.__context__ is None
        assert error.__cause__ is None
        assert traceback.extract_tb(error.__traceback__)[-1].name == "raiser"
        assert here() is outer
        snapshot = outer.snapshot()
    progress_capture.look()
    found: Any = progress_capture.ended("x") if form == "operation" else snapshot.stages[0]
    assert (found.status, found.reason) == (status, reason)
    assert outer.status is Status.COMPLETED


def test_exceptions_pass_where_nobody_watches() -> None:
    """Without any listener or SDK the same holds."""
    seen: list[Operation] = []

    @progress.operation
    def work(error: BaseException) -> None:
        seen.append(here())
        raise error

    for error, status, reason in EXCEPTIONS.values():
        with pytest.raises(type(error)) as caught:
            work(error)
        assert caught.value is error
        assert (seen[-1].status, seen[-1].snapshot().reason) == (status, reason)
        assert progress.current() is None


# -- generators


def test_generator_runs_in_its_operation_and_never_leaks_it(progress_capture: Capture) -> None:
    """A generator's operation is current while the generator runs, never in its caller."""
    with progress.operation("caller") as caller:
        generator = counting(3)
        ops = []
        for op in generator:
            ops.append(op)
            assert here() is caller
        assert len(set(ops)) == 1
        assert (ops[0].status, ops[0].parent_id) == (Status.COMPLETED, caller.id)


def test_generators_interleaved_keep_apart(progress_capture: Capture) -> None:
    """Two generators driven in turn, each with a stage open across its yields, never see each other."""

    @progress.operation
    def work(name: str) -> Iterator[tuple[str, str | None]]:
        with progress.stage(name):
            for _ in range(3):
                progress.advance()
                yield here().id, here().snapshot().stage

    one, two = work("one"), work("two")
    found = [pair for pairs in zip(one, two) for pair in pairs]
    assert [stage for _, stage in found] == ["one", "two"] * 3
    assert len({op for op, _ in found}) == 2
    assert progress.current() is None
    one.close()  # type: ignore[attr-defined]
    two.close()  # type: ignore[attr-defined]


def test_async_generator_never_leaks_its_operation(progress_capture: Capture) -> None:
    """An async generator's operation is current while it runs, never in its caller."""

    async def main() -> None:
        async with progress.operation("caller") as caller:
            async for op in stream(3):
                assert op is not caller
                assert here() is caller
            assert op.status is Status.COMPLETED

    asyncio.run(main())


def test_generator_takes_what_is_sent_and_returns_its_value(progress_capture: Capture) -> None:
    """send, throw, yield from and the return value work as before."""
    seen = []

    @progress.operation
    def echo() -> Generator[Any, Any, str]:
        got: Any = None
        while got != "stop":
            try:
                got = yield got
            except KeyError as error:
                got = repr(error)
        seen.append(here())
        return "done"

    def outer() -> Iterator[Any]:
        result = yield from echo()
        yield result

    generator = outer()
    assert next(generator) is None
    assert generator.send(1) == 1
    assert generator.throw(KeyError("k")) == "KeyError('k')"
    assert generator.send("stop") == "done"
    assert seen[0].status is Status.COMPLETED


def test_generator_is_pending_until_its_first_item(progress_capture: Capture) -> None:
    """A generator that is never asked is told of nowhere."""
    generator = counting(1)
    generator.close()  # type: ignore[attr-defined]
    progress_capture.look()
    assert progress_capture.events == []
    assert list(generator) == []


def test_generator_closed_early_is_cancelled(progress_capture: Capture) -> None:
    """A generator closed before its end is cancelled, after its own cleaning up ran inside the operation."""
    cleaned = []

    @progress.operation("work")
    def work() -> Iterator[int]:
        try:
            yield 1
        finally:
            cleaned.append(here().name)

    generator = work()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    generator.close()  # type: ignore[attr-defined]
    assert cleaned == ["work"]
    progress_capture.look()
    assert progress_capture.ended("work").status is Status.CANCELLED


def test_generator_dropped_early_is_cancelled(progress_capture: Capture) -> None:
    """A generator dropped before its end, or left by a break, is cancelled."""
    for _ in counting(3):
        break
    gc.collect()
    progress_capture.advance(1)
    assert progress_capture.ended("counting").status is Status.CANCELLED


def test_generator_thrown_into_fails_with_that(progress_capture: Capture) -> None:
    """An exception thrown into a generator that does not catch it is its failure."""
    generator = counting(3)
    next(generator)
    error = KeyError("thrown")
    with pytest.raises(KeyError) as caught:
        generator.throw(error)  # type: ignore[attr-defined]
    assert caught.value is error
    progress_capture.look()
    assert progress_capture.ended("counting").status is Status.FAILED


def test_generator_that_fails_while_it_closes(progress_capture: Capture) -> None:
    """What a generator raises while it is closed passes, and is its failure."""

    @progress.operation("work")
    def work() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise Mine("late")

    generator = work()
    next(generator)
    with pytest.raises(Mine, match="late"):
        generator.close()  # type: ignore[attr-defined]
    progress_capture.look()
    assert progress_capture.ended("work").status is Status.FAILED


def test_async_generator_closed_thrown_into_and_dropped(progress_capture: Capture) -> None:
    """Async generators end as generators do: closed and dropped ones cancelled, failed ones failed."""

    async def main() -> None:
        closed: Any = stream(3)
        await closed.__anext__()
        await closed.aclose()
        await closed.aclose()
        thrown: Any = stream(3)
        await thrown.__anext__()
        with pytest.raises(Mine):
            await thrown.athrow(Mine())
        never: Any = stream(3)
        await never.aclose()
        async for _ in stream(3):
            break
        gc.collect()

    asyncio.run(main())
    progress_capture.advance(1)
    found = [e.snapshot.status for e in progress_capture.of(semconv.OPERATION_ENDED)]
    assert sorted(found) == [Status.CANCELLED, Status.CANCELLED, Status.FAILED]


def test_generator_can_go_on_in_another_thread(progress_capture: Capture) -> None:
    """A generator begun here and finished in a thread is one operation."""
    generator = counting(3)
    first = next(generator)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert set(pool.submit(list, generator).result()) == {first}
    assert first.status is Status.COMPLETED


# -- parents and stages


def test_nested_operations_have_parents(progress_capture: Capture) -> None:
    """An operation inside another is its child, in a stage too; an explicit parent rules, as handle or as id."""
    with progress.operation("a") as a:
        with progress.operation("b") as b, progress.stage("s") as stage:
            with progress.operation("c") as c:
                pass
            with progress.operation("d", parent=a) as d:
                pass
            with progress.operation("e", parent="elsewhere") as e:
                pass
            with progress.operation("f", parent=stage) as f:
                pass
    assert [op.parent_id for op in (a, b, c, d, e, f)] == [None, a.id, b.id, a.id, "elsewhere", b.id]


def test_parent_that_can_not_be_meant_is_told() -> None:
    """A parent is an operation, a stage, what extract() found, or an id."""
    with pytest.raises(progress.InvalidArgument, match="parent is an operation"):
        progress.operation("x", parent=5)  # type: ignore[call-overload]


def test_stages_nest_to_any_depth(progress_capture: Capture) -> None:
    """Stages nest as deep as one likes; paths and the current stage follow."""
    with progress.operation("work") as op, contextlib.ExitStack() as stack:
        for depth in range(30):
            stack.enter_context(progress.stage(f"s{depth}"))
        snapshot = op.snapshot()
        assert snapshot.stage == "/".join(f"s{depth}" for depth in range(30))
        assert [stage.path.count("/") for stage in snapshot.stages] == list(range(30))


def test_stages_in_parallel_tasks(progress_capture: Capture) -> None:
    """Stages of tasks that run at once stand side by side; the newest that runs is the current one."""

    async def work(name: str, go_on: asyncio.Event) -> None:
        async with progress.stage(name):
            await go_on.wait()
            async with progress.stage("inner"):
                progress.advance()

    async def main() -> None:
        async with progress.operation("work") as op:
            events = [asyncio.Event() for _ in range(3)]
            tasks = [asyncio.ensure_future(work(name, event)) for name, event in zip("abc", events)]
            await asyncio.sleep(0)
            assert op.snapshot().stage == "c"
            for event, task in zip(events, tasks):
                event.set()
                await task
        assert sorted(s.path for s in op.snapshot().stages) == ["a", "a/inner", "b", "b/inner", "c", "c/inner"]

    asyncio.run(main())


def test_stages_begun_by_many_threads_at_once(progress_capture: Capture) -> None:
    """The first stages of an operation may begin in many threads at once; none is lost."""
    together = threading.Barrier(8)

    def work(op: Operation, number: int) -> None:
        together.wait()
        with op.stage(f"s{number}") as stage:
            stage.advance()

    with progress.operation("work") as op, concurrent.futures.ThreadPoolExecutor(8) as pool:
        for task in [pool.submit(work, op, number) for number in range(8)]:
            task.result()
    assert {s.status for s in op.snapshot().stages} == {Status.COMPLETED}
    assert len(op.snapshot().stages) == 8
    first, second = progress.stage("a"), progress.stage("b")
    assert begin_stages(op, first) is begin_stages(op, second)
    assert op._first_stage is not second


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda op: op.complete(), Status.COMPLETED),
        (lambda op: op.fail("no"), Status.FAILED),
        (lambda op: op.cancel(), Status.CANCELLED),
    ],
)
def test_stages_end_with_their_operation(
    end: Callable[[Operation], None], status: Status, progress_capture: Capture
) -> None:
    """Stages that are open when the operation ends end with it, innermost first, with its status."""
    op = progress.operation("work").start()
    outer = op.stage("outer").start()
    inner = outer.stage("inner").start()
    end(op)
    assert (outer.status, inner.status) == (status, status)
    inner.fail("late")
    assert inner.status is status
    progress_capture.look()
    assert [e.stage for e in progress_capture.of(semconv.STAGE_ENDED)] == ["outer/inner", "outer"]
    assert op.snapshot().stage is None


def test_stages_left_open_end_with_a_function_that_nobody_watches() -> None:
    """A stage that a decorated function left open ends with it, without any listener or SDK too."""

    @progress.operation
    def work() -> Stage:
        return here().stage("open").start()

    assert work().status is Status.COMPLETED


def test_stage_of_an_ended_operation_only_runs(progress_capture: Capture) -> None:
    """A stage of an operation that is over is no stage of anything."""
    with progress.operation("work") as op:
        pass
    with op.stage("late") as late:
        progress.advance()
    assert late.status is Status.PENDING
    assert op.snapshot().stages == ()


def test_ten_thousand_stages_stay_bounded(progress_capture: Capture) -> None:
    """Of 10,000 stages a snapshot tells those that run and the newest; the others only as counts and time by status."""
    with progress.operation("work") as op:
        kept = op.stage("kept").start()
        for number in range(10_000):
            stage = op.stage(f"s{number}").start()
            if not number % 250:
                progress_capture.clock.sleep(0.5)
            (stage.fail if number % 2 else stage.complete)()
            if not number % 1000:
                progress_capture.look()
        progress_capture.look()
        snapshot = op.snapshot()
        assert len(snapshot.stages) == STAGES
        assert snapshot.stages[0].name == "kept"
        assert snapshot.stages[-1].name == "s9999"
        assert sum(count for _, count, _ in snapshot.folded) == 10_001 - STAGES
        assert {status for status, _, _ in snapshot.folded} == {"completed", "failed"}
        assert sum(spent for _, _, spent in snapshot.folded) == pytest.approx(20)
        assert len(op._stages or ()) == STAGES
        kept.complete()


def test_summary_tells_what_became_of_it(progress_capture: Capture) -> None:
    """The summary has status, time, progress, stages, outcomes, usage and results."""
    with progress.operation("survey", total=4) as op:
        with progress.stage("parse", unit="file") as stage:
            for number in progress.track(range(4)):
                progress_capture.clock.sleep(20)
                stage.record("failed" if number == 2 else "ok", item=number)
        progress.usage(cost=0.5)
        progress.result(verdict="promising")
    assert op.summary().splitlines() == [
        "survey: completed after 1 min 20 s, 100%",
        "  parse: completed after 1 min 20 s, 4 files",
        "  outcomes: ok=3, failed=1",
        "  usage: cost=0.50 USD",
        "  result: verdict=promising",
        "  success: 75% of 4",
        "  note: failed: 2",
    ]


def test_summary_shows_all_that_was_recorded(progress_capture: Capture) -> None:
    """Attributes, counters, notes with what goes with them, and repeated stages as one line are in the summary."""
    with progress.operation("crawl", attributes={"site": "example.org"}) as op:
        op.set(depth=3, tags={"b": [1, 2]})
        for number in range(4):
            with progress.stage("fetch", unit="file", attributes={"url": f"/{number}"}) as stage:
                progress_capture.clock.sleep(0.05)
                list(progress.track("abc", unit="token"))
                if number == 1:
                    stage.fail("no answer")
        progress.note("robots.txt says no", "warning", path="/private")
        for number in range(9):
            progress.note(f"page {number}")
        assert op.summary().splitlines() == [
            "crawl: running after 200 ms",
            "  fetch x 4: 3 completed, 1 failed, 200 ms in all; median 50 ms, p95 50 ms, longest 50 ms",
            "  fetch: failed after 50 ms (no answer); token=3; url=/1",
            '  attributes: site=example.org, depth=3, tags={"b": [1, 2]}',
            "  note: warning: robots.txt says no (path=/private)",
            *[f"  note: page {number}" for number in range(5, 9)],
        ]
        found = op.summary_dict()
    assert found["repeated"][0]["count"] == 4
    assert (found["failed_stage"], found["attributes"]["depth"], found["status"]) == ("fetch", 3, "running")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_summary_tells_what_is_missing_and_what_was_not_planned(progress_capture: Capture) -> None:
    """A stage left before its total says so, one that never ran is skipped, and one that the plan does not name is marked."""
    with progress.operation("survey", plan=["parse", "review"]) as op:
        with progress.stage("parse", total=5) as stage:
            stage.advance()
        with progress.stage("tidy"):
            pass
    assert op.summary().splitlines()[1:] == [
        "  parse: completed after 0 s, 1 of 5 items",
        "  tidy: completed after 0 s (unplanned)",
        "  review: skipped",
    ]


def test_status_waits_with_a_stage(progress_capture: Capture) -> None:
    """An operation waits while one of its stages does, in the handle as in the snapshot."""
    with progress.operation("work") as op, progress.stage("step") as stage:
        with stage.waiting("tea"):
            assert (op.status, stage.status, op.snapshot().status) == (Status.WAITING,) * 3
        assert (op.status, stage.status, op.snapshot().status) == (Status.RUNNING,) * 3


def test_ended_in_the_middle_of_a_wait(progress_capture: Capture) -> None:
    """An operation that is ended while it waits is over, and waits for nothing."""
    with progress.operation("work") as op, progress.waiting("tea"):
        op.cancel("enough")
    assert (op.status, op.snapshot().status, op.snapshot().wait) == (Status.CANCELLED, Status.CANCELLED, None)


def test_cancelling_from_outside(progress_capture: Capture) -> None:
    """request_cancel asks; the code finds out, and OperationCancelled with the reason ends it as cancelled."""
    with pytest.raises(OperationCancelled, match="'work' was asked to stop: too slow"):
        with progress.operation("work") as op, progress.stage("step"):
            progress.raise_if_cancelled()
            assert not progress.cancel_requested()
            op.request_cancel("too slow")
            assert progress.cancel_requested()
            assert op.snapshot().cancel_requested
            progress.raise_if_cancelled()
    assert op.status is Status.CANCELLED


def test_a_hostile_exception_passes_unchanged(progress_capture: Capture) -> None:
    """An exception whose text, class or code misbehaves is still the one that the caller gets; the operation failed."""

    class Text(str):
        __slots__ = ()

        def __format__(self, spec: str) -> str:
            raise RuntimeError("no format")

        def __len__(self) -> int:
            raise RuntimeError("no length")

    class Hostile(Exception):
        def __str__(self) -> str:
            return Text("said")

    error = Hostile()
    with pytest.raises(Hostile) as caught:
        with progress.operation("work") as op:
            with progress.stage("step"):
                raise error
    assert caught.value is error
    assert (op.status, op.snapshot().reason) == (Status.FAILED, "Hostile: said")


def test_a_stage_can_be_used(progress_capture: Capture) -> None:
    """A started stage becomes current where use() says so, and ends by itself."""
    with progress.operation("work") as op:
        step = op.stage("step").start()
        with step.use():
            progress.advance(3)
        assert step.status is Status.RUNNING
        step.complete()
        assert op.snapshot().stages[0].progress.completed == 3


def test_attributes_need_not_be_named_by_texts(progress_capture: Capture) -> None:
    """Attributes whose names are no texts, or that are no mapping at all, harm nothing."""
    with progress.operation("work", attributes={1: 2}) as op:  # type: ignore[dict-item]
        with progress.stage("step", attributes=5):  # type: ignore[arg-type]
            op.note("text", text="kept")
    assert op.snapshot().attributes == {"1": 2}


def test_all_operations_around_the_first_watcher_are_seen(progress_capture: Capture) -> None:
    """When somebody starts to watch inside nested operations, the outer ones are seen too, from then on."""
    from otel_progress.live import hooks
    from otel_progress.live.engine import runtime

    hooks.wanted = False
    hooks.tracing._tracer = None  # type: ignore[attr-defined]
    with progress.operation("outer"):
        with progress.operation("inner"):
            runtime.want()
    progress_capture.look()
    ended = [event.snapshot.name for event in progress_capture.events if event.name.endswith("operation.ended")]
    assert ended == ["inner", "outer"]


def test_many_open_stages_end_quickly_and_all(progress_capture: Capture) -> None:
    """10,000 stages that are open when their operation ends all end with it."""
    with progress.operation("work") as op:
        steps = [op.stage("step").start() for _ in range(10_000)]
        progress_capture.look()
    assert {step.status for step in steps} == {Status.COMPLETED}
    assert sum(count for _, count, _ in op.snapshot().folded) + len(op.snapshot().stages) == 10_000


def test_a_generator_that_is_closed_while_it_runs_goes_on(progress_capture: Capture) -> None:
    """Who closes a decorated generator from inside its own run gets Python's error; the operation goes on."""
    made: list[Any] = []

    @progress.operation
    def numbers() -> Iterator[int]:
        with pytest.raises(ValueError, match="already executing"):
            made[0].close()
        yield 1
        yield 2

    made.append(numbers())
    assert list(made[0]) == [1, 2]
    progress_capture.look()
    assert progress_capture.ended("numbers").status is Status.COMPLETED


class Called:
    """An object whose calls are coroutines."""

    async def __call__(self) -> None: ...

    @progress.stage("step")
    async def method(self) -> None: ...


async def survey(_: int = 0) -> None:
    """A coroutine function of the user's."""


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (progress.operation(survey), "survey"),
        (progress.stage("other")(functools.partial(survey, 1)), "survey"),
        (Called().method, "Called.method"),
        (progress.operation("object")(Called()), "Called"),
    ],
)
def test_a_coroutine_that_nobody_awaits_bears_the_name_of_the_function(call: Any, name: str) -> None:
    """The warning of a missing await names the user's function."""
    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        _drop(call())


def _drop(_: object) -> None:
    gc.collect()


# -- what runs here


def test_operations_lists_what_runs_here(progress_capture: Capture) -> None:
    """operations() has the operations that run, first started first; neither those that ended nor those to come."""
    to_come = progress.operation("to come", start_within=5)
    with progress.operation("first") as first, progress.operation("second", id="two") as second:
        progress.operation("over").start().complete()
        assert progress.operations() == [first, second]
        assert progress.get("two") is second
        assert progress.get(first.id) is first
        assert progress.get(to_come.id) is None
    assert progress.operations() == []
    assert progress.get("two") is None


def test_operations_knows_also_what_nobody_watches() -> None:
    """In a process without SDK, listener or console the list is complete too, whatever started before it was asked."""
    code = """if True:
        import threading, otel_progress as progress
        begun, end = threading.Barrier(4), threading.Event()

        def wait():
            begun.wait(10)
            end.wait(10)

        decorated = progress.operation("decorated")(wait)

        @progress.operation("generator")
        def generator():
            wait()
            yield

        def block():
            with progress.operation("block"):
                wait()

        def look():
            return sorted(one.name for one in progress.operations())

        def run(*works):
            threads = [threading.Thread(target=work) for work in works]
            for one in threads:
                one.start()
            begun.wait(10)
            print(look())
            end.set()
            for one in threads:
                one.join(10)
            end.clear()
            print(look())

        run(decorated, block, lambda: list(generator()))
        run(decorated, decorated, block)
        with progress.operation("here") as op:
            op.advance(3)
            [found] = progress.operations()
            print(found.snapshot().progress.completed, progress.get(op.id) is op)
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['block', 'decorated', 'generator']",
        "[]",
        "['block', 'decorated', 'decorated']",
        "[]",
        "3 True",
    ]


def test_a_stage_has_a_snapshot_of_its_own(progress_capture: Capture) -> None:
    """Stage.snapshot() tells how the stage is before, while and after it runs, also where nobody looks at it."""
    with progress.operation("survey"), progress.stage("outer"):
        stage = progress.stage("parse", total=4, unit="file", attributes={"root": "/"})
        before = stage.snapshot()
        assert (before.path, before.status, before.started_at, before.idle) == ("parse", Status.PENDING, None, 0)
        with stage:
            progress_capture.clock.sleep(2)
            stage.advance(3)
            running = stage.snapshot()
        over = stage.snapshot()
    assert (running.path, running.status, running.elapsed) == ("outer/parse", Status.RUNNING, 2)
    assert (running.progress.completed, running.progress.ratio) == (3, 0.75)
    assert running.attributes == {"root": "/"}
    assert (over.status, over.elapsed) == (Status.COMPLETED, 2)
    assert progress.stage("nowhere").snapshot().status is Status.PENDING


def test_an_end_may_say_what_came_of_it(progress_capture: Capture) -> None:
    """complete(message) is the last step in words, and stands beside the status wherever that is told."""
    with progress.operation("survey") as op:
        with progress.stage("parse", message="reading") as stage:
            stage.complete("12 files parsed")
        assert stage.snapshot().message == "12 files parsed"
        op.complete({"files": 12})
        op.complete("too late")
    progress_capture.look()
    seen = progress_capture.ended("survey")
    assert (seen.status, seen.message, seen.reason) == (Status.COMPLETED, '{"files": 12}', '{"files": 12}')
    assert op.summary().splitlines() == [
        'survey: completed after 0 s, 100% ({"files": 12})',
        "  parse: completed after 0 s (12 files parsed)",
    ]
    [span] = [span for span in progress_capture.spans if span.name == "parse"]
    assert (span.attributes or {})[semconv.MESSAGE] == "12 files parsed"
    assert span.status.is_unset
