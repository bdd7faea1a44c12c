"""Build the site from docs/: python -m tools.docs [FOLDER], by default build/site.

Sphinx runs in an environment of its own, .venv/docs. A broken link, a missing anchor or a page outside the navigation
fails the build. Each page has a twin in Markdown beside it, and llms.txt lists them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.docs import api, command_line, http_api, variables
from tools.docs.pages import LISTED, PARTS, PICTURES, ROOT, site_path, stage

SPHINX: Final = ROOT / ".venv" / "docs" / "bin" / "python"
ORPHAN: Final = "---\norphan: true\n---\n"
"""What tells Sphinx that a page is reached by links alone."""
ABOUT: Final = "Long-running work, seen while it runs: what it does, how far it is, and whether it is stuck, and where."


def main(site: Path) -> int:
    """Build into a folder; return the exit code."""
    source = site.with_name(f"{site.name}-source")
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(site, ignore_errors=True)
    files = stage(source, {f"docs/reference/{name}.md": text for name, text in reference().items()})
    twins = {site_path(file): (source / site_path(file)).read_text(encoding="utf-8") for file in files if is_page(file)}
    prepare(source, files)
    if code := sphinx(source, site):
        return code
    for path, text in twins.items():
        (site / path).write_text(text, encoding="utf-8")
    for file in files:
        if not is_page(file):  # the twins show it from where it stands
            (site / site_path(file)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / site_path(file), site / site_path(file))
    (site / "llms.txt").write_text(llms(twins), encoding="utf-8")
    (site / "llms-full.txt").write_text(full(twins), encoding="utf-8")
    print(f"{len(twins)} pages are in {os.path.relpath(site)}")
    return 0


def reference() -> dict[str, str]:
    """Return the generated pages of the reference by name."""
    return {**api.pages(), "commands": command_line.page(), "http": http_api.page(), "variables": variables.page()}


def sphinx(source: Path, site: Path) -> int:
    """Run Sphinx, for which each warning is an error; return its exit code."""
    strict = ("-W", "--keep-going", "-n", "-q")
    cache = source.with_name(f"{site.name}-cache")
    return subprocess.call([SPHINX, "-m", "sphinx", *strict, "-d", cache, "-c", Path(__file__).parent, source, site])


def is_page(file: str) -> bool:
    """Whether a file of the repository is a page of its own on the site."""
    return not file.endswith(PICTURES)


def prepare(source: Path, files: list[str]) -> None:
    """Tell Sphinx the navigation, which has each page of docs/; other files may be reached by links alone."""
    for file in files:
        if is_page(file) and file not in LISTED and not file.startswith("docs/"):
            page = source / site_path(file)
            page.write_text(ORPHAN + page.read_text(encoding="utf-8"), encoding="utf-8")
    trees = "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {part.title}\n\n"
        + "".join(f"{site_path(file).removesuffix('.md')}\n" for file in part.files)
        + "```\n"
        for part in PARTS
    )
    index = source / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + trees, encoding="utf-8")


def title(text: str) -> str:
    """Return the heading of a page."""
    return next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ").replace("`", "")


def llms(twins: dict[str, str]) -> str:
    """Return llms.txt: what this is, and each page of the navigation with its address in Markdown."""
    parts = (
        f"## {part.title}\n\n"
        + "".join(f"- [{title(twins[site_path(file)])}]({site_path(file)})\n" for file in part.files)
        for part in PARTS
    )
    return f"# otel-progress\n\n> {ABOUT}\n\n" + "\n".join(parts)


def full(twins: dict[str, str]) -> str:
    """Return the text of all pages of the navigation."""
    return "\n\n".join(twins[site_path(file)].rstrip() for part in PARTS for file in part.files) + "\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT / "build" / "site"))
