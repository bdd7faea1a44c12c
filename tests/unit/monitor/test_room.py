"""When the monitor is full, whoever holds the most makes room: a flood hurts nobody but its sender."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_parts import Parts, beat_of, event_of, parts, request_of, seconds

from otel_progress import Snapshot, Status, clock
from otel_progress import semconv as s
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Accepted, Acknowledgement, Envelope, Sender
from otel_progress.monitor.state.aside import ASIDE, SENDERS
from otel_progress.monitor.state.core import CoreLimits
from otel_progress.monitor.state.holders import Holder
from otel_progress.testing import FakeClock

MOST = 20
FLOOD = 3 * MOST
GOOD, BAD = Sender(1, "good", address="10.0.0.1"), Sender(2, "bad", address="10.0.0.2")


@pytest.fixture
def full(monitor: Parts) -> Parts:
    """A monitor with little room, and two operations of an honest client in it."""
    monitor.core.ledger.most = MOST
    for key in ("good-1", "good-2"):
        send(monitor, key, sender=GOOD)
    return monitor


def send(
    monitor: Parts,
    *keys: str,
    sender: Sender = BAD,
    instance: str = "p1",
    service: str = "work",
    status: Status = Status.RUNNING,
    sequence: int = 1,
    about: str | None = None,
) -> Accepted:
    """Let a client report operations."""
    moment = clock.time_ns() / 1e9
    said = [Snapshot(key, "work", status, moment, sequence=sequence, started_at=1.0, description=about) for key in keys]
    body = request_of(*(event_of(one) for one in said), instance=instance, **{s.SERVICE_NAME: service})
    answers: list[Acknowledgement] = []
    monitor.core.work([Job(Envelope("logs", body, sender=sender), answers.append, True)])
    (answer,) = answers
    assert isinstance(answer, Accepted)
    return answer


def flood() -> Iterator[str]:
    """Ids of operations that nobody needs."""
    return (f"flood-{number}" for number in range(FLOOD))


def held(monitor: Parts) -> set[str]:
    """The ids in memory."""
    return set(monitor.core.ledger.operations)


def test_a_client_that_floods_makes_room_with_its_own_oldest(full: Parts) -> None:
    """Operations of others stay, and so do the newest of its own."""
    for key in flood():
        send(full, key)
    assert held(full) == {"good-1", "good-2", *(f"flood-{number}" for number in range(FLOOD - MOST + 2, FLOOD))}
    assert full.row("good-1")["state"] == "progressing"


def test_processes_and_services_that_a_client_invents_are_its_own(full: Parts) -> None:
    """However few operations each of them has, together they are the most."""
    for number, key in enumerate(flood()):
        send(full, key, instance=f"new-{number}", service=f"service-{number}")
    assert {"good-1", "good-2"} <= held(full)


def test_of_one_client_the_service_that_floods_makes_room(full: Parts) -> None:
    """As behind a Collector, or on one machine; of one service it is the process with the most operations."""
    for number, key in enumerate(flood()):
        send(full, key, sender=GOOD, instance=f"new-{number}", service="other")
    assert {"good-1", "good-2"} <= held(full)
    for key in flood():
        send(full, f"again-{key}", sender=GOOD, instance="p2")
    assert {"good-1", "good-2"} <= held(full)


def test_of_many_equals_those_that_came_first_stay(monitor: Parts) -> None:
    """Where nobody holds more than others, a newcomer does not push out what is followed already."""
    monitor.core.ledger.most = MOST
    for number in range(FLOOD):
        send(monitor, str(number), instance=f"p{number}")
    assert held(monitor) >= {str(number) for number in range(MOST - 1)}


def test_operations_that_ended_go_first(full: Parts) -> None:
    """They are in the store as well: nobody loses anything."""
    send(full, "over", sender=GOOD, status=Status.COMPLETED)
    for number in range(MOST - 2):
        send(full, f"flood-{number}")
    assert held(full) == {"good-1", "good-2", *(f"flood-{number}" for number in range(MOST - 2))}
    assert full.core.aside.health() == {}
    assert full.row("over")["state"] == "completed"


def test_operations_of_silent_processes_go_before_live_ones(monitor: Parts, fake: FakeClock) -> None:
    """Of the service that makes room those of processes that are not heard any more, although they have fewer."""
    monitor.core.ledger.most = 5
    send(monitor, "silent", instance="old")
    for number in range(4):
        send(monitor, f"live-{number}", instance="new")
    for _ in range(20):
        seconds(fake, monitor, 5)
        monitor.take_of("new", beat_of())
    send(monitor, "live-4", instance="new")
    assert held(monitor) == {f"live-{number}" for number in range(5)}


def test_a_flood_of_processes_makes_room_with_its_own(full: Parts) -> None:
    """The number of processes is bounded, too: those of others stay, with their operations."""
    full.core.ledger.most_processes = 5
    for number in range(FLOOD):
        send(full, f"flood-{number % 3}", instance=f"new-{number}")
    for number in range(FLOOD):
        send(full, f"more-{number}", instance=f"more-{number}")
    assert "p1" in full.core.ledger.processes
    assert {"good-1", "good-2"} <= held(full)
    assert full.core.ledger.room.counts["processes"] > 0
    assert len(full.core.ledger.processes) <= 5


def test_a_flood_of_bytes_makes_room_with_its_own(tmp_path: Path) -> None:
    """One large operation of somebody else stays, as many small ones take more."""
    with parts(tmp_path / "m.db", limits=CoreLimits(held_bytes=40_000)) as monitor:
        send(monitor, "large", sender=GOOD, about="x" * 5_000)
        for key in flood():
            send(monitor, key, about="x" * 1_000)
        assert "large" in held(monitor)
        assert monitor.core.ledger.room.counts["bytes"] > 0
        assert monitor.core.held <= 40_000


def test_what_was_put_aside_is_not_lost(full: Parts) -> None:
    """The monitor does not know what becomes of it, says so, and counts it neither as running nor as ended."""
    for key in flood():
        send(full, key)
    full.tick()
    row = full.row("flood-0")
    assert (row["status"], row["state"], row["verdict"]["reason"]) == ("running", "unknown", ASIDE)
    assert [event.event for event in full.history("flood-0")] == [s.UPDATED]
    assert "flood-0" not in full.core.labels
    full.restart()
    full.core.load_more()
    assert held(full) == {"good-1", "good-2", *(f"flood-{number}" for number in range(FLOOD - MOST + 2, FLOOD))}


def test_what_was_put_aside_is_followed_again_from_its_next_event_on(full: Parts) -> None:
    """Its sender is still the one that makes room for it."""
    for key in flood():
        send(full, key)
    send(full, "flood-0", sequence=2)
    assert full.row("flood-0")["state"] == "progressing"
    assert {"good-1", "good-2", "flood-0"} <= held(full)
    send(full, "flood-0", sequence=3, status=Status.COMPLETED)
    assert full.row("flood-0")["state"] == "completed"


def test_it_is_counted_by_reason_and_told_once_for_each_sender(full: Parts, fake: FakeClock) -> None:
    """`/health` has the numbers; it reports trouble for a minute."""
    told: list[str] = []
    full.core.aside.tell = told.append
    answers = [send(full, key, instance="p2", service="flooder") for key in flood()]
    first, *others = [answer.reason for answer in answers if answer.reason]
    assert (others, all(not answer.rejected for answer in answers)) == ([], True)
    assert first.startswith(f"the monitor holds too many operations, and {MOST - 2} of this sender")
    assert told == [f"flooder: {first} (told once)"]
    found = full.core.aside.health()["put_aside"]
    assert found == {"operations": FLOOD - MOST + 2, "newest": f"flooder: {first}", "trouble": f"flooder: {first}"}
    fake.sleep(61)
    assert "trouble" not in full.core.aside.health()["put_aside"]


def test_only_its_sender_is_told(full: Parts) -> None:
    """Whose event it is that something makes room for may be somebody else, who did nothing wrong."""
    for number in range(MOST - 2):
        send(full, f"many-{number}")
    assert send(full, "good-3", sender=GOOD) == Accepted()
    assert "many-0" not in held(full)


def test_number_of_senders_that_are_told_is_bounded(monitor: Parts) -> None:
    """A flood of services is no flood of lines in the log."""
    told: list[str] = []
    monitor.core.aside.tell = told.append
    monitor.core.ledger.most = 1
    for number in range(SENDERS + 50):
        send(monitor, str(number), instance=str(number), service=str(number))
    assert len(told) == SENDERS


def test_ranks_of_holders_follow_their_rows() -> None:
    """The one with the most is known at once, also after rows were removed, and empty holders are gone."""
    top = Holder()
    found = {name: [top.add((name,), f"{name}{row}") for row in range(count)] for name, count in (("a", 3), ("b", 2))}
    assert top.largest().name == "a"
    for row in range(2):
        found["a"][0].remove(f"a{row}")
    found["a"][0].remove("a0")
    assert (top.largest().name, top.count) == ("b", 3)
    for row in range(2):
        found["b"][0].remove(f"b{row}")
    assert (top.largest().name, top.count, list(top.below)) == ("a", 1, ["a"])
    assert top.add(("a",), "a2").count == 1
