"""SIGTERM during `Workflow.run`: it stops the run in order, and then ends the program."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_progress import Operation

EXIT_CODE: Final = 128 + signal.SIGTERM
"""The exit code of a program that SIGTERM ended, as shells know it."""


class Sigterm:
    """Handles SIGTERM in the main thread, unless the program has a handler of its own.

    The handler of `configure(handle_sigterm=True)` is called after the run was stopped.
    """

    def __init__(self, operation: Operation) -> None:
        """The operation to stop."""
        self._operation = operation
        self._before: Any = None
        self._received = False

    def __enter__(self) -> Sigterm:
        """Set the handler."""
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGTERM)
            if before is signal.SIG_DFL or getattr(before, "otel_progress", False):
                self._before = before
                signal.signal(signal.SIGTERM, self._handle)
        return self

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received:  # the second one ends the program at once
            signal.signal(number, self._before)
            signal.raise_signal(number)
        self._received = True
        self._operation.request_cancel("SIGTERM")

    def leave(self) -> None:
        """End the operation as interrupted if the signal came.

        Raises:
            SystemExit: if it came.
        """
        if self._received:
            raise SystemExit(EXIT_CODE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the handler, and end the program if the signal came."""
        if self._before is None:
            return
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._before)
        if self._received and self._before is not signal.SIG_DFL:
            signal.raise_signal(signal.SIGTERM)
        self.leave()
