"""The last line of a process: what could not be sent, to where, and what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from benchmarks.attacks.zoo import KINDS, Bad

from otel_progress.outbound.trouble import Trouble
from otel_progress.telemetry.farewell import line
from otel_progress.telemetry.outbox import Unsent

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


def last_words(endpoint: str, more: str = "", code: int = 0) -> list[str]:
    """The lines on stderr of a job about what it could not send."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    ran = subprocess.run(
        [sys.executable, "-c", JOB.format(more=more)],
        env={**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"},
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
