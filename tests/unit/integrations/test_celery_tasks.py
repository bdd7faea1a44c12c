"""Celery with a real worker and a broker in memory: what people send, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signals
from celery.contrib.testing.worker import start_worker

import otel_progress as progress
from otel_progress import semconv
from otel_progress.integrations import celery as integration
from otel_progress.model.snapshot import Snapshot
from otel_progress.testing import Capture, capture

SECONDS = 20.0


@pytest.fixture
def seen() -> Iterator[Capture]:
    """What is reported of tasks, with the integration on."""
    with capture() as found:
        integration.install()
        try:
            yield found
        finally:
            integration.uninstall()


shop = Celery("shop", broker="memory://", backend="cache+memory://")
shop.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@shop.task(name="shop.add")
def add(first: int, second: int) -> int:
    progress.advance()
    return first + second


@shop.task(name="shop.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shop.task(name="shop.fail")
def fail() -> None:
    raise ValueError("out of tea")


@shop.task(name="shop.outer")
def outer() -> str:
    return str(add.delay(1, 2).id)


@shop.task(name="shop.flaky", bind=True, max_retries=3)
def flaky(self: Any) -> str:
    if self.request.retries < 2:
        raise self.retry(countdown=0, exc=ValueError("no answer"))
    return "done"


@shop.task(name="shop.patient", bind=True, max_retries=3)
def patient(self: Any, countdown: float) -> str:
    if self.request.retries < 1:
        raise self.retry(countdown=countdown, exc=ValueError("no answer"))
    return "done"


def _keep_logging(**_: Any) -> None:
    """A receiver of this signal is asked in place of Celery's own set-up."""


@pytest.fixture(scope="module")
def worker() -> Iterator[None]:
    """A worker in a thread, which leaves the logging of the tests alone."""
    signals.setup_logging.connect(_keep_logging)
    try:
        with start_worker(shop, pool="solo", perform_ping_check=False, shutdown_timeout=SECONDS):
            yield
    finally:
        signals.setup_logging.disconnect(_keep_logging)


@pytest.fixture
def app(worker: None, seen: Capture) -> Celery:
    """The application, with its worker."""
    return shop


def ends(seen: Capture, count: int) -> list[Snapshot]:
    """Wait until `count` operations have ended, and return their last snapshots."""
    pause = threading.Event()
    for _ in range(2_000):
        seen.look()
        found = [event.snapshot for event in seen.of(semconv.OPERATION_ENDED)]
        if len(found) >= count:
            return found
        pause.wait(0.01)
    raise AssertionError(f"{len(found)} of {count} have ended")


def test_task_is_an_operation_below_the_one_that_sent_it(app: Celery, seen: Capture) -> None:
    """With its own counts; the sender's wait for the result is declared."""
    with progress.operation("caller") as caller:
        sent = app.tasks["shop.add"].delay(1, 2)
        assert sent.get(timeout=SECONDS) == 3
    task, _ = ends(seen, 2)
    assert (task.name, task.operation_id, task.status.value) == ("shop.add", sent.id, "completed")
    assert (task.parent_id, task.progress.completed) == (caller.id, 1)
    assert [event.snapshot.name for event in seen.of(semconv.WAIT_STARTED)][:1] in ([], ["caller"])


def test_task_that_nobody_watches(app: Celery, seen: Capture) -> None:
    """Sent from outside of an operation, it has no parent."""
    app.tasks["shop.add"].delay(1, 2).get(timeout=SECONDS)
    (task,) = ends(seen, 1)
    assert task.parent_id is None


def test_failure(app: Celery, seen: Capture) -> None:
    """The exception is the reason."""
    with pytest.raises(ValueError, match="out of tea"):
        app.tasks["shop.fail"].delay().get(timeout=SECONDS)
    (task,) = ends(seen, 1)
    assert task.status.value == "failed"
    assert "out of tea" in str(task.reason)


def test_task_that_a_task_sends_is_its_child(app: Celery, seen: Capture) -> None:
    """Whatever worker runs it."""
    outer = app.tasks["shop.outer"].delay()
    found = {one.name: one for one in ends(seen, 2)}
    assert found["shop.add"].parent_id == found["shop.outer"].operation_id == outer.id


