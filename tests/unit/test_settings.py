"""Settings: the standard OTEL_* variables, a few of ours, and the arguments of configure()."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import math
import re
from typing import Any

import pytest
from opentelemetry.sdk import environment_variables

from otel_progress import InvalidArgument, settings
from otel_progress.settings import TIMEOUT_MOST, Endpoint, Environment, Settings, parse_headers, read

SIGNALS = ("traces", "metrics", "logs")


def endpoint(signal: str = "logs", **variables: str) -> Endpoint:
    """Return the destination of a signal under these variables; each name gets the prefix `OTEL_EXPORTER_OTLP_`."""
    environ = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    return read(environ=environ).endpoints[signal]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# -- defaults


def test_without_any_variable_the_defaults_stand(caplog: pytest.LogCaptureFixture) -> None:
    """An empty environment gives the defaults of the design, and a local Collector over HTTP."""
    found = read(environ={})
    assert dataclasses.replace(found, endpoints={}) == Settings()
    assert (found.interval, found.metric_interval, found.heartbeat) == (1.0, 10.0, None)
    assert (found.run_series_after, found.run_series_max, found.event_budget) == (5.0, 1000, 200.0)
    for signal in SIGNALS:
        assert found.endpoints[signal] == Endpoint("http/protobuf", f"http://localhost:4318/v1/{signal}")
    assert told(caplog) == []


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "http://localhost:4318"},
        {"headers": {"a": "b"}},
        {"protocol": "grpc"},
        {"control": True},
        {"environ": {"OTEL_PROGRESS_CONTROL": "http://localhost:4318"}},
        {"environ": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}},
        {"environ": {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://collector:4318/v1/logs"}},
        {"environ": {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
    ],
)
def test_with_handlers_nothing_is_sent_unless_somebody_asks_for_it(given: dict[str, Any]) -> None:
    """Whoever names a receiver, in whatever way, gets handlers and OTLP; without handlers the default stands."""
    environ = given.pop("environ", {})
    alone = read(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, handlers=True, control=False)
    assert [getattr(alone, signal) for signal in SIGNALS] == ["none"] * 3
    both = read(environ=environ, handlers=True, **given)
    assert [getattr(both, signal) for signal in SIGNALS] == ["otlp"] * 3
    some = read(environ={"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "otlp"}, handlers=True)
    assert [getattr(some, signal) for signal in SIGNALS] == ["console", "none", "otlp"]
    assert [getattr(read(environ={}), signal) for signal in SIGNALS] == ["otlp"] * 3


def test_an_empty_variable_is_as_good_as_none(caplog: pytest.LogCaptureFixture) -> None:
    """As in OpenTelemetry, an empty value means that the variable is not set."""
    names = [name for name in dir(environment_variables) if name.startswith("OTEL_")]
    assert read(environ=dict.fromkeys(names, " ")) == read(environ={})
    assert told(caplog) == []


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the variables of the process are used."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "2500")
    assert read().metric_interval == 2.5


# -- the standard variables

STANDARD: dict[str, tuple[str, str, Any]] = {
    "OTEL_SDK_DISABLED": ("TRUE", "disabled", True),
    "OTEL_METRIC_EXPORT_INTERVAL": ("15000", "metric_interval", 15.0),
    "OTEL_TRACES_EXPORTER": ("None", "traces", "none"),
    "OTEL_METRICS_EXPORTER": ("otlp,console", "metrics", "otlp,console"),
    "OTEL_LOGS_EXPORTER": ("none", "logs", "none"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("DELTA", "temporality", "delta"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        "Base2_exponential_bucket_histogram",
        "histograms",
        "base2_exponential_bucket_histogram",
    ),
    "OTEL_PROGRESS_INTERVAL": ("0.5", "interval", 0.5),
    "OTEL_PROGRESS_UPDATE_INTERVAL": ("live", "update_interval", 0.0),
    "OTEL_PROGRESS_HEARTBEAT": ("2", "heartbeat", 2.0),
    "OTEL_PROGRESS_RUN_SERIES": ("ALL", "run_series", "all"),
    "OTEL_PROGRESS_RUN_SERIES_AFTER": ("0", "run_series_after", 0.0),
    "OTEL_PROGRESS_RUN_SERIES_MAX": ("0", "run_series_max", 0),
    "OTEL_PROGRESS_EVENT_BUDGET": ("20", "event_budget", 20.0),
    "OTEL_PROGRESS_ATTEMPTS": ('{"a": 2}', "attempts", {"a": 2}),
    "OTEL_PROGRESS_CHECKPOINTS": ("work.db", "checkpoints", "work.db"),
    "OTEL_PROGRESS_HISTORY": ("history.json", "history", "history.json"),
    "OTEL_PROGRESS_REDACT": ("off", "redact", "off"),
    "OTEL_PROGRESS_CAPTURE_INPUTS": ("TRUE", "capture_inputs", True),
    "OTEL_PROGRESS_CONTROL": ("False", "control", False),
    "OTEL_PROGRESS_STALL_AFTER": ("90", "stall_after", 90.0),
    "OTEL_PROGRESS_OUTBOX": ("500", "outbox", 500),
    "OTEL_PROGRESS_KEYFRAME_INTERVAL": ("60", "keyframe_interval", 60.0),
}


@pytest.mark.parametrize("name", STANDARD)
def test_each_variable_has_its_effect(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each variable changes its setting, and nothing else."""
    value, field, known = STANDARD[name]
    found = read(environ={name: value})
    assert getattr(found, field) == known
    also = {"by_name_interval": found.by_name_interval} if field == "metric_interval" else {}
    assert dataclasses.replace(found, **{field: getattr(Settings(), field)}, endpoints={}) == Settings(**also)
    assert told(caplog) == []


