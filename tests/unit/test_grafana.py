"""The dashboards and the provisioning of Grafana, as far as files show; tests/stack runs their queries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from grafana.generator import DASHBOARDS
from grafana.generator.queries import label, series

from otel_progress import semconv as s
from otel_progress.telemetry.run_values import COLUMNS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana" / "dashboards"
PROVISIONING = ROOT / "grafana" / "provisioning"
RULES = (ROOT / "grafana" / "alerts" / "rules.yaml").read_text(encoding="utf-8")
JOBS = (ROOT / "grafana" / "alerts" / "jobs.yaml").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*.json"))
MIXED = "-- Mixed --"
BUILT_IN = {"__range", "__interval", "__rate_interval", "__auto", "__from", "__to", "__url_time_range"}
NO_UNIT = {"row", "text", "logs", "traces", "table"}  # a unit of a whole table would be that of its texts too


def read(file: Path) -> dict[str, Any]:
    """Return a dashboard."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all panels, also those of collapsed rows."""
    return [it for panel in dashboard["panels"] for it in (panel, *panel.get("panels", ()))]


def provisioned(name: str) -> dict[str, Any]:
    """Return a provisioned file."""
    found: dict[str, Any] = yaml.safe_load((PROVISIONING / name / "otel-progress.yaml").read_text(encoding="utf-8"))
    return found


def strings(found: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Return all strings of a structure, with their keys."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from strings(value, name)
    elif isinstance(found, list):
        for value in found:
            yield from strings(value, key)
    elif isinstance(found, str):
        yield key, found


def links(found: Any) -> Iterator[str]:
    """Return the URLs of all links."""
    return (text for key, text in strings(found) if key == "url" and text)


each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
UIDS = {read(file)["uid"]: read(file) for file in FILES}


def test_files_are_what_the_generator_makes() -> None:
    """The files are exactly those that `python -m grafana.generator` writes."""
    command = [sys.executable, "-m", "grafana.generator", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {read(file)["uid"] for file in FILES} == {dashboard.uid for dashboard in DASHBOARDS}
    assert len(FILES) == len(DASHBOARDS)


@each
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_schema(file: Path) -> None:
    """Grafana's own model of a dashboard knows every field: reading and writing loses nothing."""
    sdk = pytest.importorskip("grafana_foundation_sdk", reason="it needs Python 3.11")
    assert sdk
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    given = read(file)
    given["annotations"] = {"list": []}  # the model knows no fields of data sources here
    for panel in panels_of(given):
        if panel.get("datasource", {}).get("uid") == MIXED:
            del panel["targets"]  # the model knows no fields of these
    made = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))

    def lost(before: Any, after: Any, path: str) -> Iterator[str]:
        if isinstance(before, dict) and isinstance(after, dict):
            for name, value in before.items():
                yield from lost(value, after.get(name, "lost"), f"{path}.{name}")
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            for number, (one, other) in enumerate(zip(before, after)):
                yield from lost(one, other, f"{path}[{number}]")
        elif before != after:
            yield f"{path}: {before!r:.80} became {after!r:.80}"

    assert not list(lost(given, made, ""))


@each
def test_layout(file: Path) -> None:
    """Ids are unique, no panel overlaps another or exceeds 24 columns, and the worst comes first on a laptop's screen."""
    ids = [panel["id"] for panel in panels_of(read(file))]
    assert len(ids) == len(set(ids))
    panels = read(file)["panels"]
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


WINDOW = 1440
"""The width of a small laptop's window in pixels."""
AROUND = 50
"""What Grafana needs beside the panels, with its menu closed: padding, borders, a scroll bar."""
UNSIZED = 150
"""The least width of a column that sets none."""


@each
def test_tables_fit(file: Path) -> None:
    """All columns of a table are seen on a small laptop without scrolling sideways."""
    for panel in panels_of(read(file)):
        if panel["type"] != "table":
            continue
        [organize] = [it["options"] for it in panel["transformations"] if it["id"] == "organize"]
        sizes: dict[str, int] = {}
        for name in organize["indexByName"].keys() - organize["excludeByName"].keys():
            sizes[name] = UNSIZED
            for it in panel["fieldConfig"]["overrides"]:
                matcher, given = it["matcher"], {one["id"]: one["value"] for one in it["properties"]}
                by_name = matcher["id"] == "byName" and matcher["options"] == name
                if by_name or (matcher["id"] == "byRegexp" and re.search(matcher["options"].strip("/"), name)):
                    sizes[name] = 0 if given.get("custom.hidden") else given.get("custom.width", UNSIZED)
        assert sum(sizes.values()) <= (WINDOW - AROUND) * panel["gridPos"]["w"] / 24, (panel["title"], sizes)


