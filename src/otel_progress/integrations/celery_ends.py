"""How tasks end that do not end by themselves: in the process that runs them, or in the one that kills that process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Container
from typing import Any, Final

from otel_progress import Operation, Status
from otel_progress.integrations.switch import Patch, Switch
from otel_progress.live.engine.runtime import hand_over
from otel_progress.telemetry.seen_ends import tell_end

MODULE: Final = "celery.worker.request"
"""The module of a worker's main process that has its requests; nobody else imports it."""
EXITS: Final = 256
"""A pool's process that is terminated by signal n leaves its task with `SystemExit(n - 256)`."""
TERMINATED: Final = "SIGTERM"
"""The signal of a revoke that names none."""
CLOSE: Final = 0.5
"""Seconds by which the time of a pool and that of its process may differ."""
FLUSH: Final = 1.0
"""The most seconds for which a process that ends waits until the end was sent."""
_requests: Final = Patch()


def left(operation: Operation, error: BaseException | None, limit: float | None = None) -> None:
    """End the operation of a task that this exception left before Celery gave it a state.

    `limit` is the hard time limit that it reached (s): a pool first tries SIGTERM on such a task.
    """
    code = error.code if isinstance(error, SystemExit) else None
    if isinstance(code, int) and code < 0:
        if limit is not None:
            operation.fail(_exceeded(limit))
        else:
            operation.cancel(f"terminated by {_name(code + EXITS)}")
    elif error is None:
        operation.cancel("it ended without a state")
    else:
        operation.__exit__(type(error), error, None)
    if isinstance(error, SystemExit):  # the process ends without its exit functions
        hand_over(FLUSH)


def reached_limit(task: Any, ran: float) -> float | None:
    """The hard time limit (s) of a task that ran for so long: that of its message, else its own; None before it."""
    given = (getattr(task.request, "timelimit", None) or (None,))[0] or getattr(task, "time_limit", None)
    return float(given) if isinstance(given, (int, float)) and ran >= given - CLOSE else None


def watch(switch: Switch, running: Container[str]) -> None:
    """Hear of the tasks whose process this worker kills; once for a process.

    Args:
        switch: whether the integration works.
        running: the ids of the tasks that run in this process, and tell their ends themselves.
    """
    worker = sys.modules.get(MODULE)
    if worker is None:
        return

    def tell(request: Any, status: Status, reason: str) -> None:
        try:
            key, pid = str(request.id), request.worker_pid
            if switch.on and key not in running and isinstance(pid, int) and request.time_start:
                tell_end(key, str(request.name), pid, status, reason)
        except BaseException:
            switch.failed()

    def terminating(plain: Callable[..., Any]) -> Callable[..., Any]:
        def terminate(self: Any, pool: Any, signal: Any = None) -> None:
            plain(self, pool, signal)
            tell(self, Status.CANCELLED, f"revoked, terminated by {_name(signal or TERMINATED)}")

        return terminate

    def cancelling(plain: Callable[..., Any]) -> Callable[..., Any]:
        def cancel(self: Any, pool: Any, signal: Any = None, *args: Any, **options: Any) -> None:
            plain(self, pool, signal, *args, **options)
            tell(self, Status.CANCELLED, f"cancelled by its worker, terminated by {_name(signal or TERMINATED)}")

        return cancel

    def timing(plain: Callable[..., Any]) -> Callable[..., Any]:
        def on_timeout(self: Any, soft: Any, timeout: Any) -> None:
            plain(self, soft, timeout)
            if not soft:
                tell(self, Status.FAILED, _exceeded(timeout))

        return on_timeout

    _requests.put(worker.Request, {"terminate": terminating, "cancel": cancelling, "on_timeout": timing})


def unwatch() -> None:
    """Hear of them no more."""
    _requests.restore()


def _exceeded(seconds: float) -> str:
    return f"TimeLimitExceeded: killed after {seconds:g} s"


def _name(given: Any) -> str:
    """The name of a signal, of its number or its name."""
    try:
        return signal.Signals(given).name if isinstance(given, int) else str(given)
    except ValueError:
        return f"signal {given}"
