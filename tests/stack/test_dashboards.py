"""Every query of the dashboards, run on real data sources behind a real Collector, returns what it promises.

Those to Loki and Tempo run only if the environment names these programs; their grammars are tested in any case.

Real programs (`dashboard_program.py`) send the data; the expected result of each query is beside the query in
`grafana/generator/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from grafana.generator import DASHBOARDS, links
from grafana.generator.operation import ONE_OPERATION
from grafana.generator.queries import EVENT, ID, VERDICTS

from otel_progress import semconv as s

from . import build
from .alert_demo import demo
from .backends import Loki, Prometheus, Tempo
from .collector import CONFIGS, Collector
from .grafana_queries import Found, ask, interpolate, matches
from .needed import built, installed
from .ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grafana.generator.queries import Query

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("dashboard_program.py")
RULES = (ROOT / "grafana" / "alerts" / "rules.yaml", ROOT / "grafana" / "alerts" / "panels.yaml")
SOURCES = ROOT / "grafana" / "provisioning" / "datasources" / "otel-progress.yaml"
SPEED = 20
"""The divisor of all times of the alert rules."""
PATIENCE = 60.0
SCRAPE = """
scrape_configs:
  - job_name: otel-collector
    scrape_interval: 1s
    static_configs: [{targets: ["127.0.0.1:%(collector)s"]}]
  - job_name: prometheus
    scrape_interval: 1s
    static_configs: [{targets: ["%(self)s"]}]
  - job_name: otel-progress
    scrape_interval: 500ms
    honor_labels: true
    static_configs: [{targets: [%(jobs)s]}]
