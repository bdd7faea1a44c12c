"""Passes what the core reports on to the control channel: ends to those who wait for them, warnings to processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from otel_progress import semconv as s
from otel_progress.monitor.state.listener import CoreListener, StoredEvent
from otel_progress.monitor.state.process_keys import instance_of

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.web.cancel import Control
    from otel_progress.monitor.web.views import Views


class ControlNotices(CoreListener):
    """Hands over from the core's thread to the loop of the server.

    Attributes:
        loop: the loop of the server; None until it serves.
        control: the control channel of that loop.
    """

    def __init__(self, control: Control, views: Views, say: Callable[[str], None]) -> None:
        """`say` writes a warning to the monitor's own log."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.control = control
        self._views = views
        self._say = say

    def wants(self, event: str) -> bool:
        """Only ends are wanted."""
        return event == s.OPERATION_ENDED

    def stored(self, events: list[StoredEvent]) -> None:
        """Report ends to those who asked for a cancel."""
        ends = [
            (one.head.operation_id, one.head.status.value, one.head.attempt, instance_of(one.resource))
            for one in events
            if one.record.event == s.OPERATION_ENDED and one.head is not None
        ]
        if ends:
            self._call(self._ended, ends)

    def rivalled(self, entry: Entry) -> None:
        """Warn both processes that run the same id, and log the warning."""
        text = self._views.warning(entry)
        if text is not None:
            self._say(f"warning: {text}")
            self._call(self._warn, entry, text)

    def _call(self, method: Callable[..., None], *given: object) -> None:
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(method, *given)

    def _ended(self, ends: list[tuple[str, str, int, str]]) -> None:
        for operation_id, status, attempt, instance in ends:
            self.control.ended(operation_id, status, attempt, instance)

    def _warn(self, entry: Entry, text: str) -> None:
        for instance in (entry.instance, *(entry.rivals or ())):
            self.control.warn(entry.head.operation_id, instance, text)
