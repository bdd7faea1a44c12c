"""Whole events on request, for a reader that lacks what later events build on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState


def request(operation: OperationState) -> None:
    """Have an operation send its whole state soon; any thread may call it."""
    operation._keyframe_at = 0.0
