"""What a monitor asks processes for: all updates of what somebody looks at, and the whole events that it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.monitor_parts import Parts, fake_time, parts

from otel_progress import Status
from otel_progress.model.snapshot import Snapshot
from otel_progress.monitor.web import wishes
from otel_progress.monitor.web.cancel import Control
from otel_progress.monitor.web.publish import of_operation
from otel_progress.monitor.web.wishes import AGAIN, LEASE, RENEW, ROOM, Wishes, shown_ids
from otel_progress.testing import FakeClock

ALL = {"do": "live", "ids": None, "for": LEASE}


class Wishing:
    """The inside of a monitor, with processes that poll it."""

    def __init__(self, monitor: Parts, fake: FakeClock) -> None:
        self.monitor, self.clock = monitor, fake
        self.control = Control()
        self.wishes = Wishes(monitor.core, monitor.hub, self.control)

    def run(self, key: str, instance: str = "p1", status: Status = Status.RUNNING) -> None:
        """A process reports an operation."""
        self.monitor.say(Snapshot(key, "job", status, self.clock.time_ns() / 1e9, started_at=1.0), instance=instance)

    def poll(self, instance: str = "p1", pid: int = 1, *, able: bool = True) -> list[dict[str, Any]]:
        """A process polls, and does not wait."""
        self.wishes.look()
        return asyncio.run(self.control.poll(instance, pid, wishes=able))

    async def held(self, instance: str = "p1") -> asyncio.Task[list[dict[str, Any]]]:
        """A process polls, and its poll is held."""
        found = asyncio.ensure_future(self.control.poll(instance, 1, (), 20.0, wishes=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return found


@pytest.fixture
def wishing(tmp_path: Path) -> Iterator[Wishing]:
    """A monitor under a fake clock."""
    with fake_time() as fake, parts(tmp_path / "m.db") as monitor:
        yield Wishing(monitor, fake)


@pytest.fixture
def full(wishing: Wishing, monkeypatch: pytest.MonkeyPatch) -> Wishing:
    """A monitor in which more runs than it asks all updates of."""
    monkeypatch.setattr(wishes, "ROOM", 3)
    for number in range(3):
        wishing.run(f"other-{number}", "p2")
    wishing.run("a")
    wishing.run("b")
    return wishing


def woken(test: Callable[[], Awaitable[None]]) -> None:
    """Run it on a loop."""
    asyncio.run(test())  # type: ignore[arg-type]


# -- while few operations run


def test_all_processes_are_asked_for_everything_and_again_in_time(wishing: Wishing) -> None:
    """Each process once in ten seconds, before the last request is over."""
    wishing.run("a")
    assert wishing.poll() == [ALL]
    assert wishing.poll(pid=2) == [ALL]
    wishing.clock.sleep(LEASE - RENEW - 1)
    assert wishing.poll() == []
    wishing.clock.sleep(1)
    assert wishing.poll() == [ALL]


def test_who_grants_no_wishes_gets_none(wishing: Wishing) -> None:
    """An older version would count them as broken commands."""
    wishing.run("a")
    assert wishing.poll(able=False) == []


def test_a_poll_that_is_held_is_answered_when_it_is_time(wishing: Wishing) -> None:
    """So the request never ends while somebody is to see."""

    async def test() -> None:
        wishing.wishes.look()
        assert await wishing.control.poll("p1", 1, wishes=True) == [ALL]
        poll = await wishing.held()
        wishing.clock.sleep(LEASE - RENEW - 0.1)
        wishing.wishes.look()
        await asyncio.sleep(0)
        assert not poll.done()
        wishing.clock.sleep(0.2)
        wishing.wishes.look()
        assert await poll == [ALL]

    woken(test)


# -- while many run


def test_of_1001_operations_the_watched_one_is_live(wishing: Wishing) -> None:
    """Beyond the room only what is on a screen is asked for, of its own process alone."""
    for number in range(ROOM):
        wishing.run(f"op-{number}", f"p{number % 10}")
    wishing.run("seen", "p3")
    assert wishing.poll("p3") == []
    wishing.wishes.show(["seen", "never heard of"])
    assert wishing.poll("p3") == [{"do": "live", "ids": ["seen"], "for": LEASE}]
    assert wishing.poll("p4") == []
    assert wishing.poll("p3") == []


def test_who_is_watched_is_on_a_screen_or_has_a_stream_with_a_reader(full: Wishing) -> None:
    """Rows of both are published before those of others."""
    full.monitor.hub.topic(of_operation("b")).readers.add(object())  # type: ignore[arg-type]
    full.wishes.show(["a"])
    full.wishes.look()
    assert [key for key in ("a", "b", "other-0") if full.wishes.is_watched(key)] == ["a", "b"]
    full.clock.sleep(LEASE)
    assert [key for key in ("a", "b", "other-0") if full.wishes.is_watched(key)] == ["b"]


def test_when_some_have_ended_all_are_live_again(full: Wishing) -> None:
    """The room is that of running operations."""
    assert full.poll() == []
    for key in ("other-0", "other-1", "other-2"):
        full.run(key, "p2", Status.COMPLETED)
    assert full.poll() == [ALL]


def test_a_screen_that_says_nothing_more_is_forgotten(full: Wishing) -> None:
    """It renews what it shows; another one may show it meanwhile."""
    full.wishes.show(["a"])
    assert full.poll() == [{"do": "live", "ids": ["a"], "for": LEASE}]
    full.clock.sleep(LEASE - RENEW + 1)
    full.wishes.show(["b"])
    assert full.poll() == [{"do": "live", "ids": ["a", "b"], "for": LEASE}]
    full.clock.sleep(LEASE)
    full.wishes.look()
    full.clock.sleep(0.1)
    assert full.poll() == []


def test_somebody_who_begins_to_look_is_answered_at_once(full: Wishing) -> None:
    """A poll that is held ends with the first look after the screen was opened."""

    async def test() -> None:
        poll = await full.held()
        full.wishes.look()
        await asyncio.sleep(0)
        assert not poll.done()
        full.wishes.show(["b"])
        full.wishes.look()
        assert await poll == [{"do": "live", "ids": ["b"], "for": LEASE}]

    woken(test)


@pytest.mark.parametrize("owner", [None, "ann b"])
def test_the_stream_of_one_operation_is_a_screen(full: Wishing, owner: str | None) -> None:
    """As long as it has a reader, whoever that is."""
    topic = full.monitor.hub.topic(of_operation("a", owner))
    assert full.poll() == []
    reader, _ = full.monitor.hub.begin(of_operation("a", owner), None, [])
    topic.readers.add(reader)
    assert full.poll() == [{"do": "live", "ids": ["a"], "for": LEASE}]
    topic.readers.discard(reader)
    full.clock.sleep(LEASE)
    assert full.poll() == []


def test_an_ended_operation_is_not_asked_for(full: Wishing) -> None:
    """Its page may stay open for long."""
    full.run("a", status=Status.COMPLETED)
    full.wishes.show(["a"])
    assert full.poll() == []


def test_screens_are_bounded(full: Wishing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever claims to show everything does not make everything live."""
    monkeypatch.setattr(wishes, "WATCHED", 3)
    full.wishes.show([f"x{number}" for number in range(100)] + ["a", "b"])
    (wish,) = full.poll()
    assert wish["ids"] == ["a", "b"]
    assert len(full.wishes._shown) == 3


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"ids": "a"}', b'{"ids": [1]}', b'{"ids": null}', b"[" * 99_999])
def test_a_bad_body_is_refused_in_words(body: bytes) -> None:
    """The text says what to send."""
    with pytest.raises(ValueError, match="JSON"):
        shown_ids(body)
    with pytest.raises(ValueError, match="at most"):
        shown_ids(b'{"ids": [' + b",".join([b'"a"'] * (wishes.SHOWN + 1)) + b"]}")


