"""What who sees only their own is told: revisions and numbers of their own, and nothing that names others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from monitor_parts import Parts, event_of, fake_time, request_of

from otel_progress import semconv as s
from otel_progress.model.health import Verdict
from otel_progress.model.snapshot import Branch, Snapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.state.child_processes import Judgement
from otel_progress.monitor.web import owned
from otel_progress.monitor.web.event_numbers import NEWEST, EventNumbers
from otel_progress.monitor.web.visibility import Visibility
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def snap(sequence: int = 1, status: Status = Status.RUNNING, key: str = "a", **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    return Snapshot(key, "work", status, AT + sequence, sequence=sequence, **{"started_at": AT, **more})


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """A clock that stands."""
    with fake_time() as found:
        yield found


def test_a_revision_rises_with_what_is_shown(fake: FakeClock) -> None:
    """The same row keeps its revision, whatever the ledger counts; clocks, estimates and seconds in words don't count."""
    revisions = owned.Revisions()
    row = {"status": "running", "elapsed": 1.0, "verdict": {"reason": "no progress for 61 s"}, "progress": {"eta": 5}}
    later = {**row, "elapsed": 2.0, "verdict": {"reason": "no progress for 62.5 s"}, "progress": {"eta": 4}}
    first = revisions.of("a", 7, row)
    assert revisions.of("a", 900, later) == first
    fake.sleep(60)
    assert revisions.of("a", 901, later) == first
    changed = revisions.of("a", 902, {**row, "status": "completed"})
    assert changed >= first + 60_000
    assert revisions.of("a", 950, row) == changed + 1  # a change in the same moment
    assert revisions.of("a", 1, {**row, "status": "pending"}) == changed  # of what is older by now
    assert revisions.of("b", 3, row) > first


