"""The OpenAI Agents SDK, seen by the programs that people write with it; no program has a line of ours."""

from __future__ import annotations

import pytest
from tests.frameworks.conftest import Ask, healthy

PROGRAMS = "openai_programs"


@pytest.mark.parametrize("tool", ["slow", "slow_async"])
def test_a_tool_that_hangs(ask: Ask, tool: str) -> None:
    """Of two tools that run at once the one that hangs is stuck at its line, within the limit of tools."""
    until = f"weather/{tool}"
    assert healthy(ask("two_tools", slow=tool, until=until, advance=119)).operation["health"] == "progressing"
    seen = healthy(ask("two_tools", slow=tool, until=until, advance=121))
    assert seen.result == "sunny"
    assert seen.operation["health"] == "silent"
    assert f"in {tool}" in seen.operation["stuck_at"]
    assert "openai_programs.py" in seen.operation["stuck_at"]
    assert seen.stage("weather/quick")["status"] == "completed"
    assert seen.operation["agent"] == "weather"


def test_a_tool_that_raises(ask: Ask) -> None:
    """A tool whose error goes to the model is a failed stage, with that error, of an operation that completes."""
    seen = healthy(ask("a_tool_that_raises"))
    tool = seen.stage("weather/breaks")
    assert (tool["status"], tool["reason"]) == ("failed", "ConnectionError: no route")
    assert seen.operation["status"] == "completed"


def test_a_handoff(ask: Ask) -> None:
    """Agents that take over are stages side by side; the handoff is in the feed."""
    seen = healthy(ask("handoffs"))
    assert [path for path, _ in seen.stages] == ["triage", "triage/chat", "spanish", "spanish/chat"]
    assert "handed off to spanish" in [note["text"] for note in seen.operation["notes"]]


def test_an_agent_as_a_tool(ask: Ask) -> None:
    """An agent that is a tool nests below that tool."""
    seen = healthy(ask("agents_as_tools"))
    assert "boss/research/researcher/quick" in [path for path, _ in seen.stages]
    assert {status for _, status in seen.stages} == {"completed"}


def test_guardrails(ask: Ask) -> None:
    """A guardrail is a stage; one that is triggered says so, and fails the operation."""
    passes = healthy(ask("guarded", trips=False))
    assert passes.stage("guarded/guardrail polite")["status"] == "completed"
    trips = ask("guarded", trips=True)
    assert trips.operation["status"] == "failed"
    assert "polite was triggered" in [note["text"] for note in trips.operation["notes"]]
    assert trips.warnings == []


def test_a_workflow(ask: Ask) -> None:
    """A trace of the user's own is one operation, by its name, with all its runs and the id of its group."""
    seen = healthy(ask("a_workflow"))
    assert seen.operation["name"] == "report"
    assert [path for path, _ in seen.stages] == ["writer", "writer/chat"] * 2
    assert seen.operation["attributes"] == {"gen_ai.conversation.id": "case-7"}


def test_many_at_once(ask: Ask) -> None:
    """Runs side by side are operations side by side."""
    seen = healthy(ask("many"))
    assert len(seen.operations) == 20
    assert {(one["status"], one["parent_id"], len(one["stages"])) for one in seen.operations} == {
        ("completed", None, 2)
    }


def test_errors(ask: Ask) -> None:
    """An error reaches the caller, and is that of the operation; one that was there before is nobody's."""
    seen = ask("fails")
    assert (seen.error, seen.operation["status"]) == ("ConnectionError: no model", "failed")
    assert seen.operation["reason"] == seen.error
    assert healthy(ask("inside_an_except")).operation["status"] == "completed"


def test_cancel(ask: Ask) -> None:
    """A cancel request reaches the run at its await."""
    seen = ask("cancelled", until="weather/slow_async", cancel="configured")
    assert seen.error is not None
    assert seen.error.startswith("CancelledError")
    assert seen.operation["status"] == "cancelled"
    assert seen.warnings == []
    alone = healthy(ask("cancelled", until="weather/slow_async", cancel="alone"))
    assert alone.operation["status"] == "completed"


def test_a_stream(ask: Ask) -> None:
    """Streamed tokens are counted; a stream that stalls is stuck by the limit between tokens."""
    model = "chat/chat tiny-1"
    seen = healthy(ask("streams", answer="one two three"))
    assert seen.stage(f"{model}/stream")["progress"]["completed"] == 3
    assert seen.operation["usage"] == {"input_tokens": 9, "output_tokens": 3}
    stalls = healthy(ask("streams", answer="one two ...", until=f"{model}/stream", advance=65))
    assert stalls.operation["health"] == "silent"
    assert stalls.stage(f"{model}/stream")["progress"]["completed"] == 2


@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
def test_a_reader_that_leaves_a_stream(ask: Ask, how: str) -> None:
    """Nothing stays open, and nothing is called a failure."""
    seen = healthy(ask("left", how=how))
    assert seen.operation["status"] in ("completed", "cancelled")
    assert not {status for _, status in seen.stages} & {"running", "failed"}


def test_two_streams(ask: Ask) -> None:
    """Each counts its own tokens."""
    seen = healthy(ask("two_streams", until="tiny-2/chat tiny-2/stream", advance=65))
    counts = {
        one["name"]: [stage["progress"]["completed"] for stage in one["stages"] if stage["name"] == "stream"]
        for one in seen.operations
    }
    assert counts == {"tiny-1": [2], "tiny-2": [2]}
    assert {one["health"] for one in seen.operations} == {"silent"}


def test_live_spans_of_the_same_work(ask: Ask) -> None:
    """Spans of other instrumentations, of the SDK and of the client, are not shown a second time, nor counted."""
    model = "chat/chat tiny-1"
    seen = healthy(ask("instrumented", also="live_spans", until=f"{model}/stream", advance=5))
    assert [path for path, _ in seen.stages] == ["chat", model, f"{model}/stream"]
    assert seen.result[0] == "onetwo"
    done = healthy(ask("instrumented", answer="one two", also="live_spans"))
    assert done.operation["usage"] == {"input_tokens": 9, "output_tokens": 2}
