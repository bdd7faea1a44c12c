"""Tools for tests of code that reports progress: a fake clock, a capture of all signals, a pytest plugin.

```python
def test_survey(progress_capture):
    survey("some/folder")
    progress_capture.advance(10)                      # ten seconds pass, and the ticker samples
    assert progress_capture.names() == ["progress.operation.started", "progress.operation.ended"]
    assert progress_capture.ended("survey").result == {"files": 3}
```

No thread runs while a capture is open. Time passes only in `advance`, so a test does not depend on the speed of the
machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from otel_progress import clock, forks

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_progress.model.snapshot import Event, Snapshot
    from otel_progress.telemetry.memory import Log, Memory, Point, Receiver

try:
    import pytest
except ImportError:  # pragma: no cover
    pytest = None  # type: ignore[assignment]

START = 1_700_000_000_000_000_000
"""The wall time at which the fake clock starts: 14 November 2023, in ns since 1970."""


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start_ns: int = START) -> None:
        """Start at `start_ns`, a wall time in ns since 1970. The monotonic clock starts at 1000 s."""
        self._wall = start_ns
        self._monotonic = 1000.0

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return self._monotonic

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970."""
        return self._wall

    def sleep(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        self._monotonic += seconds
        self._wall += round(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Move only the wall clock, forward or back, as when the clock of a machine is set."""
        self._wall += round(seconds * 1e9)


class Capture:
    """All signals of the operations of a test; made by `capture`."""

    def __init__(self, fake: FakeClock, memory: Memory) -> None:
        """Record what `memory` receives, under the clock `fake`."""
        self.clock = fake
        self.events: list[Event] = []
        self._memory = memory

    # -- time

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass for the ticker, in rounds; the last one reads all counts.

        Args:
            seconds: How much time passes. 0 only samples, as `look()` does.

        Example: `captured.advance(12)`
        """
        from otel_progress.live.engine import runtime
        from otel_progress.live.engine.ticker import ROUNDS

        step = runtime.ticker.interval / ROUNDS
        left = seconds
        while left > step:
            self.clock.sleep(step)
            runtime.ticker.round()
            left -= step
        self.clock.sleep(left)
        self.look()

    def look(self) -> None:
        """Let the ticker sample now, and call the listeners."""
        from otel_progress.live.engine import runtime
        from otel_progress.live.engine.listeners import dispatcher

        runtime.ticker.round(sample=True)
        dispatcher.drain(5.0)

    # -- signals

    def names(self) -> list[str]:
        """Return the names of the events, in order."""
        return [event.name for event in self.events]

    def of(self, name: str) -> list[Event]:
        """Return the events with this name, in order."""
        return [event for event in self.events if event.name == name]

    def ended(self, operation_name: str) -> Snapshot:
        """Return the final snapshot of the newest ended operation with this name.

        Raises:
            AssertionError: If no such operation has ended.
        """
        from otel_progress import semconv

        found = [e.snapshot for e in self.of(semconv.OPERATION_ENDED) if e.snapshot.name == operation_name]
        if not found:
            raise AssertionError(
                f"no operation {operation_name!r} ended; look() reads what was reported since the last advance()"
            )
        return found[-1]

    @property
    def logs(self) -> list[Log]:
        """The log events, as a receiver decodes them."""
        return self._memory.logs

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The spans that ended."""
        return self._memory.spans

    @property
    def series(self) -> list[Point]:
        """The points of the run series, as a receiver decodes them."""
        return self._memory.series

    def metrics(self) -> list[Point]:
        """Return the points of the metrics by operation name, as an export would send them now."""
        return self._memory.metrics()

    @property
    def drops(self) -> dict[str, int]:
        """How much was dropped, by drop reason."""
        from otel_progress.live.guard import drops

        return dict(drops)

    @property
    def logs_receiver(self) -> Receiver:
        """The receiver of log events; set its `answer` to make deliveries fail."""
        return self._memory.logs_receiver

    @property
    def metrics_receiver(self) -> Receiver:
        """The receiver of run series; set its `answer` to make deliveries fail."""
        return self._memory.metrics_receiver


@contextmanager
def capture(**settings: Any) -> Iterator[Capture]:
    """Capture all signals under a fake clock.

    Operations that run outside are not captured; they go on afterwards.

    Args:
        settings: Limits that differ from the defaults, by their names in `otel_progress.settings.Settings`. Updates
            leave each second, as while a monitor asks for all; `update_interval=None` captures what leaves otherwise.

    Example: `capture(event_budget=10)`
    """
    from otel_progress.live import hooks
    from otel_progress.live.diagnosis import movement
    from otel_progress.live.engine import runtime
    from otel_progress.settings import LIVE, Settings
    from otel_progress.telemetry.memory import Memory

    fake = FakeClock()
    with _apart(fake):
        movement.forget()  # another clock saw them
        memory = Memory(Settings(**{"update_interval": LIVE, **settings}))
        captured = Capture(fake, memory)
        hooks.paced_sinks.append(lambda event, _: captured.events.append(event))
        memory.hook()
        runtime.want()
        yield captured


@contextmanager
def _apart(fake: FakeClock) -> Iterator[None]:
    """Isolate a process within the process: its own registry, ticker, hooks and clock."""
    from otel_progress.live import context, hooks
    from otel_progress.live.engine import learning, listeners, process, runtime
    from otel_progress.live.engine.cadence import Cadence, cadence
    from otel_progress.live.engine.ticker import Ticker
    from otel_progress.live.guard import drops
    from otel_progress.live.registry import registry
    from otel_progress.outbound import trouble

    lists: tuple[list[Any], ...] = (
        hooks.on_operation,
        hooks.sinks,
        hooks.paced_sinks,
        hooks.item_sinks,
        hooks.verdicts,
        hooks.seen_ends,
        hooks.on_change,
        hooks.on_trouble,
        hooks.on_tick,
        hooks.on_process_end,
        process.at_exit,
        forks.in_child,
        listeners.to_all,
        listeners.to_all_verdicts,
    )
    go_on = runtime.ticker.park()
    kept = [list(items) for items in lists]
    state = (
        dict(vars(registry)),
        dict(drops),
        hooks.wanted,
        runtime.ticker,
        process.threads_allowed,
        listeners.dispatcher,
    )
    tracing, pace = dict(vars(hooks.tracing)), dict(vars(cadence))
    vars(cadence).update(vars(Cadence()))
    limits, hooks.limits = hooks.limits, weakref.WeakSet()
    on_first, hooks.on_first = hooks.on_first, None
    for items in lists:
        items.clear()
    registry.after_fork_in_child()
    process.threads_allowed, hooks.wanted = False, False
    runtime.ticker, listeners.dispatcher = Ticker(), listeners.Dispatcher()
    learned, learning.learning = learning.learning, learning.Learning()
    reporter, trouble.reporter = trouble.reporter, trouble.Reporter()
    token = context.innermost.set(None)
    stall_after, hooks.stall_after = hooks.stall_after, None
    configured, hooks.configured = hooks.configured, False
    if hooks.watcher is not None:
        hooks.watcher.forget()
    before = clock.install(fake)
    try:
        yield
    finally:
        clock.install(before)
        learning.learning, trouble.reporter = learned, reporter
        context.innermost.reset(token)
        generation = registry.generation
        vars(registry).update(state[0])
        registry.generation = generation if not state[0]["live"] else state[0]["generation"]
        drops.clear()
        drops.update(state[1])
        hooks.wanted, runtime.ticker, process.threads_allowed, listeners.dispatcher = state[2:]
        for items, before_items in zip(lists, kept):
            items[:] = before_items
        vars(hooks.tracing).update(tracing)
        vars(cadence).update(pace)
        hooks.limits, hooks.on_first = limits, on_first
        hooks.stall_after, hooks.configured = stall_after, configured
        if hooks.watcher is not None:
            hooks.watcher.forget()
        go_on()


if pytest is not None:

    @pytest.fixture
    def progress_capture() -> Iterator[Capture]:
        """Capture all signals of a test under a fake clock."""
        with capture() as captured:
            yield captured