rule_files: %(rules)s
"""
VARIABLES = {
    "job": ".*",
    "service": "shop",
    "name": ".*",
    "id": "moving-1",
    "currency": "USD",
    "environment": ".*",
    "cluster": ".*",
    "namespace": ".*",
    "unrecorded": "-",
    "instance": ".*",
    "heard": "10s",
    "gap": "10s",
    "known": "40m",
    "window": "40m",
}
"""What the user selected."""
OPTIONS = {
    "job": {"shop"},
    "service": {"shop"},
    "name": {"agent", "approve", "chunk", "import", "report"},
    "id": {
        "moving-1",
        "staged-1",
        "child-1",
        "slow-1",
        "looping-1",
        "stuck-1",
        "waiting-1",
        "overdue-1",
        "killed-1",
        "ended-1",
    },
    "currency": {"USD"},
    "unrecorded": {"-"},
}
"""The choices of the user."""
WORST = {
    "ended-1": "ended",
    "moving-1": "progressing",
    "staged-1": "progressing",
    "waiting-1": "waiting",
    "late-1": "not started",
    "slow-1": "slow",
    "overdue-1": "overdue",
    "looping-1": "looping",
    "stuck-1": "silent",
    "killed-1": "dead",
}
ALERTS = {
    ("OperationStuck", "stuck-1"),
    ("OperationLost", "killed-1"),
    ("OperationSlow", "slow-1"),
    ("OperationLooping", "looping-1"),
    ("OperationOverdueWait", "overdue-1"),
    ("OperationNotStarted", "late-1"),
}
"""Not `StuckByName`: each stuck run has an alert of its own, which holds the one for its name back."""

# They share the programs.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("dashboards")]


class NewPrometheus(Prometheus):
    """A Prometheus that keeps exemplars."""

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [*super().command(), "--enable-feature=exemplar-storage"]


class OldPrometheus(Prometheus):
    """A Prometheus without OTLP."""

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [it for it in super().command() if it != "--web.enable-otlp-receiver"]


class Stack(NamedTuple):
    """The data sources; None for those that were not named."""

    prometheus: Prometheus
    loki: Loki | None
    tempo: Tempo | None

    def ask(self, query: Query, **more: str) -> list[Found]:
        """Return the rows of the query."""
        if "$trace" in query.text:
            assert self.loki is not None
            [line, *_] = self.loki.query_range(explored(links.events_of(VARIABLES["id"]))["expr"])
            more["trace"] = line.labels["trace_id"]
        return ask(query, {**VARIABLES, **query.variables, **more}, self.prometheus, self.loki, self.tempo)


@contextlib.contextmanager
def running(collector_binary: Path, folder: Path, prometheus: Prometheus, scrape: bool) -> Iterator[Stack]:
    """Return the whole pipeline, with the data that the expectations describe."""
    guard, [own, jobs] = free_ports(2)
    with contextlib.ExitStack() as stack, guard:
        for rules in RULES:
            (folder / rules.name).write_text(demo.faster(rules.read_text(encoding="utf-8"), SPEED), encoding="utf-8")
        places = {
            "collector": own,
            "self": prometheus.endpoint.removeprefix("http://"),
            "jobs": f'"127.0.0.1:{jobs}"' if scrape else "",
            "rules": json.dumps([str(folder / rules.name) for rules in RULES]),
        }
        config = folder / "prometheus.yaml"
        base = "" if scrape else prometheus.config.read_text(encoding="utf-8")
        base = base.replace("evaluation_interval: 15s", "evaluation_interval: 1s")
        config.write_text(base + SCRAPE % places, encoding="utf-8")
        prometheus.config = config
        loki, tempo = (None, None) if scrape else (build.binary("loki"), build.binary("tempo"))
        sources = Stack(
            prometheus,
            None if loki is None else Loki(loki, folder / "loki"),
            None if tempo is None else Tempo(tempo, folder / "tempo"),
        )
        for source in filter(None, sources):
            source.start()
            stack.callback(source.kill)  # nobody needs what they would still write
        sink = stack.enter_context(Collector(collector_binary, folder / "sink"))
        env = {"OTEL_PROGRESS_SELF_PORT": str(own), "OTEL_PROGRESS_SCRAPE": f"127.0.0.1:{jobs}"}
        for name, source in sources._asdict().items():
            # A Collector that accepts everything replaces what was not named.
            env[f"OTEL_PROGRESS_{name.upper()}"] = sink.http_endpoint if source is None else source.otlp_endpoint
        configs = [CONFIGS / "single.yaml", *([CONFIGS / "prometheus-scrape.yaml"] if scrape else [])]
        collector = Collector(collector_binary, folder / "collector", configs=configs, env=env)
        stack.enter_context(collector)
        stack.enter_context(situation(collector, prometheus))
        yield sources


@contextlib.contextmanager
def situation(collector: Collector, prometheus: Prometheus) -> Iterator[None]:
    """Return operations of all kinds, one of which was killed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env = {
        **kept,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.1",
    }

    def start(what: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), what], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    with start("killed") as victim, start("living") as living, start("ended") as ended:
        try:
            assert ended.communicate(timeout=60)[0] == "ended\n"
            told = f'progress_run_active{{{ID}="killed-1"}} and on (instance) progress_operation_active == 1'
            prometheus.wait_for(lambda: prometheus.query(told), 60)
            victim.kill()
            verdicts = 'progress_run_health{progress_health=~"slow|silent|looping"} == 1'
            prometheus.wait_for(lambda: len(prometheus.query(verdicts)) == 3, 60)
            heard = f'present_over_time(progress_run_active{{{ID}="killed-1"}}[{VARIABLES["gap"]}])'
            prometheus.wait_for(lambda: not prometheus.query(heard), 60)
            yield
        finally:
            for process in (victim, living, ended):
                process.kill()


@pytest.fixture(scope="module")
def stack(collector_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return the newest version: metrics reach Prometheus over OTLP."""
    folder = tmp_path_factory.mktemp("dashboards")
    with running(collector_binary, folder, NewPrometheus(built("prometheus"), folder / "prometheus"), False) as sources:
        yield sources


@pytest.fixture(scope="module")
def scraped(collector_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return the system's Prometheus, which scrapes the metrics from the Collector."""
    folder = tmp_path_factory.mktemp("scraped")
    with running(
        collector_binary, folder, OldPrometheus(installed("prometheus"), folder / "prometheus"), True
    ) as sources:
        yield sources


CASES = {
    f"{dashboard.uid.removeprefix('otel-progress-')}-{panel.json['title']}-{ref}": query
    for dashboard in DASHBOARDS
    for panel in dashboard.panels()
    for ref, query in panel.queries.items()
    if not query.native
}
SCRAPED = {name: it for name, it in CASES.items() if it.source == "prometheus" and "otelcol_" not in it.text}


def wait_for(what: Callable[[], str]) -> None:
    """Query until nothing is wrong."""
    end = time.monotonic() + PATIENCE
    while wrong := what():
        assert time.monotonic() < end, wrong
        time.sleep(0.2)


def wrong_with(query: Query, stack: Stack) -> str:
    """Return what is missing in the result of a query, or too much."""
    found = stack.ask(query)

    def right(it: Found) -> list[int]:
        rows = enumerate(query.expect)
        return [number for number, row in rows if matches(it, row.labels, row.low, row.high, row.line)]

    seen = [right(it) for it in found]
    missing = [row for number, row in enumerate(query.expect) if not any(number in it for it in seen)]
    others = [it for it, rows in zip(found, seen) if query.only and not rows]
    if not missing and not others:
        return ""
    asked = interpolate(query.text, {**VARIABLES, **query.variables})
    return f"{asked}\nmissing: {missing}\ntoo much: {others}\nfound: {found[:20]}"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=getattr(pytest.mark, it.source) if it.source in build.GIVEN else ())
        for name, it in CASES.items()
    ],
)
def test_query_returns_what_it_promises(name: str, stack: Stack) -> None:
    """A panel's query returns its expected rows; and no others, if it says so."""
    wait_for(lambda: wrong_with(CASES[name], stack))


