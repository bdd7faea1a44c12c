"""Shares what this monitor takes in with other programs, and with other monitors, over one Redis Stream.

Every monitor writes what came to it, and reads what came to the others, from the oldest entry that the stream still
holds; so one that starts later shows the same. An entry may come twice (after a broken connection, or a restart):
whoever reads must not mind, as the ledger does not. What came over the stream must not be published again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from otel_progress import clock
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.monitor.intake.records import BYTES as ENTRY_BYTES
from otel_progress.monitor.intake.records import Refused
from otel_progress.outbound.backoff import Backoff

log = logging.getLogger("otel_progress")

KEY: Final = "otel-progress"
MOST: Final = 100_000
"""About so many entries stay in the stream."""
VERSION: Final = b"1"
WAITING: Final = 10_000
"""Entries that may wait for Redis."""
WAITING_BYTES: Final = 32 * 1024 * 1024
"""The most that they hold together."""
WRITE_ENTRIES: Final = 256
WRITE_BYTES: Final = 4 * 1024 * 1024
READ_ENTRIES: Final = 32
"""Entries that are read at once; each may be large."""
BLOCK_SECONDS: Final = 1.0
SOCKET_SECONDS: Final = 5.0
"""The longest that Redis may say nothing; above the time for which a read blocks."""
BACKOFF: Final = Backoff(longest_asked=5.0)
LOOK_EVERY: Final = 1.0
"""From one look at how far the stream is to the next, in seconds."""
STRIKES: Final = 3
"""So often Redis may hang up on a single entry, and answer at once after that, before the entry is dropped."""
LOOK_REST: Final = 60.0
"""How long there is no such look after one that failed, in seconds: it brings the first and the last entry with it."""
_START: Final = "0-0"
_NEXT: Final = "local e = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)[1]; return e and e[1]"
"""The id of the next entry without the entry itself."""


class Item(NamedTuple):
    """One entry of the stream.

    Attributes:
        operation_id: the operation that it is about.
        event: the name of the event.
        row: the operation as it is after that, as JSON text.
        otlp: an ExportLogsServiceRequest with the records as they came.
    """

    operation_id: str
    event: str
    row: str
    otlp: bytes


class Place:
    """How far a stream was read, and how much of it was gone before it was read."""

    def __init__(self) -> None:
        """Before the oldest entry that there is; what was gone by then is not lost."""
        self.last = _START
        self.lost = 0
        self.lag: int | None = None
        self._count: int | None = None  # entries from the stream's first day up to `last`

    def passed(self, id: str) -> None:
        """This entry was read."""
        self.last = id
        if self._count is not None:
            self._count += 1

    def nothing(self) -> None:
        """There is no stream."""
        self._count = self.lag = 0

    def look(self, info: Mapping[str, Any]) -> None:
        """Compare with what XINFO STREAM says; its count of all entries needs Redis 7, lag is None without it."""
        newest, length, added = _text(info["last-generated-id"]), info["length"], info.get("entries-added")
        if _order(newest) < _order(self.last):  # another stream: Redis lost its data, and maybe its clock was set back
            self.last, self._count = _START, None
        if added is None:
            self.lag = None
            return
        if self._count is not None and self._count > added:
            self._count = None  # another stream, of which some may be read already
        first = info.get("first-entry")
        if not first or _order(_text(first[0])) > _order(self.last):
            self._behind(added - length)  # all that the stream holds is unread
        if newest == self.last:
            self._behind(added)
        self.lag = None if self._count is None else added - self._count

    def _behind(self, count: int) -> None:
        """So many entries are behind us: what we did not read of them is lost, unless it is not known what we read."""
        if self._count is not None:
            self.lost += max(0, count - self._count)
            count = max(count, self._count)
        self._count = count


class Stream:
    """Writes to a Redis Stream, and reads what others write there, from two threads, until `close()`.

    Nobody waits for Redis, and whether it is there makes no difference to anyone but the readers of the stream: while
    it is away what is published waits, bounded, and both threads go on where they were when it comes back. An outage
    is told once.

    Attributes:
        published: entries that Redis took.
        taken: entries of others that `take` took.
        dropped: what did not get into the stream, by reason.
        unreadable: entries of others that were skipped.
        skipped: why the last one of these was.
        trouble: why Redis can't be used, while that is so.
    """

    def __init__(
        self, url: str, origin: str, take: Callable[[bytes], object], *, key: str = KEY, most: int = MOST
    ) -> None:
        """Begin at once; Redis need not be there yet.

        Args:
            url: redis://, rediss:// or unix://, with a name and a password if there are any.
            origin: the name of this monitor; its own entries are not read.
            take: is given the OTLP of each entry of others, from a thread of ours. It may wait; where it raises
                `Refused` with 429 or 503 it gets the same again later, for any other error the entry is skipped.
            key: the key of the stream.
            most: about so many entries stay in it.

        Raises:
            InvalidArgument: for an address, key, origin or length that can't be meant.
            MissingDependency: where the client for Redis is not installed.
        """
        if not key or not origin:
            raise InvalidArgument("the key of the Redis Stream and the origin must not be empty")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidArgument(f"most must be a whole number above 0, not {most!r}")
        self._client, self.shown = _connect(url)
        self._origin, self._key, self._most, self._give = origin.encode(), key, most, take
        self.published = self.taken = self.unreadable = 0
        self.dropped: Counter[str] = Counter()
        self.skipped = self.trouble = ""
        self._place = Place()
        self._narrow = self._refusals = 0
        self._look_at = 0.0
        self._waiting: deque[Item] = deque()
        self._bytes = 0
        self._sending = 0
        self._careful = False
        self._strikes = 0
        self._troubled: set[str] = set()
        self._last_chance: float | None = None
        self._stopped = False
        self._ready = threading.Condition()
        self._threads = [
            threading.Thread(target=run, name=f"otel-progress-redis-{what}", daemon=True)
            for what, run in (("writer", self._write), ("reader", self._read))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def lost(self) -> int:
        """Entries that were trimmed away before they were read; 0 with a Redis older than 7, which doesn't tell."""
        return self._place.lost

    @property
    def lag(self) -> int | None:
        """Entries that are not read yet, as of the last look, at most a second ago; None where it is not known."""
        return self._place.lag

    def publish(self, items: Sequence[Item]) -> None:
        """Write these after what waits; where there is no room the oldest go. It never waits for Redis."""
        with self._ready:
            if self._stopped:
                self.dropped["it came after the end"] += len(items)
                return
            for item in items:
                self._put(item)
            self._ready.notify_all()

    def close(self, timeout: float) -> None:
        """Write what waits, within so many seconds, and stop; it may be called twice."""
        deadline = clock.monotonic() + timeout
        with self._ready:
            self._last_chance = deadline
            self._ready.notify_all()
            while self._waiting and (left := deadline - clock.monotonic()) > 0:
                self._ready.wait(left)
            self._stopped = True
            if self._waiting:
                self.dropped["not written at the end"] += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        try:
            self._client.close()
        except Exception:
            log.debug("the connection to Redis could not be closed", exc_info=True)

    def health(self) -> dict[str, Any]:
        """How it is: what went each way, what did not, and why."""
        with self._ready:
            dropped = sum(self.dropped.values())
        found: dict[str, Any] = {
            "published": self.published,
            "dropped": dropped,
            "taken": self.taken,
            "lost": self.lost,
        }
        found |= {"skipped": self.unreadable, "lag": self.lag}
        words = {"skipped_why": self.skipped, "trouble": self.trouble}
        return found | {key: text for key, text in words.items() if text}

    def losses(self) -> list[str]:
        """What did not get through, in words; a line for each reason."""
        with self._ready:
            said = [
                f"{count} entries were not written to Redis at {self.shown}: {reason}"
                for reason, count in sorted(self.dropped.items())
            ]
        if self.lost:
            said.append(f"{self.lost} entries were trimmed from the stream at {self.shown} before they were read")
        if self.unreadable:
            said.append(f"{self.unreadable} entries of the stream at {self.shown} could not be read")
        return said

    # -- writing

    def _put(self, item: Item) -> None:
        if _size(item) > ENTRY_BYTES:
            self.dropped["more than an entry may hold"] += 1
            if len(item.row) > ENTRY_BYTES // 4:  # in UTF-8 a character has up to 4 bytes
                return
            item = item._replace(otlp=b"")
        self._waiting.append(item)
        self._bytes += _size(item)
        while (len(self._waiting) > WAITING or self._bytes > WAITING_BYTES) and self._sending < len(self._waiting) - 1:
            self._bytes -= _size(self._waiting[self._sending])
            del self._waiting[self._sending]
            self.dropped["too many waited"] += 1

    def _write(self) -> None:
        failures = 0
        while batch := self._batch():
            try:
                failed = self._send(batch)
                error = next(iter(failed.values()), None)
            except Exception as raised:
                failed, error = self._without_poison(batch, raised)
            with self._ready:
                self._sent(failed)
            if error is None:
                self._well("writer")
                failures = 0
            else:
                self._trouble("writer", error)
                failures = self._pause(failures + 1)

    def _batch(self) -> list[Item]:
        """Wait for entries; nothing at the end."""
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._stopped)
            batch: list[Item] = []
            size = 0
            for item in self._waiting:
                size += _size(item)
                if batch and (self._careful or len(batch) == WRITE_ENTRIES or size > WRITE_BYTES):
                    break
                batch.append(item)
            self._sending = len(batch)
            return batch

    def _send(self, batch: list[Item]) -> dict[int, Exception]:
        """Write all; returns what Redis refused, by its place in the batch."""
        pipe = self._client.pipeline(transaction=False)
        for item in batch:
            fields = {
                "v": VERSION,
                "origin": self._origin,
                "id": _bytes(item.operation_id),
                "event": _bytes(item.event),
                "data": _bytes(item.row),
                "otlp": item.otlp,
            }
            pipe.xadd(self._key, fields, maxlen=self._most, approximate=True)
        answers = pipe.execute(raise_on_error=False)
        failed = {at: answer for at, answer in enumerate(answers) if isinstance(answer, Exception)}
        self.published += len(batch) - len(failed)
        return failed

    def _without_poison(self, batch: list[Item], error: Exception) -> tuple[dict[int, Exception], Exception | None]:
        """After a broken connection go one by one, and give up an entry on which Redis hangs up again and again."""
        alone, self._careful = len(batch) == 1, True
        try:
            self._strikes = self._strikes + 1 if self._client.ping() and alone else 0
        except Exception:
            self._strikes = 0
        if self._strikes < STRIKES:
            return dict.fromkeys(range(len(batch)), error), error
        self._strikes = 0
        with self._ready:
            self.dropped["Redis hung up on it"] += 1
        return {}, None

    def _sent(self, failed: Mapping[int, Exception]) -> None:
        """Forget the batch; what failed of it stays first."""
        sending, self._sending = self._sending, 0
        if not self._waiting:
            return  # it was cleared at the end
        first = [self._waiting.popleft() for _ in range(sending)]
        self._bytes -= sum(_size(item) for at, item in enumerate(first) if at not in failed)
        self._waiting.extendleft(first[at] for at in sorted(failed, reverse=True))
        if not failed:
            self._careful, self._strikes = False, 0
        self._ready.notify_all()

    # -- reading

    def _read(self) -> None:
        failures = 0
        while not self._stopped:
            try:
                self._look_now_and_then()
                count = 1 if self._narrow else READ_ENTRIES
                answer = self._client.xread({self._key: self._place.last}, count, round(BLOCK_SECONDS * 1000))
            except Exception as error:
                self._trouble("reader", error)
                self._step_over(error)
                failures, self._look_at = self._pause(failures + 1), 0.0
                continue
            self._well("reader")
            failures, self._refusals, self._narrow = 0, 0, max(0, self._narrow - 1)
            for _, entries in answer or ():
                for id, fields in entries:
                    if not self._entry(fields or {}):
                        return
                    self._place.passed(_text(id))

    def _step_over(self, error: Exception) -> None:
        """Skip an entry that can't be read although Redis is well, as one that is larger than Redis may send."""
        from redis.exceptions import ResponseError

        self._narrow = READ_ENTRIES
        try:
            self._refusals = self._refusals + 1 if self._client.ping() and not isinstance(error, ResponseError) else 0
            if self._refusals <= STRIKES:
                return
            self._refusals = 0
            id = self._client.eval(_NEXT, 1, self._key, self._place.last)
        except Exception:  # it is told already that Redis can't be used
            log.debug("the next entry of the stream could not be found", exc_info=True)
            return
        if id is not None:
            self._skip(error)
            self._place.passed(_text(id))

    def _look_now_and_then(self) -> None:
        now = clock.monotonic()
        if now < self._look_at:
            return
        try:
            self._look()
        except Exception:
            if not self._client.ping():
                raise
            self._look_at = now + LOOK_REST
            self._place.lag = None
            log.debug("how far the stream is could not be read", exc_info=True)
        else:
            took = clock.monotonic() - now
            self._look_at = now + max(LOOK_EVERY, 20 * took)  # a large entry comes with each look

    def _look(self) -> None:
        from redis.exceptions import ResponseError

        try:
            self._place.look(self._client.xinfo_stream(self._key))
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            self._place.nothing()

    def _entry(self, fields: Mapping[bytes, bytes]) -> bool:
        """Give an entry on, once there is room for it; whether to go on."""
        if fields.get(b"origin") == self._origin:
            return True
        failures = 0
        while not self._stopped:
            try:
                if fields.get(b"v") != VERSION or not fields.get(b"otlp"):
                    raise ValueError("it is not an entry of this version, or has no OTLP")
                if len(fields[b"otlp"]) > ENTRY_BYTES:
                    self._narrow = READ_ENTRIES  # there may be more; all that is read at once is in memory
                    raise ValueError(f"it has {len(fields[b'otlp'])} bytes of OTLP, more than {ENTRY_BYTES}")
                self._give(fields[b"otlp"])
            except Refused as refused:
                if refused.status in (429, 503):
                    failures = self._pause(failures + 1, refused.retry_after)
                    continue
                self._skip(refused)
            except Exception as error:
                self._skip(error)
            else:
                self.taken += 1
            return True
        return False

    def _skip(self, error: Exception) -> None:
        self.unreadable += 1
        self.skipped = f"{type(error).__name__}: {str(error)[:200]}"
        if self.unreadable == 1:
            log.warning(
                "an entry of the stream at %s can't be read (%s: %s); it is skipped, as all such are",
                self.shown,
                type(error).__name__,
                str(error)[:200],
            )

    # -- both

    def _pause(self, failures: int, asked: float | None = None) -> int:
        """Wait after failures in a row, only briefly when the end is near; returns the count to continue from."""
        pause = max(BACKOFF.pause(failures), BACKOFF.bounded(asked))
        with self._ready:
            if not self._ready.wait_for(lambda: self._stopped or self._last_chance is not None, pause):
                return failures
            self._ready.wait_for(lambda: self._stopped, BACKOFF.first)
        return 0

    def _trouble(self, who: str, error: Exception) -> None:
        with self._ready:
            first = not self._troubled
            self._troubled.add(who)
            self.trouble = f"Redis at {self.shown} can't be used ({type(error).__name__}: {str(error)[:200]})"
        try:
            # What a name stands for may have changed, as after a failover; new connections ask anew.
            self._client.connection_pool.disconnect(inuse_connections=False)
        except Exception:
            log.debug("a connection to Redis could not be closed", exc_info=True)
        if first and not self._stopped:
            log.warning(
                "Redis at %s can't be used (%s: %s); the monitor goes on without it, and tries again",
                self.shown,
                type(error).__name__,
                str(error)[:200],
            )

    def _well(self, who: str) -> None:
        with self._ready:
            last = self._troubled == {who}
            self._troubled.discard(who)
            if not self._troubled:
                self.trouble = ""
        if last:
            log.info("Redis at %s can be used again", self.shown)


