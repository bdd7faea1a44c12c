"""Recipes need libraries that are not installed here, so they are read, not run."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

MOST_LINES = 20
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "recipes.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
RECIPES = {
    section.partition("\n")[0]: re.findall(r"^```py\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for section in SECTIONS
}


def unknown(recipe: str) -> set[str]:
    """Return the names of otel_progress that a recipe uses and that are not public."""
    nodes = list(ast.walk(ast.parse(recipe)))
    modules = {
        name.asname or name.name: name.name for node in nodes if isinstance(node, ast.Import) for name in node.names
    }
    used = {
        (modules.get(node.value.id, ""), node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    used |= {
        (node.module or "", name.name) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names
    }
    ours = [(module, name) for module, name in used if module.partition(".")[0] == "otel_progress"]
    return {f"{module}.{name}" for module, name in ours if name not in importlib.import_module(module).__all__}


@pytest.mark.parametrize("library", RECIPES)
def test_recipe_is_short_and_uses_public_names(library: str) -> None:
    """A section has one recipe: Python of at most twenty lines, with names of ours that exist."""
    (recipe,) = RECIPES[library]
    assert len(recipe.splitlines()) <= MOST_LINES
    compile(recipe, library, "exec")
    assert "import otel_progress as progress" in recipe
    assert unknown(recipe) == set()


def test_names_that_do_not_exist_are_found() -> None:
    """The test above sees names that are imported, and those of a module that has another name here."""
    recipe = (
        "import otel_progress as progress\nfrom otel_progress import gone, stage\nprogress.operation(progress.lost)"
    )
    assert unknown(recipe) == {"otel_progress.gone", "otel_progress.lost"}
