"""What goes on to others: a webhook hears of what somebody should know, once, and a failing one harms nobody."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, parts

from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake.requests import Refused, parse
from otel_progress.monitor.outlets.dispatch import Outlets, _request
from otel_progress.outbound import otlp
from otel_progress.outbound.webhook import WebhookOptions

AT = 1_700_000_000.0


def snap(sequence: int = 1, status: Status = Status.RUNNING, key: str = "a", **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    return Snapshot(key, "work", status, AT + sequence, sequence=sequence, **{"started_at": AT, **more})


@pytest.fixture
def posted() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """The address of a receiver, and what it got."""
    got: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def outlets(posted: tuple[str, Any], tmp_path: Path) -> Iterator[tuple[Parts, Outlets]]:
    """A monitor's inside with a webhook."""
    with parts(tmp_path / "m.db") as monitor:
        found = Outlets(monitor.core, monitor.views, None, WebhookOptions(posted[0]), "origin")
        monitor.core.listen(found)
        found.start()
        yield monitor, found
        found.stop(2.0)


def test_webhook_hears_of_what_somebody_should_know(posted: tuple[str, Any], outlets: tuple[Parts, Outlets]) -> None:
    """A stall, a recovery, an overdue wait, a slow run and an end are posted once, with the row as it is then; updates and notes are not."""
    monitor, _ = outlets
    for _ in range(2):
        monitor.say(snap(1), event=s.OPERATION_STARTED)
        monitor.say(snap(2), event=s.NOTE)
        monitor.say(snap(3), event=s.STALLED)
        monitor.say(snap(4), event=s.RECOVERED)
        monitor.say(snap(5), event=s.WAIT_OVERDUE)
        monitor.say(snap(6), event=s.SLOW)
        monitor.say(snap(7, Status.FAILED, reason="no"), event=s.OPERATION_ENDED)
    got = [posted[1].get(timeout=10) for _ in range(6)]
    assert sorted(one["kind"] for one in got) == ["failed", "overdue", "recovered", "recovered", "slow", "stalled"]
    failed = next(one for one in got if one["kind"] == "failed")
    assert (failed["operation"]["status"], failed["operation"]["reason"]) == ("failed", "no")
    assert posted[1].empty()


def test_overdue_wait_that_is_over_is_closed(posted: tuple[str, Any], outlets: tuple[Parts, Outlets]) -> None:
    """Who was called for an overdue wait hears that it is over, once; an end closes it by itself."""
    monitor, _ = outlets
    waits: dict[str, Any] = {"status": Status.WAITING, "wait": Wait("you", 9.0, 5.0), "overdue": True}
    monitor.say(snap(1, **waits), event=s.WAIT_OVERDUE)
    monitor.say(snap(2, **waits))
    monitor.say(snap(3), event=s.WAIT_ENDED)
    monitor.say(snap(4))
    monitor.tick()
    monitor.say(snap(5, **waits), event=s.WAIT_OVERDUE)
    monitor.say(snap(6, Status.COMPLETED), event=s.OPERATION_ENDED)
    got = [posted[1].get(timeout=10)["kind"] for _ in range(4)]
    assert got == ["overdue", "recovered", "overdue", "ended"]
    assert posted[1].empty()


def test_lost_one_has_the_line_where_it_was_stuck(posted: tuple[str, Any], outlets: tuple[Parts, Outlets]) -> None:
    """Nothing else is known of where a job was that was stuck and then killed."""
    monitor, found = outlets
    stuck: dict[str, Any] = {"health": Health.SILENT, "idle": 9.0, "stall_after": 5.0, "stuck_at": "a.py:1 in f"}
    monitor.say(snap(1, **stuck), event=s.STALLED, **{s.STAGE_PATH: "load"})
    assert posted[1].get(timeout=10)["event"]["stage"] == "load"
    lost = monitor.core.ledger.presume_lost("a", "gone")
    assert lost is not None
    found.concluded(lost, "lost")
    assert posted[1].get(timeout=10)["operation"]["stuck_at"] == "a.py:1 in f"


@pytest.mark.parametrize("kind", ["dead", "stalled", "lost", "recovered"])
def test_what_the_monitor_concludes_is_posted(
    posted: tuple[str, Any], outlets: tuple[Parts, Outlets], kind: str
) -> None:
    """What no event says is posted as the kind that it is: a dead process is not a lost operation."""
    monitor, found = outlets
    monitor.say(snap(1))
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    found.concluded(entry, kind)
    assert posted[1].get(timeout=10)["kind"] == kind


