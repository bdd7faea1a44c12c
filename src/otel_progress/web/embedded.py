"""The monitor inside this process: its core and its store, in a folder of temporary files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Final

from otel_progress import clock, files, forks
from otel_progress.monitor.state.core import Core, CoreLimits
from otel_progress.monitor.state.store import Store, StoreLimits
from otel_progress.monitor.web.cancel import Control
from otel_progress.monitor.web.control_notices import ControlNotices
from otel_progress.monitor.web.views import Views
from otel_progress.web.feed import Feed

PREFIX: Final = "otel-progress-web-"
NAME: Final = "operations.db"
BYTES: Final = 64 * 1024 * 1024
"""The size limit of the file."""
DAYS: Final = 1.0
"""How long ended operations are kept, in days."""
LIMITS: Final = CoreLimits(held_bytes=32 * 1024 * 1024, traces=1, spans=1)
STORE_LIMITS: Final = StoreLimits(events=2_000)
STOP_SECONDS: Final = 2.0
LEFT_FOR: Final = 3_600.0
"""Seconds after which the folder of a process that was killed may be removed."""


class Embedded:
    """The core, the store and the views of this process, which any number of applications serve.

    Attributes:
        core: what is known of the operations.
        store: keeps their history.
        views: shows both.
        notices: tells those who asked for a cancel that the operation has ended.
        feed: where the events come from.
    """

    def __init__(self, feed: Feed) -> None:
        """Start to take events.

        Raises:
            StoreError: if no temporary file can be written.
        """
        _remove_leftovers()
        self.feed = feed
        self._pid = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self.store = Store(self._folder / NAME, keep_days=DAYS, most_bytes=BYTES, limits=STORE_LIMITS)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.core = Core(self.store, limits=LIMITS)
        self.views = Views(self.core, self.store)
        self.notices = ControlNotices(Control(), self.views, lambda _: None)
        self.core.listen(self.notices)
        self.core.start()

    def close(self) -> None:
        """End the thread, and remove the files; in a forked child they belong to the parent."""
        if os.getpid() == self._pid:
            self.core.stop(STOP_SECONDS)
            self.store.close()
            shutil.rmtree(self._folder, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if clock.unix() - folder.stat().st_mtime < LEFT_FOR or folder.is_symlink():
                continue
            files.Lock(folder / f"{NAME}.lock").release()
        except (OSError, files.Held):
            continue  # in use, or another user's
        shutil.rmtree(folder, ignore_errors=True)


class Process:
    """What this process has of it: events are collected once an application is made, the rest begins when it serves."""

    def __init__(self) -> None:
        """Nothing is collected yet."""
        self._feed: Feed | None = None
        self._embedded: Embedded | None = None
        self._holders = 0
        self._abandoned: list[Embedded] = []
        """Of the parent process; closing its connections here could damage its file."""
        self._hooked = False
        self._lock = threading.Lock()

    def collect(self) -> None:
        """Collect the events of operations from now on, if they are not collected yet."""
        if self._feed is None:
            self._feed = Feed()
            self._feed.start()
        if not self._hooked:
            self._hooked = True
            forks.in_child.append(self._after_fork_in_child)
            atexit.register(self.close)

    @property
    def running(self) -> Embedded | None:
        """The monitor of this process, if it runs."""
        return self._embedded

    def start(self) -> Embedded:
        """Start it if it does not run; returns once it has what was reported so far."""
        with self._lock:
            if self._embedded is None:
                self.collect()
                assert self._feed is not None
                embedded = Embedded(self._feed)
                self._feed.connect(embedded.core)
                self._embedded = embedded
            return self._embedded

    def hold(self) -> None:
        """An application starts."""
        self._holders += 1

    def release(self) -> bool:
        """An application ends; whether it is the last one."""
        self._holders -= 1
        return self._holders <= 0

    def close(self) -> None:
        """End; the next request starts anew."""
        with self._lock:
            feed, embedded = self._feed, self._embedded
            self._feed = self._embedded = None
        if feed is not None:
            feed.stop()
        if embedded is not None:
            embedded.close()

    def _after_fork_in_child(self) -> None:
        """A child collects anew if it may be a worker of a server, not if it was started by one."""
        feed, embedded, self._feed, self._embedded, self._holders = self._feed, self._embedded, None, None, 0
        self._lock = threading.Lock()
        if feed is not None:
            feed.drop()
        if embedded is not None:
            self._abandoned.append(embedded)
        elif feed is not None:
            self._feed = Feed(forked=True)
            self._feed.start()


of_process: Final = Process()
