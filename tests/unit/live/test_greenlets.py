"""Greenlets in the place of threads, as in programs that gevent patched: operations, their verdicts and their lines."""

from __future__ import annotations

import subprocess
import sys

FIRST = "from gevent import monkey; monkey.patch_all()\n"
PROGRAM = """
import gevent, time
import otel_progress as progress
from otel_progress import semconv
from otel_progress.testing import capture
{late}

def tool():
    gevent.sleep(60)

def turns():
    with progress.operation("turns", total=4, stall_after=10) as op:
        for _ in range(4):
            gevent.sleep(0.01)
            op.advance()

def hangs():
    with progress.operation("hangs", stall_after=10), progress.stage("tool"):
        tool()

with capture() as captured:
    works, stuck = gevent.spawn(turns), gevent.spawn(hangs)
    works.join()
    captured.advance(12)
    (stalled,) = captured.of(semconv.STALLED)
    print(stalled.snapshot.name, stalled.snapshot.stuck_at)
    print(captured.ended("turns").progress.completed, captured.ended("turns").status.value)
    stuck.kill()
    captured.advance(1)
    print(captured.ended("hangs").status.value)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)


def test_a_stuck_greenlet_is_named_with_its_line() -> None:
    """Each greenlet has operations of its own, and the line at which one of them hangs is that of its own code."""
    done = run(FIRST + PROGRAM.format(late=""))
    assert done.stdout.splitlines() == ["hangs <string>:10 in tool", "4 completed", "cancelled"]
    assert "Traceback" not in done.stderr


def test_the_ticker_is_a_greenlet_like_all_others() -> None:
    """A program that patched first is seen while it runs, without a thread that gevent does not know."""
    code = """
import gevent
import otel_progress as progress
from otel_progress import semconv
from otel_progress.live import hooks
from otel_progress.live.engine import runtime

seen = []
hooks.sinks.append(lambda event, _: seen.append(event.name))
runtime.want()
with progress.operation("work", stall_after=0.5):
    deadline = 60
    while semconv.STALLED not in seen and deadline > 0:
        gevent.sleep(0.1)
        deadline -= 0.1
print(semconv.STALLED in seen, runtime.ticker.running)
"""
    done = run(FIRST + code)
    assert done.stdout.split() == ["True", "True"]
    assert not done.stderr


def test_threads_that_are_replaced_late_are_told_and_no_line_is_guessed() -> None:
    """All greenlets look like one thread then: a warning says what to do, and no stack of another one is shown."""
    done = run(PROGRAM.format(late="from gevent import monkey; monkey.patch_all()"))
    assert done.stdout.splitlines()[0] == "hangs None"
    assert done.stderr.count("call gevent.monkey.patch_all() before any other import") == 1
