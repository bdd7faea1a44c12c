"""The public API is the one that docs/public-api.txt lists; docs/stability.md says what that promises."""

from __future__ import annotations

import ast
import difflib
import importlib
import re
import runpy
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_public_api_is_the_listed_one() -> None:
    """A name, parameter or default that changed is listed anew by `make api`, and so seen in the review."""
    tool = runpy.run_path(str(ROOT / "tools" / "public_api.py"))
    listed = (ROOT / "docs" / "public-api.txt").read_text(encoding="utf-8")
    changes = list(difflib.unified_diff(listed.splitlines(), tool["listing"]().splitlines(), lineterm="", n=0))
    assert changes == [], "run `make api`, and tell users in CHANGELOG.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_import_public_names(page: Path) -> None:
    """What Python code on a page imports from the package is in the listing."""
    modules = runpy.run_path(str(ROOT / "tools" / "public_api.py"))["MODULES"]
    for code in re.findall(
        r"^```py(?:thon)?\b.*?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        for node in ast.walk(ast.parse(textwrap.dedent(code))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("otel_progress"):
                public = modules.get(node.module, ())
                public = public or getattr(importlib.import_module(str(node.module)), "__all__", ())
                for name in node.names:
                    assert name.name in public or f"{node.module}.{name.name}" in modules, (node.module, name.name)
