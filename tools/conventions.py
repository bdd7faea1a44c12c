"""Writes `conventions/`: the names of docs/semantic-conventions.md as a registry in OpenTelemetry's YAML.

`python tools/conventions.py` writes the files, with `--check` it only says which are out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from otel_progress import semconv

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "conventions"
PAGE: Final = (ROOT / "docs" / "semantic-conventions.md").read_text(encoding="utf-8")
SCHEMA_URL: Final = "https://otel-progress.invalid/schemas/0.1.0"
STABILITY: Final = "development"
HEAD: Final = "# Written by tools/conventions.py (`make conventions`) from docs/semantic-conventions.md: change that.\n"
NUMBER: Final = "An integer or a double, as the program counts."
JSON_TEXT: Final = "JSON, as text."
INSTRUMENTS: Final = {
    "counter": "counter",
    "up-down counter": "updowncounter",
    "histogram": "histogram",
    "gauge": "gauge",
}
TYPES: Final = {"number": "double"}
SUFFIXES: Final = {
    semconv.GEN_AI_USAGE: ("input_tokens", "output_tokens"),
    semconv.LLM_TOKEN_COUNT: ("prompt", "completion"),
}
"""Names of semconv.py that are only used with one of these behind them."""
OTHERS: Final[dict[str, tuple[str, str, Any]]] = {
    semconv.SERVICE_NAME: ("string", "The service.", "importer"),
    semconv.SERVICE_NAMESPACE: ("string", "The group of services that it belongs to.", "batch"),
    semconv.SERVICE_INSTANCE_ID: ("string", "The process; unique to each.", "627cc493-f310-47de-96bd-71410b7dec09"),
    semconv.ENVIRONMENT: ("string", "The environment in which it runs.", "staging"),
    semconv.LLM_TOKEN_COUNT: ("int", "Tokens of a model call; read from spans of other programs, never sent.", 812),
    semconv.OWNER: ("string", "Whose operation it is: a key in `progress.attributes`, and on spans.", "anna"),
}
"""Attributes that the page names without a row: type, brief and example."""
REQUIRED: Final = (semconv.OPERATION_ID, semconv.OPERATION_NAME, semconv.STATUS)
"""Attributes without which an event of an operation is refused."""
ENUMS: Final = {semconv.STATUS: "status", semconv.HEALTH: "health", semconv.DROP_REASON: "drop reason"}
"""The table of the values of an attribute."""

Group = dict[str, Any]
Row = dict[str, str]


def tables() -> Iterator[tuple[str, list[Row]]]:
    """Each table of the page: the heading of its section, and its rows as heading to text."""
    section = ""
    for block in re.findall(r"^#+ .*\n|(?:^\|.*\n)+", PAGE, re.MULTILINE):
        if block.startswith("#"):
            section = block.strip("# \n")
            continue
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        yield section, [dict(zip(lines[0], line)) for line in lines[2:]]


def rows(first: str) -> list[tuple[str, Row]]:
    """The rows of all tables whose first column has this heading, with the heading of their section."""
    return [(section, row) for section, found in tables() for row in found if next(iter(row)) == first]


def plain(text: str) -> str:
    """A sentence of the page without links, as a brief."""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "…")) else ".")


def ticked(text: str) -> list[str]:
    """The words in back-ticks."""
    return re.findall(r"`([^`]+)`", text)


def place(row: Row) -> set[str]:
    """Where an attribute is."""
    return set(row["where"].split(", "))


def attribute(name: str, row: Row) -> Iterator[Group]:
    """The definition of an attribute; of one that is only a prefix, of each name."""
    kind, (text,) = row["type"], ticked(row["example"])
    example: Any = text if kind == "string" else json.loads(text)
    found: Group = {"id": name, "type": TYPES.get(kind, kind), "stability": STABILITY, "brief": plain(row["meaning"])}
    if name in ENUMS:
        found["type"] = {"members": [member(one) for _, one in rows(ENUMS[name])]}
    notes = [JSON_TEXT] * (row["unit"] == "JSON") + [NUMBER] * (kind == "number")
    if row["unit"] and row["unit"] != "JSON":
        notes.append(f"Unit: {row['unit'].strip('`')}.")
    if notes:
        found["note"] = " ".join(notes)
    examples = [example] if kind != "number" else [float(example)]
    for suffix in SUFFIXES.get(name, ("",)):
        yield {**found, "id": f"{name}.{suffix}".rstrip("."), "examples": examples}


def member(row: Row) -> Group:
    """A value of an attribute with few of them."""
    value = row[next(iter(row))].strip("`")
    return {
        "id": value,
        "value": value,
        "brief": plain(row.get("meaning") or row["what was dropped"]),
        "stability": STABILITY,
    }


def attributes() -> tuple[list[Group], list[Group]]:
    """The groups of our own attributes, one for each table, and the group of those that OpenTelemetry defines."""
    own: dict[str, list[Group]] = {}
    foreign: list[Group] = []
    for section, row in rows("attribute"):
        name = row["attribute"].strip("`")
        into = own.setdefault(section, []) if name.startswith(semconv.PREFIX) else foreign
        into.extend(attribute(name, row))
    for name, (kind, brief, example) in OTHERS.items():
        known = {"type": kind, "stability": STABILITY, "brief": brief, "examples": [example]}
        into = own["Identity"] if name == semconv.OWNER else foreign
        into.extend({"id": f"{name}.{suffix}".rstrip("."), **known} for suffix in SUFFIXES.get(name, ("",)))
    groups = [
        {
            "id": f"registry.progress.{re.sub('[^a-z]+', '_', title.lower())}",
            "type": "attribute_group",
            "brief": f"{title}.",
            "attributes": found,
        }
        for title, found in own.items()
        if found
    ]
    brief = "Attributes of OpenTelemetry's and OpenInference's conventions that otel-progress uses."
    return groups, [{"id": "registry.foreign", "type": "attribute_group", "brief": brief, "attributes": foreign}]


def refs(where: str, required: tuple[str, ...] = (), without: frozenset[str] = frozenset()) -> list[Group]:
    """References to all attributes of a place, except those of another group."""
    names = [row["attribute"].strip("`") for _, row in rows("attribute") if where in place(row)]
    whole = [f"{name}.{suffix}".rstrip(".") for name in names for suffix in SUFFIXES.get(name, ("",))]
    return [
        {"ref": name, "requirement_level": "required"} if name in required else {"ref": name}
        for name in whole
        if name not in without
    ]


def events() -> list[Group]:
    """The events: the state of an operation, which each of its events carries, and what happened."""
    state = refs("events", REQUIRED)
    groups: list[Group] = [
        {"id": "attributes.operation", "type": "attribute_group", "brief": "An operation.", "attributes": state}
    ]
    briefs = [(row["event"].strip("`"), row["what happened"], "") for _, row in rows("event")]
    briefs += [(row["span event"].strip("`"), row["what happened"], "On spans only.") for _, row in rows("span event")]
    briefs += [(name, "An item of a loop", "It never leaves the process.") for name in sorted(semconv.ITEM_EVENTS)]
    briefs.append((semconv.EXCEPTION, "An exception", "On spans only, as in OpenTelemetry."))
    for name, what, note in briefs:
        group: Group = {"id": f"event.{name}", "type": "event", "name": name, "stability": STABILITY}
        group["brief"] = plain(what)
        if note:
            group["note"] = note
        if name == semconv.PROCESS_HEARTBEAT:
            group["attributes"] = refs("heartbeat", (semconv.HEARTBEAT_INTERVAL,))
        elif name == semconv.EXCEPTION:
            group["attributes"] = [one for one in refs("span events") if one["ref"].startswith(f"{name}.")]
        else:
            group["extends"] = "attributes.operation"
            if name == semconv.OPERATION_ENDED:
                group["attributes"] = refs("certificate")
        groups.append(group)
    return groups


def spans() -> list[Group]:
    """The spans of operations and stages, whose names are those of the operation or the stage."""
    return [
        {
            "id": "span.progress",
            "type": "span",
            "span_kind": "internal",
            "stability": STABILITY,
            "brief": "An operation, or a stage of one.",
            "note": "Its name is that of the operation or the stage. The user's attributes keep their names.",
            "attributes": refs("spans", (semconv.OPERATION_ID, semconv.OPERATION_NAME)),
        }
    ]


def resources() -> list[Group]:
    """What identifies the process."""
    names = [row["attribute"].strip("`") for _, row in rows("attribute") if "resource" in place(row)]
    names += [name for name in OTHERS if name.startswith(("service.", "deployment."))]
    required = (semconv.SERVICE_INSTANCE_ID,)
    found = [{"ref": name, **({"requirement_level": "required"} if name in required else {})} for name in names]
    return [{"id": "resource.progress", "type": "attribute_group", "brief": "The resource.", "attributes": found}]


def metrics() -> list[Group]:
    """The metrics with their labels."""
    meaning = {metric.name: metric.description for metric in semconv.METRICS}
    return [
        {
            "id": f"metric.{name}",
            "type": "metric",
            "metric_name": name,
            "stability": STABILITY,
            "brief": meaning[name],
            "instrument": INSTRUMENTS[row["kind"]],
            "unit": row["unit"].strip("`"),
            "attributes": [{"ref": label} for label in ticked(row["labels"])],
        }
        for name, row in ((row["metric"].strip("`"), row) for _, row in rows("metric"))
    ]


def files() -> dict[str, str]:
    """The text of each file."""
    own, foreign = attributes()
    manifest = {
        "name": "otel-progress",
        "description": "What programs with long-running work report about it.",
        "schema_url": SCHEMA_URL,
    }
    parts = {
        "attributes": own,
        "foreign": foreign,
        "events": events(),
        "spans": spans(),
        "resource": resources(),
        "metrics": metrics(),
    }
    found = {f"{name}.yaml": HEAD + _dump({"groups": groups}) for name, groups in parts.items()}
    return {"manifest.yaml": HEAD + _dump(manifest), **found}


def _dump(given: Any) -> str:
    text: str = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=150)
    return text


def main() -> int:
    """Write the files, or check them."""
    stale = 0
    for name, text in files().items():
        path = FOLDER / name
        if "--check" not in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path} is out of date: run `make conventions`\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