@each
def test_panels_are_described(file: Path) -> None:
    """Each panel names its content, its store and its unit; colours are named, so that they fit both themes."""
    for panel in panels_of(read(file)):
        if panel["type"] == "row":
            continue
        assert panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["type"] in NO_UNIT or defaults["unit"], panel["title"]
        if panel["type"] == "text":
            continue
        for source in {target["datasource"]["type"] for target in panel["targets"]}:
            assert source.capitalize() in panel["description"], panel["title"]
        for key, text in strings(panel["fieldConfig"]):
            assert not (key == "color" and re.match("#|rgb", text)), panel["title"]


@each
def test_data_sources(file: Path) -> None:
    """Panels and variables name data sources only by a variable, and each starts with a provisioned one."""
    dashboard = read(file)
    chosen = {
        it["name"]: it["current"]["value"] for it in dashboard["templating"]["list"] if it["type"] == "datasource"
    }
    known = {it["uid"]: it["type"] for it in provisioned("datasources")["datasources"]}
    for name, uid in chosen.items():
        assert known[uid] == name
    owners = [*panels_of(dashboard), *dashboard["templating"]["list"], *dashboard["annotations"]["list"]]
    owners += [target for panel in panels_of(dashboard) for target in panel.get("targets", ())]
    for owner in owners:
        source = owner.get("datasource")
        if source and source["uid"] != MIXED:
            assert source["uid"] == f"${{{source['type']}}}"
            assert source["type"] in chosen


@each
def test_variables(file: Path) -> None:
    """Each variable of a query or link exists, and each existing one is used."""
    dashboard = read(file)
    defined = {it["name"] for it in dashboard["templating"]["list"]}
    assert len(defined) == len(dashboard["templating"]["list"])
    used: set[str] = set()
    for key, text in strings([dashboard["panels"], dashboard["templating"]["list"], dashboard["annotations"]]):
        if key in ("description", "regex"):
            continue
        for name in re.findall(r"\$(?:\{([\w]+)[^}]*\}|([A-Za-z_]\w*))", text):
            found = name[0] or name[1]
            if not found.startswith(("__data", "__all")) and found not in BUILT_IN:
                used.add(found)
    assert used <= defined, used - defined
    assert defined - used <= {"prometheus", "loki", "tempo"}


@each
def test_names(file: Path) -> None:
    """Each name that begins with `progress_` is a name of `semconv.py`, as Prometheus and Loki show it."""
    metrics = {series(metric, end) for metric in s.METRICS for end in ("", "_total", "_bucket", "_sum", "_count")}
    attributes = {label(value) for name, value in vars(s).items() if name.isupper() and isinstance(value, str)}
    attributes |= {label(s.GEN_AI_USAGE), "progress_run_"}
    for key, text in strings(read(file)["panels"]):
        if key in ("expr", "query", "id"):
            for name in re.findall(r"(?<![:\w])progress_\w+", text):
                assert name in metrics | attributes, f"{name} in {text}"


@each
def test_queries(file: Path) -> None:
    """Queries of a panel have distinct ids, and Grafana replaces every placeholder."""
    for panel in panels_of(read(file)):
        if panel["type"] in ("row", "text"):
            continue
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            text = target.get("expr") or target["query"]
            assert text.count("(") == text.count(")"), text
            assert "[[" not in text


