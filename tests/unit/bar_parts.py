"""Work in another thread that moves a bar, and then hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from otel_progress.testing import Capture


def move_and_hang(seen: Capture, move: Callable[[], object]) -> None:
    """Call `move` in a thread that then hangs in `work_that_hangs`, until its work was called stuck."""
    moved, gate = threading.Event(), threading.Event()

    def work_that_hangs() -> None:
        move()
        moved.set()
        gate.wait(60)

    seen.advance(2)
    worker = threading.Thread(target=work_that_hangs)
    worker.start()
    assert moved.wait(60)
    seen.advance(30)
    gate.set()
    worker.join(60)
