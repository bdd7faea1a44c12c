"""Programs that don't know us: their spans make an operation a trace, as far as spans tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, fake_time, names, parts, seconds
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake.requests import Accepted
from otel_progress.monitor.state import foreign_traces
from otel_progress.monitor.state.core import CoreLimits
from otel_progress.testing import FakeClock

TRACE = bytes(range(16))
KEY = TRACE.hex()
AT = 1_700_000_000
REMOTE = 0x300


def span(
    name: str, number: int, above: int = 0, start: float = 0, end: float = 1, trace: bytes = TRACE, **more: Any
) -> Span:
    """A span; times in seconds of the trace, `above` is the number of its parent."""
    made = Span(
        trace_id=trace,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=above.to_bytes(8, "big") if above else b"",
        name=name,
        start_time_unix_nano=int((AT + start) * 1e9),
        end_time_unix_nano=int((AT + end) * 1e9),
        flags=more.pop("flags", 0),
    )
    if "error" in more:
        made.status.code, made.status.message = 2, more.pop("error")
    for key, value in more.items():
        pair = made.attributes.add(key=key.replace("__", "."))
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
    return made


def request(*made: Span, service: str = "shop", scope: str = "their.library", **resource: str) -> bytes:
    """A request of one service."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    for key, value in {"service.name": service, "service.instance.id": f"{service}-1", **resource}.items():
        group.resource.attributes.add(key=key).value.string_value = value
    by_scope = group.scope_spans.add()
    by_scope.scope.name = scope
    by_scope.spans.extend(made)
    return message.SerializeToString()


def say(monitor: Parts, *made: Span, **more: str) -> None:
    """A service sends these spans."""
    assert monitor.take(request(*made, **more), signal="traces") == [Accepted()]


def stages(monitor: Parts, key: str = KEY) -> list[str]:
    """The paths of the stages that are shown."""
    entry = monitor.core.ledger.find(key)
    assert entry is not None
    return [stage.path for stage in entry.snapshot.stages]


ROOT = span("checkout", 1, start=0, end=9)
CHILD = span("pay", 2, 1, 1, 5)
LEAF = span("http", 3, 2, 2, 3)


def test_root_last(monitor: Parts) -> None:
    """Until the root comes the operation runs, named after its service; then it is over, and named after the root."""
    say(monitor, LEAF)
    row = monitor.row(KEY)
    assert (row["name"], row["status"], row["source"], row["service"]) == ("shop", "running", "spans", "shop")
    say(monitor, CHILD)
    say(monitor, ROOT)
    row = monitor.row(KEY)
    assert (row["name"], row["status"], row["elapsed"]) == ("checkout", "completed", 9.0)
    assert stages(monitor) == ["pay", "pay/http"]
    assert monitor.history(KEY)[-1].event == s.OPERATION_ENDED


@settings(max_examples=60)
@given(st.permutations([ROOT, CHILD, LEAF, CHILD]), st.lists(st.integers(0, 4), max_size=2))
def test_any_order_doubles_and_restarts_end_in_the_same_state(order: list[Span], restarts: list[int]) -> None:
    """Root first or last, in one request or in many, twice, with a restart between: one end, and what it says."""
    from tempfile import TemporaryDirectory

    with fake_time(), TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        for number, one in enumerate(order):
            say(monitor, one)
            if number in restarts:
                monitor.restart()
        row = monitor.row(KEY)
        assert (row["name"], row["status"]) == ("checkout", "completed")
        assert names(monitor.history(KEY)).count(s.OPERATION_ENDED) == 1
        assert set(stages(monitor)) >= {"pay"}
        assert [key for key in monitor.core.labels if key == KEY] == []


def test_late_span_does_not_make_it_run_again(monitor: Parts) -> None:
    """A span that comes after the root is a stage more of an operation that is over, also from another service."""
    say(monitor, ROOT)
    say(monitor, CHILD)
    say(monitor, span("store", 4, 2, 3, 4, flags=REMOTE), service="bank")
    row = monitor.row(KEY)
    assert (row["status"], row["name"], row["service"]) == ("completed", "checkout", "shop")
    assert stages(monitor) == ["pay", "pay/store"]


