"""What a child operation leaves to the stage or operation that it ran in, when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress.live.below import Below, add, around, below
from otel_progress.live.engine.progress import settled
from otel_progress.live.registry import registry
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.handle import Handle
    from otel_progress.live.operation import Operation


def leave_child(child: Operation, host: Handle) -> None:
    """A child operation ended: what it counted stays with the stage or operation that it ran in."""
    kept = below(host if host._status is Status.RUNNING or host.operation is host else around(host))
    plan = getattr(host._opts, "plan", None)  # type: ignore[attr-defined]
    if plan is not None and plan.index(child.name) is not None:
        done = child._status is Status.COMPLETED
        kept.planned[child.name] = 1.0 if done else settled(child).raw or 0.0
    child._plain_advanced()
    units = Below()
    units.take(child, child._below)
    with registry.lock:
        add(kept.child_sums, units.sums)
        kept.children += 1
        kept.ended += 1
