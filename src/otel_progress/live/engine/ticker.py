"""The one thread that looks: reads counts, judges, and turns changes into events.

A round takes what was reported since the last one; every third round also samples the counts of all
operations. Three quarters of an interval for that leave the last quarter for sending, so that what left the process is
never older than the interval.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, semconv
from otel_progress.live import hooks
from otel_progress.live.branches import DEPTH, lines, loop_of, named_stall_after, touch_lanes
from otel_progress.live.engine import learning, limits, process, watchdog
from otel_progress.live.engine.branch_verdicts import Judged, examine, kept
from otel_progress.live.engine.loops import loops_of
from otel_progress.live.engine.sampling import sample as look_at
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import Change, registry
from otel_progress.live.running import around, host_of, innermost, parent_of
from otel_progress.live.trail import follow, keep
from otel_progress.model.health import STUCK, Verdict, judge
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import EMPTY, Attributes

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState

ROUNDS: Final = 4
"""Rounds an interval."""
SAMPLE_EVERY: Final = 3
"""Rounds from one sample of all counts to the next."""
STAGE_EVENTS: Final = 50.0
"""StageState events a second of one operation; more are folded into the snapshots."""
SOON: Final = 10.0
"""Whose limit may be reached within so many seconds is looked at in each round, and so are those that may loop."""
SOON_MOST: Final = 500
STALLS: Final = 500
"""Operations found stuck in one round; where it is more, the others are told in the next ones."""
ESTIMATE_ENDS: Final = 5.0
"""Seconds without a unit after which those who were told a rate or an ETA hear whether it still holds."""
BACKLOG: Final = 8_000
"""Changes in the last round from which on the stages of an operation that ended are told by its end alone."""
WAKES: Final = 0.02
"""Seconds from one round that somebody asked for to the next such."""
RATIONED_EACH: Final = 200
"""Notes and heartbeats of one operation that may wait for the budget."""
STEADY: Final = learning.STEADY
FOREVER: Final = float("inf")


class Ticker:
    """Looks at all operations; `round` is one look, the thread does it again and again."""

    def __init__(self, interval: float = 1.0, budget: float = 200.0) -> None:
        """Look so that nothing is older than `interval` (s); pass on `budget` rationed events a second."""
        self.interval = interval
        self.budget = budget
        self._left = 0
        self._paid: deque[tuple[float, int]] = deque()
        self._rounds = 0
        self._looked_at = FOREVER
        self._stalls = 0
        self._soon: list[weakref.ref[OperationState]] = []
        self._waiting: dict[OperationState, int] = {}
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.hurries = False
        """Whether the process ends: what matters most has to go first."""
        self._woken = False
        self._wake_at = 0.0
        self._snapshots: dict[OperationState, Snapshot] = {}

    # -- the thread

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="otel-progress-ticker", daemon=True)
            self._thread.start()

    @property
    def resting(self) -> bool:
        """Whether no thread was started yet."""
        return self._thread is None

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Have the thread look now, not only when its turn comes; it takes no lock, and never waits."""
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
        """Let the thread end; it may be called twice."""
        self._asked.put(None)

    def park(self) -> Callable[[], None]:
        """Have the thread stand still between two rounds, until what is returned is called."""
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
        while True:
            try:
                task = self._asked.get(timeout=self.interval / ROUNDS)
            except queue.Empty:
                self.round()
                continue
            if task is None:
                return
            task()

    def ask(self, task: Callable[[], None], timeout: float) -> bool:
        """Have the thread do this next, and wait for it; done here where there is no thread.

        It takes no lock, so a signal handler may call it.
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
        """Look once; `sample` reads the counts even when it is not their turn."""
        with process.parking:
            self._round(sample)

    def _round(self, sample: bool) -> None:
        self._rounds += 1
        self._stalls = 0
        now = clock.monotonic()
        self._snapshots.clear()
        try:
            self._notice_sleep(now)
            registry.end_dropped()
            if registry.pending:
                self._look_at_pending(now)
            self._left = allowance = self._allowance(now)
            self._take_changes(now)
            if sample or self._rounds % SAMPLE_EVERY == 0:
                self._sample_all(now)
            else:
                self._sample(self._soon_due(), now)
            self._pay()
            if self._left < allowance:
                self._paid.append((now, allowance - self._left))
        except Exception:
            tell_once("a round of the ticker failed; the job goes on")
        for call in tuple(hooks.on_tick):
            _safely(call, now)
        _safely(learning.learning.on_tick, now)
        self._snapshots.clear()

    def _notice_sleep(self, now: float) -> None:
        """What passed while this thread could not look (stopped, frozen, no GIL) is no idle time of anybody."""
        slept = now - self._looked_at - self.interval / ROUNDS
        self._looked_at = now
        if slept <= 2 * self.interval + 1.0:
            return
        for operation in registry.operations():
            operation._check_at = 0.0
            for node in (operation, *(operation._running or ())):
                if node._started is not None:
                    node._moved_at = min(now, max(node._moved_at, node._started) + slept)
                for lane in tuple(node._lanes or ()):
                    lane.moved_at = min(now, lane.moved_at + slept)
                if node._pace is not None:
                    node._pace.pause(slept)

    def _take_changes(self, now: float) -> None:
        changes = registry.changes
        taken = [changes.popleft() for _ in range(len(changes))]
        for see in tuple(hooks.on_change):
            for change in taken:
                _safely(see, change)
        ended = {change[1] for change in taken if change[0] == semconv.OPERATION_ENDED}
        for change in taken:
            if self.hurries and len(taken) > BACKLOG and change[0] in _STAGE and change[1] in ended:
                drops.add(semconv.DROP_FOLDED)
                _safely(_note_stage, change[0], change[1], change[2], now)
            else:
                _safely(self._tell, change, now)

    def _tell(self, change: Change, now: float) -> None:
        """Make the event of a change: at once where it changes state, else when the budget allows."""
        event, operation, node, when, attributes = change
        if operation._over:
            return
        if event in semconv.RATIONED:
            self._ration(change)
            return
        operation._check_at = 0.0  # another limit may apply from here on
        if event == semconv.OPERATION_ENDED:
            self._pay_all(operation)
            closed = watchdog.closed(operation)
            if closed is not None:
                self._emit(semconv.RECOVERED, operation, operation, when, closed)
            operation._over = True
            learning.learning.ended(operation, operation)
        elif event in _STAGE:
            _note_stage(event, operation, node, now)
        if event in _STAGE and not self._may_tell_stage(operation, now):
            drops.add(semconv.DROP_FOLDED)
            self._waiting.setdefault(operation, self._rounds)
            return
        self._emit(event, operation, node, when, attributes)

    def _may_tell_stage(self, operation: OperationState, now: float) -> bool:
        tokens, then = operation._stage_tokens or (STAGE_EVENTS, now)
        tokens = min(STAGE_EVENTS, tokens + (now - then) * STAGE_EVENTS)
        operation._stage_tokens = (tokens - 1 if tokens >= 1 else tokens, now)
        return bool(tokens >= 1)

    # -- sampling

    def _sample_all(self, now: float) -> None:
        operations = registry.operations()
        self._sample(operations, now)
        soon = now + SOON
        found = (operation for operation in operations if operation._check_at < soon or _may_loop(operation))
        self._soon = [weakref.ref(operation) for operation in islice(found, SOON_MOST)]

    def _soon_due(self) -> list[OperationState]:
        """Those whose limit may be reached before all are looked at again, or that may loop."""
        return [operation for ref in self._soon if (operation := ref()) is not None]

    def _sample(self, operations: list[OperationState], now: float) -> None:
        waiting, number, skipped = self._waiting, self._rounds, 0
        for operation in operations:
            try:
                moved = look_at(operation, now)
                if moved:
                    self._wait_with_parents(operation)
                    skipped += waiting.setdefault(operation, number) != number
                elif operation._said != operation._told or now >= operation._estimate_ends:
                    waiting.setdefault(operation, number)
                due = now >= operation._check_at
                if operation._loops is not None:
                    due = watchdog.look(operation, now) or due
                health = operation._health
                if operation._troubles and health is Health.PROGRESSING:
                    due = True  # what was stuck is over, and has to stay so for a while
                elif health is not Health.PROGRESSING:
                    due = due or moved or (health in STUCK and _may_be_released(operation))
                if due and self._stalls < STALLS and not _postponed(operation, now):
                    self._judge(operation, now)
            except Exception:
                tell_once("an operation could not be sampled; the others are")
        if skipped:
            drops.add(semconv.DROP_BUDGET, skipped)

    def _wait_with_parents(self, operation: OperationState) -> None:
        """What moved moves those that it is a part of: they have an update to tell, too."""
        if operation._parent is None and operation._opts.parent is None:
            return
        parent = parent_of(operation) if host_of(operation) is not None else None
        depth = 0
        while parent is not None and depth < DEPTH and not parent._status.final:
            self._waiting.setdefault(parent, self._rounds)
            parent, depth = parent_of(parent) if host_of(parent) is not None else None, depth + 1

    def _judge(self, operation: OperationState, now: float) -> None:
        """Compare the verdict with the last one; each branch that gets stuck, and each other change, is told once."""
        if operation._status is not Status.RUNNING:
            return
        before, overdue = operation._health, operation._overdue
        told = (
            operation in self._snapshots and not operation._troubles
        )  # an event of this round has the verdict already
        if not told:
            self._snapshots.pop(operation, None)
        moved_at = watchdog.release(operation, now)
        snapshot = self._snapshot(operation)
        verdict = judge(snapshot, snapshot.timestamp)
        found = examine(operation, now)
        operation._worst = kept(found[0])
        operation._health, operation._overdue = verdict.health, verdict.overdue
        operation._check_at = _next_check(operation, found, verdict.health, now)
        troubles = operation._troubles or {}
        fresh = [one for one in found if one.verdict.health in STUCK and one.line.key not in troubles]
        renamed = watchdog.renamed(operation, found, now)
        changed = verdict.health is not before or verdict.overdue is not overdue
        if changed:
            self._tell_parent(operation)
        if fresh:
            self._stalls += 1
            self._change(semconv.STALLED, operation, fresh[0], watchdog.stalled(operation, fresh, now))
            if operation._opts.cancels:
                watchdog.ask_to_stop(operation, verdict.reason or verdict.health.value)
        elif operation._stalled_at is not None and not troubles:
            self._change(semconv.RECOVERED, operation, found[0], watchdog.recovered(operation, moved_at, now))
        elif verdict.overdue and not overdue:
            self._change(semconv.OVERDUE, operation, found[0], _because(verdict))
        elif verdict.health is Health.SLOW and not operation._slow:
            operation._slow = True
            self._change(semconv.SLOW, operation, found[0], _because(verdict))
        elif renamed or moved_at is not None or verdict.health is not before or (overdue and not verdict.overdue):
            if not told or renamed:
                self._waiting.setdefault(operation, self._rounds)
        if changed and hooks.verdicts:
            seen = self._snapshot(operation)
            for tell in tuple(hooks.verdicts):
                _safely(tell, operation, before, verdict.health, seen)

    def _tell_parent(self, operation: OperationState) -> None:
        """The verdict on a child changed: that on its parent may change, too."""
        parent = parent_of(operation)
        if parent is not None:
            parent._check_at = 0.0

    def _look_at_pending(self, now: float) -> None:
        """Tell once of each that should have started by now."""
        for operation in list(registry.pending):
            if operation._status is not Status.PENDING:
                registry.pending.discard(operation)
            elif not operation._late and now - operation._created >= (operation._opts.start_within or FOREVER):
                operation._late = True
                self._emit(semconv.UPDATED, operation, operation, clock.time_ns(), EMPTY)

    def _change(self, event: str, operation: OperationState, judged: Judged, attributes: Attributes) -> None:
        self._snapshots.pop(operation, None)  # it was made before the evidence was there
        when = clock.time_ns()
        node = judged.line.node
        for about in {node, operation}:
            if about._span is not None:
                keep(about, event, when, attributes)
        self._emit(event, operation, node, when, attributes)

    # -- the budget

    def _ration(self, change: Change) -> None:
        operation = change[1]
        queue = operation._rationed
        if queue is None:
            queue = operation._rationed = deque()
        if len(queue) >= RATIONED_EACH:
            queue.popleft()
            drops.add(semconv.DROP_BUDGET)
        queue.append(change)
        self._waiting.setdefault(operation, self._rounds)

    def _allowance(self, now: float) -> int:
        """How many rationed events may go in this round, so that no second holds more than the budget."""
        most = max(1, int(self.budget))
        paid = self._paid
        while paid and now - paid[0][0] >= most / self.budget:
            paid.popleft()
        return max(0, most - sum(count for _, count in paid))

    def _pay(self) -> None:
        """Pass on what the budget allows, one event an operation in turn; an update stands for all before it."""
        waiting = self._waiting
        while self._left >= 1 and waiting:
            operation = next(iter(waiting))
            del waiting[operation]
            _safely(self._pay_one, operation)

    def _pay_one(self, operation: OperationState) -> None:
        queue = operation._rationed
        if queue:
            event, _, node, when, attributes = queue.popleft()
            if queue:
                self._waiting[operation] = self._rounds
            self._left -= 1
            self._emit(event, operation, node, when, attributes)
        elif not operation._status.final:
            self._left -= 1
            when = clock.time_ns()
            self._emit(semconv.UPDATED, operation, innermost(operation), when, EMPTY)
            follow(operation, self._snapshots[operation], when)

    def _pay_all(self, operation: OperationState) -> None:
        """Before the end of an operation, pass on what still waits of it, as far as the budget goes."""
        self._waiting.pop(operation, None)
        queue, operation._rationed = operation._rationed, None
        for event, _, node, when, attributes in queue or ():
            if self._left < 1:
                drops.add(semconv.DROP_BUDGET)
                continue
            self._left -= 1
            self._emit(event, operation, node, when, attributes)

    # -- events

    def _snapshot(self, operation: OperationState) -> Snapshot:
        snapshot = self._snapshots.get(operation)
        if snapshot is None:
            operation._sequence += 1
            operation._told = operation._said
            snapshot = self._snapshots[operation] = operation.snapshot()
            progress = snapshot.progress
            estimated = progress.rate is not None or progress.eta is not None
            operation._estimate_ends = clock.monotonic() + ESTIMATE_ENDS if estimated else FOREVER
        else:
            operation._sequence += 1
        return snapshot

    def _emit(
        self, event: str, operation: OperationState, node: HandleState, when: int, attributes: Attributes
    ) -> None:
        snapshot = self._snapshot(operation)
        told = Event(event, when, snapshot, operation._sequence, node._path, attributes)
        for sink in tuple(hooks.sinks):
            try:
                sink(told, operation)
            except Exception:
                tell_once(f"{getattr(sink, '__qualname__', sink)!s} failed on an event; the others get it")


_STAGE: Final = frozenset({semconv.STAGE_STARTED, semconv.STAGE_ENDED})


def _safely(call: Callable[..., None], *args: Any) -> None:
    """Call it; what fails for one operation, or in one part of ours, stops no other."""
    try:
        call(*args)
    except Exception:
        tell_once(f"{getattr(call, '__qualname__', call)!s} failed; the job goes on")


def _note_stage(event: str, operation: OperationState, stage: HandleState, now: float) -> None:
    """What a stage's start or end says of loops around it, and its end of healthy ones."""
    for node in around(stage)[1:]:
        loops = loops_of(node, now)
        if event == semconv.STAGE_STARTED:
            loops.stage_started(stage, now)
        else:
            loops.stage_ended(node, stage, now)
    if event == semconv.STAGE_ENDED:
        learning.learning.ended(operation, stage)
    if operation._tracks:
        touch_lanes(stage._parent, stage._place, now)