def test_root_after_a_restart_ends_what_ran_before(monitor: Parts) -> None:
    """A trace that was half heard before the restart ends when its root comes, with the stages of before."""
    say(monitor, CHILD)
    monitor.restart()
    say(monitor, ROOT)
    assert monitor.row(KEY)["status"] == "completed"
    assert stages(monitor) == ["pay"]
    monitor.restart()
    say(monitor, LEAF)
    assert monitor.row(KEY)["status"] == "completed"
    assert len(stages(monitor)) == 2


def test_retry_counts_nothing_twice(monitor: Parts) -> None:
    """A request that comes again adds no stage, no tokens and no second end."""
    call = span("chat", 2, 1, gen_ai__usage__input_tokens=10)
    for _ in range(3):
        say(monitor, call, ROOT)
    assert monitor.row(KEY)["tokens"] == {"input": 10}
    assert stages(monitor) == ["chat"]
    assert names(monitor.history(KEY)) == [s.OPERATION_ENDED]


def test_two_requests_in_one_moment_both_count(monitor: Parts) -> None:
    """Order does not hang on the clock."""
    say(monitor, CHILD)
    say(monitor, LEAF)
    assert len(stages(monitor)) == 2


def test_what_another_service_was_called_for_is_not_the_end(monitor: Parts) -> None:
    """The span of the called one ends first; the operation goes on until the caller's root ends."""
    say(monitor, span("charge", 5, 2, 2, 3, flags=REMOTE), service="bank")
    assert monitor.row(KEY)["status"] == "running"
    say(monitor, CHILD)
    assert monitor.row(KEY)["status"] == "running"
    say(monitor, ROOT)
    row = monitor.row(KEY)
    assert (row["status"], row["name"], row["service"]) == ("completed", "checkout", "shop")
    assert stages(monitor) == ["pay", "pay/charge"]


def test_caller_that_is_never_heard_is_not_waited_for(monitor: Parts, fake: FakeClock) -> None:
    """Where only what was called is heard, that counts as the end after a while; if more comes, it runs again."""
    say(monitor, span("charge", 5, 2, 2, 3, flags=REMOTE), service="bank")
    seconds(fake, monitor, foreign_traces.SETTLED - 1)
    assert monitor.row(KEY)["status"] == "running"
    seconds(fake, monitor, 2)
    row = monitor.row(KEY)
    assert (row["status"], row["name"], row["elapsed"]) == ("completed", "charge", 1.0)
    assert len(monitor.core.labels) == 0
    say(monitor, span("charge", 5, 2, 2, 3, flags=REMOTE), service="bank")
    assert monitor.row(KEY)["status"] == "completed"
    say(monitor, CHILD)
    assert monitor.row(KEY)["status"] == "running"
    say(monitor, span("checkout", 1, start=0, end=9, error="no money"))
    row = monitor.row(KEY)
    assert (row["status"], row["reason"]) == ("failed", "no money")


def test_trace_without_a_root_is_lost_in_the_end(fake: FakeClock, tmp_path: Path) -> None:
    """It does not run for ever, and is not dead: spans come only at their end."""
    with parts(tmp_path / "m.db", presume_after=100.0) as monitor:
        say(monitor, CHILD)
        seconds(fake, monitor, 99)
        assert (monitor.row(KEY)["status"], monitor.health(KEY)) == ("running", "progressing")
        seconds(fake, monitor, 2)
        assert monitor.row(KEY)["status"] == "lost"
        say(monitor, ROOT)
        assert monitor.row(KEY)["status"] == "completed"


def test_error(monitor: Parts) -> None:
    """An operation fails when its root says so; a stage that fails does not make it fail."""
    say(monitor, span("pay", 2, 1, error="declined"))
    say(monitor, ROOT)
    entry = monitor.core.ledger.find(KEY)
    assert entry is not None
    assert [(one.status, one.reason) for one in entry.snapshot.stages] == [(Status.FAILED, "declined")]
    assert entry.snapshot.status is Status.COMPLETED
    say(monitor, span("other", 9, trace=bytes(15) + b"x", error=""))
    row = monitor.row((bytes(15) + b"x").hex())
    assert (row["status"], row["reason"]) == ("failed", "the root span says error")


