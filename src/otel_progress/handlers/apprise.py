"""Messages to other services, such as e-mail, Telegram, Matrix, ntfy and Pushover, by the library Apprise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.handlers.handler import Handler
from otel_progress.handlers.operation_row import OperationRows, event_json
from otel_progress.outbound.delivery_kinds import any_kind_of, chosen, closes_a_wait
from otel_progress.outbound.payloads import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_progress.model.snapshot import Event

__all__ = ["AppriseHandler"]

TRIES: Final = 3
PAUSE: Final = 1.0
"""Seconds after the first try; doubled after each."""
_TYPES: Final = {"good": "success", "warning": "warning", "attention": "failure", "default": "info"}
"""The type of a notification by the tone of the change."""


class AppriseHandler(Handler):
    """Sends ends and trouble to services that Apprise knows by their URLs (https://github.com/caronc/apprise).

    A message that fails is tried three times; then it is counted as dropped. Apprise opens the connections: it follows
    its own rules for redirects and addresses, so give it no URLs of people whom you don't trust.

    Args:
        urls: one or more URLs of Apprise, such as `mailto://…`, `tgram://…`, `ntfy://…`. They hold secrets, and are
            never shown.
        events: the kinds that are sent; see `WebhookHandler`.

    Raises:
        InvalidArgument: if Apprise does not know a URL, or there is no such kind.
        MissingDependency: if Apprise is not installed.

    Example:
        `with AppriseHandler("ntfy://my-topic"): work()`
    """

    def __init__(self, urls: str | Iterable[str], *, events: str | Iterable[str] | None = None) -> None:
        """Check the arguments; nothing is sent before `start()`."""
        try:
            import apprise
        except ImportError:
            raise MissingDependency('AppriseHandler needs: pip install "otel-progress[apprise]"') from None
        self._kinds = chosen(events)
        self._services: Any = apprise.Apprise()
        given = [urls] if isinstance(urls, str) else list(urls)
        for number, url in enumerate(given, 1):
            if not isinstance(url, str) or not self._services.add(url):
                raise InvalidArgument(
                    f"Apprise does not know URL {number} of {len(given)}, which is not shown here, as it may hold a "
                    "secret; see https://github.com/caronc/apprise/wiki"
                )
        if not given:
            raise InvalidArgument("AppriseHandler needs at least one URL of Apprise")
        self._rows: OperationRows | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> AppriseHandler:
        """Make it from `OTEL_PROGRESS_APPRISE_URLS`, separated by spaces, and `OTEL_PROGRESS_APPRISE_EVENTS`.

        Raises:
            InvalidArgument: if there is no URL, or a variable is invalid.
        """
        urls = environ.get("OTEL_PROGRESS_APPRISE_URLS", "").split()
        if not urls:
            raise InvalidArgument("set OTEL_PROGRESS_APPRISE_URLS to URLs of Apprise, separated by spaces")
        return cls(urls, events=environ.get("OTEL_PROGRESS_APPRISE_EVENTS") or None)

    def _begin(self) -> None:
        super()._begin()
        self._rows = OperationRows()

    def handle(self, event: Event) -> None:
        """Send a message, if the event is of a chosen kind."""
        seen, rows = event.snapshot, self._rows
        kind = any_kind_of(event.name, seen.status.value)
        if closes_a_wait(event.name, event.attributes) and not seen.status.final:
            kind = "recovered"
        if rows is None or kind is None:
            return
        if kind not in self._kinds:
            rows.hear(seen)
            return
        change = Change("", kind, seen.timestamp, rows.row(event), event_json(event))
        body = "\n".join(f"{label}: {value}" for label, value in change.facts())
        self._send(_defused(change.text), _defused(body), _TYPES[change.tone])

    def _send(self, title: str, body: str, type: str) -> None:
        for number in range(TRIES):
            if self._services.notify(title=title, body=body, notify_type=type, body_format="text"):
                return
            if number + 1 == TRIES or not self.pause(PAUSE * 2**number):
                break
        raise ConnectionError("Apprise could not send a message; its logger `apprise` says why")


def _defused(text: str) -> str:
    """The text with a sign of no width in everything that could mention somebody: `@everyone`, `<!channel>`, `<@1>`."""
    return text.replace("@", "@\u200b").replace("<", "<\u200b")
