"""Takes one operation again and again, against others that do the same, and marks keys that name its attempt.

Arguments: the store, seconds to fight for, and seconds of a lease. Prints how often it won, was refused, and lost.
"""

from __future__ import annotations

import json
import sys
import time

from otel_progress import LeaseLost, OperationHeld, operation
from otel_progress.durable import saving, sqlite, sqlite_rows

KEYS = 100
store, seconds, lease = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
sqlite.LEASE = sqlite_rows.LEASE = lease  # shorter, so that many are fought for
saving.RENEW = lease / 4


def fight() -> dict[str, list[int]]:
    """Return the attempts that ended well, and those that lost their lease; and one entry for each refusal."""
    said: dict[str, list[int]] = {"won": [], "lost": [], "held": []}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        attempt = 0
        try:
            with operation("fight", id="job-1", resume=store, wait_for_lease=0.3) as op:
                attempt = op.attempt
                for number in range(KEYS):
                    op.done(f"{attempt}:{number}")
                    time.sleep(0.005)
            said["won"].append(attempt)
        except LeaseLost:
            said["lost"].append(attempt)
        except OperationHeld:
            said["held"].append(0)
    return said


print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(fight()), flush=True)
