"""The ticker: the one thread that samples counts, judges operations, and turns changes into events.

A round takes the changes reported since the last one; every third round also samples the counts of all operations.
That leaves the last quarter of an interval for sending, so that each change of state has left within the interval.
"""

from __future__ import annotations

import functools
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from otel_progress import clock, semconv
from otel_progress.live import hooks, misuse, short_waits, standstill
from otel_progress.live.branches import DEPTH, paused_since, touch_lanes
from otel_progress.live.diagnosis import movement
from otel_progress.live.engine import items, keyframes, labels, learning, outlines, process, resources, watchdog
from otel_progress.live.engine.branch_verdicts import examine, kept
from otel_progress.live.engine.budget import Budget, may_send_stage, safely
from otel_progress.live.engine.cadence import cadence
from otel_progress.live.engine.capture import capture
from otel_progress.live.engine.checks import may_be_released, may_loop, next_check, postponed
from otel_progress.live.engine.estimates import (
    ESTIMATE_ENDS,
    by_pace,
    estimated,
    has_ended,
    is_as_told,
    next_end,
    of_now,
    shown,
    still_holds,
)
from otel_progress.live.engine.loops import loops_of
from otel_progress.live.engine.sampling import counts_alone, only_counts, quiet
from otel_progress.live.engine.sampling import sample as look_at
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import NEVER, registry
from otel_progress.live.running import around, host_of, innermost, parent_of
from otel_progress.live.state import Change
from otel_progress.live.trail import follow, keep
from otel_progress.model.curve import Curve
from otel_progress.model.earlier import earlier
from otel_progress.model.event_waits import ABOUT_WAITS, with_its_wait
from otel_progress.model.health import NOT_MOVING, Verdict, judge
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import EMPTY, Attributes

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState

ROUNDS: Final = 4
"""Rounds in an interval."""
SAMPLE_EVERY: Final = 3
"""Rounds from one sample of all counts to the next."""
SOON: Final = 10.0
"""Operations that may reach a limit within this many seconds, or may loop, are sampled in each round."""
SOON_MOST: Final = 500
"""The most operations that are sampled in each round."""
CHECKS: Final = 50
"""Operations in one sample whose estimates are looked at between two updates."""
STALLS: Final = 500
"""Operations reported as stuck in one round; further ones follow in the next rounds."""
KEYFRAMES: Final = 50
"""Keyframes in one round that do not wait for the budget, as the operation is stuck, looping or waiting."""
PORTION: Final = 20
"""Changes that are emitted between two looks at `emit_until`."""
BACKLOG: Final = 8_000
"""Changes in the last round from which on an ended operation sends no stage events, only its end."""
WAKES: Final = 0.02
"""Seconds between two requested rounds, at least."""
ENDED: Final = 500
"""Newly ended operations that the next sample checks for calls of `advance` after their end."""
START_SECONDS: Final = 5.0
"""The longest wait for the thread to start."""
FOREVER: Final = float("inf")