def test_chain_group_and_chord_are_below_their_sender(app: Celery, seen: Capture) -> None:
    """A task that follows another one is not its child."""
    add, total = app.tasks["shop.add"], app.tasks["shop.total"]
    with progress.operation("caller") as caller:
        assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=SECONDS) == 10
        assert group(add.s(1, 2), add.s(3, 4))().get(timeout=SECONDS) == [3, 7]
        assert chord([add.s(1, 2), add.s(3, 4)], total.s())().get(timeout=SECONDS) == 10
    tasks = [one for one in ends(seen, 9) if one.name != "caller"]
    assert {one.parent_id for one in tasks if one.name == "shop.add"} == {caller.id}


def test_retries_are_attempts(app: Celery, seen: Capture) -> None:
    """Of one operation; each but the last says why it is tried again, and none is its own parent."""
    with progress.operation("caller") as caller:
        sent = app.tasks["shop.flaky"].delay()
        assert sent.get(timeout=SECONDS) == "done"
    tasks = [one for one in ends(seen, 4) if one.name == "shop.flaky"]
    assert [(one.attempt, one.status.value) for one in tasks] == [(1, "cancelled"), (2, "cancelled"), (3, "completed")]
    assert {one.operation_id for one in tasks} == {sent.id}
    assert {one.parent_id for one in tasks} == {caller.id}
    notes = [str(event.attributes) for event in seen.of(semconv.NOTE)]
    assert any("no answer" in note for note in notes)


def test_a_pause_before_a_retry_is_a_declared_wait(app: Celery, seen: Capture) -> None:
    """It says until when, and the attempt ends just before the next one may start, in whatever worker."""
    sent = app.tasks["shop.patient"].delay(3.0)
    assert sent.get(timeout=SECONDS) == "done"
    tasks = ends(seen, 2)
    assert [(one.attempt, one.status.value) for one in tasks] == [(1, "cancelled"), (2, "completed")]
    (wait,) = seen.of(semconv.WAIT_STARTED)
    assert wait.snapshot.operation_id == sent.id
    assert str(wait.attributes[semconv.WAIT_REASON]).startswith("its retry at ")
    assert len(seen.of(semconv.WAIT_ENDED)) == 1
    assert tasks[0].reason == "it is tried again"


def test_a_worker_that_ends_before_a_retry(app: Celery, seen: Capture) -> None:
    """The attempt is not lost: it says that it will be tried again."""
    app.tasks["shop.patient"].delay(1_000_000)
    pause = threading.Event()
    for _ in range(2_000):
        seen.look()
        if seen.of(semconv.WAIT_STARTED):
            break
        pause.wait(0.01)
    assert not seen.of(semconv.OPERATION_ENDED)
    signals.worker_process_shutdown.send(sender=None)
    (task,) = ends(seen, 1)
    assert (task.status.value, task.reason) == ("cancelled", "it will be tried again, and its worker ended")


def test_an_attempt_that_another_worker_began(app: Celery, seen: Capture) -> None:
    """Its number counts the retries in all workers."""
    app.tasks["shop.add"].apply((1, 2), retries=4)
    (task,) = ends(seen, 1)
    assert task.attempt == 5


def test_eager_tasks(app: Celery, seen: Capture) -> None:
    """Run in place, they are children of what runs."""
    with progress.operation("caller") as caller:
        app.tasks["shop.add"].apply((1, 2))
    task, _ = ends(seen, 2)
    assert task.parent_id == caller.id


def test_inputs_are_kept_only_if_asked_for(app: Celery, seen: Capture) -> None:
    """Neither arguments nor results."""
    app.tasks["shop.add"].delay(12345678, 1).get(timeout=SECONDS)
    (task,) = ends(seen, 1)
    assert "12345678" not in str(task)


def test_error_of_ours_leaves_tasks_alone(app: Celery, seen: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The integration is off, and tasks go on."""

    def fail(_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(integration, "_following", fail)
    assert app.tasks["shop.add"].delay(1, 2).get(timeout=SECONDS) == 3
    assert not integration.switch.on


def test_nothing_is_left_behind() -> None:
    """Taken out, Celery is what it was."""
    from celery.result import AsyncResult

    before = AsyncResult.get, len(signals.task_prerun.receivers)
    integration.install()
    integration.install()
    assert len(signals.task_prerun.receivers) == before[1] + 1
    integration.uninstall()
    assert (AsyncResult.get, len(signals.task_prerun.receivers)) == before
