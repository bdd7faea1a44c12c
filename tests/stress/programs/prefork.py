"""Like gunicorn: configure in the master, fork workers, and end them with SIGTERM.

Arguments: `idle` (the master runs no operation) or `busy`.
"""

import os
import signal
import sys
import time
import warnings

from opentelemetry import metrics

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

warnings.simplefilter("ignore", DeprecationWarning)
progress.configure()
calls = metrics.get_meter("user").create_counter("user.calls")
if sys.argv[1] == "busy":
    for _ in range(5):
        with progress.operation("master"):
            calls.add(1)
    master = progress.operation("master", id="master").start()
    time.sleep(1.2)


def leave(number, frame):
    """End a worker."""
    sys.exit(0)


def worker(number):
    """Serve requests until SIGTERM."""
    signal.signal(signal.SIGTERM, leave)
    done = 0
    while True:
        done += 1
        with progress.operation("request", id=f"request-{number}-{done}"):
            calls.add(1)
            time.sleep(0.02)
        if done == 20:
            print("worker", os.getpid(), flush=True)


pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        worker(number)
    pids.append(pid)
print("forked", flush=True)
sys.stdin.readline()
for pid in pids:
    os.kill(pid, signal.SIGTERM)
print("codes", *[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
if sys.argv[1] == "busy":
    master.complete()
print("end", time.monotonic())
