"""A user's program, run by the outage drill, that executes commands line by line, so that everything can be counted.

`do PREFIX N SIZE`: N operations, one after the other, each with a stage, a note, and SIZE attributes of 250 characters.
`start PREFIX N SIZE`: N operations with such attributes that go on until `finish`.
`end`: the end.
"""

import sys

import otel_progress as progress

progress.configure()
running: list[progress.Operation] = []
print("ready", flush=True)
for line in sys.stdin:
    order, *words = line.split()
    if order == "end":
        break
    if order != "finish":
        prefix, count, size = words[0], int(words[1]), int(words[2])
        attributes = {f"attribute_{number}": "x" * 250 for number in range(size)}
    if order == "do":
        for number in range(count):
            with progress.operation("drill", id=f"{prefix}-{number}", attributes=attributes):
                with progress.stage("only"):
                    progress.note(f"{prefix}-{number} is noted")
    elif order == "start":
        for number in range(count):
            made = progress.operation("drill", id=f"{prefix}-{number}", stall_after=3600, attributes=attributes)
            running.append(made.start())
    elif order == "finish":
        for operation in running:
            operation.complete()
        running.clear()
    print("done", flush=True)
progress.shutdown()
print("ended", flush=True)
