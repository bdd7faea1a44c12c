"""Attempts, ends and counts over HTTP, from a monitor that runs; no test here stops the clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.stress.served import Served, event, serving, wait_until

from otel_progress import semconv as s

AT = 1_700_000_000.0


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
        while b"progress.note" not in got:
            more = reader.recv(65536)
            assert more, got
            got += more
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
