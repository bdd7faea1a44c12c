"""The heartbeat of the process: it leaves when nothing else does, and the interval is known without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.live.engine import process
from otel_progress.model import wire
from otel_progress.outbound.answer import Answer
from otel_progress.telemetry.memory import Log
from otel_progress.testing import START, Capture, capture

MONITOR = Answer(delivered=True, control="/control")
COLLECTOR = Answer(delivered=True)
DOWN = Answer(False, retry=True, reason="HTTP 503")


def beats(captured: Capture) -> list[Log]:
    """The heartbeats of the process."""
    return [log for log in captured.logs if log.event_name == semconv.PROCESS_HEARTBEAT]


def seconds(log: Log) -> float:
    """When it was sent, since the start."""
    return (log.time - START) / 1e9


def resources(captured: Capture) -> list[dict[str, float]]:
    """The numbers in the resource of each request of events; there is one in each."""
    found = []
    for body in captured.logs_receiver.requests:
        [group] = ExportLogsServiceRequest.FromString(body).resource_logs
        assert len(group.scope_logs) == 1
        pairs = {pair.key: pair.value for pair in group.resource.attributes}
        found.append({key: value.double_value or value.int_value for key, value in pairs.items()})
    return found


def intervals(captured: Capture) -> list[float]:
    """The interval that each request of events promises."""
    return [about[semconv.HEARTBEAT_INTERVAL] for about in resources(captured)]


@pytest.mark.parametrize(("answer", "interval"), [(MONITOR, 5.0), (COLLECTOR, 15.0)])
def test_a_quiet_process_beats_as_its_receiver_needs(answer: Answer, interval: float) -> None:
    """While nothing else is sent, a monitor hears of it each 5 s, another receiver each 15 s; and each minute how it is."""
    with capture() as captured:
        captured.logs_receiver.answer = lambda _: answer
        progress.operation("survey").start()
        captured.advance(10 * 15.0)
        times = [seconds(log) for log in beats(captured)]
        assert [late - early for early, late in pairwise(times[1:])] == [interval] * (len(times) - 2)
        assert len(times) >= 8
        assert intervals(captured)[-1] == interval
        told = [seconds(log) for log in beats(captured) if semconv.PROCESS_IN_FLIGHT in log.attributes]
        assert [late - early for early, late in pairwise(told)] == [60.0] * (len(told) - 1)
        assert told[0] == times[0]


def test_what_is_sent_anyway_stands_for_a_heartbeat() -> None:
    """Whoever sends events more often than its interval sends one heartbeat a minute, with how the process is."""
    with capture() as captured:
        op = progress.operation("survey").start()
        for _ in range(200):
            op.advance()
            captured.advance(1)
        assert [seconds(log) for log in beats(captured)] == [60.0, 120.0, 180.0]
        assert [log.attributes[semconv.PROCESS_IN_FLIGHT] for log in beats(captured)] == [1, 1, 1]


def test_a_request_that_does_not_arrive_is_no_sign_of_life() -> None:
    """During an outage heartbeats do not pile up; what waits is the sign of life when it is over."""
    with capture() as captured:
        op = progress.operation("survey").start()
        captured.advance(1)
        captured.logs_receiver.answer = lambda _: DOWN
        op.note("into the dark")
        captured.advance(59)
        captured.logs_receiver.answer = lambda _: COLLECTOR
        captured.advance(6)
        assert len(beats(captured)) == 1
        captured.advance(15)
        assert len(beats(captured)) == 2


def test_each_request_of_events_says_how_to_read_it() -> None:
    """The schema and the interval are in the one resource of each request of events, and in none of metrics."""
    with capture(heartbeat=2.5) as captured:
        op = progress.operation("survey").start()
        captured.advance(12)
        op.complete()
        captured.advance(1)
        assert set(intervals(captured)) == {2.5}
        assert {about[semconv.SCHEMA] for about in resources(captured)} == {wire.SCHEMA}
        assert captured.metrics_receiver.requests
        for body in captured.metrics_receiver.requests:
            [group] = ExportMetricsServiceRequest.FromString(body).resource_metrics
            assert not {semconv.SCHEMA, semconv.HEARTBEAT_INTERVAL} & {pair.key for pair in group.resource.attributes}


def test_a_request_has_one_resource_however_many_events_it_holds() -> None:
    """The resource and the scope are sent once a request, not once an event."""
    with capture() as captured:
        op = progress.operation("survey").start()
        for number in range(50):
            op.note(f"note {number}")
        captured.advance(0.25)
        assert len(resources(captured)) < 3
        assert len(captured.logs) > 50


def test_a_receiver_that_turns_out_to_be_a_monitor_is_promised_less_silence() -> None:
    """After the first answer of a monitor 5 s are promised; after one of another receiver 15 s, once it was told so."""
    with capture() as captured:
        captured.logs_receiver.answer = lambda _: MONITOR
        progress.operation("survey").start()
        captured.advance(21)
        first, *others = intervals(captured)
        assert (first, set(others)) == (15.0, {5.0})
        assert len(beats(captured)) == 4
        captured.logs_receiver.answer = lambda _: COLLECTOR
        captured.advance(60)
        times = [seconds(log) for log in beats(captured)]
        promised = intervals(captured)[-len(times) :]
        for early, late, promise in zip(times, times[1:], promised):
            assert late - early <= promise
        assert times[-1] - times[-2] == promised[-1] == 15.0


def test_what_was_dropped_is_told_soon() -> None:
    """If a limit drops something, the next interval brings a heartbeat, though other events are sent."""
    with capture(event_budget=0.01, heartbeat=5.0) as captured:
        operations = [progress.operation("survey").start() for _ in range(7)]
        for _ in range(80):
            for op in operations:
                for _ in range(20):
                    op.note("noise")
            operations[0].stage("step").start().complete()
            captured.advance(0.25)
        found = beats(captured)
        assert [seconds(log) for log in found] == [5.0, 10.0, 15.0, 20.0]
        assert json.loads(found[-1].attributes[semconv.DROPPED])[semconv.DROP_BUDGET] > 100
        assert [log.attributes[semconv.PROCESS_IN_FLIGHT] for log in found] == [7] * 4


def test_a_process_without_operations_beats() -> None:
    """A server with nothing to do is alive as well."""
    with capture(heartbeat=1.5) as captured:
        progress.operation("survey").start().complete()
        captured.advance(6.25)
        assert [seconds(log) for log in beats(captured)] == [1.75, 3.25, 4.75, 6.25]


class Loop(asyncio.AbstractEventLoop):
    """An event loop that answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closed = False
        self.running = True

    def is_closed(self) -> bool:
        return self.closed

    def is_running(self) -> bool:
        return self.running

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self.calls.append((callback, args))

    def answer(self) -> None:
        calls, self.calls = self.calls, []
        for callback, args in calls:
            callback(*args)


