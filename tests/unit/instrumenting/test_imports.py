"""The finder of imports changes nothing that a program can see."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_progress.instrumenting.imports import Watch

NAME = "watched_by_a_test"


@pytest.fixture
def calls() -> list[str]:
    """Return what collects the calls."""
    return []


@pytest.fixture
def watching(calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Return a finder that watches a module that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{NAME}.py").write_text("import threading\nVALUE = 1\n")
    found = Watch()
    found.on(NAME, lambda: calls.append(str(sys.modules[NAME].VALUE)))
    yield found
    sys.modules.pop(NAME, None)
    if found in sys.meta_path:
        sys.meta_path.remove(found)


def test_it_calls_right_after_the_import(watching: Watch, calls: list[str]) -> None:
    """The module is complete by then, and each new import counts."""
    importlib.import_module(NAME)
    importlib.import_module(NAME)
    assert calls == ["1"]
    del sys.modules[NAME]
    importlib.import_module(NAME)
    assert calls == ["1", "1"]


def test_the_module_looks_as_without_it(watching: Watch, calls: list[str]) -> None:
    """Spec, loader and source are those of the other finders."""
    module = importlib.import_module(NAME)
    seen = module.__spec__
    del sys.modules[NAME]
    sys.meta_path.remove(watching)
    plain = importlib.import_module(NAME).__spec__
    assert seen is not None
    assert plain is not None
    assert (seen.name, seen.origin, seen.cached, type(seen.loader)) == (
        plain.name,
        plain.origin,
        plain.cached,
        type(plain.loader),
    )
    assert vars(seen.loader) == vars(plain.loader)
    assert "VALUE = 1" in inspect.getsource(module)


def test_errors_are_those_of_the_module(watching: Watch, calls: list[str], tmp_path: Path) -> None:
    """A module that fails can be imported once it is mended; one that is missing is missing."""
    file = tmp_path / f"{NAME}.py"
    file.write_text("raise ImportError('broken', name='other')\n")
    with pytest.raises(ImportError, match=r"^broken$") as found:
        importlib.import_module(NAME)
    assert found.value.name == "other"
    assert found.value.__cause__ is None
    assert NAME not in sys.modules
    file.write_text("VALUE = 22\n")
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    del sys.modules[NAME]
    file.unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{NAME}'"):
        importlib.import_module(NAME)
    assert calls == ["22"]


def test_a_copy_is_not_the_module(watching: Watch, calls: list[str]) -> None:
    """Who asks for a spec, or executes a copy, imports nothing."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert calls == []


def test_a_lazy_module_counts_when_it_is_executed(watching: Watch, calls: list[str]) -> None:
    """`importlib.util.LazyLoader` works as ever."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[NAME] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert calls == []
    assert module.threading is threading
    assert calls == ["1"]


def test_a_loader_of_several_modules_is_told_apart(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip file has one loader for all of its modules."""
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("zipped_one.py", "import zipped_two\nVALUE = zipped_two.VALUE\n")
        archive.writestr("zipped_two.py", "VALUE = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "some.zip"))
    found = Watch()
    found.on("zipped_one", lambda: calls.append("one"))
    try:
        assert importlib.import_module("zipped_one").VALUE == 2
    finally:
        sys.meta_path.remove(found)
        for name in ("zipped_one", "zipped_two"):
            sys.modules.pop(name, None)
    assert calls == ["one"]


def test_it_leaves_when_nothing_is_watched() -> None:
    """A program that switches all off has no finder of ours."""
    found = Watch()

    def call() -> None: ...

    found.on("one", call)
    found.on("two", call)
    assert sys.meta_path.count(found) == 1  # type: ignore[arg-type]
    found.off(call)
    assert found not in sys.meta_path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_it_works_in_a_fork(watching: Watch, calls: list[str]) -> None:
    """A child imports as its parent would."""
    pid = os.fork()
    if pid == 0:
        importlib.import_module(NAME)
        os._exit(0 if calls == ["1"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert calls == []
