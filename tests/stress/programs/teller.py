"""Reports something new 20 times a second, and prints it with the time afterwards.

Arguments: how to end (`kill` waits to be killed; `os_exit` ends by itself), and the seconds until `os_exit`.
"""

import os
import sys
import time

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

progress.configure()
how, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
with progress.operation("teller", id=f"teller-{os.getpid()}", total=100_000) as operation:
    print("begin", operation.id)
    number = 0
    while how == "kill" or time.monotonic() < end:
        number += 1
        with progress.stage(f"stage-{number}"):
            operation.advance()
            operation.update(message=f"message {number}")
            operation.note(f"note {number}")
        print("said", time.monotonic(), number)
        time.sleep(0.05)
    print("end", time.monotonic())
    os._exit(3)
