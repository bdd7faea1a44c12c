"""A process whose clock is wrong by more than 10 s is named on its rows, in details and in `/health`."""

from __future__ import annotations

import pytest
from monitor_parts import WALL, Parts

from otel_progress import Snapshot, Status
from otel_progress import semconv as s
from otel_progress.testing import FakeClock


def snap(ahead: float, sequence: int) -> Snapshot:
    """An operation by a clock that is ahead."""
    return Snapshot("a", "work", Status.RUNNING, WALL + ahead, elapsed=float(sequence), started_at=WALL + ahead)


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (9.0, None),
        (-9.0, None),
        (120.0, "the clock of its process is 2 min ahead of the monitor's"),
        (-120.0, "the clock of its process is 2 min behind the monitor's, or what it sends arrives late"),
    ],
)
def test_wrong_clock_is_said(monitor: Parts, fake: FakeClock, ahead: float, said: str | None) -> None:
    """The warning is on the row, in the detail and in the health; nothing is said of less than 10 s."""
    monitor.say(snap(ahead, 1), **{s.SEQUENCE: 1})
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    assert monitor.row().get("warning") == said
    assert monitor.views.detail(entry).get("warning") == said
    assert monitor.core.clocks.health() == ({} if said is None else {"clocks": {"wrong": 1, "newest": f"p1: {said}"}})


def test_warning_ends_with_the_next_event_in_time(monitor: Parts, fake: FakeClock) -> None:
    """What arrived late once, as a Collector tried again, is no wrong clock."""
    monitor.say(snap(-60.0, 1), **{s.SEQUENCE: 1})
    assert "warning" in monitor.row()
    monitor.beat()
    assert "warning" not in monitor.row()
    assert monitor.core.clocks.health() == {}


def test_end_that_an_observer_reports_is_no_wrong_clock(monitor: Parts, fake: FakeClock) -> None:
    """A certificate has the time of the death, and comes later."""
    monitor.say(snap(0.0, 1), **{s.SEQUENCE: 1})
    lost = Snapshot("a", "work", Status.LOST, WALL - 60.0, started_at=WALL)
    monitor.say(lost, event=s.OPERATION_ENDED, **{s.SEQUENCE: 2})
    assert monitor.core.clocks.health() == {}


def test_wrong_clock_is_said_after_the_end(monitor: Parts, fake: FakeClock) -> None:
    """Its times are as wrong as before."""
    monitor.say(snap(120.0, 1), **{s.SEQUENCE: 1})
    ended = Snapshot("a", "work", Status.COMPLETED, WALL + 121.0, elapsed=1.0, started_at=WALL + 120.0)
    monitor.say(ended, event=s.OPERATION_ENDED, **{s.SEQUENCE: 2})
    assert monitor.row()["status"] == "completed"
    assert "2 min ahead" in monitor.row()["warning"]
