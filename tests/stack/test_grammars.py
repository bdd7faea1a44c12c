"""Every shipped query is valid in the grammar of its language, as in the editors of Grafana and Prometheus.

A grammar knows no data: `test_dashboards.py` tests what the queries return from real backends. It knows no types
either: it accepts `{ span.a = !"b" }`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from otel_progress.cli.doctor.backends import BackendUnavailable, ProbeIds, all_three

from . import build, emitters
from .grafana_queries import OPEN, interpolate
from .needed import built
from .test_dashboards import SOURCES, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Query = tuple[str, str]
    """The language and the text."""
    Parse = Callable[[Sequence[Query]], list[list[str]]]

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
LANGUAGES = {"prometheus": "promql", "loki": "logql", "tempo": "traceql"}
"""The language of each kind of data source."""
BLOCK = re.compile(r"^```(promql|logql|traceql)\n(.+?)\n```$", re.MULTILINE | re.DOTALL)

BROKEN = {
    "traceql": (
        "",
        '{ span.progress.operation.id = "ID"',
        '{ span.progress.operation.id = "ID }',
        '{ span.progress.operation.id == "ID" }',
        '{ spam.progress.operation.id = "ID" }',
        '{ span.progress.operation.id "ID" }',
        '{ span.progress.operation.id = "ID" & status = error }',
        '{ span.progress.operation.id = "ID" && status = eror }',
        '{ span.progress.operation.id = "ID" } | selct(duration)',
        '{ span.progress.operation.id = "ID" } | select(duration',
    ),
    "logql": (
        "",
        '{service_name="JOB" | progress_operation_id="ID"',
        '{service_name="JOB} | progress_operation_id="ID"',
        '{service_name=="JOB"}',
        '{service_name="JOB"} || progress_operation_id="ID"',
        'sum_over_time({service_name="JOB"} | unwrapp progress_sequence [5m])',
        'cuont_over_time({service_name="JOB"}[5m])',
    ),
    "promql": (
        "",
        'up{job="JOB"',
        'up{job=="JOB"}',
        'sum by (job) (rate(up{job="JOB"}[5m])',
        "summ by (job) (up)",
        "up =+ 1",
        "rate(up[5])[",
    ),
}


# -- where queries stand


def strings(found: Any) -> Iterator[str]:
    """Return all strings of a structure."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for value in found:
            yield from strings(value)
    elif isinstance(found, str):
        yield found


def query_of(target: dict[str, Any]) -> Query:
    """Return a query in the form of panels and Explore."""
    language = LANGUAGES[target["datasource"]["type"]]
    return language, target["query" if language == "traceql" else "expr"]


def filled(language: str, text: str) -> Query:
    """Return a query with its variables replaced as in Grafana."""
    text = interpolate(text, VARIABLES)
    assert not OPEN.search(text), text
    return language, text


def of_panels(dashboard: dict[str, Any]) -> Iterator[tuple[str, Query]]:
    """Return the queries of the panels, by title and letter."""
    for panel in (it for row in dashboard["panels"] for it in (row, *row.get("panels", ()))):
        for target in panel.get("targets", ()):
            if target.get("query") == "$trace":
                continue  # a trace id is no TraceQL
            yield f"{panel['title']} {target['refId']}", filled(*query_of(target))


