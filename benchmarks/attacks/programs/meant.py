"""Exceptions of the job's own signal handlers reach the job, whatever call of ours they interrupt.

python -m benchmarks.attacks.programs.meant limit|interrupt bare|watched
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
import traceback
from typing import Any

import otel_progress as progress
from benchmarks.attacks.programs import every

TRIES = 25
SECONDS = 5.0


class Limit(Exception):
    """A time limit of the job, as task queues raise it."""


fired = 0
where = ""
lost: list[str] = []


def handler(_: int, frame: Any) -> None:
    global fired, where
    fired += 1
    where = "".join(traceback.format_stack(frame)[-6:])
    if sys.argv[1] == "limit":
        raise Limit
    raise KeyboardInterrupt


def lost_by_python(_: Any) -> None:
    """Whether Python itself drops the exception, as in a finalizer or a callback of the garbage collector."""
    lost.append(where)


def one(name: str, wait: float) -> bool:
    """Whether the job received what its handler raised during repeated calls of a function."""
    before, gone = fired, len(lost)
    deadline = time.monotonic() + SECONDS
    try:
        signal.setitimer(signal.ITIMER_REAL, wait)
        while fired == before and time.monotonic() < deadline:
            every.use(name)
    except (Limit, KeyboardInterrupt):
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return fired == before or len(lost) > gone


def main(_: str, watched: str, only: str = "") -> None:
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lost_by_python
    if watched == "watched":
        progress.configure("attacked", endpoint="http://127.0.0.1:9", interval=0.05)
    signal.signal(signal.SIGALRM, handler)
    chosen = [name for name in every.names() if only in name and name not in ("configure", "shutdown")]
    broken: dict[str, str] = {}
    for name in chosen:
        every.use(name)
        for _ in range(TRIES):
            if not one(name, random.uniform(0.00005, 0.002)):
                broken[name] = where
    still = [op.name for op in progress.operations()]
    for name, place in broken.items():
        print(f"{name} lost what a handler raised here:\n{place}")
    print(f"{len(broken)} broken: {' '.join(broken)}; {len(lost)} lost in finalizers; {len(still)} still run")
    sys.stdout.flush()
    os._exit(bool(broken))  # a handler that raises before the first line of __exit__ leaves one open


if __name__ == "__main__":
    main(*sys.argv[1:])
