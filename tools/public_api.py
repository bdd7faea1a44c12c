"""Writes docs/public-api.txt: every public name with its signature. `make api` runs it; a test compares.

A change of that file is a change of the public API, which docs/stability.md promises to announce.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).parents[1] / "src" / "otel_progress"
FILE: Final = Path(__file__).parents[1] / "docs" / "public-api.txt"
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "otel_progress": (),
    "otel_progress.workflow": (),
    "otel_progress.web": (),
    "otel_progress.testing": ("Capture", "FakeClock", "capture"),
    "otel_progress.handlers.apprise": ("AppriseHandler",),
    "otel_progress.handlers.archive": ("archive",),
    "otel_progress.handlers.console": ("Console",),
    "otel_progress.handlers.gradio": ("GradioHandler",),
    "otel_progress.handlers.handler": ("CallableHandler", "Handler"),
    "otel_progress.handlers.jsonlines": ("JsonLines",),
    "otel_progress.handlers.log_records": ("LoggingHandler",),
    "otel_progress.handlers.notebook": ("NotebookHandler",),
    "otel_progress.handlers.redis": ("RedisHandler",),
    "otel_progress.handlers.streamlit": ("StreamlitHandler", "show"),
    "otel_progress.handlers.webhook": ("WebhookHandler",),
    "otel_progress.integrations.live_spans": (),
    "otel_progress.integrations.switch": ("Switch",),
    "otel_progress.outbound.signatures": ("key_of",),
    "otel_progress.outbound.webhook": ("headers", "sign", "verify"),
}
"""The public modules, and their public names: those of `__all__` if none are given."""


OPTIONS: Final = {
    "operation": ("live/handles.py", "OperationGiven"),
    "stage": ("live/stage.py", "StageGiven"),
}
"""Where the options of `operation` and `stage` are declared, for type checkers alone."""


def listing() -> str:
    """The public names of all public modules, one line each, with their members below them."""
    lines = ["# Written by `make api`; docs/stability.md says what it promises.", ""]
    for of, (file, kind) in OPTIONS.items():
        lines.append(f"options of {of}: {', '.join(_fields(SOURCE / file, kind))}")
    for path, names in MODULES.items():
        module = importlib.import_module(path)
        lines += ["", path]
        for name in sorted(names or module.__all__):
            lines += [f"  {line}" for line in _lines(name, getattr(module, name))]
    return "\n".join(lines) + "\n"


def _fields(file: Path, kind: str) -> list[str]:
    """The fields of a class, read from its source."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = next(one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.name == kind)
    return sorted(
        one.target.id for one in found.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    )


def _lines(name: str, value: Any) -> list[str]:
    if name == "__version__":
        return [name]
    if not inspect.isclass(value):
        return [f"{name}{_signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"]
    bases = [base.__name__ for base in value.__bases__ if base is not object and not base.__name__.startswith("_")]
    head = f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    if issubclass(value, enum.Enum):
        return [head, *(f"  {one.name} = {one.value!r}" for one in value)]
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return [f"{head}{_signature(value)}", *_members(value)]
    return [head, *_members(value)]


def _members(kind: type) -> list[str]:
    found: dict[str, str] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith("otel_progress"):
            continue
        for name, member in vars(base).items():
            if (name.startswith("_") and name != "__init__") or name in found:
                continue
            if getattr(member, "__module__", base.__module__) != base.__module__:
                continue  # made by typing
            if name == "__init__" and (base is not kind or dataclasses.is_dataclass(kind)):
                continue
            if isinstance(member, property):
                found[name] = f"  {name}: property"
            elif isinstance(member, (classmethod, staticmethod)):
                found[name] = f"  {name}{_signature(member.__func__)}"
            elif inspect.isfunction(member):
                found[name] = f"  {name}{_signature(member)}"
    return [found[name] for name in sorted(found)]


def _signature(value: Any) -> str:
    """Names, kinds and defaults of the parameters; annotations are left out, as Python versions print them apart."""
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    bare = [one.replace(annotation=one.empty) for one in given.parameters.values() if one.name != "self"]
    text = str(given.replace(parameters=bare, return_annotation=given.empty))
    return re.sub(r"<([\w.]+) object at 0x\w+>|<(?:function|class) '?([\w.]+)[^>]*>", r"<\1\2>", text)


if __name__ == "__main__":
    FILE.write_text(listing(), encoding="utf-8")
