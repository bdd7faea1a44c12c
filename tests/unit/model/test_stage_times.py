"""Stages of emitters that do not say how long each took: the events of their ends say it, or nobody knows it."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from otel_progress import semconv as s
from otel_progress.model import json_keys, wire
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.stage_ends import has_untimed, timed
from otel_progress.model.statistics import statistics_of
from otel_progress.model.summary import summary
from otel_progress.render import plain

AT = 1_700_000_000.0


class End(NamedTuple):
    """The end of a stage, as a history keeps it."""

    timestamp: float
    stage: str
    attributes: str | None = None
    event: str = s.STAGE_ENDED
    sequence: int = 1
    text: str = ""


def read(*stages: dict[str, object], status: str = "completed") -> Snapshot:
    """What another SDK reports 40 s after the start."""
    about = {s.OPERATION_ID: "a", s.OPERATION_NAME: "work", s.STATUS: status, s.START_TIME: AT}
    return wire.from_attributes({**about, s.STAGES: json.dumps(stages)}, AT + 40.0, derives=True)


def load(status: str = "completed", began: float | None = 0.0, **more: object) -> dict[str, object]:
    """A run of the stage `load`."""
    return {"path": "load", "status": status, **({} if began is None else {"started_at": AT + began}), **more}


def spent(snapshot: Snapshot) -> list[float | None]:
    """How long each stage took, as far as it is known."""
    return [None if stage.untimed else stage.elapsed for stage in snapshot.stages]


@pytest.mark.parametrize(
    ("stage", "known"),
    [
        (load(), False),
        (load("failed", None), False),
        (load(elapsed=0.0), True),
        (load("running"), True),
        (load("running", None, elapsed=2.0), True),
        (load("running", None), False),
        (load("skipped", None), True),
        (load("pending", None), True),
    ],
)
def test_only_a_stage_without_its_time_is_untimed(stage: dict[str, object], known: bool) -> None:
    """What runs is timed by its start or by what is said, and what did not run took no time."""
    (seen,) = read(stage, status="running").stages
    assert (not seen.untimed) is known


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "interrupted", "lost"])
def test_a_stage_that_is_open_at_the_end_ended_with_its_operation(end: str) -> None:
    """It has the status of the operation, and took the time up to its end; what never began is skipped."""
    wait = ["lock", 3.0, None]
    told = [
        load("running", 10.0),
        load("waiting", 15.0, wait=wait),
        load("pending", None),
        load("completed", elapsed=1),
    ]
    seen = read(*told, load("running", 10.0, elapsed=7.0, eta=[5, 4, 6]), load("running", None), status=end)
    statuses = [end, end, "skipped", "completed", end, end]
    assert [stage.status.value for stage in seen.stages] == statuses
    assert spent(seen) == [30.0, 25.0, 0.0, 1.0, 7.0, None]
    assert not any(stage.wait or stage.progress.eta for stage in seen.stages)
    assert len(plain.closing(seen, "work", 9)) > 1
    assert summary(seen)


def test_a_stage_needs_no_start_to_be_told() -> None:
    """Its emitter may leave out `started_at`: it ran, it took the time that it says, and its place is that in the list."""
    (fetch, parse) = {"path": "fetch", "status": "completed", "elapsed": 3.0}, load("completed", 3.0, elapsed=5.0)
    seen = read(fetch, parse, {"path": "save", "status": "failed", "elapsed": 12, "reason": "full"}, status="failed")
    lines = ["".join(text for text, _ in line) for line in plain.closing(seen, "work", 9)]
    assert [line.split()[1] for line in lines[1:4]] == ["fetch", "load", "save"]
    assert "3 s" in lines[1]
    assert "12 s" in lines[3]
    assert "fetch: completed after 3 s" in summary(seen)
    times = [found.durations for found in statistics_of(seen).stages]
    assert [found and found.total for found in times] == [3.0, 5.0, 12.0]
    told = json_keys.history(seen)
    assert [(one["stage"], one["started_at"], one["duration"]) for one in told["stage_history"]] == [
        ("fetch", None, 3.0),
        ("load", AT + 3, 5.0),
        ("save", None, 12.0),
    ]
    assert told["average_stage_duration"] == pytest.approx(20 / 3, abs=1e-3)


def test_a_stage_that_succeeded_at_last_is_no_failure() -> None:
    """Its newest run decides how it stands, and how many failed before is counted."""
    runs = [load("failed", 0.0, elapsed=1.0, reason="HTTP 502"), load("failed", 2.0, elapsed=1.0, reason="HTTP 502")]
    _, line = plain.closing(read(*runs, load(began=4.0, elapsed=2.0)), "work", 9)
    text = "".join(part for part, _ in line)
    assert text.startswith("  ✓ load x 3")
    assert text.endswith("2 failed")
    _, line, why = plain.closing(read(load(began=4.0, elapsed=2.0), *runs), "work", 9)
    assert "".join(part for part, _ in line).startswith("  ✗ load x 3")
    assert "".join(part for part, _ in why).strip() == "HTTP 502"


def test_our_own_stage_without_its_time_took_none() -> None:
    """Our SDK leaves out times of 0."""
    about = {s.OPERATION_ID: "a", s.OPERATION_NAME: "work", s.STATUS: "completed", s.START_TIME: AT}
    assert not has_untimed(wire.from_attributes({**about, s.STAGES: json.dumps([load()])}, AT))


def test_each_run_ends_by_its_own_event() -> None:
    """The first end since its start, and before the next start; what the event says of the time counts first."""
    seen = read(load(began=0.0), load(began=10.0), load("failed", 20.0), load(began=30.0))
    ends = [
        End(AT + 25, "load"),
        End(AT + 8, "load"),
        End(AT + 15, "other"),
        End(AT + 33, "load", '{"progress.stage.elapsed": 2.5}'),
    ]
    assert spent(timed(seen, ends)) == [8.0, None, 5.0, 2.5]
    assert spent(timed(seen, reversed(ends))) == [8.0, None, 5.0, 2.5]
    assert spent(timed(seen, ())) == [None] * 4


def test_unknown_time_is_nowhere_0() -> None:
    """Not in the JSON, the mean, the statistics, or in words."""
    seen = read(load(), {"path": "check", "status": "completed", "started_at": AT + 20, "elapsed": 6.0})
    said = json_keys.of_snapshot(seen)
    assert [one["elapsed"] for one in said["stages"]] == [None, 6.0]
    assert [one["duration"] for one in said["stage_history"]] == [None, 6.0]
    assert said["average_stage_duration"] == 6.0
    known = {stage.path: stage.durations for stage in statistics_of(seen).stages}
    assert known["load"] is None or known["load"].count == 0
    assert "load: completed\n" in f"{summary(seen)}\n"
    assert plain.outcome(seen.stages[0]) == "completed"


def test_end_of_a_stage_is_timed_by_its_event() -> None:
    """The event of the end itself says how long its stage took."""
    event = Event(s.STAGE_ENDED, round((AT + 7) * 1e9), read(load()), 2, "load")
    about = event.about
    assert about is not None
    assert (about.elapsed, about.untimed) == (7.0, False)
