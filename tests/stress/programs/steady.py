"""Executes commands from its input, one operation a line, until `stop`.

`start ID`: start an operation; `step ID NAME`: run a stage of it; `end ID`: end it; `many N`: start and end N operations.
Each is answered by `done`.
"""

import sys
import time

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

progress.configure()
running = {}
print("begin", time.monotonic())
for line in sys.stdin:
    what, *rest = line.split()
    if what == "stop":
        break
    if what == "start":
        running[rest[0]] = progress.operation("steady", id=rest[0]).start()
    elif what == "step":
        with running[rest[0]].use(), progress.stage(rest[1]):
            progress.note(f"in {rest[1]}")
    elif what == "end":
        running.pop(rest[0]).complete()
    elif what == "many":
        for number in range(int(rest[0])):
            with progress.operation("many", id=f"many-{number}"), progress.stage("only"):
                pass
    print("done", what)
for operation in running.values():
    operation.complete()
print("end", time.monotonic())
