"""Between two updates an observer takes silence for nothing: neither for a standstill, nor for the end of an estimate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_progress.cli.query.rows import later_of
from otel_progress.model import wire
from otel_progress.model.estimate import Estimate
from otel_progress.model.fields import UNDERWAY
from otel_progress.model.health import Hearing, judge
from otel_progress.model.snapshot import Branch, Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.monitor.state import as_of

PAUSE = 40.0
HEARD = Hearing(0.0)
STAGE = StageSnapshot("part", "part", Status.RUNNING, Progress(), started_at=1.0, idle=0.5)
SEEN = Snapshot(
    "a", "job", Status.RUNNING, 2000.0, started_at=1.0, elapsed=1999.0, idle=0.5, stall_after=30.0, update_pause=PAUSE
)


def test_idle_time_stands_while_an_update_may_wait() -> None:
    """Afterwards all of it counts, as movement would have been told; elapsed time always goes on."""
    during = SEEN.at(SEEN.timestamp + PAUSE + UNDERWAY)
    assert (during.idle, during.elapsed) == (0.5, 1999.0 + PAUSE + UNDERWAY)
    after = SEEN.at(SEEN.timestamp + PAUSE + UNDERWAY + 1)
    assert after.idle == 0.5 + PAUSE + UNDERWAY + 1
    assert replace(SEEN, update_pause=None).at(SEEN.timestamp + 10).idle == 10.5


def test_what_is_stuck_stands_still_all_the_time() -> None:
    """It says at once when it moves."""
    stuck = replace(SEEN, health=Health.SILENT, idle=50.0)
    assert stuck.at(stuck.timestamp + 10).idle == 60.0


def test_branches_and_waits_as_the_whole() -> None:
    """Each branch by its own health; a declared wait goes on."""
    branches = (
        Branch("moves", idle=1.0),
        Branch("stuck", idle=50.0, health=Health.SILENT),
        Branch("waits", wait=Wait("ann", 3.0)),
    )
    moves, stuck, waits = replace(SEEN, branches=branches).at(SEEN.timestamp + 10).branches
    assert (moves.idle, stuck.idle) == (1.0, 60.0)
    assert waits.wait is not None
    assert waits.wait.elapsed == 13.0


@pytest.mark.parametrize("advanced", [lambda seen, later: as_of.at(seen, later), later_of])
@pytest.mark.parametrize(("later", "idle"), [(20.0, 0.5), (100.0, 100.5)])
def test_stages_as_the_whole(advanced: object, later: float, idle: float) -> None:
    """In the monitor and in the terminal."""
    found = advanced(replace(SEEN, stages=(STAGE,)), later)  # type: ignore[operator]
    assert (found.idle, found.stages[0].idle) == (idle, idle)


def test_an_estimate_runs_down_by_the_pause() -> None:
    """Of a count with many units left it would otherwise stand after a second."""
    progress = Progress(1000, 100_000, ratio=0.01, eta=Estimate(900.0, 800.0, 1000.0, "rate"))
    seen = replace(SEEN, progress=progress)
    assert seen.at(SEEN.timestamp + 30).progress.eta == Estimate(870.0, 770.0, 970.0, "rate")
    live = replace(seen, update_pause=None).at(SEEN.timestamp + 30).progress.eta
    assert live is not None
    assert live.eta > 890


def test_silence_is_neither_stuck_nor_unknown() -> None:
    """A process that is heard vouches for its operations, however rarely they report."""
    for later in (10.0, 59.0, 200.0):
        assert judge(SEEN, SEEN.timestamp + later, HEARD).health is Health.PROGRESSING


def test_the_pause_is_on_the_wire() -> None:
    """As one more attribute, and absent where nothing waits."""
    assert wire.to_attributes(SEEN)["progress.update.pause"] == PAUSE
    assert "progress.update.pause" not in wire.to_attributes(replace(SEEN, update_pause=None))
    read = wire.from_attributes(wire.to_attributes(SEEN), 2000.0)
    assert read is not None
    assert read.update_pause == PAUSE
