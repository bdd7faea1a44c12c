"""Work that becomes an operation or a stage only once it has lasted, such as a loop with a progress bar.

What is known at its beginning is kept: when and where it began, and what ran there. Its loop is counted from the first
item on, by the same lane as that of `track`. The ticker starts what has lasted, and reads it from then on.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_progress import clock, forks
from otel_progress.live import context, crashes, hooks, misuse, preload
from otel_progress.live.counting import life, restore
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import tell_once
from otel_progress.live.handles import Operation, Stage
from otel_progress.live.lane import Lane, loop
from otel_progress.live.outcome import ending, words
from otel_progress.live.registry import registry
from otel_progress.live.track import length
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState

T = TypeVar("T")
GRACE: Final = 0.5
"""Seconds for which the end of a loop that was left early is kept back: an exception may be ending the process."""
SHORT: Final = 1.0
"""Seconds that work lasts, at least, before it is shown."""
MOST: Final = 1_000
"""Work that is watched at the same time."""
LOOKS: Final = 0.1
"""Seconds that a look waits for another thread's look, at most; a signal handler may look while its thread does."""
NEAR: Final = 64
"""Work that is looked at to find what is around it."""
_open: Final[dict[Late, None]] = {}
"""Work that has not ended, in the order of its beginnings."""
_configuring: threading.Thread | None = None
_looking = threading.Lock()
"""Held by a thread that looks, so that no two start the same work."""


