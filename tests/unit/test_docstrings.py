"""The examples in the docstrings of `otel_progress.api`, run as tests."""

from __future__ import annotations

import inspect
import re

import pytest

import otel_progress as progress
from otel_progress import testing

EXAMPLE = re.compile(r"^Example: `(.+)`$", re.MULTILINE)
FUNCTIONS = {
    name: function
    for name, function in vars(progress).items()
    if getattr(function, "__module__", "") == "otel_progress.api"
}
FOUND = [
    (name, code)
    for name, function in sorted(FUNCTIONS.items())
    for code in EXAMPLE.findall(inspect.getdoc(function) or "")
]


@pytest.mark.parametrize(("name", "code"), FOUND, ids=[name for name, _ in FOUND])
def test_an_example_runs(name: str, code: str) -> None:
    """Each example of a public function runs inside an operation, uses that function, and drops nothing."""
    assert f"{name}(" in code
    with testing.capture() as captured, progress.operation("example"):
        exec(code, dict(FUNCTIONS))
        captured.look()
        assert captured.drops == {}


def test_functions_have_examples() -> None:
    """The functions that programs call most have an example."""
    assert {"operation", "stage", "track", "advance", "update", "note", "record", "waiting"} <= {
        name for name, _ in FOUND
    }
