"""SIGTERM in children of multiprocessing: it waits until the ends of operations have been sent.

`Pool.__exit__` sends SIGTERM as soon as all results are back. In such a child each end of an operation wakes the ticker
at once, and from then on SIGTERM waits for the sender. When an operation starts after everything was sent, the default
action of the signal is restored.

Python runs a handler in the main thread only, and not while that thread is blocked: a signal just before a system call
does not interrupt it. The default action would end the process, so ours must, too. The wakeup descriptor notifies a
thread of ours, which interrupts the main thread, or kills the process if that has no effect.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from otel_progress import procfs
from otel_progress.live import hooks

SECONDS: Final = 0.2
"""Seconds that SIGTERM waits for the sender, at most."""
POKE: Final = 0.01
"""Seconds between two interruptions of a main thread that does not handle SIGTERM."""
POKES: Final = 20
"""Interruptions of the main thread before the process is killed."""


class Termination:
    """The handling of SIGTERM in a child of multiprocessing; a forked child gets a new one.

    Only the main thread arms and disarms it, as Python allows no other thread to set a handler.
    """

    def __init__(
        self, wake: Callable[[], None], hand_over: Callable[[float], object], all_sent: Callable[[], bool]
    ) -> None:
        """Nothing is changed yet.

        Args:
            wake: requests a round of the ticker.
            hand_over: waits for the sender.
            all_sent: whether everything reported was sent.
        """
        self._wake = wake
        self._all_sent = all_sent
        self._hand_over = hand_over
        self._may_arm: bool | None = None
        self._armed = self._waiting = False
        self._pipe: tuple[int, int] | None = None

    def begin(self) -> None:
        """Handle each end of an operation from now on, as this is a child of multiprocessing."""
        hooks.on_end = self.ended

    def ended(self) -> None:
        """An operation ended here."""
        self._wake()
        if self._armed or not _is_main_thread():
            return
        try:
            self._arm()
        except (
            OSError,
            RuntimeError,
            ValueError,
        ):  # no descriptor or thread is to be had, or this is no main interpreter
            self._may_arm = False

    def started(self) -> None:
        """An operation starts here."""
        if self._armed and self._all_sent():
            self.disarm()

    def _arm(self) -> None:
        """Have SIGTERM wait for the sender, unless other code handles it or uses the wakeup descriptor."""
        if self._may_arm is None:  # a handler that was set in C is unknown to Python
            self._may_arm = sys.platform != "win32" and not procfs.catches(signal.SIGTERM)
        if not self._may_arm or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        if self._pipe is None:
            self._pipe = self._listen()
        other = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if other not in (-1, self._pipe[1]):
            signal.set_wakeup_fd(other)
            return
        signal.signal(signal.SIGTERM, self._terminated)
        self._armed = True

    def disarm(self) -> None:
        """Restore the default action of SIGTERM."""
        if self._armed and _is_main_thread():
            self._armed = False
            if self._is_ours():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            other = signal.set_wakeup_fd(-1)
            if self._pipe is not None and other not in (-1, self._pipe[1]):
                signal.set_wakeup_fd(other)

    def close(self) -> None:
        """Release everything, in a forked child."""
        self.disarm()
        for descriptor in self._pipe or ():
            os.close(descriptor)

    def _is_ours(self) -> bool:
        return bool(signal.getsignal(signal.SIGTERM) == self._terminated)

    def _terminated(self, number: int, _: Any) -> None:
        if self._waiting:
            return  # a second one: the first is about to end the process
        self._waiting = True
        try:
            self._hand_over(SECONDS)
        finally:
            if self._is_ours():  # else a handler of the user called this one, and decides itself
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._waiting = False

    # -- the thread

    def _listen(self) -> tuple[int, int]:
        """Start a thread that is notified of signals; returns its pipe."""
        reading, writing = os.pipe()
        if hasattr(os, "set_blocking"):
            os.set_blocking(writing, False)
        threading.Thread(target=self._hear, args=(reading,), name="otel-progress-sigterm", daemon=True).start()
        return reading, writing

    def _hear(self, descriptor: int) -> None:
        main = threading.main_thread().ident
        while numbers := os.read(descriptor, 64):
            if signal.SIGTERM in numbers and main is not None and self._is_ours():
                self._insist(main)

    def _insist(self, main: int) -> None:
        """End the process, whatever its main thread does."""
        for _ in range(POKES):
            threading.Event().wait(POKE)
            if self._waiting or not self._is_ours():
                return
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, signal.SIGTERM)
        self._hand_over(SECONDS)
        if not self._waiting and self._is_ours():  # it is in native code, for who knows how long
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
