"""Frameworks of which we have no integration: a tool that hangs is seen by their spans, with its line."""

from __future__ import annotations

import pytest
from tests.frameworks.conftest import PROGRAMS as FOLDER
from tests.frameworks.conftest import Ask, healthy

PROGRAMS = "span_programs"


@pytest.mark.parametrize("tool", ["slow", "slow_async"])
def test_pydantic_ai(ask: Ask, tool: str) -> None:
    """Its own spans name agents, tools and tokens at once: the limits are those of the kinds."""
    seen = healthy(ask("pydantic_ai", tool=tool, until="*", advance=125))
    assert seen.operation["name"] == "invoke_agent weather"
    assert seen.operation["agent"] == "weather"
    assert seen.operation["health"] == "silent"
    assert f"span_programs.py:{line_of(tool)} in {tool}" in seen.operation["stuck_at"]
    assert seen.stage(f"execute_tool {tool}")["status"] == "running"
    assert seen.operation["stage"] == f"execute_tool {tool}"
    assert seen.operation["current_step"] in (None, f"execute_tool {tool}")
    assert seen.operation["usage"]["input_tokens"] > 0


def test_streams_of_pydantic_ai(ask: Ask) -> None:
    """A silent one is healthy until the limit of a model call; then it is stuck, with its line."""
    quiet = healthy(ask("one_stream", answer="one ... two", until="*", advance=290))
    assert quiet.operation["health"] == "progressing"
    stuck = healthy(ask("one_stream", answer="one ... two", until="*", advance=305))
    assert stuck.operation["health"] == "silent"
    assert "in words" in stuck.operation["stuck_at"]
    done = healthy(ask("one_stream", answer="one ... two", until="*"))
    assert done.result == ["onetwo"]


def test_two_streams_of_pydantic_ai(ask: Ask) -> None:
    """The one that hangs is stuck, and the other has ended."""
    seen = healthy(ask("two_streams", until="*", advance=305))
    assert [(one["name"], one["health"]) for one in seen.operations if one["status"] == "running"] == [
        ("invoke_agent chat17", "silent")
    ]


def test_a_reader_of_pydantic_ai_that_leaves(ask: Ask) -> None:
    """Nothing stays open, and nothing is called a failure."""
    seen = healthy(ask("one_stream", answer="one ... two three", leaves=True, until="*", advance=2))
    assert seen.result == ["one"]
    assert {one["status"] for one in seen.operations} <= {"completed", "cancelled"}


@pytest.mark.parametrize("tool", ["slow", "slow_async"])
def test_google_adk(ask: Ask, tool: str) -> None:
    """Its own spans name agents and tools at once."""
    seen = healthy(ask("google_adk", tool=tool, until="*", advance=125))
    assert seen.result == "sunny"
    assert seen.operation["health"] == "silent"
    assert f"in {tool}" in seen.operation["stuck_at"]
    assert any(path.endswith(f"execute_tool {tool}") for path, _ in seen.stages)


@pytest.mark.parametrize("tool", ["slow", "slow_async"])
def test_llama_index(ask: Ask, tool: str) -> None:
    """OpenInference names the kinds of its spans only when they end: the limit has to be configured."""
    seen = healthy(ask("llama_index", tool=tool, until="*", advance=35, limit=30))
    assert seen.result == "sunny"
    assert seen.operation["name"] == "FunctionAgent.run"
    assert seen.operation["health"] == "silent"
    assert f"in {tool}" in seen.operation["stuck_at"]
    assert healthy(ask("llama_index", tool=tool, until="*", advance=125)).operation["health"] == "progressing"


def test_smolagents(ask: Ask) -> None:
    """OpenInference names the kinds of its spans at once, and every tool `SimpleTool`."""
    seen = healthy(ask("smolagents", until="*", advance=125))
    assert seen.result == "sunny"
    assert seen.operation["health"] == "silent"
    assert "in slow" in seen.operation["stuck_at"]
    assert any(path.endswith("SimpleTool") for path, _ in seen.stages)


def line_of(tool: str) -> int:
    """The line at which a tool hangs."""
    mark = "# the line that hangs" if tool == "slow" else "# the await that hangs"
    lines = (FOLDER / f"{PROGRAMS}.py").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if mark in line)
