"""The threads in which work made progress lately: one for which others wait may be well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress.live.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_progress.live.state import HandleState


def moving_threads(since: float) -> set[int]:
    """The idents of threads in which an operation, a stage or a loop made progress after a monotonic time."""
    return {
        thread
        for operation in registry.operations()
        for node in (operation, *(operation._running or ()))
        for thread, moved_at in _movements(node)
        if moved_at > since
    }


def _movements(node: HandleState) -> Iterator[tuple[int, float]]:
    """The threads of a handle and of its loops, and when these moved."""
    for place in (node._place,) if node._adopted is None else node._adopted.places():
        if place is not None:
            yield place.thread, node._moved_at
    for lane in tuple(node._lanes or ()):
        if not lane.closed:
            yield lane.place.thread, lane.moved_at
