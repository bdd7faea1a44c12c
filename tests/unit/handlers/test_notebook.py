"""The notebook handler on a shell that remembers what it is told; real kernels are in tests/screens."""

from __future__ import annotations

import importlib.util
import io
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import otel_progress as progress
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.handlers import chosen, notebook
from otel_progress.handlers.notebook import NotebookHandler
from otel_progress.live import hooks
from otel_progress.testing import Capture


class Events:
    """Calls of cells."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Callable[..., None]]] = {"pre_run_cell": [], "post_run_cell": []}

    def register(self, name: str, call: Callable[..., None]) -> None:
        self.calls[name].append(call)

    def unregister(self, name: str, call: Callable[..., None]) -> None:
        self.calls[name].remove(call)


class Shell:
    """A shell of a kernel: which cell runs, and what is displayed below which."""

    kernel = "there is one"

    def __init__(self) -> None:
        self.events = Events()
        self.display_pub = self
        self.compile = None
        self.request: dict[str, Any] = {}
        self.entered: list[dict[str, Any]] = []
        self.shown: dict[str, tuple[str, str]] = {}  # by display id: the run of the cell, and the text
        self.numbers = 0

    def get_parent(self) -> dict[str, Any]:
        return self.request

    def set_thread_parent(self, request: dict[str, Any]) -> int:
        self.entered.append(request)
        return len(self.entered)

    def reset_thread_parent(self, token: int) -> None:
        del self.entered[token - 1 :]

    def display(self, bundle: dict[str, str], *, display_id: str, raw: bool) -> None:
        assert display_id not in self.shown
        request = self.entered[-1] if self.entered else self.request
        self.shown[display_id] = request["header"]["msg_id"], bundle["text/plain"]

    def update_display(self, bundle: dict[str, str], *, display_id: str, raw: bool) -> None:
        self.shown[display_id] = self.shown[display_id][0], bundle["text/plain"]

    def begin(self, cell: str | None) -> None:
        """A cell begins."""
        self.numbers += 1
        metadata = {} if cell is None else {"cellId": cell}
        self.request = {"header": {"msg_id": f"run {self.numbers}"}, "metadata": metadata}
        for call in list(self.events.calls["pre_run_cell"]):
            call(None)

    def end(self) -> None:
        """The cell ends."""
        for call in list(self.events.calls["post_run_cell"]):
            call(None)

    @property
    def said(self) -> dict[str, str]:
        """The text below each run of a cell."""
        assert len({run for run, _ in self.shown.values()}) == len(self.shown), "two displays below one cell"
        return dict(self.shown.values())


@pytest.fixture
def shell(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A kernel without threads of ours: it is drawn when a cell ends."""
    made = Shell()
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: made  # type: ignore[attr-defined]
    display.display, display.update_display = made.display, made.update_display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    made.begin("first")
    yield made
    if notebook._active is not None:
        notebook._active.stop()


def test_a_cell_shows_its_operations(shell: Shell) -> None:
    """All operations of a cell share its display, and children are with their parents."""
    NotebookHandler().start()
    shell.begin("second")
    with progress.operation("import"), progress.operation("part"):
        pass
    progress.operation("export").start().complete()
    shell.end()
    assert list(shell.said) == ["run 2"]
    assert "import completed" in shell.said["run 2"]
    assert "export completed" in shell.said["run 2"]


def test_an_operation_stays_below_its_cell(shell: Shell) -> None:
    """What a cell left running is updated there, also while later cells run."""
    NotebookHandler().start()
    left = progress.operation("import", total=4).start()
    shell.end()
    assert "as of" in shell.said["run 1"]
    shell.begin("second")
    left.advance(2)
    progress.operation("part", parent=left).start().fail("broken")
    shell.end()
    assert "2/4" in shell.said["run 1"]
    assert "part: failed" in shell.said["run 1"]
    left.complete()
    shell.end()
    assert list(shell.said) == ["run 1"]
    assert "import completed" in shell.said["run 1"]
    assert "as of" not in shell.said["run 1"]


def test_a_cell_that_is_run_again(shell: Shell) -> None:
    """Its new output takes over what still runs, and repeats nothing that ended."""
    NotebookHandler().start()
    left = progress.operation("import").start()
    progress.operation("export").start().complete()
    shell.end()
    shell.begin("first")
    shell.end()
    assert "import" in shell.said["run 2"]
    assert "export" not in shell.said["run 2"]
    before = shell.said["run 1"]
    left.complete()
    shell.end()
    assert "import completed" in shell.said["run 2"]
    assert shell.said["run 1"] == before


def test_front_ends_that_name_no_cells(shell: Shell) -> None:
    """Without ids of cells each run is a cell of its own."""
    NotebookHandler().start()
    for _ in range(2):
        shell.begin(None)
        progress.operation("import").start().complete()
        shell.end()
    assert list(shell.said) == ["run 2", "run 3"]


def test_kernels_that_cannot_choose_the_cell(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an older kernel a display goes to the newest cell."""
    monkeypatch.delattr(Shell, "set_thread_parent")
    NotebookHandler().start()
    progress.operation("import").start().complete()
    shell.end()
    assert "import completed" in shell.said["run 1"]


def test_a_second_handler_takes_over(shell: Shell) -> None:
    """The cell that starts the handler may be run again: nothing is shown twice, and what runs is not forgotten."""
    first = NotebookHandler().start()
    left = progress.operation("import").start()
    shell.end()
    shell.begin("start again")
    second = NotebookHandler().start()
    assert not first._running
    left.complete()
    shell.end()
    assert list(shell.said) == ["run 1"]
    assert "import completed" in shell.said["run 1"]
    second.stop()
    second.stop()
    assert shell.events.calls == {"pre_run_cell": [], "post_run_cell": []}
    assert hooks.on_operation == [] or second._begun not in hooks.on_operation


def test_operations_from_before(shell: Shell) -> None:
    """An operation that already ran when the handler was started is shown."""
    left = progress.operation("import").start()
    with NotebookHandler():
        pass
    assert "import" in shell.said["run 1"]
    left.complete()


def test_a_front_end_that_fails(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the display is no error of the job, nor of the cell."""
    NotebookHandler().start()
    monkeypatch.setattr(sys.modules["IPython.display"], "display", lambda *_, **__: 1 / 0)
    with progress.operation("import"):
        pass
    shell.end()
    assert shell.said == {}


def test_without_a_notebook_it_is_a_console(progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script the same code prints lines."""
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with NotebookHandler(), progress.operation("import"):
        pass
    assert "✓ import completed" in said.getvalue()


def test_by_name() -> None:
    """It can be chosen by its name."""
    assert isinstance(chosen.named("notebook"), NotebookHandler)


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong verbosity, and a missing Rich, are said at once."""
    with pytest.raises(InvalidArgument, match="verbosity"):
        NotebookHandler("loud")  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"otel-progress\[notebook\]"):
        NotebookHandler()
