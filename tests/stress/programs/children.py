"""A parent operation here, and its parts in child processes.

Arguments: the start method (`fork`, `spawn`, `forkserver`, `pool-fork`, `pool-spawn`), and what the children do:
`end` (return), `exit` (sys.exit(0)), `terminate` (work until the parent terminates them), `ambient` (name no parent).
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)


def part(number, headers, what):
    """Run a part of the work in a child."""
    progress.configure()
    parent = {} if what == "ambient" else {"parent": progress.extract(headers)}
    with progress.operation("part", id=f"part-{number}", **parent), progress.stage("inside"):
        progress.advance()
        said = 0
        while what == "terminate":
            said += 1
            progress.note(f"note {said}")
            print("said", time.monotonic(), number, said, flush=True)
            time.sleep(0.05)
    if what == "exit":
        sys.exit(0)
    return os.getpid()


def main():
    """Run the parent."""
    method, what = sys.argv[1], sys.argv[2]
    progress.configure()
    with progress.operation("whole", id="whole"):
        headers = dict(progress.inject())
        context = multiprocessing.get_context(method.removeprefix("pool-"))
        if method.startswith("pool-"):
            with ProcessPoolExecutor(2, context) as pool:
                print("pids", *pool.map(part, range(4), [headers] * 4, [what] * 4))
        else:
            children = [context.Process(target=part, args=(number, headers, what)) for number in range(4)]
            for child in children:
                child.start()
            if what == "terminate":
                print("ready", flush=True)
                sys.stdin.readline()
                print("killed", time.monotonic(), flush=True)
                for child in children:
                    child.terminate()
            for child in children:
                child.join(20)
            print("codes", *[child.exitcode for child in children])
        print("left", time.monotonic())
    print("end", time.monotonic())


if __name__ == "__main__":
    main()
