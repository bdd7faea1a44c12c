"""A thread pool whose tasks run in the context in which they were submitted."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from typing_extensions import ParamSpec

P = ParamSpec("P")
R = TypeVar("R")


class CarryingExecutor(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose tasks run in the context in which they were submitted."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit the function together with the current context."""
        run: Any = contextvars.copy_context().run
        return super().submit(run, fn, *args, **kwargs)
