"""compose.yaml is valid and reachable only from this machine, and its commands and configurations work together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from . import build, compose
from .compose import ROOT, Services
from .needed import built, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("compose")]

NATIVE = ("prometheus", "tempo", "loki", "alertmanager", "collector")
"""The services that run here, in starting order; Grafana does not run."""


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    """Return the content of compose.yaml, with all profiles."""
    program = built("compose")
    try:
        return compose.model(program)
    except subprocess.CalledProcessError as error:
        pytest.fail(str(error.stderr))


def test_file_is_valid_and_pinned(model: dict[str, Any]) -> None:
    """Compose's own parser accepts the file; each image has a version; the demo starts only with its profile."""
    for name, service in model["services"].items():
        version = service["image"].partition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+.*", version), name
    profiles = {name: service["profiles"] for name, service in model["services"].items() if service.get("profiles")}
    assert profiles == {"demo": ["demo"]}
    assert build.version() in model["services"]["collector"]["image"]


def test_nothing_is_open_to_others(model: dict[str, Any]) -> None:
    """Every port is published only on the loopback address, and Grafana has no user with a password."""
    for name, service in model["services"].items():
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
        assert "network_mode" not in service
    grafana = model["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] != "Admin"


def test_what_is_mounted_exists(model: dict[str, Any]) -> None:
    """Every mounted file is in the repository and read-only; every volume has a name; health is checked."""
    for name, service in model["services"].items():
        for volume in service["volumes"]:
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume
                assert volume["read_only"], volume
            else:
                assert volume["source"] in model["volumes"]
        assert ("healthcheck" in service) == (name not in {"collector", "demo"})


@pytest.mark.parametrize("name", ["tempo", "loki"])
def test_data_are_kept(model: dict[str, Any], name: str) -> None:
    """All data of a backend is in its volume, so that it survives the container."""
    [volume] = [mount["target"] for mount in model["services"][name]["volumes"] if mount["type"] == "volume"]
    text = (ROOT / "compose" / f"{name}.yaml").read_text(encoding="utf-8")
    paths = re.findall(r": (/\S+)$", text, re.MULTILINE)
    assert paths
    assert [path for path in paths if path != volume and not path.startswith(f"{volume}/")] == []


def test_grafana_finds_its_data_sources(model: dict[str, Any]) -> None:
    """Each variable of the provisioning is set, and names a service and a port on which it listens."""
    needed = {
        name
        for file in (ROOT / "grafana" / "provisioning").rglob("*.yaml")
        for name in re.findall(r"(?<!\$)\$\{(\w+)\}", file.read_text(encoding="utf-8"))
    }
    given = model["services"]["grafana"]["environment"]
    assert needed <= given.keys()
    urls = {name: value for name, value in given.items() if name.endswith("_URL") and name in needed}
    assert urls
    for name, value in urls.items():
        found = re.fullmatch(r"http://(\w+):(\d+)", value)
        assert found is not None, name
        assert int(found[2]) in compose.PORTS[found[1]], name
    assert given["OTEL_PROGRESS_DASHBOARDS"] in {mount["target"] for mount in model["services"]["grafana"]["volumes"]}


def ask(url: str) -> Any:
    """Return the JSON response of a URL, or None."""
    with contextlib.suppress(OSError), urlopen(url, timeout=20) as answer:
        return json.load(answer)
    return None


@pytest.fixture(scope="module")
def services(
    model: dict[str, Any], collector_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """Run all services except Grafana (Loki and Tempo only if named) with the commands and files of compose.yaml, and the demo."""
    programs = {"collector": collector_binary, "demo": Path(sys.executable)}
    programs |= {name: found for name in build.GIVEN if (found := build.binary(name))}
    programs["prometheus"] = built("prometheus")
    programs["alertmanager"] = installed("alertmanager", "prometheus-alertmanager")
    running = Services(model["services"], programs, tmp_path_factory.mktemp("compose"))
    with contextlib.closing(running), contextlib.ExitStack() as stack:
        there = [name for name in NATIVE if name in programs]
        for name in there:
            stack.enter_context(running.running(name))
        running.wait_for(lambda: all(running.healthy(name) for name in there if name != "collector"), 90)
        running.wait_for(lambda: answers(running.url("collector", 13133)))
        stack.enter_context(demo(running))
        yield running


def answers(url: str) -> bool:
    """Return whether a URL answers 200."""
    with contextlib.suppress(OSError), urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def demo(services: Services) -> Iterator[None]:
    """Return the demo's command without its installation."""
    [shell, option, line] = services.services["demo"]["command"]
    assert (shell, option) == ("sh", "-c")
    script = re.fullmatch(r"pip install --quiet '/src\[console\]' && exec python /src/(\S+)", line)
    assert script is not None
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    more = {"OTEL_METRIC_EXPORT_INTERVAL": "1000", **services.environment("demo")}
    with (services.folder / "demo.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script[1])], env={**kept, **more}, stdout=log, stderr=log, cwd=services.folder
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def series(services: Services, query: str) -> list[Any]:
    """Return Prometheus's response."""
    answer = ask(f"{services.url('prometheus', 9090)}/api/v1/query?query={quote(query)}")
    return answer["data"]["result"] if answer else []


@pytest.mark.parametrize("job", ["survey", "librarian", "importer"])
def test_series_of_the_demo_arrive(services: Services, job: str) -> None:
    """Each program of the demo has run series and metrics by name in Prometheus, under its own name."""
    services.wait_for(lambda: series(services, f'progress_run_active{{job="{job}"}} == 1'))
    services.wait_for(lambda: series(services, f'progress_operation_started_total{{job="{job}"}}'))


@pytest.mark.loki
def test_events_of_the_demo_arrive(services: Services) -> None:
    """Loki has the log events with their names, the state of the operation, and the line where the job hangs."""
    query = quote('{service_name="importer"} | progress_stuck_at != ""')
    url = f"{services.url('loki', 3100)}/loki/api/v1/query_range?query={query}"
    found = services.wait_for(lambda: (ask(url) or {"data": {"result": []}})["data"]["result"])
    assert "stuck.py" in found[0]["stream"]["progress_stuck_at"]
    assert found[0]["stream"]["progress_operation_name"] == "import"


@pytest.mark.tempo
def test_traces_of_the_demo_arrive(services: Services) -> None:
    """Tempo has the spans, and finds them by the name of the operation."""
    query = quote('{ resource.service.name = "librarian" && span.progress.operation.name = "tool_call" }')
    url = f"{services.url('tempo', 3200)}/api/search?q={query}"
    services.wait_for(lambda: (ask(url) or {}).get("traces"))


@pytest.mark.parametrize(
    "job",
    [
        "otel-collector",
        "prometheus",
        pytest.param("tempo", marks=pytest.mark.tempo),
        pytest.param("loki", marks=pytest.mark.loki),
        "alertmanager",
    ],
)
def test_all_parts_are_scraped(services: Services, job: str) -> None:
    """Prometheus scrapes each program; the rules find the Collector under its job name."""
    services.wait_for(lambda: series(services, f'up{{job="{job}"}} == 1'))


def test_rules_are_judged_and_alerts_sent(services: Services) -> None:
    """The rules see a working Collector, and the alert of the job that hangs reaches Alertmanager."""
    services.wait_for(lambda: series(services, "collector:progress_works:count == 1"))
    services.wait_for(
        lambda: [
            alert
            for alert in ask(f"{services.url('alertmanager', 9093)}/api/v2/alerts") or []
            if alert["labels"]["alertname"] == "OperationStuck" and alert["labels"]["job"] == "importer"
        ],
        150,
    )
