"""Passes stored events on to other systems: a Redis Stream and a webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.monitor.intake.requests import Accepted, Envelope, Refused, Sender
from otel_progress.monitor.state.listener import CoreListener, StoredEvent
from otel_progress.monitor.web.dump import dump
from otel_progress.outbound import otlp
from otel_progress.outbound.delivery_kinds import any_kind_of

if TYPE_CHECKING:
    from otel_progress.monitor.outlets.redis import Stream
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.web.views import Views
    from otel_progress.outbound.webhook import Webhook, WebhookOptions

_OTHERS: Final = Sender(connection="redis")
_TROUBLE: Final = {
    "stuck": "stalled",
    "looping": "stalled",
    "frozen": "dead",
    "dead": "dead",
    "overdue": "overdue",
    "slow": "slow",
}
"""The kind of delivery for an operation in trouble, by its state."""
_STATE: Final = frozenset({s.UPDATED, s.HEARTBEAT})
"""Events of which only the newest in a batch is passed on."""


class Outlets(CoreListener):
    """Passes events on in the thread of the core; nothing here waits for the other side."""

    def __init__(
        self, core: Core, views: Views, redis: str | None, webhook: WebhookOptions | None, origin: str
    ) -> None:
        """With the address of Redis, and the options of a webhook; None means none.

        Raises:
            InvalidArgument: for an invalid address.
            MissingDependency: if a client is not installed.
        """
        self._core = core
        self._views = views
        self._redis = (redis, origin) if redis is not None else None
        self._stream: Stream | None = None
        self._webhook: Webhook | None = None
        if webhook is not None:
            from otel_progress.outbound.webhook import Webhook

            self._webhook = Webhook(webhook)
        if redis is not None:
            try:
                import redis as _client  # noqa: F401
            except ImportError:
                raise MissingDependency('--redis needs: pip install "otel-progress[redis]"') from None

    def start(self) -> None:
        """Start to read what other monitors publish."""
        if self._redis is not None:
            from otel_progress.monitor.outlets.redis import Stream

            self._stream = Stream(*self._redis, self._from_others)

    def stop(self, timeout: float) -> None:
        """Send what waits, and stop."""
        if self._stream is not None:
            self._stream.close(timeout)
        if self._webhook is not None:
            self._webhook.close(timeout)

    def losses(self) -> list[str]:
        """What could not be passed on, in words."""
        return [line for outlet in (self._stream, self._webhook) if outlet is not None for line in outlet.losses()]

    def health(self) -> dict[str, Any]:
        """What `/health` says about Redis, if it is used."""
        return {} if self._stream is None else {"redis": self._stream.health()}

    def stored(self, events: list[StoredEvent]) -> None:
        """Send them to the webhook and to Redis."""
        if self._webhook is not None:
            for one in _newest(events):
                self._post(self._webhook, one)
        if self._stream is not None:
            self._publish(self._stream, events)

    def wants(self, event: str) -> bool:
        """Whether events of this name are passed on."""
        if self._redis is not None:
            return True
        return self._webhook is not None and bool(self._webhook.kinds.intersection(_kinds_of(event)))

    def concluded(self, entry: Entry, kind: str) -> None:
        """Post what the monitor concluded."""
        if self._webhook is not None and self._core.mutes.covering(entry) is None:
            self._webhook.put(kind, entry.head.operation_id, self._views.row(entry))

    def unmuted(self, entry: Entry) -> None:
        """Post the trouble in which an operation still is, as nobody was told while it was muted."""
        kind = _TROUBLE.get(self._views.state(entry))
        if self._webhook is not None and kind is not None:
            self._webhook.put(kind, entry.head.operation_id, self._views.row(entry))

    def _post(self, webhook: Webhook, one: StoredEvent) -> None:
        if one.head is None or one.held:
            return
        kind = any_kind_of(one.record.event, one.head.status.value)
        if kind not in webhook.kinds:
            return
        entry = self._core.ledger.find(one.head.operation_id) if kind is not None else None
        if kind is None or entry is None or self._core.mutes.covering(entry) is not None:
            return
        event = {
            "event": one.record.event,
            "timestamp": one.head.timestamp,
            "text": one.record.text,
            "attributes": one.record.own,
        }
        stage = one.record.brief.get(s.STAGE_PATH)
        if isinstance(stage, str):
            event["stage"] = stage
        webhook.put(kind, one.head.operation_id, self._views.row(entry), event)

    def _publish(self, stream: Stream, told: list[StoredEvent]) -> None:
        from otel_progress.monitor.outlets.redis import StreamEntry

        items = []
        for one in _newest(told):
            if one.head is None:
                items.append(StreamEntry("", one.record.event, "{}", _request(one)))
                continue
            entry = self._core.ledger.find(one.head.operation_id)
            row = dump(self._views.row(entry)) if entry is not None else "{}"
            event = s.UPDATED if one.held else one.record.event
            items.append(StreamEntry(one.head.operation_id, event, row, _request(one)))
        stream.publish(items)

    def _from_others(self, body: bytes) -> None:
        """Take what another monitor received; returns once it is stored.

        Raises:
            Refused: if it was not stored.
        """
        import threading

        stored = threading.Event()
        answers: list[Any] = []

        def done(answer: Accepted | Refused) -> None:
            answers.append(answer)
            stored.set()

        self._core.offer(Envelope("logs", body, sender=_OTHERS), done, own=False)
        if not stored.wait(30):
            raise Refused(503, "the monitor did not store it in time", 1)
        if isinstance(answers[0], Refused):
            raise answers[0]


def _newest(told: list[StoredEvent]) -> list[StoredEvent]:
    """The events without plain updates that a later event of the operation replaces."""
    newest = {one.head.operation_id: number for number, one in enumerate(told) if one.head is not None}
    return [
        one
        for number, one in enumerate(told)
        if one.head is None or one.record.event not in _STATE or newest[one.head.operation_id] == number
    ]


def _kinds_of(event: str) -> set[str | None]:
    """The kinds that an event may have, by the status of its operation."""
    return {any_kind_of(event, status) for status in ("completed", "failed", "lost")}


def _request(one: StoredEvent) -> bytes:
    """The record as a request of its own."""
    known = {key: value for key, value in one.resource.items() if isinstance(value, (str, int, float, bool))}
    return otlp.envelope(otlp.resource(known), otlp.scope(s.SCOPE, ""), [otlp.chunk(2, one.record.whole)])
