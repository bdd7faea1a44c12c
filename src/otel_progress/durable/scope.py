"""A scope: a place in an operation that has keys and a state of its own; and what of it is not saved yet."""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_progress.durable.kept import ORDER, Batch, Keys, Kind
from otel_progress.durable.order import Order, read
from otel_progress.errors import CheckpointError, InvalidArgument
from otel_progress.model.values import shown, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.lane import Lane
    from otel_progress.live.state import HandleState

KEY_LENGTH: Final = 1024
"""Characters of a key."""
_MOST: Final = 10**KEY_LENGTH
"""No whole number from here on is a key."""
STATE_BYTES: Final = 1024 * 1024
"""Bytes of a state or a result as text."""
KEYS: Final = 10_000_000
"""Keys of a scope; they are held in memory, with about 100 bytes each."""
PART: Final = 200
"""Characters of a key in a path; of a longer one it has the digest."""
IN_HAND: Final = 64
"""Keys in hand that are noted. Of more it is the oldest: what a pool works on, as it takes the others later."""
UNREAD: Final[Any] = object()
"""What stands for a state that was not read."""
_PLAIN: Final = re.compile(r"[\w .:-]+")


class LastLoop(Protocol):
    """The newest loop of a scope, as the next one sees it.

    Attributes:
        lane: its lane.
        key: what makes the keys of its items; None for a loop by position.
        mark: whether it marked its items.
        site: the code that opened it, and the index of the instruction.
        over: whether all of its items were taken, or it was left.
        raised: whether an exception ended it.
        counted: units that it and those before it counted, its own lane aside.
        failed: keys that failed in this attempt.
        retried: keys of a loop by position that are still to be tried again.
    """

    lane: Lane | None
    key: Any
    mark: bool
    site: tuple[CodeType, int]
    over: bool
    raised: bool
    counted: int
    failed: set[str]
    retried: set[str]


class Runs:
    """The stages of one name below one scope: how many completed, which is open, and whether they run side by side."""

    __slots__ = ("completed", "mixed", "open", "place")

    def __init__(self) -> None:
        """None yet."""
        self.completed = 0
        self.mixed = False
        self.open: HandleState | None = None
        self.place: Place | None = None


