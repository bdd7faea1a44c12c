"""Whether the server ends: it waits for open streams, so they have to end first."""

from __future__ import annotations

import asyncio
from typing import Any


def find() -> Any:
    """The uvicorn server that runs on this loop; None for another server."""
    for task in asyncio.all_tasks():
        waiting: Any = task.get_coro()
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None)
            found = None if frame is None else frame.f_locals.get("self")
            if found is not None and hasattr(found, "should_exit") and hasattr(found, "server_state"):
                return found
            waiting = getattr(waiting, "cr_await", None)
    return None
