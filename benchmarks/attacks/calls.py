"""Attacks: public calls while everything fails.

Each runs a program that uses every public function (`programs/every.py`), with and without an exporter.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.attacks import attack, attacks, hold
from benchmarks.attacks.programs import every

SECONDS = 200
"""Seconds that a program may take; it takes less than ten on an idle machine."""
WATCHED = ("bare", "watched")


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"benchmarks.attacks.programs.{program}", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    told = (done.stdout[-3000:] + done.stderr[-3000:]).strip()
    hold(done.returncode == 0, f"a call raised what was not the job's, or hung: {told}")


@attack("calls", "a public function that no attack uses")
def unused() -> None:
    hold(not every.unused(), f"add a use of {', '.join(every.unused())} to programs/every.py")


@attacks("calls", "{what} are used up before the first use, {watched}", what=("descriptors",), watched=WATCHED)
def used_up(what: str, watched: str) -> None:
    """Memory is left out: without any, CPython itself may die of signal 11; run it by hand."""
    run("starved", what, watched)


@attacks("calls", "frames are used up, {watched}", long=True, watched=WATCHED)
def frames(watched: str) -> None:
    run("starved", "frames", watched)


@attacks("calls", "a signal handler uses everything inside each other call, {watched}", long=True, watched=WATCHED)
def signals(watched: str) -> None:
    run("starved", "signals", watched)


@attacks("calls", "a signal handler raises {what} inside each call, {watched}", what=("limit", "interrupt"), watched=WATCHED, long=True)  # fmt: skip # noqa: E501
def meant(what: str, watched: str) -> None:
    run("meant", what, watched)


@attacks("calls", "all is used in {when}, {watched}", when=("collected", "exit", "teardown"), watched=WATCHED)
def gone(when: str, watched: str) -> None:
    run("gone", when, watched)


@attacks("calls", "hostile {what}, {watched}", what=("arguments", "errors"), watched=WATCHED)
def hostile(what: str, watched: str) -> None:
    run("hostile", what, watched)
