"""Docstrings in Google style as Markdown."""

from __future__ import annotations

import inspect
import re
from typing import Final

SECTIONS: Final = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Example": "Example",
    "Examples": "Example",
    "Raises": "Raises",
    "Returns": "Returns",
    "Yields": "Yields",
}
LISTS: Final = ("Args", "Attributes", "Raises")
_HEAD: Final = re.compile(rf"({'|'.join(SECTIONS)}):(?: +(.+))?$")
_ENTRY: Final = re.compile(r"(\*{0,2}[\w.]+)(?: \([^)]*\))?: *(.*)")


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its sections become lists and code."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in inspect.cleandoc(docstring).split("\n"):
        found = _HEAD.match(line)
        if found:
            parts.append((found[1], [found[2]] if found[2] else []))
        elif line and not line.startswith(" ") and parts[-1][0] and "" in parts[-1][1]:
            parts.append(("", [line]))  # the text goes on after a section
        else:
            parts[-1][1].append(line)
    return "\n\n".join(filter(None, (_section(name, lines) for name, lines in parts)))


def _section(name: str, lines: list[str]) -> str:
    text = inspect.cleandoc("\n" + "\n".join(lines)).strip()
    if not name or not text:
        return text
    if name in LISTS:
        text = _list(text)
    elif name.startswith("Example") and not text.startswith(("`", ">>>")) and "\n" in text and "`" not in text:
        text = f"```python\n{text}\n```"
    return f"**{SECTIONS[name]}**\n\n{text}"


def _list(text: str) -> str:
    """Return `name: text` entries, which may go on in indented lines, as a list."""
    entries: list[str] = []
    for line in text.split("\n"):
        found = None if line.startswith(" ") else _ENTRY.match(line)
        if found:
            entries.append(f"- `{found[1]}`: {found[2]}")
        elif entries and line.strip():
            entries[-1] += f" {line.strip()}"
        elif line.strip():
            entries.append(f"- {line.strip()}")
    return "\n".join(entries)