def test_what_goes_nowhere_is_not_asked_for(tmp_path: Path) -> None:
    """Without outlets no event is kept for them; with a webhook only those that are posted."""
    with parts(tmp_path / "m.db") as monitor:
        none = Outlets(monitor.core, monitor.views, None, None, "origin")
        assert [event for event in s.EVENTS if none.wants(event)] == []
        none.stop(0.1)


def test_record_goes_on_as_it_came(tmp_path: Path) -> None:
    """Another monitor gets the event with its process, without what OTLP can't carry."""
    with parts(tmp_path / "m.db") as monitor:
        heard = monitor.listen()
        monitor.say(snap(1, description="d"))
        body = _request(heard.events[0]._replace(resource={**heard.events[0].resource, "odd": {"a": 1}}))
        (group,) = parse("logs", body).message.resource_logs  # type: ignore[attr-defined]
        assert [pair.key for pair in group.resource.attributes] == ["service.instance.id"]
        assert group.scope_logs[0].log_records[0].SerializeToString() == heard.events[0].record.raw


def test_what_another_monitor_took_is_stored_before_the_next_is_read(outlets: tuple[Parts, Outlets]) -> None:
    """It waits for the commit, and says where there was none."""
    monitor, found = outlets
    heard = monitor.listen()
    monitor.say(snap(1))
    body = _request(heard.events[0])
    monitor.core.start()
    found._from_others(body.replace(b"work", b"walk"))
    with pytest.raises(Refused):
        found._from_others(b"\xff\xff")
    monitor.core.stop()
    assert len(heard.events) == 1


def test_address_that_can_not_be_meant(tmp_path: Path) -> None:
    """It is said at the start."""
    with parts(tmp_path / "m.db") as monitor, pytest.raises(InvalidArgument):
        Outlets(monitor.core, monitor.views, None, WebhookOptions("not an address"), "origin")


def test_stall_that_is_overruled_is_for_other_monitors_alone(outlets: tuple[Parts, Outlets]) -> None:
    """A webhook hears nothing of it; another monitor gets the record, under a name that alarms nobody."""
    monitor, found = outlets
    items: list[Any] = []

    class Stream:
        def publish(self, given: list[Any]) -> None:
            items.extend(given)

        def close(self, timeout: float) -> None:
            """Nothing is open."""

        def losses(self) -> list[str]:
            return []

    found._stream = Stream()  # type: ignore[assignment]
    monitor.listen()
    monitor.say(snap(1, key="b", parent_id="a"), instance="p2")
    monitor.say(snap(3, health=Health.SILENT, idle=5.0, stall_after=2.0), event=s.STALLED)
    assert [item[:2] for item in items] == [("b", s.UPDATED), ("a", s.UPDATED)]
    assert found._webhook is not None
    assert len(found._webhook._deliveries) == 0


def test_what_was_told_before_a_restart_is_not_told_again(posted: tuple[str, Any], tmp_path: Path) -> None:
    """A sender whose answer got lost sends an end again, to a monitor that was started anew: it was told already."""
    with parts(tmp_path / "m.db") as monitor:
        first = monitor.listen()
        monitor.say(snap(1), event=s.OPERATION_STARTED)
        monitor.say(snap(2, Status.FAILED), event=s.OPERATION_ENDED)
        monitor.restart()
        second = monitor.listen()
        monitor.say(snap(2, Status.FAILED), event=s.OPERATION_ENDED)
        monitor.say(snap(3, Status.FAILED, key="b"), event=s.OPERATION_ENDED)
        ends = [one for one in first.events + second.events if one.record.event == s.OPERATION_ENDED]
        assert [one.head.operation_id for one in ends if one.head is not None] == ["a", "b"]


def test_what_an_event_says_stands_before_what_its_state_says(tmp_path: Path) -> None:
    """Where both name the line, the history and the webhook have that of the branch which the event is about."""
    said = snap(1, health=Health.SILENT, stuck_at="other.py:1")
    head = otlp.attributes(6, {s.SEQUENCE: 1, s.STUCK_AT: "mine.py:1"})
    body = otlp.attributes(6, wire.to_attributes(said))
    with parts(tmp_path / "m.db") as monitor:
        moment = round(said.timestamp * 1e9)
        monitor.take_of("p1", otlp.log_record(s.STALLED, moment, moment, 9, "", head + body, None, None, False))
        (event,) = monitor.history()
        assert json.loads(event.attributes or "")[s.STUCK_AT] == "mine.py:1"
