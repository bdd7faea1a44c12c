"""The detection of loops: steps, stages or spending that repeat without progress."""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.live import redaction
from otel_progress.live.branches import key_of, named_stall_after, stall_after
from otel_progress.live.counting import life
from otel_progress.live.diagnosis.places import here
from otel_progress.live.engine import learning
from otel_progress.live.nested_counts import outer_of
from otel_progress.live.running import STAGES, around
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.loop import Loop, Steps
from otel_progress.model.status import Health, Status
from otel_progress.model.values import INT_MAX, Attributes, Number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.state import HandleState, OperationState


LOOP_AFTER: Final = 10
"""Repeats of a step, of a cycle of steps, or of a failing stage that make a loop; the default of `loop_after`."""
STAGES_AFTER: Final = 20
"""Repeats of completed stages that make a loop; more, as a stage may be one part of a unit."""
QUIET: Final = 5.0
"""Seconds without progress before a loop is reported, without `loop_after`."""
STAGES_QUIET: Final = 300.0
"""The same for completed stages, if no limit is named."""
KNOWN: Final = 3
"""Units completed without a loop after which the time that one takes is known."""
USAGE: Final = ""
"""Stands for tokens and cost among the steps that handles made."""
MAKERS: Final = 32
"""Handles and steps of which it is known who made which."""
GROWN: Final = 3
"""Times that tokens or cost must have grown since the last progress."""


def loops_of(node: HandleState, now: float) -> Loops:
    """The memory of the steps of a handle, created on first use, at a monotonic time."""
    loops: Loops | None = node._loops
    if loops is None:
        loops = vars(node).setdefault("_loops", Loops(node, now))  # one step, so that two threads get the same
        node.operation._counts_until = 0.0
    return loops


def step(node: HandleState, key: str) -> None:
    """The work of a handle took a step; those around it record it too."""
    now, at = clock.monotonic(), here()
    loops_of(node, now)
    lives = Lives(node.operation)
    for each in around(node):
        loops_of(each, now).step(each, key, now, lives)
        each._loops.makers.add(key, node, at)


def spends(node: HandleState, key: str, amount: Number) -> None:
    """The work of a handle spent tokens or cost; the handles around it record it too."""
    now = clock.monotonic()
    for each in around(node):
        loops_of(each, now).usage[key] += amount
    node.operation._loops.makers.add(USAGE, node, here())


