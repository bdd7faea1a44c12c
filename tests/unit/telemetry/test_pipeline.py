"""The way out for events and run series: what fails is tried again, in order, and harms nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

import otel_progress as progress
from otel_progress import Operation, semconv
from otel_progress.live import hooks
from otel_progress.live.engine import runtime
from otel_progress.outbound.answer import Answer
from otel_progress.telemetry.memory import Receiver
from otel_progress.telemetry.outbox import EncodedEvent
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.testing import Capture, FakeClock, capture

GOOD = Answer(delivered=True)
BUSY = Answer(False, retry=True, reason="HTTP 503")
REFUSED = Answer(False, about_data=True, reason="HTTP 400")
TOO_LARGE = Answer(False, about_data=True, too_large=True, reason="HTTP 413")
FORBIDDEN = Answer(False, reason="HTTP 401")


class Script:
    """Answers one after the other, the last again and again; keeps when it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.times: list[float] = []

    def __call__(self, body: bytes) -> Answer:
        from otel_progress import clock

        self.times.append(clock.monotonic() - 1000.0)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def names(captured: Capture, operation: Operation | None = None) -> list[str]:
    """What arrived, without the prefix and without the process's heartbeat."""
    return [
        log.event_name.removeprefix("progress.")
        for log in captured.logs
        if log.event_name != semconv.PROCESS_HEARTBEAT
        and (operation is None or log.attributes[semconv.OPERATION_ID] == operation.id)
    ]


# -- whose it is


def test_only_a_keyframe_comes_with_what_describes_the_process(progress_capture: Capture) -> None:
    """Whose request it is stands in each one; the command and the folder in few, as most hold one small event."""
    assert progress_capture.drops == {}
    whose = {"service.name": "s", "host.name": "h", "process.pid": 7, "mine": "x"}
    about = {"telemetry.sdk.name": "t", "process.command_args": ("run",), "process.working_directory": "/"}
    receiver = Receiver()
    pipeline = Pipeline(receiver, None, {**whose, **about}, "1", 10)
    for is_keyframe in (True, False):
        pipeline.post(EncodedEvent(semconv.UPDATED, "a", b"", is_keyframe))
        pipeline.flush(1.0)
    found = [ExportLogsServiceRequest.FromString(body).resource_logs[0].resource for body in receiver.requests]
    first, second = ({pair.key for pair in resource.attributes} for resource in found)
    assert first - second == about.keys()
    assert second == whose.keys() | {semconv.SCHEMA, semconv.HEARTBEAT_INTERVAL}


# -- retries


def test_a_failure_is_tried_again_with_longer_pauses(progress_capture: Capture) -> None:
    """After each failure the pause doubles, from 0.25 s to 5 s; a success resets it."""
    script = progress_capture.logs_receiver.answer = Script(*[BUSY] * 8, GOOD, BUSY)
    op = progress.operation("survey").start()
    progress_capture.advance(23)
    op.note("x")
    progress_capture.advance(3)
    pauses = [round(later - sooner, 2) for sooner, later in zip(script.times, script.times[1:])]
    assert pauses[:8] == [0.25, 0.5, 1, 2, 4, 5, 5, 5]
    assert pauses[9:12] == [0.25, 0.5, 1]


@pytest.mark.parametrize(("asked", "waited"), [(3.0, 3.0), (0.0, 0.25), (3600.0, 60.0)])
def test_retry_after_is_obeyed(asked: float, waited: float, progress_capture: Capture) -> None:
    """A receiver that asks for a pause gets it, up to a minute."""
    script = progress_capture.logs_receiver.answer = Script(Answer(False, retry=True, after=asked), GOOD)
    progress.operation("survey").start()
    progress_capture.advance(70)
    assert script.times[1] - script.times[0] == pytest.approx(waited)


def test_nothing_is_lost_and_the_order_stays_over_failures(progress_capture: Capture) -> None:
    """What happened during an outage arrives after it, complete and in its order."""
    receiver = progress_capture.logs_receiver
    op = progress.operation("survey").start()
    progress_capture.advance(1)
    receiver.answer = lambda _: BUSY
    for number in range(5):
        with op.stage(f"s{number}"):
            progress_capture.advance(2)
    op.complete()
    progress_capture.advance(1)
    assert names(progress_capture) == ["operation.started"]
    receiver.answer = lambda _: GOOD
    progress_capture.advance(10)
    state = [name for name in names(progress_capture, op) if name != "updated"]
    assert state == ["operation.started", *["stage.started", "stage.ended"] * 5, "operation.ended"]
    numbers = [log.attributes[semconv.SEQUENCE] for log in progress_capture.logs if semconv.SEQUENCE in log.attributes]
    assert numbers == sorted(numbers)
    assert progress_capture.drops == {}


