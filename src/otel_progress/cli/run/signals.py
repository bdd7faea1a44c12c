"""Signals for the watched command.

They are blocked and waited for, so that each comes with its sender: a signal from the terminal went to the whole
process group, so the command has it already; one from another process came to us alone, and is passed on.
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
STOPS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGQUIT})
OF_A_TERMINAL: Final = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
"""Signals that we handle as well if the command does not have our terminal."""


class ReceivedSignal(NamedTuple):
    """A signal; `typed` if the terminal or the kernel sent it to the whole process group."""

    number: int
    typed: bool

    @property
    def stops(self) -> bool:
        """Whether it asks the command to end for good; many programs only read their configuration again on SIGHUP."""
        return self.number in STOPS or (self.number == signal.SIGHUP and self.typed)


class Signals:
    """A context manager that blocks signals; enter it in the main thread, before other threads are started."""

    def __init__(self, *, terminal: bool = False) -> None:
        """Block the signals that are passed on; with `terminal`, also those of stopping and resizing."""
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
        """Wait up to `timeout` seconds for a signal; None if there is none, or if a child has ended."""
        came = signal.sigtimedwait(self._all, timeout)
        if came is None or came.si_signo == signal.SIGCHLD:
            return None
        return ReceivedSignal(came.si_signo, came.si_code > 0)

    def waiting(self) -> list[ReceivedSignal]:
        """The signals that have arrived and were not taken yet."""
        found = []
        while (came := signal.sigtimedwait(self._all, 0)) is not None:
            if came.si_signo != signal.SIGCHLD:
                found.append(ReceivedSignal(came.si_signo, came.si_code > 0))
        return found
