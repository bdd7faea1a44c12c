"""A sampler for those who want to see spans, too, that are never exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

if TYPE_CHECKING:
    from opentelemetry.context import Context


class Recording(Sampler):
    """Decides as another sampler does, but what that drops is recorded; it stays unsampled, so nobody exports it."""

    def __init__(self, other: Sampler) -> None:
        """Decide as `other` does."""
        self.other = other

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **options: Any
    ) -> SamplingResult:
        """The decision of the other sampler, never to drop."""
        found = self.other.should_sample(parent_context, trace_id, name, *args, **options)
        if found.decision is not Decision.DROP:
            return found
        return SamplingResult(Decision.RECORD_ONLY, found.attributes, found.trace_state)

    def get_description(self) -> str:
        """That of the other one, marked."""
        return f"Recording{{{self.other.get_description()}}}"
