"""The end of an operation that another process of this machine ran, told by the one that saw or caused it.

This is what an integration of a worker needs whose main process kills those that run its tasks.
"""

from __future__ import annotations

from otel_progress.live import hooks
from otel_progress.model.status import Status

__all__ = ["prepare", "tell_end"]


def prepare() -> None:
    """Configure what `tell_end` needs: it must be faster than those who only see that the process is gone."""
    if hooks.on_first is not None:
        hooks.on_first()


def tell_end(operation_id: str, name: str, pid: int, status: Status, reason: str) -> None:
    """Tell how an operation of the process `pid` ended, unless it said so itself; a monitor knows the rest."""
    prepare()
    for hear in hooks.seen_ends:
        hear(hooks.SeenEnd(operation_id, name, pid, status, reason))
