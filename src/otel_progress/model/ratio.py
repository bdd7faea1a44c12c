"""The ratio to show: that of the counts, which small falls do not move back."""

from __future__ import annotations

from typing import Final

ALMOST: Final = 0.9999
"""The most that is shown before the end."""
_NOISE: Final = 1.5
"""How many times larger the rest, compared with what is done, may become before a fall is shown.

A total that is estimated anew all the time, with an error of up to a fifth either way, stays within it (1.2 / 0.8).
"""


def of_counts(completed: float | None, total: float | None) -> float | None:
    """The raw ratio of counts of at least 0, at most 1; None if they say nothing."""
    return min(1.0, completed / total) if completed is not None and total else None


def shown_of_counts(raw: float, *, completed: bool, over: bool) -> float | None:
    """The ratio to show of an operation or a stage that reports counts and no ratio.

    Only a completed one shows 1. One that ended otherwise shows none if nothing was counted, or all.
    """
    if completed:
        return raw
    if over:
        return raw if 0 < raw < ALMOST else None
    return held(None, raw)


def held(shown: float | None, raw: float) -> float:
    """The ratio to show for a raw one after `shown`: it waits until the raw one has caught up, unless that fell far.

    So a count or a total that wobbles does not move it back, and it never runs away: what is shown was true a moment
    ago, or is true now. At 50% a fall to 40% is still held, at 90% one to 86%, at 10% one to 7%.
    """
    raw = min(max(raw, 0.0), ALMOST)
    if shown is None or raw >= shown:
        return raw
    return shown if (1 - raw) * shown <= _NOISE * (1 - shown) * raw else raw
