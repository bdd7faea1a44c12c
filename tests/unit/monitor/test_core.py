"""The core: nothing is acknowledged that is not stored, and what is stored is all there is after a restart."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, Recorder, beat_of, event_of, fake_time, names, open_in, parts, request_of, seconds
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.intake import inbox, requests
from otel_progress.monitor.intake.request_queue import ALONE, TURN_BYTES, TURN_REQUESTS, Job
from otel_progress.monitor.intake.requests import Accepted, Acknowledgement, Envelope, Refused, Sender
from otel_progress.monitor.state import core as core_module
from otel_progress.monitor.state import history
from otel_progress.monitor.state.core import CoreLimits
from otel_progress.monitor.state.ledger import lose
from otel_progress.monitor.state.listener import StoredEvent
from otel_progress.monitor.state.saved import Batch
from otel_progress.monitor.state.store import Store, StoreError
from otel_progress.monitor.web.views import SKEW
from otel_progress.outbound import otlp
from otel_progress.outbound.certificate import Exit, certify
from otel_progress.outbound.otlp import chunk
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def snap(sequence: int = 1, status: Status = Status.RUNNING, key: str = "a", **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    known = {"timestamp": AT + sequence, "started_at": AT, "elapsed": float(sequence), **more}
    return Snapshot(key, "work", status, sequence=sequence, **known)


class Weak(Store):
    """A store whose disk is full, or whose file can't be read, while a test says so."""

    full = unreadable = False

    def write(self, batch: Batch) -> None:
        """As the store does, if it can."""
        if self.full:
            raise StoreError("the disk is full", passing=True)
        super().write(batch)

    def recall(self, operation_id: str) -> Any:
        """As the store does, if it can."""
        if self.unreadable:
            raise StoreError("it can't be read", passing=True)
        return super().recall(operation_id)


@pytest.fixture
def weak(fake: FakeClock, tmp_path: Path) -> Iterator[tuple[Weak, Parts]]:
    """The inside of a monitor on a store that may fail."""
    with parts(tmp_path / "m.db", kind=Weak) as monitor:
        assert isinstance(monitor.store, Weak)
        yield monitor.store, monitor


# -- acknowledged only when it is stored


def test_what_is_not_stored_is_not_acknowledged_and_complete_after_the_retry(weak: tuple[Weak, Parts]) -> None:
    """While the store fails the answer is 503 with a time to come again; then the whole history is there, once."""
    store, monitor = weak
    body = request_of(
        event_of(snap(1), s.OPERATION_STARTED),
        event_of(snap(2)),
        event_of(snap(3, Status.COMPLETED), s.OPERATION_ENDED),
    )
    store.full = True
    (answer,) = monitor.take(body)
    assert isinstance(answer, Refused)
    assert (answer.status, answer.retry_after, monitor.core.faults.text) == (503, 1, "the disk is full")
    assert (store.recall("a"), monitor.core.taken) == (None, 0)
    store.full = False
    assert monitor.take(body, body) == [Accepted(), Accepted()]
    assert names(monitor.history()) == [s.OPERATION_STARTED, s.UPDATED, s.OPERATION_ENDED]
    assert (monitor.core.faults.text, monitor.row()["status"]) == (None, "completed")


def test_store_that_can_not_be_read_is_not_the_request_s_fault(weak: tuple[Weak, Parts]) -> None:
    """Where the core can't look an operation up, the sender must come again: with 400 it would drop what it has."""
    store, monitor = weak
    store.unreadable = True
    (answer,) = monitor.take(request_of(event_of(snap(1))))
    assert isinstance(answer, Refused)
    assert answer.status == 503
    store.unreadable = False
    assert monitor.take(request_of(event_of(snap(1)))) == [Accepted()]


def test_operations_that_wait_for_the_store_are_bounded(weak: tuple[Weak, Parts]) -> None:
    """While nothing can be stored, no more is taken than fits; what fits is stored when it can be."""
    _, monitor = weak
    monitor.options = {"limits": CoreLimits(unsaved=3)}
    monitor.restart()
    store = monitor.store
    assert isinstance(store, Weak)
    store.full = True
    for number in range(6):
        monitor.take(request_of(event_of(snap(1, key=str(number)))))
    assert len(monitor.core.journal.operations) == 3
    store.full = False
    monitor.tick()
    assert len(open_in(store)) == 3


