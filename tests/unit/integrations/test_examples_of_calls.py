"""The examples of MCP and Celery know nothing of otel-progress, and are seen below `otel-progress run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.stress.served import serving

EXAMPLES = Path(__file__).parents[3] / "examples" / "integrations"


def seen(example: str, folder: Path) -> list[dict[str, Any]]:
    """Run an example toward a monitor; returns the operations that the monitor knows of then."""
    assert "import otel_progress" not in (EXAMPLES / example).read_text(encoding="utf-8")
    command = [sys.executable, "-m", "otel_progress", "run", "--", sys.executable, str(EXAMPLES / example)]
    with serving(folder) as served:
        address = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{served.host}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        environ = {**os.environ, **address, "XDG_DATA_HOME": str(folder), "XDG_STATE_HOME": str(folder)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(served.ask("GET", "/operations?limit=100").body)["operations"]
        return rows


def test_calls_of_tools(tmp_path: Path) -> None:
    """In the server below those in the client, with count and failure."""
    rows = seen("mcp_tools.py", tmp_path)
    below = {row["name"]: row for row in rows if row.get("parent_id")}
    above = {row["name"]: row for row in rows if not row.get("parent_id")}
    assert set(below) == set(above) == {"index", "scan", "borrow"}
    assert {name: row["status"] for name, row in below.items()} == {
        "index": "completed",
        "scan": "completed",
        "borrow": "failed",
    }
    assert below["index"]["progress"]["completed"] == above["index"]["progress"]["completed"] == 10


def test_tasks_of_a_worker(tmp_path: Path) -> None:
    """Each in the process that runs it; the retried one has two attempts."""
    rows = seen("celery_tasks.py", tmp_path)
    names = sorted(row["name"] for row in rows)
    assert names == ["celery_tasks.double", *["celery_tasks.fetch"] * 3, "celery_tasks.unsure"]
    assert {row["status"] for row in rows} == {"completed"}
    assert {row["attempt"] for row in rows if row["name"] == "celery_tasks.unsure"} == {2}
