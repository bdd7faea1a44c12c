"""The names of docs/semantic-conventions.md in Prometheus, on all three routes, from one real program."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from .backends import Prometheus
from .collector import CONFIGS, Collector
from .needed import built, installed
from .ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAM = Path(__file__).with_name("names_program.py")
PAGE = Path(__file__).parents[2] / "docs" / "semantic-conventions.md"
CONFIGURATIONS = (
    CONFIGS / "single.yaml",
    CONFIGS / "prometheus-scrape.yaml",
    Path(__file__).with_name("config") / "remote-write.yaml",
)
PATIENCE = 60.0

Names = dict[str, frozenset[str]]
"""The labels of each series, by the name of the series."""

ALWAYS: Final = frozenset({"job", "instance"})
"""The identity on every series: service.name and service.instance.id."""
DIFFERENCES: Final[Mapping[str, frozenset[str]]] = {
    "otlp": frozenset({"host_name"}),
    "scrape": frozenset(),
    "remote write": frozenset(),
}
"""Labels of one route only: what Prometheus 3 promotes from the resource. On the other routes they are in
`target_info` alone."""

OURS: Final = "progress_.*|process_(cpu_time|cpu_utilization|memory_usage|thread_count|disk_io)_.*|process_thread_count"
"""Prometheus and the Collector have other `process_*` series of their own."""
ELSEWHERE: Final = (
    "progress_run_lost_seconds",
    "progress_run_overdue_after_seconds",
    "progress_run_last_heartbeat_seconds",
    "progress_limit_size",
)
"""Series that the programs here do not send: of a proven death, of an overdue wait, with `run_series="all"` only, of an
adaptive limit."""

# They share the programs.
pytestmark = [pytest.mark.timeout(360), pytest.mark.xdist_group("names")]


class OldPrometheus(Prometheus):
    """A Prometheus with remote write instead of OTLP."""

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        kept = [part for part in super().command() if part != "--web.enable-otlp-receiver"]
        return [*kept, "--web.enable-remote-write-receiver"]


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Return the kind and the labels of each metric on the page, by its name in Prometheus."""
    row = re.compile(r"^\| `(?:progress|process)\.[\w.]+` \| ([\w -]+) \| `[^`]+` \| `(\w+)` \| (.*)\|$", re.MULTILINE)
    return {
        name: (kind, frozenset(label.replace(".", "_") for label in re.findall(r"`([^`]+)`", labels)))
        for kind, name, labels in row.findall(PAGE.read_text(encoding="utf-8"))
    }


def expected(way: str) -> Names:
    """Return the series that the page promises, with their labels."""
    found: Names = {}
    metrics = documented()
    for name in ELSEWHERE:
        del metrics[name]
    for name, (kind, labels) in metrics.items():
        all_of_it = labels | ALWAYS | DIFFERENCES[way]
        if kind == "histogram":
            found |= {f"{name}_sum": all_of_it, f"{name}_count": all_of_it, f"{name}_bucket": all_of_it | {"le"}}
        else:
            found[name] = all_of_it
    return found


def shown(prometheus: Prometheus) -> Names:
    """Return the existing series, with all their labels."""
    found: dict[str, set[str]] = {}
    for sample in prometheus.query(f'{{__name__=~"{OURS}"}}'):
        found.setdefault(sample.labels["__name__"], set()).update(sample.labels.keys() - {"__name__"})
    return {name: frozenset(labels) for name, labels in found.items()}


