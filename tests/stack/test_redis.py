"""Monitors that share a stream of a real Redis: each sees what the others received, across outages, within limits."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_progress.errors import InvalidArgument
from otel_progress.monitor.intake.requests import Refused
from otel_progress.monitor.outlets import redis as shared
from otel_progress.monitor.outlets.redis import ReadPosition, Stream, StreamEntry
from otel_progress.outbound import redis_connection
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.redis_connection import connect

from .redis_server import QUOTED, Server, redis_server, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parents[2] / "docs" / "monitor-outlets.md"


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reads block only briefly, so that monitors end soon."""
    monkeypatch.setattr(shared, "BLOCK_SECONDS", 0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a redis-server that is not started."""
    with redis_server(tmp_path) as made:
        yield made


@pytest.fixture
def running(server: Server) -> Server:
    """Return a running redis-server."""
    server.start()
    return server


class Monitor:
    """One monitor's end of a stream, with what it read from others."""

    def __init__(self, url: str, origin: str, **options: Any) -> None:
        self.took: list[bytes] = []
        self.answer: Callable[[bytes], object] = lambda otlp: None
        self.stream = Stream(url, origin, self.take, **options)

    def take(self, otlp: bytes) -> None:
        self.answer(otlp)
        self.took.append(otlp)

    def say(self, *parts: object) -> None:
        self.stream.publish([item(part) for part in parts])


def item(part: object) -> StreamEntry:
    return StreamEntry(f"operation {part}", "progress.updated", f'{{"id":"operation {part}"}}', str(part).encode())


def said(first: int, end: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, end)]


@pytest.fixture
def monitor(server: Server) -> Iterator[Callable[..., Monitor]]:
    """Return a function that makes monitors, and end them afterwards."""
    made: list[Monitor] = []

    def make(origin: str, **options: Any) -> Monitor:
        made.append(Monitor(options.pop("url", server.url), origin, **options))
        return made[-1]

    yield make
    for one in made:
        one.stream.close(0)
    for one in made:
        for thread in one.stream._threads:
            thread.join(30)
            assert not thread.is_alive()


# -- what passes


def test_two_monitors_see_each_other_and_not_themselves(running: Server, monitor: Callable[..., Monitor]) -> None:
    """Each monitor gets what the other published, once, in order, and nothing of its own."""
    one, two = monitor("one"), monitor("two")
    one.say(*range(100))
    two.say(*range(100, 150))
    until(lambda: len(one.took) == 50 and len(two.took) == 100)
    assert one.took == said(100, 150)
    assert two.took == said(0, 100)
    until(lambda: one.stream.lag == 0 and two.stream.lag == 0)
    assert (one.stream.published, one.stream.taken) == (100, 50)
    assert one.stream.losses() == two.stream.losses() == []


def test_an_entry_is_plain_for_every_client(running: Server, monitor: Callable[..., Monitor]) -> None:
    """An entry has the documented fields; text that is not Unicode does no harm."""
    monitor("one").stream.publish([StreamEntry("a\ud800", "progress.stalled", '{"id":"ü"}', b"\x00\xff")])
    until(lambda: running("XLEN", "otel-progress") == 1)
    ((_, fields),) = running.client().xrange("otel-progress")
    assert fields == {
        b"v": b"1",
        b"origin": b"one",
        b"id": b"a?",
        b"event": b"progress.stalled",
        b"data": '{"id":"ü"}'.encode(),
        b"otlp": b"\x00\xff",
    }


