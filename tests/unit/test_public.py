"""What is public: listed, documented, and without effect when it is imported."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import types
from enum import Enum
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import errors

PROBE = """
import sys, json, threading
opened, audit = [], {"on": True}
def hook(event, args):
    if not audit["on"]:
        return
    if event.startswith("socket.") or event == "subprocess.Popen":
        opened.append(event)
    elif event == "open" and isinstance(args[0], str) and not args[0].endswith((".py", ".pyc")):
        if args[1] is None or set("wax+") & set(args[1]):
            opened.append(f"open {args[0]}")
before = set(sys.modules)
sys.addaudithook(hook)
import otel_progress
audit["on"] = False
print(json.dumps({
    "threads": threading.active_count(),
    "opened": opened,
    "modules": sorted(set(sys.modules) - before),
}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """Return what `import otel_progress` did in a fresh process."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_importing_does_nothing(imported: dict[str, Any]) -> None:
    """Importing starts no thread, opens no socket, and writes no file."""
    assert imported["threads"] == 1
    assert imported["opened"] == []


@pytest.mark.parametrize(
    "module",
    [
        "asyncio",
        "requests",
        "grpc",
        "opentelemetry.sdk",
        "opentelemetry.proto",
        "rich",
        "wrapt",
        "concurrent.futures",
        "pytest",
    ],
)
def test_importing_stays_light(module: str, imported: dict[str, Any]) -> None:
    """Importing loads nothing that only some programs need."""
    found = [name for name in imported["modules"] if name == module or name.startswith(module + ".")]
    allowed = {"asyncio", "concurrent.futures"}
    assert found == [] or module in allowed & set(_needed_by_the_api())


def test_importing_is_small(imported: dict[str, Any]) -> None:
    """Importing loads these packages alone, and few modules of ours: what most programs need."""
    packages = {name.partition(".")[0] for name in imported["modules"]} - set(sys.stdlib_module_names)
    assert packages <= {"otel_progress", "opentelemetry", "typing_extensions"} | _needed_by_the_api()
    assert len([name for name in imported["modules"] if name.partition(".")[0] == "otel_progress"]) <= 75


def _needed_by_the_api() -> set[str]:
    code = (
        "import sys, opentelemetry.trace, opentelemetry.propagate, opentelemetry.baggage; print(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_all_is_what_is_there() -> None:
    """__all__ is sorted, has no name twice, and is exactly what is public."""
    for name in progress.__all__:
        assert getattr(progress, name) is not None
    assert len(set(progress.__all__)) == len(progress.__all__)
    public = {
        name
        for name, value in vars(progress).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name not in {"annotations", "TYPE_CHECKING", "Any"}
    }
    assert public == set(progress.__all__) - {"__version__"}
    assert set(progress.__all__) <= set(vars(progress))


def test_what_comes_late_is_listed() -> None:
    """What is imported on first access is public, and in a star import."""
    assert set(progress._LATER) <= set(progress.__all__)
    namespace: dict[str, Any] = {}
    exec("from otel_progress import *", namespace)
    assert set(progress.__all__) <= set(namespace)
    with pytest.raises(AttributeError, match="'otel_progress' has no attribute 'colour'"):
        progress.colour


def members() -> list[tuple[str, Any]]:
    """Return every public object, with its public methods and properties."""
    found: list[tuple[str, Any]] = []
    for name in progress.__all__:
        value = getattr(progress, name)
        if name == "__version__":
            continue
        found.append((name, value))
        if inspect.isclass(value) and value.__module__.startswith("otel_progress"):
            for part in dir(value):
                member = inspect.getattr_static(value, part)
                ours = any(part in vars(base) for base in value.__mro__ if base.__module__.startswith("otel_progress"))
                if ours and not part.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    found.append((f"{name}.{part}", member))
    return found


@pytest.mark.parametrize(("name", "value"), members(), ids=[name for name, _ in members()])
def test_everything_public_has_a_docstring(name: str, value: Any) -> None:
    """Every public function, class, method and property has a docstring."""
    doc = inspect.getdoc(value)
    assert doc, name
    assert doc.strip()[-1] in '.:`)}"', name
    assert not (inspect.isclass(value) and issubclass(value, Enum) and doc.startswith("str("))


@pytest.mark.parametrize("name", [name for name in progress.__all__ if inspect.isfunction(getattr(progress, name))])
def test_options_are_keyword_only(name: str) -> None:
    """Options of public functions are keyword-only; at most two arguments are positional."""
    parameters = inspect.signature(getattr(progress, name)).parameters.values()
    assert len([p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]) <= 2


def test_the_tree_of_errors_is_the_one_drawn() -> None:
    """The tree at the top of errors.py is the real one."""
    drawn: list[tuple[str, str]] = []
    path: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if "──" in line or line.strip() == "Exception":
            depth = max(line.find("──"), 0)
            name = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()[0]
            path = {at: known for at, known in path.items() if at < depth}
            if path:
                drawn.append((name, path[max(path)]))
            path[depth] = name
    real = [
        (name, value.__bases__[0].__name__)
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    ]
    assert sorted(drawn) == sorted(real)
    assert {name for name, _ in real} <= set(progress.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    """__version__ is the version of the installed distribution."""
    from importlib.metadata import version

    assert progress.__version__ == version("otel-progress")
