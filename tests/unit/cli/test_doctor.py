"""What `otel-progress doctor` reads from the environment, how it reports, and that its page says the same."""

from __future__ import annotations

import io
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from otel_progress import cli
from otel_progress.cli.doctor.configuration import DoctorOptions, examine, secrets, settings_of, shown
from otel_progress.cli.doctor.endpoint import proxy_of
from otel_progress.cli.doctor.estimate import describe
from otel_progress.cli.doctor.findings import KINDS, Level, ReportLine, problem
from otel_progress.cli.doctor.receiver import complaints
from otel_progress.cli.doctor.report import Report
from otel_progress.settings import Endpoint, read

ROOT = Path(__file__).parents[3]
ALL = "OTEL_EXPORTER_OTLP"
NOTHING = DoctorOptions()
SIGN = {Level.ERROR: "✗", Level.WARNING: "!", Level.NOTE: "-"}


def lines(given: DoctorOptions = NOTHING, **environ: str) -> list[ReportLine]:
    """What is said of these variables."""
    settings, said = settings_of(given, environ)
    return list(examine(settings, said, given, environ))


def codes(given: DoctorOptions = NOTHING, **environ: str) -> list[str]:
    """The findings in these variables."""
    return [line.code for line in lines(given, **environ) if line.code]


# -- settings


CLEAN: list[dict[str, str]] = [
    {},
    {f"{ALL}_ENDPOINT": "http://collector:4318", f"{ALL}_HEADERS": "authorization=Bearer%20x"},
    {f"{ALL}_TIMEOUT": "10", "OTEL_METRIC_EXPORT_INTERVAL": "179000"},
    {f"{ALL}_TIMEOUT": "0.1", f"{ALL}_COMPRESSION": "gzip"},
    {f"{ALL}_ENDPOINT": "http://a:4318", f"{ALL}_LOGS_ENDPOINT": "http://a:4318/v1/logs"},
    {f"{ALL}_ENDPOINT": "http://a:4318", f"{ALL}_LOGS_ENDPOINT": "a:4317", f"{ALL}_LOGS_PROTOCOL": "grpc"},
]


@pytest.mark.parametrize("environ", CLEAN)
def test_sound_variables_give_no_finding(environ: dict[str, str]) -> None:
    """Variables that can be meant, and harm nothing, are no finding."""
    assert codes(**environ) == []


@pytest.mark.parametrize(
    ("environ", "code", "word"),
    [
        ({f"{ALL}_PROTOCOL": "http/json"}, "value_ignored", "http/json"),
        ({f"{ALL}_ENDPOINT": "collector:4318"}, "scheme_missing", "http://"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "often"}, "value_ignored", "often"),
        ({f"{ALL}_HEADERS": "nonsense"}, "value_ignored", "key=value"),
        ({"OTEL_SDK_DISABLED": "true"}, "disabled", "configure()"),
        ({"OTEL_LOGS_EXPORTER": "none"}, "exporter_off", "OTEL_LOGS_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "exporter_off", "traces"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "180000"}, "interval_blind", "180 s"),
        ({f"{ALL}_TIMEOUT": "10000"}, "timeout_unit", "10000 seconds"),
        ({f"{ALL}_LOGS_TIMEOUT": "0.05"}, "timeout_short", "0.05 s"),
        ({"OTEL_PROGRESS_RUN_SERIES_MAX": "0"}, "no_run_series", "by operation id"),
        ({"OTEL_PROGRESS_RUN_SERIES_AFTER": "600"}, "run_series_late", "600"),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}, "temporality_delta", "delta"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.instance.id=host1"}, "instance_given", "service.instance.id"),
        ({f"{ALL}_LOGS_ENDPOINT": "http://other:4318/v1/logs"}, "endpoints_differ", "logs go to other:4318"),
    ],
)
def test_variables_that_harm_are_found(environ: dict[str, str], code: str, word: str) -> None:
    """Each variable that is invalid or harmful yields exactly one finding, with a fix that names it."""
    found = [line for line in lines(**environ) if line.code]
    assert [line.code for line in found] == [code]
    assert word in found[0].text
    assert found[0].fix
    assert found[0].level is KINDS[code].level