# -- whole events


def test_what_the_ledger_lacks_is_asked_for_once(wishing: Wishing) -> None:
    """Its process alone is asked, and again only after some seconds."""
    wishing.run("a")
    wishing.poll()
    ledger = wishing.monitor.core.ledger
    ledger.lacking["a"] = None
    ledger.lacking["nobody's"] = None
    assert wishing.poll("p2") == [ALL]
    assert wishing.poll() == [{"do": "keyframe", "ids": ["a"]}]
    assert ledger.lacking == {}
    ledger.lacking["a"] = None
    assert wishing.poll() == []
    wishing.clock.sleep(AGAIN)
    ledger.lacking["a"] = None
    assert wishing.poll() == [{"do": "keyframe", "ids": ["a"]}]


def test_many_that_are_lacking_are_asked_for_in_parts(wishing: Wishing) -> None:
    """So that no process has to send everything at once."""
    for number in range(wishes.KEYFRAMES + 1):
        wishing.run(f"a{number}")
        wishing.monitor.core.ledger.lacking[f"a{number}"] = None
    asyncio.run(wishing.control.poll("p1", 1, wishes=True))
    found = [wish for _ in range(3) for wish in wishing.poll() if wish["do"] == "keyframe"]
    assert [len(wish["ids"]) for wish in found] == [wishes.KEYFRAMES, 1]


def test_a_process_that_was_away_is_asked_when_it_polls(wishing: Wishing) -> None:
    """After a start the monitor knows what it lacks before the processes are back."""
    wishing.run("a")
    wishing.monitor.core.ledger.lacking["a"] = None
    for _ in range(20):
        wishing.wishes.look()
        wishing.clock.sleep(1)
    assert {"do": "keyframe", "ids": ["a"]} in wishing.poll()


def test_a_process_that_left_is_forgotten(wishing: Wishing) -> None:
    """Nothing waits for ever for one that polls no more."""
    wishing.run("a")
    wishing.poll()
    wishing.monitor.core.ledger.lacking["a"] = None
    wishing.wishes.look()
    assert wishing.wishes._lacking
    wishing.clock.sleep(100)
    wishing.wishes.look()
    assert not wishing.wishes._lacking
    assert not wishing.wishes._leases
