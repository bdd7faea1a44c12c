"""Making a started handle current for a while."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from otel_progress.live import context, hooks
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import NOTHING_LEFT, swallow

if TYPE_CHECKING:
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.handle import Handle


class Use:
    """Makes a started handle current; for `with` and `async with`."""

    def __init__(self, node: Handle) -> None:
        """For a handle."""
        self._node = node
        self._context: Any = None
        self._token: Any = None
        self._places: tuple[Place, Place] | None = None

    def __enter__(self) -> Any:
        """The handle is current from here on."""
        self._context = context.innermost.set(self._node)
        try:
            before = self._node._place
            if before is not None:
                self._node._place = place = here()
                self._places = before, place
            self._token = hooks.tracing.attach(self._node) if self._node._span is not None else None
        except BaseException as error:
            try:
                swallow(error, "use")
            except NOTHING_LEFT:
                pass
        return self._node

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was current before is current again."""
        try:
            if self._places is not None and self._node._place is self._places[1]:
                self._node._place = self._places[0]  # where it works on
            context.leave(self)
        except BaseException as broken:
            try:
                swallow(broken, "use")
            except NOTHING_LEFT:
                pass

    async def __aenter__(self) -> Any:
        """The handle is current from here on."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was current before is current again."""
        self.__exit__(kind, error, trace)
