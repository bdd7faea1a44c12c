"""The public API is the one that docs/public-api.txt lists; docs/stability.md says what that promises."""

from __future__ import annotations

import difflib
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_public_api_is_the_listed_one() -> None:
    """A name, parameter or default that changed is listed anew by `make api`, and so seen in the review."""
    tool = runpy.run_path(str(ROOT / "tools" / "public_api.py"))
    listed = (ROOT / "docs" / "public-api.txt").read_text(encoding="utf-8")
    changes = list(difflib.unified_diff(listed.splitlines(), tool["listing"]().splitlines(), lineterm="", n=0))
    assert changes == [], "run `make api`, and tell users in CHANGELOG.md"