def test_source_of_each_value_is_told() -> None:
    """Endpoint and protocol of each signal say whether an option, a variable of its own, that of all, or none named them."""
    environ = {f"{ALL}_ENDPOINT": "http://a:4318", f"{ALL}_LOGS_ENDPOINT": "http://a:4318/logs"}
    told = {line.signals[0]: line.text for line in lines(**environ) if line.signals}
    assert told["logs"].startswith(f"http://a:4318/logs ({ALL}_LOGS_ENDPOINT), http/protobuf (default)")
    assert told["traces"].startswith(f"http://a:4318/v1/traces ({ALL}_ENDPOINT)")
    told = {
        line.signals[0]: line.text for line in lines(DoctorOptions("http://b:1", "grpc"), **environ) if line.signals
    }
    assert told["logs"].startswith("http://b:1 (--endpoint), grpc (--protocol)")


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, f"https://a:4317 ({ALL}_ENDPOINT, which names no scheme: TLS, unless {ALL}_INSECURE is true)"),
        (
            {f"{ALL}_INSECURE": "True"},
            f"http://a:4317 ({ALL}_ENDPOINT, which names no scheme: no TLS, as {ALL}_INSECURE is true)",
        ),
        (
            {f"{ALL}_LOGS_INSECURE": "true"},
            f"http://a:4317 ({ALL}_ENDPOINT, which names no scheme: no TLS, as {ALL}_LOGS_INSECURE is true)",
        ),
        ({f"{ALL}_LOGS_ENDPOINT": "http://b:4317", f"{ALL}_INSECURE": "true"}, f"http://b:4317 ({ALL}_LOGS_ENDPOINT)"),
    ],
)
def test_an_address_without_a_scheme_says_whether_tls_is_used(environ: dict[str, str], shown: str) -> None:
    """For gRPC the report names the variable that decides, unless a scheme does."""
    grpc = {f"{ALL}_PROTOCOL": "grpc", f"{ALL}_ENDPOINT": "a:4317"}
    told = {line.signals[0]: line.text for line in lines(**grpc, **environ) if line.signals}
    assert told["logs"].startswith(f"{shown}, grpc ({ALL}_PROTOCOL)")


def test_an_address_that_is_not_used_is_not_the_source() -> None:
    """Over HTTP an address without a scheme is not used: the report says what is, and what to write."""
    told = lines(**{f"{ALL}_ENDPOINT": "127.0.0.1:4318"})
    logs = next(line.text for line in told if line.signals == ("logs",))
    assert logs.startswith(
        f"http://localhost:4318/v1/logs (default; {ALL}_ENDPOINT names no scheme, so it is not used)"
    )
    (fix,) = [line.fix for line in told if line.code]
    assert fix == f"Write http://127.0.0.1:4318 in {ALL}_ENDPOINT."


def test_our_own_log_stays_silent(caplog: pytest.LogCaptureFixture) -> None:
    """What is told as a finding is not told a second time in the log."""
    assert codes(**{f"{ALL}_PROTOCOL": "x"}) == ["value_ignored"]
    assert not caplog.records


# -- secrets


def test_secrets_are_known() -> None:
    """Values of headers, in each way of writing, and passwords of endpoints, proxies and backends are secrets."""
    environ = {
        f"{ALL}_HEADERS": "authorization=Bearer%20abcd%21",
        f"{ALL}_LOGS_ENDPOINT": "http://me:pass%21word@a:4318",
        "https_proxy": "http://me:proxypass@p:3128",
    }
    settings, _ = settings_of(DoctorOptions(), environ)
    report = Report(io.StringIO(), secrets(settings, environ, "http://me:lokipass@l:3100"))
    for secret in ("abcd!", "abcd%21", "Bearer abcd!", "pass%21word", "pass!word", "proxypass", "lokipass"):
        assert secret not in report.clean(f"it says {secret}.")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://me:pw@a:4318/v1/logs?key=x", "http://a:4318/v1/logs"),
        ("a:4317", "a:4317"),
        ("http://[::1]:4318", "http://[::1]:4318"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, expected: str) -> None:
    """Name, password and query of an address are not shown."""
    assert shown(url) == expected


# -- proxies


@pytest.mark.parametrize(
    ("none", "expected"),
    [
        ("", "http://p:1"),
        ("b.example", "http://p:1"),
        ("a.example", ""),
        (".example", ""),
        ("*", ""),
        ("a.example:4318", ""),
    ],
)
def test_proxies(none: str, expected: str) -> None:
    """The proxy of the scheme holds, unless NO_PROXY names the host, its domain, or all."""
    environ = {"http_proxy": "http://me:pw@p:1", "https_proxy": "http://q:1", "no_proxy": none}
    assert proxy_of(Endpoint("http/protobuf", "http://a.example:4318/v1/logs"), environ) == expected


