"""Programs that don't know us: their spans make an operation a trace, as far as spans tell."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, fake_time, names, open_in, parts, seconds
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_progress import procfs
from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake.requests import Accepted, Refused
from otel_progress.monitor.state import foreign_traces
from otel_progress.monitor.state.core import CoreLimits
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.state.watcher import Watcher
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


def request(*made: Span, service: str = "shop", scope: str = "their.library", **resource: Any) -> bytes:
    """A request of one service."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    for key, value in {"service.name": service, "service.instance.id": f"{service}-1", **resource}.items():
        pair = group.resource.attributes.add(key=key.replace("__", "."))
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
    by_scope = group.scope_spans.add()
    by_scope.scope.name = scope
    by_scope.spans.extend(made)
    return message.SerializeToString()


def say(monitor: Parts, *made: Span, **more: Any) -> None:
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


# -- the same work by spans and by log events

WORK = Snapshot("job", "import", Status.RUNNING, AT + 2.0, sequence=2, started_at=float(AT))
EVENTS = [
    ("started", s.OPERATION_STARTED, replace(WORK, sequence=1)),
    ("moved", s.UPDATED, WORK),
    ("ended", s.OPERATION_ENDED, replace(WORK, sequence=3, status=Status.COMPLETED)),
]
SPANS = [
    ("root", span("import", 1, start=0, end=9)),
    ("stage", span("load", 2, 1, 1, 5)),
    ("call", span("http", 3, 2, 2, 3)),
    ("called", span("store", 4, 3, 2, 3, flags=REMOTE)),
]


def hear(monitor: Parts, name: str, *, traced: bool = True) -> None:
    """One span, or one log event of a program that has no SDK of ours."""
    for key, event, snapshot in EVENTS:
        if key == name:
            monitor.say(snapshot, event=event, instance="shop-1", trace=KEY if traced else None)
    for key, one in SPANS:
        if key == name:
            say(monitor, one, service="bank" if key == "called" else "shop")


ALL = [name for name, *_ in (*EVENTS, *SPANS)]


@settings(max_examples=80)
@given(st.permutations(ALL), st.sets(st.sampled_from(ALL)), st.lists(st.integers(0, 6), max_size=1))
def test_spans_and_events_in_any_order_are_one_operation(
    order: list[str], missing: set[str], restarts: list[int]
) -> None:
    """Whichever arrives first, and whatever is lost of either: one operation, and none that runs for ever beside it."""
    from tempfile import TemporaryDirectory

    heard = [name for name in order if name not in missing]
    told = [name for name, *_ in EVENTS if name in heard]
    with fake_time(), TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        for number, name in enumerate(heard):
            hear(monitor, name)
            if number in restarts and "ended" not in heard[: number + 1]:
                monitor.restart()
        known = list(monitor.core.ledger.operations)
        if heard and not told and not known:  # a restart loads only what runs
            assert monitor.row(KEY)["status"] == "completed"
        else:
            assert known == (["job"] if told else [KEY] if heard else [])
        monitor.restart()
        assert [one.operation_id for one in open_in(monitor.store)] == (
            ["job"] if told and "ended" not in told else [KEY] if not told and heard and "root" not in heard else []
        )
        if "ended" in told:
            assert monitor.row("job")["status"] == "completed"


def test_ghost_leaves_the_page(monitor: Parts) -> None:
    """A row that spans made before the first event is removed from memory, from the store, and from what readers see."""
    hear(monitor, "stage")
    hear(monitor, "started")
    assert monitor.core.journal.removed() == [KEY]
    assert monitor.store.recall(KEY) is None
    assert monitor.history(KEY) == []


