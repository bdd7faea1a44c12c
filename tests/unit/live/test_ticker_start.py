"""The thread of the ticker starts also where threads are not those of the standard library."""

from __future__ import annotations

import threading

import pytest

from otel_progress.live.engine.ticker import Ticker


class Sealed:
    """An event that takes no attributes, as gevent's."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._event.wait(timeout)


class Green(threading.Thread):
    """A thread of a program that gevent has patched."""

    _started: Sealed  # type: ignore[assignment]

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._started = Sealed()  # type: ignore[assignment]


def test_threads_whose_events_take_no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As below `gevent.monkey.patch_all()`."""
    monkeypatch.setattr(threading, "Thread", Green)
    ticker = Ticker()
    ticker.start()
    try:
        assert ticker.running
    finally:
        ticker.stop()