class Scope:
    """The keys and states of one handle in one attempt.

    Attributes:
        path: its path in the store; empty for the operation.
        node: the handle, which must not be kept alive: one that is dropped without an end ends as interrupted.
        above: the scope that its path is inside of; None for the operation.
        item_above: the key of a loop that it is inside of, if it is.
        named: whether its key or its arguments tell it apart from others of its name.
        unknown: the items one of which it may belong to, nobody knows to which; empty if it is clear.
        runs: the stages below it by name; `item_runs` those below an item, by its key. Written: job, under the lock.
        ran: paths of stages beside it that run once and have completed in this attempt; `inner_ran` of those below it,
            `item_ran` of those below an item.
        own: the runs that it belongs to itself; None for the operation and for what is named.
        loaded: the keys that earlier attempts left; None until they are needed.
        restored: the state that they left; `UNREAD` until it is needed.
        seen: keys that a loop which marks by itself took in this attempt, without those that failed. Written: job.
        marked: keys that `done` marked in this attempt. Written: job.
        pending: keys that are done and not saved, in order. Written: job appends, writer removes.
        failed: the same for keys that failed.
        order: how far a loop by position is. Written: job. Read: writer.
        saved_order: what of it is saved. Written: writer. Read: job.
        states: texts that are not saved, by kind. Written: job puts, writer removes.
        item: the key that a loop which marks by itself has in hand. Written: job. Read: writer.
        hand: the keys that a loop which doesn't mark handed out. Written: job. Read: writer.
        given: keys that are not done, by the place that took them from such a loop, or asked for them. Written: job.
        giver: the place of each of them.
        kept: the result of a stage that runs once, as text, until it completes. Written: job.
        saved_hand: those that the store knows. Written and read: writer.
        taken: the numbers of `pending` and `failed` that the batch in hand has. Written and read: writer.
        outcome: what was said of the item in hand: `failed`, `done`, or nothing. Written: job.
        loop: the newest resumable loop here; only one that is tried again may follow. Written and read: job.
        again: whether the work of the handle is tried again, and may open its loop once more. Written and read: job.
        counted: whether `done` counts the units of the handle.
        recounted: whether what earlier attempts did is counted.
        automatic: whether a loop that marks its items is open.
        place: the thread and task of that loop.
        left_at: code, line and key where a loop was left, for telling `break` from an exception.
    """

    def __init__(
        self,
        path: str,
        node: HandleState,
        above: Scope | None = None,
        *,
        named: bool = False,
        item: str | None = None,
    ) -> None:
        """A scope of which nothing was read; `item` is the key above that it belongs to."""
        self.ran: set[str] = set()
        if above is not None:
            self.ran = above.inner_ran if item is None else above.item_ran.setdefault(item, set())
        self.inner_ran: set[str] = set() if named else self.ran
        self.item_ran: dict[str, set[str]] = {}
        self.path = path
        self.item_above: str | None = item if item is not None or above is None else above.item_above
        self.node = weakref.ref(node)
        self.above = above
        self.named = named
        self.unknown: tuple[str, ...] = ()
        self.own: Runs | None = None
        self.runs: dict[str, Runs] = {}
        self.item_runs: dict[str, dict[str, Runs]] = {}
        self.given: dict[Place, dict[str, None]] = {}
        self.giver: dict[str, Place] = {}
        self.kept: str | None = None
        self.loaded: Keys | None = None
        self.restored: Any = UNREAD
        self.seen: set[str] = set()
        self.marked: set[str] = set()
        self.pending: list[str] = []
        self.failed: list[str] = []
        self.order = self.saved_order = Order()
        self.states: dict[Kind, str] = {}
        self.item: str | None = None
        self.hand: dict[str, None] = {}
        self.saved_hand: tuple[str, ...] = ()
        self.outcome: str | None = None
        self.taken = (0, 0)
        self.loop: LastLoop | None = None
        self.again = self.counted = self.recounted = self.automatic = False
        self.place: Place | None = None
        self.left_at: tuple[CodeType, int, str] | None = None

    def behind(self) -> int:
        """The number of marks that are not saved."""
        return len(self.pending) + len(self.failed) + abs(self.order.position - self.saved_order.position)

    def clean(self) -> bool:
        """Whether the store knows all of it."""
        hand = () if self.item is None and not self.hand else self.saved_hand
        return not (self.behind() or self.states) and self.saved_hand == hand

    def give(self, key: str, place: Place) -> None:
        """A place took a key, or asked for it: until it is done, stages that the place opens belong to it."""
        self.take_back(key)
        self.given.setdefault(place, {})[key] = None
        self.giver[key] = place

    def take_back(self, key: str) -> None:
        """Nobody has this key any more."""
        place = self.giver.pop(key, None)
        if place is not None:
            mine = self.given.get(place, {})
            mine.pop(key, None)
            if not mine:
                self.given.pop(place, None)

    def item_of(self, place: Place) -> str | None:
        """The key that a stage opened at a place belongs to; None if to none, or if that is not known."""
        if self.item is not None:
            return self.item
        mine = self.given.get(place)
        return next(iter(mine)) if mine is not None and len(mine) == 1 else None

    def begin_again(self) -> None:
        """Its work begins again: stages inside it get what they kept in the same order."""
        self.runs.clear()
        self.item_runs.clear()
        self.item_ran.clear()
        self.given.clear()
        self.giver.clear()
        prefix = inside(self.path, None)
        for path in [one for one in self.inner_ran if one.startswith(prefix)]:
            self.inner_ran.discard(path)

    def doubtful(self) -> Scope | None:
        """The scope, this one or one around it, that a later attempt could not tell apart; None if all are clear."""
        one: Scope | None = self
        while one is not None and not one.named:
            if one.unknown or (one.own is not None and one.own.mixed):
                return one
            one = one.above
        return None

    def is_over(self) -> bool:
        """Whether it has ended, and the store knows all of it."""
        node = self.node()
        return (node is None or node._status.final) and self.clean()

    def take(self, batch: Batch) -> None:
        """Put what is not saved into a batch; it stays here until `saved`."""
        self.taken = len(self.pending), len(self.failed)
        if self.pending:
            batch.done[self.path] = [*batch.done.get(self.path, ()), *self.pending[: self.taken[0]]]
        if self.failed:
            batch.failed[self.path] = [*batch.failed.get(self.path, ()), *self.failed[: self.taken[1]]]
        order = self.order
        if order is not self.saved_order and order != self.saved_order:
            batch.states[self.path, ORDER] = order.text
        for kind, text in tuple(self.states.items()):
            batch.states[self.path, kind] = text
        item = self.item
        hand = tuple(islice(self.hand, IN_HAND)) if item is None else (item,)
        if hand != self.saved_hand:
            batch.hands[self.path] = hand

    def saved(self, batch: Batch) -> None:
        """Let go of what a batch had, as it is saved."""
        del self.pending[: self.taken[0]]
        del self.failed[: self.taken[1]]
        if (self.path, ORDER) in batch.states:
            self.saved_order = read(batch.states[self.path, ORDER])
        for kind, text in tuple(self.states.items()):
            if batch.states.get((self.path, kind)) is text:
                self.states.pop(kind, None)
        if self.path in batch.hands:
            self.saved_hand = tuple(batch.hands[self.path])


