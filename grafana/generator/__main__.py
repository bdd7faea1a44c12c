"""Write the dashboards or, with `--check`, report those that are out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana.generator import DASHBOARDS
from grafana.generator.parts import build

FOLDER = Path(__file__).parents[1] / "dashboards"


def main() -> int:
    """Write or check all dashboards."""
    wrong = 0
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.uid.removeprefix('otel-progress-')}.json"
        text = json.dumps(build(dashboard), indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path} is out of date: run `python -m grafana.generator`\n")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
