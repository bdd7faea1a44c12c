"""Ctrl+C and SIGTERM during `Workflow.run`: the first one stops the run in order, and then ends the program."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_progress import Operation

EXIT_CODE: Final = 128 + signal.SIGTERM
"""The exit code of a program that SIGTERM ended, as shells know it."""


class Signals:
    """Handles SIGINT and SIGTERM in the main thread, unless the program has handlers of its own.

    The handler of `configure(handle_sigterm=True)` is called after the run was stopped.
    """

    def __init__(self, operation: Operation) -> None:
        """The operation to stop."""
        self._operation = operation
        self._before: dict[int, Any] = {}
        self._received: int | None = None

    def __enter__(self) -> Signals:
        """Set the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._handle_from(signal.SIGINT, signal.default_int_handler)
            self._handle_from(signal.SIGTERM, signal.SIG_DFL)
        return self

    def _handle_from(self, number: int, default: Any) -> None:
        before = signal.getsignal(number)
        if before is default or getattr(before, "otel_progress", False):
            self._before[number] = before
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received is not None:  # the second one ends the program at once
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self._received = number
        self._operation.request_cancel(signal.Signals(number).name)

    def leave(self) -> None:
        """End the operation as interrupted if a signal came.

        Raises:
            KeyboardInterrupt: if it was SIGINT.
            SystemExit: if it was SIGTERM.
        """
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt
        if self._received is not None:
            raise SystemExit(EXIT_CODE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the handlers, and end the program if a signal came."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)
        if self._received == signal.SIGTERM and self._before[signal.SIGTERM] is not signal.SIG_DFL:
            signal.raise_signal(signal.SIGTERM)
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.leave()
