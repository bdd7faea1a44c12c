"""A user's program, run by test_alerts.py with an id and a name, that executes the commands on its input.

`move`: make progress until the next command. `hang`: make none. `end`: end the operation and the program.
"""

import sys
import threading

import otel_progress as progress

lines: list[str] = []
told = threading.Condition()


def listen() -> None:
    """Read the commands."""
    for line in sys.stdin:
        with told:
            lines.append(line.strip())
            told.notify()


def hang_here() -> str:
    """Do nothing until the next command arrives."""
    with told:
        told.wait_for(lambda: lines)
        return lines.pop(0)


progress.configure()
threading.Thread(target=listen, daemon=True).start()
with progress.operation(sys.argv[2], id=sys.argv[1], stall_after=2):
    with progress.stage("fetch") as stage:
        print("ready", flush=True)
        order = "move"
        while order != "end":
            if order == "hang":
                order = hang_here()
                continue
            with told:
                told.wait_for(lambda: lines, 0.1)
                order = lines.pop(0) if lines else order
            stage.advance()
print("ended", flush=True)
