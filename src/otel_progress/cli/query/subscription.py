"""A subscription to a stream of the monitor: read in its own thread, reconnects by itself."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from otel_progress import clock
from otel_progress.cli.query.client import Client, ConnectionLost, ErrorResponse, path_of
from otel_progress.cli.query.exit_codes import NO_MONITOR, NOT_FOUND, CommandError
from otel_progress.cli.query.sse import Frame, Parser, TooLong
from otel_progress.outbound.backoff import Backoff

BACKOFF: Final = Backoff(first=0.5)
"""The pauses before each retry: 0.5 s, doubling up to 5 s."""
AHEAD: Final = 256
"""The most items that wait to be shown; then the monitor waits too, or closes, and we catch up."""
PAGES: Final = 10
RUNNING: Final = "pending,running,waiting"


class Item(NamedTuple):
    """What was received: `kind` is the name of an event, or `loaded`, `up`, `down`, `gone` or `over`."""

    kind: str
    data: Any = None


class Disconnected(NamedTuple):
    """The connection is lost: why, and when (monotonic) the next attempt is."""

    reason: str
    pause: float
    until: float


class Subscription:
    """Reads `/stream`, or the stream of one operation, until it is stopped; gaps are filled after a reconnect."""

    def __init__(self, client: Client, key: str | None = None) -> None:
        """Create it, not started yet; `key` is the id of the only operation to follow."""
        self._client, self._key = client, key
        self._items: queue.Queue[Item] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-progress-feed", daemon=True)

    def start(self) -> Subscription:
        """Start reading."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop reading; a read that is blocked ends by itself."""
        self._stop.set()

    def take(self, timeout: float) -> Iterator[Item]:
        """Yield the items received: wait `timeout` seconds for the first, then take those that are there."""
        try:
            yield self._items.get(timeout=timeout)
            for _ in range(AHEAD):
                yield self._items.get_nowait()
        except queue.Empty:
            return

    # -- in its thread

    def _run(self) -> None:
        last_id, tries = "", 0
        known = False
        while not self._stop.is_set():
            try:
                if not known and self._key is None:
                    last_id, known = self._load(), True
                for frame in self._frames(last_id):
                    tries = 0
                    last_id = self._frame(frame) or last_id
                    if frame.event == "ended" and self._key is not None:
                        return  # the stream of one operation ends with it
                reason = "the monitor closed the connection"
            except CommandError as error:
                # The monitor answers and does not know the operation: it is gone.
                gone = error.code == NOT_FOUND and self._key is not None
                self._put(Item("gone") if gone else Item("over", error))
                return
            except ConnectionLost as error:
                reason = str(error)
            except ErrorResponse as error:
                reason = f"the monitor answers: {error}"
            except Exception as error:
                self._put(Item("over", CommandError(f"the stream can't be read: {error!r}", NO_MONITOR)))
                return
            tries += 1
            pause = BACKOFF.pause(tries)
            self._put(Item("down", Disconnected(reason, pause, clock.monotonic() + pause)))
            self._stop.wait(pause)

    def _frames(self, last_id: str) -> Iterator[Frame]:
        parser = Parser(last_id)
        path = "/stream" if self._key is None else f"{path_of(self._key)}/stream"
        for more in self._client.stream(path, last_id):
            if self._stop.is_set():
                return
            if not more:
                self._put(Item("up"))
            try:
                yield from parser.feed(more)
            except TooLong as error:
                raise ConnectionLost(str(error)) from error

    def _frame(self, frame: Frame) -> str:
        """Queue an event; returns the position after it."""
        if frame.event == "reset":
            position = self._load()
            return frame.id or position
        try:
            data = json.loads(frame.data)
        except (ValueError, RecursionError) as error:
            raise ConnectionLost("an event holds no JSON") from error
        self._put(Item(frame.event, data))
        return frame.id

    def _load(self) -> str:
        """Load everything again; returns the position from which the stream continues."""
        if self._key is not None:
            self._put(Item("loaded", self._client.operation(self._key)))
            return ""
        page = self._client.operations(status=RUNNING)
        rows, position = list(page["operations"]), str(page.get("position") or "")
        for _ in range(PAGES):
            if not page.get("next"):
                break
            page = self._client.operations(status=RUNNING, cursor=str(page["next"]))
            rows.extend(page["operations"])
        self._put(Item("loaded", rows))
        return position

    def _put(self, item: Item) -> None:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=0.5)
                return
            except queue.Full:
                continue
