"""Gradio: `gr.Progress` fed by the operations that an event listener runs."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from otel_progress.errors import InvalidArgument
from otel_progress.handlers.scoped import ScopedHandler
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Status
from otel_progress.render import plain, words
from otel_progress.render.words import DOT, ICONS, clean, joined

if TYPE_CHECKING:
    from otel_progress.handlers.scoped import ScopedOperation
    from otel_progress.model.snapshot import Snapshot

__all__ = ["GradioHandler"]


class GradioHandler(ScopedHandler):
    """Shows the operation that runs inside its `with` block as the progress of a Gradio event listener.

    The bar is the progress of the operation if that is known; the text tells its name, counts, stage, message, ETA and
    trouble. If several operations run at once, the oldest is shown, and the others are counted.

    Args:
        progress: the `gr.Progress` of the event listener.
        operation_id: the id of the one operation to show; by default, those of the block.

    Example:
        ```python
        def run(path, progress=gr.Progress()):
            with GradioHandler(progress):
                return work(path)
        ```
    """

    _name = "gradio"

    def __init__(self, progress: Any, operation_id: str | None = None) -> None:
        """Create it in the event listener: `gr.Progress` knows by the context which request it belongs to."""
        super().__init__(operation_id)
        if not callable(progress) or isinstance(progress, type):
            raise InvalidArgument(f"progress must be a gr.Progress(), not {progress!r}")
        self._progress = progress
        self._context = contextvars.copy_context()
        self._shown: tuple[Any, Any] | None = None

    def draw(self, operations: list[ScopedOperation], now: float) -> None:
        """Show the oldest operation that runs; the one that ended last if none does."""
        running = [one for one in operations if not one.over]
        shown = running[0] if running else operations[-1] if operations else None
        snapshot = shown.look(now)[0] if shown is not None else None
        if snapshot is None:
            return
        more = f" (+ {len(running) - 1:,} more)" if len(running) > 1 else ""
        ratio, text = snapshot.progress.stated, _text(snapshot) + more
        if ratio is not None:
            self._say(ratio, desc=text)
        else:  # without a bar Gradio shows a count and its unit alone: here, the seconds that passed
            self._say((int(snapshot.elapsed), None), unit=f"s{DOT}{text}")

    def _say(self, progress: float | tuple[int, None], **texts: str) -> None:
        """Pass it on, if it is new, in the context of the request."""
        if (progress, texts) != self._shown:
            self._shown = progress, texts
            self._context.copy().run(self._progress, progress, **texts)


def _text(snapshot: Snapshot) -> str:
    name = clean(snapshot.name)
    if snapshot.status.final:
        return f"{ICONS[snapshot.status]} {name} {plain.outcome(snapshot)}"
    whole, here = snapshot.progress, _stage(snapshot)
    bad = joined(plain.trouble(snapshot))
    parts = [words.counted(whole), here, clean(snapshot.message or ""), bad]
    if snapshot.health not in NOT_MOVING:
        parts.append(words.remaining(whole, waits=snapshot.status is Status.WAITING))
    if snapshot.wait is not None and not bad:
        parts.append(words.waiting(snapshot.wait))
    return ": ".join(filter(None, (name, DOT.join(filter(None, parts)))))


def _stage(snapshot: Snapshot) -> str:
    """The stage that runs, with its counts."""
    here = next((stage for stage in reversed(snapshot.stages) if stage.path == snapshot.stage), None)
    return "" if here is None else f"{clean(here.path)} {words.counted(here.progress)}".strip()
