"""The reference on the site has all that is public: names, modules, commands, options, variables and settings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re

import pytest
from tools.docs import api, command_line, variables
from tools.docs.__main__ import reference
from tools.docs.docstrings import markdown
from tools.docs.pages import GENERATED

import otel_progress
from otel_progress import handlers
from otel_progress.cli import COMMANDS
from otel_progress.monitor.web.openapi import document
from otel_progress.settings import Settings

PAGES = reference()


def sections(page: str) -> list[str]:
    """Return the headings of a page below its first one."""
    return re.findall(r"^##+ (.+)$", page, re.MULTILINE)


def test_the_navigation_has_each_generated_page() -> None:
    """The pages that are generated are those that the navigation names."""
    assert set(PAGES) == set(GENERATED)


def test_each_public_name_has_a_section() -> None:
    """Each name of `otel_progress.__all__` has one section, with text."""
    found = [name for page in ("functions", "operations", "values", "errors") for name in sections(PAGES[page])]
    assert sorted(it for it in found if "." not in it) == sorted(set(otel_progress.__all__) - {"__version__"})


@pytest.mark.parametrize("module", api.modules().values(), ids=lambda it: it.__name__)
def test_each_public_module_has_its_names(module: object) -> None:
    """The page of the modules has a section for each name of a public module."""
    text = PAGES["modules"].split(f"\n## {module.__name__}\n", 1)[1].split("\n## ", 1)[0]  # type: ignore[attr-defined]
    assert api.names(module)  # type: ignore[arg-type]
    assert [it for it in sections(text) if "." not in it] == api.names(module)  # type: ignore[arg-type]


def test_no_handler_is_forgotten() -> None:
    """Each module of handlers that lists public names is among the public modules."""
    for found in pkgutil.iter_modules(handlers.__path__, f"{handlers.__name__}."):
        if hasattr(importlib.import_module(found.name), "__all__"):
            assert found.name in api.MODULES


def test_members_of_handles_have_a_section() -> None:
    """Each public method and property of an operation and a stage has a section."""
    found = sections(PAGES["operations"])
    for handle in (otel_progress.Operation, otel_progress.Stage):
        for name, value in inspect.getmembers(handle):
            if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert f"{handle.__name__}.{name}" in found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_options(name: str) -> None:
    """The page of the commands has each command, with all of its options."""
    text = PAGES["commands"].split(f"\n## otel-progress {name}\n", 1)[1].split("\n## ", 1)[0]
    for action in command_line.parsers()[name]._actions:
        for option in action.option_strings:
            assert re.search(rf"^\| `.*(?<![\w-]){option}(?![\w-])", text, re.MULTILINE), option


def test_each_variable_and_setting_is_there() -> None:
    """Each variable that the code reads has a meaning, and each field of `Settings` a line."""
    page = PAGES["variables"]
    assert "OTEL_PROGRESS_STALL_AFTER" in variables.read()
    for name in variables.read():
        assert re.search(rf"^\| `{name}` \| \S.* \|$", page, re.MULTILINE), name
    listed = re.findall(r"^- `(\w+)`", page.split("## Settings")[1], re.MULTILINE)
    assert listed == [field.name for field in dataclasses.fields(Settings)]


def test_each_route_and_object_is_there() -> None:
    """The page of the HTTP API has each route of the OpenAPI document, and each of its objects."""
    whole = document("")
    routes = {f"{method.upper()} {path}" for path, methods in whole["paths"].items() for method in methods}
    assert len(routes) > 15
    assert set(sections(PAGES["http"])) == routes | set(whole["components"]["schemas"]) | {"Objects"}


def test_docstrings_become_markdown() -> None:
    """Arguments and errors become lists, also where an entry goes on in the next line; other text stays."""
    text = markdown("""Do it.

    More of it.

    Args:
        first: what
            is first.
        **others: the rest.

    Raises:
        ValueError: if not.

    Example:
        `do(1)`
    """)
    assert text == (
        "Do it.\n\nMore of it.\n\n**Arguments**\n\n- `first`: what is first.\n- `**others`: the rest.\n\n"
        "**Raises**\n\n- `ValueError`: if not.\n\n**Example**\n\n`do(1)`"
    )
