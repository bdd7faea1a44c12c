"""An operation with two nested stages that ends in the way named by the next line on stdin.

When it reports that it is ready, everything was sent.

Arguments: the id; with `pool`, two processes of a pool also run an operation each until they are killed.
"""

import concurrent.futures
import ctypes
import multiprocessing
import os
import signal
import sys
import time

import otel_progress as progress
from otel_progress.live.engine import runtime

sys.stdout.reconfigure(line_buffering=True)
name = sys.argv[1]


def part(number):
    """Run one part, in a process of the pool."""
    progress.configure()
    with progress.operation("part", id=f"{name}-part-{number}", total=4) as operation, progress.stage("chew"):
        operation.advance()
        print("part", number, os.getpid())
        while number == 0:
            time.sleep(0.1)


def freeze():
    """Hold the global lock in C code until a signal comes."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    print("freezes")
    ctypes.PyDLL(None).sleep(120)


def end(way):
    """End."""
    if way == "freeze":
        freeze()
        way = sys.stdin.readline().strip()
    if way == "abort":
        os.abort()
    if way == "segfault":
        ctypes.string_at(0)
    if way.startswith("exit"):
        os._exit(int(way[4:]))
    if way.startswith("signal"):
        os.kill(os.getpid(), int(way[6:]))
        signal.pause()


if __name__ == "__main__":
    progress.configure("watched")
    before = progress.operation("before", id=f"{name}-before").start()
    before.complete()
    with progress.operation("train", id=name, total=10, attributes={"team": "blue"}) as operation:
        operation.advance(4)
        with progress.stage("outer"), progress.stage("done"):
            pass
        with progress.stage("outer", total=5, unit="epoch") as outer:
            outer.advance(2)
            with progress.stage("inner"):
                operation.update(message="reading part 2")
                runtime.finish(10)
                print("ready", os.getpid())
                print("last words", file=sys.stderr, flush=True)
                if "pool" in sys.argv:
                    method = multiprocessing.get_context("spawn")
                    pool = concurrent.futures.ProcessPoolExecutor(2, method)
                    parts = [pool.submit(part, number) for number in range(2)]
                    try:
                        parts[0].result()
                    except concurrent.futures.process.BrokenProcessPool:
                        print("broken")
                end(sys.stdin.readline().strip())
    print("over")