@pytest.mark.parametrize("name", SCRAPED)
def test_query_returns_it_where_metrics_are_scraped(name: str, scraped: Stack) -> None:
    """The same holds with an older Prometheus that scrapes the Collector."""
    wait_for(lambda: wrong_with(SCRAPED[name], scraped))


@pytest.mark.parametrize("operation", WORST)
def test_verdict_of_one_operation(operation: str, stack: Stack) -> None:
    """The verdict of one operation is the worst that holds."""
    verdict = next(panel.queries["A"] for panel in ONE_OPERATION.panels() if panel.json["title"] == "In short")
    wanted = VERDICTS[WORST[operation]]
    wait_for(lambda: "" if [it.value for it in stack.ask(verdict, id=operation)] == [wanted] else operation)


def test_what_ended_does_not_run(stack: Stack) -> None:
    """Whatever the gap, an operation that reported its end is not among the running ones."""
    [running] = [it for name, it in CASES.items() if name.startswith("now-Running: ") and name.endswith("-A")]
    found = stack.ask(running, heard="40m", gap="40m", unrecorded=".+")
    ids = {it.labels[ID] for it in found}
    assert {"killed-1", "moving-1"} <= ids, "a gap of 40 minutes is bridged"
    assert "ended-1" not in ids


def offered(given: dict[str, Any], prometheus: Prometheus, text: str) -> dict[str, str]:
    """Return the values and texts that the variable makes of the result of a query, as Grafana does."""
    pattern = re.compile(given["regex"].strip("/").replace("(?<", "(?P<"))
    rows = prometheus.query(text.removeprefix("query_result(").removesuffix(")"))
    shown = ("{" + ",".join(f'{key}="{value}"' for key, value in sorted(it.labels.items())) + "}" for it in rows)
    return {one["value"]: one.groupdict().get("text", "") for it in shown if (one := pattern.search(it))}


def test_list_of_operations(stack: Stack) -> None:
    """The list of operations shows name, start and state, also of those that ended or died."""
    [given] = [it for it in ONE_OPERATION.variables if it["name"] == "id"]
    text = interpolate(given["query"]["query"], VARIABLES)

    def wrong() -> str:
        found = offered(given, stack.prometheus, text)
        start = r"day \d\d at \d\d:\d\d UTC"
        states = {"stuck-1": "import, START, stuck", "ended-1": "report, START, ended"}
        states |= {"killed-1": "import, START, not heard from", "waiting-1": "approve, START, waiting"}
        bad = {key for key, it in states.items() if not re.fullmatch(it.replace("START", start), found.get(key, ""))}
        return f"{bad} {found}" if bad else ""

    wait_for(wrong)


@pytest.mark.parametrize("name", OPTIONS)
def test_choices(name: str, stack: Stack) -> None:
    """A variable offers the expected choices."""
    given = {it["name"]: it for board in DASHBOARDS for it in board.variables if it["type"] == "query"}[name]
    text = interpolate(given["query"]["query"], VARIABLES)
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", text)
    selector, label = (found[1], found[2]) if found else ("", "")

    def choices() -> set[str]:
        if not found:
            return set(offered(given, stack.prometheus, text))
        values = stack.prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": selector})["data"]
        if given["regex"]:
            pattern = re.compile(given["regex"].strip("/").replace("(?<", "(?P<"))
            values = [one["value"] for value in values if (one := pattern.search(value))]
        return set(values)

    wait_for(lambda: "" if OPTIONS[name] <= choices() else f"{choices()}")
    if name in ("job", "service", "name"):
        assert choices() <= OPTIONS[name] | {"otel-collector", "prometheus"}


