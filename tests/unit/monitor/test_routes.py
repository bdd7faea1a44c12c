"""The API and its description: each holds for the other, on the real server, for any request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Mount
from tests.stress.served import Served, event, serving, wait_until

from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.monitor.web import cancel, openapi, report
from otel_progress.reports.writing import FORMATS

STAGES = json.dumps(
    [
        {"path": "load", "status": "completed", "completed": 4, "total": 4, "elapsed": 1.5, "attributes": {"a": 1}},
        {"path": "parse", "status": "waiting", "planned": True, "critical": False, "depends_on": ["load"]}
        | {"completed": 1, "ratio": 0.25, "eta": [3.0, 2.0, 5.0, "rate"], "wait": ["approval", 1.0, 60.0]},
    ]
)


def fill(served: Served) -> None:
    """Operations of every kind."""
    full = {
        "START_TIME": 1.7e9,
        "ELAPSED": 12.5,
        "IDLE": 0.5,
        "STALL_AFTER": 30.0,
        "STALL_AFTER_SOURCE": "given",
        "SLOW_AFTER": 300.0,
        "OPERATION_DESCRIPTION": "all of it",
        "STAGE_CURRENT": "parse",
        "STAGES": STAGES,
        "STAGES_FOLDED": '[["completed", 3, 4.5]]',
        "RATIO": 0.5,
        "COMPLETED": 5,
        "TOTAL": 10,
        "RATE": 1.5,
        "ETA": 3.0,
        "ETA_LOW": 2.0,
        "ETA_HIGH": 4.0,
        "ETA_SOURCE": "rate",
        "MESSAGE": "reading",
        "USAGE": '{"input_tokens": 5, "cost.USD": 0.5}',
        "OUTCOMES": '{"ok": 3}',
        "COUNTERS": '{"line": 7}',
        "RESULT": '{"file": "x"}',
        "ATTRIBUTES": '{"owner": "ann", "list": [1, 2]}',
        "GEN_AI_AGENT": "surveyor",
        "STACK": "a\nb",
        "STUCK_AT": "a.py:1 in f",
        "CANCEL_REQUESTED": True,
        "LOOP": '{"kind": "pair", "keys": ["a"], "repeats": 9, "limit": 8, "seconds": 1.0, "spent": {}}',
    }
    served.send(
        event("full", **full),
        event("full", kind=s.NOTE, sequence=2, NOTE_TEXT="found 12", NOTE_STATUS="warning", **full),
        event("child", OPERATION_PARENT_ID="full", USAGE='{"cost.USD": 1}'),
        event("waiting", status="waiting", WAIT_REASON="approval", WAIT_DURATION=2.0, WAIT_REMAINING=8.0),
        event("pending", status="pending", kind=s.OPERATION_STARTED),
        event("done", status="completed", kind=s.OPERATION_ENDED),
        event("bad", status="failed", kind=s.OPERATION_ENDED, STATUS_REASON="ValueError: x", STATUS_HINT="say y"),
        event("a/b?c#d e%2F..", status="lost", kind=s.OPERATION_ENDED),
    )
    served.send(event("process", kind=s.PROCESS_HEARTBEAT, HEARTBEAT_INTERVAL=5.0))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A monitor with a little of everything."""
    with serving(tmp_path_factory.mktemp("api")) as found:
        fill(found)
        wait_until(lambda: found.get("/operations")["total"] == 7)
        yield found


def described(served: Served) -> set[tuple[str, str]]:
    """Paths and methods of the description."""
    paths = served.get("/api")["paths"]
    return {(path, method.upper()) for path, methods in paths.items() for method in methods}


def test_each_route_is_described_and_no_other(served: Served) -> None:
    """What the application routes and what the description has are the same."""
    routed = set()
    for route in served.monitor.application()._app.routes:
        if isinstance(route, Mount):
            routed.add((f"{route.path}/{{name}}", "GET"))
        elif getattr(route, "methods", None):
            routed |= {(route.path, method) for method in route.methods - {"HEAD"}}
        else:  # a stream, or a WebSocket on the same path
            routed.add((route.path, "GET"))
    assert described(served) == routed


