"""How Celery tasks end that are terminated: what their process says, and what the one says that kills it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.request import Request

import otel_progress as progress
from otel_progress import semconv
from otel_progress.integrations import celery_ends
from otel_progress.integrations.switch import Switch
from otel_progress.testing import Capture, capture

GreenletExit = type("GreenletExit", (BaseException,), {"__module__": "greenlet"})
"""What a pool of gevent raises in a task that it kills."""


@pytest.fixture
def switch() -> Switch:
    """An integration that is on."""
    switch = Switch("celery")
    switch.on = True
    return switch


@pytest.fixture
def killed(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> Iterator[Capture]:
    """What the main process of a worker tells, whose pool kills nobody; the task `here` runs in itself."""
    for name in ("terminate", "cancel", "on_timeout"):
        monkeypatch.setattr(Request, name, lambda *given, **options: None)
    with capture() as seen:
        celery_ends.watch(switch, {"here"})
        try:
            yield seen
        finally:
            celery_ends.unwatch()


def request(key: str = "t1", started: float | None = 1.0) -> Any:
    """A request of a worker: a task that its pool runs."""
    return SimpleNamespace(id=key, name="shop.add", worker_pid=7, time_start=started)


def told(seen: Capture) -> list[dict[str, Any]]:
    """The ends that were sent."""
    return [dict(log.attributes) for log in seen.logs if log.event_name == semconv.OPERATION_ENDED]


@pytest.mark.parametrize(
    ("given", "name"), [(None, "SIGTERM"), ("SIGKILL", "SIGKILL"), (9, "SIGKILL"), (signal.SIGUSR1, "SIGUSR1")]
)
def test_a_task_that_is_terminated_was_cancelled(killed: Capture, given: Any, name: str) -> None:
    """Its process may have no time to say so; the event names that process."""
    Request.terminate(request(), None, given)
    (end,) = told(killed)
    assert {key: found for key, found in end.items() if key != semconv.EVENT_NAME} == {
        semconv.OPERATION_ID: "t1",
        semconv.OPERATION_NAME: "shop.add",
        semconv.STATUS: "cancelled",
        semconv.STATUS_REASON: f"revoked, terminated by {name}",
        semconv.PROCESS_PID: 7,
    }


def test_a_hard_time_limit_is_a_failure(killed: Capture) -> None:
    """A soft one is an exception in the task itself."""
    Request.on_timeout(request(), True, 3)
    Request.on_timeout(request(), False, 5)
    (end,) = told(killed)
    assert (end[semconv.STATUS], end[semconv.STATUS_REASON]) == ("failed", "TimeLimitExceeded: killed after 5 s")


def test_a_worker_that_cancels_says_so(killed: Capture) -> None:
    """As in a cold shutdown, or when it lost its broker."""
    Request.cancel(request(), None, emit_retry=False)
    (end,) = told(killed)
    assert end[semconv.STATUS_REASON] == "cancelled by its worker, terminated by SIGTERM"


def test_a_task_that_did_not_start_or_runs_here_is_not_told(killed: Capture, switch: Switch) -> None:
    """The first was never seen, and the other tells its end itself."""
    Request.terminate(request(started=None), None)
    Request.terminate(request("here"), None)
    switch.on = False
    Request.terminate(request(), None)
    assert told(killed) == []


def test_an_error_of_ours_leaves_the_worker_alone(killed: Capture, switch: Switch) -> None:
    """The integration is off."""
    Request.terminate(SimpleNamespace(), None)
    assert not switch.on
    assert told(killed) == []


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (SystemExit(signal.SIGTERM - 256), "cancelled", "terminated by SIGTERM"),
        (SystemExit(3), "interrupted", "SystemExit: 3"),
        (MemoryError("no more"), "failed", "MemoryError: no more"),
        (GreenletExit(), "cancelled", "GreenletExit"),
        (None, "cancelled", "it ended without a state"),
    ],
)
def test_an_exception_that_leaves_the_process(error: BaseException | None, status: str, reason: str) -> None:
    """A signal is no error of the task; all else ends it as anywhere."""
    with capture() as seen:
        celery_ends.left(progress.operation("task").start(), error)
        seen.look()
        (end,) = seen.of(semconv.OPERATION_ENDED)
    assert (end.snapshot.status.value, end.snapshot.reason) == (status, reason)


@pytest.mark.parametrize(
    ("message", "own", "seconds", "status"),
    [
        (None, 5.0, 5.0, "failed"),
        ([3, None], 60.0, 3.0, "failed"),
        (None, 5.0, 2.0, "cancelled"),
        ([None, 2], None, 9.0, "cancelled"),
    ],
)
def test_a_hard_limit_that_the_process_feels(message: Any, own: float | None, seconds: float, status: str) -> None:
    """The pool tries SIGTERM first: then the limit of the message counts, else that of the task."""
    task = SimpleNamespace(request=SimpleNamespace(timelimit=message), time_limit=own)
    with capture() as seen:
        operation = progress.operation("task").start()
        celery_ends.left(operation, SystemExit(signal.SIGTERM - 256), celery_ends.reached_limit(task, seconds))
        seen.look()
        (end,) = seen.of(semconv.OPERATION_ENDED)
    assert end.snapshot.status.value == status
