"""LangGraph and LangChain, seen by the programs that people write with them; no program has a line of ours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.frameworks.conftest import Ask, Worker, healthy

PROGRAMS = "langgraph_programs"
MODEL, CALL = "model", "model/chat tiny-1"


@pytest.mark.parametrize(
    ("program", "given", "tool", "line"),
    [
        ("two_tools", {}, "slow", "in slow"),
        ("two_tools_async", {}, "slow_async", "in slow_async"),
        ("two_tools_async", {"name": "slow"}, "slow", "in slow"),
    ],
)
def test_a_tool_that_hangs(ask: Ask, program: str, given: dict[str, str], tool: str, line: str) -> None:
    """Of two tools that run at once the one that hangs is stuck at its line, within the limit of tools."""
    assert healthy(ask(program, until=f"tools/{tool}", advance=119, **given)).operation["health"] == "progressing"
    seen = healthy(ask(program, until=f"tools/{tool}", advance=121, **given))
    assert seen.result == "It is sunny."
    assert seen.operation["health"] == "silent"
    assert line in seen.operation["stuck_at"]
    assert "langgraph_programs.py" in seen.operation["stuck_at"]
    assert seen.stage("tools/quick")["status"] == "completed"
    assert seen.stage(f"tools/{tool}")["status"] == "running"
    assert seen.operation["agent"] == "weather"
    assert seen.operation["usage"] == {"input_tokens": 100, "output_tokens": 20}


def test_a_supervisor(ask: Ask) -> None:
    """An agent that a tool calls nests below the tool, and its tokens count for the whole."""
    seen = healthy(ask("supervisor"))
    assert seen.operation["name"] == "boss"
    inner = [path for path, _ in seen.stages if path.startswith("tools/research/")]
    assert Counter(inner)["tools/research/tools/quick"] == 1
    assert Counter(inner)["tools/research/model"] == 2
    assert seen.operation["usage"] == {"input_tokens": 400, "output_tokens": 80}
    assert {status for _, status in seen.stages} == {"completed"}


def test_a_subgraph(ask: Ask) -> None:
    """The nodes of a graph that is a node nest below that node."""
    assert healthy(ask("subgraphs")).stages == [
        ("first", "completed"),
        ("first/double", "completed"),
        ("second", "completed"),
    ]


def test_a_graph_that_does_not_end(ask: Ask) -> None:
    """Nodes that get the same state again and again are in a loop; a graph whose state changes is not."""
    seen = healthy(ask("endless", until="check", advance=20))
    assert seen.operation["health"] == "looping"
    assert seen.operation["loop"]["kind"] == "step"
    assert healthy(ask("counting", until="count", advance=20)).operation["health"] == "progressing"


def test_the_same_tool_again_and_again(ask: Ask) -> None:
    """A tool that is called with the same input again and again is a loop, although the messages grow."""
    seen = healthy(ask("same_tool", until=CALL, advance=20))
    assert seen.operation["health"] == "looping"
    assert "quick" in seen.operation["health_reason"]


def test_other_results_are_no_loop(ask: Ask) -> None:
    """The same tool with the same input, or the same node with the same state, works if its results differ or say nothing."""
    for seen in (
        ask("next_pages", until=CALL, advance=250),
        *(ask("works_off", says=it, until="work", advance=250) for it in (True, False)),
    ):
        assert healthy(seen).operation["health"] == "progressing"


@pytest.mark.parametrize("program", ["chat", "chat_async"])
def test_a_stream(ask: Ask, program: str) -> None:
    """Streamed tokens are counted; one that stalls is stuck by the limit between tokens, with its count."""
    assert healthy(ask(program)).stage(f"{CALL}/stream")["progress"]["completed"] >= 3
    stalls = healthy(ask(program, answer="one two ...", until=f"{CALL}/stream", advance=61))
    stream = stalls.stage(f"{CALL}/stream")
    assert stalls.operation["health"] == "silent"
    assert stream["progress"]["completed"] == 2
    assert stream["progress"]["unit"] == "token"


def test_no_first_token(ask: Ask) -> None:
    """A model that says nothing at all has a longer limit than one that stops."""
    waits = healthy(ask("chat", answer="... late", until=CALL, advance=299))
    assert waits.operation["health"] == "progressing"
    stuck = healthy(ask("chat", answer="... late", until=CALL, advance=301))
    assert stuck.operation["health"] == "silent"
    assert stuck.stage(CALL)["message"] == "no token yet"


@pytest.mark.parametrize("program", ["dropped", "dropped_async"])
def test_a_reader_that_goes_away(ask: Ask, program: str) -> None:
    """A stream that is dropped half-way is cancelled, and leaves nothing open."""
    seen = healthy(ask(program))
    assert seen.operation["status"] == "cancelled"
    assert "running" not in [status for _, status in seen.stages]


def test_a_person_is_asked(ask: Ask) -> None:
    """An interrupt is a wait for a human until the thread goes on; then the same operation goes on."""
    waits = healthy(ask("asks", answers=False, advance=1_000)).operation
    assert (waits["status"], waits["wait"]["reason"]) == ("waiting", "human")
    assert waits["health"] == "waiting"
    for program in ("asks", "asks_async"):
        seen = healthy(ask(program))
        assert seen.result == "yes"
        assert [path for path, _ in seen.stages] == ["prepare", "approve", "approve", "pay"]
        assert seen.operation["status"] == "completed"
        assert seen.operation["attributes"] == {"gen_ai.conversation.id": "customer-7"}


def test_new_input_in_place_of_an_answer(ask: Ask) -> None:
    """A thread that gets new input gives its question up."""
    first, second = healthy(ask("asks", again=True)).operations
    assert (first["status"], first["reason"]) == ("cancelled", "got new input in place of an answer")
    assert second["status"] == "completed"


def test_an_answer_in_another_process(ask: Ask, python: Path, tmp_path: Path) -> None:
    """Another process goes on in an operation of its own, which says so, and has the id of the conversation."""
    file = str(tmp_path / "graph.db")
    asked = healthy(ask("ask_first", file=file)).operation
    assert asked["status"] == "waiting"
    other = Worker(python, PROGRAMS)
    try:
        seen = healthy(other("answer_later", file=file))
    finally:
        other.stop()
    assert [path for path, _ in seen.stages] == ["approve", "pay"]
    assert seen.operation["attributes"] == asked["attributes"]
    assert "resumed from a checkpoint" in [note["text"] for note in seen.operation["notes"]]


def test_map_and_reduce(ask: Ask) -> None:
    """Each part that a node sends out is a stage."""
    assert Counter(healthy(ask("map_reduce")).stages) == {("square", "completed"): 12, ("total", "completed"): 1}


def test_retries(ask: Ask) -> None:
    """Each failed try of a node is a failed stage; the graph completes."""
    seen = healthy(ask("retries"))
    assert [status for _, status in seen.stages] == ["failed", "failed", "completed"]
    assert seen.operation["status"] == "completed"


def test_an_error(ask: Ask) -> None:
    """An error reaches the caller unchanged, and is that of the operation."""
    seen = ask("fails")
    assert seen.error == "ZeroDivisionError: integer division or modulo by zero"
    assert seen.operation["status"] == "failed"
    assert seen.operation["reason"] == seen.error
    assert seen.warnings == []


@pytest.mark.parametrize(("program", "count"), [("many", 50), ("many_in_threads", 20)])
def test_a_batch(ask: Ask, program: str, count: int) -> None:
    """Each input of a batch is an operation; prompts in it are not shown."""
    seen = healthy(ask(program))
    assert len(seen.operations) == count
    assert {(one["name"], one["status"]) for one in seen.operations} == {("greet", "completed")}
    assert {stage["path"] for one in seen.operations for stage in one["stages"]} == {"chat tiny-1"}


@pytest.mark.parametrize(("program", "count"), [("web", 5), ("pool", 8)])
def test_many_graphs_at_once(ask: Ask, program: str, count: int) -> None:
    """Requests of a web application and jobs in a pool of threads are operations side by side, none below another."""
    seen = healthy(ask(program))
    assert len(seen.operations) == count
    assert {one["parent_id"] for one in seen.operations} == {None}
    assert {one["status"] for one in seen.operations} == {"completed"}
    assert len({len(one["stages"]) for one in seen.operations}) == 1


def test_what_is_no_work(ask: Ask) -> None:
    """Prompts and functions by themselves are no operations; a model call by itself is one."""
    assert healthy(ask("prompts_alone")).operations == []
    assert healthy(ask("a_chain_of_functions")).operations == []
    assert healthy(ask("one_call")).operation["name"] == "chat tiny-1"


def test_current_in_a_node(ask: Ask) -> None:
    """In the code of nodes and tools their stage is current, in threads and tasks; afterwards nothing is."""
    assert healthy(ask("speaks")).result == [["node", None, True], ["node", None, True]]


@pytest.mark.parametrize("how", ["async", "sync"])
def test_cancel(ask: Ask, how: str) -> None:
    """A cancel request reaches a graph that awaits; one in a thread stops at its next node."""
    until = "tools/slow_async" if how == "async" else "tools/slow"
    seen = ask("cancelled", how=how, until=until, cancel="configured")
    assert seen.error is not None
    assert seen.error.startswith("CancelledError" if how == "async" else "OperationCancelled")
    assert seen.warnings == []
    alone = healthy(ask("cancelled", how=how, until=until, cancel="alone"))
    assert (alone.result, alone.operation["status"]) == ("late", "completed")


def test_live_spans_of_the_same_runs(ask: Ask) -> None:
    """Spans of another instrumentation for the same runs are not shown a second time, nor are their tokens counted."""
    seen = healthy(ask("instrumented", also="live_spans", until="tools/slow", advance=5))
    assert [path for path, _ in seen.stages if "slow" in path] == ["tools/slow"]
    assert len(seen.stages) == 6
    assert seen.operation["usage"] == {"input_tokens": 100, "output_tokens": 20}


def test_live_spans_in_a_node(ask: Ask) -> None:
    """A span of the user's own in a node is a stage of that node."""
    seen = healthy(ask("own_span", also="live_spans", until="fetch", advance=5))
    assert [path for path, _ in seen.stages] == ["fetch", "fetch/download"]
