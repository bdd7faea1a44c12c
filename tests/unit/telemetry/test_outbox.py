"""The outbox: bounded, drops what a reader can best do without, counts what it drops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otel_progress import semconv as s
from otel_progress.live.guard import drops
from otel_progress.telemetry.outbox import BYTES, EncodedEvent, Outbox, Unsent


@pytest.fixture(autouse=True)
def _own_drops() -> Iterator[None]:
    kept = dict(drops)
    drops.clear()
    yield
    drops.clear()
    drops.update(kept)


def event(name: str, owner: str = "a", body: bytes = b"x") -> EncodedEvent:
    """An event; its name may leave the prefix out."""
    return EncodedEvent(name if name.startswith("progress.") else f"progress.{name}", owner, body)


def held(outbox: Outbox) -> list[tuple[str, str]]:
    """What the outbox holds, in order."""
    return [(item.name.removeprefix("progress."), item.owner) for item in outbox._events.values()]


def hear(outbox: Outbox, *owners: str) -> None:
    """Have the receiver hear of operations."""
    for owner in owners:
        outbox.add(event("operation.started", owner))
    outbox.acknowledge(outbox.take())


def test_events_go_in_their_order_and_stay_until_acknowledged() -> None:
    """What was taken is taken again until it is acknowledged; then the rest follows, in order."""
    outbox = Outbox()
    for name in ("operation.started", "stage.started", "note", "stage.ended"):
        outbox.add(event(name))
    first = outbox.take(2)
    assert [item.name for item in first.values()] == [s.OPERATION_STARTED, s.STAGE_STARTED]
    assert outbox.take(2) == first
    outbox.acknowledge(first)
    assert held(outbox) == [("note", "a"), ("stage.ended", "a")]
    assert drops == {}


def test_a_batch_fits_a_request() -> None:
    """A batch holds as many bytes as were asked for and no more; one event alone may be larger."""
    outbox = Outbox()
    for size in (10, 10, 10, 50, 10):
        outbox.add(event("note", body=b"x" * size))
    sizes = []
    while outbox:
        batch = outbox.take(25)
        sizes.append([len(item.body) for item in batch.values()])
        outbox.acknowledge(batch)
    assert sizes == [[10, 10], [10], [50], [10]]


def test_ends_may_go_first() -> None:
    """Where there may be no time for all, ends of known operations are in the first request, then the oldest events."""
    outbox = Outbox()
    hear(outbox, "known")
    for number in range(5):
        outbox.add(event("note", f"{number}"))
        outbox.add(event("operation.ended", f"{number}"))
    outbox.add(event("operation.ended", "known"))
    first = outbox.take(3, ends_first=True)
    assert [item.owner for item in first.values()] == ["0", "0", "known"]
    outbox.acknowledge(first)
    assert [item.owner for item in outbox.take(3, ends_first=True).values()] == ["1", "1", "2"]


def test_a_newer_update_takes_the_place_of_an_older_one() -> None:
    """Only the newest plain update of an operation waits; nothing counts as dropped, as the newer one says it all."""
    outbox = Outbox()
    for number in range(5):
        outbox.add(event("updated", "a", bytes([number])))
        outbox.add(event("updated", "b", bytes([number])))
    outbox.add(event("note", "a"))
    assert [(item.owner, item.body) for item in outbox.take().values()] == [("a", b"\4"), ("b", b"\4"), ("a", b"x")]
    assert drops == {}


def test_an_update_on_its_way_is_not_replaced() -> None:
    """An update that was taken stays as it is; when it could not be delivered, a newer one takes its place."""
    outbox = Outbox()
    outbox.add(event("updated", body=b"old"))
    batch = outbox.take()
    outbox.add(event("updated", body=b"new"))
    assert len(outbox) == 2
    outbox.keep(batch)
    assert [item.body for item in outbox.take().values()] == [b"new"]
    for number in range(50):
        outbox.keep(outbox.take())
        outbox.add(event("updated", body=bytes([number])))
    assert len(outbox) == 1
    assert drops == {}


@pytest.mark.parametrize("plain", ["updated", "note", "heartbeat", "process.heartbeat"])
def test_plain_events_go_first_then_steps_then_starts(plain: str) -> None:
    """Without room, plain events are dropped first, then stages and waits, then other changes, then ends of unknown operations."""
    outbox = Outbox(5)
    hear(outbox, "known")
    for name, owner in (
        ("operation.ended", "known"),
        ("operation.ended", "unknown"),
        ("operation.started", "c"),
        ("wait.started", "c"),
        ("stage.ended", "c"),
        (plain, "c"),
    ):
        outbox.add(event(name, owner))
    assert drops == {}
    gone = []
    for _ in range(5):
        before = held(outbox)
        outbox.add(event("operation.ended", "more"))
        after = held(outbox)
        gone += [item for item in before if item not in after]
    assert gone == [
        (plain, "c"),
        ("wait.started", "c"),
        ("stage.ended", "c"),
        ("operation.started", "c"),
        ("operation.ended", "unknown"),
    ]
    assert held(outbox)[0] == ("operation.ended", "known")
    assert drops == {s.DROP_OUTBOX: 5}


def test_the_number_of_events_is_bounded() -> None:
    """Beside the ends of operations that the receiver knows, never more events wait than were allowed."""
    outbox = Outbox(100)
    for number in range(10_000):
        outbox.add(event(("note", "stage.started", "operation.ended")[number % 3], str(number)))
    assert len(outbox) == 100
    assert drops[s.DROP_OUTBOX] == 9_900


def test_the_bytes_are_bounded_whatever_waits() -> None:
    """The bytes in all are bounded even where only ends of known operations wait."""
    outbox = Outbox(10_000, 1000)
    hear(outbox, *map(str, range(50)))
    for number in range(50):
        outbox.add(event("operation.ended", str(number), b"x" * 100))
    assert (len(outbox), outbox.bytes) == (10, 1000)
    assert drops == {s.DROP_OUTBOX: 40}
    assert BYTES <= 64 * 1024 * 1024


def test_what_is_dropped_on_its_way_and_arrives_was_not_dropped() -> None:
    """An event that lost its place while it was sent counts as dropped only if it was not delivered: no count falls."""
    outbox = Outbox(2)
    outbox.add(event("note", "a"))
    outbox.add(event("note", "b"))
    batch = outbox.take()
    outbox.add(event("operation.started", "c"))
    assert drops == {}
    outbox.acknowledge(batch)
    assert drops == {}
    assert held(outbox) == [("operation.started", "c")]


def test_what_is_refused_is_counted_once() -> None:
    """Events that the receiver refuses for good are dropped and counted, each once."""
    outbox = Outbox(2)
    outbox.add(event("note", "a"))
    outbox.add(event("note", "b"))
    batch = outbox.take()
    outbox.add(event("operation.started", "c"))
    outbox.discard(batch, ends=True)
    assert held(outbox) == [("operation.started", "c")]
    assert drops == {s.DROP_OUTBOX: 1, s.DROP_REJECTED: 1}


def test_an_end_is_kept_where_the_receiver_may_know_its_start() -> None:
    """After an answer that never came the receiver may know an operation: its end is kept as that of a known one."""
    outbox = Outbox(3)
    outbox.add(event("operation.started", "a"))
    batch = outbox.take()
    outbox.add(event("operation.ended", "a"))
    outbox.assume_known(batch)
    for number in range(50):
        outbox.add(event("operation.ended", f"unknown{number}"))
    assert ("operation.ended", "a") in held(outbox)


def test_an_end_is_nothing_special_where_the_receiver_surely_has_nothing() -> None:
    """After a refused connection the receiver knows nothing new: the end goes as that of an unknown operation."""
    outbox = Outbox(3)
    outbox.add(event("operation.started", "a"))
    outbox.add(event("operation.ended", "a"))
    outbox.assume_unknown(outbox.assume_known(outbox.take()))
    for number in range(50):
        outbox.add(event("operation.ended", f"unknown{number}"))
    assert ("operation.ended", "a") not in held(outbox)
    assert len(outbox) == 3


EVENTS = sorted(s.EVENTS - {s.OPERATION_STARTED, s.OPERATION_ENDED, s.PROCESS_HEARTBEAT})


class Outage(RuleBasedStateMachine):
    """Operations come, say things and end, while the receiver answers, refuses, or is away."""

    def __init__(self) -> None:
        super().__init__()
        drops.clear()
        self.most, self.most_bytes = 12, 4000
        self.outbox = Outbox(self.most, self.most_bytes)
        self.running: list[str] = []
        self.number = self.said = self.delivered = self.replaced = 0
        self.heard: set[str] = set()
        self.ended: set[str] = set()
        self.over: set[str] = set()
        self.taken: list[str] = []

    def say(self, name: str, owner: str, size: int) -> None:
        self.said += 1
        before, lost = len(self.outbox), self.lost()
        self.outbox.add(event(name, owner, self.said.to_bytes(4, "big") + b"x" * size))
        gone = before + 1 - len(self.outbox) - (self.lost() - lost)
        assert gone in ((0, 1) if name in (s.UPDATED, s.PROCESS_HEARTBEAT) else (0,))
        self.replaced += gone

    def lost(self) -> int:
        """What was dropped, with what lost its place on its way and may arrive yet."""
        return sum(drops.values()) + len(self.outbox._evicted)

    @rule(size=st.integers(0, 40))
    def start(self, size: int) -> None:
        self.number += 1
        self.running.append(str(self.number))
        self.say(s.OPERATION_STARTED, str(self.number), size)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), event=st.sampled_from(EVENTS), size=st.integers(0, 40))
    def tell(self, data: st.DataObject, event: str, size: int) -> None:
        self.say(event, data.draw(st.sampled_from(self.running)), size)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=st.integers(0, 40))
    def end(self, data: st.DataObject, size: int) -> None:
        owner = data.draw(st.sampled_from(self.running))
        self.running.remove(owner)
        self.over.add(owner)
        self.say(s.OPERATION_ENDED, owner, size)

    @rule()
    def beat(self) -> None:
        self.say(s.PROCESS_HEARTBEAT, "", 5)

    def arrive(self, batch: dict[int, EncodedEvent]) -> None:
        for item in batch.values():
            (self.ended if item.name == s.OPERATION_ENDED else self.heard).add(item.owner)

    @rule(size=st.integers(1, 400), between=st.integers(0, 15))
    def deliver(self, size: int, between: int) -> None:
        batch = self.outbox.take(size)
        serials = [int.from_bytes(item.body[:4], "big") for item in batch.values()]
        assert serials == sorted(serials)
        assert len(batch) <= 1 or sum(len(item.body) for item in batch.values()) <= size
        for _ in range(between):
            self.beat()
        self.arrive(batch)
        self.outbox.assume_known(batch)
        self.outbox.acknowledge(batch)
        self.delivered += len(batch)

    @rule(size=st.integers(1, 400), received=st.booleans())
    def fail(self, size: int, received: bool) -> None:
        batch = self.outbox.take(size)
        new = self.outbox.assume_known(batch)
        if received:
            self.arrive(batch)
        else:
            self.outbox.assume_unknown(new)
        before = len(self.outbox)
        self.outbox.keep(batch)
        self.replaced += before - len(self.outbox)

    @invariant()
    def bounded(self) -> None:
        waiting = self.outbox.take(10**9)
        ends = [item.owner for item in waiting.values() if item.name == s.OPERATION_ENDED]
        known = sum(owner in self.heard | self.ended for owner in ends)
        assert len(self.outbox) - known <= self.most
        assert self.outbox.bytes == sum(len(item.body) for item in waiting.values()) <= self.most_bytes
        self.outbox.keep(waiting)

    @invariant()
    def counted_exactly(self) -> None:
        assert self.said == self.delivered + self.replaced + len(self.outbox) + drops.get(s.DROP_OUTBOX, 0)

    @invariant()
    def no_operation_looks_lost(self) -> None:
        """The end of each operation that the receiver knows has arrived, or waits."""
        waiting = {item.owner for item in self.outbox.take(10**9).values() if item.name == s.OPERATION_ENDED}
        self.outbox.keep(self.outbox.take(10**9))
        assert (self.heard & self.over) <= (self.ended | waiting)


Outage.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestOutage = Outage.TestCase


def test_what_is_unsent_is_counted_by_ends_and_others() -> None:
    """Waiting and dropped events are unsent, except heartbeats of the process."""
    outbox = Outbox(2)
    for name in ("operation.started", "note", "stage.started", "operation.ended", "process.heartbeat"):
        outbox.add(event(name))
    assert outbox.unsent() == outbox.unsent() == Unsent(ends=1, others=3)
    lost = dict(drops)
    assert outbox.give_up() == Unsent(ends=1, others=3)
    assert (len(outbox), outbox.bytes, outbox.unsent()) == (0, 0, Unsent())
    assert drops[s.DROP_OUTBOX] > lost[s.DROP_OUTBOX]


def test_what_is_given_up_on_its_way_may_arrive() -> None:
    """A batch in flight when everything is given up counts as lost once, whatever its outcome."""
    outbox = Outbox()
    outbox.add(event("operation.ended"))
    batch = outbox.take()
    assert outbox.give_up() == Unsent(ends=1)
    outbox.acknowledge(batch)
    outbox.keep(batch)
    assert outbox.unsent() == Unsent()
    assert drops == {s.DROP_OUTBOX: 1}


def test_after_a_long_outage_no_known_operation_lacks_its_end() -> None:
    """When 50,000 events met an outbox of 100 during an outage, each operation known before it has its end after it."""
    outbox = Outbox(100)
    known = [f"known{number}" for number in range(80)]
    hear(outbox, *known)
    for number in range(10_000):
        for name in ("operation.started", "stage.started", "note", "updated", "operation.ended"):
            outbox.add(event(name, f"during{number}"))
        if number < 80:
            outbox.add(event("operation.ended", known[number]))
        if number % 100 == 0:
            outbox.keep(outbox.take())
    arrived = held(outbox)
    assert {owner for event, owner in arrived if event == "operation.ended"} >= set(known)
    assert len(arrived) + drops[s.DROP_OUTBOX] == 50_080


def whole(name: str, owner: str = "a") -> EncodedEvent:
    """An event that is a keyframe."""
    return event(name, owner)._replace(is_keyframe=True)


def test_a_delta_never_takes_the_place_of_a_keyframe() -> None:
    """It builds on it; a newer keyframe takes the place of both, before and after a retry."""
    outbox = Outbox()
    first, second = whole("updated"), event("updated")
    for item in (first, event("updated"), second):
        outbox.add(item)
    assert list(outbox._events.values()) == [first, second]
    batch = outbox.take()
    outbox.add(third := event("updated"))
    outbox.keep(batch)
    assert list(outbox._events.values()) == [first, third]
    batch = outbox.take()
    outbox.add(fourth := whole("updated"))
    outbox.keep(batch)
    assert list(outbox._events.values()) == [fourth]
    outbox.add(whole("stalled"))
    assert len(outbox) == 2
    assert drops == {}


def test_deltas_are_dropped_before_keyframes_and_a_lost_keyframe_is_told() -> None:
    """Whoever sends the operation sends another one; a delivered one is not asked for."""
    lost: list[str] = []
    outbox = Outbox(most=3, lacks=lost.append)
    for item in (whole("updated", "a"), event("note", "a"), event("stage.ended", "a"), whole("updated", "b")):
        outbox.add(item)
    assert held(outbox) == [("updated", "a"), ("stage.ended", "a"), ("updated", "b")]
    outbox.add(whole("updated", "c"))
    assert (held(outbox), lost) == ([("updated", "a"), ("updated", "b"), ("updated", "c")], [])
    outbox.add(whole("updated", "d"))
    assert lost == ["a"]
    outbox.acknowledge(outbox.take())
    assert lost == ["a"]
    outbox.add(whole("updated", "e"))
    outbox.discard(outbox.take(), ends=True)
    assert lost == ["a", "e"]


def test_what_a_receiver_rejects_counts_as_ends_only_if_it_must() -> None:
    """Of a request that is partly rejected nobody knows which events; if all are, the ends among them are known."""
    outbox = Outbox()
    for name in ("note", "operation.ended"):
        outbox.add(event(name))
    batch = outbox.take()
    outbox.acknowledge(batch)
    outbox.refused(batch, 1, "no")
    assert outbox.unsent() == Unsent(ends=0, others=1)
    outbox.refused(batch, 2, "no")
    assert outbox.give_up() == Unsent(ends=1, others=2)
    assert outbox.unsent().why == ""


def test_it_is_known_why_events_are_lost() -> None:
    """What does not fit is lost as the outbox is full; what is refused, for the reason that the receiver gave."""
    outbox = Outbox(1)
    for _ in range(2):
        outbox.add(event("note"))
    assert "OTEL_PROGRESS_OUTBOX" in outbox.unsent().why
    outbox.discard(outbox.take(), ends=True, why="HTTP 422 no")
    assert outbox.give_up().why == "HTTP 422 no"
