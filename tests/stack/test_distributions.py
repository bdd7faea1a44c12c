"""The distributions: built twice they are the same bytes, they have what they must have, and each extra installs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11 has it first
ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_BYTES = 2_500_000
"""The size of the wheel from which on somebody should look what has come in."""
PROOF = {
    "all": "import grpc, rich, psutil, starlette, redis, jinja2, apprise, anyio",
    "apprise": "import otel_progress.handlers.apprise, apprise",
    "console": "from otel_progress.handlers.console import Console; import rich; Console()",
    "gradio": "from otel_progress.handlers.gradio import GradioHandler; import gradio",
    "grpc": "import otel_progress.outbound.grpc_transport",
    "mcp": "import mcp, otel_progress.cli.mcp",
    "monitor": "import otel_progress.monitor.app",
    "notebook": "from otel_progress.handlers.notebook import NotebookHandler; import IPython",
    "otlp": "import otel_progress.telemetry.installation",
    "process": "import psutil",
    "redis": "from otel_progress.handlers.redis import RedisHandler; import redis, otel_progress.monitor.app",
    "report": "import otel_progress.reports.html",
    "stacks": "import os, sys; assert os.access(os.path.join(os.path.dirname(sys.executable), 'py-spy'), os.X_OK)",
    "streamlit": "from otel_progress.handlers.streamlit import StreamlitHandler; import streamlit",
    "web": "import otel_progress.web as web; web.app",
    "workflow": "from otel_progress import Step, Workflow, adaptive",
}


def build(folder: Path) -> dict[str, Path]:
    """Build both distributions from a copy of the sources in a folder; by name."""
    sources = folder / "sources"
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc", ".venv", ".git", "node_modules")
    for name in (*tracked(), "pyproject.toml"):
        at = ROOT / name
        if at.is_dir():
            shutil.copytree(at, sources / name, ignore=skipped, copy_function=shutil.copyfile)
        else:
            sources.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(at, sources / name)
    command = [UV, "build", "--quiet", "--out-dir", str(folder / "dist"), str(sources)]
    subprocess.run(command, check=True, timeout=200, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    return {path.name: path for path in (folder / "dist").iterdir() if path.suffix in (".whl", ".gz")}


def tracked() -> list[str]:
    """Return what the source distribution includes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included: list[str] = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    return included


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the distributions."""
    return build(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def wheel(built: dict[str, Path]) -> Path:
    """Return the wheel."""
    return next(path for name, path in built.items() if name.endswith(".whl"))


def test_two_builds_are_the_same_bytes(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever builds a release from its sources, in another folder, a minute later, with another umask, has its bytes."""
    before = os.umask(0o077)
    try:
        again = build(tmp_path_factory.mktemp("another-place"))
    finally:
        os.umask(before)
    assert len(built) == 2
    assert set(again) == set(built)
    for name, path in built.items():
        one, other = (hashlib.sha256(it.read_bytes()).hexdigest() for it in (path, again[name]))
        assert one == other, name


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    """It has the licence of each vendored part, and the metadata that an index shows; no tests and no caches."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = message_from_string(archive.read(next(one for one in names if one.endswith("/METADATA"))).decode())
    assert wheel.stat().st_size < MOST_BYTES
    vendored = {path.stem for path in (ROOT / "src").rglob("vendor/*.js")}
    licences = {Path(one).name for one in names if "/licenses/" in one}
    assert {"LICENSE", "LICENSE-preact.txt", "LICENSE-htm.txt"} <= licences
    assert {f"LICENSE-{part}.txt" for part in vendored - {"hooks"}} <= licences  # hooks are Preact's own
    assert about["Version"] == PROJECT["version"]
    assert about["License-Expression"]
    assert about["Requires-Python"] == ">=3.10"
    assert set(about.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])
    assert not [one for one in names if "/tests/" in one or "__pycache__" in one or one.endswith(".pyc")]


def test_the_sources_are_whole(built: dict[str, Path]) -> None:
    """The source distribution has the licences, the changelog and the documentation; no paths of this machine."""
    with tarfile.open(next(path for name, path in built.items() if name.endswith(".gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
        owners = {(member.uname, member.uid) for member in archive.getmembers()}
    assert {"LICENSE", "CHANGELOG.md", "docs/guide.md", "pyproject.toml", "PKG-INFO"} <= names
    assert owners == {("", 0)}


def test_each_extra_has_a_proof() -> None:
    """An extra that is added is tried below."""
    assert set(PROOF) == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", sorted(PROOF))
def test_an_extra_installs(extra: str, wheel: Path, tmp_path: Path) -> None:
    """In a clean environment, what an extra is for can be imported, and the command runs."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    python = tmp_path / "clean" / "bin" / "python"
    for command in (
        [UV, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "clean")],
        [UV, "pip", "install", "--quiet", "--python", str(python), f"otel-progress[{extra}] @ file://{wheel}"],
        [str(python), "-c", PROOF[extra]],
        [str(python), "-m", "otel_progress", "--version"],
    ):
        subprocess.run(command, check=True, timeout=200, cwd=tmp_path, env=environ)
