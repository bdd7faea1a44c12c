"""The fields that the job's threads and the ticker share, as `live/state.py` declares them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import otel_progress as progress
from otel_progress.live import state

tomllib = pytest.importorskip("tomllib")  # Python 3.11 has it first

SOURCE = Path(state.__file__)
PROJECT = Path(__file__).parents[3] / "pyproject.toml"
FIELDS = ("HandleState", "OperationState", "StageState")
OF_OTHERS = {"_current_frames", "_get_running_loop", "_getframe"}
"""Functions of CPython and asyncio that are documented for this use in spite of their names."""


def fields() -> dict[str, str | None]:
    """The fields of the three classes, and the line that stands below each."""
    found: dict[str, str | None] = {}
    for part in ast.parse(SOURCE.read_text("utf-8")).body:
        if not isinstance(part, ast.ClassDef) or part.name not in FIELDS:
            continue
        for line, below in zip(part.body, [*part.body[1:], None], strict=True):
            target = (
                line.target
                if isinstance(line, ast.AnnAssign)
                else line.targets[0]
                if isinstance(line, ast.Assign)
                else None
            )
            if isinstance(target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                said = text.value if isinstance(text, ast.Constant) else None
                found.setdefault(target.id, said if isinstance(said, str) else None)
    return found


def methods() -> set[str]:
    """The private methods and properties that the three classes declare."""
    return {
        each.name
        for part in ast.parse(SOURCE.read_text("utf-8")).body
        if isinstance(part, ast.ClassDef) and part.name in FIELDS
        for each in part.body
        if isinstance(each, ast.FunctionDef) and each.name.startswith("_")
    }


@pytest.mark.parametrize("name", fields())
def test_each_field_says_who_writes_and_reads_it(name: str) -> None:
    """A shared field is declared with its meaning, its writers and its readers."""
    said = fields()[name]
    assert said is not None, f"{name} has no line of its own"
    constant = "A constant." in said
    assert constant or re.search(r"(Written|Created)\b.*(Read\b|read:)", said.replace("\n", " ")), said


def test_only_declared_fields_may_be_used_by_other_modules() -> None:
    """Ruff's SLF001 knows the declared names as its only exceptions."""
    settings = tomllib.loads(PROJECT.read_text("utf-8"))["tool"]["ruff"]["lint"]["flake8-self"]
    declared = {name for name in fields() if name.startswith("_")} | methods()
    assert set(settings["extend-ignore-names"]) == declared | OF_OTHERS


def test_handles_hold_no_field_that_is_not_declared() -> None:
    """Whatever a handle does, all that it stores is declared."""
    with (
        progress.operation("work", total=3, unit="file", attributes={"a": 1}) as op,
        op.stage("load", total=2) as stage,
    ):
        for _ in stage.track([1, 2]):
            op.step("look")
        with stage.waiting("them"):
            op.usage(input_tokens=3)
        stage.record("failed", item="x")
        op.update(completed=2, ratio=0.5, message="on")
        op.advance(1.5)
        op.snapshot()
        stage.heartbeat()
    op.snapshot()
    assert set(vars(op)) | set(vars(stage)) <= set(fields())
