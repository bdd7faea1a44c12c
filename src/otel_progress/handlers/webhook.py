"""Webhooks from the process: ends and trouble posted as JSON, or as messages of Slack, Teams and Discord."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.handlers.handler import Handler
from otel_progress.handlers.operation_row import OperationRows, event_json
from otel_progress.live.engine import process
from otel_progress.live.guard import drops, say
from otel_progress.outbound.delivery_kinds import any_kind_of, closes_a_wait
from otel_progress.outbound.webhook import Webhook, WebhookOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from otel_progress.model.snapshot import Event

__all__ = ["WebhookHandler"]

STOP_SECONDS: Final = 2.0
"""The longest that `stop()` waits for deliveries."""


class WebhookHandler(Handler):
    """Posts changes of operations to one address; the monitor's webhook posts the same.

    Deliveries are retried for a day, in a thread of their own, so a receiver that hangs or is away holds up nobody.
    `stop()` and the end of the process wait for them for two seconds at most. What was refused or given up, or still
    waits then, goes to the dead letters, if there is a file for them. `docs/monitor-outlets.md` describes the JSON,
    signatures, retries and dead letters.

    Args:
        url: where deliveries are posted. It may hold a secret, and is never shown.
        secret: signs each delivery as Standard Webhooks says: `whsec_` and base64, or any text.
        format: `generic` (JSON for programs), `slack`, `teams` (Adaptive Card) or `discord`.
        events: the kinds that are posted: by default `ended`, `failed`, `stalled`, `recovered`, `overdue`, `slow`, and
            from the monitor `lost` and `dead`; `all` for each change, and each update of counts as far as the receiver
            keeps up.
        dead_letters: the file that keeps what did not arrive; `otel-progress resend` sends it again.
        addresses: which addresses may be reached: `private` (the default), `public` or `any`.

    Raises:
        InvalidArgument: if an argument is invalid.

    Example:
        `with WebhookHandler("https://hooks.slack.com/services/…", format="slack"): work()`
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | bytes | None = None,
        format: str = "generic",
        events: str | Iterable[str] | None = None,
        dead_letters: str | os.PathLike[str] | None = None,
        addresses: str = "private",
    ) -> None:
        """Check the arguments; nothing is posted before `start()`."""
        self._options = WebhookOptions(url, secret, format, events, dead_letters, addresses)
        self._webhook: Webhook | None = None
        self._rows: OperationRows | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> WebhookHandler:
        """Make it from `OTEL_PROGRESS_WEBHOOK_URL`, `_SECRET`, `_FORMAT`, `_EVENTS`, `_DEAD_LETTERS`, `_ADDRESSES`.

        Raises:
            InvalidArgument: if there is no URL, or a variable is invalid.
        """
        options = WebhookOptions.read(environ)
        return cls(**vars(options))

    def _begin(self) -> None:
        """Start the thread that posts, now: once the process is about to end, none can be started."""
        super()._begin()
        self._rows = OperationRows()
        self._webhook = Webhook(self._options)

    def handle(self, event: Event) -> None:
        """Queue a delivery, if the event is of a chosen kind."""
        kind = any_kind_of(event.name, event.snapshot.status.value)
        if closes_a_wait(event.name, event.attributes) and not event.snapshot.status.final:
            kind = "recovered"  # as the monitor says
        webhook, rows = self._webhook, self._rows
        if webhook is None or rows is None or kind is None:
            return
        if kind in webhook.kinds:
            webhook.put(kind, event.snapshot.operation_id, rows.row(event), event_json(event))
        else:
            rows.hear(event.snapshot)

    def _places(self) -> tuple[tuple[list[Any], Any], ...]:
        return (*super()._places(), (process.after_flush, self._flush), (process.at_last, self._at_last))

    def _flush(self, left: float) -> None:
        """Send what waits; called when the process ends or is flushed."""
        if self._webhook is not None:
            self._webhook.flush(min(left, STOP_SECONDS))

    def _at_last(self, surely_ends: bool) -> None:
        """Keep what could not be sent."""
        if surely_ends:
            self._close_webhook(0.0)

    def _finish(self) -> None:
        super()._finish()
        self._close_webhook(STOP_SECONDS)

    def _close_webhook(self, timeout: float) -> None:
        webhook, self._webhook = self._webhook, None
        if webhook is not None:
            webhook.close(timeout)
            for line in webhook.losses():
                say("%s", line)
            if webhook.lost:
                drops.add(semconv.DROP_LISTENER, webhook.lost)
