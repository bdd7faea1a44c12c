"""Commands and options in README.md and docs/ are real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.docs.command_line import parsers

from otel_progress.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONS = {name: set(parser._option_string_actions) for name, parser in parsers().items()}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return each command of ours in code, with its options; what `run` starts is not ours."""
    code = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    code += re.findall(r"`(otel-progress [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = "\n".join(code).replace("\\\n", " ")
    found = re.findall(r"(?:^|[\s`])otel-progress ([a-z]+)(?![\w:.])([^|#;&\n]*)", lines)
    return [(name, re.findall(r"(?<![\w-])--[a-z][\w-]*", rest.partition(" -- ")[0])) for name, rest in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.stem)
def test_documented_commands_exist(page: Path) -> None:
    """Each command that a page shows exists, and has the options that the page gives it."""
    for name, options in commands(page.read_text(encoding="utf-8")):
        assert name in COMMANDS, f"otel-progress {name}"
        assert set(options) <= OPTIONS[name], f"otel-progress {name} {options}"


def test_commands_are_found() -> None:
    """The test above sees commands in fences and in text, and leaves out what `run` starts."""
    text = (
        "```sh\nA=1 otel-progress list --json  # all\n```\nand `otel-progress run -f -- job --fast`, `otel-progress==1`"
    )
    assert commands(text) == [("list", ["--json"]), ("run", [])]


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.stem)
def test_page_installs_what_run_needs(page: Path) -> None:
    """A page whose commands install the package, and that starts a program by `run`, installs the extra for it."""
    text = page.read_text(encoding="utf-8")
    starts = re.search(r"otel-progress run (?:-\S+ )*(?:-- )?[a-z]", text)
    if starts and re.search(r"^(\$ )?pip install .*otel-progress", text, re.MULTILINE):
        extras = re.findall(r"pip install [^#\n]*otel-progress\[([\w,]+)\]", text)
        assert any("monitor" in one for one in extras)
