"""Names exist once, in semconv.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_progress
from otel_progress import semconv

SOURCE = Path(otel_progress.__file__).parent
NAME = re.compile(r"\b(progress|gen_ai)\.[a-z_]+(\.[a-z_]+)*\b")
STANDARD = re.compile(r"(service|process|host|exception|event)\.[a-z_]+(\.[a-z_]+)*|Otel-Progress-(Control|Discards)")
"""Names of OpenTelemetry's own conventions, and our header, as whole literals."""
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "semconv.py")


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Return the string literals of a module that are not docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_name_is_written_anywhere_else(path: Path) -> None:
    """Only semconv.py contains names of attributes, events, metrics and the control header."""
    found = [(line, text) for line, text in literals(path) if NAME.search(text) or STANDARD.fullmatch(text)]
    assert found == []


def test_the_search_finds_what_it_should(tmp_path: Path) -> None:
    """The search finds names in literals and f-strings, and no docstrings."""
    probe = tmp_path / "probe.py"
    probe.write_text('"""progress.status"""\na = "progress.status"\nb = f"gen_ai.usage.{a}"\nc = "progress"\n')
    assert [line for line, text in literals(probe) if NAME.search(text)] == [2, 3]


def constants() -> dict[str, str]:
    """Return constant to name, for all attributes and events."""
    return {key: value for key, value in vars(semconv).items() if isinstance(value, str) and NAME.fullmatch(value)}


def test_every_name_exists_once() -> None:
    """No two attributes or events have the same name, nor do two metrics."""
    for names in (list(constants().values()), [metric.name for metric in semconv.METRICS]):
        assert len(names) == len(set(names))


def test_every_name_is_well_formed() -> None:
    """Names are lower case, in dotted words, under `progress.`, the GenAI conventions or those of processes."""
    for name in [*constants().values(), *(metric.name for metric in semconv.METRICS)]:
        assert re.fullmatch(r"(progress|gen_ai|process|disk)(\.[a-z]+(_[a-z]+)*)+", name), name


def test_every_event_is_listed() -> None:
    """EVENTS has exactly the events, including those that a budget may hold back."""
    assert semconv.RATIONED < semconv.EVENTS
    assert set(constants().values()) >= semconv.EVENTS
    used = {semconv.OPERATION_STARTED, semconv.OPERATION_ENDED, semconv.STAGE_STARTED, semconv.STAGE_ENDED}
    assert used <= semconv.EVENTS - semconv.RATIONED


def test_every_metric_is_listed_and_described() -> None:
    """METRICS holds every metric; each has a unit and a sentence; no counter's name ends in total."""
    defined = [value for value in vars(semconv).values() if isinstance(value, semconv.Metric)]
    assert sorted(defined) == sorted(semconv.METRICS)
    for metric in semconv.METRICS:
        assert metric.unit
        assert metric.description.endswith(".")
        assert not metric.name.endswith("total") or metric is semconv.RUN_TOTAL
        if metric.unit == "1":
            assert metric.name.endswith("ratio") or metric is semconv.PROCESS_CPU_UTILIZATION


def test_the_names_of_the_design_are_there() -> None:
    """Dashboards and rules rely on these names."""
    promised = """
        operation.id operation.name operation.parent.id operation.attempt stage.name stage.path status health completed
        total unit ratio message sequence eta eta.low eta.high idle stall_after slow_after wait.reason
        heartbeat.interval span.parent_id span.parent_remote span.start_time span.kind
        operation.started operation.ended stage.started stage.ended updated heartbeat process.heartbeat note
        wait.started wait.ended stalled recovered
        operation.active operation.duration stage.duration operation.stall_ratio units.completed tokens cost run.active
        run.start_time run.idle run.last_heartbeat run.stall_after run.slow_after run.eta run.wait_remaining run.ratio
        run.health run.completed run.total
    """
    there = set(constants().values()) | {metric.name for metric in semconv.METRICS}
    assert {f"progress.{name}" for name in promised.split()} <= there
