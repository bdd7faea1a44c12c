"""The monitor holds the state that each conformance vector asks of a reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import WALL, Parts, seconds

from otel_progress import clock
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Accepted, Acknowledgement, Envelope
from otel_progress.testing import FakeClock

ROOT = Path(__file__).parents[3]
VECTORS = {path.stem: path for path in sorted((ROOT / "conformance" / "vectors").glob("*.json"))}
KEYS = (
    "name",
    "status",
    "state",
    "attempt",
    "started_at",
    "parent_id",
    "reason",
    "hint",
    "stage",
    "agent",
    "children",
    "elapsed",
)
PROGRESS = ("completed", "total", "unit", "ratio", "percentage", "rate")
WAIT = ("reason", "elapsed", "overdue_after")
STAGE = ("name", "status", "planned", "elapsed", "reason")


def read(name: str) -> dict[str, Any]:
    """A vector."""
    found: dict[str, Any] = json.loads(VECTORS[name].read_text(encoding="utf-8"))
    return found


def deliver(monitor: Parts, request: dict[str, Any]) -> Accepted:
    """Send a request as OTLP/JSON; it is taken."""
    answers: list[Acknowledgement] = []
    body = json.dumps(request).encode()
    monitor.core.work([Job(Envelope("logs", body, is_json=True), answers.append, True)])
    (answer,) = answers
    assert isinstance(answer, Accepted), answer
    return answer


def counts(progress: dict[str, Any]) -> dict[str, Any]:
    """Counts in the words of the vectors."""
    eta, percentage = progress.get("eta"), progress.get("percentage")
    whole = {"percentage": None if percentage is None else int(percentage)}
    return (
        {key: progress.get(key) for key in PROGRESS} | whole | {"eta": eta["seconds"] if isinstance(eta, dict) else eta}
    )


def state(monitor: Parts, key: str) -> dict[str, Any] | None:
    """What the monitor shows of an operation, in the words of the vectors; None if it knows none."""
    entry = monitor.core.ledger.find(key)
    if entry is None:
        return None
    seen = monitor.views.detail(entry)
    found: dict[str, Any] = {name: seen.get(name) for name in KEYS}
    found |= {"message": seen["progress"].get("current_step"), "progress": counts(seen["progress"])}
    found["wait"] = {name: seen["wait"].get(name) for name in WAIT} if "wait" in seen else None
    stages = seen.get("stages", [])
    found["stages"] = {one["path"]: {key: one.get(key) for key in STAGE} | counts(one["progress"]) for one in stages}
    found["stage_list"] = [[one["path"], one["status"], one["progress"].get("completed")] for one in stages]
    return found


def agree(wanted: Any, found: Any, where: str) -> None:
    """What is wanted is there: objects may hold more, null means nothing, numbers agree to a thousandth."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), (where, found)
        for key, value in wanted.items():
            agree(value, found.get(key), f"{where}.{key}")
    elif isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        assert found == pytest.approx(wanted, abs=1e-3), (where, found)
    else:
        assert found == wanted, where


def pass_to(monitor: Parts, fake: FakeClock, at: float) -> None:
    """Let the time come that is `at` seconds after the start of the vector."""
    left = WALL + at - clock.unix()
    assert left >= -1e-6, "steps are in order"
    seconds(fake, monitor, left)


@pytest.mark.parametrize("name", VECTORS)
def test_state_is_that_of_the_vector(monitor: Parts, fake: FakeClock, name: str) -> None:
    """After each request of the vector, and while time passes, the monitor shows what the vector expects."""
    for number, step in enumerate(read(name)["steps"]):
        pass_to(monitor, fake, step["at"])
        if "send" in step:
            assert deliver(monitor, step["send"]).rejected == step.get("rejected", 0), number
            continue
        if step.get("restart"):
            monitor.restart()
            continue
        monitor.tick()
        wanted = step["expect"]
        for key, value in wanted.get("operations", {}).items():
            agree(value, state(monitor, key), f"step {number}: {key}")
        for key in wanted.get("absent", ()):
            assert state(monitor, key) is None, (number, key)
        if wanted.get("warns"):
            assert monitor.core.mistakes.health(), number


@pytest.mark.parametrize("name", VECTORS)
def test_restart_of_the_reader_changes_no_state(monitor: Parts, fake: FakeClock, name: str) -> None:
    """What a monitor shows of operations, stages and counts after a request, it shows after a restart, too."""
    for number, step in enumerate(read(name)["steps"]):
        pass_to(monitor, fake, step["at"])
        if "send" not in step:
            continue
        deliver(monitor, step["send"])
        monitor.tick()
        shown = {key: state(monitor, key) for key in monitor.core.ledger.operations}
        monitor.restart()
        for key, before in shown.items():
            after = state(monitor, key)
            assert before is not None
            assert after is not None
            agree({**before, "state": after["state"]}, after, f"step {number}: {key}")  # nothing was heard yet