class Loops:
    """The steps, stages and spending of one handle since the last unit was completed in it.

    `usage` sums up tokens and cost of the handle and all stages in it, from its first step or spending on.
    """

    __slots__ = (
        "_base",
        "_clean",
        "_failed",
        "_fails",
        "_grown",
        "_grown_at",
        "_grows_each",
        "_keys",
        "_last_at",
        "_life",
        "_since",
        "_spent",
        "longest",
        "makers",
        "stages",
        "steps",
        "usage",
    )

    def __init__(self, node: HandleState, now: float) -> None:
        """Nothing is recorded yet, at a monotonic time."""
        self.steps: Steps | None = None
        self.stages = Steps()
        self.makers = Makers()
        self._keys: tuple[str, ...] = ()
        self._life: Any = None
        self._since = node._moved_at
        self.longest = learning.learning.longest(node.operation, node)
        self._clean = 0
        self._last_at = now
        self._failed: str | None = None
        self._fails = 0
        self._spent: Number = 0
        self.usage: defaultdict[str, Number] = defaultdict(int)
        self._base: Mapping[str, Number] = {}
        self._grown = 0
        self._grown_at = now
        self._grows_each = 0.0

    def step(self, node: HandleState, key: str, now: float, lives: Lives) -> None:
        """Record a step, in the job's thread; if anything was completed since, a new sequence begins."""
        completed, steps = lives.of(node, self._since), self.steps
        if steps is None or completed != self._life:
            self._life = completed
            steps = self.steps = Steps()
        self._last_at = now
        steps.add(key)

    def stage_started(self, stage: HandleState, now: float) -> None:
        """Record the start of a stage; one of an integration is known by its name alone, which makes no repeat."""
        self._last_at = now
        if stage._observed:
            return
        what = _what(stage)
        self.makers.add(what, stage, stage._place)
        self.stages.add(what)

    def stage_ended(self, node: HandleState, stage: HandleState, now: float) -> None:
        """Record the end of a stage inside the node; what it completed is progress."""
        if life(stage) != stage._failures:
            self.progressed(node, now)
        if stage._observed:
            return
        what = _what(stage)
        if stage._status is Status.FAILED:
            self._fails = self._fails + 1 if what == self._failed else 1
            self._failed = what
        elif stage._status is Status.COMPLETED and what == self._failed:
            self._failed, self._fails = None, 0

    def progressed(self, node: HandleState, now: float) -> None:
        """Forget all repeats, as a unit was completed."""
        self._took(node, now - self._since)
        self._since = now
        self.stages = Steps()
        if self.steps is not None and Lives(node.operation).of(node, now) != self._life:
            self.steps = Steps()  # else they came after it
        self._failed, self._fails, self._grown, self._grows_each = None, 0, 0, 0.0
        self._base = dict(self.usage)

    def _took(self, node: HandleState, seconds: float) -> None:
        """Learn how long a unit takes; repeats within it were work, even if they were reported as a loop.

        Once that is known, a unit reported as a loop counts as the limit it broke: one incident is not the norm.
        """
        if node._loop is None and node.operation._health not in NOT_MOVING:
            self._clean += 1
        elif node._loop is None and node.operation._health is Health.SILENT:
            return
        elif self._clean >= KNOWN:
            seconds = min(seconds, max(QUIET, 2 * self.longest))
        self.longest = max(self.longest, seconds)

    def look(self, node: HandleState, now: float) -> None:
        """Record tokens and cost."""
        more = node._extras
        if more is None or not more.usage:
            return
        spent = sum(tuple(more.usage.values()))
        if spent != self._spent:
            self._spent = spent
            if self._grown:
                self._grows_each = max(self._grows_each, now - self._grown_at)
            self._grown += 1
            self._grown_at = now

    def involves(self, inner: HandleState, outer: HandleState) -> bool:
        """Whether the loop of the outer handle, which has this memory, is also one of a branch in an inner handle."""
        return self.makers.involve(inner, outer, self._keys)

    def found(self, node: HandleState, now: float) -> Loop | None:
        """The loop it is in now, if any."""
        said = node.operation._opts.loop_after
        quiet = now - self._since
        longest = max(loops.longest for each in around(node) if (loops := each._loops) is not None)
        if not said and quiet < max(QUIET, 2 * longest):
            return None
        limit = stall_after(node)
        idle = now - max(node._moved_at, node._counted_at)
        spends = (
            self._grown >= GROWN
            and limit is not None
            and idle >= limit
            and now - self._grown_at < max(limit / 2, QUIET, GROWN * self._grows_each)
        )
        if not spends and now - self._last_at >= max(limit or 0.0, 60.0):
            return None  # whatever it did, it stopped
        after = said or LOOP_AFTER
        if self._fails >= after and self._failed is not None:
            return self._loop("failure", (self._failed,), self._fails, after, quiet)
        found = self.steps and self.steps.found(after)
        if found:
            return self._loop("step", *found, after, quiet)
        if spends:
            return self._loop("usage", (), self._grown, 0, quiet)
        if said is None:
            after = STAGES_AFTER
            named = named_stall_after(node)
            if not _counts(node) or quiet < max(3 * named if named else STAGES_QUIET, 5 * longest):
                return None
        found = self.stages.found(after)
        return self._loop("stage", *found, after, quiet) if found else None

    def _loop(self, kind: str, keys: tuple[str, ...], repeats: int, after: int, quiet: float) -> Loop:
        spent = {key: min(amount - self._base.get(key, 0), INT_MAX) for key, amount in tuple(self.usage.items())}
        self._keys = keys or (USAGE,)
        shown = tuple(redaction.masked("step", key) for key in keys)
        return Loop(kind, shown, repeats, after, quiet, Attributes({key: n for key, n in spent.items() if n > 0}))


