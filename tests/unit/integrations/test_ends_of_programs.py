"""How bars and spans end that were open when their program ended, in programs without a line of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BEGIN = """
import sys, time
import otel_progress
from otel_progress.handlers.jsonlines import JsonLines
from tqdm import tqdm

otel_progress.configure(handlers=[JsonLines(sys.argv[1])], instrument=["tqdm", "live_spans"])

def shown(_):
    while not otel_progress.operations():
        time.sleep(0.05)
"""
LOOP = """
def read():
    for number in tqdm(range(50), desc="files"):
        shown(number)
        {last}
read()
"""
MOVED = """
def read():
    bar = tqdm(total=5, desc="files")
    shown(bar)
    bar.update({count})
    {last}
read()
"""
SPAN = """
from opentelemetry.sdk.trace import TracerProvider
span = TracerProvider().get_tracer("theirs").start_span("files")
shown(span)
{last}
"""


def end_of(source: str, tmp_path: Path) -> dict[str, Any]:
    """Run a program; returns the end of its only operation."""
    kept = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", BEGIN + source, str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    events = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    ends: list[dict[str, Any]] = [event for event in events if event["event"] == "progress.operation.ended"]
    assert len(ends) == 1, (done.stderr, events)
    return ends[0]


PART, ALL = MOVED.replace("{count}", "1"), MOVED.replace("{count}", "5")


@pytest.mark.parametrize(
    ("source", "last", "status", "reason"),
    [
        (LOOP, "raise ValueError('no such file')", "failed", "ValueError: no such file"),
        (PART, "raise ValueError('no such file')", "failed", "ValueError: no such file"),
        (SPAN, "raise ValueError('no such file')", "failed", "ValueError: no such file"),
        (LOOP, "raise KeyboardInterrupt", "interrupted", "KeyboardInterrupt"),
        (LOOP, "break", "cancelled", "left early, after 0"),
        (PART, "sys.kept = bar", "interrupted", "the process ended"),
        (ALL, "sys.kept = bar", "completed", None),
    ],
)
def test_what_was_open_ends_as_its_program(
    source: str, last: str, status: str, reason: str | None, tmp_path: Path
) -> None:
    """By an exception that nobody caught it has failed; a bar that nobody closed has completed if all is done."""
    found = end_of(source.replace("{last}", last), tmp_path)["snapshot"]
    assert (found["name"], found["status"], found["reason"]) == ("files", status, reason)
