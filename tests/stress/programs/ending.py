"""An operation with a stage runs when the process ends, in one of many ways.

Arguments: the way; options: `handled` (SIGTERM by us), `chained` (a handler of the user was there before),
`exits` (that handler calls sys.exit), `many` (starts operations as fast as it can while it waits for the signal).
"""

import os
import signal
import sys
import threading
import time

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

way, options = sys.argv[1], sys.argv[2:]


def say(line):
    """Print in a signal handler, which may interrupt another print."""
    os.write(1, line.encode() + b"\n")


def chained(number, frame):
    """Handle a signal, as the user's own handler."""
    say(f"chained {number}")
    if "exits" in options:
        say(f"end {time.monotonic()}")
        sys.exit(7)
    signal.signal(number, signal.SIG_DFL)
    say(f"end {time.monotonic()}")
    signal.raise_signal(number)


if "chained" in options:
    signal.signal(signal.SIGTERM, chained)
progress.configure(handle_sigterm="handled" in options)


def wait():
    """Wait until a signal comes."""
    print("ready", time.monotonic())
    while "many" in options:
        with progress.operation("one of many", id="one of many"):
            pass
    while True:
        # A signal right before an endless wait would not be handled before its end.
        threading.Event().wait(0.1)


def work():
    """Run the operation."""
    with progress.operation("ending", id="ending"), progress.stage("inner"):
        progress.note("last words")
        if way == "exit0":
            print("end", time.monotonic())
            sys.exit(0)
        if way == "exit3":
            print("end", time.monotonic())
            sys.exit(3)
        if way == "raise":
            print("end", time.monotonic())
            raise ValueError("as the test wants it")
        if way == "signal":
            try:
                wait()
            except KeyboardInterrupt:
                print("end", time.monotonic())
                raise
    print("left", time.monotonic())


if way == "running":
    operation = progress.operation("ending", id="ending").start()
    stage = operation.stage("inner").start()
    print("end", time.monotonic())
elif way == "dropped":
    progress.operation("ending", id="ending").start()
    print("end", time.monotonic())
elif way == "thread":
    # A thread of the job outlives the main thread, and the interpreter waits for it.
    def last():
        with progress.operation("ending", id="ending"):
            time.sleep(0.3)
        print("end", time.monotonic())

    threading.Thread(target=last).start()
else:
    work()