def test_what_ended_and_made_room_before_it_was_stored_does_not_run_again(weak: tuple[Weak, Parts]) -> None:
    """A late event does not undo an end that neither memory nor the store has yet."""
    store, monitor = weak
    monitor.core.ledger.most_ended = 1
    monitor.take(
        request_of(
            *(event_of(snap(5, Status.COMPLETED, str(number)), s.OPERATION_ENDED) for number in range(4)),
            event_of(snap(2, key="0")),
        )
    )
    assert [kept.operation_id for kept in open_in(store)] == []
    assert monitor.row("0")["status"] == "completed"


def test_one_request_that_harms_the_core_is_refused_and_the_next_taken(monitor: Parts) -> None:
    """Whatever is in a request, others of the same batch are stored."""
    answers = monitor.take(b"\xff\xff", request_of(event_of(snap(1))))
    assert isinstance(answers[0], Refused)
    assert answers[1] == Accepted()


UNSOUND = [
    {s.USAGE: '{"cost.USD": NaN}'},
    {s.STAGES: '[{"path":"x","status":"running","weight":NaN}]'},
    {s.STAGES: '[{"path":"x","status":"running","outcomes":{"ok":Infinity}}]'},
    {s.SLOW_AFTER: "soon"},
    {s.STALL_AFTER: "soon"},
    {s.START_WITHIN: "soon"},
    {s.ETA: "soon", s.ETA_LOW: "x", s.ETA_HIGH: "y"},
    {s.LOOP: '{"kind":"step","keys":[1],"repeats":"x","limit":0,"seconds":"y","spent":{}}'},
    {s.STAGES_FOLDED: '[[1,"x",{}]]'},
    {s.STAGES: '[{"path":"x","status":"running","eta":["a","b","c","d"]}]'},
    {s.STAGES: '[{"path":"x","status":"running","wait":[1,"x","y"]}]'},
    {s.USAGE: '{"cost.USD": 1' + "0" * 400 + "}"},
    {s.COUNTERS: '{"lines": 1' + "0" * 400 + "}"},
    {s.ATTRIBUTES: '{"a": "\\ud800"}'},
]


@pytest.mark.parametrize("wrong", UNSOUND, ids=lambda wrong: next(iter(wrong.values()))[:40])
def test_what_a_sender_says_wrongly_never_stops_the_store_or_the_page(
    monitor: Parts, fake: FakeClock, wrong: dict[str, Any]
) -> None:
    """An operation with invalid values is shown, judged, lost and stored like any other."""
    monitor.say(snap(1), **wrong)
    monitor.hub.topic("all")
    monitor.publisher.publish()
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    monitor.views.row_text(entry).encode()
    monitor.views.detail(entry)
    monitor.core.ledger.apply(lose(entry.snapshot, "gone"), "p1", clock.monotonic())
    assert monitor.say(snap(1, key="b")) == Accepted()
    monitor.restart()
    assert (monitor.row("a")["status"], monitor.row("b")["status"]) == ("lost", "running")


def test_any_time_can_be_kept(monitor: Parts) -> None:
    """An operation that was said to be at the end of all time is lost and stored like any other."""
    record = LogRecord.FromString(event_of(snap(1))[3:])
    assert record.event_name == s.UPDATED
    record.time_unix_nano = 2**64 - 1
    monitor.take(request_of(chunk(2, record.SerializeToString())))
    assert monitor.core.ledger.presume_lost("a", "gone") is not None
    assert monitor.say(snap(1, key="b")) == Accepted()


# -- requests that take long