class Ticker:
    """Watches all operations; `round` does so once, the thread again and again."""

    def __init__(self, interval: float = 1.0, budget: float = 200.0) -> None:
        """Send changes of state within `interval` (s), and at most `budget` rationed events a second."""
        self.interval = interval
        self.budget = Budget(budget)
        self.keyframe_interval = keyframes.INTERVAL
        """Seconds between two keyframes of an operation, at the most."""
        self._rounds = 0
        self._is_heard_here = self._all_live = True
        self._looked_at = FOREVER
        self._items_at = -FOREVER
        self._stalls = self._keyframes = self._checks = 0
        self._soon: list[weakref.ref[OperationState]] = []
        self._ended: deque[weakref.ref[OperationState]] = deque(maxlen=ENDED)
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.hurries = False
        """Whether the process ends, so that the most important events go first."""
        self.emit_until = FOREVER
        """When a round stops emitting (s, monotonic); changes that are left stay in the registry."""
        self._woken = False
        self._wake_at = 0.0
        self._snapshots: dict[OperationState, Snapshot] = {}

    # -- the thread

    def start(self) -> None:
        """Start the thread if it does not run."""
        if self._thread is None:
            if type(self._asked) is not queue.SimpleQueue:
                self._asked = queue.SimpleQueue()  # gevent has replaced the class
            self._thread = thread = threading.Thread(target=self._begin, name="otel-progress-ticker", daemon=True)
            started: threading.Event = thread._started  # type: ignore[attr-defined]
            with suppress(AttributeError):  # gevent's own event allows no other `wait`
                # Python waits for ever for a thread that got no memory.
                started.wait = functools.partial(started.wait, START_SECONDS)  # type: ignore[method-assign]
            thread.start()
            if not started.is_set():
                self._thread = None  # the next start tries again

    def _begin(self) -> None:
        if self._thread is threading.current_thread():
            self._run()

    @property
    def resting(self) -> bool:
        """Whether no thread was started yet."""
        return self._thread is None

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Request a round now; this takes no lock and never blocks."""
        if not self._woken and self._thread is not None:
            self._woken = True
            self._asked.put(self._look_now)

    def _look_now(self) -> None:
        pause = self._wake_at - clock.monotonic()
        if pause > 0:  # many operations that end share a round
            threading.Event().wait(pause)
        self._woken = False
        self.round()
        self._wake_at = clock.monotonic() + WAKES

    def stop(self) -> None:
        """Let the thread end; may be called twice."""
        self._asked.put(None)

    def park(self) -> Callable[[], None]:
        """Stop the thread between two rounds until the returned function is called."""
        parked, release = threading.Event(), threading.Event()
        if self._thread is None or not self._thread.is_alive() or self._thread is threading.current_thread():
            return release.set

        def stand_still() -> None:
            parked.set()
            release.wait()

        self._asked.put(stand_still)
        while not parked.wait(0.05) and self._thread.is_alive():
            pass
        return release.set

    def _run(self) -> None:
        try:
            while True:
                try:
                    task = self._asked.get(timeout=self.interval / ROUNDS)
                except queue.Empty:
                    self.round()
                    continue
                if task is None:
                    return
                task()
        finally:
            registry.next_look = NEVER

    def ask(self, task: Callable[[], None], timeout: float) -> bool:
        """Have the thread run a task next, and wait for it; without a thread it runs here.

        Takes no lock, so a signal handler may call it.
        """
        if self._thread is None or not self._thread.is_alive() or self._thread is threading.current_thread():
            task()
            return True
        done = threading.Event()

        def run() -> None:
            try:
                task()
            except Exception:
                tell_once("a task of the ticker failed")
            finally:
                done.set()

        self._asked.put(run)
        return done.wait(timeout)

    # -- one round

    def round(self, *, sample: bool = False) -> None:
        """Run one round; `sample` samples all counts even if it is not their turn."""
        with process.parking:
            self._round(sample)

    def _round(self, sample: bool) -> None:
        self._rounds += 1
        self._stalls = self._keyframes = self._checks = 0
        now = clock.monotonic()
        self._is_heard_here, self._all_live = bool(hooks.sinks), now < cadence.live_until
        self._snapshots.clear()
        try:
            self._notice_sleep(now)
            registry.end_dropped()
            if registry.pending:
                self._look_at_pending(now)
            self.budget.begin_round(now)
            if hooks.watcher is not None:
                safely(hooks.watcher.look, now)
            self._take_changes(now)
            if self._late():
                pass  # the next round samples
            elif sample or self._rounds % SAMPLE_EVERY == 0:
                self._sample_all(now)
            else:
                self._sample(self._soon_due(), now)
            self.budget.pay(self._rounds, self._emit, self._update)
            self.budget.end_round(now)
            if now - self._items_at >= self.interval / (ROUNDS + 1):  # a requested round may come sooner
                self._items_at = now
                items.look_at_all(self._rounds)
        except Exception:
            tell_once("a round of the ticker failed; the job goes on")
        for call in tuple(hooks.on_tick):
            safely(call, now)
        safely(learning.learning.on_tick, now)
        safely(resources.sampler.on_tick, now)
        self._snapshots.clear()

    def _notice_sleep(self, now: float) -> None:
        """Subtract the time in which this thread could not run (stopped, frozen, no GIL) from all idle times."""
        self._looked_at = now
        slept = standstill.looked(now, self.interval / ROUNDS, self.interval)
        if not slept:
            return
        for operation in registry.operations():
            operation._check_at = 0.0
            for node in (operation, *(operation._running or ())):
                for lane in tuple(node._lanes or ()):
                    lane.moved_at = min(now, lane.moved_at + slept)
                if paused_since(node, now) is not None:
                    continue  # its wait leaves that time out
                if node._started is not None:
                    node._moved_at = min(now, max(node._moved_at, node._started) + slept)
                _leave_out(node, now - slept, now)
        for change in registry.changes.copy():
            if change[0] in _ENDS and change[2]._ended is not None:  # it ended after that, before this look
                _leave_out(change[2], now - slept, change[2]._ended)

    def _take_changes(self, now: float) -> None:
        """Tell what changed; a change stays in the registry until it is told, as the process may end before that."""
        changes = registry.changes
        waiting = len(changes)
        folds = self.hurries and waiting > BACKLOG
        ended = {change[1] for change in changes.copy() if change[0] == semconv.OPERATION_ENDED} if folds else set()
        while waiting > 0 and not self._late():
            portion = [changes[place] for place in range(min(PORTION, waiting, len(changes)))]
            if not portion:
                return  # nobody wants them any more
            waiting -= len(portion)
            for see in tuple(hooks.on_change):
                for change in portion:
                    safely(see, change)
            for change in portion:
                if change[0] in _STAGE and change[1] in ended:
                    drops.add(semconv.DROP_FOLDED)
                    safely(_note_stage, change[0], change[1], change[2], now)
                else:
                    safely(self._tell, change, now)
                with suppress(IndexError):
                    changes.popleft()

    def _late(self) -> bool:
        """Whether there is no time left to emit."""
        return clock.monotonic() >= self.emit_until

    def _tell(self, change: Change, now: float) -> None:
        """Send the event of a change: at once if it changes state, else when the budget allows."""
        event, operation, node, when, attributes = change
        if operation._end_sent:
            return
        if event in semconv.RATIONED:
            self.budget.queue(change, self._rounds)
            return
        operation._check_at = 0.0  # another limit may apply from here on
        if event == semconv.OPERATION_STARTED:
            outlines.begun(operation)
            resources.sampler.begun(operation, now)
        if event in _ENDS:
            safely(items.tell_ends, operation)
        if event == semconv.OPERATION_ENDED:
            resources.sampler.ended(operation, now)
            self.budget.pay_all(operation, self._emit)
            closed = watchdog.closed(operation)
            if closed is not None:
                self._emit(semconv.RECOVERED, operation, operation, when, closed)
            operation._end_sent = True
            self._ended.append(weakref.ref(operation))
            learning.learning.ended(operation, operation)
            outlines.ended(operation)
            self._wait_with_parents(operation)
        elif event in _STAGE:
            _note_stage(event, operation, node, now)
            self._wait_with_parents(operation)
        if event in _STAGE and not may_send_stage(operation, now):
            drops.add(semconv.DROP_FOLDED)
            self._hurry(operation)
            return
        self._emit(event, operation, node, when, attributes)

    # -- sampling

    def _sample_all(self, now: float) -> None:
        self._check_ended()
        operations = registry.operations()
        self._sample(operations, now)
        soon = now + SOON
        found = (operation for operation in operations if operation._check_at < soon or may_loop(operation))
        self._soon = [weakref.ref(operation) for operation in islice(found, SOON_MOST)]

    def _check_ended(self) -> None:
        """Warn about units counted since the last sample in operations that had ended."""
        while self._ended:
            operation = self._ended.popleft()()
            if operation is not None and operation._advanced is not operation._final_advanced:
                misuse.advanced_late(operation)

    def _soon_due(self) -> list[OperationState]:
        """Operations that may reach a limit before the next sample of all, or may loop."""
        return [operation for ref in self._soon if (operation := ref()) is not None]

    def _sample(self, operations: list[OperationState], now: float) -> None:
        waiting, number, skipped = self.budget.waiting, self._rounds, 0
        here, all_live = self._is_heard_here, self._all_live
        for operation in operations:
            try:
                moved = counts_alone(operation, now) if now < operation._counts_until else None
                if moved is None:
                    skipped += self._look(operation, now)
                elif (moved and here) or (
                    operation._has_news and (all_live or now >= operation._update_at or now < operation._live_until)
                ):
                    skipped += waiting.setdefault(operation, number) != number and moved
            except Exception:
                tell_once("an operation could not be sampled; the others are")
        if skipped:
            drops.add(semconv.DROP_BUDGET, skipped)

    def _look(self, operation: OperationState, now: float) -> bool:
        """Look at all of an operation; returns whether its last update still waited for the budget."""
        skipped = False
        moved = look_at(operation, now)
        if operation._curve is not None:
            _draw(operation, operation._curve, now, moved)
        news = moved or operation._revision != operation._sent_revision
        if news or (operation._has_labels and labels.news(operation)):
            self._wait_with_parents(operation)
            news = operation._has_news = True
        if (news and self._is_heard_here) or (
            operation._has_news and (self._all_live or now >= operation._update_at or now < operation._live_until)
        ):
            skipped = self.budget.waiting.setdefault(operation, self._rounds) != self._rounds and moved
        elif now >= operation._estimate_ends and not (moved and operation._by_pace and only_counts(operation)):
            self._look_at_estimates(operation, now)  # by its pace alone none ends while units come
        if now >= operation._keyframe_at:
            self._repeat(operation)
        if operation._pauses:
            self._tell_overdue(operation, now)
        due = now >= operation._check_at
        if not due and now >= operation._check_at - movement.BEFORE:
            movement.glance(now)
        if operation._loops is not None:
            due = watchdog.look(operation, now) or due
        health = operation._health
        if operation._stuck_branches and health is Health.PROGRESSING:
            due = True  # what was stuck is over, and has to stay so for a while
        elif health is not Health.PROGRESSING:
            due = due or moved or (health in NOT_MOVING and may_be_released(operation))
        if due and self._stalls < STALLS and not postponed(operation, now):
            self._judge(operation, now)
        quiet(operation)
        return skipped

    def _repeat(self, operation: OperationState) -> None:
        """Send a keyframe, as the last one is old; of what is stuck, loops or waits whatever the budget says."""
        if operation._health is not Health.PROGRESSING and self._keyframes < KEYFRAMES:
            self._keyframes += 1
            operation._hurries = True
            self._update(operation)
        else:
            self._hurry(operation)

    def _hurry(self, operation: OperationState) -> None:
        """Have an update sent that does not wait for the cadence, only for the budget."""
        operation._hurries = True
        self.budget.waiting.setdefault(operation, self._rounds)

    def _is_due(self, operation: OperationState) -> bool:
        """Whether a plain update of an operation may leave the process now."""
        now = self._looked_at
        lives = self._all_live or now < operation._live_until
        return lives or operation._hurries or now >= operation._update_at

    def _look_at_estimates(self, operation: OperationState, now: float) -> None:
        """An estimate of an operation may have ended: if it has, an update says so, whatever the cadence."""
        if self._is_heard_here or self._is_due(operation):
            self._tell_estimates(operation, now)
        elif not operation._estimated:  # there is one now: the next update tells it
            operation._has_news, operation._estimate_ends = True, FOREVER
        elif (again := still_holds(operation, now, max(ESTIMATE_ENDS, operation._update_at - now))) is not None:
            operation._estimate_ends = again
        elif self._checks < CHECKS:
            self._checks += 1
            seen = of_now(operation, now)
            if has_ended(operation._estimated, seen):
                self._hurry(operation)
            else:
                operation._estimate_ends = next_end(
                    operation, seen, now, max(ESTIMATE_ENDS, operation._update_at - now)
                )

    def _tell_estimates(self, operation: OperationState, now: float) -> None:
        """Send an update of estimates that readers would not see as they are; nothing else has changed."""
        if self._checks >= CHECKS:
            return
        self._checks += 1
        seen, pause = of_now(operation, now), operation._update_pause
        if is_as_told(operation._estimated, now - operation._estimated_at, pause or None, seen):
            check = ESTIMATE_ENDS if self._is_heard_here else max(ESTIMATE_ENDS, pause)
            operation._estimate_ends = next_end(operation, seen, now, check)
        else:
            self.budget.waiting.setdefault(operation, self._rounds)

    def _tell_overdue(self, operation: OperationState, now: float) -> None:
        """Report each declared wait once that is past its limit, and the start of a folded one that lasts."""
        if operation._status is not Status.RUNNING:
            return
        for wait, node in tuple((operation._pauses or {}).items()):
            if short_waits.is_told_now(wait, operation, now):
                self._change(semconv.WAIT_STARTED, operation, node, Attributes({semconv.WAIT_REASON: wait.reason}))
            if not wait.told_overdue and now >= wait.due and self._stalls < STALLS:
                wait.told_overdue = True
                self._stalls += 1
                self._change(semconv.WAIT_OVERDUE, operation, node, watchdog.overdue(wait, now))

    def _wait_with_parents(self, operation: OperationState) -> None:
        """The operations around one that moved or ended have an update to send, too: it is part of their progress."""
        if operation._parent is None and operation._opts.parent is None:
            return
        parent = parent_of(operation) if host_of(operation) is not None else None
        depth = 0
        while parent is not None and depth < DEPTH and not parent._status.final:
            parent._has_news = True
            if self._is_heard_here or self._is_due(parent):
                self.budget.waiting.setdefault(parent, self._rounds)
            parent, depth = parent_of(parent) if host_of(parent) is not None else None, depth + 1

    def _judge(self, operation: OperationState, now: float) -> None:
        """Judge an operation; report each branch that gets stuck, and each other change of the verdict, once."""
        if operation._status is not Status.RUNNING:
            return
        before, overdue = operation._health, operation._overdue
        told = (
            operation in self._snapshots and not operation._stuck_branches
        )  # an event of this round has the verdict already
        if not told:
            self._snapshots.pop(operation, None)
        moved_at = watchdog.release(operation, now)
        snapshot = self._snapshot(operation)
        verdict = judge(snapshot, snapshot.timestamp)
        found = examine(operation, now)
        operation._worst = kept(found[0])
        operation._health, operation._overdue = verdict.health, verdict.overdue
        operation._check_at = next_check(operation, found, verdict.health, now)
        stuck_branches = operation._stuck_branches or {}
        fresh = [one for one in found if one.verdict.health in NOT_MOVING and one.live.key not in stuck_branches]
        renamed = watchdog.renamed(operation, found, now)
        changed = verdict.health is not before or verdict.overdue is not overdue
        if changed:
            self._tell_parent(operation)
        if (verdict.health in NOT_MOVING) is not (before in NOT_MOVING) or verdict.overdue is not overdue:
            for tell in hooks.on_trouble:
                safely(tell, operation)
        if fresh:
            self._stalls += 1
            self._change(semconv.STALLED, operation, fresh[0].live.node, watchdog.stalled(operation, fresh, now))
            if operation._opts.cancels:
                watchdog.ask_to_stop(operation, verdict.reason or verdict.health.value)
        elif operation._stalled_at is not None and not stuck_branches:
            self._change(semconv.RECOVERED, operation, found[0].live.node, watchdog.recovered(operation, moved_at, now))
        elif verdict.health is Health.SLOW and not operation._slow_reported:
            operation._slow_reported = True
            self._change(semconv.SLOW, operation, found[0].live.node, _because(verdict))
        elif renamed or moved_at is not None or changed:
            if not told or renamed:
                self._hurry(operation)
        if changed and hooks.verdicts:
            seen = self._snapshot(operation)
            for notify in tuple(hooks.verdicts):
                safely(notify, operation, before, verdict.health, seen)

    def _tell_parent(self, operation: OperationState) -> None:
        """Have the parent judged, as the verdict on its child changed."""
        parent = parent_of(operation)
        if parent is not None:
            parent._check_at = 0.0

    def _look_at_pending(self, now: float) -> None:
        """Report each operation once that should have started by now."""
        for operation in list(registry.pending):
            if operation._status is not Status.PENDING:
                registry.pending.discard(operation)
            elif not operation._late_reported and now - operation._created >= (operation._opts.start_within or FOREVER):
                operation._late_reported = operation._hurries = True
                self._emit(semconv.UPDATED, operation, operation, clock.time_ns(), EMPTY)

    def _change(self, event: str, operation: OperationState, node: HandleState, attributes: Attributes) -> None:
        self._snapshots.pop(operation, None)  # it was made before the evidence was there
        when = clock.time_ns()
        for about in {node, operation}:
            if about._span is not None:
                keep(about, event, when, attributes)
        self._emit(event, operation, node, when, attributes)

    # -- events

    def _snapshot(self, operation: OperationState) -> Snapshot:
        snapshot = self._snapshots.get(operation)
        if snapshot is None:
            operation._sequence += 1
            operation._sent_revision, operation._counts_until = operation._revision, 0.0
            operation._update_pause = cadence.pause(operation, self._looked_at, self.interval)
            snapshot = self._snapshots[operation] = self._seen(operation)
            if snapshot.progress.completed is not None:
                if operation._curve is None:
                    operation._curve = Curve(restored=snapshot.progress.restored or 0)
                curve = operation._curve
                curve.add(snapshot.elapsed, snapshot.progress.completed)
            check = ESTIMATE_ENDS if self._is_heard_here else max(ESTIMATE_ENDS, operation._update_pause)
            seen = shown(snapshot)
            operation._estimate_ends = next_end(operation, seen, clock.monotonic(), check)
            operation._by_pace = by_pace(seen)
        else:
            operation._sequence += 1
        return snapshot

    def _seen(self, operation: OperationState) -> Snapshot:
        """The snapshot for events; most of them go without the curve, which is large and changes little."""
        whole = operation._status.final or keyframes.is_due(operation, self._looked_at, self.keyframe_interval)
        if not whole and operation._announced and operation._curve is not None:
            try:
                return capture(operation, clock.monotonic(), clock.time_ns(), curve=False)
            except Exception:
                pass  # below it fails again, is counted, and gives what is known
        return operation.snapshot()

    def _update(self, operation: OperationState) -> None:
        """Send an update of an operation, and keep its progress for the spans."""
        when = clock.time_ns()
        self._emit(semconv.UPDATED, operation, _spoken_for(operation), when, EMPTY)
        follow(operation, self._snapshots[operation], when)

    def _emit(
        self, event: str, operation: OperationState, node: HandleState, when: int, attributes: Attributes
    ) -> None:
        snapshot = self._snapshot(operation)
        if event in _BEFORE_END and snapshot.status.final:
            snapshot = earlier(snapshot, when / 1e9)
        if event == semconv.STAGE_ENDED:
            attributes = _end_of(node)
        told = Event(event, when, snapshot, operation._sequence, node._path, attributes)
        sinks = tuple(hooks.sinks)
        if event != semconv.UPDATED or self._is_due(operation) or _ends_an_estimate(operation, snapshot):
            sinks += tuple(hooks.paced_sinks)
            if event in keyframes.ALWAYS or keyframes.is_due(operation, self._looked_at, self.keyframe_interval):
                keyframes.sent(operation, operation._sequence, self._looked_at, self.keyframe_interval)
            operation._has_news = operation._hurries = False
            operation._update_at = cadence.due(operation._update_pause, self._looked_at)
            operation._estimated, operation._estimated_at = estimated(shown(snapshot)), clock.monotonic()
            operation._shows_wait = short_waits.shows(snapshot)
            ended = operation._shows_wait and not operation._pauses  # meanwhile
            if ended or (event in ABOUT_WAITS and with_its_wait(told) is not snapshot):
                self._hurry(operation)
        for sink in sinks:
            try:
                sink(told, operation)
            except Exception:
                tell_once(f"{getattr(sink, '__qualname__', sink)!s} failed on an event; the others get it")


_STAGE: Final = frozenset({semconv.STAGE_STARTED, semconv.STAGE_ENDED})
_ENDS: Final = frozenset({semconv.OPERATION_ENDED, semconv.STAGE_ENDED})
_BEFORE_END: Final = _STAGE | {semconv.OPERATION_STARTED, semconv.WAIT_STARTED, semconv.WAIT_ENDED}
"""Events of short work that are told once it is over: they say that it runs, as it did then."""


def _leave_out(node: HandleState, since: float, until: float) -> None:
    """Leave the time in which the process stood still out of that of a handle, and of its pace."""
    slept = max(0.0, until - max(since, node._started or until))
    node._slept += slept
    if node._pace is not None:
        node._pace.pause(slept)


def _draw(operation: OperationState, curve: Curve, now: float, moved: bool) -> None:
    """Note in the curve of an operation whether it stands; when it does not, the next snapshot says how much it did."""
    if moved:
        curve.moved = True
    elif operation._started is not None and operation._ended is None:
        curve.stands(now - operation._started)


def _end_of(stage: HandleState) -> Attributes:
    """How one run of a stage ended: the snapshot may list several of its path, or this one no more."""
    took = round(max(0.0, (stage._ended or 0.0) - (stage._started or 0.0)), 6)
    return Attributes({semconv.STAGE_ELAPSED: took, semconv.STAGE_STATUS: stage._status.value})


def _note_stage(event: str, operation: OperationState, stage: HandleState, now: float) -> None:
    """Note the start or end of a stage for the detection of loops, and an end for learning."""
    for node in around(stage)[1:]:
        loops = loops_of(node, now)
        if event == semconv.STAGE_STARTED:
            loops.stage_started(stage, now)
        else:
            loops.stage_ended(node, stage, now)
    if event == semconv.STAGE_ENDED:
        resources.sampler.ended(stage, now)
        learning.learning.ended(operation, stage)
        outlines.ended(stage)
        stage._end_told = True  # type: ignore[attr-defined]
    else:
        outlines.begun(stage)
        resources.sampler.begun(stage, now)
    if operation._has_tracked:
        touch_lanes(stage._parent, stage._place, now)


def _spoken_for(operation: OperationState) -> HandleState:
    """What an update is about: the stuck stage, else the one that started last."""
    worst = operation._worst
    if operation._health in NOT_MOVING and worst is not None and not worst.live.node._status.final:
        node: HandleState = worst.live.node
        return node
    return innermost(operation)


def _ends_an_estimate(operation: OperationState, snapshot: Snapshot) -> bool:
    """Whether readers know an estimate of an operation that a snapshot has no more."""
    return bool(operation._estimated) and has_ended(operation._estimated, shown(snapshot))


def _because(verdict: Verdict) -> Attributes:
    return Attributes({semconv.HEALTH_REASON: verdict.reason or verdict.health.value})
