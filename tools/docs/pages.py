"""The pages of the site: in which order they are read, and where each file of the repository stands on the site.

Pages of `docs/` stand at the root of the site. Files of other folders that a page links to come with it, below
`repository/`: Markdown as a page, pictures as they are, and any other text as a page that shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PICTURES: Final = (".png", ".svg")
OUTSIDE: Final = "repository"
_FENCE: Final = re.compile(r"(^ *(`{3,})[^\n]*\n.*?^ *\2 *$)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(\]\()([^)\s]+)(\))")
_LEXERS: Final = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".go": "go", ".ts": "typescript", ".json": "json"}
GENERATED: Final = ("functions", "operations", "values", "errors", "modules", "commands", "variables", "http")
"""The pages of the reference that a build makes out of the package; they stand in no folder of the repository."""


class Part(NamedTuple):
    """A part of the navigation: its heading, and its pages as files of the repository."""

    title: str
    files: tuple[str, ...]


PARTS: Final = (
    Part("Tutorial", ("docs/tutorial.md", "docs/cheat-sheet.md")),
    Part(
        "How-to: tasks",
        (
            "docs/how-to/nothing-arrives.md",
            "docs/how-to/reported-stuck.md",
            "docs/resume.md",
            "docs/failures.md",
            "docs/reports.md",
            "docs/how-to/notebooks.md",
            "docs/handlers.md",
            "docs/web-app.md",
            "docs/workflows.md",
            "docs/testing.md",
            "docs/migrate.md",
            "docs/deploy.md",
            "docs/pager.md",
            "docs/runbook.md",
            "docs/how-to/kubernetes.md",
            "docs/how-to/serverless.md",
            "docs/how-to/behind-a-proxy.md",
            "docs/how-to/too-many-series.md",
        ),
    ),
    Part(
        "How-to: frameworks",
        (
            "docs/how-to/frameworks.md",
            "docs/how-to/recipes.md",
            "docs/integrations.md",
            "docs/live-spans.md",
            "docs/mcp.md",
            "docs/celery.md",
            "docs/claude-code.md",
        ),
    ),
    Part(
        "Reference",
        (
            *(f"docs/reference/{name}.md" for name in GENERATED),
            "docs/run.md",
            "docs/terminal.md",
            "docs/doctor.md",
            "docs/monitor.md",
            "docs/monitor-api.md",
            "docs/monitor-outlets.md",
            "docs/semantic-conventions.md",
            "docs/protocol.md",
            "docs/platforms.md",
            "grafana/README.md",
            "grafana/alerts/README.md",
            "collector-config/README.md",
        ),
    ),
    Part(
        "Explanation",
        (
            "docs/guide.md",
            "docs/guarantees.md",
            "docs/accuracy.md",
            "docs/performance.md",
            "docs/cost.md",
            "docs/security.md",
            "docs/comparison.md",
            "docs/stability.md",
            "docs/upgrading.md",
            "ARCHITECTURE.md",
        ),
    ),
)
LISTED: Final = frozenset(file for part in PARTS for file in part.files)


def site_path(file: str) -> str:
    """Return where a file of the repository stands on the site; both are relative paths with slashes.

    Example:
        `site_path("docs/guide.md") == "guide.md"`, `site_path("grafana/README.md") == "repository/grafana/README.md"`
    """
    if file == "README.md":
        return "index.md"
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    return f"{OUTSIDE}/{file}" if file.endswith((".md", *PICTURES)) else f"{OUTSIDE}/{file}.md"


def links(text: str) -> Iterator[str]:
    """Return the targets of all links to other files in Markdown, without their fragments; code is passed over."""
    for prose in _FENCE.sub("", text).split("\n"):
        for _, target, _ in _LINK.findall(prose):
            if not target.startswith(("http:", "https:", "mailto:", "#")):
                yield target.partition("#")[0]


def relinked(text: str, file: str) -> str:
    """Return the Markdown of a file of the repository with the links that it has on the site."""

    def moved(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if target.startswith(("http:", "https:", "mailto:", "#")):
            return match.group()
        path, mark, fragment = target.partition("#")
        here = os.path.dirname(site_path(file)) or "."
        return f"{before}{os.path.relpath(site_path(resolved(path, file)), here)}{mark}{fragment}{after}"

    parts = _FENCE.split(text)  # prose, fence, its marks, prose, ...
    return "".join(_LINK.sub(moved, part) if at % 3 == 0 else part for at, part in enumerate(parts) if at % 3 != 2)


def resolved(target: str, file: str) -> str:
    """Return the file of the repository that a link in another one means; that of a folder is its README.md.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = os.path.normpath(os.path.join(os.path.dirname(file), target))
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    if not (ROOT / path).is_file():
        raise FileNotFoundError(f"{file} links to {target}, which does not exist")
    return path


def stage(into: Path, made: dict[str, str]) -> list[str]:
    """Write the pages of `docs/` and of the navigation, and what they link to, as they are on the site.

    `made` are pages that are no files of the repository: their text by the path that they would have.

    Returns: all files, as paths in the repository.
    """
    docs = (it.relative_to(ROOT).as_posix() for it in (ROOT / "docs").rglob("*") if it.is_file())
    waiting = sorted({*docs, *LISTED} - {*made})
    seen = set(waiting)
    for file, text in made.items():
        (into / site_path(file)).parent.mkdir(parents=True, exist_ok=True)
        (into / site_path(file)).write_text(text, encoding="utf-8")
    while waiting:
        file = waiting.pop()
        to = into / site_path(file)
        to.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(PICTURES):
            to.write_bytes((ROOT / file).read_bytes())
            continue
        text = (ROOT / file).read_text(encoding="utf-8")
        to.write_text(relinked(text, file) if file.endswith(".md") else shown(text, file), encoding="utf-8")
        if file.endswith(".md"):
            found = {resolved(target, file) for target in links(text)} - seen - {"README.md"}
            waiting += sorted(found)
            seen |= found
    return sorted({*seen, *made})


def shown(text: str, file: str) -> str:
    """Return a page that shows a file."""
    return f"# {file}\n\n````{_LEXERS.get(Path(file).suffix, 'text')}\n{text.rstrip()}\n````\n"
