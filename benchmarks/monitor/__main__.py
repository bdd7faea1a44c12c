"""Measure the monitor, print the results, and save them in docs/performance.md.

python -m benchmarks.monitor                 all of it, less than ten minutes on two idle cores; saved
python -m benchmarks.monitor intake readers  only these; saves nothing
python -m benchmarks.monitor scale --operations 50000   on a machine with cores to spare
python -m benchmarks.monitor --short         every row in seconds; the figures mean little, nothing is saved
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.__main__ import PAGE, processor
from benchmarks.harness import SHORT, Row

NAMES = ("intake", "latency", "readers", "restart", "flood", "page", "scale")
BEGIN, END = "<!-- monitor: begin -->", "<!-- monitor: end -->"
MET = {True: "yes", False: "**no**", None: ""}
PACKAGES = ("protobuf", "starlette", "uvicorn", "uvloop", "httptools")


def machine() -> str:
    """Describe the machine and the versions that were measured."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    python = ".".join(map(str, sys.version_info[:3]))
    load = f"Load average at the end {os.getloadavg()[0]:.1f}." if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} x {processor()}, Python {python}; {', '.join(versions)}. {load}"


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | ours | bar | peers | met |", "|---|---|---|---|---|"]
    lines += [f"| {row.what} | {row.ours} | {row.bar} | {row.peers} | {MET[row.met]} |" for row in rows]
    return "\n".join(lines)


def keep(text: str) -> None:
    """Replace the text between the marks of the page, if it has them."""
    page = PAGE.read_text()
    if BEGIN in page:
        head, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.monitor",
        description="Measure the monitor, print a table, and keep it in docs/performance.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these; saves nothing: {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, help="how long each of them loads, about")
    parser.add_argument("--operations", type=int, help="the live operations of scale")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="profile the monitor; then no figure counts")
    parser.add_argument("--short", action="store_true", help="every row in seconds; keeps nothing")
    parser.add_argument("--no-peer", action="store_true", help="without Jaeger")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    rows: list[Row] = []
    names = given.names or NAMES
    began = time.monotonic()
    for number, name in enumerate(names):
        bar = "#" * (20 * number // len(names))
        took = f"{time.monotonic() - began:.0f} s so far"
        print(f"[{bar:20}] {number + 1} of {len(names)}: {name}; {took}", file=sys.stderr, flush=True)
        options = (
            {"profile": given.profile} if given.profile is not None and name in ("intake", "readers", "scale") else {}
        )
        if given.seconds is not None:
            options["seconds"] = given.seconds
        if name == "scale" and given.operations is not None:
            options["operations"] = given.operations
        if name == "intake":
            options["peer"] = not (given.no_peer or SHORT)
        module = importlib.import_module(f"benchmarks.monitor.{name}")
        found = module.measure(**options)
        print(json.dumps({name: found}), flush=True)
        mine = module.rows(found)
        for row in mine:
            print("ROW " + json.dumps(asdict(row)), flush=True)
        rows += mine
    text = f"{table(rows)}\n\n{machine()}"
    print(f"\n{text}")
    if not SHORT and not given.names and given.profile is None:
        keep(text)


if __name__ == "__main__":
    main()
