"""Pools of concurrent.futures, multiprocessing and joblib: what one runs is part of what gave it the work.

Threads get the context, as by `carry`; in a program without a line of ours they get nothing but the current handle, as
other variables would change what it does. Processes get the parent of the operations that start there.

A pool catches what its functions raise: loops with a bar that such an exception ended have failed with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_progress import carry, extract, inject
from otel_progress.integrations.switch import Patch, Switch
from otel_progress.live import hooks
from otel_progress.live.context import carry_only, inherited
from otel_progress.live.late import caught, running_here

LIBRARY: Final = ""
TESTED: Final = ("3.10", "4")
POOLS: Final = {
    "concurrent.futures.thread": ("ThreadPoolExecutor", ("submit",)),
    "concurrent.futures.process": ("ProcessPoolExecutor", ("submit",)),
    "multiprocessing.pool": ("Pool", ("apply_async", "_map_async", "imap", "imap_unordered")),
    "joblib.externals.loky.process_executor": ("ProcessPoolExecutor", ("submit",)),
    "loky.process_executor": ("ProcessPoolExecutor", ("submit",)),
}
"""The class of each module, and its methods that are given a function first."""
ERRORS: Final = {
    "concurrent.futures._base": ("Future", "set_exception"),
    "concurrent.futures.process": ("_ExceptionWithTraceback", "__init__"),
    "multiprocessing.pool": ("ExceptionWithTraceback", "__init__"),
    "joblib.externals.loky.process_executor": ("_ExceptionWithTraceback", "__init__"),
    "loky.process_executor": ("_ExceptionWithTraceback", "__init__"),
}
"""What a pool hands the exception to that left its function, in the thread or process that ran it, as first argument;
where it is missing, a loop that the exception ended was left, and nobody knows why."""
THREADS: Final = frozenset({"ThreadPoolExecutor", "ThreadPool"})
"""The classes whose pools are threads."""
MODULES: Final = tuple(POOLS)
_switch = Switch("futures")
_patches: Final[dict[Any, Patch]] = {}
"""What is patched, by class."""


def install() -> None:
    """Patch the pools whose modules are imported.

    Raises:
        AttributeError: if one has no such method.
    """
    for module, (name, methods) in POOLS.items():
        pool = getattr(sys.modules.get(module), name, None)
        if pool is not None:
            _patches.setdefault(pool, Patch()).put(pool, dict.fromkeys(methods, _carrying))
    for module, (name, method) in ERRORS.items():
        taker = getattr(sys.modules.get(module), name, None)
        if taker is not None and method in vars(taker):
            _patches.setdefault(taker, Patch()).put(taker, {method: _telling})
    _switch.on = True


def uninstall() -> None:
    """Restore them."""
    _switch.on = False
    while _patches:
        _patches.popitem()[1].restore()


class Carried:
    """A function for another process, with the operation that it works for."""

    __slots__ = ("fn", "headers")

    def __init__(self, fn: Callable[..., Any], headers: Mapping[str, str]) -> None:
        """Carry these headers of `inject`."""
        self.fn = fn
        self.headers = headers

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call it; operations that start meanwhile are parts of that one."""
        token = inherited.set(extract(self.headers))
        try:
            return self.fn(*args, **options)
        finally:
            inherited.reset(token)


def _carrying(plain: Any) -> Any:
    def give(self: Any, *args: Any, **options: Any) -> Any:
        if _switch.on and not type(self).__module__.startswith("otel_progress."):
            try:
                in_thread = THREADS & {one.__name__ for one in type(self).__mro__}
                if args:
                    args = _carried(args[0], in_thread), *args[1:]
                elif "func" in options:  # as multiprocessing names it
                    options["func"] = _carried(options["func"], in_thread)
            except BaseException:
                _switch.failed()
        return plain(self, *args, **options)

    return give


def _telling(plain: Any) -> Any:
    def take(self: Any, error: Any, *args: Any) -> Any:
        if _switch.on and isinstance(error, BaseException):
            try:
                caught(error)
            except BaseException:
                _switch.failed()
        return plain(self, error, *args)

    return take


def _carried(fn: Any, in_thread: object) -> Any:
    """The function with what runs here, if anything does."""
    node = running_here()
    if node is None:
        return fn
    if in_thread and not hooks.takes_requests(node.operation):
        return carry_only(fn, node)
    with node.use():
        if in_thread:
            return carry(fn)
        headers: dict[str, str] = {}
        inject(headers)
        return Carried(fn, headers)
