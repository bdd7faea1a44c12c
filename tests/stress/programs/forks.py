"""Fork in a loop while threads work, the ticker samples and the sender sends.

Arguments: how the children end (`exit`, `os_exit`), how many.
"""

import os
import sys
import threading
import time
import warnings

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

warnings.simplefilter("ignore", DeprecationWarning)
how, count = sys.argv[1], int(sys.argv[2])
progress.configure()
stop = threading.Event()


def load(name):
    """Run operations and stages almost without pauses."""
    while not stop.is_set():
        with progress.operation("load"), progress.stage("step"):
            for _ in progress.track(range(100)):
                progress.advance()
        stop.wait(0.005)


def child(number):
    """Run an operation of the child's own; the parent's current operation is not current here."""
    if progress.current() is not None:
        os._exit(9)
    with progress.operation("child", id=f"child-{number}"):
        progress.advance()
    if how == "os_exit":
        os._exit(0)
    sys.exit(0)


threads = [threading.Thread(target=load, args=(number,), daemon=True) for number in range(3)]
for thread in threads:
    thread.start()
slowest, codes = 0.0, []
with progress.operation("parent", id="parent"):
    time.sleep(0.3)
    running = []
    for number in range(count):
        before = time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(number)
        slowest = max(slowest, time.monotonic() - before)
        running.append(pid)
        if len(running) >= 2:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(running.pop(0), 0)[1]))
    codes += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in running]
print("codes", *sorted(set(codes)))
print("slowest", slowest)
with progress.operation("after", id="after"):
    pass
stop.set()
for thread in threads:
    thread.join()
print("end", time.monotonic())