@contextlib.contextmanager
def program(collector: Collector) -> Iterator[None]:
    """The running program."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env = {
        **kept,
        "OTEL_SERVICE_NAME": "names",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.1",
    }
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        said, _ = process.communicate(timeout=PATIENCE)
        assert said == "ended\n"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def ways(collector_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Prometheus]]:
    """Return a Prometheus at the end of each route, with data of one program through one Collector."""
    folder = tmp_path_factory.mktemp("names")
    new, old = built("prometheus"), installed("prometheus")
    guard, [jobs, own] = free_ports(2)
    scraped, written = folder / "scrape.yaml", folder / "written.yaml"
    scraped.write_text(
        "scrape_configs:\n"
        "  - job_name: otel-progress\n"
        "    honor_labels: true\n"
        "    scrape_interval: 500ms\n"
        f'    static_configs: [{{targets: ["127.0.0.1:{jobs}"]}}]\n',
        encoding="utf-8",
    )
    written.write_text("{}\n", encoding="utf-8")
    ends: dict[str, Prometheus] = {
        "otlp": Prometheus(new, folder / "otlp"),
        "scrape": OldPrometheus(old, folder / "scrape", config=scraped),
        "remote write": OldPrometheus(old, folder / "write", config=written),
    }
    collector = Collector(
        collector_binary,
        folder / "collector",
        configs=CONFIGURATIONS,
        env={
            "OTEL_PROGRESS_SELF_PORT": str(own),
            "OTEL_PROGRESS_SCRAPE": f"127.0.0.1:{jobs}",
            "OTEL_PROGRESS_PROMETHEUS": ends["otlp"].otlp_endpoint,
            "OTEL_PROGRESS_REMOTE_WRITE": f"{ends['remote write'].endpoint}/api/v1/write",
        },
    )
    with contextlib.ExitStack() as stack, guard:
        for end in ends.values():
            stack.enter_context(end)
        stack.enter_context(collector)
        stack.enter_context(program(collector))
        yield ends


WAYS = tuple(DIFFERENCES)


@pytest.mark.parametrize("way", WAYS)
def test_names_are_those_of_the_page(ways: dict[str, Prometheus], way: str) -> None:
    """Prometheus has exactly the series of the page, each with exactly its labels, on every route."""
    prometheus = ways[way]
    with contextlib.suppress(AssertionError):
        prometheus.wait_for(lambda: shown(prometheus) == expected(way), PATIENCE)
    assert shown(prometheus) == expected(way)


@pytest.mark.parametrize("way", WAYS)
def test_who_it_is(ways: dict[str, Prometheus], way: str) -> None:
    """On every route `job` is the service and `instance` the process; `target_info` has the resource."""
    query = 'progress_run_active{progress_operation_id="moving"}'
    [series] = ways[way].wait_for(lambda: ways[way].query(query), PATIENCE)
    [other] = ways["otlp"].wait_for(lambda: ways["otlp"].query(query), PATIENCE)
    assert (series.labels["job"], series.labels["instance"]) == ("names", other.labels["instance"])
    [info] = ways[way].wait_for(lambda: ways[way].query('target_info{job="names"}'), PATIENCE)
    assert info.labels["instance"] == series.labels["instance"]
    assert info.labels["host_name"]


@pytest.mark.parametrize("way", WAYS)
def test_values_are_the_same(ways: dict[str, Prometheus], way: str) -> None:
    """Constant values are the same on every route."""
    for query in (
        'progress_run_start_time_seconds{progress_operation_id="moving"}',
        "progress_operation_active",
        'progress_operation_ended_total{progress_status="completed"}',
        'progress_run_stall_after_seconds{progress_operation_id="stuck"}',
        'progress_operation_duration_seconds_bucket{le="+Inf"}',
    ):
        [value] = {
            sample.value
            for end in (ways[way], ways["otlp"])
            for sample in end.wait_for(lambda query=query, end=end: end.query(query), PATIENCE)  # type: ignore[misc]
        }
        assert value > 0


@pytest.mark.parametrize("way", ["otlp", "remote write"])
def test_series_of_a_stage_end_with_it(ways: dict[str, Prometheus], way: str) -> None:
    """A query for now finds the count of a running stage, and none once nothing counts.

    A Prometheus that scrapes needs `track_timestamps_staleness` for it, which only newer versions know.
    """
    stages = 'progress_run_completed{progress_of="stage",progress_operation_id=~"staged|verifying"}'

    def counting() -> set[str]:
        return {sample.labels["progress_operation_id"] for sample in ways[way].query(stages)}

    before = 'last_over_time(progress_run_completed{progress_of="stage",progress_operation_id="verifying"}[5m])'
    ways[way].wait_for(lambda: ways[way].query(before), PATIENCE)
    ways[way].wait_for(lambda: counting() == {"staged"}, PATIENCE)
