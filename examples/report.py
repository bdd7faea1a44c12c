"""A job that writes its report: while it runs, and at its end; then its last five runs compared.

python examples/report.py [FOLDER]      needs: pip install "otel-progress[report]"; takes about 4 seconds
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import otel_progress as progress
from otel_progress import cli
from otel_progress.handlers.jsonlines import JsonLines


def import_orders(night: int, folder: Path) -> None:
    """One night: three stages, a wait, a few bad records, and a cost."""
    with progress.operation("import orders", id=f"orders-{night}", description="Orders of all shops") as op:
        with progress.stage("fetch", total=4, unit="page") as fetch:
            for _ in range(4):
                time.sleep(0.02 * night)
                fetch.advance()
        with progress.stage("check"):
            for number in range(60):
                if number % 20 == night:
                    progress.record("failed", component="dates", error=f"record {number}: 'n/a' is not a date")
                else:
                    progress.record("ok", component="dates")
                time.sleep(0.005)
        with progress.stage("load"), progress.waiting("the nightly backup"):
            time.sleep(0.2)
        op.usage(cost=0.02 * night, currency="EUR")
        op.report(folder / "now.html")  # it says that the job still runs
        op.result(orders=57)
    op.report(folder / "orders.html")


def main() -> int:
    """Run five nights, and compare them."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    lines = folder / "orders.jsonl"
    with JsonLines(lines):
        for night in range(1, 6):
            import_orders(night, folder)
    command = ["report", "--name", "import orders", "--file", str(lines)]
    cli.main(command)
    return cli.main([*command, "-o", str(folder / "compared.html")])


if __name__ == "__main__":
    raise SystemExit(main())
