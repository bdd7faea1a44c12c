"""Loops whose items the job marks itself, by `done`, as a pool or tasks work on them.

What was in hand when a process died is handed out apart from each other.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.durable.loop import ASIDE, NOTHING, Loop, Marking
from otel_progress.durable.scope import IN_HAND
from otel_progress.live.diagnosis.places import here

if TYPE_CHECKING:
    from otel_progress.durable.kept import Keys
    from otel_progress.durable.scope import Scope
    from otel_progress.live.lane import Lane
    from otel_progress.live.records import LoopOptions

ALONE_SECONDS: Final = 60.0
"""Seconds for which a suspect is left alone in a pool, at most: an item that is never marked may not stop the job."""
POLL: Final = 0.01
"""Seconds between two looks whether it is done."""


class HandingLoop(Loop):
    """A loop that hands items out, and marks none."""

    def __init__(self, session: Marking, scope: Scope, options: LoopOptions, lane: Lane | None) -> None:
        """Find the suspects of earlier deaths."""
        super().__init__(session, scope, options, lane)
        loaded: Keys = scope.loaded  # type: ignore[assignment]
        self.suspects = loaded.suspects if len(loaded.suspects) > 1 else frozenset()
        self.worst = session.worst(scope) if self.suspects else frozenset()

    def now(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a `for` loop; `NOTHING` among them comes through."""
        return self.handing(items)

    def handing(self, items: Iterable[Any]) -> Iterator[Any]:
        """Items that the job marks itself."""
        late: list[tuple[str, Any]] = []
        uncounted, apart = -self.begin(items), 0
        for item in items:
            if item is NOTHING:
                yield item
                continue
            key = self.taken(0, item)
            if key is None:
                uncounted -= 1
                if uncounted < 0:
                    self.leave_out(1)
            elif key in self.suspects:
                late.append((key, item))
            elif key is not ASIDE:
                self.hand(key)
                yield item
                apart += 1
                if late and apart >= IN_HAND:
                    apart = 0
                    other, suspect = late.pop()
                    self.hand(other)
                    yield suspect
        if self.session.attempt % 2:
            # Another order each time, so that none keeps the same ones from being done.
            random.Random(self.session.attempt).shuffle(late)  # noqa: S311 - no secret
        late.sort(key=lambda one: one[0] not in self.worst)
        while late:
            if not self.wait_alone() and self.is_enough(late[-1][0]):
                self.session.withhold(self.node, [key for key, _ in late])
                break
            key, item = late.pop()  # what a pool worked on was the oldest, and comes last: the others are done then
            self.hand(key)
            yield item
        self.finished(0, 0)

    def hand(self, key: str) -> None:
        """An item is about to be handed out that the job marks itself."""
        self.scope.hand[key] = None
        self.session.give(self.scope, key)
        if self.session.careful or key in self.suspects:
            self.session.hand_over()

    def is_enough(self, key: str) -> bool:
        """Whether no more of the worst suspects may be handed out: half of them are in hand, and one ends the process.

        So each attempt halves them, until one is alone.
        """
        if key not in self.worst:
            return False
        if len(self.worst) == 1:
            return True
        return 2 * len(self.worst & self.scope.hand.keys()) >= len(self.worst)

    def wait_alone(self) -> bool:
        """Wait until nothing is in hand, so that the next item is alone; not where `done` may be called by this code.

        That is so in the thread of a pool that takes the items, which is another one than that of the loop.

        Returns:
            Whether nothing is in hand.
        """
        if get_ident() == self.place.thread or here().task is not None:
            return not self.scope.hand
        until = clock.monotonic() + ALONE_SECONDS
        while self.scope.hand and self.session.error is None and clock.monotonic() < until:
            threading.Event().wait(POLL)
        return not self.scope.hand
