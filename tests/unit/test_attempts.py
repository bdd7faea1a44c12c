"""Attempts: each start time is one, the monitor numbers them, and an id that runs twice is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_parts import Parts, beat_of, event_of, fake_time, parts, request_of, seconds
from tests.stress.served import Served, event, serving, wait_until

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.ledger import Ledger
from otel_progress.monitor.views import dump
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def run(started: float, sequence: int = 1, status: Status = Status.RUNNING, attempt: int = 1, **more: Any) -> Snapshot:
    """What one run of the id `a` says, so many seconds after the first began."""
    began = AT + started
    return Snapshot("a", "w", status, began + sequence, attempt=attempt, sequence=sequence, started_at=began, **more)


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """Time that stands still."""
    with fake_time() as found:
        yield found


@pytest.fixture
def monitor(fake: FakeClock, tmp_path: Path) -> Iterator[Parts]:
    """The inside of a monitor."""
    with parts(tmp_path / "m.db") as found:
        yield found


def number(monitor: Parts) -> int:
    """Which attempt is shown."""
    return int(monitor.row()["attempt"])


def test_process_that_is_started_again_is_attempt_2(monitor: Parts) -> None:
    """A process numbers by its own memory; the monitor knows the id, and goes on counting, also after a restart."""
    monitor.say(run(0), event=s.OPERATION_STARTED)
    monitor.say(run(0, 2, Status.FAILED), event=s.OPERATION_ENDED)
    monitor.say(run(100), event=s.OPERATION_STARTED, instance="p2")
    assert number(monitor) == 2
    monitor.restart()
    assert number(monitor) == 2
    monitor.say(run(100, 2), instance="p2")
    monitor.say(run(200, attempt=2), event=s.OPERATION_STARTED, instance="p2")
    assert number(monitor) == 3
    monitor.say(run(0, 3), event=s.NOTE)  # late, of the first
    assert [(one.attempt, one.started_at - AT) for one in monitor.history()] == [
        (1, 0.0), (1, 0.0), (2, 100.0), (2, 100.0), (3, 200.0), (1, 0.0)
    ]  # fmt: skip


def test_count_of_a_process_that_knows_more_is_taken(monitor: Parts) -> None:
    """A process whose history file knows earlier runs says attempt 5: nobody knows better."""
    monitor.say(run(0, attempt=5))
    assert number(monitor) == 5
    monitor.say(run(100, attempt=1), instance="p2")
    assert number(monitor) == 6


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=30))
def test_numbers_rise_with_start_times(said: list[tuple[int, int]]) -> None:
    """In whatever order runs speak, the number shown only rises, by one for each later start; others change nothing."""
    ledger, before, starts = Ledger(), 0, set()
    for start, sequence in said:
        newer = not starts or start > max(starts)
        starts.add(start)
        entry = ledger.apply(run(start * 100.0, sequence), f"p{start}", 1.0)
        assert entry.number == (before + 1 if newer else before)
        assert (entry.head.started_at or 0) - AT == max(starts) * 100.0
        before = entry.number


# -- two at once


def beat(monitor: Parts, instance: str) -> None:
    """A heartbeat of a process, at the time of the clock."""
    monitor.take(request_of(beat_of(), instance=instance))


def test_two_live_processes_with_one_id_are_shown(monitor: Parts, fake: FakeClock) -> None:
    """The newest run is shown, with a warning and the other one beside it; it goes when that one is over or dead."""
    told: list[str] = []
    monitor.core._on_rival = lambda entry: told.append(entry.instance)
    now = clock.time_ns() / 1e9 - AT
    monitor.take(request_of(event_of(run(now)), beat_of(), instance="p1", **{s.PROCESS_PID: 11, s.HOST_NAME: "here"}))
    seconds(fake, monitor, 10)
    second = request_of(event_of(run(now + 10)), beat_of(), instance="p2", **{s.PROCESS_PID: 12})
    monitor.take(second)
    assert "also_running" not in monitor.row()
    seconds(fake, monitor, 3)
    beat(monitor, "p1")
    row = monitor.row()
    assert row["attempt"] == 2
    assert row["also_running"] == [{"attempt": 1, "started_at": AT + now, "instance": "p1", "pid": 11, "host": "here"}]
    assert row["warning"] == (
        "two processes run the operation 'a': attempt 2 (pid 12), attempt 1 (pid 11 on here); "
        "give each run an id of its own, or stop one"
    )
    beat(monitor, "p1")
    assert told == ["p2"]
    monitor.say(run(now + 10, 2), instance="p2")
    assert "warning" in monitor.row()
    monitor.say(run(now, 9, Status.COMPLETED), event=s.OPERATION_ENDED, instance="p1")
    assert "also_running" not in monitor.row()
    assert monitor.row()["status"] == "running"


def test_run_that_died_before_the_next_is_no_rival(monitor: Parts, fake: FakeClock) -> None:
    """What a killed process said before the new one began, and what comes late of that, proves nothing."""
    now = clock.time_ns() / 1e9 - AT
    monitor.take(request_of(event_of(run(now)), beat_of(), instance="p1"))
    late = request_of(beat_of(), instance="p1")
    seconds(fake, monitor, 2)
    monitor.take(request_of(event_of(run(now + 2)), beat_of(), instance="p2"))
    monitor.take(late)
    monitor.take(request_of(event_of(run(now, 2)), instance="p1"))
    assert "also_running" not in monitor.row()


def test_rival_that_is_not_heard_any_more_is_none(monitor: Parts, fake: FakeClock) -> None:
    """A dead process runs nothing, as far as anybody knows."""
    now = clock.time_ns() / 1e9 - AT
    monitor.take(request_of(event_of(run(now)), beat_of(), instance="p1"))
    fake.sleep(5)
    monitor.take(request_of(event_of(run(now + 5)), beat_of(), instance="p2"))
    fake.sleep(5)
    beat(monitor, "p1")
    assert "also_running" in monitor.row()
    for _ in range(4):
        seconds(fake, monitor, 4)
        beat(monitor, "p2")
    assert "also_running" not in monitor.row()


def test_rival_that_only_speaks_up_later_is_found(monitor: Parts) -> None:
    """After a restart of the monitor the older run is known again with its next event."""
    monitor.say(run(10), instance="p2")
    monitor.say(run(0, 60), instance="p1")
    assert [one["attempt"] for one in monitor.row()["also_running"]] == [1]


# -- over HTTP


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A monitor."""
    with serving(tmp_path_factory.mktemp("attempts")) as found:
        yield found


