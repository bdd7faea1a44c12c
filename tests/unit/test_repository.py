"""The repository itself: workflows, hooks and make targets agree with each other and with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_progress.version import VERSION

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def steps(workflow: Path) -> list[dict[str, Any]]:
    """All steps of all jobs."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned(workflow: Path) -> None:
    """Each action is pinned by the commit, with its version as a comment."""
    used = re.findall(r"uses: (\S+)(.*)", workflow.read_text(encoding="utf-8"))
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"  # v\d+\.\d+\.\d+", comment), action


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_minimal(workflow: Path) -> None:
    """A workflow may write nothing unless a job says so."""
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["permissions"] in ({}, {"contents": "read"})


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_use_make(workflow: Path) -> None:
    """The make targets that a workflow runs exist."""
    for step in steps(workflow):
        assert set(re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE)) <= TARGETS


def test_tested_versions_are_those_promised() -> None:
    """CI tests each Python that the package names, and `make versions` the same."""
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    assert f"for v in {' '.join(promised)};" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("stability", "platforms"):
        assert f"{promised[0]} to {promised[-1]}" in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def test_changelog_dates_each_version() -> None:
    """Each version in CHANGELOG.md has a date, or is unreleased; README.md says so as long as this version is."""
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings.pop(0) == "Unreleased"
    versions = dict(heading.split(" - ") for heading in headings)
    for date in versions.values():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d|unreleased", date)
    said = "not released yet" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert said == (versions[VERSION] == "unreleased")


def test_documented_targets_exist() -> None:
    """CONTRIBUTING.md and the hooks name only make targets that exist."""
    for name in ("CONTRIBUTING.md", ".pre-commit-config.yaml", "README.md"):
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= TARGETS, name


def test_hooks_use_the_pinned_tools() -> None:
    """Each hook runs a tool of .venv, which requirements-dev.txt pins."""
    pinned = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    tools = {"ruff": "ruff", "lint-imports": "import-linter", "codespell": "codespell"}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"\n{tools[tool]}==" in pinned


def test_no_machine_in_the_lock() -> None:
    """The pinned requirements name packages and versions alone: no index and no path."""
    for name in (
        "requirements-dev.txt",
        "requirements-docs.txt",
        "requirements-frameworks.txt",
        "requirements-screens.txt",
        "requirements-release.txt",
    ):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            assert re.match(r"[\w.-]+==[\w.]+( ;.*)?$", line), line
