"""Attacks: errors of the job, and deep nesting and large numbers that try to slow the job.

Cost that must be linear is counted in function calls, not in seconds: four times the work may take about four times
the calls. If calls prove nothing (a list that is rebuilt), the CPU times of one run are compared.
"""

from __future__ import annotations

import builtins
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from types import FrameType
from typing import Any

import otel_progress as progress
from benchmarks.attacks import attack, attacks, hold
from otel_progress import semconv
from otel_progress.testing import Capture, capture

LINEAR = 6.0
"""Factor of calls that is allowed for four times the work; quadratic cost would need 16."""


def calls(run: Callable[[], object]) -> int:
    """Count the calls of Python and C functions in this thread."""
    count = 0

    def see(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def cpu(make: Callable[[], Callable[[], object]]) -> float:
    """Return the lowest CPU seconds of three runs of what `make` prepares."""
    taken = []
    for _ in range(3):
        run = make()
        began = time.thread_time()
        run()
        taken.append(time.thread_time() - began)
    return min(taken)


def grows_as_the_work(what: str, small: float, large: float) -> None:
    """Check that four times the work takes at most `LINEAR` times as much."""
    hold(large <= LINEAR * small, f"{what}: four times the work took {large / small:.1f} times as much")


@contextmanager
def deep(limit: int = 20_000) -> Iterator[None]:
    """Raise the recursion limit by this many frames."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


# -- exceptions


def _by_stages(depth: int, fail: Callable[[], None]) -> None:
    if depth == 0:
        fail()
    with progress.stage("inner"):
        _by_stages(depth - 1, fail)


@progress.stage("inner")
def _by_decorators(depth: int, fail: Callable[[], None]) -> None:
    if depth == 0:
        fail()
    _by_decorators(depth - 1, fail)


def _by_operations(depth: int, fail: Callable[[], None]) -> None:
    if depth == 0:
        fail()
    with progress.operation("inner"):
        _by_operations(depth - 1, fail)


def _plain() -> None:
    raise ValueError("wrong")


def _chain() -> None:
    error: BaseException | None = None
    for number in range(1_000):
        try:
            raise ValueError(number) from error
        except ValueError as newer:
            error = newer
    raise error  # type: ignore[misc]


def _group() -> None:
    kind: Any = getattr(builtins, "ExceptionGroup", None)
    if kind is None:
        raise ValueError("no groups before Python 3.11")
    raise kind("many", [ValueError(number) for number in range(10_000)])


def _huge() -> None:
    raise ValueError("x" * 100_000_000)


def _recursion(left: int = 100_000 if sys.version_info >= (3, 11) else 5_000) -> None:
    if left == 0:
        raise ValueError("deep")
    _recursion(left - 1)


NESTS: dict[str, Callable[[int, Callable[[], None]], None]] = {
    "stages": _by_stages,
    "decorators": _by_decorators,
    "operations": _by_operations,
}
ERRORS = {
    "a chain of 1,000": _chain,
    "a group of 10,000": _group,
    "a message of 100 MB": _huge,
    "a traceback of 100,000 frames": _recursion,
}


def _fails(nest: str, depth: int, fail: Callable[[], None]) -> None:
    """Let an exception pass through `depth` handles: it comes out unchanged, and the span of each records it."""
    with capture() as seen:
        with suppress(Exception), progress.operation("survey"):
            NESTS[nest](depth, fail)
        spans = seen.spans
        hold(len(spans) >= depth + 1, f"{len(spans)} spans of {depth + 1}")
        bare = [span.name for span in spans if not span.events or span.events[-1].name != semconv.EXCEPTION]
        hold(not bare, f"{len(bare)} spans without the exception")


@attacks("errors", "an exception through 400 nested {nest}", nest=NESTS)
def nested(nest: str) -> None:
    with deep():
        _fails(nest, 5, _plain)  # reads the source files
        small, large = (calls(lambda depth=depth: _fails(nest, depth, _plain)) for depth in (100, 400))
    grows_as_the_work("nested handles", small, large)


@attacks("errors", "{error} through 20 nested stages", error=ERRORS)
def monstrous(error: str) -> None:
    fail = ERRORS[error]
    with deep(200_000):
        _fails("stages", 1, fail)
        small, large = (calls(lambda depth=depth: _fails("stages", depth, fail)) for depth in (10, 40))
    each = (large - small) / 30
    hold(each <= 15_000, f"{each:.0f} calls for each span")


@attack("errors", "a message of 100 MB is not copied")
def copied() -> None:
    error = ValueError("x" * 100_000_000)
    tracemalloc.start()
    try:
        with capture(), progress.operation("survey") as operation, progress.stage("inner") as stage:
            stage.fail(error)
            operation.fail(error)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    hold(most < 20_000_000, f"{most / 1e6:.0f} MB were asked for")


# -- depth and number


def _nested(count: int, seen: Capture, stack: ExitStack) -> list[progress.Stage]:
    stack.enter_context(progress.operation("survey"))
    stages = [stack.enter_context(progress.stage("inner")) for _ in range(count)]
    seen.look()
    return stages


def _parallel(count: int, seen: Capture, stack: ExitStack) -> list[progress.Stage]:
    operation = stack.enter_context(progress.operation("survey"))
    stages = [progress.stage(f"s{number % 7}", parent=operation).start() for number in range(count)]
    seen.look()
    return stages


SHAPES: dict[str, tuple[Callable[[int, Capture, ExitStack], list[progress.Stage]], int]] = {
    "1,000 nested stages": (_nested, 1_000),
    "3,000 parallel stages": (_parallel, 3_000),
}


def _look(_stages: list[progress.Stage], seen: Capture) -> None:
    seen.clock.sleep(1)
    seen.look()


def _all_count(stages: list[progress.Stage], seen: Capture) -> None:
    for stage in stages:
        stage.advance()
    _look(stages, seen)


def _outer_counts(stages: list[progress.Stage], seen: Capture) -> None:
    stages[0].operation.advance()
    _look(stages, seen)


def _one_waits(stages: list[progress.Stage], seen: Capture) -> None:
    with stages[-1].waiting("somebody"):
        _look(stages, seen)


def _all_end(stages: list[progress.Stage], seen: Capture) -> None:
    for stage in reversed(stages):
        stage.complete()
    _look(stages, seen)


WORK = {
    "that all count": _all_count,
    "in an operation that counts": _outer_counts,
    "of which one waits": _one_waits,
    "that end": _all_end,
}


@attacks("errors", "{shape} {work}, in one look", shape=SHAPES, work=WORK)
def one_look(shape: str, work: str) -> None:
    make, count = SHAPES[shape]
    found = []
    for number in (count // 4, count):
        with deep(), capture() as seen, ExitStack() as stack:
            stages = make(number, seen, stack)
            found.append(calls(lambda stages=stages, seen=seen: WORK[work](stages, seen)))
    grows_as_the_work("stages", *found)


CALLS: dict[str, Callable[[progress.Stage], object]] = {
    "step()": lambda stage: stage.step("again"),
    "status": lambda stage: stage.operation.status,
    "a note": lambda stage: stage.note("here"),
    "another stage": lambda stage: stage.stage("more").start().complete(),
    "another operation": lambda stage: progress.operation("more", parent=stage).start().complete(),
}


@attacks("errors", "{call} among {shape}", call=CALLS, shape=SHAPES)
def among(call: str, shape: str) -> None:
    make, count = SHAPES[shape]
    found = []
    for number in (count // 4, count):
        with deep(), capture() as seen, ExitStack() as stack:
            stages = make(number, seen, stack)
            CALLS[call](stages[-1])
            found.append(calls(lambda stages=stages: CALLS[call](stages[-1])))
    hold(found[1] <= 2 * found[0], f"{found[0]} calls among {count // 4}, {found[1]} among {count}")


def _children(count: int) -> Callable[[], object]:
    operation = progress.operation("survey").start()
    children = [progress.operation("child", parent=operation).start() for _ in range(count)]

    def run() -> None:
        for child in children:
            child.complete()
        operation.complete()

    return run


@attack("errors", "10,000 child operations that end")
def children() -> None:
    grows_as_the_work("children", cpu(lambda: _children(2_500)), cpu(lambda: _children(10_000)))


def _unwatched(count: int) -> Callable[[], object]:
    operation = progress.operation("survey").start()
    stages = [progress.stage(f"s{number}", parent=operation).start() for number in range(count)]

    def run() -> None:
        for stage in stages:
            stage.complete()
        operation.complete()

    return run


@attack("errors", "3,000 parallel stages that nobody watches end")
def unwatched() -> None:
    small, large = (calls(_unwatched(count)) for count in (750, 3_000))
    grows_as_the_work("stages", small, large)


@attack("errors", "100,000 stages of an operation that nobody watches")
def kept() -> None:
    with progress.operation("survey") as operation:
        for _ in range(100_000):
            with progress.stage("step"):
                pass
        found = len(operation._stages or ())
    hold(found < 1_000, f"{found} stages are kept")


# -- numbers

POISON: dict[str, object] = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a NaN of decimals": Decimal("nan"),
    "10**400": 10**400,
    "a complex number": 1j,
    "a text": "7",
    "nothing": None,
}


@attacks("errors", "advance() of {what}", what=POISON)
def poisoned(what: str) -> None:
    value: Any = POISON[what]
    with capture() as seen, progress.operation("survey") as operation:
        for first, second in ((5, 3), (0.5, Decimal("1.5"))):
            operation.advance(first)
            operation.advance(value)
            operation.advance(second)
            seen.look()
        operation.update(message="goes on")
        found = operation.snapshot().progress.completed
        hold(found == 10, f"{found} units are counted of 10")
