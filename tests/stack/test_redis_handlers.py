"""Handlers with a real Redis: the stream, pub/sub and the archive, while it is killed, restarted, slow, full, or closed."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otel_progress as progress
from otel_progress.handlers import archive_stores, redis_client
from otel_progress.handlers.archive import archive
from otel_progress.handlers.archive_stores import Addition, RedisArchive
from otel_progress.handlers.redis import STREAM, RedisHandler
from otel_progress.live.engine import runtime
from otel_progress.outbound.backoff import Backoff

from .redis_server import PASSWORD, Server, redis_server, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a running redis-server, which keeps what it acknowledged."""
    with redis_server(tmp_path) as found:
        found.start()
        yield found


def entries(server: Server, stream: str = STREAM) -> list[dict[str, Any]]:
    """Return what the stream holds."""
    client = server.client()
    try:
        return [{key.decode(): value.decode() for key, value in one.items()} for _, one in client.xrange(stream)]
    finally:
        client.close()


def ends(server: Server) -> list[str]:
    """Return the ids of the operations whose end is in the stream, in order."""
    return [one["id"] for one in entries(server) if one["event"] == "progress.operation.ended"]


def taken(handler: RedisHandler) -> None:
    """Wait until the handler took what was said so far."""
    assert runtime.ticker.ask(runtime.ticker.round, 20)
    with handler._ready:
        assert handler._ready.wait_for(lambda: not handler._busy and not len(handler._mailbox), 20)


def test_each_change_is_an_entry_and_a_message(server: Server) -> None:
    """An entry has the row of the API; a message, on a channel of its operation, has the same."""
    client = server.client()
    subscribed = client.pubsub(ignore_subscribe_messages=True)
    subscribed.subscribe("progress:j1")
    subscribed.get_message(timeout=5)
    with RedisHandler(server.url, pubsub="progress:{id}"), progress.operation("job", id="j1", total=2):
        with progress.stage("load"):
            progress.advance(2)
    found = entries(server)
    assert [one["event"] for one in found if one["event"] != "progress.updated"] == [
        "progress.operation.started",
        "progress.stage.started",
        "progress.stage.ended",
        "progress.operation.ended",
    ]
    assert {one["v"] for one in found} == {"1"}
    last = json.loads(found[-1]["data"])
    assert (last["id"], last["status"], last["progress"]["completed"]) == ("j1", "completed", 2)
    heard = []
    while (message := subscribed.get_message(timeout=1)) is not None:
        heard.append(json.loads(message["data"]))
    assert [one["event"] for one in heard] == [one["event"] for one in found]
    assert heard[-1]["operation"] == last
    subscribed.close()
    client.close()


def test_the_stream_has_a_limit(server: Server) -> None:
    """`maxlen` holds, about."""
    with RedisHandler(server.url, stream="mine", maxlen=10) as handler:
        for number in range(300):
            progress.operation("job", id=f"j{number}").start().complete()
        taken(handler)
    assert len(entries(server, "mine")) <= 10 + 100  # nodes of 100 entries are trimmed as a whole
    assert entries(server, "mine")[-1]["id"] == "j299"


def test_pubsub_alone_writes_nothing(server: Server) -> None:
    """Without a stream only messages are sent."""
    with RedisHandler(server.url, stream=None, pubsub="all"), progress.operation("job"):
        pass
    assert server("KEYS", "*") == []


