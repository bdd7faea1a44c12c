"""Pass each argument of each public function a value whose special methods all raise; raise errors that do so.

python -m benchmarks.attacks.programs.hostile arguments|errors bare|watched
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import otel_progress as progress
from benchmarks.attacks.programs import every

KINDS: tuple[type[BaseException], ...] = (ValueError, KeyboardInterrupt, SystemExit, RecursionError, GeneratorExit)
SPECIAL = [
    "__str__",
    "__repr__",
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__hash__",
    "__bool__",
    "__len__",
    "__iter__",
    "__next__",
    "__contains__",
    "__getitem__",
    "__float__",
    "__int__",
    "__index__",
    "__add__",
    "__radd__",
    "__iadd__",
    "__sub__",
    "__rsub__",
    "__format__",
    "__getattr__",
    "__call__",
    "__length_hint__",
    "__fspath__",
    "__enter__",
    "__exit__",
    "__reduce__",
    "keys",
    "items",
    "values",
    "get",
]


class Hostility(Exception):
    """The default exception of the hostile values."""


def _raising(kind: type[BaseException], name: str) -> Any:
    def special(*_: Any, **__: Any) -> Any:
        raise kind(f"hostile {name}")

    special.__name__ = name
    return special


def hostile(kind: type[BaseException], base: type = object) -> Any:
    """Return a value whose special methods all raise this kind of error."""
    body: dict[str, Any] = {name: _raising(kind, name) for name in SPECIAL}
    if base is object:
        body["__class__"] = property(_raising(kind, "__class__"))
    return base.__new__(type("Hostile", (base,), body))


def values() -> dict[str, Any]:
    found: dict[str, Any] = {f"{kind.__name__} in all": hostile(kind) for kind in KINDS}
    found["a hostile str"] = hostile(Hostility, str)
    found["a hostile int"] = hostile(Hostility, int)
    found["a hostile float"] = hostile(Hostility, float)
    found["a hostile dict"] = hostile(Hostility, dict)
    found["a hostile list"] = hostile(Hostility, list)
    found["a huge int"] = 10**400
    found["not a number"] = float("nan")
    found["None"] = None
    found["a surrogate"] = "\ud800"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    found["a deep list"] = deep
    circle: dict[str, Any] = {}
    circle["me"] = circle
    found["a circle"] = circle
    return found


def _slots(function: Any) -> list[tuple[tuple[Any, ...], str | None]]:
    """Return for each parameter the arguments before it, and its keyword (None if positional)."""
    slots: list[tuple[tuple[Any, ...], str | None]] = []
    before: tuple[Any, ...] = ()
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.VAR_KEYWORD:
            slots.append((before, "anything"))
        elif one.kind is one.KEYWORD_ONLY:
            slots.append((before, one.name))
        elif one.kind is not one.VAR_POSITIONAL:
            slots.append((before, None))
            before = (*before, "x")
    return slots


OPTIONS = {
    "operation": [*inspect.signature(progress.Operation.__init__).parameters][2:],
    "stage": ["parent", *inspect.signature(progress.Stage._given).parameters][2:],
}


def arguments() -> list[str]:
    """Try every argument of every function; report anything but documented errors."""
    failed: list[str] = []
    evil = values()
    for name in every.names():
        owner, _, member = name.rpartition(".")
        if member not in every.USES or (owner and not every.is_method(member)):
            continue
        for label, value in evil.items():
            with progress.operation("around") as op, op.stage("inside") as stage:
                about: Any = {"": progress, "op": op, "stage": stage}[owner]
                function = getattr(about, member)
                slots = _slots(function) + [(("x",), option) for option in OPTIONS.get(member, ())]
                for before, keyword in slots:
                    try:
                        result = function(*before, **{keyword: value}) if keyword else function(*before, value)
                        if (
                            member in ("operation", "stage", "use", "waiting")
                            and result is not value
                            and type(result).__name__ != "Unnamed"
                        ):
                            with result:
                                pass
                    except progress.ProgressError:
                        pass
                    except BaseException as error:
                        if member == "track" and not before and keyword is None:
                            continue  # what can't be looped over raises the same as in `for`
                        text = traceback.format_exception_only(type(error), error)
                        where = traceback.extract_tb(error.__traceback__)[-1]
                        failed.append(f"{name}({keyword or len(before)}={label}): {text} at {where}")
            if member == "configure":
                progress.shutdown(0.1)
    return failed


class Endless(Exception):
    def __str__(self) -> str:
        return f"{self}"


def _job(kind: type[BaseException], *names: str) -> BaseException:
    """Return an exception of the job that raises another kind when these names are read."""
    bodies = {
        name: _raising(kind, name) if name in SPECIAL and name != "__class__" else property(_raising(kind, name))
        for name in names
    }
    return type("Job", (Exception,), bodies)()


def _errors() -> dict[str, BaseException]:
    found = {f"{kind.__name__} in __str__": _job(kind, "__str__", "__repr__") for kind in (*KINDS, MemoryError)}
    found["endless __str__"] = Endless()
    for name in ("__class__", "__notes__", "__cause__", "__context__", "__traceback__", "__dict__"):
        found[f"hostile {name}"] = _job(SystemExit, name)
    found["hostile hash"] = _job(KeyboardInterrupt, "__hash__", "__eq__")
    found["hostile exit code"] = SystemExit(hostile(KeyboardInterrupt, int))
    found["a job's ProgressError"] = progress.InvalidArgument("mine")
    found["a huge text"] = ValueError("x" * 10_000_000)
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    found["a circle of causes"] = first
    meta = type("Meta", (type,), {"__name__": property(_raising(KeyboardInterrupt, "__name__"))})
    found["hostile metaclass"] = meta("Job", (Exception,), {})()
    for kind in (
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        StopIteration,
        StopAsyncIteration,
        RecursionError,
        MemoryError,
    ):
        found[kind.__name__] = kind("plain")
    return found


def _block(make: Callable[..., Any], error: BaseException) -> None:
    with make("block"):
        raise error


def _function(make: Callable[..., Any], error: BaseException) -> None:
    @make("function")
    def job() -> None:
        raise error

    job()


def _coroutine(make: Callable[..., Any], error: BaseException) -> None:
    @make("coroutine")
    async def job() -> None:
        raise error

    every.drive(job())


def _generator(make: Callable[..., Any], error: BaseException) -> None:
    @make("generator")
    def job() -> Any:
        yield 1
        raise error

    for _ in job():
        pass


def _async_block(make: Callable[..., Any], error: BaseException) -> None:
    async def job() -> None:
        async with make("async block"):
            raise error

    every.drive(job())


def _tracked(make: Callable[..., Any], error: BaseException) -> None:
    with make("loop"):
        for _ in progress.track([1, 2]):
            raise error


def _failed(make: Callable[..., Any], error: BaseException) -> None:
    with make("told"), progress.waiting("x"):
        progress.current(required=True).fail(error)
        raise error


WAYS = (_block, _function, _coroutine, _generator, _async_block, _tracked, _failed)


def errors() -> list[str]:
    """The exception of the job passes unchanged, whatever reading it raises."""
    failed: list[str] = []
    for way in WAYS:
        for make in (progress.operation, progress.stage):
            for label, error in _errors().items():
                stops = type(error) in (StopIteration, StopAsyncIteration)
                if stops and way in (_coroutine, _generator, _async_block):
                    continue  # Python turns it into a RuntimeError
                try:
                    with progress.operation("outer"):
                        way(make, error)
                except BaseException as got:
                    if got is not error:
                        where = traceback.format_tb(got.__traceback__)[-2:]
                        failed.append(f"{label} by {way.__name__}: {type(got).__name__} {where}")
                else:
                    failed.append(f"{label} by {way.__name__} was swallowed")
    return failed


def main(what: str, watched: str) -> None:
    logging.disable(logging.CRITICAL)
    if watched == "watched":
        progress.configure("attacked", endpoint="http://127.0.0.1:9", interval=0.05)
    failed = {"arguments": arguments, "errors": errors}[what]()
    print("\n".join(failed[:30]))
    print(f"{len(failed)} broken")
    sys.stdout.flush()
    os._exit(bool(failed))


if __name__ == "__main__":
    main(*sys.argv[1:])
