"""Measure everything, print one table, and save it in docs/performance.md.

python -m benchmarks           all of it, some minutes
python -m benchmarks --short   every row in seconds; the figures mean little, and nothing is saved
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

from benchmarks.harness import ROOT, SHORT, Row, ask

MODULES = ("loops", "bars", "stages", "decorator", "ticking", "memory", "imports", "tail", "outlets", "live_spans")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PACKAGES = ("opentelemetry-sdk", "tqdm", "rich", "progressbar2", "logfire", "wrapt")
MET = {True: "yes", False: "**no**", None: "not measured"}


def processor() -> str:
    """Return the model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def machine() -> str:
    """Describe the machine and the versions that were measured."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} x {processor()}, "
        f"{platform.python_implementation()} {platform.python_version()}; {versions}."
    )


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | ours | bar: at most | peers | met |", "|---|---|---|---|---|"]
    lines += [f"| {row.what} | {row.ours} | {row.bar} | {row.peers} | {MET[row.met]} |" for row in rows]
    return "\n".join(lines)


def keep(text: str) -> None:
    """Replace the text between the marks of the page."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure against peers, print one table, save it in docs/performance.md.",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these, saving nothing: {', '.join(MODULES)}")
    parser.add_argument(
        "--short", action="store_true", help="every row in seconds; the figures mean little, and are not saved"
    )
    given = parser.parse_args()
    unknown = set(given.rows) - set(MODULES)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    rows: list[Row] = []
    for module in given.rows or MODULES:
        rows += ask(module)
        print(f"{module}: done", flush=True)
    text = f"{table(rows)}\n\n{machine()}"
    print(f"\n{text}")
    if not SHORT and not given.rows:
        keep(text)


if __name__ == "__main__":
    main()
