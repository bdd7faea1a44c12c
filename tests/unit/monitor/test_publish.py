"""What goes on from the core to readers: each change, no end left out, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from monitor_parts import Parts, event_of, request_of

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.web import publish
from otel_progress.monitor.web.publish import ALL, of_operation, of_owner
from otel_progress.monitor.web.stream import KEEP_SECONDS, Reader, StreamFrame, Topic
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def snap(sequence: int = 1, status: Status = Status.RUNNING, key: str = "a", **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    return Snapshot(key, "work", status, AT + sequence, sequence=sequence, **{"started_at": AT, **more})


class Read:
    """One who reads a topic, and what it got."""

    def __init__(self, monitor: Parts, name: str, after: str | None = None) -> None:
        if name.startswith("operation "):
            monitor.hub.topic(name)
            monitor.publisher.begin(name.removeprefix("operation "))
        self.monitor = monitor
        self.name = name
        self.reader, self.first = monitor.hub.begin(name, after, [])
        self.topic: Topic = monitor.hub.topic(name)
        self.topic.readers.add(self.reader)

    def leave(self) -> str:
        """Go; the id of the last frame it had."""
        self.topic.readers.discard(self.reader)
        return f"{self.topic.numbers.epoch}-{self.reader.position}"

    def more(self) -> list[StreamFrame] | None:
        """What is new; None where it must load anew."""
        self.monitor.publisher.publish()
        found = self.topic.after(self.reader.position)
        if found:
            self.reader.position = found[-1].sequence
        return found

    def told(self) -> list[tuple[str, Any]]:
        """The same as names and data."""
        return [(frame.name, json.loads(frame.data)) for frame in self.more() or []]


def rows(told: list[tuple[str, Any]]) -> list[str]:
    """The ids of all rows."""
    return [row["id"] for name, data in told if name == "changes" for row in data["rows"]]


def test_changes_are_told_once_newest_state_only(monitor: Parts) -> None:
    """Of many changes in one interval each operation is told once, as it is then."""
    read = Read(monitor, ALL)
    monitor.say(*(snap(number) for number in range(1, 9)))
    ((name, data),) = read.told()
    assert name == "changes"
    assert [(row["id"], row["timestamp"]) for row in data["rows"]] == [("a", AT + 8)]
    assert read.told() == []


def test_no_end_is_held_back_and_nothing_is_lost(monitor: Parts) -> None:
    """Of a thousand ends and a thousand changes at once all ends are told at once, the others in their turn."""
    read = Read(monitor, ALL)
    ends = [event_of(snap(5, Status.COMPLETED, f"end{number}"), s.OPERATION_ENDED) for number in range(1000)]
    going = [event_of(snap(1, key=f"go{number}")) for number in range(1000)]
    monitor.take(request_of(*going, *ends))
    first = read.told()
    assert all(len(data["rows"]) <= publish.ROWS for _, data in first)
    assert {key for key in rows(first) if key.startswith("end")} == {f"end{number}" for number in range(1000)}
    seen = rows(first)
    for _ in range(4):
        seen += rows(read.told())
    assert sorted(seen) == sorted(
        [f"end{number}" for number in range(1000)] + [f"go{number}" for number in range(1000)]
    )


def test_what_is_above_changes_too(monitor: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change below is told for all above, also where one of them waits for its turn already."""
    monkeypatch.setattr(publish, "ROWS", 1)
    monitor.say(snap(1, key="top"), snap(1, key="mid", parent_id="top"), snap(1, key="leaf", parent_id="mid"))
    read = Read(monitor, ALL)
    told: list[str] = []
    for _ in range(2):
        told += rows(read.told())
    monitor.say(snap(2, Status.COMPLETED, "leaf", parent_id="mid", usage=Attributes({"cost.USD": 3.0})))
    last: dict[str, Any] = {}
    for _ in range(8):
        for name, data in read.told():
            last |= {row["id"]: row for row in data["rows"] if name == "changes"}
    assert (last["top"]["cost"], last["mid"]["cost"]) == ({"USD": 3.0}, {"USD": 3.0})


def test_who_comes_back_gets_what_was_missed(monitor: Parts) -> None:
    """Also the only reader: a topic goes on for a while without one."""
    read = Read(monitor, ALL)
    monitor.say(snap(1))
    assert rows(read.told()) == ["a"]
    place = read.leave()
    monitor.say(snap(5, Status.COMPLETED))
    monitor.publisher.publish()
    again = Read(monitor, ALL, place)
    assert [frame.name for frame in again.first] == ["hello"]
    assert rows(again.told()) == ["a"]


