"""Programs that call no `configure()`, where `OTEL_PROGRESS_CONFIGURE` asks them to report, as `run` does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from otel_progress import semconv
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.intake.server import Intake

BEGIN = """
import multiprocessing, sys, threading
import otel_progress as progress

@progress.operation
def survey(*_):
    return sum(progress.track([1, 2], unit="file"))
"""
PLAIN = BEGIN + "survey()"
CONSOLE = BEGIN + "from otel_progress.handlers.console import Console\nwith Console():\n    survey()"
OWN_PROVIDER = """
from opentelemetry import trace, metrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.metrics import MeterProvider
survey()
mine, meters = TracerProvider(), MeterProvider()
trace.set_tracer_provider(mine)
metrics.set_meter_provider(meters)
assert trace.get_tracer_provider() is mine
assert metrics.get_meter_provider() is meters
"""
LATER = """
survey()
progress.configure("named")
with progress.operation("second"):
    pass
"""
AT_ONCE = """
ready = threading.Barrier(8)
def work(number):
    ready.wait()
    with progress.operation(f"part-{number}"):
        pass
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
FORKED = """
with multiprocessing.get_context("fork").Pool(1) as pool:
    pool.map(survey, [1])
"""
NO_SDK = "import sys\nsys.modules['opentelemetry.sdk.resources'] = None\n" + PLAIN + "\nprint('goes on')"


class Receiver:
    """What programs sent to an OTLP endpoint of this process."""

    def __init__(self) -> None:
        """Nothing was sent yet."""
        self.ends: list[tuple[str, str]] = []
        self.endpoint = ""

    def take(self, parcel: requests.Parcel) -> requests.Accepted:
        """Keep the service and the name of each operation that ended."""
        if parcel.signal == "logs":
            for group in records.groups(parcel):
                service = str(group.resource.get("service.name"))
                for one in group.records:
                    if one.event == semconv.OPERATION_ENDED:
                        self.ends.append((service, str(one.brief[semconv.OPERATION_NAME])))
        return requests.Accepted()

    def run(self, source: str, asked: str = "true") -> subprocess.CompletedProcess[str]:
        """Run a program to its end, which is a success."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_PROGRESS_CONFIGURE": asked}
        done = subprocess.run(
            [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    @property
    def names(self) -> list[str]:
        """The names of the operations that ended."""
        return sorted(name for _, name in self.ends)


@contextmanager
def _listening() -> Iterator[Receiver]:
    receiver = Receiver()
    intake = Intake(receiver.take)
    intake.start()
    receiver.endpoint = intake.endpoint
    try:
        yield receiver
    finally:
        intake.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a receiver that listens."""
    with _listening() as found:
        yield found


@pytest.mark.parametrize("source", [PLAIN, CONSOLE, BEGIN + OWN_PROVIDER, BEGIN + FORKED])
def test_program_without_configure_reports(receiver: Receiver, source: str) -> None:
    """The first operation is reported, in whatever process; a provider that the program sets later is its own."""
    done = receiver.run(source)
    assert receiver.names == ["survey"]
    assert "Overriding" not in done.stderr


def test_operations_that_begin_at_once_are_all_reported(receiver: Receiver) -> None:
    """The threads that come second wait until the first one has configured."""
    receiver.run(BEGIN + AT_ONCE)
    assert receiver.names == [f"part-{number}" for number in range(8)]


def test_later_configure_replaces_it(receiver: Receiver) -> None:
    """What the program says itself counts from then on, and what was reported before is not lost."""
    receiver.run(BEGIN + LATER)
    assert receiver.names == ["second", "survey"]
    assert {name: service for service, name in receiver.ends}["second"] == "named"


@pytest.mark.parametrize("asked", ["", "false"])
def test_nobody_asked(receiver: Receiver, asked: str) -> None:
    """Without the variable nothing is sent."""
    receiver.run(PLAIN, asked)
    assert receiver.names == []


def test_missing_sdk_harms_nobody(receiver: Receiver) -> None:
    """Where the SDK is not installed the job goes on, and the log says why nothing is reported."""
    done = receiver.run(NO_SDK)
    assert done.stdout == "goes on\n"
    assert "operations are not reported" in done.stderr
