"""Sessions of Claude Code, as their hooks tell them: what people do with it, and what goes wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, names, parts, seconds
from tests.stress.served import serving

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.secrets import mask_secrets
from otel_progress.monitor.auth import Identity
from otel_progress.monitor.hooks.claude_code import NOT_ALLOWED, ClaudeCode, child_id
from otel_progress.monitor.hooks.payload import read
from otel_progress.monitor.hooks.routes import PATH
from otel_progress.monitor.hooks.tool_limits import AFTER_TIMEOUT, AGENT, TOOL
from otel_progress.monitor.intake.requests import LARGEST, Accepted, Refused
from otel_progress.testing import FakeClock

SESSION = "5f0c8a52-0b1e-4d3c-9a67-2f5f6f1c7a10"
HOURS = 3600


class Session:
    """A session of Claude Code: what it posts."""

    def __init__(self, monitor: Parts, session: str = SESSION, **options: Any) -> None:
        self.monitor = monitor
        self.session = session
        self.options = options
        self.sessions = ClaudeCode(**options)

    def hook(self, name: str, *, owner: str | None = None, **fields: Any) -> None:
        """Post an event."""
        body = {"session_id": self.session, "hook_event_name": name, "cwd": "/home/ann/shop", **fields}
        request = self.sessions.request(read(json.dumps(body).encode()), clock.time_ns(), owner)
        if request:
            assert self.monitor.take(request) == [Accepted()]

    def start(self, tool: str, use: str, *, agent: str | None = None, **tool_input: Any) -> None:
        """A tool is about to run."""
        self.hook("PreToolUse", tool_name=tool, tool_use_id=use, tool_input=tool_input, **_of(agent))

    def end(self, tool: str, use: str, *, agent: str | None = None, **more: Any) -> None:
        """It has run."""
        self.hook("PostToolUse", tool_name=tool, tool_use_id=use, tool_input={}, **_of(agent), **more)

    def run(self, fake: FakeClock, tool: str, use: str, took: float, **tool_input: Any) -> None:
        """A tool runs for some seconds."""
        self.start(tool, use, **tool_input)
        seconds(fake, self.monitor, took)
        self.end(tool, use)

    def row(self, agent: str | None = None) -> dict[str, Any]:
        """The row of an agent."""
        return self.monitor.row(self.session if agent is None else child_id(self.session, agent))

    def health(self, agent: str | None = None) -> str:
        """The verdict on an agent."""
        return str(self.row(agent)["verdict"]["health"])

    def stages(self, agent: str | None = None) -> list[tuple[str, str]]:
        """The tools of an agent, and how they stand."""
        key = self.session if agent is None else child_id(self.session, agent)
        entry = self.monitor.core.ledger.find(key)
        assert entry is not None
        return [(stage.path, stage.status.value) for stage in entry.snapshot.stages]

    def restart(self) -> None:
        """The monitor starts again; the session goes on."""
        self.monitor.restart()
        self.sessions = ClaudeCode(**self.options)
        entry = self.monitor.core.ledger.find(self.session)
        assert entry is not None
        self.sessions.recall(entry.snapshot)


def _of(agent: str | None) -> dict[str, str]:
    return {} if agent is None else {"agent_id": agent, "agent_type": "Explore"}


@pytest.fixture
def session(monitor: Parts) -> Session:
    """A session whose user has just asked for something."""
    found = Session(monitor)
    found.hook("UserPromptSubmit", prompt="add a login page")
    return found


def test_turn_is_an_operation_and_tools_are_its_stages(session: Session, fake: FakeClock) -> None:
    """From the prompt to Stop, with each tool as it runs and ends."""
    session.run(fake, "Read", "t1", 2, file_path="a.py")
    session.start("Bash", "t2", command="make test")
    row = session.row()
    assert (row["name"], row["agent"], row["stage"], row["status"]) == ("claude-code", "claude-code", "Bash", "running")
    seconds(fake, session.monitor, 3)
    session.hook("PostToolUseFailure", tool_name="Bash", tool_use_id="t2", error="exit code 2")
    session.hook("Stop", stop_hook_active=False)
    assert session.row()["status"] == "completed"
    assert session.stages() == [("Read", "completed"), ("Bash", "failed")]
    assert names(session.monitor.history(SESSION)) == [
        s.OPERATION_STARTED, s.STAGE_STARTED, s.STAGE_ENDED, s.STAGE_STARTED, s.STAGE_ENDED, s.OPERATION_ENDED,
    ]  # fmt: skip


def test_next_prompt_is_another_attempt(session: Session, fake: FakeClock) -> None:
    """The session keeps its id; what its last turn did is over."""
    session.run(fake, "Read", "t1", 1)
    session.hook("Stop")
    fake.sleep(600)
    session.hook("UserPromptSubmit", prompt="now test it")
    row = session.row()
    assert (row["status"], row["attempt"], session.stages()) == ("running", 2, [])


def test_hung_tool_is_stuck_at_its_limit_and_named(session: Session, fake: FakeClock) -> None:
    """Exactly at the default of a tool whose durations are unknown."""
    session.start("mcp__db__query", "t1", sql="select 1")
    seconds(fake, session.monitor, TOOL - 1)
    assert session.health() == "progressing"
    seconds(fake, session.monitor, 1)
    assert session.health() == "stuck"
    assert session.row()["stage"] == "mcp__db__query"


def test_tool_that_is_usually_quick_has_a_shorter_limit(session: Session, fake: FakeClock) -> None:
    """The limit is learned from earlier calls, and says so."""
    for number in range(30):
        session.run(fake, "Read", f"t{number}", 1)
    session.start("Read", "hangs")
    verdict = session.row()["verdict"]
    entry = session.monitor.core.ledger.find(SESSION)
    assert entry is not None
    assert entry.snapshot.stall_after is not None
    assert entry.snapshot.stall_after < TOOL / 2
    assert "learned from 30 runs of Read" in str(entry.snapshot.stall_after_source), verdict


def test_command_of_twenty_minutes_is_not_stuck_within_its_own_timeout(session: Session, fake: FakeClock) -> None:
    """The timeout in its input counts; beyond it the command hangs."""
    session.start("Bash", "t1", command="make everything", timeout=20 * 60 * 1000)
    seconds(fake, session.monitor, 20 * 60 + AFTER_TIMEOUT - 1)
    assert session.health() == "progressing"
    seconds(fake, session.monitor, 1)
    assert session.health() == "stuck"


def test_model_that_thinks_has_longer_than_a_tool(session: Session, fake: FakeClock) -> None:
    """Between two hooks a whole answer is written, of which nothing is heard."""
    session.run(fake, "Read", "t1", 1)
    seconds(fake, session.monitor, AGENT - 1)
    assert session.health() == "progressing"
    seconds(fake, session.monitor, 1)
    assert session.health() == "stuck"


@pytest.mark.parametrize(
    "asks",
    [
        {"name": "PermissionRequest", "tool_name": "Bash", "tool_input": {"command": "git push"}},
        {"name": "Notification", "message": "Claude needs your permission to use Bash"},
        {"name": "Notification", "notification_type": "permission_prompt", "message": "Bash?"},
    ],
)
def test_permission_prompt_waits_for_an_hour(session: Session, fake: FakeClock, asks: dict[str, Any]) -> None:
    """It waits for a human, and is never stuck; the answer ends the wait."""
    session.start("Bash", "t1", command="git push")
    session.hook(**asks)
    seconds(fake, session.monitor, HOURS)
    row = session.row()
    assert (session.health(), row["status"], row["wait"]["reason"]) == ("waiting", "waiting", "permission")
    session.end("Bash", "t1")
    assert session.row()["status"] == "running"
    assert names(session.monitor.history(SESSION))[-3:] == [s.WAIT_STARTED, s.STAGE_ENDED, s.WAIT_ENDED]


def test_permission_that_is_denied_ends_with_the_next_tool(session: Session, fake: FakeClock) -> None:
    """No event says no: the session goes on without that tool."""
    session.start("Bash", "t1", command="git push")
    session.hook("PermissionRequest", tool_name="Bash", tool_input={"command": "git push"})
    seconds(fake, session.monitor, 60)
    session.start("Read", "t2")
    assert session.stages() == [("Bash", "cancelled"), ("Read", "running")]
    entry = session.monitor.core.ledger.find(SESSION)
    assert entry is not None
    assert entry.snapshot.stages[0].reason == NOT_ALLOWED
    session.end("Bash", "t1")  # it was allowed, after all
    assert session.stages()[0] == ("Bash", "completed")


def test_tool_that_runs_beside_a_prompt_is_judged(session: Session, fake: FakeClock) -> None:
    """The wait of one call stops its clock alone."""
    session.start("Read", "t1")
    session.start("Bash", "t2", command="git push")
    session.hook("PermissionRequest", tool_name="Bash", tool_input={"command": "git push"})
    seconds(fake, session.monitor, TOOL)
    assert session.health() == "stuck"
    assert session.row()["stage"] == "Read"


def test_question_to_the_user_is_a_wait(session: Session, fake: FakeClock) -> None:
    """The tool that asks waits by itself."""
    session.start("AskUserQuestion", "t1", questions=[])
    seconds(fake, session.monitor, HOURS)
    assert session.health() == "waiting"


def test_sub_agents_run_in_parallel(session: Session, fake: FakeClock) -> None:
    """Each is a child with its own tools; while one moves, its parent is not stuck, and a stuck one is named."""
    session.start("Agent", "t1", prompt="look here")
    session.start("Agent", "t2", prompt="look there")
    session.hook("SubagentStart", agent_id="a1", agent_type="Explore")
    session.hook("SubagentStart", agent_id="a2", agent_type="Plan")
    session.start("Grep", "t3", agent="a1", pattern="x")
    session.start("Bash", "t4", agent="a2", command="sleep 1000")
    assert session.stages("a1") == [("Grep", "running")]
    assert session.row("a1")["name"] == "Explore"
    for number in range(8):
        seconds(fake, session.monitor, 100)
        session.end("Grep", f"g{number}", agent="a1", duration_ms=5)
    assert (session.health("a1"), session.health("a2")) == ("progressing", "stuck")
    session.hook("SubagentStop", agent_id="a2", agent_type="Explore")
    session.hook("SubagentStop", agent_id="a1", agent_type="Explore")
    assert session.row("a1")["status"] == session.row("a2")["status"] == "completed"
    session.end("Agent", "t1")
    session.end("Agent", "t2")
    session.hook("Stop")
    assert session.row()["status"] == "completed"


def test_parent_is_as_well_as_its_sub_agent(session: Session, fake: FakeClock) -> None:
    """It waits for the sub-agent for longer than its own limit."""
    session.start("Task", "t1")
    session.hook("SubagentStart", agent_id="a1", agent_type="Explore")
    for number in range(10):
        seconds(fake, session.monitor, 100)
        session.end("Read", f"r{number}", agent="a1", duration_ms=5)
    assert session.health() == "progressing"
    seconds(fake, session.monitor, AGENT)
    assert (session.health("a1"), session.health()) == ("stuck", "stuck")


def test_same_call_again_and_again_is_a_loop(session: Session, fake: FakeClock) -> None:
    """The same tool with the same input, ten times; its input is not shown."""
    for number in range(9):
        session.run(fake, "Bash", f"t{number}", 3, command="curl -s secret-host")
    assert session.health() == "progressing"
    session.run(fake, "Bash", "t9", 3, command="curl -s secret-host")
    verdict = session.row()["verdict"]
    assert verdict["health"] == "looping"
    assert "secret-host" not in str(verdict)
    session.run(fake, "Bash", "t10", 3, command="something else")
    assert session.health() == "progressing"


def test_same_tool_with_other_inputs_is_no_loop(session: Session, fake: FakeClock) -> None:
    """Reading many files is work."""
    for number in range(40):
        session.run(fake, "Read", f"t{number}", 1, file_path=f"{number}.py")
    assert session.health() == "progressing"


def test_inputs_are_not_kept(session: Session, fake: FakeClock) -> None:
    """Nothing of an input or an output is stored."""
    session.start("Bash", "t1", command="echo marker-in", description="marker-about")
    session.end("Bash", "t1", tool_response={"stdout": "marker-out"})
    session.hook("Stop", last_assistant_message="marker-last")
    session.monitor.store.close()
    assert b"marker" not in session.monitor.path.read_bytes()
    session.monitor.open()


def test_inputs_that_are_wanted_are_redacted(monitor: Parts) -> None:
    """Switched on, they are shown as the message, without secrets."""
    session = Session(monitor, redact=mask_secrets, keep_inputs=True)
    session.start("Bash", "t1", command="deploy --password hunter22")
    entry = monitor.core.ledger.find(SESSION)
    assert entry is not None
    message = str(entry.snapshot.message)
    assert "deploy" in message
    assert "hunter22" not in message


def test_doubled_events_change_nothing(session: Session, fake: FakeClock) -> None:
    """Settings that name the monitor twice post each event twice."""
    for _ in range(2):
        session.start("Read", "t1")
    seconds(fake, session.monitor, TOOL / 2)
    session.start("Read", "t1")  # no sign of progress
    seconds(fake, session.monitor, TOOL / 2)
    assert session.health() == "stuck"
    for _ in range(2):
        session.end("Read", "t1")
    for _ in range(2):
        session.hook("Stop")
    assert session.stages() == [("Read", "completed")]
    assert names(session.monitor.history(SESSION)).count(s.OPERATION_ENDED) == 1
    assert session.row()["attempt"] == 1


def test_end_before_its_start(session: Session, fake: FakeClock) -> None:
    """The order in which requests arrive decides nothing."""
    session.end("Read", "t1", duration_ms=2000)
    session.start("Read", "t1")
    assert session.stages() == [("Read", "completed")]
    session.hook("SubagentStop", agent_id="a1", agent_type="Explore")
    session.hook("SubagentStart", agent_id="a1", agent_type="Explore")
    assert session.row("a1")["status"] == "completed"


def test_end_of_a_tool_after_the_end_of_its_turn(session: Session, fake: FakeClock) -> None:
    """It opens no turn; what the turn said at its end stands."""
    session.start("Bash", "t1")
    session.hook("Stop")
    assert session.stages() == [("Bash", "cancelled")]
    session.end("Bash", "t1")
    row = session.row()
    assert (row["status"], row["attempt"], session.stages()) == ("completed", 1, [("Bash", "cancelled")])


def test_session_whose_stop_never_comes(fake: FakeClock, tmp_path: Path) -> None:
    """It is stuck by its limit, and presumed lost like any program that is not heard of; the next event undoes it."""
    with parts(tmp_path / "n.db", presume_after=2 * AGENT) as monitor:
        session = Session(monitor)
        session.run(fake, "Read", "t1", 1)
        seconds(fake, monitor, AGENT)
        assert session.health() == "stuck"
        seconds(fake, monitor, AGENT + 1)
        assert session.row()["status"] == "lost"
        session.start("Read", "t2")
        assert session.row()["status"] == "running"


def test_interrupted_session_waits_for_a_prompt(session: Session, fake: FakeClock) -> None:
    """Esc ends a turn without Stop: Claude Code says that it waits, and the next prompt ends the turn."""
    session.start("Bash", "t1")
    session.hook("PostToolUseFailure", tool_name="Bash", tool_use_id="t1", error="stopped", is_interrupt=True)
    session.hook("Notification", notification_type="idle_prompt", message="Claude is waiting for your input")
    seconds(fake, session.monitor, HOURS)
    assert session.health() == "waiting"
    session.hook("UserPromptSubmit", prompt="do it differently")
    assert (session.row()["attempt"], session.row()["status"]) == (2, "running")


def test_failed_turn(session: Session) -> None:
    """The model gave no answer."""
    session.hook("StopFailure", error="rate_limit", error_message="429 Too Many Requests")
    row = session.row()
    assert (row["status"], row["reason"]) == ("failed", "429 Too Many Requests")


def test_end_of_the_session_ends_all(session: Session) -> None:
    """The user quits in the middle."""
    session.start("Task", "t1")
    session.hook("SubagentStart", agent_id="a1", agent_type="Explore")
    session.hook("SessionEnd", reason="prompt_input_exit")
    assert session.row()["status"] == session.row("a1")["status"] == "interrupted"
    assert "prompt_input_exit" in session.row()["reason"]


def test_idle_session_is_no_operation(monitor: Parts) -> None:
    """Starting and ending Claude Code is no work."""
    session = Session(monitor)
    session.hook("SessionStart", source="startup")
    session.hook("Notification", notification_type="idle_prompt", message="Claude is waiting for your input")
    session.hook("SessionEnd", reason="other")
    assert monitor.core.ledger.find(SESSION) is None


def test_monitor_restarts_in_the_middle(session: Session, fake: FakeClock) -> None:
    """It goes on with what it stored: the same attempt, the same calls, the same wait."""
    session.run(fake, "Read", "t1", 1)
    session.start("Bash", "t2", command="git push")
    session.hook("PermissionRequest", tool_name="Bash", tool_input={"command": "git push"})
    seconds(fake, session.monitor, 5)
    session.restart()
    session.end("Bash", "t2")
    row = session.row()
    assert (row["status"], row["attempt"]) == ("running", 1)
    assert session.stages() == [("Read", "completed"), ("Bash", "completed")]


def test_more_tools_than_are_listed(session: Session, fake: FakeClock) -> None:
    """The oldest are folded into counts."""
    for number in range(100):
        session.run(fake, "Read", f"t{number}", 1, file_path=str(number))
    entry = session.monitor.core.ledger.find(SESSION)
    assert entry is not None
    assert len(entry.snapshot.stages) == 64
    assert [(status, count) for status, count, _ in entry.snapshot.folded] == [("completed", 36)]


def test_more_agents_than_are_remembered(monitor: Parts) -> None:
    """Ended ones are forgotten first."""
    session = Session(monitor, agents=3)
    session.start("Read", "t1")
    for number in range(10):
        session.hook("SubagentStart", agent_id=f"a{number}", agent_type="Explore")
        session.hook("SubagentStop", agent_id=f"a{number}", agent_type="Explore")
    assert session.sessions.is_known(SESSION)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "a JSON object, not list"),
        (b"{}", "session_id is missing"),
        (b'{"session_id": 7}', "session_id must be a text"),
        (b'{"session_id": "", "hook_event_name": "Stop"}', "session_id must be a text"),
        (b'{"session_id": "a"}', "hook_event_name is missing"),
        (json.dumps({"session_id": "a" * 201, "hook_event_name": "Stop"}).encode(), "1 to 200 characters"),
    ],
)
def test_malformed_events_name_what_is_wrong(body: bytes, says: str) -> None:
    """A clear error."""
    with pytest.raises(Refused, match=says) as caught:
        read(body)
    assert caught.value.status == 400


def test_odd_values_are_left_out() -> None:
    """Fields of wrong types, lone surrogates and huge numbers do no harm."""
    body = {
        "session_id": "\ud800",
        "hook_event_name": "PreToolUse",
        "tool_name": ["Bash"],
        "tool_use_id": 7,
        "tool_input": {"timeout": 1e400, "text": "\udfff"},
        "duration_ms": -1,
        "cwd": None,
    }
    event = read(json.dumps(body).encode())
    assert (event.session, event.tool, event.tool_use, event.timeout, event.duration) == ("?", "tool", None, None, None)


def test_tools_without_ids(session: Session, fake: FakeClock) -> None:
    """Older versions name no call: the end belongs to the oldest call of the same tool and input."""
    for path in ("a", "b", "a"):
        session.hook("PreToolUse", tool_name="Read", tool_input={"file_path": path})
    session.hook("PostToolUse", tool_name="Read", tool_input={"file_path": "a"})
    assert [status for _, status in session.stages()] == ["completed", "running", "running"]


HOOK = {"content-type": "application/json"}
STOP = json.dumps(
    {"session_id": "a", "hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_use_id": "1"}
).encode()


def test_route_answers_without_a_decision(tmp_path: Path) -> None:
    """On the real server: an empty object, after the event is stored."""
    with serving(tmp_path) as served:
        answer = served.ask("POST", PATH, STOP, HOOK)
        assert (answer.status, answer.json) == (200, {})
        assert served.detail("a")["stage"] == "Bash"
        assert served.ask("POST", PATH, b"{", HOOK).status == 400
        assert served.ask("POST", PATH, STOP, {"content-type": "text/plain"}).status == 415
        assert served.ask("GET", PATH).status == 405
        assert served.ask("POST", PATH, STOP, {**HOOK, "origin": "https://elsewhere.example"}).status == 403
        huge = json.dumps(
            {"session_id": "a", "hook_event_name": "PostToolUse", "tool_response": "x" * LARGEST}
        ).encode()
        answer = served.ask("POST", PATH, huge, HOOK)
        assert answer.status == 413
        assert "larger than" in answer.json["error"]


def test_large_output_ends_its_tool(tmp_path: Path) -> None:
    """Megabytes of output are read, and not kept."""
    end = json.loads(STOP) | {"hook_event_name": "PostToolUse", "tool_response": "x" * 8_000_000}
    with serving(tmp_path) as served:
        served.ask("POST", PATH, STOP, HOOK)
        assert served.ask("POST", PATH, json.dumps(end).encode(), HOOK).status == 200
        assert served.detail("a")["stages"][0]["status"] == "completed"


def test_token_is_required_where_others_can_reach_it(tmp_path: Path) -> None:
    """As for OTLP: a token with the right to send; its owner owns the session."""
    tokens = {
        "t" * 20: Identity(frozenset({"send"}), "ann"),
        "r" * 20: Identity(frozenset({"read"})),
        "o" * 20: Identity(frozenset({"read"}), "bob"),
    }
    with serving(tmp_path, tokens=tokens) as served:
        assert served.ask("POST", PATH, STOP, HOOK).status == 401
        assert served.ask("POST", PATH, STOP, HOOK, token="r" * 20).status == 403
        assert served.ask("POST", PATH, STOP, HOOK, token="t" * 20).status == 200
        assert served.detail("a", token="r" * 20)["attributes"]["owner"] == "ann"
        assert served.ask("GET", "/operations/a", token="o" * 20).status == 404