def test_service_leaves_the_namespace_out() -> None:
    """Loki's label has no namespace, so the regular expression of `service` takes the part after it."""
    [given] = [it for it in ONE_OPERATION.variables if it["name"] == "service"]
    pattern = re.compile(given["regex"].strip("/").replace("(?<", "(?P<"))
    for job, service in (("shop", "shop"), ("eu/shop", "shop")):
        found = pattern.search(job)
        assert found
        assert found["value"] == service


def test_every_alert(stack: Stack) -> None:
    """Each rule can be evaluated; expected alerts fire, and healthy operations do not alert."""

    def rules() -> list[dict[str, Any]]:
        groups = stack.prometheus.get("/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing() -> set[tuple[str, str]]:
        return {
            (rule["name"], alert["labels"].get(ID) or alert["labels"].get("progress_operation_name", ""))
            for rule in rules()
            for alert in rule.get("alerts", ())
            if alert["state"] == "firing"
        }

    wait_for(lambda: "" if firing() >= ALERTS else f"missing: {ALERTS - firing()}")
    assert firing() == ALERTS
    for rule in rules():
        assert rule["health"] == "ok", rule


def explored(url: str) -> dict[str, Any]:
    """Return the query that a URL shows in Explore."""
    filled = re.sub(r"\$\{\w+\}", "x", url)
    [pane] = json.loads(parse_qs(urlsplit(filled).query)["panes"][0]).values()
    found: dict[str, Any] = pane["queries"][0]
    return found


@pytest.mark.loki
def test_link_to_events(stack: Stack) -> None:
    """A row's link to its events shows only those of the operation."""
    assert stack.loki is not None
    found = stack.loki.query_range(explored(links.events_of("killed-1"))["expr"])
    assert found
    assert {line.labels[ID] for line in found} == {"killed-1"}


@pytest.mark.tempo
def test_link_to_trace(stack: Stack) -> None:
    """A row's link to its trace finds the trace, even before the operation ends."""
    assert stack.tempo is not None
    tempo, text = stack.tempo, explored(links.trace_of("moving-1"))["query"]
    [trace] = tempo.wait_for(lambda: tempo.search(text))
    assert {span.name for span in tempo.trace(trace["traceID"])} >= {"read"}


@pytest.mark.loki
def test_logs_of_a_trace(stack: Stack) -> None:
    """The data source's link from a span to the logs of its trace finds them; each line links back."""
    assert stack.loki is not None
    loki = stack.loki
    [line, *_] = loki.wait_for(lambda: loki.query_range('{service_name="shop"} | progress_operation_id="moving-1"'))
    given = {it["uid"]: it["jsonData"] for it in yaml.safe_load(SOURCES.read_text(encoding="utf-8"))["datasources"]}
    [derived] = given["otel-progress-loki"]["derivedFields"]
    trace_id = line.labels[derived["matcherRegex"]]
    text = given["otel-progress-tempo"]["tracesToLogsV2"]["query"]
    text = text.replace('$${__span.tags["service.name"]}', "shop").replace("$${__trace.traceId}", trace_id)
    assert "$" not in text
    # The child belongs to the trace.
    assert {it.labels[ID] for it in loki.query_range(text)} == {"moving-1", "child-1"}


@pytest.mark.loki
def test_feed_leaves_updates_out(stack: Stack) -> None:
    """The list of events omits updates of counts and heartbeats of the work, of which there are many."""
    assert stack.loki is not None
    every = stack.loki.query_range(f'{{service_name="shop"}} | {ID}="moving-1"')
    assert s.UPDATED in {line.labels[EVENT] for line in every}
    said = [it.labels[EVENT] for it in stack.ask(CASES["operation-What it said-A"])]
    assert set(said) == {s.OPERATION_STARTED, s.STAGE_STARTED, s.STAGE_ENDED, s.NOTE}


def test_exemplars(stack: Stack) -> None:
    """The histogram of durations has exemplars under the name that the data source uses."""
    given = {it["uid"]: it["jsonData"] for it in yaml.safe_load(SOURCES.read_text(encoding="utf-8"))["datasources"]}
    [follows] = given["otel-progress-prometheus"]["exemplarTraceIdDestinations"]
    query = "progress_operation_duration_seconds_bucket"

    def exemplars() -> list[dict[str, Any]]:
        now = time.time()
        found: list[dict[str, Any]] = stack.prometheus.get(
            "/api/v1/query_exemplars", query=query, start=now - 600, end=now
        )["data"]
        return found

    wait_for(lambda: "" if exemplars() else "no exemplars")
    assert all(follows["name"] in one["labels"] for series in exemplars() for one in series["exemplars"])
