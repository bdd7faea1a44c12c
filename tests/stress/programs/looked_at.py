"""Runs a program as a user would, and prints repeatedly where its operations are: `looked_at.py PROGRAM ARGS…`.

A line `settled OPERATION AT STACK` (the last two URL-quoted) is printed when ten looks in a row saw the same line.
"""

import faulthandler
import runpy
import sys
import threading
import time
from urllib.parse import quote

import otel_progress
from otel_progress.live.diagnosis import call_stack
from otel_progress.live.engine import process
from otel_progress.live.registry import registry

faulthandler.enable()
sys.stdout.reconfigure(line_buffering=True)

SAME = 10


def places(operation):
    """Return the places of its innermost stages, else its own."""
    running = list(operation._running or ())
    inside = {stage._parent for stage in running}
    for node in [stage for stage in running if stage not in inside] or [operation]:
        yield from node._carried or ()
        if node._place is not None:
            yield node._place


def watch():
    """Look at everything that runs."""
    last, times = {}, {}
    while True:
        for known in list(registry.live.values()):
            operation = known()
            if operation is None:
                continue
            process.lag.worst(process.loops)
            found = call_stack.where(list(places(operation)), blocked=process.lag.blocked())
            at = found.at if found is not None else "nowhere"
            times[operation.name] = times.get(operation.name, 0) + 1 if last.get(operation.name) == at else 1
            last[operation.name] = at
            if times[operation.name] == SAME:
                print("settled", operation.name, quote(at), quote(found.stack if found is not None else ""))
            del operation
        time.sleep(0.02)


otel_progress.on_stall(lambda _: None)  # someone observes it
threading.Thread(target=watch, name="looks", daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
