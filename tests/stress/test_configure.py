"""The ways to set telemetry up, and to shut it down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .program import exit_seconds, run
from .receiver import Receiver

PROTOCOLS = ("http/protobuf", "grpc")
ROOT = Path(__file__).parents[2]


def services(receiver: Receiver) -> set[str]:
    """Return the service names of the received data."""
    return {item.resource["service.name"] for item in (*receiver.logs, *receiver.spans, *receiver.points)}


def missing_part(what: str) -> None:
    """Skip, but fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_standard_variables(protocol: str) -> None:
    """OTEL_* variables set the destination, name, headers and attributes of all signals."""
    env = {
        "OTEL_SERVICE_NAME": "named",
        "OTEL_RESOURCE_ATTRIBUTES": "team=blue,service.instance.id=instance-7",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip" if protocol == "grpc" else "none",
    }
    with Receiver(protocol) as receiver:
        run("configured", "plain", env={**receiver.env, **env})
        assert services(receiver) == {"named"}
        for item in (*receiver.logs, *receiver.spans, *receiver.points):
            assert item.resource["team"] == "blue"
            assert item.resource["service.instance.id"] == "instance-7"
        assert receiver.ended() == {"job": "completed"}
        assert {span.name for span in receiver.spans} == {"job", "step"}
        assert receiver.values("progress.operation.started") == [1]


def test_variables_of_one_signal() -> None:
    """A variable of one signal takes precedence over that of all."""
    with Receiver() as receiver, Receiver("grpc") as traces:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.endpoint, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
        run("configured", "plain", env={**receiver.env, **env})
        assert {span.name for span in traces.spans} == {"job", "step"}
        assert not traces.logs
        assert not receiver.spans
        assert receiver.ended() == {"job": "completed"}


def test_explicit_values_go_before_the_environment() -> None:
    """Arguments of configure() take precedence over any variable."""
    with Receiver() as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9",
        }
        run("configured", "explicit", receiver.endpoint, env=env)
        assert services(receiver) == {"given"}
        assert receiver.spans
        assert receiver.logs[0].resource["team"] == "red"
        assert receiver.ended() == {"job": "completed"}


def test_configured_twice() -> None:
    """A second configure() replaces the first: each operation is reported once, by the configuration of its time."""
    with Receiver() as receiver:
        run("configured", "twice", env=receiver.env)
        named = {log.operation: log.resource["service.name"] for log in receiver.of("progress.operation.ended")}
        assert named == {"one": "first", "two": "second"}
        spans = {span.attributes["progress.operation.id"]: span.resource["service.name"] for span in receiver.spans}
        assert spans == named
        assert receiver.doubled() == []
        assert len(receiver.spans) == 4


def test_shutdown_undoes_configure() -> None:
    """After shutdown() nothing is sent; it may be called twice, and configure() works again after it."""
    with Receiver() as receiver:
        program = run("configured", "undone", env=receiver.env)
        assert receiver.ended() == {"one": "completed", "two": "completed"}
        assert {span.attributes["progress.operation.id"] for span in receiver.spans} == {"one", "two"}
        assert "Traceback" not in program.errors