def test_ghost_goes_although_the_store_can_not_be_written(fake: FakeClock, tmp_path: Path) -> None:
    """While the file is locked nothing is acknowledged; with the retry the row of the spans is gone."""
    from monitor_parts import event_of, request_of

    with parts(tmp_path / "m.db") as monitor:
        hear(monitor, "stage")
        write = monitor.store.write

        def fail(_: object) -> None:
            raise StoreError("locked", passing=True)

        body = request_of(event_of(WORK, s.OPERATION_STARTED, KEY), instance="shop-1")
        monitor.store.write = fail  # type: ignore[method-assign,assignment]
        assert isinstance(monitor.take(body)[0], Refused)
        monitor.store.write = write  # type: ignore[method-assign]
        assert monitor.take(body) == [Accepted()]
        assert monitor.store.recall(KEY) is None
        assert monitor.row("job")["status"] == "running"


@pytest.mark.parametrize("spans_first", [True, False])
def test_events_without_a_trace_meet_the_span_that_names_their_operation(monitor: Parts, spans_first: bool) -> None:
    """A program may send log events without the ids of its trace: `progress.operation.id` on its span says it all."""
    named = span("import", 1, start=0, end=9, progress__operation__id="job")
    child = span("load", 2, 1, 1, 5)
    if spans_first:
        say(monitor, child, named)
    hear(monitor, "started", traced=False)
    if not spans_first:
        say(monitor, named, child)
    say(monitor, span("late", 5, 2, 1, 2))
    assert list(monitor.core.ledger.operations) == ["job"]


def test_spans_before_the_first_heartbeat_leave_no_row(monitor: Parts) -> None:
    """A process that turns out to report by itself is not told of by its spans, whenever they came."""
    say(monitor, CHILD)
    monitor.beat("shop-1")
    assert monitor.core.ledger.find(KEY) is None
    say(monitor, ROOT)
    assert monitor.core.ledger.find(KEY) is None


# -- what spans alone tell


def test_start_is_that_of_the_root(monitor: Parts) -> None:
    """Until the root comes the earliest span counts; its history stays that of one attempt, also after a restart."""
    say(monitor, LEAF)
    assert monitor.row(KEY)["started_at"] == AT + 2
    say(monitor, CHILD)
    assert monitor.row(KEY)["started_at"] == AT + 1
    monitor.restart()
    say(monitor, ROOT)
    row = monitor.row(KEY)
    assert (row["started_at"], row["elapsed"], row["attempt"]) == (AT, 9.0, 1)
    monitor.restart()
    assert monitor.row(KEY)["started_at"] == AT
    assert {event.started_at for event in monitor.history(KEY)} == {float(AT)}


def test_running_request_is_named_after_the_service_that_nobody_called(monitor: Parts) -> None:
    """The call that another service ended first is not what runs: its name is not that of the operation."""
    charge = span("POST /charge", 5, 2, 2, 3, flags=REMOTE)
    say(monitor, span("query", 6, 5, 2, 3), service="bank")
    assert monitor.row(KEY)["name"] == "bank"
    say(monitor, charge, service="bank")
    assert monitor.row(KEY)["name"] == "bank"
    say(monitor, CHILD)
    row = monitor.row(KEY)
    assert (row["name"], row["service"], row["status"]) == ("shop", "shop", "running")


def call(number: int, above: int, kind: str, given: int, made: int) -> Span:
    """A span of OpenInference."""
    more = {"openinference__span__kind": kind, "llm__token_count__prompt": given, "llm__token_count__completion": made}
    return span(kind.lower(), number, above, number, number + 1, **more)


@settings(max_examples=30)
@given(st.permutations(range(5)))
def test_tokens_of_open_inference_count_once(order: list[int]) -> None:
    """Calls add up; a chain that sums them up, and a second instrumentation around a call, add nothing."""
    from tempfile import TemporaryDirectory

    both = span("chat", 7, 6, gen_ai__usage__input_tokens=5, llm__token_count__prompt=5)
    around = span("completion", 6, 1, gen_ai__usage__input_tokens=5)
    made = [call(2, 3, "LLM", 10, 1), call(4, 3, "LLM", 20, 2), call(3, 1, "CHAIN", 30, 3), around, both]
    with fake_time(), TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        for number in order:
            say(monitor, made[number])
        assert monitor.row(KEY)["tokens"] == {"input": 35, "output": 3}
        say(monitor, ROOT)
        assert monitor.row(KEY)["tokens"] == {"input": 35, "output": 3}


