"""Exceptions on spans: what the interpreter would print, within bounds, at a cost that grows as the nesting does."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.telemetry import exceptions
from otel_progress.testing import Capture

GROUPS = sys.version_info >= (3, 11)


def caught(fn: Callable[[], object]) -> BaseException:
    """What a function raises."""
    try:
        fn()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def recurse(depth: int) -> None:
    """Raise from that deep."""
    if depth == 0:
        raise ValueError("deep")
    recurse(depth - 1)


def plain() -> None:
    raise ValueError("wrong")


def silent() -> None:
    raise ValueError


def many_lines() -> None:
    raise ValueError("one\ntwo")


def caused() -> None:
    try:
        plain()
    except ValueError as error:
        raise RuntimeError("so") from error


def handled() -> None:
    try:
        plain()
    except ValueError:
        raise RuntimeError("meanwhile")  # noqa: B904


def hidden() -> None:
    try:
        plain()
    except ValueError:
        raise RuntimeError("alone") from None


def misspelt() -> None:
    compile("a b", "job.py", "exec")


def noted() -> None:
    error = ValueError("wrong")
    error.__notes__ = ["in file 7", "of 9"]  # type: ignore[attr-defined]
    raise error


def group(*members: BaseException) -> BaseException:
    """A group of exceptions."""
    made: BaseException = ExceptionGroup("several", members)  # type: ignore[name-defined]  # noqa: F821
    return made


def grouped() -> None:
    raise group(caught(plain), group(caught(caused), KeyError("k")), ValueError("never raised"))


SHAPES = [plain, silent, many_lines, caused, handled, hidden, misspelt, lambda: recurse(4), lambda: recurse(15)]
SHAPES += [noted, grouped] if GROUPS else []


@pytest.mark.parametrize("raises", SHAPES, ids=[shape.__name__ + str(i) for i, shape in enumerate(SHAPES)])
def test_a_stack_trace_is_what_the_interpreter_prints(raises: Callable[[], None]) -> None:
    """Within the bounds a stack trace is word for word that of the standard library."""
    error = caught(raises)
    expected = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert exceptions.stacktrace(error) == expected


def test_a_long_traceback_keeps_both_ends() -> None:
    """The outer frames and the ones that raised are shown, and how many are left out between."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        error = caught(lambda: recurse(5_000))
    finally:
        sys.setrecursionlimit(limit)
    text = exceptions.stacktrace(error)
    assert "in caught" in text
    assert text.endswith("ValueError: deep\n")
    assert f"… {5_003 - exceptions.OUTER - exceptions.INNER} frames are left out …" in text
    assert "[Previous line repeated " in text


def test_a_long_chain_keeps_its_root_and_the_newest() -> None:
    """Of a chain of 1,000 exceptions the root and the newest are shown, and how many are left out between."""
    error: Exception = ValueError(0)
    for number in range(1, 1_000):
        try:
            raise ValueError(number) from error
        except ValueError as newer:
            error = newer
    text = exceptions.stacktrace(error)
    assert text.startswith("ValueError: 0\n")
    assert text.endswith("ValueError: 999\n")
    assert "… 988 exceptions are left out …" in text
    assert text.count("ValueError: ") == exceptions.ROOTS + exceptions.NEWEST


def test_a_chain_that_bites_its_tail_ends() -> None:
    """An exception that is its own cause, by a circle, is shown once."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert exceptions.stacktrace(first).count("first") == 1


@pytest.mark.skipif(not GROUPS, reason="exception groups came with Python 3.11")
def test_a_large_group_names_how_many_it_leaves_out() -> None:
    """Of 10,000 members the first are shown, and how many more there are; groups nested for ever end."""
    text = exceptions.stacktrace(group(*[ValueError(number) for number in range(10_000)]))
    assert "ValueError: 14\n" in text
    assert "ValueError: 15\n" not in text
    assert f"and {10_000 - exceptions.MEMBERS} more exceptions" in text
    nested = ValueError("innermost")
    for _ in range(200):
        nested = group(nested)  # type: ignore[assignment]
    assert "and 1 more exceptions" in exceptions.stacktrace(nested)


class Hostile(Exception):
    """It lies about where it came from, and can't be shown."""

    __cause__ = property(lambda self: 1 / 0)  # type: ignore[assignment]
    __traceback__ = property(lambda self: 1 / 0)  # type: ignore[assignment]
    __notes__ = property(lambda self: 1 / 0)

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_exception_that_fights_back_is_told_all_the_same(progress_capture: Capture) -> None:
    """Whatever its attributes do, the span ends with status, type and traceback of the exception."""
    with pytest.raises(Hostile), progress.operation("survey"):
        raise Hostile
    (span,) = progress_capture.spans
    event = span.events[-1]
    assert event.name == semconv.EXCEPTION
    assert event.attributes[semconv.EXCEPTION_TYPE].endswith("Hostile")
    assert "raise Hostile" in event.attributes[semconv.EXCEPTION_STACKTRACE]
    assert span.status.description == "Hostile"


# -- what it costs


class Calls:
    """Counts the calls of Python and C functions in this thread, for `with`."""

    def __init__(self) -> None:
        self.count = 0

    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        self.count += event in ("call", "c_call")

    def __enter__(self) -> Calls:
        self._before = sys.getprofile()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)


def by_stages(depth: int) -> None:
    if depth == 0:
        raise ValueError("wrong")
    with progress.stage("inner"):
        by_stages(depth - 1)


@progress.stage("inner")
def by_decorators(depth: int) -> None:
    if depth == 0:
        raise ValueError("wrong")
    by_decorators(depth - 1)


def by_operations(depth: int) -> None:
    if depth == 0:
        raise ValueError("wrong")
    with progress.operation("inner"):
        by_operations(depth - 1)


@pytest.mark.parametrize("nest", [by_stages, by_decorators, by_operations])
def test_an_exception_through_nested_handles_costs_as_much_for_each(
    nest: Callable[[int], None], progress_capture: Capture
) -> None:
    """Four times as deep, and the job's thread calls about four times as many functions; each span has the exception.

    (The number of calls stands for the time, which a busy machine would change.)
    """
    calls: dict[int, int] = {}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        for depth in (2, 50, 200):  # the first one reads the source files
            before = len(progress_capture.spans)
            with Calls() as counted, pytest.raises(ValueError), progress.operation("survey"):
                nest(depth)
            calls[depth] = counted.count
            spans = progress_capture.spans[before:]
            assert len(spans) in (depth + 1, depth + 2)
            assert all(span.events[-1].name == semconv.EXCEPTION for span in spans)
            for one in spans:
                text = one.events[-1].attributes[semconv.EXCEPTION_STACKTRACE]
                assert text.endswith("ValueError: wrong\n")
    finally:
        sys.setrecursionlimit(limit)
    assert calls[200] < 6 * calls[50], calls


def test_a_huge_message_is_not_copied() -> None:
    """Recording an exception with a message of 50 MB allocates far less memory than the message."""
    import tracemalloc

    error = ValueError("x" * 50_000_000)
    tracemalloc.start()
    try:
        found = exceptions.attributes(error)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1_000_000
    assert sum(map(len, found.values())) < 20_000
