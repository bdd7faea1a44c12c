"""The monitor holds the state that each conformance vector asks of a reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import WALL, Parts, seconds

from otel_progress import clock
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Accepted, Acknowledgement, Envelope
from otel_progress.monitor.web.cancel import Control, answers_of
from otel_progress.monitor.web.wishes import Wishes
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
    "average_stage_duration",
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
    found["warns"] = "warning" in seen or None
    found["stalled"] = [
        [None if at is None else int(at - WALL) for at in (one["from"], one["to"])]
        for one in seen.get("timeline", ())
        if one["kind"] == "stall"
    ]
    found["stages"] = {one["path"]: {key: one.get(key) for key in STAGE} | counts(one["progress"]) for one in stages}
    found["stage_list"] = [[one["path"], one["status"], one["progress"].get("completed")] for one in stages]
    return found


class Channel:
    """The control channel of the monitor, with emitters that poll it and do not wait."""

    def __init__(self, monitor: Parts) -> None:
        self._monitor = monitor
        self.open()
        self._loop = asyncio.new_event_loop()
        self._ids: dict[str, str] = {}
        """The ids of commands, by the name that the vector has for each."""

    def open(self) -> None:
        """Begin with the monitor, which may have been restarted."""
        self._control = Control()
        self._wishes = Wishes(self._monitor.core, self._monitor.hub, self._control)

    def cancel(self, key: str, reason: str) -> None:
        """A user of the monitor asks it to cancel an operation."""
        entry = self._monitor.core.ledger.operations[key]
        self._loop.create_task(self._control.cancel(key, entry.head.attempt, entry.instance, reason))
        self._loop.run_until_complete(asyncio.sleep(0))

    def poll(self, given: dict[str, Any], step: dict[str, Any]) -> None:
        """An emitter polls, and gets what the step says."""
        answers = [{**one, "command": self._ids[one["command"]]} for one in given.get("answers") or ()]
        asked = answers_of(json.dumps({**given, "answers": answers, "wait": 0}).encode())
        self._wishes.look()
        found = self._loop.run_until_complete(
            self._control.poll(asked.instance, asked.pid, asked.answers, wishes=asked.wishes)
        )
        commands = [one for one in found if "kind" in one]
        assert len(commands) == len(step.get("commands", ())), found
        for wanted, command in zip(step.get("commands", ()), commands):
            assert self._ids.setdefault(wanted["id"], command["id"]) == command["id"]
            agree({key: value for key, value in wanted.items() if key != "id"}, command, wanted["id"])
        asks = [one for one in found if "do" in one]
        if "asks" in step:
            assert bool(asks) == bool(step["asks"]), found
            for wanted in step["asks"]:
                assert any(wanted.items() <= one.items() for one in asks), (wanted, found)

    def close(self) -> None:
        """End all that waits."""
        self._control.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self._loop.close()


@pytest.fixture
def channel(monitor: Parts) -> Iterator[Channel]:
    """The control channel of the monitor."""
    found = Channel(monitor)
    yield found
    found.close()


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
def test_state_is_that_of_the_vector(monitor: Parts, fake: FakeClock, channel: Channel, name: str) -> None:
    """After each request of the vector, and while time passes, the monitor shows and answers what the vector expects."""
    for number, step in enumerate(read(name)["steps"]):
        pass_to(monitor, fake, step["at"])
        if "send" in step:
            assert deliver(monitor, step["send"]).rejected == step.get("rejected", 0), number
            continue
        if step.get("restart"):
            monitor.restart()
            channel.open()
            continue
        if "cancel" in step:
            channel.cancel(step["cancel"], step["reason"])
            continue
        if "poll" in step:
            channel.poll(step["poll"], step)
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
            heard = {key: after[key] for key in ("state", "warns")}  # nothing was heard yet
            agree({**before, **heard}, after, f"step {number}: {key}")
