"""Shares what this monitor receives with other programs and other monitors, over one Redis Stream.

Every monitor writes what it receives and reads what the others write, from the oldest entry in the stream; so one that
starts later shows the same. An entry may arrive twice, after a broken connection or a restart: readers must tolerate
that, as the ledger does. What came from the stream must not be published again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.monitor.intake.requests import BYTES as ENTRY_BYTES
from otel_progress.monitor.intake.requests import Refused
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.redis_connection import connect
from otel_progress.outbound.trouble import plain

log = logging.getLogger("otel_progress")

KEY: Final = "otel-progress"
MOST: Final = 100_000
"""About how many entries stay in the stream."""
VERSION: Final = b"1"
WAITING: Final = 10_000
"""The most entries that wait for Redis."""
WAITING_BYTES: Final = 32 * 1024 * 1024
"""The most bytes that wait for Redis."""
WRITE_ENTRIES: Final = 256
WRITE_BYTES: Final = 4 * 1024 * 1024
READ_ENTRIES: Final = 32
"""The entries that are read at once; each may be large."""
BLOCK_SECONDS: Final = 1.0
BACKOFF: Final = Backoff(longest_asked=5.0)
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the length of the stream."""
STRIKES: Final = 3
"""How often Redis may hang up on a single entry, and respond right after that, before the entry is dropped."""
LOOK_REST: Final = 60.0
"""Seconds without such a look after one that failed, as it transfers the first and the last entry."""
_START: Final = "0-0"
_NEXT: Final = "local e = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)[1]; return e and e[1]"
"""The smallest id above that of an entry."""


class StreamEntry(NamedTuple):
    """An entry of the stream.

    Attributes:
        operation_id: the operation that it is about.
        event: the name of the event.
        row: the row of the operation after the event, as JSON text.
        otlp: an ExportLogsServiceRequest with the original records.
    """

    operation_id: str
    event: str
    row: str
    otlp: bytes


class ReadPosition:
    """How far the stream was read, and how much of it was trimmed before that."""

    def __init__(self) -> None:
        """Before the oldest existing entry; what was trimmed by then does not count as lost."""
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
        """The stream does not exist."""
        self._count = self.lag = 0

    def look(self, info: Mapping[str, Any]) -> None:
        """Compare with XINFO STREAM; its count of all entries needs Redis 7, and `lag` is None without it."""
        newest, length, added = _text(info["last-generated-id"]), info["length"], info.get("entries-added")
        if _order(newest) < _order(
            self.last
        ):  # another stream: Redis lost its data, and perhaps its clock was set back
            self.last, self._count = _START, None
        if added is None:
            self.lag = None
            return
        if self._count is not None and self._count > added:
            self._count = None  # another stream, which may be read in part already
        first = info.get("first-entry")
        if not first or _order(_text(first[0])) > _order(self.last):
            self._behind(added - length)  # all that the stream holds is unread
        if newest == self.last:
            self._behind(added)
        self.lag = None if self._count is None else added - self._count

    def _behind(self, count: int) -> None:
        """Note how many entries precede the position; unread ones are lost, unless what was read is unknown."""
        if self._count is not None:
            self.lost += max(0, count - self._count)
            count = max(count, self._count)
        self._count = count