def test_agent_and_its_usage(monitor: Parts) -> None:
    """The agent is that of the root; tokens are those of the calls, not counted again where an agent sums them up."""
    calls = [
        span(
            "chat",
            number,
            9,
            gen_ai__usage__input_tokens=10,
            gen_ai__usage__output_tokens=1,
            gen_ai__operation__name="chat",
        )
        for number in (2, 3)
    ]
    helper = span(
        "helper",
        9,
        1,
        gen_ai__agent__name="helper",
        gen_ai__operation__name="invoke_agent",
        gen_ai__usage__input_tokens=20,
    )
    root = span(
        "invoke", 1, gen_ai__agent__name="boss", gen_ai__operation__name="invoke_agent", gen_ai__usage__input_tokens=20
    )
    say(monitor, *calls, helper, root)
    row = monitor.row(KEY)
    assert (row["agent"], row["tokens"]) == ("boss", {"input": 20, "output": 2})
    other = bytes(15) + b"y"
    say(monitor, span("invoke", 1, trace=other, gen_ai__operation__name="invoke_agent", gen_ai__usage__input_tokens=7))
    assert monitor.row(other.hex())["tokens"] == {"input": 7}


def test_our_own_spans_are_not_doubled(monitor: Parts) -> None:
    """Not those of a process that gives heartbeats, nor in a trace that log events tell of, nor of our scope."""
    monitor.beat("shop-1")
    say(monitor, ROOT)
    assert monitor.core.ledger.find(KEY) is None
    monitor.say(
        Snapshot("a", "work", Status.RUNNING, float(AT), sequence=1, started_at=float(AT)),
        event=s.OPERATION_STARTED,
        instance="other",
        trace=KEY,
    )
    say(monitor, ROOT, service="third")
    assert monitor.core.ledger.find(KEY) is None
    say(monitor, span("work", 1, trace=bytes(15) + b"z"), service="fourth", scope=s.SCOPE)
    assert list(monitor.core.ledger.operations) == ["a"]


def test_bounds(monitor: Parts) -> None:
    """More traces in one request than are followed, and more spans than are remembered: all are told, none is held."""
    monitor.options = {"limits": CoreLimits(traces=10, spans=100)}
    monitor.restart()
    say(monitor, *(span("one", 2, 1, trace=number.to_bytes(16, "big")) for number in range(1, 50)))
    assert len(monitor.core.ledger.operations) == 49
    assert len(monitor.core._traces._traces) <= 10
    say(monitor, *(span("one", number, 1, number, number + 1) for number in range(2, 500)))
    entry = monitor.core.ledger.find(KEY)
    assert entry is not None
    assert len(entry.snapshot.stages) == foreign_traces.STAGES
    assert sum(count for _, count, _ in entry.snapshot.folded) == 498 - foreign_traces.STAGES
    assert len(monitor.core._traces._traces) <= 10


def test_those_that_are_over_make_room_first(monitor: Parts) -> None:
    """A trace that goes on is not forgotten for one that is over."""
    monitor.options = {"limits": CoreLimits(traces=3)}
    monitor.restart()
    say(monitor, CHILD)
    for number in range(1, 20):
        say(monitor, span("quick", 1, trace=number.to_bytes(16, "big")))
    assert TRACE in monitor.core._traces._traces


@pytest.mark.parametrize(
    "odd",
    [
        Span(trace_id=TRACE, span_id=b"12345678"),
        Span(trace_id=TRACE, span_id=b"", name="x"),
        Span(trace_id=b"short", span_id=b"12345678", name="x"),
        Span(trace_id=TRACE, span_id=b"12345678", parent_span_id=b"12345678", name="x/y" * 1000),
        Span(trace_id=TRACE, span_id=b"12345678", start_time_unix_nano=2**64 - 1, end_time_unix_nano=1),
    ],
    ids=range(5),
)
def test_odd_spans_harm_nothing(monitor: Parts, odd: Span) -> None:
    """Without a name, without times, without ids, above itself: the request is taken, and what follows too."""
    say(monitor, odd, CHILD)
    say(monitor, ROOT)
    entry = monitor.core.ledger.find(KEY)
    assert entry is not None
    monitor.views.detail(entry)
    assert entry.head.status.final