def test_updates_are_coalesced_during_an_outage(progress_capture: Capture) -> None:
    """However long the receiver is away, at most one plain update of an operation waits for it."""
    receiver = progress_capture.logs_receiver
    op = progress.operation("survey").start()
    progress_capture.advance(1)
    receiver.answer = lambda _: BUSY
    for _ in range(300):
        op.advance()
        progress_capture.advance(1)
    receiver.answer = lambda _: GOOD
    progress_capture.advance(10)
    came, late = names(progress_capture, op)[:2], names(progress_capture, op)[2:]
    assert came == ["operation.started", "updated"]
    assert late in ([], ["updated"], ["updated"] * 2)  # the pace that was told no longer holds
    assert any(log.attributes.get(semconv.COMPLETED) == 300 for log in progress_capture.logs)


def test_an_outage_longer_than_the_outbox_is_counted_and_leaves_no_operation_open() -> None:
    """When more happened than the outbox holds, the rest is counted, and each operation that was known has its end."""
    with capture(outbox=50) as captured:
        known = [progress.operation("survey").start() for _ in range(20)]
        captured.advance(1)
        captured.logs_receiver.answer = lambda _: BUSY
        for number in range(200):
            with progress.operation("survey") as op, op.stage("s"):
                op.note("x")
            if number % 10 == 0:
                known[number // 10].complete()
                captured.advance(1)
        captured.logs_receiver.answer = lambda _: GOOD
        captured.advance(10)
        ended = {
            log.attributes[semconv.OPERATION_ID] for log in captured.logs if log.event_name == semconv.OPERATION_ENDED
        }
        heard = {
            log.attributes[semconv.OPERATION_ID] for log in captured.logs if log.event_name != semconv.PROCESS_HEARTBEAT
        }
        assert heard - ended == set()
        assert {op.id for op in known} <= ended
        assert captured.drops[semconv.DROP_OUTBOX] > 200


def test_what_is_refused_is_let_go_and_counted(progress_capture: Capture) -> None:
    """Events that a receiver refuses for what they hold are not sent again; they are counted, and the next ones go."""
    script = progress_capture.logs_receiver.answer = Script(REFUSED, GOOD)
    op = progress.operation("survey").start()
    op.stage("parse").start()
    runtime.ticker.round()
    assert progress_capture.drops[semconv.DROP_REJECTED] == 2
    op.complete()
    progress_capture.advance(1)
    assert names(progress_capture) == ["stage.ended", "operation.ended"]
    assert len(script.times) == 2


def test_a_request_that_is_too_large_goes_in_parts(progress_capture: Capture) -> None:
    """A receiver with a limit of its own (413) gets smaller requests; only an event that is too large alone is lost."""
    sizes: list[int] = []

    def limited(body: bytes) -> Answer:
        sizes.append(len(body))
        return TOO_LARGE if len(body) > 20_000 else GOOD

    progress_capture.logs_receiver.answer = limited
    op = progress.operation("survey").start()
    for number in range(30):
        op.note("x" * 900, number=number)
    op.complete()
    progress_capture.advance(2)
    assert max(sizes) > 20_000
    assert names(progress_capture, op)[0] == "operation.started"
    assert names(progress_capture, op)[-1] == "operation.ended"
    assert names(progress_capture).count("note") == 30
    assert progress_capture.drops == {}


def test_a_receiver_that_finds_all_too_large_loses_each_event_once(progress_capture: Capture) -> None:
    """Where even one event alone is too large, it is dropped and counted, and the next one is tried."""
    progress_capture.logs_receiver.answer = lambda _: TOO_LARGE
    op = progress.operation("survey").start()
    op.complete()
    runtime.ticker.round()
    assert progress_capture.drops == {semconv.DROP_REJECTED: 2}


def test_a_receiver_that_takes_nothing_is_asked_less_and_less(progress_capture: Capture) -> None:
    """A receiver that answers 401 is not asked at each round: the pauses grow as after any failure."""
    script = progress_capture.logs_receiver.answer = Script(FORBIDDEN)
    op = progress.operation("survey").start()
    for _ in range(60):
        op.note("x")
        progress_capture.advance(1)
    assert len(script.times) < 20
    assert progress_capture.drops[semconv.DROP_REJECTED] > 0


def test_partial_success_is_counted(progress_capture: Capture) -> None:
    """What a receiver refused although it took the request is counted, but never more than the request held."""
    progress_capture.logs_receiver.answer = lambda _: Answer(True, rejected=2)
    op = progress.operation("survey").start()
    for _ in range(3):
        op.stage("s").start()
    runtime.ticker.round()
    assert progress_capture.drops[semconv.DROP_REJECTED] == 2
    progress_capture.logs_receiver.answer = lambda _: Answer(True, rejected=999)
    op.complete()
    progress_capture.clock.sleep(0.25)
    runtime.ticker.round()
    assert progress_capture.drops[semconv.DROP_REJECTED] == 2 + 4


def test_a_failure_is_told_once_until_it_is_over(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once that nothing is delivered, with the reason, once that it is over, and then anew."""
    op = progress.operation("survey").start()
    with caplog.at_level(logging.WARNING, "otel_progress"):
        for answer in (BUSY, GOOD, BUSY):
            progress_capture.logs_receiver.answer = lambda _, answer=answer: answer
            for _ in range(20):
                op.note("x")
                progress_capture.advance(1)
    told = [record.getMessage() for record in caplog.records if "can't be delivered" in record.getMessage()]
    assert len(told) == 2
    assert "HTTP 503" in told[0]
    assert sum("takes log events now" in record.getMessage() for record in caplog.records) == 1


def test_logs_and_metrics_fail_apart(progress_capture: Capture) -> None:
    """A receiver of metrics that is away holds back no event, and the other way round."""
    op = progress.operation("survey").start()
    progress_capture.metrics_receiver.answer = lambda _: BUSY
    progress_capture.advance(30)
    op.note("x")
    progress_capture.advance(0.25)
    assert names(progress_capture)[-1] == "note"
    assert progress_capture.series == []
    progress_capture.metrics_receiver.answer = lambda _: GOOD
    progress_capture.logs_receiver.answer = lambda _: BUSY
    progress_capture.advance(30)
    assert len({point.time for point in progress_capture.series}) == 3


# -- series


def test_series_that_wait_are_replaced_by_newer_ones() -> None:
    """Values of run series are never sent late: after an outage only the newest go."""
    with capture(run_series_after=0.0) as captured:
        op = progress.operation("survey").start()
        captured.metrics_receiver.answer = lambda _: Answer(False, retry=True, after=60.0)
        captured.advance(60)
        captured.metrics_receiver.answer = lambda _: GOOD
        captured.advance(20)
        ages = sorted({(point.time - captured.clock.time_ns()) / 1e9 for point in captured.series})
        assert ages == [-19.75, -9.75]
        op.complete()


# -- without a thread, and without receivers


def pipeline(logs: Receiver | None, metrics: Receiver | None, outbox: int = 100) -> Pipeline:
    """A pipeline of its own."""
    return Pipeline(logs, metrics, {"service.name": "test"}, "1", outbox)


def test_a_signal_that_is_turned_off_costs_nothing(progress_capture: Capture) -> None:
    """Without a receiver for a signal its events are not even kept."""
    silent = pipeline(None, None)
    silent.post(EncodedEvent(semconv.NOTE, "a", b"x"))
    silent.post_series([(b"x", lambda: None)])
    silent.poke()
    assert silent.flush(0.1)
    assert len(silent._outbox) == 0
    assert not silent.series_waiting


def test_flush_sends_at_once_whatever_pause_was_asked_for(progress_capture: Capture) -> None:
    """`flush` tries at once to send what waits, and returns whether everything was sent."""
    receiver = progress_capture.logs_receiver
    receiver.answer = lambda _: Answer(False, retry=True, after=60.0)
    op = progress.operation("survey").start()
    progress_capture.advance(1)
    assert names(progress_capture) == []
    op.complete()
    receiver.answer = lambda _: GOOD
    assert runtime.finish(2.0)
    assert names(progress_capture) == ["operation.started", "operation.ended"]


def test_flush_sends_known_ends_first() -> None:
    """If there is time for one request only, it holds the end of an operation that the receiver knows."""
    receiver = Receiver()
    sender = pipeline(receiver, None, 10_000)
    sender.post(EncodedEvent(semconv.OPERATION_STARTED, "known", b"start"))
    assert sender.flush(1.0)
    for _ in range(20):
        sender.post(EncodedEvent(semconv.NOTE, "other", b"x" * 600_000))
    sender.post(EncodedEvent(semconv.OPERATION_ENDED, "known", b"the end"))
    requests: list[bytes] = []

    def refuses_the_second(body: bytes) -> Answer:
        requests.append(body)
        return GOOD if len(requests) == 1 else Answer(False, retry=True)

    receiver.answer = refuses_the_second
    assert not sender.flush(1.0)
    assert b"the end" in requests[0]


def test_flush_gives_up_at_its_deadline(progress_capture: Capture) -> None:
    """A slow receiver gets no request after the deadline, so that the end of the process is never held up."""
    fake = progress_capture.clock
    receiver = Receiver()

    def slow(_: bytes) -> Answer:
        fake.sleep(0.5)
        return GOOD

    receiver.answer = slow
    sender = pipeline(receiver, None, 10_000)
    for _ in range(20):
        sender.post(EncodedEvent(semconv.OPERATION_ENDED, "a", b"x" * 600_000))
    began = fake.monotonic()
    assert not sender.flush(2.0)
    assert fake.monotonic() - began <= 2.5
    assert isinstance(fake, FakeClock)


# -- garbage


class Hostile:
    """An object that can't be shown, compared or hashed."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def deep(op: Operation) -> None:
    """3,000 stages in each other."""
    stage: Any = op
    for _ in range(3000):
        stage = stage.stage("s" * 50).start()


def many(op: Operation) -> None:
    """10,000 stages one after the other."""
    for number in range(10_000):
        op.stage(f"s{number}").start().complete()


ODD: list[Any] = [
    float("nan"),
    float("inf"),
    -1,
    10**400,
    b"\xff\xfe",
    "\ud800 lone",
    "x" * 1_000_000,
    Hostile(),
    nested(500),
    {"a": {"b": nested(3)}},
    set(range(1000)),
    None,
    "\x00",
]


def odd(op: Operation) -> None:
    """Every odd value in every place."""
    for value in ODD:
        op.set(a=value, **{"k" * 300: value})
        op.note(value, status=value, extra=value)
        op.record(value, item=value, component=value)
        op.update(completed=value, total=value, ratio=value, message=value)
        op.usage(input_tokens=value, output_tokens=value, cost=value, currency=value)
        op.result(x=value)
        op.heartbeat(x=value)
        with op.waiting(value, overdue_after=value if isinstance(value, (int, float)) else None):
            op.advance(value)


def huge(op: Operation) -> None:
    """All attributes there may be, each as long as may be."""
    attributes = {f"k{number}": ["ü" * 5000] * 100 for number in range(200)}
    op.set(**attributes)
    op.result(**attributes)
    op.note("x", **attributes)
    for number in range(8):
        op.stage(f"s{number}", attributes=attributes, description="ü" * 5000).start()


GARBAGE: list[Callable[[Operation], None]] = [odd, deep, many, huge]


@pytest.mark.parametrize("make", GARBAGE)
def test_garbage_in_one_operation_harms_no_other(make: Callable[[Operation], None], progress_capture: Capture) -> None:
    """Whatever one operation reports, all events, series and spans of the others arrive, and its own end does too."""
    good = progress.operation("good").start()
    bad = progress.operation("bad").start()
    progress_capture.advance(1)
    with good.stage("parse", total=3):
        make(bad)
        good.note("in between")
        progress_capture.advance(12)
    bad.fail("\ud800")
    good.complete()
    progress_capture.advance(2)
    assert [name for name in names(progress_capture, good) if name != "updated"] == [
        "operation.started",
        "stage.started",
        "note",
        "stage.ended",
        "operation.ended",
    ]
    assert names(progress_capture, bad)[-1] == "operation.ended"
    assert max(map(len, progress_capture.logs_receiver.requests)) < 1024 * 1024
    series = [p for p in progress_capture.series if p.attributes[semconv.OPERATION_NAME] == "good"]
    assert series[-1].value == 0.0
    assert {"good", "bad", "parse"} <= {span.name for span in progress_capture.spans}
    for span in progress_capture.spans:
        span.to_json().encode()
    assert semconv.DROP_REJECTED not in progress_capture.drops


def test_a_sink_that_fails_stops_no_other(progress_capture: Capture) -> None:
    """A listener of ours that raises is logged once; all others get everything."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    hooks.sinks.insert(0, fail)
    hooks.on_change.insert(0, fail)
    hooks.on_tick.insert(0, fail)
    with progress.operation("survey"):
        progress_capture.advance(1)
    progress_capture.advance(1)
    assert names(progress_capture) == ["operation.started", "operation.ended"]
    assert [point.name for point in progress_capture.metrics() if point.name == semconv.OPERATION_DURATION.name]
