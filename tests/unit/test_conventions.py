"""conventions/ has the names of semconv.py, in the format that OpenTelemetry's tools read."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from otel_progress import semconv
from otel_progress.model.attribute_types import is_valid

ROOT = Path(__file__).parents[2]
FILES = {path.name: path for path in sorted((ROOT / "conventions").glob("*.yaml"))}
SCHEMA = json.loads((Path(__file__).parent / "weaver" / "semconv.schema.json").read_text(encoding="utf-8"))
VECTORS = sorted((ROOT / "conformance" / "vectors").glob("*.json"))
EVENTS = semconv.EVENTS | semconv.ITEM_EVENTS | semconv.GEN_AI_EVENTS | {semconv.EXCEPTION}
NO_NAMES = {"SCOPE", "PREFIX", "CONTROL_HEADER", "DISCARDS_HEADER", "OTHER_STAGE", "OF_STAGE", "GEN_AI_INVOKE_AGENT"}
"""Constants of semconv.py that are no names of attributes, events or metrics."""
KINDS = {
    "string": {"stringValue"},
    "int": {"intValue"},
    "double": {"doubleValue", "intValue"},
    "boolean": {"boolValue"},
    "string[]": {"arrayValue"},
}
"""The OTLP values of a type; an integer may stand for a double."""

sys.path.insert(0, str(ROOT / "tools"))
import conventions  # noqa: E402 - it is a script


def groups() -> list[dict[str, Any]]:
    """All groups of all files."""
    return [group for name, path in FILES.items() if name != "manifest.yaml" for group in _read(path)["groups"]]


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def defined() -> dict[str, dict[str, Any]]:
    """The attributes by name."""
    return {one["id"]: one for group in groups() for one in group.get("attributes", ()) if "id" in one}


def kind(attribute: dict[str, Any]) -> str:
    """The type of an attribute; one with a list of values is a text."""
    found = attribute["type"]
    return found if isinstance(found, str) else "string"


def constants() -> set[str]:
    """The attributes that semconv.py names."""
    return {
        value
        for key, value in vars(semconv).items()
        if isinstance(value, str)
        and key.isupper()
        and key not in NO_NAMES
        and value not in EVENTS
        and (not key.startswith("DROP_") or key == "DROP_REASON")
    }


def test_files_are_those_of_the_page() -> None:
    """The files are what the generator writes: after a change of a name, run `make conventions`."""
    assert {name: path.read_text(encoding="utf-8") for name, path in FILES.items()} == conventions.files()


SCHEMAS = {
    "attribute_group": "SemanticConvention",
    "span": "SpanSemanticConvention",
    "event": "EventSemanticConvention",
    "metric": "MetricSemanticConvention",
}
"""The schema of each type of group. As a whole the published one accepts any group that one of them accepts."""


def errors(groups: list[dict[str, Any]]) -> list[str]:
    """What is wrong with groups, by the published schema and by that of their types."""
    found = [(SCHEMA, {"groups": groups})]
    parts = {"$schema": SCHEMA["$schema"], "$defs": SCHEMA["$defs"]}
    found += [({**parts, "$ref": f"#/$defs/{SCHEMAS[group['type']]}"}, group) for group in groups]
    return [
        f"{list(error.instance_path)}: {error.message}"
        for schema, given in found
        for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(given)
    ]


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.yaml"])
def test_files_follow_the_published_schema(name: str) -> None:
    """Each file is valid by the JSON schema of the format."""
    (key,) = given = _read(FILES[name])
    assert key == "groups"
    assert errors(given[key]) == []


@pytest.mark.parametrize("key", ["stability", "unit", "instrument", "brief", "metric_name"])
def test_schema_finds_what_is_missing(key: str) -> None:
    """The pinned schema is in force: a metric without one of its fields is invalid."""
    (metric,) = [group for group in groups() if group.get("metric_name") == semconv.STARTED.name]
    assert errors([metric]) == []
    del metric[key]
    assert errors([metric])


def test_attributes_are_those_of_semconv() -> None:
    """Each attribute of semconv.py is defined once, or its name with a suffix is; and there is no other."""
    names = Counter(one["id"] for group in groups() for one in group.get("attributes", ()) if "id" in one)
    assert set(names.values()) == {1}
    prefixes = {name for name in constants() if name not in names}
    assert prefixes == set(conventions.SUFFIXES)
    found = {next((prefix for prefix in prefixes if name.startswith(f"{prefix}.")), name) for name in names}
    assert found == constants()


def test_events_are_those_of_semconv() -> None:
    """Each event is defined once; one that an operation sends carries the state of the operation."""
    found = {group["name"]: group for group in groups() if group["type"] == "event"}
    assert set(found) == EVENTS
    for name in semconv.EVENTS - {semconv.PROCESS_HEARTBEAT}:
        assert found[name]["extends"] == "attributes.operation"


def test_metrics_are_those_of_semconv() -> None:
    """Each metric is defined once, with its unit and its meaning."""
    found = [(one["metric_name"], one["unit"], one["brief"]) for one in groups() if one["type"] == "metric"]
    assert sorted(found) == sorted(tuple(metric) for metric in semconv.METRICS)


def test_references_resolve() -> None:
    """Each reference and each base names something that exists, ids are unique, and no group names one twice."""
    known = defined()
    ids = Counter(group["id"] for group in groups())
    assert set(ids.values()) == {1}
    for group in groups():
        used = [one["ref"] for one in group.get("attributes", ()) if "ref" in one]
        assert set(used) <= set(known), group["id"]
        assert len(used) == len(set(used))
        assert group.get("extends", "attributes.operation") in ids


def test_examples_have_their_type() -> None:
    """Each attribute has a brief and an example of its type, which the reader of events takes as valid."""
    python = {"string": str, "int": int, "double": float, "boolean": bool, "string[]": list}
    for name, one in defined().items():
        assert one["brief"]
        for example in one["examples"]:
            assert type(example) is python[kind(one)], name
            assert is_valid(name, example), name
            if isinstance(one["type"], dict):
                assert example in [member["value"] for member in one["type"]["members"]]


@pytest.mark.parametrize(
    "path", [path for path in VECTORS if not path.stem.startswith(("refused-", "ignored-"))], ids=lambda path: path.stem
)
def test_types_are_those_of_the_wire(path: Path) -> None:
    """Attributes of valid conformance vectors have the types of the registry."""
    known = defined()
    for step in json.loads(path.read_text(encoding="utf-8"))["steps"]:
        for resource in step.get("send", {}).get("resourceLogs", ()):
            said = list(resource["resource"]["attributes"])
            said += [one for scope in resource["scopeLogs"] for log in scope["logRecords"] for one in log["attributes"]]
            for one in said:
                if one["key"] in known:  # others are of a later version
                    assert set(one["value"]) <= KINDS[kind(known[one["key"]])], one
