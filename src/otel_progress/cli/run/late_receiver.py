"""A receiver that starts after the command: until it answers at the default endpoint, the newest telemetry waits.

Requests wait in queues of bounded size. Each queue tries its oldest request again after at most 5 s, so the receiver
gets all that has room, in order, with its own times.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from otel_progress.errors import MissingDependency
from otel_progress.monitor.intake.newest_points import newest_now
from otel_progress.outbound.queue import Forwarder
from otel_progress.settings import Endpoint

BYTES: Final = 4 * 1024 * 1024
"""The size of all waiting requests of a signal; about a day of one operation."""


class LateReceiver(Forwarder):
    """Forwards to endpoints at which nothing listens yet; what never gets through is no loss."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Wait for these endpoints, by signal; without the client for their protocol, for none."""
        super().__init__({}, BYTES)
        with suppress(MissingDependency):
            super().__init__(endpoints, BYTES, newest_now)

    @property
    def answers(self) -> bool:
        """Whether the receiver has taken a request."""
        return any(queue.delivered for queue in self.queues.values())

    def flush(self, timeout: float) -> dict[str, list[bytes]]:
        """Send what waits within the timeout (seconds) if the receiver answers, and stop; returns the rest."""
        return super().flush(timeout if self.answers else 0.0)

    def losses(self) -> list[str]:
        """Say what could not be forwarded, if the receiver answers; a line for each signal."""
        return super().losses() if self.answers else []