def test_shutdown_interrupts_what_runs() -> None:
    """What still runs at shutdown() ends as interrupted and is flushed; its own end changes nothing."""
    with Receiver() as receiver:
        program = run("configured", "running", env=receiver.env)
        assert receiver.ended() == {"running": "interrupted"}
        assert program.values()["status"] == "interrupted"
        assert {span.name: span.status for span in receiver.spans} == {"running": 2, "step": 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_providers_of_the_user_are_only_added_to(protocol: str) -> None:
    """Spans and metrics by name go through the user's providers, once; the user's own logs are not sent by us."""
    with Receiver(protocol) as receiver:
        program = run("configured", "user", env=receiver.env)
        values = program.values()
        assert values["spans"] == "job,step"
        assert values["logs"] == "1"
        assert ["started", "1"] in program.said
        assert receiver.ended() == {"job": "completed"}
        assert all(log.name.startswith("progress.") for log in receiver.logs)
        assert {log.resource["service.name"] for log in receiver.logs} == {"theirs"}
        assert not receiver.spans
        assert not receiver.values("progress.operation.started")
        assert program.held() < exit_seconds()


def test_application_that_only_uses_our_providers() -> None:
    """The providers of configure() also send the application's own spans and metrics, without any operation."""
    with Receiver() as receiver:
        run("configured", "only-spans", env=receiver.env)
        assert [span.name for span in receiver.spans] == ["theirs"]
        assert receiver.values("theirs")[-1] == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_opentelemetry_instrument(protocol: str) -> None:
    """Under opentelemetry-instrument, without any code, all four signals arrive."""
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    if not command.exists():
        missing_part("opentelemetry-distro is not installed")
    env = {"OTEL_PROGRESS_RUN_SERIES_AFTER": "0.2", "PATH": f"{command.parent}:{os.environ['PATH']}"}
    with Receiver(protocol) as receiver:
        run("configured", "nothing", "long", env={**receiver.env, **env}, command=(str(command), sys.executable))
        assert receiver.ended() == {"job": "completed"}
        assert {span.name for span in receiver.spans} == {"job", "step"}
        assert max(receiver.values("progress.operation.started")) == 1
        assert receiver.values("progress.run.active")[-1] == 0
        assert {item.resource["service.instance.id"] for item in (*receiver.logs, *receiver.spans)} == {
            receiver.points[0].resource["service.instance.id"]
        }
        assert receiver.doubled() == []


def test_sdk_disabled() -> None:
    """OTEL_SDK_DISABLED=true: configure() does nothing, and nothing is sent."""
    with Receiver() as receiver:
        program = run("configured", "plain", env={**receiver.env, "OTEL_SDK_DISABLED": "true"})
        assert sum(receiver.requests.values()) == 0
        assert program.errors == ""


def test_exporters_turned_off() -> None:
    """OTEL_*_EXPORTER=none turns a signal off, and only that."""
    with Receiver() as receiver:
        run(
            "configured", "plain", env={**receiver.env, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
        )
        assert receiver.ended() == {"job": "completed"}
        assert receiver.requests.keys() == {"logs"}
    with Receiver() as receiver:
        run("configured", "plain", env={**receiver.env, "OTEL_LOGS_EXPORTER": "none"})
        assert "logs" not in receiver.requests
        assert receiver.spans


def test_exporters_of_other_names() -> None:
    """OTEL_TRACES_EXPORTER accepts any installed exporter, and the OTLP names for one protocol."""
    with Receiver("grpc") as receiver:
        names = {f"OTEL_{signal}_EXPORTER": "otlp_proto_grpc" for signal in ("TRACES", "METRICS", "LOGS")}
        run("configured", "plain", env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **names})
        assert receiver.ended() == {"job": "completed"}
        assert receiver.spans
    with Receiver() as receiver:
        program = run("configured", "plain", env={**receiver.env, "OTEL_TRACES_EXPORTER": "console"})
        assert any('"name":' in words for words in program.said)
        assert not receiver.spans
    program = run("configured", "plain", env={"OTEL_TRACES_EXPORTER": "unheard-of"}, code=1)
    assert "MissingDependency" in program.errors


@pytest.fixture(scope="session")
def python_without_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with only the dependencies of otel-progress."""
    folder = tmp_path_factory.mktemp("without-sdk")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    from importlib.metadata import files

    for name in ("opentelemetry-api", "wrapt", "typing-extensions"):
        for file in files(name) or []:
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(file.locate())).resolve())
    (site / "otel_progress").symlink_to(ROOT / "src" / "otel_progress")
    return folder / "bin" / "python"


def test_without_sdk(python_without_sdk: Path) -> None:
    """With the API alone everything is a cheap no-op that never warns, and configure() says what to install."""
    program = run("configured", "without-sdk", python=python_without_sdk)
    assert program.errors == ""
    values = program.values()
    assert values["sum"] == "45"
    assert float(values["microseconds"]) < 50
    [error] = [words for words in program.said if words[0] == "error"]
    assert "pip install" in " ".join(error)
