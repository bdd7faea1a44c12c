"""A user's program, run by test_sdk.py against the real Collector. It needs only otel-progress.

`work ID`: an operation with stages that reads lines of words to report, the first of which names
a stage, or `end`.
`many N`: N operations with an id each, one after the other, while one named `live` runs; then it waits for `end`.
"""

import sys
import time

import otel_progress as progress

progress.configure()
if sys.argv[1] == "work":
    with progress.operation(
        "work", id=sys.argv[2], total=10, stall_after=60, attributes={"color": "blue"}
    ) as operation:
        with progress.stage("first", unit="file", total=2) as stage:
            stage.advance(2)
            progress.note("the first is done")
        with progress.stage("second"):
            print("ready", progress.inject()["traceparent"].split("-")[1], flush=True)
            for line in sys.stdin:
                words = line.split()
                if words == ["end"]:
                    break
                operation.advance()
                operation.update(message=" ".join(words))
                with progress.stage(words[0]):
                    pass
                print("said", time.monotonic(), flush=True)
else:
    live = progress.operation("live", id="live").start()
    for number in range(int(sys.argv[2])):
        with progress.operation("short", id=f"short-{number}"):
            pass
    print("ready", time.time_ns(), flush=True)
    for line in sys.stdin:
        if line.startswith("end"):
            break
    live.complete()
print("ended", flush=True)
