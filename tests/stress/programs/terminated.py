"""A child of multiprocessing that is terminated in one of many states.

Arguments: the state, and a start method. Prints `code <exit code>` of the child.
"""

import hashlib
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import otel_progress as progress
from otel_progress.live.engine import termination

sys.stdout.reconfigure(line_buffering=True)


def work(key="ended"):
    """Run an operation that ends here."""
    with progress.operation("task", id=key), progress.stage("inside"):
        pass


def native():
    """Run code for minutes that handles no signal meanwhile."""
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2**30)


def theirs(*_):
    """Handle a signal, as the user's own handler."""
    print("theirs", flush=True)
    sys.exit(5)


def chained(old):
    """Handle a signal and call the previous handler, if there is one."""

    def handler(number, frame):
        if callable(old):
            old(number, frame)
        theirs()

    return handler


def child(state, ready):
    """Reach the state, and report it."""
    termination.SECONDS = 10.0  # this machine may be busy
    progress.configure()
    if state == "theirs before":
        signal.signal(signal.SIGTERM, theirs)
    if state == "inside native":
        with progress.operation("task", id="running"):
            ready.set()
            native()
    if state == "loop":
        ready.set()
        while True:
            work(f"o{time.monotonic_ns()}")
    work()
    if state == "theirs after":
        signal.signal(signal.SIGTERM, chained(signal.getsignal(signal.SIGTERM)))
    if state == "grandchild":
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            print("inherited", signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, flush=True)
            os.write(writing, b".")
            time.sleep(60)
        os.read(reading, 1)
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        print("lives", flush=True)
    ready.set()
    if state == "native":
        native()
    if state == "executes":
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
    if state.startswith("theirs"):
        for _ in range(600):
            time.sleep(0.1)  # Python misses a signal right before a system call, and nothing of ours insists on theirs
    time.sleep(60)


def main():
    """Start, terminate and wait."""
    state, method = sys.argv[1].replace("-", " "), sys.argv[2]
    context = multiprocessing.get_context(method)
    for _ in range(10 if state == "loop" else 1):
        ready = context.Event()
        process = context.Process(target=child, args=(state, ready))
        process.start()
        ready.wait()
        if state == "loop":
            time.sleep(random.random() / 5)
        while state == "executes" and b"import time" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.001)  # a signal right before exec is lost with the program that had its handler
        process.terminate()
        if state == "twice":
            process.terminate()
        process.join(20)
        print("code", process.exitcode)
        if process.exitcode is None:
            process.kill()
            sys.exit(1)


if __name__ == "__main__":
    main()
