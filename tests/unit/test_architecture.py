"""ARCHITECTURE.md is a true map: each file, function and module that it names exists, and no module is missing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "otel_progress"
MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
TEXT = FENCE.sub("", MAP)
"""The map without its diagrams."""
SUFFIX = r"(?:py|js|css|md|yaml|yml|toml|sql|json)"
FILE = rf"[\w.*-]*(?:/[\w.*-]+)*(?:\.{SUFFIX}|/)|Makefile|requirements-dev\.in"
NAMED = re.compile(rf"`({FILE})`(?: \(((?:`[^`]+`(?:, )?)+)\))?")
ROOM = re.compile(r"^### (?:`([\w/]+)/`: |The root: )", re.MULTILINE)
LINKED = re.compile(r"\]\((?!https?:)([^)#]+)(?:#([^)]*))?\)")


def section(title: str) -> str:
    """The text below a heading of the second level."""
    return TEXT.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]


def rooms() -> dict[str, str]:
    """The purpose of each file that a room lists, by its path below the package."""
    parts = ROOM.split(section("Rooms"))[1:]
    found: dict[str, str] = {}
    for folder, text in zip(parts[::2], parts[1::2], strict=True):
        for name, purpose in re.findall(r"^- `([\w.-]+)`: (.+)$", text, re.MULTILINE):
            path = str(PurePosixPath(folder or ".") / name)
            assert path not in found, f"{path} has two lines"
            found[path] = purpose
    return found


def named() -> list[tuple[str, str]]:
    """The files that the map names outside its rooms, each with the names that stand in brackets behind it."""
    rooms_text = section("Rooms")
    return sorted({(file, names) for file, names in NAMED.findall(TEXT.replace(rooms_text, ""))})


def find(path: str) -> Path:
    """A path below the package, else below the root."""
    return next((base / path for base in (SRC, ROOT) if path and (base / path).exists()), ROOT / path)


@cache
def defined(path: Path) -> frozenset[str]:
    """The functions, classes, methods and constants of a module."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                found.add(target.id)
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(f"{node.name}.{inner.name}")
    return frozenset(found)


def test_every_module_has_its_line() -> None:
    """Each module of the package, and each script of the page, has one line with its purpose, and no other has one."""
    modules = {path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py")}
    wanted = {path for path in modules if not path.endswith("/__init__.py")}
    for folder in ("monitor/web/static", "web/static"):
        wanted |= {path.relative_to(SRC).as_posix() for path in (SRC / folder).glob("*.js")}
    listed = set(rooms())
    assert listed == wanted, f"missing: {sorted(wanted - listed)}, gone: {sorted(listed - wanted)}"


def test_every_package_has_its_heading() -> None:
    """Each package of the library is a room."""
    packages = {path.parent.relative_to(SRC).as_posix() for path in SRC.rglob("__init__.py")}
    assert packages - {"."} <= set(ROOM.findall(section("Rooms")))


@pytest.mark.parametrize(("file", "names"), named(), ids=lambda value: value.replace("`", "") or "-")
def test_what_is_named_exists(file: str, names: str) -> None:
    """Each file exists, and each name in brackets behind it is defined there, or stands in it if it is no Python."""
    path = find(file)
    assert list(ROOT.glob(file)) if "*" in file else path.exists(), f"there is no {file}"
    for name in re.findall(r"`([^`]+)`", names):
        if path.suffix == ".py":
            assert name in defined(path), f"there is no {name} in {file}"
        elif path.is_file():
            assert name in path.read_text(encoding="utf-8"), f"there is no {name} in {file}"


@pytest.mark.parametrize(("page", "heading"), LINKED.findall(MAP))
def test_links_lead_somewhere(page: str, heading: str) -> None:
    """Each link leads to a page, and to a heading of it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if heading:
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_contracts_that_are_named_exist() -> None:
    """Each import contract that the rules name is one of pyproject.toml."""
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in re.findall(r'contract "([^"]+)"', MAP):
        assert f'name = "{name}"' in contracts, name


def test_each_word_has_one_meaning() -> None:
    """No word has two lines in the table of words."""
    words = re.findall(r"^\| ([^|]+?) \|", section("Words"), re.MULTILINE)
    assert len(words) == len(set(words))


def test_lines_are_short() -> None:
    """Each line can be read in an editor: fewer than 160 characters."""
    assert [line for line in MAP.splitlines() if len(line) >= 160] == []