def read_somewhere() -> set[str]:
    """Return the names of Prometheus that the rules, the recorded series and the panels read."""
    texts = [text for file in FILES for key, text in strings(read(file)) if key in ("expr", "query", "definition")]
    for file in sorted((ROOT / "grafana" / "alerts").glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        texts += [line for line in lines if not line.lstrip().startswith("#")]
    return {name for text in texts for name in re.findall(r"(?<![:\w])progress_run_\w+", text)}


def test_run_series_of_the_default_are_those_that_are_read() -> None:
    """By default an operation has exactly the series that an alert, a recorded series or a panel reads."""
    unread = {column.metric for column in COLUMNS if not column.is_read}
    default = {series(it) for it in s.METRICS if it.name.startswith("progress.run.") and it not in unread}
    assert read_somewhere() == default


def test_every_query_says_what_it_returns() -> None:
    """Each query has an expectation, which tests/stack compares with real data."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels():
            for ref, query in panel.queries.items():
                assert query.expect, f"{dashboard.title}: {panel.json['title']} {ref}"


@each
def test_links(file: Path) -> None:
    """Each URL has a form that Grafana routes: a dashboard of ours with its variables, or a query in Explore."""
    dashboard = read(file)
    for panel in panels_of(dashboard):
        labels = set(re.findall(r"\w+", " ".join(text for key, text in strings(panel) if key in ("expr", "query"))))
        for url in links(panel):
            for name in re.findall(r"\$\{__data\.fields\.(\w+):percentencode\}", url):
                assert name in labels, f"{name} is no column of {panel['title']}"
            plain = url.replace("%24__all", "all")
            plain = re.sub(r"\$\{__url_time_range\}", "from=now-1h&to=now", plain)
            plain = re.sub(r"\$\{(\w+):queryparam\}", r"var-\1=otel-progress-\1", plain)
            plain = re.sub(r"\$\{(prometheus|loki|tempo)\}", r"otel-progress-\1", plain)
            plain = re.sub(r"\$\{__(from|to)\}", "1700000000000", plain)
            plain = re.sub(r"\$\{__data\.fields\.\w+:percentencode\}", "a%20b", plain)
            assert "$" not in plain, plain
            address = urlsplit(plain)
            assert not address.netloc
            given = parse_qs(address.query, strict_parsing=bool(address.query))
            if address.path == "/explore":
                check_explore(given)
            else:
                check_dashboard(address.path, given)


def check_dashboard(path: str, given: dict[str, list[str]]) -> None:
    """Route /d/:uid, and variables that the dashboard has."""
    route = re.fullmatch(r"/d/([\w-]{1,40})", path)
    assert route, path
    target = UIDS[route[1]]
    names = {f"var-{it['name']}" for it in target["templating"]["list"]}
    assert given.keys() <= names | {"from", "to"}, given.keys() - names


def check_explore(given: dict[str, list[str]]) -> None:
    """Route /explore with the panes of schema version 1."""
    assert given.keys() == {"schemaVersion", "panes"}
    assert given["schemaVersion"] == ["1"]
    [pane] = json.loads(given["panes"][0]).values()
    known = {it["uid"]: it["type"] for it in provisioned("datasources")["datasources"]}
    assert pane["range"]["from"] in ("1700000000000", "a b"), "the dashboard's, or the start of the row's run"
    assert pane["range"]["to"] == "1700000000000"
    for query in pane["queries"]:
        assert query["datasource"]["uid"] == pane["datasource"]
        assert query["datasource"]["type"] == known[pane["datasource"]]
        text = query.get("expr") or query["query"]
        assert '"a b"' in text or text == "a b"


def test_runbook_has_every_alert() -> None:
    """The dashboard to which the alerts link has a panel for each of them."""
    texts = [panel for panel in panels_of(UIDS["otel-progress-runbook"]) if panel["type"] == "text"]
    assert {panel["title"] for panel in texts} == set(re.findall(r"alert: (\w+)", RULES + JOBS)) | {"Watchdog"}
    left = [
        found
        for panel in texts
        for found in re.findall(r'"(?:NAME|ID|JOB|SERVICE|INSTANCE)"', panel["options"]["content"])
    ]
    assert not left, "words that a person would have to replace"


def test_links_of_alerts_fit() -> None:
    """The links of an alert name dashboards of ours, and fill in only variables that these have."""
    urls = re.findall(r"}}(/d/[\w-]+)?(\?var-\S+=\S.*?)(?:#|\n)", RULES)
    assert len(urls) >= 12
    for path, query in urls:
        target = UIDS[path.removeprefix("/d/") if path else "otel-progress-runbook"]
        known = {it["name"] for it in target["templating"]["list"]}
        assert set(re.findall(r"[?&]var-(\w+)=", query)) <= known, query


def test_links_to_the_runbook_name_the_run() -> None:
    """Each link of a row to the runbook fills in the name and the id of its row."""
    found = {url for file in FILES for url in links(read(file)) if url.startswith("/d/otel-progress-runbook")}
    assert found
    assert all("var-name=${__data" in url and "var-id=${__data" in url for url in found)


def test_data_sources_lead_to_each_other() -> None:
    """Traces link to logs, logs and exemplars to traces; every named uid exists, and addresses are variables."""
    sources = {it["uid"]: it for it in provisioned("datasources")["datasources"]}
    named = {text for key, text in strings(list(sources.values())) if key in ("datasourceUid", "alertmanagerUid")}
    assert named <= sources.keys()
    assert named == {"otel-progress-tempo", "otel-progress-loki", "otel-progress-alertmanager"}
    given = dict(
        line.split("=", 1)
        for line in (ROOT / "grafana" / "loopback.env").read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    )
    text = "".join(file.read_text(encoding="utf-8") for file in PROVISIONING.rglob("*.yaml"))
    assert set(re.findall(r"(?<!\$)\$\{(\w+)\}", text)) == given.keys()
    assert all("//127.0.0.1:" in url for name, url in given.items() if name.endswith("_URL"))
    tempo = sources["otel-progress-tempo"]["jsonData"]
    assert "serviceMap" not in tempo
    # A literal `$` is doubled for Grafana.
    for _, value in strings([it["jsonData"] for it in sources.values()]):
        assert not re.search(r"(?<!\$)\$(?!\$)", value), value


def test_other_provisioning() -> None:
    """The dashboards are read from a directory; no rule is provisioned a second time."""
    [provider] = provisioned("dashboards")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "${OTEL_PROGRESS_DASHBOARDS}"
    assert provisioned("alerting") == {"apiVersion": 1}
