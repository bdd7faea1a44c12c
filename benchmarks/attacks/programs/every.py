"""Every public function with a call of each; `unused` finds public names without a call here."""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

import otel_progress as progress


def _with(made: Any) -> None:
    with made:
        pass


def _spin(made: Any) -> list[Any]:
    return list(made)


def _work(item: int = 0) -> int:
    return item + 1


async def _work_async() -> int:
    return 1


def _work_generator() -> Iterator[int]:
    yield 1


async def _work_async_generator() -> Any:
    yield 1


def drive(awaitable: Any) -> Any:
    """Run a coroutine that awaits nothing, without an event loop."""
    steps = awaitable.__await__()
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


async def _through(items: Any) -> list[Any]:
    return [item async for item in items]


def _decorate(made: Any) -> None:
    """Call a decorated function of each kind."""
    made(_work)(1)
    drive(made(_work_async)())
    list(made(_work_generator)())
    drive(_through(made(_work_async_generator)()))


def _named(make: Callable[..., Any]) -> None:
    _with(make("of an attack"))
    _decorate(make("of an attack"))


def _listen(add: Callable[..., Any]) -> None:
    add(lambda _: None)()


def _listen_to_verdicts(add: Callable[..., Any]) -> None:
    add(lambda *_: None)()


USES: dict[str, Callable[[Any], object]] = {
    "add_listener": _listen,
    "advance": lambda f: (f(), f(2), f(2, "By")),
    "cancel": lambda f: f("enough"),
    "cancel_requested": lambda f: f(),
    "carry": lambda f: f(_work)(1),
    "complete": lambda f: f("done"),
    "configure": lambda f: f("attacked", endpoint="http://127.0.0.1:9"),
    "current": lambda f: f(),
    "extract": lambda f: f({"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}),
    "fail": lambda f: f(ValueError("no")),
    "get": lambda f: f("unknown"),
    "heartbeat": lambda f: f(at="home"),
    "touch": lambda f: f(),
    "inject": lambda f: f({}),
    "mask_secrets": lambda f: f("message", "password=abc"),
    "note": lambda f: f("a line", status="warning", of=3),
    "on_recover": _listen,
    "on_stall": _listen,
    "on_verdict": _listen_to_verdicts,
    "operation": _named,
    "operations": lambda f: f(),
    "phases": lambda f: f({"a": 0, "b": 50}),
    "raise_if_cancelled": lambda f: f(),
    "record": lambda f: (f("ok"), f("failed", item="a")),
    "report": lambda f: f(os.devnull, "text"),
    "request_cancel": lambda f: f("enough"),
    "result": lambda f: f(rows=1),
    "set": lambda f: f(rows=1),
    "shutdown": lambda f: f(0.1),
    "snapshot": lambda f: f().status,
    "stage": _named,
    "start": lambda f: f(),
    "checkpoint": lambda f: f(at=1),
    "done": lambda f: (f("one"), f(2)),
    "is_done": lambda f: f("one"),
    "statistics": lambda f: f().to_dict()["runs"],
    "step": lambda f: (f("one"), f("two" * 200)),
    "summary": lambda f: f() + "",
    "summary_dict": lambda f: f()["status"],
    "track": lambda f: (_spin(f([1, 2])), _spin(f(iter([1, 2]), total=2, desc="loop"))),
    "update": lambda f: f(completed=1, total=3, ratio=0.5, message="a step"),
    "usage": lambda f: f(input_tokens=1, output_tokens=2, cost=0.5),
    "use": lambda f: _with(f()),
    "waiting": lambda f: _with(f("for it", overdue_after=5)),
}
"""A call of each public function by name; module functions are called like the method of the same name."""


def functions() -> list[str]:
    """The public functions, by name; but workflows run the job, and may stop it; `aggregate` asks what it is given."""
    found = {name: getattr(progress, name) for name in progress.__all__}
    return [
        name
        for name, one in found.items()
        if isinstance(one, types.FunctionType)
        and not one.__module__.startswith(("otel_progress.workflow", "otel_progress.model.statistics"))
    ]


def members(kind: type) -> list[str]:
    """The public methods and properties of a handle."""
    return [name for name in dir(kind) if not name.startswith("_") and name not in vars(object)]


def unused() -> list[str]:
    """Return public names without a call here."""
    known = {name for name in members(progress.Operation) + members(progress.Stage) if is_method(name)}
    return sorted((known | {*functions()}) - {*USES})


def is_method(name: str) -> bool:
    """Whether it is a method of a handle rather than a property."""
    return inspect.isfunction(inspect.getattr_static(progress.Operation, name, None)) or inspect.isfunction(
        inspect.getattr_static(progress.Stage, name, None)
    )


def names() -> list[str]:
    """Return all calls: `note` of the module, `op.note`, `stage.note`."""
    found = functions()
    found += [f"op.{name}" for name in members(progress.Operation)]
    found += [f"stage.{name}" for name in members(progress.Stage)]
    return found


def use(name: str) -> None:
    """Call it once, inside its own operation and stage."""
    owner, _, member = name.rpartition(".")
    with progress.operation("around") as op, op.stage("inside") as stage:
        about: Any = {"": progress, "op": op, "stage": stage}[owner]
        if member == "start":
            about = progress.operation("fresh") if owner == "op" else op.stage("fresh")
        found = getattr(about, member)
        if member in USES and (inspect.isfunction(found) or inspect.ismethod(found)):
            USES[member](found)
    if member == "configure":
        progress.shutdown(0.1)