def lags(captured: Capture) -> list[float | None]:
    """The loop lags that the heartbeats told."""
    return [log.attributes.get(semconv.PROCESS_LOOP_LAG) for log in beats(captured)]


@pytest.fixture
def each_five_seconds() -> Iterator[Capture]:
    """A process that beats each 5 s while it is quiet."""
    with capture(heartbeat=5.0) as captured:
        yield captured


def test_the_heartbeat_tells_how_late_the_event_loop_is(each_five_seconds: Capture) -> None:
    """A loop that answers late is told with that delay; one that does not answer, with the time since it was asked."""
    captured, loop = each_five_seconds, Loop()
    process.loops.add(loop)
    progress.operation("survey").start()
    captured.advance(6)  # asked
    assert lags(captured) == [None]
    captured.advance(2)
    told_late = captured.clock.monotonic()
    loop.answer()
    captured.advance(4)  # told; asked again
    [_, late] = lags(captured)
    assert late == pytest.approx(told_late - 1000.0 - seconds(beats(captured)[0]))
    captured.advance(10)  # no answer
    assert lags(captured)[2:] == [pytest.approx(5.0), pytest.approx(10.0)]
    loop.running = False
    captured.advance(5)
    assert lags(captured)[-1] is None


def test_a_loop_that_is_over_is_not_late(each_five_seconds: Capture) -> None:
    """A loop that was closed, or that nobody runs, has no lag, whatever was asked of it before."""
    loop = Loop()
    process.loops.add(loop)
    progress.operation("survey").start()
    each_five_seconds.advance(6)
    loop.closed = True
    each_five_seconds.advance(20)
    assert lags(each_five_seconds) == [None] * 5


def test_a_real_loop_is_asked(each_five_seconds: Capture) -> None:
    """The loop on which an operation started is asked, and answers; it is told once a minute."""

    async def work() -> None:
        async with progress.operation("survey"):
            for seconds_more in (5.25, *[5.0] * 12):
                each_five_seconds.advance(seconds_more)
                await asyncio.sleep(0)

    asyncio.run(work())
    assert [lag for lag in lags(each_five_seconds) if lag is not None] == [pytest.approx(0.0)]
