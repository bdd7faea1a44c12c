"""A command with child processes that each work on an operation until they are killed; its own operation waits for them.

It leads a process group of its own. Arguments: the id, the number of children, and how they start (`fork`, `spawn`, or
`pool`: workers of an executor). A line on its input ends its operation once all children are gone.
"""

import concurrent.futures
import multiprocessing
import os
import sys
import time

import otel_progress as progress
from otel_progress.live.engine import runtime

name, count, method = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def work(number):
    """Work until the process is killed."""
    progress.configure("crew")
    with progress.operation("part", id=f"{name}-{number}", total=1_000_000) as operation, progress.stage("chew"):
        operation.advance()
        runtime.finish(10)
        os.write(1, f"part {number} {os.getpid()}\n".encode())
        while True:
            time.sleep(0.05)
            operation.advance()


if __name__ == "__main__":
    os.setpgid(0, 0)
    progress.configure("crew")
    with progress.operation("whole", id=name, total=count) as operation:
        runtime.finish(10)
        os.write(1, f"ready {os.getpid()}\n".encode())
        if method == "pool":
            with concurrent.futures.ProcessPoolExecutor(count) as pool:
                for part in [pool.submit(work, number) for number in range(count)]:
                    if isinstance(part.exception(), concurrent.futures.process.BrokenProcessPool):
                        operation.advance()
        else:
            context = multiprocessing.get_context(method)
            parts = [context.Process(target=work, args=(number,)) for number in range(count)]
            for part in parts:
                part.start()
            for part in parts:
                part.join()
                operation.advance()
            sys.stdin.readline()
    print("over", flush=True)
