"""Call each public function first in a fresh process without resources; print what raised.

python -m benchmarks.attacks.programs.starved descriptors|memory|frames|signals bare|watched
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import otel_progress as progress
from benchmarks.attacks.programs import every

LIMIT = 30
HEADROOM = 80


def no_descriptors(name: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for _ in range(3):
        every.use(name)


def no_memory(name: str) -> None:
    """Start without memory and add a little each time, so that each allocation fails once."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    size = pages * resource.getpagesize() + (1 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))
    hoard: list[Any] = []
    for piece in (1 << 16, 1 << 12, 1 << 9, 1 << 6):
        try:
            while True:
                hoard.append(bytes(piece))
        except MemoryError:
            pass
    for _ in range(60):
        try:
            every.use(name)
        except MemoryError:
            if not _ours(sys.exc_info()[2]):
                del hoard[-1:]  # the job's own code had no memory
                continue
            raise
        del hoard[-3:]


def _ours(step: Any) -> bool:
    while step.tb_next is not None:
        step = step.tb_next
    return str(step.tb_frame.f_globals.get("__name__", "")).startswith("otel_progress")


def no_frames(name: str) -> None:
    """Start with few frames left, and add one each time."""
    every.use(name)  # so that imports are over

    def down(frames: int) -> None:
        if frames:
            down(frames - 1)
            return
        try:
            probe()
        except RecursionError:
            return
        every.use(name)

    def probe() -> None:
        def deeper(left: int) -> None:
            if left:
                deeper(left - 1)

        deeper(6)  # what `use` itself needs

    used = len(traceback.extract_stack())
    limit = sys.getrecursionlimit()
    for left in range(8, HEADROOM):
        down(limit - used - left)


DEEPEST = 3
"""Signal handlers inside each other, at most."""
SOON = 0.001
"""Seconds to the next signal."""


def signals(name: str) -> None:
    """A signal handler calls everything, again and again, during the first calls of the function."""
    others = [other for other in every.names() if other.rpartition(".")[2] not in ("configure", "shutdown")]
    failed: list[str] = []
    turn, depth = 0, 0

    def handler(*_: Any) -> None:
        nonlocal turn, depth
        turn, depth = turn + 1, depth + 1
        if depth < DEEPEST:
            signal.setitimer(signal.ITIMER_REAL, SOON)
        other = others[turn % len(others)]
        try:
            every.use(other)
        except progress.OperationCancelled:
            pass
        except BaseException:
            failed.append(f"{other} in a signal handler inside {name}: {traceback.format_exc()}")
        finally:
            depth -= 1
            if depth == 0:  # not before, so that the function goes on also where handlers take long
                signal.setitimer(signal.ITIMER_REAL, SOON)

    if sys.version_info < (3, 12):
        gc.disable()  # it may run in the middle of ContextVar.set, and what then runs there crashes Python
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, SOON)
    try:
        for _ in range(8):
            every.use(name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if failed:
        raise AssertionError(f"{len(failed)} failed: {failed[0]}")


def in_child(run: Callable[[str], None], name: str, out: int) -> bool:
    """Run it in a forked child, in which nothing was imported yet; return whether it held."""
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            os.write(out, f"{name}: died of signal {os.WTERMSIG(status)}\n".encode())
        return status == 0
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=out)
    status = 1
    try:
        run(name)
        status = 0
    except BaseException:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            os.write(out, f"{name}: {traceback.format_exc()}\n".encode())
        finally:
            os._exit(status)
    os._exit(status)


WAYS: dict[str, Callable[[str], None]] = {
    "descriptors": no_descriptors,
    "memory": no_memory,
    "frames": no_frames,
    "signals": signals,
}


def main(way: str, watched: str, only: str = "") -> None:
    logging.disable(logging.CRITICAL)
    if watched == "watched":
        progress.configure("attacked", endpoint="http://127.0.0.1:9", interval=0.05)
    # The SDK starts a thread in configure(), and Python waits for ever for one that got no memory.
    left_out = {"configure"} if way == "memory" else set()
    chosen = [name for name in every.names() if only in name and name not in left_out]
    broken = [name for name in chosen if not in_child(WAYS[way], name, sys.stdout.fileno())]
    print(f"{len(broken)} broken: {' '.join(broken)}")
    sys.stdout.flush()
    os._exit(bool(broken))


if __name__ == "__main__":
    main(*sys.argv[1:])