def part(name: str) -> str:
    """The name of a stage as a part of a path; names that could be mistaken for one are quoted."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name)


def as_part(key: str | int) -> str:
    """The key of a stage as a part of a path; a long one is shortened to a digest."""
    text = json.dumps(str(key))
    return text if len(text) <= PART else hashlib.sha256(text.encode()).hexdigest()


def inside(path: str, key: str | None) -> str:
    """The beginning of all paths inside a scope, or inside one of its items."""
    if key is not None:
        return f"{path}[{json.dumps(key)}]/"
    return f"{path}/" if path else ""


def as_key(given: object) -> str:
    """The text of a key.

    Raises:
        InvalidArgument: if it is not a text or a whole number, or is empty or too long.
    """
    number = None if isinstance(given, str) else whole(given)
    if number is not None:
        if abs(number) >= _MOST:
            raise InvalidArgument(f"a key has at most {KEY_LENGTH} digits: use a digest of it")
        return str(number)
    if not isinstance(given, str):
        raise InvalidArgument(
            f"a key is a text or a whole number, not {shown(given)}: make one, as in key=lambda item: str(item.id)"
        )
    key = str(given)
    if not key:
        raise InvalidArgument("a key must not be empty: two items with it could not be told apart")
    if len(key) > KEY_LENGTH:
        raise InvalidArgument(f"a key has at most {KEY_LENGTH} characters, not {len(key):,}: use a digest of it")
    if "\0" in key or not _encodes(key):
        raise InvalidArgument(f"a key must be text that UTF-8 can hold, without NUL, not {shown(key)}")
    return key


def _encodes(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(what: str, given: object, encode: Callable[[Any], str] | None = None) -> str:
    """A state or a result as JSON, or as the store's own `encode` makes it.

    Raises:
        CheckpointError: if it is not JSON, or too large.
    """
    try:
        text = (encode or _encode)(given)
        if encode is None:
            _check_keys(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{what} must be JSON (dict, list, str, int, float, bool, None): {error}; convert it, as in str(path)"
        ) from None
    size = len(text) if text.isascii() else len(text.encode())
    if size > STATE_BYTES:
        raise CheckpointError(
            f"{what} has {size:,} bytes, and at most {STATE_BYTES:,} are kept: save large data in a file of its "
            "own, and keep its name here"
        )
    return text


def _check_keys(given: object) -> None:
    """Refuse keys that JSON makes texts of: they would come back as others."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a dict would come back as a text")
            if isinstance(value, (dict, list, tuple)):
                _check_keys(value)
    elif isinstance(given, (list, tuple)):
        for value in given:
            if isinstance(value, (dict, list, tuple)):
                _check_keys(value)


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
