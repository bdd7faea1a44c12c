"""Whose scope is it: the stages of an operation, in the order in which a later attempt repeats them."""

from __future__ import annotations

import json
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otel_progress.durable.kept import (
    RESULT,
    STATE,
    Acquired,
    Keys,
    Kind,
)
from otel_progress.durable.saving import Saving
from otel_progress.durable.scope import UNREAD, Runs, Scope, as_part, as_text, inside, part
from otel_progress.durable.store import CheckpointStore
from otel_progress.durable.wording import SHOWN, mixed, one_of, twice
from otel_progress.errors import (
    CheckpointError,
    InvalidState,
)
from otel_progress.live.diagnosis.places import here
from otel_progress.model.stage_runs import DONE_BEFORE
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState, StageState

OWNERS: Final = 100_000
"""Calls of methods and closures that are compared with each other."""


class Stages(Saving):
    """Finds the scope of each stage, and keeps results of those that run once."""

    def __init__(self, operation: OperationState, store: CheckpointStore, acquired: Acquired, required: bool) -> None:
        """No stage has started."""
        super().__init__(operation, store, acquired, required)
        self._encode = getattr(store, "encode", None)
        self._decode = getattr(store, "decode", None) or json.loads
        self._inner: set[str] = set()
        self._owners: dict[str, Any] = {}

    def stage_started(self, stage: StageState) -> None:
        """A stage started. Its path is decided now, as a later attempt repeats the order of starts."""
        node = stage._parent
        outer: Scope = stage.operation._scope if node is None or node._scope is None else node._scope
        place = here()
        apart = stage._arguments or ("" if stage._opts.key is None else f"({as_part(stage._opts.key)})")
        with self._lock:
            doubtful = outer.doubtful() if apart else None
            while doubtful is not None:  # what its arguments tell apart needs no order
                outer = doubtful.above or outer
                doubtful = outer.doubtful()
            key = outer.item_of(place)
            base = f"{inside(outer.path, key)}{part(stage.name)}{apart}"
            stage._scope = scope = Scope(base, stage, outer, named=bool(apart), item=key)
            self._asked = self._asked or stage._opts.once
            if key is not None:
                self._inner.add(inside(outer.path, key))
            if apart:
                return
            if key is None and outer.giver:
                scope.unknown = tuple(islice(outer.giver, SHOWN))
            runs = outer.runs if key is None else outer.item_runs.setdefault(key, {})
            scope.own = mine = runs.setdefault(base, Runs())
            side_by_side = mine.open is not None and mine.open._status is Status.RUNNING
            if side_by_side or (mine.completed and mine.place != place):
                mine.mixed = True
            mine.open, mine.place = stage, place
            if mine.completed and not stage._opts.once:
                scope.path = f"{base}~{mine.completed + 1}"

    def _stage_ended(self, stage: StageState, status: Status) -> None:
        scope: Scope | None = stage._scope
        if scope is None:
            return
        with self._lock:
            if scope.own is not None and scope.own.open is stage:
                scope.own.open = None
                scope.own.completed += status is Status.COMPLETED
        if stage._opts.once and status is Status.COMPLETED:
            self._keep(stage, scope)
        if scope.path in self._used:
            scope.item = None
            if not self._worker_lost:
                scope.hand.clear()
            self.flush()
        elif scope.item_above is None and self._is_behind():
            self.flush()  # what the job said of the operation; of a stage of an item, it is not worth a write

    def _keep(self, stage: StageState, scope: Scope) -> None:
        """Keep the result of a stage that ran once: now that it completed, and not before."""
        if self.restored(stage) is None or scope.kept is not None:
            text = scope.kept or as_text("the result of a stage", {}, self._encode)
            with self._lock:
                scope.states[RESULT] = text
                using = self._used.setdefault(scope.path, [])
                if scope not in using:
                    using.append(scope)
        if not scope.named:
            scope.ran.add(scope.path)

    def _refuse(self, node: HandleState, scope: Scope) -> None:
        """Refuse what a later attempt could not tell apart from others.

        Raises:
            InvalidState: if it could not.
        """
        one = scope.doubtful()
        if one is not None:
            found = one.node()
            name = node.name if found is None else found.name
            raise InvalidState(one_of(name, one.unknown) if one.unknown else mixed(name))
        if node._opts.once and not scope.named and scope.path in scope.ran and not node._status.final:
            raise InvalidState(twice(node.name))

    def _use(self, node: HandleState, *, reads: bool = False) -> Scope:
        """The scope of a handle, with its keys read; one that only reads may do so after the end.

        Raises:
            CheckpointError: if it can't be told apart from another, or read; or if this session can't save.
        """
        if not reads or self._ended is None or self._lost:
            self.check()
        self._asked = True
        scope: Scope | None = node._scope
        if scope is None:
            raise CheckpointError(f"{node._kind} {node.name!r} has not started, so nothing of it can be saved")
        if scope.above is not None:
            self._refuse(node, scope)
        if scope.loaded is not None:
            return scope
        with self._lock:
            is_saved = all(one.clean() for one in self._used.get(scope.path, ()))
        if not is_saved:
            self._settle()  # without the lock, which the writer needs
        found = self._read(lambda: self._store.keys(self._lease.id, scope.path)) or Keys()
        with self._lock:
            if scope.loaded is None:
                scope.loaded = found
                self._used.setdefault(scope.path, []).append(scope)
        return scope

    def called(self, node: HandleState, owner: object) -> None:
        """A function that runs once is called as a stage, of this object or with this closure.

        Raises:
            InvalidState: if another object's call in this attempt has the same name and arguments.
        """
        scope: Scope | None = node._scope
        if scope is None:
            return
        try:
            mine: Any = weakref.ref(owner)
        except TypeError:
            return  # of a class with slots
        known = self._owners.get(scope.path)
        if known is None and len(self._owners) < OWNERS:
            known = self._owners.setdefault(scope.path, mine)
        if known is not None and known() is not owner:
            raise InvalidState(
                f"stage {node.name!r} runs once for each set of arguments, and was called with the same ones for two "
                "objects, so one would get the result of the other: make what tells them apart an argument"
            )

    def restored(self, node: HandleState) -> dict[str, Any] | None:
        """The state that an earlier attempt left; of a stage that runs once, the result of its completed run."""
        scope = self._use(node, reads=True)
        if scope.restored is UNREAD:
            kind: Kind = RESULT if node._opts.once else STATE
            text = self._read(lambda: self._store.state(self._lease.id, scope.path, kind))
            scope.restored = None if text is None else self._decode(text)
            if node._opts.once and text is not None and node._message is None and self._ended is None:
                node.update(message=DONE_BEFORE)  # type: ignore[attr-defined] # it looks like work that took no time
        found: dict[str, Any] | None = scope.restored
        return found

    def tries_again(self, node: HandleState) -> None:
        """The work of a handle begins again: its loop goes on, and stages inside have the keys they had before."""
        scope: Scope | None = node._scope
        if scope is None:
            return
        with self._lock:
            scope.again = scope.loaded is not None
            scope.begin_again()

    def close_item(self, scope: Scope, key: str) -> None:
        """An item is done, so what stages inside it kept is no longer needed."""
        with self._lock:
            scope.item_runs.pop(key, None)
            scope.item_ran.pop(key, None)
        prefix = inside(scope.path, key)
        if prefix in self._inner:
            self._inner.discard(prefix)
            self._closed.append(prefix)
