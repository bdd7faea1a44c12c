"""Which branch continues a stuck one: a stage of the same path that starts where the other ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress.live.branches import key_of

if TYPE_CHECKING:
    from otel_progress.live.branches import LiveBranch
    from otel_progress.live.state import StuckBranch


def follows(live: LiveBranch, key: object, stuck: StuckBranch) -> bool:
    """Whether a branch is the next stage at the place of a stuck one that ended since the last look."""
    ended = ended_at(key)
    if ended is None or stuck.gone_at is not None or not is_next(live, stuck, ended):
        return False
    place = key_of(live.node._place)
    return place is not None and place == key_of(key._place)  # type: ignore[attr-defined]


def ended_at(key: object) -> float | None:
    """When the stage of a trouble ended (s, monotonic); None while it runs, and for other branches."""
    return getattr(key, "_ended", None)


def is_next(live: LiveBranch, stuck: StuckBranch, after: float) -> bool:
    """Whether a branch is of the same path, and started after a monotonic time."""
    started = live.node._started or 0.0
    return live.child is None and started >= after and label_of(live) == stuck.label


def label_of(live: LiveBranch) -> str:
    """The path of the stage in which a branch runs, or an empty text."""
    return "" if live.node is live.node.operation else live.node._path or live.node.name
