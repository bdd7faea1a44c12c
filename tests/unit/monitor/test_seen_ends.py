"""The end of an operation that the killer of its process tells: the state stays, and only how it ended is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.monitor.test_ledger import Said, resource, said, snap

from otel_progress import semconv as s
from otel_progress.model.snapshot import Progress, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.monitor.state.ledger import Ledger, lose
from otel_progress.monitor.state.watcher import Watcher

CHILD = resource("child", **{s.PROCESS_PID: 7, s.HOST_NAME: "here"})
PARENT = resource("parent", **{s.PROCESS_PID: 5, s.HOST_NAME: "here"})


def end(pid: Any = 7, status: Status = Status.CANCELLED, at: float = 120.0) -> Said:
    """What a parent says of the process that it killed."""
    about = {s.OPERATION_ID: "a", s.OPERATION_NAME: "work", s.STATUS: status.value, s.STATUS_REASON: "revoked"}
    return Said(s.OPERATION_ENDED, round(at * 1e9), {**about, s.PROCESS_PID: pid})


@pytest.fixture
def ledger() -> Ledger:
    """An operation with a running stage, in a child of a worker."""
    ledger = Ledger()
    stage = StageSnapshot("fetch", "fetch", Status.RUNNING)
    running = snap(5, stages=(stage,), stage="fetch", progress=Progress(completed=3, total=9))
    ledger.hear(CHILD, [said(running)], 1.0)
    return ledger


def test_the_end_leaves_counts_and_stages(ledger: Ledger) -> None:
    """It is the same attempt, of the same process, and what ran in it ended so as well."""
    ledger.hear(PARENT, [end()], 2.0)
    entry = ledger.operations["a"]
    found = entry.snapshot
    assert (found.status, found.reason, found.attempt, entry.instance) == (Status.CANCELLED, "revoked", 1, "child")
    assert (found.progress.completed, found.timestamp) == (3, 120.0)
    assert [stage.status for stage in found.stages] == [Status.CANCELLED]
    assert (ledger.unread, entry.rivals, list(ledger.busy())) == (0, None, [])


def test_nothing_that_was_under_way_undoes_it(ledger: Ledger) -> None:
    """A late event of the killed process is older."""
    ledger.hear(PARENT, [end()], 2.0)
    ledger.hear(CHILD, [said(snap(9))], 3.0)
    assert ledger.operations["a"].snapshot.status is Status.CANCELLED


def test_the_one_who_killed_it_knows_more_than_a_watcher(ledger: Ledger) -> None:
    """A loss, proven or presumed, becomes what it was."""
    ledger.apply(lose(ledger.operations["a"].snapshot, "its process is gone"), "child", 2.0)
    ledger.hear(PARENT, [end(status=Status.FAILED)], 3.0)
    found = ledger.operations["a"].snapshot
    assert (found.status, found.reason) == (Status.FAILED, "revoked")
    assert [stage.status for stage in found.stages] == [Status.FAILED]


def test_an_end_that_the_process_told_stays(ledger: Ledger) -> None:
    """A task that is done before the signal comes has completed."""
    ledger.hear(CHILD, [said(snap(6, Status.COMPLETED), s.OPERATION_ENDED)], 2.0)
    ledger.hear(PARENT, [end()], 3.0)
    assert ledger.operations["a"].snapshot.status is Status.COMPLETED


def test_it_is_about_one_process(ledger: Ledger) -> None:
    """Another attempt of the same id, in another process, goes on, as does one on another host."""
    ledger.hear(PARENT, [end(8)], 2.0)
    ledger.hear(resource("stranger", **{s.HOST_NAME: "there"}), [end()], 2.0)
    entry = ledger.operations["a"]
    assert (entry.instance, entry.open) == ("child", True)


def test_of_an_unknown_operation_it_says_nothing() -> None:
    """There is no row without a start."""
    ledger = Ledger()
    ledger.hear(PARENT, [end()], 2.0)
    assert not ledger.operations


def test_a_loss_that_was_explained_is_none(ledger: Ledger) -> None:
    """`otel-progress run` names at its end only what is still lost; another attempt explains nothing."""
    watcher = Watcher(lambda _, __: None, lambda _: None, ledger=ledger)
    lost = lose(ledger.operations["a"].snapshot, "its process is gone")
    ledger.apply(lost, "child", 2.0)
    assert watcher.is_still_lost(lost)
    ledger.hear(PARENT, [end()], 3.0)
    assert not watcher.is_still_lost(lost)
    assert watcher.is_still_lost(replace(lost, attempt=2))
    assert watcher.is_still_lost(replace(lost, operation_id="unknown"))
