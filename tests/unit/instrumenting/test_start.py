"""Below `otel-progress run` each Python starts as ever, with one finder more and nothing of ours imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_progress import instrumenting
from otel_progress.instrumenting.imports import BUILT_IN

START = Path(instrumenting.__file__).parent / "start"
SEEN = """
import json, sys
ours = [type(one).__module__ for one in sys.meta_path if "otel_progress" in type(one).__module__]
modules = sorted(name for name in sys.modules if name.partition(".")[0] in ("otel_progress", "opentelemetry"))
print(json.dumps({"finders": ours, "modules": modules, "path": sys.path, "sitecustomize": "sitecustomize" in sys.modules}))
"""


def python(code: str, path: str, asked: str, *options: str) -> tuple[str, str]:
    """Run a program, and return what it wrote to stdout and stderr."""
    environ = {**os.environ, "PYTHONPATH": path, "OTEL_PROGRESS_INSTRUMENT": asked}
    done = subprocess.run(
        [sys.executable, *options, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("asked", ["auto", "none", ""])
def test_nothing_is_imported_and_nothing_changed(asked: str) -> None:
    """The search path is the user's, and nothing is printed."""
    out, err = python(SEEN, str(START), asked)
    plain = json.loads(python(SEEN, "", "none")[0])
    seen = json.loads(out)
    watches = asked == "auto" and bool(BUILT_IN)
    assert (err, seen["path"]) == ("", plain["path"])
    assert seen["finders"] == (["otel_progress.instrumenting.imports"] if watches else [])
    more = [name for name in seen["modules"] if name not in plain["modules"]]
    assert more == (["otel_progress.instrumenting.imports"] if asked == "auto" else [])


def test_an_unknown_name_is_told() -> None:
    """The program runs without it."""
    out, err = python("print(1)", str(START), "tqmd")
    assert out == "1\n"
    assert "OTEL_PROGRESS_INSTRUMENT: there is no integration 'tqmd'" in err


def test_the_users_sitecustomize_runs(tmp_path: Path) -> None:
    """Ours stands before it, and hands on."""
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\nMINE = True\n")
    out, err = python(
        "import sitecustomize; print(sitecustomize.MINE)", os.pathsep.join((str(START), str(tmp_path))), "auto"
    )
    assert (out, err) == ("theirs\nTrue\n", "")


def test_an_error_in_the_users_sitecustomize_is_told_as_ever(tmp_path: Path) -> None:
    """The program runs, and Python says what it says."""
    (tmp_path / "sitecustomize.py").write_text("raise ImportError('mine', name='other')\n")
    out, err = python("print(1)", os.pathsep.join((str(START), str(tmp_path))), "auto")
    assert (out, "ImportError: mine" in err or "sitecustomize" in err) == ("1\n", True)


def test_it_keeps_quiet_where_it_can_not_work(tmp_path: Path) -> None:
    """A broken installation disturbs no program."""
    here = tmp_path / "start"
    here.mkdir()
    (here / "sitecustomize.py").write_text((START / "sitecustomize.py").read_text())
    assert python("print(1)", str(here), "auto") == ("1\n", "")


def test_an_isolated_python_is_left_alone() -> None:
    """With -I nothing of the environment counts."""
    assert json.loads(python(SEEN, str(START), "auto", "-I")[0])["finders"] == []