def of_variables(dashboard: dict[str, Any]) -> Iterator[tuple[str, Query]]:
    """Return the query for the choices of a variable."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            text = re.sub(r"\$\d", "", variable["query"]["query"])  # groups of label_replace
            found = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", text, re.DOTALL)
            assert found, variable["query"]
            yield variable["name"], filled(LANGUAGES[variable["datasource"]["type"]], found[1] or found[2])


def of_annotations(dashboard: dict[str, Any]) -> Iterator[tuple[str, Query]]:
    """Return the queries of the marks on time axes."""
    for item in dashboard["annotations"]["list"]:
        yield item["name"], filled(LANGUAGES[item["datasource"]["type"]], item["expr"])


def of_links(dashboard: dict[str, Any]) -> Iterator[tuple[str, Query]]:
    """Return the queries of links to Explore, with a value for each `${...}`."""
    urls = sorted({text for text in strings(dashboard["panels"]) if text.startswith("/explore?")})
    for number, url in enumerate(urls):
        given = parse_qs(urlsplit(re.sub(r"\$\{[^}]+\}", "x", url)).query, strict_parsing=True)
        for name, pane in json.loads(given["panes"][0]).items():
            for query in pane["queries"]:
                if query.get("query") == "x":
                    continue  # a trace id
                yield f"{number} {name}", query_of(query)


def of_text(text: str) -> Iterator[tuple[str, Query]]:
    """Return the queries in Markdown."""
    for number, (language, query) in enumerate(BLOCK.findall(text)):
        yield str(number), (language, query)


def of_data_sources() -> Iterator[tuple[str, Query]]:
    """Return the query that links a span to its logs; `$$` is an escaped `$`."""
    for source in yaml.safe_load(SOURCES.read_text(encoding="utf-8"))["datasources"]:
        query = source.get("jsonData", {}).get("tracesToLogsV2", {}).get("query")
        if query:
            yield source["type"], ("logql", re.sub(r"\$\$\{[^}]+\}", "x", query))


def all_of_them() -> dict[str, Query]:
    """Return every query of a file, by its place."""
    found: dict[str, Query] = {f"runbook {name}": it for name, it in of_text(RUNBOOK.read_text(encoding="utf-8"))}
    found |= {f"data source {name}": it for name, it in of_data_sources()}
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text(encoding="utf-8"))
        found |= {f"dashboard {file.stem}: {name}": it for name, it in of_panels(dashboard)}
        found |= {f"variable {file.stem}: {name}": it for name, it in of_variables(dashboard)}
        found |= {f"annotation {file.stem}: {name}": it for name, it in of_annotations(dashboard)}
        found |= {f"link {file.stem}: {name}": it for name, it in of_links(dashboard)}
        texts = "\n".join(strings([panel.get("options", {}).get("content", "") for panel in dashboard["panels"]]))
        found |= {f"text {file.stem}: {name}": it for name, it in of_text(texts)}
    return found


QUERIES = all_of_them()


def mutants(language: str, text: str) -> Iterator[str]:
    """Return the query with a wrong brace, quote or operator; the first brace is a selector's."""
    changes = [(r"\}", ""), (r"\)([^)]*)$", r"\1"), (r'"([^"]*)$', r"\1"), ("=", "=>"), ("&&", "&")]
    if language != "promql":
        changes.append((r"\{", ""))
        changes.append((r"\|(?![=~])", "| no_such_stage 1 |"))
    for pattern, instead in changes:
        mutant = re.sub(pattern, instead, text, count=1)
        if mutant != text:
            yield mutant


# -- the grammars


