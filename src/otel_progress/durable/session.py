"""One attempt of a resumable operation: what its job says, and what it is told."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.durable import loops, order
from otel_progress.durable.again import may_begin
from otel_progress.durable.kept import (
    LOST,
    ORDER,
    POISON,
    RUNNING,
    STATE,
    Acquired,
    Keys,
    is_worker_lost,
)
from otel_progress.durable.loop import HALF, blame
from otel_progress.durable.scope import KEYS, UNREAD, Scope, as_key, as_text, inside
from otel_progress.durable.stages import Stages
from otel_progress.durable.store import CheckpointStore
from otel_progress.durable.wording import SHOWN, all_at_once, how_it_ended
from otel_progress.errors import (
    CheckpointError,
    InvalidState,
    LeaseLost,
)
from otel_progress.live import hooks, misuse
from otel_progress.live.counting import count_anew, restore
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import say
from otel_progress.live.reporting import tell_agent
from otel_progress.model.stage_runs import DONE_BEFORE
from otel_progress.model.status import Status
from otel_progress.model.units import plural, units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_progress.live.lane import Lane
    from otel_progress.live.records import LoopOptions
    from otel_progress.live.state import HandleState, OperationState

CAREFUL: Final = 1000
"""Items after a death before each of which its key is written, so that one that kills again is known."""


class Session(Stages):
    """What a running operation saves, and what it found.

    Attributes:
        careful: before how many items the key in hand is written, as the attempt before died. Written: job.
    """

    def __init__(self, operation: OperationState, store: CheckpointStore, acquired: Acquired, required: bool) -> None:
        """A session that holds the lease."""
        super().__init__(operation, store, acquired, required)
        self.careful = 0
        self._mismatch: str = operation._opts.resume.mismatch  # type: ignore[union-attr] # it is resumable
        self._handed = False
        operation._scope = Scope("", operation)
        self.restored(operation)
        self._asked = False

    def started(self) -> None:
        """The operation started, with its span: begin to write, and say what was found."""
        ids = hooks.tracing.ids(self._operation)
        if ids is not None:
            self._span = ids.trace_id, ids.span_id
        self._writer.add(self)
        if self.before is not None and self.before.status in (RUNNING, LOST):
            self.careful = CAREFUL
        if self.before is not None:
            far = self.before.summary
            done, some = self._marks(far.stage)
            self._stored = done or (far.completed if some else None)
            self._to_tell = self.before, how_it_ended(self.before)
            tell_agent(self._operation, semconv.GEN_AI_RESUMED)
            if not done:
                self.goes_on()

    def ended(self, node: HandleState, status: Status, reason: str | None, error: BaseException | None) -> None:
        """A handle ended.

        Raises:
            CheckpointError: if the last marks of a completed operation could not be saved.
            LeaseLost: if that is because another process took over.
        """
        scope: Scope | None = node._scope
        if scope is not None and error is not None and status is Status.FAILED:
            blame(scope, error)
        if is_worker_lost(error):
            self._worker_lost = True
        if node is not self._operation:
            self._stage_ended(node, status)  # type: ignore[arg-type] # the other kind of handle
            return
        self._worker_lost = self._worker_lost and status is Status.FAILED
        if not self._lost:
            self._write_end(status, reason)
        if isinstance(self.error, LeaseLost) and status is Status.COMPLETED and self._required:
            raise self.error

    def checkpoint(self, node: HandleState, state: dict[str, Any]) -> None:
        """Save a state with the next write; it replaces the one before."""
        scope = self._use(node)
        if node._opts.once:
            raise InvalidState(
                f"stage {node.name!r} runs once and keeps its result alone: use result(...), or leave out once=True"
            )
        text = as_text("the state of a checkpoint", state, self._encode)
        if scope.restored is UNREAD:
            self.restored(node)
        scope.states[STATE] = text

    def result(self, node: HandleState, results: dict[str, Any]) -> None:
        """Keep results of a stage that runs once; more of them are added."""
        if not node._opts.once:
            return
        scope = self._use(node)
        known = {} if scope.kept is None else self._decode(scope.kept)
        scope.kept = as_text("the result of a stage", {**known, **results}, self._encode)
        if node._message == DONE_BEFORE:
            node._message = None  # it ran all the same

    def done(self, node: HandleState, key: object) -> None:
        """Mark a key as done."""
        text = as_key(key)
        scope = self._use(node)
        if scope.automatic and scope.item == text:
            scope.outcome = scope.outcome or "done"
            return
        if self._knows(scope, text):
            return
        scope.counted = True
        if self._handed and scope.loop is None:
            self._look_elsewhere(node, text)
        self._count_restored(scope)
        if len(scope.marked) >= KEYS:
            raise CheckpointError(f"a stage keeps at most {KEYS:,} keys: keep an offset, as in checkpoint(offset=...)")
        scope.marked.add(text)
        scope.hand.pop(text, None)
        scope.pending.append(text)
        self._let_go(scope, text)
        if self.careful or (scope.loaded is not None and text in scope.loaded.suspects):
            self._settle()  # what came through a death is no suspect any more
        node.advance(1)  # type: ignore[attr-defined]
        if len(scope.pending) >= HALF:
            self.press(scope)

    def is_done(self, node: HandleState, key: object) -> bool:
        """Whether a key is done, in this attempt or an earlier one."""
        text = as_key(key)
        scope = self._use(node, reads=True)
        if not scope.recounted and self._ended is None:
            self._count_restored(scope)
        if self._knows(scope, text):
            return True
        if not scope.automatic and self._ended is None:
            with self._lock:
                scope.give(text, here())
        return text in scope.seen and text != scope.item

    def _let_go(self, scope: Scope, key: str) -> None:
        """An item that the job marks itself is done or failed."""
        with self._lock:
            scope.take_back(key)
        if key in scope.item_runs or inside(scope.path, key) in self._inner:
            self.close_item(scope, key)

    @staticmethod
    def _knows(scope: Scope, key: str) -> bool:
        loaded: Keys = scope.loaded  # type: ignore[assignment]
        return key in loaded.done or key in scope.marked

    def _count_restored(self, scope: Scope) -> None:
        """Count the keys of earlier attempts as completed, once, as the code goes by `is_done` and `done`."""
        loaded, node = scope.loaded, scope.node()
        if not scope.recounted and scope.loop is None and loaded is not None and node is not None:
            scope.recounted = True
            units = len(loaded.done)
            restore(node, units if node._total is None else min(units, node._total))
            self.goes_on()

    def recorded(self, node: HandleState, outcome: str, item: object) -> None:
        """An item was recorded: one that failed is not marked as done."""
        if outcome != "failed":
            return
        key = str(item) if isinstance(item, (str, int)) else None
        above: HandleState | None = node
        while above is not None:
            scope: Scope | None = above._scope
            if scope is not None and scope.loaded is not None:
                if scope.item is not None and (key == scope.item or scope.place == here()):
                    scope.outcome = "failed"
                    return
                if key is not None and (key in scope.hand or key in scope.giver):
                    scope.hand.pop(key, None)
                    scope.failed.append(key)
                    with self._lock:
                        scope.take_back(key)
                    return
            above = None if above is self._operation else above._parent

    def loop(self, node: HandleState, items: Any, options: LoopOptions, lane: Lane | None) -> Any:
        """The items of a loop that are not done; each is marked when the next one is taken, if that is asked for.

        Raises:
            InvalidState: if a second loop is opened in a handle, and is not one that is tried again.
        """
        scope = self._use(node)
        mixed = options.mark and scope.counted and node._advanced != len(scope.marked)
        if not may_begin(scope, options, mixed) or self._runs_twice(scope):
            raise InvalidState(
                f"{node._kind} {node.name!r} has keys already, of another loop or by done(), which can't be told apart "
                "from those of this loop: give each loop a stage of its own; code that is tried again, too"
            )
        repeated, scope.again = scope.loop is not None and not scope.again, False
        if not options.mark:
            if node._total is None and lane is not None:
                node._total = lane.total
            scope.counted = True
            node._counts_itself = True  # by done(), not by what a pool has taken
        elif scope.counted and scope.loop is None:
            count_anew(node)  # the loop leaves out what was marked before it, and counts that
        if scope.loop is None:
            if options.key is None:
                self._goes_on(scope, items)
            else:
                self._look_for_position(scope, node)
        found = loops.opened(self, scope, items, options, lane)
        if repeated:
            done = scope.order.position if options.key is None else len(scope.marked)
            node.note(f"the loop begins again: {units(done, None, 'item')} {'is' if done == 1 else 'are'} done")  # type: ignore[attr-defined]
        return found

    def _runs_twice(self, scope: Scope) -> bool:
        """Whether a loop of the same stage with the same key runs at the same time."""
        with self._lock:
            using = [one for one in self._used.get(scope.path, ()) if one.loop is not None and one is not scope]
        return any(node is not None and not node._status.final for node in (one.node() for one in using))

    def _look_elsewhere(self, node: HandleState, key: str) -> None:
        """Say it if a loop of another handle has handed out a key that is marked here."""
        with self._lock:
            found = [one for scopes in self._used.values() for one in scopes if key in one.hand]
        for other in (one.node() for one in found):
            if other is not None and other is not node:
                misuse.warn_of(
                    "done",
                    f"{node.name}/{other.name}",
                    "%s %r marks %s as done, which a loop of %s %r has handed out, and which stays in hand there: call "
                    "done(key) of the handle whose loop it is",
                    *(node._kind, node.name, key, other._kind, other.name),
                )

    def give(self, scope: Scope, key: str) -> None:
        """A loop that does not mark hands a key to the place that takes it."""
        self._handed = True
        with self._lock:
            scope.give(key, here())

    def collected(self, node: HandleState) -> None:
        """All items of a loop that marks are taken at once, by a comprehension or `list`: their work may follow.

        Raises:
            InvalidState: in a task, where it does: nothing is awaited in between.
        """
        if here().task is not None:
            raise InvalidState(all_at_once(node.name))
        misuse.warn_of("collected", f"{self.id}/{node.name}", "%s", all_at_once(node.name))

    def _look_for_position(self, scope: Scope, node: HandleState) -> None:
        """Say it if a loop by key went by position before: its items are taken again."""
        if self.before is None or (scope.loaded is not None and scope.loaded.done):
            return
        found = order.read(self._read(lambda: self._store.state(self._lease.id, scope.path, ORDER)))
        if found.position:
            self._come_again(node, "position", "key", found.position)

    @staticmethod
    def _come_again(node: Any, before: str, now: str, items: int) -> None:
        """Say that items which are done can't be told in this loop."""
        done = f"{items:,} done {plural('item', items)}"
        text = f"the loop went by {before} before, and goes by {now} now: {done} come again"
        node.note(text, "warning")
        say("%s %r: %s", node._kind, node.name, text)

    def _goes_on(self, scope: Scope, items: Any) -> None:
        """Read how far a loop by position is."""
        found = order.read(self._read(lambda: self._store.state(self._lease.id, scope.path, ORDER)))
        scope.order = scope.saved_order = found
        if not found.position and scope.loaded is not None and scope.loaded.done:
            self._come_again(scope.node(), "key", "position", len(scope.loaded.done))
        if self._mismatch == "keep":
            scope.order = scope.saved_order = found._replace(digest=None)
        elif self._mismatch == "restart" and isinstance(items, Collection):
            if len(items) < found.position or order.of(islice(items, found.position)) != found.digest:
                scope.order = order.Order()

    def hand_over(self) -> None:
        """Write before an item is handed out that may have killed the attempt before; called while `careful`."""
        self.careful = max(0, self.careful - 1)
        self._settle()

    def worst(self, scope: Scope) -> frozenset[str]:
        """The keys that were in hand at more deaths than any other, if those are too many for chance."""
        found = self._read(lambda: self._store.suspects(self.id)) or ()
        deaths = {one.key: one.deaths for one in found if one.scope == scope.path and not one.aside}
        most = max(deaths.values(), default=0)
        keys = frozenset(key for key, times in deaths.items() if times == most)
        return keys if most > POISON else frozenset()

    def withhold(self, node: Any, keys: Sequence[str]) -> None:
        """Leave keys for the next attempt, as one of those in hand ends the process; this one does not complete."""
        self._withheld += keys
        node.note(
            f"left for the next attempt, as one of them may end the process: {', '.join(keys[:SHOWN])}", "warning"
        )
