"""Metrics by operation name, on the application's meter provider.

Counts are observed when they are read, so they cost the job nothing, and start from zero in a forked child. Only
durations are recorded, by the ticker, each in the context of its span, which makes it an exemplar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.trace import set_span_in_context

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live import hooks
from otel_progress.live.counting import own_progress
from otel_progress.live.engine import resources
from otel_progress.live.engine.branch_verdicts import figures
from otel_progress.live.guard import drops
from otel_progress.live.registry import registry
from otel_progress.live.state import Change, StageState
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState

STAGE_NAMES: Final = 30
"""Stage names for each operation name that have a label of their own; the rest share `_other`."""
BUCKETS: Final = (0.1, 0.3, 0.7, 1.5, 3.5, 8, 20, 45, 100, 240, 540, 1200, 2700, 6000, 14400, 36000, 90000)
"""Bounds of the explicit buckets of durations: `benchmarks/bill.py` measures what they mean for quantiles."""
NAMES_AT_ZERO: Final = 500
"""Operation names with a counter of the lost, as the SDK takes 2,000 sets of labels of an instrument."""

Observations = Iterable[Observation]
Read = Callable[[], Observations]


class ByName:
    """The instruments, and the values that they observe."""

    def __init__(self, meter: Meter) -> None:
        """Create the instruments on a meter."""
        self._stages: dict[str, set[str]] = {}
        self._units: dict[tuple[str, str, str], float] = {}
        self._units_seen: dict[tuple[str, str, str], float] = {}
        self._operation = _histogram(meter, s.OPERATION_DURATION)
        self._stage = _histogram(meter, s.STAGE_DURATION)
        _observe(meter.create_observable_up_down_counter, s.ACTIVE, self._active)
        _observe(meter.create_observable_counter, s.STARTED, _started)
        _observe(meter.create_observable_counter, s.ENDED, _ended)
        _observe(meter.create_observable_counter, s.UNITS_COMPLETED, self._completed)
        _observe(meter.create_observable_counter, s.TOKENS, _tokens)
        _observe(meter.create_observable_counter, s.COST, _cost)
        _observe(meter.create_observable_counter, s.DROPS, _drops)
        _observe(meter.create_observable_gauge, s.STALL_RATIO, _stall_ratio)
        _observe(meter.create_observable_gauge, s.LIMIT_SIZE, _limit_sizes)
        _observe(meter.create_observable_counter, s.PROCESS_CPU_TIME, _cpu_time)
        _observe(meter.create_observable_gauge, s.PROCESS_CPU_UTILIZATION, lambda: _sampled("cpu"))
        _observe(meter.create_observable_up_down_counter, s.PROCESS_MEMORY_USAGE, lambda: _sampled("memory"))
        _observe(meter.create_observable_up_down_counter, s.PROCESS_THREADS, lambda: _sampled("threads"))
        _observe(meter.create_observable_counter, s.PROCESS_DISK_IO, _disk_io)

    def restart(self) -> None:
        """Count from zero in a forked child."""
        self._units.clear()
        self._units_seen.clear()

    def on_change(self, change: Change) -> None:
        """Record the duration of an operation or stage that ended, and add its units."""
        event, operation, node = change[:3]
        name = registry.name_of(operation)
        if event == s.STAGE_ENDED:
            stage = self._stage_name(name, node.name)
            if stage != node.name:
                drops.add(s.DROP_STAGE_NAME)
            self._record(self._stage, node, {s.OPERATION_NAME: name, s.STAGE_NAME: stage})
        elif event == s.OPERATION_ENDED:
            self._record(self._operation, node, {s.OPERATION_NAME: name})
        else:
            return
        for key, amount in self._units_of(name, node):
            self._units[key] = self._units.get(key, 0) + amount

    def _record(self, histogram: Histogram, node: HandleState, labels: dict[str, Any]) -> None:
        if node._ended is None or node._started is None:
            return
        labels[s.STATUS] = node._status.value
        context = set_span_in_context(node._span) if node._span is not None else None
        histogram.record(node._ended - node._started, labels, context)

    def _stage_name(self, operation: str, stage: str) -> str:
        known = self._stages.setdefault(operation, set())
        if stage in known:
            return stage
        if len(known) >= STAGE_NAMES:
            return s.OTHER_STAGE
        known.add(stage)
        return stage

    def _units_of(self, name: str, node: HandleState) -> Iterable[tuple[tuple[str, str, str], float]]:
        done, _, others = own_progress(node)
        stage = self._stage_name(name, node.name) if isinstance(node, StageState) else ""
        if done:
            yield (name, stage, node._unit), done
        for unit, count in others.items():
            yield (name, stage, unit), count

    # -- what is observed

    def _active(self) -> Observations:
        counts = dict.fromkeys(registry.started, 0)
        for operation in registry.operations():
            name = registry.name_of(operation)
            counts[name] = counts.get(name, 0) + (operation._status is Status.RUNNING)
        return [Observation(count, {s.OPERATION_NAME: name}) for name, count in counts.items()]

    def _completed(self) -> Observations:
        now = dict(self._units)
        for operation in registry.operations():
            for node in (operation, *(operation._running or ())):
                for key, amount in self._units_of(registry.name_of(operation), node):
                    now[key] = now.get(key, 0) + amount
        for key, amount in now.items():
            self._units_seen[key] = max(amount, self._units_seen.get(key, 0))
        return [
            Observation(amount, {s.OPERATION_NAME: name, s.UNIT: unit, **({s.STAGE_NAME: stage} if stage else {})})
            for (name, stage, unit), amount in self._units_seen.items()
        ]


def _histogram(meter: Meter, metric: s.Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=BUCKETS
    )


def _observe(create: Callable[..., Any], metric: s.Metric, read: Read) -> None:
    def callback(_: CallbackOptions) -> Observations:
        return read()

    create(metric.name, callbacks=[callback], unit=metric.unit, description=metric.description)


def _started() -> Observations:
    return [Observation(count, {s.OPERATION_NAME: name}) for name, count in list(registry.started.items())]


def _ended() -> Observations:
    """The ended operations; none was lost here, and the 0 lets stores see the rise if a watcher finds that all were."""
    counts = dict(list(registry.ended.items()))
    for name in list(registry.started)[:NAMES_AT_ZERO]:
        counts.setdefault((name, Status.LOST.value), 0)
    return [Observation(count, {s.OPERATION_NAME: name, s.STATUS: status}) for (name, status), count in counts.items()]


def _tokens() -> Observations:
    return [
        Observation(amount, {s.OPERATION_NAME: name, s.TOKEN_DIRECTION: key.removesuffix("_tokens")})
        for (name, key), amount in list(registry.usage.items())
        if key.endswith("_tokens")
    ]


def _cost() -> Observations:
    return [
        Observation(amount, {s.OPERATION_NAME: name, s.CURRENCY: key.removeprefix("cost.")})
        for (name, key), amount in list(registry.usage.items())
        if key.startswith("cost.")
    ]


def _cpu_time() -> Observations:
    return [] if resources.sampler.latest is None else [Observation(resources.cpu_seconds())]


def _sampled(what: str) -> Observations:
    """One value of the newest sample; none while no operation runs, as it would be stale."""
    latest = resources.sampler.fresh(clock.monotonic())
    value = None if latest is None else getattr(latest, what)
    return [] if value is None else [Observation(value)]


def _disk_io() -> Observations:
    latest = resources.sampler.latest
    told = {} if latest is None else {"read": latest.read_bytes, "write": latest.written_bytes}
    return [Observation(n, {s.DISK_DIRECTION: way}) for way, n in told.items() if n is not None]


def _drops() -> Observations:
    return [Observation(count, {s.DROP_REASON: reason}) for reason, count in list(drops.items())]


def _limit_sizes() -> Observations:
    sizes: dict[str, int] = {}
    for limit in list(hooks.limits)[:NAMES_AT_ZERO]:
        sizes[limit.name] = sizes.get(limit.name, 0) + limit.size
    return [Observation(size, {s.LIMIT_NAME: name}) for name, size in sizes.items()]


def _stall_ratio() -> Observations:
    now = clock.monotonic()
    worst = dict.fromkeys(registry.started, 0.0)  # of each name, so that no stale value stays
    for operation in registry.operations():
        if operation._status is not Status.RUNNING:
            continue
        seen = figures(operation, now)
        if seen.stall_after is not None:
            name = registry.name_of(operation)
            worst[name] = max(worst.get(name, 0.0), seen.idle / seen.stall_after)
    return [Observation(ratio, {s.OPERATION_NAME: name}) for name, ratio in worst.items()]
