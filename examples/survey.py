"""Survey the source code of Python's standard library, and report progress meanwhile.

python examples/survey.py                 about 15 seconds, shown live in the terminal
python examples/survey.py --limit 50      the first 50 files
python examples/survey.py --forever       one survey after the other, until Ctrl-C
python examples/survey.py --otlp          also send it to an OpenTelemetry Collector on this machine
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import subprocess
import sys
import sysconfig
import tempfile
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import otel_progress as progress
from otel_progress.handlers.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.BoolOp, ast.IfExp, ast.comprehension, ast.Assert)
PLAN = (
    progress.StagePlan("discover", weight=3, unit="file", description="find the files"),
    progress.StagePlan("parse", weight=60, unit="file", description="read and parse them", depends_on=("discover",)),
    progress.StagePlan("tokenize", weight=34, unit="line", description="count comments", depends_on=("parse",)),
    progress.StagePlan("relate", weight=1, unit="module", description="find import cycles", depends_on=("parse",)),
    progress.StagePlan("report", weight=2, description="write and check the report", critical=False),
)
RECOUNT = """
import sys
total = 0
for path in sys.stdin.read().split("\\n"):
    with open(path, "rb") as file:
        total += sum(1 for line in file if line.endswith(b"\\n"))
print(total)
"""


@dataclass
class Module:
    """The figures of one file."""

    path: Path
    name: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    comments: int = 0
    tokens: int = 0
    imports: set[str] = field(default_factory=set)


def survey(root: Path, limit: int | None, report: Path) -> None:
    """Run one survey, from the first file to the report."""
    with progress.operation(
        "survey", plan=PLAN, agent="surveyor", stall_after=10, slow_after=300, attributes={"root": str(root)}
    ):
        paths = discover(root, limit)
        modules = parse(root, paths)
        count_comments(modules)
        cycles = relate(modules)
        write(report, modules, cycles)


@progress.stage("discover", unit="file")
def discover(root: Path, limit: int | None) -> list[Path]:
    """Return all source files except those of installed packages."""
    found = (path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts)
    paths = list(progress.track(itertools.islice(found, limit)))
    progress.note(f"found {len(paths)} files under {root}")
    return paths


def parse(root: Path, paths: list[Path]) -> list[Module]:
    """Return a module for each file that parses, first of the library, then of its tests."""
    parts: dict[str, list[Path]] = {"library": [], "tests": []}
    for path in paths:
        parts["tests" if {"test", "tests"} & set(path.relative_to(root).parts) else "library"].append(path)
    modules: list[Module] = []
    with progress.stage("parse", total=len(paths), unit="file") as whole:
        for part, chosen in parts.items():
            with progress.stage(part, unit="file"):
                for path in progress.track(chosen):
                    modules.extend(read(root, path))
                    whole.advance()
    return modules


def read(root: Path, path: Path) -> Iterator[Module]:
    """Yield the module of a file if it parses. Some test files are invalid on purpose."""
    name = str(path.relative_to(root))
    progress.update(message=name)
    progress.raise_if_cancelled()
    try:
        with tokenize.open(path) as file:
            source = file.read()
        tree = ast.parse(source, name)
    except (SyntaxError, UnicodeError, ValueError) as error:
        progress.record("failed", item=name, component=type(error).__name__)
        return
    progress.record("ok")
    module = inspect(tree, path, name)
    module.lines = source.count("\n")
    yield module


def inspect(tree: ast.Module, path: Path, name: str) -> Module:
    """Count functions, classes, branches and imports of one file."""
    module = Module(path, name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            module.functions += 1
        elif isinstance(node, ast.ClassDef):
            module.classes += 1
        elif isinstance(node, BRANCHES):
            module.branches += 1
        elif isinstance(node, ast.Import):
            module.imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            module.imports.add(node.module)
    return module


def count_comments(modules: list[Module]) -> None:
    """Count tokens and comments of the largest tenth of the files."""
    largest = sorted(modules, key=lambda module: module.lines, reverse=True)[: len(modules) // 10 + 1]
    with progress.stage("tokenize", unit="line", total=sum(module.lines for module in largest)) as step:
        for module in largest:
            step.update(message=module.name)
            for kind in tokens(module.path):
                module.tokens += 1
                module.comments += kind == tokenize.COMMENT
            step.advance(module.lines)


def tokens(path: Path) -> Iterator[int]:
    """Yield the kinds of tokens in a file, up to the first error."""
    with path.open("rb") as file:
        try:
            for token in tokenize.tokenize(file.readline):
                yield token.type
        except (tokenize.TokenError, SyntaxError):
            progress.record("skipped")


@progress.stage("relate", unit="module")
def relate(modules: list[Module]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle."""
    known = {module.name for module in modules}
    graph = {module.name: module.imports & known for module in modules}
    reach: dict[str, set[str]] = {}
    for name in progress.track(graph):
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            for target in graph[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        reach[name] = seen
    groups = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]
    }
    return sorted((sorted(group) for group in groups), key=len, reverse=True)


@progress.stage("report")
def write(report: Path, modules: list[Module], cycles: list[list[str]]) -> None:
    """Write the report, and compare the number of lines with the count of a second process."""
    imported = Counter(name for module in modules for name in module.imports)
    totals = {
        key: sum(getattr(module, key) for module in modules) for key in ("lines", "functions", "classes", "branches")
    }
    facts = {
        "files": len(modules),
        **totals,
        "most_imported": dict(imported.most_common(10)),
        "largest": {module.name: module.lines for module in sorted(modules, key=lambda one: -one.lines)[:10]},
        "import_cycles": cycles[:10],
    }
    data = report.with_suffix(".json")
    data.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    with progress.waiting("a second process counts the lines again", overdue_after=60):
        paths = "\n".join(str(module.path) for module in modules)
        counted = subprocess.run(
            [sys.executable, "-c", RECOUNT], input=paths, capture_output=True, text=True, check=True
        )
    if int(counted.stdout) != totals["lines"]:
        progress.note(f"the second count says {counted.stdout.strip()} lines", "warning")
    lines = ["# The standard library", "", *(f"- {key}: {value:,}" for key, value in totals.items()), ""]
    lines += ["## Imported most", "", *(f"- `{name}`: {count}" for name, count in imported.most_common(10)), ""]
    report.write_text("\n".join(lines), encoding="utf-8")
    progress.result(report=str(report), files=len(modules), cycles=len(cycles), **totals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="the maximum number of files")
    parser.add_argument("--once", action="store_true", default=True, help="run one survey (default)")
    parser.add_argument("--forever", dest="once", action="store_false", help="repeat the survey until Ctrl-C")
    parser.add_argument("--report", type=Path, default=Path(tempfile.gettempdir()) / "survey.md", metavar="PATH")
    parser.add_argument("--verbosity", choices=("quiet", "normal", "verbose"), default="normal")
    parser.add_argument("--otlp", action="store_true", help="also send to the Collector at OTEL_EXPORTER_OTLP_ENDPOINT")
    given = parser.parse_args()
    if given.otlp:
        progress.configure(service_name="survey")
    root = Path(sysconfig.get_paths()["stdlib"])
    with Console(given.verbosity):
        try:
            survey(root, given.limit, given.report)
            while not given.once:
                survey(root, given.limit, given.report)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