@pytest.fixture(scope="module")
def parse() -> Parse:
    """Return a function that returns the errors of each query."""
    command = [build.find_node(), str(built(build.GRAMMARS))]

    def errors(queries: Sequence[Query]) -> list[list[str]]:
        done = subprocess.run(
            command, input=json.dumps(queries), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        found: list[list[str]] = json.loads(done.stdout)
        assert len(found) == len(queries)
        return found

    return errors


@pytest.fixture(scope="module")
def errors_by_name(parse: Parse) -> dict[str, list[str]]:
    """Return the errors of all queries, from one run."""
    return dict(zip(QUERIES, parse(list(QUERIES.values())), strict=True))


@pytest.mark.parametrize("name", QUERIES)
def test_query_is_right(name: str, errors_by_name: dict[str, list[str]]) -> None:
    """No query of a dashboard, a variable, a link, a data source or the runbook has an error."""
    assert errors_by_name[name] == [], QUERIES[name][1]


def test_queries_are_found_everywhere() -> None:
    """All three languages are in dashboards and runbook, two are in links, and no block or link is missed."""
    found = {(name.split()[0], language) for name, (language, _) in QUERIES.items()}
    assert found >= {("runbook", language) for language in BROKEN} | {("dashboard", it) for it in ("promql", "logql")}
    assert ("link", "traceql") in found
    assert found >= {("link", "traceql"), ("link", "logql"), ("variable", "promql"), ("data", "logql")}
    fences = re.findall(r"^```(?:promql|logql|traceql)", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == sum(name.startswith("runbook ") for name in QUERIES)
    for file in DASHBOARDS:
        text = file.read_text(encoding="utf-8")
        assert ("/explore?" in text) is any(name.startswith(f"link {file.stem}:") for name in QUERIES)
        assert text.count('"refId": "') >= sum(name.startswith(f"dashboard {file.stem}:") for name in QUERIES)


@pytest.mark.parametrize("language", BROKEN)
def test_broken_query_is_wrong(language: str, parse: Parse) -> None:
    """The grammars are strict: a missing brace, a wrong operator, scope, value or function is an error."""
    broken = BROKEN[language]
    for text, errors in zip(broken, parse([(language, text) for text in broken]), strict=True):
        assert errors, text


def test_mutant_of_each_query_is_wrong(parse: Parse) -> None:
    """Each of our queries is invalid without a brace or a quote, or with an unknown operator."""
    changed = [
        (language, mutant) for language, text in sorted(set(QUERIES.values())) for mutant in mutants(language, text)
    ]
    assert {language for language, _ in changed} == set(BROKEN)
    passed = [query for query, errors in zip(changed, parse(changed), strict=True) if not errors]
    assert passed == []


# -- the doctor


class Answerer(BaseHTTPRequestHandler):
    """Answers every request with an empty result, and records it."""

    def do_GET(self) -> None:
        """Record a request."""
        asked: list[dict[str, list[str]]] = self.server.asked  # type: ignore[attr-defined]
        asked.append(parse_qs(urlsplit(self.path).query))
        body = b'{"status": "success", "data": {}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


def asked_by_doctor() -> Iterator[Query]:
    """Return every query of the doctor for a test operation that does not arrive."""
    for backend in all_three():
        with ThreadingHTTPServer(("127.0.0.1", 0), Answerer) as server:
            server.asked = []  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            backend.url = f"http://127.0.0.1:{server.server_port}"
            with suppress(BackendUnavailable):
                backend.look(ProbeIds("some-id", "0" * 32))
            backend.missing(ProbeIds("some-id", "0" * 32))
            server.shutdown()
            thread.join(10)
            for parameters in server.asked:  # type: ignore[attr-defined]
                for name in ("query", "match[]", "q"):
                    yield from ((LANGUAGES[backend.name.lower()], text) for text in parameters.get(name, ()))


def test_queries_of_the_doctor_are_right(parse: Parse) -> None:
    """The queries of `otel-progress doctor` to Prometheus and Loki have no error; it asks Tempo for a trace by its id."""
    asked = list(asked_by_doctor())
    assert [language for language, _ in asked] == ["promql", "promql", "logql"]
    assert [errors for errors in parse(asked) if errors] == []


# -- the packages

PACKAGES = {**build.NPM, emitters.TYPESCRIPT: emitters.sources(emitters.TYPESCRIPT)}


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_pinned(name: str) -> None:
    """Each package has one version; the lock has the same ones with hashes, and no address of a registry."""
    package, locked, *_ = PACKAGES[name]
    wanted = json.loads(package.read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads(locked.read_text(encoding="utf-8"))["packages"]
    own = lock.pop("")
    assert own["dependencies"] == wanted
    assert {it: lock[f"node_modules/{it}"]["version"] for it in wanted} == wanted
    assert all(it["integrity"].startswith("sha512-") and "resolved" not in it for it in lock.values())


UNLICENSE = {"fast-shallow-equal", "react-universal-interface"}
"""Packages whose licence is only in their file LICENSE: the Unlicense."""


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_have_permissive_licences(name: str) -> None:
    """No package is under the GPL, the LGPL or the AGPL, and each says its licence."""
    lock = json.loads(PACKAGES[name][1].read_text(encoding="utf-8"))["packages"]
    licences = {place.rpartition("node_modules/")[2]: it.get("license", "") for place, it in lock.items() if place}
    assert not {it: licence for it, licence in licences.items() if "GPL" in licence}
    assert {it for it, licence in licences.items() if not licence} <= UNLICENSE


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in build.NPM for number in range(4)])
def test_change_of_a_file_leads_to_a_new_folder(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation from before a change of a version or of the program is not reused."""
    before = build.target(name)
    copies = [tmp_path / file.name for file in build.NPM[name]]
    for copy, file in zip(copies, build.NPM[name]):
        copy.write_bytes(file.read_bytes())
    monkeypatch.setitem(build.NPM, name, copies)
    assert build.target(name) == before
    copies[number].write_text("{}", encoding="utf-8")
    assert build.target(name) != before


def test_npm_needs_nothing_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Node on PATH, the one of the development packages is used."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for command in ([build.find_node()], build.find_npm()):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False)
        assert re.fullmatch(r"v?\d+\.\d+\.\d+\n", done.stdout), done.stderr


def test_install_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """Without the packages the build exits with 1 and names npm; the next build starts again."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\nexit 7\n", encoding="utf-8")
    npm.chmod(0o755)
    env = {**os.environ, "PATH": f"{npm.parent}{os.pathsep}{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, str(build.__file__), build.GRAMMARS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == build.EXIT_FAILED
    assert "npm ci: the build failed with exit code 7" in done.stderr
    assert list((tmp_path / "otel-progress").iterdir()) == []
