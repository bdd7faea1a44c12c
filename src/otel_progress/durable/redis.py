"""The store in Redis, which the processes of many machines share.

Each change is one script, so it is atomic. Leases go by the clock of the server. An operation that runs never expires;
one that ended, or whose lease was seen to be over, expires after the days for which it is kept. What survives a crash
of the server is what its own persistence keeps: with `appendfsync everysec`, all but the last second.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from otel_progress import clock
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.kept import (
    KEEP_DAYS,
    LEASE,
    RUNNING,
    STOPPED,
    Acquired,
    Batch,
    Claim,
    Keys,
    Kind,
    Lease,
    StoredOperation,
    Summary,
    Suspect,
    is_blamed,
    lost,
    poisonous,
    refused,
)
from otel_progress.errors import CheckpointError, InvalidArgument, MissingDependency
from otel_progress.model.command_line import without_secrets
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.values import shown

T = TypeVar("T")
PREFIX: Final = "otel-progress:checkpoint:"
SOCKET_SECONDS: Final = 5.0
"""Seconds that the server may be silent."""
PRUNE_EVERY: Final = 3600.0
"""Seconds between two looks for operations whose lease is over."""
SCRIPTS: Final = ("acquire", "write", "died", "expire")
_SUMMARY: Final = ("completed", "total", "unit", "stage", "message")
_HOLDER: Final = ("host", "boot", "namespace", "pid", "ticks", "command", "cwd")


_stores: Final[dict[str, RedisStore]] = {}
_lock = threading.Lock()


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def opened(url: str) -> RedisStore:
    """The store of an address; one for each."""
    with _lock:
        if url not in _stores:
            _stores[url] = RedisStore(url)
        return _stores[url]


class RedisStore:
    """Keeps operations in Redis.

    Attributes:
        url: the address, without a password.
    """

    def __init__(self, url: str, *, keep_days: float = KEEP_DAYS) -> None:
        """Connect to a server.

        Args:
            url: such as `redis://localhost:6379/0`.
            keep_days: days after its last sign of life for which an operation is kept.

        Raises:
            MissingDependency: if the package `redis` is not installed.
            InvalidArgument: if the address is invalid.
            CheckpointError: if the server does not answer.
        """
        try:
            import redis
        except ImportError:
            raise MissingDependency("a checkpoint store in Redis needs: pip install 'otel-progress[redis]'") from None
        self.url = _without_password(url)
        self._errors = (redis.RedisError, OSError)
        self._keep = round(keep_days * 86_400)
        self._prune_at = 0.0
        database = urlsplit(url).path.strip("/")
        if database and not database.isdecimal() and not url.startswith("unix:"):
            raise InvalidArgument(f"{self.url} is no address of Redis: a database is a number, not {shown(database)}")
        try:
            self._client: Any = redis.Redis.from_url(
                url, decode_responses=True, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS
            )
        except ValueError as error:
            raise InvalidArgument(f"{self.url} is no address of Redis: {error}") from None
        self._scripts = {name: self._client.register_script(_script(name)) for name in SCRIPTS}
        try:
            self._run(self._client.ping)
        except BaseException:
            self._client.close()
            raise

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except self._errors as error:
            told = CheckpointError(
                f"Redis at {self.url} can't be used ({type(error).__name__}: {error}): start it, or check address and "
                "password"
            )
            told.passing = True
            raise told from None

    def _call(self, script: str, id: str, *arguments: str | float) -> Any:
        return self._run(lambda: self._scripts[script](keys=[_key(id)], args=arguments))

    # -- the lease

    def acquire(self, claim: Claim) -> Acquired:
        """See `CheckpointStore.acquire`."""
        self._prune()
        before = self.operation(claim.id)
        here = claim.holder
        gone = before is not None and (before.holder.is_gone(here) or before.holder.is_same(here))
        row: dict[str, Any] = {"name": claim.name, "fingerprint": claim.fingerprint or ""}
        row |= {name: getattr(here, name) for name in _HOLDER} | {"command": json.dumps(_masked(here.command))}
        attempt, fence, counted = self._call(
            *("acquire", claim.id, json.dumps(row), 0 if before is None else before.fence),
            *(int(gone), int(claim.fresh), LEASE, int(before is not None and is_blamed(before, here))),
        )
        if attempt == "held":
            found = self.operation(claim.id) or before
            if found is None:
                raise CheckpointError(f"operation {claim.id!r} was removed from {self.url} just now: start again")
            raise refused(found, clock.unix())
        self._run(lambda: self._client.zadd(f"{PREFIX}all", {claim.id: clock.unix()}))
        self._blame(claim.id, counted, None)
        return Acquired(Lease(claim.id, int(attempt), int(fence)), before)

    def _prune(self) -> None:
        """Let operations expire whose process is silent; the next write of one that lives ends that."""
        now = clock.monotonic()
        if now < self._prune_at:
            return
        self._prune_at = now + PRUNE_EVERY
        ids = self._run(lambda: self._client.zrange(f"{PREFIX}all", 0, -1))

        def work() -> list[str | None]:
            pipe = self._client.pipeline(transaction=False)
            for id in ids:
                pipe.hget(_key(id), "status")
            found: list[str | None] = pipe.execute()
            return found

        for id, status in zip(ids, self._run(work), strict=True):
            if status == RUNNING:
                self._call("expire", id, self._keep)

    def _blame(self, id: str, counted: str, how: str | None) -> None:
        """Set aside what ended the process again, after deaths were counted."""
        for scope, key in poisonous([(path, item, deaths) for path, item, deaths in json.loads(counted)], how):
            self.set_aside(id, scope, key)

    def died(self, id: str, attempt: int, how: str) -> None:
        """See `CheckpointStore.died`."""
        self._blame(
            id, self._call("died", id, attempt, how, int(how.partition(",")[0] not in STOPPED), self._keep), how
        )

    # -- what is kept

    def write(self, lease: Lease, batch: Batch) -> None:
        """See `CheckpointStore.write`."""
        scopes: dict[str, dict[str, Any]] = {}
        for name, parts in (("done", batch.done), ("failed", batch.failed)):
            for path, part in parts.items():
                scopes.setdefault(path, {"path": path})[name] = part
        for path, hand in batch.hands.items():
            scopes.setdefault(path, {"path": path})["hand"] = json.dumps(hand)
        fields: dict[str, Any] = {} if batch.summary is None else dict(vars(batch.summary))
        if batch.span is not None:
            fields["trace_id"], fields["span_id"] = batch.span
        told: dict[str, Any] = {
            "scopes": list(scopes.values()),
            "states": [[path, kind, text] for (path, kind), text in batch.states.items()],
            "closed": list(batch.closed),
            "fields": {key: "" if value is None else value for key, value in fields.items()},
            "saves": batch.saves,
        }
        if batch.ended is not None:
            told["ended"] = [batch.ended[0], batch.ended[1] or ""]
            told["died"] = batch.died is not None
        said = self._call("write", lease.id, lease.fence, json.dumps(told), LEASE, self._keep)
        if said in ("lost", "deleted"):
            raise lost(lease, self.url if said == "deleted" else None)
        if batch.died is not None and said.startswith("["):
            self._blame(lease.id, said, batch.died)

    def keys(self, id: str, scope: str) -> Keys:
        """See `CheckpointStore.keys`."""
        base = _key(id)

        def work() -> Keys:
            pipe = self._client.pipeline()
            pipe.smembers(f"{base}:done:{scope}")
            pipe.smembers(f"{base}:failed:{scope}")
            pipe.smembers(f"{base}:aside")
            pipe.hkeys(f"{base}:deaths")
            done, failed, aside, deaths = pipe.execute()
            kept, suspects = (_of_scope(each, scope) for each in (aside, deaths))
            return Keys(frozenset(done), frozenset(failed), kept, suspects - kept)

        return self._run(work)

    def state(self, id: str, scope: str, kind: Kind) -> str | None:
        """See `CheckpointStore.state`."""
        found: str | None = self._run(lambda: self._client.hget(f"{_key(id)}:states", f"{kind}:{scope}"))
        return found

    # -- for those who look

    def operation(self, id: str) -> StoredOperation | None:
        """See `CheckpointStore.operation`."""
        return _read(id, self._run(lambda: self._client.hgetall(_key(id))))

    def operations(self) -> list[StoredOperation]:
        """See `CheckpointStore.operations`."""

        def work() -> list[StoredOperation]:
            ids = self._client.zrange(f"{PREFIX}all", 0, -1)
            pipe = self._client.pipeline(transaction=False)
            for id in ids:
                pipe.hgetall(_key(id))
            found = {id: _read(id, row) for id, row in zip(ids, pipe.execute(), strict=True)}
            gone = [id for id, one in found.items() if one is None]
            if gone:
                self._client.zrem(f"{PREFIX}all", *gone)
            return sorted((one for one in found.values() if one), key=lambda one: (-one.seen_at, one.id))

        return self._run(work)

    def suspects(self, id: str) -> list[Suspect]:
        """See `CheckpointStore.suspects`."""
        base = _key(id)
        counts = self._run(lambda: self._client.hgetall(f"{base}:deaths"))
        aside = self._run(lambda: self._client.smembers(f"{base}:aside"))
        found = [(*_apart(one), int(counts.get(one, 0)), one in aside) for one in {*counts, *aside}]
        return [Suspect(*one) for one in sorted(found)]

    def set_aside(self, id: str, scope: str, key: str) -> None:
        """See `CheckpointStore.set_aside`."""
        aside = f"{_key(id)}:aside"
        self._run(lambda: self._client.sadd(aside, _pair(scope, key)))
        if self._run(lambda: self._client.ttl(_key(id))) >= 0:
            self._run(lambda: self._client.expire(aside, self._keep))

    def release(self, id: str) -> None:
        """See `CheckpointStore.release`."""
        self._run(lambda: self._client.delete(f"{_key(id)}:deaths", f"{_key(id)}:aside"))

    def forget(self, id: str) -> None:
        """See `CheckpointStore.forget`."""
        found = self.operation(id)
        if found is not None and found.status == RUNNING and found.lease_until > self._server_time():
            if not found.holder.is_gone(this_process()):
                raise refused(found, clock.unix())
        base = _key(id)

        def work() -> None:
            paths = self._client.hkeys(f"{base}:scopes")
            items = [f"{base}:{kind}:{path}" for path in paths for kind in ("done", "failed")]
            parts = [f"{base}{part}" for part in ("", ":scopes", ":states", ":hands", ":deaths", ":aside")]
            self._client.delete(*parts, *items)
            self._client.zrem(f"{PREFIX}all", id)

        self._run(work)

    def _server_time(self) -> float:
        seconds, micros = self._run(self._client.time)
        return float(seconds) + float(micros) / 1e6

    def close(self) -> None:
        """Close the connections; another call opens them again."""
        self._client.close()


def _key(id: str) -> str:
    """The hash of an operation; all its keys are in one slot of a cluster."""
    return f"{PREFIX}{{{id}}}"


def _masked(command: Sequence[str]) -> tuple[str, ...]:
    """A command line without secrets, as others may read the server."""
    return without_secrets(command, mask_secrets)


def _pair(scope: str, key: str) -> str:
    """A scope and a key as one text; neither has a NUL."""
    return f"{scope}\0{key}"


def _apart(pair: str) -> tuple[str, str]:
    scope, _, key = pair.partition("\0")
    return scope, key


def _of_scope(pairs: Iterable[str], scope: str) -> frozenset[str]:
    """The keys of one scope."""
    return frozenset(item for path, item in map(_apart, pairs) if path == scope)


def _script(name: str) -> str:
    folder = resources.files("otel_progress.durable") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))


def _read(id: str, row: dict[str, str]) -> StoredOperation | None:
    if not row:
        return None
    holder = {name: row.get(name, "") for name in _HOLDER}
    about: dict[str, Any] = {
        **holder,
        "pid": int(holder["pid"] or 0),
        "ticks": int(holder["ticks"] or 0),
        "command": tuple(json.loads(holder["command"] or "[]")),
    }
    far = {name: row.get(name) or None for name in _SUMMARY}
    numbers = {name: None if far[name] is None else float(far[name] or 0) for name in ("completed", "total")}
    return StoredOperation(
        id=id,
        name=row.get("name", ""),
        attempt=int(row.get("attempt", 0)),
        status=row.get("status", ""),
        reason=row.get("reason") or None,
        holder=Holder(**about),
        fingerprint=row.get("fingerprint") or None,
        started_at=float(row.get("started_at", 0)),
        ended_at=float(row["ended_at"]) if row.get("ended_at") else None,
        seen_at=float(row.get("seen_at", 0)),
        lease_until=float(row.get("lease_until", 0)),
        lease_mono=None,
        fence=int(row.get("fence", 0)),
        summary=Summary(numbers["completed"], numbers["total"], far["unit"], far["stage"], far["message"]),
        checkpoint_at=float(row["checkpoint_at"]) if row.get("checkpoint_at") else None,
        trace_id=row.get("trace_id") or None,
        span_id=row.get("span_id") or None,
    )


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidArgument(f"the address of the checkpoint store in Redis is invalid: {error}") from None
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="").geturl()
