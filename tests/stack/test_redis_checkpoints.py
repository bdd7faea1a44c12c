"""Checkpoints in a real Redis: what it keeps, who may write, and what happens when it is away."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from otel_progress import CheckpointError, InvalidArgument, LeaseLost, OperationHeld, clock, operation, procfs, track
from otel_progress.durable import saving
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.redis import RedisStore
from otel_progress.durable.store import Batch, CheckpointStore, Claim, Keys, Lease, Suspect, open_store, standing
from otel_progress.testing import FakeClock

from .redis_server import QUOTED, Server, redis_server

HERE = this_process()
GONE = replace(HERE, ticks=1)
AFAR = Holder("elsewhere", "", "", 4711, 0, ("python", "job.py"), "/srv")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a running redis-server, which keeps what it acknowledged."""
    with redis_server(tmp_path) as found:
        found.start()
        yield found


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    """Return an empty store."""
    found = RedisStore(server.url)
    yield found
    found.close()


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """Return a clock that moves only when it is told to."""
    found = FakeClock()
    before = clock.install(found)
    yield found
    clock.install(before)


def claim(holder: Holder = AFAR, *, fresh: bool = False) -> Claim:
    return Claim("a/b {c}", "job", holder, "v1", fresh)


def test_it_keeps_what_was_written(store: RedisStore) -> None:
    """Keys, states, and how far it is, for every process."""
    assert isinstance(store, CheckpointStore)
    lease = store.acquire(claim()).lease
    assert lease == Lease("a/b {c}", 1, 1)
    many = [f'key "{number}" é/\\' for number in range(2500)]
    store.write(lease, Batch(done={"": many, "s": ["x"]}, failed={"": ["z"]}))
    store.write(lease, Batch(failed={"s": ["y"]}, states={("s", "state"): '{"n":[]}'}))
    store.write(lease, Batch(done={"s": ["y"]}, span=("0" * 31 + "1", "0" * 15 + "2")))
    assert store.keys(lease.id, "") == Keys(frozenset(many), frozenset("z"))
    assert store.keys(lease.id, "s") == Keys(frozenset("xy"))
    assert (store.state(lease.id, "s", "state"), store.state(lease.id, "s", "result")) == ('{"n":[]}', None)
    store.write(lease, Batch(closed=["s"], ended=("failed", "ValueError: no")))
    assert store.keys(lease.id, "s") == Keys()
    (found,) = store.operations()
    assert (found.status, found.reason, found.fingerprint, found.holder) == ("failed", "ValueError: no", "v1", AFAR)
    assert found.span_id == "0" * 15 + "2"
    assert found.ended_at is not None


def test_an_operation_has_one_holder(store: RedisStore, server: Server) -> None:
    """Others are refused until the lease is over by the server's clock; then who held it can't write any more."""
    old = store.acquire(claim()).lease
    with pytest.raises(OperationHeld, match="process 4711 on elsewhere"):
        store.acquire(claim(HERE))
    with pytest.raises(OperationHeld):
        store.forget(old.id)
    key = next(key for key in server.client().keys("*a/b*") if b"lease_until" in server.client().hkeys(key))
    server.client().hset(key, "lease_until", "1")
    new = store.acquire(claim(HERE)).lease
    assert (new.attempt, new.fence) == (2, 2)
    with pytest.raises(LeaseLost):
        store.write(old, Batch(done={"": ["x"]}))
    store.write(new, Batch(ended=("completed", None)))
    store.write(new, Batch(ended=("completed", None)))  # its answer may have been lost
    with pytest.raises(LeaseLost):
        store.write(new, Batch(done={"": ["x"]}))
    store.forget(new.id)
    assert store.operations() == []
    assert server.client().keys("*a/b*") == []


def test_a_dead_holder_holds_nothing(store: RedisStore) -> None:
    """Proof of death on the same machine frees it at once, and counts the keys in hand."""
    for _ in range(2):
        lease = store.acquire(claim(GONE)).lease
        store.write(lease, Batch(hands={"": ["x"], "s": ["y"]}))
    assert standing(store.operations()[0]) == "lost"
    lease = store.acquire(claim(HERE)).lease
    assert store.suspects(lease.id) == [Suspect("", "x", 2, False), Suspect("s", "y", 2, False)]
    store.set_aside(lease.id, "s", "y")
    store.write(lease, Batch(done={"": ["x"]}))
    assert store.suspects(lease.id) == [Suspect("s", "y", 2, True)]
    assert store.keys(lease.id, "s").aside == {"y"}
    store.died(lease.id, lease.attempt, "SIGKILL")
    store.died(lease.id, 1, "SIGSEGV")
    assert [(one.status, one.reason) for one in store.operations()] == [("lost", "SIGKILL")]
    fresh = store.acquire(claim(HERE, fresh=True)).lease
    assert store.suspects(fresh.id) == []


def test_an_alive_process_of_this_machine_is_not_dead(store: RedisStore) -> None:
    """Another process that runs here holds its operation."""
    seen = procfs.look(os.getppid())
    assert seen is not None
    store.acquire(claim(replace(HERE, pid=seen.pid, ticks=seen.ticks)))
    assert standing(store.operations()[0]) == "running"
    with pytest.raises(OperationHeld):
        store.acquire(claim(HERE))