class Late:
    """Work that begins here and now; a subclass says what it is called, and reads its counts.

    Its methods are called in the ticker's thread as well as in that of the work, and must not raise into either.

    Attributes:
        began: when it began (s, monotonic).
        around: the handle that was current where it began.
        place: the thread and task that does it: that of its loop, else where it moved last, else of its beginning.
        node: the operation or stage, once it has lasted.
        group: what holds work that is side by side, such as the display of several bars.
        lane: the loop over its items, if it has one that began.
        ended: how it ended: nothing yet, `completed`, `left`, or its exception.
        pause: begins the wait that it is in, once it is shown.
    """

    __slots__ = (
        *("_began_ns", "_context", "_count", "_ended_at", "_last", "_looked", "_made_at", "_moved_at", "_outer"),
        *("_read", "_slept", "around", "began", "ended", "group", "lane", "node", "pause", "place"),
    )

    def __init__(self) -> None:
        """Remember when and where it begins."""
        self.began = self._moved_at = clock.monotonic()
        self._count: float | None = 0
        self._began_ns = clock.time_ns()
        self._slept = 0.0
        self.place = self._made_at = here()
        self._looked = True
        self._ended_at = 0.0
        self.around: HandleState | None = context.running_here()
        self._context = contextvars.copy_context()
        self.group: object = None
        self._outer: Late | None = None
        self._read: tuple[float | None, float | None, str | None] = None, None, None
        self._last: tuple[float | None, float | None, str | None] | None = None
        self.lane: Lane | None = None
        self.node: Operation | Stage | None = None
        self.ended: str | BaseException | None = None
        self.pause: Callable[[Operation | Stage], None] | None = None

    # -- what a subclass says

    def name(self) -> str:
        """Its name, of few values."""
        raise NotImplementedError

    def unit(self) -> str | None:
        """What is counted."""
        return None

    def initial(self) -> float:
        """Units that an earlier run completed; they count as done."""
        return 0

    def read(self) -> tuple[float | None, float | None, str | None]:
        """Units done (None where its loop counts), units in all, and what it does, in words."""
        return None, None, None

    def seen(self) -> tuple[float | None, float | None, str | None]:
        """The same; a total that is none, such as infinity, is unknown."""
        done, total, words = self.read()
        try:
            is_known = total is not None and 0 <= total < math.inf
        except TypeError:
            is_known = False
        return done, total if is_known else None, words

    def size(self, iterable: Iterable[Any]) -> int | None:
        """The items of its loop, as far as known."""
        return length(iterable)

    def over(self) -> str | None:
        """How it ended if nobody said so: its loop is over."""
        opened = self.lane
        if opened is None or not opened.closed:
            return None
        return "completed" if opened.ended or is_all(opened.completed, opened.total) else "left"

    # -- what the library does

    def begin(self, group: object = None) -> None:
        """Watch it from now on, in the thread where it began; work of one group is side by side."""
        if len(_open) >= MOST:
            return
        self.group = group
        near = [
            one
            for one in tuple(_open)[-NEAR:]
            if one.ended is None and one.place == self.place and (group is None or one.group is not group)
        ]
        self._outer = near[-1] if near else None
        _open[self] = None
        if look not in hooks.on_tick:
            hooks.on_tick.append(look)
        if last_look not in hooks.on_process_end:
            hooks.on_process_end.append(last_look)
        if crashed not in crashes.heard:
            crashes.heard.append(crashed)
        crashes.watch_threads()
        preload.get("live.engine.runtime").ensure()

    def loop(self, iterable: Iterable[T], total: int | None) -> Iterator[T]:
        """Its loop over an iterable, in the thread that calls this."""
        self.place = here()
        self.lane = opened = Lane(self.size(iterable) if total is None else total, None, self.place, False, self.began)
        opened.named = total is not None
        opened.observed = True
        if self.node is not None:
            self._show_lane(self.node)
        return loop(iterable, opened)

    @property
    def thread(self) -> int:
        """The thread that ends it: that of its loop, else the one that made it."""
        return (self._made_at if self.lane is None else self.place).thread

    def moved(self) -> None:
        """It moves without a loop, in the thread that calls this."""
        place = self.place
        if self._looked or place.task is not None or place.thread != get_ident():
            self._looked = False
            self.place = here()

    def end(self, how: str | BaseException = "completed", *, later: bool = False) -> None:
        """It ended; with `later` the ticker says so, as a finalizer may run where locks are held."""
        if self.ended is None:
            self.ended = how
            self._ended_at = clock.monotonic()
            self._last = self.seen()
        if not later and not self.is_to_be_shown() and _open.pop(self, self) is None:
            _finish(self)

    def is_to_be_shown(self) -> bool:
        """Whether it ended before it was shown, although it lasted, and what was around it still runs."""
        if self.node is not None or self._ended_at - self.began < SHORT:
            return False
        outer = None if self._outer is None else self._outer.node
        return all(one is None or context.is_alive(one) for one in (self.around, outer))

    def ends_with(self, error: BaseException | None) -> None:
        """Its process or its thread ends, by an exception that nobody caught or without one."""
        if error is not None and self.ended in (None, "left"):
            self.ended, self._last = error, self._last or self.seen()
            self.end()
        elif (how := self.ended or self.over()) is not None:
            self.end(how)
        elif self.lane is None:
            done, total, _ = self.read()
            if total is None or is_all(done, total):  # nobody closed it, as nobody has to
                self.end()

    def is_held(self, now: float) -> bool:
        """Whether its end waits for the reason why its loop was left."""
        return self.ended == "left" and now - self._ended_at < GRACE

    def __reduce__(self) -> Any:
        """A copy of what holds it holds None: what is known belongs to the one that was made."""
        return _nothing, ()

    # -- its life as an operation or a stage

    def start(self) -> None:
        """Start it as a stage of what runs around it, else as an operation."""
        parent = self._parent()
        done, total, words = self._read = self.seen() if self._last is None else self._last
        initial = self.initial()
        node: Operation | Stage
        if parent is None:
            node = Operation(self.name(), total=total, unit=self.unit())
        else:
            node = Stage(self.name(), parent=parent, total=total, unit=self.unit())  # type: ignore[arg-type]
        node._observed = True
        if words:
            node._message = words
        if initial:
            restore(node, initial)
        self._context.run(node.start)
        if node._status is not Status.RUNNING:
            return
        node._place = self._made_at
        node._started = node._moved_at = self.began
        node._started_ns = self._began_ns
        self.node = node
        self._show_lane(node)
        if done:
            node.update(completed=done)
        self._was_seen(node)
        pause = self.pause
        if pause is not None:
            pause(node)

    def watch(self, now: float) -> None:
        """See whether it moved, while it is not shown."""
        looked_at, stood = registry.stood
        if stood and looked_at == now:  # the process did nothing for so long
            self._moved_at, self._slept = min(now, self._moved_at + stood), self._slept + stood
        done = self.lane.completed if self.lane is not None else self.read()[0]
        if done != self._count:
            self._count, self._moved_at = done, now

    def _was_seen(self, node: Operation | Stage) -> None:
        """What it did before it was shown is no gap of nothing and then all at once."""
        units = life(node)
        node._moved_at, node._slept = self._moved_at, self._slept
        if units:
            node._sampled = node._sampled_done = units
            node._counted_at = self._moved_at
        if self.lane is not None:
            self.lane.seen = self.lane.completed
            self.lane.moved_at = self.lane.before = self._moved_at

    def _parent(self) -> HandleState | None:
        """What runs around it: the work of the same thread that it is in, unless a handle was opened in between."""
        outer = self._outer
        if outer is not None and outer.around is self.around:
            if outer.node is None and outer.ended is None:
                outer.start()
            if outer.node is not None and context.is_alive(outer.node):
                return outer.node
        around = self.around
        while around is not None and not context.is_alive(around):
            around = around._parent
        return around

    def _show_lane(self, node: Operation | Stage) -> None:
        """Have its loop count in its handle."""
        opened = self.lane
        if opened is not None:
            node._place = self.place
            vars(node).setdefault("_lanes", []).append(opened)
            node.operation._has_tracked = True
            node.operation._revision += 1

    def show(self) -> None:
        """Report what changed since the last look."""
        node, found = self.node, self.seen() if self._last is None else self._last
        if node is None:
            return
        self._looked = True
        if self.lane is None and self.place != self._made_at:
            node._carried = {self.place}
        if found == self._read:
            return
        (done, total, words), before = found, self._read
        self._read = found
        if self.lane is not None and done is None and total not in (None, before[1]):  # its loop goes on counting
            node._total, total = misuse.accepted("update", "total", total), before[1]
            node.operation._revision += 1
        node.update(
            completed=done if done != before[0] else None,
            total=total if total != before[1] else None,
            message=words if words != before[2] else None,
        )