def test_the_docs_follow_a_stream(running: Server, monitor: Callable[..., Monitor]) -> None:
    """The documented code to follow the stream yields the rows, oldest first, and waits for more."""
    (block,) = re.findall(r"```python\n(import json, redis\n.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    one = monitor("one")
    one.say(1, 2)
    rows = names["follow"](running.client())
    assert [next(rows)["id"], next(rows)["id"]] == ["operation 1", "operation 2"]
    one.say(3)
    assert next(rows)["id"] == "operation 3"


def test_who_comes_later_sees_the_same(running: Server, monitor: Callable[..., Monitor]) -> None:
    """A monitor that starts late reads the stream from its beginning; entries trimmed before do not count as lost."""
    one = monitor("one", most=500)
    one.say(*range(2000))
    until(lambda: one.stream.published == 2000)
    held: int = running("XLEN", "otel-progress")
    late = monitor("late")
    until(lambda: len(late.took) == held)
    assert late.took == said(2000 - held, 2000)
    until(lambda: late.stream.lag == 0)
    assert late.stream.lost == 0


def test_the_stream_has_a_limit(running: Server, monitor: Callable[..., Monitor]) -> None:
    """The stream keeps about its maximum number of entries, the newest."""
    one = monitor("one", most=300)
    one.say(*range(3000))
    until(lambda: one.stream.published == 3000)
    assert 300 <= running("XLEN", "otel-progress") <= 500
    ((_, fields),) = running.client().xrevrange("otel-progress", count=1)
    assert fields[b"otlp"] == b"2999"


def test_all_kinds_of_addresses(running: Server, monitor: Callable[..., Monitor]) -> None:
    """A Unix socket, another database, another key, and harmful options in the address work."""
    path = running.folder / "redis.sock"
    pairs = [
        {"url": f"unix://:{QUOTED}@{path}?db=1"},
        {"url": f"redis://127.0.0.1:{running.port}/2?password={QUOTED}&decode_responses=true&protocol=3"},
        {"key": "other"},
    ]
    for options in pairs:
        one, two = monitor("one", **options), monitor("two", **options)
        one.say(1)
        until(lambda two=two: two.took == [b"1"])  # type: ignore[misc]
        assert one.took == []


# -- outages


def test_a_killed_redis_loses_nothing(
    running: Server, monitor: Callable[..., Monitor], caplog: pytest.LogCaptureFixture
) -> None:
    """After a SIGKILL of Redis both sides continue; what was published meanwhile arrives; the outage is reported once."""
    caplog.set_level(logging.INFO, "otel_progress")
    one, two = monitor("one"), monitor("two")
    one.say(*range(50))
    until(lambda: len(two.took) == 50)
    running.kill()
    one.say(*range(50, 100))
    until(lambda: len(caplog.messages) == 2)
    running.start()
    one.say(*range(100, 150))
    until(lambda: len(set(two.took)) == 150)
    assert list(dict.fromkeys(two.took)) == said(0, 150)
    until(lambda: not one.stream._troubled and not two.stream._troubled)
    assert one.stream.losses() == two.stream.losses() == []
    assert len([text for text in caplog.messages if "can't be used" in text]) == 2
    assert len([text for text in caplog.messages if "can be used again" in text]) == 2


def test_killed_in_the_middle_of_writing(running: Server, monitor: Callable[..., Monitor]) -> None:
    """While both sides are busy Redis is killed three times; every entry arrives, some maybe twice."""
    one, two = monitor("one"), monitor("two")
    for start in range(0, 9000, 3000):
        one.say(*range(start, start + 3000))
        until(lambda start=start: len(two.took) > start)  # type: ignore[misc]
        running.kill()
        running.start()
    until(lambda: len(set(two.took)) == 9000)
    until(lambda: one.stream._bytes == 0)
    assert one.stream.losses() == two.stream.losses() == []


def test_redis_may_come_later(
    server: Server, monitor: Callable[..., Monitor], caplog: pytest.LogCaptureFixture
) -> None:
    """Without Redis at the start everything waits and is reported once, without a password; later everything continues."""
    one = monitor("one")
    one.say(1, 2, 3)
    until(lambda: caplog.messages and len(one.stream._troubled) == 2)
    server.start()
    two = monitor("two")
    until(lambda: two.took == [b"1", b"2", b"3"])
    (text,) = caplog.messages
    assert text.startswith(f"Redis at redis://127.0.0.1:{server.port}/0 can't be used (ConnectionError: ")
    assert "s3cr3t" not in caplog.text


def test_a_wrong_password_is_told_and_not_shown(
    running: Server, monitor: Callable[..., Monitor], caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password is an outage like any other; the message says what is wrong, without the password."""
    one = monitor("one", url=f"redis://:wr0ng@127.0.0.1:{running.port}/0")
    one.say(1)
    until(lambda: len(one.stream._troubled) == 2)
    (text,) = caplog.messages
    assert "AuthenticationError" in text
    assert "wr0ng" not in text
    running("CONFIG", "SET", "requirepass", "")


def test_a_redis_that_lost_its_data_is_read_anew(running: Server, monitor: Callable[..., Monitor]) -> None:
    """A Redis that restarts empty, even with a clock set back, is a new stream; no loss is invented."""
    one, two = monitor("one"), monitor("two")
    running("XADD", "otel-progress", "9999999999999-0", "v", 1, "origin", "x", "otlp", "a")
    until(lambda: two.took == [b"a"])
    running("FLUSHALL")
    one.say(1, 2)
    until(lambda: two.took == [b"a", b"1", b"2"])
    assert two.stream.lost == 0


def test_what_redis_refuses_for_now_is_written_later(running: Server, monitor: Callable[..., Monitor]) -> None:
    """A key of another type, or full memory, delays entries and loses none."""
    running("SET", "otel-progress", "x")
    one, two = monitor("one"), monitor("two")
    one.say(*range(10))
    until(lambda: "writer" in one.stream._troubled)
    running("DEL", "otel-progress")
    until(lambda: two.took == said(0, 10))
    running("CONFIG", "SET", "maxmemory", "1")
    one.say(*range(10, 20))
    until(lambda: "writer" in one.stream._troubled)
    running("CONFIG", "SET", "maxmemory", "0")
    until(lambda: two.took == said(0, 20))
    assert one.stream.losses() == []


# -- limits


def test_who_publishes_never_waits_and_the_oldest_go_first(
    server: Server, monitor: Callable[..., Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis is away the newest entries are queued within both limits; the rest is counted."""
    monkeypatch.setattr(shared, "WAITING", 100)
    one = monitor("one")
    one.say("first")
    until(lambda: "writer" in one.stream._troubled)
    one.say(*range(1000))
    dropped = one.stream.dropped["too many waited"]
    assert 900 <= dropped <= 901
    server.start()
    two = monitor("two")
    until(lambda: one.stream.published == 1001 - dropped and len(two.took) == 1001 - dropped)
    assert two.took[-99:] == said(901, 1000)
    assert one.stream.losses() == [
        f"{dropped} entries were not written to Redis at redis://127.0.0.1:{server.port}/0: too many waited"
    ]


def test_bytes_that_wait_have_a_limit(server: Server, monitor: Callable[..., Monitor]) -> None:
    """At most 32 MiB are queued, even of few entries."""
    one = monitor("one")
    one.stream.publish([StreamEntry("a", "e", "", bytes(4 * 1024 * 1024 - 1)) for _ in range(20)])
    assert one.stream.dropped["too many waited"] >= 11
    assert len(one.stream._waiting) <= 9


def test_an_entry_has_a_limit(running: Server, monitor: Callable[..., Monitor]) -> None:
    """OTLP that is too large is omitted, and a row that is too large drops the entry; both are counted."""
    one, two = monitor("one"), monitor("two")
    huge = 5 * 1024 * 1024
    one.stream.publish([StreamEntry("a", "e", "{}", bytes(huge)), StreamEntry("b", "e", "x" * huge, b"b"), item("c")])
    until(lambda: two.took == [b"c"])
    assert one.stream.dropped == {"too large for an entry": 2}
    assert [fields[b"id"] for _, fields in running.client().xrange("otel-progress")] == [b"a", b"operation c"]
    assert two.stream.unreadable == 1


def test_an_entry_on_which_redis_hangs_up_holds_nothing_up(server: Server, monitor: Callable[..., Monitor]) -> None:
    """A Redis with a lower limit closes the connection on a large entry: it is dropped, the others arrive."""
    server.start(**{"proto-max-bulk-len": "1mb"})
    one, two = monitor("one"), monitor("two")
    one.stream.publish([item(1), StreamEntry("big", "e", "{}", bytes(2 * 1024 * 1024)), item(2)])
    until(lambda: len(set(two.took)) == 2)
    assert list(dict.fromkeys(two.took)) == [b"1", b"2"]
    assert one.stream.dropped == {"Redis closed the connection": 1}


def test_entries_that_cannot_be_read_are_skipped(
    running: Server, monitor: Callable[..., Monitor], caplog: pytest.LogCaptureFixture
) -> None:
    """Malformed entries, and those on which the reader fails, are counted, reported once, and skipped."""
    key = "otel-progress"
    running("XADD", key, "*", "some", "thing")
    running("XADD", key, "*", "v", "2", "origin", "x", "otlp", "later")
    running("XADD", key, "*", "v", "1", "origin", "x", "otlp", "")
    two = monitor("two")
    two.answer = lambda otlp: 1 / (otlp != b"bad")
    one = monitor("one")
    one.say("bad", "good")
    until(lambda: two.took == [b"good"])
    until(lambda: two.stream.lag == 0)
    assert (two.stream.unreadable, two.stream.taken, two.stream.lost) == (4, 1, 0)
    assert "4 entries were not readable in the stream" in two.stream.losses()[0]
    assert len([text for text in caplog.messages if "ValueError" in text]) == 2  # once each


def test_a_taker_that_is_full_gets_the_same_again(running: Server, monitor: Callable[..., Monitor]) -> None:
    """What is refused for now (429, 503) is retried; what is refused for good is skipped."""
    answers = iter([Refused(429, "full"), Refused(503, "full", 0), None, Refused(400, "bad"), None])

    def answer(_: bytes) -> None:
        refused = next(answers)
        if refused is not None:
            raise refused

    two = monitor("two")
    two.answer = answer
    monitor("one").say(1, 2, 3)
    until(lambda: two.took == [b"1", b"3"])
    assert two.stream.unreadable == 1


def test_what_was_trimmed_unread_is_counted(running: Server, monitor: Callable[..., Monitor]) -> None:
    """Entries trimmed before a slow reader read them are lost, and exactly those are counted."""
    may = threading.Event()
    two = monitor("two")
    two.answer = lambda otlp: may.wait(30)
    one = monitor("one", most=200)
    one.say(*range(10))
    until(lambda: running("XLEN", "otel-progress") == 10)
    one.say(*range(10, 2000))
    until(lambda: one.stream.published == 2000)
    may.set()
    until(lambda: two.took and two.took[-1] == b"1999")
    until(lambda: two.stream.lost and two.stream.lag == 0)
    assert two.stream.lost == 2000 - len(two.took) > 1000
    assert f"{two.stream.lost} entries were trimmed" in two.stream.losses()[0]


def test_how_far_is_told_by_pure_reckoning() -> None:
    """Lag and loss are computed from Redis's stream information; without its total count both are unknown."""

    def info(newest: str, added: int | None, length: int, first: str | None) -> dict[str, Any]:
        known = {"last-generated-id": newest.encode(), "length": length}
        entry: Any = None if first is None else (first.encode(), {})
        return {**known, "first-entry": entry} | ({} if added is None else {"entries-added": added})

    place = ReadPosition()
    place.look(info("9-0", 100, 10, "2-0"))
    assert (place.lost, place.lag) == (0, 10)
    place.passed("2-0")
    place.passed("3-0")
    place.look(info("9-5", 105, 13, "4-0"))
    assert (place.lost, place.lag) == (0, 13)
    place.look(info("9-9", 109, 10, "6-0"))  # of the 99 that are gone 92 were gone or read before
    assert (place.lost, place.lag) == (7, 10)
    place.look(info("9-9", 109, 5, "8-0"))
    assert (place.lost, place.lag) == (12, 5)
    place.look(info("9-9", 109, 0, None))
    assert (place.lost, place.lag) == (17, 0)
    place.look(info("10-10", 120, 3, "9-10"))
    assert (place.lost, place.lag) == (25, 3)
    place.passed("10-10")  # "10-10" is after "9-10": ids are numbers
    place.look(info("10-10", 120, 3, "9-10"))
    assert (place.lost, place.lag) == (27, 0)
    place.look(info("11-0", 2, 2, "10-11"))  # another stream
    assert (place.lost, place.lag, place.last) == (27, 2, "10-10")
    place.passed("10-11")
    place.nothing()
    place.passed("12-0")
    place.look(info("12-0", 1, 1, "12-0"))
    assert (place.lost, place.lag) == (27, 0)
    place.passed("13-0")  # of yet another stream
    place.passed("13-1")
    place.look(info("13-2", 2, 2, "13-1"))
    assert (place.lost, place.lag) == (27, None)
    place.passed("13-2")
    place.look(info("13-2", 2, 2, "13-1"))
    assert (place.lost, place.lag) == (27, 0)
    place.look(info("1-0", 1, 1, "1-0"))  # and one with an older clock
    assert (place.lost, place.lag, place.last) == (27, 1, "0-0")
    old = ReadPosition()
    old.look(info("9-0", None, 10, "2-0"))
    assert (old.lost, old.lag) == (0, None)


# -- the end


def test_close_writes_what_waits(running: Server, monitor: Callable[..., Monitor]) -> None:
    """At the end everything queued is written; what comes later is counted."""
    one = monitor("one")
    one.say(*range(5000))
    one.stream.close(30)
    one.stream.close(30)
    assert running("XLEN", "otel-progress") == 5000
    one.say(1)
    assert one.stream.dropped == {"the monitor was shutting down": 1}


def test_close_cuts_a_long_pause_short(
    server: Server, monitor: Callable[..., Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Redis returns in the pause between two attempts, the queue is still written at the end."""
    monkeypatch.setattr(shared, "BACKOFF", Backoff(first=60.0, longest=60.0))
    one = monitor("one")
    one.say(1, 2)
    until(lambda: "writer" in one.stream._troubled)
    server.start()
    monkeypatch.setattr(shared, "BACKOFF", Backoff(first=0.1))
    one.stream.close(20)
    assert server("XLEN", "otel-progress") == 2
    assert one.stream.losses() == []


def test_close_without_redis_takes_the_given_time(server: Server, monitor: Callable[..., Monitor]) -> None:
    """Without Redis the end comes in the given time, and the queue is counted."""
    one = monitor("one")
    one.say(1, 2)
    begun = time.monotonic()
    one.stream.close(0.3)
    assert time.monotonic() - begun < 3
    assert one.stream.dropped == {"not written before the end": 2}


def test_a_redis_that_hangs_holds_nobody_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that accepts connections and does not answer blocks neither the publisher nor the end."""
    monkeypatch.setattr(redis_connection, "SOCKET_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", server.port)):
        one = Monitor(server.url, "one")
        begun = time.monotonic()
        one.say(*range(100))
        one.stream.close(0.3)
        assert time.monotonic() - begun < 3
        for thread in one.stream._threads:
            thread.join(30)
            assert not thread.is_alive()


# -- the address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://s3cr3t@host",
        "redis://:s3cr3t/w@host:1",
        "redis://:s3cr3t@h:p",
        "redis://h?db=s3cr3t",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_unshown(url: str) -> None:
    """A bad address is an error at the start, which shows an example, and nothing of the address."""
    with pytest.raises(InvalidArgument, match="must look like redis://localhost:6379/0") as raised:
        Stream(url, "one", lambda otlp: None)
    assert "s3cr3t" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("options", [{"key": ""}, {"origin": ""}, {"most": 0}, {"most": True}, {"most": 1.5}])
def test_other_arguments_that_cannot_be_meant(options: dict[str, Any]) -> None:
    """Key and origin must not be empty; the length is a whole number above 0."""
    with pytest.raises(InvalidArgument):
        Stream("redis://localhost", options.pop("origin", "one"), lambda otlp: None, **options)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pa%2Fss@host:1/2?password=x", "redis://host:1/2"),
        ("rediss://host", "rediss://host:6379"),
        ("redis://[::1]/0", "redis://[::1]:6379/0"),
        ("unix://user:pass@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_secrets_of_the_address_are_not_shown(url: str, shown: str) -> None:
    """Messages show no name, password or option of an address."""
    assert connect(url)[1] == shown


# -- what never fits, and what is none


def test_an_entry_that_never_fits_is_skipped_and_the_reader_goes_on(
    running: Server, monitor: Callable[..., Monitor], caplog: pytest.LogCaptureFixture
) -> None:
    """An entry of 65 MiB is skipped once, with a count and a reason; later entries are read."""
    running("XADD", "otel-progress", "*", "v", "1", "origin", "x", "otlp", bytes(65 * 1024 * 1024))
    two = monitor("two")
    monitor("one").say("next")
    until(lambda: two.took == [b"next"])
    health = two.stream.health()
    assert (health["skipped"], health["taken"]) == (1, 1)
    assert "68157440 bytes" in health["skipped_why"]
    assert [text for text in caplog.messages if "68157440 bytes" in text]


def test_an_entry_that_redis_may_not_send_is_skipped(server: Server, monitor: Callable[..., Monitor]) -> None:
    """If Redis closes the connection on each read of an entry, because of a lower limit, the reader skips it."""
    server.start(**{"client-output-buffer-limit": "normal 4mb 4mb 0"})
    server("XADD", "otel-progress", "*", "v", "1", "origin", "x", "otlp", bytes(64 * 1024 * 1024))
    two = monitor("two")
    monitor("one").say("next")
    until(lambda: two.took == [b"next"])
    assert two.stream.health()["skipped"] == 1
    assert "bytes of OTLP" not in two.stream.skipped
    until(lambda: "trouble" not in two.stream.health())


def test_a_stream_that_was_replaced_is_read_again_when_it_is_back(
    running: Server, monitor: Callable[..., Monitor]
) -> None:
    """While the key holds a string the monitor reports it; entries wait, and arrive when the key is a stream."""
    one, two = monitor("one"), monitor("two")
    one.say(1)
    until(lambda: two.took == [b"1"])
    running("SET", "otel-progress", "a string")
    until(lambda: "WRONGTYPE" in two.stream.health().get("trouble", ""))
    one.say(2)
    until(lambda: "WRONGTYPE" in one.stream.health().get("trouble", ""))
    running("DEL", "otel-progress")
    until(lambda: two.took == [b"1", b"2"])
    until(lambda: "trouble" not in two.stream.health())


def test_a_fleet_on_one_stream_loses_nothing(running: Server, monitor: Callable[..., Monitor]) -> None:
    """Eight writing monitors all see the entries of the others, beside unreadable entries."""
    fleet = [monitor(f"m{number}") for number in range(8)]
    for number, one in enumerate(fleet):
        one.say(*range(number * 100, number * 100 + 100))
        running("XADD", "otel-progress", "*", "v", "1", "origin", "x", "otlp", bytes(5 * 1024 * 1024))
    until(lambda: all(len(one.took) == 700 for one in fleet))
    until(lambda: all(one.stream.health()["skipped"] == 8 for one in fleet))
    assert all(set(one.took) == set(said(0, 800)) - set(said(n * 100, n * 100 + 100)) for n, one in enumerate(fleet))
