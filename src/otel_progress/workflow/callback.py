"""What steps get as `progress_callback`: it reports, and never raises."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from otel_progress.live import misuse

if TYPE_CHECKING:
    from otel_progress import Stage

ABOUT_ALL: Final = 100.1
"""Up to here it is 100 with a rounding error."""


class ProgressCallback:
    """`progress_callback(percent, message)`, with or without `await`, from any thread."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Stage) -> None:
        """Report to this stage."""
        self._stage = stage

    def __call__(
        self, percent: object = None, message: object = None, *more: object, **named: object
    ) -> ProgressCallback:
        """Report how far the step is, from 0 to 100, and what it does, in words.

        Numbers may come as text, as in `"75"` or `"75 %"`. Anything else is ignored, with a warning in the log.
        """
        ratio = None if percent is None else _ratio(percent)
        if percent is not None and ratio is None:
            misuse.refused("progress_callback", "percent", percent, "a number from 0 to 100")
        if more or named:
            what = ", ".join(named) or f"{len(more) + 2} arguments"
            misuse.warn("progress_callback", "knows percent and message, and ignores the rest: %s", what)
        if ratio is not None or message is not None:
            self._stage.update(ratio=ratio, message=message)
        return self

    def __await__(self) -> Generator[None, None, None]:
        """Do nothing, for agents that await their callbacks."""
        return
        yield


def _ratio(percent: Any) -> float | None:
    """A percentage as a ratio; None if it is none."""
    try:
        number = float(percent.strip().removesuffix("%") if isinstance(percent, str) else percent)
    except Exception:
        return None
    return min(1.0, number / 100) if 0 <= number <= ABOUT_ALL else None
