"""Seconds without progress after which work that frameworks do is stuck, by its kind."""

from __future__ import annotations

from typing import Final

NODE: Final = 300.0
"""For a node or an agent, while no tool and no model call runs in it."""
TOOL: Final = 120.0
"""For a tool or a retriever."""
MODEL: Final = 300.0
"""For a model call without a first token."""
STREAM: Final = 60.0
"""For a model between two tokens."""
