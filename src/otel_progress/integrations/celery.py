"""Celery: each task is an operation in its worker, below the operation that sent it.

Tasks of a chain are below the one that sent the chain. An attempt that will be tried again waits for that, and ends
just before, as another worker may run the next one.
A task that is revoked is asked to stop, and waiting for a result is a declared wait.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import otel_progress as progress
from otel_progress import clock
from otel_progress.integrations import celery_ends
from otel_progress.integrations.switch import Switch, captured, observed
from otel_progress.live.registry import registry
from otel_progress.telemetry.seen_ends import prepare

LIBRARY: Final = "celery"
TESTED: Final = ("5.3", "6")
MODULES: Final = ("celery.app.base",)
CARRIED: Final = "otel_progress"
"""The header of a message that carries the parent."""
RUNNING: Final = 10_000
"""The most tasks that are followed in one process; further ones are not seen."""
AHEAD: Final = 1.0
"""Seconds before a retry at which the attempt before it ends, so that nobody hears of its end after the next start."""

switch = Switch("celery")


class Task(NamedTuple):
    """A task that runs here: its operation, what it was sent with, the ids of those that follow it, and its start."""

    operation: progress.Operation
    carried: Mapping[str, str] | None
    following: frozenset[str]
    used: contextlib.ExitStack
    began: float


class Pause(NamedTuple):
    """An attempt that will be tried again: its operation, its declared wait, and what ends both."""

    operation: progress.Operation
    wait: Any
    timer: threading.Timer


_running: dict[str, Task] = {}
_retry_in: dict[str, float] = {}
"""Seconds to the retry of a task that runs here and asked for it."""
_paused: dict[str, Pause] = {}
_plain: dict[str, Any] = {}


def install() -> None:
    """Listen to the signals of tasks, and watch who waits for a result."""
    from celery import signals
    from celery.result import AsyncResult

    if not _plain:
        _plain["get"] = AsyncResult.get
        AsyncResult.get = _wrapped_get(AsyncResult.get)
        for name, call in _CALLS.items():
            getattr(signals, name).connect(call, weak=False, dispatch_uid=f"otel-progress-{name}")
    _watches()
    switch.on = True


def uninstall() -> None:
    """Undo it."""
    from celery import signals
    from celery.result import AsyncResult

    switch.on = False
    _no_pauses()
    celery_ends.unwatch()
    if _plain:
        AsyncResult.get = _plain.pop("get")
        for name, call in _CALLS.items():
            getattr(signals, name).disconnect(call, dispatch_uid=f"otel-progress-{name}")


def _sent(headers: Any = None, **_: Any) -> None:
    """A task is sent: its message carries what runs here as its parent."""
    if switch.on and isinstance(headers, dict):
        try:
            operation, key = progress.current(), str(headers.get("id"))
            sender = _running.get(operation.id) if operation is not None else None
            carried: Mapping[str, str] | None = progress.inject()
            if sender is not None and (key in sender.following or key == sender.operation.id):
                carried = sender.carried  # it follows this task, or is its next attempt
            if carried:
                headers.setdefault(CARRIED, dict(carried))
        except BaseException:
            switch.failed()


def _starts(task_id: str = "", task: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    """A task starts; a retried one is another attempt at the same operation."""
    if not switch.on or len(_running) >= RUNNING:
        return
    began = clock.monotonic()
    try:
        request = task.request
        _tried_again(str(task_id))
        if retries := getattr(request, "retries", 0):
            registry.know_attempts({str(task_id): int(retries)})  # which other workers ran
        given = getattr(request, CARRIED, None) or (getattr(request, "headers", None) or {}).get(CARRIED)
        carried = given if isinstance(given, Mapping) else None
        parent = None if carried is None else progress.extract(carried)
        following = _following(request)
        operation = observed(progress.operation(str(task.name), id=str(task_id), parent=parent))
        operation.start()
        used = contextlib.ExitStack()
        used.enter_context(operation.use())
        _running[str(task_id)] = Task(operation, carried, following, used, began)
        kept = captured({"args": args, "kwargs": kwargs})
        if kept is not None:
            operation.set(arguments=kept)
    except BaseException:
        switch.failed()


def _ends(task_id: str = "", task: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
    """A task ended, however it did."""
    running = _running.pop(str(task_id), None)
    if running is None:
        return
    operation = running.operation
    pause = _retry_in.pop(str(task_id), 0.0)
    try:
        running.used.close()
        if state == "SUCCESS":
            operation.complete()
        elif state == "FAILURE":
            operation.fail(retval if isinstance(retval, BaseException) else None)
        elif state == "RETRY":
            _pauses(str(task_id), operation, pause)
        elif state is None:
            limit = celery_ends.reached_limit(task, clock.monotonic() - running.began)
            celery_ends.left(operation, sys.exc_info()[1], limit)
        else:
            operation.cancel(str(state).lower())
    except BaseException:
        switch.failed()


def _following(request: Any) -> frozenset[str]:
    """The ids of the tasks that are sent when this one is done: of a chain, of callbacks, of a chord."""
    chord = getattr(request, "chord", None)
    signatures = [*(getattr(request, "chain", None) or ()), *(getattr(request, "callbacks", None) or ())]
    signatures += [chord] if chord else []
    return frozenset(str((each.get("options") or {}).get("task_id")) for each in signatures if isinstance(each, dict))


def _retries(request: Any = None, reason: Any = None, **_: Any) -> None:
    """A task will be tried again: its attempt says why."""
    running = _running.get(str(getattr(request, "id", "")))
    if switch.on and running is not None:
        try:
            running.operation.note(f"will be tried again: {reason}", "warning")
            _retry_in[str(request.id)] = _seconds_to(getattr(reason, "when", None))
        except BaseException:
            switch.failed()


def _seconds_to(when: Any) -> float:
    """The seconds to a retry, of a number of seconds or a time; 0 if that is not known."""
    if isinstance(when, datetime):
        return when.timestamp() - clock.time_ns() / 1e9
    return float(when) if isinstance(when, (int, float)) else 0.0


def _pauses(key: str, operation: progress.Operation, seconds: float) -> None:
    """An attempt waits until it is tried again, in whatever worker, and ends just before."""
    if seconds <= 2 * AHEAD or len(_paused) >= RUNNING:
        operation.cancel("it is tried again")
        return
    due = datetime.fromtimestamp(clock.time_ns() / 1e9 + seconds).astimezone()
    wait = operation.waiting(f"its retry at {due:%H:%M:%S}", overdue_after=seconds)
    timer = threading.Timer(min(seconds - AHEAD, threading.TIMEOUT_MAX), _tried_again, (key,))
    timer.daemon = True
    timer.name = "otel-progress-retry"
    _paused[key] = Pause(operation, wait, timer)
    wait.__enter__()
    timer.start()


def _tried_again(key: str, reason: str = "it is tried again") -> None:
    paused = _paused.pop(key, None)
    if paused is not None:
        paused.timer.cancel()
        paused.wait.__exit__(None, None, None)
        paused.operation.cancel(reason)


def _no_pauses(**_: Any) -> None:
    """This worker ends; another one may try again."""
    for key in tuple(_paused):
        try:
            _tried_again(key, "it will be tried again, and its worker ended")
        except BaseException:
            switch.failed()


def _revoked(request: Any = None, **_: Any) -> None:
    """A task is not wanted any more; one that runs here is asked to stop."""
    running = _running.get(str(getattr(request, "id", "")))
    if switch.on and running is not None:
        try:
            running.operation.request_cancel("revoked")
        except BaseException:
            switch.failed()


def _watches(**_: Any) -> None:
    """This process is perhaps the main one of a worker, which kills those that run tasks."""
    celery_ends.watch(switch, _running)


def _worker_ready(**_: Any) -> None:
    """The pool of this worker runs: what tells of the tasks that it kills should be ready, too."""
    if switch.on:
        try:
            prepare()
        except BaseException:
            switch.failed()


def _wrapped_get(plain: Any) -> Any:
    @functools.wraps(plain)
    def get(self: Any, *args: Any, **options: Any) -> Any:
        if not switch.on or progress.current() is None:
            return plain(self, *args, **options)
        with progress.waiting("a task"):
            return plain(self, *args, **options)

    return get


_CALLS: Final = {
    "before_task_publish": _sent,
    "task_prerun": _starts,
    "task_postrun": _ends,
    "task_retry": _retries,
    "task_revoked": _revoked,
    "worker_init": _watches,
    "worker_ready": _worker_ready,
    "worker_process_shutdown": _no_pauses,
    "worker_shutdown": _no_pauses,
}
