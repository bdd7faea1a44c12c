"""Rules of the whole package that no linter of ours can state; pyproject.toml has the others.

There ruff's TID251 keeps the clock to clock.py and the environment to settings.py, and
import-linter keeps the layers; test_semconv.py keeps names to semconv.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_progress

SOURCE = Path(otel_progress.__file__).parent
FILES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))

OPENTELEMETRY = {
    "telemetry/": "opentelemetry",
    "integrations/live_spans/": "opentelemetry",
    "monitor/": "opentelemetry.proto",
}
"""Who may import what of OpenTelemetry at run time: telemetry and the integration that watches its
spans all of it, the monitor the messages that it receives."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """What a module imports at run time, with the lines; imports inside functions count, those for types do not."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
        waiting += ast.iter_child_nodes(node)


def is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("file", FILES)
def test_opentelemetry_is_imported_in_telemetry_alone(file: str) -> None:
    """All other modules work without it; the monitor reads OTLP by the generated messages."""
    allowed = next((package for folder, package in OPENTELEMETRY.items() if file.startswith(folder)), None)
    found = [(line, module) for line, module in imports(SOURCE / file) if is_in(module, "opentelemetry")]
    assert [one for one in found if allowed is None or not is_in(one[1], allowed)] == []


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """The search finds imports in functions and behind conditions, and leaves out those for types."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import opentelemetry.trace\n"
        "if TYPE_CHECKING:\n    from opentelemetry import a\n"
        "else:\n    from opentelemetry.sdk import b\n"
        "def f():\n    from opentelemetry import c\n"
    )
    assert sorted(imports(probe)) == [(1, "opentelemetry.trace"), (5, "opentelemetry.sdk"), (7, "opentelemetry")]
