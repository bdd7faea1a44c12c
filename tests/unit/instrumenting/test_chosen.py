"""Integrations are put on by name, once, when their library is imported; what is wrong is one clear sentence."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import settings
from otel_progress.errors import InvalidArgument
from otel_progress.instrumenting import chosen
from otel_progress.instrumenting.imports import BUILT_IN, PASSIVE, watch

LIBRARY = "library_of_a_test"
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No integration of a test is seen by another one."""
    yield
    chosen.stop()
    monkeypatch.undo()
    sys.modules.pop(LIBRARY, None)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the source file of a library that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / f"{LIBRARY}.py"
    file.write_text("VALUE = 1\n")
    return file


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what registers an integration of another package."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(chosen, "BUILT_IN", {})
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == chosen.GROUP else [])

    def add(name: str = "theirs", version: str | None = "2.1", **given: Any) -> Any:
        module = types.ModuleType(f"integration_{name}")
        calls: list[str] = []
        members = {"LIBRARY": LIBRARY, "TESTED": ("2", "3"), "MODULES": (LIBRARY,), "calls": calls}
        members |= {"install": lambda: calls.append("install"), "uninstall": lambda: calls.append("uninstall")}
        vars(module).update(members | given)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entries.append(EntryPoint(name, module.__name__, chosen.GROUP))
        monkeypatch.setattr(chosen, "_version", lambda library: version or "")
        return module

    return add


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_the_entry_points_the_table_and_the_modules_agree() -> None:
    """Ours are found without reading metadata, and by the same names as those of other packages."""
    entries = importlib.metadata.entry_points(group=chosen.GROUP)
    assert {one.name: one.value for one in entries} == {name: f"otel_progress.integrations.{name}" for name in BUILT_IN}
    for name, modules in BUILT_IN.items():
        integration = importlib.import_module(f"otel_progress.integrations.{name}")
        assert modules == integration.MODULES
        assert chosen._numbers(integration.TESTED[0]) < chosen._numbers(integration.TESTED[1])
    assert set(PASSIVE) <= set(BUILT_IN)


def test_an_import_before_or_after_makes_no_difference(make: Make, library: Path) -> None:
    """What is imported is patched at once, what is not yet is when it is."""
    theirs = make()
    chosen.start(["theirs"])
    assert theirs.calls == []
    importlib.import_module(LIBRARY)
    assert theirs.calls == ["install"]
    chosen.stop()
    assert theirs.calls == ["install", "uninstall"]
    chosen.start("theirs")
    assert theirs.calls == ["install", "uninstall", "install"]


@pytest.mark.parametrize("given", ["AUTO", " Auto ", ["AUTO "], "THEIRS", " Theirs", [" theirs"], "NONE, Theirs "])
def test_neither_case_nor_spaces_matter(given: object, make: Make, library: Path) -> None:
    """Names are the same in code and in the environment, however they are written."""
    theirs = make("Theirs")
    importlib.import_module(LIBRARY)
    chosen.start(given)
    assert theirs.calls == ["install"]
    chosen.start("None ")
    assert theirs.calls == ["install", "uninstall"]