def test_tokens_go_on_after_a_restart(monitor: Parts) -> None:
    """What was counted before is not lost, and the root that sums everything up does not double it."""
    say(monitor, call(2, 1, "LLM", 10, 1))
    monitor.restart()
    say(monitor, call(3, 1, "LLM", 20, 2))
    assert monitor.row(KEY)["tokens"] == {"input": 30, "output": 3}
    say(monitor, span("agent", 1, llm__token_count__prompt=30, llm__token_count__completion=3))
    assert monitor.row(KEY)["tokens"] == {"input": 30, "output": 3}


class Machine:
    """A machine with one process, which runs Node.js since long."""

    def __init__(self) -> None:
        self.alive = True
        self.name = "node"

    def look(self, pid: int) -> procfs.ProcessStat | None:
        """The process."""
        return procfs.ProcessStat(pid, 1, "S") if self.alive and pid == 77 else None

    def created(self, _: procfs.ProcessStat) -> float | None:
        """A minute before the trace."""
        return AT - 60.0

    def executable(self, _: int) -> str | None:
        """What it runs."""
        return self.name

    def has_running_thread(self, _: int) -> bool:
        return False

    def waits_in(self, _: int) -> str:
        """Unknown."""
        return ""

    def memory_kills(self) -> int | None:
        """None."""
        return 0

    def pid_space(self) -> procfs.PidSpace:
        """This machine."""
        return procfs.PidSpace("boot", "pid:[1]", "machine")

    def is_hidden(self, _: int) -> bool:
        """No."""
        return False

    def has_connection(self, pid: int, port: int) -> bool:
        """No."""
        return False


@pytest.fixture
def machine(monitor: Parts) -> Machine:
    """The machine of the monitor."""
    found = Machine()
    monitor.core.watcher = Watcher(
        monitor.core.submit, lambda _: None, probe=found, ledger=monitor.core.ledger, eager=False
    )
    return found


NODE: dict[str, Any] = {"process__pid": 77, "host__name": socket.gethostname(), "process__executable__name": "node"}


def test_killed_process_loses_its_requests(monitor: Parts, fake: FakeClock, machine: Machine) -> None:
    """After SIGKILL no root comes; where pid and host are known, the request does not run for ever."""
    recorder = monitor.listen()
    say(monitor, CHILD, **NODE)
    seconds(fake, monitor, 5)
    assert monitor.row(KEY)["status"] == "running"
    machine.alive = False
    seconds(fake, monitor, 3)
    assert monitor.row(KEY)["status"] == "lost"
    assert recorder.kinds == ["lost"]
    assert monitor.history(KEY)[-1].event == s.OPERATION_ENDED
    say(monitor, ROOT, **NODE)  # it was on its way
    assert monitor.row(KEY)["status"] == "completed"


@pytest.mark.parametrize(
    "other", [{"host__name": "elsewhere"}, {"process__executable__name": "java"}, {"process__pid": 78}]
)
def test_process_of_another_machine_is_not_gone(
    monitor: Parts, fake: FakeClock, machine: Machine, other: dict[str, Any]
) -> None:
    """A pid of another host, or of another program with the same pid, proves nothing."""
    say(monitor, CHILD, **{**NODE, **other})
    machine.alive = False
    seconds(fake, monitor, 10)
    assert monitor.row(KEY)["status"] == "running"


def test_called_service_that_was_killed_does_not_end_the_caller(
    monitor: Parts, fake: FakeClock, machine: Machine
) -> None:
    """A deployment of a service that has answered loses nothing of those who called it."""
    say(monitor, span("charge", 5, 2, 2, 3, flags=REMOTE), service="bank", **NODE)
    machine.alive = False
    seconds(fake, monitor, 10)
    assert monitor.row(KEY)["status"] == "running"