def _connect(url: str) -> tuple[Any, str]:
    """A client for an address, which opens nothing yet, and the address as it may be shown."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.connection import parse_url
        from redis.retry import Retry
    except ImportError:
        raise MissingDependency('--redis needs: pip install "otel-progress[redis]"') from None
    try:
        parse: Any = parse_url  # it has no types
        parts = urlsplit(url)
        shown = _shown(parts)
        options: dict[str, Any] = {
            **parse(url),
            "retry": Retry(NoBackoff(), 0),  # the pauses are ours
            "socket_timeout": SOCKET_SECONDS,
            "decode_responses": False,
            "protocol": 2,
        }
        if parts.scheme != "unix":
            options["socket_connect_timeout"] = SOCKET_SECONDS
        return redis.Redis(connection_pool=redis.ConnectionPool(**options)), shown
    except Exception:  # its text may show a part of the password
        raise InvalidArgument(
            "the address of Redis must look like redis://localhost:6379/0, rediss://user:password@host:6379/0 or "
            "unix:///path/to/redis.sock; it is not shown here, as it may hold a password"
        ) from None


def _shown(parts: SplitResult) -> str:
    """The address without name, password and options."""
    if parts.scheme == "unix":
        return f"unix://{unquote(parts.path)}"
    host = parts.hostname or "localhost"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or 6379}{parts.path}"


def _size(item: Item) -> int:
    return len(item.row) + len(item.otlp)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _text(id: bytes | str) -> str:
    return id.decode() if isinstance(id, bytes) else id


def _order(id: str) -> tuple[int, int]:
    """The order of entries: milliseconds, then a number."""
    milliseconds, _, number = id.partition("-")
    return int(milliseconds), int(number or 0)
