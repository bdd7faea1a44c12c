"""The examples run, and show what they are for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *args: str) -> str:
    """Run an example as a reader would, and return its output; a log line of ours is an error."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args],
        env={**os.environ, "PYTHONWARNINGS": "error", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "does nothing: no operation" not in done.stderr
    return done.stdout + done.stderr


def test_survey(tmp_path: Path) -> None:
    """The survey measures real files, and writes its report."""
    report = tmp_path / "survey.md"
    said = run("survey.py", "--once", "--limit", "60", "--report", str(report))
    assert "survey completed" in said
    assert "files 60" in said
    facts = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts["files"] == 60
    assert facts["lines"] > 10_000
    assert "## Imported most" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("verbosity", "notes", "changes"), [("quiet", False, False), ("normal", True, True), ("verbose", True, True)]
)
def test_survey_verbosity(tmp_path: Path, verbosity: str, notes: bool, changes: bool) -> None:
    """The verbosity of the command is that of the console."""
    said = run("survey.py", "--limit", "5", "--report", str(tmp_path / "survey.md"), "--verbosity", verbosity)
    assert "survey completed" in said
    assert ("found 5 files" in said) is notes
    assert ("survey: discover" in said) is changes


def test_webhook() -> None:
    """The receiver accepts what is signed: the stall, the recovery and the failure."""
    said = run("webhook.py")
    kinds = [line.split()[0] for line in said.splitlines() if "nightly import" in line]
    assert kinds == ["stalled", "recovered", "failed"]
    assert "the archive is full" in said


def test_agent() -> None:
    """An agent's tools are its children; a tool that fails is reported, and the agent goes on."""
    said = run("agent.py", "--speed", "20")
    assert "failed" in said
    assert "TimeoutError: the index does not answer" in said
    assert "answer_question completed" in said
    assert "3 ok · 1 failed" in said
    assert "375 input tokens · 160 output tokens" in said


def test_callbacks() -> None:
    """Handles end in other callbacks than those in which they start, each with its own outcome."""
    said = run("callbacks.py")
    assert "failed after" in said
    assert "ConnectionError: the other side hung up" in said
    assert "digest " in said


def test_many_runs() -> None:
    """Numbers of one run and of many: each row is an outcome, and a retry is none."""
    said = run("many_runs.py")
    rows = [sum(map(int, found)) for found in re.findall(r"(\d+) ok, (\d+) failed", said)]
    assert rows == [100, 100, 100]
    assert "5 runs: mean" in said
    assert "TimeoutError: no answer within 5 s" in said


def test_threads() -> None:
    """The work of pool threads counts for their operation."""
    said = run("threads.py")
    assert said.count("60 blocks") >= 2
    assert "120 ok" in said


def test_processes() -> None:
    """The operations of child processes name their parent."""
    assert "primes 16,342" in run("processes.py")


def test_generator() -> None:
    """A generator's operation lasts as long as the generator; left early, it is cancelled."""
    said = run("generator.py")
    assert "collatz completed" in said
    assert "countdown cancelled" in said


def test_report(tmp_path: Path) -> None:
    """The job's own report says at first that it runs, then how it ended; five runs are compared."""
    said = run("report.py", str(tmp_path))
    assert "5 (5 completed)" in said
    assert "time in stage fetch a run, median" in said
    assert "Still running, as of" in (tmp_path / "now.html").read_text(encoding="utf-8")
    assert "Still running" not in (tmp_path / "orders.html").read_text(encoding="utf-8")
    assert "Durations over time" in (tmp_path / "compared.html").read_text(encoding="utf-8")