def test_an_address_is_one_store(server: Server) -> None:
    """A wrong one is refused, and no error shows the password."""
    first = open_store(server.url)
    assert open_store(server.url) is first
    first.close()
    with pytest.raises(InvalidArgument, match="Redis"):
        RedisStore("redis://localhost:port/0")
    with pytest.raises(CheckpointError) as refused:
        RedisStore(server.url.replace(QUOTED, "wr0ng"))
    assert "wr0ng" not in str(refused.value)
    assert "check address and password" in str(refused.value)


def test_a_job_survives_a_server_that_is_killed(server: Server) -> None:
    """With `required=False` it goes on without the server, and saves all once that is back."""
    with operation("job", id="job-1", resume=server.url, required=False) as op:
        for number in track(range(60), key=int):
            if number == 20:
                op._session._writer.flush(5)
                server.kill()
            if number == 40:
                server.start()
            if number > 50:
                threading.Event().wait(0.02)
    with operation("job", id="job-1", resume=server.url) as op:
        assert op.attempt == 2
        assert list(track(range(60), key=int)) == []


def test_a_server_that_stays_away_stops_a_job_that_needs_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes on until 1,000 marks are not saved, waits for the server, and is told when that lasts."""
    monkeypatch.setattr(saving, "PATIENCE", 0.5)
    taken = []
    with pytest.raises(CheckpointError, match="can't be used"):
        with operation("job", id="job-3", resume=server.url) as op:
            for number in track(range(10_000), key=int):
                taken.append(number)
                if number == 20:
                    op._session._writer.flush(5)
                    server.kill()
    assert 21 <= len(taken) <= 1021
    with pytest.raises(CheckpointError):
        operation("job", id="job-2", resume=server.url).start()


def test_what_ends_the_process_twice_is_set_aside(store: RedisStore) -> None:
    """Deaths are counted as in a file; the innermost key is blamed; a stop by somebody blames none."""
    for how in ("SIGTERM", "SIGKILL", "SIGSEGV"):
        lease = store.acquire(claim(GONE)).lease
        store.write(lease, Batch(hands={"": ["x"], '["x"]/s': ["y"]}))
        if how is not None:
            store.died(lease.id, lease.attempt, how)
    store.acquire(claim(GONE))
    aside = {(one.scope, one.key, one.deaths) for one in store.suspects(lease.id) if one.aside}
    assert aside == {('["x"]/s', "y", 2)}
    assert store.keys(lease.id, '["x"]/s').aside == {"y"}
    store.release(lease.id)
    assert store.suspects(lease.id) == []


def test_command_in_redis_has_no_secrets(store: RedisStore) -> None:
    """Others may read the server, so secrets of the command line are masked there."""
    store.acquire(claim(replace(AFAR, command=("job", "--token", "hunter2xyz"))))
    (found,) = store.operations()
    assert found.holder.command == ("job", "--token", "[redacted]")


def test_what_runs_never_expires(store: RedisStore, server: Server) -> None:
    """What ended expires after 30 days; what may have died when its lease is seen to be over, unless it writes."""

    def kept() -> set[int]:
        """The days for which each key of the operation is kept; -1 for ever."""
        return {round(one / 86_400) if one > 0 else -1 for one in map(client.ttl, client.keys("*a/b*"))}

    client = server.client()
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(done={"": ["x"]}, states={("", "state"): "{}"}, hands={"": ["y"]}))
    assert kept() == {-1}
    RedisStore(server.url).acquire(Claim("b", "job", HERE))
    assert kept() == {-1}
    client.hset(min(client.keys("*a/b*"), key=len), "lease_until", "1")
    RedisStore(server.url).acquire(Claim("c", "job", HERE))
    assert kept() == {30}
    store.write(lease, Batch(done={"": ["y"]}))
    assert kept() == {-1}
    store.write(lease, Batch(ended=("failed", None)))
    assert kept() == {30}
    lease = store.acquire(claim(GONE)).lease
    assert kept() == {-1}
    store.write(lease, Batch(hands={"": ["z"]}))
    store.died(lease.id, lease.attempt, "SIGSEGV")
    store.set_aside(lease.id, "", "z")
    assert kept() == {30}
    client.flushall()
    with pytest.raises(LeaseLost, match="was deleted from redis://"):
        store.write(lease, Batch(done={"": ["y"]}))


def test_a_clock_of_a_process_deletes_nothing(store: RedisStore, fake: FakeClock) -> None:
    """Days go by the clock of the server, whatever a process believes."""
    store.write(store.acquire(Claim("done", "job", HERE)).lease, Batch(done={"": ["x"]}, ended=("failed", None)))
    lease = store.acquire(claim()).lease
    for days in (40, -80, 4000):
        fake.jump(days * 86_400)
        store._prune_at = 0.0
        store.acquire(Claim(f"ahead {days}", "job", HERE))
    store.write(lease, Batch(done={"": ["y"]}))
    assert store.keys("done", "").done == {"x"}
