"""Tells the monitor what is on the screen: while many operations run, it asks for each update of these only."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.query.client import ConnectionLost, ErrorResponse
from otel_progress.cli.query.exit_codes import CommandError

if TYPE_CHECKING:
    from otel_progress.cli.query.client import Client

AGAIN: Final = 10.0
"""Seconds until the same is said again; the monitor forgets it after 15."""
EACH: Final = 1.0
"""Seconds between two requests, at least."""
MOST: Final = 200


class OnScreen:
    """Says what is on the screen, in a thread of its own; a monitor that does not want to know is left alone."""

    def __init__(self, client: Client) -> None:
        """Nothing is on the screen."""
        self._client = client
        self._ids: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()
        self._at = -AGAIN
        self._thread: threading.Thread | None = None
        self._unknown = False

    def show(self, ids: Iterable[str]) -> None:
        """These operations are on the screen now; never waits."""
        self._ids = tuple(sorted(ids))[:MOST]
        gone = clock.monotonic() - self._at
        due = gone >= AGAIN or (self._ids != self._told and gone >= EACH)
        if not due or not self._ids or self._unknown or (self._thread is not None and self._thread.is_alive()):
            return
        self._told, self._at = self._ids, clock.monotonic()
        self._thread = threading.Thread(target=self._tell, name="otel-progress-screen", daemon=True)
        self._thread.start()

    def _tell(self) -> None:
        try:
            self._client.ask("/watching", method="POST", body={"ids": list(self._told)})
        except ConnectionLost:
            pass
        except (CommandError, ErrorResponse):
            self._unknown = True