def test_request_that_takes_long_lets_small_ones_through(monitor: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small requests that arrive meanwhile are stored and answered first, large ones wait; no count is mixed up."""
    monkeypatch.setattr(core_module, "BREATHE", 0.0)
    core, answers, heard = monitor.core, list[tuple[str, Acknowledgement]](), monitor.core._hear
    bad = event_of(snap(1)).replace(b"running", b"dancing")
    events = [event_of(snap(1, key=f"{number}")) for number in range(3 * core_module.SLICED)]
    large, small = request_of(*events, bad, instance="large"), request_of(event_of(snap(1, key="small")))

    def offer(name: str, body: bytes) -> None:
        sender = Sender(name, name, address="10.0.0.1")
        core.inbox.offer(Envelope("logs", body, sender=sender), lambda answer: answers.append((name, answer)), True)

    def hear(*given: Any, **more: Any) -> None:
        heard(*given, **more)
        if not core._is_breathing and "small" not in core.ledger.operations and not core.inbox.queue:
            offer("small", small)
            offer("also large", b"\x0a" + b"\xff" * core_module.SMALL)

    monkeypatch.setattr(core, "_hear", hear)
    offer("large", large)
    core.work(core.inbox.turn([]))
    assert [name for name, _ in answers[:2]] == ["small", "large"]
    assert answers[0][1] == Accepted()
    assert isinstance(answers[1][1], Accepted)
    assert answers[1][1].rejected == 1
    assert len(core.ledger.operations) == core.taken == len(events) + 1
    assert core.ledger.room.client is None


# -- each once, to those who are told


def test_who_is_called_is_called_once(fake: FakeClock, tmp_path: Path) -> None:
    """An end, a stall and a recovery are passed on once, however often they are sent; and not before they are stored."""
    heard = Recorder()
    with parts(tmp_path / "m.db", listeners=(heard,)) as monitor:
        for _ in range(3):
            monitor.say(snap(1), event=s.STALLED)
            monitor.say(snap(2), event=s.RECOVERED)
            monitor.say(snap(3, Status.FAILED), event=s.OPERATION_ENDED)
        assert [one.record.event for one in heard.events] == [s.STALLED, s.RECOVERED, s.OPERATION_ENDED]


def test_a_recovery_right_before_the_end_hides_no_end(fake: FakeClock, tmp_path: Path) -> None:
    """One that was stuck and completed is told recovered, then ended; both show its final status."""
    heard = Recorder()
    with parts(tmp_path / "m.db", listeners=(heard,)) as monitor:
        monitor.say(snap(1), event=s.STALLED)
        monitor.say(snap(2, Status.COMPLETED), event=s.RECOVERED)
        monitor.say(snap(3, Status.COMPLETED), event=s.OPERATION_ENDED)
        assert [one.record.event for one in heard.events] == [s.STALLED, s.RECOVERED, s.OPERATION_ENDED]


def test_one_who_is_told_and_fails_harms_nobody(fake: FakeClock, tmp_path: Path) -> None:
    """What is stored is acknowledged once, whatever becomes of it elsewhere."""

    class Failing(Recorder):
        def stored(self, events: list[StoredEvent]) -> None:
            raise RuntimeError("no")

    heard = Recorder()
    with parts(tmp_path / "m.db", listeners=(Failing(), heard)) as monitor:
        assert monitor.take(request_of(event_of(snap(1)))) == [Accepted()]
        assert len(heard.events) == 1


def test_second_certificate_is_no_second_end(monitor: Parts) -> None:
    """Where two watchers tell the loss of the same attempt, with other numbers, there is one end in the history."""
    monitor.say(snap(5), event=s.STAGE_STARTED)
    for last in (snap(5), snap(6)):
        lost = lose(last, f"gone after {last.sequence}")
        monitor.take(certify(lost, Exit(signal="SIGKILL"), {"service.instance.id": "p1"}, clock.time_ns()).logs)
    assert names(monitor.history()).count(s.OPERATION_ENDED) == 1
    assert monitor.row()["reason"] == "gone after 5"


def test_end_is_told_although_the_event_before_showed_it(monitor: Parts) -> None:
    """Events that happened close together share the newest state: the last but one may be over already."""
    last = snap(6, Status.COMPLETED)
    monitor.take_of("p1", event_of(replace(last, sequence=5), s.STAGE_ENDED), event_of(last, s.OPERATION_ENDED))
    assert names(monitor.history()) == [s.STAGE_ENDED, s.OPERATION_ENDED]


def test_changes_are_told_when_their_history_is_stored(weak: tuple[Weak, Parts]) -> None:
    """Who hears of a change finds its event in the history; also of an event that comes late and changes nothing else."""
    _, monitor = weak
    monitor.say(snap(5))
    assert list(monitor.core.journal.changes()) == ["a"]
    monitor.say(snap(3), event=s.NOTE)
    assert list(monitor.core.journal.changes()) == ["a"]
    assert list(monitor.core.journal.changes()) == []


def test_revisions_never_come_again(monitor: Parts) -> None:
    """After a restart rows have higher revisions than any before, also than of what was shown and then not stored."""
    monitor.say(snap(1))
    for sequence in range(2, 50):
        monitor.core.ledger.apply(snap(sequence), "p1", clock.monotonic())
    shown = monitor.row()["revision"]
    monitor.restart()
    monitor.say(snap(50))
    assert monitor.row()["revision"] > shown


# -- restart


def test_after_a_restart_first_unknown_then_right(monitor: Parts, fake: FakeClock) -> None:
    """A process that beat before the restart is unknown until it is heard, or long enough not heard."""
    monitor.say(snap(1))
    monitor.say(snap(1, key="b"), instance="p2")
    monitor.beat("p1")
    monitor.beat("p2")
    fake.sleep(60)
    monitor.restart()
    assert [monitor.health(key) for key in "ab"] == ["unknown", "unknown"]
    monitor.tick()
    seconds(fake, monitor, 2)
    monitor.say(snap(2))
    assert [monitor.health(key) for key in "ab"] == ["progressing", "unknown"]
    for _ in range(6):
        seconds(fake, monitor, 3)
        monitor.say(snap(2))
    assert [monitor.health(key) for key in "ab"] == ["progressing", "dead"]


def test_trace_of_an_operation_of_ours_is_known_after_a_restart(monitor: Parts) -> None:
    """Spans of other services in the trace of our operation make no operation of their own, restart or not."""
    trace = "ab" * 16
    monitor.say(snap(1), event=s.OPERATION_STARTED, trace=trace)
    assert monitor.core.is_ours(bytes.fromhex(trace), "other")
    monitor.restart()
    assert monitor.core.is_ours(bytes.fromhex(trace), "other")


def test_figures_of_what_is_over_below_a_running_one_survive_a_restart(monitor: Parts) -> None:
    """Cost of children and their children counts after a restart as before, although they are over."""
    spent = Attributes({"cost.USD": 1.0})
    monitor.say(snap(1, key="top"))
    monitor.say(snap(2, Status.COMPLETED, "child", parent_id="top", usage=spent))
    monitor.say(snap(2, Status.COMPLETED, "grandchild", parent_id="child", usage=spent))
    assert monitor.row("top")["cost"] == {"USD": 2.0}
    monitor.restart()
    assert monitor.row("top")["cost"] == {"USD": 2.0}
    monitor.say(snap(3, Status.COMPLETED, "top"))
    monitor.restart()
    assert monitor.row("top")["cost"] == {"USD": 2.0}


FINALS = [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.INTERRUPTED]


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[tuple[str, Snapshot] | None], dict[str, tuple[str, Snapshot]]]:
    """What a tree of operations in several processes said, shuffled, doubled, lost in part; None is a restart."""
    events: list[tuple[str, Snapshot]] = []
    last: dict[str, tuple[str, Snapshot]] = {}
    for number in range(draw(st.integers(1, 4))):
        key = f"op{number}"
        parent = draw(st.sampled_from([None, *(f"op{other}" for other in range(number))]))
        for attempt in range(1, draw(st.integers(1, 2)) + 1):
            started = AT + 100 * attempt + number
            instance = f"p{draw(st.integers(1, 2))}" if attempt == 1 else f"q{number}"
            for sequence in range(1, 5):
                status = draw(st.sampled_from(FINALS)) if sequence == 4 else Status.RUNNING
                stage = StageSnapshot("load", "load", status, Progress(sequence, 4), span_id=None)
                snapshot = snap(
                    sequence,
                    status,
                    key,
                    parent_id=parent,
                    attempt=attempt,
                    started_at=started,
                    timestamp=started + sequence,
                    stages=(stage,),
                    usage=Attributes({"cost.USD": float(sequence)}),
                )
                events.append((instance, snapshot))
                last[key] = (instance, snapshot)
    kept: list[tuple[str, Snapshot] | None] = [*draw(st.lists(st.sampled_from(events), max_size=25)), *last.values()]
    kept += [None] * draw(st.integers(0, 2))
    return draw(st.permutations(kept)), last


@settings(max_examples=60)
@given(trees())
def test_any_order_doubles_losses_and_restarts_end_in_the_same_tree(history: tuple[list[Any], dict[str, Any]]) -> None:
    """As long as the last event of each operation arrived, state, stages and what is above and below are what it says."""
    events, last = history
    with fake_time(), TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        for event in events:
            if event is None:
                monitor.restart()
            else:
                instance, snapshot = event
                ended = snapshot.status.final
                monitor.say(snapshot, event=s.OPERATION_ENDED if ended else s.UPDATED, instance=instance)
        for key, (_, snapshot) in last.items():
            entry = monitor.core.ledger.find(key)
            assert entry is not None
            found = entry.snapshot
            assert replace(found, span=None) == replace(snapshot, health=found.health)
            began = entry.head.started_at if entry.number > 1 else None
            below = {
                other
                for other, (_, one) in last.items()
                if one.parent_id == key
                and (began is None or not one.status.final or (one.started_at or began) >= began - SKEW)
            }
            assert {child.head.operation_id for child in monitor.views.children_of(key)} in (
                [below] if key not in monitor.core.ledger.operations else [below, _held(monitor, below)]
            )
            assert {row["id"] for row in monitor.views.detail(entry).get("children_rows", [])} == below
        assert list(monitor.core.ledger.busy()) == []
        assert monitor.core.labels == {}


def _held(monitor: Parts, keys: set[str]) -> set[str]:
    return {key for key in keys if key in monitor.core.ledger.operations}


# -- what is inferred


def test_presumed_loss_stands_in_the_history_and_a_late_event_undoes_it(fake: FakeClock, tmp_path: Path) -> None:
    """After the set time without a sign an operation counts as lost, also over a restart; a sign of life undoes it."""
    with parts(tmp_path / "m.db", presume_after=60.0) as monitor:
        monitor.say(snap(1), event=s.OPERATION_STARTED)
        monitor.beat()
        seconds(fake, monitor, 74)
        assert (monitor.row()["status"], monitor.health()) == ("running", "dead")
        seconds(fake, monitor, 2)
        row = monitor.row()
        assert (row["status"], row["reason"]) == ("lost", "its process was not heard of for 1 min")
        end = monitor.history()[-1]
        assert (end.event, end.status, end.sequence < 0) == (s.OPERATION_ENDED, "lost", True)
        assert end.timestamp == row["timestamp"]  # when it was last heard of, not when that was concluded
        monitor.restart()
        assert monitor.row()["status"] == "lost"
        monitor.say(snap(1))
        assert monitor.row()["status"] == "lost"
        monitor.say(snap(2))
        assert (monitor.row()["status"], monitor.health()) == ("running", "progressing")
        monitor.say(snap(3, Status.COMPLETED), event=s.OPERATION_ENDED)
        monitor.restart()
        assert monitor.row()["status"] == "completed"


def test_one_that_never_beats_is_presumed_to_be_lost_too(fake: FakeClock, tmp_path: Path) -> None:
    """A process without heartbeats is never dead, but what it left open does not run for ever."""
    with parts(tmp_path / "m.db", presume_after=60.0) as monitor:
        monitor.say(snap(1))
        seconds(fake, monitor, 59)
        assert (monitor.row()["status"], monitor.health()) == ("running", "progressing")
        seconds(fake, monitor, 2)
        assert monitor.row()["status"] == "lost"


def test_presumed_loss_is_told_once_and_so_is_its_return(fake: FakeClock, tmp_path: Path) -> None:
    """Dead is told when it is not heard, lost when it counts as over, recovered when it was neither."""
    heard = Recorder()
    with parts(tmp_path / "m.db", presume_after=60.0, listeners=(heard,)) as monitor:
        seconds(fake, monitor, 20)
        monitor.say(snap(1))
        monitor.beat()
        seconds(fake, monitor, 200)
        assert heard.kinds == ["dead", "lost"]
        monitor.restart()
        seconds(fake, monitor, 200)
        assert heard.kinds == ["dead", "lost"]
        monitor.say(snap(2))
        assert monitor.row()["status"] == "running"


@pytest.mark.parametrize("sign", ["event", "heartbeat"])
def test_silence_and_its_end_are_told_once(fake: FakeClock, tmp_path: Path, sign: str) -> None:
    """That a process is not heard of any more is told once, and once that it is, by whatever it is heard."""
    heard = Recorder()
    with parts(tmp_path / "m.db", listeners=(heard,)) as monitor:
        monitor.say(snap(1))
        monitor.beat()
        seconds(fake, monitor, 20)
        assert heard.kinds == ["dead"]
        monitor.beat() if sign == "heartbeat" else monitor.say(snap(2))
        for _ in range(4):
            seconds(fake, monitor, 5)
            monitor.beat()
            monitor.say(snap(3))
        assert heard.kinds == ["dead", "recovered"]


def test_heartbeats_survive_a_kill_at_once(monitor: Parts, fake: FakeClock) -> None:
    """That a process gives heartbeats is stored with the first, so that after a restart it can be missed."""
    monitor.say(snap(1))
    fake.sleep(1)
    monitor.beat()
    monitor.restart()
    seconds(fake, monitor, 20)
    assert monitor.health() == "dead"


def test_what_was_refused_was_not_heard(monitor: Parts, fake: FakeClock) -> None:
    """While there is no room for what is said, nobody is dead."""
    monitor.say(snap(1))
    monitor.beat()
    monitor.core.inbox.queue.most_bytes = 0
    for _ in range(20):
        seconds(fake, monitor, 1)
        with pytest.raises(Refused):
            monitor.core.offer(Envelope("logs", request_of(beat_of())), lambda _: None)
    assert monitor.health() == "unknown"


def test_what_waits_to_be_taken_was_not_heard_yet(monitor: Parts, fake: FakeClock) -> None:
    """While more comes in than is taken, nobody is dead: what proves life may wait."""
    monitor.say(snap(1))
    monitor.beat()
    monitor.core.offer(Envelope("logs", request_of(beat_of())), lambda _: None)
    for _ in range(20):
        monitor.core.inbox.note_delay()
        seconds(fake, monitor, 1)
    assert monitor.health() == "unknown"


def test_retention_tells_what_is_removed_and_never_stops_the_clock(fake: FakeClock, tmp_path: Path) -> None:
    """Operations that are too old go from the file, from memory and from all lists."""
    with parts(tmp_path / "m.db") as monitor:
        monitor.say(snap(1, Status.COMPLETED, "old"), event=s.OPERATION_ENDED)
        monitor.say(snap(1, key="runs"))
        fake.sleep(31 * 86400)
        monitor.tick()
        assert monitor.core.journal.removed() == ["old"]
        assert (monitor.core.ledger.find("old"), monitor.store.recall("old")) == (None, None)
        assert monitor.core.ledger.find("runs") is not None


# -- threads


def test_reads_while_it_writes(tmp_path: Path) -> None:
    """Rows, details and lists can be made by several threads while operations come, change, end and make room."""
    with parts(tmp_path / "m.db") as monitor:
        monitor.core.ledger.most_ended = 50
        monitor.core.start()
        stop, wrong = threading.Event(), list[BaseException]()

        def read() -> None:
            try:
                while not stop.is_set():
                    for key, entry in list(monitor.core.ledger.operations.items()):
                        monitor.views.row_text(entry)
                        monitor.views.state(entry)
                        if key.endswith("0"):
                            monitor.views.detail(entry)
                    monitor.core.journal.changes()
            except BaseException as error:
                wrong.append(error)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        done = threading.Semaphore(0)
        for sequence in range(1, 40):
            status = Status.COMPLETED if sequence % 4 == 0 else Status.RUNNING
            keys = [f"{sequence // 4}-{number}" for number in range(50)]
            body = request_of(*(event_of(snap(sequence, status, key, parent_id=f"{sequence // 4}-0")) for key in keys))
            monitor.core.offer(Envelope("logs", body), lambda _: done.release())
        assert all(done.acquire(timeout=30) for _ in range(1, 40))
        stop.set()
        for reader in readers:
            reader.join(30)
        monitor.core.stop()
        assert wrong == []
        assert Health.UNKNOWN not in {label.health for label in monitor.core.labels.values()}


def test_one_that_was_put_aside_is_over_for_the_store_until_it_is_heard_again(monitor: Parts) -> None:
    """Else a flood of ids would stay in the file for ever."""
    monitor.core.ledger.most = 2
    for number in range(3):
        monitor.say(snap(key=str(number)))
    assert monitor.core.ledger.room.counts == {"operations": 1}
    kept = monitor.store.recall("0")
    assert kept is not None
    assert (kept.status, kept.presumed, kept.aside) == ("running", False, True)
    assert [one.operation_id for one in open_in(monitor.store)] == ["1", "2"]
    monitor.say(snap(2, key="0"))
    again = monitor.store.recall("0")
    assert again is not None
    assert (again.status, again.presumed, again.aside) == ("running", False, False)


def test_what_is_held_has_a_limit_in_bytes_and_the_largest_goes(tmp_path: Path) -> None:
    """However large events are, memory is bounded; the small ones stay."""
    with parts(tmp_path / "m.db", limits=CoreLimits(held_bytes=40_000)) as monitor:
        monitor.say(snap(key="small"))
        for number in range(5):
            monitor.say(snap(key=f"large{number}", description="x" * 15_000))
        assert monitor.core.ledger.room.counts == {"bytes": 3}
        assert "small" in monitor.core.ledger.operations
        monitor.say(snap(2, Status.COMPLETED, key="small"))
        monitor.say(snap(2, Status.COMPLETED, key="large4"))
        assert monitor.core.held == sum(len(entry.said.raw) for entry in monitor.core.ledger.operations.values())


# -- whose turn it is


def offered(monitor: Parts, *bodies: bytes, gone: Container[int] = ()) -> list[Acknowledgement | None]:
    """Requests that wait, each of a connection of its own; the answers as they come. Of some nobody waits."""
    answers: list[Acknowledgement | None] = [None] * len(bodies)

    def offer(number: int, body: bytes) -> None:
        sender = Sender(number, None, lambda: number in gone)
        monitor.core.offer(Envelope("logs", body, sender=sender), lambda answer: answers.__setitem__(number, answer))

    for number, body in enumerate(bodies):
        offer(number, body)
    return answers


def test_request_that_nobody_waits_for_is_dropped_before_it_is_read(monitor: Parts) -> None:
    """Whose client has gone is not taken and is counted; what was taken before that stays taken."""
    gone = {1}
    bodies = [request_of(event_of(snap(1, key=key))) for key in "abc"]
    answers = offered(monitor, *bodies, gone=gone)
    taken: list[Job] = []
    monitor.core.work(monitor.core.inbox.turn(taken))
    gone.update((0, 2))  # that is too late: they are stored
    assert [isinstance(answer, Accepted) for answer in answers] == [True, False, True]
    assert monitor.core.inbox.statistics()["client_gone"] == 1
    monitor.restart()
    assert [monitor.core.ledger.find(key) is not None for key in "abc"] == [True, False, True]


@pytest.mark.parametrize(("waits", "health"), [(0, "dead"), (2, "unknown")])
def test_who_gave_up_because_we_were_slow_was_not_heard(
    monitor: Parts, fake: FakeClock, waits: int, health: str
) -> None:
    """Clients that leave after a wait may have told that they live, so nobody is dead; who leaves at once proves none."""
    monitor.say(snap(1))
    monitor.beat()
    for _ in range(10):
        offered(monitor, request_of(event_of(snap(1))), gone={0})
        seconds(fake, monitor, waits)
        monitor.core.work(monitor.core.inbox.turn([]))
        seconds(fake, monitor, 2 - waits)
    assert monitor.health() == health


def test_turn_ends_when_it_cost_enough(monitor: Parts) -> None:
    """A turn is limited in requests and in uncompressed bytes; the others are taken in the next one."""
    small = offered(monitor, *[request_of(event_of(snap(1, key=str(number)))) for number in range(100)])
    monitor.core.work(monitor.core.inbox.turn([]))
    assert sum(isinstance(answer, Accepted) for answer in small) == TURN_REQUESTS
    while monitor.core.inbox.queue:
        monitor.core.work(monitor.core.inbox.turn([]))
    large = offered(monitor, *[request_of(event_of(snap(2, key="x"), text="x" * 300_000)) for _ in range(30)])
    monitor.core.work(monitor.core.inbox.turn([]))
    assert 0 < sum(isinstance(answer, Accepted) for answer in large) <= TURN_BYTES // 300_000 + 1


def test_large_request_begins_a_turn(monitor: Parts) -> None:
    """Small ones before it are answered without it."""
    small, large = request_of(event_of(snap(1))), request_of(event_of(snap(2), text="x" * 2 * ALONE))
    answers = offered(monitor, small, large, small)
    monitor.core.work(monitor.core.inbox.turn([]))
    assert [answer is None for answer in answers] == [False, True, False]
    monitor.core.work(monitor.core.inbox.turn([]))
    assert None not in answers


def test_request_that_never_fits_is_refused_for_good(monitor: Parts) -> None:
    """What is larger than any request may be is not told to come again."""
    with pytest.raises(Refused) as refused:
        offered(monitor, bytes(requests.LARGEST + 1))
    assert (refused.value.status, refused.value.retry_after) == (413, None)
    assert monitor.core.inbox.statistics()["too_large"] == 1


def test_who_makes_room_is_told_when_to_come_again(monitor: Parts) -> None:
    """A request that is put out for another one is answered with 429, and counted."""
    monitor.core.inbox.queue.most_requests = 2
    large = request_of(event_of(snap(1), text="x" * 200_000))
    answers = offered(monitor, large, large, request_of(event_of(snap(1))))
    assert [getattr(answer, "status", None) for answer in answers] == [None, 429, None]
    assert monitor.core.inbox.statistics()["no_room"] == 1


def test_what_holds_too_much_is_told_in_part(monitor: Parts) -> None:
    """Records that hold too much are refused by count and reason, the others of the request are stored."""
    large = otlp.log_record(s.UPDATED, 1, 1, 9, "", b"\x32\x00" * 5_000, None, None, False)
    (answer,) = monitor.take(request_of(large, event_of(snap(1)), large))
    assert isinstance(answer, Accepted)
    assert answer.rejected == 2
    assert "4096 attributes" in answer.reason
    assert monitor.core.inbox.statistics()["records"] == 2
    assert monitor.health() == "progressing"


def test_with_many_operations_fewer_plain_updates_are_kept_of_each(
    monitor: Parts, fake: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history grows by a limited number of plain updates per second, however many run; all else is kept."""
    monkeypatch.setattr(history, "PLAIN_A_SECOND", 2)
    for second in range(1, 41):
        monitor.say(*(snap(second, key=f"o{number}") for number in range(10)))
    notes = monitor.store.events("o1", names=(s.UPDATED,))
    assert [event.sequence for _, event in notes] == [1, 6, 11, 16, 21, 26, 31, 36]
    monitor.say(*(snap(second, key="o1") for second in (50, 51)), event=s.NOTE)
    assert [event.sequence for _, event in monitor.store.events("o1", names=(s.NOTE,))] == [50, 51]


@pytest.mark.parametrize("why", ["a turn is full", "it stops", "the last turn was long ago"])
def test_a_turn_waits_for_others_only_as_long_as_that_helps(
    monitor: Parts, fake: FakeClock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Requests that arrive together share a turn; a full turn, and the end, wait for nothing."""
    box = monitor.core.inbox
    box.gather()
    monkeypatch.setattr(inbox, "GATHER", 1000.0)  # with a wait, this test would not end
    if why == "a turn is full":
        offered(monitor, *[request_of()] * TURN_REQUESTS)
        box.gather()
    elif why == "it stops":
        box.stop()
        box.gather()
    else:
        fake.sleep(1001)
        box.gather()
    assert len(box.queue) == (TURN_REQUESTS if why == "a turn is full" else 0)
