"""The last line of a process: what could not be sent, to where, and what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from benchmarks.attacks.zoo import KINDS, Bad

import otel_progress as progress
from otel_progress import semconv
from otel_progress.live import hooks
from otel_progress.live.engine import runtime
from otel_progress.live.registry import registry
from otel_progress.model.snapshot import Event
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.trouble import Trouble
from otel_progress.telemetry import farewell
from otel_progress.telemetry.farewell import Farewell, line
from otel_progress.telemetry.memory import Receiver
from otel_progress.telemetry.outbox import EncodedEvent, Outbox, Unsent
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.testing import Capture

AWAY = Trouble("http://x:1", "refused", "nothing listens at http://x:1: start it")
JOB = """
import os, signal, sys
import otel_progress as progress
progress.configure(handle_sigterm=True)
with progress.operation("first"), progress.stage("a"):
    pass
{more}
"""


@pytest.fixture
def closed() -> Iterator[str]:
    """An address at which nobody listens, nor will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def last_words(endpoint: str, more: str = "", code: int = 0, run: str = "") -> list[str]:
    """The lines on stderr of a job about what it could not send."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    ran = subprocess.run(
        [sys.executable, "-c", JOB.format(more=more)],
        env={
            **environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3",
            "OTEL_PROGRESS_RUN": run,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == code, ran.stderr
    return [line for line in ran.stderr.splitlines() if "could not be sent" in line]


@pytest.mark.parametrize(
    ("events", "spans", "said"),
    [
        (Unsent(1, 0), 0, "1 end of an operation could not"),
        (Unsent(2, 1), 0, "2 ends of operations and 1 other event could not"),
        (Unsent(0, 2), 1, "2 events and 1 span could not"),
        (Unsent(1, 5), 2, "1 end of an operation, 5 other events and 2 spans could not"),
        (Unsent(0, 0), 3, "3 spans could not"),
    ],
)
def test_it_counts_ends_events_and_spans(events: Unsent, spans: int, said: str) -> None:
    """The line says how many of each, why, and what to do."""
    assert line(events, spans, AWAY) == f"{said} be sent before the end: nothing listens at http://x:1: start it"


def test_it_counts_metrics_that_say_that_an_ended_run_goes_on() -> None:
    """Without the last metric of a run an alert would call it lost, so that is said."""
    assert line(Unsent(), 0, AWAY, 1).startswith("1 last metric of an operation could not be sent before the end")
    assert line(Unsent(1, 0), 0, AWAY, 2).startswith("1 end of an operation and 2 last metrics of operations could")


def test_where_all_was_sent_there_is_none() -> None:
    """Nothing is logged if everything was sent."""
    assert line(Unsent(), 0, AWAY) == ""


def test_a_job_whose_receiver_is_away_says_so_at_its_end(closed: str) -> None:
    """A job without a receiver logs once, at its end, what is lost and what to do."""
    [said] = last_words(closed)
    assert said.startswith("1 end of an operation, ")
    assert f" 2 spans could not be sent before the end: nothing listens at {closed}: start `otel-progress" in said


def test_shutdown_says_it_once(closed: str) -> None:
    """What `shutdown()` logged is not logged again at the end of the process."""
    assert len(last_words(closed, "progress.shutdown()")) == 1


def test_sigterm_says_it(closed: str) -> None:
    """A job that SIGTERM ends logs it, too."""
    [said] = last_words(closed, "os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM)
    assert said.startswith("1 end of an operation, ")


def test_a_job_that_outlives_sigterm_loses_nothing() -> None:
    """Where the user's own handler lets the process go on, what waits is still delivered once the receiver is back."""
    with Bad(KINDS["503 for ever"]) as bad:
        program = """
signal.signal(signal.SIGTERM, lambda *_: None)
progress.configure(handle_sigterm=True)
with progress.operation("second"):
    pass
os.kill(os.getpid(), signal.SIGTERM)
sys.stdout.write("alive\\n")
sys.stdout.flush()
sys.stdin.readline()
"""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        with subprocess.Popen(
            [sys.executable, "-c", JOB.format(more=program)],
            env={**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": bad.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as job:
            assert job.stdout is not None
            assert job.stdout.readline() == "alive\n"
            bad.mend()
            job.communicate("\n", timeout=60)
        assert job.returncode == 0
        ends = [request for request in bad.bodies if request.path == "/v1/logs" and b"second" in request.body]
        assert any(b"progress.operation.ended" in request.body for request in ends)


def seconds_for_each_event(captured: Capture, seconds: float) -> None:
    """From now on, an event takes this long to emit."""

    def slow(event: Event, _: object) -> None:
        captured.clock.sleep(seconds)

    hooks.sinks.append(slow)


def last_line(captured: Capture, caplog: pytest.LogCaptureFixture, **options: bool) -> str:
    """What is logged at the end of the process; empty if nothing is."""
    pipeline = Pipeline(None, None, {}, "1", 10)
    Farewell(pipeline, lambda: (0, None), registry.unreported, lambda: 0).say(final=True, **options)
    return caplog.records[-1].getMessage() if caplog.records else ""


@pytest.mark.parametrize(("timeout", "first"), [(0.0, 0), (10.0, 500), (1000.0, 1000)])
def test_ends_that_there_was_no_time_to_emit_are_counted(
    timeout: float, first: int, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end, events are emitted while there is time; each end that is left is counted in the last line."""
    running = [progress.operation("survey").start() for _ in range(1000)]
    progress_capture.look()
    for operation in running:
        operation.complete()
    seconds_for_each_event(progress_capture, 0.01)
    runtime.finish(timeout)
    emitted = len(progress_capture.of(semconv.OPERATION_ENDED))
    assert emitted >= first
    assert registry.unreported() == (1000 - emitted, 0)
    said = last_line(progress_capture, caplog)
    assert said.startswith(f"{1000 - emitted:d} ends of operations could not be sent") == (emitted < 1000)


def test_ends_behind_the_one_that_is_told_are_counted(progress_capture: Capture) -> None:
    """The process may end in the middle of a round: what that one has not told yet is not lost without a word."""
    running = [progress.operation("survey").start() for _ in range(100)]
    progress_capture.look()
    counted = []

    def look(event: Event, _: object) -> None:
        if event.name == semconv.OPERATION_ENDED:
            counted.append(registry.unreported()[0])

    hooks.sinks.append(look)
    for operation in running:
        operation.complete()
    progress_capture.look()
    assert counted == list(range(100, 0, -1))


def test_the_whole_end_keeps_to_its_deadline(progress_capture: Capture) -> None:
    """Emitting stops in time for sending, however many events wait."""
    for _ in range(5000):
        progress.operation("survey").start().complete()
    seconds_for_each_event(progress_capture, 0.001)
    since = progress_capture.clock.monotonic()
    runtime.finish(4.0)
    assert progress_capture.clock.monotonic() - since <= 4.0
    assert registry.changes


def test_operations_that_could_not_be_interrupted_in_time_are_counted(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """An operation that still runs at the end is an end that the receiver does not get."""
    running = [progress.operation("survey").start() for _ in range(200)]
    progress_capture.look()
    runtime.finish(0.0, "the process ended")
    assert last_line(progress_capture, caplog).startswith("200 ends of operations could not be sent")
    assert {operation.status for operation in running} == {progress.Status.INTERRUPTED, progress.Status.RUNNING}


def test_what_the_next_configuration_gets_is_not_lost(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """If a configuration is replaced, what was not emitted yet waits for the next one."""
    progress.operation("survey").start().complete()
    assert last_line(progress_capture, caplog, replaced=True) == ""
    assert last_line(progress_capture, caplog).startswith("1 end of an operation and 1 other event could not")


def test_ends_without_room_in_the_queue_are_counted(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that the full queue of changes refuses is counted, too."""
    monkeypatch.setattr("otel_progress.live.registry.CHANGES", 5)
    for _ in range(30):
        progress.operation("survey").start().complete()
    assert registry.unreported()[0] == 30


def test_ends_evicted_on_their_way_are_counted() -> None:
    """An end that was evicted while its request was on its way is unsent, as far as anyone knows."""
    outbox = Outbox(2)
    for number in range(2):
        outbox.add(EncodedEvent(semconv.OPERATION_ENDED, str(number), b"x"))
    outbox.take()
    for number in range(2, 5):
        outbox.add(EncodedEvent(semconv.OPERATION_ENDED, str(number), b"x"))
    assert outbox.unsent() == Unsent(ends=5)
    assert outbox.give_up() == Unsent(ends=5)


@pytest.mark.parametrize("is_run", [True, False])
def test_what_run_took_is_not_unsent(is_run: bool) -> None:
    """A receiver that takes a request and does not answer in time has it if it is `otel-progress run`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are accepted, and never answered
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = last_words(endpoint, run=endpoint if is_run else "http://127.0.0.1:1")
    assert bool(said) is not is_run


@pytest.mark.parametrize(
    ("run", "said"), [("http://127.0.0.1:1", ""), ("", "1 last metric of an operation could not be")]
)
def test_last_metrics_below_run_are_not_missed(run: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` knows of an end by its event, so metrics for which there was no time are not worth a line."""
    monkeypatch.setenv("OTEL_PROGRESS_RUN", run)
    lines: list[str] = []
    monkeypatch.setattr(farewell, "say", lambda text, *given: lines.append(text % given))
    pipeline = SimpleNamespace(unsent=lambda *, final: (Unsent(), None), trouble_of_metrics=None)
    Farewell(cast("Pipeline", pipeline), lambda: (0, None), lambda: (0, 0), lambda: 1).say(final=True)
    assert "".join(lines).startswith(said)
    assert bool(lines) is bool(said)


REJECTED = Answer(True, rejected=1, reason="the quota is used up")
REFUSED = Answer(
    False, about_data=True, reason="HTTP 422 no", trouble=Trouble("x", "422", "x takes none (HTTP 422 no)")
)


@pytest.mark.parametrize("answer", [REJECTED, REFUSED])
def test_it_names_the_reason_that_the_receiver_gave(answer: Answer, progress_capture: Capture) -> None:
    """Also where later requests were taken: then there was time enough."""
    assert progress_capture.drops == {}
    receiver = Receiver()
    pipeline, taken = Pipeline(receiver, None, {}, "1", 10), receiver.answer
    receiver.answer = lambda _: answer
    pipeline.post(EncodedEvent(semconv.OPERATION_ENDED, "a", b""))
    pipeline.flush(1.0)
    receiver.answer = taken
    pipeline.post(EncodedEvent(semconv.UPDATED, "b", b""))
    pipeline.flush(1.0)
    lost, trouble = pipeline.unsent(final=True)
    said = line(lost, 0, trouble)
    assert said.startswith("1 end of an operation could not be sent before the end: ")
    assert answer.reason in said
    progress_capture.drops.clear()