def test_a_revision_rises_also_when_it_was_forgotten(fake: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client keeps the newer of two rows, also over a start of the monitor."""
    monkeypatch.setattr(owned, "REVISIONS", 1)
    revisions = owned.Revisions()
    first = revisions.of("a", 1, {})
    fake.sleep(0.01)
    revisions.of("b", 1, {})
    assert revisions.of("a", 1, {}) > first
    assert owned.Revisions().of("a", 1, {}) > first


def test_events_are_numbered_within_their_operation(monitor: Parts) -> None:
    """Numbers have no gap, stand for the same event from either side, and stay when the oldest are gone."""
    for number in range(1, 21):
        monitor.say(snap(number), event=s.NOTE)
        monitor.say(snap(number, key="other"), event=s.NOTE)
    store = monitor.store
    rows = store.events("a", limit=100)
    for places in (EventNumbers(store), EventNumbers(store)):
        for part in (rows[10:], rows[:10], rows[5:15], rows):
            assert [place for place, _ in places.numbered("a", part)] == [rows.index(row) + 1 for row in part]
            assert [places.number("a", at + 1) for at in range(20)] == [number for number, _ in rows]
        assert places.number("a", 21) == NEWEST
        assert places.number("a", 0) == 0
    with store._transaction() as db:
        db.execute("DELETE FROM events WHERE id <= ?", (rows[7][0],))
    assert [place for place, _ in places.numbered("a", store.events("a", limit=100))] == list(range(9, 21))
    assert places.number("a", 3) == 0


class Own(Visibility):
    """The sight of one who sees these, with nothing below them."""

    def __init__(self, *ids: str) -> None:
        """These ids."""
        self.ids = ids

    def sees(self, operation_id: str) -> bool:
        """Whether it is one of these."""
        return operation_id in self.ids

    def below(self, operation_id: str) -> bool | None:
        """Nothing is known."""
        return None


def test_a_child_of_another_is_not_named() -> None:
    """Neither the branch that waits for it nor the verdict that rests on it says which it is, or where it is."""
    sight = Own("mine")
    wait = Wait("bob's approval", 1.0)
    hidden = Branch("s", child="bob-1", child_name="bob-import", health=Health.SILENT, reason="bob-1 is stuck")
    hidden = replace(hidden, stuck_at="bob.py:1 in f", wait=wait)
    seen = Branch("t", child="mine", child_name="my-import", health=Health.SILENT, reason="mine is stuck")
    assert owned.branch(seen, sight) is seen
    assert "bob" not in repr(owned.branch(hidden, sight))
    said = {"stuck_at": "bob.py:1 in f", "stack": "bob.py:1 in f", "wait": wait}
    whole = snap(1, branches=(hidden, seen), parent_id="of-bob", health_reason="s, child bob-import: stuck", **said)
    assert "bob" not in repr(owned.snapshot(whole, sight))
    assert owned.snapshot(snap(1, parent_id="mine"), sight).parent_id == "mine"
    for branch, named in ((hidden, False), (seen, True)):
        verdict = Verdict(Health.SILENT, clock="child", detail=branch.reason, branch=branch.label)
        told = owned.verdict(verdict, whole, sight)
        assert ("bob" in repr(told), told == verdict) == (False, named)
    elsewhere = Judgement(Health.SILENT, clock="child", detail="waits for child bob-import/bob-1", child="bob-1")
    assert "bob" not in repr(owned.verdict(elsewhere, whole, sight))
    assert owned.verdict(elsewhere, whole, sight).health is Health.SILENT


@pytest.mark.parametrize("event", [s.STALLED, s.RECOVERED, s.WAIT_OVERDUE, s.UPDATED, s.HEARTBEAT, s.OPERATION_ENDED])
@pytest.mark.parametrize("owners", [("bob",), ("ann", "bob"), ()], ids=repr)
def test_no_event_tells_of_a_child_of_another(monitor: Parts, owners: tuple[str, ...], event: str) -> None:
    """What the library says of a child is hidden where that child, or one below it, is not the reader's, or unknown."""
    mine, above = Attributes({s.OWNER: "ann"}), "a"
    for number, owner in enumerate(owners):
        monitor.say(snap(1, key=f"c{number}", parent_id=above, attributes=Attributes({s.OWNER: owner})))
        above = f"c{number}"
    reason = "s, child bob: bob-stage: no progress for 9 s"
    own = {s.HEALTH_REASON: reason, s.STUCK_AT: "bob.py:1", s.STACK: "bob.py:1", "progress.other": 1}
    stuck = snap(2, attributes=mine, health=Health.SILENT, health_reason=reason, stuck_at="bob.py:1", stack="bob.py:1")
    monitor.take(request_of(event_of(snap(1, attributes=mine), s.OPERATION_STARTED)))
    monitor.say(stuck, event=event, **own)
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    views = monitor.views.of("ann")
    told = [views.event(*row) for row in monitor.store.events("a", limit=10)]
    assert "bob" not in repr((told, views.detail(entry), views.row_text(entry)))
    assert "bob" in repr([monitor.views.event(*row) for row in monitor.store.events("a", limit=10)]) or event in (
        s.UPDATED,
        s.HEARTBEAT,
    )


def test_what_is_said_of_children_of_their_own_is_shown(monitor: Parts) -> None:
    """Who may see all that is below an operation sees all the evidence."""
    mine = Attributes({s.OWNER: "ann"})
    monitor.say(snap(1, key="c", parent_id="a", attributes=mine))
    stuck = snap(2, attributes=mine, health=Health.SILENT, stack="c.py:1 in f", stuck_at="c.py:1 in f")
    monitor.say(stuck, event=s.STALLED, **{s.HEALTH_REASON: "s, child c: no progress for 9 s"})
    views = monitor.views.of("ann")
    for number, event in monitor.store.events("a", limit=10):
        assert views.event(number, event) == monitor.views.event(number, event)
    assert "child c" in repr([views.event(*row) for row in monitor.store.events("a", limit=10)])


def test_rows_of_an_owner_are_new_only_when_theirs_changed(monitor: Parts) -> None:
    """What is below and belongs to another changes no revision; what is theirs does."""
    monitor.say(snap(1, attributes=Attributes({s.OWNER: "ann"})))
    monitor.say(snap(1, key="x", parent_id="a", attributes=Attributes({s.OWNER: "bob"})))
    views, entry = monitor.views.of("ann"), monitor.core.ledger.find("a")
    assert entry is not None
    first = views.revision(entry)
    everybody = monitor.views.revision(entry)
    monitor.say(snap(2, key="x", parent_id="a", attributes=Attributes({s.OWNER: "bob"})))
    assert views.revision(entry) == first
    assert monitor.views.revision(entry) > everybody
    monitor.say(snap(2, key="y", parent_id="a"))
    assert views.revision(entry) > first
