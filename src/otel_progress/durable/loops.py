"""Opens the loops that `track` resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_progress.durable.again import take_over
from otel_progress.durable.handing import HandingLoop
from otel_progress.durable.loop import Loop, Marking

if TYPE_CHECKING:
    from otel_progress.durable.scope import Scope
    from otel_progress.live.lane import Lane
    from otel_progress.live.records import LoopOptions


def opened(session: Marking, scope: Scope, items: Any, options: LoopOptions, lane: Lane | None) -> Any:
    """The generator of a loop."""
    before = scope.loop
    counted = take_over(scope)
    if options.mark:
        scope.automatic, scope.place = True, options.place
    one = scope.loop = (Loop if options.mark else HandingLoop)(session, scope, options, lane)
    one.go_on(before, counted, options)
    if hasattr(items, "__aiter__"):
        return one.later(items)
    return one.now(items)
