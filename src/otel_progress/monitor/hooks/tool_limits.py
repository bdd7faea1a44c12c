"""How long a tool may run without an end: by its own timeout, by earlier calls of the tool, or by a default."""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_progress.model.history import Learned
from otel_progress.model.units import duration

TOOL: Final = 180.0
"""Seconds for a tool of which too few calls have ended; Claude Code's own limit for a command is 120 s."""
AGENT: Final = 600.0
"""Seconds for an agent between two hooks: a model's whole answer, whose tokens no hook tells."""
AFTER_TIMEOUT: Final = 30.0
"""Seconds that a tool may take longer than the timeout in its input."""
TOOLS: Final = 1_000
"""The most tools whose durations are learned."""
AGENT_TOOLS: Final = frozenset({"Agent", "Task"})
"""The tools that run a sub-agent."""


class ToolLimit(NamedTuple):
    """A limit in seconds, and where it comes from."""

    seconds: float
    source: str


AGENT_LIMIT: Final = ToolLimit(AGENT, "the default between two hooks")


class ToolLimits:
    """The durations of the tools so far, of all sessions."""

    def __init__(self) -> None:
        """None yet."""
        self._known: dict[str, Learned] = {}

    def ended(self, tool: str, seconds: float) -> None:
        """A call has completed."""
        known = self._known.get(tool)
        if known is None:
            if len(self._known) >= TOOLS:
                return
            known = self._known[tool] = Learned()
        known.ended(seconds, seconds, counted=False)

    def of(self, tool: str, timeout: float | None) -> ToolLimit:
        """The limit for a call, whose input may give it a timeout in seconds."""
        known = self._known.get(tool)
        learned = None if known is None else known.stall_after()
        if known is not None and learned is not None:
            found = ToolLimit(learned, known.source(tool))
        elif tool in AGENT_TOOLS:
            found = ToolLimit(AGENT, "the default for sub-agents")
        else:
            found = ToolLimit(TOOL, "the default for tools")
        if timeout is not None and timeout + AFTER_TIMEOUT > found.seconds:
            return ToolLimit(timeout + AFTER_TIMEOUT, f"the timeout of the call is {duration(timeout)}")
        return found
