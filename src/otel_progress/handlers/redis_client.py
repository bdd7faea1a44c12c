"""Redis as a handler uses it: what it writes waits while Redis is away, and the handler's mailbox keeps it bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from otel_progress import semconv
from otel_progress.live.guard import drops, say
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.redis_connection import connect
from otel_progress.outbound.trouble import plain

T = TypeVar("T")

BACKOFF: Final = Backoff()
STRIKES: Final = 3
"""How often Redis may hang up on one write, and answer right after that, before the write is given up."""

log = logging.getLogger("otel_progress")


class RedisClient:
    """A client that tries a write again until it succeeds, is refused for good, or the handler is to end.

    An outage is one line of the log, its end another one; each kind of refusal is one, and what is lost at the end.

    Attributes:
        shown: the address without name and password.
    """

    def __init__(self, url: str, pause: Callable[[float], bool]) -> None:
        """Prepare the client; it connects when it is used.

        Args:
            url: redis://, rediss:// or unix://, with a name and a password if needed.
            pause: waits, and returns whether to go on; see `Handler.pause`.

        Raises:
            InvalidArgument: if the address is invalid.
            MissingDependency: if the client is not installed.
        """
        self._client, self.shown = connect(url)
        self._pause = pause
        self._away = False
        self._refused: set[str] = set()
        self._unwritten = 0

    def once(self, work: Callable[[Any], T]) -> T:
        """Do something now, or fail."""
        return work(self._client)

    def write(self, work: Callable[[Any], object]) -> bool:
        """Do something with the client, as often as needed; what is not written is counted, and logged once.

        Returns:
            Whether it was written.
        """
        from redis.exceptions import RedisError

        failures = strikes = 0
        while True:
            try:
                work(self._client)
            except (RedisError, OSError) as error:
                if not _is_passing(error):
                    return self._give_up(error)
                strikes = strikes + 1 if _is_broken(error) and self._answers() else 0
                failures += 1
                self._lost(error)
                if strikes >= STRIKES:
                    return self._give_up(error)
                if not self._pause(BACKOFF.pause(failures)):
                    self._unwritten += 1
                    drops.add(semconv.DROP_LISTENER)
                    return False
            else:
                self._found()
                return True

    def close(self) -> None:
        """Close the connections, and say what was not written before the end."""
        self._client.close()
        lost, self._unwritten = self._unwritten, 0
        if lost:
            what = "1 change was" if lost == 1 else f"{lost:,} changes were"
            say("%s not written to Redis at %s before the end", what, self.shown)

    def _give_up(self, error: Exception) -> bool:
        """Leave a write out that Redis refuses for good, or on which it hangs up each time."""
        drops.add(semconv.DROP_LISTENER)
        kind = type(error).__name__
        if kind not in self._refused:
            self._refused.add(kind)
            say(
                "Redis at %s refused a change (%s: %s), which is dropped, as all will be that it refuses so",
                self.shown,
                kind,
                plain(str(error)),
            )
        return False

    def _answers(self) -> bool:
        """Whether Redis is well; new connections resolve its name again, as after a failover."""
        try:
            self._client.connection_pool.disconnect(inuse_connections=False)
            return bool(self._client.ping())
        except Exception:
            return False

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            what = f"{type(error).__name__}: {plain(str(error))}"
            say("Redis at %s can't be used (%s); the job goes on, and it is tried again", self.shown, what)

    def _found(self) -> None:
        if self._away:
            self._away = False
            log.info("Redis at %s can be used again", self.shown)


def _is_broken(error: Exception) -> bool:
    """Whether there was no answer."""
    from redis import exceptions

    return isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError))


def _is_passing(error: Exception) -> bool:
    """Whether another try may succeed: if Redis is away, full, loading, read-only, or changes its master."""
    from redis import exceptions

    passing = (
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        exceptions.ClusterDownError,
        exceptions.MasterDownError,
        exceptions.TryAgainError,
    )
    if _is_broken(error) or isinstance(error, passing):
        return True
    return str(error).startswith(("OOM", "MISCONF", "LOADING", "BUSY ", "NOREPLICAS"))
