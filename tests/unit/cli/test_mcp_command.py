"""`otel-progress mcp`, asked by a real client of the SDK; it asks a real monitor."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from tests.stress.served import Served, event, serving

from otel_progress import cli
from otel_progress import semconv as s
from otel_progress.cli import mcp as command
from otel_progress.cli.query.client import Client as Monitor

READING = ["list_operations", "list_stuck", "read_feed", "show_operation"]


def asked(url: str, *calls: tuple[str, dict[str, Any]], allow_cancel: bool = False) -> tuple[list[str], list[Any]]:
    """The tools of a server, and the answers to these calls."""

    async def work() -> tuple[list[str], list[Any]]:
        server = command.serve(Monitor(url), allow_cancel=allow_cancel)
        async with Client(server) as client:
            tools = sorted(tool.name for tool in (await client.list_tools()).tools)
            return tools, [await client.call_tool(name, given) for name, given in calls]

    return asyncio.run(work())


def data(result: Any) -> Any:
    """What a tool returned."""
    assert not result.is_error, result
    return json.loads(result.content[0].text)


def fill(served: Served) -> str:
    """One that runs, and one that is stuck; returns the address."""
    served.send(
        event("fine"), event("hung", HEALTH="silent", STUCK_AT="crawl.py:17 in fetch", IDLE=90.0, STALL_AFTER=60.0)
    )
    served.send(
        event("hung", kind=s.NOTE, sequence=2, NOTE_TEXT="page 7", HEALTH="silent", STUCK_AT="crawl.py:17 in fetch")
    )
    return f"http://{served.host}"


def test_agent_asks_what_is_stuck_and_where(tmp_path: Path) -> None:
    """It reads, and cannot cancel."""
    with serving(tmp_path) as served:
        url = fill(served)
        tools, found = asked(
            url,
            ("list_operations", {}),
            ("list_stuck", {}),
            ("show_operation", {"id": "hung"}),
            ("read_feed", {"id": "hung"}),
            ("show_operation", {"id": "nowhere"}),
        )
    assert tools == READING
    listed, stuck, one, feed = map(data, found[:4])
    assert {row["id"] for row in listed["operations"]} == {"fine", "hung"}
    assert [(row["id"], row["stuck_at"]) for row in stuck["operations"]] == [("hung", "crawl.py:17 in fetch")]
    assert one["id"] == "hung"
    assert "page 7" in str(feed)
    assert found[4].is_error
    assert "nowhere" in found[4].content[0].text


def test_cancel_is_there_only_if_it_is_allowed(tmp_path: Path) -> None:
    """The answer says what became of it."""
    with serving(tmp_path) as served:
        url = fill(served)
        tools, (found,) = asked(url, ("cancel_operation", {"id": "fine", "reason": "wrong input"}), allow_cancel=True)
    assert tools == ["cancel_operation", *READING]
    assert found.is_error
    assert "control channel" in found.content[0].text  # a sender without one


def test_monitor_that_is_away_is_said() -> None:
    """With what to do."""
    _, (found,) = asked("http://127.0.0.1:9", ("list_stuck", {}))
    assert found.is_error
    assert "otel-progress monitor" in found.content[0].text


def test_real_process_on_stdio(tmp_path: Path) -> None:
    """As an agent starts it: stdout holds nothing but the protocol."""

    async def work(url: str) -> Any:
        started = StdioServerParameters(command=sys.executable, args=["-m", "otel_progress", "mcp", "--url", url])
        async with Client(started) as client:
            return await client.call_tool("list_stuck", {})

    with serving(tmp_path) as served:
        found = data(asyncio.run(work(fill(served))))
    assert [row["id"] for row in found["operations"]] == ["hung"]


def test_missing_sdk_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    assert cli.main(["mcp"]) == command.FAILED
    assert 'pip install "otel-progress[mcp]"' in capsys.readouterr().err


def test_settings_for_claude_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON to paste: a token is named where one is needed, and never written."""
    monkeypatch.delenv("OTEL_PROGRESS_TOKEN", raising=False)
    monkeypatch.delenv("OTEL_PROGRESS_MONITOR", raising=False)
    assert cli.main(["hooks", "claude-code"]) == 0
    hooks = json.loads(capsys.readouterr().out)["hooks"]
    (group,) = hooks["PreToolUse"]
    assert group["hooks"] == [{"type": "http", "url": "http://127.0.0.1:4318/hooks/claude-code", "timeout": 5}]
    assert {"PostToolUse", "PostToolUseFailure", "SubagentStart", "SubagentStop", "Stop", "SessionEnd"} <= set(hooks)
    assert "PermissionRequest" not in hooks  # it denies the tool where the monitor is away
    monkeypatch.setenv("OTEL_PROGRESS_TOKEN", "s3cret-s3cret-s3cret")
    assert cli.main(["hooks", "claude-code", "--url", "https://monitor.example.com/"]) == 0
    said = capsys.readouterr().out
    assert "s3cret" not in said
    (hook,) = json.loads(said)["hooks"]["Stop"][0]["hooks"]
    assert hook["url"] == "https://monitor.example.com/hooks/claude-code"
    assert hook["headers"] == {"Authorization": "Bearer $OTEL_PROGRESS_TOKEN"}
    assert hook["allowedEnvVars"] == ["OTEL_PROGRESS_TOKEN"]


@pytest.mark.parametrize(
    "url", ["monitor:4318", "ftp://monitor", "http://monitor/path", "http://a:b@monitor", "http://[x"]
)
def test_settings_for_an_invalid_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error that names an example."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["hooks", "claude-code", "--url", url])
    assert "http://127.0.0.1:4318" in capsys.readouterr().err