# -- the report


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Yes."""
        return True


LINE = problem("refused", "nothing\x1b[31m listens").line("endpoint", ("logs", "traces"), variable="X")


def test_report_for_a_person() -> None:
    """Steps are headed once; a finding has a sign, its signals, and its fix; what a terminal would obey is left out."""
    out = io.StringIO()
    report = Report(out)
    for line in (ReportLine("endpoint", Level.OK, "fine"), LINE):
        report.add(line)
    report.waiting("waiting for it")
    report.end()
    text = out.getvalue()
    assert text.startswith(
        "endpoint\n  ✓ fine\n  ✗ logs, traces: nothing [31m listens\n      fix: Start `otel-progress monitor`"
    )
    assert text.endswith("1 thing is wrong\n")
    assert "\x1b" not in text
    assert "waiting" not in text
    assert not report.ok


def test_report_in_a_terminal() -> None:
    """A terminal gets colour, and the line that says what is waited for, which is gone at the end."""
    out = Terminal()
    report = Report(out)
    report.waiting("waiting for it")
    report.add(LINE)
    assert "\r\x1b[2K  … waiting for it\r\x1b[2K" in out.getvalue()
    assert "\x1b[31m✗\x1b[0m" in out.getvalue()


def test_report_for_a_program() -> None:
    """JSON has all lines and the verdict, and nothing but JSON."""
    out = Terminal()
    report = Report(out, as_json=True)
    report.waiting("waiting for it")
    report.add(LINE)
    report.end(operation="x")
    read_back = json.loads(out.getvalue())
    assert read_back["ok"] is False
    assert read_back["operation"] == "x"
    assert read_back["lines"][0]["code"] == "refused"
    assert read_back["lines"][0]["signals"] == ["logs", "traces"]


def test_warnings_are_no_errors() -> None:
    """Only an error makes it not fine."""
    report = Report(io.StringIO())
    report.add(problem("clock_skew", "late").line("clock"))
    assert report.ok


# -- the command line


@pytest.mark.parametrize(
    "given",
    [
        ["--timeout", "0"],
        ["--timeout", "long"],
        ["--timeout", "nan"],
        ["--protocol", "http/json"],
        ["--endpoint", "collector:4318"],
        ["--loki", "loki:3100"],
        ["something"],
    ],
)
def test_wrong_use_ends_with_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Invalid options end with exit code 2 and a reason."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *given])
    assert ended.value.code == 2
    assert "usage: otel-progress" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor --help` shows what to type."""
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--help"])
    assert "otel-progress doctor --endpoint http://localhost:4318" in capsys.readouterr().out


def test_settings_are_those_of_configure() -> None:
    """It reads what `configure()` reads."""
    environ = {f"{ALL}_ENDPOINT": "http://a:1", "OTEL_TRACES_EXPORTER": "none"}
    assert settings_of(DoctorOptions(protocol="grpc"), environ)[0] == read(protocol="grpc", environ=environ)


# -- the page


class Capitals(defaultdict[str, str]):
    """What a fix is about, as the page has it."""

    def __missing__(self, key: str) -> str:
        return key.upper()


def test_page_has_each_finding_with_its_fix() -> None:
    """The table of docs/doctor.md is the table of the code, row by row."""
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = [
        tuple(cell.strip() for cell in row)
        for row in re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|(.*)\|$", text, re.MULTILINE)
    ]
    expected = [
        (code, SIGN[kind.level], kind.meaning, kind.fix.format_map(Capitals()).replace("|", "\\|"))
        for code, kind in KINDS.items()
    ]
    assert rows == expected


def test_every_finding_comes_from_the_code() -> None:
    """No kind of finding is left that nothing makes."""
    texts = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src/otel_progress/cli/doctor").glob("*.py")
        if path.name != "findings.py"
    )
    assert [code for code in KINDS if f'"{code}"' not in texts] == []


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"product": "otel-progress", "intake": {"too_large": 3}}, ["batch_items"]),
        ({"product": "otel-progress", "mistakes": {"type": 1, "newest": "node: x"}}, ["sender_mistakes"]),
        ({"product": "otel-progress", "intake": {"too_large": 0}}, []),
        ({"product": "another", "intake": {"too_large": 3}}, []),
        ([], []),
    ],
)
def test_monitor_that_refused_what_others_sent(about: object, found: list[str]) -> None:
    """What a monitor counts of large requests and mistakes is a finding; another receiver's health is not."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings, _ = settings_of(NOTHING, {f"{ALL}_ENDPOINT": f"http://127.0.0.1:{server.server_port}"})
        endpoint = settings.endpoints["logs"]
        assert [one.code for one in complaints(endpoint)] == found
        server.shutdown()


def test_what_an_hour_sends_is_told_in_words() -> None:
    """Series are named where there are any, and the size is the one that leaves, beside the other one."""
    tally = {"items": 4332, "series": 0, "requests": 1, "size": 10_652_629, "zipped": 4_915_773}
    assert describe("event", tally, zipped=False) == "4,332 events, 1 request, 10.7 MB; gzip would make it 4.9 MB"
    tally |= {"items": 1, "series": 1460}
    assert describe("point", tally, zipped=True) == "1,460 series, 1 point, 1 request, 4.9 MB as gzip, 10.7 MB unpacked"
