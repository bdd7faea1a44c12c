"""Writes what a cluster needs of this repository: `python tools/kubernetes.py [FOLDER]` (`make kubernetes`).

The manifests of deploy/kubernetes/ as they are; the Collector configurations and the dashboards as ConfigMaps; the
rules as PrometheusRules of the Prometheus operator.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
NAMESPACE: Final = "otel-progress"
PART_OF: Final = {"app.kubernetes.io/part-of": "otel-progress"}
COLLECTOR: Final = ("single.yaml", "gateway.yaml")
RULES: Final = ("rules", "panels", "watchdog", "links")
"""Files below grafana/alerts/; jobs.yaml lists jobs of one's own first."""


def documents() -> dict[str, list[dict[str, Any]]]:
    """The files, and the objects in each."""
    config = {name: (ROOT / "collector-config" / name).read_text(encoding="utf-8") for name in COLLECTOR}
    boards = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
    return {
        "namespace.yaml": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}],
        "collector-config.yaml": [_config_map("otel-progress-collector", config)],
        "dashboards.yaml": [_dashboard(board) for board in boards],
        "rules.yaml": [_rule(name) for name in RULES],
    }


def _config_map(name: str, data: dict[str, str], **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(name, labels), "data": data}


def _dashboard(board: Path) -> dict[str, Any]:
    """One dashboard, as an object has at most 1 MiB; Grafana's sidecar finds it by the label."""
    data = {board.name: board.read_text(encoding="utf-8")}
    return _config_map(f"otel-progress-{board.stem}", data, grafana_dashboard="1")


def _rule(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "grafana" / "alerts" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _named(f"otel-progress-{name}", {}),
        "spec": {"groups": content["groups"]},
    }


def _named(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": {**PART_OF, **labels}}


def write(folder: Path) -> None:
    """Write all files into a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, objects in documents().items():
        text = yaml.safe_dump_all(objects, sort_keys=False, width=1_000, allow_unicode=True)
        (folder / name).write_text(text, encoding="utf-8")
    for path in MANIFESTS.glob("*.yaml"):
        shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "kubernetes")
