"""The site that `make docs` builds: strict, complete, and with nothing from other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.docs.pages import PARTS, ROOT, site_path

pytestmark = pytest.mark.skipif(not (ROOT / ".venv" / "docs" / ".ready").exists(), reason="make docs sets up Sphinx")


def build(folder: Path, source: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository."""
    command = [sys.executable, "-m", "tools.docs", str(folder / "site")]
    return subprocess.run(command, check=False, cwd=source, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a site, built once."""
    folder = tmp_path_factory.mktemp("docs")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_each_page_has_a_twin_in_markdown(site: Path) -> None:
    """Beside each page of the navigation stands its text in Markdown, with links that lead to files of the site."""
    for part in PARTS:
        for file in part.files:
            twin = site / site_path(file)
            assert twin.with_suffix(".html").exists(), file
            for target in re.findall(
                r"(?m)^[^`\n]*\]\((?!https?:|mailto:|#)([^)#\s]+)", twin.read_text(encoding="utf-8")
            ):
                assert (twin.parent / target).exists(), f"{file}: {target}"


def test_nothing_comes_from_other_hosts(site: Path) -> None:
    """No page loads a font, a script, a style or a picture from another host."""
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        text = file.read_text(encoding="utf-8")
        loaded = re.findall(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//[^"']*""", text)
        loaded += re.findall(r"""<link\b[^>]*\bhref=["'](?:https?:)?//[^"']*""", text)
        loaded += re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^"')]*""", text)
        assert not loaded, file


def test_llms_txt_lists_each_page(site: Path) -> None:
    """llms.txt links each page of the navigation in Markdown."""
    listed = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert listed == [site_path(file) for part in PARTS for file in part.files]


def repository(folder: Path, text: str) -> Path:
    """Copy what the site is made of, with this text at the end of its first page."""
    for name in ("docs", "tools", "grafana", "collector-config", "compose", "conventions", "conformance", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "ARCHITECTURE.md", folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    with (folder / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{text}\n")
    return folder


def test_what_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """Links to missing headings, in this page or another, and a page outside the navigation are named in errors."""
    copy = repository(tmp_path / "repository", "[x](guide.md#no-such-heading) [y](#nor-this)")
    (copy / "docs" / "forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    done = build(tmp_path, copy)
    assert done.returncode != 0
    assert "forgotten.md: WARNING: document isn't included in any toctree" in re.sub(r"\x1b\[[\d;]*m", "", done.stderr)
    assert "no-such-heading" in done.stderr
    assert "nor-this" in done.stderr


@pytest.mark.parametrize("text", ["[x](missing.md)", "![x](missing.png)", "[x](../examples/missing.py)"])
def test_a_missing_file_fails_the_build(text: str, tmp_path: Path) -> None:
    """A link to a page, a picture or a file that does not exist fails the build, which names both."""
    done = build(tmp_path, repository(tmp_path / "repository", text))
    assert done.returncode != 0
    assert "docs/index.md links to" in done.stderr
