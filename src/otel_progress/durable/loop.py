"""Loops that leave out what is done, and mark each item when the next one is taken.

A loop is a generator, so that `break` and an exception both end at its `yield`, and mark nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_progress import clock
from otel_progress.durable import order
from otel_progress.durable.again import by_exception
from otel_progress.durable.consumer import collects
from otel_progress.durable.order import Order
from otel_progress.durable.scope import KEY_LENGTH, KEYS, as_key
from otel_progress.errors import CheckpointError, InvalidArgument, InvalidState
from otel_progress.live.counting import restore_more
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import say
from otel_progress.live.registry import registry
from otel_progress.live.track import count_restored
from otel_progress.model.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from otel_progress.durable.kept import Keys
    from otel_progress.durable.scope import LastLoop, Scope
    from otel_progress.live.lane import Lane
    from otel_progress.live.records import LoopOptions

HALF: Final = 500
"""Unsaved marks from which on the writer is asked to write at once."""
EACH: Final = 0x7F
"""From then on, it is asked again after each 128 marks."""


LOOK_SECONDS: Final = 0.25
"""Seconds that a loop looks at its items before the first, at most, for counting those that are done."""
_VIEWS: Final[tuple[Any, ...]] = ({}.keys(), {}.values(), {}.items())
LISTS: Final = frozenset({list, tuple, range, dict, set, frozenset, *map(type, _VIEWS)})
"""Types that may be looked through twice."""
ASIDE: Final[Any] = object()
"""What stands for the key of an item that is set aside: it is left out, and not done."""
NOTHING: Final[Any] = object()
"""What a source gives that has no item yet: the loop hands it on, and asks again."""


class _Fed:
    """The items of an async loop, as its own code puts them in one by one; `NOTHING` in between."""

    def __init__(self, given: list[Any]) -> None:
        self.over = False
        self._given = given

    def __iter__(self) -> _Fed:
        return self

    def __next__(self) -> Any:
        if self._given:
            return self._given.pop()
        if self.over:
            raise StopIteration
        return NOTHING


class Marking(Protocol):
    """What a loop needs of its session."""

    error: CheckpointError | None
    careful: int
    attempt: int

    def check(self) -> None:
        """Raise that error, if it stops the job."""

    def press(self, scope: Scope) -> None:
        """Many marks are not saved."""

    def goes_on(self, done: int | None, total: int | None) -> None:
        """It is known how many items of the operation are done."""

    def give(self, scope: Scope, key: str) -> None:
        """An item is handed out that the job marks itself."""

    def hand_over(self) -> None:
        """Write the key in hand."""

    def worst(self, scope: Scope) -> frozenset[str]:
        """The keys that were in hand at more deaths than any other."""

    def withhold(self, node: Any, keys: Sequence[str]) -> None:
        """Leave keys for the next attempt."""

    def close_item(self, scope: Scope, key: str) -> None:
        """An item with stages inside it is done."""

    def flush(self) -> None:
        """Write soon."""

    def collected(self, node: Any) -> None:
        """All items of a loop that marks are taken at once."""


class Loop:
    """A loop that marks its items, and what it knows of its scope."""

    def __init__(self, session: Marking, scope: Scope, options: LoopOptions, lane: Lane | None) -> None:
        loaded: Keys = scope.loaded  # type: ignore[assignment]
        self.session = session
        self.scope = scope
        self.node = scope.node()
        self.key: Callable[[Any], Any] | None = options.key
        self.mark = options.mark
        self.seen = scope.seen if options.mark else set()
        self.lane = lane
        self.place = options.place
        self.done = loaded.done if options.retry_failed else loaded.done | loaded.failed
        self.stays_failed = frozenset() if options.retry_failed else loaded.failed
        self.failed_before = 0
        self.retries = options.retry_failed
        self.retried = set(loaded.failed) if options.retry_failed else set()
        self.aside = loaded.aside
        self.before = scope.order
        self.digest = 0
        self.site = options.site
        self.over = self.raised = False
        self.counted = self.known = 0
        self.failed: set[str] = set()

    def go_on(self, before: LastLoop | None, counted: int, options: LoopOptions) -> None:
        """Go on after the loop before, and after what was marked by `done` in this attempt."""
        if self.scope.marked:
            self.done = self.done | self.scope.marked
        if not self.mark:
            self.known = len(self.scope.marked)  # which `done` counted
        if before is None:
            return
        self.stays_failed = frozenset()  # the loop before said so
        self.counted = counted
        self.known += counted
        self.failed = before.failed
        if options.retry_failed:
            self.retried = before.retried | before.failed
        else:
            self.done = self.done | self.failed

    def now(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a `for` loop; `NOTHING` among them comes through."""
        return self.marking(items)

    def begin(self, items: Any) -> int:
        """Count what is done among items that can be looked through; returns minus their number."""
        ahead = self.ahead(items)
        if not self.scope.path:
            self.session.goes_on(*((None, None) if ahead is None else (ahead, len(items))))
        self.leave_out(ahead or 0)
        return -(ahead or 0)

    def ahead(self, items: Any) -> int | None:
        """How many of all items are done, so that the count is right from the first one on.

        None if that takes long, or can't be known: then each is counted when the loop comes to it.
        """
        if type(items) not in LISTS:
            return None
        if not (self.done or self.before.position):
            return 0
        if self.key is None:
            return order.done(min(self.before.position, len(items)), self.retried)
        found, until = 0, clock.monotonic() + LOOK_SECONDS
        try:
            for item in items:
                key = self.key(item)
                found += (key if type(key) is str else as_key(key)) in self.done
                if clock.monotonic() > until:
                    return None
        except Exception:  # of the job, which the loop raises again at this item
            return None
        return found

    def marking(self, items: Iterable[Any]) -> Iterator[Any]:  # noqa: C901, PLR0915 - in one piece, counted in ns
        """Items that are marked when the next one is taken; counted in tenths of a microsecond."""
        session, scope, place = self.session, self.scope, self.place
        thread, in_task = place.thread, place.task is not None
        key_of, done, aside, seen = self.key, self.done, self.aside, self.seen
        add, pending, taken, stays_failed = seen.add, scope.pending, self.taken, self.stays_failed
        mark = pending.append
        index = -1
        if here() != place:
            raise self.elsewhere()
        if collects(sys._getframe().f_back):
            self.session.collected(self.node)
        skipped = self.begin(items)
        try:
            for item in items:
                if item is NOTHING:
                    scope.item = None
                    yield item
                    continue
                index += 1
                key: Any
                if key_of is None or aside or len(seen) >= KEYS:
                    key = taken(index, item)
                else:
                    key = key_of(item)
                    if type(key) is not str or not (key.isascii() and key.isprintable() and 0 < len(key) < KEY_LENGTH):
                        key = as_key(key)
                    if key in done:
                        if stays_failed and key in stays_failed:
                            self.failed_before += 1
                        key = None
                    elif key in seen:
                        raise twice(key)
                    else:
                        add(key)
                if key is None or key is ASIDE:
                    skipped += key is None
                    continue
                if skipped > 0:
                    self.leave_out(skipped)
                    skipped = 0
                scope.item = key
                if session.careful:
                    self.hand_over(key)
                yield item
                if get_ident() != thread or (in_task and here() != place):
                    raise self.elsewhere()
                if scope.outcome is None and key_of is not None:
                    mark(key)
                else:
                    self.marked(index, key)
                if scope.item_runs or session.error is not None or (len(pending) >= HALF and not len(pending) & EACH):
                    self.settled(key)
        except GeneratorExit:
            self.left(index, sys._getframe().f_back)
            raise
        except BaseException:
            self.broken()
            raise
        self.finished(skipped, index + 1)

    async def later(self, items: Any) -> AsyncIterator[Any]:
        """The items of an `async for` loop: they go through the loop above one by one."""
        given: list[Any] = []
        source = _Fed(given)
        steps = self.now(source)
        async for item in items:
            given.append(item)
            for step in steps:
                if step is NOTHING:
                    break
                try:
                    yield step
                except GeneratorExit:
                    steps.close()  # type: ignore[attr-defined] # a generator
                    raise
        source.over = True
        for step in steps:
            try:
                yield step
            except GeneratorExit:
                steps.close()  # type: ignore[attr-defined] # a generator
                raise

    def taken(self, index: int, item: Any) -> Any:
        """The key of an item to hand out; None for one that was done before, `ASIDE` for one that is set aside."""
        if self.key is None:
            if index == self.before.position:
                self.compare(index)
            self.digest = order.add(self.digest, item)
            key = str(index)
            if index < self.before.position and key not in self.retried:
                return None
        else:
            key = as_key(self.key(item))
            if key in self.done:
                self.failed_before += key in self.stays_failed
                return None
            if key in self.seen:
                raise twice(key)
            self.seen.add(key)
            if len(self.seen) > KEYS:
                raise CheckpointError(
                    f"a loop keeps at most {KEYS:,} keys: for an endless stream, keep its offset, as in "
                    "checkpoint(offset=...)"
                )
        if key in self.aside:
            self.set_aside(key)
            return ASIDE
        return key

    def compare(self, taken: int) -> None:
        """Compare the first items with those that were done.

        Raises:
            CheckpointMismatch: if they are others, or fewer.
        """
        position, digest = self.before
        if digest is not None and (taken < position or self.digest != digest):
            node = self.node
            raise order.changed("it" if node is None else f"{node._kind} {node.name!r}", position, taken)

    def hand_over(self, key: str) -> None:
        """An item is about to be handed out after a death: write its key before."""
        try:
            self.session.hand_over()
        except BaseException:
            self.scope.seen.discard(key)
            raise

    def leave_out(self, items: int) -> None:
        """Items were left out, as they are done: those that this attempt counted before are not counted again."""
        if items <= 0:
            return
        again = min(items, self.known)
        self.known -= again
        if again and self.lane is not None:
            with registry.lock:
                self.lane.shorten(again)
        self.counted += items - again
        if self.mark:
            count_restored(self.node, self.lane, items - again)
        elif self.node is not None:
            restore_more(self.node, items - again)

    def marked(self, index: int, key: str) -> None:
        """An item is done or failed."""
        scope = self.scope
        outcome, scope.outcome = scope.outcome, None
        if outcome == "failed":
            scope.failed.append(key)
            scope.seen.discard(key)
            self.failed.add(key)
        elif self.key is not None or key in self.retried:
            scope.pending.append(key)
            self.retried.discard(key)
            self.failed.discard(key)
        if self.key is None and index >= self.before.position:
            scope.order = Order(index + 1, self.digest)
            if not index & EACH and scope.behind() >= HALF:
                self.session.press(scope)

    def settled(self, key: str) -> None:
        """An item was marked, and something else is to be done."""
        scope, session = self.scope, self.session
        if scope.item_runs:
            session.close_item(scope, key)
        session.check()
        if len(scope.pending) >= HALF and not len(scope.pending) & EACH:  # a store that fails is not asked each time
            session.press(scope)

    def set_aside(self, key: str) -> None:
        """Say that an item is left out for good."""
        node: Any = self.node
        node.record("set aside", item=key)
        say("%r leaves out %s, as it ended the process: recover --run --retry-set-aside tries it again", node.name, key)
        node.note(f"set aside, as it ended the process: {key}", "warning")

    def tell_failed(self, items: int) -> None:
        """Say what `retry_failed=False` left out, so that nobody takes the rest for the whole."""
        node: Any = self.node
        for each in {node, node.operation}:
            each._with_extras().outcomes["failed"] += items
        node.note(f"left out: {items} {plural('item', items)} that failed in earlier attempts", "warning")

    def left(self, index: int, caller: FrameType | None) -> None:
        """The loop was left, with an item in hand: by `break`, or by an exception that the end of the stage tells.

        Args:
            index: the index of the item.
            caller: the frame of the loop, or where it can't be known another one; None if the interpreter shuts down.
        """
        scope, key = self.scope, self.scope.item
        if scope.loop is not self:
            return  # it was begun again
        self.over, self.raised = True, by_exception(caller)
        if key is not None:
            scope.left_at = None if caller is None else (caller.f_code, caller.f_lineno, key)
            if scope.outcome is None:
                scope.seen.discard(key)
            else:
                self.marked(index, key)
        self.closed()

    def broken(self) -> None:
        """The source of the items failed, or a key, or the store; the item before is marked."""
        if self.scope.loop is self:
            self.over = self.raised = True
            self.closed()

    def closed(self) -> None:
        """No item is in hand any more."""
        self.scope.item, self.scope.outcome, self.scope.automatic = None, None, False

    def finished(self, skipped: int, taken: int) -> None:
        """All items were taken.

        Raises:
            CheckpointMismatch: if they are fewer than a loop by position has done.
        """
        scope = self.scope
        if self.failed_before:
            self.tell_failed(self.failed_before)
        if self.key is None and taken <= self.before.position:
            self.compare(taken)
        self.over = True
        if self.mark:
            self.leave_out(skipped)
            scope.item, scope.automatic = None, False
        self.session.flush()

    def elsewhere(self) -> InvalidState:
        """The error for an item that is taken by another thread or task than the loop's own."""
        if self.scope.item is not None:
            self.scope.seen.discard(self.scope.item)
        return InvalidState(
            "an item of track(key=...) is taken by another thread or task than the one that called track(), so it "
            "would be marked before it is done: use track(..., mark=False), and done(key) when an item is done"
        )


def twice(key: str) -> InvalidArgument:
    """The error for two items with one key."""
    return InvalidArgument(
        f"two items of this loop have the same key {key!r}, so one of them would be left out: make keys unique"
    )


def blame(scope: Scope, error: BaseException) -> None:
    """Mark the item as failed whose loop body let out this exception; one that `break` left is not."""
    left, scope.left_at = scope.left_at, None
    trace = error.__traceback__
    while left is not None and trace is not None:
        if trace.tb_frame.f_code is left[0] and trace.tb_lineno == left[1]:
            scope.failed.append(left[2])
            return
        trace = trace.tb_next
