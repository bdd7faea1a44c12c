"""The example with Celery on a real Redis: workers hang below the caller's operation, also after one was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .served import serving, wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "celery_agents.py"


def test_agents_in_celery_workers(tmp_path: Path) -> None:
    """Each worker's operation is a child of the caller's; the task of a killed worker goes on elsewhere as attempt 2."""
    with serving(tmp_path) as served:
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), "--kill"],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{served.host}", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "60 pages about tea, 60 pages about coffee" in done.stdout

        def all_over() -> list[dict[str, object]]:
            rows = served.ask("GET", "/operations").json["operations"]
            over = {"completed"} == {row["status"] for row in rows}
            return rows if over and len(rows) == 3 else []

        rows = wait_until(all_over)
        resumed = next(row for row in rows if row["attempt"] == 2)
        found = served.ask("GET", f"/operations/{resumed['operation_id']}").json
    assert 0 < found["result"]["first_page"] < 60
    caller = next(row for row in rows if row["name"] == "research")
    agents = [row for row in rows if row["name"] == "agent"]
    assert [row["parent_id"] for row in agents] == [caller["operation_id"]] * 2
    assert sorted(row["attempt"] for row in agents) == [1, 2]
