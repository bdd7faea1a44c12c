"""What happened to a handle, kept until its span ends; bounded, and thinned where it is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv as s
from otel_progress.live.drops import drops

if TYPE_CHECKING:
    from otel_progress.live.node import Handle

MOST: Final = 64
"""Span events of one span."""
Kept = tuple[str, int, Any]
"""A name, a time in ns, and what it is about: attributes, or a stage."""
_STAGES: Final = frozenset({s.STAGE_STARTED, s.STAGE_ENDED})


def keep(node: Handle, event: str, now: int, about: Any) -> None:
    """Keep an event for the end of the node's span."""
    trail = node._trail
    if trail is None:
        trail = node._trail = []
    trail.append((event, now, about))
    if len(trail) >= 2 * MOST:
        drops.add(s.DROP_SPAN_EVENTS, MOST)
        node._trail = thin(trail, MOST)


def thin(kept: list[Kept], most: int) -> list[Kept]:
    """Leave out what is too much, from the middle: plain events first, then those of stages, never the ends."""
    for kind in (s.RATIONED, _STAGES, s.EVENTS):
        excess = len(kept) - most
        if excess <= 0:
            break
        spots = [spot for spot in range(1, len(kept) - 1) if kept[spot][0] in kind]
        begin = max(0, (len(spots) - excess) // 2)
        cut = frozenset(spots[begin : begin + excess])
        kept = [event for spot, event in enumerate(kept) if spot not in cut]
    return kept
