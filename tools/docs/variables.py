"""The reference of environment variables: which the package reads, from its source, and what each means."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Final

from tools.docs.docstrings import markdown
from tools.docs.pages import ROOT

import otel_progress
from otel_progress.settings import Settings

SOURCE: Final = Path(otel_progress.__file__).parent
FAMILY: Final = "OTEL_EXPORTER_OTLP"
SIGNALS: Final = frozenset(f"{FAMILY}_{signal}" for signal in ("TRACES", "METRICS", "LOGS"))
INSIDE: Final = frozenset({"OTEL_BSP_SCHEDULE_DELAY", "OTEL_PYTHON_TRACER_PROVIDER", f"{FAMILY}_LOGS_HEADERS", FAMILY})
"""Names in the code that are no settings of it: parts of names, and what it sets for child processes or looks for."""
_NAME: Final = re.compile(r"OTEL_[A-Z_]*[A-Z]")
_ROW: Final = re.compile(r"^\|(.*`OTEL_.*) \| (.*?) \|$", re.MULTILINE)
_OF_A_PAGE: Final = re.compile(r"\]\(([\w-]+\.md)")
_ABOUT: Final = f"""\
# Environment variables

All variables that the package reads. Arguments of `configure()` take precedence. An invalid value is logged, and the
default is used. A variable `{FAMILY}_X` applies to all signals; `{FAMILY}_LOGS_X`, `…_METRICS_X` and `…_TRACES_X` apply
to one.

| variable | meaning |
|---|---|
"""


def read() -> set[str]:
    """Return the variables that the package names in its code."""
    found: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
                found.add(node.value)
    return found - INSIDE


def meanings() -> dict[str, str]:
    """Return what tables of the documentation say of each variable, the guide first; links as from a folder below."""
    found: dict[str, str] = {}
    for file in sorted((ROOT / "docs").glob("*.md"), key=lambda it: (it.name != "guide.md", it.name)):
        for names, text in _ROW.findall(file.read_text(encoding="utf-8")):
            here = text.replace("](#", f"]({file.name}#")
            here = _OF_A_PAGE.sub(r"](../\g<1>", here)
            for name in re.findall(r"`((?:OTEL_|…_)[A-Z_]*[A-Z])", names):
                found.setdefault(name.replace("…_", f"{FAMILY}_"), here)
    return {name: text for name, text in found.items() if name not in SIGNALS}


def page() -> str:
    """Return the page.

    Raises:
        LookupError: if a variable is in no table of the documentation.
    """
    said = meanings()
    if missing := read() - set(said):
        raise LookupError(f"no table in docs/ says what these variables mean: {', '.join(sorted(missing))}")
    rows = (f"| `{name}` | {said[name]} |\n" for name in sorted(said, key=lambda it: ("PROGRESS" not in it, it)))
    settings = f"## Settings\n\nWhat `configure()` makes of its arguments and the environment:\n\n{_settings()}\n"
    return f"{_ABOUT}{''.join(rows)}\n{settings}"


def _settings() -> str:
    """Return the fields of `Settings` with their defaults."""
    text = markdown(Settings.__doc__ or "").partition("**Attributes**")[2].strip()
    for field in dataclasses.fields(Settings):
        if isinstance(field.default, (int, float, str)):
            text = text.replace(f"- `{field.name}`:", f"- `{field.name}` (default `{field.default}`):")
    return text