def closed(schema: Any) -> Any:
    """A schema in which objects have the properties that are named, and no others."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(item) for key, item in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def validator(name: str) -> Draft202012Validator:
    """What tells whether a value is what the description names so, to the last field."""
    document = closed(openapi.document("1"))
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return Draft202012Validator(schema)


def test_what_is_said_is_described_to_the_last_field(served: Served) -> None:
    """No answer has a field that the description lacks."""
    page = served.get("/operations")
    assert not list(validator("Page").iter_errors(page))
    assert {row["id"] for row in page["operations"]} >= {"full", "child", "done", "a/b?c#d e%2F.."}
    for row in page["operations"]:
        path = f"/operations/{quote(row['id'], safe='')}"
        assert not list(validator("Detail").iter_errors(served.get(path)))
        assert not list(validator("Events").iter_errors(served.get(path + "/events")))
    assert not list(validator("Health").iter_errors(served.get("/health")))
    assert not validator("Row").is_valid({**page["operations"][0], "more": 1})


def test_full_operation_is_all_there(served: Served) -> None:
    """What an event said is in the detail, as the description names it."""
    found = served.detail("full")
    for field in ("limits", "stages", "folded", "usage", "loop", "stack", "result", "counters", "outcomes", "process"):
        assert field in found, field
    assert found["cost"] == {"USD": 1.5}
    assert found["stages"][1]["wait"]["reason"] == "approval"
    assert [child["id"] for child in found["children_rows"]] == ["child"]
    events = served.get("/operations/full/events")["events"]
    assert any(one.get("attributes", {}).get(s.NOTE_TEXT) == "found 12" for one in events)


CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
PATHS = sorted(
    (path, method)
    for path, methods in openapi.document("1")["paths"].items()
    for method in methods
    if not path.endswith("/stream")  # they do not end
)


@pytest.mark.parametrize(("path", "method"), PATHS, ids=[f"{method} {path}" for path, method in PATHS])
def test_any_request_has_an_answer_that_is_described(
    served: Served, path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For requests made from the description, right ones and wrong ones, there is no 5xx, and no answer beside it."""
    monkeypatch.setattr(cancel, "WAIT_MOST", 0.01)
    document = openapi.document("1")
    if "{id}" in path:  # half of the time an operation that is there
        known = {"enum": ["full", "done", "a%2Fb%3Fc%23d%20e%252F.."]}
        document["paths"][path][method]["parameters"][0]["schema"] = {"anyOf": [known, {"type": "string"}]}
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=f"http://{served.host}")
    operation = schema[path][method.upper()]
    modes = schemathesis.GenerationMode

    @given(case=st.one_of(operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE)))
    @settings(max_examples=40, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, timeout=20)

    ask()
    assert served.get("/health")["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "nearest"),
    [
        ("GET", "/operations?verdct=stuck", "verdict"),
        ("GET", "/operations?limit=5&Status=running", "status"),
        ("DELETE", "/operations/full?atempt=1", "attempt"),
        ("GET", "/operations/full?verbose=1", "takes none"),
        ("GET", "/operations/full/events?befor=3", "before"),
        ("GET", "/operations/full/stream?aftr=3", "after"),
        ("GET", "/stream?token=x", "after"),
        ("GET", "/health?full=1", "takes none"),
        ("GET", "/api?version=1", "takes none"),
        ("POST", "/control?wait=1", "takes none"),
    ],
)
def test_a_parameter_that_a_route_does_not_take_is_refused(
    served: Served, method: str, path: str, nearest: str
) -> None:
    """A name that would change nothing is answered 400, with the nearest one; nothing is done."""
    answer = served.ask(method, path, b"" if method == "POST" else None)
    given = path.partition("?")[2].split("&")[-1].partition("=")[0]
    assert answer.status == 400
    assert repr(given) in answer.json["error"]
    assert nearest in answer.json["error"]
    assert "cancel" not in served.detail("full") or served.detail("full")["cancel"] == "requested"


def test_an_unrelated_parameter_gets_no_guess(served: Served) -> None:
    """Only a name close to a valid one is taken for a misspelling of it; the valid ones are listed in any case."""
    answer = served.ask("GET", "/operations?foo=1")
    assert answer.status == 400
    assert "did you mean" not in answer.json["error"]
    assert "It takes " in answer.json["error"]


def test_one_record_does_not_take_the_list_from_all(served: Served) -> None:
    """An attribute without a value counts as not said."""
    odd = event("odd", ELAPSED=1.0, IDLE=1.0)
    for pair in odd.attributes:
        if pair.key in (s.ELAPSED, s.IDLE):
            pair.value.Clear()
    assert served.send(odd, instance="odd").status == 200
    wait_until(lambda: "odd" in {row["id"] for row in served.get("/operations")["operations"]})
    assert served.detail("odd")["elapsed"] >= 0


# -- reports


@pytest.mark.parametrize("form", ["html", "markdown", "csv", "json", "text"])
def test_a_report_is_a_file_to_save(served: Served, form: str) -> None:
    """Each format has its type and a safe name, and nothing in it may run."""
    key = "a/b?c#d e%2F.."
    with urlopen(f"http://{served.host}/operations/{quote(key, safe='')}/report?format={form}") as answer:
        body, told = answer.read().decode(), answer.headers
    assert told["Content-Type"] == report.TYPES[form][0]
    assert told["Content-Disposition"] == f'attachment; filename="a-b-c-d-e-2F.{report.TYPES[form][1]}"'
    assert told["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert (told["X-Content-Type-Options"], told["Cache-Control"]) == ("nosniff", "no-store")
    assert "lost" in body


def test_a_report_that_is_wrong_says_why(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown operations and formats are refused; without Jinja2, the formats that need nothing are named."""

    def refused(path: str) -> tuple[int, str]:
        with pytest.raises(HTTPError) as failed:
            urlopen(f"http://{served.host}{path}")
        with failed.value as answer:
            return answer.code, json.load(answer)["error"]

    assert refused("/operations/nobody/report")[0] == 404
    assert refused("/operations/full/report?format=pdf") == (
        400,
        "there is no format 'pdf'; there are html, markdown, csv, json, text",
    )
    assert refused("/operations/full/report?from=pdf")[0] == 400

    def missing() -> None:
        raise MissingDependency("no Jinja2")

    monkeypatch.setattr(report.writing, "require", missing)
    status, why = refused("/operations/full/report")
    assert status == 501
    assert 'pip install "otel-progress[report]"' in why


def test_the_formats_of_a_report_are_described() -> None:
    """The description, the route and the writer name the same formats."""
    assert set(openapi.REPORTS) == set(report.TYPES) == set(FORMATS)
