"""The reference of the Python API, from signatures and docstrings."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from tools.docs.docstrings import markdown

import otel_progress

TOP: Final = otel_progress.__name__
HANDLERS: Final = (
    "console",
    "jsonlines",
    "log_records",
    "webhook",
    "apprise",
    "redis",
    "archive",
    "notebook",
    "streamlit",
    "gradio",
    "handler",
)
MODULES: Final = (
    *(f"{TOP}.handlers.{name}" for name in HANDLERS),
    f"{TOP}.workflow",
    f"{TOP}.web",
    f"{TOP}.testing",
    f"{TOP}.outbound.webhook",
    f"{TOP}.integrations.switch",
)
"""The public modules beside the package itself."""
FIRST: Final = (
    *("configure", "operation", "stage", "track", "advance", "update", "waiting", "note", "record", "usage", "result"),
    *("Operation", "Stage", "Snapshot", "StageSnapshot", "Progress", "Status", "Health", "Event", "ProgressError"),
)
"""What readers look for; the others follow by name."""
WIDTH: Final = 100


def modules() -> dict[str, ModuleType]:
    """Return the public modules by name."""
    return {name: importlib.import_module(name) for name in MODULES}


def names(module: ModuleType) -> list[str]:
    """Return the public names of a module: those of `__all__`, or else what it defines without an underscore."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if not name.startswith("_")]
    own = (key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return [key for key in own if not key.startswith("_") and callable(getattr(module, key))]


def pages() -> dict[str, str]:
    """Return the pages of the reference: the name of each without `.md`, and its text."""
    top: dict[str, list[str]] = {"functions": [], "operations": [], "values": [], "errors": []}
    for name in names(otel_progress):
        top[_kind(getattr(otel_progress, name))].append(name)
    for listed in top.values():
        listed.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return {
        "functions": _page(
            "Functions",
            "`import otel_progress as progress`: what programs call. Most act on the innermost stage or operation that "
            "runs here; outside of one they do nothing.",
            top["functions"],
        ),
        "operations": _page(
            "Operations, stages, workflows", "The handles, and what they are made from.", top["operations"]
        ),
        "values": _page(
            "Snapshots and statistics", "What listeners, reports and tests get: immutable values.", top["values"]
        ),
        "errors": _page("Errors", "All errors derive from `ProgressError`.", top["errors"]),
        "modules": "# Handlers and other modules\n\nImport these by their module.\n\n"
        + "\n".join(map(_module, modules().values())),
    }


def _kind(value: Any) -> str:
    if not inspect.isclass(value):
        return "functions"
    if issubclass(value, BaseException):
        return "errors"
    return "values" if dataclasses.is_dataclass(value) or issubclass(value, (enum.Enum, tuple)) else "operations"


def _page(title: str, about: str, listed: list[str]) -> str:
    return f"# {title}\n\n{about}\n\n" + "\n".join(entry(name, getattr(otel_progress, name), 2) for name in listed)


def _module(module: ModuleType) -> str:
    head = f"## {module.__name__}\n\n{markdown(inspect.getdoc(module) or '')}\n"
    return "\n".join((head, *(entry(name, getattr(module, name), 3) for name in names(module))))


def entry(name: str, value: Any, level: int) -> str:
    """Return the section of a public name: its signature, what its docstring says, and the members of a class."""
    parts = [f"{'#' * level} {name}"]
    given = signature(name.rpartition(".")[2], value)
    if given:
        parts.append(f"```python\n{given}\n```")
    parts.append(markdown(_doc(value)))
    if inspect.isclass(value):
        if "Attributes:\n" not in _doc(value):
            parts.append(_fields(value))
        parts += [entry(f"{name}.{member}", it, level + 1) for member, it in _methods(value)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _doc(value: Any) -> str:
    text = inspect.getdoc(value) or ""
    return "" if dataclasses.is_dataclass(value) and text.startswith(f"{getattr(value, '__name__', '')}(") else text


def signature(name: str, value: Any) -> str:
    """Return how a function or class is called, one argument a line if it is long; empty for what is not called."""
    if isinstance(value, property):
        returned = inspect.signature(value.fget).return_annotation if value.fget else inspect.Signature.empty
        return "" if returned is inspect.Signature.empty else f"{name}: {_type(returned)}"
    if inspect.isclass(value) and issubclass(value, (enum.Enum, BaseException)):
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    given = [it for it in found.parameters.values() if it.name not in ("self", "cls")]
    shown, starred = [], False
    for parameter in given:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        shown.append(_parameter(parameter))
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter is _last_positional(given):
            shown.append("/")
    returned = found.return_annotation
    end = ")" if returned is found.empty or inspect.isclass(value) else f") -> {_type(returned)}"
    prefix = "async " if inspect.iscoroutinefunction(value) else ""
    line = f"{prefix}{name}({', '.join(shown)}{end}"
    return line if len(line) <= WIDTH else f"{prefix}{name}(\n" + "".join(f"    {it},\n" for it in shown) + end


def _last_positional(given: list[inspect.Parameter]) -> inspect.Parameter:
    return [it for it in given if it.kind is it.POSITIONAL_ONLY][-1]


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", None)
    text = text or inspect.formatannotation(annotation)
    return re.sub(r"\b(?:typing|collections\.abc|otel_progress(?:\.\w+)+)\.", "", text.strip("'"))


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if inspect.isclass(value) or inspect.isroutine(value):
        return str(value.__name__)
    text = repr(value)
    return "..." if text.startswith("<") else text


def _fields(owner: type) -> str:
    """Return the members of an enumeration, or the fields of a value, with their docstrings."""
    said = _said(owner)
    if issubclass(owner, enum.Enum):
        listed = [(it.name, f"`{it.value!r}`", said.get(it.name, "")) for it in owner]
    elif dataclasses.is_dataclass(owner) or hasattr(owner, "_fields"):
        kinds = inspect.get_annotations(owner)
        listed = [
            (key, f"`{_type(kind)}`", said.get(key, "")) for key, kind in kinds.items() if not key.startswith("_")
        ]
    else:
        return ""
    return "\n".join(f"- `{key}`, {kind}{': ' + ' '.join(text.split()) if text else ''}" for key, kind, text in listed)


def _said(owner: type) -> dict[str, str]:
    """Return the docstrings that stand below fields."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            target = field.target if isinstance(field, ast.AnnAssign) else getattr(field, "targets", [None])[0]
            if isinstance(target, ast.Name):
                found[target.id] = text.value.value
    return found


def _methods(owner: type) -> Iterator[tuple[str, Callable[..., Any] | property]]:
    """Return the public methods and properties of a class, with those that it inherits inside this package."""
    seen: set[str] = set()
    for base in owner.__mro__:
        if not base.__module__.startswith(TOP):
            continue
        for name, value in vars(base).items():
            plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            is_method = inspect.isfunction(plain) or isinstance(plain, property)
            if is_method and not name.startswith("_") and name not in seen and inspect.getdoc(plain):
                seen.add(name)
                yield name, plain