def test_killed_and_restarted(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Each end arrives once it is back, in order; the job is not held up, and the outage and its end are logged once."""
    caplog.set_level(logging.INFO, "otel_progress")
    with RedisHandler(server.url) as handler:
        progress.operation("job", id="before").start().complete()
        taken(handler)
        server.kill()
        begun = time.monotonic()
        for number in range(50):
            progress.operation("job", id=f"j{number}").start().complete()
        assert time.monotonic() - begun < 5
        until(lambda: "can't be used" in caplog.text)
        server.start()
        taken(handler)
    assert ends(server) == ["before", *(f"j{number}" for number in range(50))]
    assert [record.exc_info for record in caplog.records] == [None, None]
    assert "can't be used" in caplog.messages[0]
    assert caplog.messages[1] == f"Redis at {handler._client.shown} can be used again"
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("kind", ["handler", "messages", "archive"])
def test_an_outage_at_the_end_is_told_without_a_traceback(
    server: Server, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """What can't be written any more is counted, in one line, whatever was written: entries, messages, the archive."""
    url = server.url
    makers: dict[str, Callable[[], Any]] = {
        "handler": lambda: RedisHandler(url, pubsub="progress:{id}"),
        "messages": lambda: RedisHandler(url, stream=None, pubsub="progress:{id}"),
        "archive": lambda: archive(url),
    }
    made = makers[kind]()
    with made:
        progress.operation("job", id="before").start().complete()
        taken(made)
        server.kill()
        progress.operation("job", id="after").start().complete()
    assert all(record.exc_info is None for record in caplog.records)
    assert len([text for text in caplog.messages if "can't be used" in text]) == 1
    assert len([text for text in caplog.messages if "not written to Redis" in text]) == 1


def test_a_slow_one_gets_the_newest(server: Server) -> None:
    """While Redis stands still, updates of an operation are merged; its end is there."""
    assert server.process is not None
    with RedisHandler(server.url) as handler, progress.operation("job", id="j1", total=1_000) as job:
        taken(handler)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                job.advance(10)
                assert runtime.ticker.ask(lambda: runtime.ticker.round(sample=True), 5)
            assert len(handler._mailbox) <= 2
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        taken(handler)
    assert ends(server) == ["j1"]


def test_out_of_memory(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full Redis refuses writes; they wait until there is room again, however often they were tried."""
    tries: list[int] = []

    def chance() -> float:
        tries.append(1)
        return 0.0

    monkeypatch.setattr(redis_client, "BACKOFF", Backoff(first=0.01, longest=0.01, jitter=chance))
    server("CONFIG", "SET", "maxmemory", "1")
    with RedisHandler(server.url) as handler:
        progress.operation("job", id="j1").start().complete()
        assert runtime.ticker.ask(runtime.ticker.round, 20)
        until(lambda: len(tries) > 3 * redis_client.STRIKES)
        assert entries(server) == []
        server("CONFIG", "SET", "maxmemory", "0")
        taken(handler)
    assert ends(server) == ["j1"]


def test_a_wrong_password_or_key_harms_nobody(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, without the password; what Redis refuses for good is counted, and later writes are tried."""
    caplog.set_level(logging.WARNING, "otel_progress")
    wrong = f"redis://:s3cr3t@127.0.0.1:{server.port}/0"
    with RedisHandler(wrong), progress.operation("job"):
        pass
    server("SET", "taken", "by another program")
    with RedisHandler(server.url, stream="taken") as handler:
        for _ in range(3):
            progress.operation("job").start().complete()
        taken(handler)
        server("DEL", "taken")
        progress.operation("job", id="later").start().complete()
    assert entries(server, "taken")[-1]["id"] == "later"
    assert "s3cr3t" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)
    assert len([text for text in caplog.messages if "not written to Redis" in text]) == 1
    assert len([text for text in caplog.messages if "refused a change (ResponseError: WRONGTYPE" in text]) == 1


def test_texts_that_are_no_utf8(server: Server) -> None:
    """Halves of surrogates, zero bytes and line breaks arrive as JSON that every reader accepts."""
    for name in ("\ud800", "a\x00b\n", "<script>"):
        with RedisHandler(server.url), progress.operation(name):
            pass
    assert all(json.loads(one["data"])["status"] for one in entries(server))


def test_the_archive_survives_all(server: Server) -> None:
    """Status, snapshot and history are there after a restart of Redis and of the program; without Redis it says so."""
    with archive(server.url) as kept, pytest.raises(ValueError, match="no"), progress.operation("job", id="j1"):
        progress.note("hello")
        raise ValueError("no")
    server.kill()
    reader = archive(server.url)
    with pytest.raises(progress.ProgressError, match="can't be read"):
        reader.of("j1")
    server.start()
    found = reader.of("j1")
    assert found is not None
    assert (found.status, found.snapshot["reason"]) == ("failed", "ValueError: no")
    assert found.history[0]["text"].startswith("job started")
    assert reader.ids() == ["j1"]
    assert reader.of("other") is None
    assert kept.of("j1") == found


def test_the_archive_is_bounded_and_expires(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest operations and events stay; nothing of the others, and every key expires."""
    monkeypatch.setattr(archive_stores, "PRUNE_EVERY", 10)
    monkeypatch.setattr(archive_stores, "HISTORY", 5)
    store = RedisArchive(server.url, lambda _: False, 1.0, 20)
    now = time.time()
    store.add(Addition("old", "job", "running", now - 2 * 86_400, "{}", "{}"))
    for number in range(100):
        store.add(Addition(str(number), "job", "running", now + number / 1000, "{}", "{}"))
    for number in range(21):
        store.add(Addition("99", "job", "running", now + 1, "{}", f'{{"n":{number}}}'))
    assert server("ZCARD", f"{archive_stores.PREFIX}all") <= 30
    assert len(server("KEYS", f"{archive_stores.PREFIX}operation:*")) <= 30
    assert server("EXISTS", f"{archive_stores.PREFIX}operation:old") == 0
    found = store.of("99")
    assert found is not None
    assert [event["n"] for event in found.history] == [16, 17, 18, 19, 20]
    assert 86_000 < server("TTL", f"{archive_stores.PREFIX}operation:99") <= 86_400
    store.close()


@pytest.mark.parametrize(
    "options",
    [
        {"maxlen": 0},
        {"maxlen": True},
        {"stream": None},
        {"stream": "otel-progress"},
        {"url": "http://s3cr3t"},
        {"pubsub": "p:{id}:{name}"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    """At the start, and without the password."""
    with pytest.raises(progress.InvalidArgument) as raised:
        RedisHandler(**{"url": "redis://localhost", **options})
    assert "s3cr3t" not in str(raised.value)


def test_the_environment_names_it() -> None:
    """Variables of its own; one that is missing or wrong says so."""
    made = RedisHandler.from_environment(
        {
            "OTEL_PROGRESS_REDIS_URL": "redis://localhost",
            "OTEL_PROGRESS_REDIS_MAXLEN": "7",
            "OTEL_PROGRESS_REDIS_PUBSUB": "c",
        }
    )
    assert (made._stream, made._maxlen, made._channel) == (STREAM, 7, "c")
    with pytest.raises(progress.InvalidArgument, match="set OTEL_PROGRESS_REDIS_URL"):
        RedisHandler.from_environment({})
    with pytest.raises(progress.InvalidArgument, match="OTEL_PROGRESS_REDIS_MAXLEN must be a whole number"):
        RedisHandler.from_environment({"OTEL_PROGRESS_REDIS_URL": "redis://x", "OTEL_PROGRESS_REDIS_MAXLEN": "many"})