@pytest.mark.parametrize("changes", [0, 1])
def test_who_comes_back_too_late_loads_anew_only_where_something_changed(
    monitor: Parts, fake: FakeClock, changes: int
) -> None:
    """After the topic is forgotten, nobody knows what was missed; but where nothing changed, nothing was."""
    read = Read(monitor, ALL)
    place = read.leave()
    fake.sleep(KEEP_SECONDS + 1)
    monitor.hub.tidy(clock.monotonic())
    assert monitor.hub.topics == {}
    for number in range(changes):
        monitor.say(snap(number + 1))
    monitor.publisher.publish()
    assert (Read(monitor, ALL, place).more() is None) is bool(changes)


def test_list_and_stream_have_no_gap_between_them(monitor: Parts) -> None:
    """What changes after a list was made, before its stream is read for the first time, is not missed."""
    monitor.publisher.publish()
    position = monitor.hub.position(ALL)
    monitor.say(snap(1))
    monitor.publisher.publish()
    assert Read(monitor, ALL, position).more() is None


def test_owner_hears_of_its_own_alone(monitor: Parts) -> None:
    """Operations of one owner, and what is below them, go to that owner's readers and to those who may see all."""
    ann, bob, everybody = Read(monitor, of_owner("ann")), Read(monitor, of_owner("bob")), Read(monitor, ALL)
    monitor.say(snap(1, key="x", attributes=Attributes({s.OWNER: "ann"})))
    monitor.say(snap(1, key="y", parent_id="x"), snap(1, key="z"))
    assert sorted(rows(ann.told())) == ["x", "y"]
    assert rows(bob.told()) == []
    assert rows(Read(monitor, of_owner("")).told()) == []
    assert sorted(rows(everybody.told())) == ["x", "y", "z"]


def test_what_is_removed_is_told_to_those_who_may_know(monitor: Parts) -> None:
    """All see which; an owner hears of what was shown to them alone; and the topic of one ends."""
    everybody, ann, one = Read(monitor, ALL), Read(monitor, of_owner("ann")), Read(monitor, of_operation("a"))
    bob = Read(monitor, of_owner("bob"))
    monitor.say(snap(1, Status.COMPLETED, attributes=Attributes({s.OWNER: "ann"})))
    monitor.publisher.publish()
    for read in (everybody, ann, one, bob):
        read.more()
    monitor.core.journal._removed += ["a", "z"]
    assert everybody.told() == [("changes", {"rows": [], "removed": ["a", "z"]})]
    assert ann.told() == [("changes", {"rows": [], "removed": ["a"]})]
    assert bob.told() == []
    assert one.told() == [("gone", {})]


# -- one operation


def test_one_that_is_on_its_way_misses_nothing(monitor: Parts) -> None:
    """What is said between the answer and the stream is in the stream, the end, too."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.publisher.publish()
    topic = monitor.hub.topic(of_operation("a"))
    monitor.publisher.begin("a")
    since = monitor.hub.position(ALL)
    monitor.say(snap(2, Status.COMPLETED), event=s.OPERATION_ENDED)
    monitor.publisher.publish()
    reader, _ = monitor.hub.begin(of_operation("a"), None, [], since)
    assert [frame.name for frame in topic.after(reader.position) or []] == ["operation", "events", "ended"]


def events(told: list[tuple[str, Any]]) -> list[int]:
    """The numbers of all events."""
    return [event["sequence"] for name, data in told if name == "events" for event in data["events"]]


def test_history_of_one_without_gaps_or_doubles(monitor: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new event is told once, however many there are and in whatever order they come."""
    monkeypatch.setattr(publish, "EVENTS", 3)
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.publisher.publish()
    read = Read(monitor, of_operation("a"))
    monitor.say(*(snap(number) for number in range(2, 10)), event=s.NOTE)
    told = read.told()
    assert [name for name, _ in told] == ["operation", "events", "events", "events"]
    assert events(told) == list(range(2, 10))
    monitor.say(snap(20), event=s.NOTE)
    monitor.say(snap(15), event=s.NOTE)
    assert events(read.told()) == [20, 15]
    monitor.say(snap(21, Status.COMPLETED), event=s.OPERATION_ENDED)
    told = read.told()
    assert (told[0][1]["status"], events(told)) == ("completed", [21])
    assert told[-1] == ("ended", {"id": "a", "status": "completed", "attempt": 1})
    monitor.say(snap(22), event=s.NOTE)
    assert [name for name, _ in read.told()] == ["operation", "events"]  # it is told once that it has ended


