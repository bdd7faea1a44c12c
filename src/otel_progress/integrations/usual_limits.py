"""Seconds without progress after which work that frameworks do is stuck, by its kind."""

from __future__ import annotations

from typing import Any, Final

from otel_progress.live import hooks

NODE: Final = 300.0
"""For a node or an agent, while no tool and no model call runs in it."""
TOOL: Final = 120.0
"""For a tool or a retriever."""
MODEL: Final = 300.0
"""For a model call without a first token."""
STREAM: Final = 60.0
"""For a model between two tokens."""


def limit(seconds: float) -> dict[str, Any]:
    """The option of an operation or a stage that names this limit; none if `configure(stall_after=...)` names one."""
    return {"stall_after": seconds} if hooks.stall_after is None else {}
