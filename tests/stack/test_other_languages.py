"""The emitters in TypeScript and Go, with the OTLP exporters of their ecosystems, against a real monitor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.stress.served import Served, serving, wait_until

from . import emitters
from .needed import built

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 40


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A monitor that serves."""
    with serving(tmp_path_factory.mktemp("languages")) as found:
        yield found


@pytest.fixture(params=sorted(emitters.FILES))
def language(request: pytest.FixtureRequest) -> str:
    """The name of an emitter."""
    return str(request.param)


@contextmanager
def emitting(monitor: Served, language: str, mode: str, *before: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The program, after the words of a command, ended at last, and the id of its operation."""
    key = f"{language}-{mode}-{os.urandom(4).hex()}"
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": monitor.monitor.url}
    process = subprocess.Popen([*before, str(built(language)), key, mode], env=env, stderr=subprocess.PIPE)
    try:
        yield key, process
    finally:
        process.kill()
        process.communicate()


def shown(monitor: Served, key: str) -> dict[str, Any]:
    """What the monitor shows of an operation; nothing if it does not know it."""
    found: dict[str, Any] = monitor.ask("GET", f"/operations/{key}").json
    return found if "state" in found else {"state": None, "stages": []}


def stages(found: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Path, status and count of each stage."""
    return [(one["path"], one["status"], one["progress"]["completed"]) for one in found["stages"]]


def wait_for(monitor: Served, key: str, state: str) -> dict[str, Any]:
    """Wait until the operation has this state."""
    wait_until(lambda: shown(monitor, key)["state"] == state, LONG)
    return shown(monitor, key)


def test_run_is_live_and_completes(monitor: Served, language: str) -> None:
    """Its second stage counts before it ends; at the end both are complete, and the monitor found no mistake."""
    with emitting(monitor, language, "run") as (key, process):
        wait_until(lambda: 0 < shown(monitor, key).get("stage_progress", {}).get("completed", 0) < 20, LONG)
        assert shown(monitor, key)["process"]["pid"] == process.pid
        _, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (0, b"")
    found = shown(monitor, key)
    assert (found["state"], stages(found)) == ("completed", [("fetch", "completed", 4), ("load", "completed", 20)])
    assert "sender_mistakes" not in found


def test_wait_is_shown_and_becomes_overdue(monitor: Served, language: str) -> None:
    """A declared wait with a limit is overdue when that is over, and the operation goes on."""
    with emitting(monitor, language, "wait") as (key, process):
        assert wait_for(monitor, key, "waiting")["wait"]["reason"] == "approval"
        wait_for(monitor, key, "overdue")
        assert process.wait(LONG) == 0
    assert shown(monitor, key)["state"] == "completed"


def test_hang_is_stuck_and_can_be_cancelled(monitor: Served, language: str) -> None:
    """The monitor calls it stuck after its limit; asked to stop over the control channel, it ends as cancelled."""
    with emitting(monitor, language, "hang") as (key, process):
        found = wait_for(monitor, key, "stuck")
        assert (found["verdict"]["reason"], found["stage"]) == ("no progress for 3 s, stall_after is 3 s", "load")
        assert found["control"]
        answer = monitor.ask("DELETE", f"/operations/{key}?wait=20&reason=wrong+data")
        assert (answer.status, answer.json["state"]) == (200, "obeyed")
        assert process.wait(LONG) == 1
    found = shown(monitor, key)
    assert (found["state"], stages(found)) == ("cancelled", [("fetch", "completed", 4), ("load", "cancelled", 10)])
    assert "wrong data" in found["reason"]


def test_it_can_be_cancelled_below_run(monitor: Served, language: str) -> None:
    """`otel-progress run` names the monitor's address, at another port than its own, as one that may be followed."""
    run = (sys.executable, "-m", "otel_progress.cli", "run", "--")
    with emitting(monitor, language, "hang", *run) as (key, process):
        assert wait_for(monitor, key, "stuck")["control"]
        answer = monitor.ask("DELETE", f"/operations/{key}?wait=20&reason=wrong+data")
        assert (answer.status, answer.json["state"]) == (200, "obeyed")
        assert process.wait(LONG) == 1
    assert shown(monitor, key)["state"] == "cancelled"


def test_killed_process_is_lost(monitor: Served, language: str) -> None:
    """After SIGKILL nothing more is heard of it; its pid and creation time prove that it is gone."""
    with emitting(monitor, language, "hang") as (key, process):
        wait_until(lambda: ("load", "running", 10) in stages(shown(monitor, key)), LONG)
        process.send_signal(signal.SIGKILL)
        found = wait_for(monitor, key, "lost")
    assert (found["reason"], stages(found)[1]) == ("its process is gone", ("load", "lost", 10))


def test_emitters_are_short() -> None:
    """Each emitter has at most 200 lines, without the program that shows it."""
    for name in emitters.FILES:
        for file in emitters.sources(name):
            if file.stem == "emitter":
                assert len(file.read_text(encoding="utf-8").splitlines()) <= 200