def test_the_interval_of_metrics_by_name() -> None:
    """Metrics by name are exported every 60 s; `OTEL_METRIC_EXPORT_INTERVAL` sets both intervals, also to 10 s."""
    assert (read(environ={}).metric_interval, read(environ={}).by_name_interval) == (10.0, 60.0)
    for given, seconds in (("10000", 10.0), ("30000", 30.0)):
        found = read(environ={"OTEL_METRIC_EXPORT_INTERVAL": given})
        assert (found.metric_interval, found.by_name_interval) == (seconds, seconds)


def test_every_variable_that_the_module_names_is_tested() -> None:
    """No variable is read that no test covers."""
    tree = ast.parse(inspect.getsource(settings))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    named = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docs
        and re.fullmatch(r"OTEL_[A-Z_]*[A-Z]", node.value)
    }
    apart = {"OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PROGRESS_CONFIGURE", "OTEL_PROGRESS_HANDLERS", "OTEL_PROGRESS_STORES"}
    apart |= {"OTEL_PROGRESS_INSTRUMENT", "OTEL_PROGRESS_UNSAMPLED_SPANS", "OTEL_PROGRESS_QUIET", "OTEL_PROGRESS_RUN"}
    assert named == set(STANDARD) | apart | {"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "unknown_service"),
        ({"OTEL_SERVICE_NAME": "backup"}, "backup"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name=night%20job,,x"}, "night job"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=other", "OTEL_SERVICE_NAME": "backup"}, "backup"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name="}, "unknown_service"),
    ],
)
def test_the_name_of_the_service(variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in OpenTelemetry: its own variable takes precedence over the list of attributes."""
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert settings.service_name() == name


@pytest.mark.parametrize(
    ("given", "names"), [(None, ()), ("", ()), (" , ", ()), ("console", ("console",)), ("a, b,,c ", ("a", "b", "c"))]
)
def test_handlers_by_name(given: str | None, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_PROGRESS_HANDLERS` is a list with commas."""
    monkeypatch.delenv(settings.HANDLERS, raising=False)
    if given is not None:
        monkeypatch.setenv(settings.HANDLERS, given)
    assert settings.handlers() == names


@pytest.mark.parametrize(
    ("given", "does"), [(None, False), ("", False), ("TRUE", True), ("false", False), ("1", False)]
)
def test_programs_report_by_themselves_only_if_asked(
    given: str | None, does: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_PROGRESS_CONFIGURE=true` has the first operation configure."""
    monkeypatch.delenv(settings.CONFIGURE, raising=False)
    if given is not None:
        monkeypatch.setenv(settings.CONFIGURE, given)
    assert settings.configures_itself() is does


WHAT: dict[str, tuple[str, str, Any]] = {
    "CERTIFICATE": ("/ca.pem", "certificate", "/ca.pem"),
    "CLIENT_KEY": ("/key.pem", "client_key", "/key.pem"),
    "CLIENT_CERTIFICATE": ("/cert.pem", "client_certificate", "/cert.pem"),
    "COMPRESSION": ("gzip", "compression", "gzip"),
    "HEADERS": ("a=b", "headers", (("a", "b"),)),
    "TIMEOUT": ("0.5", "timeout", 0.5),
    "PROTOCOL": ("grpc", "protocol", "grpc"),
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("what", WHAT)
def test_each_option_of_otlp_for_all_signals_and_for_one(what: str, signal: str) -> None:
    """`OTEL_EXPORTER_OTLP_X` applies to all signals, `OTEL_EXPORTER_OTLP_LOGS_X` to one and takes precedence."""
    value, field, known = WHAT[what]
    plain = getattr(endpoint(signal), field)
    assert getattr(endpoint(signal, **{what: value}), field) == known
    assert getattr(endpoint(signal, **{f"{signal.upper()}_{what}": value}), field) == known
    for other in SIGNALS:
        if other != signal:
            assert getattr(endpoint(other, **{f"{signal.upper()}_{what}": value}), field) == plain
    assert getattr(endpoint(signal, **{what: "0.9", f"{signal.upper()}_{what}": value}), field) == known
    for name in (f"OTEL_EXPORTER_OTLP_{what}", f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"):
        assert name in dir(environment_variables)


# -- endpoints


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://localhost:4318/v1/logs"),
        ({"ENDPOINT": "http://collector:4318"}, "http://collector:4318/v1/logs"),
        ({"ENDPOINT": "http://collector:4318/"}, "http://collector:4318/v1/logs"),
        ({"ENDPOINT": "https://host/otlp"}, "https://host/otlp/v1/logs"),
        ({"LOGS_ENDPOINT": "http://host:1/some/path"}, "http://host:1/some/path"),
        ({"LOGS_ENDPOINT": "http://host:1/"}, "http://host:1/"),
        ({"ENDPOINT": "http://collector:4318", "LOGS_ENDPOINT": "http://logs:1/v1/logs"}, "http://logs:1/v1/logs"),
        ({"ENDPOINT": "http://collector:4318", "TRACES_ENDPOINT": "http://x:1/y"}, "http://collector:4318/v1/logs"),
        ({"PROTOCOL": "grpc"}, "http://localhost:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "http://collector:4317"}, "http://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317"}, "https://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "INSECURE": "true"}, "http://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "INSECURE": "TRUE"}, "http://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "INSECURE": "false"}, "https://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "LOGS_INSECURE": "true"}, "http://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "TRACES_INSECURE": "true"}, "https://collector:4317"),
        (
            {"PROTOCOL": "grpc", "ENDPOINT": "collector:4317", "INSECURE": "true", "LOGS_INSECURE": "false"},
            "https://collector:4317",
        ),
        ({"PROTOCOL": "grpc", "LOGS_ENDPOINT": "logs:1", "INSECURE": "true"}, "http://logs:1"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "https://collector:4317", "INSECURE": "true"}, "https://collector:4317"),
        ({"PROTOCOL": "grpc", "ENDPOINT": "http://collector:4317", "INSECURE": "false"}, "http://collector:4317"),
        ({"PROTOCOL": "grpc", "INSECURE": "false"}, "http://localhost:4317"),
        ({"ENDPOINT": "https://collector:4318", "INSECURE": "true"}, "https://collector:4318/v1/logs"),
        ({"LOGS_PROTOCOL": "grpc", "LOGS_ENDPOINT": "https://logs:4317"}, "https://logs:4317"),
    ],
)
def test_endpoints_follow_the_rules_of_otlp(variables: dict[str, str], url: str) -> None:
    """A signal's own endpoint is taken as it is; to the shared one HTTP adds `/v1/logs`, gRPC nothing.

    A gRPC endpoint without a scheme means TLS, unless `INSECURE` is true; a scheme takes precedence.
    """
    assert endpoint("logs", **variables).url == url


def test_an_exporter_may_name_its_protocol() -> None:
    """`otlp_proto_grpc` and `otlp_proto_http` set the protocol of their signal."""
    found = read(environ={"OTEL_LOGS_EXPORTER": "otlp_proto_grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert found.endpoints["logs"].protocol == "grpc"
    assert found.endpoints["traces"].protocol == "http/protobuf"


def test_what_configure_was_told_wins() -> None:
    """An explicit endpoint, protocol, header or interval takes precedence over every variable, also a signal's own."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://b:1/x",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_PROGRESS_INTERVAL": "9",
    }
    found = read(
        endpoint="http://mine:4318", protocol="http/protobuf", headers={"X-Key": "1"}, interval=0.2, environ=environ
    )
    assert found.endpoints["logs"].url == "http://mine:4318/v1/logs"
    assert found.endpoints["traces"].url == "http://mine:4318/v1/traces"
    assert found.endpoints["logs"].headers == (("x-key", "1"),)
    assert found.interval == 0.2
    grpc = read(endpoint="http://mine:4317", environ=environ)
    assert (grpc.endpoints["logs"].url, grpc.endpoints["logs"].headers) == ("http://mine:4317", (("a", "b"),))


# -- headers and times


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("", ()),
        ("a=b", (("a", "b"),)),
        (" A = b , c=d,", (("a", "b"), ("c", "d"))),
        ("authorization=Basic%20eDp5PQ%3D%3D", (("authorization", "Basic eDp5PQ=="),)),
        ("a=b=c", (("a", "b=c"),)),
        ("a=", (("a", ""),)),
        ("key=a%2Cb", (("key", "a,b"),)),
    ],
)
def test_headers_are_percent_decoded(given: str, known: tuple[tuple[str, str], ...]) -> None:
    """Headers are `key=value` pairs with percent-encoding, and their names are lower case."""
    assert parse_headers(given) == known


@pytest.mark.parametrize("bad", ["nothing", "=x", "a=b%0d%0aHost: evil", "a=%C3%BC", "%20=x"])
def test_a_header_that_can_not_be_sent_is_left_out_and_told(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    """A header without a name, with a line break or outside ASCII is ignored; its value is not logged."""
    assert parse_headers(f"good=1,{bad}") == (("good", "1"),)
    (text,) = told(caplog)
    assert "left out" in text
    assert "evil" not in text


def test_a_request_never_takes_longer_than_a_second_and_a_half() -> None:
    """A longer timeout is shortened, a shorter one is used."""
    assert endpoint(TIMEOUT="10").timeout == TIMEOUT_MOST == 1.5
    assert endpoint(LOGS_TIMEOUT="10000").timeout == 1.5
    assert endpoint(TIMEOUT="0.25").timeout == 0.25
    assert endpoint(TIMEOUT="0.25", LOGS_TIMEOUT="0.75").timeout == 0.75


# -- invalid values


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("OTEL_METRIC_EXPORT_INTERVAL", "often", "metric_interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-5", "metric_interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "metric_interval"),
        ("OTEL_PROGRESS_INTERVAL", "nan", "interval"),
        ("OTEL_PROGRESS_INTERVAL", "0.0001", "interval"),
        ("OTEL_PROGRESS_UPDATE_INTERVAL", "often", "update_interval"),
        ("OTEL_PROGRESS_UPDATE_INTERVAL", "0", "update_interval"),
        ("OTEL_PROGRESS_HEARTBEAT", "inf", "heartbeat"),
        ("OTEL_PROGRESS_RUN_SERIES", "some", "run_series"),
        ("OTEL_PROGRESS_RUN_SERIES_AFTER", "-1", "run_series_after"),
        ("OTEL_PROGRESS_RUN_SERIES_MAX", "1e400", "run_series_max"),
        ("OTEL_PROGRESS_EVENT_BUDGET", "0", "event_budget"),
        ("OTEL_PROGRESS_OUTBOX", "0.5", "outbox"),
        ("OTEL_PROGRESS_KEYFRAME_INTERVAL", "0.5", "keyframe_interval"),
        ("OTEL_PROGRESS_CONTROL", "no", "control"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sideways", "temporality"),
    ],
)
def test_a_bad_value_is_told_and_the_default_stands(
    name: str, value: str, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid value stops nothing: the log names the variable, its value, and the default that is used."""
    assert getattr(read(environ={name: value}), field) == getattr(Settings(), field)
    (text,) = told(caplog)
    assert name in text
    assert repr(value) in text
    assert "is used" in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROTOCOL", "http/json"),
        ("COMPRESSION", "brotli"),
        ("TIMEOUT", "soon"),
        ("ENDPOINT", "localhost:4318"),
        ("LOGS_ENDPOINT", "ftp://x"),
    ],
)
def test_a_bad_option_of_otlp_is_told_and_the_default_stands(
    variable: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The same holds for the OTLP options."""
    assert endpoint(**{variable: value}) == endpoint()
    assert told(caplog)
    assert all(variable in text and repr(value) in text and "is used" in text for text in told(caplog))


def test_the_text_of_a_bad_number_gives_the_units_of_the_variable(caplog: pytest.LogCaptureFixture) -> None:
    """The default in the warning has the variable's own unit, so it can be copied."""
    read(environ={"OTEL_METRIC_EXPORT_INTERVAL": "often"})
    assert told(caplog) == ["OTEL_METRIC_EXPORT_INTERVAL='often' is not a number from 1 to 1e+12; 10000 is used"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"protocol": "udp"}, "protocol must be one of http/protobuf, grpc, not 'udp'"),
        (
            {"endpoint": "localhost:4318"},
            "endpoint must begin with http:// or https://, as in http://localhost:4318, not 'localhost:4318'",
        ),
        ({"endpoint": 4318}, "endpoint must begin with http:// or https://, as in http://localhost:4318, not 4318"),
        ({"interval": 0}, "interval must be from 0.01 to 3600 seconds, not 0"),
        ({"interval": math.nan}, "interval must be from 0.01 to 3600 seconds, not nan"),
        ({"interval": "1"}, "interval must be from 0.01 to 3600 seconds, not '1'"),
        (
            {"control": "yes"},
            "control must be True, False, None or an address as in http://localhost:4318, not 'yes'",
        ),
        ({"control": 1}, "control must be True, False, None or an address as in http://localhost:4318, not 1"),
        ({"headers": {"": "x"}}, "the header '' must have a name, and be plain ASCII without line breaks"),
        ({"headers": {"a": "b\r\nc"}}, "the header 'a' must have a name, and be plain ASCII without line breaks"),
    ],
)
def test_what_configure_can_not_mean_raises_and_says_what_would_do(given: dict[str, Any], text: str) -> None:
    """An invalid argument raises InvalidArgument at once, with what is wrong and what to do."""
    with pytest.raises(InvalidArgument, match=f"^{re.escape(text)}$"):
        read(**given, environ={})


def test_an_argument_may_lack_the_scheme_as_the_variable_may() -> None:
    """With gRPC an address needs no scheme; TLS is the default then."""
    found = read(endpoint="collector:4317", protocol="grpc", environ={}).endpoints["logs"]
    assert (found.url, found.is_bare) == ("https://collector:4317", True)


def test_a_warning_names_the_variable_that_is_set(caplog: pytest.LogCaptureFixture) -> None:
    """A variable for all signals is warned about once, under its own name."""
    read(environ={"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    (line,) = told(caplog)
    assert line.startswith("OTEL_EXPORTER_OTLP_PROTOCOL='http/json' is not one of")


@pytest.mark.parametrize("given", [True, False])
def test_what_is_given_stands_above_the_variable(given: bool) -> None:
    """An argument of configure() takes precedence over the variable, `False` as well as `True`."""
    assert read(control=given, environ={"OTEL_PROGRESS_CONTROL": str(not given)}).control is given
    assert read(environ={"OTEL_PROGRESS_CONTROL": "auto"}).control is None
    there = "http://127.0.0.1:4318"
    assert read(environ={"OTEL_PROGRESS_CONTROL": there}).control == read(control=there, environ={}).control == there


def test_settings_are_values() -> None:
    """Two readings of the same environment are equal, and neither can be changed."""
    found = read(environ={})
    assert found == read(environ={})
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.interval = 2.0  # type: ignore[misc]
    assert Environment({"A": "", "B": " x "}).text("A", "B") == "x"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("port", ["99999", "0", "http"])
def test_an_invalid_port_is_named_at_once(protocol: str, port: str, caplog: pytest.LogCaptureFixture) -> None:
    """A port that cannot exist is logged once for a variable, and raises for an argument, whatever the protocol."""
    found = endpoint(PROTOCOL=protocol, ENDPOINT=f"http://localhost:{port}")
    assert found.url.startswith("http://localhost:431")
    [said] = told(caplog)
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT='http://localhost:{port}' has an invalid port (1 to 65535); " in said
    with pytest.raises(InvalidArgument, match="endpoint has an invalid port"):
        read(endpoint=f"http://localhost:{port}", protocol=protocol, environ={})


def test_an_invalid_port_without_a_scheme_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A gRPC address without a scheme is checked, too."""
    endpoint(PROTOCOL="grpc", ENDPOINT="localhost:99999")
    [said] = told(caplog)
    assert "has an invalid port" in said


@pytest.mark.parametrize("name", ["INSECURE", "LOGS_INSECURE"])
def test_an_invalid_value_names_the_variable_that_is_set(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A shared variable is named once, not once for each signal that never had a variable of its own."""
    endpoint(**{name: "1"})
    [said] = told(caplog)
    assert said.startswith(f"OTEL_EXPORTER_OTLP_{name}='1' is not one of true, false; ")


@pytest.mark.parametrize(("given", "quiet"), [("1", True), ("true", True), ("0", False), ("false", False), ("", False)])
def test_quiet(given: str, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any value of `OTEL_PROGRESS_QUIET` but 0 and false is a yes."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setenv(settings.QUIET, given)
    assert settings.is_quiet() is quiet
