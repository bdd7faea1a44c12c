"""The command under cProfile, with separate profiles of the server loop and the core thread; times are CPU times."""

from __future__ import annotations

import cProfile
import io
import pstats
import signal
import sys
import time
from pathlib import Path

from otel_progress.cli import main
from otel_progress.monitor.state.core import Core

LINES = 25


def text(profile: cProfile.Profile) -> str:
    """Return the slowest functions by their own time."""
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(LINES)
    return out.getvalue()


def run() -> int:
    """Run the command, and write both profiles when it ends."""
    target, loop, ledger = Path(sys.argv.pop(1)), cProfile.Profile(time.thread_time), cProfile.Profile(time.thread_time)
    work = Core._run

    def watched(core: Core) -> None:
        ledger.runcall(work, core)

    Core._run = watched  # type: ignore[method-assign]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the server raises it once more when it has ended
    try:
        return int(loop.runcall(main))
    finally:
        target.write_text(f"the ledger's thread\n{text(ledger)}\nthe server's loop\n{text(loop)}")


if __name__ == "__main__":
    sys.exit(run())
