"""The terminal commands with the real monitor and a real program: what the program does is what its user sees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.terminal.real import Monitor
from tests.terminal.screens import ROOT, Terminal, command, environment, wait_until

PROGRAM = """
import sys, time
import otel_progress as progress

progress.configure(endpoint=sys.argv[1])
with progress.operation("survey", id="survey-1", stall_after=300) as survey:
    with progress.stage("load", total=2, unit="file") as load:
        load.advance(2)
    with progress.stage("parse", total=100, unit="file") as parse:
        with progress.operation("worker", id="worker-1"):
            parse.advance(25)
            progress.note("found it")
            for line in sys.stdin:
                progress.raise_if_cancelled()
                parse.advance(int(line or 0))
"""
WAITS = """
import sys, time
import otel_progress as progress

progress.configure(endpoint=sys.argv[1])
with progress.operation("survey", id="survey-1"):
    while True:
        progress.raise_if_cancelled()
        time.sleep(0.05)
"""


@pytest.fixture
def program(real: Monitor) -> Iterator[subprocess.Popen[str]]:
    yield from running(real, PROGRAM)


def running(real: Monitor, source: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", source, real.url],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=real.environment(),
        cwd=ROOT,
    )
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stderr.close()


def asked(real: Monitor, *given: str) -> subprocess.CompletedProcess[str]:
    given = (*command(*given), "--url", real.url)
    return subprocess.run(given, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60, check=False)


def test_watch_over_a_killed_monitor(real: Monitor, program: subprocess.Popen[str]) -> None:
    """All is seen as it happens; after a SIGKILL of the monitor and a new start it goes on, and ends with the end."""
    with Terminal("watch", "--url", real.url) as everything:
        everything.see("survey-1", "worker-1", "2 running")
        with Terminal("watch", "survey", "--url", real.url) as terminal:
            terminal.see("✓ load", "parse", "25/100 files", "worker-1")
            real.kill()
            terminal.see("connection lost, retrying")
            everything.see("connection lost, retrying")
            program.stdin.write("50\n")
            program.stdin.flush()
            real.start()
            assert "connection lost" not in terminal.see("75/100 files", timeout=30)
            everything.see("2 running")
            program.stdin.close()
            assert terminal.exit_code(30) == 0
            assert "✓ survey-1 completed after" in terminal.text
            assert "75/100 files" in terminal.text
            assert terminal.cursor_visible
        everything.see("✓ survey-1 completed after", "nothing runs")


def test_list_and_show(real: Monitor, program: subprocess.Popen[str]) -> None:
    """What runs is listed and shown; the JSON is what the monitor has."""
    with Terminal("watch", "--url", real.url) as terminal:
        terminal.see("2 running")
    told = asked(real, "list").stdout
    assert "survey-1" in told
    assert "worker-1" in told
    found = json.loads(asked(real, "show", "survey-1", "--json").stdout)
    assert found["status"] == "running"
    assert [stage["name"] for stage in found["stages"]] == ["load", "parse"]
    told = asked(real, "show", "surv").stdout
    for part in ("✓ load", "parse", "25/100 files", "children", "worker-1", "trace", f"pid {program.pid}", "events"):
        assert part in told
    assert asked(real, "show", "nobody").returncode == 4


def test_cancel_stops_it(real: Monitor) -> None:
    """`cancel` reaches the process, says that it stopped, and whoever watches sees it end as cancelled."""
    for process in running(real, WAITS):
        with Terminal("watch", "--url", real.url) as everything:
            everything.see("1 running")
            with Terminal("watch", "survey-1", "--url", real.url) as terminal:
                terminal.see("survey-1")
                wait_until(lambda: json.loads(asked(real, "show", "survey-1", "--json").stdout).get("control"))
                done = asked(real, "cancel", "survey", "--yes", "--reason", "enough", "--wait", "20")
                assert (done.returncode, done.stdout) == (0, "survey-1 has stopped\n")
                assert terminal.exit_code(20) == 1
                assert "⊘ survey-1 cancelled after" in terminal.text
            everything.see("⊘ survey-1 cancelled after", "nothing runs")
        process.wait(20)
        done = asked(real, "cancel", "survey-1", "--yes")
        assert (done.returncode, "is over already: cancelled" in done.stdout) == (1, True)