def cancel(served: Served, query: str) -> tuple[int, str]:
    """The answer to a request to stop."""
    answer = served.ask("DELETE", f"/operations/again?wait=0&{query}")
    return answer.status, str(answer.json)


def test_request_to_stop_one_attempt_never_stops_another(served: Served) -> None:
    """409 names the attempt that runs; where none does, it says so."""
    served.send(event("again", START_TIME=AT), instance="p1")
    served.send(event("again", status="failed", kind=s.OPERATION_ENDED, sequence=2, START_TIME=AT), instance="p1")
    status, text = cancel(served, "attempt=2")
    assert (status, "no attempt runs; attempt 1 is over: failed" in text) == (409, True)
    served.send(event("again", START_TIME=AT + 100), instance="p2")
    wait_until(lambda: served.detail("again")["attempt"] == 2)
    status, text = cancel(served, "attempt=1")
    assert (status, "attempt 1 does not run; attempt 2 runs" in text) == (409, True)
    status, text = cancel(served, "attempt=2")
    assert (status, "unreachable" in text) == (409, True)  # it was asked, and has no channel
    assert cancel(served, "attempt=x")[0] == 400


def test_stream_of_one_ends_with_its_end(served: Served) -> None:
    """A final event, then the stream closes; who comes back with the last id is told that there is nothing more."""
    served.send(event("short", START_TIME=AT))
    with served.connect() as reader:
        reader.sendall(served.head("/operations/short/stream"))
        got = b""
        while b"event: operation" not in got:
            got += reader.recv(65536)
        served.send(event("short", status="completed", kind=s.OPERATION_ENDED, sequence=2, START_TIME=AT))
        while not got.endswith(b"0\r\n\r\n"):
            more = reader.recv(65536)
            assert more, "the connection was closed, not the stream"
            got += more
    text = got.decode()
    assert text.rindex("event: ended") > text.rindex("event: operation") > 0
    assert '{"id":"short","status":"completed","attempt":1}' in text
    last = [line[4:] for line in text.splitlines() if line.startswith("id: ")][-1]
    assert served.ask("GET", "/operations/short/stream", headers={"Last-Event-ID": last}).status == 204
    again = served.ask("GET", "/operations/short/stream")
    assert again.status == 200
    names = [line for line in again.body.decode().splitlines() if line.startswith("event: ")]
    assert names == ["event: hello", "event: operation", "event: ended"]


def test_operation_that_runs_again_is_followed_again(served: Served) -> None:
    """A stream of an id whose earlier run has ended goes on while the new one runs."""
    served.send(event("twice", status="completed", kind=s.OPERATION_ENDED, START_TIME=AT))
    assert served.ask("GET", "/operations/twice/stream").status == 200
    served.send(event("twice", START_TIME=AT + 9), instance="p2")
    wait_until(lambda: served.detail("twice")["attempt"] == 2)
    with served.connect() as reader:
        reader.sendall(served.head("/operations/twice/stream"))
        got = b""
        while b"event: operation" not in got:
            got += reader.recv(65536)
        assert b"event: ended" not in got
        served.send(event("twice", kind=s.NOTE, sequence=2, START_TIME=AT + 9, NOTE_TEXT="on"), instance="p2")
        while b"event: events" not in got:
            got += reader.recv(65536)
        assert b"event: ended" not in got


def test_counts_count_what_the_list_marks(served: Served) -> None:
    """The figures of a page are those of its rows, by the same words that filter them; `silent` is a word, too."""
    served.send(event("stuck", HEALTH="silent", IDLE=9.0, STALL_AFTER=5.0, START_TIME=AT))
    wait_until(lambda: served.get("/operations?verdict=stuck")["total"] >= 1)
    page = served.get("/operations?limit=1000")
    states = [row["state"] for row in page["operations"]]
    assert page["counts"] == {state: states.count(state) for state in set(states)}
    assert page["trouble"] == sum("trouble" in row for row in page["operations"])
    for word in ("stuck", "silent", "trouble"):
        assert [row["id"] for row in served.get(f"/operations?verdict={word}")["operations"]] == ["stuck"]
    wrong = served.ask("GET", "/operations?verdict=hung")
    assert wrong.status == 400
    assert all(word in wrong.json["error"] for word in ("hung", "stuck", "frozen", "overdue", "trouble"))
    assert served.get("/health")["operations"]["trouble"] == 1
    dump(page)