class Makers:
    """Which handles made the steps that a handle around them remembers: a loop concerns only their branches."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        """Nobody made a step yet."""
        self._made: dict[tuple[str, str], tuple[weakref.ref[HandleState], Place | None]] = {}

    def add(self, key: str, by: HandleState, place: Place | None) -> None:
        """Record which handle made a step, in which thread and task; the oldest are forgotten."""
        made, label = self._made, (key, _path(by))
        if label not in made and len(made) >= MAKERS:
            made.pop(next(iter(made), label), None)
        made[label] = weakref.ref(by), place

    def involve(self, inner: HandleState, outer: HandleState, keys: tuple[str, ...]) -> bool:
        """Whether a branch in an inner handle makes these steps of an outer one.

        It made one itself, continues a stage of the same path that did, or runs in the same thread and task. What is
        not known counts for it, unless others that made the steps still run.
        """
        chain = _inside(inner, outer)
        made = [(path, *who) for (key, path), who in tuple(self._made.items()) if key in keys]
        unknown, others = not made, False
        for path, ref, place in made:
            by = ref()
            runs, elsewhere = by is not None and not by._status.final, _elsewhere(inner, place)
            goes_on = not runs and any(_path(each) == path for each in chain) and not (elsewhere and _hangs(inner))
            if by in chain or goes_on or _same(inner, place):
                return True
            others = others or (runs and by is not outer)
            unknown = unknown or not elsewhere or (by is outer and not _hangs(inner))
        return unknown and not others


def _path(node: HandleState) -> str:
    return node._path or node.name


def _inside(inner: HandleState, outer: HandleState) -> list[HandleState]:
    """An inner handle and those around it, up to the outer one, which is left out."""
    chain: list[HandleState] = []
    node: HandleState | None = inner
    while node is not None and node is not outer:
        chain.append(node)
        node = node._parent if node is not node.operation else None
    return chain


def _same(node: HandleState, place: Place | None) -> bool:
    """Whether a handle was entered in this thread and task, which still run."""
    mine = None if node._context is None else key_of(node._place)
    return mine is not None and mine == key_of(place)


def _elsewhere(node: HandleState, place: Place | None) -> bool:
    """Whether a handle was entered in another thread or task."""
    return node._context is not None and node._place is not None and place is not None and node._place != place


def _hangs(node: HandleState) -> bool:
    """Whether a handle is beyond its own limit."""
    limit = stall_after(node)
    return limit is not None and clock.monotonic() - max(node._moved_at, node._counted_at) >= limit


class Lives:
    """What was completed in the handles of an operation, read once, as values that change with each completed unit.

    If many stages run side by side, only handles near the given one are read, as the job's thread calls this. The
    ticker sees progress farther away at its next sample.
    """

    __slots__ = ("_many", "_operation", "_within")

    def __init__(self, operation: OperationState) -> None:
        """Read the running stages of an operation."""
        running = tuple(operation._running or ())
        self._operation = operation
        self._many = len(running) > STAGES
        self._within: dict[HandleState, Any] = {}
        if not self._many:
            within = self._within
            for stage in reversed(running):  # a stage starts after the one around it
                outer = outer_of(stage)
                within[outer] = within.get(outer, 0) + within.get(stage, 0) + _own(stage)

    def of(self, node: HandleState, since: float) -> Any:
        """What a handle that last moved at `since` completed, with what runs inside and around it."""
        own = life(node)
        completed: Any = own - node._failures + self._within.get(node, 0)
        if not own and node is not self._operation:
            for outer in around(node)[1:] if self._many else _all_around(node):
                completed += _own(outer)
        return (completed, since) if self._many else completed


def _own(node: HandleState) -> Any:
    """What was completed in a handle itself, without failures."""
    return life(node) - node._failures


def _all_around(node: HandleState) -> Iterator[HandleState]:
    operation, outer = node.operation, node._parent
    while outer is not None:
        yield outer
        outer = outer._parent if outer is not operation else None


def _what(stage: HandleState) -> str:
    """A stage as a step: its path and its message, which may name what it works on."""
    path = stage._path or stage.name
    return path if stage._message is None else f"{path}: {stage._message}"


def _counts(node: HandleState) -> bool:
    """Whether units are counted at all, so that their absence means something."""
    return bool(node._sampled) or node._total is not None or node.operation._total is not None