def _may_loop(operation: OperationState) -> bool:
    """Whether it names its steps, or how often one may come."""
    loops = operation._loops
    return loops is not None and (loops.steps is not None or operation._opts.loop_after is not None)


def _may_be_released(operation: OperationState) -> bool:
    """Whether a branch that is stuck began to move again, or to loop no longer, or a child did."""
    return any(
        trouble.again is not None or trouble.health is Health.LOOPING
        for trouble in (operation._troubles or {}).values()
    )


def _postponed(operation: OperationState, now: float) -> bool:
    """Whether no limit can be reached yet, as it moved since the last look; then it is looked at later."""
    options = operation._opts
    if options.slow_after is None:
        named = named_stall_after(operation) is not None
        known = learning.learning
        operation._learned = known.slow(operation) if named else known.limits(operation, operation)
    found = lines(operation)
    for line in found:
        if line.child is None and (line.node is not operation or options.slow_after is not None):
            if named_stall_after(line.node) is None:
                line.node._learned = learning.learning.limits(operation, line.node)
    if operation._health is not Health.PROGRESSING or operation._troubles:
        return False
    if any(line.wait is not None or line.child is not None or loop_of(line.node) is not None for line in found):
        return False
    slow_after = limits.slow_after(operation)
    started = operation._started or now
    if slow_after is not None and now >= started + slow_after:
        return False
    due = [line.moved_at + limit for line in found if (limit := line.limit) is not None]
    if slow_after is not None:
        due.append(started + slow_after)
    operation._check_at = min(*due, now + 60.0) if due else now + 60.0
    return operation._check_at > now


def _next_check(operation: OperationState, found: list[Judged], health: Health, now: float) -> float:
    """The monotonic time at which the verdict may change if nothing moves."""
    due = [now + 60.0] if health in STUCK else [FOREVER]  # one that is stuck is looked at sooner when it moves
    for line, branch, verdict, _ in found:
        if verdict.health in STUCK or line.child is not None:
            continue
        wait, limit = branch.wait, branch.stall_after
        if wait is not None:
            left = 1.0 if wait.overdue_after is None else wait.overdue_after - wait.elapsed
            due.append(now + (min(left, 1.0) if left > 0 else 1.0))
        elif limit is not None:
            due.append(line.moved_at + limit)
    slow_after, started = limits.slow_after(operation), operation._started or now
    if slow_after is not None and now < started + slow_after:
        due.append(started + slow_after)
    soonest = min(due)
    return max(now, soonest) if soonest < FOREVER else now + 1.0


def _because(verdict: Verdict) -> Attributes:
    return Attributes({semconv.HEALTH_REASON: verdict.reason or verdict.health.value})