def test_who_reads_later_is_not_told_what_was_before(monitor: Parts, fake: FakeClock) -> None:
    """A reader has the history up to when it began; what another one was told long ago does not matter."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.publisher.publish()
    Read(monitor, of_operation("a")).leave()
    fake.sleep(KEEP_SECONDS + 1)
    monitor.publisher._tidy(clock.monotonic())
    monitor.say(snap(2), event=s.NOTE)
    monitor.publisher.publish()
    assert monitor.publisher._published == {}
    read = Read(monitor, of_operation("a"))
    monitor.say(snap(3), event=s.NOTE)
    assert events(read.told()) == [3]


def test_who_was_away_while_it_changed_loads_anew(monitor: Parts, fake: FakeClock) -> None:
    """And is told what comes after that; one that comes back within seconds missed nothing."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.publisher.publish()
    place = Read(monitor, of_operation("a")).leave()
    fake.sleep(publish.COMING + 1)
    monitor.say(snap(2), event=s.NOTE)
    monitor.publisher.publish()
    again = Read(monitor, of_operation("a"), place)
    assert again.more() is None
    again.reader.position = monitor.hub.numbers.sequence
    monitor.say(snap(3), event=s.NOTE)
    assert events(again.told()) == [3]


def test_what_is_said_while_the_first_state_is_made_follows_it(monitor: Parts) -> None:
    """A reader that begins where its first state was made misses nothing that came meanwhile."""
    monitor.say(snap(1))
    monitor.publisher.publish()
    Read(monitor, of_operation("a"))
    since = monitor.hub.position(ALL)
    monitor.say(snap(2), event=s.NOTE)
    monitor.publisher.publish()
    reader, _ = monitor.hub.begin(of_operation("a"), None, [("operation", "{}")], since)
    found = monitor.hub.topic(of_operation("a")).after(reader.position)
    assert found is not None
    assert [frame.name for frame in found] == ["operation", "events"]


# -- when it fails


def test_failure_makes_all_load_anew_and_the_next_is_told(monitor: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that can't be read for a moment costs no reader an end."""
    import asyncio

    async def scene() -> None:
        read = Read(monitor, ALL)
        running = asyncio.ensure_future(monitor.publisher.run())
        with monkeypatch.context() as patch:
            patch.setattr(monitor.views, "row_text", lambda _: (_ for _ in ()).throw(StoreError("no")))
            monitor.say(snap(1, Status.COMPLETED))
            while not monitor.publisher.failures:
                await asyncio.sleep(0.01)
        assert read.topic.after(read.reader.position) is None
        assert monitor.core.faults.text is not None
        read.reader.position = monitor.hub.numbers.sequence
        monitor.say(snap(1, key="b"))
        while not read.topic.after(read.reader.position):
            await asyncio.sleep(0.01)
        running.cancel()

    monitor.publisher._interval = 0.01
    asyncio.run(asyncio.wait_for(scene(), 20))


def test_topics_of_single_operations_are_small(monitor: Parts) -> None:
    """What is kept for those who come back is bounded, and for one operation to little."""
    topic = monitor.hub.topic(of_operation("a"))
    topic.readers.add(Reader(0))
    for _ in range(40):
        monitor.hub.publish(of_operation("a"), "operation", "x" * 100_000)
    assert sum(len(frame.bytes) for frame in topic.frames) <= 1024 * 1024
    assert topic.after(0) is None


def test_what_is_wrong_with_the_monitor_is_told_to_all_once(monitor: Parts) -> None:
    """Readers hear of it when it begins and when it is over, and who comes meanwhile hears it first."""
    read = Read(monitor, ALL)
    monitor.core.faults.current = "the disk is full"
    assert read.told() == [("trouble", {"text": "the disk is full"})]
    assert read.told() == []
    assert json.loads(Read(monitor, ALL).first[0].data)["trouble"] == "the disk is full"
    monitor.core.faults.current = None
    assert read.told() == [("trouble", {"text": None})]


def test_with_many_operations_trouble_and_what_is_watched_come_first(
    monitor: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a number of operations those that only go on wait for their turn; no other row waits for them."""
    monkeypatch.setattr(publish, "MANY", 50)
    read = Read(monitor, ALL)
    monitor.say(*(snap(1, key=f"go{number}") for number in range(100)))
    while read.told():
        pass
    monitor.publisher.watched = lambda key: key == "go7"
    monitor.say(*(snap(2, key=f"go{number}") for number in range(99)))
    monitor.say(snap(2, key="go99", health=Health.SILENT))
    monitor.say(snap(3, Status.COMPLETED, "go98"), event=s.OPERATION_ENDED)
    first = rows(read.told())
    assert first[:3] == ["go98", "go7", "go99"]
    assert len(first) == 3 + publish.PLAIN
    seen = first
    while told := read.told():
        seen += rows(told)
    assert sorted(seen) == sorted(f"go{number}" for number in range(100))


def test_rows_are_built_off_the_loop(monitor: Parts) -> None:
    """The loop only adds finished frames: rows are made by another thread."""
    read = Read(monitor, ALL)
    monitor.say(snap(1))
    threads: list[int] = []
    build = monitor.publisher._build

    def noted(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return build(*given)

    monitor.publisher._build = noted  # type: ignore[method-assign]
    asyncio.run(monitor.publisher._publish())
    assert [frame.name for frame in read.topic.after(read.reader.position) or []] == ["changes"]
    assert threads
    assert threading.get_ident() not in threads
