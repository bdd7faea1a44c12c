"""Signals that are meant for the watched command.

They are blocked and waited for, so each comes with its sender: one from the terminal went to the whole process group,
so the command has it already; one from another process came to us alone, and is passed on.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self

PASSED_ON: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
OF_A_TERMINAL: Final = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
"""What concerns us, too, where the command does not have our terminal."""


class ReceivedSignal(NamedTuple):
    """A signal, and whether the terminal (or the kernel) sent it to the whole group, not somebody to us alone."""

    number: int
    typed: bool


class Signals:
    """Holds signals back while it is entered; only in the main thread, before others are started."""

    def __init__(self, *, terminal: bool = False) -> None:
        """Those that are passed on; with `terminal` those that stop and change a terminal, too."""
        more = OF_A_TERMINAL if terminal else ()
        self._all: Final = frozenset({*PASSED_ON, *more, signal.SIGCHLD})

    def __enter__(self) -> Self:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._all)
        return self

    def __exit__(self, *_: object) -> None:
        while signal.sigtimedwait(self._all, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def next(self, timeout: float) -> ReceivedSignal | None:
        """Wait for a signal so many seconds; None where there is none, or a child has ended."""
        came = signal.sigtimedwait(self._all, timeout)
        if came is None or came.si_signo == signal.SIGCHLD:
            return None
        return ReceivedSignal(came.si_signo, came.si_code > 0)

    def wait(self, timeout: float) -> int | None:
        """Wait for a signal so many seconds; returns one that is to be passed on."""
        came = self.next(timeout)
        return None if came is None or came.typed else came.number