def running_here() -> Operation | Stage | None:
    """The innermost handle that runs here, that of late work of this thread and task included."""
    node: Operation | Stage | None = context.running_here()  # type: ignore[assignment]
    started = (one.node for one in _inside(node))
    return next((one for one in started if one is not None and context.is_alive(one)), node)


def innermost_here() -> Late | None:
    """The innermost late work of this thread and task; None if a handle was opened in it, or without one."""
    return next(_inside(context.running_here()), None)


def _inside(around: HandleState | None) -> Iterator[Late]:
    """The late work of this thread and task that began in a handle and has not ended, the innermost first."""
    if _open:
        place = here()
        for one in reversed(tuple(_open)):
            if one.place == place and one.ended is None and one.around is around:
                yield one


def _nothing() -> None:
    return None


def is_all(done: float | None, total: float | None) -> bool:
    """Whether a loop took all items: beside a shorter one, as in `zip`, it never asks for the end."""
    return done is not None and total is not None and done >= total - 1


def look(now: float) -> None:
    """Start what has lasted, read what was started, end what has ended; for the ticker and the end of a process."""
    if _looking.acquire(timeout=LOOKS):
        try:
            _look(now)
        finally:
            _looking.release()


def _look(now: float) -> None:
    for one in tuple(_open):
        try:
            how = one.over() if one.ended is None else None
            if how is not None:
                one.end(how, later=how == "left")
            elif one.ended is not None:
                _end(one, now)
            elif one.node is not None:
                one.show()
            else:
                one.watch(now)
                if now - one.began >= SHORT:
                    _show(one)
        except Exception:
            _open.pop(one, None)
            tell_once("a progress bar could not be shown; the job goes on")


def _show(one: Late) -> None:
    """Start it; the first work of a process configures before."""
    global _configuring
    if hooks.on_first is None:
        one.start()
    elif _configuring is None:  # it waits for the ticker
        _configuring = threading.Thread(target=_configure, name="otel-progress-first", daemon=True)
        _configuring.start()


def _end(one: Late, now: float) -> None:
    """End it; what lasted is shown even if it ended before it was."""
    if one.is_held(now):
        return
    if one.is_to_be_shown():
        _show(one)
        if one.node is None and _configuring is not None:
            return  # until that is done
    if _open.pop(one, one) is None:
        _finish(one)


def last_look(timeout: float) -> None:
    """Say what has ended before the end of the process interrupts what has not; waits at most `timeout` seconds."""
    _all_end_with(crashes.uncaught(), tuple(_open))
    look(clock.monotonic())
    thread = _configuring
    if thread is not None and _open:
        thread.join(timeout)
        look(clock.monotonic())


def crashed(error: BaseException) -> None:
    """An exception ends this thread, and with it the loops that it ran and the bars that it made."""
    me = get_ident()
    _all_end_with(error, [one for one in tuple(_open) if one.thread == me])


def caught(error: BaseException) -> None:
    """Somebody caught an exception that has just ended work in this thread, and with it the loops that were left."""
    me = get_ident()
    _all_end_with(error, [one for one in tuple(_open) if one.thread == me and (one.ended or one.over()) == "left"])


def _all_end_with(error: BaseException | None, those: Iterable[Late]) -> None:
    for one in those:
        try:
            one.ends_with(error)
        except Exception:
            tell_once("the end of a progress bar could not be told")


def _configure() -> None:
    global _configuring
    first = hooks.on_first
    try:
        if first is not None:
            first()
    finally:
        _configuring = None


def _finish(one: Late) -> None:
    """End its handle as it ended."""
    node, how = one.node, one.ended
    if node is None:
        return
    one.show()
    if isinstance(how, BaseException):
        node._finish(ending(how), words(how), how)
    elif how == "left":
        if one.lane is not None:
            one.lane.close()
        done = one.read()[0] if one.lane is None else one.lane.completed
        node.cancel(f"left early, after {done}")
    else:
        node.complete()


def _after_fork_in_child() -> None:
    """The work of the parent is the parent's."""
    global _configuring, _looking
    _open.clear()
    _looking = threading.Lock()
    _configuring = None


forks.in_child.append(_after_fork_in_child)
