"""The thread that writes to a store: it saves what sessions hold, each 0.25 s, and renews their leases."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from otel_progress import clock
from otel_progress.live.engine import process
from otel_progress.live.guard import tell_once

if TYPE_CHECKING:
    from otel_progress.durable.store import CheckpointStore

EVERY: Final = 0.25
"""Seconds between two writes; so much may be done again after a kill."""
EXIT_SECONDS: Final = 2.0
"""Seconds that the end of the process waits for a store, at most."""


class Saver(Protocol):
    """What the writer writes for: the session of one operation."""

    id: str
    over: bool

    def save(self, now: float) -> None:
        """Write what is not saved, at a monotonic time."""

    def end(self, status: str, reason: str | None) -> None:
        """Write with the next round how the operation ended."""

    def forked(self) -> None:
        """Write nothing any more, as this is a child of the process that holds the operation."""


class Writer:
    """The thread of one store.

    Attributes:
        sessions: those that write here. Written: job, writer; under the lock.
    """

    def __init__(self, store: CheckpointStore) -> None:
        """Start the thread with the first session."""
        self._store = weakref.ref(store)
        self.sessions: list[Saver] = []
        self._changed = threading.Condition(threading.RLock())
        self._asked = self._answered = 0
        self._thread: threading.Thread | None = None

    def add(self, session: Saver) -> None:
        """Save what this session holds from now on."""
        with self._changed:
            self.sessions.append(session)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="otel-progress-checkpoints", daemon=True)
                if process.threads_allowed:
                    self._thread.start()

    def rest(self) -> None:
        """Let the store close its file, as nothing is written."""
        rest = getattr(self._store(), "rest", None)
        if rest is None:
            return
        try:
            rest()
        except Exception:
            tell_once("a checkpoint store could not be closed; it is complete all the same")

    def kick(self) -> None:
        """Write now, without waiting for it."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def hurry(self) -> None:
        """Write now, unless that was asked for already; cheap enough to be called for each mark."""
        if self._asked == self._answered:
            self.kick()

    def flush(self, timeout: float) -> bool:
        """Write now, and wait until that is done; returns whether it was done in time."""
        if threading.current_thread() is self._thread:
            return False
        if not process.threads_allowed:
            self._round()
            return True
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._answered >= mine, timeout)

    def settle(self, id: str, timeout: float) -> None:
        """Write what earlier attempts of an operation in this process left."""
        if any(session.id == id for session in self.sessions):
            self.flush(timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._asked == self._answered:
                    self._changed.wait(EVERY)
                if not self.sessions:
                    self._answered = self._asked
                    self._changed.notify_all()
                    self._thread = None  # the next session starts another
                    self.rest()
                    return
                asked = self._asked
            self._round()
            with self._changed:
                self._answered = asked
                self._changed.notify_all()

    def _round(self) -> None:
        for session in tuple(self.sessions):
            try:
                session.save(clock.monotonic())
            except BaseException:
                tell_once("a checkpoint could not be written; it is tried again")
            if session.over:
                with self._changed:
                    self.sessions = [one for one in self.sessions if one is not session]


_writers: weakref.WeakKeyDictionary[CheckpointStore, Writer] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_hooked = False


def writer_of(store: CheckpointStore) -> Writer:
    """The writer of a store."""
    global _hooked
    with _lock:
        if not _hooked:
            _hooked = True
            atexit.register(_exit)
            process.at_exit.insert(0, finish)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_in_child)
        known = _writers.get(store)
        if known is None:
            known = _writers[store] = Writer(store)
        return known


def finish(timeout: float) -> None:
    """Write what all sessions hold, and wait at most the given seconds for it."""
    deadline = clock.monotonic() + timeout
    for writer in tuple(_writers.values()):
        if writer.sessions:
            writer.flush(max(0.0, deadline - clock.monotonic()))


def _exit() -> None:
    """The process ends: what still runs is interrupted."""
    for writer in tuple(_writers.values()):
        for session in tuple(writer.sessions):
            session.end("interrupted", "the process ended")
    finish(EXIT_SECONDS)
    for writer in tuple(_writers.values()):
        if not writer.sessions:
            writer.rest()  # so that the file stands alone


def _in_child() -> None:
    """The sessions are the parent's."""
    global _lock
    _lock = threading.Lock()
    for writer in _writers.values():
        for session in writer.sessions:
            session.forked()
    _writers.clear()
