"""Redis as a handler uses it: what it writes waits while Redis is away, and the handler's mailbox keeps it bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from otel_progress.live.guard import say
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.redis_connection import connect
from otel_progress.outbound.trouble import plain

T = TypeVar("T")

BACKOFF: Final = Backoff()
STRIKES: Final = 3
"""How often Redis may hang up on one write, and answer right after that, before the write is given up."""


class RedisClient:
    """A client that tries a write again until it succeeds, or the handler is to end.

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

    def once(self, work: Callable[[Any], T]) -> T:
        """Do something now, or fail."""
        return work(self._client)

    def write(self, work: Callable[[Any], T]) -> T:
        """Do something with the client, as often as needed; what Redis refuses for good is raised."""
        failures = strikes = 0
        while True:
            try:
                done = work(self._client)
            except Exception as error:
                if not _is_passing(error):
                    raise
                strikes = strikes + 1 if _is_broken(error) and self._answers() else 0
                failures += 1
                self._lost(error)
                if strikes >= STRIKES or not self._pause(BACKOFF.pause(failures)):
                    raise
            else:
                self._found()
                return done

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

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
        self._away = False


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
