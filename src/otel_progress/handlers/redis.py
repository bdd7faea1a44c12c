"""Redis: each change and update of an operation in a stream of bounded length, and by pub/sub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.handler import Handler
from otel_progress.handlers.operation_row import OperationRows, json_text
from otel_progress.handlers.redis_client import RedisClient
from otel_progress.live.guard import drops

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from otel_progress.model.snapshot import Event

__all__ = ["RedisHandler"]

STREAM: Final = "otel-progress:events"
"""The key of the stream, by default."""
MONITORS: Final = "otel-progress"
"""The stream that monitors share, whose entries are others."""
MAXLEN: Final = 100_000
"""About how many entries stay in the stream, by default."""


class RedisHandler(Handler):
    """Adds each change, and each update of counts as far as Redis keeps up, to a stream; publishes it if you like.

    An entry has the fields `v` (1), `id`, `event` and `data`: the row of the operation after the event, as JSON with
    the keys of the monitor's API. A published message is JSON: `{"event": …, "operation": {the row}}`. While Redis is
    away, full or slow, updates are merged to the newest and changes wait, as for any handler; an entry may then be
    written twice. A message is published once its entry is written, and lost if nobody subscribes, as pub/sub is.

    Args:
        url: redis://, rediss:// or unix://, with a name and a password if needed.
        stream: the key of the stream; None for none.
        maxlen: about how many entries stay in it.
        pubsub: the channel; `{id}` in it stands for the id of the operation. None publishes nothing.

    Raises:
        InvalidArgument: if an argument is invalid.
        MissingDependency: if the client for Redis is not installed.

    Example:
        `with RedisHandler("redis://localhost:6379/0", pubsub="progress:{id}"): work()`
    """

    def __init__(
        self, url: str, *, stream: str | None = STREAM, maxlen: int = MAXLEN, pubsub: str | None = None
    ) -> None:
        """Check the arguments; nothing is opened before the first event."""
        if isinstance(maxlen, bool) or not isinstance(maxlen, int) or maxlen < 1:
            raise InvalidArgument(f"maxlen must be a whole number above 0, not {maxlen!r}")
        if not stream and not pubsub:
            raise InvalidArgument("RedisHandler needs a stream, or a channel by pubsub=")
        if stream == MONITORS:
            raise InvalidArgument(f"the stream {MONITORS!r} is the one that monitors share: name another one")
        if pubsub and any(sign in pubsub.replace("{id}", "") for sign in "{}"):
            raise InvalidArgument(
                f"the channel {pubsub!r} may hold {{id}}, the id of the operation, and no other braces"
            )
        self._client = RedisClient(url, self.pause)
        self._stream, self._maxlen, self._channel = stream or None, maxlen, pubsub or None
        self._rows: OperationRows | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> RedisHandler:
        """Make it from `OTEL_PROGRESS_REDIS_URL`, `_STREAM`, `_MAXLEN` and `_PUBSUB`.

        Raises:
            InvalidArgument: if there is no URL, or a variable is invalid.
        """
        given = {name: environ.get(f"OTEL_PROGRESS_REDIS_{name.upper()}") for name in ("url", "stream", "pubsub")}
        if not given["url"]:
            raise InvalidArgument("set OTEL_PROGRESS_REDIS_URL, as in redis://localhost:6379/0")
        text = environ.get("OTEL_PROGRESS_REDIS_MAXLEN") or str(MAXLEN)
        if not text.isdecimal():
            raise InvalidArgument(f"OTEL_PROGRESS_REDIS_MAXLEN must be a whole number above 0, not {text!r}")
        return cls(given["url"], stream=given["stream"] or STREAM, maxlen=int(text), pubsub=given["pubsub"])

    def _begin(self) -> None:
        super()._begin()
        self._rows = OperationRows()

    def handle(self, event: Event) -> None:
        """Write an entry, and publish it."""
        if self._rows is None:
            return
        row, id = json_text(self._rows.row(event)), event.snapshot.operation_id.encode("utf-8", "replace")
        if self._stream is not None:
            entry: dict[Any, Any] = {"v": "1", "id": id, "event": event.name, "data": row}
            stream = self._stream
            if not self._client.write(lambda to: to.xadd(stream, entry, maxlen=self._maxlen, approximate=True)):
                return
        if self._channel is not None:
            channel = self._channel.encode("utf-8", "replace").replace(b"{id}", id)
            self._publish(channel, f'{{"event":"{event.name}","operation":{row}}}')

    def _publish(self, channel: bytes, message: str) -> None:
        """Publish a message; without a stream it waits for Redis, else it is lost if Redis goes away just now."""
        if self._stream is None:
            self._client.write(lambda client: client.publish(channel, message))
            return
        from redis.exceptions import RedisError

        try:
            self._client.once(lambda client: client.publish(channel, message))
        except (RedisError, OSError):
            drops.add(semconv.DROP_LISTENER)

    def closed(self) -> None:
        """Close the connection."""
        self._client.close()
