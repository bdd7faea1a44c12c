"""Pools of concurrent.futures, multiprocessing and joblib: what one runs is part of what gave it the work.

Threads get the context, as by `carry`; processes get the parent of the operations that start there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final

from otel_progress import carry, extract, inject
from otel_progress.integrations.switch import Switch
from otel_progress.live.context import inherited
from otel_progress.live.late import running_here

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
THREADS: Final = frozenset({"ThreadPoolExecutor", "ThreadPool"})
"""The classes whose pools are threads."""
MODULES: Final = tuple(POOLS)
_switch = Switch("futures")
_patched: Final[dict[tuple[Any, str], tuple[Any, Any]]] = {}
"""Methods of classes: as they were, and ours."""


def install() -> None:
    """Patch the pools whose modules are imported.

    Raises:
        KeyError: if one has no such method.
    """
    for module, (name, methods) in POOLS.items():
        pool = getattr(sys.modules.get(module), name, None)
        for method in methods if pool is not None else ():
            if (pool, method) not in _patched:
                plain = vars(pool)[method]
                _patched[pool, method] = plain, _carrying(plain)
                setattr(pool, method, _patched[pool, method][1])
    _switch.on = True


def uninstall() -> None:
    """Restore them."""
    _switch.on = False
    while _patched:
        (pool, method), (plain, ours) = _patched.popitem()
        if vars(pool).get(method) is ours:
            setattr(pool, method, plain)


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
    def give(self: Any, fn: Any, /, *args: Any, **options: Any) -> Any:
        if _switch.on and not type(self).__module__.startswith("otel_progress."):
            try:
                fn = _carried(fn, THREADS & {one.__name__ for one in type(self).__mro__})
            except BaseException:
                _switch.failed()
        return plain(self, fn, *args, **options)

    return wraps(plain)(give)


def _carried(fn: Any, in_thread: object) -> Any:
    """The function with what runs here, if anything does."""
    node = running_here()
    if node is None:
        return fn
    with node.use():
        if in_thread:
            return carry(fn)
        headers: dict[str, str] = {}
        inject(headers)
        return Carried(fn, headers)