class Stream:
    """Writes to a Redis Stream, and reads what others write to it, in two threads, until `close()`.

    Nobody waits for Redis. While it is unavailable, what is published waits within limits, and both threads continue
    where they were once it is back. An outage is logged once.

    Attributes:
        published: entries that were written.
        taken: entries of others that `take` accepted.
        dropped: entries that were not written, by reason.
        unreadable: entries of others that were skipped.
        skipped: why the last one of these was skipped.
        trouble: why Redis is not usable, while that is so.
    """

    def __init__(
        self, url: str, origin: str, take: Callable[[bytes], object], *, key: str = KEY, most: int = MOST
    ) -> None:
        """Start at once; Redis need not be there yet.

        Args:
            url: redis://, rediss:// or unix://, with a name and a password if needed.
            origin: the name of this monitor; its own entries are not read.
            take: called with the OTLP of each entry of others, in a thread of this object. It may block; if it raises
                `Refused` with 429 or 503 it gets the entry again later, after any other error the entry is skipped.
            key: the key of the stream.
            most: about how many entries stay in it.

        Raises:
            InvalidArgument: for an invalid address, key, origin or length.
            MissingDependency: if the client for Redis is not installed.
        """
        if not key or not origin:
            raise InvalidArgument("the key of the Redis Stream and the origin must not be empty")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidArgument(f"most must be a whole number above 0, not {most!r}")
        self._client, self.shown = connect(url)
        self._origin, self._key, self._most, self._give = origin.encode(), key, most, take
        self.published = self.taken = self.unreadable = 0
        self.dropped: Counter[str] = Counter()
        self.skipped = self.trouble = ""
        self._place = ReadPosition()
        self._narrow = self._refusals = 0
        self._look_at = 0.0
        self._waiting: deque[StreamEntry] = deque()
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
        """Entries that were trimmed before they were read; 0 with Redis older than 7, which does not count them."""
        return self._place.lost

    @property
    def lag(self) -> int | None:
        """Entries not read yet, as of the last look, at most a second ago; None if unknown."""
        return self._place.lag

    def publish(self, items: Sequence[StreamEntry]) -> None:
        """Queue these entries; if there is no room, the oldest are dropped. Never waits for Redis."""
        with self._ready:
            if self._stopped:
                self.dropped["the monitor was shutting down"] += len(items)
                return
            for item in items:
                self._put(item)
            self._ready.notify_all()

    def close(self, timeout: float) -> None:
        """Write what waits, within `timeout` seconds, and stop; may be called twice."""
        deadline = clock.monotonic() + timeout
        with self._ready:
            self._last_chance = deadline
            self._ready.notify_all()
            while self._waiting and (left := deadline - clock.monotonic()) > 0:
                self._ready.wait(left)
            self._stopped = True
            if self._waiting:
                self.dropped["not written before the end"] += len(self._waiting)
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
        """What `/health` says about Redis."""
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
        """What was not written or read, in words; a line for each reason."""
        with self._ready:
            said = [
                f"{_entries(count)} not written to Redis at {self.shown}: {reason}"
                for reason, count in sorted(self.dropped.items())
            ]
        if self.lost:
            said.append(f"{_entries(self.lost)} trimmed from the stream at {self.shown} before being read")
        if self.unreadable:
            said.append(f"{_entries(self.unreadable)} not readable in the stream at {self.shown}")
        return said

    # -- writing

    def _put(self, item: StreamEntry) -> None:
        if _size(item) > ENTRY_BYTES:
            self.dropped["too large for an entry"] += 1
            if len(item.row) > ENTRY_BYTES // 4:  # a character has up to 4 bytes in UTF-8
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

    def _batch(self) -> list[StreamEntry]:
        """Wait for entries; returns none at the end."""
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._stopped)
            batch: list[StreamEntry] = []
            size = 0
            for item in self._waiting:
                size += _size(item)
                if batch and (self._careful or len(batch) == WRITE_ENTRIES or size > WRITE_BYTES):
                    break
                batch.append(item)
            self._sending = len(batch)
            return batch

    def _send(self, batch: list[StreamEntry]) -> dict[int, Exception]:
        """Write a batch; returns what Redis refused, by index."""
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

    def _without_poison(
        self, batch: list[StreamEntry], error: Exception
    ) -> tuple[dict[int, Exception], Exception | None]:
        """After a broken connection, write one entry at a time, and drop one on which Redis hangs up repeatedly."""
        alone, self._careful = len(batch) == 1, True
        try:
            self._strikes = self._strikes + 1 if self._client.ping() and alone else 0
        except Exception:
            self._strikes = 0
        if self._strikes < STRIKES:
            return dict.fromkeys(range(len(batch)), error), error
        self._strikes = 0
        with self._ready:
            self.dropped["Redis closed the connection"] += 1
        return {}, None

    def _sent(self, failed: Mapping[int, Exception]) -> None:
        """Remove the batch from the queue; entries that failed stay first."""
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
        """Skip an entry that cannot be read although Redis is well, such as one that is larger than Redis may send."""
        from redis.exceptions import ResponseError

        self._narrow = READ_ENTRIES
        try:
            self._refusals = self._refusals + 1 if self._client.ping() and not isinstance(error, ResponseError) else 0
            if self._refusals <= STRIKES:
                return
            self._refusals = 0
            id = self._client.eval(_NEXT, 1, self._key, self._place.last)
        except Exception:  # the outage is logged already
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
            log.debug("the position of the stream could not be read", exc_info=True)
        else:
            took = clock.monotonic() - now
            self._look_at = now + max(LOOK_EVERY, 20 * took)  # each look transfers a large entry

    def _look(self) -> None:
        from redis.exceptions import ResponseError

        try:
            self._place.look(self._client.xinfo_stream(self._key))
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            self._place.nothing()

    def _entry(self, fields: Mapping[bytes, bytes]) -> bool:
        """Pass an entry on, once there is room for it; whether to continue."""
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
        self.skipped = f"{type(error).__name__}: {plain(str(error))}"
        if self.unreadable == 1:
            log.warning(
                "an entry of the stream at %s can't be read (%s: %s); such entries are skipped",
                self.shown,
                type(error).__name__,
                plain(str(error)),
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
            self.trouble = f"Redis at {self.shown} can't be used ({type(error).__name__}: {plain(str(error))})"
        try:
            # the name may resolve to another address now, as after a failover; new connections resolve it again
            self._client.connection_pool.disconnect(inuse_connections=False)
        except Exception:
            log.debug("a connection to Redis could not be closed", exc_info=True)
        if first and not self._stopped:
            log.warning(
                "Redis at %s can't be used (%s: %s); the monitor continues without it, and retries",
                self.shown,
                type(error).__name__,
                plain(str(error)),
            )

    def _well(self, who: str) -> None:
        with self._ready:
            last = self._troubled == {who}
            self._troubled.discard(who)
            if not self._troubled:
                self.trouble = ""
        if last:
            log.info("Redis at %s can be used again", self.shown)


def _entries(count: int) -> str:
    return "1 entry was" if count == 1 else f"{count} entries were"


def _size(item: StreamEntry) -> int:
    return len(item.row) + len(item.otlp)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _text(id: bytes | str) -> str:
    return id.decode() if isinstance(id, bytes) else id


def _order(id: str) -> tuple[int, int]:
    """The sort key of entry ids: milliseconds, then a number."""
    milliseconds, _, number = id.partition("-")
    return int(milliseconds), int(number or 0)
