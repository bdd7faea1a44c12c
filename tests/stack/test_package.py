"""The wheel, installed without the SDK: its content, its metadata, and its use by a library."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from . import build
from .needed import built

ABOUT = """
import json
from importlib import metadata
found = metadata.metadata("otel-progress")
files = [str(file) for file in metadata.files("otel-progress")]
print(json.dumps({"text": found.get_payload(), "licence": found["License-Expression"],
                  "licences": found.get_all("License-File"), "urls": found.get_all("Project-URL"), "files": files}))
"""
QUIET = """
import sys
before = set(sys.modules)
import otel_progress as progress
@progress.operation("work", stall_after=1)
def work():
    with progress.stage("load", total=2) as stage:
        for _ in progress.track(range(2)):
            progress.note("one")
    return 7
assert work() == 7
heavy = {"opentelemetry.sdk", "requests", "google.protobuf", "rich"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the interpreter of that environment."""
    return built(build.LIBRARY)


def run(python: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run it with an empty environment, away from the repository."""
    return subprocess.run(
        [str(python), *arguments], cwd="/", env={}, capture_output=True, text=True, timeout=60, check=check
    )


def test_metadata(python: Path) -> None:
    """The metadata names the licences of vendored files, which are included; the README has no dead link on an index."""
    about = json.loads(run(python, "-c", ABOUT).stdout)
    assert about["licence"] == "Apache-2.0 AND MIT"
    names = {Path(name).name for name in about["licences"]}
    assert names >= {"LICENSE", "LICENSE-preact.txt", "LICENSE-htm.txt", "LICENSE-signals.txt"}
    assert about["urls"]
    assert re.findall(r"\]\((?!https?:)[^)]*\)", about["text"]) == []
    assert "otel-progress assets DIR" in about["text"]
    assert not [name for name in about["files"] if "/tests/" in name or "generator" in name]


def test_library_without_the_sdk(python: Path) -> None:
    """Without the SDK an instrumented library works, logs nothing, and imports nothing heavy."""
    done = run(python, "-W", "error", "-c", QUIET)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_needs_the_sdk_says_so(python: Path) -> None:
    """configure() names the command that installs what is missing."""
    done = run(python, "-c", "import otel_progress; otel_progress.configure()", check=False)
    assert done.stderr.splitlines()[-1].endswith("configure() needs the SDK: pip install otel-progress")


def test_assets_of_the_wheel(python: Path, tmp_path: Path) -> None:
    """The installed command copies the repository's files, byte for byte."""
    done = run(python, "-m", "otel_progress.cli", "assets", str(tmp_path / "assets"))
    assert "--runbook URL" in done.stdout
    files = [file for file in (tmp_path / "assets").rglob("*") if file.is_file()]
    assert len(files) > 30
    for file in files:
        assert file.read_bytes() == (build.ROOT / file.relative_to(tmp_path / "assets")).read_bytes()
