"""Muted operations: they stay visible, and webhooks are silent about them and about everything below them.

A mute belongs to one attempt. It is over when that attempt ends, when its time has passed, or when somebody removes it;
if the operation is still in trouble then, listeners learn of it as of a new conclusion.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.monitor.intake.requests import Refused
from otel_progress.monitor.state.saved import Mute
from otel_progress.monitor.state.store import StoreError

if TYPE_CHECKING:
    from otel_progress.monitor.state.journal import Journal
    from otel_progress.monitor.state.ledger import Entry, Ledger
    from otel_progress.monitor.state.store import Store

MOST: Final = 10_000
"""The most muted operations."""
ABOVE: Final = 64
"""The most ancestors of an operation that are looked at."""
BELOW: Final = 1_000
"""The most operations below a muted one that are told of its mute."""
_FULL: Final = f"{MOST:,} operations are muted already; unmute some first"

Answer = Callable[["Refused | None"], None]
"""Called once a change is stored, or with the reason why it is not."""


class Mutes:
    """The muted operations; `change` may be called by any thread, reading too, the rest belongs to the core's."""

    def __init__(self, store: Store, ledger: Ledger, journal: Journal) -> None:
        """Continue from what is in the store.

        Raises:
            StoreError: if it cannot be read.
        """
        self._ledger = ledger
        self._journal = journal
        self._lock = threading.Lock()
        self._asked: deque[tuple[str, Mute | None, Answer]] = deque()
        self._answers: list[Answer] = []
        self._known: dict[str, Mute] = {mute.operation_id: mute for mute in store.mutes(MOST)}
        self._over: list[str] = []

    # -- for any thread

    def of(self, entry: Entry) -> Mute | None:
        """The mute of an operation; None if it is not muted, or if only an earlier attempt was."""
        mute = self._known.get(entry.head.operation_id)
        return mute if mute is not None and mute.attempt == entry.number else None

    def covering(self, entry: Entry) -> Mute | None:
        """The mute of an operation or of the nearest muted one above it."""
        seen: set[str] = set()
        for _ in range(ABOVE if self._known else 0):
            mute = self.of(entry)
            if mute is not None and not _has_passed(mute, clock.unix()):
                return mute
            seen.add(entry.head.operation_id)
            parent = entry.head.parent_id
            above = None if parent is None or parent in seen else self._ledger.operations.get(parent)
            if above is None:
                return None
            entry = above
        return None

    def change(self, operation_id: str, mute: Mute | None, done: Answer) -> None:
        """Mute an operation, or unmute it (None); `done` is called when that is stored."""
        with self._lock:
            self._asked.append((operation_id, mute, done))

    @property
    def asked(self) -> bool:
        """Whether changes wait."""
        return bool(self._asked)

    # -- for the core's thread

    def take(self) -> None:
        """Apply the changes that wait; `stored` answers them."""
        while self._asked:
            with self._lock:
                operation_id, mute, done = self._asked.popleft()
            if mute is None:
                self._remove(operation_id)
            elif len(self._known) >= MOST and operation_id not in self._known:
                done(Refused(503, _FULL, 60))
                continue
            else:
                self._known[operation_id] = mute
                self._write(operation_id, mute)
            self._answers.append(done)

    def stored(self, failed: Refused | None) -> None:
        """Answer those who wait for what was just written, or was not."""
        answers, self._answers = self._answers, []
        for done in answers:
            done(failed)

    def expire(self, now: float) -> None:
        """Remove mutes whose time has passed (Unix seconds), and those of attempts that are over."""
        for operation_id, mute in list(self._known.items()):
            try:
                entry = self._ledger.find(operation_id)
            except StoreError:
                continue
            if _has_passed(mute, now):
                self._remove(operation_id)
            elif entry is None or not entry.open or entry.number != mute.attempt:
                self._remove(operation_id, heard=False)

    def unheard(self) -> Iterator[Entry]:
        """Open operations whose mute was removed since the last call, with all below them that no other mute covers."""
        over, self._over = self._over, []
        for operation_id in over:
            for entry in self._tree(operation_id):
                if entry.open and self.covering(entry) is None:
                    yield entry

    def _tree(self, operation_id: str) -> Iterator[Entry]:
        """An operation and what is below it, as far as it is in memory."""
        waiting, seen = [operation_id], set[str]()
        while waiting and len(seen) < BELOW:
            key = waiting.pop()
            entry = self._ledger.operations.get(key)
            if key not in seen and entry is not None:
                seen.add(key)
                waiting.extend(self._ledger.children.get(key, ()))
                yield entry

    def _remove(self, operation_id: str, *, heard: bool = True) -> None:
        if self._known.pop(operation_id, None) is not None:
            self._write(operation_id, None)
            if heard:
                self._over.append(operation_id)

    def _write(self, operation_id: str, mute: Mute | None) -> None:
        self._journal.mutes[operation_id] = mute
        for entry in self._tree(operation_id):
            self._ledger.touch(entry)
            self._journal.touch(entry.head.operation_id)


def _has_passed(mute: Mute, now: float) -> bool:
    return mute.until is not None and now >= mute.until
