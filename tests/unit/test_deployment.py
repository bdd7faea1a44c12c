"""deploy/: what the examples mount, name and listen at exists, and fits together."""

from __future__ import annotations

import argparse
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_progress.cli import COMMANDS
from otel_progress.version import VERSION

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Return all objects that `make kubernetes` writes, by kind and name."""
    folder = tmp_path_factory.mktemp("kubernetes")
    runpy.run_path(str(ROOT / "tools" / "kubernetes.py"))["write"](folder)
    found = [one for path in folder.glob("*.yaml") for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(by_name) == len(found)
    return by_name


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pod template of each workload."""
    return [
        one["spec"]["template"]["spec"] for (kind, _), one in objects.items() if kind in ("Deployment", "StatefulSet")
    ]


def test_all_is_in_one_namespace(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Every object is in the namespace that the manifests make."""
    assert {one["metadata"].get("namespace") for (kind, _), one in objects.items() if kind != "Namespace"} == {
        name for kind, name in objects if kind == "Namespace"
    }


def test_what_is_mounted_exists(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Each mount has a volume; each volume a ConfigMap, a claim, or one of the two Secrets that the comments name."""
    claims = {"otel-progress-gateway": {"data"}}
    secrets = set(re.findall(r"create secret \w+ (\S+)", (DEPLOY / "kubernetes" / "gateway.yaml").read_text("utf-8")))
    for pod in pods(objects):
        volumes = {one["name"]: one for one in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {one["name"] for one in container["volumeMounts"]}
            assert set(volumes) <= mounts <= set(volumes) | claims["otel-progress-gateway"]
            named = [one["valueFrom"]["secretKeyRef"]["name"] for one in container.get("env", ()) if "valueFrom" in one]
            assert set(named) <= secrets
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in objects
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in objects
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets


def test_the_collector_finds_its_configuration(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Its arguments are files of the ConfigMap, which are ours; each variable that has no default is set."""
    container = objects["StatefulSet", "otel-progress-gateway"]["spec"]["template"]["spec"]["containers"][0]
    data = objects["ConfigMap", "otel-progress-collector"]["data"]
    files = [argument.removeprefix("--config=/etc/otelcol/") for argument in container["args"]]
    assert files == list(data)
    for name, text in data.items():
        assert text == (ROOT / "collector-config" / name).read_text(encoding="utf-8")
    needed = set(re.findall(r"\$\{env:(\w+)\}", "".join(data.values())))
    known = set(re.findall(r"\$\{env:(\w+)", "".join(data.values())))
    given = {one["name"] for one in container["env"]}
    assert needed <= given <= known


def test_services_reach_their_pods(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Each Service selects the pods of one workload, at ports that these name."""
    workloads = [one for (kind, _), one in objects.items() if kind in ("Deployment", "StatefulSet")]
    for (kind, _), service in objects.items():
        if kind != "Service":
            continue
        wanted = service["spec"]["selector"]
        (workload,) = [one for one in workloads if one["spec"]["selector"]["matchLabels"] == wanted]
        template = workload["spec"]["template"]
        assert wanted.items() <= template["metadata"]["labels"].items()
        ports = {one["name"] for one in template["spec"]["containers"][0]["ports"]}
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= ports


def test_gateways_have_names_and_stay(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """A headless Service names each gateway; they are spread, leave one after another, and have time to start."""
    gateway = objects["StatefulSet", "otel-progress-gateway"]["spec"]
    headless = objects["Service", gateway["serviceName"]]["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["selector"] == gateway["selector"]["matchLabels"]
    budget = objects["PodDisruptionBudget", "otel-progress-gateway"]["spec"]
    assert budget["selector"] == gateway["selector"]
    assert 0 < budget["maxUnavailable"] < gateway["replicas"]
    pod = gateway["template"]["spec"]
    assert [one["labelSelector"] for one in pod["topologySpreadConstraints"]] == [gateway["selector"]]
    startup = pod["containers"][0]["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_the_collectors_are_scraped_under_the_name_in_the_rules(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    """The ServiceMonitor selects one Service with its port, and sets the job by which the rules know Collectors."""
    monitor = objects["ServiceMonitor", "otel-progress-gateway"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    chosen = [
        one for (kind, _), one in objects.items() if kind == "Service" and wanted <= one["metadata"]["labels"].items()
    ]
    (service,) = chosen
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {one["name"] for one in service["spec"]["ports"]}
    rules = (ROOT / "grafana" / "alerts" / "rules.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r'job="([\w-]+)"', rules))
    assert [(one["targetLabel"], {one["replacement"]}) for one in endpoint["relabelings"]] == [("job", named)]


def test_the_job_of_the_page_fits_the_gateway(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """It runs below `otel-progress run`, at an address of the gateway's Service, with what TLS and token need."""
    job = next(one for one in manifests("how-to/kubernetes.md") if one.get("kind") == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:3] == ["otel-progress", "run", "--"]
    variables = {one["name"]: one for one in container["env"]}
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] in addresses(objects)
    secret = variables["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"]
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    made = re.search(rf"create secret generic {secret['name']} (.*)", page)
    assert made is not None
    assert f'--from-literal={secret["key"]}="authorization=Bearer%20$TOKEN"' in made[1]
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert (mount["name"], volume["secret"]["secretName"]) == (volume["name"], secret["name"])
    (item,) = volume["secret"]["items"]
    assert f"--from-file={item['key']}" in made[1]
    assert variables["OTEL_EXPORTER_OTLP_CERTIFICATE"]["value"] == f"{mount['mountPath']}/{item['path']}"


def test_pages_name_addresses_that_exist(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Each address of a program in the namespace is a Service's with its port and its protocol; both are named."""
    named = set()
    for name in ("deploy.md", "how-to/kubernetes.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        named |= set(re.findall(r"https?://[\w.-]+\.svc:\d+", text))
    assert named == addresses(objects)


def manifests(page: str) -> list[dict[str, Any]]:
    """Return what the YAML blocks of a page hold."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [yaml.safe_load(one) for one in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def addresses(objects: dict[tuple[str, str], dict[str, Any]]) -> set[str]:
    """Return where programs send OTLP over HTTP: to Services with a cluster address, by TLS where the pods have it."""
    found = set()
    for (kind, name), service in objects.items():
        if kind != "Service" or service["spec"].get("clusterIP") == "None":
            continue
        secure = "tls:" in objects["ConfigMap", "otel-progress-collector"]["data"]["gateway.yaml"]
        scheme = "https" if secure and ("StatefulSet", name) in objects else "http"
        (port,) = [one["port"] for one in service["spec"]["ports"] if one["name"] == "otlp-http"]
        found.add(f"{scheme}://{name}.{service['metadata']['namespace']}.svc:{port}")
    return found


def test_pods_have_no_rights(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """They run as another user than root, on a file system that they can't write, without a token of the cluster."""
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_rules_and_dashboards_are_ours(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Each dashboard and each rule of `grafana/` is there as it is; no object is larger than a cluster takes."""
    boards = {path.name: path.read_text("utf-8") for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    shown = [one for one in objects.values() if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    assert {name: text for one in shown for name, text in one["data"].items()} == boards
    for name in ("rules", "panels", "watchdog", "links"):
        ours = yaml.safe_load((ROOT / "grafana" / "alerts" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert objects["PrometheusRule", f"otel-progress-{name}"]["spec"] == ours
    assert max(len(yaml.safe_dump(one)) for one in objects.values()) < 1_000_000


def test_the_image_is_of_this_version(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The monitor's image and the Collector's are of versions that exist here."""
    images = {container["image"] for pod in pods(objects) for container in pod["containers"]}
    collector = re.search(r"^ {2}version: *(\S+)", (ROOT / "tests/stack/builder.yaml").read_text("utf-8"), re.MULTILINE)
    assert collector is not None
    assert {image.rpartition(":")[2] for image in images} == {VERSION, collector[1]}


def test_the_monitor_has_a_folder_of_its_own(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    """A cluster makes the root of a volume writable by a group, which the monitor refuses for its file."""
    pod = objects["Deployment", "otel-progress-monitor"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["fsGroup"]
    db = Path(container["args"][container["args"].index("--db") + 1])
    mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"] if mount["name"] == "data"]
    assert [mount for mount in mounts if mount in db.parent.parents] == mounts


def test_the_image_has_the_user_that_runs_it() -> None:
    """Its group, too, has the number that the manifests and the pages name."""
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    assert "groupadd --gid 10001" in container
    assert "--uid 10001 --gid 10001" in container
    assert "USER 10001:10001" in container


def test_commands_exist() -> None:
    """What the container and the service start is a command of ours, with options that it has."""
    parser = argparse.ArgumentParser()
    COMMANDS["monitor"].load().options(parser)
    known = set(re.findall(r"--[\w-]+", parser.format_help()))
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    service = (DEPLOY / "otel-progress-monitor.service").read_text(encoding="utf-8")
    entry = re.search(r"^ENTRYPOINT (.*)", container, re.MULTILINE)
    start = re.search(r"^ExecStart=(.*)", service, re.MULTILINE)
    assert entry is not None
    assert start is not None
    for line in (entry[1], start[1]):
        assert "monitor" in line
        assert set(re.findall(r"--[\w-]+", line)) <= known
    assert re.search(r"^USER [1-9]", container, re.MULTILINE)
    assert "HEALTHCHECK" in container


def test_the_image_keeps_its_health_check() -> None:
    """Each documented command makes an image of Docker's format: OCI's has no health check."""
    for path in (DEPLOY / "Containerfile", ROOT / "docs" / "deploy.md"):
        builds = re.findall(r"podman build.*", path.read_text(encoding="utf-8"))
        assert builds
        assert all("--format docker" in one for one in builds)


def test_the_image_is_made_of_pinned_parts() -> None:
    """Packages are those of the lock; what is copied, and nothing else, passes the ignore file."""
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (.*) /tmp/$", container, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line.removeprefix("!") for line in ignored[2:]} == set(copied[0].split())
    (lock,) = re.findall(r"--constraint /tmp/(\S+)", container)
    assert lock in copied[0].split()
    assert (ROOT / lock).is_file()