@pytest.mark.parametrize("given", ["AUTO", " Auto , none"])
def test_neither_case_nor_spaces_matter_in_the_environment(
    given: str, make: Make, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AUTO` is all integrations."""
    theirs = make("Theirs")
    importlib.import_module(LIBRARY)
    monkeypatch.setenv("OTEL_PROGRESS_INSTRUMENT", given)
    chosen.start_named(settings.integrations())
    assert theirs.calls == ["install"]


def test_a_module_that_is_executed_again_is_patched_again(make: Make, library: Path) -> None:
    """A reload makes new classes."""
    theirs = make()
    chosen.start(["theirs"])
    importlib.reload(importlib.import_module(LIBRARY))
    assert theirs.calls == ["install"] * 2


def test_twice_is_once(make: Make, library: Path) -> None:
    """The same integration named twice, or in two calls, is put on once."""
    theirs = make()
    importlib.import_module(LIBRARY)
    chosen.start(["theirs", "theirs"])
    chosen.start(["theirs"])
    chosen.start("auto")
    assert theirs.calls == ["install"]


def test_another_choice_takes_the_others_out(make: Make, library: Path) -> None:
    """The argument replaces; `none` is nobody."""
    theirs, others = make(), make("others")
    importlib.import_module(LIBRARY)
    chosen.start(["theirs"])
    chosen.start(["others"])
    assert (theirs.calls, others.calls) == (["install", "uninstall"], ["install"])
    chosen.start("none")
    assert others.calls == ["install", "uninstall"]
    assert watch not in sys.meta_path


def test_an_unknown_name_is_refused_with_the_known_ones(make: Make) -> None:
    """Nothing is changed, and the error helps."""
    make()
    with pytest.raises(
        InvalidArgument, match=r"no integration 'thiers' \(did you mean 'theirs'\?\); there are: .*theirs"
    ):
        progress.configure(instrument=["thiers"])
    with pytest.raises(InvalidArgument, match="instrument must be"):
        progress.configure(instrument=3)  # type: ignore[arg-type]


def test_an_unknown_name_in_the_environment_is_logged(
    make: Make, library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A typo stops no job, and the other names count."""
    theirs = make()
    importlib.import_module(LIBRARY)
    monkeypatch.setenv("OTEL_PROGRESS_INSTRUMENT", "thiers, theirs")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    progress.configure()
    assert theirs.calls == ["install"]
    assert [text for text in warnings(caplog) if "OTEL_PROGRESS_INSTRUMENT" in text and "there are:" in text]
    progress.shutdown()
    assert theirs.calls == ["install", "uninstall"]


def test_by_default_nothing_is_put_on(make: Make, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is not asked for it keeps its libraries as they are."""
    theirs = make()
    importlib.import_module(LIBRARY)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    progress.configure()
    assert theirs.calls == []


@pytest.mark.parametrize(("version", "told"), [("1.9.9", True), ("2", False), ("2.99.1", False), ("3.0.0rc1", True)])
def test_a_version_outside_is_told_once_and_works(
    version: str, told: bool, make: Make, library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names both versions."""
    theirs = make(version=version)
    importlib.import_module(LIBRARY)
    chosen.start("auto")
    importlib.reload(sys.modules[LIBRARY])
    assert theirs.calls == ["install"] * 2
    text = f"integration theirs: {LIBRARY} {version} may be seen in part, 2 to below 3 is tested"
    assert warnings(caplog) == ([text] if told else [])


def test_a_library_that_does_not_fit_is_told_once(make: Make, library: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An attribute that is missing is one warning, and the library's import succeeds."""

    def install() -> None:
        raise AttributeError("no __iter__")

    make(install=install, version="4")
    chosen.start("auto")
    assert importlib.import_module(LIBRARY).VALUE == 1
    chosen.start("auto")
    text = f"integration theirs: it is off: {LIBRARY} 4 does not fit, 2 to below 3 is tested: no __iter__"
    assert warnings(caplog) == [text]


def test_a_missing_library_is_told_only_if_it_was_named(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """`auto` means what is there."""
    make(MODULES=("a_library_that_is_missing.core",))
    chosen.start("auto")
    assert warnings(caplog) == []
    chosen.stop()
    chosen.start(["theirs"])
    assert warnings(caplog) == [f"integration theirs: {LIBRARY} is not installed; 2 to below 3 is tested"]


def test_an_integration_that_can_not_be_imported_hurts_nobody(
    make: Make, library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others work."""
    broken, theirs = make("broken"), make()
    monkeypatch.setitem(sys.modules, broken.__name__, None)  # type: ignore[arg-type]
    importlib.import_module(LIBRARY)
    chosen.start("auto")
    assert theirs.calls == ["install"]
    assert [text for text in warnings(caplog) if text.startswith("integration broken of another package is off")]


def test_an_integration_of_no_module_is_put_on_at_once(make: Make) -> None:
    """It needs no library to be imported."""
    theirs = make(MODULES=())
    chosen.start("theirs")
    assert theirs.calls == ["install"]
