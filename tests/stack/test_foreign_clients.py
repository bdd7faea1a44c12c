"""Programs without our SDK against a real monitor: Node.js with `fetch`."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.stress.served import Served, serving, wait_until

from .needed import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

EMITTER = Path(__file__).parent / "clients" / "emitter.mjs"
CANCEL = "fetch(process.argv[1], {method: 'DELETE'}).then(async (a) => console.log(a.status, await a.text()))"


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A monitor that serves."""
    with serving(tmp_path_factory.mktemp("foreign")) as found:
        yield found


@contextmanager
def emitter(monitor: Served, key: str, mode: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program in Node.js, ended at last."""
    command = [str(installed("node", "nodejs")), str(EMITTER), monitor.monitor.url, key, mode]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_fetch_of_node_is_no_browser(monitor: Served) -> None:
    """It sends `Sec-Fetch-Mode` with each request, and is taken: from the start to the end."""
    with emitter(monitor, "run", "run") as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    found = monitor.detail("run")
    assert (found["status"], found["progress"]["completed"], found.get("source")) == (
        "completed",
        4,
        None,
    )
    assert [stage["status"] for stage in found["stages"]] == ["completed"]


def test_hang_is_stuck_can_be_asked_to_stop_and_is_lost_with_its_process(monitor: Served) -> None:
    """The hang shows after its limit, although heartbeats go on; after SIGKILL the operation is lost, not stuck."""
    with emitter(monitor, "hang", "hang") as process:
        wait_until(
            lambda: (
                monitor.ask("GET", "/operations/hang").status == 200
                and monitor.detail("hang")["verdict"]["health"] == "stuck"
            ),
            30,
        )
        assert monitor.detail("hang")["verdict"]["reason"].endswith("stall_after is 2 s")
        node = str(installed("node", "nodejs"))
        said = subprocess.run(
            [node, "-e", CANCEL, f"{monitor.monitor.url}/operations/hang"], capture_output=True, check=True
        )
        assert said.stdout.startswith(b"409")  # not 403: it has no control channel
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: monitor.detail("hang")["status"] == "lost", 30)
