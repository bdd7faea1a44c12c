"""`watch` tells the monitor what it shows, now and then."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.monitor_parts import fake_time

from otel_progress.cli.query.client import ConnectionLost, ErrorResponse
from otel_progress.cli.query.on_screen import AGAIN, EACH, MOST, OnScreen


class Asked:
    """A monitor that is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[list[str]] = []

    def ask(self, path: str, *, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Take a request."""
        assert (path, method) == ("/watching", "POST")
        self.told.append(body["ids"])
        if self.error is not None:
            raise self.error
        return {}


def shown(screen: OnScreen, *ids: str) -> None:
    """The screen is drawn."""
    screen.show(ids)
    if screen._thread is not None:
        screen._thread.join(20)


def test_what_changes_is_told_and_the_rest_again_in_time() -> None:
    """At most once a second, and before the monitor forgets it."""
    with fake_time() as clock:
        monitor = Asked()
        screen = OnScreen(monitor)  # type: ignore[arg-type]
        shown(screen)
        assert monitor.told == []
        shown(screen, "b", "a")
        shown(screen, "a", "b")
        shown(screen, "a")
        assert monitor.told == [["a", "b"]]
        clock.sleep(EACH)
        shown(screen, "a")
        assert monitor.told[1:] == [["a"]]
        clock.sleep(AGAIN - 1)
        shown(screen, "a")
        assert len(monitor.told) == 2
        clock.sleep(1)
        shown(screen, *(f"{number:04}" for number in range(MOST + 5)))
        assert len(monitor.told[2]) == MOST


@pytest.mark.parametrize(("error", "asks"), [(ConnectionLost("gone"), 2), (ErrorResponse(404, {}), 1)])
def test_a_monitor_that_does_not_know_the_question_is_left_alone(error: Exception, asks: int) -> None:
    """An older one answers 404; one that is away for a moment is told again."""
    with fake_time() as clock:
        monitor = Asked(error)
        screen = OnScreen(monitor)  # type: ignore[arg-type]
        for _ in range(2):
            shown(screen, "a")
            clock.sleep(AGAIN)
        assert len(monitor.told) == asks
