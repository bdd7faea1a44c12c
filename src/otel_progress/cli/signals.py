"""Signals that are meant for the watched command.

They are blocked and waited for, so each comes with its sender: one from the terminal went to the whole process group,
so the command has it already; one from another process came to us alone, and is passed on.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

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
_ALL: Final = frozenset({*PASSED_ON, signal.SIGCHLD})


class Signals:
    """Holds signals back while it is entered; only in the main thread, before others are started."""

    def __enter__(self) -> Self:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
        return self

    def __exit__(self, *_: object) -> None:
        while signal.sigtimedwait(_ALL, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, timeout: float) -> int | None:
        """Wait for a signal so many seconds; returns one that is to be passed on."""
        came = signal.sigtimedwait(_ALL, timeout)
        if came is None or came.si_signo == signal.SIGCHLD or came.si_code > 0:
            return None
        return came.si_signo
